//! BMI1, BMI2, LZCNT and ADX.

use brolga_mmu::Width;

use super::moves::is_zero;
use super::operand::{Size, Src};
use crate::backend::{Backend, Bin, Cmp, Un};
use crate::flags::{Cond, FlagOp};
use crate::insn::Insn;
use crate::vcpu::{gpr, rflags};

/// ANDN.
#[inline(always)]
pub fn andn<B: Backend, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let s = S::get(b, W::W, i)?;
    let a = b.reg(W::W, i.reg[1]);
    let inverted = b.un(Un::Not, W::W, a);
    let r = b.bin(Bin::And, W::W, inverted, s);
    b.flags(FlagOp::Logic, W::W, r, r, r);
    b.set_reg(W::W, i.reg[0], r);
    Ok(())
}

/// What BLSI, BLSR and BLSMSK make of the lowest bit that is set.
pub trait Lowest {
    /// The result.
    fn apply<B: Backend>(b: &mut B, w: Width, v: B::V) -> B::V;
    /// CF, for a source that is zero or not.
    const CARRY: Cmp;
}

#[inline(always)]
fn less_one<B: Backend>(b: &mut B, w: Width, v: B::V) -> B::V {
    let one = b.imm(1);
    b.bin(Bin::Sub, w, v, one)
}

/// BLSI: it alone.
pub struct Isolate;
impl Lowest for Isolate {
    const CARRY: Cmp = Cmp::Ne;
    #[inline(always)]
    fn apply<B: Backend>(b: &mut B, w: Width, v: B::V) -> B::V {
        let negative = b.un(Un::Neg, w, v);
        b.bin(Bin::And, w, negative, v)
    }
}
/// BLSR: the others.
pub struct Clear;
impl Lowest for Clear {
    const CARRY: Cmp = Cmp::Eq;
    #[inline(always)]
    fn apply<B: Backend>(b: &mut B, w: Width, v: B::V) -> B::V {
        let less = less_one(b, w, v);
        b.bin(Bin::And, w, less, v)
    }
}
/// BLSMSK: ones up to it.
pub struct Mask;
impl Lowest for Mask {
    const CARRY: Cmp = Cmp::Eq;
    #[inline(always)]
    fn apply<B: Backend>(b: &mut B, w: Width, v: B::V) -> B::V {
        let less = less_one(b, w, v);
        b.bin(Bin::Xor, w, less, v)
    }
}

/// BLSI, BLSR and BLSMSK.
#[inline(always)]
pub fn lowest<B: Backend, O: Lowest, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = S::get(b, W::W, i)?;
    let r = O::apply(b, W::W, v);
    let zero = b.imm(0);
    let carry = b.cmp(O::CARRY, W::W, v, zero);
    let carry = b.cond_value(carry);
    b.flags(FlagOp::Logic, W::W, r, r, r);
    b.replace_flags(rflags::CF, carry);
    b.set_reg(W::W, i.reg[0], r);
    Ok(())
}

/// The `n` low bits of `v`, and whether it has more.
#[inline(always)]
fn low_bits<B: Backend>(b: &mut B, w: Width, v: B::V, n: B::V) -> (B::V, B::C) {
    let bits = b.imm(w.bits().into());
    let fewer = b.cmp(Cmp::UnsignedLt, Width::W64, n, bits);
    let count = shift_count(b, w, n);
    let one = b.imm(1);
    let next = b.bin(Bin::Shl, w, one, count);
    let mask = less_one(b, w, next);
    let low = b.bin(Bin::And, w, v, mask);
    (b.select(fewer, low, v), fewer)
}

/// A count modulo the width.
#[inline(always)]
fn shift_count<B: Backend>(b: &mut B, w: Width, n: B::V) -> B::V {
    let mask = b.imm(u64::from(w.bits()) - 1);
    b.bin(Bin::And, Width::W64, n, mask)
}

/// BEXTR.
#[inline(always)]
pub fn bextr<B: Backend, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let w = W::W;
    let v = S::get(b, w, i)?;
    let start = b.reg(Width::W8, i.reg[2]);
    let control = b.reg(Width::W16, i.reg[2]);
    let eight = b.imm(8);
    let len = b.bin(Bin::Shr, Width::W16, control, eight);
    let count = shift_count(b, w, start);
    let shifted = b.bin(Bin::Shr, w, v, count);
    let bits = b.imm(w.bits().into());
    let inside = b.cmp(Cmp::UnsignedLt, Width::W64, start, bits);
    let zero = b.imm(0);
    let shifted = b.select(inside, shifted, zero);
    let (r, _) = low_bits(b, w, shifted, len);
    b.flags(FlagOp::Logic, w, r, r, r);
    b.set_reg(w, i.reg[0], r);
    Ok(())
}

