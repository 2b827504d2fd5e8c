//! One stack frame for all regions.
//!
//! A function of Cranelift's tail-call convention saves the registers that its caller expects back
//! when it begins, and restores them before it jumps to the next: most of what a short region would
//! do. Regions are only ever entered from [`crate::enter`], which saves those registers once, and
//! from each other. So their code is changed: it is entered behind its prologue, and each jump to
//! another region, with the epilogue before it, becomes the jump alone. All regions use the lowest
//! bytes of one frame, which is large enough for each of them.

/// Bytes of the frame below the frame pointer, a multiple of 16.
pub(crate) const FRAME: usize = 8 << 10;
/// Bytes at its upper end that belong to [`crate::enter`]: the saved registers.
pub(crate) const SAVED: usize = 5 * 8;

const PUSH_RBP: &[u8] = &[0x55];
const MOV_RBP_RSP: &[u8] = &[0x48, 0x89, 0xe5];
const MOV_RSP_RBP_POP_RBP: &[u8] = &[0x48, 0x89, 0xec, 0x5d];
const TRAP: u8 = 0xcc;

/// Makes a function a region. `sites` are the ends of its calls and of its jumps to other
/// functions. Returns where it is to be entered, or `None` if its code does not look as expected,
/// or needs a larger frame.
pub(crate) fn share(code: &mut [u8], sites: impl Iterator<Item = usize>) -> Option<usize> {
    let (entry, epilogue) = prologue(code)?;
    for end in sites {
        if let Some(jump) = indirect_jump(code.get(..end)?) {
            let start = end.checked_sub(jump.len() + epilogue.len())?;
            let place = &mut code[start..end];
            if !place.starts_with(&epilogue) {
                return None;
            }
            place.fill(TRAP);
            place[..jump.len()].copy_from_slice(&jump);
        }
    }
    Some(entry)
}

/// The length of the prologue, and the epilogue that undoes it.
fn prologue(code: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut rest = code.strip_prefix(PUSH_RBP)?.strip_prefix(MOV_RBP_RSP)?;
    let mut restore = Vec::new();
    let mut release = Vec::new();
    if let Some((bytes, length)) = subtraction(rest) {
        if bytes > FRAME - SAVED {
            return None;
        }
        let (sub, behind) = rest.split_at(length);
        release.extend_from_slice(sub);
        // From SUB to ADD: the ModRM's opcode extension (SDM vol. 2, table A-6).
        release[2] = 0xc4;
        rest = behind;
        while let Some(length) = save(rest) {
            let (store, behind) = rest.split_at(length);
            let from = restore.len();
            restore.extend_from_slice(store);
            // From `mov [m], r` to `mov r, [m]`.
            restore[from + 1] = 0x8b;
            rest = behind;
        }
    }
    let epilogue = [&restore, &release, MOV_RSP_RBP_POP_RBP].concat();
    Some((code.len() - rest.len(), epilogue))
}

/// The operand and the length of `sub rsp, imm`.
fn subtraction(code: &[u8]) -> Option<(usize, usize)> {
    match *code {
        [0x48, 0x83, 0xec, imm, ..] => Some((usize::from(imm), 4)),
        [0x48, 0x81, 0xec, a, b, c, d, ..] => Some((u32::from_le_bytes([a, b, c, d]) as usize, 7)),
        _ => None,
    }
}

/// The length of `mov [rsp+disp], r`, where `r` is one of RBX and R12 to R15: nothing but a
/// prologue stores those before it has written them.
fn save(code: &[u8]) -> Option<usize> {
    let [rex, 0x89, modrm, 0x24, ..] = *code else { return None };
    let reg = match rex {
        0x48 => modrm >> 3 & 7,
        0x4c => 8 | modrm >> 3 & 7,
        _ => return None,
    };
    if !matches!(reg, 3 | 12..=15) {
        return None;
    }
    // RSP as the base takes a SIB byte (SDM vol. 2A, 2.1.5).
    match modrm & 0b11_000_111 {
        0b00_000_100 => Some(4),
        0b01_000_100 => Some(5),
        0b10_000_100 => Some(8),
        _ => None,
    }
}

/// The indirect jump through a register that `code` ends with.
fn indirect_jump(code: &[u8]) -> Option<Vec<u8>> {
    match *code {
        [.., 0x41, 0xff, modrm] if modrm & 0xf8 == 0xe0 => Some(vec![0x41, 0xff, modrm]),
        [.., 0xff, modrm] if modrm & 0xf8 == 0xe0 => Some(vec![0xff, modrm]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVES: [u8; 10] = [0x48, 0x89, 0x5c, 0x24, 0x10, 0x4c, 0x89, 0x64, 0x24, 0x18];
    const RESTORES: [u8; 10] = [0x48, 0x8b, 0x5c, 0x24, 0x10, 0x4c, 0x8b, 0x64, 0x24, 0x18];

    fn function(body: &[u8], last: &[u8]) -> Vec<u8> {
        let enter = [PUSH_RBP, MOV_RBP_RSP, &[0x48, 0x83, 0xec, 0x40], &SAVES].concat();
        let leave = [&RESTORES, &[0x48, 0x83, 0xc4, 0x40][..], MOV_RSP_RBP_POP_RBP].concat();
        [&enter, body, &leave, last].concat()
    }

    #[test]
    fn a_jump_loses_the_epilogue_before_it() {
        let jump = [0x41, 0xff, 0xe2];
        let mut code = function(&[0x90], &jump);
        let len = code.len();
        assert_eq!(share(&mut code, [len].into_iter()), Some(18));
        assert_eq!(code[18], 0x90);
        assert_eq!(code[19..22], jump);
        assert!(code[22..].iter().all(|byte| *byte == TRAP));
    }

    #[test]
    fn calls_stay() {
        let mut code = function(&[0x41, 0xff, 0xd2], &[0xff, 0xe0]);
        let len = code.len();
        assert_eq!(share(&mut code, [21, len].into_iter()), Some(18));
        assert_eq!(code[18..21], [0x41, 0xff, 0xd2]);
        assert_eq!(code[21..23], [0xff, 0xe0]);
    }

    #[test]
    fn what_is_not_as_expected_is_refused() {
        let jump = [0xff, 0xe0];
        let mut no_epilogue = [PUSH_RBP, MOV_RBP_RSP, &[0x90; 8], &jump].concat();
        let len = no_epilogue.len();
        assert_eq!(share(&mut no_epilogue, [len].into_iter()), None);
        let mut no_prologue = jump.to_vec();
        assert_eq!(share(&mut no_prologue, [2].into_iter()), None);
        let large = ((FRAME - SAVED + 1) as u32).to_le_bytes();
        let mut code = [PUSH_RBP, MOV_RBP_RSP, &[0x48, 0x81, 0xec], &large].concat();
        assert_eq!(share(&mut code, std::iter::empty()), None);
    }
}
