//! The CPUID leaves, computed from a model's features (SDM vol. 2, CPUID).

use super::{CRYSTAL_HZ, CpuModel, Feature, Word};
use crate::semantics::sse::xsave;
use crate::vcpu::cr4;

/// CLFLUSH line, in units of 8 bytes.
const CLFLUSH_LINE: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;
const HYPERVISOR: u32 = 0x4000_0000;

/// What CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Registers {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// Four characters of a vendor or brand string from offset `at`.
fn text(s: &str, at: usize) -> u32 {
    let mut bytes = [0; 4];
    for (slot, b) in bytes.iter_mut().zip(s.bytes().skip(at)) {
        *slot = b;
    }
    u32::from_le_bytes(bytes)
}

/// The fraction `a / b`, or the nearest of its convergents whose numerator Linux can multiply with
/// the crystal's kHz in 32 bits (`native_calibrate_tsc`).
fn ratio(mut a: u32, mut b: u32) -> [u32; 2] {
    const MOST: u32 = u32::MAX / (CRYSTAL_HZ / 1000);
    let (mut last, mut best) = ([0, 1], [1, 0]);
    while b != 0 {
        let term = a / b;
        (a, b) = (b, a % b);
        let step = |n: usize| term.checked_mul(best[n])?.checked_add(last[n]);
        match (step(0), step(1)) {
            (Some(numerator), Some(denominator)) if numerator <= MOST => {
                (last, best) = (best, [numerator, denominator]);
            }
            _ => break,
        }
    }
    best
}

impl CpuModel {
    /// The contents of a leaf while CR4 is `cr4` and XCR0 `xcr0`: some bits tell what they enable.
    pub fn leaf(&self, leaf: u32, subleaf: u32, cr4: u64, xcr0: u64) -> Registers {
        if leaf == HYPERVISOR && self.has(Feature::Hypervisor) {
            let name = "BrolgaBrolga";
            return Registers {
                eax: HYPERVISOR,
                ebx: text(name, 0),
                ecx: text(name, 4),
                edx: text(name, 8),
            };
        }
        if (EXTENDED..=self.max_extended).contains(&leaf) {
            return self.extended(leaf);
        }
        // Beyond the highest leaf, Intel processors return that of the highest basic one.
        self.basic(leaf.min(self.max_leaf), subleaf, cr4, xcr0)
    }

    fn basic(&self, leaf: u32, subleaf: u32, cr4: u64, xcr0: u64) -> Registers {
        let none = Registers::default();
        match leaf {
            0 => Registers { eax: self.max_leaf, ..self.vendor_name() },
            1 => {
                let line = if self.has(Feature::Clflush) { CLFLUSH_LINE << 8 } else { 0 };
                let osxsave = u32::from(cr4 & cr4::OSXSAVE != 0) << 27;
                Registers {
                    eax: self.signature(),
                    ebx: 1 << 16 | line,
                    ecx: self.word(Word::Leaf1Ecx) | osxsave,
                    edx: self.word(Word::Leaf1Edx),
                }
            }
            // Descriptors (SDM vol. 2, table 3-12): data TLB 5Ah and 03h, instruction TLB 76h and
            // B2h, shared TLB CAh, and FFh, "see leaf 4 for the caches".
            2 if self.max_leaf >= 4 => {
                Registers { eax: 0x7603_5a01, ebx: 0x0000_b2ff, edx: 0x00ca_0000, ..none }
            }
            // Instruction TLB 51h, data TLB 03h; 32 KiB of L1 2Ch and 30h, 2 MiB of L2 7Dh.
            2 => Registers { eax: 0x0300_5101, edx: 0x007d_302c, ..none },
            4 => cache(subleaf),
            6 => Registers { eax: self.word(Word::Leaf6Eax), ..none },
            7 if subleaf == 0 => Registers {
                ebx: self.word(Word::Leaf7Ebx),
                ecx: self.word(Word::Leaf7Ecx) | u32::from(cr4 & cr4::PKE != 0) << 4,
                edx: self.word(Word::Leaf7Edx),
                ..none
            },
            0xb => topology(subleaf),
            0xd if self.has(Feature::Xsave) => self.extended_state(subleaf, xcr0),
            // TSC = crystal * EBX / EAX.
            0x15 => {
                let [ebx, eax] = ratio(self.tsc_khz, CRYSTAL_HZ / 1000);
                Registers { eax, ebx, ecx: CRYSTAL_HZ, edx: 0 }
            }
            0x16 => {
                let mhz = self.tsc_khz / 1000;
                Registers { eax: mhz, ebx: mhz, ecx: 100, edx: 0 }
            }
            _ => none,
        }
    }

