//! Data movement and conversion between integers.

use brolga_mmu::{AtomicOp, Width};

use super::operand::{Dst, R, Size, Src};
use crate::backend::{Backend, Bin, Cmp, Un};
use crate::flags::{Cond, FlagOp};
use crate::insn::Insn;
use crate::vcpu::{gpr, rflags};

const AH: u8 = 16;

/// MOV.
#[inline(always)]
pub fn mov<B: Backend, D: Dst, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = S::get(b, W::W, i)?;
    D::set(b, W::W, i, v)
}

/// MOVZX: operand 0 of width `W` from `S` of width `F`.
#[inline(always)]
pub fn movzx<B: Backend, S: Src, F: Size, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = S::get(b, F::W, i)?;
    R::<0>::set(b, W::W, i, v)
}

/// MOVSX and MOVSXD.
#[inline(always)]
pub fn movsx<B: Backend, S: Src, F: Size, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = S::get(b, F::W, i)?;
    let v = b.sext(F::W, W::W, v);
    R::<0>::set(b, W::W, i, v)
}

/// LEA: the effective address without segment, cut or extended to the operand size.
#[inline(always)]
pub fn lea<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let ea = b.ea(i);
    let v = b.trunc(W::W, ea);
    R::<0>::set(b, W::W, i, v)
}

/// XCHG of two registers.
#[inline(always)]
pub fn xchg_registers<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (x, y) = (b.reg(W::W, i.reg[0]), b.reg(W::W, i.reg[1]));
    b.set_reg(W::W, i.reg[0], y);
    b.set_reg(W::W, i.reg[1], x);
    Ok(())
}

/// XCHG with memory: locked with or without the prefix (SDM vol. 3, 8.1.2.1). `N` is the
/// register's operand number.
#[inline(always)]
pub fn xchg_memory<B: Backend, const N: usize, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = b.reg(W::W, i.reg[N]);
    let ea = b.ea(i);
    let old = b.atomic(AtomicOp::Xchg, W::W, i.seg, ea, v)?;
    b.set_reg(W::W, i.reg[N], old);
    Ok(())
}

/// A condition code as a type.
pub trait Condition {
    /// The condition.
    const CC: Cond;
}

macro_rules! conditions {
    ($($(#[$doc:meta])* $name:ident = $cc:ident;)*) => {$(
        #[doc = concat!("Condition ", stringify!($cc), ".")]
        pub struct $name;
        impl Condition for $name {
            const CC: Cond = Cond::$cc;
        }
    )*};
}
conditions! {
    CcO = O; CcNo = No; CcB = B; CcAe = Ae; CcE = E; CcNe = Ne; CcBe = Be; CcA = A;
    CcS = S; CcNs = Ns; CcP = P; CcNp = Np; CcL = L; CcGe = Ge; CcLe = Le; CcG = G;
}

/// CMOVcc. The source is read whatever the condition; a 32-bit destination is zero-extended even
/// if nothing moves.
#[inline(always)]
pub fn cmov<B: Backend, K: Condition, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = S::get(b, W::W, i)?;
    let old = b.reg(W::W, i.reg[0]);
    let c = b.cond(K::CC);
    let v = b.select(c, v, old);
    b.set_reg(W::W, i.reg[0], v);
    Ok(())
}

/// SETcc.
#[inline(always)]
pub fn setcc<B: Backend, K: Condition, D: Dst>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let c = b.cond(K::CC);
    let v = b.cond_value(c);
    D::set(b, Width::W8, i, v)
}

/// BSWAP. With a 16-bit operand, which the manual leaves undefined, processors clear the register.
#[inline(always)]
pub fn bswap<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = if W::W == Width::W16 {
        b.imm(0)
    } else {
        let v = b.reg(W::W, i.reg[0]);
        b.un(Un::Bswap, W::W, v)
    };
    b.set_reg(W::W, i.reg[0], v);
    Ok(())
}

/// MOVBE.
#[inline(always)]
pub fn movbe<B: Backend, D: Dst, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = S::get(b, W::W, i)?;
    let v = b.un(Un::Bswap, W::W, v);
    D::set(b, W::W, i, v)
}

/// XLAT: AL = [rBX + AL].
#[inline(always)]
pub fn xlat<B: Backend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let table = b.reg(i.addrsize, gpr::RBX);
    let index = b.reg(Width::W8, gpr::RAX);
    let ea = b.bin(Bin::Add, i.addrsize, table, index);
    let v = b.load(Width::W8, i.seg, ea)?;
    b.set_reg(Width::W8, gpr::RAX, v);
    Ok(())
}

