//! From instruction bytes to a [`Block`]: iced decodes, [`crate::select`] binds the meaning.

use std::cell::Cell;

use brolga_mmu::Width;
use iced_x86::{
    Code, Decoder, DecoderError, DecoderOptions, EncodingKind, Instruction, OpKind, Register,
};

use crate::block::{Block, Jump, Mode, Op};
use crate::cpuid::{CpuModel, Feature};
use crate::insn::{Insn, bits};
use crate::select::select;
use crate::vcpu::{RIP, Seg, SegReg, ZERO};
use crate::vector::VectorBackend;

/// What bytes mean depends on the model: those of TZCNT, LZCNT and WBNOINVD are BSF, BSR and WBINVD
/// with a prefix that means nothing where these do not exist (SDM vol. 2, TZCNT), and kernels use
/// them as such. LAHF and SAHF do not exist in 64-bit mode on the first models that have it. The test
/// registers exist on the i486 alone.
fn options(model: &CpuModel) -> u32 {
    let first = if model.family() == 4 { DecoderOptions::MOV_TR } else { DecoderOptions::NONE };
    [
        (Feature::Bmi1, DecoderOptions::NO_MPFX_0FBC),
        (Feature::Lzcnt, DecoderOptions::NO_MPFX_0FBD),
        (Feature::Wbnoinvd, DecoderOptions::NO_WBNOINVD),
        (Feature::LahfLm, DecoderOptions::NO_LAHF_SAHF_64),
    ]
    .into_iter()
    .filter(|(feature, _)| !model.has(*feature))
    .fold(first, |options, (_, option)| options | option)
}

/// Longest block, in instructions.
const MAX_OPS: usize = 64;
/// The architectural limit on an instruction's length (SDM vol. 2, 2.3.11).
pub const MAX_INSN_BYTES: usize = 15;

/// What decoding came to.
pub enum Decoded<B: VectorBackend> {
    /// A block of at least one instruction.
    Block(Block<B>),
    /// The first instruction needs more bytes than were given.
    NeedsMore,
}

/// Decodes a block from `code`, which begins at its first byte and ends at the page's end at the
/// latest. At most `max_ops` instructions.
pub fn decode<B: VectorBackend>(
    code: &[u8],
    mode: Mode,
    model: &CpuModel,
    max_ops: usize,
) -> Decoded<B> {
    let mut decoder = Decoder::with_ip(mode.bitness(), code, 0, options(model));
    let mut ops = Vec::with_capacity(8);
    let (mut bytes, mut last, mut jumps, mut checks) = (0, 0, false, false);
    while ops.len() < max_ops.min(MAX_OPS) {
        let mut instruction = decoder.decode();
        drop_ignored_prefix(&mut instruction, mode);
        // iced calls what does not fit in 15 bytes invalid; it is not #UD but #GP, which is for
        // the fetch to raise.
        let too_long = instruction.is_invalid() && instruction.len() >= MAX_INSN_BYTES;
        if decoder.last_error() == DecoderError::NoMoreBytes || too_long {
            break;
        }
        let at = bytes;
        bytes = decoder.position() as u16;
        let selected = select::<B>(&instruction, mode, model);
        let insn = operands(&instruction, mode, at, bytes);
        last = at;
        ops.push(Op { handler: selected.handler, quick: selected.quick, insn });
        if selected.ends_block {
            (jumps, checks) = (selected.jumps, selected.checks);
            break;
        }
    }
    if ops.is_empty() {
        return Decoded::NeedsMore;
    }
    Decoded::Block(Block {
        ops: ops.into_boxed_slice(),
        bytes,
        last,
        jumps,
        checks,
        patience: Cell::new(u32::MAX),
        place: None,
        links: [Jump::NONE; 2],
    })
}

/// 64-bit mode ignores the prefixes of all segments but FS and GS, whose place iced lets them take
/// (SDM vol. 2, 2.1.1): whether a fault is #SS or #GP is for the registers of the address to say.
fn drop_ignored_prefix(i: &mut Instruction, mode: Mode) {
    let ignored =
        matches!(i.segment_prefix(), Register::ES | Register::CS | Register::SS | Register::DS);
    if ignored && mode.has(Mode::CODE64) {
        i.set_segment_prefix(Register::None);
    }
}

/// The width with `n` bytes, 8 for what is larger than an integer.
fn width(n: usize) -> Width {
    Width::from_bytes(n as u64).unwrap_or(Width::W64)
}

