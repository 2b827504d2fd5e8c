//! Which semantics an instruction has: one table for every engine.

mod avx;
mod control;
mod features;
mod integer;
mod mmx;
mod sse;
mod system;
mod x87;

use iced_x86::{EncodingKind, FlowControl, Instruction, Mnemonic, Register};

use crate::backend::{Backend, Complex, Handler};
use crate::block::Mode;
use crate::chain::{self, Bound, Chained};
use crate::core::{Core, Exit};
use crate::cpuid::CpuModel;
use crate::decode::segment;
use crate::exception::{Exception, vector};
use crate::insn::Insn;
use crate::semantics::operand::{Access, Based, Indexed, M, Mem, Memory, Quick};
use crate::vector::VectorBackend;

/// An instruction's meaning, and what it does to the block it is in.
pub struct Selected<B: Backend> {
    /// Its meaning.
    pub handler: Handler<B>,
    /// See [`crate::block::Op::quick`].
    pub quick: Chained<B>,
    /// It is the last of its block.
    pub ends_block: bool,
    /// It sets RIP itself.
    pub jumps: bool,
    /// Events or the mode may be different afterwards.
    pub checks: bool,
}

/// A [`Complex`] function as a type, so that it can be a [`Handler`] of any backend.
pub trait Rare {
    /// The function.
    const RUN: Complex;
}

/// The handler of a complex instruction.
pub fn rare<B: Backend, F: Rare>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    b.complex(i, F::RUN)
}

/// The handler that runs a plain function over the core.
macro_rules! complex {
    ($f:expr) => {{
        struct F;
        impl $crate::select::Rare for F {
            const RUN: $crate::backend::Complex = $f;
        }
        $crate::select::rare::<B, F>
    }};
}
pub(crate) use complex;

fn undefined(core: &mut Core, _: &Insn) -> Result<(), Exit> {
    Err(core.raise(Exception::ud("undefined opcode, or a form or feature this CPU lacks")))
}

fn not_available(core: &mut Core, _: &Insn) -> Result<(), Exit> {
    Err(core.raise(Exception::plain(vector::NM, "FPU not available: CR0.EM or CR0.TS is set")))
}

/// Finds the meaning of `i` in `mode` on `model`.
pub fn select<B: VectorBackend>(i: &Instruction, mode: Mode, model: &CpuModel) -> Selected<B> {
    let refused = gate::<B>(i, mode, model);
    // What the mode or the model refuses has no quick form: that would be the meaning itself.
    let quick = if refused.is_some() { None } else { quick(i, mode) }.unwrap_or(chain::full);
    let found = refused.or_else(|| {
        common::<B, M>(i)
            .map(|bound| bound.handler)
            .or_else(|| system::select(i))
            .or_else(|| x87::select(i))
            .or_else(|| mmx::select(i))
            .or_else(|| sse::select(i))
            .or_else(|| avx::select(i))
    });
    let jumps = i.flow_control() != FlowControl::Next;
    match found {
        Some(handler) => {
            let checks = jumps && !control::is_near_branch(i) || system::ends_block(i);
            let ends_block = jumps || checks || repeats(i);
            Selected { handler, quick, ends_block, jumps, checks }
        }
        None => {
            let handler = complex!(undefined);
            Selected { handler, quick, ends_block: true, jumps: false, checks: true }
        }
    }
}

/// The instructions that most of all code consists of.
fn common<B: Backend, M: Memory>(i: &Instruction) -> Option<Bound<B>> {
    integer::select::<B, M>(i).or_else(|| control::select::<B, M>(i))
}

/// The quick form of an instruction, if it has one: what accesses memory does so through flat
/// segments, by `M` and `M::Access` only.
fn quick<B: Backend>(i: &Instruction, mode: Mode) -> Option<Chained<B>> {
    let flat = |r| segment(r, mode).is_flat();
    if !B::QUICK || !flat(Register::SS) || !flat(i.memory_segment()) || i.has_lock_prefix() {
        return None;
    }
    let bound = match i.memory_index() {
        Register::None => common::<B, Mem<Quick, Based>>(i),
        _ => common::<B, Mem<Quick, Indexed>>(i),
    };
    bound.map(|bound| bound.quick)
}

/// Binds a function generic over `M` in its quick form too, if `M` is quick.
fn bind<B: Backend, M: Memory, F>(handler: Handler<B>, f: F) -> Bound<B>
where
    F: Fn(&mut B, &Insn) -> Result<(), B::E> + Copy,
{
    let quick = if M::Access::QUICK { chain::quick(f) } else { chain::full };
    Bound { handler, quick }
}

