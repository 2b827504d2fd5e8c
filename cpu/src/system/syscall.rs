//! SYSCALL, SYSRET, SYSENTER and SYSEXIT (SDM vol. 2 and vol. 3, 5.8.7 and 5.8.8; AMD APM vol. 2,
//! 6.1). None of them reads a descriptor.

use brolga_mmu::Width;

use super::{Done, is_null, with_rpl};
use crate::backend::Backend;
use crate::core::Core;
use crate::exception::Exception;
use crate::insn::Insn;
use crate::vcpu::rflags::{FIXED, IF, RF, VM};
use crate::vcpu::{SegReg, Segment, attr, efer, gpr};

/// What size of code a segment made here holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Code {
    Bits32,
    Bits64,
}

/// A flat 4 GiB code segment.
fn code(selector: u16, dpl: u8, size: Code) -> Segment {
    let size = if size == Code::Bits64 { attr::L } else { attr::DB };
    flat(selector, dpl, attr::CODE | size)
}

/// A flat 4 GiB writable data segment.
fn stack(selector: u16, dpl: u8) -> Segment {
    flat(selector, dpl, attr::DB)
}

fn flat(selector: u16, dpl: u8, rights: u32) -> Segment {
    const COMMON: u32 = attr::P | attr::S | attr::RW | attr::ACCESSED | attr::G;
    let attr = COMMON | u32::from(dpl) << 5 | rights;
    Segment { selector, attr, limit: u32::MAX, base: 0 }
}

fn go(core: &mut Core, cs: Segment, ss: Segment, cpl: u8, ip: u64) {
    core.vcpu.segs[SegReg::Ss as usize] = ss;
    core.enter_code(cs, cpl, ip);
}

/// SYSCALL. AMD processors also execute it in compatibility and protected mode.
pub fn syscall(core: &mut Core, insn: &Insn) -> Done {
    let amd = core.model.is_amd();
    let ok = core.vcpu.sys.efer & efer::SCE != 0 && core.vcpu.protected();
    core.require(ok, Exception::ud("SYSCALL without EFER.SCE"))?;
    let ok = core.vcpu.code64() || amd;
    core.require(ok, Exception::ud("SYSCALL outside 64-bit mode"))?;
    let from64 = core.vcpu.code64();
    let long = core.vcpu.long_mode();
    let next = core.next_ip(insn);
    let selector = (core.vcpu.sys.star >> 32) as u16 & !3;
    let flags = core.vcpu.rflags();
    core.set_reg(Width::W64, gpr::RCX, next);
    let ss = stack(selector.wrapping_add(8), 0);
    if !long {
        core.replace_rflags(flags & !(VM | IF | RF));
        let ip = core.vcpu.sys.star & 0xffff_ffff;
        go(core, code(selector, 0, Code::Bits32), ss, 0, ip);
        return Ok(());
    }
    core.set_reg(Width::W64, 11, flags);
    core.replace_rflags(flags & !core.vcpu.sys.sfmask & !RF | FIXED);
    let ip = if from64 { core.vcpu.sys.lstar } else { core.vcpu.sys.cstar };
    go(core, code(selector, 0, Code::Bits64), ss, 0, ip);
    Ok(())
}

/// SYSRET.
pub fn sysret(core: &mut Core, insn: &Insn) -> Done {
    let amd = core.model.is_amd();
    let ok = core.vcpu.sys.efer & efer::SCE != 0 && core.vcpu.protected();
    core.require(ok, Exception::ud("SYSRET without EFER.SCE"))?;
    let ok = core.vcpu.code64() || amd;
    core.require(ok, Exception::ud("SYSRET outside 64-bit mode"))?;
    core.require_cpl0()?;
    let to64 = insn.opsize == Width::W64 && core.vcpu.code64();
    let rcx = core.reg(Width::W64, gpr::RCX);
    // AMD lets the fetch at CPL 3 fault instead.
    let ok = !to64 || amd || core.is_canonical(rcx);
    core.require(ok, Exception::gp("SYSRET to an address that is not canonical"))?;
    let base = (core.vcpu.sys.star >> 48) as u16;
    let ss = stack(with_rpl(base.wrapping_add(8), 3), 3);
    let cs = if to64 {
        code(with_rpl(base.wrapping_add(16), 3), 3, Code::Bits64)
    } else {
        code(with_rpl(base, 3), 3, Code::Bits32)
    };
    if core.vcpu.long_mode() {
        let image = core.reg(Width::W64, 11);
        core.replace_rflags(image & 0x3c_7fd7 | FIXED);
    } else {
        core.vcpu.eflags |= IF;
    }
    let ip = if to64 { rcx } else { rcx & 0xffff_ffff };
    go(core, cs, ss, 3, ip);
    core.leave_block(false);
    Ok(())
}

/// SYSENTER.
pub fn sysenter(core: &mut Core, _: &Insn) -> Done {
    let protected = core.vcpu.sys.cr0 & crate::vcpu::cr0::PE != 0;
    core.require(protected, Exception::gp("SYSENTER in real-address mode"))?;
    let selector = core.vcpu.sys.sysenter_cs as u16;
    core.require(!is_null(selector), Exception::gp("SYSENTER with a null IA32_SYSENTER_CS"))?;
    let flags = core.vcpu.rflags();
    core.replace_rflags(flags & !(VM | IF));
    let (long, sys) = (core.vcpu.long_mode(), &core.vcpu.sys);
    let (mask, size) = if long { (u64::MAX, Code::Bits64) } else { (0xffff_ffff, Code::Bits32) };
    let (sp, ip) = (sys.sysenter_esp & mask, sys.sysenter_eip & mask);
    core.vcpu.regs[usize::from(gpr::RSP)] = sp;
    let cs = code(selector & !3, 0, size);
    go(core, cs, stack((selector & !3).wrapping_add(8), 0), 0, ip);
    Ok(())
}

/// SYSEXIT.
pub fn sysexit(core: &mut Core, insn: &Insn) -> Done {
    let ok = core.vcpu.protected();
    core.require(ok, Exception::gp("SYSEXIT outside protected mode"))?;
    let selector = core.vcpu.sys.sysenter_cs as u16;
    core.require(!is_null(selector), Exception::gp("SYSEXIT with a null IA32_SYSENTER_CS"))?;
    core.require_cpl0()?;
    let to64 = insn.opsize == Width::W64;
    let w = if to64 { Width::W64 } else { Width::W32 };
    let (ip, sp) = (core.reg(w, gpr::RDX), core.reg(w, gpr::RCX));
    let ok = !to64 || core.is_canonical(ip) && core.is_canonical(sp);
    core.require(ok, Exception::gp("SYSEXIT to an address that is not canonical"))?;
    let (offset, size) = if to64 { (32, Code::Bits64) } else { (16, Code::Bits32) };
    let cs = with_rpl(selector.wrapping_add(offset), 3);
    core.vcpu.regs[usize::from(gpr::RSP)] = sp;
    go(core, code(cs, 3, size), stack(with_rpl(cs.wrapping_add(8), 3), 3), 3, ip);
    Ok(())
}
