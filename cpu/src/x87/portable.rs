//! The portable twin of the transcendental instructions.
//!
//! It follows the manual's tables of special cases; elsewhere it computes with 120 bits and rounds
//! once, as RC asks, so its error is below 0.501 units in the last place of the true function. The
//! trigonometric functions reduce their argument with a pi of 66 bits, as the manual describes
//! (SDM vol. 1, 8.3.8).

use super::transcendental::{Answer, Transcendental};
use super::wide::Wide;
use crate::softfloat::{Class, Env, F80, Format, Unpacked, flag, round_pack};

impl Answer {
    fn one(value: F80) -> Self {
        Self { value, pushed: value, out_of_range: false }
    }
}

/// A transcendental instruction; flags and C1 go to `env`, which has the control word's bits.
pub(super) fn transcendental(
    op: Transcendental,
    st0: F80,
    st1: F80,
    _control: u16,
    env: &mut Env,
) -> Answer {
    use Transcendental::{Atan, TwoToXMinus1, YLog2X, YLog2XPlus1};
    let (x, y) = (F80::unpack(st0), F80::unpack(st1));
    let operands: &[Unpacked] =
        if matches!(op, YLog2X | YLog2XPlus1 | Atan) { &[x, y] } else { &[x] };
    env.rounded_up = false;
    if let Some(nan) = env.nan_operand::<F80>(operands) {
        return Answer::one(nan);
    }
    match op {
        TwoToXMinus1 => Answer::one(two_to_x_minus_1(x, env)),
        YLog2X => Answer::one(y_log2_x(x, y, env)),
        YLog2XPlus1 => Answer::one(y_log2_x_plus_1(x, y, env)),
        Atan => Answer::one(atan2(y, x, env)),
        _ => trigonometric(op, x, st0, env),
    }
}

/// Rounds a result that is never exact; a value that looks so is just above.
fn inexact(x: Wide, env: &mut Env) -> F80 {
    round_pack::<F80>(Wide { sig: x.sig | 1, ..x }.into(), F80::PRECISION, env)
}

/// Rounds a result that may be exact; processors report it as inexact all the same.
fn exact(x: Wide, env: &mut Env) -> F80 {
    let result = round_pack::<F80>(x.into(), F80::PRECISION, env);
    env.raise(flag::INEXACT);
    if result.class() == Class::Subnormal {
        env.raise(flag::UNDERFLOW);
    }
    result
}

fn two_to_x_minus_1(x: Unpacked, env: &mut Env) -> F80 {
    env.check_denormal(&[x]);
    match x.class {
        Class::Zero => F80::zero(x.sign),
        Class::Infinity if x.sign => F80::pack(true, F80::EMAX as u32, 1 << 63),
        Class::Infinity => F80::infinity(false),
        // 2^1 - 1 and 2^-1 - 1.
        _ if x.exp == 0 && x.sig == 1 << 63 => {
            exact(Wide::ONE.scaled(-i32::from(x.sign)).with_sign(x.sign), env)
        }
        // Beyond [-1, 1] the result is undefined; the operand stays.
        _ if x.exp >= 0 => F80::pack(x.sign, (x.exp + F80::EMAX) as u32, x.sig),
        _ => inexact((Wide::from(x) * Wide::LN_2).exp_m1(), env),
    }
}

fn is_one(x: &Unpacked) -> bool {
    x.class == Class::Normal && !x.sign && x.exp == 0 && x.sig == 1 << 63
}

fn y_log2_x(x: Unpacked, y: Unpacked, env: &mut Env) -> F80 {
    let invalid = x.sign && !x.is_zero()
        || (x.is_zero() || x.is_infinite()) && y.is_zero()
        || is_one(&x) && y.is_infinite();
    if invalid {
        return env.invalid::<F80>();
    }
    if x.is_zero() {
        if !y.is_infinite() {
            env.raise(flag::DIV_ZERO);
        }
        return F80::infinity(!y.sign);
    }
    env.check_denormal(&[x, y]);
    let log_is_negative = !x.is_infinite() && x.exp < 0;
    let sign = y.sign ^ log_is_negative;
    if x.is_infinite() || y.is_infinite() {
        return F80::infinity(sign);
    }
    if y.is_zero() || is_one(&x) {
        return F80::zero(sign);
    }
    if x.sig == 1 << 63 {
        return exact(Wide::from_int(x.exp) * y.into(), env);
    }
    inexact(log2(x.into()) * y.into(), env)
}

