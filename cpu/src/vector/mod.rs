//! What the meaning of MMX and SSE instructions is made of: the vector half of the interface that
//! every engine implements.

pub mod crypto;
mod float;
pub(crate) mod lanes;
pub mod portable;
pub(crate) mod string;

use brolga_mmu::Width;

use crate::backend::Backend;
use crate::vcpu::Seg;
pub use crypto::Crypto;
pub use float::mxcsr;
pub use float::{ComFmt, Cvt, Fmt, Fp, Fp1, Fp2, IntCvt, Pred};

/// How a 128-bit value is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// 16 bytes.
    B,
    /// 8 words.
    W,
    /// 4 doublewords.
    D,
    /// 2 quadwords.
    Q,
}

impl Lane {
    /// Bits in a lane.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }
    /// Bytes in a lane.
    #[inline(always)]
    pub const fn bytes(self) -> usize {
        1 << self as usize
    }
    /// The width of an integer that holds a lane.
    #[inline(always)]
    pub const fn width(self) -> Width {
        match self {
            Lane::B => Width::W8,
            Lane::W => Width::W16,
            Lane::D => Width::W32,
            Lane::Q => Width::W64,
        }
    }
}

/// Two-operand integer operations on lanes. Not every operation exists for every lane: those in
/// [`X2::MulLo`] and below state theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum X2 {
    And,
    /// `!a & b`.
    AndNot,
    Or,
    Xor,
    Add,
    Sub,
    /// All ones where equal.
    CmpEq,
    /// All ones where `a > b`, signed.
    CmpGtS,
    /// Low half of the product: words and doublewords.
    MulLo,
    /// High half of the signed product: words.
    MulHiS,
    /// High half of the unsigned product: words.
    MulHiU,
    /// Product of the lower halves of the lanes, signed, filling the lane: doublewords, quadwords.
    MulEvenS,
    /// As [`X2::MulEvenS`], unsigned.
    MulEvenU,
    /// Saturating, signed or unsigned: bytes and words.
    AddSatS,
    AddSatU,
    SubSatS,
    SubSatU,
    /// Smaller or larger: bytes, words, doublewords.
    MinS,
    MinU,
    MaxS,
    MaxU,
    /// `(a + b + 1) >> 1` without overflow: bytes and words.
    AvgU,
}

/// Shifts of all lanes by one count: words, doublewords, quadwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shift {
    Shl,
    Shr,
    Sar,
}

/// How much of a vector an access to memory moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum VecWidth {
    V2,
    V4,
    V8,
    V16,
}

/// The bytes of a two-input shuffle: 0-15 name those of the first operand, 16-31 of the second.
pub type Pattern = [u8; 16];

/// The pattern that takes whole lanes; `lanes` uses the numbering of the two operands' lanes one
/// after the other.
pub(crate) const fn pattern(lane: Lane, lanes: &[u8]) -> Pattern {
    let bytes = lane.bytes();
    let mut p = [0; 16];
    let mut i = 0;
    while i < 16 {
        p[i] = lanes[i / bytes] * bytes as u8 + (i % bytes) as u8;
        i += 1;
    }
    p
}

/// The vector half of [`Backend`]. MMX values are vectors whose upper half does not matter.
///
/// The rule of [`Backend`] holds: what can fail comes first. An operation that raises an unmasked
/// SIMD floating-point exception has set the sticky flags in MXCSR, as hardware does, and nothing
/// else (SDM vol. 1, 11.5).
pub trait VectorBackend: Backend {
    /// A 128-bit value.
    type X: Copy;

    /// A constant.
    fn const_x(&mut self, v: u128) -> Self::X;
    /// Register XMM`r`.
    fn xmm(&mut self, r: u8) -> Self::X;
    /// Writes XMM`r`.
    fn set_xmm(&mut self, r: u8, v: Self::X);
    /// Register MM`r`, zero-extended.
    fn mm(&mut self, r: u8) -> Self::X;
    /// Writes MM`r` with the low half of `v`; the x87 exponent becomes all ones.
    fn set_mm(&mut self, r: u8, v: Self::X);
    /// #MF if an unmasked x87 exception is pending (SDM vol. 1, 11.6.5).
    fn mmx_check(&mut self) -> Result<(), Self::E>;
    /// The transition to MMX use: x87 TOP = 0, all tags valid (SDM vol. 1, 9.5.1).
    fn mmx_enter(&mut self);
    /// All x87 tags empty (EMMS).
    fn mmx_leave(&mut self);

    /// Loads, zero-extending. A misaligned `aligned` access is #GP(0).
    fn load_x(
        &mut self,
        w: VecWidth,
        seg: Seg,
        ea: Self::V,
        aligned: bool,
    ) -> Result<Self::X, Self::E>;
    /// Stores the low part, all or nothing.
    fn store_x(
        &mut self,
        w: VecWidth,
        seg: Seg,
        ea: Self::V,
        aligned: bool,
        v: Self::X,
    ) -> Result<(), Self::E>;

    /// Lane `n`, zero-extended.
    fn extract(&mut self, lane: Lane, a: Self::X, n: u8) -> Self::V;
    /// `a` with lane `n` replaced.
    fn insert(&mut self, lane: Lane, a: Self::X, n: u8, v: Self::V) -> Self::X;
    /// The top bits of all lanes, lane 0 in bit 0.
    fn movemask(&mut self, lane: Lane, a: Self::X) -> Self::V;

