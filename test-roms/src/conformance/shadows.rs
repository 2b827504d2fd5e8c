//! Interrupts and the instructions that hold them off. The interrupt is one of the local APIC to
//! itself: it is pending before it is let in, so that the place where it comes is exact.

use iced_x86::code_asm::*;

use super::features;
use super::kit::{self, Kit, SPARE};
use super::{NOTHING, Rom, exception};
use crate::rom::{Emit, emit};

const SOURCE: &str = "SDM vol. 2, STI, MOV, POP; vol. 3A 7.8";
const APIC: u32 = 0xfee0_0000;
const EOI: u32 = APIC + 0xb0;
const SPURIOUS: u32 = APIC + 0xf0;
const COMMAND: u32 = APIC + 0x300;
const TASK_PRIORITY: u32 = APIC + 0x80;
const ENABLED: u32 = 0x1ff;
/// A fixed interrupt to itself.
const TO_ITSELF: u32 = 1 << 18;
const VECTOR: u8 = 0x41;
const IF: u32 = 1 << 9;

type Code = fn(&mut Kit<'_, '_>) -> Emit;

pub(super) fn rom() -> Emit<Rom> {
    kit::rom("shadows", "where interrupts come, and what holds them off", &[features::APIC], |a| {
        // The 8259s have nothing to say.
        emit!(a; outb(0x21, 0xff); outb(0xa1, 0xff); mov(dword_ptr(SPURIOUS), ENABLED););
        let cases: &[(&str, Code, Code)] = &[
            ("STI, then one instruction", |a| a.sti(), |a| a.nop()),
            ("POPFD, without a shadow", popf, |_| Ok(())),
            ("IRETD, without a shadow", iret, |_| Ok(())),
        ];
        for &(name, first, second) in cases {
            comes_behind(a, name, first, second)?;
        }
        mov_ss(a)?;
        held_off(a)?;
        halt(a)
    })
}

/// EFLAGS with IF, from the stack.
fn popf(a: &mut Kit<'_, '_>) -> Emit {
    emit!(a; pushfd(); or(dword_ptr(esp), IF); popfd(););
    Ok(())
}

fn iret(a: &mut Kit<'_, '_>) -> Emit {
    let label = a.fresh("iret");
    let target = a.address_of(&label);
    emit!(a;
        pushfd();
        or(dword_ptr(esp), IF);
        push(u32::from(kit::CODE0));
        mov(ecx, target);
        push(ecx);
        iretd();
        at(&label);
    );
    Ok(())
}

/// Makes the interrupt pending, with IF clear.
fn request(a: &mut Kit<'_, '_>) -> Emit {
    emit!(a;
        cli();
        mov(dword_ptr(EOI), 0);
        mov(ebx, u32::from(kit::DATA0));
        mov(dword_ptr(COMMAND), TO_ITSELF | u32::from(VECTOR));
    );
    Ok(())
}

/// The interrupt comes behind `first` and `second`, and nowhere else.
fn comes_behind(a: &mut Kit<'_, '_>, name: &str, first: Code, second: Code) -> Emit {
    let label = a.fresh("comes");
    a.probe(name, SOURCE, exception(VECTOR, 0), |a| {
        request(a)?;
        first(a)?;
        second(a)?;
        a.at(&label)?;
        emit!(a; nop(); nop(); nop(););
        Ok(())
    })?;
    a.returns_to(format!("{name}: place"), SOURCE, &label)?;
    emit!(a; cli(); mov(dword_ptr(EOI), 0););
    Ok(())
}

/// MOV SS and POP SS hold interrupts off until the next instruction is over, be it one that lets
/// them in.
fn mov_ss(a: &mut Kit<'_, '_>) -> Emit {
    let cases: &[(&str, Code)] = &[
        ("POPFD in the shadow of MOV SS", |a| {
            emit!(a; pushfd(); or(dword_ptr(esp), IF); mov(ss, ebx); popfd(););
            Ok(())
        }),
        ("POPFD in the shadow of POP SS", |a| {
            emit!(a; pushfd(); or(dword_ptr(esp), IF); push(ebx); pop(ss); popfd(););
            Ok(())
        }),
    ];
    for &(name, code) in cases {
        comes_behind(a, name, code, |_| Ok(()))?;
    }
    Ok(())
}

/// What is pending does not come while IF is clear, or the task priority is as high.
fn held_off(a: &mut Kit<'_, '_>) -> Emit {
    a.probe("nothing comes with IF clear", "SDM vol. 3A 7.8.1", NOTHING, |a| {
        request(a)?;
        emit!(a; nop(); nop(););
        Ok(())
    })?;
    a.probe("STI, CLI: nothing comes", SOURCE, NOTHING, |a| {
        emit!(a; sti(); cli(); nop(););
        Ok(())
    })?;
    a.probe("nothing comes below the task priority", "SDM vol. 3A 12.8.3.1", NOTHING, |a| {
        emit!(a; mov(dword_ptr(TASK_PRIORITY), 0x40); sti(); nop(); nop(); cli(););
        Ok(())
    })?;
    a.probe(
        "it comes when the task priority is lowered",
        "SDM vol. 3A 12.8.3.1",
        exception(VECTOR, 0),
        |a| {
            emit!(a; sti(); nop(); mov(dword_ptr(TASK_PRIORITY), 0););
            // The write takes its time on the way to the local APIC.
            (0..16).try_for_each(|_| a.nop())
        },
    )?;
    emit!(a; cli(); mov(dword_ptr(EOI), 0););
    Ok(())
}

/// HLT ends with the interrupt, whose handler returns behind it; STI, HLT cannot miss it.
fn halt(a: &mut Kit<'_, '_>) -> Emit {
    let label = a.fresh("woken");
    a.probe("STI, HLT with an interrupt pending", "SDM vol. 2, HLT", exception(VECTOR, 0), |a| {
        request(a)?;
        emit!(a; sti(); hlt(); at(&label); nop(););
        Ok(())
    })?;
    a.returns_to("STI, HLT: return address", "SDM vol. 2, HLT", &label)?;
    emit!(a; cli(); mov(dword_ptr(EOI), 0); mov(dword_ptr(SPARE), 0););
    Ok(())
}
