//! Conversions whose result has another width than their source: to narrower lanes, and between half
//! and single precision.

use super::{half, in_memory, set_halves, set_low, sources};
use crate::insn::{Insn, bits};
use crate::semantics::sse::{Memory, load};
use crate::vector::{Cvt, Lane, VecWidth, VectorBackend};

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

/// VCVTPS2PH.
pub fn to_half<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let op = Cvt::Ps2Ph(i.imm as u8 & 7);
    let wide = i.has(bits::YMM);
    let (low, high) = (half(b, i.reg[1], 0), half(b, i.reg[1], 1));
    let r = if wide {
        let [low, high] = b.halves(|b, n| {
            let s = if n == 0 { low } else { high };
            b.cvt(op, s, s)
        })?;
        b.interleave(Lane::Q, false, low, high)
    } else {
        b.cvt(op, low, low)?
    };
    if i.has(bits::MEM0) {
        let ea = b.ea(i);
        let width = if wide { VecWidth::V16 } else { VecWidth::V8 };
        return b.store_x(width, i.seg, ea, false, r);
    }
    set_low(b, i.reg[0], r);
    Ok(())
}
