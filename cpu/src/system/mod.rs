//! Rare and complex instructions, and the delivery of interrupts and exceptions: plain functions
//! over [`Core`] that follow the pseudo-code of SDM vol. 2 and 3 step by step.

pub mod control;
pub mod debug;
mod descriptor;
pub mod far;
pub mod flags;
pub mod interrupt;
pub mod iret;
pub mod misc;
pub mod msr;
pub mod port;
pub mod segment;
pub mod software;
mod stack;
pub mod syscall;
pub mod tables;
pub mod task;
pub mod test_registers;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use brolga_mmu::{Linear, Width};

use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::exception::{Exception, vector};
use crate::flags::LazyFlags;
use crate::insn::{Insn, bits};
use crate::vcpu::{SegReg, Segment, attr, rflags};

/// What a complex instruction returns.
pub(crate) type Done = Result<(), Exit>;

/// Whether `selector` is null: index 0 of the GDT, any RPL.
pub(crate) fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// The requested privilege level of a selector.
pub(crate) fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

/// `selector` with its RPL replaced.
pub(crate) fn with_rpl(selector: u16, rpl: u8) -> u16 {
    selector & !3 | u16::from(rpl & 3)
}

/// Whether operand `i` (0 or 1) is memory.
fn is_memory(insn: &Insn, i: usize) -> bool {
    insn.has(if i == 0 { bits::MEM0 } else { bits::MEM1 })
}

impl Core {
    /// Raises `e` unless `ok`.
    #[inline(always)]
    pub(crate) fn require(&mut self, ok: bool, e: Exception) -> Done {
        if ok { Ok(()) } else { Err(self.raise(e)) }
    }

    /// #GP(0) unless CPL is 0.
    #[inline(always)]
    pub(crate) fn require_cpl0(&mut self) -> Done {
        self.require(self.vcpu.cpl == 0, Exception::gp("privileged instruction at CPL > 0"))
    }

    /// #UD in real-address and virtual-8086 mode, where the instruction is not recognized.
    pub(crate) fn require_protected(&mut self) -> Done {
        let ok = self.vcpu.protected();
        self.require(ok, Exception::ud("not recognized outside protected mode"))
    }

    /// The width of general registers that system instructions use whatever the operand size.
    pub(crate) fn native_width(&self) -> Width {
        if self.vcpu.code64() { Width::W64 } else { Width::W32 }
    }

    /// Address `offset` of a system table or TSS; IA-32e mode does not wrap at 4 GiB.
    pub(crate) fn table_address(&self, base: u64, offset: u64) -> Linear {
        let at = base.wrapping_add(offset);
        Linear(if self.vcpu.long_mode() { at } else { at & 0xffff_ffff })
    }

    /// The width of the stack pointer with `ss` loaded (SDM vol. 3, 6.2.3): the D/B flag decides,
    /// except in 64-bit mode.
    pub(crate) fn stack_width(&self, ss: &Segment, code64: bool) -> Width {
        match (code64, ss.has(attr::DB)) {
            (true, _) => Width::W64,
            (false, true) => Width::W32,
            (false, false) => Width::W16,
        }
    }

    /// #GP(0) unless `ip` can be executed at in code segment `cs`.
    pub(crate) fn check_ip(&mut self, cs: &Segment, ip: u64) -> Done {
        if self.vcpu.long_mode() && cs.has(attr::L) {
            self.require(self.is_canonical(ip), Exception::gp("target RIP is not canonical"))
        } else {
            self.require(ip <= u64::from(cs.limit), Exception::gp("target IP beyond the CS limit"))
        }
    }

    /// Loads a segment register with a hidden part that has passed all checks.
    pub(crate) fn set_segment(&mut self, reg: SegReg, segment: Segment) {
        self.vcpu.segs[reg as usize] = segment;
        if !matches!(reg, SegReg::Fs | SegReg::Gs) {
            self.mode_changed();
        }
    }

    /// Continues at `ip` in code segment `cs` at privilege level `cpl`; everything is checked.
    pub(crate) fn enter_code(&mut self, cs: Segment, cpl: u8, ip: u64) {
        self.vcpu.segs[SegReg::Cs as usize] = cs;
        self.vcpu.cpl = cpl;
        self.set_rip(ip);
        self.mode_changed();
    }

    /// Replaces RFLAGS: what follows from AC, VM, IF and TF is looked at before the next
    /// instruction.
    pub(crate) fn replace_rflags(&mut self, v: u64) {
        const WATCHED: u64 = rflags::IF | rflags::TF | rflags::AC | rflags::VM | rflags::RF;
        let old = self.vcpu.eflags;
        self.vcpu.set_rflags(v);
        let changed = old ^ self.vcpu.eflags;
        if changed & (rflags::AC | rflags::VM) != 0 {
            self.mode_changed();
        }
        if changed & WATCHED != 0 {
            self.leave_block(false);
        }
    }

    /// Sets ZF and keeps the other flags.
    pub(crate) fn set_zf(&mut self, on: bool) {
        let status = self.vcpu.flags.status() & !rflags::ZF;
        self.vcpu.flags = LazyFlags::from_rflags(status | if on { rflags::ZF } else { 0 });
    }

    /// The r/m16 operand of a system instruction; `i` is its position if it is a register.
    pub(crate) fn rm16(&mut self, insn: &Insn, i: usize) -> Result<u16, Exit> {
        let v = if is_memory(insn, i) {
            let ea = self.ea(insn);
            self.load(Width::W16, insn.seg, ea)?
        } else {
            self.reg(Width::W16, insn.reg[i])
        };
        Ok(v as u16)
    }

    /// Stores a 16-bit system register: to memory 16 bits, to a register the operand size.
    pub(crate) fn set_rm16(&mut self, insn: &Insn, v: u64) -> Done {
        if insn.has(bits::MEM0) {
            let ea = self.ea(insn);
            self.store(Width::W16, insn.seg, ea, v & 0xffff)
        } else {
            self.set_reg(insn.opsize, insn.reg[0], v & insn.opsize.mask());
            Ok(())
        }
    }
}

/// An exception whose error code names `selector`.
pub(crate) fn on_selector(vector: u8, selector: u16, why: &'static str) -> Exception {
    Exception::selector(vector, selector, why)
}

/// #GP(selector).
pub(crate) fn gp_on(selector: u16, why: &'static str) -> Exception {
    on_selector(vector::GP, selector, why)
}
