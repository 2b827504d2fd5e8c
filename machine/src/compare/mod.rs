//! `brolga compare`: one guest under several engines on this host, and what each operation takes.
//!
//! - [`clock`], [`watch`]: the stopwatch that the guest's marks start and stop.
//! - [`measure`]: the guest under every engine in turns.
//! - [`report`]: samples made into figures; [`host`], [`tsc`]: what they were taken on.
//! - [`print`], [`html`]: the figures for people.

pub mod clock;
pub mod host;
pub mod html;
pub mod measure;
pub mod print;
pub mod report;
pub mod tsc;
pub mod watch;

#[cfg(test)]
mod tests;

use std::time::Duration;

use brolga_cpu::cpuid::CpuModel;
use brolga_jit::JitConfig;
use brolga_test_roms::nanobench;

use crate::accel::{AccelKind, EngineSpec};
use crate::machine::Guest;
use clock::By;

/// The engines that are compared if nothing is said.
pub const ENGINES: [&str; 3] = ["interp", "jit", "kvm"];
/// The engine that stands for hardware virtualization.
const KVM: &str = "kvm";

/// Whether an engine of this name is KVM, in some form.
fn is_kvm(name: &str) -> bool {
    name.split(':').next() == Some(KVM)
}

/// An engine, or why this program has none of that name.
#[derive(Clone, Debug)]
pub struct Engine {
    /// As the user has written it.
    pub name: String,
    /// What to build.
    pub spec: Result<EngineSpec, String>,
}

impl Engine {
    /// The engine of this name, with the settings that `brolga run` would choose on this host
    /// where the name says nothing else.
    pub fn named(name: &str) -> Self {
        let spec = name.parse::<EngineSpec>().map(|spec| {
            if spec == EngineSpec::from(AccelKind::Jit) {
                EngineSpec { jit: JitConfig::of_this_host(), ..spec }
            } else {
                spec
            }
        });
        Self { name: name.to_owned(), spec }
    }
}

/// What is compared.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name, for people.
    pub name: String,
    /// What is booted.
    pub guest: Guest,
    /// The text on the serial line that ends a run.
    pub stop_text: Option<String>,
    /// What the numbers of its rows mean.
    pub rows: Vec<RowInfo>,
}

/// What is known about a row before it is measured.
#[derive(Clone, Debug)]
pub struct RowInfo {
    /// Its name, in one word.
    pub name: String,
    /// What one operation is.
    pub about: String,
    /// What of an operation's time is waiting, in nanoseconds.
    pub waits_ns: u64,
    /// The row whose time is no part of the operation.
    pub baseline: Option<usize>,
}

impl Subject {
    /// Our own ROM.
    pub fn nanobench() -> Self {
        let rows = nanobench::ROWS.iter().enumerate().map(|(number, row)| RowInfo {
            name: row.name.to_owned(),
            about: row.about.to_owned(),
            waits_ns: row.waits_ns,
            baseline: Some(row.baseline()).filter(|&baseline| baseline != number),
        });
        Self {
            name: "the nanobenchmark ROM".to_owned(),
            guest: Guest::Rom(nanobench::nanobench_rom()),
            stop_text: None,
            rows: rows.collect(),
        }
    }

    /// Another guest: its runs are timed as a whole, and its rows, if it has some, have numbers.
    pub fn other(name: String, guest: Guest, stop_text: Option<String>) -> Self {
        Self { name, guest, stop_text, rows: Vec::new() }
    }

    /// Whether a whole run is a row.
    fn is_timed_as_a_whole(&self) -> bool {
        self.rows.is_empty()
    }
}

/// How it is compared.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is compared with what.
    pub engines: Vec<Engine>,
    /// The processor.
    pub cpu: CpuModel,
    /// The guest's RAM, in bytes.
    pub memory: u64,
    /// How often each engine has its turn.
    pub rounds: u32,
    /// How many samples of each row are taken in a turn.
    pub samples: u32,
    /// How long a sample should take.
    pub sample: Duration,
    /// What time is taken by.
    pub by: By,
    /// How long one turn may take.
    pub timeout: Duration,
}
