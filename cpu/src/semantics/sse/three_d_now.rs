//! 3DNow! (AMD 21928, 3DNow! Technology Manual) and its extensions (AMD 22466): two single-precision
//! numbers in an MMX register.
//!
//! The format has neither denormals nor infinities nor NaNs, and no exceptions (APM vol. 1, 5.5.6):
//! denormal operands are zeros, results that are too small become zero, too large ones the largest
//! number. All operations round to nearest, conversions to zero. Operands with an exponent of all ones
//! are not supported, and their results undefined.
//!
//! PFRCP and PFRSQRT promise 14 and 15 bits. Which further bits a processor gives is nowhere
//! documented: here they are exact, and the steps of the iteration compute what the manual's formulas
//! say.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::{Memory, Mm, begin, get, load, set};
use crate::backend::Handler;
use crate::core::{Core, Exit};
use crate::insn::Insn;
use crate::select::complex;
use crate::vector::VectorBackend;

/// An instruction: the new value of the destination, from its old value and the source.
trait Operation {
    fn eval(d: u64, s: u64) -> u64;
}

fn operation<O: Operation, const MEM: bool>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    begin::<Core, Mm>(core)?;
    let s = if MEM { load(core, i, Memory::M8)? } else { get::<Core, Mm>(core, i.reg[1]) };
    let d = get::<Core, Mm>(core, i.reg[0]);
    set::<Core, Mm>(core, i.reg[0], O::eval(d as u64, s as u64).into());
    Ok(())
}

macro_rules! operations {
    ($($name:ident = |$d:ident, $s:ident| $body:expr;)*) => {
        $(
            enum $name {}

            impl Operation for $name {
                fn eval($d: u64, $s: u64) -> u64 {
                    $body
                }
            }
        )*

        /// The handler of a 3DNow! instruction.
        pub fn select<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
            let mem = i.op1_kind() == OpKind::Memory;
            Some(match i.mnemonic() {
                $(
                    Mnemonic::$name if mem => complex!(operation::<$name, true>),
                    Mnemonic::$name => complex!(operation::<$name, false>),
                )*
                _ => return None,
            })
        }
    };
}

operations! {
    Pavgusb = |d, s| bytes(d, s, |a, b| (u16::from(a) + u16::from(b)).div_ceil(2) as u8);
    Pmulhrw = |d, s| words(d, s, |a, b| ((i32::from(a) * i32::from(b) + 0x8000) >> 16) as i16);
    Pfadd = |d, s| numbers(d, s, add);
    Pfsub = |d, s| numbers(d, s, |a, b| add(a, -b));
    Pfsubr = |d, s| numbers(d, s, |a, b| add(b, -a));
    Pfmul = |d, s| numbers(d, s, |a, b| number(f64::from(a) * f64::from(b)));
    Pfmax = |d, s| numbers(d, s, |a, b| if a > b { positive_zero(a) } else { positive_zero(b) });
    Pfmin = |d, s| numbers(d, s, |a, b| if a < b { positive_zero(a) } else { positive_zero(b) });
    Pfcmpeq = |d, s| masks(d, s, |a, b| a == b);
    Pfcmpge = |d, s| masks(d, s, |a, b| a >= b);
    Pfcmpgt = |d, s| masks(d, s, |a, b| a > b);
    Pfacc = |d, s| across(d, s, [add, add]);
    Pfnacc = |d, s| across(d, s, [subtract, subtract]);
    Pfpnacc = |d, s| across(d, s, [subtract, add]);
    Pf2id = |_d, s| each(s, |x| read(x) as i32 as u32);
    Pf2iw = |_d, s| each(s, |x| i32::from(read(x) as i16) as u32);
    Pi2fd = |_d, s| each(s, |x| truncated(x as i32).to_bits());
    Pi2fw = |_d, s| each(s, |x| f32::from(x as i16).to_bits());
    Pfrcp = |_d, s| twice(s, f64::recip);
    Pfrsqrt = |_d, s| twice(s, |x| x.abs().sqrt().recip().copysign(x));
    Pfrcpit1 = |d, s| numbers(d, s, |a, b| number(2.0 - f64::from(a) * f64::from(b)));
    Pfrsqit1 = |d, s| numbers(d, s, |a, b| number((3.0 - f64::from(a) * f64::from(b)) / 2.0));
    Pfrcpit2 = |d, s| numbers(d, s, |a, b| number(f64::from(a) * f64::from(b)));
    Pswapd = |_d, s| s.rotate_left(32);
}

