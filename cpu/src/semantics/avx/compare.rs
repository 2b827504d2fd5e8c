//! VCMP with its 32 predicates, VPTEST and VTEST.

use brolga_mmu::Width;

use super::{each_half, half, sources};
use crate::backend::Bin;
use crate::insn::{Insn, bits};
use crate::semantics::sse::Memory;
use crate::semantics::sse::compare::{is_zero, set_flags};
use crate::vcpu::rflags::{CF, ZF};
use crate::vector::{Fmt, Fp2, Lane, Pred, VectorBackend, X2};

/// Formats as const parameters.
const fn format(kind: u8) -> Fmt {
    match kind {
        0 => Fmt::Ss,
        1 => Fmt::Sd,
        2 => Fmt::Ps,
        _ => Fmt::Pd,
    }
}

/// VCMPSS, VCMPSD, VCMPPS and VCMPPD, by `FORMAT`.
pub fn compare<B: VectorBackend, const FORMAT: u8>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let fmt = format(FORMAT);
    let memory = match fmt {
        Fmt::Ss => Memory::M4,
        Fmt::Sd => Memory::M8,
        Fmt::Ps | Fmt::Pd => Memory::M16U,
    };
    let s = sources(b, i, memory)?;
    each_half(b, i, |b, n| {
        let d = half(b, i.reg[1], n);
        let r = predicate(b, i.imm as u8 & 31, fmt, d, s[n])?;
        Ok(match fmt {
            Fmt::Ss => b.shuffle_d(d, r, [4, 1, 2, 3]),
            Fmt::Sd => b.shuffle_d(d, r, [4, 5, 2, 3]),
            Fmt::Ps | Fmt::Pd => r,
        })
    })
}

/// A comparison by predicate number (SDM vol. 2, table 3-1), made of SSE's eight so that it raises
/// what it shall: the upper lanes of scalars do not count.
#[inline(always)]
fn predicate<B: VectorBackend>(
    b: &mut B,
    number: u8,
    fmt: Fmt,
    x: B::X,
    y: B::X,
) -> Result<B::X, B::E> {
    let cmp = |b: &mut B, pred, x, y| b.fp2(Fp2::Cmp(pred), fmt, x, y);
    let base = number & 15;
    let signals = (number >> 4 & 1 != 0) ^ matches!(base, 1 | 2 | 5 | 6 | 9 | 10 | 13 | 14);
    // The relations of greater are those of less with the operands exchanged.
    let (x, y) = if matches!(base, 9 | 10 | 13 | 14) { (y, x) } else { (x, y) };
    let ordering = match base {
        1 | 14 => Some(Pred::Lt),
        2 | 13 => Some(Pred::Le),
        5 | 10 => Some(Pred::Nlt),
        6 | 9 => Some(Pred::Nle),
        _ => None,
    };
    match (ordering, signals) {
        (Some(pred), true) => return cmp(b, pred, x, y),
        (Some(pred), false) => {
            // Quiet: unordered operands are taken out, as zeros.
            let ordered = cmp(b, Pred::Ord, x, y)?;
            let (x, y) = (b.x2(X2::And, Lane::Q, x, ordered), b.x2(X2::And, Lane::Q, y, ordered));
            let r = cmp(b, pred, x, y)?;
            let negated = matches!(pred, Pred::Nlt | Pred::Nle);
            if !negated {
                return Ok(b.x2(X2::And, Lane::Q, r, ordered));
            }
            let ones = b.const_x(u128::MAX);
            let unordered = b.x2(X2::Xor, Lane::Q, ordered, ones);
            return Ok(b.x2(X2::Or, Lane::Q, r, unordered));
        }
        // Signals for quiet NaNs too; the result does not count.
        (None, true) => drop(cmp(b, Pred::Lt, x, y)?),
        (None, false) => {}
    }
    Ok(match base {
        0 => cmp(b, Pred::Eq, x, y)?,
        3 => cmp(b, Pred::Unord, x, y)?,
        4 => cmp(b, Pred::Neq, x, y)?,
        7 => cmp(b, Pred::Ord, x, y)?,
        8 => {
            let (equal, unordered) = (cmp(b, Pred::Eq, x, y)?, cmp(b, Pred::Unord, x, y)?);
            b.x2(X2::Or, Lane::Q, equal, unordered)
        }
        12 => {
            let (unequal, ordered) = (cmp(b, Pred::Neq, x, y)?, cmp(b, Pred::Ord, x, y)?);
            b.x2(X2::And, Lane::Q, unequal, ordered)
        }
        _ => {
            // True or false whatever the operands, which are looked at all the same.
            cmp(b, Pred::Eq, x, y)?;
            b.const_x(if base == 15 { u128::MAX } else { 0 })
        }
    })
}

/// VPTEST; VTESTPS and VTESTPD, for which only the bits in `MASK` of each quadword count.
pub fn test<B: VectorBackend, const MASK: u64>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let s = sources(b, i, Memory::M16U)?;
    let (mut common, mut outside) = (b.const_x(0), b.const_x(0));
    for (n, s) in s.into_iter().enumerate().take(if i.has(bits::YMM) { 2 } else { 1 }) {
        let d = half(b, i.reg[0], n);
        let (x, y) = (b.x2(X2::And, Lane::Q, d, s), b.x2(X2::AndNot, Lane::Q, d, s));
        common = b.x2(X2::Or, Lane::Q, common, x);
        outside = b.x2(X2::Or, Lane::Q, outside, y);
    }
    if MASK != u64::MAX {
        let mask = b.const_x(u128::from(MASK) << 64 | u128::from(MASK));
        common = b.x2(X2::And, Lane::Q, common, mask);
        outside = b.x2(X2::And, Lane::Q, outside, mask);
    }
    let (zf, cf) = (is_zero(b, common, ZF), is_zero(b, outside, CF));
    let flags = b.bin(Bin::Or, Width::W64, zf, cf);
    set_flags(b, flags);
    Ok(())
}
