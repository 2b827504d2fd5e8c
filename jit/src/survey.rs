//! What an instruction reads, writes and may do, found by running its meaning on a backend that
//! only takes notes.

use std::convert::Infallible;

use brolga_cpu::backend::{AtomicOp, Backend, Bin, Cmp, Complex, Un};
use brolga_cpu::flags::{Cond, FlagOp};
use brolga_cpu::insn::Insn;
use brolga_cpu::vcpu::{RIP, Seg, ZERO};
use brolga_cpu::vector::{
    ComFmt, Cvt, Fmt, Fp1, Fp2, IntCvt, Lane, Pattern, Shift, VecWidth, VectorBackend, X2,
};
use brolga_mmu::Width;

use crate::native;

/// A set of general or vector registers.
pub(crate) type RegSet = u32;

/// The effects of one instruction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effects {
    /// General registers whose old value counts.
    pub(crate) reads: RegSet,
    /// General registers that change.
    pub(crate) writes: RegSet,
    /// General registers of which nothing old remains.
    pub(crate) replaces: RegSet,
    /// The same of vector registers.
    pub(crate) vector_reads: RegSet,
    pub(crate) vector_writes: RegSet,
    /// The status flags are read (before this instruction sets any).
    pub(crate) reads_flags: bool,
    /// The status flags change on some path.
    pub(crate) writes_flags: bool,
    /// The status flags are replaced on all paths.
    pub(crate) replaces_flags: bool,
    /// It may leave translated code before it has changed anything.
    pub(crate) may_leave: bool,
    /// The interpreter executes it.
    pub(crate) interpreted: bool,
    /// It computes in the host's SSE unit under the guest's MXCSR.
    pub(crate) uses_mxcsr: bool,
    /// Where it continues, if it sets RIP.
    pub(crate) transfer: Option<Transfer>,
}

/// A control transfer. Targets are offsets from the block's first byte; `None` if it is known
/// only when the code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    Jump(Option<i64>),
    /// Continues at the target, or behind the instruction.
    Branch(Option<i64>),
    /// The interpreter executes it, and what follows may run in another mode.
    Elsewhere,
}

/// An integer as far as it is known beforehand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known {
    Nothing,
    Constant(u64),
    /// Distance from the block's first byte.
    Ip(i64),
}

/// The backend.
#[derive(Default)]
pub(crate) struct Survey {
    pub(crate) effects: Effects,
    /// IP is 16 bits wide: a jump's wrap-around changes nothing inside the limit.
    pub(crate) code16: bool,
}

impl Effects {
    /// The effects of an instruction that the interpreter executes: all state is stored before, and
    /// none of it is known afterwards.
    pub(crate) fn of_interpreted(ends_block: bool) -> Effects {
        Effects {
            interpreted: true,
            may_leave: true,
            transfer: ends_block.then_some(Transfer::Elsewhere),
            ..Effects::default()
        }
    }
}

impl Survey {
    fn leave(&mut self) {
        self.effects.may_leave = true;
    }

    fn interpreted(&mut self) {
        self.effects.interpreted = true;
    }

    fn read_flags(&mut self) {
        self.effects.reads_flags |= !self.effects.replaces_flags;
    }
}

/// The general register behind number `r` of [`Insn::reg`] at width `w`.
pub(crate) fn slot(w: Width, r: u8) -> usize {
    usize::from(if w == Width::W8 { r & 15 } else { r })
}

impl Backend for Survey {
    type V = Known;
    type C = ();
    type L = ();
    type E = Infallible;

    fn imm(&mut self, v: u64) -> Known {
        Known::Constant(v)
    }

    fn reg(&mut self, w: Width, r: u8) -> Known {
        match r {
            RIP if w != Width::W8 => Known::Ip(0),
            ZERO if w != Width::W8 => Known::Constant(0),
            _ => {
                self.effects.reads |= (1 << slot(w, r)) & !self.effects.replaces;
                Known::Nothing
            }
        }
    }

    fn set_reg(&mut self, w: Width, r: u8, _: Known) {
        let bit = 1 << slot(w, r);
        self.effects.writes |= bit;
        if w >= Width::W32 {
            self.effects.replaces |= bit;
        } else {
            self.effects.reads |= bit & !self.effects.replaces;
        }
    }

