//! The decoded form of one instruction: what the semantics need and nothing else.

use brolga_mmu::Width;

use crate::vcpu::Seg;

/// Prefix and behaviour bits of an [`Insn`].
#[allow(missing_docs)]
pub mod bits {
    pub const LOCK: u16 = 1;
    pub const REP: u16 = 1 << 1;
    pub const REPNE: u16 = 1 << 2;
    /// CS, DS, ES and SS are flat 64-bit: the block is 64-bit code.
    pub const CODE64: u16 = 1 << 3;
    /// Near control transfers need no limit check: flat 32-bit code.
    pub const CS_FLAT: u16 = 1 << 4;
    /// REX.W was present, or the operand size is 64 bits.
    pub const WIDE: u16 = 1 << 5;
    /// Operand 1 is memory.
    pub const MEM1: u16 = 1 << 6;
    /// Operand 0 is memory.
    pub const MEM0: u16 = 1 << 7;
    /// Operand 2 is memory.
    pub const MEM2: u16 = 1 << 8;
    /// VEX: operand 1 is the first source, and operand 2 the one that may be memory.
    pub const THREE: u16 = 1 << 9;
    /// VEX: vectors of 256 bits.
    pub const YMM: u16 = 1 << 10;
}

/// A decoded instruction inside a block.
///
/// For an engine that translates, every field is a constant; for the interpreter it is data.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Insn {
    /// Register number of operand `i`, where operand `i` is a register: 0-15, and for the byte
    /// registers AH, CH, DH, BH 16-19 (number of the full register + 16). Segment, control and
    /// debug registers, XMM, MMX and ST registers likewise by their own numbers.
    pub reg: [u8; 4],
    /// Base register slot of the memory operand, [`crate::vcpu::ZERO`] or [`crate::vcpu::RIP`].
    pub base: u8,
    /// Index register slot, or [`crate::vcpu::ZERO`].
    pub index: u8,
    /// Left shift of the index, 0-3.
    pub scale: u8,
    /// Segment of the memory operand.
    pub seg: Seg,
    /// Offset of this instruction from the block's first byte.
    pub at: u16,
    /// Offset of the following instruction.
    pub next: u16,
    /// Operand-size attribute: 16, 32 or 64 bits.
    pub opsize: Width,
    /// Address-size attribute.
    pub addrsize: Width,
    /// Width of the stack pointer.
    pub stack: Width,
    /// Segment of stack accesses: SS or flat.
    pub stack_seg: Seg,
    /// iced's `Code`, for diagnostics and for functions that serve several instructions.
    pub code: u16,
    /// See [`bits`].
    pub bits: u16,
    /// Second immediate (ENTER's nesting level), or the memory operand's size in bytes.
    pub aux: u8,
    /// Mask that wraps the effective address to the address size; for near branches, the mask
    /// that wraps IP to the operand size.
    pub ea_mask: u64,
    /// Displacement of the memory operand; if the base is RIP, relative to the block's start.
    pub disp: u64,
    /// Immediate, sign-extended as the instruction defines and cut to the operand width. Near
    /// branches: the target relative to the block's start. Far ones: selector << 32 | offset.
    pub imm: u64,
}

impl Insn {
    /// Whether `mask` (see [`bits`]) is set.
    #[inline(always)]
    pub fn has(&self, mask: u16) -> bool {
        self.bits & mask != 0
    }
}
