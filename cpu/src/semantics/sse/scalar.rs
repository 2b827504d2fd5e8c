//! Between vectors and general registers: MOVD, MOVQ, PEXTR, PINSR, MOVMSK, MOVNTI; and CRC32.

use brolga_mmu::Width;
use iced_x86::{Code, Instruction, OpKind};

use super::{File, Mm, Vex, Xmm, begin, end, first, get, set, source_index};
use crate::backend::Handler;
use crate::insn::Insn;
use crate::vector::{Lane, VectorBackend};

/// Lane kinds as const parameters.
const B8: u8 = 0;
const W16: u8 = 1;
const D32: u8 = 2;
const Q64: u8 = 3;

const fn lane(kind: u8) -> Lane {
    match kind {
        B8 => Lane::B,
        W16 => Lane::W,
        D32 => Lane::D,
        _ => Lane::Q,
    }
}

/// The register that holds a lane: never less than 32 bits.
const fn register(lane: Lane) -> Width {
    match lane {
        Lane::Q => Width::W64,
        _ => Width::W32,
    }
}

/// The source as an integer.
#[inline(always)]
fn integer<B: VectorBackend, R: File, const MEM: bool>(
    b: &mut B,
    i: &Insn,
    lane: Lane,
) -> Result<B::V, B::E> {
    if MEM {
        let ea = b.ea(i);
        b.load(lane.width(), i.seg, ea)
    } else {
        Ok(b.reg(register(lane), i.reg[source_index::<R>(i)]))
    }
}

/// The lane that an immediate selects, modulo their number.
#[inline(always)]
fn selected<R: File>(i: &Insn, lane: Lane) -> u8 {
    let bytes = if R::MMX { 8 } else { 16 };
    i.imm as u8 & (bytes / lane.bytes() as u8 - 1)
}

/// MOVD and MOVQ from an integer: zero-extends.
fn from_integer<B: VectorBackend, R: File, const LANE: u8, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    begin::<B, R>(b)?;
    let v = integer::<B, R, MEM>(b, i, lane(LANE))?;
    let v = b.vector_of(v);
    set::<B, R>(b, i.reg[0], v);
    Ok(())
}

/// MOVD, MOVQ (`FIRST`), PEXTR, EXTRACTPS: a lane to a register or memory.
fn to_integer<B: VectorBackend, R: File, const LANE: u8, const FIRST: bool, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let lane = lane(LANE);
    begin::<B, R>(b)?;
    let x = get::<B, R>(b, i.reg[1]);
    let n = if FIRST { 0 } else { selected::<R>(i, lane) };
    let v = b.extract(lane, x, n);
    if MEM {
        let ea = b.ea(i);
        b.store(lane.width(), i.seg, ea, v)?;
    } else {
        b.set_reg(register(lane), i.reg[0], v);
    }
    end::<B, R>(b);
    Ok(())
}

/// PINSR.
fn insert<B: VectorBackend, R: File, const LANE: u8, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let lane = lane(LANE);
    begin::<B, R>(b)?;
    let v = integer::<B, R, MEM>(b, i, lane)?;
    let d = first::<B, R>(b, i);
    let r = b.insert(lane, d, selected::<R>(i, lane), v);
    set::<B, R>(b, i.reg[0], r);
    Ok(())
}

/// MOVMSKPS, MOVMSKPD, PMOVMSKB.
fn mask<B: VectorBackend, R: File, const LANE: u8>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    begin::<B, R>(b)?;
    let x = get::<B, R>(b, i.reg[1]);
    let v = b.movemask(lane(LANE), x);
    b.set_reg(Width::W32, i.reg[0], v);
    end::<B, R>(b);
    Ok(())
}

/// MOVNTI.
fn store_integer<B: VectorBackend, const LANE: u8>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let w = lane(LANE).width();
    let v = b.reg(w, i.reg[1]);
    let ea = b.ea(i);
    b.store(w, i.seg, ea, v)
}

/// CRC32. The upper half of a 64-bit destination becomes zero.
fn crc32<B: VectorBackend, const LANE: u8, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let w = lane(LANE).width();
    let data = if MEM {
        let ea = b.ea(i);
        b.load(w, i.seg, ea)?
    } else {
        b.reg(w, i.reg[1])
    };
    let crc = b.reg(Width::W32, i.reg[0]);
    let r = b.crc32c(w, crc, data);
    b.set_reg(Width::W32, i.reg[0], r);
    Ok(())
}

/// The register or the memory form.
macro_rules! forms {
    ($mem:expr, $function:ident $(, $param:tt)*) => {
        if $mem { $function::<B $(, $param)*, true> } else { $function::<B $(, $param)*, false> }
    };
}