    fn bin(&mut self, op: Bin, w: Width, a: Known, b: Known) -> Known {
        match (op, a, b) {
            (Bin::Add, Known::Ip(a), Known::Constant(b))
            | (Bin::Add, Known::Constant(b), Known::Ip(a))
                if w == Width::W64 =>
            {
                Known::Ip(a.wrapping_add(b as i64))
            }
            (Bin::Add, Known::Constant(a), Known::Constant(b)) => {
                Known::Constant(a.wrapping_add(b) & w.mask())
            }
            (Bin::Shl, Known::Constant(0), _) => Known::Constant(0),
            (Bin::And, Known::Ip(a), Known::Constant(mask)) if keeps_ip(mask, self.code16) => {
                Known::Ip(a)
            }
            _ => Known::Nothing,
        }
    }

    fn un(&mut self, _: Un, _: Width, _: Known) -> Known {
        Known::Nothing
    }

    fn mul_high(&mut self, _: bool, _: Width, _: Known, _: Known) -> Known {
        Known::Nothing
    }

    fn divide(
        &mut self,
        _: bool,
        _: Width,
        _: Known,
        _: Known,
        _: Known,
    ) -> Result<(Known, Known), Infallible> {
        self.leave();
        Ok((Known::Nothing, Known::Nothing))
    }

    fn sext(&mut self, _: Width, _: Width, _: Known) -> Known {
        Known::Nothing
    }

    fn trunc(&mut self, w: Width, v: Known) -> Known {
        match v {
            Known::Constant(v) => Known::Constant(v & w.mask()),
            Known::Ip(_) if keeps_ip(w.mask(), self.code16) => v,
            _ => Known::Nothing,
        }
    }

    fn cmp(&mut self, _: Cmp, _: Width, _: Known, _: Known) {}

    fn select(&mut self, (): (), _: Known, _: Known) -> Known {
        Known::Nothing
    }

    fn cond_value(&mut self, (): ()) -> Known {
        Known::Nothing
    }

    fn flags(&mut self, _: FlagOp, _: Width, _: Known, _: Known, _: Known) {
        self.effects.writes_flags = true;
        self.effects.replaces_flags = true;
    }

    fn flags_if(&mut self, (): (), _: FlagOp, _: Width, _: Known, _: Known, _: Known) {
        self.read_flags();
        self.effects.writes_flags = true;
    }

    fn cond(&mut self, _: Cond) {
        self.read_flags();
    }

    fn status(&mut self) -> Known {
        self.read_flags();
        Known::Nothing
    }

    fn load(&mut self, _: Width, _: Seg, _: Known) -> Result<Known, Infallible> {
        self.leave();
        Ok(Known::Nothing)
    }

    fn store(&mut self, _: Width, _: Seg, _: Known, _: Known) -> Result<(), Infallible> {
        self.leave();
        Ok(())
    }

    fn modify(&mut self, _: Width, _: Seg, _: Known) -> Result<((), Known), Infallible> {
        self.leave();
        Ok(((), Known::Nothing))
    }

    fn commit(&mut self, (): (), _: Width, _: Known) {}

    fn atomic(
        &mut self,
        _: AtomicOp,
        _: Width,
        _: Seg,
        _: Known,
        _: Known,
    ) -> Result<Known, Infallible> {
        self.leave();
        Ok(Known::Nothing)
    }

    fn compare_exchange(
        &mut self,
        _: Width,
        _: Seg,
        _: Known,
        _: Known,
        _: Known,
    ) -> Result<Known, Infallible> {
        self.leave();
        Ok(Known::Nothing)
    }

    fn string_step(&mut self, _: Width) -> Known {
        Known::Nothing
    }

    fn check_target(&mut self, _: &Insn, _: Known) -> Result<(), Infallible> {
        self.leave();
        Ok(())
    }

    fn jump(&mut self, _: &Insn, target: Known) {
        let target = if let Known::Ip(at) = target { Some(at) } else { None };
        self.effects.transfer = Some(Transfer::Jump(target));
    }

    fn branch_if(&mut self, insn: &Insn, (): ()) -> Result<(), Infallible> {
        let target = self.direct_target(insn);
        let target = if let Known::Ip(at) = target { Some(at) } else { None };
        self.leave();
        self.effects.transfer = Some(Transfer::Branch(target));
        Ok(())
    }

    fn complex(&mut self, _: &Insn, _: Complex) -> Result<(), Infallible> {
        self.interpreted();
        Ok(())
    }
}

/// Whether `ip & mask` is `ip` wherever translated code runs: inside its limit, and below 64 KiB
/// in 16-bit code.
pub(crate) fn keeps_ip(mask: u64, code16: bool) -> bool {
    mask >= 0xffff_ffff || code16 && mask == 0xffff
}

