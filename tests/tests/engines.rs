//! Random vector instructions on the interpreter and as translated code.

use anyhow::Result;
use brolga_tests::oracle::engines;
use brolga_tests::oracle::families::FAMILIES;
use brolga_tests::suite;

fn main() {
    let vectors = FAMILIES.iter().filter(|family| family.vector);
    let families = vectors.map(|f| suite::trial(f.name, || check(|| engines::run(f))));
    let programs = suite::trial("programs", || check(engines::run_programs));
    let nans = suite::trial("nans", || check(engines::run_nans));
    let unmasking = suite::trial("unmasking", || check(engines::run_unmasking));
    let native = suite::trial("native", || check(engines::run_native));
    let carries = suite::trial("carries", || check(engines::run_carries));
    suite::run(families.chain([programs, nans, unmasking, carries, native]).collect());
}

fn check(run: impl FnOnce() -> Result<()>) -> Result<()> {
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return run();
    }
    Err(suite::Skip("translated code needs an x86-64 machine with Linux".to_owned()).into())
}
