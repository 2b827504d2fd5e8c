//! SSE floating point on the host's SSE unit: the guest's rounding and denormal modes are loaded
//! around one instruction and its exception flags taken over. One of the crate's modules with
//! `unsafe`.
//!
//! It serves MXCSR values that mask all exceptions, which is what nearly all software runs with;
//! the portable twin serves the others, as the host must not trap.

use std::arch::{asm, x86_64::__m128i};

use bytemuck::cast;

use crate::softfloat::flag;
use crate::vcpu::rflags::{CF, PF, ZF};
use crate::vector::{ComFmt, Cvt, Fma, Fmt, Fp, Fp1, Fp2, IntCvt, Pred, mxcsr, portable};

/// The MXCSR that Rust code runs with.
static HOST_MXCSR: u32 = mxcsr::DEFAULT;

#[inline(always)]
fn all_masked(csr: u32) -> bool {
    csr & mxcsr::MASKS == mxcsr::MASKS
}

/// The control bits of `csr`, with which an instruction runs: no sticky flags.
#[inline(always)]
fn control(csr: u32) -> u32 {
    csr & mxcsr::WRITABLE & !u32::from(flag::ALL)
}

#[inline(always)]
fn flags(csr: u32) -> u8 {
    csr as u8 & flag::ALL
}

/// Runs `$insn a, b` on vectors; `a` is also the result.
macro_rules! vector {
    ($csr:expr, $a:expr, $b:expr, $($insn:tt)+) => {{
        let (mut csr, mut a, b): (u32, __m128i, __m128i) = (control($csr), cast($a), cast($b));
        // SAFETY: computes on registers with all exceptions masked, and restores the MXCSR that
        // Rust code expects.
        unsafe {
            asm!(
                "ldmxcsr [{csr}]", concat!($($insn)+), "stmxcsr [{csr}]", "ldmxcsr [{host}]",
                csr = in(reg) &mut csr, host = in(reg) &HOST_MXCSR,
                a = inout(xmm_reg) a, b = in(xmm_reg) b,
                options(nostack, preserves_flags),
            );
        }
        Fp { value: cast(a), flags: flags(csr) }
    }};
}

/// An operation in the format's form: `stem` + ss, ps, sd or pd.
macro_rules! formats {
    ($fmt:expr, $csr:expr, $a:expr, $b:expr, $stem:literal) => {
        match $fmt {
            Fmt::Ss => vector!($csr, $a, $b, $stem, "ss {a}, {b}"),
            Fmt::Ps => vector!($csr, $a, $b, $stem, "ps {a}, {b}"),
            Fmt::Sd => vector!($csr, $a, $b, $stem, "sd {a}, {b}"),
            Fmt::Pd => vector!($csr, $a, $b, $stem, "pd {a}, {b}"),
        }
    };
}

/// See [`crate::vector::VectorBackend::fp2`].
#[inline(always)]
pub fn fp2(op: Fp2, fmt: Fmt, a: u128, b: u128, csr: u32) -> Fp<u128> {
    if !all_masked(csr) {
        return portable::fp2(op, fmt, a, b, csr);
    }
    match op {
        Fp2::Add => formats!(fmt, csr, a, b, "add"),
        Fp2::Sub => formats!(fmt, csr, a, b, "sub"),
        Fp2::Mul => formats!(fmt, csr, a, b, "mul"),
        Fp2::Div => formats!(fmt, csr, a, b, "div"),
        Fp2::Min => formats!(fmt, csr, a, b, "min"),
        Fp2::Max => formats!(fmt, csr, a, b, "max"),
        Fp2::Cmp(Pred::Eq) => formats!(fmt, csr, a, b, "cmpeq"),
        Fp2::Cmp(Pred::Lt) => formats!(fmt, csr, a, b, "cmplt"),
        Fp2::Cmp(Pred::Le) => formats!(fmt, csr, a, b, "cmple"),
        Fp2::Cmp(Pred::Unord) => formats!(fmt, csr, a, b, "cmpunord"),
        Fp2::Cmp(Pred::Neq) => formats!(fmt, csr, a, b, "cmpneq"),
        Fp2::Cmp(Pred::Nlt) => formats!(fmt, csr, a, b, "cmpnlt"),
        Fp2::Cmp(Pred::Nle) => formats!(fmt, csr, a, b, "cmpnle"),
        Fp2::Cmp(Pred::Ord) => formats!(fmt, csr, a, b, "cmpord"),
        // SSE3: not every x86-64 host has it.
        Fp2::AddSub => portable::fp2(op, fmt, a, b, csr),
    }
}

