//! Conversions whose result has another width than their source: to narrower lanes, and between half
//! and single precision.

use brolga_mmu::Width;

use super::{half, in_memory, set_halves, set_low, sources};
use crate::backend::Bin;
use crate::insn::{Insn, bits};
use crate::semantics::sse::{Memory, load};
use crate::vector::{Cvt, Lane, VectorBackend};

/// VCVTPD2PS, VCVTPD2DQ and VCVTTPD2DQ of 256 bits, by their number.
pub fn narrow<B: VectorBackend, const OPERATION: u8>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let op = match OPERATION {
        0 => Cvt::Pd2Ps,
        1 => Cvt::Pd2Dq,
        _ => Cvt::TPd2Dq,
    };
    let s = sources(b, i, Memory::M16U)?;
    let [low, high] = b.halves(|b, n| b.cvt(op, s[n], s[n]))?;
    let r = b.interleave(Lane::Q, false, low, high);
    set_low(b, i.reg[0], r);
    Ok(())
}

/// VCVTPH2PS.
pub fn from_half<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let wide = i.has(bits::YMM);
    let memory = if wide { Memory::M16U } else { Memory::M8 };
    let s = if in_memory(i) { load(b, i, memory)? } else { b.xmm(i.reg[1]) };
    if !wide {
        let r = b.cvt(Cvt::Ph2Ps, s, s)?;
        set_low(b, i.reg[0], r);
        return Ok(());
    }
    let upper = b.shuffle_d(s, s, [2, 3, 2, 3]);
    let r = b.halves(|b, n| b.cvt(Cvt::Ph2Ps, s, if n == 0 { s } else { upper }))?;
    set_halves(b, i.reg[0], r);
    Ok(())
}

/// VCVTPS2PH to a register.
pub fn to_half<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let r = halves_of(b, i)?;
    set_low(b, i.reg[0], r);
    Ok(())
}

/// VCVTPS2PH to memory. What the conversion raises comes after what the access does.
pub fn store_half<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let ea = b.ea(i);
    let (low, _) = b.modify(Width::W64, i.seg, ea)?;
    let high = if i.has(bits::YMM) {
        let (eight, mask) = (b.imm(8), b.imm(i.ea_mask));
        let next = b.bin(Bin::Add, Width::W64, ea, eight);
        let next = b.bin(Bin::And, Width::W64, next, mask);
        Some(b.modify(Width::W64, i.seg, next)?.0)
    } else {
        None
    };
    let r = halves_of(b, i)?;
    let v = b.extract(Lane::Q, r, 0);
    b.commit(low, Width::W64, v);
    if let Some(high) = high {
        let v = b.extract(Lane::Q, r, 1);
        b.commit(high, Width::W64, v);
    }
    Ok(())
}

/// The source's numbers in half precision.
#[inline(always)]
fn halves_of<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<B::X, B::E> {
    let op = Cvt::Ps2Ph(i.imm as u8 & 7);
    if !i.has(bits::YMM) {
        let s = b.xmm(i.reg[1]);
        return b.cvt(op, s, s);
    }
    let [low, high] = b.halves(|b, n| {
        let s = half(b, i.reg[1], n);
        b.cvt(op, s, s)
    })?;
    Ok(b.interleave(Lane::Q, false, low, high))
}
