//! x87 instructions: one function serves them all.

use iced_x86::{CpuidFeature, Instruction, Mnemonic};

use crate::backend::{Backend, Handler};
use crate::insn::Insn;
use crate::semantics::x87::execute;

/// The meaning of an x87 instruction.
pub(super) fn select<B: Backend>(i: &Instruction) -> Option<Handler<B>> {
    is_x87(i).then_some(instruction::<B>)
}

fn instruction<B: Backend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    b.x87(i, execute)
}

/// Whether `i` is executed by the x87 FPU.
pub(super) fn is_x87(i: &Instruction) -> bool {
    use CpuidFeature::{FPU, FPU287, FPU387};
    let by_feature = i.cpuid_features().iter().any(|f| matches!(f, FPU | FPU287 | FPU387));
    // These count as 8086 instructions or came with later features, and are x87 ones all the same.
    let late = matches!(
        i.mnemonic(),
        Mnemonic::Wait
            | Mnemonic::Fisttp
            | Mnemonic::Fcomi
            | Mnemonic::Fcomip
            | Mnemonic::Fucomi
            | Mnemonic::Fucomip
            | Mnemonic::Fcmovb
            | Mnemonic::Fcmove
            | Mnemonic::Fcmovbe
            | Mnemonic::Fcmovu
            | Mnemonic::Fcmovnb
            | Mnemonic::Fcmovne
            | Mnemonic::Fcmovnbe
            | Mnemonic::Fcmovnu
    );
    by_feature || late
}
