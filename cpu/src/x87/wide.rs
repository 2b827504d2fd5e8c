//! A 128-bit floating-point number for the portable transcendental functions: some 120 good bits,
//! so that one rounding to 64 at the end is right but for rare ties.

use super::transfer::{LN_2, LOG2_E, PI};
use crate::softfloat::{Exact, Unpacked};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// `sig * 2^(exp - 127)`; bit 127 of `sig` set, or all of it zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide {
    pub(super) sign: bool,
    pub(super) exp: i32,
    pub(super) sig: u128,
}

impl From<Unpacked> for Wide {
    fn from(x: Unpacked) -> Self {
        Self { sign: x.sign, exp: x.exp, sig: u128::from(x.sig) << 64 }
    }
}

impl From<Wide> for Exact {
    fn from(x: Wide) -> Self {
        Self { sign: x.sign, exp: x.exp, sig: x.sig }
    }
}

impl Wide {
    pub(super) const ZERO: Self = Self { sign: false, exp: 0, sig: 0 };
    pub(super) const ONE: Self = Self::constant(0, 1 << 127);
    pub(super) const LN_2: Self = Self::constant(-1, LN_2);
    pub(super) const LOG2_E: Self = Self::constant(0, LOG2_E);
    pub(super) const PI: Self = Self::constant(1, PI);

    pub(super) const fn constant(exp: i32, sig: u128) -> Self {
        Self { sign: false, exp, sig }
    }

    /// From an unnormalized significand.
    pub(super) fn normalized(sign: bool, exp: i32, sig: u128) -> Self {
        if sig == 0 {
            return Self::ZERO;
        }
        let shift = sig.leading_zeros();
        Self { sign, exp: exp - shift as i32, sig: sig << shift }
    }

    pub(super) fn from_int(value: i32) -> Self {
        Self::normalized(value < 0, 127, value.unsigned_abs().into())
    }

    pub(super) fn abs(self) -> Self {
        Self { sign: false, ..self }
    }

    /// `self * 2^by`.
    pub(super) fn scaled(self, by: i32) -> Self {
        Self { exp: self.exp + by, ..self }
    }

    pub(super) fn with_sign(self, sign: bool) -> Self {
        Self { sign, ..self }
    }

    /// Compares magnitudes.
    pub(super) fn is_smaller_than(self, other: Self) -> bool {
        other.sig != 0 && (self.sig == 0 || (self.exp, self.sig) < (other.exp, other.sig))
    }

    fn divided_by_int(self, divisor: u32) -> Self {
        Self::normalized(self.sign, self.exp, self.sig / u128::from(divisor))
    }

    /// Sums `first + first * r0 + first * r0 * r1 + ...` for `ratio(n)` = r n, until a term no
    /// longer counts.
    fn series(first: Self, ratio: impl Fn(u32) -> Self) -> Self {
        let (mut sum, mut term) = (first, first);
        for n in 0.. {
            term = term * ratio(n);
            sum = sum + term;
            if term.sig == 0 || term.exp < sum.exp - 128 {
                break;
            }
        }
        sum
    }

    /// `sum of (±1)^n x^(2n+1) / (2n+1)`: the inverse hyperbolic tangent, or with `alternating`
    /// the inverse tangent, for small x.
    fn odd_reciprocal_series(self, alternating: bool) -> Self {
        let square = (self * self).with_sign(alternating);
        let (mut sum, mut power) = (self, self);
        for n in 1.. {
            power = power * square;
            sum = sum + power.divided_by_int(2 * n + 1);
            if power.sig == 0 || power.exp < sum.exp - 128 {
                break;
            }
        }
        sum
    }

    /// e^x - 1 for |x| below 1.
    pub(super) fn exp_m1(self) -> Self {
        Self::series(self, |n| self.divided_by_int(n + 2))
    }

    /// Sine and cosine for |x| up to pi/4.
    pub(super) fn sin_cos(self) -> (Self, Self) {
        let square = -(self * self);
        let sin = Self::series(self, |n| square.divided_by_int((2 * n + 2) * (2 * n + 3)));
        let cos = Self::series(Self::ONE, |n| square.divided_by_int((2 * n + 1) * (2 * n + 2)));
        (sin, cos)
    }

