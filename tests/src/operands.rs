//! Random operands for instructions of any kind.

use fastrand::Rng;
use iced_x86::{
    Code, EncodingKind, Instruction, Mnemonic, OpCodeOperandKind as Operand, OpKind, Register,
};

/// All encodings of `mnemonics` that code of this size (16, 32 or 64 bits) has and that
/// [`fill`] can make.
pub fn codes(mnemonics: &[Mnemonic], bits: u32) -> Vec<Code> {
    Code::values()
        .filter(|code| {
            let form = code.op_code();
            mnemonics.contains(&code.mnemonic())
                && form.is_instruction()
                && form.is_available_in_mode(bits)
                && matches!(form.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
                && (0..form.op_count()).all(|n| supported(*code, n, bits))
        })
        .collect()
}

fn supported(code: Code, n: u32, bits: u32) -> bool {
    let mut probe = Instruction::new();
    probe.set_code(code);
    fill(&mut Rng::with_seed(0), &mut probe, n, bits, |_, _| {})
}

const BYTES: [Register; 20] = {
    use Register::{
        AH, AL, BH, BL, BPL, CH, CL, DH, DIL, DL, R8L, R9L, R10L, R11L, R12L, R13L, R14L, R15L,
        SIL, SPL,
    };
    [
        AL, CL, DL, BL, AH, CH, DH, BH, SPL, BPL, SIL, DIL, R8L, R9L, R10L, R11L, R12L, R13L, R14L,
        R15L,
    ]
};

/// Gives operand `n` of an instruction that has its code a random value, in code of this size;
/// `memory` makes a memory operand. False if the kind of operand is not known here.
pub fn fill(
    rng: &mut Rng,
    i: &mut Instruction,
    n: u32,
    bits: u32,
    memory: impl FnOnce(&mut Rng, &mut Instruction),
) -> bool {
    let operand = i.code().op_code().op_kind(n);
    let (count, bytes) = if bits == 64 { (16, &BYTES[..]) } else { (8, &BYTES[..8]) };
    let nth = |rng: &mut Rng, first: Register, count: u32| first + rng.u32(..count);
    let register = match operand {
        Operand::al => Register::AL,
        Operand::cl => Register::CL,
        Operand::ax => Register::AX,
        Operand::eax => Register::EAX,
        Operand::rax => Register::RAX,
        Operand::st0 => Register::ST0,
        Operand::r8_reg | Operand::r8_opcode => bytes[rng.usize(..bytes.len())],
        Operand::r16_reg | Operand::r16_rm | Operand::r16_opcode => nth(rng, Register::AX, count),
        Operand::r32_reg | Operand::r32_rm | Operand::r32_opcode | Operand::r32_vvvv => {
            nth(rng, Register::EAX, count)
        }
        Operand::r64_reg | Operand::r64_rm | Operand::r64_opcode | Operand::r64_vvvv => {
            nth(rng, Register::RAX, count)
        }
        Operand::xmm_reg | Operand::xmm_rm | Operand::xmm_vvvv | Operand::xmm_is4 => {
            nth(rng, Register::XMM0, count)
        }
        Operand::ymm_reg | Operand::ymm_rm | Operand::ymm_vvvv | Operand::ymm_is4 => {
            nth(rng, Register::YMM0, count)
        }
        Operand::mm_reg | Operand::mm_rm => nth(rng, Register::MM0, 8),
        Operand::sti_opcode => nth(rng, Register::ST0, 8),
        Operand::r8_or_mem if rng.bool() => bytes[rng.usize(..bytes.len())],
        Operand::r16_or_mem if rng.bool() => nth(rng, Register::AX, count),
        Operand::r32_or_mem | Operand::r32_or_mem_mpx if rng.bool() => {
            nth(rng, Register::EAX, count)
        }
        Operand::r64_or_mem if rng.bool() => nth(rng, Register::RAX, count),
        Operand::xmm_or_mem if rng.bool() => nth(rng, Register::XMM0, count),
        Operand::ymm_or_mem if rng.bool() => nth(rng, Register::YMM0, count),
        Operand::mm_or_mem if rng.bool() => nth(rng, Register::MM0, 8),
        _ => return fill_other(rng, i, n, bits, memory),
    };
    i.set_op_kind(n, OpKind::Register);
    i.set_op_register(n, register);
    true
}

/// As [`fill`], for what is not a register.
fn fill_other(
    rng: &mut Rng,
    i: &mut Instruction,
    n: u32,
    bits: u32,
    memory: impl FnOnce(&mut Rng, &mut Instruction),
) -> bool {
    let operand = i.code().op_code().op_kind(n);
    let v = value(rng);
    let kind = match operand {
        // ENTER's.
        Operand::imm8 if n == 1 && i.op0_kind() == OpKind::Immediate16 => OpKind::Immediate8_2nd,
        Operand::imm8 => OpKind::Immediate8,
        Operand::imm8_const_1 => OpKind::Immediate8,
        Operand::imm8sex16 => OpKind::Immediate8to16,
        Operand::imm8sex32 => OpKind::Immediate8to32,
        Operand::imm8sex64 => OpKind::Immediate8to64,
        Operand::imm16 => OpKind::Immediate16,
        Operand::imm32 => OpKind::Immediate32,
        Operand::imm32sex64 => OpKind::Immediate32to64,
        Operand::imm64 => OpKind::Immediate64,
        Operand::seg_rSI => match bits {
            16 => OpKind::MemorySegSI,
            32 => OpKind::MemorySegESI,
            _ => OpKind::MemorySegRSI,
        },
        Operand::es_rDI => match bits {
            16 => OpKind::MemoryESDI,
            32 => OpKind::MemoryESEDI,
            _ => OpKind::MemoryESRDI,
        },
        Operand::seg_rBX_al => {
            i.set_memory_base(if bits == 64 { Register::RBX } else { Register::EBX });
            i.set_memory_index(Register::AL);
            OpKind::Memory
        }
        Operand::r8_or_mem
        | Operand::r16_or_mem
        | Operand::r32_or_mem
        | Operand::r64_or_mem
        | Operand::xmm_or_mem
        | Operand::ymm_or_mem
        | Operand::mm_or_mem
        | Operand::mem_vsib32x
        | Operand::mem_vsib64x
        | Operand::mem_vsib32y
        | Operand::mem_vsib64y
        | Operand::mem => {
            memory(rng, i);
            OpKind::Memory
        }
        _ => return false,
    };
    i.set_op_kind(n, kind);
    match kind {
        OpKind::Immediate8 => {
            i.set_immediate8(if operand == Operand::imm8_const_1 { 1 } else { v as u8 });
        }
        OpKind::Immediate8_2nd => i.set_immediate8_2nd(v as u8),
        OpKind::Immediate8to16 => i.set_immediate8to16(v as i8 as i16),
        OpKind::Immediate8to32 => i.set_immediate8to32(v as i8 as i32),
        OpKind::Immediate8to64 => i.set_immediate8to64(v as i8 as i64),
        OpKind::Immediate16 => i.set_immediate16(v as u16),
        OpKind::Immediate32 => i.set_immediate32(v as u32),
        OpKind::Immediate32to64 => i.set_immediate32to64(v as i32 as i64),
        OpKind::Immediate64 => i.set_immediate64(v),
        _ => {}
    }
    true
}

/// Random prefixes that the instruction may have.
pub fn prefixes(rng: &mut Rng, i: &mut Instruction) {
    let form = i.code().op_code();
    let locked = i.op_count() > 0 && i.op0_kind() == OpKind::Memory && form.can_use_lock_prefix();
    i.set_has_lock_prefix(locked && rng.bool());
    if i.is_string_instruction() {
        match rng.u8(..3) {
            0 => i.set_has_rep_prefix(true),
            1 if form.can_use_repne_prefix() => i.set_has_repne_prefix(true),
            _ => {}
        }
    }
}

/// Values where most interesting things happen: at the ends of the ranges of all widths.
pub fn value(rng: &mut Rng) -> u64 {
    let bits = [8, 16, 32, 64][rng.usize(..4)];
    let edge = match rng.u8(..4) {
        0 => 0,
        1 => 1u64 << (bits - 1),
        2 => (1u64 << (bits - 1)) - 1,
        _ => u64::MAX >> (64 - bits),
    };
    match rng.u8(..8) {
        0..3 => rng.u64(..),
        3 => rng.u64(..) >> rng.u32(..64),
        4 => 1 << rng.u32(..64),
        5 => u64::from(rng.u8(..)),
        6 => (rng.u8(..) as i8 as i64) as u64,
        _ => edge.wrapping_add((rng.u8(..5) as i64 - 2) as u64),
    }
}
