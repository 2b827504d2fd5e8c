//! Moves between vector registers and memory.

use iced_x86::{Code, Instruction, OpKind};

use super::{File, Memory, Mm, Vex, Xmm, begin, end, first, get, load, set, source};
use crate::backend::Handler;
use crate::insn::Insn;
use crate::vector::{Lane, VecWidth, VectorBackend};

/// Widths and alignments of moves, as const parameters.
const X4: u8 = 4;
const X8: u8 = 8;
const X16: u8 = 16;
/// 16 bytes that need not be aligned.
const X16U: u8 = 17;

const fn memory(kind: u8) -> Memory {
    match kind {
        X4 => Memory::M4,
        X8 => Memory::M8,
        X16 => Memory::M16,
        _ => Memory::M16U,
    }
}

/// A whole register, from a register.
fn copy<B: VectorBackend, R: File>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    begin::<B, R>(b)?;
    let v = get::<B, R>(b, i.reg[1]);
    set::<B, R>(b, i.reg[0], v);
    Ok(())
}

/// From memory, zero-extending.
fn load_register<B: VectorBackend, R: File, const KIND: u8>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    begin::<B, R>(b)?;
    let v = load(b, i, memory(KIND))?;
    set::<B, R>(b, i.reg[0], v);
    Ok(())
}

/// The low part to memory.
fn store_register<B: VectorBackend, R: File, const KIND: u8>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    begin::<B, R>(b)?;
    let v = get::<B, R>(b, i.reg[1]);
    let ea = b.ea(i);
    let Memory { width, aligned } = memory(KIND);
    b.store_x(width, i.seg, ea, aligned, v)?;
    end::<B, R>(b);
    Ok(())
}

/// MOVSS and MOVSD between registers: the upper lanes stay.
fn merge<B: VectorBackend, R: File, const KIND: u8>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (d, s) = (first::<B, R>(b, i), source::<B, R, false>(b, i, memory(KIND))?);
    let r = b.shuffle_d(d, s, if KIND == X4 { [4, 1, 2, 3] } else { [4, 5, 2, 3] });
    set::<B, R>(b, i.reg[0], r);
    Ok(())
}

/// MOVQ between XMM registers: zero-extends.
fn copy_low<B: VectorBackend, R: File>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (s, zero) = (b.xmm(i.reg[1]), b.const_x(0));
    let r = b.interleave(Lane::Q, false, s, zero);
    set::<B, R>(b, i.reg[0], r);
    Ok(())
}

/// MOVLPS and MOVHPS from memory: the other half stays.
fn load_half<B: VectorBackend, R: File, const HIGH: bool>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let s = load(b, i, Memory::M8)?;
    let d = first::<B, R>(b, i);
    let r = b.shuffle_d(d, s, if HIGH { [0, 1, 4, 5] } else { [4, 5, 2, 3] });
    set::<B, R>(b, i.reg[0], r);
    Ok(())
}

/// MOVHPS to memory.
fn store_high<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = b.xmm(i.reg[1]);
    let high = b.shuffle_d(v, v, [2, 3, 2, 3]);
    let ea = b.ea(i);
    b.store_x(VecWidth::V8, i.seg, ea, false, high)
}

/// MOVLHPS and MOVHLPS: one half of the source to the other half of the destination.
fn cross<B: VectorBackend, R: File, const TO_HIGH: bool>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (d, s) = (first::<B, R>(b, i), source::<B, R, false>(b, i, Memory::M16)?);
    let r = b.shuffle_d(d, s, if TO_HIGH { [0, 1, 4, 5] } else { [6, 7, 2, 3] });
    set::<B, R>(b, i.reg[0], r);
    Ok(())
}

