//! What differs on 64-bit registers: instructions that move data between lanes. Also EMMS and the
//! moves between the register files.

use super::shifts::shift_bytes;
use super::shuffle::{four, horizontal, low_words};
use super::{Mm, begin, end, get, operations, set};
use crate::insn::Insn;
use crate::vector::{Lane, VectorBackend, X2, pattern};

use Lane::{B as Byte, D as Dword, Q as Qword, W as Word};

operations! {
    /// Instructions on MMX registers whose meaning is not half of that on XMM registers.
    select;
    |b, i, d, s|
    M4 {
        Punpcklbw => b.interleave(Byte, false, d, s),
        Punpcklwd => b.interleave(Word, false, d, s),
        Punpckldq => b.interleave(Dword, false, d, s),
    }
    M8 {
        Punpckhbw => interleave_high(b, Byte, d, s),
        Punpckhwd => interleave_high(b, Word, d, s),
        Punpckhdq => interleave_high(b, Dword, d, s),
        Packsswb => pack(b, Word, true, d, s),
        Packuswb => pack(b, Word, false, d, s),
        Packssdw => pack(b, Dword, true, d, s),
        Pshufb => {
            let mask = b.const_x(0x8787_8787_8787_8787);
            let by = b.x2(X2::And, Byte, s, mask);
            b.shuffle_by(d, by)
        },
        Pshufw => b.shuffle(s, s, pattern(Word, &low_words(i.imm))),
        Palignr => {
            let both = b.interleave(Qword, false, s, d);
            shift_bytes::<B, false>(b, both, i.imm as u8)
        },
        Phaddw => horizontal_low(b, X2::Add, Word, d, s),
        Phaddd => horizontal_low(b, X2::Add, Dword, d, s),
        Phaddsw => horizontal_low(b, X2::AddSatS, Word, d, s),
        Phsubw => horizontal_low(b, X2::Sub, Word, d, s),
        Phsubd => horizontal_low(b, X2::Sub, Dword, d, s),
        Phsubsw => horizontal_low(b, X2::SubSatS, Word, d, s),
    }
}

/// The upper half of what interleaving whole 64-bit values gives.
#[inline(always)]
fn interleave_high<B: VectorBackend>(b: &mut B, lane: Lane, d: B::X, s: B::X) -> B::X {
    let all = b.interleave(lane, false, d, s);
    b.shuffle_d(all, all, four(0b1110_1110))
}

#[inline(always)]
fn pack<B: VectorBackend>(b: &mut B, from: Lane, signed: bool, d: B::X, s: B::X) -> B::X {
    let both = b.interleave(Qword, false, d, s);
    b.pack(from, signed, both, both)
}

#[inline(always)]
fn horizontal_low<B: VectorBackend>(b: &mut B, op: X2, lane: Lane, d: B::X, s: B::X) -> B::X {
    let both = b.interleave(Qword, false, d, s);
    horizontal(b, op, lane, both, both)
}

/// EMMS.
pub fn emms<B: VectorBackend>(b: &mut B, _: &Insn) -> Result<(), B::E> {
    begin::<B, Mm>(b)?;
    b.mmx_leave();
    Ok(())
}

/// MOVQ2DQ.
pub fn movq2dq<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    begin::<B, Mm>(b)?;
    let v = get::<B, Mm>(b, i.reg[1]);
    end::<B, Mm>(b);
    b.set_xmm(i.reg[0], v);
    Ok(())
}

/// MOVDQ2Q.
pub fn movdq2q<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    begin::<B, Mm>(b)?;
    let v = b.xmm(i.reg[1]);
    set::<B, Mm>(b, i.reg[0], v);
    Ok(())
}
