//! Status flags that instructions leave undefined: what two correct processors may disagree on.

use brolga_cpu::vcpu::rflags::{AF, CF, OF, PF, SF, STATUS, ZF};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// When a rule applies to a shift or rotate; other instructions have no count.
#[derive(Clone, Copy)]
enum When {
    Always,
    /// The masked count is not 0.
    Shifted,
    /// The masked count is above 1.
    Several,
    /// The masked count is the operand's width or more.
    ShiftedOut,
    /// The masked count is above the operand's width.
    Beyond,
}

struct Rule {
    mnemonics: &'static [Mnemonic],
    when: When,
    flags: u64,
}

const SHIFTS: &[Mnemonic] = &[Mnemonic::Shl, Mnemonic::Sal, Mnemonic::Shr, Mnemonic::Sar];
const ROTATES: &[Mnemonic] = &[Mnemonic::Rol, Mnemonic::Ror, Mnemonic::Rcl, Mnemonic::Rcr];
const DOUBLE: &[Mnemonic] = &[Mnemonic::Shld, Mnemonic::Shrd];

const fn rule(mnemonics: &'static [Mnemonic], when: When, flags: u64) -> Rule {
    Rule { mnemonics, when, flags }
}

/// SDM vol. 1, appendix A, and "Flags Affected" of each instruction in vol. 2.
const RULES: &[Rule] = &[
    rule(&[Mnemonic::Aaa, Mnemonic::Aas], When::Always, OF | SF | ZF | PF),
    rule(&[Mnemonic::Aam, Mnemonic::Aad], When::Always, OF | AF | CF),
    rule(&[Mnemonic::Daa, Mnemonic::Das], When::Always, OF),
    rule(&[Mnemonic::And, Mnemonic::Or, Mnemonic::Xor, Mnemonic::Test], When::Always, AF),
    rule(&[Mnemonic::Mul, Mnemonic::Imul], When::Always, SF | ZF | AF | PF),
    rule(&[Mnemonic::Div, Mnemonic::Idiv], When::Always, STATUS),
    rule(SHIFTS, When::Shifted, AF),
    rule(SHIFTS, When::Several, OF),
    rule(&[Mnemonic::Shl, Mnemonic::Sal, Mnemonic::Shr], When::ShiftedOut, CF),
    rule(ROTATES, When::Several, OF),
    rule(DOUBLE, When::Shifted, AF),
    rule(DOUBLE, When::Several, OF),
    rule(DOUBLE, When::Beyond, STATUS),
    rule(
        &[Mnemonic::Bt, Mnemonic::Bts, Mnemonic::Btr, Mnemonic::Btc],
        When::Always,
        OF | SF | AF | PF,
    ),
    rule(
        &[Mnemonic::Andn, Mnemonic::Blsi, Mnemonic::Blsmsk, Mnemonic::Blsr, Mnemonic::Bzhi],
        When::Always,
        AF | PF,
    ),
    rule(&[Mnemonic::Bextr], When::Always, SF | AF | PF),
    rule(&[Mnemonic::Tzcnt, Mnemonic::Lzcnt], When::Always, OF | SF | AF | PF),
    rule(&[Mnemonic::Bsf, Mnemonic::Bsr], When::Always, CF | OF | SF | AF | PF),
];

/// The count of a shift or rotate as the processor masks it, and the operand's width in bits.
pub fn masked_count(i: &Instruction, cl: u8) -> (u32, u32) {
    let bytes = match i.op0_kind() {
        OpKind::Register => i.op0_register().size(),
        _ => i.memory_size().size(),
    };
    let last = i.op_count().saturating_sub(1);
    let count = match i.op_kind(last) {
        OpKind::Register if i.op_register(last) == Register::CL => cl,
        OpKind::Immediate8 => i.immediate8(),
        _ => 0,
    };
    (u32::from(count) & if bytes == 8 { 63 } else { 31 }, 8 * bytes as u32)
}

/// The status flags that `i` leaves undefined.
pub fn flags(i: &Instruction, cl: u8) -> u64 {
    let (count, width) = masked_count(i, cl);
    let applies = |rule: &&Rule| {
        rule.mnemonics.contains(&i.mnemonic())
            && match rule.when {
                When::Always => true,
                When::Shifted => count != 0,
                When::Several => count > 1,
                When::ShiftedOut => count >= width,
                When::Beyond => count > width,
            }
    };
    RULES.iter().filter(applies).fold(0, |flags, rule| flags | rule.flags)
}
