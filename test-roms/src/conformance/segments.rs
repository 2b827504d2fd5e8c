//! Segmentation: which descriptors which registers take at which level, far jumps, LAR, LSL, VERR
//! and VERW, limits and types.

use iced_x86::code_asm::*;

use super::kit::{self, CASE, CODE0, FREE, GDT, Kit, OUTCOME, SCRATCH, SPARE};
use super::script::Case;
use super::{Kind, NOTHING, Rom, exception};
use crate::rom::tables::{self, DATA, PAGES, SIZE32};
use crate::rom::{Emit, emit};

const NP: u8 = 11;
const SS: u8 = 12;
const GP: u8 = 13;

/// A descriptor's access byte, and who asks for it: from the bits of a case's number.
#[derive(Clone, Copy)]
struct Setting(u32);

impl Setting {
    const CASES: u32 = 1 << 11;

    fn kind(self) -> u32 {
        self.0 & 15
    }
    /// A code or data segment, not a system descriptor.
    fn is_segment(self) -> bool {
        self.0 >> 4 & 1 != 0
    }
    fn is_code(self) -> bool {
        self.is_segment() && self.kind() & 8 != 0
    }
    fn is_conforming(self) -> bool {
        self.is_code() && self.kind() & 4 != 0
    }
    fn is_writable_data(self) -> bool {
        self.is_segment() && !self.is_code() && self.kind() & 2 != 0
    }
    fn is_readable(self) -> bool {
        self.is_segment() && (!self.is_code() || self.kind() & 2 != 0)
    }
    fn dpl(self) -> u32 {
        self.0 >> 5 & 3
    }
    fn present(self) -> bool {
        self.0 >> 7 & 1 != 0
    }
    fn rpl(self) -> u32 {
        self.0 >> 8 & 3
    }
    fn cpl(self) -> u32 {
        3 * (self.0 >> 10 & 1)
    }

    fn name(self, what: &str) -> String {
        let class = if self.is_segment() { "segment" } else { "system" };
        let present = if self.present() { "" } else { ", not present" };
        format!(
            "{what} {class} type {:x}, DPL {}{present}, RPL {} at level {}",
            self.kind(),
            self.dpl(),
            self.rpl(),
            self.cpl()
        )
    }

    /// MOV to DS, ES, FS or GS.
    fn data(self) -> u32 {
        let guarded = !self.is_conforming();
        if !self.is_readable() || guarded && self.dpl() < self.rpl().max(self.cpl()) {
            exception(GP, FREE.into())
        } else if !self.present() {
            exception(NP, FREE.into())
        } else {
            NOTHING
        }
    }

    /// MOV to SS.
    fn stack(self) -> u32 {
        let cpl = self.cpl();
        if self.rpl() != cpl || !self.is_writable_data() || self.dpl() != cpl {
            exception(GP, FREE.into())
        } else if !self.present() {
            exception(SS, FREE.into())
        } else {
            NOTHING
        }
    }

    /// JMP far to a segment; `None` where the descriptor leads to a task or through a gate.
    fn jump(self) -> u32 {
        let allowed = if self.is_conforming() {
            self.dpl() <= self.cpl()
        } else {
            self.rpl() <= self.cpl() && self.dpl() == self.cpl()
        };
        if !self.is_code() || !allowed {
            exception(GP, FREE.into())
        } else if !self.present() {
            exception(NP, FREE.into())
        } else {
            NOTHING
        }
    }

    /// ZF after LAR, LSL, VERR and VERW, from bit 0 on. They do not look at P.
    fn verdicts(self) -> u32 {
        const LAR: &[u32] = &[1, 2, 3, 4, 5, 9, 11, 12];
        const LSL: &[u32] = &[1, 2, 3, 9, 11];
        let visible = self.is_conforming() || self.dpl() >= self.rpl().max(self.cpl());
        let known = |types: &[u32]| self.is_segment() || types.contains(&self.kind());
        let verdicts = [
            visible && known(LAR),
            visible && known(LSL),
            visible && self.is_readable(),
            visible && self.is_writable_data(),
        ];
        verdicts.iter().rev().fold(0, |bits, &verdict| bits << 1 | u32::from(verdict))
    }
}