/// The meaning that is a function generic over `M`.
macro_rules! bound {
    ($f:expr) => {
        $crate::select::bind::<B, M, _>($f, $f)
    };
}
pub(crate) use bound;

/// A repeated string instruction: what it retires is known only afterwards.
fn repeats(i: &Instruction) -> bool {
    (i.has_rep_prefix() || i.has_repne_prefix()) && i.is_string_instruction()
}

/// What the mode or the CPU model makes of an instruction before its meaning counts: #UD or #NM.
fn gate<B: Backend>(i: &Instruction, mode: Mode, model: &CpuModel) -> Option<Handler<B>> {
    if i.is_invalid() || !features::has(model, i) {
        return Some(complex!(undefined));
    }
    // SDM vol. 2, 2.3.11 on VEX: no such prefix in real-address and virtual-8086 mode.
    if i.encoding() == EncodingKind::VEX && !mode.has(Mode::PROTECTED) {
        return Some(complex!(undefined));
    }
    let emulate = mode.has(Mode::FPU_EMULATE);
    let switched = mode.has(Mode::TASK_SWITCHED);
    match unit(i) {
        Unit::Other => None,
        // SDM vol. 3, table 2-2 and 13.1.
        Unit::X87 if emulate || switched => Some(complex!(not_available)),
        Unit::Wait if switched && mode.has(Mode::MONITOR_COPROCESSOR) => {
            Some(complex!(not_available))
        }
        Unit::Mmx if emulate => Some(complex!(undefined)),
        Unit::Sse if emulate || !mode.has(Mode::OSFXSR) => Some(complex!(undefined)),
        Unit::Avx if !mode.has(Mode::AVX) => Some(complex!(undefined)),
        Unit::Mmx | Unit::Sse | Unit::Avx | Unit::FxState if switched => {
            Some(complex!(not_available))
        }
        Unit::FxState if emulate => Some(complex!(not_available)),
        _ => None,
    }
}

/// The unit whose state an instruction uses, as far as CR0 and CR4 decide on its availability.
enum Unit {
    Other,
    X87,
    Wait,
    Mmx,
    Sse,
    /// On vectors, VEX-encoded; CR0.EM does not count (SDM vol. 2, table 2-18).
    Avx,
    /// FXSAVE and FXRSTOR.
    FxState,
}

/// Whether a VEX-encoded instruction works on vectors: those on general registers need no state of
/// AVX.
fn is_vector(i: &Instruction) -> bool {
    use iced_x86::CpuidFeature as F;
    let vectors = [F::AVX, F::AVX2, F::FMA, F::F16C, F::VAES, F::VPCLMULQDQ, F::GFNI];
    i.cpuid_features().iter().any(|f| vectors.contains(f))
}

fn unit(i: &Instruction) -> Unit {
    use iced_x86::CpuidFeature as F;
    match i.mnemonic() {
        Mnemonic::Wait => return Unit::Wait,
        Mnemonic::Fxsave | Mnemonic::Fxsave64 | Mnemonic::Fxrstor | Mnemonic::Fxrstor64 => {
            return Unit::FxState;
        }
        // No SIMD state: available whatever CR4 says (SDM vol. 3, 13.1.3).
        Mnemonic::Crc32
        | Mnemonic::Popcnt
        | Mnemonic::Movnti
        | Mnemonic::Sfence
        | Mnemonic::Lfence
        | Mnemonic::Mfence
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Clflush
        | Mnemonic::Pause => return Unit::Other,
        _ => {}
    }
    if i.code().encoding() == EncodingKind::VEX {
        return if is_vector(i) { Unit::Avx } else { Unit::Other };
    }
    if x87::is_x87(i) {
        return Unit::X87;
    }
    let uses_mmx = (0..i.op_count()).any(|n| i.op_register(n).is_mm());
    for feature in i.cpuid_features() {
        match feature {
            F::SSE | F::SSE2 | F::SSE3 | F::SSSE3 | F::SSE4_1 | F::SSE4_2 if !uses_mmx => {
                return Unit::Sse;
            }
            F::AES | F::PCLMULQDQ | F::SHA | F::GFNI => return Unit::Sse,
            F::MMX | F::D3NOW => return Unit::Mmx,
            _ if uses_mmx => return Unit::Mmx,
            _ => {}
        }
    }
    Unit::Other
}
