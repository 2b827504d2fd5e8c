//! Fuzzing Brolga from outside: hostile input through the binary, where a panic, a fault of
//! the host and a hang all show.

mod loaders;
mod roms;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{binary, exit, process};

/// How long a case may run: many times what its instruction limit takes.
const HANG: Duration = Duration::from_secs(120);

/// What to fuzz.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Target {
    /// Random 64 KiB ROMs, 10 million instructions each: the CPU, the MMU and the devices.
    Roms,
    /// Random and mutated kernel images: the image loaders.
    Loaders,
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
        let binary = binary::brolga()?;
        let directory = tempfile::tempdir()?;
        let next = AtomicU64::new(cases.first);
        let end = cases.first + cases.count;
        let worker = || -> Result<()> {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return Ok(());
                }
                if let Err(error) = self.run_case(binary, directory.path(), seed) {
                    next.store(end, Ordering::Relaxed);
                    return Err(error);
                }
            }
        };
        let workers = thread::available_parallelism()?.get();
        thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
            handles.into_iter().try_for_each(|handle| handle.join().expect("no worker panics"))
        })
    }

    fn run_case(self, binary: &Path, directory: &Path, seed: u64) -> Result<()> {
        let input = match self {
            Self::Roms => roms::generate(seed),
            Self::Loaders => loaders::generate(seed),
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

    fn judge(self, binary: &Path, file: &Path) -> Result<()> {
        let mut command = Command::new(binary);
        command.args(["run", "--clock", "virtual", "--serial", "none"]);
        let is_refused = match self {
            Self::Roms => {
                command.arg("--bios").arg(file).args(["--max-insns", "10000000"]);
                |_| false
            }
            Self::Loaders => {
                command.arg("--kernel").arg(file).args(["--max-insns", "100000"]);
                |status| status == exit::USER_ERROR
            }
        };
        let finished = process::run(&mut command, HANG)?;
        let status = finished.code()?;
        ensure!(
            exit::is_guest_end(status) || is_refused(status),
            "exit status {status}; stderr:\n{}",
            finished.stderr
        );
        // A panic on another thread than the first may leave the exit status alone.
        ensure!(!finished.stderr.contains("panicked at"), "{}", finished.stderr);
        Ok(())
    }
}
