//! Instructions that need care when KVM executes them one at a time.

use brolga_cpu::vcpu::rflags;
use iced_x86::{Instruction, Mnemonic, OpCodeTableKind, OpKind, RflagsBits};

/// The flags that KVM cannot tell: those that an instruction leaves undefined, as processors do not
/// agree in them (but that logical operations clear AF), and TF, which is hidden while it steps.
pub(super) fn untold(insn: &Instruction) -> u64 {
    use Mnemonic::{And, Iret, Iretd, Or, Popf, Popfd, Popfq, Test, Xor};
    let bits = insn.rflags_undefined();
    let flags = [
        (RflagsBits::OF, rflags::OF),
        (RflagsBits::SF, rflags::SF),
        (RflagsBits::ZF, rflags::ZF),
        (RflagsBits::AF, rflags::AF),
        (RflagsBits::CF, rflags::CF),
        (RflagsBits::PF, rflags::PF),
    ];
    match insn.mnemonic() {
        And | Or | Test | Xor => return 0,
        Popf | Popfd | Popfq | Iret | Iretd => return rflags::TF,
        _ => {}
    }
    flags.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, flag)| flag).sum()
}

/// What is never stepped: what tells of TF, which KVM steps by; of the IDT, which is ours; of time
/// and chance; x87 instructions, whose selectors KVM does not hold; and strings of bits.
pub(super) fn is_ours(insn: &Instruction) -> bool {
    use Mnemonic::{
        Bt, Btc, Btr, Bts, Fxrstor, Fxrstor64, Int, Int1, Int3, Into, Lidt, Pushf, Pushfd, Pushfq,
        Rdpmc, Rdrand, Rdseed, Rdtsc, Rdtscp, Sidt, Syscall,
    };
    let code = insn.code().op_code();
    let opcode = code.op_code();
    let first = if opcode > 0xff { opcode >> 8 } else { opcode };
    let x87 = code.table() == OpCodeTableKind::Normal && matches!(first, 0x9b | 0xd8..=0xdf);
    // Their operand may lie far from its address, and their other flags are undefined.
    let string_of_bits = matches!(insn.mnemonic(), Bt | Bts | Btr | Btc)
        && insn.op0_kind() == OpKind::Memory
        && insn.op1_kind() == OpKind::Register;
    x87 || string_of_bits
        || matches!(
            insn.mnemonic(),
            Fxrstor
                | Fxrstor64
                | Int
                | Int1
                | Int3
                | Into
                | Lidt
                | Pushf
                | Pushfd
                | Pushfq
                | Rdpmc
                | Rdrand
                | Rdseed
                | Rdtsc
                | Rdtscp
                | Sidt
                | Syscall
        )
}

/// What ends a single step in long mode without a stop after it (docs/kvm.md).
pub(super) fn loses_the_step(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq)
}

/// What a KVM that emulates raises #UD for at level 3 (docs/kvm.md).
pub(super) fn is_unknown_to_emulators(insn: &Instruction) -> bool {
    use Mnemonic::{Iret, Iretd, Iretq, Lar, Lsl, Retf, Verr, Verw};
    matches!(insn.mnemonic(), Iret | Iretd | Iretq | Lar | Lsl | Retf | Verr | Verw)
}

/// The mask of rCX, if the instruction is repeated by it.
pub(super) fn repetition(insn: &Instruction) -> Option<u64> {
    let repeated = insn.has_rep_prefix() || insn.has_repne_prefix();
    let index = |n| match insn.op_kind(n) {
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => Some(0xffff),
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => Some(0xffff_ffff),
        OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => Some(u64::MAX),
        _ => None,
    };
    let string = insn.is_string_instruction();
    (repeated && string).then(|| (0..insn.op_count()).find_map(index)).flatten()
}