/// log2 of a positive number that is not a power of two.
fn log2(x: Wide) -> Wide {
    // sqrt(2) in the top bits: the mantissa is taken from [sqrt(1/2), sqrt(2)).
    const SQRT_2: u128 = 0xB504_F333 << 96;
    let exponent = x.exp + i32::from(x.sig >= SQRT_2);
    let mantissa = x.scaled(-exponent);
    let ratio = (mantissa - Wide::ONE) / (mantissa + Wide::ONE);
    ratio.log_of_ratio() * Wide::LOG2_E + Wide::from_int(exponent)
}

fn y_log2_x_plus_1(x: Unpacked, y: Unpacked, env: &mut Env) -> F80 {
    let below_minus_1 = x.sign && !x.is_zero() && (x.is_infinite() || x.exp >= 0);
    let invalid = below_minus_1 || x.is_zero() && y.is_infinite() || x.is_infinite() && y.is_zero();
    if invalid {
        return env.invalid::<F80>();
    }
    env.check_denormal(&[x, y]);
    let sign = x.sign ^ y.sign;
    if x.is_infinite() || y.is_infinite() {
        return F80::infinity(sign);
    }
    if x.is_zero() || y.is_zero() {
        return F80::zero(sign);
    }
    let wide = Wide::from(x);
    // The defined range is smaller: -(1 - sqrt(1/2)) to sqrt(2) - 1.
    let log = if x.exp < -2 {
        (wide / (wide + Wide::from_int(2))).log_of_ratio() * Wide::LOG2_E
    } else {
        log2(wide + Wide::ONE)
    };
    inexact(log * y.into(), env)
}

fn atan2(y: Unpacked, x: Unpacked, env: &mut Env) -> F80 {
    env.check_denormal(&[y, x]);
    let half_pi = Wide::PI.scaled(-1);
    let rotated = |angle: Wide| if x.sign { Wide::PI - angle } else { angle };
    let angle = match (y.class, x.class) {
        (Class::Infinity, Class::Infinity) => rotated(Wide::PI.scaled(-2)),
        (Class::Infinity, _) => half_pi,
        (Class::Zero, _) | (_, Class::Infinity) if x.sign => Wide::PI,
        (Class::Zero, _) | (_, Class::Infinity) => return F80::zero(y.sign),
        (_, Class::Zero) => half_pi,
        _ => {
            let (rise, run) = (Wide::from(y).abs(), Wide::from(x).abs());
            if run.is_smaller_than(rise) {
                rotated(half_pi - (run / rise).atan())
            } else {
                rotated((rise / run).atan())
            }
        }
    };
    inexact(angle.with_sign(y.sign), env)
}

fn trigonometric(op: Transcendental, x: Unpacked, st0: F80, env: &mut Env) -> Answer {
    let one = F80::pack(false, F80::EMAX as u32, 1 << 63);
    if x.is_infinite() {
        return Answer::one(env.invalid::<F80>());
    }
    if x.is_zero() {
        return match op {
            Transcendental::Sin => Answer::one(st0),
            Transcendental::Cos => Answer::one(one),
            _ => Answer { value: st0, pushed: one, out_of_range: false },
        };
    }
    if x.exp >= 63 {
        return Answer { value: st0, pushed: st0, out_of_range: true };
    }
    env.check_denormal(&[x]);
    let (sin, cos) = sin_cos(x);
    match op {
        Transcendental::Sin => Answer::one(inexact(sin, env)),
        Transcendental::Cos => Answer::one(inexact(cos, env)),
        Transcendental::Tan => {
            Answer { value: inexact(sin / cos, env), pushed: one, out_of_range: false }
        }
        _ => {
            let value = inexact(sin, env);
            Answer { value, pushed: inexact(cos, env), out_of_range: false }
        }
    }
}

/// Sine and cosine of a finite non-zero number below 2^63.
fn sin_cos(x: Unpacked) -> (Wide, Wide) {
    // pi/2 in units of 2^-65, from the 66-bit pi. In these units x is an integer of at most 128
    // bits, so the reduction is exact.
    const HALF_PI: u128 = 0x3_243F_6A88_85A3_08D3;
    let (quadrant, rest) = if x.exp < -1 {
        (0, Wide::from(x).abs())
    } else {
        let units = u128::from(x.sig) << (x.exp + 2);
        let (quotient, rest) = (units / HALF_PI, units % HALF_PI);
        if rest > HALF_PI / 2 {
            (quotient + 1, Wide::normalized(true, 62, HALF_PI - rest))
        } else {
            (quotient, Wide::normalized(false, 62, rest))
        }
    };
    let (s, c) = rest.sin_cos();
    let (sin, cos) = match quadrant & 3 {
        0 => (s, c),
        1 => (c, -s),
        2 => (-s, -c),
        _ => (-c, s),
    };
    (if x.sign { -sin } else { sin }, cos)
}
