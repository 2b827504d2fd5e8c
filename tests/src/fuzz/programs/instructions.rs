//! Single random instructions, with what sets up their operands.

use std::sync::OnceLock;

use fastrand::Rng;
use iced_x86::{Code, Encoder, Instruction, Mnemonic, OpKind, Register};

use crate::operands::{codes, fill, prefixes};
use crate::oracle::families::FAMILIES;

use super::generate::Kind;
use super::layout::*;
use super::place::{Fix, Item};

/// How often each family of [`FAMILIES`] comes, in their order.
const WEIGHTS: [u32; 18] = [8, 5, 3, 4, 6, 6, 5, 6, 3, 6, 3, 3, 2, 3, 4, 3, 2, 5];

/// A random instruction in code of this size.
pub(super) fn instruction(rng: &mut Rng, kind: Kind, bits: u32) -> Item {
    loop {
        let family = &encodings()[(bits / 32) as usize][pick(rng, &WEIGHTS)];
        let code = family[rng.usize(..family.len())];
        if let Some(item) = instance(rng, kind, bits, code) {
            return item;
        }
    }
}

/// A random repeated string instruction, mostly with a count that is soon done.
pub(super) fn string(rng: &mut Rng, kind: Kind, bits: u32) -> Item {
    const STRINGS: usize = 7;
    loop {
        let family = &encodings()[(bits / 32) as usize][STRINGS];
        let code = family[rng.usize(..family.len())];
        if let Some(item) = instance(rng, kind, bits, code) {
            return item;
        }
    }
}

/// The index of one of some weights.
pub(super) fn pick(rng: &mut Rng, weights: &[u32]) -> usize {
    let mut left = rng.u32(..weights.iter().sum::<u32>());
    for (n, &weight) in weights.iter().enumerate() {
        if left < weight {
            return n;
        }
        left -= weight;
    }
    unreachable!("less than the sum of the weights is left")
}

/// The encodings of each family in 16-, 32- and 64-bit code.
fn encodings() -> &'static [Vec<Vec<Code>>; 3] {
    static ENCODINGS: OnceLock<[Vec<Vec<Code>>; 3]> = OnceLock::new();
    ENCODINGS.get_or_init(|| {
        assert_eq!(FAMILIES.len(), WEIGHTS.len(), "each family has a weight");
        [16, 32, 64]
            .map(|bits| FAMILIES.iter().map(|family| codes(family.mnemonics, bits)).collect())
    })
}

/// An instance of `code`; `None` if the operands drawn have no encoding, or would lose the stack.
fn instance(rng: &mut Rng, kind: Kind, bits: u32, code: Code) -> Option<Item> {
    let mut i = Instruction::new();
    i.set_code(code);
    let mut setup = Setup { kind, bits, bytes: Vec::new() };
    for n in 0..code.op_code().op_count() {
        fill(rng, &mut i, n, bits, |rng, i| setup.memory(rng, i));
    }
    if loses_stack(&i) && rng.u8(..32) != 0 {
        return None;
    }
    if i.is_string_instruction() {
        setup.string(rng);
    }
    if rng.u8(..4) != 0 {
        prefixes(rng, &mut i);
    }
    if rng.u8(..32) == 0 && (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
        i.set_segment_prefix(Register::ES + rng.u32(..6));
    }
    let start = setup.bytes.len();
    let mut encoder = Encoder::new(bits);
    encoder.encode(&i, start as u64).ok()?;
    let displacement = encoder.get_constant_offsets();
    let mut item = Item::new(setup.bytes).then(encoder.take_buffer());
    if i.is_ip_rel_memory_operand() {
        item.fixes.push(Fix {
            at: start + displacement.displacement_offset(),
            width: displacement.displacement_size(),
            label: None,
            relative: true,
        });
    }
    Some(item)
}

fn loses_stack(i: &Instruction) -> bool {
    let register = i.op_count() > 0 && i.op0_kind() == OpKind::Register;
    i.mnemonic() == Mnemonic::Leave
        || register
            && i.op0_register().is_gpr()
            && i.op0_register().full_register() == Register::RSP
}

/// Loads of the registers that an instruction's operands go through.
struct Setup {
    kind: Kind,
    bits: u32,
    bytes: Vec<u8>,
}

impl Setup {
    /// MOV of a register and an immediate; nothing for a register that the code does not have.
    fn load(&mut self, register: Register, value: u64) {
        let (code, register) = match register {
            r if r.is_gpr64() && value >> 32 != 0 => (Code::Mov_r64_imm64, r),
            r if r.is_gpr64() => (Code::Mov_r32_imm32, Register::EAX + r.number() as u32),
            r if r.is_gpr32() => (Code::Mov_r32_imm32, r),
            r => (Code::Mov_r16_imm16, r),
        };
        let instruction = match code {
            Code::Mov_r64_imm64 => Instruction::with2(code, register, value),
            _ => Instruction::with2(code, register, value as u32),
        };
        let mut encoder = Encoder::new(self.bits);
        if instruction.is_ok_and(|instruction| encoder.encode(&instruction, 0).is_ok()) {
            self.bytes.extend(encoder.take_buffer());
        }
    }