/// See [`crate::vector::VectorBackend::fp1`].
#[inline(always)]
pub fn fp1(op: Fp1, fmt: Fmt, upper: u128, a: u128, csr: u32) -> Fp<u128> {
    if !all_masked(csr) && op == Fp1::Sqrt {
        return portable::fp1(op, fmt, upper, a, csr);
    }
    match (op, fmt) {
        (Fp1::Sqrt, _) => formats!(fmt, csr, upper, a, "sqrt"),
        // The estimates raise nothing, whatever is masked; what they give is the host's own.
        (Fp1::Rcp, Fmt::Ss) => vector!(mxcsr::DEFAULT, upper, a, "rcpss {a}, {b}"),
        (Fp1::Rcp, _) => vector!(mxcsr::DEFAULT, upper, a, "rcpps {a}, {b}"),
        (Fp1::Rsqrt, Fmt::Ss) => vector!(mxcsr::DEFAULT, upper, a, "rsqrtss {a}, {b}"),
        (Fp1::Rsqrt, _) => vector!(mxcsr::DEFAULT, upper, a, "rsqrtps {a}, {b}"),
        // SSE4.1: not every x86-64 host has it.
        (Fp1::Round(_), _) => portable::fp1(op, fmt, upper, a, csr),
    }
}

/// Runs `$insn c, a, b` on three vectors, the first of which is also the result.
macro_rules! fused {
    ($csr:expr, [$a:expr, $b:expr, $c:expr], $($insn:tt)+) => {{
        let (mut csr, a, b): (u32, __m128i, __m128i) = (control($csr), cast($a), cast($b));
        let mut c: __m128i = cast($c);
        // SAFETY: as in `vector!`; the host has FMA.
        unsafe {
            asm!(
                "ldmxcsr [{csr}]", concat!($($insn)+), "stmxcsr [{csr}]", "ldmxcsr [{host}]",
                csr = in(reg) &mut csr, host = in(reg) &HOST_MXCSR,
                a = in(xmm_reg) a, b = in(xmm_reg) b, c = inout(xmm_reg) c,
                options(nostack, preserves_flags),
            );
        }
        Fp { value: cast(c), flags: flags(csr) }
    }};
}

macro_rules! fused_formats {
    ($fmt:expr, $csr:expr, $x:expr, $stem:literal) => {{
        let [a, b, c] = $x;
        match $fmt {
            Fmt::Ss => fused!($csr, [a, b, c], $stem, "ss {c}, {a}, {b}"),
            Fmt::Ps => fused!($csr, [a, b, c], $stem, "ps {c}, {a}, {b}"),
            Fmt::Sd => fused!($csr, [a, b, c], $stem, "sd {c}, {a}, {b}"),
            Fmt::Pd => fused!($csr, [a, b, c], $stem, "pd {c}, {a}, {b}"),
        }
    }};
}

