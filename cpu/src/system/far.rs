//! Far JMP, CALL and RET (SDM vol. 2, the operations of the same names; vol. 3, 5.8).

use brolga_mmu::Width;

use super::descriptor::{Descriptor, extend, fetch, kind, null_segment, set_accessed};
use super::segment::{check_code_size, hide_privileged_segments, real_segment, stack_segment};
use super::stack::Stack;
use super::{Done, gp_on, is_null, on_selector, rpl, task, with_rpl};
use crate::backend::Backend;
use crate::core::{By, Core, Exit};
use crate::exception::{Exception, vector};
use crate::insn::{Insn, bits};
use crate::vcpu::{SegReg, Segment, attr};

/// The two ways to a far target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transfer {
    Jump,
    Call,
}

/// The far pointer operand: selector and offset.
fn far_pointer(core: &mut Core, insn: &Insn) -> Result<(u16, u64), Exit> {
    if !insn.has(bits::MEM0) {
        return Ok(((insn.imm >> 32) as u16, insn.imm & 0xffff_ffff & insn.opsize.mask()));
    }
    let ea = core.ea(insn);
    let offset = core.load(insn.opsize, insn.seg, ea)?;
    let next = ea.wrapping_add(insn.opsize.bytes()) & insn.ea_mask;
    let selector = core.load(Width::W16, insn.seg, next)? as u16;
    Ok((selector, offset))
}

/// JMP far.
pub fn jmp_far(core: &mut Core, insn: &Insn) -> Done {
    transfer(core, insn, Transfer::Jump)
}

/// CALL far.
pub fn call_far(core: &mut Core, insn: &Insn) -> Done {
    transfer(core, insn, Transfer::Call)
}

fn transfer(core: &mut Core, insn: &Insn, how: Transfer) -> Done {
    let (selector, offset) = far_pointer(core, insn)?;
    if !core.vcpu.protected() {
        let cs = real_segment(core, SegReg::Cs, selector);
        return enter_same_level(core, insn, how, insn.opsize, cs, offset);
    }
    core.require(!is_null(selector), Exception::gp("far transfer to a null selector"))?;
    let mut d = fetch(core, selector, vector::GP)?;
    if !d.system() {
        return to_code(core, insn, how, &mut d, offset);
    }
    let long = core.vcpu.long_mode();
    match d.kind() {
        kind::CALL32 => through_call_gate(core, insn, how, d),
        kind::CALL16 if !long => through_call_gate(core, insn, how, d),
        kind::TASK_GATE if !long => through_task_gate(core, insn, how, &d),
        kind::TSS16 | kind::TSS32 if !long => {
            check_gate_privilege(core, &d)?;
            core.require(d.present(), on_selector(vector::NP, selector, "TSS not present"))?;
            switch_task(core, insn, how, &d)
        }
        _ => Err(core.raise(gp_on(selector, "far transfer to a descriptor of a wrong type"))),
    }
}

/// A code segment named directly.
fn to_code(core: &mut Core, insn: &Insn, how: Transfer, d: &mut Descriptor, offset: u64) -> Done {
    let (selector, cpl) = (d.selector, core.vcpu.cpl);
    core.require(d.code(), gp_on(selector, "far transfer to a data segment"))?;
    check_code_size(core, d, selector)?;
    if d.conforming() {
        let ok = d.dpl() <= cpl;
        core.require(ok, gp_on(selector, "conforming code segment with DPL > CPL"))?;
    } else {
        let ok = rpl(selector) <= cpl && d.dpl() == cpl;
        core.require(ok, gp_on(selector, "code segment at another privilege level"))?;
    }
    core.require(d.present(), on_selector(vector::NP, selector, "code segment not present"))?;
    set_accessed(core, d)?;
    let cs = d.segment(with_rpl(selector, cpl));
    enter_same_level(core, insn, how, insn.opsize, cs, offset)
}

/// The last steps of a transfer that keeps CPL: checks the target, pushes the return address of
/// `w` wide words for a call, and goes.
fn enter_same_level(
    core: &mut Core,
    insn: &Insn,
    how: Transfer,
    w: Width,
    cs: Segment,
    ip: u64,
) -> Done {
    core.check_ip(&cs, ip)?;
    if how == Transfer::Call {
        let mut stack = Stack::current(core);
        let old_cs = core.vcpu.seg(SegReg::Cs).selector;
        let next = core.next_ip(insn);
        stack.push(core, w, &[old_cs.into(), next])?;
        stack.commit(core, 0);
    }
    let cpl = core.vcpu.cpl;
    core.enter_code(cs, cpl, ip);
    Ok(())
}

