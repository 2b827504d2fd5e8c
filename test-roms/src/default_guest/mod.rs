//! The embedded default guest: what `brolga` boots when it is given nothing else.
//!
//! It needs a PC with the standard devices and nothing of any particular emulator. Its stages are
//! a file each, in the order of execution:
//! [`real`] → [`protected`] → [`long`] → [`timers`] → [`cpu`] → [`speed`] → [`monitor`].

mod banner;
mod commands;
mod console;
mod cpu;
mod faults;
mod format;
mod interrupts;
mod long;
mod memory;
mod monitor;
mod power;
mod protected;
mod real;
mod speed;
mod timers;

use crate::rom::{Emit, Mode, RomBuilder};

/// The default guest's image, [`ROM_SIZE`](crate::rom::ROM_SIZE) bytes that end at 4 GiB.
pub fn default_guest() -> Vec<u8> {
    build().expect("the default guest's instructions are all encodable")
}

fn build() -> Emit<Vec<u8>> {
    let mut rom = RomBuilder::new();
    let idt = rom.reserve(interrupts::IDT_SIZE);
    let long = rom.section(Mode::Bits64, memory::SHADOW, |a| {
        long::emit(a, idt)?;
        console::emit(a)?;
        format::emit(a)?;
        interrupts::emit(a)?;
        faults::emit(a)?;
        timers::emit(a)?;
        cpu::emit(a)?;
        speed::emit(a)?;
        monitor::emit(a)?;
        commands::emit(a)?;
        power::emit(a)
    })?;
    rom.fill(idt, &interrupts::idt(&long));
    let protected = rom.section(Mode::Bits32, memory::SHADOW, |a| {
        protected::emit(a, long.address_of("long"))?;
        console::emit(a)
    })?;
    let real = rom.section(Mode::Bits16, 0, |a| {
        real::emit(a, protected.address_of("protected"))?;
        console::emit(a)
    })?;
    let entry = u16::try_from(real.address_of("real")).expect("offsets in the ROM are 16 bits");
    Ok(rom.finish(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rom::{RESET_VECTOR, ROM_SEGMENT, ROM_SIZE};
    use iced_x86::{Code, Decoder, DecoderOptions};

    #[test]
    fn the_reset_vector_jumps_to_code_that_disables_interrupts() {
        let image = default_guest();
        assert_eq!(image.len(), ROM_SIZE);
        let ip = RESET_VECTOR as u64;
        let jump = Decoder::with_ip(16, &image[RESET_VECTOR..], ip, DecoderOptions::NONE).decode();
        assert_eq!(jump.code(), Code::Jmp_ptr1616);
        assert_eq!(jump.far_branch_selector(), ROM_SEGMENT);
        let entry = usize::from(jump.far_branch16());
        let first = Decoder::new(16, &image[entry..], DecoderOptions::NONE).decode();
        assert_eq!(first.code(), Code::Cli);
    }

    #[test]
    fn building_twice_gives_the_same_image() {
        assert!(default_guest() == default_guest());
    }

    #[test]
    fn every_gate_leads_to_the_stub_of_its_vector() {
        let image = default_guest();
        // The IDT is the first constant.
        for (vector, gate) in image[..interrupts::IDT_SIZE].chunks(16).enumerate() {
            let offset = u32::from_le_bytes([gate[0], gate[1], gate[6], gate[7]]);
            let at = (offset - memory::SHADOW) as usize;
            let mut decoder = Decoder::new(64, &image[at..], DecoderOptions::NONE);
            let mut first = decoder.decode();
            // #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, and AMD's #VC and #SX.
            if ![8, 10, 11, 12, 13, 14, 17, 21, 29, 30].contains(&vector) {
                assert_eq!((first.code(), first.immediate(0)), (Code::Pushq_imm8, 0), "{vector}");
                first = decoder.decode();
            }
            assert_eq!(first.immediate(0), vector as u64);
            assert_eq!(gate[4], u8::from(vector == 8), "only #DF has its own stack: {vector}");
        }
    }
}
