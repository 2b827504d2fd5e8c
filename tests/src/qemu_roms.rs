//! Our conformance ROMs under QEMU's TCG: a check of the ROMs, and of what they expect.

mod known;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use brolga_machine::conform::{Failure, Suite, roms};
use brolga_test_roms::conformance::{self, Check, Report, Rom};

use crate::process;
use known::{KNOWN, Known};

const LIMIT: Duration = Duration::from_secs(120);
/// What isa-debug-exit makes of a 0.
const EXITED: i32 = 1;
/// The name of the check that a ROM reaches its end.
const END: &str = "the end";

/// Runs all ROMs. An error if one has a failure that is not [`KNOWN`], or not as many as are known.
pub fn run() -> Result<()> {
    let mut bad = Vec::new();
    for rom in conformance::all() {
        if rom.in_virtual_time {
            println!("{}: left out, as QEMU's clocks are the host's", rom.name);
            continue;
        }
        let (suite, mut faults) = run_rom(&rom)?;
        println!("{}: {} passed, {} failed", rom.name, suite.passed, suite.failed);
        bad.append(&mut faults);
        bad.extend(suite.failures.iter().map(|failure| format!("{}: {failure:?}", rom.name)));
    }
    ensure!(bad.is_empty(), "QEMU differs:\n{}", bad.join("\n"));
    Ok(())
}

/// What a ROM comes to, but for what is known, and what is wrong with that.
fn run_rom(rom: &Rom) -> Result<(Suite, Vec<String>)> {
    let (mut output, code) = execute(rom)?;
    let reported: BTreeMap<u16, u64> =
        Report::read(&output).map(|report| (report.check, report.value)).collect();
    let differs = |number: &u16, check: &Check| {
        reported.get(number).is_none_or(|value| !check.accepts(*value))
    };
    let failed: Vec<(u16, &Check)> =
        (0_u16..).zip(&rom.checks).filter(|(number, check)| differs(number, check)).collect();
    let ended = code == Some(EXITED);
    let known: Vec<&Known> = KNOWN.iter().filter(|known| known.rom == rom.name).collect();
    let mut counts = vec![0; known.len()];
    let mut first = |name: &str| {
        let found = known.iter().position(|known| name.contains(known.part));
        found.inspect(|&n| counts[n] += 1).is_some()
    };
    // What is known to differ counts as if it had been reported right.
    for (number, check) in failed {
        if first(&check.name) {
            output.extend([number, !number].map(u16::to_le_bytes).concat());
            output.extend(check.expected.to_le_bytes());
        }
    }
    let end_is_known = !ended && first(END);
    let faults = known
        .iter()
        .zip(&counts)
        .filter(|(known, count)| known.count != **count)
        .map(|(known, count)| {
            let Known { rom, part, count: named, reason } = known;
            format!("{rom}: {part:?} differs {count} times, not {named} ({reason})")
        })
        .collect();
    let mut suite = Suite::new(rom.name, "QEMU");
    let missing =
        || Failure { got: format!("nothing: exit status {code:?}"), ..Failure::default() };
    roms::judge(rom, &output, |_| None, &mut suite, missing);
    if !end_is_known {
        suite.check(END, format!("{:?}", Some(EXITED)), format!("{code:?}"));
    }
    Ok((suite, faults))
}

/// Runs a ROM under QEMU, as a processor of Intel's: what it reports, and its exit status.
fn execute(rom: &Rom) -> Result<(Vec<u8>, Option<i32>)> {
    let directory = tempfile::tempdir()?;
    let (image, output) = (directory.path().join("rom"), directory.path().join("output"));
    std::fs::write(&image, &rom.image)?;
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-machine", "pc", "-accel", "tcg", "-cpu", "max,vendor=GenuineIntel", "-m", "64"])
        .args(["-display", "none", "-nic", "none", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-bios"])
        .arg(image)
        .arg("-debugcon")
        .arg(format!("file:{}", output.display()));
    let code = process::run(&mut command, LIMIT)?.code()?;
    Ok((std::fs::read(output)?, Some(code)))
}
