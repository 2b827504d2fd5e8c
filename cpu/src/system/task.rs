//! Hardware task switching (SDM vol. 3, chapter 7).

use brolga_mmu::{Linear, Width};

use super::descriptor::{BUSY, Descriptor, fetch, kind, null_segment, set_accessed, set_busy};
use super::segment::{V86_RIGHTS, data_segment, stack_segment};
use super::stack::Stack;
use super::{Done, control, debug, gp_on, is_null, on_selector, rpl};
use crate::backend::Backend;
use crate::core::{By, Core, Exit};
use crate::exception::vector;
use crate::insn::Insn;
use crate::vcpu::{RIP, SegReg, Segment, attr, cr0, gpr, rflags};

/// What starts a task switch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// JMP: the old task is left for good.
    Jump,
    /// CALL, an interrupt or an exception: the new task can return to the old one.
    Nest,
    /// IRET with NT set.
    Return,
}

/// Where a TSS keeps things: 16- and 32-bit format (SDM vol. 3, figures 7-2 and 7-10).
struct Layout {
    width: Width,
    /// Lowest allowed limit.
    limit: u32,
    cr3: Option<u64>,
    ip: u64,
    flags: u64,
    /// AX to DI, consecutively.
    regs: u64,
    /// ES, CS, SS, DS and in the 32-bit format FS, GS.
    segs: u64,
    seg_count: usize,
    ldt: u64,
    trap: Option<u64>,
}

const TSS16: Layout = Layout {
    width: Width::W16,
    limit: 0x2b,
    cr3: None,
    ip: 0x0e,
    flags: 0x10,
    regs: 0x12,
    segs: 0x22,
    seg_count: 4,
    ldt: 0x2a,
    trap: None,
};

const TSS32: Layout = Layout {
    width: Width::W32,
    limit: 0x67,
    cr3: Some(0x1c),
    ip: 0x20,
    flags: 0x24,
    regs: 0x28,
    segs: 0x48,
    seg_count: 6,
    ldt: 0x60,
    trap: Some(0x64),
};

impl Layout {
    fn of(kind: u8) -> &'static Layout {
        if kind & 8 != 0 { &TSS32 } else { &TSS16 }
    }
}

/// The dynamic part of a task's state.
#[derive(Default)]
struct State {
    cr3: u64,
    ip: u64,
    flags: u64,
    regs: [u64; 8],
    segs: [u16; 6],
    ldt: u16,
    trap: bool,
}

/// The TSS that a task gate's selector names, which must be in the GDT, available and present.
pub(super) fn available(core: &mut Core, selector: u16) -> Result<Descriptor, Exit> {
    let ok = !is_null(selector) && selector & 4 == 0;
    core.require(ok, gp_on(selector, "task gate with a null or local TSS selector"))?;
    let d = fetch(core, selector, vector::GP)?;
    let ok = d.system() && matches!(d.kind(), kind::TSS16 | kind::TSS32);
    core.require(ok, gp_on(selector, "not an available TSS"))?;
    core.require(d.present(), on_selector(vector::NP, selector, "TSS not present"))?;
    Ok(d)
}

/// IRET with NT set: back to the task that the current TSS links to.
pub(super) fn return_to_previous(core: &mut Core, insn: &Insn) -> Done {
    let link = core.table_address(core.vcpu.tr.base, 0);
    let selector = core.read_linear(link, Width::W16, By::System)? as u16;
    let ts = |why| on_selector(vector::TS, selector, why);
    let ok = !is_null(selector) && selector & 4 == 0;
    core.require(ok, ts("back link to a null or local TSS selector"))?;
    let d = fetch(core, selector, vector::TS)?;
    let busy = d.system() && matches!(d.kind(), kind::TSS16_BUSY | kind::TSS32_BUSY);
    core.require(busy, ts("back link to a TSS that is not busy"))?;
    core.require(d.present(), on_selector(vector::NP, selector, "TSS not present"))?;
    let (next, flags) = (core.next_ip(insn), core.vcpu.rflags());
    switch(core, &d, Cause::Return, next, flags)
}

