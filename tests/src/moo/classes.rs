//! Where a later processor differs from the captured 80286, each class with its reason.

use brolga_cpu::exception::vector;
use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::run::{Difference, Outcome, Place};
use super::{Case, Reg};
use crate::oracle::undefined;

/// A class of differences.
pub struct Class {
    /// A short name for the report.
    pub name: &'static str,
    /// Why a later processor differs.
    pub reason: &'static str,
    /// Whether everything that differs in a case belongs to it.
    pub explains: fn(&Case, &Outcome) -> bool,
}

/// All classes.
pub const CLASSES: &[Class] = &[
    Class {
        name: "undefined flags",
        reason: "status flags that the manual leaves undefined for the instruction",
        explains: undefined_flags,
    },
    Class {
        name: "LOCK",
        reason: "LOCK on anything but a read-modify-write of memory is #UD since the 386",
        explains: lock,
    },
    Class {
        name: "FS and GS",
        reason: "segment registers 4 and 5 exist since the 386 and are #UD before",
        explains: new_segments,
    },
    Class {
        name: "long instruction",
        reason: "the limit on an instruction is 15 bytes since the 386, 10 before",
        explains: long_instruction,
    },
    Class {
        name: "stack overrun",
        reason: "an operand beyond the limit of SS is vector 12 since the 386, 13 before",
        explains: stack_overrun,
    },
    Class {
        name: "string restart",
        reason: "a faulting string instruction leaves its registers alone since the 386",
        explains: string_restart,
    },
    Class {
        name: "EIP",
        reason: "after the last byte of a 64 KiB segment EIP is 10000h, IP was 0",
        explains: wide_ip,
    },
];

/// The instruction without the HLT behind it.
fn instruction(bytes: &[u8]) -> Instruction {
    Decoder::new(16, bytes, DecoderOptions::NONE).decode()
}

fn undefined_flags(case: &Case, outcome: &Outcome) -> bool {
    let cl = case.before.regs.get(Reg::Cx).unwrap_or(0) as u8;
    let undefined = undefined::flags(&instruction(&case.bytes), cl) as u32;
    outcome.differences.iter().all(|Difference { place, expected, got }| {
        let defined = match place {
            Place::Reg(Reg::Flags) => !undefined,
            Place::Ram(at) => match pushed_flags(case) {
                Some([low, _]) if low == *at => !undefined,
                Some([_, high]) if high == *at => !(undefined >> 8),
                _ => u32::MAX,
            },
            _ => u32::MAX,
        };
        (expected ^ got) & defined == 0
    })
}

/// Where the two bytes of FLAGS lie that an exception has pushed. (The address in the file is that
/// of the bus cycle, one less where the stack is odd.)
fn pushed_flags(case: &Case) -> Option<[u32; 2]> {
    case.taken?;
    let value = |reg| case.after.regs.get(reg).or(case.before.regs.get(reg));
    let (segment, top) = (value(Reg::Ss)? << 4, value(Reg::Sp)?);
    Some([4, 5].map(|offset| segment + ((top + offset) & 0xffff)))
}

fn lock(case: &Case, outcome: &Outcome) -> bool {
    const LOCK: u8 = 0xf0;
    let without: Vec<u8> = case.bytes.iter().copied().filter(|b| *b != LOCK).collect();
    outcome.raised == Some(vector::UD)
        && case.bytes.contains(&LOCK)
        && instruction(&case.bytes).is_invalid()
        && !instruction(&without).is_invalid()
}

fn new_segments(case: &Case, outcome: &Outcome) -> bool {
    let i = instruction(&case.bytes);
    case.taken.is_some_and(|taken| taken.vector == vector::UD)
        && outcome.raised.is_none()
        && [i.op0_register(), i.op1_register()]
            .iter()
            .any(|r| r.is_segment_register() && r.number() > 3)
}

fn long_instruction(case: &Case, outcome: &Outcome) -> bool {
    const LIMIT_286: usize = 10;
    case.taken.is_some_and(|taken| taken.vector == vector::GP)
        && outcome.raised.is_none()
        && instruction(&case.bytes).len() > LIMIT_286
}

fn stack_overrun(case: &Case, outcome: &Outcome) -> bool {
    case.taken.is_some_and(|taken| taken.vector == vector::GP) && outcome.raised == Some(vector::SS)
}

fn string_restart(case: &Case, outcome: &Outcome) -> bool {
    instruction(&case.bytes).is_string_instruction()
        && case.taken.is_some_and(|taken| outcome.raised == Some(taken.vector))
        && outcome
            .differences
            .iter()
            .all(|difference| matches!(difference.place, Place::Reg(Reg::Si | Reg::Di | Reg::Cx)))
}

fn wide_ip(_: &Case, outcome: &Outcome) -> bool {
    const WRAPPED: Difference =
        Difference { place: Place::Reg(Reg::Ip), expected: 0, got: 0x1_0000 };
    outcome.differences == [WRAPPED]
}
