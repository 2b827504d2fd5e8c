//! The guest's CPUID: our model's, as far as this host's KVM supports it.

use brolga_cpu::cpuid::{CpuModel, Feature};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;

use super::sys::failed;
use crate::accel::KvmError;

/// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`: the entry is for one subleaf.
const INDEXED: u32 = 1;
/// The leaf of the hypervisor's name.
const HYPERVISOR: u32 = 0x4000_0000;
/// The highest number of subleaves that a leaf of ours has.
const SUBLEAVES: u32 = 64;

/// What machine and user space do themselves, whatever KVM says.
const OURS: [Feature; 10] = [
    Feature::Hypervisor,
    Feature::Apic,
    Feature::X2apic,
    Feature::TscDeadline,
    Feature::TscAdjust,
    Feature::Arat,
    Feature::Mtrr,
    Feature::Pat,
    Feature::Mce,
    Feature::Mca,
];

/// What is never shown: the place of PKRU in XSAVE's area is the host processor's, not the model's;
/// the others promise things about speculation that only the interpreter keeps.
const NEVER: [Feature; 3] = [Feature::Pku, Feature::SpecCtrl, Feature::ArchCapabilities];

/// `model` without what KVM does not support, which may include paging of five levels although KVM
/// says otherwise ([`Probe::takes_five_levels`](super::sys::Probe::takes_five_levels)), and what that
/// is.
pub(super) fn restrict(
    kvm: &Kvm,
    model: CpuModel,
    five_levels: bool,
) -> Result<(CpuModel, Vec<Feature>), KvmError> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(failed("KVM_GET_SUPPORTED_CPUID"))?;
    let has = |leaf: u32, subleaf: u32, register: usize, bit: u32| {
        let entry = supported.as_slice().iter().find(|entry| {
            entry.function == leaf && (entry.flags & INDEXED == 0 || entry.index == subleaf)
        });
        entry.is_some_and(|e| [e.eax, e.ebx, e.ecx, e.edx][register] >> bit & 1 != 0)
    };
    let has_xsave = has(1, 0, 2, 26);
    Ok(model.restricted(|feature, place| {
        if NEVER.contains(&feature) || feature == Feature::La57 && !five_levels {
            return false;
        }
        // KVM lists the parts of what it does not support as a whole.
        let part_of_xsave = place.leaf == 0xd || feature == Feature::Avx;
        let ours = OURS.contains(&feature);
        ours || has(place.leaf, place.subleaf, place.register, place.bit)
            && (has_xsave || !part_of_xsave)
    }))
}

/// The model's leaves as KVM takes them. The bits that follow CR4 and XCR0 are KVM's to set.
pub(super) fn entries(model: &CpuModel) -> Result<CpuId, KvmError> {
    let [basic, extended] = model.last_leaves();
    let extended = (extended != 0).then_some(0x8000_0000..=extended);
    let mut entries = Vec::new();
    for leaf in (0..=basic).chain([HYPERVISOR]).chain(extended.into_iter().flatten()) {
        let indexed = matches!(leaf, 4 | 7 | 0xb | 0xd);
        let flags = if indexed { INDEXED } else { 0 };
        for subleaf in 0..if indexed { SUBLEAVES } else { 1 } {
            let r = model.leaf(leaf, subleaf, 0, model.state_components());
            if subleaf > 1 && (r.eax, r.ebx) == (0, 0) {
                continue;
            }
            entries.push(kvm_cpuid_entry2 {
                function: leaf,
                index: subleaf,
                flags,
                eax: r.eax,
                ebx: r.ebx,
                ecx: r.ecx,
                edx: r.edx,
                padding: [0; 3],
            });
        }
    }
    CpuId::from_entries(&entries).map_err(|_| KvmError::Setup {
        what: "CPUID entries",
        error: std::io::Error::other("too many"),
    })
}
