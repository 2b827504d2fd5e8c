//! What executes a guest's instructions.

mod change;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod no_kvm;
mod plan;

use std::fmt::{self, Display, Formatter};
use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brolga_cpu::bus::Lines;
use brolga_cpu::core::tier::Tier;
use brolga_cpu::core::{Core, Interpreter, Stop};
use brolga_cpu::vcpu::rflags;
use brolga_jit::{Jit, JitConfig, JitError};
use brolga_mmu::{GuestPhys, PAGE_BITS, PAGE_SIZE};
use clap::ValueEnum;

use crate::board::Chipset;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub use no_kvm::Host as KvmHost;
pub use plan::{AccelPlan, Change, Moment};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use crate::kvm::Host as KvmHost;

/// The accelerators there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccelKind {
    /// The interpreter.
    Interp,
    /// The interpreter, and a translator to host code for what is hot.
    Jit,
    /// The host's processor, through Linux's KVM.
    Kvm,
}

impl AccelKind {
    /// The accelerator that `name` means.
    pub fn by_name(name: &str) -> Result<AccelKind, String> {
        ValueEnum::from_str(name, false).map_err(|_| {
            let names = AccelKind::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
            format!("there is no engine {name:?}; there are: {}", names.join(", "))
        })
    }

    /// What runs if nothing is said: the translator, where it knows the host.
    pub const fn of_this_host() -> AccelKind {
        if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            AccelKind::Jit
        } else {
            AccelKind::Interp
        }
    }
}

/// Why there is no KVM for a machine.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// Not this kind of host.
    #[error("--accel kvm needs a host with Linux on x86-64")]
    OtherHost,
    /// It cannot be opened.
    #[error("--accel kvm: {} cannot be opened: {error}{}", path.display(), advice(error))]
    Open {
        /// The device.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is something else.
    #[error("--accel kvm: {} is not KVM: it speaks version {version}, not 12", path.display())]
    NotKvm {
        /// The device.
        path: PathBuf,
        /// What it says of itself.
        version: i32,
    },
    /// The kernel is too old.
    #[error("--accel kvm needs Linux 5.14 or later: this kernel lacks {0}")]
    Missing(String),
    /// A guest could not be made.
    #[error("--accel kvm: {what} fails: {error}")]
    Setup {
        /// The step.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// Virtual time is counted in instructions.
    #[error("--accel kvm cannot count instructions, so there is no --clock virtual with it")]
    VirtualClock,
    /// The guest knows a processor that KVM does not give.
    #[error(
        "KVM cannot go on with this guest: it was shown a processor that this host's KVM does not \
         give ({0}); `then=kvm` in --accel makes the machine with one that it does"
    )]
    OtherProcessor(String),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (users of it are commonly in the group kvm)",
        io::ErrorKind::NotFound => " (no KVM in this kernel, or virtualization is off)",
        _ => "",
    }
}

/// The host does not do what it did before: the run cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HostFailure(pub String);

/// What an engine may do until the machine looks around.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// At most so many instructions, of engines that count them.
    pub instructions: u64,
    /// About so long, for engines that do not.
    pub time: Duration,
}

/// An accelerator with settings, written as `interp:slice=1000` or `jit:threshold=1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSpec {
    /// The accelerator.
    pub kind: AccelKind,
    /// How the translator works, if it is one: `threshold`, `threads`, and `cache` for its
    /// bytes of code.
    pub jit: JitConfig,
    /// `step`, of KVM: each instruction is executed by itself, and so all are counted.
    pub steps: bool,
    /// `kernel-irqchip=split`, of KVM: the local APIC is KVM's while the guest runs.
    pub kernel_irqchip: bool,
    /// `slice`: every budget is cut into pieces of so many instructions. A guest cannot tell, and
    /// comparisons of engines make sure of it.
    pub slice: Option<NonZeroU64>,
}

impl From<AccelKind> for EngineSpec {
    fn from(kind: AccelKind) -> Self {
        Self { kind, jit: JitConfig::default(), steps: false, kernel_irqchip: false, slice: None }
    }
}

impl FromStr for EngineSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(':');
        let name = words.next().unwrap_or_default();
        let mut spec = Self::from(AccelKind::by_name(name)?);
        words.try_for_each(|setting| spec.set(setting))?;
        Ok(spec)
    }
}

impl Display for EngineSpec {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(value) = self.kind.to_possible_value() {
            f.write_str(value.get_name())?;
        }
        if self.kind == AccelKind::Jit {
            let JitConfig { threshold, threads, cache_bytes, .. } = &self.jit;
            write!(f, ":threshold={threshold}:threads={threads}:cache={cache_bytes}")?;
        }
        if self.steps {
            f.write_str(":step")?;
        }
        if self.kernel_irqchip {
            f.write_str(":kernel-irqchip=split")?;
        }
        self.slice.map_or(Ok(()), |slice| write!(f, ":slice={slice}"))
    }
}

