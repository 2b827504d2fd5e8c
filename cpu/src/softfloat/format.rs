//! The three formats: taking encodings apart and putting them together.

use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// The integer bit of a left-aligned significand.
pub(super) const INTEGER_BIT: u64 = 1 << 63;
/// The bit that makes a NaN quiet, in a left-aligned significand.
const QUIET_BIT: u64 = 1 << 62;

/// What kind of datum an encoding is; those that are numbers or infinities come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Plus or minus zero.
    Zero,
    /// A denormal number, or an x87 pseudo-denormal.
    Subnormal,
    /// A normal number.
    Normal,
    /// An infinity.
    Infinity,
    /// A quiet NaN.
    QuietNan,
    /// A signaling NaN.
    SignalingNan,
    /// An x87 encoding that no operation accepts: unnormal, pseudo-infinity, pseudo-NaN
    /// (SDM vol 1, 8.2.2).
    Unsupported,
}

/// An encoding taken apart. A finite non-zero value is `sig * 2^(exp - 63)` with bit 63 of `sig`
/// set. For a NaN, `sig` holds the significand left-aligned, the quiet bit at bit 62.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The kind of datum.
    pub class: Class,
    /// True if negative.
    pub sign: bool,
    /// The unbiased exponent.
    pub exp: i32,
    /// The significand.
    pub sig: u64,
}

impl Unpacked {
    /// Whether this is a quiet or signaling NaN.
    pub fn is_nan(&self) -> bool {
        matches!(self.class, Class::QuietNan | Class::SignalingNan)
    }

    /// Whether this is plus or minus zero.
    pub fn is_zero(&self) -> bool {
        self.class == Class::Zero
    }

    /// Whether this is an infinity.
    pub fn is_infinite(&self) -> bool {
        self.class == Class::Infinity
    }
}

/// A floating-point format.
pub trait Format {
    /// The encoding.
    type Bits: Copy + Eq + Debug;
    /// Significand bits, the integer bit included.
    const PRECISION: u32;
    /// The largest exponent of a finite number, which is also the bias.
    const EMAX: i32;
    /// The exponent of the smallest normal number.
    const EMIN: i32 = 1 - Self::EMAX;
    /// The biased exponent of infinities and NaNs.
    const SPECIAL: u32 = 2 * Self::EMAX as u32 + 1;
    /// What unmasked overflow and underflow subtract from or add to the exponent of the result
    /// where they deliver one (SDM vol 1, 4.9.1.4); only the x87 does.
    const BIAS_ADJUST: Option<i32> = None;

    /// Takes an encoding apart.
    fn unpack(bits: Self::Bits) -> Unpacked;
    /// Puts an encoding together from a biased exponent and a left-aligned significand.
    fn pack(sign: bool, biased: u32, sig: u64) -> Self::Bits;

    /// A signed zero.
    fn zero(sign: bool) -> Self::Bits {
        Self::pack(sign, 0, 0)
    }
    /// A signed infinity.
    fn infinity(sign: bool) -> Self::Bits {
        Self::pack(sign, Self::SPECIAL, INTEGER_BIT)
    }
    /// A quiet NaN with the payload of a left-aligned significand.
    fn nan(sign: bool, sig: u64) -> Self::Bits {
        Self::pack(sign, Self::SPECIAL, sig | INTEGER_BIT | QUIET_BIT)
    }
    /// The negative of a number; a NaN as it is.
    fn negated(bits: Self::Bits) -> Self::Bits;
    /// The NaN of an invalid operation: negative, quiet, no payload.
    fn default_nan() -> Self::Bits {
        Self::nan(true, 0)
    }
}

/// binary16, as raw bits.
#[derive(Clone, Copy, Debug)]
pub enum F16 {}

/// binary32, as raw bits.
#[derive(Clone, Copy, Debug)]
pub enum F32 {}

/// binary64, as raw bits.
#[derive(Clone, Copy, Debug)]
pub enum F64 {}

/// The x87 double extended format: the format and its encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct F80 {
    /// The significand with its explicit integer bit.
    pub sig: u64,
    /// Sign (bit 15) and biased exponent.
    pub se: u16,
}

impl F80 {
    /// From sign-and-exponent and significand, as they are written in hexadecimal.
    pub const fn new(se: u16, sig: u64) -> Self {
        Self { sig, se }
    }

    /// From the ten bytes that FLD m80 reads.
    pub fn from_le_bytes(bytes: [u8; 10]) -> Self {
        let [s0, s1, s2, s3, s4, s5, s6, s7, e0, e1] = bytes;
        Self {
            sig: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            se: u16::from_le_bytes([e0, e1]),
        }
    }

