//! Random instructions on this machine's processor and on our engines, and captured results.

use anyhow::Result;
use brolga_tests::oracle::families::{self, Family};
use brolga_tests::oracle::state::Mode;
use brolga_tests::oracle::vectors;
use brolga_tests::suite;

fn main() {
    let live = Mode::ALL.into_iter().flat_map(|mode| {
        let families = families::all().filter(move |family| family.exists(mode));
        families.map(move |family| {
            suite::trial(format!("{}::{}", family.name, mode.bits()), move || check(family, mode))
        })
    });
    let captured = families::all().map(|family| {
        suite::trial(format!("{}::captured", family.name), || vectors::replay(family))
    });
    suite::run(live.chain(captured).collect());
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn check(family: &Family, mode: Mode) -> Result<()> {
    /// The host's side exists once in a process.
    static HOST: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _host = HOST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    brolga_tests::oracle::host::run(family, mode)
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn check(family: &Family, _: Mode) -> Result<()> {
    let name = family.name;
    Err(suite::Skip(format!("{name}: the host is not an x86-64 machine with Linux")).into())
}
