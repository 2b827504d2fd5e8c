//! Integer arithmetic, logic and comparison on lanes.

use super::operations;
use crate::backend::{Bin, Cmp};
use crate::vector::{Lane, Shift, VectorBackend, X2};

use Lane::{B as Byte, D as Dword, Q as Qword, W as Word};

operations! {
    /// Instructions that exist on MMX and XMM registers.
    select, select_vex;
    |b, i, d, s|
    M16 {
        Pand / Vpand => b.x2(X2::And, Qword, d, s),
        Pandn / Vpandn => b.x2(X2::AndNot, Qword, d, s),
        Por / Vpor => b.x2(X2::Or, Qword, d, s),
        Pxor / Vpxor => b.x2(X2::Xor, Qword, d, s),
        Paddb / Vpaddb => b.x2(X2::Add, Byte, d, s),
        Paddw / Vpaddw => b.x2(X2::Add, Word, d, s),
        Paddd / Vpaddd => b.x2(X2::Add, Dword, d, s),
        Paddq / Vpaddq => b.x2(X2::Add, Qword, d, s),
        Psubb / Vpsubb => b.x2(X2::Sub, Byte, d, s),
        Psubw / Vpsubw => b.x2(X2::Sub, Word, d, s),
        Psubd / Vpsubd => b.x2(X2::Sub, Dword, d, s),
        Psubq / Vpsubq => b.x2(X2::Sub, Qword, d, s),
        Paddsb / Vpaddsb => b.x2(X2::AddSatS, Byte, d, s),
        Paddsw / Vpaddsw => b.x2(X2::AddSatS, Word, d, s),
        Paddusb / Vpaddusb => b.x2(X2::AddSatU, Byte, d, s),
        Paddusw / Vpaddusw => b.x2(X2::AddSatU, Word, d, s),
        Psubsb / Vpsubsb => b.x2(X2::SubSatS, Byte, d, s),
        Psubsw / Vpsubsw => b.x2(X2::SubSatS, Word, d, s),
        Psubusb / Vpsubusb => b.x2(X2::SubSatU, Byte, d, s),
        Psubusw / Vpsubusw => b.x2(X2::SubSatU, Word, d, s),
        Pminub / Vpminub => b.x2(X2::MinU, Byte, d, s),
        Pmaxub / Vpmaxub => b.x2(X2::MaxU, Byte, d, s),
        Pminsw / Vpminsw => b.x2(X2::MinS, Word, d, s),
        Pmaxsw / Vpmaxsw => b.x2(X2::MaxS, Word, d, s),
        Pavgb / Vpavgb => b.x2(X2::AvgU, Byte, d, s),
        Pavgw / Vpavgw => b.x2(X2::AvgU, Word, d, s),
        Pcmpeqb / Vpcmpeqb => b.x2(X2::CmpEq, Byte, d, s),
        Pcmpeqw / Vpcmpeqw => b.x2(X2::CmpEq, Word, d, s),
        Pcmpeqd / Vpcmpeqd => b.x2(X2::CmpEq, Dword, d, s),
        Pcmpgtb / Vpcmpgtb => b.x2(X2::CmpGtS, Byte, d, s),
        Pcmpgtw / Vpcmpgtw => b.x2(X2::CmpGtS, Word, d, s),
        Pcmpgtd / Vpcmpgtd => b.x2(X2::CmpGtS, Dword, d, s),
        Pmullw / Vpmullw => b.x2(X2::MulLo, Word, d, s),
        Pmulhw / Vpmulhw => b.x2(X2::MulHiS, Word, d, s),
        Pmulhuw / Vpmulhuw => b.x2(X2::MulHiU, Word, d, s),
        Pmuludq / Vpmuludq => b.x2(X2::MulEvenU, Qword, d, s),
        Pmaddwd / Vpmaddwd => multiply_add_words(b, d, s),
        Pmaddubsw / Vpmaddubsw => multiply_add_bytes(b, d, s),
        Pmulhrsw / Vpmulhrsw => multiply_round(b, d, s),
        Psadbw / Vpsadbw => sum_of_differences(b, d, s),
        Pabsb / Vpabsb => b.abs(Byte, s),
        Pabsw / Vpabsw => b.abs(Word, s),
        Pabsd / Vpabsd => b.abs(Dword, s),
        Psignb / Vpsignb => sign(b, Byte, d, s),
        Psignw / Vpsignw => sign(b, Word, d, s),
        Psignd / Vpsignd => sign(b, Dword, d, s),
    }
}

