//! Where the manual leaves a result undefined, or vendors differ: not compared.

use std::ops::Range;

use brolga_cpu::exception::vector;
use iced_x86::{Code, CpuidFeature, Mnemonic, OpKind};

use super::generate::Generated;
use super::layout::{SCRATCH, SCRATCH_LEN};
use super::state::{Ending, Raised};
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
    /// What a comparison tells: condition codes of the x87 status word, status flags.
    Comparison,
    /// The pointers to the last x87 instruction and its operand, and its opcode.
    Pointers,
    /// The vector registers.
    Vectors,
}

/// C1 in the status word.
const C1: u128 = 1 << 9;
/// C0, C2 and C3.
const RELATION: u128 = 1 << 8 | 1 << 10 | 1 << 14;
/// The status word's exception summary.
const ES: u8 = 1 << 7;

impl Hides {
    /// The bits of the x87 status word that are hidden.
    pub fn status_word(self) -> u128 {
        match self {
            Hides::C1 => C1,
            Hides::Comparison => RELATION,
            _ => 0,
        }
    }

    /// Whether the field called `name` (see [`super::state::State::fx_fields`]) is hidden.
    pub fn covers(self, name: &str) -> bool {
        match self {
            Hides::X87 => name.starts_with("ST") || name == "FSW" || name == "tags",
            Hides::Pointers => matches!(name, "FOP" | "FIP" | "FDP"),
            Hides::Comparison => name == "flags",
            Hides::Vectors => name.starts_with("XMM") || name.starts_with("YMM"),
            Hides::Everything | Hides::C1 => false,
        }
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
    (no_exception_is_pending, Hides::Pointers),
    (refused_comparison, Hides::Comparison),
    (conversion_from_memory_with_an_exception_pending, Hides::Everything),
    (refused_store_beyond_memory, Hides::Everything),
    (repeated_comparison_that_faults, Hides::Comparison),
    (sum_of_products_that_is_no_number, Hides::Vectors),
    (mmx_store_that_faults, Hides::X87),
    (gather_that_faults, Hides::Vectors),
    (half_precision_store_that_faults, Hides::Everything),
    (ten_bytes_that_fault, Hides::Everything),
    (bound_beyond_memory, Hides::Everything),
];

/// What is not to be compared in `case`, after what the host made of it.
pub fn hides(case: &Generated, host: &Ending) -> Vec<Hides> {
    KNOWN.iter().filter(|(applies, _)| applies(case, host)).map(|(_, hides)| *hides).collect()
}

/// The bytes of the scratch memory that are not compared: of an image of the x87's state the pointers
/// (see [`no_exception_is_pending`]), and of FXSAVE's the mask of MXCSR, which is the processor's own
/// (SDM vol. 1, 11.6.6).
pub fn hidden_memory(case: &Generated) -> Vec<Range<usize>> {
    use Code::{Fnsave_m94byte, Fnsave_m108byte, Fnstenv_m14byte, Fnstenv_m28byte};
    let at = case.address().map_or(0, |at| at.wrapping_sub(SCRATCH) as usize);
    let ranges: &[(usize, usize)] = match case.instruction.code() {
        Fnstenv_m14byte | Fnsave_m94byte => &[(6, 14)],
        Fnstenv_m28byte | Fnsave_m108byte => &[(12, 28)],
        Code::Fxsave_m512byte | Code::Fxsave64_m512byte => &[(6, 24), (28, 32)],
        _ => &[],
    };
    let end = |offset: usize| at.saturating_add(offset).min(SCRATCH_LEN);
    ranges.iter().map(|&(from, to)| end(from)..end(to)).collect()
}

/// Whether two exceptions are the same. SDM vol. 3, 4.7: CR2 has the address that caused a page fault;
/// which one that is of an operand of many parts is the processor's choice: Intel's tell the first
/// element of a masked store that is missing, AMD's and ours the operand's first missing byte.
pub fn same_exception(case: &Generated, host: Option<Raised>, ours: Option<Raised>) -> bool {
    use Mnemonic::{Fldenv, Fnsave, Fnstenv, Frstor, Fxrstor, Fxrstor64, Fxsave, Fxsave64};
    use Mnemonic::{Vmaskmovpd, Vmaskmovps, Vpmaskmovd, Vpmaskmovq};
    // No operand lies in more than two pages; both may be missing.
    let first_page = case.address().unwrap_or(0) & !0xfff;
    let operand = |raised: Raised| match raised.address.wrapping_sub(first_page) {
        0..0x2000 => Raised { address: first_page, ..raised },
        _ => raised,
    };
    match case.instruction.mnemonic() {
        Fldenv | Fnsave | Fnstenv | Frstor | Fxrstor | Fxrstor64 | Fxsave | Fxsave64
        | Vmaskmovpd | Vmaskmovps | Vpmaskmovd | Vpmaskmovq => {
            host.map(operand) == ours.map(operand)
        }
        _ => host == ours,
    }
}

/// APM vol. 5, FXSAVE and FXRSTOR: without a pending exception, AMD processors neither save nor load
/// the pointers.
fn no_exception_is_pending(_: &Generated, host: &Ending) -> bool {
    host.state.fx[2] & ES == 0
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

/// SDM vol. 2, FCOM and FCOMI: an unmasked invalid operation leaves the conditions alone; AMD processors
/// set them.
fn refused_comparison(case: &Generated, host: &Ending) -> bool {
    use Mnemonic::{
        Fcom, Fcomi, Fcomip, Fcomp, Fcompp, Ficom, Ficomp, Ftst, Fucom, Fucomi, Fucomip, Fucomp,
        Fucompp,
    };
    let compares = matches!(
        case.instruction.mnemonic(),
        Fcom | Fcomp
            | Fcompp
            | Fucom
            | Fucomp
            | Fucompp
            | Fcomi
            | Fcomip
            | Fucomi
            | Fucomip
            | Ficom
            | Ficomp
            | Ftst
    );
    const INVALID: u8 = 1;
    compares && host.state.fx[2] & !host.state.fx[0] & INVALID != 0
}

/// As [`conversion_from_memory`]: what switches to MMX operation looks for pending exceptions.
fn conversion_from_memory_with_an_exception_pending(case: &Generated, host: &Ending) -> bool {
    let pending = case.state.fx[2] & !case.state.fx[0] & 0x3f != 0;
    pending && conversion_from_memory(case, host)
}

/// SDM vol. 1, 8.5.1: a store that an unmasked invalid operation refuses. Intel processors do not look
/// at the memory then; AMD ones do, and ours.
fn refused_store_beyond_memory(case: &Generated, host: &Ending) -> bool {
    use Mnemonic::{Fbstp, Fist, Fistp, Fisttp, Fst, Fstp};
    const LONGEST: u64 = 10;
    let store = matches!(case.instruction.mnemonic(), Fbstp | Fist | Fistp | Fisttp | Fst | Fstp);
    let refused = host.raised.is_none() && (host.state.fx[2] & !case.state.fx[2]) & ES != 0;
    let end = SCRATCH + SCRATCH_LEN as u64 - LONGEST;
    store && refused && case.address().is_some_and(|at| !(SCRATCH..end).contains(&at))
}

/// SDM vol. 2, REP: a string instruction that faults can be resumed; what flags it leaves then is not
/// said. Intel processors leave those from before, AMD ones and ours those of the last comparison.
fn repeated_comparison_that_faults(case: &Generated, host: &Ending) -> bool {
    let i = &case.instruction;
    let repeats = i.has_rep_prefix() || i.has_repne_prefix();
    i.is_string_instruction() && repeats && host.raised.is_some()
}

/// SDM vol. 2, DPPS and DPPD: which NaN of several a sum of products is depends on the order of the
/// additions, and on which operand is the first. Intel processors and AMD ones differ; ours are as
/// AMD's.
fn sum_of_products_that_is_no_number(case: &Generated, host: &Ending) -> bool {
    use Mnemonic::{Dppd, Dpps, Vdppd, Vdpps};
    const XMM: usize = 160;
    let i = &case.instruction;
    let is_sum = matches!(i.mnemonic(), Dppd | Dpps | Vdppd | Vdpps);
    if !is_sum || !i.op0_register().is_vector_register() {
        return false;
    }
    let n = i.op0_register().number();
    let low = &host.state.fx[XMM + 16 * n..][..16];
    let halves = [low.to_vec(), host.state.ymm_high[n].to_le_bytes().to_vec()].concat();
    let is_nan = |bytes: &[u8]| match *bytes {
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]).is_nan(),
        _ => bytes.try_into().is_ok_and(|bytes| f64::from_le_bytes(bytes).is_nan()),
    };
    let width = if matches!(i.mnemonic(), Dppd | Vdppd) { 8 } else { 4 };
    halves.chunks(width).any(is_nan)
}

