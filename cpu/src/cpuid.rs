//! Processor models: what CPUID reports, and which instructions exist. A feature is listed only if
//! the emulator implements it.

mod leaves;
mod models;

use brolga_mmu::Width;

use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::insn::Insn;
use crate::vcpu::{gpr, xcr0};

/// The frequency of the time-stamp counter where nothing else is said, in kHz: the crystal's.
pub const TSC_KHZ: u32 = CRYSTAL_HZ / 1000;

/// The frequency of the crystal (CPUID leaf 15h), which the local APIC's timer counts, in Hz. KVM's
/// own local APICs have the same one.
pub const CRYSTAL_HZ: u32 = 1_000_000_000;

/// A place in the CPUID leaves where a feature has its bit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Leaf1Ecx,
    Leaf1Edx,
    Leaf6Eax,
    Leaf7Ebx,
    Leaf7Ecx,
    Leaf7Edx,
    /// Subleaf 1.
    LeafDEax,
    Ext1Ecx,
    Ext1Edx,
    Ext7Edx,
    Ext8Ebx,
}

/// A feature's bit in CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureBit {
    /// The leaf.
    pub leaf: u32,
    /// The subleaf, 0 in leaves that have none.
    pub subleaf: u32,
    /// The register: 0 to 3 for EAX, EBX, ECX, EDX.
    pub register: usize,
    /// The bit's number.
    pub bit: u32,
}

impl From<(Word, u32)> for FeatureBit {
    fn from((word, bit): (Word, u32)) -> Self {
        let (leaf, subleaf, register) = match word {
            Word::Leaf1Ecx => (1, 0, 2),
            Word::Leaf1Edx => (1, 0, 3),
            Word::Leaf6Eax => (6, 0, 0),
            Word::Leaf7Ebx => (7, 0, 1),
            Word::Leaf7Ecx => (7, 0, 2),
            Word::Leaf7Edx => (7, 0, 3),
            Word::LeafDEax => (0xd, 1, 0),
            Word::Ext1Ecx => (0x8000_0001, 0, 2),
            Word::Ext1Edx => (0x8000_0001, 0, 3),
            Word::Ext7Edx => (0x8000_0007, 0, 3),
            Word::Ext8Ebx => (0x8000_0008, 0, 1),
        };
        FeatureBit { leaf, subleaf, register, bit }
    }
}

macro_rules! features {
    ($($name:ident = $word:ident $bit:literal;)*) => {
        /// A feature that a model has or lacks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Feature {
            $($name,)*
        }

        impl Feature {
            const ALL: &[Feature] = &[$(Feature::$name,)*];

            /// Where CPUID shows it.
            const fn place(self) -> (Word, u32) {
                match self {
                    $(Feature::$name => (Word::$word, $bit),)*
                }
            }
        }
    };
}

features! {
    Sse3 = Leaf1Ecx 0;
    Pclmulqdq = Leaf1Ecx 1;
    Fma = Leaf1Ecx 12;
    Ssse3 = Leaf1Ecx 9;
    Cx16 = Leaf1Ecx 13;
    Pcid = Leaf1Ecx 17;
    Sse41 = Leaf1Ecx 19;
    Sse42 = Leaf1Ecx 20;
    X2apic = Leaf1Ecx 21;
    Movbe = Leaf1Ecx 22;
    Popcnt = Leaf1Ecx 23;
    TscDeadline = Leaf1Ecx 24;
    Aesni = Leaf1Ecx 25;
    Xsave = Leaf1Ecx 26;
    Avx = Leaf1Ecx 28;
    F16c = Leaf1Ecx 29;
    Rdrand = Leaf1Ecx 30;
    Hypervisor = Leaf1Ecx 31;
    Fpu = Leaf1Edx 0;
    Vme = Leaf1Edx 1;
    De = Leaf1Edx 2;
    Pse = Leaf1Edx 3;
    Tsc = Leaf1Edx 4;
    Msr = Leaf1Edx 5;
    Pae = Leaf1Edx 6;
    Mce = Leaf1Edx 7;
    Cx8 = Leaf1Edx 8;
    Apic = Leaf1Edx 9;
    Sep = Leaf1Edx 11;
    Mtrr = Leaf1Edx 12;
    Pge = Leaf1Edx 13;
    Mca = Leaf1Edx 14;
    Cmov = Leaf1Edx 15;
    Pat = Leaf1Edx 16;
    Pse36 = Leaf1Edx 17;
    Clflush = Leaf1Edx 19;
    Mmx = Leaf1Edx 23;
    Fxsr = Leaf1Edx 24;
    Sse = Leaf1Edx 25;
    Sse2 = Leaf1Edx 26;
    Arat = Leaf6Eax 2;
    Fsgsbase = Leaf7Ebx 0;
    TscAdjust = Leaf7Ebx 1;
    Bmi1 = Leaf7Ebx 3;
    Avx2 = Leaf7Ebx 5;
    Smep = Leaf7Ebx 7;
    Bmi2 = Leaf7Ebx 8;
    Erms = Leaf7Ebx 9;
    Invpcid = Leaf7Ebx 10;
    Rdseed = Leaf7Ebx 18;
    Adx = Leaf7Ebx 19;
    Smap = Leaf7Ebx 20;
    Clflushopt = Leaf7Ebx 23;
    Clwb = Leaf7Ebx 24;
    Sha = Leaf7Ebx 29;
    Umip = Leaf7Ecx 2;
    Pku = Leaf7Ecx 3;
    Gfni = Leaf7Ecx 8;
    La57 = Leaf7Ecx 16;
    Rdpid = Leaf7Ecx 22;
    Serialize = Leaf7Edx 14;
    Vaes = Leaf7Ecx 9;
    Vpclmulqdq = Leaf7Ecx 10;
    SpecCtrl = Leaf7Edx 26;
    ArchCapabilities = Leaf7Edx 29;
    Xsaveopt = LeafDEax 0;
    Xsavec = LeafDEax 1;
    Xgetbv1 = LeafDEax 2;
    Xsaves = LeafDEax 3;
    LahfLm = Ext1Ecx 0;
    Lzcnt = Ext1Ecx 5;
    Prefetchw = Ext1Ecx 8;
    Syscall = Ext1Edx 11;
    Mmxext = Ext1Edx 22;
    ThreeDNowExt = Ext1Edx 30;
    ThreeDNow = Ext1Edx 31;
    Nx = Ext1Edx 20;
    Pdpe1gb = Ext1Edx 26;
    Rdtscp = Ext1Edx 27;
    Lm = Ext1Edx 29;
    InvariantTsc = Ext7Edx 8;
    Wbnoinvd = Ext8Ebx 9;
}