operations! {
    /// Instructions on XMM registers only.
    select_wide, select_wide_vex;
    |b, i, d, s|
    M16 {
        Andps / Vandps => b.x2(X2::And, Dword, d, s),
        Andpd / Vandpd => b.x2(X2::And, Qword, d, s),
        Andnps / Vandnps => b.x2(X2::AndNot, Dword, d, s),
        Andnpd / Vandnpd => b.x2(X2::AndNot, Qword, d, s),
        Orps / Vorps => b.x2(X2::Or, Dword, d, s),
        Orpd / Vorpd => b.x2(X2::Or, Qword, d, s),
        Xorps / Vxorps => b.x2(X2::Xor, Dword, d, s),
        Xorpd / Vxorpd => b.x2(X2::Xor, Qword, d, s),
        Pcmpeqq / Vpcmpeqq => b.x2(X2::CmpEq, Qword, d, s),
        Pcmpgtq / Vpcmpgtq => b.x2(X2::CmpGtS, Qword, d, s),
        Pminsb / Vpminsb => b.x2(X2::MinS, Byte, d, s),
        Pmaxsb / Vpmaxsb => b.x2(X2::MaxS, Byte, d, s),
        Pminuw / Vpminuw => b.x2(X2::MinU, Word, d, s),
        Pmaxuw / Vpmaxuw => b.x2(X2::MaxU, Word, d, s),
        Pminsd / Vpminsd => b.x2(X2::MinS, Dword, d, s),
        Pmaxsd / Vpmaxsd => b.x2(X2::MaxS, Dword, d, s),
        Pminud / Vpminud => b.x2(X2::MinU, Dword, d, s),
        Pmaxud / Vpmaxud => b.x2(X2::MaxU, Dword, d, s),
        Pmulld / Vpmulld => b.x2(X2::MulLo, Dword, d, s),
        Pmuldq / Vpmuldq => b.x2(X2::MulEvenS, Qword, d, s),
        Mpsadbw / Vmpsadbw >> 3 => sums_of_differences(b, i.imm, d, s),
        Phminposuw / Vphminposuw => minimum_position(b, s),
    }
}

/// PMADDWD: products of words, added in pairs.
#[inline(always)]
fn multiply_add_words<B: VectorBackend>(b: &mut B, d: B::X, s: B::X) -> B::X {
    let even = b.x2(X2::MulEvenS, Dword, d, s);
    let d = b.shift_imm(Shift::Shr, Dword, d, 16);
    let s = b.shift_imm(Shift::Shr, Dword, s, 16);
    let odd = b.x2(X2::MulEvenS, Dword, d, s);
    b.x2(X2::Add, Dword, even, odd)
}

/// PMADDUBSW: products of unsigned bytes by signed ones, added in pairs with saturation.
#[inline(always)]
fn multiply_add_bytes<B: VectorBackend>(b: &mut B, d: B::X, s: B::X) -> B::X {
    let low = b.const_x(0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff);
    let unsigned = b.x2(X2::And, Word, d, low);
    let signed = b.shift_imm(Shift::Shl, Word, s, 8);
    let signed = b.shift_imm(Shift::Sar, Word, signed, 8);
    let even = b.x2(X2::MulLo, Word, unsigned, signed);
    let unsigned = b.shift_imm(Shift::Shr, Word, d, 8);
    let signed = b.shift_imm(Shift::Sar, Word, s, 8);
    let odd = b.x2(X2::MulLo, Word, unsigned, signed);
    b.x2(X2::AddSatS, Word, even, odd)
}

