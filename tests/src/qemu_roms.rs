//! Our conformance ROMs under QEMU's TCG: a check of the ROMs, and of what they expect.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use brolga_machine::conform::{Failure, Suite, roms};
use brolga_test_roms::conformance::{self, Rom};

use crate::process;

const LIMIT: Duration = Duration::from_secs(120);
/// What isa-debug-exit makes of a 0.
const EXITED: i32 = 1;

/// Where QEMU 7.2 does not do what the manual says: ROM, what the check's name contains, and why.
pub const KNOWN: &[(&str, &str, &str)] = &[
    ("segments", ", limit 0xfff", "TCG does not compare offsets with limits"),
    ("segments", "write to", "TCG does not look at the type of a segment that is loaded"),
    ("segments", "execute-only", "TCG does not look at the type of a segment that is loaded"),
    ("segments", "null segment", "TCG does not look whether a segment is loaded"),
];

/// Runs all ROMs. An error if one has a failure that is not [`KNOWN`].
pub fn run() -> Result<()> {
    let mut bad = Vec::new();
    for rom in conformance::all() {
        let suite = run_rom(&rom)?;
        println!("{}: {} passed, {} failed", rom.name, suite.passed, suite.failed);
        bad.extend(suite.failures.iter().map(|failure| format!("{}: {failure:?}", rom.name)));
    }
    ensure!(bad.is_empty(), "QEMU differs:\n{}", bad.join("\n"));
    Ok(())
}

fn run_rom(rom: &Rom) -> Result<Suite> {
    let directory = tempfile::tempdir()?;
    let (image, output) = (directory.path().join("rom"), directory.path().join("output"));
    std::fs::write(&image, &rom.image)?;
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-machine", "pc", "-accel", "tcg", "-cpu", "max", "-m", "64", "-display", "none"])
        .args(["-nic", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .arg("-bios")
        .arg(image)
        .arg("-debugcon")
        .arg(format!("file:{}", output.display()));
    let code = process::run(&mut command, LIMIT)?.code()?;
    let mut suite = Suite::new(rom.name, "QEMU");
    let known =
        |name: &str| KNOWN.iter().any(|(of, part, _)| *of == rom.name && name.contains(part));
    let checks = rom.checks.iter().cloned().map(|mut check| {
        check.mask = if known(&check.name) { 0 } else { check.mask };
        check
    });
    let rom = Rom { checks: checks.collect(), ..rom.clone() };
    let missing = || Failure { got: format!("nothing: exit status {code}"), ..Failure::default() };
    roms::judge(&rom, &std::fs::read(output)?, &mut suite, missing);
    suite.check("the end", EXITED.to_string(), code.to_string());
    Ok(suite)
}
