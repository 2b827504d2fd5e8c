//! The string comparisons of SSE4.2: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM
//! (SDM vol. 2, 4.1).

use brolga_mmu::Width;

use super::{Memory, Xmm, source};
use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::flags::FlagOp;
use crate::insn::{Insn, bits};
use crate::vcpu::gpr;
use crate::vcpu::rflags::{CF, OF, SF, ZF};
use crate::vector::VectorBackend;

/// What the immediate asks for.
#[derive(Clone, Copy)]
struct Control(u8);

impl Control {
    /// Elements in a vector.
    fn elements(self) -> u32 {
        if self.0 & 1 != 0 { 8 } else { 16 }
    }

    /// Element `n` of `x`.
    fn element(self, x: u128, n: u32) -> i32 {
        match self.0 & 3 {
            0 => i32::from((x >> (8 * n)) as u8),
            1 => i32::from((x >> (16 * n)) as u16),
            2 => i32::from((x >> (8 * n)) as i8),
            _ => i32::from((x >> (16 * n)) as i16),
        }
    }

    /// All bits of an element.
    fn element_mask(self) -> u128 {
        if self.0 & 1 != 0 { 0xffff } else { 0xff }
    }

    /// The number of elements before the first null one.
    fn implicit_len(self, x: u128) -> u32 {
        (0..self.elements()).find(|&n| self.element(x, n) == 0).unwrap_or(self.elements())
    }

    /// A bit for each element of `b`: whether it takes part in a match with the set, the ranges,
    /// the string or the substring `a` (table 4-2; invalid elements as in table 4-7).
    fn aggregate(self, a: &Text, b: &Text) -> u32 {
        let n = self.elements();
        let (at_a, at_b) = (|i| self.element(a.x, i), |j| self.element(b.x, j));
        let hit = |j: u32| match self.0 >> 2 & 3 {
            0 => j < b.len && (0..a.len).any(|i| at_a(i) == at_b(j)),
            1 => {
                let within = |i: u32| at_a(2 * i) <= at_b(j) && at_b(j) <= at_a(2 * i + 1);
                j < b.len && (0..a.len / 2).any(within)
            }
            2 => match (j < a.len, j < b.len) {
                (true, true) => at_a(j) == at_b(j),
                (valid_a, valid_b) => valid_a == valid_b,
            },
            _ => (0..n - j).all(|i| i >= a.len || i + j < b.len && at_a(i) == at_b(i + j)),
        };
        (0..n).fold(0, |r, j| r | u32::from(hit(j)) << j)
    }

    /// Negates all bits, or those of valid elements only (table 4-3).
    fn polarize(self, bits: u32, b: &Text) -> u32 {
        let all = (1 << self.elements()) - 1;
        match self.0 >> 4 & 3 {
            1 => bits ^ all,
            3 => bits ^ ((1 << b.len) - 1),
            _ => bits,
        }
    }

    /// The index of the lowest or highest bit; the number of elements if there is none.
    fn index(self, bits: u32) -> u32 {
        match bits {
            0 => self.elements(),
            _ if self.0 & 0x40 != 0 => bits.ilog2(),
            _ => bits.trailing_zeros(),
        }
    }

    /// The bits themselves, or spread over the elements.
    fn mask(self, bits: u32) -> u128 {
        if self.0 & 0x40 == 0 {
            return bits.into();
        }
        let width = 128 / self.elements();
        let set = (0..self.elements()).filter(|n| bits >> n & 1 != 0);
        set.fold(0, |m, n| m | self.element_mask() << (width * n))
    }
}

/// A vector of which the first `len` elements are valid.
struct Text {
    x: u128,
    len: u32,
}

/// The absolute value of a length register, at most the number of elements.
fn explicit_len(core: &mut Core, i: &Insn, reg: u8, elements: u32) -> u32 {
    let len = if i.has(bits::WIDE) {
        (core.reg(Width::W64, reg) as i64).unsigned_abs()
    } else {
        u64::from((core.reg(Width::W32, reg) as i32).unsigned_abs())
    };
    len.min(elements.into()) as u32
}

/// Compares two strings, whose lengths are in (R/E)AX and (R/E)DX if `EXPLICIT`. The result is a
/// mask in XMM0 if `MASK`, else an index in ECX.
pub fn compare<const EXPLICIT: bool, const MASK: bool, const MEM: bool>(
    core: &mut Core,
    i: &Insn,
) -> Result<(), Exit> {
    let control = Control(i.imm as u8);
    let n = control.elements();
    let b = source::<Core, Xmm, MEM>(core, i, Memory::M16U)?;
    let a = core.xmm(i.reg[0]);
    let (len_a, len_b) = if EXPLICIT {
        (explicit_len(core, i, gpr::RAX, n), explicit_len(core, i, gpr::RDX, n))
    } else {
        (control.implicit_len(a), control.implicit_len(b))
    };
    let (a, b) = (Text { x: a, len: len_a }, Text { x: b, len: len_b });
    let result = control.polarize(control.aggregate(&a, &b), &b);
    if MASK {
        core.set_xmm(0, control.mask(result));
    } else {
        core.set_reg(Width::W32, gpr::RCX, control.index(result).into());
    }
    let flag = |on: bool, bit: u64| if on { bit } else { 0 };
    let flags = flag(result != 0, CF)
        | flag(b.len < n, ZF)
        | flag(a.len < n, SF)
        | flag(result & 1 != 0, OF);
    core.flags(FlagOp::Bits, Width::W64, flags, 0, 0);
    Ok(())
}