/// Switches to the task of `tss`, whose descriptor has been checked. `ip` is where the old task
/// will continue, with `flags`. Faults before the commit point leave the old task as it was; later ones are
/// raised in the context of the new task.
pub(super) fn switch(core: &mut Core, tss: &Descriptor, cause: Cause, ip: u64, flags: u64) -> Done {
    let layout = Layout::of(tss.kind());
    let why = "TSS limit too small";
    core.require(tss.limit() >= layout.limit, on_selector(vector::TS, tss.selector, why))?;
    let new = read_state(core, layout, tss.base())?;
    let old_tr = core.vcpu.tr;
    let old_layout = Layout::of(old_tr.kind());
    check_writable(core, old_layout, old_tr.base)?;
    if cause == Cause::Nest {
        let link = core.table_address(tss.base(), 0);
        core.check_write(link, 2, By::System)?;
    }
    let old_descriptor = fetch(core, old_tr.selector & !4, vector::TS)?;
    core.check_write(old_descriptor.at.wrapping_add(5), 1, By::System)?;
    core.check_write(tss.at.wrapping_add(5), 1, By::System)?;

    if cause != Cause::Nest {
        set_busy(core, &old_descriptor, false)?;
    }
    let flags = if cause == Cause::Return { flags & !rflags::NT } else { flags };
    save_state(core, old_layout, old_tr.base, ip, flags)?;
    if cause == Cause::Nest {
        let link = core.table_address(tss.base(), 0);
        core.write_linear(link, Width::W16, old_tr.selector.into(), By::System)?;
    }
    if cause != Cause::Return {
        set_busy(core, tss, true)?;
    }
    let mut tr = tss.segment(tss.selector);
    tr.attr |= BUSY;
    core.vcpu.tr = tr;
    core.vcpu.sys.cr0 |= cr0::TS;
    enter(core, layout, &new, cause)
}

/// All fields that a switch loads, read before anything changes.
fn read_state(core: &mut Core, layout: &Layout, base: u64) -> Result<State, Exit> {
    let w = layout.width;
    let mut read = |offset: u64, w: Width| {
        let at = core.table_address(base, offset);
        core.read_linear(at, w, By::System)
    };
    let mut state = State {
        ip: read(layout.ip, w)?,
        flags: read(layout.flags, w)?,
        ldt: read(layout.ldt, Width::W16)? as u16,
        ..State::default()
    };
    for (i, slot) in (0..).zip(state.regs.iter_mut()) {
        // What the 16-bit format does not hold is ones: no manual says so, but test386.asm insists.
        *slot = read(layout.regs + i * w.bytes(), w)? | !w.mask() & Width::W32.mask();
    }
    for (i, slot) in (0..).zip(state.segs[..layout.seg_count].iter_mut()) {
        *slot = read(layout.segs + i * w.bytes(), Width::W16)? as u16;
    }
    if let Some(offset) = layout.cr3 {
        state.cr3 = read(offset, w)?;
    }
    if let Some(offset) = layout.trap {
        state.trap = read(offset, Width::W16)? & 1 != 0;
    }
    Ok(state)
}

/// Checks that [`save_state`] will not fault.
fn check_writable(core: &mut Core, layout: &Layout, base: u64) -> Done {
    let first = core.table_address(base, layout.ip);
    let end = layout.segs + layout.seg_count as u64 * layout.width.bytes();
    core.check_write(first, end - layout.ip, By::System)
}

fn save_state(core: &mut Core, layout: &Layout, base: u64, ip: u64, flags: u64) -> Done {
    let w = layout.width;
    let put = |core: &mut Core, offset: u64, w: Width, v: u64| {
        let at: Linear = core.table_address(base, offset);
        core.write_linear(at, w, v & w.mask(), By::System)
    };
    put(core, layout.ip, w, ip)?;
    put(core, layout.flags, w, flags)?;
    for i in 0..8u8 {
        let v = core.vcpu.regs[usize::from(i)];
        put(core, layout.regs + u64::from(i) * w.bytes(), w, v)?;
    }
    for (i, reg) in (0..).zip(&SegReg::ALL[..layout.seg_count]) {
        let selector = core.vcpu.seg(*reg).selector;
        put(core, layout.segs + i * w.bytes(), Width::W16, selector.into())?;
    }
    Ok(())
}

