//! MMX, and what SSE to SSSE3 and 3DNow! added to it.

use iced_x86::{EncodingKind, Instruction, Mnemonic, OpKind};

use super::complex;
use crate::backend::Handler;
use crate::semantics::sse::{Mm, integer, masked, mmx, shifts, three_d_now};
use crate::vector::VectorBackend;

/// The handler of an instruction on MMX registers. Moves and conversions that involve them too
/// are in [`super::sse`].
pub(super) fn select<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    match i.mnemonic() {
        Mnemonic::Emms | Mnemonic::Femms => return Some(mmx::emms::<B>),
        Mnemonic::Movq2dq => return Some(mmx::movq2dq::<B>),
        Mnemonic::Movdq2q => return Some(mmx::movdq2q::<B>),
        Mnemonic::Maskmovq => return Some(complex!(masked::store::<Mm>)),
        _ => {}
    }
    if i.op0_kind() != OpKind::Register || !i.op0_register().is_mm() {
        return None;
    }
    if i.encoding() == EncodingKind::D3NOW {
        return three_d_now::select(i);
    }
    mmx::select::<B, Mm>(i)
        .or_else(|| integer::select::<B, Mm>(i))
        .or_else(|| shifts::select::<B, Mm>(i))
}
