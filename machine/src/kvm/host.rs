//! Whether this host's KVM can be used.

use std::ffi::CString;
use std::path::Path;
use std::sync::{Arc, Mutex};

use brolga_cpu::core::Core;
use brolga_cpu::cpuid::{CpuModel, Feature, TSC_KHZ};
use kvm_bindings as kvm;
use kvm_ioctls::{Cap, Kvm};

use super::sys::{Probe, host};
use super::{Engine, Stepping, cpuid, syscall};
use crate::accel::{KvmError, Make};
use crate::board::Chipset;

/// Where Linux has KVM.
const DEVICE: &str = "/dev/kvm";

/// KVM's only version since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// What is needed of KVM. The latest of them came with Linux 5.14.
const NEEDED: [(&str, u32); 12] = [
    ("KVM_CAP_READONLY_MEM", kvm::KVM_CAP_READONLY_MEM),
    ("KVM_CAP_IMMEDIATE_EXIT", kvm::KVM_CAP_IMMEDIATE_EXIT),
    ("KVM_CAP_XSAVE", kvm::KVM_CAP_XSAVE),
    ("KVM_CAP_XCRS", kvm::KVM_CAP_XCRS),
    ("KVM_CAP_VCPU_EVENTS", kvm::KVM_CAP_VCPU_EVENTS),
    ("KVM_CAP_DEBUGREGS", kvm::KVM_CAP_DEBUGREGS),
    ("KVM_CAP_GET_TSC_KHZ", kvm::KVM_CAP_GET_TSC_KHZ),
    ("KVM_CAP_X86_USER_SPACE_MSR", kvm::KVM_CAP_X86_USER_SPACE_MSR),
    ("KVM_CAP_X86_MSR_FILTER", kvm::KVM_CAP_X86_MSR_FILTER),
    ("KVM_CAP_EXCEPTION_PAYLOAD", kvm::KVM_CAP_EXCEPTION_PAYLOAD),
    ("KVM_CAP_SREGS2", kvm::KVM_CAP_SREGS2),
    ("KVM_CAP_EXIT_ON_EMULATION_FAILURE", kvm::KVM_CAP_EXIT_ON_EMULATION_FAILURE),
];

/// What is needed beside for a local APIC of KVM's. All of it came with Linux 4.5.
const NEEDED_FOR_APIC: [(&str, u32); 4] = [
    ("KVM_CAP_SPLIT_IRQCHIP", kvm::KVM_CAP_SPLIT_IRQCHIP),
    ("KVM_CAP_SIGNAL_MSI", kvm::KVM_CAP_SIGNAL_MSI),
    ("KVM_CAP_IRQ_ROUTING", kvm::KVM_CAP_IRQ_ROUTING),
    ("KVM_CAP_TSC_DEADLINE_TIMER", kvm::KVM_CAP_TSC_DEADLINE_TIMER),
];

/// This host's KVM.
#[derive(Debug)]
pub struct Host {
    pub(super) kvm: Kvm,
    /// The frequency that a guest's time-stamp counter has, in kHz.
    tsc_khz: u32,
    /// A guest has the host's time-stamp counter whatever it is set to (a KVM that neither offsets
    /// nor intercepts it).
    pub(super) tsc_is_fixed: bool,
    /// A guest can have paging of five levels.
    five_levels: bool,
}

impl Host {
    /// Opens `/dev/kvm` and asks whether it can do what is needed.
    pub fn open() -> Result<Self, KvmError> {
        Self::open_at(Path::new(DEVICE))
    }

    pub(super) fn open_at(path: &Path) -> Result<Self, KvmError> {
        let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default();
        let kvm = Kvm::new_with_path(name)
            .map_err(|error| KvmError::Open { path: path.to_owned(), error: host(error) })?;
        let version = kvm.get_api_version();
        if version != API_VERSION {
            return Err(KvmError::NotKvm { path: path.to_owned(), version });
        }
        check(&NEEDED, |number| kvm.check_extension_raw(number.into()) > 0)?;
        let probe = Probe::new(&kvm)?;
        let scales = kvm.check_extension(Cap::TscControl);
        let tsc_khz = if scales { TSC_KHZ } else { probe.tsc_khz()? };
        let tsc_is_fixed = probe.tsc_is_fixed()?;
        let (model, _) = cpuid::restrict(&kvm, CpuModel::default(), true)?;
        let five_levels = model.has(Feature::La57) && probe.takes_five_levels(&model)?;
        Ok(Self { kvm, tsc_khz, tsc_is_fixed, five_levels })
    }

