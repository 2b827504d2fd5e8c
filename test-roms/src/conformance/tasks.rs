//! Task switches through 32-bit TSSs (SDM vol. 3A, chapter 9): what is saved and loaded, busy flags,
//! NT and the link, and what makes a switch fail.

use iced_x86::code_asm::*;

use super::kit::{self, CODE0, DATA0, FREE, GDT, IDT, Kit, SCRATCH, SPARE, TASK, TSS};
use super::{Rom, exception};
use crate::rom::tables::{self, CODE, PAGES, SIZE32};
use crate::rom::{Emit, emit};

const DB: u8 = 1;
const TS: u8 = 10;
const NP: u8 = 11;
const SS: u8 = 12;
const GP: u8 = 13;
const NT: u32 = 1 << 14;

const OTHER: u32 = SCRATCH + 0x1000;
const OTHER_STACK: u32 = SCRATCH + 0x3000;
const TASK_GATE: u8 = 0xe5;
const AVAILABLE: u8 = 0x89;
const BUSY: u8 = 0x8b;
const SOURCE: &str = "SDM vol. 3A 9.3";

/// Offsets in a TSS of 32 bits (SDM vol. 3A, figure 9-2).
mod field {
    pub(super) const LINK: u32 = 0;
    pub(super) const EIP: u32 = 0x20;
    pub(super) const EFLAGS: u32 = 0x24;
    pub(super) const EAX: u32 = 0x28;
    pub(super) const ECX: u32 = 0x2c;
    pub(super) const ESP: u32 = 0x38;
    pub(super) const EDI: u32 = 0x44;
    pub(super) const ES: u32 = 0x48;
    pub(super) const CS: u32 = 0x4c;
    pub(super) const SS: u32 = 0x50;
    pub(super) const DS: u32 = 0x54;
    pub(super) const GS: u32 = 0x5c;
    pub(super) const LDT: u32 = 0x60;
    pub(super) const TRAP: u32 = 0x64;
}

pub(super) fn rom() -> Emit<Rom> {
    kit::rom("tasks", "task switches", &[], |a| {
        calls(a)?;
        jumps(a)?;
        refused(a)?;
        broken(a)?;
        trapped(a)
    })
}

/// Sets up the other task, to begin at `entry`, and makes the first one busy and current.
fn prepare(a: &mut Kit<'_, '_>, entry: u32) -> Emit {
    a.descriptor(FREE, tables::segment(OTHER, 0x67, AVAILABLE, 0))?;
    emit!(a; mov(edi, OTHER); mov(ecx, 0x68 / 4); xor(eax, eax); rep_stosd(););
    for (at, value) in [
        (field::EIP, entry),
        (field::EFLAGS, 2),
        (field::EAX, 0x1111_2222),
        (field::EDI, 0x3333_4444),
        (field::ESP, OTHER_STACK),
        (field::ES, DATA0.into()),
        (field::CS, CODE0.into()),
        (field::SS, DATA0.into()),
        (field::DS, DATA0.into()),
    ] {
        a.mov(dword_ptr(OTHER + at), value)?;
    }
    // Whatever has gone before, TR is that of the first task again.
    emit!(a;
        mov(byte_ptr(GDT + u32::from(TASK) + 5), u32::from(AVAILABLE));
        mov(eax, u32::from(TASK));
        ltr(ax);
        pushfd();
        and(dword_ptr(esp), !NT);
        popfd();
        clts();
    );
    Ok(())
}

/// A far transfer to the other task: the offset means nothing.
fn far(a: &mut Kit<'_, '_>, selector: u16, call: bool) -> Emit {
    emit!(a; mov(dword_ptr(SPARE), 0xdead_0000u32); mov(word_ptr(SPARE + 4), u32::from(selector)););
    if call { a.call(fword_ptr(SPARE)) } else { a.jmp(fword_ptr(SPARE)) }
}

/// Reports the byte or word at an address.
fn look(a: &mut Kit<'_, '_>, name: &str, expected: u32, mask: u32, at: u32) -> Emit {
    a.value(name, SOURCE, [expected, mask], |a| a.mov(eax, dword_ptr(at)))
}

