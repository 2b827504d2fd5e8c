//! SSE floating point by integer arithmetic: exact on every host, and the only path where an
//! exception is unmasked.

use super::{ComFmt, Cvt, Fma, Fmt, Fp, Fp1, Fp2, IntCvt, Pred};
use crate::softfloat::{self as sf, Env, F16, F32, F64, Format, Integer, Relation, Rounding, flag};
use crate::vcpu::rflags::{CF, PF, ZF};

/// A format as lanes of a vector.
trait LaneFormat: Format {
    const BITS: u32;
    fn get(x: u128, i: u32) -> Self::Bits;
    fn widen(v: Self::Bits) -> u128;
    /// All ones or all zeros.
    fn mask(on: bool) -> Self::Bits;
}

impl LaneFormat for F32 {
    const BITS: u32 = 32;
    fn get(x: u128, i: u32) -> u32 {
        (x >> (32 * i)) as u32
    }
    fn widen(v: u32) -> u128 {
        v.into()
    }
    fn mask(on: bool) -> u32 {
        if on { u32::MAX } else { 0 }
    }
}

impl LaneFormat for F64 {
    const BITS: u32 = 64;
    fn get(x: u128, i: u32) -> u64 {
        (x >> (64 * i)) as u64
    }
    fn widen(v: u64) -> u128 {
        v.into()
    }
    fn mask(on: bool) -> u64 {
        if on { u64::MAX } else { 0 }
    }
}

impl LaneFormat for F16 {
    const BITS: u32 = 16;
    fn get(x: u128, i: u32) -> u16 {
        (x >> (16 * i)) as u16
    }
    fn widen(v: u16) -> u128 {
        v.into()
    }
    fn mask(on: bool) -> u16 {
        if on { u16::MAX } else { 0 }
    }
}

/// `x` with its low `bits` replaced.
fn merge(x: u128, bits: u32, low: u128) -> u128 {
    if bits == 128 { low } else { x >> bits << bits | low }
}

/// Computes `lanes` lanes; the rest comes from `upper`.
fn lanes<F: LaneFormat>(lanes: u32, upper: u128, mut f: impl FnMut(u32) -> F::Bits) -> u128 {
    let low = (0..lanes).fold(0, |r, i| r | F::widen(f(i)) << (F::BITS * i));
    merge(upper, F::BITS * lanes, low)
}

/// Runs an operation in the environment of `mxcsr`. If an exception that is found before the
/// computation is unmasked, no lane is computed, so that rounding raises nothing either
/// (SDM vol. 1, 11.5.2 and 11.5.3).
fn run<T>(mxcsr: u32, f: impl FnOnce(&mut Env) -> T) -> Fp<T> {
    let mut env = Env::from_mxcsr(mxcsr);
    let value = f(&mut env);
    let stopped = env.unmasked() & flag::PRE_COMPUTATION != 0;
    let flags = if stopped { env.flags & flag::PRE_COMPUTATION } else { env.flags };
    Fp { value, flags }
}

fn holds<F: Format>(pred: Pred, a: F::Bits, b: F::Bits, env: &mut Env) -> bool {
    use Relation::{Equal, Less, Unordered};
    let relation = match pred {
        Pred::Lt | Pred::Le | Pred::Nlt | Pred::Nle => sf::compare::<F>(a, b, env),
        Pred::Eq | Pred::Neq | Pred::Unord | Pred::Ord => sf::compare_quiet::<F>(a, b, env),
    };
    match pred {
        Pred::Eq => relation == Equal,
        Pred::Neq => relation != Equal,
        Pred::Lt => relation == Less,
        Pred::Nlt => relation != Less,
        Pred::Le => matches!(relation, Less | Equal),
        Pred::Nle => !matches!(relation, Less | Equal),
        Pred::Unord => relation == Unordered,
        Pred::Ord => relation != Unordered,
    }
}

/// The operand itself, a signed zero if it is denormal under DAZ.
fn operand<F: Format>(a: F::Bits, env: &Env) -> F::Bits {
    let x = F::unpack(a);
    if env.daz && x.class == sf::Class::Subnormal { F::zero(x.sign) } else { a }
}

fn lane2<F: LaneFormat>(op: Fp2, lane: u32, a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    let pick = |first: bool, env: &Env| operand::<F>(if first { a } else { b }, env);
    match op {
        Fp2::Add => sf::add::<F>(a, b, env),
        Fp2::AddSub if lane & 1 != 0 => sf::add::<F>(a, b, env),
        Fp2::Sub | Fp2::AddSub => sf::sub::<F>(a, b, env),
        Fp2::Mul => sf::mul::<F>(a, b, env),
        Fp2::Div => sf::div::<F>(a, b, env),
        Fp2::Min => pick(sf::compare::<F>(a, b, env) == Relation::Less, env),
        Fp2::Max => pick(sf::compare::<F>(a, b, env) == Relation::Greater, env),
        Fp2::Cmp(pred) => F::mask(holds::<F>(pred, a, b, env)),
    }
}