/// Reads what stands behind `kernel-irqchip=`.
fn is_split(value: &str) -> Result<bool, String> {
    match value {
        "split" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!(
            "kernel-irqchip={value}: it is off, or split: 8259s and IOAPIC are the machine's"
        )),
    }
}

/// What there is for an engine beside its vCPU.
#[derive(Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// This host's KVM, if it is open already.
    pub kvm: Option<&'a KvmHost>,
    /// The board, whose local APIC KVM's may take the place of.
    pub chips: Option<&'a Arc<Mutex<Chipset>>>,
}

impl EngineSpec {
    fn set(&mut self, setting: &str) -> Result<(), String> {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let is_jit = self.kind == AccelKind::Jit;
        if self.kind == AccelKind::Kvm && (setting == "step" || name == "kernel-irqchip") {
            match name {
                "step" => self.steps = true,
                _ => self.kernel_irqchip = is_split(value)?,
            }
            return match self.steps && self.kernel_irqchip {
                true => Err("single steps are with the machine's own local APIC only".into()),
                false => Ok(()),
            };
        }
        if (name, is_jit) == ("threads", true) {
            let number = |_| format!("{name:?} takes a number");
            self.jit.threads = value.parse().map_err(number)?;
            return Ok(());
        }
        let number: NonZeroU64 =
            value.parse().map_err(|_| format!("{name:?} takes a number from 1 on"))?;
        match name {
            "slice" => self.slice = Some(number),
            "threshold" if is_jit => {
                self.jit.threshold = u32::try_from(number.get()).unwrap_or(u32::MAX);
            }
            "cache" if is_jit => {
                self.jit.cache_bytes = usize::try_from(number.get()).unwrap_or(usize::MAX);
            }
            _ => return Err(format!("this engine has no setting {name:?}")),
        }
        Ok(())
    }

    /// Whether it counts instructions, as virtual time needs it.
    pub fn counts(&self) -> bool {
        self.kind != AccelKind::Kvm || self.steps
    }

    /// The engine in the form that counts instructions: KVM does so in single steps only.
    #[must_use]
    pub fn counting(self) -> Self {
        Self { steps: self.kind == AccelKind::Kvm, kernel_irqchip: false, ..self }
    }

    /// The engine, with the vCPU that it is to run.
    pub fn build(
        &self,
        core: Core,
        around: Surroundings<'_>,
    ) -> Result<Box<dyn Accelerator>, EngineError> {
        Ok(self.prepare(&core, around)?(core))
    }

    /// Everything that can fail, for this vCPU; what is returned makes the engine of it.
    fn prepare(&self, core: &Core, around: Surroundings<'_>) -> Result<Make, EngineError> {
        let make: Make = match self.kind {
            AccelKind::Interp => Box::new(|core| Box::new(Interpreter::new(core))),
            AccelKind::Jit => {
                let jit = Jit::new(self.jit.clone())?;
                Box::new(|core| Box::new(Interpreter::with_tier(core, jit)))
            }
            AccelKind::Kvm => {
                let chips = around.chips.filter(|_| self.kernel_irqchip).cloned();
                match around.kvm {
                    Some(host) => host.prepare(core, self.steps, chips)?,
                    None => KvmHost::open()?.prepare(core, self.steps, chips)?,
                }
            }
        };
        Ok(match self.slice {
            Some(most) => Box::new(move |core| Box::new(Sliced { engine: make(core), most })),
            None => make,
        })
    }
}

/// Makes an engine of a vCPU.
pub(crate) type Make = Box<dyn FnOnce(Core) -> Box<dyn Accelerator>>;