fn access_byte(selector: u16) -> u32 {
    GDT + u32::from(selector & !7) + 5
}

/// CALL nests: both tasks are busy, the new one links to the old, and IRET goes back.
fn calls(a: &mut Kit<'_, '_>) -> Emit {
    let (entry, end) = (a.fresh("called"), a.fresh("end"));
    prepare(a, a.address_of(&entry))?;
    emit!(a; mov(ecx, 0x5555_6666); stc(););
    far(a, FREE, true)?;
    emit!(a; jmp -> &end; at(&entry); mov(dword_ptr(SPARE + 8), eax); mov(dword_ptr(SPARE + 12), edi); mov(dword_ptr(SPARE + 16), esp););
    emit!(a; pushfd(); pop(dword_ptr(SPARE + 20)); mov(eax, cr0); mov(dword_ptr(SPARE + 24), eax); str(eax); mov(dword_ptr(SPARE + 28), eax););
    // Reports are made here, in the other task.
    look(a, "CALL: EAX of the new task", 0x1111_2222, u32::MAX, SPARE + 8)?;
    look(a, "CALL: EDI of the new task", 0x3333_4444, u32::MAX, SPARE + 12)?;
    look(a, "CALL: ESP of the new task", OTHER_STACK, u32::MAX, SPARE + 16)?;
    look(a, "CALL: NT in EFLAGS, and CF as in the new TSS", NT, NT | 1, SPARE + 20)?;
    look(a, "CALL: CR0.TS", 8, 8, SPARE + 24)?;
    look(a, "CALL: TR", FREE.into(), 0xffff, SPARE + 28)?;
    look(a, "CALL: the link", TASK.into(), 0xffff, OTHER + field::LINK)?;
    look(a, "CALL: the new task is busy", BUSY.into(), 0xff, access_byte(FREE))?;
    look(a, "CALL: the old task stays busy", BUSY.into(), 0xff, access_byte(TASK))?;
    look(a, "CALL: ECX in the old TSS", 0x5555_6666, u32::MAX, TSS + field::ECX)?;
    look(a, "CALL: EFLAGS in the old TSS", 1, NT | 1, TSS + field::EFLAGS)?;
    look(a, "CALL: CS in the old TSS", CODE0.into(), 0xffff, TSS + field::CS)?;
    emit!(a; mov(edi, 0x7777_8888); iretd(); at(&end););
    emit!(a; pushfd(); pop(dword_ptr(SPARE + 20)); str(eax); mov(dword_ptr(SPARE + 28), eax););
    look(a, "IRET: NT is clear, CF as it was", 1, NT | 1, SPARE + 20)?;
    look(a, "IRET: TR", TASK.into(), 0xffff, SPARE + 28)?;
    look(a, "IRET: the nested task is available", AVAILABLE.into(), 0xff, access_byte(FREE))?;
    look(a, "IRET: the old task is busy", BUSY.into(), 0xff, access_byte(TASK))?;
    look(a, "IRET: EDI in the nested TSS", 0x7777_8888, u32::MAX, OTHER + field::EDI)?;
    look(a, "IRET: NT in the nested TSS", 0, NT, OTHER + field::EFLAGS)
}