/// See [`super::VectorBackend::fp2`].
pub fn fp2(op: Fp2, fmt: Fmt, a: u128, b: u128, mxcsr: u32) -> Fp<u128> {
    fn on<F: LaneFormat>(op: Fp2, n: u32, a: u128, b: u128, env: &mut Env) -> u128 {
        lanes::<F>(n, a, |i| lane2::<F>(op, i, F::get(a, i), F::get(b, i), env))
    }
    run(mxcsr, |env| match fmt {
        Fmt::Ss => on::<F32>(op, 1, a, b, env),
        Fmt::Ps => on::<F32>(op, 4, a, b, env),
        Fmt::Sd => on::<F64>(op, 1, a, b, env),
        Fmt::Pd => on::<F64>(op, 2, a, b, env),
    })
}

/// See [`super::VectorBackend::fma`].
pub fn fma(op: Fma, fmt: Fmt, upper: u128, operands: [u128; 3], mxcsr: u32) -> Fp<u128> {
    fn on<F: LaneFormat>(op: Fma, n: u32, upper: u128, x: [u128; 3], env: &mut Env) -> u128 {
        lanes::<F>(n, upper, |i| {
            let [a, b, c] = x.map(|x| F::get(x, i));
            let (product, summand) = op.signs(i);
            sf::fma::<F>(negated::<F>(a, product), b, negated::<F>(c, summand), env)
        })
    }
    run(mxcsr, |env| match fmt {
        Fmt::Ss => on::<F32>(op, 1, upper, operands, env),
        Fmt::Ps => on::<F32>(op, 4, upper, operands, env),
        Fmt::Sd => on::<F64>(op, 1, upper, operands, env),
        Fmt::Pd => on::<F64>(op, 2, upper, operands, env),
    })
}

/// A number with its sign inverted if `on`; a NaN keeps its sign.
fn negated<F: Format>(x: F::Bits, on: bool) -> F::Bits {
    if on { F::negated(x) } else { x }
}

/// VCVTPH2PS and VCVTPS2PH leave denormal numbers of half precision as they are, whatever MXCSR says
/// (SDM vol. 1, 14.4.1).
fn to_half(how: u8, a: u128, env: &mut Env) -> u128 {
    if how & 4 == 0 {
        env.rounding = Rounding::from_rc(how.into());
    }
    env.ftz = false;
    lanes::<F16>(4, 0, |i| sf::convert::<F32, F16>(F32::get(a, i), env))
}

fn from_half(a: u128, env: &mut Env) -> u128 {
    let denormal = env.flags & flag::DENORMAL;
    env.daz = false;
    env.masks |= flag::DENORMAL;
    let v = lanes::<F32>(4, 0, |i| sf::convert::<F16, F32>(F16::get(a, i), env));
    env.flags = env.flags & !flag::DENORMAL | denormal;
    v
}

/// ROUNDPS's immediate: rounding control, "as MXCSR says", "do not report precision".
fn round<F: Format>(imm: u8, a: F::Bits, env: &mut Env) -> F::Bits {
    let rounding = if imm & 4 != 0 { env.rounding } else { Rounding::from_rc(imm.into()) };
    sf::round_to_int::<F>(a, rounding, imm & 8 == 0, env)
}

/// See [`super::VectorBackend::fp1`].
pub fn fp1(op: Fp1, fmt: Fmt, upper: u128, a: u128, mxcsr: u32) -> Fp<u128> {
    fn on<F: LaneFormat>(op: Fp1, n: u32, upper: u128, a: u128, env: &mut Env) -> u128 {
        lanes::<F>(n, upper, |i| match op {
            Fp1::Round(imm) => round::<F>(imm, F::get(a, i), env),
            _ => sf::sqrt::<F>(F::get(a, i), env),
        })
    }
    let singles = if fmt == Fmt::Ss { 1 } else { 4 };
    let estimate = |f: fn(u32) -> u32| Fp {
        value: lanes::<F32>(singles, upper, |i| f(F32::get(a, i))),
        flags: 0,
    };
    match op {
        Fp1::Rcp => estimate(rcp),
        Fp1::Rsqrt => estimate(rsqrt),
        Fp1::Sqrt | Fp1::Round(_) => run(mxcsr, |env| match fmt {
            Fmt::Ss | Fmt::Ps => on::<F32>(op, singles, upper, a, env),
            Fmt::Sd => on::<F64>(op, 1, upper, a, env),
            Fmt::Pd => on::<F64>(op, 2, upper, a, env),
        }),
    }
}

/// Denormals count and result as zeros in the estimates, whatever MXCSR says.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// A NaN operand, quieted, or the result.
fn estimate(a: f32, f: impl FnOnce(f32) -> f32) -> u32 {
    if a.is_nan() {
        return a.to_bits() | 1 << 22;
    }
    let r = f(flush(a));
    if r.is_nan() { F32::default_nan() } else { flush(r).to_bits() }
}

