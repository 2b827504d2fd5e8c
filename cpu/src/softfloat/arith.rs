//! Add, subtract, multiply, divide, square root, fused multiply-add.
//!
//! The functions on unpacked operands serve the x87, whose memory operands have another format
//! than the result.

use super::round::shift_right_jam;
use super::{Class, Env, Exact, Format, Rounding, Unpacked, flag, round_pack};

impl From<Unpacked> for Exact {
    fn from(x: Unpacked) -> Self {
        Self { sign: x.sign, exp: x.exp, sig: u128::from(x.sig) << 64 }
    }
}

/// `a + b`.
pub fn add<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    let (a, b) = (env.operand::<F>(a), env.operand::<F>(b));
    add_unpacked::<F>(a, b, env)
}

/// `a - b`.
pub fn sub<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    let (a, b) = (env.operand::<F>(a), env.operand::<F>(b));
    sub_unpacked::<F>(a, b, env)
}

pub(crate) fn add_unpacked<F: Format>(a: Unpacked, b: Unpacked, env: &mut Env) -> F::Bits {
    env.rounded_up = false;
    if let Some(nan) = env.nan_operand::<F>(&[a, b]) {
        return nan;
    }
    if a.is_infinite() && b.is_infinite() && a.sign != b.sign {
        return env.invalid::<F>();
    }
    if !env.check_denormal(&[a, b]) {
        return F::default_nan();
    }
    match (a.class, b.class) {
        (Class::Infinity, _) => F::infinity(a.sign),
        (_, Class::Infinity) => F::infinity(b.sign),
        _ => add_exact::<F>(a.into(), b.into(), env.precision.bits(), env),
    }
}

pub(crate) fn sub_unpacked<F: Format>(a: Unpacked, b: Unpacked, env: &mut Env) -> F::Bits {
    // A NaN keeps its sign.
    let b = if b.is_nan() { b } else { Unpacked { sign: !b.sign, ..b } };
    add_unpacked::<F>(a, b, env)
}

/// The sign of a zero sum (IEEE 754, 6.3).
fn zero_sum_sign(a: bool, b: bool, rounding: Rounding) -> bool {
    if a == b { a } else { rounding == Rounding::Down }
}

/// Adds two finite values and rounds. A significand may use up to 127 - 64 bits below the top
/// 64: then whatever an alignment shift loses is too far down for cancellation to bring up.
fn add_exact<F: Format>(a: Exact, b: Exact, precision: u32, env: &mut Env) -> F::Bits {
    if a.sig == 0 && b.sig == 0 {
        return F::zero(zero_sum_sign(a.sign, b.sign, env.rounding));
    }
    if a.sig == 0 || b.sig == 0 {
        return round_pack::<F>(if a.sig == 0 { b } else { a }, precision, env);
    }
    let (big, small) = if (a.exp, a.sig) >= (b.exp, b.sig) { (a, b) } else { (b, a) };
    // One bit of headroom for the carry.
    let big_sig = big.sig >> 1;
    let small_sig = shift_right_jam(small.sig >> 1, (big.exp - small.exp) as u32);
    let sig = if a.sign == b.sign { big_sig + small_sig } else { big_sig - small_sig };
    if sig == 0 {
        return F::zero(env.rounding == Rounding::Down);
    }
    round_pack::<F>(Exact::normalized(big.sign, big.exp + 1, sig), precision, env)
}

/// The exact product of two finite values.
fn product(a: Unpacked, b: Unpacked) -> Exact {
    let sign = a.sign ^ b.sign;
    let sig = u128::from(a.sig) * u128::from(b.sig);
    if sig == 0 {
        return Exact { sign, exp: 0, sig };
    }
    Exact::normalized(sign, a.exp + b.exp + 1, sig)
}

fn is_zero_times_infinity(a: Unpacked, b: Unpacked) -> bool {
    a.is_zero() && b.is_infinite() || a.is_infinite() && b.is_zero()
}

/// `a * b`.
pub fn mul<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    let (a, b) = (env.operand::<F>(a), env.operand::<F>(b));
    mul_unpacked::<F>(a, b, env)
}