/// Why there is no such engine here.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No translator.
    #[error(transparent)]
    Jit(#[from] JitError),
    /// No KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// An engine with the vCPU that it runs. All engines that count instructions count them alike, and
/// stop at the same ones.
pub trait Accelerator: Send {
    /// Executes at most `budget` instructions, counted exactly, whatever that takes.
    fn run(&mut self, budget: u64) -> Stop;

    /// Executes as much as `slice` allows, as fast as the engine can. An engine that does not count
    /// instructions returns [`Stop::Replan`] when the time is over.
    fn run_slice(&mut self, slice: &Slice) -> Result<Stop, HostFailure> {
        Ok(self.run(slice.instructions))
    }

    /// Whether [`Core::now`] counts all that [`Accelerator::run_slice`] executes.
    fn counts_instructions(&self) -> bool {
        true
    }

    /// The vCPU. Its architectural state is the guest's after [`Accelerator::run`] and
    /// [`Accelerator::settle`]; in between, an engine may have it elsewhere.
    fn core(&self) -> &Core;

    /// The vCPU, to change it between runs.
    fn core_mut(&mut self) -> &mut Core;

    /// The vCPU's interrupt inputs.
    fn lines_mut(&mut self) -> &mut Lines {
        &mut self.core_mut().lines
    }

    /// RFLAGS.IF.
    fn interrupts_enabled(&self) -> bool {
        self.core().vcpu.eflags & rflags::IF != 0
    }

    /// Makes [`Accelerator::core`] the guest's.
    fn settle(&mut self) {}

    /// Gives up the vCPU to another engine.
    fn hand_over(&mut self) -> Core {
        self.core_mut().hand_over()
    }

    /// Memory was written by somebody else than the vCPU: what was decoded from `len` bytes at
    /// `at` is dropped.
    fn invalidate_code(&mut self, at: GuestPhys, len: u64);

    /// Whether part of the guest's code is translated.
    fn translates(&self) -> bool {
        false
    }

    /// What the engine has done, for people, if it has been told to count.
    fn report(&self) -> Option<String> {
        None
    }

    /// What the engine has left its fast path for since it was made, by kind, if it counts that:
    /// exits to the host, and what it leaves to the interpreter.
    fn counts(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// As [`Accelerator::invalidate_code`], for all memory.
    fn invalidate_all_code(&mut self) {
        let pages: Vec<u64> = self.core().mem.code.pages().collect();
        for page in pages {
            self.invalidate_code(GuestPhys(page << PAGE_BITS), PAGE_SIZE);
        }
    }
}

impl<T: Tier> Accelerator for Interpreter<T> {
    fn translates(&self) -> bool {
        T::TRANSLATES
    }

    fn run(&mut self, budget: u64) -> Stop {
        Interpreter::run(self, budget)
    }

    fn core(&self) -> &Core {
        &self.core
    }

    fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    fn invalidate_code(&mut self, at: GuestPhys, len: u64) {
        Interpreter::invalidate_code(self, at, len);
    }

    fn report(&self) -> Option<String> {
        self.tier.report()
    }

    fn counts(&self) -> Vec<(String, u64)> {
        self.tier.counts()
    }
}

/// An engine that is given its budgets in pieces.
struct Sliced {
    engine: Box<dyn Accelerator>,
    most: NonZeroU64,
}

impl Accelerator for Sliced {
    fn run_slice(&mut self, slice: &Slice) -> Result<Stop, HostFailure> {
        if self.engine.counts_instructions() {
            return Ok(self.run(slice.instructions));
        }
        self.engine.run_slice(slice)
    }

    fn counts_instructions(&self) -> bool {
        self.engine.counts_instructions()
    }

    fn settle(&mut self) {
        self.engine.settle();
    }

    fn hand_over(&mut self) -> Core {
        self.engine.hand_over()
    }

    fn counts(&self) -> Vec<(String, u64)> {
        self.engine.counts()
    }

    fn report(&self) -> Option<String> {
        self.engine.report()
    }

    fn translates(&self) -> bool {
        self.engine.translates()
    }

    fn run(&mut self, budget: u64) -> Stop {
        let end = self.core().now().saturating_add(budget);
        loop {
            let left = end.saturating_sub(self.core().now());
            let stop = self.engine.run(left.min(self.most.get()));
            if stop != Stop::Budget || self.core().now() >= end {
                return stop;
            }
        }
    }

    fn core(&self) -> &Core {
        self.engine.core()
    }

    fn core_mut(&mut self) -> &mut Core {
        self.engine.core_mut()
    }

    fn invalidate_code(&mut self, at: GuestPhys, len: u64) {
        self.engine.invalidate_code(at, len);
    }
}

#[cfg(test)]
mod tests {
    use super::EngineSpec;

    #[test]
    fn engines_are_written_as_they_are_read() {
        for text in [
            "interp",
            "kvm",
            "kvm:step",
            "kvm:kernel-irqchip=split",
            "interp:slice=1000",
            "jit:threshold=1:threads=0:cache=4096:slice=7",
        ] {
            assert_eq!(text.parse::<EngineSpec>().map(|spec| spec.to_string()), Ok(text.into()));
        }
    }

    #[test]
    fn other_engines_and_settings_are_refused() {
        for wrong in [
            "",
            "xen",
            "kvm:threads=1",
            "kvm:step=2",
            "kvm:kernel-irqchip=on",
            "kvm:step:kernel-irqchip=split",
            "jit:kernel-irqchip=split",
            "interp:step",
            "interp:",
            "interp:slice",
            "interp:slice=0",
            "interp:threshold=1",
            "jit:depth=1",
        ] {
            assert!(wrong.parse::<EngineSpec>().is_err(), "{wrong:?}");
        }
    }
}
