//! `cargo xtask`: the project's own commands.

mod test;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use brolga_machine::accel::EngineSpec;
use brolga_tests::bench::{self, suite};
use brolga_tests::fuzz::{Cases, Target, programs};
use brolga_tests::guests;
use brolga_tests::oracle::vectors;
use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Brolga's own commands")]
enum Task {
    /// Run all checks and tests; the last line counts them
    Test,
    /// Fetch and check the Debian guests, and list the cache
    Guests {
        /// Ask the mirror for newer packages even if the cache is complete
        #[arg(long)]
        refresh: bool,
    },
    /// Measure Brolga beside QEMU
    #[command(subcommand)]
    Bench(Bench),
    /// What this host's processor says
    #[command(subcommand)]
    Oracle(Oracle),
    /// Feed Brolga hostile input; without a target, list the targets
    Fuzz {
        target: Option<Target>,
        /// How many cases
        #[arg(long, default_value_t = 1000)]
        count: u64,
        /// The seed of the first case
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// For programs: the two engines, as `brolga lockstep` takes them
        #[arg(long, value_name = "ENGINE,ENGINE", value_delimiter = ',', num_args = 1)]
        engines: Vec<EngineSpec>,
        /// For programs: show the program of this seed, and run it alone
        #[arg(long, value_name = "SEED")]
        replay: Option<u64>,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// Boot the amd64 guest by the interpreter and by QEMU's TCG
    Interp {
        /// How many boots of each
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// What a debugger costs that has nothing to do
    Gdb {
        /// How many runs of each
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Brolga's engine
        #[arg(long, default_value = "jit")]
        accel: String,
    },
    /// Run workloads in Debian guests by Brolga's engines, by QEMU's TCG and natively
    Suite {
        /// Brolga's engines
        #[arg(long, value_name = "ENGINES", value_delimiter = ',', default_value = "interp")]
        accel: Vec<String>,
        /// Rows or groups, separated by commas [default: all]
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        rows: Vec<String>,
        /// How many times the work of each row
        #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
        work: u64,
        /// Units of work instead of each row's own, as in `--rows forkwait --count 1000`
        #[arg(long, value_name = "UNITS", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// How many boots of each guest by each engine
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// The host's clock that decides
        #[arg(long, value_enum, value_name = "CLOCK", default_value = "wall")]
        by: suite::Clock,
        /// Print all figures as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum Oracle {
    /// Capture results for hosts with other processors in tests/vectors
    Capture,
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Test => return test::run(),
        Task::Guests { refresh } => println!("{}", guests::fetch(refresh)?),
        Task::Bench(Bench::Interp { rounds }) => println!("{}", bench::interpreter_boot(rounds)?),
        Task::Bench(Bench::Gdb { rounds, accel }) => println!("{}", bench::gdb(rounds, &accel)?),
        Task::Bench(Bench::Suite { accel, rows, work, count, rounds, by, json }) => {
            let options = suite::Options { accels: accel, rows, work, count, rounds, clock: by };
            let (results, outcome) = suite::run(&options)?;
            if json {
                println!("{:#}", results.json())
            } else {
                println!("{results}")
            }
            outcome?;
            ensure_right(&results)?;
        }
        Task::Oracle(Oracle::Capture) => println!("{} cases captured", vectors::capture()?),
        Task::Fuzz { target: None, .. } => list_targets(),
        Task::Fuzz { target: Some(target), count, seed, engines, replay } => {
            let started = Instant::now();
            let cases = match replay {
                Some(seed) => Cases { first: seed, count: 1 },
                None => Cases { first: seed, count },
            };
            match target {
                Target::Programs => fuzz_programs(cases, engines, replay.is_some())?,
                _ => target.run(cases)?,
            }
            let seconds = started.elapsed().as_secs_f32();
            println!("{} cases passed in {seconds:.1} s", cases.count);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A fast engine that computes something else is no use.
fn ensure_right(results: &suite::Results) -> Result<()> {
    let wrong = results.wrong();
    ensure!(wrong.is_empty(), "other results than on this host: {}", wrong.join(", "));
    Ok(())
}

fn fuzz_programs(cases: Cases, engines: Vec<EngineSpec>, shows: bool) -> Result<()> {
    if shows {
        print!("{}", programs::describe(cases.first));
    }
    if engines.is_empty() {
        return Target::Programs.run(cases);
    }
    let engines = engines.try_into().map_err(|_| anyhow!("--engines takes two"))?;
    programs::run(cases, &engines)
}

fn list_targets() {
    for target in Target::value_variants() {
        if let Some(value) = target.to_possible_value() {
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            println!("{:10} {help}", value.get_name());
        }
    }
}
