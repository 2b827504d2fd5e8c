//! Virtual-8086 mode (SDM vol. 3B, chapter 21): what IOPL guards, the I/O map, and CR4.VME with its
//! redirection of interrupts and virtual interrupt flag.

use iced_x86::code_asm::*;

use super::features;
use super::kit::{self, BACK, INNER_STACK, Kit, RAISED_CS, RAISED_EFLAGS, SCRATCH, TSS};
use super::{NOTHING, Rom, exception};
use crate::rom::{Emit, emit};

const UD: u8 = 6;
const GP: u8 = 13;
const VM: u32 = 1 << 17;
const VIF: u32 = 1 << 19;
const VIP: u32 = 1 << 20;
const IF: u32 = 1 << 9;
const IOPL: u32 = 3 << 12;
const VME: u32 = 1;

/// The segment of the code, its stack, and where its first interrupt vector leads.
const SEGMENT: u32 = SCRATCH >> 4;
const STACK: u32 = 0x8000;
const TARGET: u32 = 0x4000;
/// The interrupt that redirection is tried with.
const VECTOR: u8 = 0x30;
/// The TSS with maps of interrupts and ports behind it.
const MAPS: u32 = TSS + 0x68;
const IO_MAP: u32 = MAPS + 32;

const GUARDED: &str = "SDM vol. 3B 21.2.7, 21.3";
const EXTENDED: &str = "SDM vol. 3B 21.3.3, table 21-2, 21.4";

pub(super) fn rom() -> Emit<Rom> {
    kit::rom("virtual86", "virtual-8086 mode and its extensions", &[features::VME], |a| {
        // A TSS with room for both maps, all ports forbidden but 80h.
        a.descriptor(kit::TASK, crate::rom::tables::segment(TSS, 0x68 + 32 + 32, kit::TSS32, 0))?;
        emit!(a;
            mov(eax, u32::from(kit::TASK));
            ltr(ax);
            mov(word_ptr(TSS + 0x66), 0x68 + 32);
            mov(edi, IO_MAP);
            mov(ecx, 9);
            mov(eax, -1);
            rep_stosd();
            mov(byte_ptr(IO_MAP + 16), 0xfe);
        );
        guarded(a)?;
        ports(a)?;
        entry_and_frame(a)?;
        redirection(a)?;
        virtual_interrupts(a)
    })
}

/// Executes 16-bit `code` in virtual-8086 mode with these flags; it ends with an INT that comes
/// back, unless it raises something.
fn virtual_code(a: &mut Kit<'_, '_>, flags: u32, code: &[u8]) -> Emit {
    let all = [code, &[0x90, 0xcd, BACK]].concat();
    for (at, byte) in (SCRATCH..).zip(all) {
        a.mov(byte_ptr(at), u32::from(byte))?;
    }
    emit!(a;
        push(SEGMENT);
        push(SEGMENT);
        push(SEGMENT);
        push(SEGMENT);
        push(SEGMENT);
        push(STACK);
        push(flags | VM | 2);
        push(SEGMENT);
        push(0);
        iretd();
    );
    Ok(())
}

