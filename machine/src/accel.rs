//! What executes a guest's instructions.

use std::fmt::{self, Display, Formatter};
use std::num::NonZeroU64;
use std::str::FromStr;

use brolga_cpu::core::tier::Tier;
use brolga_cpu::core::{Core, Interpreter, Stop};
use brolga_jit::{Jit, JitConfig, JitError};
use brolga_mmu::{GuestPhys, PAGE_BITS, PAGE_SIZE};
use clap::ValueEnum;

/// The accelerators there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccelKind {
    /// The interpreter.
    Interp,
    /// The interpreter, and a translator to host code for what is hot.
    Jit,
}

impl AccelKind {
    /// What runs if nothing is said: the translator, where it knows the host.
    pub const fn of_this_host() -> AccelKind {
        if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            AccelKind::Jit
        } else {
            AccelKind::Interp
        }
    }
}

/// An accelerator with settings, written as `interp:slice=1000` or `jit:threshold=1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSpec {
    /// The accelerator.
    pub kind: AccelKind,
    /// How the translator works, if it is one: `threshold`, `threads`, and `cache` for its
    /// bytes of code.
    pub jit: JitConfig,
    /// `slice`: every budget is cut into pieces of so many instructions. A guest cannot tell, and
    /// comparisons of engines make sure of it.
    pub slice: Option<NonZeroU64>,
}

impl From<AccelKind> for EngineSpec {
    fn from(kind: AccelKind) -> Self {
        Self { kind, jit: JitConfig::default(), slice: None }
    }
}

impl FromStr for EngineSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(':');
        let name = words.next().unwrap_or_default();
        let kind = AccelKind::from_str(name, false).map_err(|_| {
            let names = AccelKind::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
            format!("there is no engine {name:?}; there are: {}", names.join(", "))
        })?;
        let mut spec = Self::from(kind);
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
        self.slice.map_or(Ok(()), |slice| write!(f, ":slice={slice}"))
    }
}

impl EngineSpec {
    fn set(&mut self, setting: &str) -> Result<(), String> {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let is_jit = self.kind == AccelKind::Jit;
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

    /// The engine, with the vCPU that it is to run.
    pub fn build(&self, core: Core) -> Result<Box<dyn Accelerator>, JitError> {
        let engine: Box<dyn Accelerator> = match self.kind {
            AccelKind::Interp => Box::new(Interpreter::new(core)),
            AccelKind::Jit => Box::new(Interpreter::with_tier(core, Jit::new(self.jit.clone())?)),
        };
        Ok(match self.slice {
            Some(most) => Box::new(Sliced { engine, most }),
            None => engine,
        })
    }
}

/// An engine with the vCPU that it runs. All engines count instructions alike and stop at the
/// same ones.
pub trait Accelerator: Send {
    /// Executes at most `budget` instructions.
    fn run(&mut self, budget: u64) -> Stop;

    /// The vCPU.
    fn core(&self) -> &Core;

    /// The vCPU, to change it between runs.
    fn core_mut(&mut self) -> &mut Core;

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

    /// What the engine has left its fast path for since it was made, by kind, if it has been told
    /// to count.
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

    fn report(&self) -> Option<String> {
        self.engine.report()
    }

    fn counts(&self) -> Vec<(String, u64)> {
        self.engine.counts()
    }
}

#[cfg(test)]
mod tests {
    use super::EngineSpec;

    #[test]
    fn engines_are_written_as_they_are_read() {
        for text in ["interp", "interp:slice=1000", "jit:threshold=1:threads=0:cache=4096:slice=7"]
        {
            assert_eq!(text.parse::<EngineSpec>().map(|spec| spec.to_string()), Ok(text.into()));
        }
    }

    #[test]
    fn other_engines_and_settings_are_refused() {
        for wrong in [
            "",
            "kvm",
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