/// Gates and TSS descriptors: DPL must not be below CPL or RPL.
fn check_gate_privilege(core: &mut Core, d: &Descriptor) -> Done {
    let ok = d.dpl() >= core.vcpu.cpl.max(rpl(d.selector));
    core.require(ok, gp_on(d.selector, "gate or TSS more privileged than CPL or RPL"))
}

fn through_call_gate(core: &mut Core, insn: &Insn, how: Transfer, mut gate: Descriptor) -> Done {
    let cpl = core.vcpu.cpl;
    check_gate_privilege(core, &gate)?;
    let np = on_selector(vector::NP, gate.selector, "call gate not present");
    core.require(gate.present(), np)?;
    extend(core, &mut gate, vector::GP)?;
    let selector = gate.gate_selector();
    core.require(!is_null(selector), Exception::gp("call gate with a null code selector"))?;
    let mut code = fetch(core, selector, vector::GP)?;
    let ok = code.code() && code.dpl() <= cpl;
    core.require(ok, gp_on(selector, "call gate to no code segment, or a less privileged one"))?;
    let long = core.vcpu.long_mode();
    let ok = !long || code.has(attr::L) && !code.has(attr::DB);
    core.require(ok, gp_on(selector, "call gate to code that is not 64-bit"))?;
    let inner = !code.conforming() && code.dpl() < cpl;
    let ok = how == Transfer::Call || !inner;
    core.require(ok, gp_on(selector, "jump through a call gate to a more privileged level"))?;
    core.require(code.present(), on_selector(vector::NP, selector, "code segment not present"))?;

    let w = match gate.kind() {
        kind::CALL16 => Width::W16,
        _ if long => Width::W64,
        _ => Width::W32,
    };
    let ip = gate.gate_offset();
    set_accessed(core, &mut code)?;
    if inner {
        call_inner_level(core, insn, &gate, &code, w)
    } else {
        let cs = code.segment(with_rpl(selector, cpl));
        enter_same_level_at_gate(core, insn, how, w, cs, ip)
    }
}

/// As [`enter_same_level`]; in IA-32e mode the gate leads to 64-bit code, whose stack pointer has
/// 64 bits even if the caller's had fewer.
fn enter_same_level_at_gate(
    core: &mut Core,
    insn: &Insn,
    how: Transfer,
    w: Width,
    cs: Segment,
    ip: u64,
) -> Done {
    if w != Width::W64 || core.vcpu.code64() || how == Transfer::Jump {
        return enter_same_level(core, insn, how, w, cs, ip);
    }
    core.check_ip(&cs, ip)?;
    let old = Stack::current(core);
    let cpl = core.vcpu.cpl;
    let mut stack = Stack::other(old.ss, old.sp, Width::W64, cpl);
    let old_cs = core.vcpu.seg(SegReg::Cs).selector;
    let next = core.next_ip(insn);
    stack.push(core, w, &[old_cs.into(), next])?;
    stack.commit(core, 0);
    core.enter_code(cs, cpl, ip);
    Ok(())
}

/// CALL through a gate to a more privileged level: the stack changes.
fn call_inner_level(
    core: &mut Core,
    insn: &Insn,
    gate: &Descriptor,
    code: &Descriptor,
    w: Width,
) -> Done {
    let level = code.dpl();
    let old = Stack::current(core);
    let mut stack = inner_stack(core, level)?;
    let cs = code.segment(with_rpl(code.selector, level));
    let ip = gate.gate_offset();
    core.check_ip(&cs, ip)?;

    let old_sp = old.sp;
    let mut frame = vec![u64::from(old.ss.selector), old_sp];
    if w != Width::W64 {
        for i in (0..gate.gate_count()).rev() {
            frame.push(old.peek(core, w, i * w.bytes())?);
        }
    }
    frame.push(core.vcpu.seg(SegReg::Cs).selector.into());
    frame.push(core.next_ip(insn));
    stack.push(core, w, &frame)?;

    core.vcpu.segs[SegReg::Ss as usize] = stack.ss;
    stack.commit(core, 0);
    core.enter_code(cs, level, ip);
    Ok(())
}

