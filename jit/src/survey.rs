//! What an instruction reads, writes and may do, found by running its meaning on a backend that
//! only takes notes.

use std::convert::Infallible;

use brolga_cpu::backend::{AtomicOp, Backend, Bin, Cmp, Complex, Un};
use brolga_cpu::flags::{Cond, FlagOp};
use brolga_cpu::insn::Insn;
use brolga_cpu::vcpu::{RIP, Seg, ZERO, gpr};
use brolga_cpu::vector::{
    ComFmt, Crypto, Cvt, Fma, Fmt, Fp1, Fp2, IntCvt, Lane, Pattern, Shift, VecWidth, VectorBackend,
    X2,
};
use brolga_mmu::Width;

use crate::native;
use crate::recipe::{Notes, Recipe};
use crate::translate::vector::shuffle::merges;
use crate::x87::{self, Form};

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
    /// The same of vector registers, as [`VectorBackend::xmm`] numbers them: upper halves from 16.
    pub(crate) vector_reads: RegSet,
    pub(crate) vector_writes: RegSet,
    /// The status flags are read (before this instruction sets any).
    pub(crate) reads_flags: bool,
    /// The status flags change on some path.
    pub(crate) writes_flags: bool,
    /// The status flags are replaced on all paths.
    pub(crate) replaces_flags: bool,
    /// How those flags can be computed afterwards.
    pub(crate) recipe: Option<Recipe>,
    /// It may leave translated code before it has changed anything.
    pub(crate) may_leave: bool,
    /// The interpreter executes it.
    pub(crate) interpreted: bool,
    /// It computes in the host's SSE unit under the guest's MXCSR.
    pub(crate) uses_mxcsr: bool,
    /// It uses x87 or MMX registers; native only where all x87 exceptions are masked.
    pub(crate) uses_x87: bool,
    /// What the vector register that it writes is used for.
    pub(crate) vector_use: VectorUse,
    /// Where it continues, if it sets RIP.
    pub(crate) transfer: Option<Transfer>,
}

/// What an instruction uses a vector as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum VectorUse {
    /// Loads, copies, bitwise logic: says nothing.
    #[default]
    Neutral,
    /// Its lowest double.
    Double,
    /// Its lowest single.
    Single,
    /// Several lanes.
    Packed,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Nothing,
    Constant(u64),
    /// Distance from the block's first byte.
    Ip(i64),
    /// The low bits of a general register before the instruction.
    Register(Width, u8),
    /// What an operation results in: a number that [`Notes`] gives out.
    Result(usize),
}

/// The backend.
#[derive(Default)]
pub(crate) struct Survey {
    pub(crate) effects: Effects,
    /// IP is 16 bits wide: a jump's wrap-around changes nothing inside the limit.
    pub(crate) code16: bool,
    notes: Notes,
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
    pub(crate) fn new(code16: bool) -> Survey {
        Survey { code16, ..Survey::default() }
    }

