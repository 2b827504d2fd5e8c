//! Real mode, from the reset vector: consoles, the ROM's copy, A20, then 16-bit protected mode.

use iced_x86::code_asm::*;

use super::banner::banner;
use super::console::{UART, report, say};
use super::memory::*;
use crate::rom::tables::{self, CODE, DATA, LONG, PAGES, SIZE32, TSS64, segment};
use crate::rom::{Emit, ROM_BASE, ROM_SEGMENT, ROM_SIZE, Section, emit};

const SYSTEM_CONTROL_A: u16 = 0x92;
const A20_GATE: i32 = 2;
const FAST_RESET: i32 = 1;
const I8042_DATA: u16 = 0x60;
const I8042_COMMAND: u16 = 0x64;
const I8042_WRITE_OUTPUT_PORT: u8 = 0xD1;
const CR0_PE: i32 = 1;

/// The descriptors of the selectors in [`super::memory`].
fn gdt() -> Vec<u8> {
    let tss = segment(TSS, 0x67, TSS64, 0);
    tables::bytes(&[
        0,
        segment(0, 0xF_FFFF, CODE, PAGES | SIZE32),
        segment(0, 0xF_FFFF, DATA, PAGES | SIZE32),
        segment(0, 0xF_FFFF, CODE, PAGES | LONG),
        segment(ROM_BASE, 0xFFFF, CODE, 0),
        segment(VGA_TEXT, 0xFFFF, DATA, 0),
        tss,
        0,
    ])
}

pub(super) fn emit(a: &mut Section<'_>, protected: u32) -> Emit {
    emit!(a;
        at("real");
        cli();
        cld();
        xor(eax, eax);
        mov(ds, ax);
        mov(es, ax);
        mov(ss, ax);
        mov(esp, STACK_TOP);
        mov(di, VARIABLES);
        mov(cx, VARIABLES_SIZE / 4);
        rep_stosd();
        mov(byte_ptr(ATTRIBUTE), 7);
    );
    emit_consoles(a)?;
    say(a, &banner())?;
    report(a, "real mode", "reset vector F000:FFF0, COM1 at 115200 8N1, VGA text 80x25\n")?;
    emit_copy(a)?;
    report(a, "", "ROM copied to RAM at 00010000; ")?;
    emit_a20(a)?;
    emit_protected(a, protected)?;
    emit_a20_routines(a)
}

/// COM1 (16550D datasheet §8) without interrupts, VGA text memory cleared.
fn emit_consoles(a: &mut Section<'_>) -> Emit {
    let (divisor_115200, eight_n_one, dlab) = (1, 0x03, 0x80);
    emit!(a;
        outb(UART + 1, 0);
        outb(UART + 3, dlab);
        outb(UART, divisor_115200);
        outb(UART + 1, 0);
        outb(UART + 3, eight_n_one);
        // FIFOs on and empty; DTR, RTS, and OUT2, which lets the interrupt out on a PC.
        outb(UART + 2, 0x07);
        outb(UART + 4, 0x0B);
        mov(ax, VGA_TEXT >> 4);
        mov(es, ax);
        xor(di, di);
        mov(cx, 1000);
        mov(eax, 0x0720_0720);
        rep_stosd();
    );
    Ok(())
}

/// The ROM to [`SHADOW`], its GDT to [`GDT`].
fn emit_copy(a: &mut Section<'_>) -> Emit {
    let gdt = gdt();
    let gdt_address = a.constant(&gdt);
    emit!(a;
        push(es);
        mov(ax, u32::from(ROM_SEGMENT));
        mov(ds, ax);
        mov(ax, SHADOW >> 4);
        mov(es, ax);
        xor(si, si);
        xor(di, di);
        mov(cx, ROM_SIZE as u32 / 4);
        rep_movsd();
        xor(ax, ax);
        mov(es, ax);
        mov(si, gdt_address);
        mov(di, GDT);
        mov(cx, gdt.len() as u32 / 4);
        rep_movsd();
        xor(ax, ax);
        mov(ds, ax);
        pop(es);
    );
    Ok(())
}

/// A20 through port 92h, or else through the 8042.
fn emit_a20(a: &mut Section<'_>) -> Emit {
    emit!(a;
        call -> "a20_is_on";
        jnz -> ".on";
        inb(SYSTEM_CONTROL_A);
        or(al, A20_GATE);
        and(al, !FAST_RESET);
        out(dx, al);
        call -> "a20_is_on";
        jnz -> ".on";
        call -> "wait_8042";
        outb(I8042_COMMAND, I8042_WRITE_OUTPUT_PORT);
        call -> "wait_8042";
        outb(I8042_DATA, 0xDF);
        call -> "wait_8042";
        call -> "a20_is_on";
        jnz -> ".on";
    );
    say(a, "A20 stays off: halted\n")?;
    emit!(a; at(".stuck"); hlt(); jmp -> ".stuck"; at(".on"););
    say(a, "A20 on\n")
}

fn emit_a20_routines(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("wait_8042");
        inb(I8042_COMMAND);
        test(al, 2);
        jnz -> "wait_8042";
        ret();

        // NZ if 0000:TEXT and FFFF:TEXT+10h, which are 1 MiB apart, are different bytes.
        at("a20_is_on");
        mov(ax, 0xFFFF);
        mov(fs, ax);
        mov(byte_ptr(TEXT), 0x55);
        mov(byte_ptr(TEXT + 0x10).fs(), 0xAA);
        cmp(byte_ptr(TEXT), 0xAA);
        ret();
    );
    Ok(())
}

/// First into 16-bit segments at the very same places, in which the code here simply goes on.
fn emit_protected(a: &mut Section<'_>, protected: u32) -> Emit {
    let gdtr = a.constant(&tables::table_register(u64::from(GDT), gdt().len()));
    emit!(a;
        lgdt(ptr(gdtr).cs());
        mov(eax, cr0);
        or(eax, CR0_PE);
        mov(cr0, eax);
        // The near return address and the selector pushed before it are a far return address.
        push(i32::from(CODE16));
        call -> ".far";
        mov(ax, u32::from(FLAT));
        mov(ds, ax);
        mov(ss, ax);
        mov(ax, u32::from(VGA16));
        mov(es, ax);
    );
    report(a, "protected mode", "16-bit segments where real mode had them\n")?;
    emit!(a;
        jmp_far32(CODE32, protected);
        at(".far");
        retf();
    );
    Ok(())
}
