//! IRET in all modes (SDM vol. 2, IRET).

use brolga_mmu::Width;

use super::far::{return_segment, return_stack};
use super::segment::{V86_RIGHTS, hide_privileged_segments, real_segment};
use super::stack::Stack;
use super::{Done, rpl, task};
use crate::core::Core;
use crate::exception::Exception;
use crate::insn::Insn;
use crate::vcpu::rflags::{AC, DF, ID, IF, IOPL, NT, RF, STATUS, TF, VIF, VIP, VM};
use crate::vcpu::{SegReg, Segment, attr, cr4};

/// What every IRET restores, whatever the privilege.
const ALWAYS: u64 = STATUS | TF | DF | NT;
/// What the 32- and 64-bit forms restore beyond that.
const WIDE: u64 = RF | AC | ID;

/// The flags that an IRET in the current mode takes from the popped image.
fn restored(core: &Core, w: Width) -> u64 {
    let wide = if w == Width::W16 { 0 } else { WIDE };
    let v = &core.vcpu;
    let mut mask = ALWAYS | wide;
    if v.cpl <= v.iopl() {
        mask |= IF;
    }
    if v.cpl == 0 {
        mask |= IOPL;
        if wide != 0 && v.protected() {
            mask |= VIF | VIP;
        }
    }
    mask
}

fn restore_flags(core: &mut Core, mask: u64, image: u64) {
    let old = core.vcpu.rflags();
    core.replace_rflags(old & !mask | image & mask);
}

/// IRET, IRETD, IRETQ.
pub fn iret(core: &mut Core, insn: &Insn) -> Done {
    // IRET ends NMI blocking even if it faults (SDM vol. 3, 6.7.1 and 25.3).
    core.vcpu.nmi_blocked = false;
    let w = insn.opsize;
    if core.vcpu.v86() {
        return from_v86(core, w);
    }
    if !core.vcpu.protected() {
        let mask = restored(core, w);
        return real_return(core, w, mask);
    }
    if core.vcpu.eflags & NT != 0 {
        let legacy = !core.vcpu.long_mode();
        core.require(legacy, Exception::gp("IRET with NT set in IA-32e mode"))?;
        return task::return_to_previous(core, insn);
    }
    let stack = Stack::current(core);
    let ip = stack.peek(core, w, 0)?;
    let cs_selector = stack.peek(core, w, w.bytes())? as u16;
    let image = stack.peek(core, w, 2 * w.bytes())?;
    let legacy = !core.vcpu.long_mode();
    if image & VM != 0 && w == Width::W32 && core.vcpu.cpl == 0 && legacy {
        return to_v86(core, &stack, ip, cs_selector, image);
    }

    let cs = return_segment(core, cs_selector)?;
    let level = rpl(cs_selector);
    let outer = level > core.vcpu.cpl;
    // IRETQ and every IRET in 64-bit mode pop the stack pointer unconditionally.
    if !outer && !core.vcpu.code64() {
        core.check_ip(&cs, ip)?;
        let mask = restored(core, w);
        stack.commit(core, 3 * w.bytes());
        core.enter_code(cs, level, ip);
        restore_flags(core, mask, image);
        return Ok(());
    }
    let sp = stack.peek(core, w, 3 * w.bytes())?;
    let ss_selector = stack.peek(core, w, 4 * w.bytes())? as u16;
    let ss = return_stack(core, &cs, ss_selector)?;
    core.check_ip(&cs, ip)?;
    let mask = restored(core, w);
    core.vcpu.segs[SegReg::Ss as usize] = ss;
    core.enter_code(cs, level, ip);
    let width = core.stack_width(&ss, core.vcpu.code64());
    Stack::other(ss, sp, width, level).commit(core, 0);
    restore_flags(core, mask, image);
    if outer {
        hide_privileged_segments(core, level);
    }
    Ok(())
}

/// Pops IP, CS and flags as real-address mode does, taking the flags in `mask`.
fn real_return(core: &mut Core, w: Width, mask: u64) -> Done {
    let stack = Stack::current(core);
    let ip = stack.peek(core, w, 0)?;
    let selector = stack.peek(core, w, w.bytes())? as u16;
    let image = stack.peek(core, w, 2 * w.bytes())?;
    let cs = real_segment(core, SegReg::Cs, selector);
    core.check_ip(&cs, ip)?;
    stack.commit(core, 3 * w.bytes());
    let cpl = core.vcpu.cpl;
    core.enter_code(cs, cpl, ip);
    restore_flags(core, mask, image);
    Ok(())
}

/// From virtual-8086 mode to virtual-8086 mode: IOPL 3, or the virtual interrupt flag of VME
/// (SDM vol. 3, 20.3.3).
fn from_v86(core: &mut Core, w: Width) -> Done {
    if core.vcpu.iopl() == 3 {
        let wide = if w == Width::W16 { 0 } else { WIDE };
        return real_return(core, w, ALWAYS | IF | wide);
    }
    let vme = core.vcpu.sys.cr4 & cr4::VME != 0 && w == Width::W16;
    core.require(vme, Exception::gp("IRET in virtual-8086 mode with IOPL < 3"))?;
    let image = Stack::current(core).peek(core, w, 4)?;
    let pending = image & IF != 0 && core.vcpu.eflags & VIP != 0;
    let ok = !pending && image & TF == 0;
    core.require(ok, Exception::gp("IRET under VME sets TF, or IF with VIP pending"))?;
    real_return(core, w, STATUS | DF | NT)?;
    let vif = if image & IF != 0 { VIF } else { 0 };
    core.vcpu.eflags = core.vcpu.eflags & !VIF | vif;
    Ok(())
}

/// IRETD at CPL 0 with VM set in the popped flags.
fn to_v86(core: &mut Core, stack: &Stack, ip: u64, cs: u16, image: u64) -> Done {
    const W: Width = Width::W32;
    let mut popped = [0; 6];
    for (i, slot) in (3..).zip(popped.iter_mut()) {
        *slot = stack.peek(core, W, i * W.bytes())?;
    }
    let [sp, ss, es, ds, fs, gs] = popped;
    core.require(ip <= 0xffff, Exception::gp("target IP beyond the CS limit"))?;
    for (reg, selector) in
        [(SegReg::Ss, ss), (SegReg::Es, es), (SegReg::Ds, ds), (SegReg::Fs, fs), (SegReg::Gs, gs)]
    {
        core.vcpu.segs[reg as usize] = Segment::real(selector as u16, V86_RIGHTS, 0xffff);
    }
    core.vcpu.regs[usize::from(crate::vcpu::gpr::RSP)] = sp;
    const TAKEN: u64 = ALWAYS | WIDE | IF | IOPL | VM | VIF | VIP;
    let old = core.vcpu.rflags();
    core.replace_rflags(old & !TAKEN | image & TAKEN);
    core.enter_code(Segment::real(cs, V86_RIGHTS | attr::CODE, 0xffff), 3, ip);
    Ok(())
}
