//! Which vector operations are translated on this host. The others leave to the interpreter.

use brolga_cpu::vector::{Crypto, Fp1, Fp2};

/// Beyond what every x86-64 host has: the byte shuffles of SSSE3.
pub(crate) fn shuffle_by() -> bool {
    std::arch::is_x86_feature_detected!("ssse3")
}

pub(crate) fn fp2(op: Fp2) -> bool {
    op != Fp2::AddSub || std::arch::is_x86_feature_detected!("sse3")
}

pub(crate) fn fp1(op: Fp1) -> bool {
    !matches!(op, Fp1::Round(_)) || std::arch::is_x86_feature_detected!("sse4.1")
}

/// PDEP and PEXT.
pub(crate) fn bmi2() -> bool {
    std::arch::is_x86_feature_detected!("bmi2")
}

pub(crate) fn crypto(op: Crypto) -> bool {
    brolga_cpu::vector::crypto::on_host(op)
}

/// CRC32 and the comparisons of strings.
pub(crate) fn sse4_2() -> bool {
    std::arch::is_x86_feature_detected!("sse4.2")
}