impl Feature {
    const fn mask(self) -> u128 {
        1 << self as u32
    }
}

/// A processor as `--cpu` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuModel {
    name: &'static str,
    vendor: &'static str,
    brand: &'static str,
    family: u32,
    model: u32,
    stepping: u32,
    phys_bits: u8,
    features: u128,
    /// The frequency of the time-stamp counter.
    tsc_khz: u32,
    /// Highest basic leaf.
    max_leaf: u32,
    /// Highest extended leaf; 0 if there are none.
    max_extended: u32,
}

impl CpuModel {
    /// The model that `name` means.
    pub fn by_name(name: &str) -> Option<CpuModel> {
        models::all().into_iter().find(|m| m.name == name)
    }

    /// All names that [`CpuModel::by_name`] knows.
    pub fn names() -> Vec<&'static str> {
        models::all().into_iter().map(|m| m.name).collect()
    }

    /// The name of this model.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the model has `feature`.
    #[inline]
    pub fn has(&self, feature: Feature) -> bool {
        self.features & feature.mask() != 0
    }

    /// Whether the vendor is AMD, where AMD and Intel disagree.
    pub fn is_amd(&self) -> bool {
        self.vendor == "AuthenticAMD"
    }

    /// This model as AMD's.
    #[cfg(test)]
    pub(crate) fn by_amd(self) -> CpuModel {
        CpuModel { vendor: "AuthenticAMD", ..self }
    }

    /// The family, as CPUID.1:EAX encodes it.
    pub fn family(&self) -> u32 {
        self.family
    }

    /// Width of physical addresses (MAXPHYADDR).
    pub fn phys_bits(&self) -> u8 {
        self.phys_bits
    }

    /// The frequency of the time-stamp counter, in kHz.
    pub fn tsc_khz(&self) -> u32 {
        self.tsc_khz
    }

    /// This model with another frequency, up to 4.29 GHz, of its time-stamp counter.
    pub fn with_tsc_khz(self, tsc_khz: u32) -> CpuModel {
        CpuModel { tsc_khz: tsc_khz.min(u32::MAX / 1000), ..self }
    }

    /// This model with those of its features that `keeps` wants, and what it has lost.
    pub fn restricted(
        self,
        keeps: impl Fn(Feature, FeatureBit) -> bool,
    ) -> (CpuModel, Vec<Feature>) {
        let all = Feature::ALL.iter().copied();
        let lost: Vec<Feature> =
            all.filter(|&f| self.has(f) && !keeps(f, f.place().into())).collect();
        let features = lost.iter().fold(self.features, |left, f| left & !f.mask());
        (CpuModel { features, ..self }, lost)
    }

    /// The highest basic leaf, and the highest extended one; 0 if there are none.
    pub fn last_leaves(&self) -> [u32; 2] {
        [self.max_leaf, self.max_extended]
    }

    /// The state components that XCR0 can enable, as its bits.
    pub fn state_components(&self) -> u64 {
        let needs = [(Feature::Avx, xcr0::AVX), (Feature::Pku, xcr0::PKRU)];
        let optional = needs.iter().filter(|(feature, _)| self.has(*feature));
        optional.fold(xcr0::X87 | xcr0::SSE, |all, (_, bit)| all | bit)
    }

    /// Family, model and stepping as CPUID.1:EAX and EDX after reset show them.
    pub fn signature(&self) -> u32 {
        let (family, extended) = (self.family.min(15), self.family.saturating_sub(15));
        extended << 20
            | self.model >> 4 << 16
            | family << 8
            | (self.model & 15) << 4
            | self.stepping
    }

    /// The bits of the features that show in `word`.
    fn word(&self, word: Word) -> u32 {
        Feature::ALL
            .iter()
            .filter(|f| self.has(**f))
            .map(|f| f.place())
            .filter(|(w, _)| *w == word)
            .fold(0, |bits, (_, bit)| bits | 1 << bit)
    }
}

impl Default for CpuModel {
    /// `max`: everything that is implemented.
    fn default() -> CpuModel {
        models::max()
    }
}

/// CPUID.
pub fn cpuid(core: &mut Core, _: &Insn) -> Result<(), Exit> {
    let leaf = core.reg(Width::W32, gpr::RAX) as u32;
    let subleaf = core.reg(Width::W32, gpr::RCX) as u32;
    let sys = &core.vcpu.sys;
    let r = core.model.leaf(leaf, subleaf, sys.cr4, sys.xcr0);
    tracing::trace!(target: "cpuid", leaf, subleaf, ?r);
    for (reg, v) in [(gpr::RAX, r.eax), (gpr::RBX, r.ebx), (gpr::RCX, r.ecx), (gpr::RDX, r.edx)] {
        core.set_reg(Width::W32, reg, v.into());
    }
    Ok(())
}
