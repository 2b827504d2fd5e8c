//! Random instructions of given kinds, with random operands.

use fastrand::Rng;
use iced_x86::{Code, Encoder, Instruction, Mnemonic, OpKind, Register};

use crate::operands::{fill, prefixes, value};

use super::layout::{INSTRUCTION, SCRATCH, SCRATCH_LEN};
use super::state::State;

/// A case: an instruction and what it starts from.
pub struct Generated {
    /// The instruction.
    pub instruction: Instruction,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The state before.
    pub state: State,
}

impl Generated {
    /// The address of the instruction's memory operand.
    pub fn address(&self) -> Option<u64> {
        let i = &self.instruction;
        let memory = (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory)?;
        address(i, memory, &self.state.regs)
    }
}

/// The address of operand `n`.
fn address(i: &Instruction, n: u32, regs: &[u64; 16]) -> Option<u64> {
    i.virtual_address(n, 0, |register, _, _| {
        Some(if register.is_segment_register() {
            0
        } else if register.is_gpr32() {
            regs[register.number()] & 0xffff_ffff
        } else {
            regs[register.number()]
        })
    })
}

/// A random instance of `code`.
pub fn generate(rng: &mut Rng, code: Code) -> Generated {
    loop {
        let mut instruction = Instruction::new();
        instruction.set_code(code);
        let form = code.op_code();
        for n in 0..form.op_count() {
            fill(rng, &mut instruction, n, 64, memory);
        }
        prefixes(rng, &mut instruction);
        let state = state(rng, &mut instruction);
        let mut encoder = Encoder::new(64);
        // Not every combination exists: AH next to a REX prefix, for one.
        if encoder.encode(&instruction, INSTRUCTION).is_ok() {
            return Generated { instruction, bytes: encoder.take_buffer(), state };
        }
    }
}

/// A random form of address; the registers are set when the state is made.
fn memory(rng: &mut Rng, i: &mut Instruction) {
    let first = if rng.u8(..8) == 0 { Register::EAX } else { Register::RAX };
    match rng.u8(..8) {
        0 => {
            i.set_memory_base(Register::RIP);
            i.set_memory_displ_size(8);
            return;
        }
        1 => i.set_memory_displ_size(4),
        form => {
            i.set_memory_base(first + rng.u32(..16));
            i.set_memory_displ_size(if form < 6 { 1 } else { 8 });
        }
    }
    let index = first + rng.u32(..16);
    // RSP cannot be an index.
    if rng.bool() && index.number() != 4 {
        i.set_memory_index(index);
        i.set_memory_index_scale(1 << rng.u32(..4));
    }
    if i.memory_base() == Register::None && i.memory_index() == Register::None {
        i.set_memory_base(first);
    }
}

/// An offset into the scratch memory: mostly well inside, sometimes across pages or its end.
fn offset(rng: &mut Rng) -> u64 {
    let len = SCRATCH_LEN as u64;
    match rng.u8(..16) {
        0 => len / 2 - rng.u64(..32),
        1 => len - rng.u64(..32),
        2..8 => (len / 4 + rng.u64(..len / 2)) & !15,
        _ => len / 4 + rng.u64(..len / 2),
    }
}

/// Gives `case` other operands: vectors, MXCSR, memory, and the general registers if they are no
/// part of an address.
pub fn vary(rng: &mut Rng, case: &mut Generated) {
    let state = &mut case.state;
    state.fx = fx(rng);
    match rng.u8(..3) {
        0 => rng.fill(&mut state.scratch[..]),
        1 => state.scratch.as_chunks_mut().0.iter_mut().for_each(|lane: &mut [u8; 4]| {
            *lane = single(rng).to_le_bytes();
        }),
        _ => state.scratch.as_chunks_mut().0.iter_mut().for_each(|lane: &mut [u8; 8]| {
            *lane = double(rng).to_le_bytes();
        }),
    }
    let i = &case.instruction;
    if (0..i.op_count()).all(|n| i.op_kind(n) != OpKind::Memory) {
        state.regs = std::array::from_fn(|_| value(rng));
    }
}