/// An operand: denormals are zeros.
fn read(bits: u32) -> f32 {
    let x = f32::from_bits(bits);
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

/// A result, rounded to nearest. An `f64` has enough bits that to round twice is to round once.
fn number(x: f64) -> f32 {
    let rounded = x as f32;
    if rounded.is_subnormal() {
        0.0_f32.copysign(rounded)
    } else if rounded.is_finite() {
        rounded
    } else {
        f32::MAX.copysign(rounded)
    }
}

/// A sum. Where it is too small it has the sign of the larger operand, and that of the first if
/// neither is larger (21928, table of PFADD's range).
fn add(a: f32, b: f32) -> f32 {
    let sum = number(f64::from(a) + f64::from(b));
    let both_zero = a == 0.0 && b == 0.0;
    if sum != 0.0 || both_zero {
        return sum;
    }
    sum.copysign(if b.abs() > a.abs() { b } else { a })
}

fn subtract(a: f32, b: f32) -> f32 {
    add(a, -b)
}

/// PFMAX and PFMIN give zeros without a sign (21928, their tables of ranges).
fn positive_zero(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x }
}

/// An integer as a number, rounded towards zero (21928, PI2FD).
fn truncated(x: i32) -> f32 {
    const PRECISION: u32 = 24;
    let magnitude = x.unsigned_abs();
    let beyond = (u32::BITS - magnitude.leading_zeros()).saturating_sub(PRECISION);
    let kept = (magnitude >> beyond << beyond) as f32;
    if x < 0 { -kept } else { kept }
}

fn halves(v: u64) -> [u32; 2] {
    [v as u32, (v >> 32) as u32]
}