/// 1/a. RCPPS promises a relative error of 1.5 * 2^-12 at most; this one's is 2^-24.
fn rcp(a: u32) -> u32 {
    estimate(f32::from_bits(a), |a| 1.0 / a)
}

/// 1/sqrt(a), within RSQRTPS's 1.5 * 2^-12.
fn rsqrt(a: u32) -> u32 {
    estimate(f32::from_bits(a), |a| 1.0 / a.sqrt())
}

/// See [`super::VectorBackend::fp_compare`].
pub fn compare(fmt: ComFmt, quiet: bool, a: u128, b: u128, mxcsr: u32) -> Fp<u64> {
    fn on<F: LaneFormat>(quiet: bool, a: u128, b: u128, env: &mut Env) -> Relation {
        let (a, b) = (F::get(a, 0), F::get(b, 0));
        if quiet { sf::compare_quiet::<F>(a, b, env) } else { sf::compare::<F>(a, b, env) }
    }
    run(mxcsr, |env| {
        let relation = match fmt {
            ComFmt::Ss => on::<F32>(quiet, a, b, env),
            ComFmt::Sd => on::<F64>(quiet, a, b, env),
        };
        match relation {
            Relation::Less => CF,
            Relation::Equal => ZF,
            Relation::Greater => 0,
            Relation::Unordered => ZF | PF | CF,
        }
    })
}

/// Doubleword `i` as a signed integer.
fn int(x: u128, i: u32) -> i32 {
    (x >> (32 * i)) as i32
}

/// Lanes to doublewords.
fn to_dq<F: LaneFormat>(n: u32, a: u128, truncate: bool, env: &mut Env) -> u128 {
    (0..n).fold(0, |r, i| {
        r | u128::from(to_int::<F, i32>(F::get(a, i), truncate, env) as u32) << (32 * i)
    })
}

fn to_int<F: Format, I: Integer>(a: F::Bits, truncate: bool, env: &mut Env) -> I {
    let rounding = if truncate { Rounding::Zero } else { env.rounding };
    sf::to_int::<F, I>(a, rounding, env)
}

/// See [`super::VectorBackend::cvt`].
pub fn cvt(op: Cvt, upper: u128, a: u128, mxcsr: u32) -> Fp<u128> {
    run(mxcsr, |env| match op {
        Cvt::Dq2Ps => lanes::<F32>(4, 0, |i| sf::from_int::<F32>(int(a, i), env)),
        Cvt::Dq2Pd => lanes::<F64>(2, 0, |i| sf::from_int::<F64>(int(a, i), env)),
        Cvt::Ps2Dq => to_dq::<F32>(4, a, false, env),
        Cvt::TPs2Dq => to_dq::<F32>(4, a, true, env),
        Cvt::Pd2Dq => to_dq::<F64>(2, a, false, env),
        Cvt::TPd2Dq => to_dq::<F64>(2, a, true, env),
        Cvt::Ps2Pd => lanes::<F64>(2, 0, |i| sf::convert::<F32, F64>(F32::get(a, i), env)),
        Cvt::Pd2Ps => lanes::<F32>(2, 0, |i| sf::convert::<F64, F32>(F64::get(a, i), env)),
        Cvt::Ss2Sd => lanes::<F64>(1, upper, |i| sf::convert::<F32, F64>(F32::get(a, i), env)),
        Cvt::Ph2Ps => from_half(a, env),
        Cvt::Ps2Ph(how) => to_half(how, a, env),
        Cvt::Sd2Ss => lanes::<F32>(1, upper, |i| sf::convert::<F64, F32>(F64::get(a, i), env)),
    })
}

/// See [`super::VectorBackend::cvt_from_int`].
pub fn from_int(fmt: ComFmt, upper: u128, v: i64, mxcsr: u32) -> Fp<u128> {
    run(mxcsr, |env| match fmt {
        ComFmt::Ss => lanes::<F32>(1, upper, |_| sf::from_int::<F32>(v, env)),
        ComFmt::Sd => lanes::<F64>(1, upper, |_| sf::from_int::<F64>(v, env)),
    })
}

/// See [`super::VectorBackend::cvt_to_int`].
pub fn scalar_to_int(op: IntCvt, a: u128, mxcsr: u32) -> Fp<u64> {
    fn on<F: LaneFormat>(op: IntCvt, a: u128, env: &mut Env) -> u64 {
        let a = F::get(a, 0);
        if op.wide {
            to_int::<F, i64>(a, op.truncate, env) as u64
        } else {
            u64::from(to_int::<F, i32>(a, op.truncate, env) as u32)
        }
    }
    run(mxcsr, |env| match op.from {
        ComFmt::Ss => on::<F32>(op, a, env),
        ComFmt::Sd => on::<F64>(op, a, env),
    })
}