/// The stack that the TSS holds for privilege level `level`, for calls and interrupts.
pub(super) fn inner_stack(core: &mut Core, level: u8) -> Result<Stack, Exit> {
    let tr = core.vcpu.tr;
    let level64 = u64::from(level);
    let long = core.vcpu.long_mode();
    let (offset, w) = match tr.kind() & 8 != 0 {
        _ if long => (level64 * 8 + 4, Width::W64),
        true => (level64 * 8 + 4, Width::W32),
        false => (level64 * 4 + 2, Width::W16),
    };
    let size = if long { 8 } else { w.bytes() + 2 };
    core.require(
        offset + size - 1 <= u64::from(tr.limit),
        on_selector(vector::TS, tr.selector, "inner stack pointer beyond the TSS limit"),
    )?;
    let at = core.table_address(tr.base, offset);
    let sp = core.read_linear(at, w, By::System)?;
    if long {
        let ss = null_segment(level.into(), level);
        return Ok(Stack::other(ss, sp, Width::W64, level));
    }
    let at = core.table_address(tr.base, offset + w.bytes());
    let selector = core.read_linear(at, Width::W16, By::System)? as u16;
    let ss = stack_segment(core, selector, level, vector::TS)?;
    let width = core.stack_width(&ss, false);
    Ok(Stack::other(ss, sp, width, level))
}

fn through_task_gate(core: &mut Core, insn: &Insn, how: Transfer, gate: &Descriptor) -> Done {
    check_gate_privilege(core, gate)?;
    let np = on_selector(vector::NP, gate.selector, "task gate not present");
    core.require(gate.present(), np)?;
    let tss = task::available(core, gate.gate_selector())?;
    switch_task(core, insn, how, &tss)
}

fn switch_task(core: &mut Core, insn: &Insn, how: Transfer, tss: &Descriptor) -> Done {
    let (next, flags) = (core.next_ip(insn), core.vcpu.rflags());
    let cause = match how {
        Transfer::Jump => task::Cause::Jump,
        Transfer::Call => task::Cause::Nest,
    };
    task::switch(core, tss, cause, next, flags)
}

/// The code segment that a far return or IRET goes to, checked.
pub(super) fn return_segment(core: &mut Core, selector: u16) -> Result<Segment, Exit> {
    core.require(!is_null(selector), Exception::gp("return to a null code selector"))?;
    let mut d = fetch(core, selector, vector::GP)?;
    core.require(d.code(), gp_on(selector, "return to a segment that is not code"))?;
    let level = rpl(selector);
    let ok = level >= core.vcpu.cpl;
    core.require(ok, gp_on(selector, "return to a more privileged level"))?;
    check_code_size(core, &d, selector)?;
    let ok = if d.conforming() { d.dpl() <= level } else { d.dpl() == level };
    core.require(ok, gp_on(selector, "DPL of the code segment does not fit the RPL"))?;
    core.require(d.present(), on_selector(vector::NP, selector, "code segment not present"))?;
    set_accessed(core, &mut d)?;
    Ok(d.segment(selector))
}

/// The stack segment that a far return or IRET to code segment `cs` pops.
pub(super) fn return_stack(core: &mut Core, cs: &Segment, selector: u16) -> Result<Segment, Exit> {
    let level = rpl(cs.selector);
    let to64 = core.vcpu.long_mode() && cs.has(attr::L);
    if is_null(selector) {
        let ok = to64 && level != 3 && rpl(selector) == level;
        core.require(ok, Exception::gp("return to a null stack selector"))?;
        return Ok(null_segment(selector, level));
    }
    stack_segment(core, selector, level, vector::GP)
}

/// RET far, with or without an immediate.
pub fn ret_far(core: &mut Core, insn: &Insn) -> Done {
    let w = insn.opsize;
    let release = insn.imm & 0xffff;
    let stack = Stack::current(core);
    let ip = stack.peek(core, w, 0)?;
    let selector = stack.peek(core, w, w.bytes())? as u16;
    if !core.vcpu.protected() {
        let cs = real_segment(core, SegReg::Cs, selector);
        core.check_ip(&cs, ip)?;
        stack.commit(core, 2 * w.bytes() + release);
        let cpl = core.vcpu.cpl;
        core.enter_code(cs, cpl, ip);
        return Ok(());
    }
    let cs = return_segment(core, selector)?;
    let level = rpl(selector);
    if level == core.vcpu.cpl {
        core.check_ip(&cs, ip)?;
        stack.commit(core, 2 * w.bytes() + release);
        core.enter_code(cs, level, ip);
        return Ok(());
    }
    let sp = stack.peek(core, w, 2 * w.bytes() + release)?;
    let ss_selector = stack.peek(core, w, 3 * w.bytes() + release)? as u16;
    let ss = return_stack(core, &cs, ss_selector)?;
    core.check_ip(&cs, ip)?;
    core.vcpu.segs[SegReg::Ss as usize] = ss;
    core.enter_code(cs, level, ip);
    let width = core.stack_width(&ss, core.vcpu.code64());
    Stack::other(ss, sp, width, level).commit(core, release);
    hide_privileged_segments(core, level);
    Ok(())
}