fn joined([low, high]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn each(s: u64, f: impl Fn(u32) -> u32) -> u64 {
    joined(halves(s).map(f))
}

fn numbers(d: u64, s: u64, f: impl Fn(f32, f32) -> f32) -> u64 {
    let (d, s) = (halves(d).map(read), halves(s).map(read));
    joined([0, 1].map(|n: usize| f(d[n], s[n]).to_bits()))
}

fn masks(d: u64, s: u64, f: impl Fn(f32, f32) -> bool) -> u64 {
    let (d, s) = (halves(d).map(read), halves(s).map(read));
    joined([0, 1].map(|n: usize| if f(d[n], s[n]) { u32::MAX } else { 0 }))
}

/// Within the destination to the lower half, within the source to the upper half.
fn across(d: u64, s: u64, f: [fn(f32, f32) -> f32; 2]) -> u64 {
    let [low, high] = [d, s].map(|v| halves(v).map(read));
    joined([f[0](low[0], low[1]).to_bits(), f[1](high[0], high[1]).to_bits()])
}

/// A function of the lower half, to both.
fn twice(s: u64, f: impl Fn(f64) -> f64) -> u64 {
    let r = number(f(read(s as u32).into())).to_bits();
    joined([r, r])
}

fn bytes(d: u64, s: u64, f: impl Fn(u8, u8) -> u8) -> u64 {
    let (d, s) = (d.to_le_bytes(), s.to_le_bytes());
    u64::from_le_bytes(std::array::from_fn(|n| f(d[n], s[n])))
}

fn words(d: u64, s: u64, f: impl Fn(i16, i16) -> i16) -> u64 {
    let word = |v: u64, n: u32| (v >> (16 * n)) as i16;
    (0..4).fold(0, |v, n| v | u64::from(f(word(d, n), word(s, n)) as u16) << (16 * n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(low: f32, high: f32) -> u64 {
        joined([low.to_bits(), high.to_bits()])
    }

    #[track_caller]
    fn check<O: Operation>(d: [f32; 2], s: [f32; 2], expected: [f32; 2]) {
        let got = O::eval(pair(d[0], d[1]), pair(s[0], s[1]));
        assert_eq!(got, pair(expected[0], expected[1]), "{:?}", halves(got).map(f32::from_bits));
    }

    /// Just normal, and half of it, which is not.
    const LEAST: f32 = f32::MIN_POSITIVE;
    const DENORMAL: f32 = f32::MIN_POSITIVE / 2.0;
    const MOST: f32 = f32::MAX;

    /// 21928, the tables of ranges of PFADD, PFSUB and PFSUBR.
    #[test]
    fn sums() {
        check::<Pfadd>([1.0, -2.5], [0.5, 0.25], [1.5, -2.25]);
        check::<Pfadd>([0.0, -0.0], [-0.0, -0.0], [0.0, -0.0]);
        check::<Pfadd>([MOST, -MOST], [MOST, -MOST], [MOST, -MOST]);
        check::<Pfadd>([1.5 * LEAST, -LEAST], [-LEAST, 1.5 * LEAST], [0.0, 0.0]);
        check::<Pfadd>([-3.0, 3.0], [3.0, -3.0], [-0.0, 0.0]);
        check::<Pfadd>([DENORMAL, -DENORMAL], [1.0, -0.0], [1.0, -0.0]);
        check::<Pfsub>([0.0, -0.0], [0.0, 0.0], [0.0, -0.0]);
        check::<Pfsub>([5.0, 0.0], [7.0, 7.0], [-2.0, -7.0]);
        check::<Pfsubr>([5.0, 0.0], [7.0, 7.0], [2.0, 7.0]);
        // To nearest, an even one if two are: 2^24 + 1 and + 3.
        check::<Pfadd>([16_777_216.0; 2], [1.0, 3.0], [16_777_216.0, 16_777_220.0]);
    }

    /// 21928, PFACC; 22466, PFNACC, PFPNACC and PSWAPD.
    #[test]
    fn sums_across() {
        check::<Pfacc>([1.0, 2.0], [10.0, 20.0], [3.0, 30.0]);
        check::<Pfnacc>([1.0, 2.0], [10.0, 20.0], [-1.0, -10.0]);
        check::<Pfpnacc>([1.0, 2.0], [10.0, 20.0], [-1.0, 30.0]);
        check::<Pswapd>([1.0, 2.0], [10.0, 20.0], [20.0, 10.0]);
    }

    /// 21928, PFMUL, PFMAX and PFMIN.
    #[test]
    fn products_and_extremes() {
        check::<Pfmul>([3.0, -0.0], [-0.5, 2.0], [-1.5, -0.0]);
        check::<Pfmul>([MOST, LEAST], [-2.0, -0.5], [-MOST, -0.0]);
        check::<Pfmul>([DENORMAL, 1.0], [MOST, -DENORMAL], [0.0, -0.0]);
        check::<Pfmax>([-1.0, -0.0], [-0.0, -0.0], [0.0, 0.0]);
        check::<Pfmax>([-1.0, 2.0], [-3.0, 4.0], [-1.0, 4.0]);
        check::<Pfmin>([1.0, -2.0], [-0.0, 4.0], [0.0, -2.0]);
    }

    /// 21928, PFCMPEQ, PFCMPGE, PFCMPGT: zeros are equal whatever their signs.
    #[test]
    fn comparisons() {
        let operands = [pair(0.0, 1.0), pair(-0.0, 2.0)];
        let run = |f: fn(u64, u64) -> u64| f(operands[0], operands[1]);
        assert_eq!(run(Pfcmpeq::eval), 0x0000_0000_ffff_ffff);
        assert_eq!(run(Pfcmpge::eval), 0x0000_0000_ffff_ffff);
        assert_eq!(run(Pfcmpgt::eval), 0);
        assert_eq!(Pfcmpgt::eval(operands[1], operands[0]), 0xffff_ffff_0000_0000);
    }

    /// 21928, PF2ID and PI2FD; 22466, PF2IW and PI2FW: towards zero, and saturated.
    #[test]
    fn conversions() {
        let integers = |s: [f32; 2]| halves(Pf2id::eval(0, pair(s[0], s[1]))).map(|x| x as i32);
        assert_eq!(integers([-1.9, 0.9]), [-1, 0]);
        assert_eq!(integers([3e9, -3e9]), [i32::MAX, i32::MIN]);
        let shorts = |s: [f32; 2]| halves(Pf2iw::eval(0, pair(s[0], s[1]))).map(|x| x as i32);
        assert_eq!(shorts([-1.9, 40_000.0]), [-1, 0x7fff]);
        assert_eq!(shorts([-32_768.0, -40_000.0]), [-0x8000, -0x8000]);
        let from = |a: i32, b: i32| Pi2fd::eval(0, joined([a as u32, b as u32]));
        assert_eq!(from(0x7fff_ffff, -0x0100_0003), pair(2_147_483_520.0, -16_777_218.0));
        assert_eq!(from(0, i32::MIN), pair(0.0, -2_147_483_648.0));
        assert_eq!(Pi2fw::eval(0, 0x1234_ffff_5678_8000), pair(-32_768.0, -1.0));
    }

    /// 21928, PFRCP and PFRSQRT: both halves, and the largest number for zero.
    #[test]
    fn reciprocals() {
        check::<Pfrcp>([0.0; 2], [-4.0, 9.0], [-0.25; 2]);
        check::<Pfrcp>([0.0; 2], [-0.0, 9.0], [-MOST; 2]);
        check::<Pfrcp>([0.0; 2], [MOST, 9.0], [0.0; 2]);
        check::<Pfrsqrt>([0.0; 2], [16.0, 9.0], [0.25; 2]);
        check::<Pfrsqrt>([0.0; 2], [-16.0, 9.0], [-0.25; 2]);
        check::<Pfrsqrt>([0.0; 2], [0.0, 9.0], [MOST; 2]);
    }

    /// The manual's sequences for 1/b and 1/sqrt(b), which end within a unit in the last place.
    #[test]
    fn iterations_converge() {
        let ulps = |got: u64, expected: f64| {
            i64::from(got as u32) - i64::from((expected as f32).to_bits())
        };
        for b in [1.0f32, 3.0, 7.5, 1e-20, 12_345.678, 3e38 / 4.0] {
            let operand = pair(b, b);
            let x0 = Pfrcp::eval(0, operand);
            let reciprocal = Pfrcpit2::eval(Pfrcpit1::eval(operand, x0), x0);
            assert!(ulps(reciprocal, f64::from(b).recip()).abs() <= 1, "1/{b}");
            let x0 = Pfrsqrt::eval(0, operand);
            let step = Pfrsqit1::eval(Pfmul::eval(x0, x0), operand);
            let root = Pfrcpit2::eval(step, x0);
            assert!(ulps(root, f64::from(b).sqrt().recip()).abs() <= 1, "1/sqrt({b})");
        }
    }

    /// 21928, PAVGUSB and PMULHRW.
    #[test]
    fn integers() {
        assert_eq!(
            Pavgusb::eval(0x0001_02ff_ff00_8001, 0x0000_01ff_0001_8002),
            0x0001_02ff_8001_8002
        );
        assert_eq!(
            Pmulhrw::eval(0x7fff_8000_0100_ffff, 0x7fff_8000_0080_0001),
            0x3fff_4000_0001_0000
        );
    }
}
