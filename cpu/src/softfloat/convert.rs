//! Conversions between formats, to and from integers, and rounding to integral values.

use super::round::{increments, shift_right_jam};
use super::{Class, Env, Exact, Format, Rounding, Unpacked, flag, round_pack};

/// Converts between formats. A NaN is quieted and keeps the top of its payload.
pub fn convert<From: Format, To: Format>(a: From::Bits, env: &mut Env) -> To::Bits {
    let a = env.operand::<From>(a);
    convert_unpacked::<To>(a, env)
}

/// Converts an unpacked datum of any format.
pub(crate) fn convert_unpacked<To: Format>(a: Unpacked, env: &mut Env) -> To::Bits {
    env.rounded_up = false;
    if let Some(nan) = env.nan_operand::<To>(&[a]) {
        return nan;
    }
    if !env.check_denormal(&[a]) {
        return To::default_nan();
    }
    match a.class {
        Class::Zero => To::zero(a.sign),
        Class::Infinity => To::infinity(a.sign),
        _ => round_pack::<To>(a.into(), To::PRECISION, env),
    }
}

/// Converts an integer; every 64-bit one, signed or not, is in range.
pub fn from_int<F: Format>(value: impl Into<i128>, env: &mut Env) -> F::Bits {
    let value = value.into();
    env.rounded_up = false;
    if value == 0 {
        return F::zero(false);
    }
    let exact = Exact::normalized(value < 0, 127, value.unsigned_abs());
    round_pack::<F>(exact, F::PRECISION, env)
}

/// An integer that a conversion can deliver.
pub trait Integer: TryFrom<i128> {
    /// What an out-of-range or NaN source gives: the "integer indefinite".
    const INDEFINITE: Self;
}

impl Integer for i16 {
    const INDEFINITE: Self = Self::MIN;
}
impl Integer for i32 {
    const INDEFINITE: Self = Self::MIN;
}
impl Integer for i64 {
    const INDEFINITE: Self = Self::MIN;
}
impl Integer for u32 {
    const INDEFINITE: Self = Self::MAX;
}
impl Integer for u64 {
    const INDEFINITE: Self = Self::MAX;
}

/// A finite magnitude rounded to an integer.
struct RoundedInt {
    /// The magnitude; meaningless if `huge`.
    magnitude: u128,
    /// The magnitude is 2^127 or more, and so integral.
    huge: bool,
    inexact: bool,
    up: bool,
}

fn round_magnitude(x: &Unpacked, rounding: Rounding) -> RoundedInt {
    if x.is_zero() {
        return RoundedInt { magnitude: 0, huge: false, inexact: false, up: false };
    }
    if x.exp >= 127 {
        return RoundedInt { magnitude: 0, huge: true, inexact: false, up: false };
    }
    let sig = u128::from(x.sig);
    let (whole, rest) = match 63 - x.exp {
        shift @ ..=0 => (sig << -shift, 0),
        shift @ 1..64 => (sig >> shift, sig << (128 - shift)),
        shift => (0, shift_right_jam(sig << 64, (shift - 64) as u32)),
    };
    let up = increments(rounding, x.sign, whole & 1 != 0, rest);
    RoundedInt { magnitude: whole + u128::from(up), huge: false, inexact: rest != 0, up }
}

/// Converts to an integer in the given rounding mode. Out of range is invalid and gives
/// [`Integer::INDEFINITE`]. A denormal source raises no denormal exception.
pub fn to_int<F: Format, I: Integer>(a: F::Bits, rounding: Rounding, env: &mut Env) -> I {
    let a = env.operand::<F>(a);
    env.rounded_up = false;
    let converted = match a.class {
        Class::Zero | Class::Subnormal | Class::Normal => {
            let rounded = round_magnitude(&a, rounding);
            let magnitude = i128::try_from(rounded.magnitude).ok().filter(|_| !rounded.huge);
            let value = magnitude.map(|m| if a.sign { -m } else { m });
            value.and_then(|v| I::try_from(v).ok()).map(|v| (v, rounded))
        }
        _ => None,
    };
    let Some((value, rounded)) = converted else {
        env.raise(flag::INVALID);
        return I::INDEFINITE;
    };
    if rounded.inexact {
        env.raise(flag::INEXACT);
    }
    env.rounded_up = rounded.up;
    value
}

/// Rounds to an integral value of the same format (ROUNDSS, FRNDINT). `report_inexact` is false
/// for the forms that suppress the precision exception. Denormal sources raise no denormal
/// exception.
pub fn round_to_int<F: Format>(
    bits: F::Bits,
    rounding: Rounding,
    report_inexact: bool,
    env: &mut Env,
) -> F::Bits {
    let a = env.operand::<F>(bits);
    env.rounded_up = false;
    if let Some(nan) = env.nan_operand::<F>(&[a]) {
        return nan;
    }
    if a.is_infinite() || a.exp >= 63 {
        return bits;
    }
    let rounded = round_magnitude(&a, rounding);
    if rounded.inexact && report_inexact {
        env.raise(flag::INEXACT);
    }
    let result = match rounded.magnitude {
        0 => F::zero(a.sign),
        // Exact: it has no more significant bits than F's precision.
        whole => round_pack::<F>(Exact::normalized(a.sign, 127, whole), F::PRECISION, env),
    };
    env.rounded_up = rounded.up;
    result
}
