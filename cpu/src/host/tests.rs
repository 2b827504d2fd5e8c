//! Each fast path against its portable twin: bits and flags, on operands that hit every case.

use super::{extensions, sse};
use crate::vector::{ComFmt, Crypto, Cvt, Fma, Fmt, Fp, Fp1, Fp2, IntCvt, Pred, crypto, portable};

pub(super) use operands::Operands;

mod operands;

const FORMATS: [Fmt; 4] = [Fmt::Ss, Fmt::Sd, Fmt::Ps, Fmt::Pd];
const SCALARS: [ComFmt; 2] = [ComFmt::Ss, ComFmt::Sd];

/// MXCSR with all exceptions masked: every rounding, DAZ and FTZ.
pub(super) fn control_words() -> impl Iterator<Item = u32> {
    (0..16).map(|n| 0x1f80 | (n & 3) << 13 | (n >> 2 & 1) << 6 | (n >> 3) << 15)
}

/// Calls `check` with pairs of operands in every mode.
fn for_operands(rounds: u32, mut check: impl FnMut(u128, u128, u32)) {
    let mut operands = Operands::new(1);
    for csr in control_words() {
        for _ in 0..rounds {
            check(operands.vector(), operands.vector(), csr);
        }
    }
}

#[track_caller]
fn same<T: PartialEq + std::fmt::LowerHex + Copy>(
    what: &dyn std::fmt::Debug,
    operands: (u128, u128, u32),
    host: Fp<T>,
    portable: Fp<T>,
) {
    let (a, b, csr) = operands;
    assert!(
        host == portable,
        "{what:?} a={a:#034x} b={b:#034x} mxcsr={csr:#x}: host {:#x} flags {:#x}, portable {:#x} \
         flags {:#x}",
        host.value,
        host.flags,
        portable.value,
        portable.flags,
    );
}

#[test]
fn arithmetic_equals_its_twin() {
    let compare = (0..8).map(|n| Fp2::Cmp(Pred::from_imm(n)));
    let ops = [Fp2::Add, Fp2::Sub, Fp2::Mul, Fp2::Div, Fp2::Min, Fp2::Max];
    for op in ops.into_iter().chain(compare) {
        for fmt in FORMATS {
            for_operands(2000, |a, b, csr| {
                let (host, twin) =
                    (sse::fp2(op, fmt, a, b, csr), portable::fp2(op, fmt, a, b, csr));
                same(&(op, fmt), (a, b, csr), host, twin);
            });
        }
    }
}

#[test]
fn fused_arithmetic_equals_its_twin() {
    use Fma::*;
    let mut third = Operands::new(2);
    for op in [Add, Sub, NegatedAdd, NegatedSub, AddSub, SubAdd] {
        for fmt in FORMATS {
            // No scalar instruction alternates.
            if matches!(op, AddSub | SubAdd) && matches!(fmt, Fmt::Ss | Fmt::Sd) {
                continue;
            }
            for_operands(2000, |a, b, csr| {
                let x = [a, b, third.vector()];
                let host = sse::fma(op, fmt, a, x, csr);
                same(&(op, fmt, x[2]), (a, b, csr), host, portable::fma(op, fmt, a, x, csr));
            });
        }
    }
}

#[test]
fn square_root_equals_its_twin() {
    for fmt in FORMATS {
        for_operands(2000, |a, b, csr| {
            let host = sse::fp1(Fp1::Sqrt, fmt, a, b, csr);
            same(&fmt, (a, b, csr), host, portable::fp1(Fp1::Sqrt, fmt, a, b, csr));
        });
    }
}

#[test]
fn comparisons_equal_their_twins() {
    for fmt in SCALARS {
        for quiet in [false, true] {
            for_operands(2000, |a, b, csr| {
                let host = sse::compare(fmt, quiet, a, b, csr);
                let twin = portable::compare(fmt, quiet, a, b, csr);
                same(&(fmt, quiet), (a, b, csr), host, twin);
            });
        }
    }
}

