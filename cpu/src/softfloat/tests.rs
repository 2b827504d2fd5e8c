//! Binary32 and binary64 against the host's SSE, bits and flags; what needs unmasked exceptions
//! against the manual. The x87's tests check the extended format against the host's x87.

use super::*;

#[cfg(target_arch = "x86_64")]
mod host;
#[cfg(target_arch = "x86_64")]
mod sse;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A significand or fraction of the kinds that find rounding errors: sparse, dense, random.
    pub(crate) fn significand(&mut self) -> u64 {
        let (a, b) = (self.below(64), self.below(64));
        match self.below(6) {
            0 => 1 << a,
            1 => !0 << a,
            2 => (1 << a) ^ (1 << b),
            3 => (!0 << a) ^ (1 << b),
            4 => !0 >> a,
            _ => self.next(),
        }
    }
}

fn masked_x87() -> Env {
    Env::from_x87_control(0x37F)
}

#[test]
fn unmasked_overflow_and_underflow_adjust_the_bias() {
    let huge = F80::new(0x7FFE, 1 << 63);
    let mut env = Env { masks: flag::ALL & !flag::OVERFLOW, ..masked_x87() };
    let product = mul::<F80>(huge, huge, &mut env);
    assert_eq!(product, F80::new((2 * 16383 + 16383 - 24576) as u16, 1 << 63));
    assert_eq!(env.flags, flag::OVERFLOW);

    let tiny = F80::new(1, 1 << 63);
    let mut env = Env { masks: flag::ALL & !flag::UNDERFLOW, ..masked_x87() };
    let product = mul::<F80>(tiny, tiny, &mut env);
    assert_eq!(product, F80::new((-2 * 16382 + 16383 + 24576) as u16, 1 << 63));
    assert_eq!(env.flags, flag::UNDERFLOW);
}

#[test]
fn exact_tiny_result_underflows_only_unmasked() {
    let half = 0x3F00_0000;
    let mut env = Env::from_mxcsr(0x1F80);
    assert_eq!(mul::<F32>(0x0080_0000, half, &mut env), 0x0040_0000);
    assert_eq!(env.flags, 0);
    let mut env = Env { masks: flag::ALL & !flag::UNDERFLOW, ..Env::default() };
    mul::<F32>(0x0080_0000, half, &mut env);
    assert_eq!(env.unmasked(), flag::UNDERFLOW);
}

/// The flags that an unmasked overflow or underflow leaves in MXCSR, as seen on an EPYC 9005.
#[test]
fn unmasked_overflow_and_underflow_report_inexact_results() {
    let flags_of_product = |a, b| {
        let mut env = Env { masks: 0, ..Env::default() };
        mul::<F32>(a, b, &mut env);
        env.flags
    };
    assert_eq!(flags_of_product(0x7F7F_FFFF, 0x7F7F_FFFF), flag::OVERFLOW | flag::INEXACT);
    assert_eq!(flags_of_product(0x7F00_0000, 0x7F00_0000), flag::OVERFLOW);
    assert_eq!(flags_of_product(0x00FF_FFFF, 0x00FF_FFFF), flag::UNDERFLOW | flag::INEXACT);
    assert_eq!(flags_of_product(0x00FF_FFFF, 0x3F00_0000), flag::UNDERFLOW);
}

#[test]
fn scale_beyond_the_adjusted_range_gives_infinity_or_zero() {
    let mut env = Env { masks: 0, ..masked_x87() };
    let one = F80::new(0x3FFF, 1 << 63);
    let many = from_int::<F80>(100_000, &mut env);
    assert_eq!(scale(one, many, &mut env), F80::infinity(false));
    assert_eq!(env.flags & flag::OVERFLOW, flag::OVERFLOW);
    let few = from_int::<F80>(-100_000, &mut env);
    assert_eq!(scale(one, few, &mut env), F80::zero(false));
    assert_eq!(env.flags & flag::UNDERFLOW, flag::UNDERFLOW);
}

#[test]
fn unmasked_denormal_stops_before_later_exceptions() {
    let mut env = Env { masks: flag::ALL & !flag::DENORMAL, ..Env::default() };
    add::<F32>(1, 0x3F80_0000, &mut env);
    assert_eq!(env.flags, flag::DENORMAL);
}

#[test]
fn unsupported_encodings_are_invalid() {
    let unnormal = F80::new(0x4000, 1);
    let pseudo_infinity = F80::new(0x7FFF, 0);
    for operand in [unnormal, pseudo_infinity] {
        let mut env = masked_x87();
        assert_eq!(add::<F80>(operand, F80::default(), &mut env), F80::default_nan());
        assert_eq!(env.flags, flag::INVALID);
    }
}

#[test]
fn conversions_to_unsigned() {
    let mut env = Env::default();
    let big = from_int::<F64>(1_i128 << 63, &mut env);
    assert_eq!(to_int::<F64, u64>(big, Rounding::Zero, &mut env), 1 << 63);
    assert_eq!(to_int::<F64, u32>(big, Rounding::Zero, &mut env), u32::MAX);
    assert_eq!(env.flags, flag::INVALID);
    env.flags = 0;
    let minus_half = 0xBFE0_0000_0000_0000;
    assert_eq!(to_int::<F64, u64>(minus_half, Rounding::Zero, &mut env), 0);
    assert_eq!(env.flags, flag::INEXACT);
}