    /// Leaf 0Dh: state components, and the areas that hold them.
    fn extended_state(&self, subleaf: u32, xcr0: u64) -> Registers {
        let all = self.state_components();
        let len = |components, compacted| xsave::area_len(components, compacted) as u32;
        match subleaf {
            0 => Registers { eax: all as u32, ebx: len(xcr0, false), ecx: len(all, false), edx: 0 },
            1 => {
                let compacted = self.has(Feature::Xsavec) || self.has(Feature::Xsaves);
                let ebx = if compacted { len(xcr0, true) } else { 0 };
                Registers { eax: self.word(Word::LeafDEax), ebx, ..Registers::default() }
            }
            _ => {
                let known = |c: &&xsave::Component| all & c.bit != 0 && 1 << subleaf == c.bit;
                let component = xsave::COMPONENTS.iter().find(|c| subleaf < 64 && known(c));
                component.map_or(Registers::default(), |c| Registers {
                    eax: c.len as u32,
                    ebx: c.standard as u32,
                    ..Registers::default()
                })
            }
        }
    }

    fn vendor_name(&self) -> Registers {
        let [ebx, edx, ecx] = [0, 4, 8].map(|at| text(self.vendor, at));
        Registers { eax: 0, ebx, ecx, edx }
    }

    /// EDX of leaf 8000_0001h. AMD processors repeat features of leaf 1 there (APM vol. 3, E.4.2).
    fn extended_features(&self) -> u32 {
        const REPEATED: u32 = 0x0183_f3ff;
        let repeated = if self.is_amd() { self.word(Word::Leaf1Edx) & REPEATED } else { 0 };
        self.word(Word::Ext1Edx) | repeated
    }

    fn extended(&self, leaf: u32) -> Registers {
        let none = Registers::default();
        match leaf - EXTENDED {
            0 if self.is_amd() => Registers { eax: self.max_extended, ..self.vendor_name() },
            0 => Registers { eax: self.max_extended, ..none },
            1 => Registers { ecx: self.word(Word::Ext1Ecx), edx: self.extended_features(), ..none },
            n @ 2..=4 => {
                let at = (n as usize - 2) * 16;
                Registers {
                    eax: text(self.brand, at),
                    ebx: text(self.brand, at + 4),
                    ecx: text(self.brand, at + 8),
                    edx: text(self.brand, at + 12),
                }
            }
            // L2: 256 KiB, 8 ways, 64-byte lines.
            6 => Registers { ecx: 256 << 16 | 6 << 12 | 64, ..none },
            7 => Registers { edx: self.word(Word::Ext7Edx), ..none },
            8 => {
                let linear = match (self.has(Feature::La57), self.has(Feature::Lm)) {
                    (true, _) => 57,
                    (false, true) => 48,
                    (false, false) => 32,
                };
                Registers {
                    eax: linear << 8 | u32::from(self.phys_bits),
                    ebx: self.word(Word::Ext8Ebx),
                    ..none
                }
            }
            _ => none,
        }
    }
}

/// Leaf 4: deterministic cache parameters of one core's caches.
fn cache(subleaf: u32) -> Registers {
    const LINE: u32 = 64;
    // Type (1 data, 2 instruction, 3 unified), level, ways, KiB.
    let (kind, level, ways, kib): (u32, u32, u32, u32) = match subleaf {
        0 => (1, 1, 8, 32),
        1 => (2, 1, 8, 32),
        2 => (3, 2, 8, 256),
        3 => (3, 3, 16, 4096),
        _ => return Registers::default(),
    };
    let sets = kib * 1024 / (LINE * ways);
    Registers {
        eax: kind | level << 5 | 1 << 8,
        ebx: (ways - 1) << 22 | (LINE - 1),
        ecx: sets - 1,
        edx: 0,
    }
}

/// Leaf 0Bh: one thread, one core.
fn topology(subleaf: u32) -> Registers {
    match subleaf {
        0 => Registers { eax: 0, ebx: 1, ecx: 1 << 8, edx: 0 },
        1 => Registers { eax: 0, ebx: 1, ecx: 2 << 8 | 1, edx: 0 },
        n => Registers { eax: 0, ebx: 0, ecx: n & 0xff, edx: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::ratio;

    #[test]
    fn ratios_are_near_and_small() {
        assert_eq!(ratio(1_000_000, 1_000_000), [1, 1]);
        assert_eq!(ratio(2_600_000, 1_000_000), [13, 5]);
        for khz in [800_000, 1_999_999, 2_593_907, 3_407_998, 4_294_967] {
            let [n, d] = ratio(khz, 1_000_000);
            assert!(n < 4295 && d > 0, "{khz}: {n}/{d}");
            let shown = 1e6 * f64::from(n) / f64::from(d);
            let error = (shown - f64::from(khz)).abs() / f64::from(khz);
            assert!(error < 1e-6, "{khz}: {n}/{d} is {shown}");
        }
    }
}
