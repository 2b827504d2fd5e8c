//! Where the manual leaves a result undefined, or vendors differ: not compared.

use brolga_cpu::exception::vector;
use iced_x86::{Code, CpuidFeature, Mnemonic, OpKind};

use super::generate::Generated;
use super::state::Ending;
use brolga_machine::conform::undefined::masked_count;

/// What is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hides {
    /// The result is undefined.
    Everything,
    /// Condition flag C1 of the x87 status word.
    C1,
    /// The x87 registers, tags and status.
    X87,
}

/// C1 in the status word.
pub const C1: u128 = 1 << 9;

impl Hides {
    /// Whether the field called `name` (see [`super::state::State::fx_fields`]) is hidden.
    pub fn covers(self, name: &str) -> bool {
        self == Hides::X87 && (name.starts_with("ST") || name == "FSW" || name == "tags")
    }
}

/// A class of cases, and what is not compared in them.
type Known = (fn(&Generated, &Ending) -> bool, Hides);

const KNOWN: &[Known] = &[
    (double_shift_beyond_the_width, Hides::Everything),
    (leaves_c1_to_the_vendor, Hides::C1),
    (conversion_that_faults, Hides::X87),
    (conversion_from_memory, Hides::X87),
    (narrow_movsxd_beyond_the_page, Hides::Everything),
    (misaligned_exception_mask, Hides::Everything),
    (misaligned_hash_operand, Hides::Everything),
    (pops_until_it_faults, Hides::Everything),
];

/// What is not to be compared in `case`, after what the host made of it.
pub fn hides(case: &Generated, host: &Ending) -> Vec<Hides> {
    KNOWN.iter().filter(|(applies, _)| applies(case, host)).map(|(_, hides)| *hides).collect()
}

/// SDM vol. 2, SHLD and SHRD: the destination is undefined if the count exceeds the width. Intel
/// processors shift `dst:src:dst`, AMD ones do not.
fn double_shift_beyond_the_width(case: &Generated, _: &Ending) -> bool {
    let (count, width) = masked_count(&case.instruction, case.state.regs[1] as u8);
    matches!(case.instruction.mnemonic(), Mnemonic::Shld | Mnemonic::Shrd) && count > width
}

/// SDM vol. 2, FCOMI: C1 is cleared; AMD processors leave it. FFREE: C1 is undefined.
fn leaves_c1_to_the_vendor(case: &Generated, _: &Ending) -> bool {
    use Mnemonic::{Fcomi, Fcomip, Ffree, Fucomi, Fucomip};
    matches!(case.instruction.mnemonic(), Fcomi | Fcomip | Fucomi | Fucomip | Ffree)
}

/// A conversion to or from MMX registers that raises #XM: whether the x87 state has been switched by then
/// is not documented. AMD processors have, ours has not.
fn conversion_that_faults(case: &Generated, host: &Ending) -> bool {
    use Mnemonic::{Cvtpd2pi, Cvtpi2ps, Cvtps2pi, Cvttpd2pi, Cvttps2pi};
    host.raised.is_some_and(|raised| raised.vector == vector::XM)
        && matches!(
            case.instruction.mnemonic(),
            Cvtpi2ps | Cvtps2pi | Cvttps2pi | Cvtpd2pi | Cvttpd2pi
        )
}

/// SDM vol. 2, CVTPI2PS: switches to MMX operation, also with a source in memory; AMD processors
/// do not.
fn conversion_from_memory(case: &Generated, _: &Ending) -> bool {
    let i = &case.instruction;
    i.mnemonic() == Mnemonic::Cvtpi2ps && i.op1_kind() == OpKind::Memory
}

/// SDM vol. 2, MOVSXD: with 16-bit operands memory is read as 16 bits; AMD processors read 32.
fn narrow_movsxd_beyond_the_page(case: &Generated, host: &Ending) -> bool {
    case.instruction.code() == Code::Movsxd_r16_rm16 && host.raised.is_some()
}

/// Bit 17 of MXCSR is reserved, and on AMD processors MM, the misaligned exception mask (APM
/// vol. 1, 4.2.2).
fn misaligned_exception_mask(_: &Generated, host: &Ending) -> bool {
    const HIGH_BYTE: usize = 26;
    const MM: u8 = 1 << 1;
    host.state.fx[HIGH_BYTE] & MM != 0
}

/// SDM vol. 2, SHA1MSG1 and the like: type 4, whose operands in memory must be aligned; AMD
/// processors take any.
fn misaligned_hash_operand(case: &Generated, _: &Ending) -> bool {
    let i = &case.instruction;
    i.cpuid_features() == [CpuidFeature::SHA]
        && i.op1_kind() == OpKind::Memory
        && case.address().is_none_or(|at| at % 16 != 0)
}

/// SDM vol. 3, 6.5: a POPAD that faults may have modified general registers. AMD processors do, ours
/// does not.
fn pops_until_it_faults(case: &Generated, host: &Ending) -> bool {
    let popa = matches!(case.instruction.mnemonic(), Mnemonic::Popa | Mnemonic::Popad);
    popa && host.raised.is_some()
}
