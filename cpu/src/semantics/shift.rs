//! Shifts, rotates and double shifts. RCL and RCR are in [`super::rotate_carry`].

use brolga_mmu::Width;

use super::operand::{Dst, Size, Src};
use crate::backend::{Backend, Bin, Cmp};
use crate::flags::FlagOp;
use crate::insn::Insn;
use crate::vcpu::{gpr, rflags};

/// Where a shift count comes from.
pub trait Count {
    /// The count, not yet masked.
    fn get<B: Backend>(b: &mut B, i: &Insn) -> B::V;
}
/// The immediate (also the implicit 1).
pub struct ByImm;
impl Count for ByImm {
    #[inline(always)]
    fn get<B: Backend>(b: &mut B, i: &Insn) -> B::V {
        b.imm(i.imm)
    }
}
/// CL.
pub struct ByCl;
impl Count for ByCl {
    #[inline(always)]
    fn get<B: Backend>(b: &mut B, _: &Insn) -> B::V {
        b.reg(Width::W8, gpr::RCX)
    }
}

/// The count as the processor takes it: modulo 32, or 64 for 64-bit operands.
#[inline(always)]
fn masked<B: Backend, C: Count>(b: &mut B, w: Width, i: &Insn) -> B::V {
    let count = C::get(b, i);
    let mask = b.imm(if w == Width::W64 { 63 } else { 31 });
    b.bin(Bin::And, Width::W64, count, mask)
}

#[inline(always)]
fn nonzero<B: Backend>(b: &mut B, v: B::V) -> B::C {
    let zero = b.imm(0);
    b.cmp(Cmp::Ne, Width::W64, v, zero)
}

/// SHL, SHR or SAR. The flags stay if the count is 0.
pub trait Shift {
    /// The operation.
    const OP: Bin;
    /// Its flags.
    const FLAGS: FlagOp;
}

macro_rules! shifts {
    ($($name:ident)*) => {$(
        #[doc = concat!(stringify!($name), ".")]
        pub struct $name;
        impl Shift for $name {
            const OP: Bin = Bin::$name;
            const FLAGS: FlagOp = FlagOp::$name;
        }
    )*};
}
shifts! { Shl Shr Sar }

/// `dst = dst shifted by count`.
#[inline(always)]
pub fn shift<B: Backend, O: Shift, C: Count, D: Dst, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let count = masked::<B, C>(b, W::W, i);
    let (place, a) = D::begin(b, W::W, i)?;
    let r = b.bin(O::OP, W::W, a, count);
    let some = nonzero(b, count);
    b.flags_if(some, O::FLAGS, W::W, r, a, count);
    D::put(b, W::W, i, place, r);
    Ok(())
}

/// ROL or ROR: only CF and OF change, and only if the count is not 0.
pub trait Rotate {
    /// The operation.
    const OP: Bin;
}
/// ROL.
pub struct Rol;
impl Rotate for Rol {
    const OP: Bin = Bin::Rol;
}
/// ROR.
pub struct Ror;
impl Rotate for Ror {
    const OP: Bin = Bin::Ror;
}

/// `dst = dst rotated by count`.
#[inline(always)]
pub fn rotate<B: Backend, O: Rotate, C: Count, D: Dst, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let w = W::W;
    let count = masked::<B, C>(b, w, i);
    let (place, a) = D::begin(b, w, i)?;
    let r = b.bin(O::OP, w, a, count);
    let (msb, next, lsb) =
        (bit(b, w, r, w.bits() - 1), bit(b, w, r, w.bits() - 2), bit(b, w, r, 0));
    // ROL: CF is the bit that came in at the bottom; ROR: the one that came in at the top.
    let (cf, of) = if O::OP == Bin::Rol {
        (lsb, b.bin(Bin::Xor, Width::W64, msb, lsb))
    } else {
        (msb, b.bin(Bin::Xor, Width::W64, msb, next))
    };
    let position = b.imm(11);
    let of = b.bin(Bin::Shl, Width::W64, of, position);
    let flags = b.bin(Bin::Or, Width::W64, of, cf);
    let some = nonzero(b, count);
    b.replace_flags_if(some, rflags::CF | rflags::OF, flags);
    D::put(b, w, i, place, r);
    Ok(())
}

/// Bit `n` of `v`.
#[inline(always)]
fn bit<B: Backend>(b: &mut B, w: Width, v: B::V, n: u32) -> B::V {
    let (n, one) = (b.imm(u64::from(n)), b.imm(1));
    let v = b.bin(Bin::Shr, w, v, n);
    b.bin(Bin::And, w, v, one)
}

/// SHLD and SHRD.
pub trait Double {
    /// SHLD.
    const LEFT: bool;
}
/// SHLD.
pub struct Shld;
impl Double for Shld {
    const LEFT: bool = true;
}
/// SHRD.
pub struct Shrd;
impl Double for Shrd {
    const LEFT: bool = false;
}

/// `dst = the high (SHLD) or low (SHRD) half of dst and src shifted by count`. Counts above 16 of
/// a 16-bit operand, which the manual leaves undefined, shift `dst:src:dst`, as processors do.
#[inline(always)]
pub fn double<B: Backend, O: Double, C: Count, D: Dst, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let w = W::W;
    let count = masked::<B, C>(b, w, i);
    let src = super::operand::R::<1>::get(b, w, i)?;
    let (place, a) = D::begin(b, w, i)?;
    let shifted = double_shift::<B, O>(b, w, a, src, count);
    let some = nonzero(b, count);
    let r = b.select(some, shifted, a);
    let flags = if O::LEFT { FlagOp::Shl } else { FlagOp::Shr };
    b.flags_if(some, flags, w, r, a, count);
    D::put(b, w, i, place, r);
    Ok(())
}

#[inline(always)]
fn double_shift<B: Backend, O: Double>(
    b: &mut B,
    w: Width,
    a: B::V,
    src: B::V,
    count: B::V,
) -> B::V {
    let full = Width::W64;
    if w == Width::W16 {
        let (n16, n32) = (b.imm(16), b.imm(32));
        let high = b.bin(Bin::Shl, full, a, n32);
        let middle = b.bin(Bin::Shl, full, src, n16);
        let all = b.bin(Bin::Or, full, high, middle);
        let all = b.bin(Bin::Or, full, all, a);
        let (op, back) = if O::LEFT { (Bin::Shl, n32) } else { (Bin::Shr, b.imm(0)) };
        let moved = b.bin(op, full, all, count);
        let moved = b.bin(Bin::Shr, full, moved, back);
        return b.trunc(w, moved);
    }
    let bits = b.imm(u64::from(w.bits()));
    let rest = b.bin(Bin::Sub, full, bits, count);
    let (out, fill) = if O::LEFT { (Bin::Shl, Bin::Shr) } else { (Bin::Shr, Bin::Shl) };
    let a = b.bin(out, w, a, count);
    let src = b.bin(fill, w, src, rest);
    b.bin(Bin::Or, w, a, src)
}