    /// The ten bytes that FSTP m80 writes.
    pub fn to_le_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.sig.to_le_bytes());
        bytes[8..].copy_from_slice(&self.se.to_le_bytes());
        bytes
    }

    /// True if the sign bit is set.
    pub fn sign(self) -> bool {
        self.se & 0x8000 != 0
    }

    /// The class of this encoding.
    pub fn class(self) -> Class {
        Self::unpack(self).class
    }
}

/// Unpacks an IEEE interchange format with a hidden integer bit.
fn unpack_interchange<F: Format>(sign: bool, biased: u32, fraction: u64) -> Unpacked {
    let sig = fraction << (64 - F::PRECISION);
    let (class, exp, sig) = match biased {
        0 if fraction == 0 => (Class::Zero, 0, 0),
        0 => unpack_subnormal(F::EMIN, sig),
        b if b == F::SPECIAL => unpack_special(sig | INTEGER_BIT),
        b => (Class::Normal, b as i32 - F::EMAX, sig | INTEGER_BIT),
    };
    Unpacked { class, sign, exp, sig }
}

fn unpack_subnormal(emin: i32, sig: u64) -> (Class, i32, u64) {
    let shift = sig.leading_zeros();
    (Class::Subnormal, emin - shift as i32, sig << shift)
}

fn unpack_special(sig: u64) -> (Class, i32, u64) {
    let class = if sig == INTEGER_BIT {
        Class::Infinity
    } else if sig & QUIET_BIT != 0 {
        Class::QuietNan
    } else {
        Class::SignalingNan
    };
    (class, 0, sig)
}

/// [`Format::negated`] of the interchange formats, whose top bit is the sign.
macro_rules! negated {
    () => {
        fn negated(bits: Self::Bits) -> Self::Bits {
            let sign = !(Self::Bits::MAX >> 1);
            if Self::unpack(bits).is_nan() { bits } else { bits ^ sign }
        }
    };
}

impl Format for F16 {
    type Bits = u16;
    const PRECISION: u32 = 11;
    const EMAX: i32 = 15;

    fn unpack(bits: u16) -> Unpacked {
        let biased = u32::from(bits >> 10 & 0x1F);
        unpack_interchange::<Self>(bits >> 15 != 0, biased, u64::from(bits & 0x3FF))
    }

    fn pack(sign: bool, biased: u32, sig: u64) -> u16 {
        u16::from(sign) << 15 | (biased as u16) << 10 | ((sig & !INTEGER_BIT) >> 53) as u16
    }

    negated!();
}

impl Format for F32 {
    type Bits = u32;
    const PRECISION: u32 = 24;
    const EMAX: i32 = 127;

    fn unpack(bits: u32) -> Unpacked {
        let fraction = u64::from(bits & 0x7F_FFFF);
        unpack_interchange::<Self>(bits >> 31 != 0, bits >> 23 & 0xFF, fraction)
    }

    fn pack(sign: bool, biased: u32, sig: u64) -> u32 {
        u32::from(sign) << 31 | biased << 23 | ((sig & !INTEGER_BIT) >> 40) as u32
    }

    negated!();
}

impl Format for F64 {
    type Bits = u64;
    const PRECISION: u32 = 53;
    const EMAX: i32 = 1023;

    fn unpack(bits: u64) -> Unpacked {
        let fraction = bits & 0xF_FFFF_FFFF_FFFF;
        unpack_interchange::<Self>(bits >> 63 != 0, (bits >> 52) as u32 & 0x7FF, fraction)
    }

    fn pack(sign: bool, biased: u32, sig: u64) -> u64 {
        u64::from(sign) << 63 | u64::from(biased) << 52 | (sig & !INTEGER_BIT) >> 11
    }

    negated!();
}

impl Format for F80 {
    type Bits = Self;
    const PRECISION: u32 = 64;
    const EMAX: i32 = 16383;
    const BIAS_ADJUST: Option<i32> = Some(24576);

    #[inline]
    fn unpack(bits: Self) -> Unpacked {
        let biased = u32::from(bits.se & 0x7FFF);
        let (class, exp, sig) = match (biased, bits.sig & INTEGER_BIT != 0) {
            (0, _) if bits.sig == 0 => (Class::Zero, 0, 0),
            // A pseudo-denormal (integer bit set) needs no shift: its exponent is EMIN.
            (0, _) => unpack_subnormal(Self::EMIN, bits.sig),
            (_, false) => (Class::Unsupported, 0, bits.sig),
            (Self::SPECIAL, true) => unpack_special(bits.sig),
            (_, true) => (Class::Normal, biased as i32 - Self::EMAX, bits.sig),
        };
        Unpacked { class, sign: bits.sign(), exp, sig }
    }

    fn pack(sign: bool, biased: u32, sig: u64) -> Self {
        Self { sig, se: u16::from(sign) << 15 | biased as u16 }
    }

    fn negated(bits: Self) -> Self {
        if Self::unpack(bits).is_nan() { bits } else { Self { se: bits.se ^ 0x8000, ..bits } }
    }
}
