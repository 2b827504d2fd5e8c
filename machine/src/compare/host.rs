//! The host that figures were taken on, and what its KVM is made of.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::tsc;

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Host {
    /// The processor's name.
    pub cpu: String,
    /// How many processors there are for us.
    pub processors: usize,
    /// The kernel.
    pub kernel: String,
    /// Whether the host is itself a guest.
    pub virtual_machine: bool,
    /// Cycles of the time-stamp counter in a nanosecond.
    pub tsc_ghz: Option<f64>,
    /// What of hardware virtualization is to be seen.
    pub virtualization: Virtualization,
}

/// What of hardware virtualization is to be seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Virtualization {
    /// The processor's extension: `vmx` or `svm`.
    pub extension: Option<String>,
    /// Whether there is a /dev/kvm.
    pub device: bool,
    /// The module of KVM that does the work: `kvm_intel`, `kvm_amd`, `kvm_pvm`.
    pub module: Option<String>,
}

impl Host {
    /// The one that this runs on. Takes a twentieth of a second.
    pub fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = field(&cpuinfo, "model name").unwrap_or(std::env::consts::ARCH);
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: cpu.to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned(),
            virtual_machine: has_flag(&cpuinfo, "hypervisor"),
            tsc_ghz: tsc::cycles_per_ns(),
            virtualization: Virtualization::here(&cpuinfo),
        }
    }

    /// The host in a line.
    pub fn describe(&self) -> String {
        let what = if self.virtual_machine { ", itself a virtual machine" } else { "" };
        let plural = if self.processors == 1 { "" } else { "s" };
        let tsc = self.tsc_ghz.map_or(String::new(), |ghz| format!(", TSC {ghz:.3} GHz"));
        format!("{} ({} processor{plural}{tsc}), {}{what}", self.cpu, self.processors, self.kernel)
    }
}

impl Virtualization {
    fn here(cpuinfo: &str) -> Self {
        const MODULES: [&str; 3] = ["kvm_pvm", "kvm_intel", "kvm_amd"];
        let is_loaded = |module: &&&str| Path::new("/sys/module").join(module).exists();
        let extension = ["vmx", "svm"].into_iter().find(|flag| has_flag(cpuinfo, flag));
        Self {
            extension: extension.map(str::to_owned),
            device: Path::new("/dev/kvm").exists(),
            module: MODULES.iter().find(is_loaded).map(ToString::to_string),
        }
    }

    /// What speaks for a KVM that executes a guest's kernel by an emulator, in words.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.module.as_deref() == Some("kvm_pvm") {
            doubts.push("its module is kvm_pvm, which needs no hardware".to_owned());
        }
        if self.device && self.extension.is_none() {
            doubts.push("the processor shows neither VT-x nor AMD-V".to_owned());
        }
        doubts
    }
}

fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn has_flag(cpuinfo: &str, flag: &str) -> bool {
    field(cpuinfo, "flags").is_some_and(|flags| flags.split_whitespace().any(|f| f == flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_read_from_cpuinfo() {
        let cpuinfo = "model name\t: A CPU\nflags\t\t: fpu vmx2 svm hypervisor\n";
        assert_eq!(field(cpuinfo, "model name"), Some("A CPU"));
        assert!(has_flag(cpuinfo, "svm") && !has_flag(cpuinfo, "vmx"));
    }

    #[test]
    fn a_kvm_without_hardware_is_doubted() {
        let svm = Virtualization {
            extension: Some("svm".into()),
            device: true,
            module: Some("kvm_amd".into()),
        };
        assert!(svm.doubts().is_empty());
        let pvm = Virtualization { extension: None, module: Some("kvm_pvm".into()), ..svm };
        assert_eq!(pvm.doubts().len(), 2);
        assert!(Virtualization::default().doubts().is_empty());
    }
}
