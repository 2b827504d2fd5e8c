//! The FPU against the host's, and what the host cannot show against the manual.

use super::*;
use crate::softfloat::tests::Random;

#[cfg(target_arch = "x86_64")]
mod compare;
#[cfg(target_arch = "x86_64")]
mod host;
mod image;
#[cfg(target_arch = "x86_64")]
mod transcendental;

/// A random encoding, odd ones included.
fn random_f80(random: &mut Random) -> F80 {
    let exponent = match random.below(12) {
        0 => 0,
        1 => 0x7FFF,
        2 => random.below(3),
        3 => 0x7FFC + random.below(3),
        4 => 0x3FFF + random.below(400) - 200,
        5 => random.below(0x8000),
        // What binary32 and binary64 can and can only just not hold.
        6 => 0x3FFF + 127 + random.below(3) - 1,
        7 => 0x3FFF - 127 - random.below(28),
        8 => 0x3FFF - 1023 - random.below(56),
        _ => 0x3FFF + random.below(80) - 10,
    };
    let integer_bit =
        if random.below(16) == 0 { random.below(2) } else { u64::from(exponent != 0) };
    let fraction = if random.below(8) == 0 { 0 } else { random.significand() >> 1 };
    F80::new((random.below(2) << 15 | exponent) as u16, integer_bit << 63 | fraction)
}

/// A random state without pending exceptions; mostly a full enough stack and masked exceptions.
fn random_fpu(random: &mut Random) -> X87 {
    let mut fpu = X87::default();
    let masks = if random.below(3) == 0 { random.below(64) } else { 0x3F };
    let rounding_and_precision = random.below(16) << 8;
    fpu.set_control((rounding_and_precision | masks) as u16);
    fpu.set_top(random.below(8) as u8);
    for i in 0..8 {
        fpu.regs[i] = random_f80(random);
    }
    fpu.valid = if random.below(4) == 0 { random.next() as u8 } else { fpu.valid };
    if random.below(4) != 0 {
        for i in 0..3 {
            fpu.valid |= fpu.register_bit(i);
        }
    }
    fpu.set_conditions(C0 | C1 | C2 | C3, random.next() as u16);
    fpu
}