/// Moves that involve integers.
pub fn select<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    use Code::*;
    let (mem0, mem1) = (i.op0_kind() == OpKind::Memory, i.op1_kind() == OpKind::Memory);
    Some(match i.code() {
        Movd_xmm_rm32 => forms!(mem1, from_integer, Xmm, D32),
        Movq_xmm_rm64 => forms!(mem1, from_integer, Xmm, Q64),
        Movd_mm_rm32 => forms!(mem1, from_integer, Mm, D32),
        Movq_mm_rm64 => forms!(mem1, from_integer, Mm, Q64),
        Movd_rm32_xmm => forms!(mem0, to_integer, Xmm, D32, true),
        Movq_rm64_xmm => forms!(mem0, to_integer, Xmm, Q64, true),
        Movd_rm32_mm => forms!(mem0, to_integer, Mm, D32, true),
        Movq_rm64_mm => forms!(mem0, to_integer, Mm, Q64, true),
        Pextrb_r32m8_xmm_imm8 | Pextrb_r64m8_xmm_imm8 => {
            forms!(mem0, to_integer, Xmm, B8, false)
        }
        Pextrw_r32m16_xmm_imm8
        | Pextrw_r64m16_xmm_imm8
        | Pextrw_r32_xmm_imm8
        | Pextrw_r64_xmm_imm8 => forms!(mem0, to_integer, Xmm, W16, false),
        Pextrw_r32_mm_imm8 | Pextrw_r64_mm_imm8 => to_integer::<B, Mm, W16, false, false>,
        Pextrd_rm32_xmm_imm8 | Extractps_rm32_xmm_imm8 | Extractps_r64m32_xmm_imm8 => {
            forms!(mem0, to_integer, Xmm, D32, false)
        }
        Pextrq_rm64_xmm_imm8 => forms!(mem0, to_integer, Xmm, Q64, false),
        Pinsrb_xmm_r32m8_imm8 | Pinsrb_xmm_r64m8_imm8 => forms!(mem1, insert, Xmm, B8),
        Pinsrw_xmm_r32m16_imm8 | Pinsrw_xmm_r64m16_imm8 => forms!(mem1, insert, Xmm, W16),
        Pinsrw_mm_r32m16_imm8 | Pinsrw_mm_r64m16_imm8 => forms!(mem1, insert, Mm, W16),
        Pinsrd_xmm_rm32_imm8 => forms!(mem1, insert, Xmm, D32),
        Pinsrq_xmm_rm64_imm8 => forms!(mem1, insert, Xmm, Q64),
        Movmskps_r32_xmm | Movmskps_r64_xmm => mask::<B, Xmm, D32>,
        Movmskpd_r32_xmm | Movmskpd_r64_xmm => mask::<B, Xmm, Q64>,
        Pmovmskb_r32_xmm | Pmovmskb_r64_xmm => mask::<B, Xmm, B8>,
        Pmovmskb_r32_mm | Pmovmskb_r64_mm => mask::<B, Mm, B8>,
        Movnti_m32_r32 => store_integer::<B, D32>,
        Movnti_m64_r64 => store_integer::<B, Q64>,
        Crc32_r32_rm8 | Crc32_r64_rm8 => forms!(mem1, crc32, B8),
        Crc32_r32_rm16 => forms!(mem1, crc32, W16),
        Crc32_r32_rm32 => forms!(mem1, crc32, D32),
        Crc32_r64_rm64 => forms!(mem1, crc32, Q64),
        _ => return None,
    })
}

/// The VEX forms, but for the masks of 256 bits.
pub fn select_vex<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    use Code::*;
    let mem = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    Some(match i.code() {
        VEX_Vmovd_xmm_rm32 => forms!(mem, from_integer, Vex, D32),
        VEX_Vmovq_xmm_rm64 => forms!(mem, from_integer, Vex, Q64),
        VEX_Vmovd_rm32_xmm => forms!(mem, to_integer, Vex, D32, true),
        VEX_Vmovq_rm64_xmm => forms!(mem, to_integer, Vex, Q64, true),
        VEX_Vpextrb_r32m8_xmm_imm8 | VEX_Vpextrb_r64m8_xmm_imm8 => {
            forms!(mem, to_integer, Vex, B8, false)
        }
        VEX_Vpextrw_r32m16_xmm_imm8
        | VEX_Vpextrw_r64m16_xmm_imm8
        | VEX_Vpextrw_r32_xmm_imm8
        | VEX_Vpextrw_r64_xmm_imm8 => forms!(mem, to_integer, Vex, W16, false),
        VEX_Vpextrd_rm32_xmm_imm8
        | VEX_Vextractps_rm32_xmm_imm8
        | VEX_Vextractps_r64m32_xmm_imm8 => forms!(mem, to_integer, Vex, D32, false),
        VEX_Vpextrq_rm64_xmm_imm8 => forms!(mem, to_integer, Vex, Q64, false),
        VEX_Vpinsrb_xmm_xmm_r32m8_imm8 | VEX_Vpinsrb_xmm_xmm_r64m8_imm8 => {
            forms!(mem, insert, Vex, B8)
        }
        VEX_Vpinsrw_xmm_xmm_r32m16_imm8 | VEX_Vpinsrw_xmm_xmm_r64m16_imm8 => {
            forms!(mem, insert, Vex, W16)
        }
        VEX_Vpinsrd_xmm_xmm_rm32_imm8 => forms!(mem, insert, Vex, D32),
        VEX_Vpinsrq_xmm_xmm_rm64_imm8 => forms!(mem, insert, Vex, Q64),
        VEX_Vmovmskps_r32_xmm | VEX_Vmovmskps_r64_xmm => mask::<B, Vex, D32>,
        VEX_Vmovmskpd_r32_xmm | VEX_Vmovmskpd_r64_xmm => mask::<B, Vex, Q64>,
        VEX_Vpmovmskb_r32_xmm | VEX_Vpmovmskb_r64_xmm => mask::<B, Vex, B8>,
        _ => return None,
    })
}
