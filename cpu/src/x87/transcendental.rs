//! The transcendental instructions (SDM vol 1, 8.3.7 and 8.3.10).
//!
//! On an x86-64 host its own x87 computes them, elsewhere the portable twin.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use super::host::transcendental as evaluate;
#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
use super::portable::transcendental as evaluate;
use super::{C2, X87};
use crate::softfloat::{Env, F80, Format};

/// The transcendental instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transcendental {
    /// F2XM1
    TwoToXMinus1,
    /// FYL2X
    YLog2X,
    /// FYL2XP1
    YLog2XPlus1,
    /// FPTAN
    Tan,
    /// FPATAN
    Atan,
    /// FSIN
    Sin,
    /// FCOS
    Cos,
    /// FSINCOS
    SinCos,
}

/// What a transcendental instruction delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// What replaces ST(0), or for the functions of two operands ST(1).
    pub(super) value: F80,
    /// What FPTAN and FSINCOS push.
    pub(super) pushed: F80,
    /// A trigonometric argument was 2^63 or more in magnitude: nothing changes but C2.
    pub(super) out_of_range: bool,
}

impl X87 {
    /// Executes a transcendental instruction.
    pub fn transcendental(&mut self, op: Transcendental) {
        use Transcendental::{Atan, Cos, Sin, SinCos, Tan, TwoToXMinus1, YLog2X, YLog2XPlus1};
        match op {
            TwoToXMinus1 => {
                let control = self.control;
                self.unary(|x, env| evaluate(op, x, x, control, env).value);
            }
            YLog2X | YLog2XPlus1 | Atan => self.binary_pop(op),
            Sin | Cos | Tan | SinCos => self.trigonometric(op),
        }
    }

    fn binary_pop(&mut self, op: Transcendental) {
        let result = if self.is_empty(0) || self.is_empty(1) {
            self.stack_underflow().then(F80::default_nan)
        } else {
            let (st0, st1, control) = (self.st(0), self.st(1), self.control);
            self.execute(|env| evaluate(op, st0, st1, control, env).value)
        };
        if let Some(result) = result {
            self.set_st(1, result);
            self.pop();
        }
    }

    fn trigonometric(&mut self, op: Transcendental) {
        let pushes = matches!(op, Transcendental::Tan | Transcendental::SinCos);
        let control = self.control;
        let mut out_of_range = false;
        let mut operation = |x: F80, env: &mut Env| {
            let answer = evaluate(op, x, x, control, env);
            out_of_range = answer.out_of_range;
            (answer.value, (pushes && !out_of_range).then_some(answer.pushed))
        };
        if pushes {
            self.unary_push(operation);
        } else {
            self.unary(|x, env| operation(x, env).0);
        }
        self.set_conditions(C2, if out_of_range { C2 } else { 0 });
    }
}
