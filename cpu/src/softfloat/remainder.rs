//! The x87's remainder, scaling and decomposition.

use super::{Class, Env, Exact, F80, Format, Unpacked, flag, from_int, round_pack};

/// How the quotient of a remainder is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemainderKind {
    /// Toward zero (FPREM).
    Truncate,
    /// To nearest, ties to even (FPREM1, IEEE 754 remainder).
    Nearest,
}

/// What FPREM or FPREM1 finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remainder {
    /// The remainder, or a partial one.
    pub value: F80,
    /// The low bits of the quotient; none if the reduction is not complete.
    pub quotient: Option<u64>,
}

/// The remainder of `a / b`, or a partial remainder if their exponents differ by 64 or more.
pub fn remainder(a: F80, b: F80, kind: RemainderKind, env: &mut Env) -> Remainder {
    let (x, y) = (F80::unpack(a), F80::unpack(b));
    env.rounded_up = false;
    let whole = |value| Remainder { value, quotient: Some(0) };
    if let Some(nan) = env.nan_operand::<F80>(&[x, y]) {
        return whole(nan);
    }
    if x.is_infinite() || y.is_zero() {
        return whole(env.invalid::<F80>());
    }
    if !env.check_denormal(&[x, y]) {
        return whole(F80::default_nan());
    }
    if x.is_zero() {
        return whole(a);
    }
    let difference = x.exp - y.exp;
    if y.is_infinite() || difference < -1 {
        return whole(round_pack::<F80>(x.into(), F80::PRECISION, env));
    }
    // Both as integers of one unit, 2^(unit - 63).
    let (dividend, divisor, unit, complete) = match difference {
        -1 => (u128::from(x.sig), u128::from(y.sig) << 1, x.exp, true),
        0..64 => (u128::from(x.sig) << difference, u128::from(y.sig), y.exp, true),
        // SDM FPREM: reduce by an implementation-dependent 32 to 63 bits; processors choose
        // the number that leaves a difference divisible by 32.
        _ => {
            let bits = 32 + difference % 32;
            (u128::from(x.sig) << bits, u128::from(y.sig), y.exp + difference - bits, false)
        }
    };
    let (mut quotient, mut rest) = (dividend / divisor, dividend % divisor);
    let mut sign = x.sign;
    if complete && kind == RemainderKind::Nearest {
        let twice = rest << 1;
        if twice > divisor || twice == divisor && quotient & 1 != 0 {
            rest = divisor - rest;
            quotient += 1;
            sign = !sign;
        }
    }
    let value = match rest {
        0 => F80::zero(x.sign),
        _ => round_pack::<F80>(Exact::normalized(sign, unit + 64, rest), F80::PRECISION, env),
    };
    Remainder { value, quotient: complete.then_some(quotient as u64) }
}

/// `a * 2^trunc(b)` (FSCALE).
pub fn scale(a: F80, b: F80, env: &mut Env) -> F80 {
    let (x, y) = (F80::unpack(a), F80::unpack(b));
    env.rounded_up = false;
    if let Some(nan) = env.nan_operand::<F80>(&[x, y]) {
        return nan;
    }
    if y.is_infinite() && (if y.sign { x.is_infinite() } else { x.is_zero() }) {
        return env.invalid::<F80>();
    }
    if !env.check_denormal(&[x, y]) {
        return F80::default_nan();
    }
    match (x.class, y.class) {
        (Class::Zero | Class::Infinity, _) => a,
        (_, Class::Infinity) if y.sign => F80::zero(x.sign),
        (_, Class::Infinity) => F80::infinity(x.sign),
        _ => {
            let exact = Exact { exp: x.exp + scale_exponent(&y), ..x.into() };
            round_pack::<F80>(exact, F80::PRECISION, env)
        }
    }
}

/// A finite value truncated to an integer, limited to what takes any exponent out of range.
fn scale_exponent(y: &Unpacked) -> i32 {
    const LIMIT: i32 = 1 << 17;
    let magnitude = match y.exp {
        ..0 => 0,
        0..17 => (y.sig >> (63 - y.exp)) as i32,
        _ => LIMIT,
    };
    if y.sign { -magnitude } else { magnitude }
}

/// The exponent (as a number) and the significand of `a`, in that order (FXTRACT).
pub fn extract(a: F80, env: &mut Env) -> (F80, F80) {
    let x = F80::unpack(a);
    env.rounded_up = false;
    if let Some(nan) = env.nan_operand::<F80>(&[x]) {
        return (nan, nan);
    }
    match x.class {
        Class::Zero => {
            env.raise(flag::DIV_ZERO);
            (F80::infinity(true), a)
        }
        Class::Infinity => (F80::infinity(false), a),
        _ if !env.check_denormal(&[x]) => (F80::default_nan(), F80::default_nan()),
        _ => (from_int::<F80>(x.exp, env), F80::pack(x.sign, F80::EMAX as u32, x.sig)),
    }
}