/// See [`crate::vector::VectorBackend::fma`].
#[inline(always)]
pub fn fma(op: Fma, fmt: Fmt, upper: u128, x: [u128; 3], csr: u32) -> Fp<u128> {
    if !all_masked(csr) || !std::arch::is_x86_feature_detected!("fma") {
        return portable::fma(op, fmt, upper, x, csr);
    }
    let packed = |[a, b, c]: [u128; 3], double| match (op, double) {
        (Fma::AddSub, false) => fused!(csr, [a, b, c], "vfmaddsub231ps {c}, {a}, {b}"),
        (Fma::AddSub, true) => fused!(csr, [a, b, c], "vfmaddsub231pd {c}, {a}, {b}"),
        (_, false) => fused!(csr, [a, b, c], "vfmsubadd231ps {c}, {a}, {b}"),
        (_, true) => fused!(csr, [a, b, c], "vfmsubadd231pd {c}, {a}, {b}"),
    };
    let r = match op {
        Fma::Add => fused_formats!(fmt, csr, x, "vfmadd231"),
        Fma::Sub => fused_formats!(fmt, csr, x, "vfmsub231"),
        Fma::NegatedAdd => fused_formats!(fmt, csr, x, "vfnmadd231"),
        Fma::NegatedSub => fused_formats!(fmt, csr, x, "vfnmsub231"),
        Fma::AddSub | Fma::SubAdd => packed(x, fmt == Fmt::Pd),
    };
    let low = match fmt {
        Fmt::Ss => u128::from(u32::MAX),
        Fmt::Sd => u128::from(u64::MAX),
        Fmt::Ps | Fmt::Pd => u128::MAX,
    };
    Fp { value: r.value & low | upper & !low, ..r }
}

/// Runs a comparison and collects the flags it leaves in RFLAGS.
macro_rules! comparison {
    ($csr:expr, $a:expr, $b:expr, $insn:literal) => {{
        let (mut csr, a, b): (u32, __m128i, __m128i) = (control($csr), cast($a), cast($b));
        let (z, p, c): (u8, u8, u8);
        // SAFETY: as in `vector!`.
        unsafe {
            asm!(
                "ldmxcsr [{csr}]", concat!($insn, " {a}, {b}"),
                "setz {z}", "setp {p}", "setc {c}",
                "stmxcsr [{csr}]", "ldmxcsr [{host}]",
                csr = in(reg) &mut csr, host = in(reg) &HOST_MXCSR,
                a = in(xmm_reg) a, b = in(xmm_reg) b,
                z = out(reg_byte) z, p = out(reg_byte) p, c = out(reg_byte) c,
                options(nostack),
            );
        }
        let value = u64::from(z) * ZF | u64::from(p) * PF | u64::from(c) * CF;
        Fp { value, flags: flags(csr) }
    }};
}

/// See [`crate::vector::VectorBackend::fp_compare`].
#[inline(always)]
pub fn compare(fmt: ComFmt, quiet: bool, a: u128, b: u128, csr: u32) -> Fp<u64> {
    if !all_masked(csr) {
        return portable::compare(fmt, quiet, a, b, csr);
    }
    match (fmt, quiet) {
        (ComFmt::Ss, false) => comparison!(csr, a, b, "comiss"),
        (ComFmt::Ss, true) => comparison!(csr, a, b, "ucomiss"),
        (ComFmt::Sd, false) => comparison!(csr, a, b, "comisd"),
        (ComFmt::Sd, true) => comparison!(csr, a, b, "ucomisd"),
    }
}

/// See [`crate::vector::VectorBackend::cvt`].
#[inline(always)]
pub fn cvt(op: Cvt, upper: u128, a: u128, csr: u32) -> Fp<u128> {
    if !all_masked(csr) {
        return portable::cvt(op, upper, a, csr);
    }
    match op {
        Cvt::Dq2Ps => vector!(csr, upper, a, "cvtdq2ps {a}, {b}"),
        Cvt::Dq2Pd => vector!(csr, upper, a, "cvtdq2pd {a}, {b}"),
        Cvt::Ps2Dq => vector!(csr, upper, a, "cvtps2dq {a}, {b}"),
        Cvt::TPs2Dq => vector!(csr, upper, a, "cvttps2dq {a}, {b}"),
        Cvt::Pd2Dq => vector!(csr, upper, a, "cvtpd2dq {a}, {b}"),
        Cvt::TPd2Dq => vector!(csr, upper, a, "cvttpd2dq {a}, {b}"),
        Cvt::Ps2Pd => vector!(csr, upper, a, "cvtps2pd {a}, {b}"),
        Cvt::Pd2Ps => vector!(csr, upper, a, "cvtpd2ps {a}, {b}"),
        Cvt::Ss2Sd => vector!(csr, upper, a, "cvtss2sd {a}, {b}"),
        Cvt::Sd2Ss => vector!(csr, upper, a, "cvtsd2ss {a}, {b}"),
        // F16C: not every x86-64 host has it.
        Cvt::Ph2Ps | Cvt::Ps2Ph(_) => portable::cvt(op, upper, a, csr),
    }
}