pub(crate) fn mul_unpacked<F: Format>(a: Unpacked, b: Unpacked, env: &mut Env) -> F::Bits {
    env.rounded_up = false;
    if let Some(nan) = env.nan_operand::<F>(&[a, b]) {
        return nan;
    }
    if is_zero_times_infinity(a, b) {
        return env.invalid::<F>();
    }
    if !env.check_denormal(&[a, b]) {
        return F::default_nan();
    }
    let sign = a.sign ^ b.sign;
    if a.is_infinite() || b.is_infinite() {
        return F::infinity(sign);
    }
    match product(a, b) {
        Exact { sig: 0, .. } => F::zero(sign),
        exact => round_pack::<F>(exact, env.precision.bits(), env),
    }
}

/// `a / b`.
pub fn div<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    let (a, b) = (env.operand::<F>(a), env.operand::<F>(b));
    div_unpacked::<F>(a, b, env)
}

pub(crate) fn div_unpacked<F: Format>(a: Unpacked, b: Unpacked, env: &mut Env) -> F::Bits {
    env.rounded_up = false;
    if let Some(nan) = env.nan_operand::<F>(&[a, b]) {
        return nan;
    }
    if a.is_infinite() && b.is_infinite() || a.is_zero() && b.is_zero() {
        return env.invalid::<F>();
    }
    let sign = a.sign ^ b.sign;
    if b.is_zero() && !a.is_infinite() {
        env.raise(flag::DIV_ZERO);
        return F::infinity(sign);
    }
    if !env.check_denormal(&[a, b]) {
        return F::default_nan();
    }
    if a.is_infinite() {
        return F::infinity(sign);
    }
    if a.is_zero() || b.is_infinite() {
        return F::zero(sign);
    }
    let dividend = u128::from(a.sig) << 63;
    let divisor = u128::from(b.sig);
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    // The quotient has 63 or 64 bits; two more and the jammed remainder decide any rounding.
    let tail = (rest << 2) / divisor;
    let sticky = u128::from((rest << 2) % divisor != 0);
    let sig = (quotient << 2 | tail) << 60 | sticky;
    round_pack::<F>(Exact::normalized(sign, a.exp - b.exp + 2, sig), env.precision.bits(), env)
}

/// The square root of `a`.
pub fn sqrt<F: Format>(a: F::Bits, env: &mut Env) -> F::Bits {
    let a = env.operand::<F>(a);
    env.rounded_up = false;
    if let Some(nan) = env.nan_operand::<F>(&[a]) {
        return nan;
    }
    if a.is_zero() {
        return F::zero(a.sign);
    }
    if a.sign {
        return env.invalid::<F>();
    }
    if !env.check_denormal(&[a]) {
        return F::default_nan();
    }
    if a.is_infinite() {
        return F::infinity(false);
    }
    // An even exponent, so that it halves exactly: the radicand is in [1, 4).
    let radicand = u128::from(a.sig) << (63 + (a.exp & 1));
    let root = radicand.isqrt();
    let rest = radicand - root * root;
    // rest > root means sqrt(radicand) > root + 1/2; it is never exactly that.
    let sig = root << 64 | u128::from(rest > root) << 63 | u128::from(rest != 0);
    let exact = Exact { sign: false, exp: a.exp >> 1, sig };
    round_pack::<F>(exact, env.precision.bits(), env)
}

/// `a * b + c` with one rounding, for [`F32`](super::F32) and [`F64`](super::F64). Among NaN
/// operands the order of choice is `a`, `b`, `c`.
pub fn fma<F: Format>(a: F::Bits, b: F::Bits, c: F::Bits, env: &mut Env) -> F::Bits {
    let (a, b, c) = (env.operand::<F>(a), env.operand::<F>(b), env.operand::<F>(c));
    env.rounded_up = false;
    if let Some(nan) = env.nan_operand::<F>(&[a, b, c]) {
        return nan;
    }
    let sign = a.sign ^ b.sign;
    let infinite_product = a.is_infinite() || b.is_infinite();
    if is_zero_times_infinity(a, b) || infinite_product && c.is_infinite() && sign != c.sign {
        return env.invalid::<F>();
    }
    if !env.check_denormal(&[a, b, c]) {
        return F::default_nan();
    }
    if infinite_product {
        return F::infinity(sign);
    }
    if c.is_infinite() {
        return F::infinity(c.sign);
    }
    add_exact::<F>(product(a, b), c.into(), F::PRECISION, env)
}
