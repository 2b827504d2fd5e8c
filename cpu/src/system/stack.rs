//! A stack that is being pushed to or popped from before SS:RSP change.

use brolga_mmu::{Linear, Width};

use super::Done;
use crate::backend::Backend;
use crate::core::{By, Core, Exit};
use crate::exception::{Exception, vector};
use crate::vcpu::{SegReg, Segment, attr, gpr};

/// Whether `len` bytes at `offset` lie inside `seg` (SDM vol. 3, 5.3), and it holds a descriptor.
pub(super) fn inside(seg: &Segment, offset: u64, len: u64) -> bool {
    let last = offset + (len - 1);
    let limit = u64::from(seg.limit);
    if seg.has(attr::UNUSABLE) {
        false
    } else if seg.attr & (attr::CODE | attr::DC) == attr::DC && seg.has(attr::S) {
        let top = if seg.has(attr::DB) { 0xffff_ffff } else { 0xffff };
        offset > limit && last <= top
    } else {
        last <= limit
    }
}

/// A stack segment, a stack pointer, and the privilege that accesses go with.
#[derive(Clone, Copy)]
pub(super) struct Stack {
    /// The segment.
    pub(super) ss: Segment,
    /// The stack pointer.
    pub(super) sp: u64,
    /// Its width.
    pub(super) width: Width,
    /// Privilege of the accesses.
    by: By,
    /// Error code of the #SS that a limit violation raises.
    error: u32,
}

impl Stack {
    /// The stack in SS:RSP.
    pub(super) fn current(core: &mut Core) -> Stack {
        let ss = *core.vcpu.seg(SegReg::Ss);
        let width = core.stack_width(&ss, core.vcpu.code64());
        let sp = core.reg(width, gpr::RSP);
        Stack { ss, sp, width, by: By::Current, error: 0 }
    }

    /// A stack to switch to, at privilege level `cpl`; `width` 64 ignores the segment.
    pub(super) fn other(ss: Segment, sp: u64, width: Width, cpl: u8) -> Stack {
        let error = if width == Width::W64 { 0 } else { u32::from(ss.selector & !3) };
        Stack { ss, sp: sp & width.mask(), width, by: By::Level(cpl), error }
    }

    /// The linear address of the `w` wide word at `sp`, checked against the segment.
    fn word(&self, core: &mut Core, sp: u64, w: Width) -> Result<Linear, Exit> {
        if self.width == Width::W64 {
            let ok = core.is_canonical(sp) && core.is_canonical(sp.wrapping_add(w.bytes() - 1));
            let e = Exception::code(vector::SS, self.error, "stack pointer is not canonical");
            core.require(ok, e)?;
            self.aligned(core, Linear(sp), w)
        } else {
            let why = "stack access beyond the limit of SS";
            let ok = inside(&self.ss, sp, w.bytes());
            core.require(ok, Exception::code(vector::SS, self.error, why))?;
            self.aligned(core, Linear(self.ss.base.wrapping_add(sp) & 0xffff_ffff), w)
        }
    }

    /// The alignment check, on a stack of level 3 (SDM vol. 3, 6.15, #AC).
    fn aligned(&self, core: &mut Core, at: Linear, w: Width) -> Result<Linear, Exit> {
        let checked = matches!(self.by, By::Current | By::Level(3)) && core.alignment_checked();
        let ok = !checked || at.0 & (w.bytes() - 1) == 0;
        core.require(ok, Exception::code(vector::AC, 0, "stack pointer is not aligned"))?;
        Ok(at)
    }

    /// Pushes `values` in order: all of them or, with a fault, none.
    pub(super) fn push(&mut self, core: &mut Core, w: Width, values: &[u64]) -> Done {
        let step = |sp: u64| sp.wrapping_sub(w.bytes()) & self.width.mask();
        let mut sp = self.sp;
        let mut checked = None;
        for _ in values {
            sp = step(sp);
            let at = self.word(core, sp, w)?;
            if checked != Some(at.page_number()) {
                core.check_write(at, w.bytes(), self.by)?;
                checked = Some(at.page_number());
            }
        }
        sp = self.sp;
        for value in values {
            sp = step(sp);
            let at = self.word(core, sp, w)?;
            core.write_linear(at, w, value & w.mask(), self.by)?;
        }
        self.sp = sp;
        Ok(())
    }

    /// The `w` wide word that lies `offset` bytes above the stack pointer.
    pub(super) fn peek(&self, core: &mut Core, w: Width, offset: u64) -> Result<u64, Exit> {
        let sp = self.sp.wrapping_add(offset) & self.width.mask();
        let at = self.word(core, sp, w)?;
        core.read_linear(at, w, self.by)
    }

    /// Makes the stack pointer the current one, `release` bytes further up.
    pub(super) fn commit(&self, core: &mut Core, release: u64) {
        let sp = self.sp.wrapping_add(release) & self.width.mask();
        core.set_reg(self.width, gpr::RSP, sp);
    }
}
