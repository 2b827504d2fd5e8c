//! What newer hosts have an instruction for: AES, SHA, carry-less products, GF(2^8), and PDEP and
//! PEXT. One of the crate's modules with `unsafe`. Where the host lacks one, the portable twin
//! serves.

use std::arch::{asm, is_x86_feature_detected, x86_64::__m128i};

use bytemuck::cast;

use crate::vector::{Crypto, crypto};

/// Runs `$insn` on `$a` and `$b`; `$a` is also the result.
macro_rules! vector {
    ($insn:literal, $a:expr, $b:expr) => {{
        let (mut a, b): (__m128i, __m128i) = (cast($a), cast($b));
        // SAFETY: computes on registers; `apply` has seen that the host has the instruction.
        unsafe {
            asm!(
                $insn,
                a = inout(xmm_reg) a, b = in(xmm_reg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        cast(a)
    }};
}

/// See [`crate::vector::VectorBackend::crypto`].
#[inline(always)]
pub fn apply(op: Crypto, a: u128, b: u128) -> u128 {
    if !crypto::on_host(op) {
        return crypto::apply(op, a, b);
    }
    match op {
        Crypto::AesEnc => vector!("aesenc {a}, {b}", a, b),
        Crypto::AesEncLast => vector!("aesenclast {a}, {b}", a, b),
        Crypto::AesDec => vector!("aesdec {a}, {b}", a, b),
        Crypto::AesDecLast => vector!("aesdeclast {a}, {b}", a, b),
        Crypto::AesImc => vector!("aesimc {a}, {b}", a, b),
        Crypto::AesKeygen => vector!("aeskeygenassist {a}, {b}, 0", a, b),
        Crypto::Clmul => vector!("pclmulqdq {a}, {b}, 0", a, b),
        Crypto::Sha1Rounds(0) => vector!("sha1rnds4 {a}, {b}, 0", a, b),
        Crypto::Sha1Rounds(1) => vector!("sha1rnds4 {a}, {b}, 1", a, b),
        Crypto::Sha1Rounds(2) => vector!("sha1rnds4 {a}, {b}, 2", a, b),
        Crypto::Sha1Rounds(_) => vector!("sha1rnds4 {a}, {b}, 3", a, b),
        Crypto::Sha1NextE => vector!("sha1nexte {a}, {b}", a, b),
        Crypto::Sha1Msg1 => vector!("sha1msg1 {a}, {b}", a, b),
        Crypto::Sha1Msg2 => vector!("sha1msg2 {a}, {b}", a, b),
        Crypto::Sha256Msg1 => vector!("sha256msg1 {a}, {b}", a, b),
        Crypto::Sha256Msg2 => vector!("sha256msg2 {a}, {b}", a, b),
        Crypto::GfMul => vector!("gf2p8mulb {a}, {b}", a, b),
        Crypto::GfAffine => vector!("gf2p8affineqb {a}, {b}, 0", a, b),
        Crypto::GfAffineInverse => vector!("gf2p8affineinvqb {a}, {b}, 0", a, b),
    }
}

/// See [`crate::vector::VectorBackend::sha256_rounds`].
pub fn sha256_rounds(cdgh: u128, abef: u128, keys: u128) -> u128 {
    if !is_x86_feature_detected!("sha") {
        return crypto::sha256_rounds(cdgh, abef, keys);
    }
    let (mut a, b, k): (__m128i, __m128i, __m128i) = (cast(cdgh), cast(abef), cast(keys));
    // SAFETY: computes on registers, and the host has the instruction.
    unsafe {
        asm!(
            "sha256rnds2 {a}, {b}",
            a = inout(xmm_reg) a, b = in(xmm_reg) b, in("xmm0") k,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    cast(a)
}

/// `$insn` of a value and a mask.
macro_rules! masked {
    ($(#[$doc:meta])* $name:ident $insn:literal) => {
        $(#[$doc])*
        pub fn $name(v: u64, mask: u64) -> u64 {
            if !is_x86_feature_detected!("bmi2") {
                return crypto::$name(v, mask);
            }
            let r;
            // SAFETY: computes on registers, and the host has the instruction.
            unsafe {
                asm!(
                    concat!($insn, " {r}, {v}, {mask}"),
                    r = out(reg) r, v = in(reg) v, mask = in(reg) mask,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            r
        }
    };
}

masked! {
    /// See [`crate::backend::Bin::Deposit`].
    deposit "pdep"
}
masked! {
    /// See [`crate::backend::Bin::Extract`].
    extract "pext"
}
