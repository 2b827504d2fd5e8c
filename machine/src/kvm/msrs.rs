//! Model-specific registers: those that the processor works with are KVM's while it runs, all
//! others are ours, and KVM hands us the accesses.

use brolga_cpu::cpuid::{CpuModel, Feature};
use brolga_cpu::vcpu::SystemRegs;

/// IA32_TIME_STAMP_COUNTER.
pub(super) const TSC: u32 = 0x10;
/// IA32_TSC_ADJUST.
pub(super) const TSC_ADJUST: u32 = 0x3b;
/// IA32_TSC_DEADLINE.
pub(super) const TSC_DEADLINE: u32 = 0x6e0;
/// IA32_APIC_BASE.
pub(super) const APIC_BASE: u32 = 0x1b;
const EFER: u32 = 0xc000_0080;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;

/// A register that moves between KVM and the vCPU by its number.
pub(super) struct Moved {
    pub(super) index: u32,
    pub(super) feature: Feature,
    pub(super) field: fn(&mut SystemRegs) -> &mut u64,
}

/// All of them (SDM vol. 4).
const MOVED: [Moved; 9] = [
    Moved { index: 0x174, feature: Feature::Sep, field: |s| &mut s.sysenter_cs },
    Moved { index: 0x175, feature: Feature::Sep, field: |s| &mut s.sysenter_esp },
    Moved { index: 0x176, feature: Feature::Sep, field: |s| &mut s.sysenter_eip },
    Moved { index: 0xc000_0081, feature: Feature::Syscall, field: |s| &mut s.star },
    Moved { index: 0xc000_0082, feature: Feature::Lm, field: |s| &mut s.lstar },
    Moved { index: 0xc000_0083, feature: Feature::Lm, field: |s| &mut s.cstar },
    Moved { index: 0xc000_0084, feature: Feature::Syscall, field: |s| &mut s.sfmask },
    Moved { index: 0xc000_0102, feature: Feature::Lm, field: |s| &mut s.kernel_gs_base },
    Moved { index: 0xc000_0103, feature: Feature::Rdtscp, field: |s| &mut s.tsc_aux },
];

/// Those that `model` has.
pub(super) fn moved(model: &CpuModel) -> impl Iterator<Item = &'static Moved> {
    MOVED.iter().filter(|register| model.has(register.feature))
}

/// Ranges of register numbers, and a bit for each of them that the guest may access without us:
/// what `model` has of [`MOVED`], as they are other state's shadows, EFER and the two bases, and
/// those of the local APIC if it is KVM's (the x2APIC's never come to us then).
pub(super) fn direct(model: &CpuModel, has_apic: bool) -> [(u32, [u8; 0x40]); 3] {
    let mut ranges = [(0, [0; 0x40]), (TSC_DEADLINE & !0x1ff, [0; 0x40]), (0xc000_0000, [0; 0x40])];
    let shadows = [(EFER, Feature::Syscall), (FS_BASE, Feature::Lm), (GS_BASE, Feature::Lm)];
    let apic = [(APIC_BASE, Feature::Apic), (TSC_DEADLINE, Feature::TscDeadline)];
    let apic = apic.into_iter().filter(|_| has_apic);
    let others = shadows.into_iter().chain(apic).filter(|(_, feature)| model.has(*feature));
    let indices = moved(model).map(|register| register.index).chain(others.map(|(n, _)| n));
    for index in indices {
        for (base, bits) in &mut ranges {
            if let Some(offset) = index.checked_sub(*base)
                && let Some(byte) = bits.get_mut(offset as usize / 8)
            {
                *byte |= 1 << (offset % 8);
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(model: &CpuModel, has_apic: bool) -> Vec<u32> {
        let ranges = direct(model, has_apic);
        let bits = ranges.iter().flat_map(|(base, bits)| {
            (0..512_u32).map(move |n| (base + n, bits[n as usize / 8] >> (n % 8) & 1))
        });
        bits.filter_map(|(index, bit)| (bit != 0).then_some(index)).collect()
    }

    #[test]
    fn a_local_apic_of_kvms_has_its_registers() {
        let model = CpuModel::default();
        let [ours, theirs] = [false, true].map(|has_apic| reached(&model, has_apic));
        let more: Vec<u32> = theirs.into_iter().filter(|index| !ours.contains(index)).collect();
        assert_eq!(more, [APIC_BASE, TSC_DEADLINE]);
    }

    #[test]
    fn the_guest_reaches_what_its_processor_works_with_and_nothing_else() {
        let model = CpuModel::by_name("x86-64").expect("a model");
        assert_eq!(
            reached(&model, false),
            [
                0x174,
                0x175,
                0x176,
                0xc000_0080,
                0xc000_0081,
                0xc000_0082,
                0xc000_0083,
                0xc000_0084,
                0xc000_0100,
                0xc000_0101,
                0xc000_0102
            ],
            "TSC_AUX takes RDTSCP, which this model lacks"
        );
    }
}
