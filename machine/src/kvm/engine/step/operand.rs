//! The operand in memory of an instruction that is executed twice: what was there between.

use brolga_cpu::core::Core;
use brolga_mmu::{GuestPhys, Linear};
use iced_x86::{Instruction, OpKind, Register};

use crate::linear;

/// Its bytes: where they are, and what was there.
#[derive(Default, PartialEq)]
pub(super) struct Operand(Vec<(GuestPhys, u8)>);

impl Operand {
    /// That of an instruction, if one is in memory and mapped: every byte that it may have.
    pub(super) fn of(core: &Core, insn: &Instruction) -> Self {
        const WIDEST: u64 = 8;
        let v = &core.vcpu;
        let value = |register: Register, _, _| {
            if register.is_segment_register() {
                let flat = v.code64() && register.number() < 4;
                return Some(if flat { 0 } else { v.segs[register.number()].base });
            }
            let value = v.regs.get(register.full_register().number())?;
            Some(value & (u64::MAX >> (64 - 8 * register.size())))
        };
        let operand = (0..insn.op_count()).find(|&n| insn.op_kind(n) == OpKind::Memory);
        let Some(at) = operand.and_then(|n| insn.virtual_address(n, 0, value)) else {
            return Self::default();
        };
        let bytes = (0..WIDEST).filter_map(|n| {
            let mask = if v.code64() { u64::MAX } else { u32::MAX.into() };
            let phys = linear::translate(core, Linear(at.wrapping_add(n) & mask))?;
            Some((phys, byte(core, phys)?))
        });
        Self(bytes.collect())
    }

    /// The same bytes as they are now.
    pub(super) fn again(&self, core: &Core) -> Self {
        // They could be read before.
        Self(self.0.iter().map(|&(at, _)| (at, byte(core, at).unwrap_or_default())).collect())
    }

    /// Makes memory what it was.
    pub(super) fn put(&self, core: &Core) {
        for (at, byte) in &self.0 {
            let _ = core.mem.map.write_slice(*at, &[*byte]);
        }
    }
}

fn byte(core: &Core, at: GuestPhys) -> Option<u8> {
    let mut byte = [0];
    core.mem.map.read_slice(at, &mut byte).ok()?;
    Some(byte[0])
}