    /// What has been found.
    pub(crate) fn effects(self) -> Effects {
        let recipe = self.notes.recipe().filter(|_| self.effects.replaces_flags);
        Effects { recipe, ..self.effects }
    }

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
                if w == Width::W8 && r >= 16 { Known::Nothing } else { Known::Register(w, r) }
            }
        }
    }

    fn set_reg(&mut self, w: Width, r: u8, v: Known) {
        let high = w == Width::W8 && r >= 16;
        self.notes.set(w, slot(w, r) as u8, if high { Known::Nothing } else { v });
        let bit = 1 << slot(w, r);
        self.effects.writes |= bit;
        if w >= Width::W32 {
            self.effects.replaces |= bit;
        } else {
            self.effects.reads |= bit & !self.effects.replaces;
        }
    }

    fn bin(&mut self, op: Bin, w: Width, a: Known, b: Known) -> Known {
        self.effects.interpreted |= matches!(op, Bin::Deposit | Bin::Extract) && !native::bmi2();
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
            _ => self.notes.result(op, w, a, b),
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
            Known::Register(from, r) if w <= from => Known::Register(w, r),
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

    fn flags(&mut self, op: FlagOp, w: Width, r: Known, a: Known, b: Known) {
        self.notes.flags(op, w, r, a, b);
        self.effects.writes_flags = true;
        self.effects.replaces_flags = true;
    }

    fn flags_if(&mut self, (): (), _: FlagOp, _: Width, _: Known, _: Known, _: Known) {
        self.read_flags();
        self.notes.forget_flags();
        self.effects.writes_flags = true;
    }

    fn replace_flags(&mut self, _: u64, _: Known) {
        self.read_flags();
        self.notes.forget_flags();
        self.effects.writes_flags = true;
    }

    fn replace_flags_if(&mut self, (): (), mask: u64, new: Known) {
        self.replace_flags(mask, new);
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

    fn x87(&mut self, insn: &Insn, _: Complex) -> Result<(), Infallible> {
        let Some(form) = x87::form(insn) else {
            self.interpreted();
            return Ok(());
        };
        self.effects.uses_x87 = true;
        match form {
            Form::Nothing | Form::Registers(_) | Form::ClearExceptions => {}
            Form::CompareFlags(_) => {
                let nothing = Known::Nothing;
                self.flags(FlagOp::Bits, Width::W64, nothing, nothing, nothing);
            }
            Form::MoveIf(cc, _) => self.cond(cc),
            Form::StatusToAx => self.set_reg(Width::W16, gpr::RAX, Known::Nothing),
            Form::Load(..)
            | Form::Store(..)
            | Form::LoadControl
            | Form::StoreControl
            | Form::StoreStatus => {
                self.ea(insn);
                self.leave();
            }
        }
        Ok(())
    }
}

/// Whether `ip & mask` is `ip` wherever translated code runs: inside its limit, and below 64 KiB
/// in 16-bit code.
pub(crate) fn keeps_ip(mask: u64, code16: bool) -> bool {
    mask >= 0xffff_ffff || code16 && mask == 0xffff
}

impl Survey {
    /// An operation of the SSE unit; `native`: whether it is translated.
    fn float(&mut self, native: bool) {
        self.effects.uses_mxcsr = true;
        self.effects.interpreted |= !native;
    }
}

fn scalar_use(fmt: ComFmt) -> VectorUse {
    match fmt {
        ComFmt::Ss => VectorUse::Single,
        ComFmt::Sd => VectorUse::Double,
    }
}

fn format_use(fmt: Fmt) -> VectorUse {
    match fmt {
        Fmt::Ss => VectorUse::Single,
        Fmt::Sd => VectorUse::Double,
        Fmt::Ps | Fmt::Pd => VectorUse::Packed,
    }
}

impl VectorBackend for Survey {
    type X = VectorUse;

    fn const_x(&mut self, _: u128) -> VectorUse {
        VectorUse::Neutral
    }
    fn xmm(&mut self, r: u8) -> VectorUse {
        self.effects.vector_reads |= (1 << (r & 31)) & !self.effects.vector_writes;
        VectorUse::Neutral
    }
    fn set_xmm(&mut self, r: u8, v: VectorUse) {
        self.effects.vector_writes |= 1 << (r & 31);
        if r < 16 {
            self.effects.vector_use = v;
        }
    }
    fn mm(&mut self, _: u8) -> VectorUse {
        VectorUse::Neutral
    }
    fn set_mm(&mut self, _: u8, _: VectorUse) {}
    fn mmx_check(&mut self) -> Result<(), Infallible> {
        self.effects.uses_x87 = true;
        Ok(())
    }
    fn mmx_enter(&mut self) {}
    fn mmx_leave(&mut self) {}
    fn load_x(&mut self, _: VecWidth, _: Seg, _: Known, _: bool) -> Result<VectorUse, Infallible> {
        self.leave();
        Ok(VectorUse::Neutral)
    }
    fn store_x(
        &mut self,
        _: VecWidth,
        _: Seg,
        _: Known,
        _: bool,
        _: VectorUse,
    ) -> Result<(), Infallible> {
        self.leave();
        Ok(())
    }
    fn load_y(&mut self, _: Seg, _: Known, _: bool) -> Result<[VectorUse; 2], Infallible> {
        self.leave();
        Ok([VectorUse::Neutral; 2])
    }
    fn store_y(&mut self, _: Seg, _: Known, _: bool, _: [VectorUse; 2]) -> Result<(), Infallible> {
        self.leave();
        Ok(())
    }
    fn extract(&mut self, _: Lane, _: VectorUse, _: u8) -> Known {
        Known::Nothing
    }
    fn insert(&mut self, _: Lane, _: VectorUse, n: u8, _: Known) -> VectorUse {
        if n == 0 { VectorUse::Neutral } else { VectorUse::Packed }
    }
    fn movemask(&mut self, _: Lane, _: VectorUse) -> Known {
        Known::Nothing
    }
    fn x2(&mut self, op: X2, _: Lane, _: VectorUse, _: VectorUse) -> VectorUse {
        match op {
            X2::And | X2::AndNot | X2::Or | X2::Xor => VectorUse::Neutral,
            _ => VectorUse::Packed,
        }
    }
    fn abs(&mut self, _: Lane, _: VectorUse) -> VectorUse {
        VectorUse::Packed
    }
    fn shift(&mut self, _: Shift, _: Lane, _: VectorUse, _: Known) -> VectorUse {
        VectorUse::Packed
    }
    fn shift_each(&mut self, _: Shift, _: Lane, _: VectorUse, _: VectorUse) -> VectorUse {
        self.effects.interpreted |= !native::avx2();
        VectorUse::Packed
    }
    fn bit_select(&mut self, _: VectorUse, _: VectorUse, _: VectorUse) -> VectorUse {
        VectorUse::Packed
    }
    fn shuffle(&mut self, _: VectorUse, _: VectorUse, pattern: Pattern) -> VectorUse {
        merges(pattern).map_or(VectorUse::Packed, scalar_use)
    }
    fn shuffle_by(&mut self, _: VectorUse, _: VectorUse) -> VectorUse {
        self.effects.interpreted |= !native::shuffle_by();
        VectorUse::Packed
    }
    fn interleave(&mut self, lane: Lane, _: bool, _: VectorUse, _: VectorUse) -> VectorUse {
        // MOVQ is one.
        if lane == Lane::Q { VectorUse::Neutral } else { VectorUse::Packed }
    }
    fn pack(&mut self, _: Lane, _: bool, _: VectorUse, _: VectorUse) -> VectorUse {
        VectorUse::Packed
    }
    fn fp2(
        &mut self,
        op: Fp2,
        fmt: Fmt,
        _: VectorUse,
        _: VectorUse,
    ) -> Result<VectorUse, Infallible> {
        self.float(native::fp2(op));
        Ok(format_use(fmt))
    }
    fn fp1(
        &mut self,
        op: Fp1,
        fmt: Fmt,
        _: VectorUse,
        _: VectorUse,
    ) -> Result<VectorUse, Infallible> {
        self.float(native::fp1(op));
        Ok(format_use(fmt))
    }
    fn fma(
        &mut self,
        _: Fma,
        fmt: Fmt,
        _: VectorUse,
        _: [VectorUse; 3],
    ) -> Result<VectorUse, Infallible> {
        self.float(native::fma());
        Ok(format_use(fmt))
    }
    fn fp_compare(
        &mut self,
        _: ComFmt,
        _: bool,
        _: VectorUse,
        _: VectorUse,
    ) -> Result<Known, Infallible> {
        self.float(true);
        self.leave();
        Ok(Known::Nothing)
    }
    fn cvt(&mut self, op: Cvt, _: VectorUse, _: VectorUse) -> Result<VectorUse, Infallible> {
        self.float(native::cvt(op));
        Ok(match op {
            Cvt::Ss2Sd => VectorUse::Double,
            Cvt::Sd2Ss => VectorUse::Single,
            // Compilers convert scalars by them too.
            Cvt::Ps2Pd | Cvt::Pd2Ps => VectorUse::Neutral,
            _ => VectorUse::Packed,
        })
    }
    fn cvt_from_int(
        &mut self,
        fmt: ComFmt,
        _: Width,
        _: VectorUse,
        _: Known,
    ) -> Result<VectorUse, Infallible> {
        self.float(true);
        Ok(scalar_use(fmt))
    }
    fn cvt_to_int(&mut self, _: IntCvt, _: VectorUse) -> Result<Known, Infallible> {
        self.float(true);
        self.leave();
        Ok(Known::Nothing)
    }
    fn crc32c(&mut self, _: Width, _: Known, _: Known) -> Known {
        self.effects.interpreted |= !native::sse4_2();
        Known::Nothing
    }
    fn crypto(&mut self, op: Crypto, _: VectorUse, _: VectorUse) -> VectorUse {
        self.effects.interpreted |= !native::crypto(op);
        VectorUse::Packed
    }
    fn sha256_rounds(&mut self, _: VectorUse, _: VectorUse, _: VectorUse) -> VectorUse {
        self.effects.interpreted |= !native::crypto(Crypto::Sha256Msg1);
        VectorUse::Packed
    }
    fn string_index(
        &mut self,
        _: u8,
        _: VectorUse,
        _: VectorUse,
        _: Option<[Known; 2]>,
    ) -> (Known, Known) {
        self.effects.interpreted |= !native::sse4_2();
        (Known::Nothing, Known::Nothing)
    }
    fn string_mask(
        &mut self,
        _: u8,
        _: VectorUse,
        _: VectorUse,
        _: Option<[Known; 2]>,
    ) -> (VectorUse, Known) {
        self.effects.interpreted |= !native::sse4_2();
        (VectorUse::Packed, Known::Nothing)
    }
}
