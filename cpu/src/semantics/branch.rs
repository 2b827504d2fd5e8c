//! Near control transfers.

use brolga_mmu::Width;

use super::moves::{Condition, is_zero};
use super::operand::{Access, Size, Src};
use super::stack;
use crate::backend::{Backend, Bin, Cmp};
use crate::flags::Cond;
use crate::insn::Insn;
use crate::vcpu::gpr;

/// JMP rel.
#[inline(always)]
pub fn jmp<B: Backend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let target = b.direct_target(i);
    b.check_target(i, target)?;
    b.jump(i, target);
    Ok(())
}

/// JMP r/m.
#[inline(always)]
pub fn jmp_indirect<B: Backend, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let target = S::get(b, W::W, i)?;
    b.check_target(i, target)?;
    b.jump(i, target);
    Ok(())
}

/// Jcc.
#[inline(always)]
pub fn jcc<B: Backend, K: Condition>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let c = b.cond(K::CC);
    b.branch_if(i, c)
}

/// CALL rel.
#[inline(always)]
pub fn call<B: Backend, A: Access>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let target = b.direct_target(i);
    call_to::<B, A>(b, i, target)
}

/// CALL r/m.
#[inline(always)]
pub fn call_indirect<B: Backend, A: Access, S: Src, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let target = S::get(b, W::W, i)?;
    call_to::<B, A>(b, i, target)
}

#[inline(always)]
fn call_to<B: Backend, A: Access>(b: &mut B, i: &Insn, target: B::V) -> Result<(), B::E> {
    b.check_target(i, target)?;
    let back = b.next_ip(i);
    let back = b.trunc(i.opsize, back);
    stack::push::<B, A>(b, i, i.opsize, back)?;
    b.jump(i, target);
    Ok(())
}

/// RET, RET imm16: `insn.imm` is 0 without an immediate.
#[inline(always)]
pub fn ret<B: Backend, A: Access>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let sp = b.reg(i.stack, gpr::RSP);
    let target = A::load(b, i.opsize, i.stack_seg, sp)?;
    b.check_target(i, target)?;
    let size = b.imm(i.opsize.bytes() + i.imm);
    let sp = b.bin(Bin::Add, i.stack, sp, size);
    b.set_reg(i.stack, gpr::RSP, sp);
    b.jump(i, target);
    Ok(())
}

/// LOOP, LOOPE and LOOPNE: the count register has the address size.
#[inline(always)]
pub fn loop_while<B: Backend, K: LoopCondition>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let w = i.addrsize;
    let count = b.reg(w, gpr::RCX);
    let one = b.imm(1);
    let count = b.bin(Bin::Sub, w, count, one);
    let done = is_zero(b, count);
    let (t, f) = (b.imm(1), b.imm(0));
    let on = match K::CC {
        Some(cc) => {
            let c = b.cond(cc);
            b.cond_value(c)
        }
        None => t,
    };
    let taken = b.select(done, f, on);
    let taken = b.cmp(Cmp::Ne, Width::W64, taken, f);
    b.branch_if(i, taken)?;
    b.set_reg(w, gpr::RCX, count);
    Ok(())
}

/// The extra condition of a LOOP.
pub trait LoopCondition {
    /// ZF for LOOPE, not ZF for LOOPNE.
    const CC: Option<Cond>;
}
/// LOOP.
pub struct Always;
impl LoopCondition for Always {
    const CC: Option<Cond> = None;
}
/// LOOPE.
pub struct WhileEqual;
impl LoopCondition for WhileEqual {
    const CC: Option<Cond> = Some(Cond::E);
}
/// LOOPNE.
pub struct WhileNotEqual;
impl LoopCondition for WhileNotEqual {
    const CC: Option<Cond> = Some(Cond::Ne);
}

/// JCXZ, JECXZ, JRCXZ.
#[inline(always)]
pub fn jcxz<B: Backend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let count = b.reg(i.addrsize, gpr::RCX);
    let zero = is_zero(b, count);
    b.branch_if(i, zero)
}