/// Beyond the commit point: loads the new task's registers, then its segments.
fn enter(core: &mut Core, layout: &Layout, new: &State, cause: Cause) -> Done {
    if layout.cr3.is_some() && core.vcpu.sys.cr0 & cr0::PG != 0 {
        control::switch_cr3(core, new.cr3)?;
    }
    let nested = if cause == Cause::Nest { rflags::NT } else { 0 };
    core.vcpu.set_rflags(new.flags | nested);
    core.vcpu.regs[..8].copy_from_slice(&new.regs);
    core.vcpu.regs[usize::from(RIP)] = new.ip;
    core.delivery.resume = Some(new.ip);
    for (reg, selector) in SegReg::ALL.into_iter().zip(new.segs) {
        // Until its descriptor is loaded, a register holds the selector and nothing usable.
        core.vcpu.segs[reg as usize] = null_segment(selector, 0);
    }
    core.vcpu.ldtr = null_segment(new.ldt, 0);
    core.vcpu.sys.dr7 &= !debug::LOCAL_ENABLES;
    if new.trap {
        core.vcpu.pending_db |= debug::BT;
    }
    core.leave_block(false);
    if core.vcpu.v86() {
        for (reg, selector) in SegReg::ALL.into_iter().zip(new.segs) {
            let code = if reg == SegReg::Cs { attr::CODE } else { 0 };
            core.vcpu.segs[reg as usize] = Segment::real(selector, V86_RIGHTS | code, 0xffff);
        }
        core.vcpu.cpl = 3;
        core.mode_changed();
        load_ldt(core, new.ldt)?;
    } else {
        core.vcpu.cpl = rpl(new.segs[SegReg::Cs as usize]);
        core.mode_changed();
        load_ldt(core, new.ldt)?;
        load_segments(core, new)?;
    }
    let cs = *core.vcpu.seg(SegReg::Cs);
    core.check_ip(&cs, new.ip)?;
    core.set_rip(new.ip);
    core.delivery.resume = None;
    Ok(())
}

fn load_ldt(core: &mut Core, selector: u16) -> Done {
    if is_null(selector) {
        return Ok(());
    }
    let ts = |why| on_selector(vector::TS, selector, why);
    core.require(selector & 4 == 0, ts("LDT selector names the LDT"))?;
    let d = fetch(core, selector, vector::TS)?;
    core.require(d.system() && d.kind() == kind::LDT, ts("not an LDT descriptor"))?;
    core.require(d.present(), ts("LDT not present"))?;
    core.vcpu.ldtr = d.segment(selector);
    Ok(())
}

fn load_segments(core: &mut Core, new: &State) -> Done {
    let cpl = core.vcpu.cpl;
    let ss = new.segs[SegReg::Ss as usize];
    let segment = stack_segment(core, ss, cpl, vector::TS)?;
    core.set_segment(SegReg::Ss, segment);
    let segment = code_segment(core, new.segs[SegReg::Cs as usize])?;
    core.set_segment(SegReg::Cs, segment);
    for reg in [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs] {
        let segment = data_segment(core, new.segs[reg as usize], cpl, vector::TS)?;
        core.set_segment(reg, segment);
    }
    Ok(())
}

fn code_segment(core: &mut Core, selector: u16) -> Result<Segment, Exit> {
    let ts = |why| on_selector(vector::TS, selector, why);
    core.require(!is_null(selector), ts("null code selector in the TSS"))?;
    let mut d = fetch(core, selector, vector::TS)?;
    core.require(d.code(), ts("CS in the TSS is not a code segment"))?;
    let level = rpl(selector);
    let ok = if d.conforming() { d.dpl() <= level } else { d.dpl() == level };
    core.require(ok, ts("DPL of the code segment does not fit the RPL"))?;
    core.require(d.present(), on_selector(vector::NP, selector, "code segment not present"))?;
    set_accessed(core, &mut d)?;
    Ok(d.segment(selector))
}

/// Pushes an exception's error code on the stack of the task just entered.
pub(super) fn push_error(core: &mut Core, error: u32) -> Done {
    let w = Layout::of(core.vcpu.tr.kind()).width;
    let mut stack = Stack::current(core);
    core.delivery.resume = Some(core.vcpu.regs[usize::from(RIP)]);
    stack.push(core, w, &[error.into()])?;
    core.delivery.resume = None;
    let sp = stack.sp;
    core.set_reg(stack.width, gpr::RSP, sp);
    Ok(())
}
