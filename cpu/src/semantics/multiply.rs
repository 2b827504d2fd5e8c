//! MUL and IMUL.

use brolga_mmu::Width;

use super::operand::{Size, Src};
use crate::backend::{Backend, Bin, Cmp};
use crate::flags::FlagOp;
use crate::insn::Insn;
use crate::vcpu::gpr;

/// High-byte register number of AH in [`Insn::reg`]'s numbering.
const AH: u8 = 16;

/// MUL, and IMUL with one operand: the double-width product goes to rDX:rAX (AX for bytes).
#[inline(always)]
pub fn wide<const SIGNED: bool, B: Backend, S: Src, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let w = W::W;
    let src = S::get(b, w, i)?;
    let a = b.reg(w, gpr::RAX);
    let low = b.bin(Bin::Mul, w, a, src);
    let high = b.mul_high(SIGNED, w, a, src);
    set_flags::<SIGNED, B>(b, w, low, high);
    b.set_reg(w, gpr::RAX, low);
    b.set_reg(w, if w == Width::W8 { AH } else { gpr::RDX }, high);
    Ok(())
}

/// IMUL with two or three operands: operand 0 = `A` * `S`, cut to the width.
#[inline(always)]
pub fn narrow<B: Backend, A: Src, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let w = W::W;
    let src = S::get(b, w, i)?;
    let a = A::get(b, w, i)?;
    let low = b.bin(Bin::Mul, w, a, src);
    let high = b.mul_high(true, w, a, src);
    set_flags::<true, B>(b, w, low, high);
    b.set_reg(w, i.reg[0], low);
    Ok(())
}

/// CF = OF = the high half is not the extension of the low one. SF, ZF, PF and AF are undefined;
/// here they follow the low half.
#[inline(always)]
fn set_flags<const SIGNED: bool, B: Backend>(b: &mut B, w: Width, low: B::V, high: B::V) {
    let extension = if SIGNED {
        let n = b.imm(u64::from(w.bits()) - 1);
        b.bin(Bin::Sar, w, low, n)
    } else {
        b.imm(0)
    };
    let significant = b.cmp(Cmp::Ne, w, high, extension);
    let significant = b.cond_value(significant);
    b.flags(FlagOp::Mul, w, low, low, significant);
}
