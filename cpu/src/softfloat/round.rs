//! Rounding an exact result into a format.

use super::format::INTEGER_BIT;
use super::{Env, Format, Rounding, flag};

/// An exact finite result, `sig * 2^(exp - 127)`, or one whose lost low part is jammed into bit 0
/// (far below any rounding position). Zero, or bit 127 of `sig` set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exact {
    pub(crate) sign: bool,
    pub(crate) exp: i32,
    pub(crate) sig: u128,
}

impl Exact {
    /// Shifts a non-zero significand up to bit 127.
    #[inline]
    pub(crate) fn normalized(sign: bool, exp: i32, sig: u128) -> Self {
        let shift = sig.leading_zeros();
        Self { sign, exp: exp - shift as i32, sig: sig << (shift & 127) }
    }
}

/// Shifts right, OR-ing what falls off into bit 0.
#[inline]
pub(super) fn shift_right_jam(sig: u128, count: u32) -> u128 {
    match count {
        0 => sig,
        1..128 => sig >> count | u128::from(sig << (128 - count) != 0),
        _ => u128::from(sig != 0),
    }
}

/// A significand rounded to the top bits of a 64-bit word.
struct Rounded {
    sig: u64,
    /// The increment carried out of bit 63 (`sig` is then the integer bit alone).
    carry: bool,
    inexact: bool,
    up: bool,
}

/// Whether rounding adds one unit: `odd` is the lowest kept bit, `rest` the discarded part,
/// left-aligned.
#[inline]
pub(super) fn increments(rounding: Rounding, sign: bool, odd: bool, rest: u128) -> bool {
    const HALF: u128 = 1 << 127;
    match rounding {
        Rounding::Nearest => rest > HALF || rest == HALF && odd,
        Rounding::Down => sign && rest != 0,
        Rounding::Up => !sign && rest != 0,
        Rounding::Zero => false,
    }
}

/// Rounds to the top `precision` bits (at most 64).
#[inline]
fn round_sig(sign: bool, sig: u128, precision: u32, rounding: Rounding) -> Rounded {
    let kept = (sig >> (128 - precision)) as u64;
    let rest = sig << precision;
    let up = increments(rounding, sign, kept & 1 != 0, rest);
    let sum = u128::from(kept) + u128::from(up);
    let carry = sum >> precision != 0;
    let sig = if carry { INTEGER_BIT } else { (sum as u64) << (64 - precision) };
    Rounded { sig, carry, inexact: rest != 0, up }
}

/// Rounds a non-zero result to `precision` bits (or the format's, if fewer) and encodes it,
/// raising overflow, underflow and inexact. Tininess is detected after rounding.
pub(crate) fn round_pack<F: Format>(x: Exact, precision: u32, env: &mut Env) -> F::Bits {
    let precision = precision.min(F::PRECISION);
    let rounded = round_sig(x.sign, x.sig, precision, env.rounding);
    let exp = x.exp + i32::from(rounded.carry);
    if exp < F::EMIN {
        return underflow::<F>(x, exp, &rounded, precision, env);
    }
    if exp > F::EMAX {
        return overflow::<F>(x.sign, exp, &rounded, precision, env);
    }
    finish::<F>(x.sign, (exp + F::EMAX) as u32, &rounded, env)
}

/// Encodes a rounded result and reports whether rounding changed it.
fn finish<F: Format>(sign: bool, biased: u32, rounded: &Rounded, env: &mut Env) -> F::Bits {
    if rounded.inexact {
        env.raise(flag::INEXACT);
    }
    env.rounded_up = rounded.up;
    F::pack(sign, biased, rounded.sig)
}

#[cold]
fn overflow<F: Format>(
    sign: bool,
    exp: i32,
    rounded: &Rounded,
    precision: u32,
    env: &mut Env,
) -> F::Bits {
    env.raise(flag::OVERFLOW);
    if !env.masked(flag::OVERFLOW) {
        let biased = exp + F::EMAX - F::BIAS_ADJUST.unwrap_or(0);
        // Without bias adjustment the result is not delivered, and only the flags matter.
        if biased < F::SPECIAL as i32 || F::BIAS_ADJUST.is_none() {
            return finish::<F>(sign, biased as u32 & F::SPECIAL, rounded, env);
        }
        // FSCALE can exceed even the adjusted range: an infinity in any rounding mode.
        env.raise(flag::INEXACT);
        env.rounded_up = true;
        return F::infinity(sign);
    }
    env.raise(flag::INEXACT);
    let to_infinity = match env.rounding {
        Rounding::Nearest => true,
        Rounding::Down => sign,
        Rounding::Up => !sign,
        Rounding::Zero => false,
    };
    env.rounded_up = to_infinity;
    if to_infinity {
        F::infinity(sign)
    } else {
        F::pack(sign, F::SPECIAL - 1, !0 << (64 - precision))
    }
}

#[cold]
fn underflow<F: Format>(
    x: Exact,
    exp: i32,
    unbounded: &Rounded,
    precision: u32,
    env: &mut Env,
) -> F::Bits {
    if !env.masked(flag::UNDERFLOW) {
        env.raise(flag::UNDERFLOW);
        let biased = exp + F::EMAX + F::BIAS_ADJUST.unwrap_or(0);
        // As for overflow.
        if biased > 0 || F::BIAS_ADJUST.is_none() {
            return finish::<F>(x.sign, biased as u32 & F::SPECIAL, unbounded, env);
        }
        // Too small even for the adjusted range (FSCALE): a zero (SDM vol 1, 8.5.5).
        env.raise(flag::INEXACT);
        env.rounded_up = false;
        return F::zero(x.sign);
    }
    if env.ftz {
        env.raise(flag::UNDERFLOW | flag::INEXACT);
        env.rounded_up = false;
        return F::zero(x.sign);
    }
    let sig = shift_right_jam(x.sig, (F::EMIN - x.exp) as u32);
    let rounded = round_sig(x.sign, sig, precision, env.rounding);
    if rounded.inexact {
        env.raise(flag::UNDERFLOW);
    }
    // Rounding may reach the smallest normal number, whose biased exponent is 1.
    finish::<F>(x.sign, (rounded.sig >> 63) as u32, &rounded, env)
}
