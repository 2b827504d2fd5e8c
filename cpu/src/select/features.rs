//! Which of iced's CPUID features a CPU model executes.

use iced_x86::{CpuidFeature as F, Instruction, Mnemonic};

use crate::cpuid::{CpuModel, Feature};

/// Whether `model` has all that `i` needs. Test registers are decoded only where they exist.
pub(super) fn has(model: &CpuModel, i: &Instruction) -> bool {
    i.cpuid_features().iter().all(|feature| executes(model, *feature))
        || model.has(Feature::Mmxext) && is_mmx_extension(i)
        || (0..i.op_count()).any(|n| i.op_register(n).is_tr())
}

/// What SSE has for MMX registers and for caches, AMD's extensions to MMX (22466, chapter 2).
fn is_mmx_extension(i: &Instruction) -> bool {
    use Mnemonic::{Prefetchnta, Prefetcht0, Prefetcht1, Prefetcht2, Sfence};
    let registers = || (0..i.op_count()).map(|n| i.op_register(n));
    i.cpuid_features() == [F::SSE]
        && (registers().any(|r| r.is_mm()) && !registers().any(|r| r.is_xmm())
            || matches!(i.mnemonic(), Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 | Sfence))
}

/// Whether `model` executes instructions that need `feature`.
fn executes(model: &CpuModel, feature: F) -> bool {
    let needed = match feature {
        // The base: every model is a 486 or later. SMSW and the like are in this set too.
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::CPUID => {
            return true;
        }
        F::PAUSE => return true,
        // Encodings that are NOPs since the P6 where they mean nothing else, and that software
        // therefore uses without asking: RDSSP in libgcc's unwinder, for one. What else iced files
        // under these features has no meaning here, and is #UD.
        F::MULTIBYTENOP | F::CET_IBT | F::CET_SS | F::CLDEMOTE | F::PREFETCHITI => Feature::Cmov,
        F::ADX => Feature::Adx,
        F::AES => Feature::Aesni,
        F::BMI1 => Feature::Bmi1,
        F::BMI2 => Feature::Bmi2,
        F::CLFLUSHOPT => Feature::Clflushopt,
        F::CLWB => Feature::Clwb,
        F::GFNI => Feature::Gfni,
        F::LZCNT => Feature::Lzcnt,
        F::PCLMULQDQ => Feature::Pclmulqdq,
        F::PKU => Feature::Pku,
        F::RDPID => Feature::Rdpid,
        F::RDSEED => Feature::Rdseed,
        F::SERIALIZE => Feature::Serialize,
        F::SHA => Feature::Sha,
        F::WBNOINVD => Feature::Wbnoinvd,
        F::FPU | F::FPU287 | F::FPU387 => Feature::Fpu,
        F::X64 => Feature::Lm,
        F::CMOV => Feature::Cmov,
        F::CX8 => Feature::Cx8,
        F::CMPXCHG16B => Feature::Cx16,
        F::CLFSH => Feature::Clflush,
        F::FSGSBASE => Feature::Fsgsbase,
        F::FXSR => Feature::Fxsr,
        F::INVPCID => Feature::Invpcid,
        F::MMX => Feature::Mmx,
        F::MOVBE => Feature::Movbe,
        F::MSR => Feature::Msr,
        F::POPCNT => Feature::Popcnt,
        F::RDRAND => Feature::Rdrand,
        F::RDTSCP => Feature::Rdtscp,
        F::SEP => Feature::Sep,
        F::SMAP => Feature::Smap,
        F::SSE => Feature::Sse,
        F::SSE2 => Feature::Sse2,
        F::SSE3 => Feature::Sse3,
        F::SSSE3 => Feature::Ssse3,
        F::SSE4_1 => Feature::Sse41,
        F::SSE4_2 => Feature::Sse42,
        F::SYSCALL => Feature::Syscall,
        F::TSC => Feature::Tsc,
        F::RDPMC => Feature::Mmx,
        F::D3NOW => Feature::ThreeDNow,
        F::D3NOWEXT => Feature::ThreeDNowExt,
        // They began as 3DNow!'s.
        F::PREFETCHW if model.has(Feature::ThreeDNow) => return true,
        // PREFETCH(W) are NOPs on every 64-bit Intel processor, whatever CPUID says.
        F::PREFETCHW | F::PREFETCHWT1 => Feature::Lm,
        F::XSAVE => Feature::Xsave,
        F::XSAVEOPT => Feature::Xsaveopt,
        F::XSAVEC => Feature::Xsavec,
        F::XSAVES => Feature::Xsaves,
        F::AVX => Feature::Avx,
        F::AVX2 => Feature::Avx2,
        F::F16C => Feature::F16c,
        F::FMA => Feature::Fma,
        F::VAES => Feature::Vaes,
        F::VPCLMULQDQ => Feature::Vpclmulqdq,
        _ => return false,
    };
    model.has(needed)
}