pub(super) fn rom() -> Emit<Rom> {
    kit::rom("segments", "segment registers, far jumps, LAR to VERW, limits and types", &[], |a| {
        let all = || (0..Setting::CASES).map(Setting);
        let outcomes = |what: &'static str, rule: fn(Setting) -> u32| {
            all().map(move |setting| -> Case {
                (setting.name(what), rule(setting).into(), u64::MAX)
            })
        };
        a.matrix(
            "SDM vol. 2, MOV",
            Kind::Outcome,
            outcomes("DS =", Setting::data),
            |a| at_level(a, |a| a.mov(ds, eax)),
            |_| Ok(()),
        )?;
        a.matrix(
            "SDM vol. 2, MOV",
            Kind::Outcome,
            outcomes("SS =", Setting::stack),
            |a| at_level(a, |a| a.mov(ss, eax)),
            |_| Ok(()),
        )?;
        a.matrix(
            "SDM vol. 2, LAR, LSL, VERR",
            Kind::Number,
            outcomes("LAR, LSL, VERR, VERW of", Setting::verdicts),
            |a| at_level(a, verdicts),
            |a| {
                emit!(a; mov(eax, dword_ptr(SPARE)); mov(dword_ptr(OUTCOME), eax););
                Ok(())
            },
        )?;
        // Gates and tasks are jumped to elsewhere.
        let segments = outcomes("JMP to", Setting::jump).zip(all());
        let segments = segments.map(|(case, setting)| {
            if setting.is_segment() { case } else { (case.0, NOTHING.into(), u64::MAX) }
        });
        a.matrix("SDM vol. 2, JMP", Kind::Outcome, segments, |a| at_level(a, jump), |_| Ok(()))?;
        limits(a)?;
        types(a)
    })
}

/// Writes the case's descriptor and executes `code` with its selector in EAX, and the access byte
/// in BL, at the case's level.
fn at_level(a: &mut Kit<'_, '_>, code: fn(&mut Kit<'_, '_>) -> Emit) -> Emit {
    let (user, done) = (a.fresh("outer"), a.fresh("both"));
    emit!(a;
        mov(dword_ptr(SPARE), 0);
        mov(ebx, dword_ptr(CASE));
        // Flat, of 32 bits.
        movzx(eax, bl);
        shl(eax, 8);
        or(eax, 0x00cf_0000);
        mov(dword_ptr(GDT + u32::from(FREE)), 0xffff);
        mov(dword_ptr(GDT + u32::from(FREE) + 4), eax);
        mov(eax, ebx);
        shr(eax, 8);
        and(eax, 3);
        or(eax, u32::from(FREE));
        bt(ebx, 10);
        jc -> &user;
    );
    code(a)?;
    emit!(a; jmp -> &done; at(&user););
    a.enter_user(0)?;
    code(a)?;
    a.back()?;
    a.at(&done)
}

/// Gathers ZF of the four instructions in a variable.
fn verdicts(a: &mut Kit<'_, '_>) -> Emit {
    emit!(a; xor(edi, edi); lar(ecx, eax); setz(dl); movzx(edx, dl); or(edi, edx););
    emit!(a; lsl(ecx, eax); setz(dl); movzx(edx, dl); shl(edx, 1); or(edi, edx););
    emit!(a; verr(ax); setz(dl); movzx(edx, dl); shl(edx, 2); or(edi, edx););
    emit!(a; verw(ax); setz(dl); movzx(edx, dl); shl(edx, 3); or(edi, edx););
    a.mov(dword_ptr(SPARE), edi)
}

fn jump(a: &mut Kit<'_, '_>) -> Emit {
    let target = a.fresh("target");
    let offset = a.address_of(&target);
    emit!(a;
        bt(ebx, 4);
        jnc -> &target;
        mov(dword_ptr(SPARE), offset);
        mov(word_ptr(SPARE + 4), ax);
        jmp(fword_ptr(SPARE));
        at(&target);
    );
    Ok(())
}

