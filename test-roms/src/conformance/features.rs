//! The features that checks need, as CPUID shows them.

/// A register that CPUID writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A bit of CPUID (SDM vol. 2, CPUID).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Where it is: leaf and subleaf,
    pub leaf: (u32, u32),
    /// register,
    pub register: Register,
    /// and bit.
    pub bit: u32,
}

macro_rules! features {
    ($($name:ident = $leaf:literal $subleaf:literal $register:ident $bit:literal;)*) => {
        $(pub(super) const $name: Feature = Feature {
            name: stringify!($name),
            leaf: ($leaf, $subleaf),
            register: Register::$register,
            bit: $bit,
        };)*
    };
}

features! {
    SSE3 = 1 0 Ecx 0;
    PCLMULQDQ = 1 0 Ecx 1;
    SSSE3 = 1 0 Ecx 9;
    FMA = 1 0 Ecx 12;
    CMPXCHG16B = 1 0 Ecx 13;
    PCID = 1 0 Ecx 17;
    SSE4_1 = 1 0 Ecx 19;
    SSE4_2 = 1 0 Ecx 20;
    X2APIC = 1 0 Ecx 21;
    MOVBE = 1 0 Ecx 22;
    POPCNT = 1 0 Ecx 23;
    TSC_DEADLINE = 1 0 Ecx 24;
    AESNI = 1 0 Ecx 25;
    XSAVE = 1 0 Ecx 26;
    AVX = 1 0 Ecx 28;
    F16C = 1 0 Ecx 29;
    RDRAND = 1 0 Ecx 30;
    HYPERVISOR = 1 0 Ecx 31;
    FPU = 1 0 Edx 0;
    VME = 1 0 Edx 1;
    DE = 1 0 Edx 2;
    PSE = 1 0 Edx 3;
    TSC = 1 0 Edx 4;
    MSR = 1 0 Edx 5;
    PAE = 1 0 Edx 6;
    MCE = 1 0 Edx 7;
    CMPXCHG8B = 1 0 Edx 8;
    APIC = 1 0 Edx 9;
    SYSENTER = 1 0 Edx 11;
    MTRR = 1 0 Edx 12;
    PGE = 1 0 Edx 13;
    MCA = 1 0 Edx 14;
    CMOV = 1 0 Edx 15;
    PAT = 1 0 Edx 16;
    PSE36 = 1 0 Edx 17;
    CLFLUSH = 1 0 Edx 19;
    MMX = 1 0 Edx 23;
    FXSR = 1 0 Edx 24;
    SSE = 1 0 Edx 25;
    SSE2 = 1 0 Edx 26;
    ARAT = 6 0 Eax 2;
    FSGSBASE = 7 0 Ebx 0;
    TSC_ADJUST = 7 0 Ebx 1;
    BMI1 = 7 0 Ebx 3;
    AVX2 = 7 0 Ebx 5;
    SMEP = 7 0 Ebx 7;
    BMI2 = 7 0 Ebx 8;
    ERMS = 7 0 Ebx 9;
    INVPCID = 7 0 Ebx 10;
    RDSEED = 7 0 Ebx 18;
    ADX = 7 0 Ebx 19;
    SMAP = 7 0 Ebx 20;
    CLFLUSHOPT = 7 0 Ebx 23;
    CLWB = 7 0 Ebx 24;
    SHA = 7 0 Ebx 29;
    UMIP = 7 0 Ecx 2;
    PKU = 7 0 Ecx 3;
    GFNI = 7 0 Ecx 8;
    VAES = 7 0 Ecx 9;
    VPCLMULQDQ = 7 0 Ecx 10;
    LA57 = 7 0 Ecx 16;
    RDPID = 7 0 Ecx 22;
    SERIALIZE = 7 0 Edx 14;
    IBRS = 7 0 Edx 26;
    ARCH_CAPABILITIES = 7 0 Edx 29;
    XSAVEOPT = 0xd 1 Eax 0;
    XSAVEC = 0xd 1 Eax 1;
    XGETBV_1 = 0xd 1 Eax 2;
    XSAVES = 0xd 1 Eax 3;
    LAHF64 = 0x8000_0001 0 Ecx 0;
    LZCNT = 0x8000_0001 0 Ecx 5;
    PREFETCHW = 0x8000_0001 0 Ecx 8;
    SYSCALL = 0x8000_0001 0 Edx 11;
    NX = 0x8000_0001 0 Edx 20;
    GIB_PAGES = 0x8000_0001 0 Edx 26;
    RDTSCP = 0x8000_0001 0 Edx 27;
    LONG_MODE = 0x8000_0001 0 Edx 29;
    INVARIANT_TSC = 0x8000_0007 0 Edx 8;
    WBNOINVD = 0x8000_0008 0 Ebx 9;
}
