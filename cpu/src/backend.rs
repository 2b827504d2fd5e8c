//! The interface every engine implements. Instruction semantics are written once, generic over
//! it: with plain integers they are the interpreter, with an IR builder they are a translator.

use brolga_mmu::Width;

use crate::core::{Core, Exit};
use crate::flags::{Cond, FlagOp};
use crate::insn::Insn;
use crate::vcpu::Seg;

/// Two-operand integer operations. Operands and results are zero-extended from the width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Bin {
    Add,
    Sub,
    And,
    Or,
    Xor,
    /// Low half of the product.
    Mul,
    /// Shift counts are taken as they are: callers mask them below the width.
    Shl,
    Shr,
    Sar,
    Rol,
    Ror,
    /// The low bits of `a`, spread to where `b` has ones (PDEP).
    Deposit,
    /// The bits of `a` where `b` has ones, side by side (PEXT).
    Extract,
}

/// One-operand integer operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Un {
    Not,
    Neg,
    /// Reverses the bytes of the width.
    Bswap,
    Popcnt,
    /// Index of the lowest set bit; the width if there is none.
    Ctz,
    /// Leading zeros within the width; the width if there is no bit set.
    Clz,
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Cmp {
    Eq,
    Ne,
    UnsignedLt,
    SignedLt,
}

pub use brolga_mmu::AtomicOp;

/// A rare or complex instruction as a plain function over the core. Translators leave to it.
pub type Complex = fn(&mut Core, &Insn) -> Result<(), Exit>;

/// What the meaning of an instruction is made of.
///
/// **All checks before any architectural write**: a semantic function first does everything that
/// can return `Err`, then changes state. An `Err` leaves the instruction without effect.
pub trait Backend: Sized {
    /// An integer value of up to 64 bits, zero-extended from its width.
    type V: Copy;
    /// A condition.
    type C: Copy;
    /// A memory location already checked for writing.
    type L: Copy;
    /// How execution leaves.
    type E;

    /// A constant.
    fn imm(&mut self, v: u64) -> Self::V;
    /// General register `r` (numbering of [`Insn::reg`]; slots ZERO and RIP too) at width `w`.
    fn reg(&mut self, w: Width, r: u8) -> Self::V;
    /// Writes a general register: 8 and 16 bits merge, 32 bits zero-extend (SDM vol. 1, 3.4.1.1).
    fn set_reg(&mut self, w: Width, r: u8, v: Self::V);

    /// `a op b`, cut to `w`.
    fn bin(&mut self, op: Bin, w: Width, a: Self::V, b: Self::V) -> Self::V;
    /// `op a`, cut to `w`.
    fn un(&mut self, op: Un, w: Width, a: Self::V) -> Self::V;
    /// High half of the product of two `w`-wide values.
    fn mul_high(&mut self, signed: bool, w: Width, a: Self::V, b: Self::V) -> Self::V;
    /// Quotient and remainder of the double-width dividend `high:low` by `by`; #DE if `by` is 0 or
    /// the quotient does not fit in `w`.
    fn divide(
        &mut self,
        signed: bool,
        w: Width,
        high: Self::V,
        low: Self::V,
        by: Self::V,
    ) -> Result<(Self::V, Self::V), Self::E>;
    /// Sign-extends `v` from `from` and cuts it to `to`.
    fn sext(&mut self, from: Width, to: Width, v: Self::V) -> Self::V;
    /// Cuts `v` to `w`.
    fn trunc(&mut self, w: Width, v: Self::V) -> Self::V;
    /// Compares two `w`-wide values.
    fn cmp(&mut self, op: Cmp, w: Width, a: Self::V, b: Self::V) -> Self::C;
    /// `c ? a : b`, both already computed.
    fn select(&mut self, c: Self::C, a: Self::V, b: Self::V) -> Self::V;
    /// 1 or 0.
    fn cond_value(&mut self, c: Self::C) -> Self::V;

    /// Records a flag-setting operation (see [`FlagOp`] for what `r`, `a`, `b` mean).
    fn flags(&mut self, op: FlagOp, w: Width, r: Self::V, a: Self::V, b: Self::V);
    /// As [`Backend::flags`], only if `c` holds; the old flags stay otherwise.
    fn flags_if(&mut self, c: Self::C, op: FlagOp, w: Width, r: Self::V, a: Self::V, b: Self::V);
    /// Replaces the flags in `mask`, CF or OF or both, by those of `new`, which has no others.
    fn replace_flags(&mut self, mask: u64, new: Self::V);
    /// As [`Backend::replace_flags`], only if `c` holds.
    fn replace_flags_if(&mut self, c: Self::C, mask: u64, new: Self::V);
    /// Evaluates a condition code on the current flags.
    fn cond(&mut self, cc: Cond) -> Self::C;
    /// The six status flags in their RFLAGS positions.
    fn status(&mut self) -> Self::V;