    /// Lane-wise `a op b`.
    fn x2(&mut self, op: X2, lane: Lane, a: Self::X, b: Self::X) -> Self::X;
    /// Absolute values.
    fn abs(&mut self, lane: Lane, a: Self::X) -> Self::X;
    /// Shifts all lanes by `count`, a 64-bit value that may exceed the lane.
    fn shift(&mut self, op: Shift, lane: Lane, a: Self::X, count: Self::V) -> Self::X;
    /// `mask ? a : b`, bit by bit.
    fn bit_select(&mut self, mask: Self::X, a: Self::X, b: Self::X) -> Self::X;
    /// The bytes of `a` and `b` that `pattern` names.
    fn shuffle(&mut self, a: Self::X, b: Self::X, pattern: Pattern) -> Self::X;
    /// The bytes of `a` that the low four bits of each byte of `by` name; zero if its bit 7 is set.
    fn shuffle_by(&mut self, a: Self::X, by: Self::X) -> Self::X;
    /// Lanes of the low or high halves of `a` and `b`, alternating, `a` first.
    fn interleave(&mut self, lane: Lane, high: bool, a: Self::X, b: Self::X) -> Self::X;
    /// Signed lanes of `a`, then of `b`, saturated to lanes of half the size, signed or not.
    fn pack(&mut self, from: Lane, signed: bool, a: Self::X, b: Self::X) -> Self::X;

    /// Floating-point `a op b`; scalar formats take the upper lanes from `a`.
    fn fp2(&mut self, op: Fp2, fmt: Fmt, a: Self::X, b: Self::X) -> Result<Self::X, Self::E>;
    /// Floating-point `op a`; scalar formats take the upper lanes from `upper`.
    fn fp1(&mut self, op: Fp1, fmt: Fmt, upper: Self::X, a: Self::X) -> Result<Self::X, Self::E>;
    /// Compares the lowest lanes: ZF, PF and CF in their RFLAGS positions. `quiet` (UCOMIS) does
    /// not signal for quiet NaNs.
    fn fp_compare(
        &mut self,
        fmt: ComFmt,
        quiet: bool,
        a: Self::X,
        b: Self::X,
    ) -> Result<Self::V, Self::E>;
    /// Vector conversions; `upper` is where lanes that the operation does not write come from.
    fn cvt(&mut self, op: Cvt, upper: Self::X, a: Self::X) -> Result<Self::X, Self::E>;
    /// Converts a signed integer of `w` (32 or 64 bits) into the lowest lane of `upper`.
    fn cvt_from_int(
        &mut self,
        fmt: ComFmt,
        w: Width,
        upper: Self::X,
        v: Self::V,
    ) -> Result<Self::X, Self::E>;
    /// Converts the lowest lane to a signed integer.
    fn cvt_to_int(&mut self, op: IntCvt, a: Self::X) -> Result<Self::V, Self::E>;

    /// CRC-32C of `data`'s bytes, continuing from `crc` (SDM vol. 2, CRC32).
    fn crc32c(&mut self, w: Width, crc: Self::V, data: Self::V) -> Self::V;

    /// A step of a cipher, a hash or a checksum.
    fn crypto(&mut self, op: Crypto, a: Self::X, b: Self::X) -> Self::X;
    /// Two rounds of SHA-256 (SDM vol. 2, SHA256RNDS2).
    fn sha256_rounds(&mut self, cdgh: Self::X, abef: Self::X, keys: Self::X) -> Self::X;

    /// Compares strings as the immediate `control` says (SDM vol. 2, 4.1): an index, and the status
    /// flags. `lens` are the signed lengths of `a` and `b` in 64 bits, whose absolute values count;
    /// without them a null element ends a string.
    fn string_index(
        &mut self,
        control: u8,
        a: Self::X,
        b: Self::X,
        lens: Option<[Self::V; 2]>,
    ) -> (Self::V, Self::V);
    /// As [`VectorBackend::string_index`], with a mask as its result.
    fn string_mask(
        &mut self,
        control: u8,
        a: Self::X,
        b: Self::X,
        lens: Option<[Self::V; 2]>,
    ) -> (Self::X, Self::V);

    /// `v` in the lowest quadword, zero above.
    fn vector_of(&mut self, v: Self::V) -> Self::X {
        let zero = self.const_x(0);
        self.insert(Lane::Q, zero, 0, v)
    }

    /// Doublewords of `a` (0-3) and `b` (4-7).
    fn shuffle_d(&mut self, a: Self::X, b: Self::X, lanes: [u8; 4]) -> Self::X {
        self.shuffle(a, b, pattern(Lane::D, &lanes))
    }

    /// The even or the odd lanes of `a`, then those of `b`.
    fn deinterleave(&mut self, lane: Lane, odd: bool, a: Self::X, b: Self::X) -> Self::X {
        let lanes: [u8; 16] = std::array::from_fn(|i| 2 * i as u8 + u8::from(odd));
        self.shuffle(a, b, pattern(lane, &lanes))
    }

    /// Shifts all lanes by a constant.
    fn shift_imm(&mut self, op: Shift, lane: Lane, a: Self::X, count: u8) -> Self::X {
        let count = self.imm(u64::from(count));
        self.shift(op, lane, a, count)
    }
}
