//! Random ROMs. Noise alone soon ends in a fault that real mode cannot deliver, so most ROMs
//! begin with enough code to reach a mode in which much can happen, and then run noise.

use fastrand::Rng;

const SIZE: usize = 64 * 1024;

/// The reset vector: F000:FFF0, 16 bytes below the end (Intel SDM volume 3, section 10.1.4).
const RESET_VECTOR: usize = SIZE - 16;

/// Where the prologue goes, away from where noise is entered most.
const PROLOGUE: usize = 0xf000;
const GDT: usize = 0xf800;
const GDT_POINTER: usize = 0xf900;
/// The ROM's linear address below 1 MiB.
const BASE: u32 = 0xf0000;

/// The ROM of a seed.
pub(super) fn generate(seed: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed);
    let mut rom: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(SIZE).collect();
    let entry = rng.u16(..PROLOGUE as u16);
    match rng.u8(..4) {
        0 => {}
        1 => put(&mut rom, RESET_VECTOR, &far_jump16(0xf000, entry)),
        2 => {
            let mut code = real_mode_vectors(entry);
            code.extend(far_jump16(0xf000, entry));
            put(&mut rom, PROLOGUE, &code);
            put(&mut rom, RESET_VECTOR, &far_jump16(0xf000, PROLOGUE as u16));
        }
        _ => {
            put(&mut rom, GDT, &flat_descriptors());
            put(&mut rom, GDT_POINTER, &pointer(23, BASE + GDT as u32));
            put(&mut rom, PROLOGUE, &enter_protected_mode(entry));
            put(&mut rom, RESET_VECTOR, &far_jump16(0xf000, PROLOGUE as u16));
        }
    }
    rom
}

fn put(rom: &mut [u8], at: usize, bytes: &[u8]) {
    rom[at..at + bytes.len()].copy_from_slice(bytes);
}

/// `jmp segment:offset` in 16-bit code.
fn far_jump16(segment: u16, offset: u16) -> Vec<u8> {
    [&[0xea][..], &offset.to_le_bytes(), &segment.to_le_bytes()].concat()
}

/// Points all 256 real-mode vectors into the ROM, so that faults go on to run noise, and sets
/// a stack.
fn real_mode_vectors(handler: u16) -> Vec<u8> {
    let [low, high] = handler.to_le_bytes();
    vec![
        0x31, 0xff, // xor di, di
        0x8e, 0xc7, // mov es, di
        0x8e, 0xd7, // mov ss, di
        0xbc, 0x00, 0x7c, // mov sp, 0x7c00
        0xb9, 0x00, 0x01, // mov cx, 256
        0xfc, // cld
        0xb8, low, high, // fill: mov ax, handler
        0xab, // stosw
        0xb8, 0x00, 0xf0, // mov ax, 0xf000
        0xab, // stosw
        0xe2, 0xf6, // loop fill
    ]
}

/// A flat 32-bit segment of code and one of data behind the null descriptor
/// (Intel SDM volume 3, section 3.4.5).
fn flat_descriptors() -> Vec<u8> {
    [0, 0x00cf_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff].map(u64::to_le_bytes).concat()
}

fn pointer(limit: u16, base: u32) -> Vec<u8> {
    [&limit.to_le_bytes()[..], &base.to_le_bytes()].concat()
}

fn enter_protected_mode(entry: u16) -> Vec<u8> {
    let [low, high] = (GDT_POINTER as u16).to_le_bytes();
    let [entry_low, entry_high] = entry.to_le_bytes();
    vec![
        0x2e, 0x66, 0x0f, 0x01, 0x16, low, high, // lgdt cs:[GDT_POINTER], 32-bit base
        0x0f, 0x20, 0xc0, // mov eax, cr0
        0x0c, 0x01, // or al, 1
        0x0f, 0x22, 0xc0, // mov cr0, eax
        0xb8, 0x10, 0x00, // mov ax, 16
        0x8e, 0xd8, // mov ds, ax
        0x8e, 0xc0, // mov es, ax
        0x8e, 0xd0, // mov ss, ax
        0x66, 0xbc, 0x00, 0x7c, 0x00, 0x00, // mov esp, 0x7c00
        0x66, 0xea, entry_low, entry_high, 0x0f, 0x00, 0x08, 0x00, // jmp 8:BASE + entry
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_rom() {
        for seed in 0..16 {
            assert_eq!(generate(seed).len(), SIZE);
            assert_eq!(generate(seed), generate(seed));
            assert_ne!(generate(seed), generate(seed + 1));
        }
    }
}
