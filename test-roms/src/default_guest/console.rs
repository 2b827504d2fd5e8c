//! Output on COM1 and VGA text memory: one source for the three modes.
//!
//! It uses 32-bit registers and 32-bit addressing throughout. Texts are read through CS, which
//! reaches the ROM or its copy in every mode, and VGA memory is written through ES: its segment in
//! real and 16-bit protected mode, flat after that.
//!
//! The routines keep EBX, EBP and the registers that only 64-bit mode has.

use iced_x86::code_asm::*;

use super::memory::*;
use crate::rom::{Emit, Section, emit};

/// COM1.
pub(super) const UART: u16 = 0x3F8;
const LINE_STATUS: u16 = UART + 5;
const THR_EMPTY: u32 = 0x20;

const ROW_BYTES: u32 = 160;
const SCREEN_BYTES: u32 = 25 * ROW_BYTES;

/// Bytes below 8 in a text select one of these styles.
pub(super) const PLAIN: &str = "\x01";
pub(super) const DIM: &str = "\x02";
pub(super) const GREEN: &str = "\x03";
pub(super) const CYAN: &str = "\x04";
pub(super) const YELLOW: &str = "\x05";
pub(super) const RED: &str = "\x06";
pub(super) const BOLD: &str = "\x07";

/// VGA attribute and ANSI sequence of each style.
const STYLES: [(u8, &str); 8] = [
    (0x07, ""),
    (0x07, "\x1b[0m"),
    (0x08, "\x1b[90m"),
    (0x0A, "\x1b[32m"),
    (0x0B, "\x1b[36m"),
    (0x0E, "\x1b[33m"),
    (0x0C, "\x1b[91m"),
    (0x0F, "\x1b[1m"),
];
const STYLE_SIZE: usize = 8;

fn styles() -> Vec<u8> {
    let mut table = vec![0; STYLES.len() * STYLE_SIZE];
    for (entry, (attribute, ansi)) in table.chunks_mut(STYLE_SIZE).zip(STYLES) {
        assert!(ansi.len() + 2 <= STYLE_SIZE, "an attribute, a sequence and a zero fit an entry");
        entry[0] = attribute;
        entry[1..=ansi.len()].copy_from_slice(ansi.as_bytes());
    }
    table
}

/// Prints a constant text.
pub(super) fn say(a: &mut Section<'_>, text: &str) -> Emit {
    let text = a.text(text);
    emit!(a; mov(esi, text); call -> "puts";);
    Ok(())
}

/// Begins a line of the boot report: a heading in its column, then what is known already.
pub(super) fn report(a: &mut Section<'_>, heading: &str, text: &str) -> Emit {
    say(a, &format!(" {CYAN}{heading:15}{PLAIN} {text}"))
}

/// `putc` (AL), `puts` (ESI), `put_hex32` (EAX).
pub(super) fn emit(a: &mut Section<'_>) -> Emit {
    emit_serial(a)?;
    emit_putc(a)?;
    emit_scroll(a)?;
    emit!(a;
        at("puts");
        mov(al, byte_ptr(esi).cs());
        test(al, al);
        jz -> ".done";
        call -> "putc";
        inc(esi);
        jmp -> "puts";
        at(".done");
        ret();
    );
    emit!(a;
        // EBX and EBP change, but for EBX's value after all eight rotations. ESI does not.
        at("put_hex32");
        mov(ebx, eax);
        mov(ebp, 8);
        at(".digit");
        rol(ebx, 4);
        mov(al, bl);
        and(al, 0xF);
        cmp(al, 10);
        jb -> ".decimal";
        add(al, i32::from(b'A' - b'0' - 10));
        at(".decimal");
        add(al, i32::from(b'0'));
        call -> "putc";
        dec(ebp);
        jnz -> ".digit";
        ret();
    );
    Ok(())
}

/// `serial_out`: AL to COM1. Changes AH, ECX and EDX. Gives up on a transmitter that never
/// becomes empty, so that a PC without COM1 still starts.
fn emit_serial(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("serial_out");
        mov(ah, al);
        mov(edx, u32::from(LINE_STATUS));
        mov(ecx, 0x1_0000);
        at(".wait");
        in_(al, dx);
        test(al, THR_EMPTY);
        jnz -> ".ready";
        dec(ecx);
        jnz -> ".wait";
        at(".ready");
        mov(al, ah);
        mov(edx, u32::from(UART));
        out(dx, al);
        ret();
    );
    Ok(())
}

/// Changes EAX, ECX, EDX, EDI.
fn emit_putc(a: &mut Section<'_>) -> Emit {
    let styles = a.constant(&styles());
    let vga = if a.bitness() == 16 { 0 } else { VGA_TEXT };
    emit!(a;
        at("putc");
        cmp(al, 8);
        jb -> ".style";
        cmp(al, i32::from(b'\n'));
        je -> ".newline";
        call -> "serial_out";
        movzx(edi, word_ptr(CURSOR));
        cmp(al, 8);
        je -> ".backspace";
        mov(ah, byte_ptr(ATTRIBUTE));
        mov(word_ptr(edi + vga).es(), ax);
        add(edi, 2);
        jmp -> ".moved";

        at(".backspace");
        sub(edi, 2);
        jc -> ".done";
        jmp -> ".moved";

        at(".newline");
        mov(al, u32::from(b'\r'));
        call -> "serial_out";
        mov(al, u32::from(b'\n'));
        call -> "serial_out";
        movzx(eax, word_ptr(CURSOR));
        xor(edx, edx);
        mov(ecx, ROW_BYTES);
        div(ecx);
        sub(ecx, edx);
        movzx(edi, word_ptr(CURSOR));
        add(edi, ecx);

        at(".moved");
        mov(word_ptr(CURSOR), di);
        cmp(edi, SCREEN_BYTES);
        jae -> "scroll";
        at(".done");
        ret();

        at(".style");
        movzx(edi, al);
        shl(edi, STYLE_SIZE.ilog2());
        add(edi, styles);
        mov(al, byte_ptr(edi).cs());
        mov(byte_ptr(ATTRIBUTE), al);
        at(".sequence");
        inc(edi);
        mov(al, byte_ptr(edi).cs());
        test(al, al);
        jz -> ".done";
        call -> "serial_out";
        jmp -> ".sequence";
    );
    Ok(())
}

/// `scroll`: moves the screen up a row and the cursor with it. Changes EAX and EDI.
fn emit_scroll(a: &mut Section<'_>) -> Emit {
    let vga = if a.bitness() == 16 { 0 } else { VGA_TEXT };
    emit!(a;
        at("scroll");
        sub(word_ptr(CURSOR), ROW_BYTES);
        xor(edi, edi);
        at(".up");
        mov(eax, dword_ptr(edi + (vga + ROW_BYTES)).es());
        mov(dword_ptr(edi + vga).es(), eax);
        add(edi, 4);
        cmp(edi, SCREEN_BYTES - ROW_BYTES);
        jb -> ".up";
        mov(eax, 0x0720_0720);
        at(".clear");
        mov(dword_ptr(edi + vga).es(), eax);
        add(edi, 4);
        cmp(edi, SCREEN_BYTES);
        jb -> ".clear";
        ret();
    );
    Ok(())
}