/// JMP leaves the old task available; INT through a task gate nests.
fn jumps(a: &mut Kit<'_, '_>) -> Emit {
    let (entry, back) = (a.fresh("jumped"), a.fresh("back"));
    prepare(a, a.address_of(&entry))?;
    far(a, FREE, false)?;
    emit!(a; jmp -> &back; at(&entry););
    look(a, "JMP: the new task is busy", BUSY.into(), 0xff, access_byte(FREE))?;
    look(a, "JMP: the old task is available", AVAILABLE.into(), 0xff, access_byte(TASK))?;
    emit!(a; pushfd(); pop(dword_ptr(SPARE + 20)););
    look(a, "JMP: NT is clear", 0, NT, SPARE + 20)?;
    far(a, TASK, false)?;
    a.at(&back)?;
    look(a, "JMP back: the first task is busy", BUSY.into(), 0xff, access_byte(TASK))?;

    const VECTOR: u32 = 0x30;
    let (entry, end) = (a.fresh("interrupted"), a.fresh("end"));
    let gate = kit::gate(FREE, 0, TASK_GATE, 0);
    prepare(a, a.address_of(&entry))?;
    emit!(a;
        mov(dword_ptr(IDT + 8 * VECTOR), gate as u32);
        mov(dword_ptr(IDT + 8 * VECTOR + 4), (gate >> 32) as u32);
        int(VECTOR as i32);
        jmp -> &end;
        at(&entry);
    );
    look(a, "INT through a task gate: the link", TASK.into(), 0xffff, OTHER + field::LINK)?;
    emit!(a; pushfd(); pop(dword_ptr(SPARE + 20)););
    look(a, "INT through a task gate: NT", NT, NT, SPARE + 20)?;
    emit!(a; iretd(); at(&end););
    Ok(())
}

/// What is refused before the switch: the old task goes on.
fn refused(a: &mut Kit<'_, '_>) -> Emit {
    let tss = |access, limit| tables::segment(OTHER, limit, access, 0);
    let names = u32::from(FREE);
    for (name, descriptor, expected) in [
        ("a busy TSS", tss(BUSY, 0x67), exception(GP, names)),
        ("a TSS that is not present", tss(AVAILABLE & !0x80, 0x67), exception(NP, names)),
        ("a TSS that is too small", tss(AVAILABLE, 0x66), exception(TS, names)),
        ("an LDT", tss(0x82, 0x67), exception(GP, names)),
    ] {
        for call in [false, true] {
            prepare(a, 0)?;
            a.descriptor(FREE, descriptor)?;
            let how = if call { "CALL" } else { "JMP" };
            a.probe(format!("{how} to {name}"), "SDM vol. 2, JMP, CALL", expected, |a| {
                far(a, FREE, call)
            })?;
        }
    }
    prepare(a, 0)?;
    a.probe(
        "JMP to a TSS of level 0 from level 3",
        "SDM vol. 2, JMP",
        exception(GP, names),
        |a| {
            a.enter_user(0)?;
            far(a, FREE | 3, false)
        },
    )?;
    for (name, link, expected) in [
        ("to a null link", 0, exception(TS, 0)),
        ("to a task that is not busy", u32::from(FREE), exception(TS, names)),
        ("to a data segment", u32::from(DATA0), exception(TS, DATA0.into())),
    ] {
        prepare(a, 0)?;
        a.probe(format!("IRET with NT {name}"), "SDM vol. 2, IRET", expected, |a| {
            emit!(a; mov(dword_ptr(TSS + field::LINK), link); pushfd(); or(dword_ptr(esp), NT); popfd(); iretd(););
            Ok(())
        })?;
        emit!(a; pushfd(); and(dword_ptr(esp), !NT); popfd(););
    }
    a.probe("LTR of a busy TSS", "SDM vol. 2, LTR", exception(GP, TASK.into()), |a| {
        emit!(a; mov(eax, u32::from(TASK)); ltr(ax););
        Ok(())
    })
}

/// The selector, the TSS and the stack of the task that handles `vector`.
fn handler(vector: u8) -> (u16, u32, u32) {
    let number = vector - TS;
    let tss = OTHER + 0x100 * (u32::from(number) + 1);
    (FREE + 0x10 + 8 * u16::from(number), tss, OTHER_STACK + 0x400 * (u32::from(number) + 1))
}

/// Emits where the handlers' tasks begin: the error code is all that lies on their stacks.
fn handlers(a: &mut Kit<'_, '_>) -> Emit {
    emit!(a; jmp -> "handlers_end";);
    for vector in [TS, NP, SS] {
        emit!(a;
            at(&format!("handler_{vector}"));
            pop(eax);
            movzx(eax, ax);
            or(eax, exception(vector, 0));
            mov(dword_ptr(kit::OUTCOME), eax);
            jmp(dword_ptr(kit::RESUME));
        );
    }
    a.at("handlers_end")
}

