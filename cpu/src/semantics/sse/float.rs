//! Floating-point arithmetic.

use super::{Memory, operations};
use crate::insn::Insn;
use crate::semantics::avx::{half, set_halves, sources};
use crate::vector::{Fmt, Fp1, Fp2, Lane, Pred, VectorBackend, X2};

operations! {
    /// Instructions on XMM registers.
    select, select_vex;
    |b, i, d, s|
    M16 {
        Addps / Vaddps => b.fp2(Fp2::Add, Fmt::Ps, d, s)?,
        Addpd / Vaddpd => b.fp2(Fp2::Add, Fmt::Pd, d, s)?,
        Subps / Vsubps => b.fp2(Fp2::Sub, Fmt::Ps, d, s)?,
        Subpd / Vsubpd => b.fp2(Fp2::Sub, Fmt::Pd, d, s)?,
        Mulps / Vmulps => b.fp2(Fp2::Mul, Fmt::Ps, d, s)?,
        Mulpd / Vmulpd => b.fp2(Fp2::Mul, Fmt::Pd, d, s)?,
        Divps / Vdivps => b.fp2(Fp2::Div, Fmt::Ps, d, s)?,
        Divpd / Vdivpd => b.fp2(Fp2::Div, Fmt::Pd, d, s)?,
        Minps / Vminps => b.fp2(Fp2::Min, Fmt::Ps, d, s)?,
        Minpd / Vminpd => b.fp2(Fp2::Min, Fmt::Pd, d, s)?,
        Maxps / Vmaxps => b.fp2(Fp2::Max, Fmt::Ps, d, s)?,
        Maxpd / Vmaxpd => b.fp2(Fp2::Max, Fmt::Pd, d, s)?,
        Addsubps / Vaddsubps => b.fp2(Fp2::AddSub, Fmt::Ps, d, s)?,
        Addsubpd / Vaddsubpd => b.fp2(Fp2::AddSub, Fmt::Pd, d, s)?,
        Cmpps => b.fp2(Fp2::Cmp(Pred::from_imm(i.imm)), Fmt::Ps, d, s)?,
        Cmppd => b.fp2(Fp2::Cmp(Pred::from_imm(i.imm)), Fmt::Pd, d, s)?,
        Sqrtps / Vsqrtps => b.fp1(Fp1::Sqrt, Fmt::Ps, d, s)?,
        Sqrtpd / Vsqrtpd => b.fp1(Fp1::Sqrt, Fmt::Pd, d, s)?,
        Roundps / Vroundps => b.fp1(Fp1::Round(i.imm as u8), Fmt::Ps, d, s)?,
        Roundpd / Vroundpd => b.fp1(Fp1::Round(i.imm as u8), Fmt::Pd, d, s)?,
        Rcpps / Vrcpps => b.fp1(Fp1::Rcp, Fmt::Ps, d, s)?,
        Rsqrtps / Vrsqrtps => b.fp1(Fp1::Rsqrt, Fmt::Ps, d, s)?,
        Haddps / Vhaddps => horizontal(b, Fp2::Add, Fmt::Ps, d, s)?,
        Haddpd / Vhaddpd => horizontal(b, Fp2::Add, Fmt::Pd, d, s)?,
        Hsubps / Vhsubps => horizontal(b, Fp2::Sub, Fmt::Ps, d, s)?,
        Hsubpd / Vhsubpd => horizontal(b, Fp2::Sub, Fmt::Pd, d, s)?,
        Dpps / Vdpps => dot_product(b, Fmt::Ps, i.imm, d, s)?,
        Dppd / Vdppd => dot_product(b, Fmt::Pd, i.imm, d, s)?,
    }
    M4 {
        Addss / Vaddss => b.fp2(Fp2::Add, Fmt::Ss, d, s)?,
        Subss / Vsubss => b.fp2(Fp2::Sub, Fmt::Ss, d, s)?,
        Mulss / Vmulss => b.fp2(Fp2::Mul, Fmt::Ss, d, s)?,
        Divss / Vdivss => b.fp2(Fp2::Div, Fmt::Ss, d, s)?,
        Minss / Vminss => b.fp2(Fp2::Min, Fmt::Ss, d, s)?,
        Maxss / Vmaxss => b.fp2(Fp2::Max, Fmt::Ss, d, s)?,
        Cmpss => b.fp2(Fp2::Cmp(Pred::from_imm(i.imm)), Fmt::Ss, d, s)?,
        Sqrtss / Vsqrtss => b.fp1(Fp1::Sqrt, Fmt::Ss, d, s)?,
        Roundss / Vroundss => b.fp1(Fp1::Round(i.imm as u8), Fmt::Ss, d, s)?,
        Rcpss / Vrcpss => b.fp1(Fp1::Rcp, Fmt::Ss, d, s)?,
        Rsqrtss / Vrsqrtss => b.fp1(Fp1::Rsqrt, Fmt::Ss, d, s)?,
    }
    M8 {
        Addsd / Vaddsd => b.fp2(Fp2::Add, Fmt::Sd, d, s)?,
        Subsd / Vsubsd => b.fp2(Fp2::Sub, Fmt::Sd, d, s)?,
        Mulsd / Vmulsd => b.fp2(Fp2::Mul, Fmt::Sd, d, s)?,
        Divsd / Vdivsd => b.fp2(Fp2::Div, Fmt::Sd, d, s)?,
        Minsd / Vminsd => b.fp2(Fp2::Min, Fmt::Sd, d, s)?,
        Maxsd / Vmaxsd => b.fp2(Fp2::Max, Fmt::Sd, d, s)?,
        Cmpsd => b.fp2(Fp2::Cmp(Pred::from_imm(i.imm)), Fmt::Sd, d, s)?,
        Sqrtsd / Vsqrtsd => b.fp1(Fp1::Sqrt, Fmt::Sd, d, s)?,
        Roundsd / Vroundsd => b.fp1(Fp1::Round(i.imm as u8), Fmt::Sd, d, s)?,
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

/// DPPS and DPPD on 128 bits.
#[inline(always)]
fn dot_product<B: VectorBackend>(
    b: &mut B,
    fmt: Fmt,
    imm: u64,
    d: B::X,
    s: B::X,
) -> Result<B::X, B::E> {
    let step = |b: &mut B, op, [d]: [B::X; 1], [s]: [B::X; 1]| Ok([b.fp2(op, fmt, d, s)?]);
    let [product] = dot_products(b, fmt, imm, [d], [s], step)?;
    Ok(product)
}

/// VDPPS on 256 bits. Each step is one for both halves: an exception in one keeps the other from the
/// next step.
pub fn dot_products_256<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let s = sources(b, i, Memory::M16)?;
    let d = [half(b, i.reg[1], 0), half(b, i.reg[1], 1)];
    let step =
        |b: &mut B, op, d: [B::X; 2], s: [B::X; 2]| b.halves(|b, n| b.fp2(op, Fmt::Ps, d[n], s[n]));
    let products = dot_products(b, Fmt::Ps, i.imm, d, s, step)?;
    set_halves(b, i.reg[0], products);
    Ok(())
}

/// Products of the lanes in bits 7:4, their sum to the lanes in bits 3:0, in each of `N` vectors; `step`
/// computes in all of them. Products of zeros stand for the lanes left out: they are exact.
#[inline(always)]
fn dot_products<B: VectorBackend, const N: usize>(
    b: &mut B,
    fmt: Fmt,
    imm: u64,
    d: [B::X; N],
    s: [B::X; N],
    step: impl Fn(&mut B, Fp2, [B::X; N], [B::X; N]) -> Result<[B::X; N], B::E>,
) -> Result<[B::X; N], B::E> {
    let factors = lane_mask(b, fmt, imm >> 4);
    let d = d.map(|d| b.x2(X2::And, Lane::Q, d, factors));
    let s = s.map(|s| b.x2(X2::And, Lane::Q, s, factors));
    let mut sums = step(b, Fp2::Mul, d, s)?;
    if fmt == Fmt::Ps {
        let odd = sums.map(|sum| b.shuffle_d(sum, sum, [1, 0, 3, 2]));
        sums = step(b, Fp2::Add, sums, odd)?;
    }
    let other = sums.map(|sum| b.shuffle_d(sum, sum, [2, 3, 0, 1]));
    let sums = step(b, Fp2::Add, sums, other)?;
    let low = if fmt == Fmt::Ps { [0; 4] } else { [0, 1, 0, 1] };
    let targets = lane_mask(b, fmt, imm);
    Ok(sums.map(|sum| {
        let sum = b.shuffle_d(sum, sum, low);
        b.x2(X2::And, Lane::Q, sum, targets)
    }))
}
