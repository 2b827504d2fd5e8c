//! Fuzzing Brolga. From outside: hostile input through the binary, where a panic, a fault of the
//! host and a hang all show. From inside ([`programs`]): two engines that must agree.

mod debugger;
mod loaders;
pub mod programs;
mod roms;
mod vectors;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::state::State;
use crate::{binary, exit, process};

/// How long a case may run: many times what its instruction limit takes.
const HANG: Duration = Duration::from_secs(900);

/// After how many cases to say so.
const PROGRESS: u64 = 100;

/// What to fuzz.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Random 64 KiB ROMs, 10 million instructions each: the CPU, the MMU and the devices.
    Roms,
    /// Random and mutated kernel images: the image loaders.
    Loaders,
    /// Random and mutated vector files: the reader behind `brolga conform`.
    Vectors,
    /// Random programs on two engines that must agree.
    Programs,
    /// Debuggers that send anything and hang up at any byte: the server for GDB's protocol.
    Debuggers,
}

/// Which cases: `count` of them, each from its own seed. The same seed is the same case.
#[derive(Clone, Copy, Debug)]
pub struct Cases {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Target {
    /// Runs the cases on all host cores; the first that goes wrong is the error, with its seed
    /// and the name of a file that keeps its input.
    pub fn run(self, cases: Cases) -> Result<()> {
        if self == Self::Programs {
            let mut pairs = programs::default_engines().into_iter();
            return pairs.try_for_each(|pair| programs::run(cases, &pair));
        }
        let binary = binary::brolga()?;
        let directory = tempfile::tempdir()?;
        each(cases, PROGRESS, |seed| self.run_case(binary, directory.path(), seed))
    }

    fn run_case(self, binary: &Path, directory: &Path, seed: u64) -> Result<()> {
        let input = match self {
            Self::Debuggers => return debugger::attack(seed, directory),
            Self::Roms => roms::generate(seed),
            Self::Loaders => loaders::generate(seed),
            Self::Vectors => vectors::generate(seed),
            Self::Programs => unreachable!("programs are no input of the binary"),
        };
        let file = directory.join(seed.to_string());
        std::fs::write(&file, &input)?;
        self.judge(binary, &file).with_context(|| {
            let kept = std::env::temp_dir().join(format!("brolga-{self:?}-{seed}").to_lowercase());
            match std::fs::copy(&file, &kept) {
                Ok(_) => format!("{self:?} seed {seed}, kept in {}", kept.display()),
                Err(_) => format!("{self:?} seed {seed}"),
            }
        })?;
        Ok(std::fs::remove_file(&file)?)
    }

    /// Checks that the guest ran and ended in one of the ways guests end, or that the loaders
    /// refused the image in one clear line.
    fn judge(self, binary: &Path, file: &Path) -> Result<()> {
        if self == Self::Vectors {
            return vectors::judge(binary, file);
        }
        let (option, limit) = match self {
            Self::Roms => ("--bios", 10_000_000),
            _ => ("--kernel", 100_000),
        };
        let mut command = Command::new(binary);
        command.args(["run", "--clock", "virtual", "--serial", "none", "--state-hash"]);
        command.arg(option).arg(file).args(["--max-insns", &limit.to_string()]);
        let finished = process::run(&mut command, HANG)?;
        let status = finished.code()?;
        // A panic on another thread than the first may leave the exit status alone.
        ensure!(!finished.stderr.contains("panicked at"), "{}", finished.stderr);
        if self == Self::Loaders && status == exit::USER_ERROR && finished.is_refusal() {
            return Ok(());
        }
        let instructions = State::find(&finished.stderr)?.instructions;
        let is_in_limit = match status {
            exit::INSTRUCTION_LIMIT => instructions == limit,
            _ => instructions <= limit,
        };
        ensure!(
            exit::is_guest_end(status) && is_in_limit,
            "exit status {status} after {instructions} instructions; stderr:\n{}",
            finished.stderr
        );
        Ok(())
    }
}

/// Checks each case, on all host cores, until one fails. Says how many are done each time
/// `progress` more are.
fn each(cases: Cases, progress: u64, check: impl Fn(u64) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicU64::new(cases.first);
    let end = cases.first + cases.count;
    let done = AtomicU64::new(0);
    let worker = || -> Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return Ok(());
            }
            if let Err(error) = check(seed) {
                next.store(end, Ordering::Relaxed);
                return Err(error);
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(progress) {
                eprintln!("{done} of {} cases", cases.count);
            }
        }
    };
    let workers = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        handles.into_iter().try_for_each(|handle| handle.join().expect("no worker panics"))
    })
}
