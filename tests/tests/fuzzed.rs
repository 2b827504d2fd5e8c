//! The first cases of each fuzz target, always the same ones. `cargo xtask fuzz` runs more;
//! `BROLGA_FUZZ_CASES` sets how many run here.

use anyhow::{Context, Result};
use brolga_tests::fuzz::{Cases, Target};
use brolga_tests::suite::{self, trial};

fn main() {
    suite::run(vec![
        trial("random_roms_do_no_harm", || first_cases(Target::Roms, 64)),
        trial("hostile_kernels_do_no_harm", || first_cases(Target::Loaders, 500)),
        trial("hostile_vectors_do_no_harm", || first_cases(Target::Vectors, 500)),
        trial("hostile_debuggers_do_no_harm", || first_cases(Target::Debuggers, 50)),
        trial("engines_agree_about_random_programs", || first_cases(Target::Programs, 500)),
        trial("engines_agree_where_they_once_did_not", known_programs),
    ])
}

/// The seeds of programs that have shown a difference between engines.
const KNOWN_PROGRAMS: &str = include_str!("../data/programs.txt");

fn known_programs() -> Result<()> {
    let lines = KNOWN_PROGRAMS.lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let seed = line.split_whitespace().next().context("an empty line")?;
        let first = seed.parse().with_context(|| format!("{seed:?} is no seed"))?;
        Target::Programs.run(Cases { first, count: 1 })?;
    }
    Ok(())
}

fn first_cases(target: Target, default: u64) -> Result<()> {
    let count = match std::env::var("BROLGA_FUZZ_CASES") {
        Ok(count) => count.parse().context("BROLGA_FUZZ_CASES is not a number")?,
        Err(_) => default,
    };
    target.run(Cases { first: 0, count })
}
