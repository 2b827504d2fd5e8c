//! The table of models.

use super::{CpuModel, Feature, TSC_KHZ};

use Feature::*;

const INTEL: &str = "GenuineIntel";
const AMD: &str = "AuthenticAMD";

const I486: &[Feature] = &[Fpu];
const PENTIUM: &[Feature] = &[Vme, De, Pse, Tsc, Msr, Mce, Cx8, Apic, Mmx];
const PENTIUM3: &[Feature] = &[Pae, Sep, Mtrr, Pge, Mca, Cmov, Pat, Pse36, Fxsr, Sse];
/// What the Athlon has of the Pentium III, and what that lacks (AMD 20734, AMD Processor Recognition).
const ATHLON: &[Feature] =
    &[Pae, Sep, Mtrr, Pge, Mca, Cmov, Pat, Pse36, Fxsr, Syscall, Mmxext, ThreeDNow, ThreeDNowExt];
const I686: &[Feature] = &[Clflush, Sse2, Nx];
const X86_64: &[Feature] = &[Syscall, Lm];
const CORE2: &[Feature] = &[Sse3, Ssse3, Cx16, LahfLm];
const NEHALEM: &[Feature] = &[Sse41, Sse42, Popcnt, Rdtscp, InvariantTsc, X2apic];
/// The vectors of x86-64-v3, and the state management that goes with them.
const AVX: &[Feature] = &[Avx, Avx2, Fma, F16c, Xsaveopt];
const HASWELL: &[Feature] = &[
    Pclmulqdq,
    Aesni,
    Pcid,
    Movbe,
    TscDeadline,
    Xsave,
    Rdrand,
    Arat,
    Fsgsbase,
    TscAdjust,
    Bmi1,
    Smep,
    Bmi2,
    Erms,
    Invpcid,
    Lzcnt,
    Pdpe1gb,
];
const MAX: &[Feature] = &[
    Hypervisor,
    Xsavec,
    Xgetbv1,
    Xsaves,
    Rdseed,
    Adx,
    Smap,
    Clflushopt,
    Clwb,
    Sha,
    Umip,
    Pku,
    Gfni,
    Vaes,
    Vpclmulqdq,
    La57,
    Rdpid,
    Serialize,
    SpecCtrl,
    ArchCapabilities,
    Prefetchw,
    Wbnoinvd,
];

fn union(sets: &[&[Feature]]) -> u128 {
    sets.iter().flat_map(|set| set.iter()).fold(0, |bits, f| bits | f.mask())
}

/// Everything that is implemented. Family, model and stepping are those of an Atom that executes in
/// order (Cedarview, 06_36H): systems look for no quirks of it, and Linux knows that it does not
/// speculate. Of other processors of Intel's Linux assumes, since 6.1.139, that branch history must
/// be cleared at each system call, whatever IA32_ARCH_CAPABILITIES says (`cpu_set_bug_bits`).
pub(super) fn max() -> CpuModel {
    CpuModel {
        name: "max",
        vendor: INTEL,
        brand: "Brolga virtual CPU",
        family: 6,
        model: 0x36,
        stepping: 1,
        phys_bits: 40,
        features: union(&[
            I486, PENTIUM, PENTIUM3, I686, X86_64, CORE2, NEHALEM, HASWELL, AVX, MAX,
        ]),
        tsc_khz: TSC_KHZ,
        max_leaf: 0x16,
        max_extended: 0x8000_0008,
    }
}

/// All models, the default first.
pub(super) fn all() -> [CpuModel; 10] {
    let max = max();
    let haswell = CpuModel {
        name: "haswell",
        brand: "Brolga virtual CPU (Haswell)",
        model: 60,
        stepping: 3,
        phys_bits: 39,
        features: union(&[I486, PENTIUM, PENTIUM3, I686, X86_64, CORE2, NEHALEM, HASWELL, AVX]),
        max_leaf: 0xd,
        ..max.clone()
    };
    let nehalem = CpuModel {
        name: "nehalem",
        brand: "Brolga virtual CPU (Nehalem)",
        model: 26,
        stepping: 3,
        features: union(&[I486, PENTIUM, PENTIUM3, I686, X86_64, CORE2, NEHALEM]),
        max_leaf: 0xb,
        ..max.clone()
    };
    let core2 = CpuModel {
        name: "core2",
        brand: "Brolga virtual CPU (Core 2)",
        model: 15,
        stepping: 11,
        phys_bits: 36,
        features: union(&[I486, PENTIUM, PENTIUM3, I686, X86_64, CORE2]),
        max_leaf: 0xa,
        ..max.clone()
    };
    let x86_64 = CpuModel {
        name: "x86-64",
        brand: "Brolga virtual CPU (x86-64)",
        family: 15,
        model: 6,
        stepping: 1,
        features: union(&[I486, PENTIUM, PENTIUM3, I686, X86_64]),
        max_leaf: 5,
        ..core2.clone()
    };
    let i686 = CpuModel {
        name: "i686",
        brand: "Brolga virtual CPU (i686)",
        family: 6,
        model: 13,
        stepping: 8,
        features: union(&[I486, PENTIUM, PENTIUM3, I686]),
        max_leaf: 2,
        max_extended: 0x8000_0004,
        ..core2.clone()
    };
    let pentium3 = CpuModel {
        name: "pentium3",
        brand: "",
        model: 8,
        stepping: 6,
        features: union(&[I486, PENTIUM, PENTIUM3]),
        max_extended: 0,
        ..i686.clone()
    };
    let athlon = CpuModel {
        name: "athlon",
        vendor: AMD,
        brand: "Brolga virtual CPU (Athlon)",
        model: 4,
        stepping: 2,
        features: union(&[I486, PENTIUM, ATHLON]),
        max_leaf: 1,
        max_extended: 0x8000_0004,
        ..i686.clone()
    };
    let pentium = CpuModel {
        name: "pentium",
        brand: "",
        family: 5,
        model: 4,
        stepping: 3,
        phys_bits: 32,
        features: union(&[I486, PENTIUM]),
        max_leaf: 1,
        max_extended: 0,
        ..max.clone()
    };
    let i486 = CpuModel {
        name: "486",
        family: 4,
        model: 8,
        stepping: 0,
        features: union(&[I486]),
        ..pentium.clone()
    };
    [max, haswell, nehalem, core2, x86_64, i686, pentium3, athlon, pentium, i486]
}
