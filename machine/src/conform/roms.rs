//! ROMs of ours: each reports a value for every check, and knows what it should be.

use std::collections::HashMap;

use anyhow::Result;
use brolga_test_roms::conformance::{REPORT_PORT, Report, Rom};

use super::guest::{Ended, execute};
use super::{Failure, Settings, Suite};
use crate::exit::End;
use crate::machine::Guest;

/// Runs a ROM.
pub fn run(rom: &Rom, settings: &Settings) -> Result<Suite> {
    let guest = Guest::Rom(rom.image.clone());
    let ended = execute(guest, vec![REPORT_PORT], settings, |_| false)?;
    let output = ended.machine.written(REPORT_PORT);
    let mut suite = Suite::new(rom.name, "built-in ROM");
    if !matches!(ended.end, End::ExitPort { value: 0 }) {
        suite.fail(Failure { case: "the end".into(), ..not_reached(&ended) });
    }
    judge(rom, &output, &mut suite, || not_reached(&ended));
    Ok(suite)
}

fn not_reached(ended: &Ended) -> Failure {
    ended.failure("", "0x0 at the exit port, after all checks")
}

/// Compares what a ROM has reported with what it should have; `missing` describes the failure of a
/// check that has reported nothing.
pub fn judge(rom: &Rom, output: &[u8], suite: &mut Suite, missing: impl Fn() -> Failure) {
    let reported: HashMap<u16, u32> =
        Report::read(output).map(|report| (report.check, report.value)).collect();
    let mut first_missing = true;
    for (number, check) in (0..).zip(&rom.checks) {
        let Some(&got) = reported.get(&number) else {
            let failure = if first_missing { missing() } else { Failure::default() };
            first_missing = false;
            suite.fail(Failure { case: check.name.clone(), ..failure });
            continue;
        };
        if check.accepts(got) {
            suite.passed += 1;
        } else {
            suite.fail(Failure {
                case: check.name.clone(),
                instruction: String::new(),
                input: check.source.to_owned(),
                expected: check.show(check.expected),
                got: check.show(got),
            });
        }
    }
}
