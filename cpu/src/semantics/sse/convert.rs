//! Conversions between integers and floating point, and between precisions.

use brolga_mmu::Width;
use iced_x86::{Code, Instruction, OpKind};

use super::{File, Memory, Mm, Vex, Xmm, begin, first, operations, set, source, source_index};
use crate::backend::Handler;
use crate::insn::Insn;
use crate::vector::{ComFmt, Cvt, IntCvt, Lane, VectorBackend};

operations! {
    /// Conversions between XMM registers.
    select_vector, select_vector_vex;
    |b, i, d, s|
    M16 {
        Cvtdq2ps / Vcvtdq2ps => b.cvt(Cvt::Dq2Ps, d, s)?,
        Cvtps2dq / Vcvtps2dq => b.cvt(Cvt::Ps2Dq, d, s)?,
        Cvttps2dq / Vcvttps2dq => b.cvt(Cvt::TPs2Dq, d, s)?,
        Cvtpd2dq / Vcvtpd2dq => b.cvt(Cvt::Pd2Dq, d, s)?,
        Cvttpd2dq / Vcvttpd2dq => b.cvt(Cvt::TPd2Dq, d, s)?,
        Cvtpd2ps / Vcvtpd2ps => b.cvt(Cvt::Pd2Ps, d, s)?,
    }
    M8 {
        Cvtdq2pd / Vcvtdq2pd => b.cvt(Cvt::Dq2Pd, d, s)?,
        Cvtps2pd / Vcvtps2pd => b.cvt(Cvt::Ps2Pd, d, s)?,
        Cvtsd2ss / Vcvtsd2ss => b.cvt(Cvt::Sd2Ss, d, s)?,
    }
    M4 {
        Cvtss2sd / Vcvtss2sd => b.cvt(Cvt::Ss2Sd, d, s)?,
    }
}

/// The numbering of [`ComFmt`] in const parameters.
const fn scalar(double: bool) -> ComFmt {
    if double { ComFmt::Sd } else { ComFmt::Ss }
}

const fn integer(wide: bool) -> Width {
    if wide { Width::W64 } else { Width::W32 }
}

/// CVTSI2SS, CVTSI2SD.
fn from_integer<
    B: VectorBackend,
    R: File,
    const DOUBLE: bool,
    const WIDE: bool,
    const MEM: bool,
>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let w = integer(WIDE);
    let v = if MEM {
        let ea = b.ea(i);
        b.load(w, i.seg, ea)?
    } else {
        b.reg(w, i.reg[source_index::<R>(i)])
    };
    let d = first::<B, R>(b, i);
    let r = b.cvt_from_int(scalar(DOUBLE), w, d, v)?;
    set::<B, R>(b, i.reg[0], r);
    Ok(())
}

/// CVTSS2SI, CVTSD2SI and their truncating forms.
fn to_integer<
    B: VectorBackend,
    const DOUBLE: bool,
    const WIDE: bool,
    const TRUNCATE: bool,
    const MEM: bool,
>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let memory = if DOUBLE { Memory::M8 } else { Memory::M4 };
    let s = source::<B, Xmm, MEM>(b, i, memory)?;
    let op = IntCvt { from: scalar(DOUBLE), wide: WIDE, truncate: TRUNCATE };
    let v = b.cvt_to_int(op, s)?;
    b.set_reg(integer(WIDE), i.reg[0], v);
    Ok(())
}

/// CVTPI2PS and CVTPI2PD. The latter leaves the x87 alone if its source is memory (SDM vol. 2).
fn from_mmx<B: VectorBackend, const DOUBLE: bool, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let mmx = !(DOUBLE && MEM);
    if mmx {
        begin::<B, Mm>(b)?;
    }
    let s = source::<B, Mm, MEM>(b, i, Memory::M8)?;
    let d = b.xmm(i.reg[0]);
    let r = if DOUBLE {
        b.cvt(Cvt::Dq2Pd, d, s)?
    } else {
        // The upper half of `s` is zero, whose conversion raises nothing.
        let s = low_half(b, s);
        let r = b.cvt(Cvt::Dq2Ps, d, s)?;
        b.shuffle_d(r, d, [0, 1, 6, 7])
    };
    if mmx {
        b.mmx_enter();
    }
    b.set_xmm(i.reg[0], r);
    Ok(())
}

/// The low quadword, zero above.
#[inline(always)]
fn low_half<B: VectorBackend>(b: &mut B, x: B::X) -> B::X {
    let zero = b.const_x(0);
    b.interleave(Lane::Q, false, x, zero)
}