/// CBW, CWDE, CDQE: rAX = its sign-extended low half, `F` to `W`.
#[inline(always)]
pub fn extend_accumulator<B: Backend, F: Size, W: Size>(b: &mut B, _: &Insn) -> Result<(), B::E> {
    let v = b.reg(F::W, gpr::RAX);
    let v = b.sext(F::W, W::W, v);
    b.set_reg(W::W, gpr::RAX, v);
    Ok(())
}

/// CWD, CDQ, CQO: rDX = the sign of rAX.
#[inline(always)]
pub fn sign_to_dx<B: Backend, W: Size>(b: &mut B, _: &Insn) -> Result<(), B::E> {
    let v = b.reg(W::W, gpr::RAX);
    let n = b.imm(u64::from(W::W.bits()) - 1);
    let v = b.bin(Bin::Sar, W::W, v, n);
    b.set_reg(W::W, gpr::RDX, v);
    Ok(())
}

/// Status flags that LAHF and SAHF move.
const AH_FLAGS: u64 = rflags::SF | rflags::ZF | rflags::AF | rflags::PF | rflags::CF;

/// LAHF.
#[inline(always)]
pub fn lahf<B: Backend>(b: &mut B, _: &Insn) -> Result<(), B::E> {
    let status = b.status();
    let mask = b.imm(AH_FLAGS);
    let v = b.bin(Bin::And, Width::W64, status, mask);
    let fixed = b.imm(rflags::FIXED);
    let v = b.bin(Bin::Or, Width::W64, v, fixed);
    b.set_reg(Width::W8, AH, v);
    Ok(())
}

/// SAHF.
#[inline(always)]
pub fn sahf<B: Backend>(b: &mut B, _: &Insn) -> Result<(), B::E> {
    let ah = b.reg(Width::W8, AH);
    let mask = b.imm(AH_FLAGS);
    let new = b.bin(Bin::And, Width::W64, ah, mask);
    merge_status(b, AH_FLAGS, new);
    Ok(())
}

/// Replaces the status flags in `mask` by those of `new`, which has no others.
#[inline(always)]
pub fn merge_status<B: Backend>(b: &mut B, mask: u64, new: B::V) {
    let status = b.status();
    let keep = b.imm(!mask);
    let kept = b.bin(Bin::And, Width::W64, status, keep);
    let status = b.bin(Bin::Or, Width::W64, kept, new);
    b.flags(FlagOp::Bits, Width::W64, status, status, status);
}

/// CLC.
#[inline(always)]
pub fn clc<B: Backend>(b: &mut B, _: &Insn) -> Result<(), B::E> {
    let off = b.imm(0);
    b.replace_flags(rflags::CF, off);
    Ok(())
}

/// STC.
#[inline(always)]
pub fn stc<B: Backend>(b: &mut B, _: &Insn) -> Result<(), B::E> {
    let on = b.imm(rflags::CF);
    b.replace_flags(rflags::CF, on);
    Ok(())
}

/// CMC.
#[inline(always)]
pub fn cmc<B: Backend>(b: &mut B, _: &Insn) -> Result<(), B::E> {
    let c = b.cond(Cond::Ae);
    let v = b.cond_value(c);
    b.replace_flags(rflags::CF, v);
    Ok(())
}

/// SALC (undocumented, one byte D6h): AL = CF ? FFh : 0.
#[inline(always)]
pub fn salc<B: Backend>(b: &mut B, _: &Insn) -> Result<(), B::E> {
    let c = b.cond(Cond::B);
    let (ones, zero) = (b.imm(0xff), b.imm(0));
    let v = b.select(c, ones, zero);
    b.set_reg(Width::W8, gpr::RAX, v);
    Ok(())
}

/// NOP, PAUSE, hints and fences: nothing to do where accesses are already strongly ordered.
#[inline(always)]
pub fn nop<B: Backend>(_: &mut B, _: &Insn) -> Result<(), B::E> {
    Ok(())
}

/// Whether a value is zero, as a condition.
#[inline(always)]
pub fn is_zero<B: Backend>(b: &mut B, v: B::V) -> B::C {
    let zero = b.imm(0);
    b.cmp(Cmp::Eq, Width::W64, v, zero)
}
