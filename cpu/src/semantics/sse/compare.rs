//! Comparisons whose result is in RFLAGS.

use brolga_mmu::Width;
use iced_x86::{Instruction, Mnemonic, OpKind};

use super::{Memory, Xmm, source};
use crate::backend::{Bin, Cmp, Handler};
use crate::flags::FlagOp;
use crate::insn::Insn;
use crate::vcpu::rflags::{CF, ZF};
use crate::vector::{ComFmt, Lane, VectorBackend, X2};

/// Sets all six status flags to `bits`, in their RFLAGS positions.
#[inline(always)]
pub(crate) fn set_flags<B: VectorBackend>(b: &mut B, bits: B::V) {
    let zero = b.imm(0);
    b.flags(FlagOp::Bits, Width::W64, bits, zero, zero);
}

/// COMISS, COMISD, UCOMISS, UCOMISD.
fn scalars<B: VectorBackend, const DOUBLE: bool, const QUIET: bool, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let (fmt, memory) = if DOUBLE { (ComFmt::Sd, Memory::M8) } else { (ComFmt::Ss, Memory::M4) };
    let s = source::<B, Xmm, MEM>(b, i, memory)?;
    let d = b.xmm(i.reg[0]);
    let bits = b.fp_compare(fmt, QUIET, d, s)?;
    set_flags(b, bits);
    Ok(())
}

/// Whether all bits of `x` are zero, as 1 or 0 times `bit`.
#[inline(always)]
pub(crate) fn is_zero<B: VectorBackend>(b: &mut B, x: B::X, bit: u64) -> B::V {
    let low = b.extract(Lane::Q, x, 0);
    let high = b.extract(Lane::Q, x, 1);
    let any = b.bin(Bin::Or, Width::W64, low, high);
    let (zero, bit) = (b.imm(0), b.imm(bit));
    let none = b.cmp(Cmp::Eq, Width::W64, any, zero);
    b.select(none, bit, zero)
}

/// PTEST.
fn test<B: VectorBackend, const MEM: bool>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let s = source::<B, Xmm, MEM>(b, i, Memory::M16)?;
    let d = b.xmm(i.reg[0]);
    let common = b.x2(X2::And, Lane::Q, d, s);
    let outside = b.x2(X2::AndNot, Lane::Q, d, s);
    let zf = is_zero(b, common, ZF);
    let cf = is_zero(b, outside, CF);
    let bits = b.bin(Bin::Or, Width::W64, zf, cf);
    set_flags(b, bits);
    Ok(())
}

/// Comparisons into RFLAGS.
pub fn select<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    match (i.mnemonic(), i.op1_kind()) {
        (Mnemonic::Ptest, OpKind::Memory) => Some(test::<B, true>),
        (Mnemonic::Ptest, _) => Some(test::<B, false>),
        _ => select_scalars(i),
    }
}

/// Those of scalars, and their VEX forms.
pub fn select_scalars<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    use Mnemonic::*;
    let mem = i.op1_kind() == OpKind::Memory;
    Some(match (i.mnemonic(), mem) {
        (Comiss | Vcomiss, false) => scalars::<B, false, false, false>,
        (Comiss | Vcomiss, true) => scalars::<B, false, false, true>,
        (Comisd | Vcomisd, false) => scalars::<B, true, false, false>,
        (Comisd | Vcomisd, true) => scalars::<B, true, false, true>,
        (Ucomiss | Vucomiss, false) => scalars::<B, false, true, false>,
        (Ucomiss | Vucomiss, true) => scalars::<B, false, true, true>,
        (Ucomisd | Vucomisd, false) => scalars::<B, true, true, false>,
        (Ucomisd | Vucomisd, true) => scalars::<B, true, true, true>,
        _ => return None,
    })
}