/// Fills the decoded form of one instruction.
fn operands(i: &Instruction, mode: Mode, at: u16, next: u16) -> Insn {
    let opsize = operand_size(i, mode);
    let code64 = mode.has(Mode::CODE64);
    let stack = match (code64, mode.has(Mode::STACK32)) {
        (true, _) => Width::W64,
        (false, true) => Width::W32,
        (false, false) => Width::W16,
    };
    let mut insn = Insn {
        reg: [0; 4],
        base: ZERO,
        index: ZERO,
        scale: 0,
        seg: segment(i.memory_segment(), mode),
        at,
        next,
        opsize,
        addrsize: address_size(i, mode),
        stack,
        stack_seg: segment(Register::SS, mode),
        code: i.code() as u16,
        bits: 0,
        aux: i.memory_size().size() as u8,
        ea_mask: u64::MAX,
        disp: 0,
        imm: 0,
    };
    insn.bits |= flag(i.has_lock_prefix(), bits::LOCK)
        | flag(i.has_rep_prefix(), bits::REP)
        | flag(i.has_repne_prefix(), bits::REPNE)
        | flag(code64, bits::CODE64)
        | flag(mode.has(Mode::CS_FLAT), bits::CS_FLAT)
        | flag(opsize == Width::W64, bits::WIDE)
        | flag(i.op0_kind() == OpKind::Memory, bits::MEM0)
        | flag(i.op1_kind() == OpKind::Memory, bits::MEM1)
        | vex_bits(i);
    for n in 0..i.op_count().min(4) {
        operand(i, n, &mut insn);
    }
    insn
}

/// What the forms of VEX instructions differ in.
fn vex_bits(i: &Instruction) -> u16 {
    if i.code().encoding() != EncodingKind::VEX {
        return 0;
    }
    let third = i.op_count() >= 3 && matches!(i.op2_kind(), OpKind::Register | OpKind::Memory);
    let wide = (0..i.op_count()).any(|n| match i.op_kind(n) {
        OpKind::Memory => i.memory_size().size() == 32,
        _ => i.op_register(n).is_ymm(),
    });
    flag(i.op_count() >= 3 && i.op2_kind() == OpKind::Memory, bits::MEM2)
        | flag(third, bits::THREE)
        | flag(wide || i.memory_index().is_ymm(), bits::YMM)
}

const fn flag(on: bool, mask: u16) -> u16 {
    if on { mask } else { 0 }
}

fn operand(i: &Instruction, n: u32, insn: &mut Insn) {
    match i.op_kind(n) {
        OpKind::Register => insn.reg[n as usize] = register(i.op_register(n)),
        OpKind::Memory => memory(i, insn),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
            insn.imm = i.near_branch_target();
            insn.ea_mask = match i.op_kind(n) {
                OpKind::NearBranch16 => 0xffff,
                OpKind::NearBranch32 => 0xffff_ffff,
                _ => u64::MAX,
            };
        }
        OpKind::FarBranch16 | OpKind::FarBranch32 => {
            let offset = match i.op_kind(n) {
                OpKind::FarBranch16 => u64::from(i.far_branch16()),
                _ => u64::from(i.far_branch32()),
            };
            insn.imm = u64::from(i.far_branch_selector()) << 32 | offset;
        }
        OpKind::Immediate8_2nd => insn.aux = i.immediate8_2nd(),
        OpKind::MemorySegSI
        | OpKind::MemorySegESI
        | OpKind::MemorySegRSI
        | OpKind::MemorySegDI
        | OpKind::MemorySegEDI
        | OpKind::MemorySegRDI
        | OpKind::MemoryESDI
        | OpKind::MemoryESEDI
        | OpKind::MemoryESRDI => {}
        _ => insn.imm = i.immediate(n),
    }
}

fn memory(i: &Instruction, insn: &mut Insn) {
    let slot = |r: Register| match r {
        Register::None => ZERO,
        Register::RIP | Register::EIP => RIP,
        r => r.number() as u8,
    };
    insn.base = slot(i.memory_base());
    insn.index = slot(i.memory_index());
    insn.scale = i.memory_index_scale().trailing_zeros() as u8;
    insn.disp = i.memory_displacement64();
    insn.ea_mask = insn.addrsize.mask();
}

/// A register's number as [`Insn::reg`] wants it.
fn register(r: Register) -> u8 {
    match r {
        Register::AH => 16,
        Register::CH => 17,
        Register::DH => 18,
        Register::BH => 19,
        // iced numbers byte registers with AH to BH in between: SPL is its 8.
        r if r.is_gpr8() => r.full_register().number() as u8,
        r => r.number() as u8,
    }
}

/// How accesses through `r` are checked in this mode.
pub(crate) fn segment(r: Register, mode: Mode) -> Seg {
    let (reg, flat) = match r {
        Register::ES => (SegReg::Es, mode.has(Mode::ES_FLAT)),
        Register::CS => (SegReg::Cs, false),
        Register::SS => (SegReg::Ss, mode.has(Mode::SS_FLAT)),
        Register::FS => (SegReg::Fs, false),
        Register::GS => (SegReg::Gs, false),
        _ => (SegReg::Ds, mode.has(Mode::DS_FLAT)),
    };
    let based = matches!(reg, SegReg::Fs | SegReg::Gs);
    let flat64 = mode.has(Mode::CODE64) && !based && !mode.has(Mode::ALIGNMENT_CHECKED);
    if flat || flat64 { Seg::flat(reg) } else { Seg::checked(reg) }
}

