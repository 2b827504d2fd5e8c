//! Under `--clock virtual` a run is its inputs: the same boot twice ends in the same state after
//! the same number of instructions.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use brolga_tests::guests::initramfs::PROMPT;
use brolga_tests::guests::{AMD64, Flavour, I686};
use brolga_tests::shell::BOOT_LIMIT;
use brolga_tests::state::State;
use brolga_tests::suite::{self, trial};
use brolga_tests::vmm::{Boot, Vmm};
use brolga_tests::{dmesg, exit, process};

fn main() {
    let boots = [AMD64, I686].map(|flavour| {
        trial(format!("{}_boots_alike", flavour.name), move || boots_alike(flavour))
    });
    suite::run(boots.into())
}

fn boots_alike(flavour: Flavour) -> Result<()> {
    let first = boot(flavour)?;
    let second = boot(flavour)?;
    ensure!(first.state == second.state, "{:?} and then {:?}", first.state, second.state);
    ensure!(first.console == second.console, "the consoles differ");
    // Time stamps of this clock run forward too.
    dmesg::last_time(&first.console)?;
    // No load of the host comes between two readings of this clock's timers.
    ensure!(!first.console.contains("PM-Timer running at invalid rate"), "{}", first.console);
    Ok(())
}

/// What a boot to the prompt left.
struct Booted {
    state: State,
    console: String,
}

fn boot(flavour: Flavour) -> Result<Booted> {
    let console = tempfile::NamedTempFile::new()?;
    let mut extra: Vec<_> =
        ["--clock", "virtual", "--state-hash", "--stop-on-serial", PROMPT].map(Into::into).to_vec();
    extra.extend(["--serial".into(), console.path().into()]);
    let boot = Boot { extra, ..Boot::default() };
    let command = Vmm::Brolga.command(&flavour.cached()?, &boot)?;
    let finished = process::run(Command::new(&command[0]).args(&command[1..]), BOOT_LIMIT)?;
    ensure!(finished.code()? == exit::STOPPED_ON_SERIAL, "no prompt: {}", finished.stderr);
    let state = State::find(&finished.stderr)?;
    Ok(Booted { state, console: fs::read_to_string(console.path())? })
}