    /// ln((1 + t) / (1 - t)) for |t| below 0.2.
    pub(super) fn log_of_ratio(self) -> Self {
        self.odd_reciprocal_series(false).scaled(1)
    }

    /// The inverse tangent for 0 <= x <= 1.
    pub(super) fn atan(self) -> Self {
        // atan(x) = atan(c) + atan((x - c) / (1 + x c)) with c the nearest multiple of 1/8.
        let sixteenths = if self.exp < -4 { 0 } else { (self.sig >> (123 - self.exp)) as i32 };
        let eighths = (sixteenths + 1) / 2;
        let Some(&base) = usize::try_from(eighths - 1).ok().and_then(|k| ATAN_EIGHTHS.get(k))
        else {
            return self.odd_reciprocal_series(true);
        };
        let c = Self::from_int(eighths).scaled(-3);
        base + ((self - c) / (Self::ONE + self * c)).odd_reciprocal_series(true)
    }
}

/// atan(1/8) to atan(8/8).
const ATAN_EIGHTHS: [Wide; 8] = [
    Wide::constant(-4, 0xFEAD_D4D5_617B_6E32_C897_989F_3E88_8EF7),
    Wide::constant(-3, 0xFADB_AFC9_6406_EB15_6DC7_9EF5_F7A2_17E5),
    Wide::constant(-2, 0xB7B0_CA0F_26F7_8473_8AA3_2122_DCFE_4483),
    Wide::constant(-2, 0xED63_382B_0DDA_7B45_6FE4_45EC_BC3A_8D03),
    Wide::constant(-1, 0x8F00_5D5E_F7F5_9F9B_5C83_5E16_65C4_3747),
    Wide::constant(-1, 0xA4BC_7D19_34F7_0924_19A8_7F2A_457D_AC9E),
    Wide::constant(-1, 0xB805_3E2B_C231_9E73_CB2D_A552_10A4_443D),
    Wide::constant(-1, 0xC90F_DAA2_2168_C234_C4C6_628B_80DC_1CD1),
];

impl Neg for Wide {
    type Output = Self;
    fn neg(self) -> Self {
        Self { sign: !self.sign, ..self }
    }
}

impl Add for Wide {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let (big, small) = if self.is_smaller_than(other) { (other, self) } else { (self, other) };
        if small.sig == 0 {
            return big;
        }
        // What is lost counts as a one in the last place, so that x - tiny is below x.
        let shift = (big.exp - small.exp) as u32;
        let aligned = small.sig.checked_shr(shift).unwrap_or(0).max(1);
        if big.sign != small.sign {
            return Self::normalized(big.sign, big.exp, big.sig - aligned);
        }
        match big.sig.checked_add(aligned) {
            Some(sig) => Self { sig, ..big },
            None => {
                let sig = big.sig.wrapping_add(aligned) >> 1 | 1 << 127;
                Self { sig, exp: big.exp + 1, ..big }
            }
        }
    }
}

impl Sub for Wide {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Wide {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let sign = self.sign ^ other.sign;
        let sig = high_product(self.sig, other.sig);
        Self::normalized(sign, self.exp + other.exp + 1, sig)
    }
}

/// The upper half of a 256-bit product.
fn high_product(a: u128, b: u128) -> u128 {
    let low = |x: u128| x & u128::from(u64::MAX);
    let high = |x: u128| x >> 64;
    let cross = high(a) * low(b);
    let other_cross = low(a) * high(b);
    let middle = high(low(a) * low(b)) + low(cross) + low(other_cross);
    high(a) * high(b) + high(cross) + high(other_cross) + high(middle)
}

impl Div for Wide {
    type Output = Self;
    /// The divisor must not be zero.
    fn div(self, other: Self) -> Self {
        let (mut rest, mut quotient) = (self.sig >> 1, 0_u128);
        let divisor = other.sig >> 1;
        for _ in 0..128 {
            let fits = rest >= divisor;
            quotient = quotient << 1 | u128::from(fits);
            rest = (if fits { rest - divisor } else { rest }) << 1;
        }
        Self::normalized(self.sign ^ other.sign, self.exp - other.exp, quotient)
    }
}
