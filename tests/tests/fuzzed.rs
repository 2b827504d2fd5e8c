//! The first cases of each fuzz target, always the same ones. `cargo xtask fuzz` runs more;
//! `BROLGA_FUZZ_CASES` sets how many run here.

use anyhow::{Context, Result};
use brolga_tests::fuzz::{Cases, Target};
use brolga_tests::suite::{self, trial};

fn main() {
    suite::run(vec![
        trial("random_roms_do_no_harm", || first_cases(Target::Roms, 64)),
        trial("hostile_kernels_do_no_harm", || first_cases(Target::Loaders, 500)),
    ])
}

fn first_cases(target: Target, default: u64) -> Result<()> {
    let count = match std::env::var("BROLGA_FUZZ_CASES") {
        Ok(count) => count.parse().context("BROLGA_FUZZ_CASES is not a number")?,
        Err(_) => default,
    };
    target.run(Cases { first: 0, count })
}