#[test]
fn conversions_equal_their_twins() {
    use Cvt::*;
    for op in [Dq2Ps, Dq2Pd, Ps2Dq, TPs2Dq, Pd2Dq, TPd2Dq, Ps2Pd, Pd2Ps, Ss2Sd, Sd2Ss] {
        for_operands(2000, |a, b, csr| {
            same(&op, (a, b, csr), sse::cvt(op, a, b, csr), portable::cvt(op, a, b, csr));
        });
    }
    for from in SCALARS {
        for (wide, truncate) in [(false, false), (false, true), (true, false), (true, true)] {
            let op = IntCvt { from, wide, truncate };
            for_operands(2000, |a, b, csr| {
                let host = sse::scalar_to_int(op, a, csr);
                same(&op, (a, b, csr), host, portable::scalar_to_int(op, a, csr));
            });
        }
        for_operands(2000, |a, b, csr| {
            for v in [b as i64, i64::from(b as i32)] {
                let host = sse::from_int(from, a, v, csr);
                same(&from, (a, b, csr), host, portable::from_int(from, a, v, csr));
            }
        });
    }
}

#[test]
fn ciphers_and_hashes_equal_their_twins() {
    use Crypto::*;
    let sha1 = (0..4).map(Sha1Rounds).chain([Sha1NextE, Sha1Msg1, Sha1Msg2]);
    let aes = [AesEnc, AesEncLast, AesDec, AesDecLast, AesImc, AesKeygen];
    let others = [Clmul, Sha256Msg1, Sha256Msg2, GfMul, GfAffine, GfAffineInverse];
    let mut operands = Operands::new(3);
    let mut random = || u128::from(operands.next()) << 64 | u128::from(operands.next());
    for op in aes.into_iter().chain(sha1).chain(others) {
        for _ in 0..20_000 {
            let (a, b) = (random(), random());
            let (host, twin) = (extensions::apply(op, a, b), crypto::apply(op, a, b));
            assert_eq!(host, twin, "{op:?} {a:#034x} {b:#034x}");
        }
    }
    for _ in 0..20_000 {
        let (a, b, keys) = (random(), random(), random());
        let host = extensions::sha256_rounds(a, b, keys);
        assert_eq!(host, crypto::sha256_rounds(a, b, keys), "{a:#034x} {b:#034x} {keys:#034x}");
    }
}

#[test]
fn bits_are_scattered_and_gathered_as_by_their_twins() {
    let mut operands = Operands::new(4);
    for _ in 0..100_000 {
        let (v, mask) = (operands.next(), operands.next() & operands.next());
        assert_eq!(extensions::deposit(v, mask), crypto::deposit(v, mask), "{v:#x} {mask:#x}");
        assert_eq!(extensions::extract(v, mask), crypto::extract(v, mask), "{v:#x} {mask:#x}");
    }
}

#[test]
fn estimates_are_within_their_error() {
    for op in [Fp1::Rcp, Fp1::Rsqrt] {
        for_operands(4000, |a, b, csr| {
            let host = sse::fp1(op, Fmt::Ss, a, b, csr).value as u32;
            let twin = portable::fp1(op, Fmt::Ss, a, b, csr).value as u32;
            let (h, t) = (f32::from_bits(host), f32::from_bits(twin));
            // Hosts differ in how far below the normal range they flush.
            let tiny = t.abs() < f32::MIN_POSITIVE * 2.0 && h.abs() < f32::MIN_POSITIVE * 2.0;
            let near = (h / t - 1.0).abs() <= 3.0 / 4096.0;
            assert!(host == twin || near || tiny, "{op:?} {:#x}: {host:#x} {twin:#x}", b as u32);
        });
    }
}

#[test]
fn an_unmasked_exception_stops_before_rounding() {
    // Lane 0 divides by zero, lane 1 is inexact: with ZE unmasked only ZE is reported
    // (SDM vol. 1, 11.5.2).
    let one_and_one = u128::from(1f64.to_bits()) << 64 | u128::from(1f64.to_bits());
    let three_and_zero = u128::from(3f64.to_bits()) << 64;
    let unmasked = 0x1f80 & !(1 << 9);
    let r = sse::fp2(Fp2::Div, Fmt::Pd, one_and_one, three_and_zero, unmasked);
    assert_eq!(r.flags, 0x04);
    assert_eq!(r.unmasked(unmasked), 0x04);
    let masked = sse::fp2(Fp2::Div, Fmt::Pd, one_and_one, three_and_zero, 0x1f80);
    assert_eq!(masked.flags, 0x24);
}
