//! Near control transfers and string instructions.

use brolga_mmu::Width;
use iced_x86::{Instruction, Mnemonic, OpKind};

use super::integer::{Kind, kind, sized, sized_complex, width};
use super::{bound, complex};
use crate::backend::Backend;
use crate::chain::Bound;
use crate::semantics::branch::*;
use crate::semantics::moves::*;
use crate::semantics::operand::{Memory, R, S8, S16, S32, S64};
use crate::semantics::string::{cmps, lods, movs, scas, stos};
use crate::semantics::string::{rep_cmps, rep_lods, rep_movs, rep_scas, rep_stos};

/// The meaning of a near branch, a near call or return, or a string instruction.
pub(super) fn select<B: Backend, M: Memory>(i: &Instruction) -> Option<Bound<B>> {
    branches::<B, M>(i).or_else(|| strings(i))
}

/// Whether `i` is a near transfer: it changes RIP and the stack, and nothing that events depend
/// on.
pub(super) fn is_near_branch(i: &Instruction) -> bool {
    near(i)
        || i.is_jmp_near_indirect()
        || i.is_call_near_indirect()
        || i.mnemonic() == Mnemonic::Ret
}

fn near(i: &Instruction) -> bool {
    matches!(i.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

fn branches<B: Backend, M: Memory>(i: &Instruction) -> Option<Bound<B>> {
    if let Some(handler) = conditional::<B, M>(i) {
        return Some(handler);
    }
    Some(match i.mnemonic() {
        Mnemonic::Jmp if near(i) => bound!(jmp::<B>),
        Mnemonic::Jmp if i.is_jmp_near_indirect() => match kind(i, 0) {
            Kind::Reg => sized!(width(i, 0), jmp_indirect::<B, R<0>>),
            _ => sized!(width(i, 0), jmp_indirect::<B, M>),
        },
        Mnemonic::Call if near(i) => bound!(call::<B, M::Access>),
        Mnemonic::Call if i.is_call_near_indirect() => match kind(i, 0) {
            Kind::Reg => sized!(width(i, 0), call_indirect::<B, M::Access, R<0>>),
            _ => sized!(width(i, 0), call_indirect::<B, M::Access, M>),
        },
        Mnemonic::Ret => bound!(ret::<B, M::Access>),
        Mnemonic::Loop => bound!(loop_while::<B, Always>),
        Mnemonic::Loope => bound!(loop_while::<B, WhileEqual>),
        Mnemonic::Loopne => bound!(loop_while::<B, WhileNotEqual>),
        Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => bound!(jcxz::<B>),
        _ => return None,
    })
}

fn conditional<B: Backend, M: Memory>(i: &Instruction) -> Option<Bound<B>> {
    macro_rules! by_condition {
        ($($jump:ident $cc:ident;)*) => {
            match i.mnemonic() {
                $(Mnemonic::$jump => bound!(jcc::<B, $cc>),)*
                _ => return None,
            }
        };
    }
    Some(by_condition! {
        Jo CcO; Jno CcNo; Jb CcB; Jae CcAe; Je CcE; Jne CcNe; Jbe CcBe; Ja CcA;
        Js CcS; Jns CcNs; Jp CcP; Jnp CcNp; Jl CcL; Jge CcGe; Jle CcLe; Jg CcG;
    })
}

/// A string instruction without and with a REP prefix.
macro_rules! element {
    ($i:expr, $once:ident, $repeated:ident) => {
        match element($i) {
            w if super::repeats($i) => sized_complex!(w, $repeated),
            Width::W8 => Bound::full($once::<B, S8>),
            Width::W16 => Bound::full($once::<B, S16>),
            Width::W32 => Bound::full($once::<B, S32>),
            Width::W64 => Bound::full($once::<B, S64>),
        }
    };
}

fn strings<B: Backend>(i: &Instruction) -> Option<Bound<B>> {
    // The SSE2 MOVSD and CMPSD share their mnemonics with the string instructions.
    if !i.is_string_instruction() {
        return None;
    }
    Some(match i.mnemonic() {
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => {
            element!(i, movs, rep_movs)
        }
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => {
            element!(i, stos, rep_stos)
        }
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => {
            element!(i, lods, rep_lods)
        }
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => {
            element!(i, cmps, rep_cmps)
        }
        Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => {
            element!(i, scas, rep_scas)
        }
        _ => return None,
    })
}

/// The element width of a string instruction.
fn element(i: &Instruction) -> Width {
    Width::from_bytes(i.memory_size().size() as u64).unwrap_or(Width::W8)
}