/// As [`conversion_that_faults`]: Intel processors have switched to MMX operation when the store from
/// an MMX register faults, AMD ones and ours have not.
fn mmx_store_that_faults(case: &Generated, host: &Ending) -> bool {
    let i = &case.instruction;
    let from_mmx = i.op_count() > 1 && i.op1_kind() == OpKind::Register && i.op1_register().is_mm();
    from_mmx && i.op0_kind() == OpKind::Memory && host.raised.is_some()
}

/// SDM vol. 2, VGATHER: after a fault, elements to the right of the one that faults are done. Intel
/// processors have made every element of the mask all ones or zeros by then, and the upper halves of
/// both registers zero, AMD ones and ours not.
fn gather_that_faults(case: &Generated, host: &Ending) -> bool {
    case.instruction.is_vsib() && host.raised.is_some()
}

/// VCVTPS2PH to a missing page: Intel processors have converted by then, and have set MXCSR's flags
/// or raised #XM; AMD ones and ours look at the memory first. SDM vol. 3, 6.9 says of neither.
fn half_precision_store_that_faults(case: &Generated, host: &Ending) -> bool {
    let i = &case.instruction;
    let stores = i.mnemonic() == Mnemonic::Vcvtps2ph && i.op0_kind() == OpKind::Memory;
    stores && host.raised.is_some()
}

/// FBSTP, or FSTP of ten bytes, across the end of a page before a missing one: Intel processors have
/// written what lies in the first, AMD ones and ours nothing.
fn ten_bytes_that_fault(case: &Generated, host: &Ending) -> bool {
    let stores = matches!(case.instruction.code(), Code::Fbstp_m80bcd | Code::Fstp_m80fp);
    stores && host.raised.is_some()
}

/// SDM vol. 2, BOUND: Intel processors raise #BR for the lower bound before they read the upper one,
/// which may be missing; AMD ones and ours read both.
fn bound_beyond_memory(case: &Generated, host: &Ending) -> bool {
    const BR: u8 = 5;
    let end = SCRATCH + SCRATCH_LEN as u64 - 8;
    let crosses = case.address().is_some_and(|at| !(SCRATCH..=end).contains(&at));
    let below = host.raised.is_some_and(|raised| raised.vector == BR);
    case.instruction.mnemonic() == Mnemonic::Bound && below && crosses
}

/// SDM vol. 3, 6.5: a POPAD that faults may have modified general registers. AMD processors do, ours
/// does not.
fn pops_until_it_faults(case: &Generated, host: &Ending) -> bool {
    let popa = matches!(case.instruction.mnemonic(), Mnemonic::Popa | Mnemonic::Popad);
    popa && host.raised.is_some()
}
