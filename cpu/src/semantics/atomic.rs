//! XADD and the compare-and-exchange family.

use brolga_mmu::{AtomicOp, Linear, Width};

use super::alu::{Add, Alu, Sub};
use super::operand::Size;
use crate::backend::{Backend, Cmp};
use crate::core::{Core, Exit};
use crate::exception::Exception;
use crate::insn::Insn;
use crate::vcpu::{gpr, rflags};

/// XADD of two registers.
#[inline(always)]
pub fn xadd_register<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (a, c) = (b.reg(W::W, i.reg[0]), b.reg(W::W, i.reg[1]));
    let r = Add::apply(b, W::W, a, c);
    b.set_reg(W::W, i.reg[1], a);
    b.set_reg(W::W, i.reg[0], r);
    Ok(())
}

/// XADD with memory, atomic also without LOCK.
#[inline(always)]
pub fn xadd_memory<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let c = b.reg(W::W, i.reg[1]);
    let ea = b.ea(i);
    let old = b.atomic(AtomicOp::Add, W::W, i.seg, ea, c)?;
    Add::apply(b, W::W, old, c);
    b.set_reg(W::W, i.reg[1], old);
    Ok(())
}

/// CMPXCHG with a register destination. If the comparison fails not even the upper half of a 32-bit
/// destination is cleared, as processors do.
#[inline(always)]
pub fn cmpxchg_register<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let old = b.reg(W::W, i.reg[0]);
    let new = b.reg(W::W, i.reg[1]);
    let expected = b.reg(W::W, gpr::RAX);
    Sub::apply(b, W::W, expected, old);
    let equal = b.cmp(Cmp::Eq, W::W, expected, old);
    let kept = whole::<B, W>(b, i.reg[0]);
    let r = b.select(equal, new, kept);
    accumulate(b, W::W, equal, old);
    set_whole::<B, W>(b, i.reg[0], r);
    Ok(())
}

/// A register as a value of width `W`, or all of it where writing `W` would clear the rest.
#[inline(always)]
fn whole<B: Backend, W: Size>(b: &mut B, r: u8) -> B::V {
    b.reg(if W::W == Width::W32 { Width::W64 } else { W::W }, r)
}

/// Writes what comes from [`whole`], or a zero-extended value.
#[inline(always)]
fn set_whole<B: Backend, W: Size>(b: &mut B, r: u8, v: B::V) {
    b.set_reg(if W::W == Width::W32 { Width::W64 } else { W::W }, r, v);
}

/// CMPXCHG with memory, atomic also without LOCK.
#[inline(always)]
pub fn cmpxchg_memory<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let new = b.reg(W::W, i.reg[1]);
    let expected = b.reg(W::W, gpr::RAX);
    let ea = b.ea(i);
    let old = b.compare_exchange(W::W, i.seg, ea, expected, new)?;
    Sub::apply(b, W::W, expected, old);
    let equal = b.cmp(Cmp::Eq, W::W, expected, old);
    accumulate(b, W::W, equal, old);
    Ok(())
}

/// rAX = the old value if the comparison failed. After success not even the upper half of RAX is
/// cleared.
#[inline(always)]
fn accumulate<B: Backend>(b: &mut B, w: Width, equal: B::C, old: B::V) {
    let full = b.reg(Width::W64, gpr::RAX);
    if matches!(w, Width::W32 | Width::W64) {
        let v = b.select(equal, full, old);
        b.set_reg(Width::W64, gpr::RAX, v);
    } else {
        b.set_reg(w, gpr::RAX, old);
    }
}

/// CMPXCHG8B (`WIDE` = false) and CMPXCHG16B.
pub fn cmpxchg_pair<const WIDE: bool>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let half = if WIDE { Width::W64 } else { Width::W32 };
    let pair = |core: &mut Core, high, low| {
        u128::from(core.reg(half, high)) << half.bits() | u128::from(core.reg(half, low))
    };
    let expected = pair(core, gpr::RDX, gpr::RAX);
    let new = pair(core, gpr::RCX, gpr::RBX);
    let ea = core.ea(i);
    let old = if WIDE {
        if Linear(ea.wrapping_add(core.seg_base(i.seg))).0 & 15 != 0 {
            return Err(core.raise(Exception::gp("CMPXCHG16B operand is not aligned")));
        }
        core.compare_exchange128(i.seg, ea, expected, new)?
    } else {
        core.compare_exchange(Width::W64, i.seg, ea, expected as u64, new as u64)?.into()
    };
    let equal = old == expected;
    super::moves::merge_status(core, rflags::ZF, if equal { rflags::ZF } else { 0 });
    if !equal {
        core.set_reg(half, gpr::RAX, old as u64 & half.mask());
        core.set_reg(half, gpr::RDX, (old >> half.bits()) as u64 & half.mask());
    }
    Ok(())
}
