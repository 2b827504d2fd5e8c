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
    ("exceptions", "INT1", "TCG has no INT1"),
    ("exceptions", "null segment", "TCG does not look whether a segment is loaded"),
    ("exceptions", "bad operand", "TCG does not look whether a segment is loaded"),
    ("exceptions", "#GP whose gate", "the #GP is that of a null segment"),
    ("exceptions", "#GP beyond the IDT", "the #GP is that of a null segment"),
    ("exceptions", "SSE with CR0.EM=1 TS=1", "TCG lets TS come before EM"),
    ("exceptions", "unmasked SSE exception", "TCG does not raise SSE exceptions"),
    ("exceptions", "AM=1, AC=1, level 3", "TCG does not check alignment"),
    ("exceptions", "LOCK before", "TCG checks LOCK after the privilege"),
    ("exceptions", "#UD whose gate", "TCG does not set EXT for a second exception"),
    ("exceptions", "#BR whose gate", "TCG does not set EXT for a second exception"),
    ("exceptions", "#NM whose gate", "TCG does not set EXT for a second exception"),
    ("exceptions", "RDMSR of", "TCG reads 0 from registers that do not exist"),
    ("exceptions", "CR0.PG", "TCG does not check CR0, and dies of PG without PE"),
    ("exceptions", "CR0.NW", "dead by then"),
    ("exceptions", "of CR4", "dead by then"),
    ("exceptions", "MOV to CR1", "dead by then"),
    ("exceptions", "the end", "dead by then"),
    ("debugging", "STI, which", "TCG's STI holds traps off too"),
    ("debugging", "RF in the flags", "TCG does not push RF as 1"),
    ("debugging", "4 bytes at +", "TCG takes neighbours of a breakpoint's bytes for them"),
    ("debugging", "general detection", "TCG has no general detection"),
    ("debugging", "#DB clears GD", "TCG has no general detection"),
    ("tasks", "SS that is not present", "TCG raises #NP"),
    ("tasks", "the T flag", "TCG does not know the T flag of a TSS"),
    ("virtual86", "beyond 64 KiB", "TCG does not compare offsets with limits"),
    ("virtual86", "at FFFF", "TCG does not compare offsets with limits"),
    ("virtual86", "VME", "TCG does not redirect interrupts"),
    ("virtual86", "VI", "TCG has no virtual interrupt flag in CLI, STI and POPF"),
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
    let missing = || Failure { got: format!("nothing: exit status {code}"), ..Failure::default() };
    let mut output = std::fs::read(output)?;
    let known =
        |name: &str| KNOWN.iter().any(|(of, part, _)| *of == rom.name && name.contains(part));
    // What is known to be otherwise counts as if it had been reported right.
    for (number, check) in (0_u16..).zip(&rom.checks).filter(|(_, check)| known(&check.name)) {
        output.extend([number, !number].map(u16::to_le_bytes).concat());
        output.extend(check.expected.to_le_bytes());
    }
    roms::judge(rom, &output, &mut suite, missing);
    if !known("the end") {
        suite.check("the end", EXITED.to_string(), code.to_string());
    }
    Ok(suite)
}
