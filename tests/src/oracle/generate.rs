//! Random instructions of given kinds, with random operands.

use fastrand::Rng;
use iced_x86::{Code, Encoder, Instruction, Mnemonic, OpCodeOperandKind, OpKind, Register};

use crate::operands::{fill, prefixes, value};

use super::layout::{INSTRUCTION, SCRATCH, SCRATCH_LEN};
use super::state::{Mode, State};

/// The value of an index register, without a base, that leads to where the displacement was meant to.
const MIDDLE: u64 = 0x80;

/// A case: an instruction and what it starts from.
#[derive(Clone)]
pub struct Generated {
    /// The mode it is executed in.
    pub mode: Mode,
    /// The instruction.
    pub instruction: Instruction,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The state before.
    pub state: State,
}

impl Generated {
    /// The address of the instruction's memory operand.
    pub fn address(&self) -> Option<u64> {
        let i = &self.instruction;
        let memory = (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory)?;
        address(i, memory, &self.state.regs)
    }
}

/// The address of operand `n`.
fn address(i: &Instruction, n: u32, regs: &[u64; 16]) -> Option<u64> {
    i.virtual_address(n, 0, |register, _, _| {
        Some(if register.is_segment_register() {
            0
        } else if register.is_gpr32() {
            regs[register.number()] & 0xffff_ffff
        } else if register.is_gpr8() {
            regs[register.number()] & 0xff
        } else {
            regs[register.number()]
        })
    })
}

/// A random instance of `code`.
pub fn generate(rng: &mut Rng, code: Code, mode: Mode) -> Generated {
    loop {
        let mut instruction = Instruction::new();
        instruction.set_code(code);
        instruction.set_code_size(mode.code_size());
        let form = code.op_code();
        for n in 0..form.op_count() {
            fill(rng, &mut instruction, n, mode.bits(), |rng, i| memory(rng, i, mode));
        }
        if instruction.mnemonic() == Mnemonic::Enter && rng.u8(..8) != 0 {
            // A frame that fits.
            instruction.set_immediate16(rng.u16(..0x100));
        }
        prefixes(rng, &mut instruction);
        let mut encoder = Encoder::new(mode.bits());
        // Not every combination exists: AH next to a REX prefix, for one.
        if encoder.encode(&instruction, INSTRUCTION).is_ok() {
            let state = state(rng, &instruction, mode);
            return Generated { mode, instruction, bytes: encoder.take_buffer(), state };
        }
    }
}

/// Gives `case` another state to start from.
pub fn vary(rng: &mut Rng, case: &mut Generated) {
    case.state = state(rng, &case.instruction, case.mode);
}

/// The first register of the kind that holds a gather's indices.
fn gather_indices(i: &Instruction) -> Option<Register> {
    match i.code().op_code().op_kind(1) {
        OpCodeOperandKind::mem_vsib32x | OpCodeOperandKind::mem_vsib64x => Some(Register::XMM0),
        OpCodeOperandKind::mem_vsib32y | OpCodeOperandKind::mem_vsib64y => Some(Register::YMM0),
        _ => None,
    }
}