/// Sets up the tasks that handle #TS, #NP and #SS, and their gates: a new task whose segments are
/// bad may have no stack for a handler of its own (SDM vol. 3A, 7.15, #TS).
fn prepare_handlers(a: &mut Kit<'_, '_>) -> Emit {
    for vector in [TS, NP, SS] {
        let (selector, tss, stack) = handler(vector);
        let (gate, at) = (kit::gate(selector, 0, TASK_GATE, 0), IDT + 8 * u32::from(vector));
        a.descriptor(selector, tables::segment(tss, 0x67, AVAILABLE, 0))?;
        let entry = a.address_of(&format!("handler_{vector}"));
        for (field, value) in [
            (field::EIP, entry),
            (field::EFLAGS, 2),
            (field::ESP, stack),
            (field::ES, DATA0.into()),
            (field::CS, CODE0.into()),
            (field::SS, DATA0.into()),
            (field::DS, DATA0.into()),
        ] {
            a.mov(dword_ptr(tss + field), value)?;
        }
        emit!(a; mov(dword_ptr(at), gate as u32); mov(dword_ptr(at + 4), (gate >> 32) as u32););
    }
    Ok(())
}

/// What the new task's segments are refused for: the exception is the new task's (SDM vol. 3A,
/// table 9-1).
fn broken(a: &mut Kit<'_, '_>) -> Emit {
    const SECOND: u16 = FREE + 8;
    let flat = |access| tables::segment(0, 0xf_ffff, access, PAGES | SIZE32);
    let second = u32::from(SECOND);
    let absent = |access: u8| flat(access & !0x80);
    handlers(a)?;
    for (name, at, selector, descriptor, expected) in [
        ("an LDT that is none", field::LDT, u32::from(DATA0), 0, exception(TS, DATA0.into())),
        ("a null CS", field::CS, 0, 0, exception(TS, 0)),
        ("CS that is data", field::CS, u32::from(DATA0), 0, exception(TS, DATA0.into())),
        ("CS that is not present", field::CS, second, absent(CODE), exception(NP, second)),
        ("a null SS", field::SS, 0, 0, exception(TS, 0)),
        ("SS that is code", field::SS, u32::from(CODE0), 0, exception(TS, CODE0.into())),
        ("SS with another RPL", field::SS, u32::from(DATA0) | 3, 0, exception(TS, DATA0.into())),
        ("SS that is not present", field::SS, second, absent(tables::DATA), exception(SS, second)),
        (
            "ES that is a system descriptor",
            field::ES,
            u32::from(TASK),
            0,
            exception(TS, TASK.into()),
        ),
        ("GS that is not present", field::GS, second, absent(tables::DATA), exception(NP, second)),
    ] {
        let entry = a.fresh("entry");
        prepare(a, a.address_of(&entry))?;
        a.descriptor(SECOND, descriptor)?;
        a.mov(dword_ptr(OTHER + at), selector)?;
        prepare_handlers(a)?;
        a.probe(format!("JMP to a task with {name}"), "SDM vol. 3A table 9-1", expected, |a| {
            far(a, FREE, false)?;
            emit!(a; at(&entry); nop(););
            Ok(())
        })?;
    }
    Ok(())
}

/// The T flag raises #DB before the first instruction of the new task.
fn trapped(a: &mut Kit<'_, '_>) -> Emit {
    const BT: u32 = 1 << 15;
    let entry = a.fresh("trapped");
    prepare(a, a.address_of(&entry))?;
    emit!(a; mov(eax, 0xffff_0ff0u32); mov(dr6, eax); mov(dword_ptr(OTHER + field::TRAP), 1););
    a.probe("the T flag of a task", "SDM vol. 3B 18.3.1.5", exception(DB, 0), |a| {
        far(a, FREE, false)?;
        emit!(a; at(&entry); nop(););
        Ok(())
    })?;
    a.returns_to("the T flag: return address", "SDM vol. 3B 18.3.1.5", &entry)?;
    look(a, "the T flag: DR6", BT, 0xe00f, kit::RAISED_DR6)
}
