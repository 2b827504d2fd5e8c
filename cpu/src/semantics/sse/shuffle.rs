//! Rearranging lanes: shuffles, blends, packing, widening, horizontal arithmetic.

use super::shifts::shift_bytes;
use super::{File, Memory, first, operations, set, source};
use crate::insn::Insn;
use crate::vector::{Lane, Pattern, Shift, VectorBackend, X2, pattern};

use Lane::{B as Byte, D as Dword, Q as Qword, W as Word};

operations! {
    /// Instructions on XMM registers.
    select, select_vex;
    |b, i, d, s|
    M16 {
        Punpcklbw / Vpunpcklbw => b.interleave(Byte, false, d, s),
        Punpcklwd / Vpunpcklwd => b.interleave(Word, false, d, s),
        Punpckldq / Vpunpckldq => b.interleave(Dword, false, d, s),
        Punpcklqdq / Vpunpcklqdq => b.interleave(Qword, false, d, s),
        Punpckhbw / Vpunpckhbw => b.interleave(Byte, true, d, s),
        Punpckhwd / Vpunpckhwd => b.interleave(Word, true, d, s),
        Punpckhdq / Vpunpckhdq => b.interleave(Dword, true, d, s),
        Punpckhqdq / Vpunpckhqdq => b.interleave(Qword, true, d, s),
        Unpcklps / Vunpcklps => b.interleave(Dword, false, d, s),
        Unpckhps / Vunpckhps => b.interleave(Dword, true, d, s),
        Unpcklpd / Vunpcklpd => b.interleave(Qword, false, d, s),
        Unpckhpd / Vunpckhpd => b.interleave(Qword, true, d, s),
        Packsswb / Vpacksswb => b.pack(Word, true, d, s),
        Packuswb / Vpackuswb => b.pack(Word, false, d, s),
        Packssdw / Vpackssdw => b.pack(Dword, true, d, s),
        Packusdw / Vpackusdw => b.pack(Dword, false, d, s),
        Pshufb / Vpshufb => b.shuffle_by(d, s),
        Pshufd / Vpshufd => b.shuffle_d(s, s, four(i.imm)),
        Pshuflw / Vpshuflw => b.shuffle(s, s, pattern(Word, &low_words(i.imm))),
        Pshufhw / Vpshufhw => b.shuffle(s, s, pattern(Word, &high_words(i.imm))),
        Shufps / Vshufps => {
            let [l0, l1, h0, h1] = four(i.imm);
            b.shuffle_d(d, s, [l0, l1, h0 + 4, h1 + 4])
        },
        Shufpd / Vshufpd >> 2 => {
            let (low, high) = (i.imm as u8 & 1, i.imm as u8 >> 1 & 1);
            b.shuffle_d(d, s, [2 * low, 2 * low + 1, 4 + 2 * high, 5 + 2 * high])
        },
        Palignr / Vpalignr => align(b, i.imm as u8, d, s),
        Movshdup / Vmovshdup => b.shuffle_d(s, s, [1, 1, 3, 3]),
        Movsldup / Vmovsldup => b.shuffle_d(s, s, [0, 0, 2, 2]),
        Pblendw / Vpblendw => b.shuffle(d, s, blend(Word, i.imm)),
        Blendps / Vblendps >> 4 => b.shuffle(d, s, blend(Dword, i.imm)),
        Blendpd / Vblendpd >> 2 => b.shuffle(d, s, blend(Qword, i.imm)),
        Pblendvb => variable_blend(b, Byte, d, s),
        Blendvps => variable_blend(b, Dword, d, s),
        Blendvpd => variable_blend(b, Qword, d, s),
        Phaddw / Vphaddw => horizontal(b, X2::Add, Word, d, s),
        Phaddd / Vphaddd => horizontal(b, X2::Add, Dword, d, s),
        Phaddsw / Vphaddsw => horizontal(b, X2::AddSatS, Word, d, s),
        Phsubw / Vphsubw => horizontal(b, X2::Sub, Word, d, s),
        Phsubd / Vphsubd => horizontal(b, X2::Sub, Dword, d, s),
        Phsubsw / Vphsubsw => horizontal(b, X2::SubSatS, Word, d, s),
    }
    M8 {
        Movddup => b.interleave(Qword, false, s, s),
        Pmovsxbw / Vpmovsxbw => widen(b, true, Byte, Word, s),
        Pmovsxwd / Vpmovsxwd => widen(b, true, Word, Dword, s),
        Pmovsxdq / Vpmovsxdq => widen(b, true, Dword, Qword, s),
        Pmovzxbw / Vpmovzxbw => widen(b, false, Byte, Word, s),
        Pmovzxwd / Vpmovzxwd => widen(b, false, Word, Dword, s),
        Pmovzxdq / Vpmovzxdq => widen(b, false, Dword, Qword, s),
    }
    M4 {
        Pmovsxbd / Vpmovsxbd => widen(b, true, Byte, Dword, s),
        Pmovsxwq / Vpmovsxwq => widen(b, true, Word, Qword, s),
        Pmovzxbd / Vpmovzxbd => widen(b, false, Byte, Dword, s),
        Pmovzxwq / Vpmovzxwq => widen(b, false, Word, Qword, s),
    }
    M2 {
        Pmovsxbq / Vpmovsxbq => widen(b, true, Byte, Qword, s),
        Pmovzxbq / Vpmovzxbq => widen(b, false, Byte, Qword, s),
    }
}

