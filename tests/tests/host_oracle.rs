//! Random instructions on this machine's processor and on the interpreter.

use anyhow::Result;
use brolga_tests::oracle::families::{FAMILIES, Family};
use brolga_tests::suite;

fn main() {
    let trials = FAMILIES.iter().map(|family| suite::trial(family.name, || check(family)));
    suite::run(trials.collect());
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn check(family: &'static Family) -> Result<()> {
    /// The host's side exists once in a process.
    static HOST: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _host = HOST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    brolga_tests::oracle::check::run(family)
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn check(family: &'static Family) -> Result<()> {
    let name = family.name;
    Err(suite::Skip(format!("{name}: the host is not an x86-64 machine with Linux")).into())
}