/// Instructions that need IOPL 3, and those that need nothing or are never allowed.
fn guarded(a: &mut Kit<'_, '_>) -> Emit {
    let gp = exception(GP, 0);
    let iopl: &[(&str, &[u8])] = &[
        ("CLI", &[0xfa]),
        ("STI", &[0xfb]),
        ("PUSHF", &[0x9c]),
        ("POPF", &[0x6a, 0x02, 0x9d]),
        ("INT n", &[0xcd, BACK]),
        ("PUSHFD", &[0x66, 0x9c]),
        // To the NOP behind it: flags, segment, offset 8.
        (
            "IRET",
            &[0x6a, 0x02, 0x68, (SEGMENT & 0xff) as u8, (SEGMENT >> 8) as u8, 0x6a, 0x08, 0xcf],
        ),
    ];
    for &(name, code) in iopl {
        for (level, expected) in [(0, gp), (IOPL, NOTHING)] {
            // BACK itself needs the right to be executed; without it all comes to the same.
            let name = format!("{name} with IOPL {}", level >> 12);
            a.probe(name, GUARDED, expected, |a| virtual_code(a, level, code))?;
        }
    }
    let always: &[(&str, &[u8], u32)] = &[
        ("HLT", &[0xf4], gp),
        ("MOV from CR0", &[0x0f, 0x20, 0xc0], gp),
        ("CLTS", &[0x0f, 0x06], gp),
        ("LGDT", &[0x0f, 0x01, 0x16, 0, 0], gp),
        ("LLDT", &[0x0f, 0x00, 0xd0], exception(UD, 0)),
        ("ARPL", &[0x63, 0xc0], exception(UD, 0)),
        ("LAR", &[0x0f, 0x02, 0xc0], exception(UD, 0)),
        ("SLDT", &[0x0f, 0x00, 0xc0], exception(UD, 0)),
        ("SMSW", &[0x0f, 0x01, 0xe0], NOTHING),
        ("MOV to DS, of anything", &[0xb8, 0x34, 0x12, 0x8e, 0xd8], NOTHING),
        ("an operand beyond 64 KiB", &[0x67, 0x66, 0xa1, 0, 0, 1, 0], gp),
        ("a word at FFFF", &[0xa1, 0xff, 0xff], gp),
        ("a word at FFFF of the stack segment", &[0x36, 0xa1, 0xff, 0xff], exception(12, 0)),
    ];
    for &(name, code, expected) in always {
        a.probe(format!("{name} in virtual-8086 mode"), GUARDED, expected, |a| {
            virtual_code(a, IOPL, code)
        })?;
    }
    a.probe("INT3 with IOPL 0 goes to the handler", GUARDED, exception(3, 0), |a| {
        virtual_code(a, 0, &[0xcc])
    })
}

/// The I/O map alone decides about ports, whatever IOPL is (SDM vol. 1, 20.5.2).
fn ports(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 1 20.5.2; vol. 3B 21.2.8.1";
    for level in [0, IOPL] {
        for (name, code, expected) in [
            ("OUT to a port that the map allows", &[0xe6u8, 0x80][..], NOTHING),
            ("OUT to a port that the map forbids", &[0xe6, 0x81], exception(GP, 0)),
            ("OUT of a word of which one port is forbidden", &[0xe7, 0x80], exception(GP, 0)),
            ("OUT beyond the map", &[0xba, 0x00, 0x10, 0xee], exception(GP, 0)),
        ] {
            // Without IOPL 3 the INT behind it does not come back: what counts is what came first.
            let expected =
                if expected == NOTHING && level == 0 { exception(GP, 0) } else { expected };
            let last = if level == 0 { "and INT, " } else { "" };
            a.probe(format!("{name}, {last}IOPL {}", level >> 12), SOURCE, expected, |a| {
                virtual_code(a, level, code)
            })?;
        }
    }
    Ok(())
}

/// What lies on the handler's stack, and what segment registers hold there.
fn entry_and_frame(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3B 21.3.1";
    a.probe("a fault leaves virtual-8086 mode", SOURCE, exception(GP, 0), |a| {
        virtual_code(a, IOPL, &[0xf4])
    })?;
    a.value("VM is set in the pushed flags", SOURCE, [VM | IOPL, VM | IOPL], |a| {
        a.mov(eax, dword_ptr(RAISED_EFLAGS))
    })?;
    a.value("the pushed CS", SOURCE, [SEGMENT, 0xffff], |a| a.mov(eax, dword_ptr(RAISED_CS)))?;
    for (name, offset) in [("SS", 8), ("ES", 12), ("DS", 16), ("FS", 20), ("GS", 24)] {
        // From the end of the stack: GS first.
        a.value(format!("the pushed {name}"), SOURCE, [SEGMENT, 0xffff], |a| {
            a.mov(eax, dword_ptr(INNER_STACK - 28 + offset))
        })?;
    }
    a.value("the pushed ESP", SOURCE, [STACK, u32::MAX], |a| {
        a.mov(eax, dword_ptr(INNER_STACK - 24))
    })
}

