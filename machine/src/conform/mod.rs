//! `brolga conform`: instruction vectors and test ROMs on an engine, and what came of them.
//!
//! - [`input`]: what a file is; [`reporting`]: how a guest reports.
//! - [`moo`], [`undefined`], [`vectors`]: what real processors have made of single instructions.
//! - [`guest`], [`lines`], [`roms`]: tests that are guests, and what they say.
//! - [`pool`], [`print`]: many at once, and the result as text, JSON, JUnit XML and Markdown.
//! - [`page`] makes docs/conformance.md.

pub mod guest;
pub mod input;
pub mod lines;
pub mod moo;
pub mod page;
pub mod pool;
pub mod print;
pub mod reporting;
pub mod roms;
pub mod undefined;
pub mod vectors;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brolga_cpu::cpuid::CpuModel;
use serde::Serialize;

use crate::accel::{EngineSpec, KvmHost};
pub use input::Input;

/// Failures that a suite keeps; it counts the others.
const KEPT: usize = 10;

/// What tests run on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engine.
    pub engine: EngineSpec,
    /// KVM, if that is the engine: opened once for all guests.
    pub kvm: Option<Arc<KvmHost>>,
    /// The processor.
    pub cpu: CpuModel,
    /// RAM of guests, in bytes.
    pub memory: u64,
    /// How long one guest may take.
    pub timeout: Duration,
    /// How many instructions one guest may execute.
    pub instructions: u64,
}

/// A case that has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its name.
    pub case: String,
    /// The instruction, or where the guest stood.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instruction: String,
    /// What went in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub input: String,
    /// What should have come out.
    pub expected: String,
    /// What did.
    pub got: String,
}

/// What came of a file or a ROM.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Suite {
    /// The file's or ROM's name.
    pub name: String,
    /// What it is.
    pub kind: &'static str,
    /// Cases that passed.
    pub passed: u64,
    /// Cases that failed.
    pub failed: u64,
    /// Cases that say nothing about this processor, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// The first failed cases.
    pub failures: Vec<Failure>,
    /// How long it took.
    pub seconds: f64,
}

impl Suite {
    /// An empty one.
    pub fn new(name: impl Into<String>, kind: &'static str) -> Self {
        Self { name: name.into(), kind, ..Self::default() }
    }

    /// A case has failed.
    pub fn fail(&mut self, failure: Failure) {
        self.failed += 1;
        if self.failures.len() < KEPT {
            self.failures.push(failure);
        }
    }

    /// A case has been left out.
    pub fn skip(&mut self, reason: impl Into<String>) {
        *self.skipped.entry(reason.into()).or_default() += 1;
    }

    /// A case that passes if it is as expected.
    pub fn check(&mut self, case: &str, expected: impl Into<String>, got: impl Into<String>) {
        let (expected, got) = (expected.into(), got.into());
        if expected == got {
            self.passed += 1;
        } else {
            self.fail(Failure { case: case.to_owned(), expected, got, ..Failure::default() });
        }
    }

    /// How many cases were left out.
    pub fn skipped(&self) -> u64 {
        self.skipped.values().sum()
    }
}

/// What came of everything.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The engine.
    pub engine: String,
    /// The processor.
    pub cpu: String,
    /// What was run, in the order of the arguments.
    pub suites: Vec<Suite>,
    /// Files that could not be used, each in a line.
    pub unusable: Vec<String>,
}

impl Report {
    /// Passed, failed and skipped cases of all suites.
    pub fn totals(&self) -> [u64; 3] {
        self.suites.iter().fold([0; 3], |[passed, failed, skipped], suite| {
            [passed + suite.passed, failed + suite.failed, skipped + suite.skipped()]
        })
    }
}

/// Runs `inputs`, as many at once as `jobs` says, and tells `progress` how many are done.
pub fn run(
    inputs: &[Input],
    settings: &Settings,
    jobs: usize,
    progress: impl Fn(usize) + Sync,
) -> Report {
    let results = pool::each(inputs, jobs, progress, |input| {
        let started = Instant::now();
        let suite = input.run(settings);
        suite.map(|suite| Suite { seconds: started.elapsed().as_secs_f64(), ..suite })
    });
    let mut report = Report {
        engine: settings.engine.to_string(),
        cpu: settings.cpu.name().to_owned(),
        ..Report::default()
    };
    for (input, result) in inputs.iter().zip(results) {
        match result {
            Ok(suite) => report.suites.push(suite),
            Err(error) => report.unusable.push(format!("{}: {error:#}", input.name())),
        }
    }
    report
}