/// A vector operation: whether it is translated.
macro_rules! native {
    ($self:ident, $native:expr) => {
        if !$native {
            $self.interpreted();
        }
    };
}

impl VectorBackend for Survey {
    type X = ();

    fn const_x(&mut self, _: u128) {}

    fn xmm(&mut self, r: u8) {
        self.effects.vector_reads |= (1 << (r & 15)) & !self.effects.vector_writes;
    }
    fn set_xmm(&mut self, r: u8, (): ()) {
        self.effects.vector_writes |= 1 << (r & 15);
    }
    fn mm(&mut self, _: u8) {
        self.interpreted();
    }
    fn set_mm(&mut self, _: u8, (): ()) {
        self.interpreted();
    }
    fn mmx_check(&mut self) -> Result<(), Infallible> {
        self.interpreted();
        Ok(())
    }
    fn mmx_enter(&mut self) {
        self.interpreted();
    }
    fn mmx_leave(&mut self) {
        self.interpreted();
    }
    fn load_x(&mut self, _: VecWidth, _: Seg, _: Known, _: bool) -> Result<(), Infallible> {
        self.leave();
        Ok(())
    }
    fn store_x(
        &mut self,
        _: VecWidth,
        _: Seg,
        _: Known,
        _: bool,
        (): (),
    ) -> Result<(), Infallible> {
        self.leave();
        Ok(())
    }
    fn extract(&mut self, _: Lane, (): (), _: u8) -> Known {
        Known::Nothing
    }
    fn insert(&mut self, _: Lane, (): (), _: u8, _: Known) {}
    fn movemask(&mut self, lane: Lane, (): ()) -> Known {
        native!(self, native::movemask(lane));
        Known::Nothing
    }
    fn x2(&mut self, op: X2, lane: Lane, (): (), (): ()) {
        native!(self, native::x2(op, lane));
    }
    fn abs(&mut self, lane: Lane, (): ()) {
        native!(self, native::abs(lane));
    }
    fn shift(&mut self, op: Shift, lane: Lane, (): (), count: Known) {
        let constant = matches!(count, Known::Constant(_));
        native!(self, native::shift(op, lane, constant));
    }
    fn bit_select(&mut self, (): (), (): (), (): ()) {}
    fn shuffle(&mut self, (): (), (): (), _: Pattern) {}
    fn shuffle_by(&mut self, (): (), (): ()) {
        native!(self, native::SHUFFLE_BY);
    }
    fn interleave(&mut self, _: Lane, _: bool, (): (), (): ()) {}
    fn pack(&mut self, from: Lane, signed: bool, (): (), (): ()) {
        native!(self, native::pack(from, signed));
    }
    fn fp2(&mut self, op: Fp2, fmt: Fmt, (): (), (): ()) -> Result<(), Infallible> {
        self.effects.uses_mxcsr = true;
        native!(self, native::fp2(op, fmt));
        Ok(())
    }
    fn fp1(&mut self, op: Fp1, fmt: Fmt, (): (), (): ()) -> Result<(), Infallible> {
        self.effects.uses_mxcsr = true;
        native!(self, native::fp1(op, fmt));
        Ok(())
    }
    fn fp_compare(
        &mut self,
        fmt: ComFmt,
        quiet: bool,
        (): (),
        (): (),
    ) -> Result<Known, Infallible> {
        self.effects.uses_mxcsr = true;
        native!(self, native::fp_compare(fmt, quiet));
        Ok(Known::Nothing)
    }
    fn cvt(&mut self, op: Cvt, (): (), (): ()) -> Result<(), Infallible> {
        self.effects.uses_mxcsr = true;
        native!(self, native::cvt(op));
        Ok(())
    }
    fn cvt_from_int(&mut self, fmt: ComFmt, w: Width, (): (), _: Known) -> Result<(), Infallible> {
        self.effects.uses_mxcsr = true;
        native!(self, native::cvt_from_int(fmt, w));
        Ok(())
    }
    fn cvt_to_int(&mut self, op: IntCvt, (): ()) -> Result<Known, Infallible> {
        self.effects.uses_mxcsr = true;
        native!(self, native::cvt_to_int(op));
        Ok(Known::Nothing)
    }
    fn crc32c(&mut self, _: Width, _: Known, _: Known) -> Known {
        self.interpreted();
        Known::Nothing
    }
}