/// SDM vol. 3A, 5.3: an expand-up segment ends at its limit, an expand-down segment begins behind
/// it and ends at FFFF or FFFFFFFF. In the stack segment it is #SS that tells.
fn limits(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 5.3";
    const DOWN: u8 = 4;
    const LIMIT: u64 = 0xfff;
    for (down, big) in [(false, true), (true, false), (true, true)] {
        let (access, size) =
            (kit::USER | if down { DATA | DOWN } else { DATA }, if big { SIZE32 } else { 0 });
        let last: u64 = if big { 0xffff_ffff } else { 0xffff };
        let edges: &[u64] = if down { &[LIMIT + 1, last + 1] } else { &[LIMIT + 1] };
        a.descriptor(FREE, tables::segment(SCRATCH, LIMIT as u32, access, size))?;
        for (width, edge, back) in edges
            .iter()
            .flat_map(|&edge| [1u64, 2, 4].map(|width| (width, edge)))
            .flat_map(|(width, edge)| (0..=width).map(move |back| (width, edge, back)))
        {
            let Ok(offset) = u32::try_from(edge - back) else { continue };
            let end = u64::from(offset) + width - 1;
            let inside = if down { u64::from(offset) > LIMIT && end <= last } else { end <= LIMIT };
            let kind =
                if down { format!("expand-down, B={}", u8::from(big)) } else { "expand-up".into() };
            let name = format!("{width} bytes at {offset:#x} of {kind}, limit {LIMIT:#x}");
            for (stack, vector) in [(false, GP), (true, SS)] {
                let expected = if inside { NOTHING } else { exception(vector, 0) };
                let register = if stack { "SS" } else { "ES" };
                a.probe(format!("{name}, in {register}"), SOURCE, expected, |a| {
                    // At level 3: a fault leaves a stack that cannot be used.
                    a.enter_user(0)?;
                    emit!(a; mov(ecx, u32::from(FREE | 3)); mov(edi, offset););
                    let place = if stack {
                        a.mov(ss, ecx)?;
                        ptr(edi).ss()
                    } else {
                        a.mov(es, ecx)?;
                        ptr(edi).es()
                    };
                    match width {
                        1 => a.mov(al, place)?,
                        2 => a.mov(ax, place)?,
                        _ => a.mov(eax, place)?,
                    }
                    a.back()
                })?;
            }
        }
    }
    Ok(())
}

/// SDM vol. 3A, 5.5: what may be done to which type.
fn types(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 5.5";
    const READ_ONLY: u8 = 0x91;
    const EXECUTE_ONLY: u8 = 0x99;
    let flat = |access| tables::segment(0, 0xf_ffff, access, PAGES | SIZE32);
    a.descriptor(FREE, flat(READ_ONLY))?;
    a.probe("write to a read-only segment", SOURCE, exception(GP, 0), |a| {
        emit!(a; mov(ecx, u32::from(FREE)); mov(ds, ecx); mov(dword_ptr(SCRATCH), eax););
        Ok(())
    })?;
    a.probe("read of a read-only segment", SOURCE, NOTHING, |a| {
        emit!(a; mov(ecx, u32::from(FREE)); mov(ds, ecx); mov(eax, dword_ptr(SCRATCH)););
        Ok(())
    })?;
    a.probe("write to the code segment", SOURCE, exception(GP, 0), |a| {
        a.mov(dword_ptr(SCRATCH).cs(), eax)
    })?;
    a.probe("read of the code segment", SOURCE, NOTHING, |a| a.mov(eax, dword_ptr(SCRATCH).cs()))?;
    for (name, selector, expected) in [
        ("access through a null segment", 0, exception(GP, 0)),
        ("access through a null segment with RPL 3", 3, exception(GP, 0)),
        ("a selector beyond the GDT", 0x400, exception(GP, 0x400)),
        ("a selector in a missing LDT", 0x44, exception(GP, 0x44)),
        ("a code segment that can be read", CODE0, NOTHING),
    ] {
        a.probe(name, SOURCE, expected, |a| {
            emit!(a; mov(ecx, u32::from(selector)); mov(es, ecx); mov(eax, dword_ptr(SCRATCH).es()););
            Ok(())
        })?;
    }
    a.probe("a null stack segment", "SDM vol. 2, MOV", exception(GP, 0), |a| {
        emit!(a; xor(ecx, ecx); mov(ss, ecx););
        Ok(())
    })?;
    a.descriptor(FREE, flat(EXECUTE_ONLY))?;
    let target = a.fresh("execute_only");
    let offset = a.address_of(&target);
    a.probe("read of an execute-only segment", SOURCE, exception(GP, 0), |a| {
        emit!(a;
            mov(dword_ptr(SPARE), offset);
            mov(word_ptr(SPARE + 4), u32::from(FREE));
            jmp(fword_ptr(SPARE));
            at(&target);
            mov(eax, dword_ptr(SCRATCH).cs());
        );
        Ok(())
    })
}