fn state(rng: &mut Rng, i: &mut Instruction) -> State {
    const FIXED: u64 = 0x202;
    const DF: u64 = 1 << 10;
    let mut regs = std::array::from_fn(|_| value(rng));
    let mut scratch = Box::new([0; SCRATCH_LEN]);
    rng.fill(&mut scratch[..]);
    let place = |rng: &mut Rng| SCRATCH + offset(rng);
    regs[4] = place(rng);
    if i.is_string_instruction() {
        (regs[1], regs[6], regs[7]) = (rng.u64(..40), place(rng), place(rng));
        if rng.bool() {
            // Comparisons that go on for a while.
            scratch.fill(rng.u8(..));
            regs[0] = u64::from_le_bytes([scratch[0]; 8]);
        }
    } else if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
        aim(rng, i, &mut regs);
    } else if matches!(i.mnemonic(), Mnemonic::Leave) {
        regs[5] = place(rng);
    }
    divide(rng, i, &mut regs);
    compare(rng, i, &mut regs, &mut scratch[..]);
    let df = if i.is_string_instruction() && rng.bool() { DF } else { 0 };
    let rflags = FIXED | df | rng.u64(..) & brolga_cpu::vcpu::rflags::STATUS;
    State { regs, rflags, fx: fx(rng), scratch }
}

