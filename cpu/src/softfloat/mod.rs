//! IEEE 754 arithmetic as x86 does it, in portable integer code: binary32 and binary64 for SSE,
//! and the 80-bit extended format of the x87 with its odd encodings.
//!
//! Every operation unpacks its operands, computes the exact result (kept in 128 bits, what falls
//! off the end jammed into the lowest one), and rounds once. What varies between the users is in
//! [`Env`]: rounding, precision control, DAZ and FTZ, exception masks, and whose rule chooses
//! among NaN operands. Exception flags accumulate in [`Env::flags`].

mod arith;
mod compare;
mod convert;
mod format;
mod remainder;
mod round;

pub use arith::{add, div, fma, mul, sqrt, sub};
pub(crate) use arith::{add_unpacked, div_unpacked, mul_unpacked, sub_unpacked};
pub(crate) use compare::compare_unpacked;
pub use compare::{Relation, compare, compare_quiet};
pub(crate) use convert::convert_unpacked;
pub use convert::{Integer, convert, from_int, round_to_int, to_int};
pub use format::{Class, F16, F32, F64, F80, Format, Unpacked};
pub use remainder::{Remainder, RemainderKind, extract, remainder, scale};
pub(crate) use round::{Exact, round_pack};

/// Exception flags, in the bit order that MXCSR and the x87 status word share.
pub mod flag {
    /// Invalid operation.
    pub const INVALID: u8 = 0x01;
    /// Denormal operand.
    pub const DENORMAL: u8 = 0x02;
    /// Division by zero.
    pub const DIV_ZERO: u8 = 0x04;
    /// Overflow.
    pub const OVERFLOW: u8 = 0x08;
    /// Underflow.
    pub const UNDERFLOW: u8 = 0x10;
    /// Precision (inexact result).
    pub const INEXACT: u8 = 0x20;
    /// All six.
    pub const ALL: u8 = 0x3F;
    /// Those found before the operation is carried out; unmasked, they suppress the result.
    pub const PRE_COMPUTATION: u8 = INVALID | DENORMAL | DIV_ZERO;
}

/// The rounding mode, in the encoding of the RC fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    #[default]
    Nearest,
    /// Toward minus infinity.
    Down,
    /// Toward plus infinity.
    Up,
    /// Toward zero.
    Zero,
}

impl Rounding {
    /// Decodes a two-bit RC field; higher bits are ignored.
    pub fn from_rc(rc: u32) -> Self {
        match rc & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Zero,
        }
    }
}

/// The x87 precision control: how many significand bits results of add, subtract, multiply,
/// divide and square root keep. It narrows only [`F80`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 24 bits.
    Single,
    /// 53 bits.
    Double,
    /// 64 bits.
    #[default]
    Extended,
}

impl Precision {
    /// Decodes the PC field; the reserved encoding 1 behaves as extended.
    pub fn from_pc(pc: u16) -> Self {
        match pc & 3 {
            0 => Self::Single,
            2 => Self::Double,
            _ => Self::Extended,
        }
    }

    fn bits(self) -> u32 {
        match self {
            Self::Single => 24,
            Self::Double => 53,
            Self::Extended => 64,
        }
    }
}

/// Which NaN an operation on several NaNs returns (SDM vol 1, 4.8.3.5, table 4-7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NanRule {
    /// The first operand if it is a NaN, else the second.
    #[default]
    Sse,
    /// A quiet one before a signaling one, then the larger significand.
    X87,
}

/// The floating-point environment of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// The rounding mode.
    pub rounding: Rounding,
    /// The x87 precision control.
    pub precision: Precision,
    /// How a NaN result is chosen.
    pub nan_rule: NanRule,
    /// Denormal operands count as zeros (SSE).
    pub daz: bool,
    /// Tiny results become zeros while underflow is masked (SSE).
    pub ftz: bool,
    /// Masked exceptions: a bit of [`flag`] set means masked.
    pub masks: u8,
    /// Exceptions raised so far; operations only add to it.
    pub flags: u8,
    /// Whether the last rounding increased the magnitude (x87 C1).
    pub rounded_up: bool,
}

impl Env {
    /// The environment that an MXCSR value describes, its sticky flags left out.
    #[inline]
    pub fn from_mxcsr(mxcsr: u32) -> Self {
        Self {
            rounding: Rounding::from_rc(mxcsr >> 13),
            daz: mxcsr & 1 << 6 != 0,
            ftz: mxcsr & 1 << 15 != 0,
            masks: (mxcsr >> 7) as u8 & flag::ALL,
            ..Self::default()
        }
    }

    /// The environment that an x87 control word describes.
    #[inline]
    pub fn from_x87_control(control: u16) -> Self {
        Self {
            rounding: Rounding::from_rc(u32::from(control >> 10)),
            precision: Precision::from_pc(control >> 8),
            nan_rule: NanRule::X87,
            masks: control as u8 & flag::ALL,
            ..Self::default()
        }
    }

    /// Adds exception flags.
    #[inline]
    pub fn raise(&mut self, flags: u8) {
        self.flags |= flags;
    }

    /// Those raised exceptions that are not masked.
    #[inline]
    pub fn unmasked(&self) -> u8 {
        self.flags & !self.masks
    }

    /// Whether all of `flags` are masked.
    #[inline]
    pub(crate) fn masked(&self, flags: u8) -> bool {
        self.masks & flags == flags
    }

    /// Unpacks an operand, as zero if it is denormal under DAZ.
    #[inline]
    fn operand<F: Format>(&self, bits: F::Bits) -> Unpacked {
        let mut x = F::unpack(bits);
        if self.daz && x.class == Class::Subnormal {
            x.class = Class::Zero;
            x.sig = 0;
        }
        x
    }

    /// Raises the denormal exception if one of `operands` is denormal. False if that exception is
    /// unmasked, so that the operation must not go on.
    #[inline]
    pub(crate) fn check_denormal(&mut self, operands: &[Unpacked]) -> bool {
        if operands.iter().all(|x| x.class != Class::Subnormal) {
            return true;
        }
        self.raise(flag::DENORMAL);
        self.masked(flag::DENORMAL)
    }

    /// The answer of an invalid operation: the default NaN ("real indefinite").
    pub(crate) fn invalid<F: Format>(&mut self) -> F::Bits {
        self.raise(flag::INVALID);
        F::default_nan()
    }

    /// The NaN that an operation on these operands returns, if one of them forces a NaN.
    #[inline]
    pub(crate) fn nan_operand<F: Format>(&mut self, operands: &[Unpacked]) -> Option<F::Bits> {
        if operands.iter().all(|x| x.class <= Class::Infinity) {
            return None;
        }
        self.choose_nan::<F>(operands)
    }

    #[cold]
    fn choose_nan<F: Format>(&mut self, operands: &[Unpacked]) -> Option<F::Bits> {
        if operands.iter().any(|x| x.class == Class::Unsupported) {
            return Some(self.invalid::<F>());
        }
        let nans = || operands.iter().filter(|x| x.is_nan());
        if nans().any(|x| x.class == Class::SignalingNan) {
            self.raise(flag::INVALID);
        }
        let chosen = match self.nan_rule {
            NanRule::Sse => nans().next(),
            NanRule::X87 => nans().max_by_key(|x| (x.class == Class::QuietNan, x.sig, !x.sign)),
        };
        chosen.map(|x| F::nan(x.sign, x.sig))
    }
}

#[cfg(test)]
pub(crate) mod tests;
