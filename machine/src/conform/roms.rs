//! ROMs of ours: each reports a value for every check, and knows what it should be.

use std::collections::HashMap;

use anyhow::Result;
use brolga_cpu::cpuid::CpuModel;
use brolga_test_roms::conformance::{Feature, REPORT_PORT, Register, Report, Rom};

use super::guest::{Ended, execute};
use super::{Failure, Settings, Suite};
use crate::exit::End;
use crate::machine::Guest;

/// Runs a ROM. What the processor lacks the features for is skipped.
pub fn run(rom: &Rom, settings: &Settings) -> Result<Suite> {
    let mut suite = Suite::new(rom.name, "built-in ROM");
    let skip = |needs: &[Feature]| {
        lacks(&settings.cpu, needs).map(|feature| reason(&settings.cpu, feature))
    };
    let follows_host = rom.in_virtual_time && !settings.engine.counts();
    let time = follows_host.then(|| "it compares times, and this engine's are the host's".into());
    if let Some(why) = skip(&rom.needs).or(time) {
        rom.checks.iter().for_each(|_| suite.skip(why.clone()));
        return Ok(suite);
    }
    let guest = Guest::Rom(rom.image.clone());
    let ended = execute(guest, vec![REPORT_PORT], settings, |_| false)?;
    let output = ended.machine.written(REPORT_PORT);
    if !matches!(ended.end, End::ExitPort { value: 0 }) {
        suite.fail(Failure { case: "the end".into(), ..not_reached(&ended) });
    }
    judge(rom, &output, skip, &mut suite, || not_reached(&ended));
    Ok(suite)
}

/// The first of `needs` that the processor does not show.
fn lacks<'f>(cpu: &CpuModel, needs: &'f [Feature]) -> Option<&'f Feature> {
    needs.iter().find(|feature| {
        const EXTENDED: u32 = 0x8000_0000;
        let (leaf, subleaf) = feature.leaf;
        // Leaves beyond the last show what others do.
        let last = cpu.leaf(leaf & EXTENDED, 0, 0, 1).eax;
        let shown = cpu.leaf(leaf, subleaf, 0, 1);
        let register = match feature.register {
            Register::Eax => shown.eax,
            Register::Ebx => shown.ebx,
            Register::Ecx => shown.ecx,
            Register::Edx => shown.edx,
        };
        leaf > last || register >> feature.bit & 1 == 0
    })
}

fn reason(cpu: &CpuModel, feature: &Feature) -> String {
    format!("{}: the CPU {} lacks it", feature.name, cpu.name())
}

fn not_reached(ended: &Ended) -> Failure {
    ended.failure("", "0x0 at the exit port, after all checks")
}

/// Compares what a ROM has reported with what it should have. `skip` says why a check with such
/// needs is left out; `missing` describes the failure of one that has reported nothing.
pub fn judge(
    rom: &Rom,
    output: &[u8],
    skip: impl Fn(&[Feature]) -> Option<String>,
    suite: &mut Suite,
    missing: impl Fn() -> Failure,
) {
    let reported: HashMap<u16, u64> =
        Report::read(output).map(|report| (report.check, report.value)).collect();
    let mut first_missing = true;
    for (number, check) in (0..).zip(&rom.checks) {
        if let Some(reason) = skip(&check.needs) {
            suite.skip(reason);
            continue;
        }
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
