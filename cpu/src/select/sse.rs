//! SSE to SSE4.2, and the instructions that save and restore vector state.

use iced_x86::{Code, EncodingKind, Instruction, Mnemonic, OpKind};

use super::complex;
use crate::backend::Handler;
use crate::insn::Insn;
use crate::semantics::sse::{
    Xmm, compare, convert, crypto, float, integer, masked, moves, scalar, shifts, shuffle, state,
    string,
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
        .or_else(|| strings(i))
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
        Mnemonic::Insertps if mem => return Some(shuffle::insert_single::<B, true>),
        Mnemonic::Insertps => return Some(shuffle::insert_single::<B, false>),
        _ => {}
    }
    integer::select::<B, Xmm>(i)
        .or_else(|| integer::select_wide::<B, Xmm>(i))
        .or_else(|| shifts::select::<B, Xmm>(i))
        .or_else(|| shuffle::select::<B, Xmm>(i))
        .or_else(|| float::select::<B, Xmm>(i))
        .or_else(|| crypto::select::<B, Xmm>(i))
}

/// PCMPxSTRx.
fn strings<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    let mem = i.op1_kind() == OpKind::Memory;
    Some(match (i.mnemonic(), mem) {
        (Mnemonic::Pcmpestri | Mnemonic::Pcmpestri64, false) => {
            string::compare::<B, true, false, false>
        }
        (Mnemonic::Pcmpestri | Mnemonic::Pcmpestri64, true) => {
            string::compare::<B, true, false, true>
        }
        (Mnemonic::Pcmpestrm | Mnemonic::Pcmpestrm64, false) => {
            string::compare::<B, true, true, false>
        }
        (Mnemonic::Pcmpestrm | Mnemonic::Pcmpestrm64, true) => {
            string::compare::<B, true, true, true>
        }
        (Mnemonic::Pcmpistri, false) => string::compare::<B, false, false, false>,
        (Mnemonic::Pcmpistri, true) => string::compare::<B, false, false, true>,
        (Mnemonic::Pcmpistrm, false) => string::compare::<B, false, true, false>,
        (Mnemonic::Pcmpistrm, true) => string::compare::<B, false, true, true>,
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
        Xsave_mem | Xsave64_mem => complex!(state::xsave::<false>),
        Xsaveopt_mem | Xsaveopt64_mem => complex!(state::xsave::<true>),
        Xrstor_mem | Xrstor64_mem => complex!(state::xrstor),
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