/// BZHI.
#[inline(always)]
pub fn bzhi<B: Backend, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = S::get(b, W::W, i)?;
    let n = b.reg(Width::W8, i.reg[2]);
    let (r, fewer) = low_bits(b, W::W, v, n);
    let (fewer, one) = (b.cond_value(fewer), b.imm(1));
    let carry = b.bin(Bin::Xor, Width::W8, fewer, one);
    b.flags(FlagOp::Logic, W::W, r, r, r);
    b.replace_flags(rflags::CF, carry);
    b.set_reg(W::W, i.reg[0], r);
    Ok(())
}

/// MULX. If both destinations are one register, it holds the high half.
#[inline(always)]
pub fn mulx<B: Backend, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let s = S::get(b, W::W, i)?;
    let d = b.reg(W::W, gpr::RDX);
    let low = b.bin(Bin::Mul, W::W, d, s);
    let high = b.mul_high(false, W::W, d, s);
    b.set_reg(W::W, i.reg[1], low);
    b.set_reg(W::W, i.reg[0], high);
    Ok(())
}

/// PDEP ([`Bin::Deposit`]) and PEXT ([`Bin::Extract`]).
pub trait Scatter {
    /// The operation.
    const OP: Bin;
}
/// PDEP.
pub struct Deposit;
impl Scatter for Deposit {
    const OP: Bin = Bin::Deposit;
}
/// PEXT.
pub struct Extract;
impl Scatter for Extract {
    const OP: Bin = Bin::Extract;
}

/// PDEP and PEXT.
#[inline(always)]
pub fn scatter<B: Backend, O: Scatter, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let mask = S::get(b, W::W, i)?;
    let v = b.reg(W::W, i.reg[1]);
    let r = b.bin(O::OP, W::W, v, mask);
    b.set_reg(W::W, i.reg[0], r);
    Ok(())
}

/// RORX.
#[inline(always)]
pub fn rorx<B: Backend, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = S::get(b, W::W, i)?;
    let count = b.imm(i.imm & (u64::from(W::W.bits()) - 1));
    let r = b.bin(Bin::Ror, W::W, v, count);
    b.set_reg(W::W, i.reg[0], r);
    Ok(())
}

/// SARX, SHLX and SHRX: as SAR, SHL and SHR, without flags.
#[inline(always)]
pub fn shift_flagless<B: Backend, O: super::shift::Shift, S: Src, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let v = S::get(b, W::W, i)?;
    let n = b.reg(W::W, i.reg[2]);
    let count = shift_count(b, W::W, n);
    let r = b.bin(O::OP, W::W, v, count);
    b.set_reg(W::W, i.reg[0], r);
    Ok(())
}

/// TZCNT, and LZCNT (`LEADING`). Unlike BSF and BSR they give the width for zero, which CF reports;
/// ZF reports a result of zero.
#[inline(always)]
pub fn count_zeros<B: Backend, const LEADING: bool, S: Src, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let v = S::get(b, W::W, i)?;
    let r = b.un(if LEADING { Un::Clz } else { Un::Ctz }, W::W, v);
    let zero = is_zero(b, v);
    let carry = b.cond_value(zero);
    b.flags(FlagOp::Logic, W::W, r, r, r);
    b.replace_flags(rflags::CF, carry);
    b.set_reg(W::W, i.reg[0], r);
    Ok(())
}

/// The flag through which ADCX or ADOX carries.
pub trait Chain {
    /// The condition that it is set.
    const SET: Cond;
    /// Its place.
    const FLAG: u64;
}
/// ADCX.
pub struct ByCarry;
impl Chain for ByCarry {
    const SET: Cond = Cond::B;
    const FLAG: u64 = rflags::CF;
}
/// ADOX.
pub struct ByOverflow;
impl Chain for ByOverflow {
    const SET: Cond = Cond::O;
    const FLAG: u64 = rflags::OF;
}

/// ADCX and ADOX: ADC whose carry comes from and goes to one flag; the others stay.
#[inline(always)]
pub fn add_chained<B: Backend, O: Chain, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let w = W::W;
    let s = S::get(b, w, i)?;
    let a = b.reg(w, i.reg[0]);
    let carry = b.cond(O::SET);
    let carry = b.cond_value(carry);
    let sum = b.bin(Bin::Add, w, a, s);
    let r = b.bin(Bin::Add, w, sum, carry);
    // At most one of the two additions carries.
    let first = b.cmp(Cmp::UnsignedLt, w, sum, a);
    let second = b.cmp(Cmp::UnsignedLt, w, r, sum);
    let (first, second) = (b.cond_value(first), b.cond_value(second));
    let out = b.bin(Bin::Or, Width::W64, first, second);
    let place = b.imm(O::FLAG.trailing_zeros().into());
    let out = b.bin(Bin::Shl, Width::W64, out, place);
    b.replace_flags(O::FLAG, out);
    b.set_reg(w, i.reg[0], r);
    Ok(())
}
