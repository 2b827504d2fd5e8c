//! Floating-point arithmetic.

use super::operations;
use crate::vector::{Fmt, Fp1, Fp2, Lane, Pred, VectorBackend, X2};

operations! {
    /// Instructions on XMM registers.
    select;
    |b, i, d, s|
    M16 {
        Addps => b.fp2(Fp2::Add, Fmt::Ps, d, s)?,
        Addpd => b.fp2(Fp2::Add, Fmt::Pd, d, s)?,
        Subps => b.fp2(Fp2::Sub, Fmt::Ps, d, s)?,
        Subpd => b.fp2(Fp2::Sub, Fmt::Pd, d, s)?,
        Mulps => b.fp2(Fp2::Mul, Fmt::Ps, d, s)?,
        Mulpd => b.fp2(Fp2::Mul, Fmt::Pd, d, s)?,
        Divps => b.fp2(Fp2::Div, Fmt::Ps, d, s)?,
        Divpd => b.fp2(Fp2::Div, Fmt::Pd, d, s)?,
        Minps => b.fp2(Fp2::Min, Fmt::Ps, d, s)?,
        Minpd => b.fp2(Fp2::Min, Fmt::Pd, d, s)?,
        Maxps => b.fp2(Fp2::Max, Fmt::Ps, d, s)?,
        Maxpd => b.fp2(Fp2::Max, Fmt::Pd, d, s)?,
        Addsubps => b.fp2(Fp2::AddSub, Fmt::Ps, d, s)?,
        Addsubpd => b.fp2(Fp2::AddSub, Fmt::Pd, d, s)?,
        Cmpps => b.fp2(Fp2::Cmp(Pred::from_imm(i.imm)), Fmt::Ps, d, s)?,
        Cmppd => b.fp2(Fp2::Cmp(Pred::from_imm(i.imm)), Fmt::Pd, d, s)?,
        Sqrtps => b.fp1(Fp1::Sqrt, Fmt::Ps, d, s)?,
        Sqrtpd => b.fp1(Fp1::Sqrt, Fmt::Pd, d, s)?,
        Roundps => b.fp1(Fp1::Round(i.imm as u8), Fmt::Ps, d, s)?,
        Roundpd => b.fp1(Fp1::Round(i.imm as u8), Fmt::Pd, d, s)?,
        Rcpps => b.fp1(Fp1::Rcp, Fmt::Ps, d, s)?,
        Rsqrtps => b.fp1(Fp1::Rsqrt, Fmt::Ps, d, s)?,
        Haddps => horizontal(b, Fp2::Add, Fmt::Ps, d, s)?,
        Haddpd => horizontal(b, Fp2::Add, Fmt::Pd, d, s)?,
        Hsubps => horizontal(b, Fp2::Sub, Fmt::Ps, d, s)?,
        Hsubpd => horizontal(b, Fp2::Sub, Fmt::Pd, d, s)?,
        Dpps => dot_product(b, Fmt::Ps, i.imm, d, s)?,
        Dppd => dot_product(b, Fmt::Pd, i.imm, d, s)?,
    }
    M4 {
        Addss => b.fp2(Fp2::Add, Fmt::Ss, d, s)?,
        Subss => b.fp2(Fp2::Sub, Fmt::Ss, d, s)?,
        Mulss => b.fp2(Fp2::Mul, Fmt::Ss, d, s)?,
        Divss => b.fp2(Fp2::Div, Fmt::Ss, d, s)?,
        Minss => b.fp2(Fp2::Min, Fmt::Ss, d, s)?,
        Maxss => b.fp2(Fp2::Max, Fmt::Ss, d, s)?,
        Cmpss => b.fp2(Fp2::Cmp(Pred::from_imm(i.imm)), Fmt::Ss, d, s)?,
        Sqrtss => b.fp1(Fp1::Sqrt, Fmt::Ss, d, s)?,
        Roundss => b.fp1(Fp1::Round(i.imm as u8), Fmt::Ss, d, s)?,
        Rcpss => b.fp1(Fp1::Rcp, Fmt::Ss, d, s)?,
        Rsqrtss => b.fp1(Fp1::Rsqrt, Fmt::Ss, d, s)?,
    }
    M8 {
        Addsd => b.fp2(Fp2::Add, Fmt::Sd, d, s)?,
        Subsd => b.fp2(Fp2::Sub, Fmt::Sd, d, s)?,
        Mulsd => b.fp2(Fp2::Mul, Fmt::Sd, d, s)?,
        Divsd => b.fp2(Fp2::Div, Fmt::Sd, d, s)?,
        Minsd => b.fp2(Fp2::Min, Fmt::Sd, d, s)?,
        Maxsd => b.fp2(Fp2::Max, Fmt::Sd, d, s)?,
        Cmpsd => b.fp2(Fp2::Cmp(Pred::from_imm(i.imm)), Fmt::Sd, d, s)?,
        Sqrtsd => b.fp1(Fp1::Sqrt, Fmt::Sd, d, s)?,
        Roundsd => b.fp1(Fp1::Round(i.imm as u8), Fmt::Sd, d, s)?,
    }
}

/// The lanes of a packed format.
#[inline(always)]
fn lane(fmt: Fmt) -> Lane {
    if fmt == Fmt::Ps { Lane::D } else { Lane::Q }
}

/// Neighbouring lanes with each other, `d`'s then `s`'s.
#[inline(always)]
fn horizontal<B: VectorBackend>(
    b: &mut B,
    op: Fp2,
    fmt: Fmt,
    d: B::X,
    s: B::X,
) -> Result<B::X, B::E> {
    let even = b.deinterleave(lane(fmt), false, d, s);
    let odd = b.deinterleave(lane(fmt), true, d, s);
    b.fp2(op, fmt, even, odd)
}

/// All bits of the lanes whose bits are set in `lanes`.
#[inline(always)]
fn lane_mask<B: VectorBackend>(b: &mut B, fmt: Fmt, lanes: u64) -> B::X {
    let bits = lane(fmt).bits();
    let one = u128::MAX >> (128 - bits);
    let selected = (0..128 / bits).filter(|n| lanes >> n & 1 != 0);
    let mask = selected.fold(0, |m, n| m | one << (bits * n));
    b.const_x(mask)
}

/// DPPS and DPPD: products of the lanes in bits 7:4, their sum to the lanes in bits 3:0. Products
/// of zeros stand for the lanes left out: they are exact.
#[inline(always)]
fn dot_product<B: VectorBackend>(
    b: &mut B,
    fmt: Fmt,
    imm: u64,
    d: B::X,
    s: B::X,
) -> Result<B::X, B::E> {
    let factors = lane_mask(b, fmt, imm >> 4);
    let d = b.x2(X2::And, Lane::Q, d, factors);
    let s = b.x2(X2::And, Lane::Q, s, factors);
    let mut sum = b.fp2(Fp2::Mul, fmt, d, s)?;
    if fmt == Fmt::Ps {
        let odd = b.shuffle_d(sum, sum, [1, 0, 3, 2]);
        sum = b.fp2(Fp2::Add, fmt, sum, odd)?;
    }
    let other = b.shuffle_d(sum, sum, [2, 3, 0, 1]);
    let sum = b.fp2(Fp2::Add, fmt, sum, other)?;
    let low = if fmt == Fmt::Ps { [0; 4] } else { [0, 1, 0, 1] };
    let sum = b.shuffle_d(sum, sum, low);
    let targets = lane_mask(b, fmt, imm);
    Ok(b.x2(X2::And, Lane::Q, sum, targets))
}