    /// A random memory operand, and the registers that it goes through.
    fn memory(&mut self, rng: &mut Rng, i: &mut Instruction) {
        let other = rng.u8(..8) == 0;
        match (self.bits, other) {
            (64, false) => self.wide(rng, i, Register::RAX, 8),
            (16, false) if self.kind == Kind::Real => self.short(rng, i),
            (32, true) => self.short(rng, i),
            (16, true) if self.kind != Kind::Real => self.short(rng, i),
            _ => self.wide(rng, i, Register::EAX, 4),
        }
    }

    /// An address of 32 or 64 bits.
    fn wide(&mut self, rng: &mut Rng, i: &mut Instruction, first: Register, size: u32) {
        let target = target(rng, self.kind, size * 8);
        let form = rng.u8(..8);
        if form == 0 {
            if self.bits == 64 && rng.bool() {
                i.set_memory_base(Register::RIP);
            }
            i.set_memory_displ_size(size);
            i.set_memory_displacement64(target);
            return;
        }
        let count = if self.bits == 64 { 16 } else { 8 };
        let register = |rng: &mut Rng| match first + rng.u32(..count) {
            Register::RSP => Register::RSI,
            Register::ESP => Register::ESI,
            other => other,
        };
        let base = register(rng);
        let displacement = if form < 5 { i64::from(rng.i8(..)) } else { rng.i64(-0x2000..0x2000) };
        i.set_memory_base(base);
        i.set_memory_displ_size(if form < 5 { 1 } else { size });
        i.set_memory_displacement64(displacement as u64 & u64::MAX >> (64 - 8 * size));
        let mut sum = target.wrapping_sub(displacement as u64);
        let index = register(rng);
        if rng.u8(..3) == 0 && index != base {
            let (scale, value) = (1 << rng.u32(..4), rng.u64(..0x40));
            i.set_memory_index(index);
            i.set_memory_index_scale(scale);
            self.load(index, value);
            sum = sum.wrapping_sub(value * u64::from(scale));
        }
        self.load(base, sum & u64::MAX >> (64 - 8 * size));
    }

    /// An address of 16 bits.
    fn short(&mut self, rng: &mut Rng, i: &mut Instruction) {
        const FORMS: [(Register, Register); 9] = {
            use Register::{BP, BX, DI, None, SI};
            [
                (BX, SI),
                (BX, DI),
                (BP, SI),
                (BP, DI),
                (SI, None),
                (DI, None),
                (BP, None),
                (BX, None),
                (None, None),
            ]
        };
        let target = target(rng, self.kind, 16);
        let (base, index) = FORMS[rng.usize(..FORMS.len())];
        i.set_memory_displ_size(2);
        if base == Register::None {
            i.set_memory_displacement64(target);
            return;
        }
        let displacement = rng.u64(..0x100);
        let mut sum = target.wrapping_sub(displacement);
        i.set_memory_base(base);
        i.set_memory_displacement64(displacement);
        if index != Register::None {
            let value = rng.u64(..0x100);
            i.set_memory_index(index);
            self.load(index, value);
            sum = sum.wrapping_sub(value);
        }
        self.load(base, sum & 0xffff);
    }

    /// Count, direction and addresses of a string instruction.
    fn string(&mut self, rng: &mut Rng) {
        let first = match self.bits {
            64 => Register::RAX,
            32 => Register::EAX,
            _ => Register::AX,
        };
        let count = if rng.u8(..16) == 0 { rng.u64(..0x2000) } else { rng.u64(..48) };
        self.load(first + 1_u32, count);
        for register in [6_u32, 7] {
            let target = target(rng, self.kind, self.bits);
            self.load(first + register, target);
        }
        // CLD or STD.
        self.bytes.push(if rng.u8(..4) == 0 { 0xfd } else { 0xfc });
    }
}

/// Where memory operands lie, as far as an address of this size reaches: in the data, mostly,
/// often at the end of a page; and wherever something else happens.
pub(super) fn target(rng: &mut Rng, kind: Kind, bits: u32) -> u64 {
    let within = |rng: &mut Rng, from: u64, to: u64| {
        let at = rng.u64(from..to);
        match rng.u8(..4) {
            0 => at & !0xf,
            1 => (at | 0xfff) - rng.u64(..16),
            2 => (at & !0xfff) + rng.u64(..16),
            _ => at,
        }
    };
    match (kind, rng.u8(..32)) {
        (Kind::Real, 0) => 0x1_0000 - rng.u64(..16),
        (Kind::Real, _) => within(rng, 0, STACK_END - DATA),
        _ if bits == 16 => within(rng, CODE_END - 0x1000, CODE_END),
        (_, 0) => within(rng, CODE, CODE_END),
        (_, 1) => within(rng, ALIAS + CODE, ALIAS + CODE_END),
        (_, 2..5) => within(rng, ALIAS + DATA, ALIAS + DATA_END),
        (_, 5) => within(rng, READ_ONLY + DATA, READ_ONLY + DATA_END),
        (_, 6) => within(rng, UNMAPPED, UNMAPPED + 0x1_0000),
        (_, 7) => within(rng, STACK, STACK_END),
        (_, 8) if bits == 64 => 0x7fff_ffff_fff8 + rng.u64(..16),
        _ => within(rng, DATA, DATA_END),
    }
}
