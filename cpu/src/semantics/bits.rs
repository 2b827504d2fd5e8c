//! Bit tests, scans and counts.

use brolga_mmu::{AtomicOp, Width};

use super::moves::{is_zero, merge_status};
use super::operand::{Size, Src};
use crate::backend::{Backend, Bin, Un};
use crate::flags::FlagOp;
use crate::insn::Insn;
use crate::vcpu::rflags;

/// What BT, BTS, BTR and BTC do with the bit.
pub trait BitOp {
    /// The result for a value and the mask of its bit; `None` for BT.
    const CHANGE: Option<AtomicOp>;
}
/// BT.
pub struct Test;
impl BitOp for Test {
    const CHANGE: Option<AtomicOp> = None;
}
/// BTS.
pub struct Set;
impl BitOp for Set {
    const CHANGE: Option<AtomicOp> = Some(AtomicOp::Or);
}
/// BTR.
pub struct Reset;
impl BitOp for Reset {
    const CHANGE: Option<AtomicOp> = Some(AtomicOp::And);
}
/// BTC.
pub struct Complement;
impl BitOp for Complement {
    const CHANGE: Option<AtomicOp> = Some(AtomicOp::Xor);
}

#[inline(always)]
fn modulo<B: Backend>(b: &mut B, w: Width, offset: B::V) -> B::V {
    let mask = b.imm(u64::from(w.bits()) - 1);
    b.bin(Bin::And, Width::W64, offset, mask)
}

/// CF = bit `n` of `a`; the other flags stay (the manual leaves OF, SF, AF, PF undefined).
#[inline(always)]
fn carry_from<B: Backend>(b: &mut B, w: Width, a: B::V, n: B::V) {
    let v = b.bin(Bin::Shr, w, a, n);
    let one = b.imm(1);
    let v = b.bin(Bin::And, w, v, one);
    b.replace_flags(rflags::CF, v);
}

/// The operand of the change: the bit, or for AND everything but the bit.
#[inline(always)]
fn mask_of<B: Backend, O: BitOp>(b: &mut B, w: Width, n: B::V) -> B::V {
    let one = b.imm(1);
    let bit = b.bin(Bin::Shl, w, one, n);
    if O::CHANGE == Some(AtomicOp::And) { b.un(Un::Not, w, bit) } else { bit }
}

const fn plain(op: AtomicOp) -> Bin {
    match op {
        AtomicOp::And => Bin::And,
        AtomicOp::Or => Bin::Or,
        _ => Bin::Xor,
    }
}

/// The bit in a register: the offset is taken modulo the width.
#[inline(always)]
pub fn in_register<B: Backend, O: BitOp, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let offset = S::get(b, W::W, i)?;
    let n = modulo(b, W::W, offset);
    let a = b.reg(W::W, i.reg[0]);
    carry_from(b, W::W, a, n);
    if let Some(op) = O::CHANGE {
        let mask = mask_of::<B, O>(b, W::W, n);
        let r = b.bin(plain(op), W::W, a, mask);
        b.set_reg(W::W, i.reg[0], r);
    }
    Ok(())
}

/// The address and bit number of a bit in memory. An offset in a register reaches beyond the
/// operand, as a signed bit index (SDM vol. 1, 5.1.5); an immediate one does not.
#[inline(always)]
fn address<B: Backend, W: Size>(b: &mut B, i: &Insn, offset: B::V, far: bool) -> (B::V, B::V) {
    let ea = b.ea(i);
    let n = modulo(b, W::W, offset);
    if !far {
        return (ea, n);
    }
    let full = Width::W64;
    let signed = b.sext(W::W, full, offset);
    let shift = b.imm(u64::from(W::W.bits().trailing_zeros()));
    let words = b.bin(Bin::Sar, full, signed, shift);
    let scale = b.imm(u64::from(W::W.bytes().trailing_zeros()));
    let bytes = b.bin(Bin::Shl, full, words, scale);
    let sum = b.bin(Bin::Add, full, ea, bytes);
    let mask = b.imm(i.ea_mask);
    (b.bin(Bin::And, full, sum, mask), n)
}

/// The bit in memory; `FAR` if the offset is in a register.
#[inline(always)]
pub fn in_memory<B: Backend, O: BitOp, S: Src, const FAR: bool, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let offset = S::get(b, W::W, i)?;
    let (ea, n) = address::<B, W>(b, i, offset, FAR);
    let Some(op) = O::CHANGE else {
        let a = b.load(W::W, i.seg, ea)?;
        carry_from(b, W::W, a, n);
        return Ok(());
    };
    let (place, a) = b.modify(W::W, i.seg, ea)?;
    carry_from(b, W::W, a, n);
    let mask = mask_of::<B, O>(b, W::W, n);
    let r = b.bin(plain(op), W::W, a, mask);
    b.commit(place, W::W, r);
    Ok(())
}

/// The bit in memory, locked.
#[inline(always)]
pub fn in_memory_locked<B: Backend, O: BitOp, S: Src, const FAR: bool, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let offset = S::get(b, W::W, i)?;
    let (ea, n) = address::<B, W>(b, i, offset, FAR);
    let mask = mask_of::<B, O>(b, W::W, n);
    let old = match O::CHANGE {
        Some(op) => b.atomic(op, W::W, i.seg, ea, mask)?,
        None => b.load(W::W, i.seg, ea)?,
    };
    carry_from(b, W::W, old, n);
    Ok(())
}

/// BSF and BSR (`REVERSE`): ZF tells whether the source is zero; then the destination stays, as
/// AMD documents and Intel processors do.
#[inline(always)]
pub fn scan<B: Backend, const REVERSE: bool, S: Src, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let w = W::W;
    let v = S::get(b, w, i)?;
    let zero = is_zero(b, v);
    let found = if REVERSE {
        let zeros = b.un(Un::Clz, w, v);
        let top = b.imm(u64::from(w.bits()) - 1);
        b.bin(Bin::Sub, w, top, zeros)
    } else {
        b.un(Un::Ctz, w, v)
    };
    // The full register is kept where the source is zero: not even a 32-bit write happens.
    let old = b.reg(Width::W64, i.reg[0]);
    let merged = if w == Width::W16 {
        let mask = b.imm(!0xffff);
        let high = b.bin(Bin::And, Width::W64, old, mask);
        b.bin(Bin::Or, Width::W64, high, found)
    } else {
        found
    };
    let r = b.select(zero, old, merged);
    let z = b.cond_value(zero);
    let position = b.imm(6);
    let z = b.bin(Bin::Shl, Width::W64, z, position);
    merge_status(b, rflags::ZF, z);
    b.set_reg(Width::W64, i.reg[0], r);
    Ok(())
}

/// POPCNT: ZF from the source, the other flags clear.
#[inline(always)]
pub fn popcnt<B: Backend, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = S::get(b, W::W, i)?;
    let r = b.un(Un::Popcnt, W::W, v);
    let zero = is_zero(b, v);
    let z = b.cond_value(zero);
    let position = b.imm(6);
    let status = b.bin(Bin::Shl, Width::W64, z, position);
    b.flags(FlagOp::Bits, Width::W64, status, status, status);
    b.set_reg(W::W, i.reg[0], r);
    Ok(())
}