/// Converts a 64-bit integer register into the lowest lane.
macro_rules! from_integer {
    ($csr:expr, $upper:expr, $v:expr, $insn:literal) => {{
        let (mut csr, mut a): (u32, __m128i) = (control($csr), cast($upper));
        // SAFETY: as in `vector!`.
        unsafe {
            asm!(
                "ldmxcsr [{csr}]", concat!($insn, " {a}, {v}"), "stmxcsr [{csr}]",
                "ldmxcsr [{host}]",
                csr = in(reg) &mut csr, host = in(reg) &HOST_MXCSR,
                a = inout(xmm_reg) a, v = in(reg) $v,
                options(nostack, preserves_flags),
            );
        }
        Fp { value: cast(a), flags: flags(csr) }
    }};
}

/// See [`crate::vector::VectorBackend::cvt_from_int`].
#[inline(always)]
pub fn from_int(fmt: ComFmt, upper: u128, v: i64, csr: u32) -> Fp<u128> {
    if !all_masked(csr) {
        return portable::from_int(fmt, upper, v, csr);
    }
    match fmt {
        ComFmt::Ss => from_integer!(csr, upper, v, "cvtsi2ss"),
        ComFmt::Sd => from_integer!(csr, upper, v, "cvtsi2sd"),
    }
}

/// Converts the lowest lane to an integer; `$size` is the operand modifier of its register.
macro_rules! to_integer {
    ($csr:expr, $a:expr, $insn:literal, $size:literal) => {{
        let (mut csr, a): (u32, __m128i) = (control($csr), cast($a));
        let value: u64;
        // SAFETY: as in `vector!`.
        unsafe {
            asm!(
                "ldmxcsr [{csr}]", concat!($insn, " {v", $size, "}, {a}"), "stmxcsr [{csr}]",
                "ldmxcsr [{host}]",
                csr = in(reg) &mut csr, host = in(reg) &HOST_MXCSR,
                a = in(xmm_reg) a, v = out(reg) value,
                options(nostack, preserves_flags),
            );
        }
        Fp { value, flags: flags(csr) }
    }};
}

/// See [`crate::vector::VectorBackend::cvt_to_int`].
#[inline(always)]
pub fn scalar_to_int(op: IntCvt, a: u128, csr: u32) -> Fp<u64> {
    if !all_masked(csr) {
        return portable::scalar_to_int(op, a, csr);
    }
    match (op.from, op.truncate, op.wide) {
        (ComFmt::Ss, false, false) => to_integer!(csr, a, "cvtss2si", ":e"),
        (ComFmt::Ss, false, true) => to_integer!(csr, a, "cvtss2si", ":r"),
        (ComFmt::Ss, true, false) => to_integer!(csr, a, "cvttss2si", ":e"),
        (ComFmt::Ss, true, true) => to_integer!(csr, a, "cvttss2si", ":r"),
        (ComFmt::Sd, false, false) => to_integer!(csr, a, "cvtsd2si", ":e"),
        (ComFmt::Sd, false, true) => to_integer!(csr, a, "cvtsd2si", ":r"),
        (ComFmt::Sd, true, false) => to_integer!(csr, a, "cvttsd2si", ":e"),
        (ComFmt::Sd, true, true) => to_integer!(csr, a, "cvttsd2si", ":r"),
    }
}
