//! The host's own x87, for the transcendental instructions. The only module of the FPU with unsafe
//! code.

use super::status::{C1, C2};
use super::transcendental::{Answer, Transcendental};
use crate::softfloat::{Env, F80, flag};
use std::arch::asm;

/// What an instruction left: ST(0), ST(1) and the status word.
type Outcome = ([F80; 2], u16);

/// Ten bytes in memory, as FLD m80 and FSTP m80 use them.
type Slot = [u8; 10];

/// Defines functions that run one instruction on `[ST(0), ST(1)]` under a control word. Exceptions
/// found before the computation are masked. An unmasked overflow or underflow gives a result with
/// an adjusted exponent (SDM vol. 1, 8.5.4 and 8.5.5) and waits for the next instruction but those
/// without a wait, of which FNCLEX ends it.
macro_rules! instructions {
    ($($name:ident = $line:literal;)*) => {$(
        fn $name(operands: [F80; 2], control: u16) -> Outcome {
            let mut slots: [Slot; 2] = operands.map(F80::to_le_bytes);
            let control = control | u16::from(flag::ALL & !(flag::OVERFLOW | flag::UNDERFLOW));
            let mut saved = 0_u16;
            let status: u16;
            // SAFETY: the x87 stack is empty on entry because all its registers are declared
            // clobbered; FNINIT empties it again, and the control word is restored. Loads of ten
            // bytes raise none of what is unmasked, and FNCLEX takes back what `$line` raises, so
            // nothing traps. Memory is only the three locals.
            unsafe {
                asm!(
                    "fnstcw word ptr [{saved}]",
                    "fninit",
                    "fldcw word ptr [{control}]",
                    "fld tbyte ptr [{slots} + 10]",
                    "fld tbyte ptr [{slots}]",
                    $line,
                    "fnstsw ax",
                    "fnclex",
                    "fstp tbyte ptr [{slots}]",
                    "fstp tbyte ptr [{slots} + 10]",
                    "fninit",
                    "fldcw word ptr [{saved}]",
                    saved = in(reg) &mut saved,
                    control = in(reg) &control,
                    slots = in(reg) &mut slots,
                    out("ax") status,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                );
            }
            (slots.map(F80::from_le_bytes), status)
        }
    )*};
}

instructions! {
    f2xm1 = "f2xm1";
    fyl2x = "fyl2x";
    fyl2xp1 = "fyl2xp1";
    fptan = "fptan";
    fpatan = "fpatan";
    fsin = "fsin";
    fcos = "fcos";
    fsincos = "fsincos";
}

/// A transcendental instruction; flags and C1 go to `env`.
pub(super) fn transcendental(
    op: Transcendental,
    st0: F80,
    st1: F80,
    control: u16,
    env: &mut Env,
) -> Answer {
    let run = match op {
        Transcendental::TwoToXMinus1 => f2xm1,
        Transcendental::YLog2X => fyl2x,
        Transcendental::YLog2XPlus1 => fyl2xp1,
        Transcendental::Tan => fptan,
        Transcendental::Atan => fpatan,
        Transcendental::Sin => fsin,
        Transcendental::Cos => fcos,
        Transcendental::SinCos => fsincos,
    };
    let ([top, below], status) = run([st0, st1], control);
    env.raise(status as u8 & flag::ALL);
    env.rounded_up = status & C1 != 0;
    let out_of_range = status & C2 != 0;
    match op {
        Transcendental::Tan | Transcendental::SinCos if !out_of_range => {
            Answer { value: below, pushed: top, out_of_range }
        }
        _ => Answer { value: top, pushed: top, out_of_range },
    }
}
