//! SSE to SSE4.2, and the instructions that save and restore vector state.

use iced_x86::{Code, EncodingKind, Instruction, Mnemonic, OpKind};

use super::complex;
use crate::backend::Handler;
use crate::insn::Insn;
use crate::semantics::sse::{
    File, Xmm, compare, convert, crypto, float, integer, masked, moves, scalar, shifts, shuffle,
    state, string, xsave,
};
use crate::vector::VectorBackend;

/// The handler of an SSE instruction. VEX and EVEX encodings are none.
pub(super) fn select<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    if i.code().encoding() != EncodingKind::Legacy {
        return None;
    }
    moves::select(i)
        .or_else(|| scalar::select(i))
        .or_else(|| convert::select(i))
        .or_else(|| compare::select(i))
        .or_else(|| vectors(i))
        .or_else(|| strings::<B, Xmm>(i))
        .or_else(|| others(i))
}

/// Operations on XMM registers.
fn vectors<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    // Not the string instructions MOVSD and CMPSD, nor MMX.
    if i.op0_kind() != OpKind::Register || !i.op0_register().is_xmm() {
        return None;
    }
    let mem = i.op1_kind() == OpKind::Memory;
    match i.mnemonic() {
        Mnemonic::Insertps if mem => return Some(shuffle::insert_single::<B, Xmm, true>),
        Mnemonic::Insertps => return Some(shuffle::insert_single::<B, Xmm, false>),
        _ => {}
    }
    integer::select::<B, Xmm>(i)
        .or_else(|| integer::select_wide::<B, Xmm>(i))
        .or_else(|| shifts::select::<B, Xmm>(i))
        .or_else(|| shuffle::select::<B, Xmm>(i))
        .or_else(|| float::select::<B, Xmm>(i))
        .or_else(|| crypto::select::<B, Xmm>(i))
}

/// PCMPxSTRx and VPCMPxSTRx.
pub(super) fn strings<B: VectorBackend, R: File>(i: &Instruction) -> Option<Handler<B>> {
    use Mnemonic::*;
    let mem = i.op1_kind() == OpKind::Memory;
    Some(match (i.mnemonic(), mem) {
        (Pcmpestri | Pcmpestri64 | Vpcmpestri | Vpcmpestri64, false) => {
            string::compare::<B, R, true, false, false>
        }
        (Pcmpestri | Pcmpestri64 | Vpcmpestri | Vpcmpestri64, true) => {
            string::compare::<B, R, true, false, true>
        }
        (Pcmpestrm | Pcmpestrm64 | Vpcmpestrm | Vpcmpestrm64, false) => {
            string::compare::<B, R, true, true, false>
        }
        (Pcmpestrm | Pcmpestrm64 | Vpcmpestrm | Vpcmpestrm64, true) => {
            string::compare::<B, R, true, true, true>
        }
        (Pcmpistri | Vpcmpistri, false) => string::compare::<B, R, false, false, false>,
        (Pcmpistri | Vpcmpistri, true) => string::compare::<B, R, false, false, true>,
        (Pcmpistrm | Vpcmpistrm, false) => string::compare::<B, R, false, true, false>,
        (Pcmpistrm | Vpcmpistrm, true) => string::compare::<B, R, false, true, true>,
        _ => return None,
    })
}

/// State, masked stores, hints and fences.
fn others<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    use Code::*;
    Some(match i.code() {
        Ldmxcsr_m32 => complex!(state::ldmxcsr),
        Stmxcsr_m32 => complex!(state::stmxcsr),
        Fxsave_m512byte | Fxsave64_m512byte => complex!(state::fxsave),
        Fxrstor_m512byte | Fxrstor64_m512byte => complex!(state::fxrstor),
        Xsave_mem | Xsave64_mem => complex!(xsave::xsave::<false>),
        Xsaveopt_mem | Xsaveopt64_mem => complex!(xsave::xsave::<true>),
        Xsavec_mem | Xsavec64_mem => complex!(xsave::xsave_compacted::<false>),
        Xsaves_mem | Xsaves64_mem => complex!(xsave::xsave_compacted::<true>),
        Xrstor_mem | Xrstor64_mem => complex!(xsave::xrstor::<false>),
        Xrstors_mem | Xrstors64_mem => complex!(xsave::xrstor::<true>),
        Maskmovdqu_rDI_xmm_xmm => complex!(masked::store::<Xmm>),
        Mfence => complex!(state::mfence),
        // Guest accesses are never reordered: the host does not do it, or the softmmu forbids it.
        Lfence | Sfence => nothing::<B>,
        Prefetchnta_m8 | Prefetcht0_m8 | Prefetcht1_m8 | Prefetcht2_m8 | Prefetchw_m8
        | Prefetchwt1_m8 | Prefetch_m8 => nothing::<B>,
        _ => return None,
    })
}

/// A hint.
fn nothing<B: VectorBackend>(_: &mut B, _: &Insn) -> Result<(), B::E> {
    Ok(())
}