/// CVTPS2PI, CVTPD2PI and their truncating forms.
fn to_mmx<B: VectorBackend, const DOUBLE: bool, const TRUNCATE: bool, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    begin::<B, Mm>(b)?;
    let memory = if DOUBLE { Memory::M16 } else { Memory::M8 };
    let s = source::<B, Xmm, MEM>(b, i, memory)?;
    let s = if DOUBLE { s } else { low_half(b, s) };
    let op = match (DOUBLE, TRUNCATE) {
        (false, false) => Cvt::Ps2Dq,
        (false, true) => Cvt::TPs2Dq,
        (true, false) => Cvt::Pd2Dq,
        (true, true) => Cvt::TPd2Dq,
    };
    let r = b.cvt(op, s, s)?;
    set::<B, Mm>(b, i.reg[0], r);
    Ok(())
}

/// The register or the memory form.
macro_rules! forms {
    ($mem:expr, $function:ident $(, $param:tt)*) => {
        if $mem { $function::<B $(, $param)*, true> } else { $function::<B $(, $param)*, false> }
    };
}

/// Conversions that involve general or MMX registers.
pub fn select<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    use Code::*;
    let mem = i.op1_kind() == OpKind::Memory;
    Some(match i.code() {
        Cvtsi2ss_xmm_rm32 => forms!(mem, from_integer, Xmm, false, false),
        Cvtsi2ss_xmm_rm64 => forms!(mem, from_integer, Xmm, false, true),
        Cvtsi2sd_xmm_rm32 => forms!(mem, from_integer, Xmm, true, false),
        Cvtsi2sd_xmm_rm64 => forms!(mem, from_integer, Xmm, true, true),
        Cvtss2si_r32_xmmm32 => forms!(mem, to_integer, false, false, false),
        Cvtss2si_r64_xmmm32 => forms!(mem, to_integer, false, true, false),
        Cvttss2si_r32_xmmm32 => forms!(mem, to_integer, false, false, true),
        Cvttss2si_r64_xmmm32 => forms!(mem, to_integer, false, true, true),
        Cvtsd2si_r32_xmmm64 => forms!(mem, to_integer, true, false, false),
        Cvtsd2si_r64_xmmm64 => forms!(mem, to_integer, true, true, false),
        Cvttsd2si_r32_xmmm64 => forms!(mem, to_integer, true, false, true),
        Cvttsd2si_r64_xmmm64 => forms!(mem, to_integer, true, true, true),
        Cvtpi2ps_xmm_mmm64 => forms!(mem, from_mmx, false),
        Cvtpi2pd_xmm_mmm64 => forms!(mem, from_mmx, true),
        Cvtps2pi_mm_xmmm64 => forms!(mem, to_mmx, false, false),
        Cvttps2pi_mm_xmmm64 => forms!(mem, to_mmx, false, true),
        Cvtpd2pi_mm_xmmm128 => forms!(mem, to_mmx, true, false),
        Cvttpd2pi_mm_xmmm128 => forms!(mem, to_mmx, true, true),
        _ => return select_vector::<B, Xmm>(i),
    })
}

/// The VEX forms of those that involve general registers.
pub fn select_scalar_vex<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    use Code::*;
    let mem = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    Some(match i.code() {
        VEX_Vcvtsi2ss_xmm_xmm_rm32 => forms!(mem, from_integer, Vex, false, false),
        VEX_Vcvtsi2ss_xmm_xmm_rm64 => forms!(mem, from_integer, Vex, false, true),
        VEX_Vcvtsi2sd_xmm_xmm_rm32 => forms!(mem, from_integer, Vex, true, false),
        VEX_Vcvtsi2sd_xmm_xmm_rm64 => forms!(mem, from_integer, Vex, true, true),
        VEX_Vcvtss2si_r32_xmmm32 => forms!(mem, to_integer, false, false, false),
        VEX_Vcvtss2si_r64_xmmm32 => forms!(mem, to_integer, false, true, false),
        VEX_Vcvttss2si_r32_xmmm32 => forms!(mem, to_integer, false, false, true),
        VEX_Vcvttss2si_r64_xmmm32 => forms!(mem, to_integer, false, true, true),
        VEX_Vcvtsd2si_r32_xmmm64 => forms!(mem, to_integer, true, false, false),
        VEX_Vcvtsd2si_r64_xmmm64 => forms!(mem, to_integer, true, true, false),
        VEX_Vcvttsd2si_r32_xmmm64 => forms!(mem, to_integer, true, false, true),
        VEX_Vcvttsd2si_r64_xmmm64 => forms!(mem, to_integer, true, true, true),
        _ => return None,
    })
}
