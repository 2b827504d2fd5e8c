//! DIV and IDIV. The flags, which the manual leaves undefined, stay.

use brolga_mmu::Width;

use super::operand::{Size, Src};
use crate::backend::Backend;
use crate::flags::sign_extend;
use crate::insn::Insn;
use crate::vcpu::gpr;

/// High-byte register number of AH in [`Insn::reg`]'s numbering.
const AH: u8 = 16;

/// DIV.
#[inline(always)]
pub fn div<B: Backend, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    divide::<false, B, S, W>(b, i)
}

/// IDIV.
#[inline(always)]
pub fn idiv<B: Backend, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    divide::<true, B, S, W>(b, i)
}

/// rDX:rAX (AX for bytes) by the operand: the quotient goes to rAX, the remainder to rDX (AL, AH).
#[inline(always)]
fn divide<const SIGNED: bool, B: Backend, S: Src, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let w = W::W;
    let upper = if w == Width::W8 { AH } else { gpr::RDX };
    let by = S::get(b, w, i)?;
    let (high, low) = (b.reg(w, upper), b.reg(w, gpr::RAX));
    let (quotient, remainder) = b.divide(SIGNED, w, high, low, by)?;
    b.set_reg(w, gpr::RAX, quotient);
    b.set_reg(w, upper, remainder);
    Ok(())
}

/// Quotient and remainder of `high:low` by `by`, which is not 0; `None` if the quotient does not
/// fit in `w`.
#[inline]
pub(crate) fn unsigned(w: Width, high: u64, low: u64, by: u64) -> Option<(u64, u64)> {
    if high >= by {
        return None;
    }
    if high == 0 || w != Width::W64 {
        let n = if w == Width::W64 { low } else { high << w.bits() | low };
        return Some((n / by, n % by));
    }
    let (n, by) = (u128::from(high) << 64 | u128::from(low), u128::from(by));
    Some(((n / by) as u64, (n % by) as u64))
}

/// As [`unsigned`], of two's complement numbers.
#[inline]
pub(crate) fn signed(w: Width, high: u64, low: u64, by: u64) -> Option<(u64, u64)> {
    let by = sign_extend(w, by) as i64;
    let (quotient, remainder) = if w != Width::W64 || high == (low as i64 >> 63) as u64 {
        let n = if w == Width::W64 { low } else { high << w.bits() | low };
        let n = if w == Width::W64 { n } else { sign_extend_double(w, n) } as i64;
        let quotient = n.checked_div(by)?;
        (i128::from(quotient), n.wrapping_sub(quotient.wrapping_mul(by)) as u64)
    } else {
        let n = (u128::from(high) << 64 | u128::from(low)) as i128;
        let quotient = n.checked_div(i128::from(by))?;
        (quotient, n.wrapping_sub(quotient.wrapping_mul(i128::from(by))) as u64)
    };
    let top = 1i128 << (w.bits() - 1);
    let fits = (-top..top).contains(&quotient);
    fits.then_some((quotient as u64 & w.mask(), remainder & w.mask()))
}

/// Sign-extends from twice the width, which is below 64 bits.
fn sign_extend_double(w: Width, n: u64) -> u64 {
    let unused = 64 - 2 * w.bits();
    ((n << unused) as i64 >> unused) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, on 8-bit operands.
    #[test]
    fn all_dividends_and_divisors_of_bytes() {
        for n in 0..=0xffff_u64 {
            let (high, low) = (n >> 8, n & 0xff);
            for by in 1..=0xff_u64 {
                let fits = n / by <= 0xff;
                assert_eq!(unsigned(Width::W8, high, low, by), fits.then(|| (n / by, n % by)));
                let (n, d) = (i32::from(n as i16), i32::from(by as i8));
                let expected = i8::try_from(n / d).ok();
                let expected = expected.map(|q| (u64::from(q as u8), u64::from((n % d) as u8)));
                assert_eq!(signed(Width::W8, high, low, by), expected, "{n} / {d}");
            }
        }
    }

    #[test]
    fn dividends_of_128_bits() {
        let min = 1 << 63;
        assert_eq!(unsigned(Width::W64, 1, 0, 2), Some((1 << 63, 0)));
        assert_eq!(unsigned(Width::W64, 2, 0, 2), None);
        assert_eq!(signed(Width::W64, min, 0, u64::MAX), None, "overflows even 128 bits");
        assert_eq!(signed(Width::W64, u64::MAX, min, u64::MAX), None);
        assert_eq!(signed(Width::W64, u64::MAX, min, 1), Some((min, 0)));
        assert_eq!(signed(Width::W64, u64::MAX, 0, 2), Some((min, 0)));
        assert_eq!(signed(Width::W64, 0, min, 2), Some((min >> 1, 0)));
    }
}