/// With VME, an INT n whose bit in the map is clear goes to the 8086 handler; with IOPL below 3 the
/// flags that it sees are virtual.
fn redirection(a: &mut Kit<'_, '_>) -> Emit {
    // The 8086 handler stores the flags on its stack at [0], and returns.
    const HANDLER: &[u8] = &[0x55, 0x89, 0xe5, 0x8b, 0x46, 0x06, 0xa3, 0x00, 0x70, 0x5d, 0xcf];
    for (at, &byte) in (SCRATCH + TARGET..).zip(HANDLER) {
        a.mov(byte_ptr(at), u32::from(byte))?;
    }
    emit!(a;
        mov(dword_ptr(4 * u32::from(VECTOR)), SEGMENT << 16 | TARGET);
        mov(eax, VME);
        mov(cr4, eax);
    );
    let bit = (MAPS + u32::from(VECTOR) / 8, 1u32 << (VECTOR % 8));
    // The way back is not redirected.
    emit!(a; mov(edi, MAPS); mov(ecx, 8); mov(eax, -1); rep_stosd(););
    for level in [0, IOPL] {
        for redirected in [false, true] {
            if redirected {
                a.and(byte_ptr(bit.0), !(bit.1 as i32))?;
            } else {
                a.or(byte_ptr(bit.0), bit.1 as i32)?;
            }
            let map = if redirected { "clear" } else { "set" };
            let name = format!("INT n with VME, IOPL {}, bit {map}", level >> 12);
            // Not redirected, IOPL 0 is #GP, and IOPL 3 the protected-mode handler. Redirected, both
            // come back; then INT BACK, whose bit is set, is #GP with IOPL 0.
            let expected = match (level, redirected) {
                (0, _) => exception(GP, 0),
                (_, false) => exception(VECTOR, 0),
                (_, true) => NOTHING,
            };
            a.mov(dword_ptr(SCRATCH + 0x7000), 0)?;
            a.probe(name.clone(), EXTENDED, expected, |a| {
                virtual_code(a, level | VIF, &[0xcd, VECTOR])
            })?;
            // With IOPL below 3 the image shows IOPL 3, and VIF in the place of IF.
            let image = match (level, redirected) {
                (_, false) => 0,
                (0, true) => IOPL | IF,
                (_, true) => IOPL,
            };
            a.value(
                format!("{name}: flags that the 8086 handler sees"),
                EXTENDED,
                [image, IOPL | IF],
                |a| a.mov(eax, dword_ptr(SCRATCH + 0x7000)),
            )?;
        }
    }
    Ok(())
}

/// With VME and IOPL below 3, CLI and STI change VIF; an interrupt that waits (VIP) makes STI #GP.
fn virtual_interrupts(a: &mut Kit<'_, '_>) -> Emit {
    // All end with INT BACK, which is #GP here: the flags it pushes are looked at.
    for (name, before, code, after) in [
        ("CLI clears VIF", VIF, &[0xfau8][..], 0),
        ("STI sets VIF", 0, &[0xfb], VIF),
        ("CLI leaves VIP alone", VIF | VIP, &[0xfa], VIP),
        ("STI with VIP is #GP", VIP, &[0xfb], VIP),
        ("POPF sets VIF", 0, &[0x68, 0x02, 0x02, 0x9d], VIF),
        ("POPF clears VIF", VIF, &[0x6a, 0x02, 0x9d], 0),
        ("PUSHF, POPF keeps VIF", VIF, &[0x9c, 0x9d], VIF),
    ] {
        a.probe(format!("{name}: what comes then"), EXTENDED, exception(GP, 0), |a| {
            virtual_code(a, before, code)
        })?;
        a.value(name, EXTENDED, [after, VIF | VIP], |a| a.mov(eax, dword_ptr(RAISED_EFLAGS)))?;
        let refused = name.contains("#GP");
        a.value(
            format!("{name}: place"),
            EXTENDED,
            [if refused { 0 } else { code.len() as u32 + 1 }, u32::MAX],
            |a| a.mov(eax, dword_ptr(kit::RAISED_EIP)),
        )?;
    }
    for (name, flags) in [("POPFD", VIF), ("PUSHFD", 0)] {
        let code: &[u8] = if name == "POPFD" { &[0x66, 0x9d] } else { &[0x66, 0x9c] };
        a.probe(format!("{name} with VME and IOPL 0"), EXTENDED, exception(GP, 0), |a| {
            virtual_code(a, flags, code)
        })?;
        a.value(format!("{name} with VME and IOPL 0: place"), EXTENDED, [0, u32::MAX], |a| {
            a.mov(eax, dword_ptr(kit::RAISED_EIP))
        })?;
    }
    emit!(a; xor(eax, eax); mov(cr4, eax););
    Ok(())
}