/// Sets registers and displacement so that the memory operand lies in the scratch memory, or as
/// near to it as the form of the address allows.
fn aim(rng: &mut Rng, i: &mut Instruction, regs: &mut [u64; 16]) {
    let target = SCRATCH + offset(rng);
    let short = i.memory_displ_size() == 1;
    let small = if short { i64::from(rng.i8(..)) } else { i64::from(rng.i32(-0x1000..0x1000)) };
    let wide = i.memory_base().is_gpr64() || i.memory_index().is_gpr64();
    // A bit offset in a register reaches far: keep it near.
    if matches!(i.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && i.op1_kind() == OpKind::Register
    {
        let reg = &mut regs[i.op1_register().number()];
        *reg = (i64::from(rng.i16(-0x2000..0x2000)) as u64) ^ if wide { 0 } else { 1 };
        if i.op1_register().is_gpr32() {
            *reg &= 0xffff_ffff;
        }
    }
    let scale = u64::from(i.memory_index_scale());
    let index = i.memory_index();
    match i.memory_base() {
        Register::RIP => i.set_memory_displacement64(target),
        Register::None => {
            let v = rng.u64(..0x100);
            regs[index.number()] = v;
            let displacement = target.wrapping_sub(v * scale);
            i.set_memory_displacement64(displacement);
        }
        base => {
            i.set_memory_displacement64(small as u64);
            let mut sum = target.wrapping_sub(small as u64);
            if index != Register::None && index.number() != base.number() {
                let v = rng.u64(..0x1_0000);
                regs[index.number()] = v;
                sum = sum.wrapping_sub(v * scale);
            } else if index != Register::None {
                sum /= scale + 1;
            }
            regs[base.number()] = sum;
        }
    }
    if !wide && i.memory_base() != Register::RIP {
        // The upper halves do not count, but RSP's does for everything else.
        for r in [i.memory_base(), index] {
            if r != Register::None && r.number() != 4 {
                regs[r.number()] |= rng.u64(..) << 32;
            }
        }
        i.set_memory_displacement64(i.memory_displacement64() & 0xffff_ffff);
    }
}

/// Half of all divisions shall not overflow.
fn divide(rng: &mut Rng, i: &Instruction, regs: &mut [u64; 16]) {
    if matches!(i.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) && rng.bool() {
        let negative = i.mnemonic() == Mnemonic::Idiv && rng.bool();
        let memory = i.op0_kind() == OpKind::Memory;
        let used = |n: usize| {
            memory
                && [i.memory_base(), i.memory_index()]
                    .iter()
                    .any(|r| *r != Register::None && *r != Register::RIP && r.number() == n)
        };
        if !used(2) {
            regs[2] = if negative { u64::MAX } else { 0 };
        }
    }
}

/// Half of all compare-and-exchanges shall succeed.
fn compare(rng: &mut Rng, i: &Instruction, regs: &mut [u64; 16], scratch: &mut [u8]) {
    let compares =
        matches!(i.mnemonic(), Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b);
    if !compares || rng.bool() {
        return;
    }
    if i.op0_kind() == OpKind::Register {
        if !i.op0_register().is_gpr8() {
            regs[i.op0_register().number()] = regs[0];
        }
        return;
    }
    let expected = match i.mnemonic() {
        Mnemonic::Cmpxchg8b => (regs[2] << 32 | regs[0] & 0xffff_ffff).to_le_bytes().to_vec(),
        _ => [regs[0].to_le_bytes(), regs[2].to_le_bytes()].concat(),
    };
    let at = address(i, 0, regs).map(|a| a.wrapping_sub(SCRATCH) as usize);
    if let Some(place) = at.and_then(|at| scratch.get_mut(at..at.checked_add(expected.len())?)) {
        place.copy_from_slice(&expected);
    }
}

/// Random x87 and SSE state, all exceptions masked most of the time.
fn fx(rng: &mut Rng) -> [u8; 512] {
    let mut fx = [0; 512];
    let fcw = 0x037f ^ if rng.u8(..4) == 0 { rng.u16(..16) << 8 & 0x0f00 } else { 0 };
    let fsw = rng.u16(..) & 0x7f00;
    fx[0..2].copy_from_slice(&fcw.to_le_bytes());
    fx[2..4].copy_from_slice(&fsw.to_le_bytes());
    fx[4] = if rng.bool() { 0xff } else { rng.u8(..) };
    let mut mxcsr = 0x1f80 | u32::from(rng.u8(..4)) << 13;
    if rng.u8(..4) == 0 {
        mxcsr ^= u32::from(rng.u8(..64)) << 7;
    }
    if rng.u8(..4) == 0 {
        mxcsr |= 0x8040;
    }
    fx[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    for n in 0..8 {
        let (mantissa, exponent) = extended(rng);
        fx[32 + 16 * n..][..8].copy_from_slice(&mantissa.to_le_bytes());
        fx[40 + 16 * n..][..2].copy_from_slice(&exponent.to_le_bytes());
    }
    for n in 0..16 {
        let at = 160 + 16 * n;
        match rng.u8(..3) {
            0 => rng.fill(&mut fx[at..at + 16]),
            1 => (0..4).for_each(|lane| {
                fx[at + 4 * lane..][..4].copy_from_slice(&single(rng).to_le_bytes());
            }),
            _ => (0..2).for_each(|lane| {
                fx[at + 8 * lane..][..8].copy_from_slice(&double(rng).to_le_bytes());
            }),
        }
    }
    fx
}

fn single(rng: &mut Rng) -> u32 {
    let sign = u32::from(rng.bool()) << 31;
    sign | match rng.u8(..10) {
        0 => 0,
        1 => 0x7f80_0000,
        2 => 0x7fc0_0000 | rng.u32(..) >> 10,
        3 => 0x7f80_0001 | rng.u32(..) >> 11,
        4 => rng.u32(..) >> 9,
        5 => (f32::from(rng.i16(..))).to_bits(),
        6 => 0x3f80_0000 + (rng.u32(..) >> 6) - (1 << 25),
        _ => rng.u32(..) >> 1,
    }
}

fn double(rng: &mut Rng) -> u64 {
    let sign = u64::from(rng.bool()) << 63;
    sign | match rng.u8(..10) {
        0 => 0,
        1 => 0x7ff0 << 48,
        2 => 0x7ff8 << 48 | rng.u64(..) >> 13,
        3 => 0x7ff0 << 48 | 1 | rng.u64(..) >> 14,
        4 => rng.u64(..) >> 12,
        5 => f64::from(rng.i32(..)).to_bits(),
        6 => (0x3ff0u64 << 48) + (rng.u64(..) >> 6) - (1 << 57),
        _ => rng.u64(..) >> 1,
    }
}

fn extended(rng: &mut Rng) -> (u64, u16) {
    const INTEGER: u64 = 1 << 63;
    let sign = u16::from(rng.bool()) << 15;
    let (mantissa, exponent) = match rng.u8(..12) {
        0 => (0, 0),
        1 => (INTEGER, 0x7fff),
        2 => (3 << 62 | rng.u64(..), 0x7fff),
        3 => (INTEGER | 1 | rng.u64(..) >> 2, 0x7fff),
        4 => (rng.u64(..) >> 1, 0),
        5 => (rng.u64(..), rng.u16(..0x8000)),
        6..8 => (INTEGER | rng.u64(..) << rng.u32(..64), 0x3fff + rng.u16(..64)),
        8 => (INTEGER | rng.u64(..) << rng.u32(..64), 0x4000 - rng.u16(..64)),
        _ => (INTEGER | rng.u64(..), rng.u16(1..0x7fff)),
    };
    (mantissa, sign | exponent)
}