/// PMULHRSW: bits 30:15 of the products, rounded by bit 14.
#[inline(always)]
fn multiply_round<B: VectorBackend>(b: &mut B, d: B::X, s: B::X) -> B::X {
    let high = b.x2(X2::MulHiS, Word, d, s);
    let low = b.x2(X2::MulLo, Word, d, s);
    let high = b.shift_imm(Shift::Shl, Word, high, 1);
    // Bits 15 and 14 of the product: the last bit of the result, and the rounding.
    let top = b.shift_imm(Shift::Shr, Word, low, 15);
    let next = b.shift_imm(Shift::Shl, Word, low, 1);
    let next = b.shift_imm(Shift::Shr, Word, next, 15);
    let sum = b.x2(X2::Add, Word, high, top);
    b.x2(X2::Add, Word, sum, next)
}

/// Absolute differences of unsigned bytes.
#[inline(always)]
fn differences<B: VectorBackend>(b: &mut B, d: B::X, s: B::X) -> B::X {
    let over = b.x2(X2::SubSatU, Byte, d, s);
    let under = b.x2(X2::SubSatU, Byte, s, d);
    b.x2(X2::Or, Byte, over, under)
}

/// PSADBW: the sum of the eight absolute differences in each quadword.
#[inline(always)]
fn sum_of_differences<B: VectorBackend>(b: &mut B, d: B::X, s: B::X) -> B::X {
    let x = differences(b, d, s);
    let low = b.const_x(0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff);
    let even = b.x2(X2::And, Word, x, low);
    let odd = b.shift_imm(Shift::Shr, Word, x, 8);
    let words = b.x2(X2::Add, Word, even, odd);
    // The sums reach the top word of each quadword: a carry chain of three additions.
    let shifted = b.shift_imm(Shift::Shl, Qword, words, 32);
    let words = b.x2(X2::Add, Word, words, shifted);
    let shifted = b.shift_imm(Shift::Shl, Qword, words, 16);
    let words = b.x2(X2::Add, Word, words, shifted);
    b.shift_imm(Shift::Shr, Qword, words, 48)
}

/// PSIGN: negated, zeroed or kept by the sign of `s`.
#[inline(always)]
fn sign<B: VectorBackend>(b: &mut B, lane: Lane, d: B::X, s: B::X) -> B::X {
    let zero = b.const_x(0);
    let negative = b.x2(X2::CmpGtS, lane, zero, s);
    let none = b.x2(X2::CmpEq, lane, s, zero);
    let flipped = b.x2(X2::Xor, lane, d, negative);
    let signed = b.x2(X2::Sub, lane, flipped, negative);
    b.x2(X2::AndNot, lane, none, signed)
}

/// MPSADBW: sums of absolute differences of a group of four bytes of `s` and each of eight
/// overlapping groups of `d`.
#[inline(always)]
fn sums_of_differences<B: VectorBackend>(b: &mut B, imm: u64, d: B::X, s: B::X) -> B::X {
    let zero = b.const_x(0);
    let (group, first) = ((imm as u8 & 3) * 4, (imm as u8 >> 2 & 1) * 4);
    // As words: byte k of the group of `s` eight times; bytes k to k + 7 of `d`.
    let words = |at: u8, step: u8| -> [u8; 16] {
        std::array::from_fn(|i| if i % 2 == 0 { at + step * (i / 2) as u8 } else { 16 })
    };
    let mut sum = zero;
    for k in 0..4 {
        let one = b.shuffle(s, zero, words(group + k, 0));
        let all = b.shuffle(d, zero, words(first + k, 1));
        let x = differences(b, all, one);
        sum = b.x2(X2::Add, Word, sum, x);
    }
    sum
}

/// PHMINPOSUW: the smallest word and its position, the lowest of equals.
#[inline(always)]
fn minimum_position<B: VectorBackend>(b: &mut B, s: B::X) -> B::X {
    use brolga_mmu::Width::W32;
    let word = |b: &mut B, n: u8| {
        // Word and position in one number: the comparison then prefers the lower position.
        let v = b.extract(Word, s, n);
        let sixteen = b.imm(16);
        let v = b.bin(Bin::Shl, W32, v, sixteen);
        let n = b.imm(n.into());
        b.bin(Bin::Or, W32, v, n)
    };
    let mut least = word(b, 0);
    for n in 1..8 {
        let v = word(b, n);
        let less = b.cmp(Cmp::UnsignedLt, W32, v, least);
        least = b.select(less, v, least);
    }
    let sixteen = b.imm(16);
    let least = b.bin(Bin::Rol, W32, least, sixteen);
    b.vector_of(least)
}