/// Four two-bit selectors.
#[inline(always)]
pub(crate) fn four(imm: u64) -> [u8; 4] {
    [imm & 3, imm >> 2 & 3, imm >> 4 & 3, imm >> 6 & 3].map(|n| n as u8)
}

/// Words 0-3 as selected, 4-7 in place.
#[inline(always)]
pub(super) fn low_words(imm: u64) -> [u8; 8] {
    let [a, b, c, d] = four(imm);
    [a, b, c, d, 4, 5, 6, 7]
}

#[inline(always)]
fn high_words(imm: u64) -> [u8; 8] {
    let [a, b, c, d] = four(imm);
    [0, 1, 2, 3, a + 4, b + 4, c + 4, d + 4]
}

/// Lanes of the second operand where the bits of `imm` are set.
#[inline(always)]
pub(crate) fn blend(lane: Lane, imm: u64) -> Pattern {
    std::array::from_fn(|i| i as u8 + if imm >> (i / lane.bytes()) & 1 != 0 { 16 } else { 0 })
}

/// Lanes of `s` where the top bits of XMM0's are set.
#[inline(always)]
fn variable_blend<B: VectorBackend>(b: &mut B, lane: Lane, d: B::X, s: B::X) -> B::X {
    let mask = b.xmm(0);
    blend_by(b, lane, mask, d, s)
}

/// Lanes of `s` where the top bits of the mask's are set.
#[inline(always)]
pub(crate) fn blend_by<B: VectorBackend>(
    b: &mut B,
    lane: Lane,
    mask: B::X,
    d: B::X,
    s: B::X,
) -> B::X {
    let zero = b.const_x(0);
    let mask = b.x2(X2::CmpGtS, lane, zero, mask);
    b.bit_select(mask, s, d)
}

/// PALIGNR: a window onto `d:s`.
#[inline(always)]
fn align<B: VectorBackend>(b: &mut B, count: u8, d: B::X, s: B::X) -> B::X {
    match count {
        0..=16 => b.shuffle(s, d, std::array::from_fn(|i| count + i as u8)),
        _ => shift_bytes::<B, false>(b, d, count - 16),
    }
}

/// Neighbouring lanes with each other, `d`'s then `s`'s.
#[inline(always)]
pub(super) fn horizontal<B: VectorBackend>(
    b: &mut B,
    op: X2,
    lane: Lane,
    d: B::X,
    s: B::X,
) -> B::X {
    let even = b.deinterleave(lane, false, d, s);
    let odd = b.deinterleave(lane, true, d, s);
    b.x2(op, lane, even, odd)
}

/// The low lanes, each extended to a larger one.
#[inline(always)]
fn widen<B: VectorBackend>(b: &mut B, signed: bool, from: Lane, to: Lane, s: B::X) -> B::X {
    let (narrow, wide) = (from.bytes(), to.bytes());
    // For a sign extension the lane goes to the top first, and is then shifted down.
    let at = if signed { wide - narrow } else { 0 };
    let zero = b.const_x(0);
    let spread = b.shuffle(
        s,
        zero,
        std::array::from_fn(|i| {
            let (lane, byte) = (i / wide, i % wide);
            if (at..at + narrow).contains(&byte) { (lane * narrow + byte - at) as u8 } else { 16 }
        }),
    );
    if signed { b.shift_imm(Shift::Sar, to, spread, (8 * (wide - narrow)) as u8) } else { spread }
}

/// INSERTPS: a single of the source, selected by bits 7:6, to the lane in bits 5:4; then zeros
/// where bits 3:0 are set. The memory form reads one single and ignores its selector.
pub fn insert_single<B: VectorBackend, R: File, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let imm = i.imm as u8;
    let s = source::<B, R, MEM>(b, i, Memory::M4)?;
    let d = first::<B, R>(b, i);
    let mut lanes = [0, 1, 2, 3];
    lanes[usize::from(imm >> 4 & 3)] = if MEM { 4 } else { 4 + (imm >> 6) };
    let inserted = b.shuffle_d(d, s, lanes);
    let kept = (0..4).filter(|n| imm >> n & 1 == 0);
    let mask = kept.fold(0, |m, n| m | u128::from(u32::MAX) << (32 * n));
    let mask = b.const_x(mask);
    let r = b.x2(X2::And, Dword, inserted, mask);
    set::<B, R>(b, i.reg[0], r);
    Ok(())
}