    /// The time-stamp counter of guests, if it cannot be set.
    pub fn fixed_tsc(&self) -> Result<Option<u64>, KvmError> {
        self.tsc_is_fixed.then(|| Probe::new(&self.kvm)?.tsc()).transpose()
    }

    /// What guests will miss under this KVM that it does not say itself, for people.
    pub fn shortcoming(&self) -> Option<&'static str> {
        (syscall::reaches_level_0(self) == Some(false)).then_some(
            "SYSCALL does not lead to level 0 under this host's KVM, so that programs of 64-bit \
             kernels die there: see docs/kvm.md",
        )
    }

    /// The processor that this KVM can give to a guest that was to have `model`: without the
    /// features that it lacks, and, where the host cannot scale it, with the host's time-stamp
    /// counter. With the features that are missing, by name.
    pub fn adapt(&self, model: CpuModel) -> Result<(CpuModel, Vec<String>), KvmError> {
        let (model, lost) = cpuid::restrict(&self.kvm, model, self.five_levels)?;
        let lost = lost.iter().map(|feature| format!("{feature:?}").to_lowercase()).collect();
        Ok((model.with_tsc_khz(self.tsc_khz), lost))
    }

    /// Everything that can fail, for a vCPU whose guest knows its processor already; what is
    /// returned makes the engine of it, one that goes in single steps if it `steps`. If there are
    /// `chips`, KVM's local APIC takes the place of theirs.
    pub(crate) fn prepare(
        &self,
        core: &Core,
        steps: bool,
        chips: Option<Arc<Mutex<Chipset>>>,
    ) -> Result<Make, KvmError> {
        if chips.is_some() {
            check(&NEEDED_FOR_APIC, |number| self.kvm.check_extension_raw(number.into()) > 0)?;
        }
        let (given, lost) = self.adapt((*core.model).clone())?;
        if given != *core.model {
            let clock = format!("TSC at {} kHz", given.tsc_khz());
            let what = if lost.is_empty() { clock } else { lost.join(", ") };
            return Err(KvmError::OtherProcessor(what));
        }
        let make = Engine::prepare(self, core, chips)?;
        Ok(match steps {
            true => Box::new(|core| Box::new(Stepping::new(make(core)))),
            false => Box::new(|core| Box::new(make(core))),
        })
    }
}

/// Finds out what of `needed` is missing.
fn check(needed: &[(&str, u32)], has: impl Fn(u32) -> bool) -> Result<(), KvmError> {
    let missing: Vec<&str> =
        needed.iter().filter(|(_, number)| !has(*number)).map(|(name, _)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(KvmError::Missing(missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_an_old_kernel_lacks_is_named() {
        let error = check(&NEEDED, |number| number < kvm::KVM_CAP_EXCEPTION_PAYLOAD).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("Linux 5.14"), "{text}");
        assert!(text.contains("KVM_CAP_X86_MSR_FILTER, KVM_CAP_EXCEPTION_PAYLOAD"), "{text}");
        assert!(!text.contains("KVM_CAP_XSAVE"), "{text}");
        assert!(check(&NEEDED, |_| true).is_ok());
    }

    #[test]
    fn a_device_that_is_not_there_or_not_kvm_is_told_of() {
        let nowhere = Host::open_at(Path::new("/nowhere/kvm")).unwrap_err().to_string();
        assert!(nowhere.contains("/nowhere/kvm") && nowhere.contains("No such file"), "{nowhere}");
        let name = format!("brolga-not-kvm-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        File::create(&path).unwrap();
        let other = Host::open_at(&path).unwrap_err().to_string();
        assert!(other.contains("is not KVM"), "{other}");
        std::fs::remove_file(path).unwrap();
    }
}