/// A random form of address, with its displacement; the registers are set when the state is made.
fn memory(rng: &mut Rng, i: &mut Instruction, mode: Mode) {
    let gathers = gather_indices(i);
    if mode == Mode::Compatibility && gathers.is_none() && rng.u8(..16) == 0 {
        return short_memory(rng, i);
    }
    let (first, count, longest) = match mode {
        Mode::Long if rng.u8(..8) != 0 => (Register::RAX, 16, 8),
        Mode::Long => (Register::EAX, 16, 8),
        Mode::Compatibility => (Register::EAX, 8, 4),
    };
    let target = SCRATCH + offset(rng);
    match rng.u8(..8) {
        0 if gathers.is_none() => {
            if mode == Mode::Long {
                i.set_memory_base(Register::RIP);
            }
            i.set_memory_displ_size(longest);
            i.set_memory_displacement64(target);
            return;
        }
        1 if gathers.is_none() => i.set_memory_displ_size(4),
        form => {
            i.set_memory_base(first + rng.u32(..count));
            i.set_memory_displ_size(if form < 6 { 1 } else { longest });
        }
    }
    let index = first + rng.u32(..count);
    if let Some(vectors) = gathers {
        i.set_memory_index(vectors + rng.u32(..count));
        i.set_memory_index_scale(1 << rng.u32(..4));
    } else if index.number() != 4 && (rng.bool() || i.memory_base() == Register::None) {
        // RSP cannot be an index.
        i.set_memory_index(index);
        i.set_memory_index_scale(1 << rng.u32(..4));
    }
    if i.memory_base() == Register::None && i.memory_index() == Register::None {
        i.set_memory_base(first);
    }
    let displacement = if i.memory_base() == Register::None {
        target - MIDDLE * u64::from(i.memory_index_scale())
    } else if i.memory_displ_size() == 1 {
        i64::from(rng.i8(..)) as u64
    } else {
        i64::from(rng.i32(-0x1000..0x1000)) as u64
    };
    let short = !first.is_gpr64();
    i.set_memory_displacement64(if short { displacement & 0xffff_ffff } else { displacement });
}

/// A form of address of 16 bits (SDM vol. 2, table 2-1). It does not reach the scratch memory.
fn short_memory(rng: &mut Rng, i: &mut Instruction) {
    use Register::{BP, BX, DI, None, SI};
    const FORMS: [(Register, Register); 8] =
        [(BX, SI), (BX, DI), (BP, SI), (BP, DI), (SI, None), (DI, None), (BP, None), (BX, None)];
    let (base, index) = FORMS[rng.usize(..FORMS.len())];
    i.set_memory_base(base);
    i.set_memory_index(index);
    i.set_memory_displ_size(2);
    i.set_memory_displacement64(u64::from(rng.u16(..)));
}

/// An offset into the scratch memory: mostly well inside, sometimes across pages or its end.
fn offset(rng: &mut Rng) -> u64 {
    let len = SCRATCH_LEN as u64;
    match rng.u8(..16) {
        0 => len / 2 - rng.u64(..32),
        1 => len - rng.u64(..32),
        2..8 => (len / 4 + rng.u64(..len / 2)) & !15,
        _ => len / 4 + rng.u64(..len / 2),
    }
}

/// A random state for an instruction.
fn state(rng: &mut Rng, i: &Instruction, mode: Mode) -> State {
    const FIXED: u64 = 0x202;
    const DF: u64 = 1 << 10;
    let mut regs = std::array::from_fn(|_| value(rng));
    let mut scratch = scratch(rng);
    let place = |rng: &mut Rng| SCRATCH + offset(rng);
    regs[4] = place(rng);
    if i.is_string_instruction() {
        (regs[1], regs[6], regs[7]) = (rng.u64(..40), place(rng), place(rng));
        if rng.bool() {
            // Comparisons that go on for a while.
            scratch.fill(rng.u8(..));
            regs[0] = u64::from_le_bytes([scratch[0]; 8]);
        }
    } else if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
        aim(rng, i, &mut regs);
    } else if matches!(i.mnemonic(), Mnemonic::Enter | Mnemonic::Leave) {
        regs[5] = place(rng);
    }
    if matches!(i.mnemonic(), Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq) {
        harmless_flags(&mut scratch[(regs[4] - SCRATCH) as usize..]);
    }
    divide(rng, i, &mut regs);
    if mode == Mode::Compatibility {
        // The other halves and registers do not exist.
        regs = std::array::from_fn(|n| if n < 8 { regs[n] & 0xffff_ffff } else { 0 });
    }
    compare(rng, i, &mut regs, &mut scratch[..]);
    let df = if i.is_string_instruction() && rng.bool() { DF } else { 0 };
    let rflags = FIXED | df | rng.u64(..) & brolga_cpu::vcpu::rflags::STATUS;
    let ymm_high = std::array::from_fn(|_| u128::from_le_bytes(vector(rng)));
    let mut state = State { regs, rflags, fx: fx(rng), ymm_high, scratch };
    indices(rng, i, &mut state);
    if matches!(i.mnemonic(), Mnemonic::Fxrstor | Mnemonic::Fxrstor64) {
        fxrstor_operand(rng, i, &mut state);
    }
    state
}