/// Moves between registers of one file, and memory.
pub fn select<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    use Code::*;
    let register = i.op0_kind() == OpKind::Register && i.op1_kind() == OpKind::Register;
    Some(match i.code() {
        Movaps_xmm_xmmm128 | Movapd_xmm_xmmm128 | Movdqa_xmm_xmmm128 | Movups_xmm_xmmm128
        | Movupd_xmm_xmmm128 | Movdqu_xmm_xmmm128 | Movaps_xmmm128_xmm | Movapd_xmmm128_xmm
        | Movdqa_xmmm128_xmm | Movups_xmmm128_xmm | Movupd_xmmm128_xmm | Movdqu_xmmm128_xmm
            if register =>
        {
            copy::<B, Xmm>
        }
        Movaps_xmm_xmmm128 | Movapd_xmm_xmmm128 | Movdqa_xmm_xmmm128 | Movntdqa_xmm_m128 => {
            load_register::<B, Xmm, X16>
        }
        Movups_xmm_xmmm128 | Movupd_xmm_xmmm128 | Movdqu_xmm_xmmm128 | Lddqu_xmm_m128 => {
            load_register::<B, Xmm, X16U>
        }
        Movaps_xmmm128_xmm | Movapd_xmmm128_xmm | Movdqa_xmmm128_xmm | Movntps_m128_xmm
        | Movntpd_m128_xmm | Movntdq_m128_xmm => store_register::<B, Xmm, X16>,
        Movups_xmmm128_xmm | Movupd_xmmm128_xmm | Movdqu_xmmm128_xmm => {
            store_register::<B, Xmm, X16U>
        }
        Movss_xmm_xmmm32 | Movss_xmmm32_xmm if register => merge::<B, Xmm, X4>,
        Movsd_xmm_xmmm64 | Movsd_xmmm64_xmm if register => merge::<B, Xmm, X8>,
        Movss_xmm_xmmm32 => load_register::<B, Xmm, X4>,
        Movss_xmmm32_xmm => store_register::<B, Xmm, X4>,
        Movsd_xmm_xmmm64 => load_register::<B, Xmm, X8>,
        Movsd_xmmm64_xmm => store_register::<B, Xmm, X8>,
        Movq_xmm_xmmm64 | Movq_xmmm64_xmm if register => copy_low::<B, Xmm>,
        Movq_xmm_xmmm64 => load_register::<B, Xmm, X8>,
        Movq_xmmm64_xmm | Movlps_m64_xmm | Movlpd_m64_xmm => store_register::<B, Xmm, X8>,
        Movlps_xmm_m64 | Movlpd_xmm_m64 => load_half::<B, Xmm, false>,
        Movhps_xmm_m64 | Movhpd_xmm_m64 => load_half::<B, Xmm, true>,
        Movhps_m64_xmm | Movhpd_m64_xmm => store_high::<B>,
        Movlhps_xmm_xmm => cross::<B, Xmm, true>,
        Movhlps_xmm_xmm => cross::<B, Xmm, false>,
        Movq_mm_mmm64 | Movq_mmm64_mm if register => copy::<B, Mm>,
        Movq_mm_mmm64 => load_register::<B, Mm, X8>,
        Movq_mmm64_mm | Movntq_m64_mm => store_register::<B, Mm, X8>,
        _ => return None,
    })
}

/// The VEX forms of those that move no whole register.
pub fn select_vex<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    use Code::*;
    let register = i.op0_kind() == OpKind::Register && i.op1_kind() == OpKind::Register;
    Some(match i.code() {
        VEX_Vmovss_xmm_xmm_xmm | VEX_Vmovss_xmm_xmm_xmm_0F11 => merge::<B, Vex, X4>,
        VEX_Vmovsd_xmm_xmm_xmm | VEX_Vmovsd_xmm_xmm_xmm_0F11 => merge::<B, Vex, X8>,
        VEX_Vmovss_xmm_m32 => load_register::<B, Vex, X4>,
        VEX_Vmovss_m32_xmm => store_register::<B, Vex, X4>,
        VEX_Vmovsd_xmm_m64 => load_register::<B, Vex, X8>,
        VEX_Vmovsd_m64_xmm => store_register::<B, Vex, X8>,
        VEX_Vmovq_xmm_xmmm64 | VEX_Vmovq_xmmm64_xmm if register => copy_low::<B, Vex>,
        VEX_Vmovq_xmm_xmmm64 => load_register::<B, Vex, X8>,
        VEX_Vmovq_xmmm64_xmm | VEX_Vmovlps_m64_xmm | VEX_Vmovlpd_m64_xmm => {
            store_register::<B, Vex, X8>
        }
        VEX_Vmovlps_xmm_xmm_m64 | VEX_Vmovlpd_xmm_xmm_m64 => load_half::<B, Vex, false>,
        VEX_Vmovhps_xmm_xmm_m64 | VEX_Vmovhpd_xmm_xmm_m64 => load_half::<B, Vex, true>,
        VEX_Vmovhps_m64_xmm | VEX_Vmovhpd_m64_xmm => store_high::<B>,
        VEX_Vmovlhps_xmm_xmm_xmm => cross::<B, Vex, true>,
        VEX_Vmovhlps_xmm_xmm_xmm => cross::<B, Vex, false>,
        _ => return None,
    })
}