/// The address-size attribute: from the memory operand's registers, or from the string operands,
/// or the mode's default.
fn address_size(i: &Instruction, mode: Mode) -> Width {
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => return Width::W16,
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => {
                return Width::W32;
            }
            OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => {
                return Width::W64;
            }
            OpKind::Memory => return memory_address_size(i, mode),
            _ => {}
        }
    }
    match i.code() {
        Code::Loop_rel8_16_CX
        | Code::Loop_rel8_32_CX
        | Code::Loope_rel8_16_CX
        | Code::Loope_rel8_32_CX
        | Code::Loopne_rel8_16_CX
        | Code::Loopne_rel8_32_CX
        | Code::Jcxz_rel8_16
        | Code::Jcxz_rel8_32 => Width::W16,
        Code::Loop_rel8_16_ECX
        | Code::Loop_rel8_32_ECX
        | Code::Loop_rel8_64_ECX
        | Code::Loope_rel8_16_ECX
        | Code::Loope_rel8_32_ECX
        | Code::Loope_rel8_64_ECX
        | Code::Loopne_rel8_16_ECX
        | Code::Loopne_rel8_32_ECX
        | Code::Loopne_rel8_64_ECX
        | Code::Jecxz_rel8_16
        | Code::Jecxz_rel8_32
        | Code::Jecxz_rel8_64 => Width::W32,
        Code::Loop_rel8_16_RCX
        | Code::Loop_rel8_64_RCX
        | Code::Loope_rel8_16_RCX
        | Code::Loope_rel8_64_RCX
        | Code::Loopne_rel8_16_RCX
        | Code::Loopne_rel8_64_RCX
        | Code::Jrcxz_rel8_16
        | Code::Jrcxz_rel8_64 => Width::W64,
        _ => width(mode.bitness() as usize / 8),
    }
}

fn memory_address_size(i: &Instruction, mode: Mode) -> Width {
    let register = match (i.memory_base(), i.memory_index()) {
        (Register::None, index) if index.is_vector_register() => Register::None,
        (Register::None, index) => index,
        (base, _) => base,
    };
    match register {
        Register::None => match i.memory_displ_size() {
            2 => Width::W16,
            4 => Width::W32,
            8 => Width::W64,
            _ => width(mode.bitness() as usize / 8),
        },
        Register::RIP => Width::W64,
        Register::EIP => Width::W32,
        r => width(r.size()),
    }
}

/// The operand-size attribute.
fn operand_size(i: &Instruction, mode: Mode) -> Width {
    match (i.op_code().operand_size(), mode.bitness()) {
        (16, _) | (0, 16) => Width::W16,
        (64, _) => Width::W64,
        _ => Width::W32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Core;

    fn first(bytes: &[u8]) -> Op<Core> {
        first_on("max", bytes)
    }

    fn first_on(model: &str, bytes: &[u8]) -> Op<Core> {
        let model = CpuModel::by_name(model).expect("a model");
        let Decoded::Block(block) = decode(bytes, Mode::CODE64, &model, 1) else {
            panic!("{bytes:02x?} is a whole instruction");
        };
        block.ops.into_vec().remove(0)
    }

    #[test]
    fn byte_registers_have_the_numbers_of_their_full_registers() {
        // MOV r/m8, r8: from AL to AH (no REX), SPL, DIL, R8L and R15L.
        let cases: [(&[u8], u8); 5] = [
            (&[0x88, 0xc4], 16),
            (&[0x40, 0x88, 0xc4], 4),
            (&[0x40, 0x88, 0xc7], 7),
            (&[0x41, 0x88, 0xc0], 8),
            (&[0x41, 0x88, 0xc7], 15),
        ];
        for (bytes, number) in cases {
            assert_eq!(first(bytes).insn.reg[0], number, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_prefix_turns_a_bit_scan_into_a_count_only_where_the_model_has_it() {
        use Code::*;
        let cases: [(&[u8], [Code; 2]); 3] = [
            (&[0xf3, 0x0f, 0xbc, 0xc1], [Bsf_r32_rm32, Tzcnt_r32_rm32]),
            (&[0xf3, 0x0f, 0xbd, 0xc1], [Bsr_r32_rm32, Lzcnt_r32_rm32]),
            (&[0xf3, 0x0f, 0x09], [Wbinvd, Wbnoinvd]),
        ];
        for (bytes, expected) in cases {
            let codes = ["nehalem", "max"].map(|model| first_on(model, bytes).insn.code);
            assert_eq!(codes, expected.map(|code| code as u16), "{bytes:02x?}");
        }
    }

    #[test]
    fn an_instruction_that_is_cut_short_needs_more() {
        for bytes in [&[0x48][..], &[0x0f, 0xba], &[0xe8, 0, 0, 0], &[0x66; 14]] {
            let cut = decode::<Core>(bytes, Mode::CODE64, &CpuModel::default(), 1);
            assert!(matches!(cut, Decoded::NeedsMore), "{bytes:02x?}");
        }
    }
}