/// Clears what would trap, or outlive the instruction, in the flags that POPF finds.
fn harmless_flags(stack: &mut [u8]) {
    const TF: u8 = 1;
    const NT: u8 = 1 << 6;
    const AC: u8 = 1 << 2;
    for (byte, cleared) in stack.iter_mut().zip([0, TF | NT, AC]) {
        *byte &= !cleared;
    }
}

/// Puts an image where FXRSTOR reads it.
fn fxrstor_operand(rng: &mut Rng, i: &Instruction, state: &mut State) {
    let at = address(i, 0, &state.regs).map(|a| a.wrapping_sub(SCRATCH) as usize);
    let image = fx(rng);
    if let Some(place) = at.and_then(|at| state.scratch.get_mut(at..at.checked_add(image.len())?)) {
        place.copy_from_slice(&image);
    }
}

/// Bytes, singles or doubles: some, over and over. Their period divides no page.
fn scratch(rng: &mut Rng) -> Box<[u8; SCRATCH_LEN]> {
    let mut some = [0; 0x1f0];
    match rng.u8(..3) {
        0 => rng.fill(&mut some),
        1 => some.as_chunks_mut::<4>().0.fill_with(|| single(rng).to_le_bytes()),
        _ => some.as_chunks_mut::<8>().0.fill_with(|| double(rng).to_le_bytes()),
    }
    let mut scratch = Box::new([0; SCRATCH_LEN]);
    for part in scratch.chunks_mut(some.len()) {
        part.copy_from_slice(&some[..part.len()]);
    }
    scratch
}

/// Gives the index register of a gather values that lead into the scratch memory mostly.
fn indices(rng: &mut Rng, i: &Instruction, state: &mut State) {
    if !i.memory_index().is_vector_register() {
        return;
    }
    let n = i.memory_index().number();
    let far = matches!(
        i.mnemonic(),
        Mnemonic::Vgatherqps | Mnemonic::Vpgatherqd | Mnemonic::Vgatherqpd | Mnemonic::Vpgatherqq
    );
    let mut half = || {
        let mut index = || match rng.u8(..40) {
            // Not among the host kernel's addresses, whose faults it misrepresents.
            0 => rng.i32(0x10_0000..),
            _ => rng.i32(-0x80..0x80),
        };
        let lanes = [index(), index(), index(), index()];
        if far {
            [lanes[0], lanes[1]]
                .into_iter()
                .rev()
                .fold(0, |v, x| v << 64 | u128::from(i64::from(x) as u64))
        } else {
            lanes.into_iter().rev().fold(0, |v, x| v << 32 | u128::from(x as u32))
        }
    };
    state.fx[160 + 16 * n..][..16].copy_from_slice(&half().to_le_bytes());
    state.ymm_high[n] = half();
}

