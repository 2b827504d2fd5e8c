//! The x87 FPU (SDM vol 1, chapter 8) and the MMX registers that alias it.
//!
//! [`X87`] is the register file; each instruction is a method. Arithmetic comes from
//! [`softfloat`](crate::softfloat). Instructions that store to memory come in two halves, a
//! `prepare_` method that only computes and [`X87::commit_store`], so that a page fault between
//! them leaves the FPU untouched.
//!
//! The transcendental instructions use the host's x87 where there is one. The others never do: to
//! switch to the guest's environment and back takes a host some 90 ns, an addition here 25.
//!
//! An unmasked exception never surfaces from the instruction that raises it: it sets ES, and the
//! next waiting instruction (FWAIT included) must ask [`X87::pending`] first.

mod arith;
#[cfg(all(target_arch = "x86_64", any(test, not(feature = "portable"))))]
mod host;
mod image;
#[cfg(any(test, feature = "portable", not(target_arch = "x86_64")))]
mod portable;
mod transcendental;
mod transfer;
#[cfg(any(test, feature = "portable", not(target_arch = "x86_64")))]
mod wide;

pub use arith::{Arith, ArithMem, CompareFlags};
pub use image::{HostImage, Image, ImageFormat};
pub use transcendental::Transcendental;
pub use transfer::{Bcd, Constant, FloatMem, Store};

use crate::softfloat::{Env, F80, Format, flag};
use serde::{Deserialize, Serialize};

/// Bits of the status word.
pub mod status {
    /// Stack fault.
    pub const SF: u16 = 1 << 6;
    /// Error summary: an unmasked exception is pending.
    pub const ES: u16 = 1 << 7;
    /// Condition code 0.
    pub const C0: u16 = 1 << 8;
    /// Condition code 1.
    pub const C1: u16 = 1 << 9;
    /// Condition code 2.
    pub const C2: u16 = 1 << 10;
    /// Top of stack, three bits.
    pub const TOP: u16 = 7 << 11;
    /// Condition code 3.
    pub const C3: u16 = 1 << 14;
    /// Busy, which mirrors ES.
    pub const B: u16 = 1 << 15;
}

use status::{B, C0, C1, C2, C3, ES, SF, TOP};

/// The control word's writable bits: masks, PC, RC, and the infinity control that only the 287
/// obeyed.
pub const CONTROL_WRITABLE: u16 = 0x1F3F;
/// Bit 6 of the control word always reads as one.
pub const CONTROL_ONES: u16 = 0x0040;
/// The control word of FNINIT.
const CONTROL_INIT: u16 = 0x037F;

/// Where the last non-control instruction and its memory operand were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastInstruction {
    /// The low 11 bits of its opcode (first byte's low three bits, then ModRM).
    pub opcode: u16,
    /// Instruction pointer.
    pub ip: u64,
    /// Code segment.
    pub cs: u16,
    /// Operand pointer.
    pub dp: u64,
    /// Operand segment.
    pub ds: u16,
}

/// The state of the FPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct X87 {
    /// The physical registers R0 to R7.
    regs: [F80; 8],
    control: u16,
    status: u16,
    /// Bit n: R n is not empty.
    valid: u8,
    /// The pointers that FSTENV and FXSAVE report.
    pub last: LastInstruction,
}

/// Where the fields lie, for generated code.
impl X87 {
    pub(crate) const REGS: usize = std::mem::offset_of!(X87, regs);
    pub(crate) const CONTROL: usize = std::mem::offset_of!(X87, control);
    pub(crate) const STATUS: usize = std::mem::offset_of!(X87, status);
    pub(crate) const VALID: usize = std::mem::offset_of!(X87, valid);
}

impl Default for X87 {
    fn default() -> Self {
        Self {
            regs: [F80::default(); 8],
            control: CONTROL_INIT,
            status: 0,
            valid: 0,
            last: LastInstruction::default(),
        }
    }
}

impl X87 {
    /// The control word (FNSTCW).
    pub fn control(&self) -> u16 {
        self.control
    }

    /// Loads the control word (FLDCW). Unmasking a raised exception makes it pending.
    pub fn set_control(&mut self, control: u16) {
        self.control = control & CONTROL_WRITABLE | CONTROL_ONES;
        self.update_summary();
    }

    /// The status word with TOP, ES and B (FNSTSW).
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Loads the status word; ES and B follow from the flags and masks.
    fn set_status(&mut self, status: u16) {
        self.status = status;
        self.update_summary();
    }

    /// Whether an unmasked exception waits to be reported.
    pub fn pending(&self) -> bool {
        self.status & ES != 0
    }

    /// FNINIT. The registers keep their contents but are all empty.
    pub fn init(&mut self) {
        *self = Self { regs: self.regs, ..Self::default() };
    }

    /// FNCLEX.
    pub fn clear_exceptions(&mut self) {
        self.status &= !(B | ES | SF | u16::from(flag::ALL));
    }

    /// FINCSTP.
    pub fn increment_top(&mut self) {
        self.set_top(self.top() + 1);
        self.set_conditions(C1, 0);
    }

    /// FDECSTP.
    pub fn decrement_top(&mut self) {
        self.set_top(self.top().wrapping_sub(1));
        self.set_conditions(C1, 0);
    }

    /// FFREE ST(i).
    pub fn free(&mut self, i: u8) {
        self.valid &= !self.register_bit(i);
    }

    /// The undocumented FFREEP ST(i): FFREE, then pop.
    pub fn free_pop(&mut self, i: u8) {
        self.free(i);
        self.pop();
    }

    /// The index of the physical register that is ST(0).
    pub fn top(&self) -> u8 {
        (self.status >> 11 & 7) as u8
    }

