//! Where a later processor differs from a captured one, each class with its reason.

use brolga_cpu::exception::vector;
use iced_x86::Mnemonic;

use super::run::{Difference, Outcome, Place, instruction};
use super::{Case, Processor, Reg};
use crate::conform::undefined;

/// A class of differences.
pub struct Class {
    /// A short name for the report.
    pub name: &'static str,
    /// Why a later processor differs.
    pub reason: &'static str,
    /// The last processor that differs so.
    pub last: Processor,
    /// Whether everything that differs in a case belongs to it.
    pub explains: fn(&Case, &Outcome) -> bool,
}

/// All classes.
pub const CLASSES: &[Class] = &[
    Class {
        name: "undefined flags",
        last: Processor::I386,
        reason: "status flags that the manual leaves undefined for the instruction",
        explains: undefined_flags,
    },
    Class {
        name: "LOCK",
        last: Processor::I286,
        reason: "LOCK on anything but a read-modify-write of memory is #UD since the 386",
        explains: lock,
    },
    Class {
        name: "FS and GS",
        last: Processor::I286,
        reason: "segment registers 4 and 5 exist since the 386 and are #UD before",
        explains: new_segments,
    },
    Class {
        name: "long instruction",
        last: Processor::I286,
        reason: "the limit on an instruction is 15 bytes since the 386, 10 before",
        explains: long_instruction,
    },
    Class {
        name: "stack overrun",
        last: Processor::I286,
        reason: "an operand beyond the limit of SS is vector 12 since the 386, 13 before",
        explains: stack_overrun,
    },
    Class {
        name: "string restart",
        last: Processor::I286,
        reason: "a faulting string instruction leaves its registers alone since the 386",
        explains: string_restart,
    },
    Class {
        name: "EIP",
        last: Processor::I286,
        reason: "after the last byte of a 64 KiB segment EIP is 10000h, IP was 0",
        explains: wide_ip,
    },
    Class {
        name: "8086 opcode",
        last: Processor::I8086,
        reason: "0F, 60-6F, C0, C1, C8, C9 and F1 mean something else since the 186 or 386",
        explains: reused_opcode,
    },
    Class {
        name: "8086 undefined opcode",
        last: Processor::I8086,
        reason: "what the 8086 executes as an alias of something else is #UD since the 186",
        explains: alias,
    },
    Class {
        name: "PUSH SP",
        last: Processor::I8086,
        reason: "the 8086 pushes SP as it is after the push, the 286 and later as it was before",
        explains: push_sp,
    },
    Class {
        name: "shift count",
        last: Processor::I8086,
        reason: "counts of shifts and rotates are taken modulo 32 since the 186",
        explains: shift_count,
    },
    Class {
        name: "divide error",
        last: Processor::I8086,
        reason: "#DE pushes the address of the instruction since the 286, of the next one before",
        explains: divide_error,
    },
    Class {
        name: "FLAGS image",
        last: Processor::I8086,
        reason: "bits 12 to 15 of FLAGS are ones on the 8086",
        explains: flags_image,
    },
    Class {
        name: "segment wrap",
        last: Processor::I8086,
        reason: "an operand that crosses offset FFFF is a fault since the 286, and wraps before",
        explains: segment_wrap,
    },
];

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

/// The opcode's first byte behind the prefixes.
fn opcode(case: &Case) -> Option<u8> {
    const PREFIXES: &[u8] = &[0x26, 0x2e, 0x36, 0x3e, 0xf0, 0xf2, 0xf3];
    case.bytes.iter().copied().find(|byte| !PREFIXES.contains(byte))
}

fn reused_opcode(case: &Case, _: &Outcome) -> bool {
    matches!(opcode(case), Some(0x0f | 0x60..=0x6f | 0xc0 | 0xc1 | 0xc8 | 0xc9 | 0xf1))
}

fn alias(_: &Case, outcome: &Outcome) -> bool {
    outcome.raised == Some(vector::UD)
}

fn push_sp(case: &Case, outcome: &Outcome) -> bool {
    let i = instruction(&case.bytes);
    i.mnemonic() == Mnemonic::Push
        && i.op0_register() == iced_x86::Register::SP
        && outcome.differences.iter().all(|d| matches!(d.place, Place::Ram(_)))
}

fn shift_count(case: &Case, _: &Outcome) -> bool {
    const LARGEST: u32 = 31;
    matches!(opcode(case), Some(0xd2 | 0xd3))
        && case.before.regs.get(Reg::Cx).is_some_and(|cx| cx & 0xff > LARGEST)
}

fn divide_error(_: &Case, outcome: &Outcome) -> bool {
    outcome.raised == Some(vector::DE)
        && outcome.differences.iter().all(|d| matches!(d.place, Place::Ram(_)))
}

fn flags_image(_: &Case, outcome: &Outcome) -> bool {
    const ONES: u32 = 0xf0;
    outcome.differences.iter().all(|d| {
        matches!(d.place, Place::Ram(_))
            && d.expected & ONES == ONES
            && (d.expected ^ d.got) & !ONES == 0
    })
}

fn segment_wrap(_: &Case, outcome: &Outcome) -> bool {
    matches!(outcome.raised, Some(vector::GP | vector::SS))
}
