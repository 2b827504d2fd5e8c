//! AVX, AVX2, FMA and F16C: VEX-encoded instructions on vectors. Most are the operations of
//! [`super::sse`], on both halves of a YMM register or on the lower one, where the upper half of
//! the result becomes zero. What has no counterpart there is here.

pub mod compare;
pub mod convert;
pub mod fma;
pub mod masked;
pub mod moves;
pub mod permute;
#[cfg(test)]
mod tests;

use crate::insn::{Insn, bits};
use crate::semantics::sse::{Memory, Operation, UPPER, Vex, load, source_index};
use crate::vector::{Lane, VecWidth, VectorBackend};

/// Whether the source is in memory.
#[inline(always)]
fn in_memory(i: &Insn) -> bool {
    i.has(bits::MEM1 | bits::MEM2)
}

/// Half `n` of YMM`r`.
#[inline(always)]
pub(crate) fn half<B: VectorBackend>(b: &mut B, r: u8, n: usize) -> B::X {
    b.xmm(r + UPPER * n as u8)
}

/// Writes a whole register.
#[inline(always)]
pub(crate) fn set_halves<B: VectorBackend>(b: &mut B, r: u8, [low, high]: [B::X; 2]) {
    b.set_xmm(r, low);
    b.set_xmm(UPPER + r, high);
}

/// Writes the lower half; the upper one becomes zero.
#[inline(always)]
pub(crate) fn set_low<B: VectorBackend>(b: &mut B, r: u8, v: B::X) {
    let zero = b.const_x(0);
    set_halves(b, r, [v, zero]);
}

/// Gives operand 0 the results of `f` for the halves that the instruction works on.
#[inline(always)]
pub(crate) fn each_half<B: VectorBackend>(
    b: &mut B,
    i: &Insn,
    mut f: impl FnMut(&mut B, usize) -> Result<B::X, B::E>,
) -> Result<(), B::E> {
    if i.has(bits::YMM) {
        let r = b.halves(f)?;
        set_halves(b, i.reg[0], r);
    } else {
        let r = f(b, 0)?;
        set_low(b, i.reg[0], r);
    }
    Ok(())
}

/// The halves of the source, as operations on them take it: whole vectors, or, if the operation
/// extends lanes, parts of one, which is then all of the source. One half only for 128 bits.
#[inline(always)]
pub(crate) fn sources<B: VectorBackend>(b: &mut B, i: &Insn, m: Memory) -> Result<[B::X; 2], B::E> {
    let unaligned = |width| Memory { width, aligned: false };
    let r = i.reg[source_index::<Vex>(i)];
    if !i.has(bits::YMM) {
        let s = if in_memory(i) { load(b, i, unaligned(m.width))? } else { b.xmm(r) };
        return Ok([s; 2]);
    }
    let twice = match m.width {
        VecWidth::V16 if in_memory(i) => {
            let ea = b.ea(i);
            return b.load_y(i.seg, ea, false);
        }
        VecWidth::V16 => return Ok([half(b, r, 0), half(b, r, 1)]),
        VecWidth::V8 => VecWidth::V16,
        VecWidth::V4 => VecWidth::V8,
        VecWidth::V2 => VecWidth::V4,
    };
    let s = if in_memory(i) { load(b, i, unaligned(twice))? } else { b.xmm(r) };
    let upper = match m.width {
        VecWidth::V2 => b.shuffle(s, s, crate::vector::pattern(Lane::W, &[1; 8])),
        VecWidth::V4 => b.shuffle_d(s, s, [1; 4]),
        _ => b.shuffle_d(s, s, [2, 3, 2, 3]),
    };
    Ok([s, upper])
}

/// An [`Operation`] in its VEX form, on 128 or 256 bits. The lower half uses the low `IMMEDIATE` bits of
/// the immediate, the upper one those above; all of them if it is 0.
pub fn operation<B: VectorBackend, O: Operation, const IMMEDIATE: u32>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let s = sources(b, i, O::MEMORY)?;
    let three = i.has(bits::THREE);
    each_half(b, i, |b, n| {
        let d = if three { half(b, i.reg[1], n) } else { b.const_x(0) };
        if n == 1 && IMMEDIATE != 0 {
            let upper = Insn { imm: i.imm >> IMMEDIATE, ..*i };
            O::eval(b, &upper, d, s[1])
        } else {
            O::eval(b, i, d, s[n])
        }
    })
}