    fn set_top(&mut self, top: u8) {
        self.status = self.status & !TOP | u16::from(top & 7) << 11;
    }

    /// The contents of ST(i), empty or not.
    pub fn st(&self, i: u8) -> F80 {
        self.regs[self.physical(i)]
    }

    /// Whether ST(i) is empty.
    pub fn is_empty(&self, i: u8) -> bool {
        self.valid & self.register_bit(i) == 0
    }

    /// The full tag word: two bits for each physical register.
    pub fn tag_word(&self) -> u16 {
        (0..8).fold(0, |word, n| word | self.tag(n) << (2 * n))
    }

    fn tag(&self, n: usize) -> u16 {
        use crate::softfloat::Class;
        match self.regs[n].class() {
            _ if self.valid & 1 << n == 0 => 3,
            Class::Normal => 0,
            Class::Zero => 1,
            _ => 2,
        }
    }

    fn set_tag_word(&mut self, word: u16) {
        self.valid = (0..8).fold(0, |valid, n| valid | u8::from(word >> (2 * n) & 3 != 3) << n);
    }

    fn physical(&self, i: u8) -> usize {
        usize::from(self.top().wrapping_add(i) & 7)
    }

    fn register_bit(&self, i: u8) -> u8 {
        1 << self.physical(i)
    }

    fn set_st(&mut self, i: u8, value: F80) {
        self.regs[self.physical(i)] = value;
        self.valid |= self.register_bit(i);
    }

    fn pop(&mut self) {
        self.free(0);
        self.set_top(self.top() + 1);
    }

    fn push(&mut self, value: F80) {
        self.set_top(self.top().wrapping_sub(1));
        self.set_st(0, value);
    }

    fn set_conditions(&mut self, mask: u16, values: u16) {
        self.status = self.status & !mask | values & mask;
    }

    fn update_summary(&mut self) {
        let unmasked = self.status & !self.control & u16::from(flag::ALL) != 0;
        self.set_conditions(ES | B, if unmasked { ES | B } else { 0 });
    }

    /// Sets exception flags (and SF among them) and the error summary.
    fn raise(&mut self, flags: u16) {
        self.status |= flags;
        self.update_summary();
    }

    /// Whether no exception is unmasked.
    pub fn masks_all(&self) -> bool {
        !self.control & u16::from(flag::ALL) == 0
    }

    fn is_masked(&self, flag: u8) -> bool {
        self.control & u16::from(flag) != 0
    }

    fn env(&self) -> Env {
        Env::from_x87_control(self.control)
    }

    /// Runs an operation in the FPU's environment and takes over its flags and C1. None if an
    /// unmasked exception forbids to write the result.
    fn execute<T>(&mut self, operation: impl FnOnce(&mut Env) -> T) -> Option<T> {
        let mut env = self.env();
        let result = operation(&mut env);
        let complete = env.unmasked() & flag::PRE_COMPUTATION == 0;
        self.set_conditions(C1, if complete && env.rounded_up { C1 } else { 0 });
        let flags = if complete { env.flags } else { env.flags & flag::PRE_COMPUTATION };
        self.raise(flags.into());
        complete.then_some(result)
    }

    /// A stack underflow. True if it is masked, so that the instruction continues with
    /// the indefinite value.
    fn stack_underflow(&mut self) -> bool {
        self.set_conditions(C1, 0);
        self.raise(SF | u16::from(flag::INVALID));
        self.is_masked(flag::INVALID)
    }

    /// A stack overflow; as [`Self::stack_underflow`], but C1 is set.
    fn stack_overflow(&mut self) -> bool {
        self.set_conditions(C1, C1);
        self.raise(SF | u16::from(flag::INVALID));
        self.is_masked(flag::INVALID)
    }

    /// Replaces ST(0) by the result of an operation on it.
    fn unary(&mut self, operation: impl FnOnce(F80, &mut Env) -> F80) {
        if self.is_empty(0) {
            if self.stack_underflow() {
                self.set_st(0, F80::default_nan());
            }
            return;
        }
        let st0 = self.st(0);
        if let Some(result) = self.execute(|env| operation(st0, env)) {
            self.set_st(0, result);
        }
    }

    /// Replaces ST(0) by the two results of an operation on it: the first is written to ST(0),
    /// the second pushed (FXTRACT, FSINCOS, FPTAN). Without a second one nothing is pushed.
    fn unary_push(&mut self, operation: impl FnOnce(F80, &mut Env) -> (F80, Option<F80>)) {
        let empty = self.is_empty(0);
        if empty || !self.is_empty(7) {
            if if empty { self.stack_underflow() } else { self.stack_overflow() } {
                self.set_st(0, F80::default_nan());
                self.push(F80::default_nan());
            }
            return;
        }
        let st0 = self.st(0);
        if let Some((first, second)) = self.execute(|env| operation(st0, env)) {
            self.set_st(0, first);
            if let Some(second) = second {
                self.push(second);
            }
        }
    }
}

/// MMX: the registers are the significands of the physical x87 registers (SDM vol 1, 9.5).
impl X87 {
    /// What every MMX instruction but EMMS does to the FPU: TOP becomes 0, all tags valid.
    pub fn enter_mmx(&mut self) {
        self.set_top(0);
        self.valid = 0xFF;
    }

    /// MM n; the index is taken modulo 8.
    pub fn mmx(&self, n: u8) -> u64 {
        self.regs[usize::from(n & 7)].sig
    }

    /// Writes MM n; sign and exponent become all ones.
    pub fn set_mmx(&mut self, n: u8, value: u64) {
        self.regs[usize::from(n & 7)] = F80::new(0xFFFF, value);
    }

    /// EMMS.
    pub fn empty_mmx(&mut self) {
        self.set_top(0);
        self.valid = 0;
    }
}

#[cfg(test)]
mod tests;