/// Sets registers so that the memory operand lies in the scratch memory, or as near to it as the form
/// of the address allows.
fn aim(rng: &mut Rng, i: &Instruction, regs: &mut [u64; 16]) {
    let wide = i.memory_base().is_gpr64() || i.memory_index().is_gpr64();
    // A bit offset in a register reaches far: keep it near.
    if matches!(i.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && i.op1_kind() == OpKind::Register
    {
        let reg = &mut regs[i.op1_register().number()];
        *reg = (i64::from(rng.i16(-0x2000..0x2000)) as u64) ^ if wide { 0 } else { 1 };
        if i.op1_register().is_gpr32() {
            *reg &= 0xffff_ffff;
        }
    }
    let scale = u64::from(i.memory_index_scale());
    let (base, index) = (i.memory_base(), i.memory_index());
    if base == Register::RIP || base.is_gpr16() {
        return;
    }
    if base == Register::None {
        if index.is_gpr() {
            regs[index.number()] = if rng.bool() { MIDDLE } else { rng.u64(..2 * MIDDLE) };
        }
    } else {
        let mut sum = (SCRATCH + offset(rng)).wrapping_sub(i.memory_displacement64());
        if !wide {
            sum &= 0xffff_ffff;
        }
        if index == base {
            sum /= scale + 1;
        } else if index.is_gpr() {
            let v = rng.u64(..if index.is_gpr8() { 0x100 } else { 0x1_0000 });
            regs[index.number()] = v;
            sum = sum.wrapping_sub(v * scale);
        }
        regs[base.number()] = sum;
    }
    if !wide {
        // The upper halves do not count, but RSP's does for everything else.
        for r in [base, index] {
            if r.is_gpr() && r.number() != 4 {
                let upper = rng.u64(..) << 32;
                regs[r.number()] = upper | regs[r.number()] & 0xffff_ffff;
            }
        }
    }
}

/// Half of all divisions shall not overflow.
fn divide(rng: &mut Rng, i: &Instruction, regs: &mut [u64; 16]) {
    if matches!(i.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) && rng.bool() {
        let negative = i.mnemonic() == Mnemonic::Idiv && rng.bool();
        let memory = i.op0_kind() == OpKind::Memory;
        let used = |n: usize| {
            memory
                && [i.memory_base(), i.memory_index()]
                    .iter()
                    .any(|r| *r != Register::None && *r != Register::RIP && r.number() == n)
        };
        if !used(2) {
            regs[2] = if negative { u64::MAX } else { 0 };
        }
    }
}

/// Half of all compare-and-exchanges shall succeed.
fn compare(rng: &mut Rng, i: &Instruction, regs: &mut [u64; 16], scratch: &mut [u8]) {
    let compares =
        matches!(i.mnemonic(), Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b);
    if !compares || rng.bool() {
        return;
    }
    if i.op0_kind() == OpKind::Register {
        if !i.op0_register().is_gpr8() {
            regs[i.op0_register().number()] = regs[0];
        }
        return;
    }
    let expected = match i.mnemonic() {
        Mnemonic::Cmpxchg8b => (regs[2] << 32 | regs[0] & 0xffff_ffff).to_le_bytes().to_vec(),
        _ => [regs[0].to_le_bytes(), regs[2].to_le_bytes()].concat(),
    };
    let at = address(i, 0, regs).map(|a| a.wrapping_sub(SCRATCH) as usize);
    if let Some(place) = at.and_then(|at| scratch.get_mut(at..at.checked_add(expected.len())?)) {
        place.copy_from_slice(&expected);
    }
}

/// Random x87 and SSE state, all exceptions masked most of the time.
fn fx(rng: &mut Rng) -> [u8; 512] {
    let mut fx = [0; 512];
    let mut fcw = 0x037f ^ if rng.u8(..4) == 0 { rng.u16(..16) << 8 } else { 0 };
    let mut fsw = rng.u16(..) & 0x7f00;
    if rng.u8(..8) == 0 {
        // Some exceptions are unmasked, some flags are set.
        fcw &= !rng.u16(..0x40);
        fsw |= rng.u16(..0x80) & rng.u16(..0x80);
    }
    fx[0..2].copy_from_slice(&fcw.to_le_bytes());
    fx[2..4].copy_from_slice(&fsw.to_le_bytes());
    fx[4] = if rng.bool() { 0xff } else { rng.u8(..) };
    // Pointers to the last instruction and its operand, and its opcode.
    fx[6..8].copy_from_slice(&rng.u16(..0x800).to_le_bytes());
    fx[8..16].copy_from_slice(&(rng.u64(..) >> 17).to_le_bytes());
    fx[16..24].copy_from_slice(&(rng.u64(..) >> 17).to_le_bytes());
    let mut mxcsr = 0x1f80 | u32::from(rng.u8(..4)) << 13;
    if rng.u8(..4) == 0 {
        mxcsr ^= u32::from(rng.u8(..64)) << 7;
    }
    if rng.u8(..4) == 0 {
        mxcsr |= 0x8040;
    }
    fx[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    for n in 0..8 {
        let (mantissa, exponent) = extended(rng);
        fx[32 + 16 * n..][..8].copy_from_slice(&mantissa.to_le_bytes());
        fx[40 + 16 * n..][..2].copy_from_slice(&exponent.to_le_bytes());
    }
    for n in 0..16 {
        let at = 160 + 16 * n;
        fx[at..at + 16].copy_from_slice(&vector(rng));
    }
    fx
}

/// Bytes, singles, doubles or half-precision numbers.
fn vector(rng: &mut Rng) -> [u8; 16] {
    let mut v = [0; 16];
    match rng.u8(..3) {
        0 => rng.fill(&mut v),
        1 => v.as_chunks_mut::<4>().0.fill_with(|| single(rng).to_le_bytes()),
        _ => v.as_chunks_mut::<8>().0.fill_with(|| double(rng).to_le_bytes()),
    }
    v
}

fn single(rng: &mut Rng) -> u32 {
    let sign = u32::from(rng.bool()) << 31;
    sign | match rng.u8(..10) {
        0 => 0,
        1 => 0x7f80_0000,
        2 => 0x7fc0_0000 | rng.u32(..) >> 10,
        3 => 0x7f80_0001 | rng.u32(..) >> 11,
        4 => rng.u32(..) >> 9,
        5 => (f32::from(rng.i16(..))).to_bits(),
        6 => 0x3f80_0000 + (rng.u32(..) >> 6) - (1 << 25),
        _ => rng.u32(..) >> 1,
    }
}

fn double(rng: &mut Rng) -> u64 {
    let sign = u64::from(rng.bool()) << 63;
    sign | match rng.u8(..10) {
        0 => 0,
        1 => 0x7ff0 << 48,
        2 => 0x7ff8 << 48 | rng.u64(..) >> 13,
        3 => 0x7ff0 << 48 | 1 | rng.u64(..) >> 14,
        4 => rng.u64(..) >> 12,
        5 => f64::from(rng.i32(..)).to_bits(),
        6 => (0x3ff0u64 << 48) + (rng.u64(..) >> 6) - (1 << 57),
        _ => rng.u64(..) >> 1,
    }
}

fn extended(rng: &mut Rng) -> (u64, u16) {
    const INTEGER: u64 = 1 << 63;
    let sign = u16::from(rng.bool()) << 15;
    let (mantissa, exponent) = match rng.u8(..14) {
        0 => (0, 0),
        1 => (INTEGER, 0x7fff),
        2 => (3 << 62 | rng.u64(..), 0x7fff),
        3 => (INTEGER | 1 | rng.u64(..) >> 2, 0x7fff),
        4 => (rng.u64(..) >> 1, 0),
        5 => (rng.u64(..), rng.u16(..0x8000)),
        6..8 => (INTEGER | rng.u64(..) << rng.u32(..64), 0x3fff + rng.u16(..64)),
        8 => (INTEGER | rng.u64(..) << rng.u32(..64), 0x4000 - rng.u16(..64)),
        9..12 => (INTEGER | rng.u64(..), rng.u16(1..0x7fff)),
        // Pseudo-denormals, pseudo-infinities and pseudo-NaNs.
        12 => (INTEGER | rng.u64(..) >> rng.u32(1..64), 0),
        _ => (rng.u64(..) >> rng.u32(1..64), 0x7fff),
    };
    (mantissa, sign | exponent)
}
