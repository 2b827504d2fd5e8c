//! The vocabulary of SSE floating point.

use crate::softfloat::flag;

/// How many lanes an operation works on, and of which precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fmt {
    /// The lowest single.
    Ss,
    /// The lowest double.
    Sd,
    /// Four singles.
    Ps,
    /// Two doubles.
    Pd,
}

/// The precision of a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComFmt {
    /// Single.
    Ss,
    /// Double.
    Sd,
}

/// Comparison predicates, in the encoding of CMPPS (SDM vol. 2, table 3-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Pred {
    Eq,
    Lt,
    Le,
    Unord,
    Neq,
    Nlt,
    Nle,
    Ord,
}

impl Pred {
    /// Decodes the immediate of CMPPS; bits above the third are ignored without VEX.
    #[inline(always)]
    pub const fn from_imm(imm: u64) -> Pred {
        match imm & 7 {
            0 => Pred::Eq,
            1 => Pred::Lt,
            2 => Pred::Le,
            3 => Pred::Unord,
            4 => Pred::Neq,
            5 => Pred::Nlt,
            6 => Pred::Nle,
            _ => Pred::Ord,
        }
    }
}

/// Two-operand floating-point operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fp2 {
    Add,
    Sub,
    Mul,
    Div,
    /// The second operand if either is a NaN or both are zero.
    Min,
    Max,
    /// Subtracts the even lanes and adds the odd ones.
    AddSub,
    /// All ones where the predicate holds.
    Cmp(Pred),
}

/// One-operand floating-point operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fp1 {
    /// Square root.
    Sqrt,
    /// Rounding to an integral value, with the immediate of ROUNDPS (SDM vol. 2, figure 4-24).
    Round(u8),
    /// Approximate reciprocal, of singles.
    Rcp,
    /// Approximate reciprocal square root, of singles.
    Rsqrt,
}

/// Conversions between vectors. `T` truncates; the others round as MXCSR says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Cvt {
    Dq2Ps,
    /// The two low doublewords.
    Dq2Pd,
    Ps2Dq,
    TPs2Dq,
    /// The upper half of the result is zero.
    Pd2Dq,
    TPd2Dq,
    /// The two low singles.
    Ps2Pd,
    /// The upper half of the result is zero.
    Pd2Ps,
    /// The lowest lane; the rest comes from elsewhere.
    Ss2Sd,
    Sd2Ss,
    /// The four low half-precision numbers to singles.
    Ph2Ps,
    /// Singles to half precision; the upper half of the result is zero. The immediate of VCVTPS2PH:
    /// the rounding in bits 1:0, or as MXCSR says if bit 2 is set.
    Ps2Ph(u8),
}

/// Fused operations on a product and a summand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fma {
    /// `a * b + c`
    Add,
    /// `a * b - c`
    Sub,
    /// `-(a * b) + c`
    NegatedAdd,
    /// `-(a * b) - c`
    NegatedSub,
    /// Subtracts in the even lanes and adds in the odd ones.
    AddSub,
    /// Adds in the even lanes and subtracts in the odd ones.
    SubAdd,
}

impl Fma {
    /// Whether the product and the summand of lane `n` are negated.
    pub const fn signs(self, n: u32) -> (bool, bool) {
        match self {
            Fma::Add => (false, false),
            Fma::Sub => (false, true),
            Fma::NegatedAdd => (true, false),
            Fma::NegatedSub => (true, true),
            Fma::AddSub => (false, n.is_multiple_of(2)),
            Fma::SubAdd => (false, !n.is_multiple_of(2)),
        }
    }
}

/// A conversion of a scalar to an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntCvt {
    /// The source.
    pub from: ComFmt,
    /// The integer has 64 bits (else 32).
    pub wide: bool,
    /// Rounds toward zero, whatever MXCSR says.
    pub truncate: bool,
}

/// What a floating-point operation gives: its result and the exceptions it raised (see
/// [`crate::softfloat::flag`]), masked or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fp<T> {
    /// The result; meaningless if an unmasked exception was raised.
    pub value: T,
    /// MXCSR flags.
    pub flags: u8,
}

/// Bits of MXCSR.
pub mod mxcsr {
    /// The six exception masks.
    pub const MASKS: u32 = 0x3f << 7;
    /// Those that may be set; the value that FXSAVE reports as MXCSR_MASK.
    pub const WRITABLE: u32 = 0xffff;
    /// After reset.
    pub const DEFAULT: u32 = MASKS;
}

impl<T> Fp<T> {
    /// The raised exceptions that `mxcsr` does not mask.
    #[inline(always)]
    pub(crate) fn unmasked(&self, mxcsr: u32) -> u8 {
        self.flags & !(mxcsr >> 7) as u8 & flag::ALL
    }
}