    /// Loads from memory.
    fn load(&mut self, w: Width, seg: Seg, ea: Self::V) -> Result<Self::V, Self::E>;
    /// Stores to memory, all or nothing.
    fn store(&mut self, w: Width, seg: Seg, ea: Self::V, v: Self::V) -> Result<(), Self::E>;
    /// Loads and checks that the same place can be written: a [`Backend::commit`] cannot fail.
    fn modify(&mut self, w: Width, seg: Seg, ea: Self::V) -> Result<(Self::L, Self::V), Self::E>;
    /// Writes back what [`Backend::modify`] located.
    fn commit(&mut self, at: Self::L, w: Width, v: Self::V);
    /// Atomic read-modify-write; returns the old value.
    fn atomic(
        &mut self,
        op: AtomicOp,
        w: Width,
        seg: Seg,
        ea: Self::V,
        v: Self::V,
    ) -> Result<Self::V, Self::E>;
    /// Atomic compare-and-exchange; returns the old value. Write access is checked and the write
    /// cycle done even if the comparison fails (SDM vol. 2, CMPXCHG).
    fn compare_exchange(
        &mut self,
        w: Width,
        seg: Seg,
        ea: Self::V,
        expected: Self::V,
        new: Self::V,
    ) -> Result<Self::V, Self::E>;

    /// Whether the engine executes [`crate::block::Op::quick`].
    const QUICK: bool = false;

    /// As [`Backend::load`] through a flat segment. It may fail for the engine's own reasons where
    /// `load` would not: then nothing has happened, and [`crate::block::Op::handler`] is to be used.
    #[inline(always)]
    fn quick_load(&mut self, w: Width, seg: Seg, ea: Self::V) -> Result<Self::V, Self::E> {
        self.load(w, seg, ea)
    }
    /// As [`Backend::store`], under the conditions of [`Backend::quick_load`].
    #[inline(always)]
    fn quick_store(&mut self, w: Width, seg: Seg, ea: Self::V, v: Self::V) -> Result<(), Self::E> {
        self.store(w, seg, ea, v)
    }
    /// As [`Backend::modify`], under the conditions of [`Backend::quick_load`].
    #[inline(always)]
    fn quick_modify(
        &mut self,
        w: Width,
        seg: Seg,
        ea: Self::V,
    ) -> Result<(Self::L, Self::V), Self::E> {
        self.modify(w, seg, ea)
    }
    /// Writes back what [`Backend::quick_modify`] located.
    #[inline(always)]
    fn quick_commit(&mut self, at: Self::L, w: Width, v: Self::V) {
        self.commit(at, w, v);
    }

    /// `insn` is now the current instruction. Quick forms that complete do not say so.
    #[inline(always)]
    fn arrive(&mut self, _: &Insn) {}
    /// Whether the block is to be left after the current instruction.
    #[inline(always)]
    fn leaving(&self) -> bool {
        false
    }

    /// The distance from one element of a string to the next, by EFLAGS.DF.
    fn string_step(&mut self, element: Width) -> Self::V;

    /// Checks that IP may become `target`: inside CS's limit, canonical (#GP(0) otherwise).
    fn check_target(&mut self, insn: &Insn, target: Self::V) -> Result<(), Self::E>;
    /// Continues at `target`, which has been checked.
    fn jump(&mut self, insn: &Insn, target: Self::V);
    /// If `c`, continues at the instruction's direct target, after checking it.
    fn branch_if(&mut self, insn: &Insn, c: Self::C) -> Result<(), Self::E>;

    /// A rare or complex instruction.
    fn complex(&mut self, insn: &Insn, f: Complex) -> Result<(), Self::E>;

    /// An x87 instruction; `f` is its meaning. An engine may have the host's x87 execute it, where
    /// that has the same effect.
    #[inline(always)]
    fn x87(&mut self, insn: &Insn, f: Complex) -> Result<(), Self::E> {
        self.complex(insn, f)
    }

    /// The offset (IP) of the following instruction.
    fn next_ip(&mut self, insn: &Insn) -> Self::V {
        let start = self.reg(Width::W64, crate::vcpu::RIP);
        let offset = self.imm(u64::from(insn.next));
        let next = self.bin(Bin::Add, Width::W64, start, offset);
        self.wrap_ip(insn, next)
    }

    /// The target of a near direct branch.
    fn direct_target(&mut self, insn: &Insn) -> Self::V {
        let start = self.reg(Width::W64, crate::vcpu::RIP);
        let offset = self.imm(insn.imm);
        let target = self.bin(Bin::Add, Width::W64, start, offset);
        let mask = self.imm(insn.ea_mask);
        self.bin(Bin::And, Width::W64, target, mask)
    }

    /// IP is 32 bits wide outside 64-bit mode.
    fn wrap_ip(&mut self, insn: &Insn, ip: Self::V) -> Self::V {
        if insn.has(crate::insn::bits::CODE64) { ip } else { self.trunc(Width::W32, ip) }
    }

    /// The effective address of the memory operand (SDM vol. 1, 3.7.5).
    #[inline(always)]
    fn ea(&mut self, insn: &Insn) -> Self::V {
        let base = self.reg(Width::W64, insn.base);
        let index = self.reg(Width::W64, insn.index);
        let scale = self.imm(u64::from(insn.scale));
        let scaled = self.bin(Bin::Shl, Width::W64, index, scale);
        let disp = self.imm(insn.disp);
        let sum = self.bin(Bin::Add, Width::W64, base, scaled);
        let sum = self.bin(Bin::Add, Width::W64, sum, disp);
        let mask = self.imm(insn.ea_mask);
        self.bin(Bin::And, Width::W64, sum, mask)
    }
}

/// The meaning of one instruction form on one backend.
pub type Handler<B> = fn(&mut B, &Insn) -> Result<(), <B as Backend>::E>;
