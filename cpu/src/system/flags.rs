//! Instructions on RFLAGS as a whole and on IF (SDM vol. 2, PUSHF, POPF, CLI, STI; vol. 3, 20.3
//! and 20.4 for VME and PVI).

use brolga_mmu::Width;

use super::Done;
use crate::backend::Backend;
use crate::core::Core;
use crate::exception::Exception;
use crate::insn::Insn;
use crate::vcpu::rflags::{AC, DF, ID, IF, IOPL, NT, RF, STATUS, TF, VIF, VIP, VM};
use crate::vcpu::{Activity, Shadow, cr4, gpr};

/// Where IF is for the current program.
enum InterruptFlag {
    /// EFLAGS.IF.
    Real,
    /// EFLAGS.VIF: virtual-8086 mode under VME, or CPL 3 under PVI.
    Virtual,
    /// Out of reach: #GP.
    None,
}

fn interrupt_flag(core: &Core) -> InterruptFlag {
    let v = &core.vcpu;
    let virtualized = if v.v86() { cr4::VME } else { cr4::PVI };
    if v.cpl <= v.iopl() {
        InterruptFlag::Real
    } else if v.cpl == 3 && v.sys.cr4 & virtualized != 0 {
        InterruptFlag::Virtual
    } else {
        InterruptFlag::None
    }
}

/// CLI.
pub fn cli(core: &mut Core, _: &Insn) -> Done {
    match interrupt_flag(core) {
        InterruptFlag::Real => core.vcpu.eflags &= !IF,
        InterruptFlag::Virtual => core.vcpu.eflags &= !VIF,
        InterruptFlag::None => return Err(core.raise(Exception::gp("CLI with CPL > IOPL"))),
    }
    Ok(())
}

/// STI. Interrupts stay off for one more instruction.
pub fn sti(core: &mut Core, _: &Insn) -> Done {
    match interrupt_flag(core) {
        InterruptFlag::Real if core.vcpu.eflags & IF == 0 => {
            core.vcpu.eflags |= IF;
            core.vcpu.shadow = Shadow::Sti;
            core.leave_block(false);
        }
        InterruptFlag::Real => {}
        InterruptFlag::Virtual => {
            let ok = core.vcpu.eflags & VIP == 0;
            core.require(ok, Exception::gp("STI with a virtual interrupt pending"))?;
            core.vcpu.eflags |= VIF;
        }
        InterruptFlag::None => return Err(core.raise(Exception::gp("STI with CPL > IOPL"))),
    }
    Ok(())
}

/// CLD.
pub fn cld(core: &mut Core, _: &Insn) -> Done {
    core.vcpu.eflags &= !DF;
    Ok(())
}

/// STD.
pub fn std(core: &mut Core, _: &Insn) -> Done {
    core.vcpu.eflags |= DF;
    Ok(())
}

fn set_ac(core: &mut Core, on: bool) -> Done {
    let ok = core.vcpu.cpl == 0 && core.vcpu.protected();
    core.require(ok, Exception::ud("STAC or CLAC at CPL > 0"))?;
    let old = core.vcpu.eflags;
    core.vcpu.eflags = if on { old | AC } else { old & !AC };
    if core.vcpu.eflags != old {
        core.mode_changed();
        core.leave_block(false);
    }
    Ok(())
}

/// STAC: supervisor accesses to user pages are allowed.
pub fn stac(core: &mut Core, _: &Insn) -> Done {
    set_ac(core, true)
}

/// CLAC.
pub fn clac(core: &mut Core, _: &Insn) -> Done {
    set_ac(core, false)
}

/// PUSHF, PUSHFD, PUSHFQ.
pub fn pushf(core: &mut Core, insn: &Insn) -> Done {
    let w = insn.opsize;
    let mut image = core.vcpu.rflags() & !(RF | VM);
    if core.vcpu.v86() && core.vcpu.iopl() < 3 {
        let vme = core.vcpu.sys.cr4 & cr4::VME != 0 && w == Width::W16;
        core.require(vme, Exception::gp("PUSHF in virtual-8086 mode with IOPL < 3"))?;
        let vif = image & VIF != 0;
        image = image & !IF | IOPL | if vif { IF } else { 0 };
    }
    let sp = core.reg(insn.stack, gpr::RSP).wrapping_sub(w.bytes()) & insn.stack.mask();
    core.store(w, insn.stack_seg, sp, image & w.mask())?;
    core.set_reg(insn.stack, gpr::RSP, sp);
    Ok(())
}

/// POPF, POPFD, POPFQ.
pub fn popf(core: &mut Core, insn: &Insn) -> Done {
    let w = insn.opsize;
    let virtualized = core.vcpu.v86() && core.vcpu.iopl() < 3;
    if virtualized {
        let vme = core.vcpu.sys.cr4 & cr4::VME != 0 && w == Width::W16;
        core.require(vme, Exception::gp("POPF in virtual-8086 mode with IOPL < 3"))?;
    }
    let sp = core.reg(insn.stack, gpr::RSP);
    let image = core.load(w, insn.stack_seg, sp)?;
    let old = core.vcpu.rflags();
    let mut taken = STATUS | TF | DF | NT;
    let mut new = image;
    if w != Width::W16 {
        taken |= AC | ID | RF;
        new &= !RF;
    }
    if virtualized {
        let pending = image & IF != 0 && old & VIP != 0;
        let ok = !pending && image & TF == 0;
        core.require(ok, Exception::gp("POPF under VME sets TF, or IF with VIP pending"))?;
        taken |= VIF;
        new = new & !VIF | if image & IF != 0 { VIF } else { 0 };
    } else if core.vcpu.cpl <= core.vcpu.iopl() {
        taken |= IF;
    }
    if core.vcpu.cpl == 0 {
        taken |= IOPL;
    }
    core.set_reg(insn.stack, gpr::RSP, sp.wrapping_add(w.bytes()) & insn.stack.mask());
    core.replace_rflags(old & !taken | new & taken);
    Ok(())
}

/// HLT.
pub fn hlt(core: &mut Core, _: &Insn) -> Done {
    core.require_cpl0()?;
    core.vcpu.activity = Activity::Halted;
    core.leave_block(false);
    Ok(())
}
