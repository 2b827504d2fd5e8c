//! Small ROMs that do one thing, for tests of the machine. They start in real mode at F000:xxxx
//! and use no RAM.

use iced_x86::code_asm::*;

use crate::rom::{Emit, Mode, ROM_SEGMENT, RomBuilder, Section, emit};

const EXIT_PORT: u16 = 0xF4;
const DEBUG_PORT: u16 = 0xE9;
const COM1: u16 = 0x3F8;

fn real_mode_rom(write: impl FnOnce(&mut Section<'_>) -> Emit) -> Vec<u8> {
    let build = || -> Emit<Vec<u8>> {
        let mut rom = RomBuilder::new();
        let code = rom.section(Mode::Bits16, 0, |a| {
            a.at("entry")?;
            write(a)
        })?;
        let entry = u16::try_from(code.address_of("entry")).expect("offsets are 16 bits");
        Ok(rom.finish(entry))
    };
    build().expect("the ROM's instructions are all encodable")
}

fn emit_halt(a: &mut Section<'_>) -> Emit {
    emit!(a; cli(); at(".halt"); hlt(); jmp -> ".halt";);
    Ok(())
}

/// Writes `code` to the exit port F4h, a byte, then halts.
pub fn exit_rom(code: u8) -> Vec<u8> {
    real_mode_rom(|a| {
        a.outb(EXIT_PORT, code)?;
        emit_halt(a)
    })
}

/// Loads an IDT that holds nothing, then executes an undefined opcode: #UD, #GP in its delivery,
/// #DF in that one's, shutdown.
pub fn triple_fault_rom() -> Vec<u8> {
    real_mode_rom(|a| {
        let no_idt = a.constant(&[0; 10]);
        emit!(a; lidt(ptr(no_idt).cs()); ud2(););
        Ok(())
    })
}

/// CLI; HLT.
pub fn halt_forever_rom() -> Vec<u8> {
    real_mode_rom(emit_halt)
}

/// Resets the machine at once, by port 92h and, where that does nothing, by CF9h.
pub fn reset_loop_rom() -> Vec<u8> {
    real_mode_rom(|a| {
        emit!(a; outb(0x92, 0x01); outb(0xCF9, 0x06););
        emit_halt(a)
    })
}

/// JMP to itself, with interrupts off.
pub fn spin_rom() -> Vec<u8> {
    real_mode_rom(|a| {
        emit!(a; cli(); at(".spin"); jmp -> ".spin";);
        Ok(())
    })
}

/// Prints `hello` and a newline on COM1 and on port E9h, then exits with 0.
pub fn hello_rom() -> Vec<u8> {
    real_mode_rom(|a| {
        for character in *b"hello\n" {
            emit!(a; outb(COM1, character); outb(DEBUG_PORT, character););
        }
        a.outb(EXIT_PORT, 0)?;
        emit_halt(a)
    })
}

/// Sets the timer of the local APIC to 4000, 3999, ... 1 clocks, each time with HLT to wait for its
/// interrupt, and exits with 0.
pub fn short_sleeps_rom() -> Vec<u8> {
    const VECTOR: u32 = 0x40;
    const APIC_BASE: u32 = 0x1B;
    const EOI: u32 = 0x80B;
    const SPURIOUS: u32 = 0x80F;
    const TIMER: u32 = 0x832;
    const COUNT: u32 = 0x838;
    const DIVIDE: u32 = 0x83E;
    let set = |a: &mut Section<'_>, msr: u32, value: u32| -> Emit {
        emit!(a; mov(ecx, msr); mov(eax, value); xor(edx, edx); wrmsr(););
        Ok(())
    };
    real_mode_rom(|a| {
        // What CALL pushes is the address of the handler.
        emit!(a; xor(eax, eax); mov(ds, ax); mov(ss, ax); mov(sp, 0x1000); call -> "begin";);
        set(a, EOI, 0)?;
        emit!(a;
            iret();
            at("begin");
            pop(word_ptr(4 * VECTOR));
            mov(word_ptr(4 * VECTOR + 2), u32::from(ROM_SEGMENT));
        );
        // The local APIC enabled, as an x2APIC, and for the bootstrap processor.
        set(a, APIC_BASE, 0xFEE0_0D00)?;
        set(a, SPURIOUS, 0x1FF)?;
        set(a, DIVIDE, 0xB)?;
        set(a, TIMER, VECTOR)?;
        emit!(a; mov(ebx, 4000); at(".again"); cli(); mov(ecx, COUNT); mov(eax, ebx); xor(edx, edx););
        emit!(a; wrmsr(); sti(); hlt(); dec(ebx); jnz -> ".again"; outb(EXIT_PORT, 0););
        emit_halt(a)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rom::{RESET_VECTOR, ROM_SIZE};
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    /// The mnemonics from the entry on, in which the reset vector's jump ends.
    fn program(image: &[u8], count: usize) -> Vec<Mnemonic> {
        assert_eq!(image.len(), ROM_SIZE);
        let vector = &image[RESET_VECTOR..];
        assert_eq!((vector[0], &vector[3..5]), (0xEA, &[0x00, 0xF0][..]));
        let entry = usize::from(u16::from_le_bytes([vector[1], vector[2]]));
        let decoder = Decoder::new(16, &image[entry..], DecoderOptions::NONE);
        decoder.into_iter().take(count).map(|i| i.mnemonic()).collect()
    }

    #[test]
    fn each_does_what_its_name_says() {
        use Mnemonic::*;
        assert_eq!(program(&exit_rom(3), 6), [Mov, Mov, Out, Cli, Hlt, Jmp]);
        assert_eq!(program(&triple_fault_rom(), 2), [Lidt, Ud2]);
        assert_eq!(program(&halt_forever_rom(), 3), [Cli, Hlt, Jmp]);
        assert_eq!(program(&reset_loop_rom(), 6), [Mov, Mov, Out, Mov, Mov, Out]);
        assert_eq!(program(&spin_rom(), 2), [Cli, Jmp]);
    }

    #[test]
    fn the_exit_code_is_the_byte_written() {
        let image = exit_rom(0x5A);
        let entry = usize::from(u16::from_le_bytes([image[0xFFF1], image[0xFFF2]]));
        // MOV AL, 5Ah; MOV EDX, F4h; OUT DX, AL.
        let code = [0xB0, 0x5A, 0x66, 0xBA, 0xF4, 0x00, 0x00, 0x00, 0xEE];
        assert_eq!(image[entry..entry + code.len()], code);
    }

    #[test]
    fn hello_writes_its_text_to_both_ports() {
        let image = hello_rom();
        let entry = usize::from(u16::from_le_bytes([image[0xFFF1], image[0xFFF2]]));
        let mut ports = [Vec::new(), Vec::new()];
        let (mut value, mut port) = (0, 0);
        for instruction in Decoder::new(16, &image[entry..], DecoderOptions::NONE) {
            match (instruction.mnemonic(), instruction.op0_register()) {
                (Mnemonic::Mov, iced_x86::Register::AL) => value = instruction.immediate8(),
                (Mnemonic::Mov, _) => port = instruction.immediate32(),
                (Mnemonic::Out, _) if port == 0x3F8 => ports[0].push(value),
                (Mnemonic::Out, _) if port == 0xE9 => ports[1].push(value),
                _ => break,
            }
        }
        assert_eq!(ports, [b"hello\n".to_vec(), b"hello\n".to_vec()]);
    }
}
