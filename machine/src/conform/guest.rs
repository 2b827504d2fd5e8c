//! A test that is a guest: runs it, and finds out what it has reported.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use brolga_mmu::GuestPhys;

use super::reporting::{POST_PASS, RESULT_PASS, Reporting};
use super::{Failure, Settings, Suite, lines};
use crate::clock::ClockKind;
use crate::crash::CrashReport;
use crate::exit::End;
use crate::firmware::MemoryLayout;
use crate::machine::{Guest, Machine, MachineConfig, OnTripleFault};
use crate::run::Limits;
use crate::serial::Serial;

/// How often it is looked whether a guest that goes on for ever has said its last word: in
/// instructions, or in time under an engine that does not count them.
const LOOK: u64 = 1 << 20;
const LOOK_TIME: Duration = Duration::from_millis(100);
/// The codes of progress that a failure shows.
const LAST_CODES: usize = 8;

/// The outside end of a serial line that is kept.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A guest at its end.
pub(super) struct Ended {
    pub(super) machine: Machine,
    pub(super) end: End,
    serial: Kept,
}

/// Runs `guest` until it ends, a limit is reached, or `is_done` says so. Of an engine that does not
/// count instructions, only time is limited.
pub(super) fn execute(
    guest: Guest,
    taps: Vec<u16>,
    settings: &Settings,
    is_done: impl Fn(&Machine) -> bool,
) -> Result<Ended> {
    let serial = Kept::default();
    let counts = settings.engine.counts();
    let config = MachineConfig {
        memory: MemoryLayout::new(settings.memory)?,
        cpu: settings.cpu.clone(),
        accel: settings.engine.clone(),
        kvm: settings.kvm.clone(),
        clock: if counts { ClockKind::Virtual } else { ClockKind::Host },
        guest,
        on_triple_fault: OnTripleFault::Stop,
        stop_text: None,
        taps,
    };
    let mut machine = Machine::new(config, Serial::to(serial.clone()))?;
    let deadline = Instant::now().checked_add(settings.timeout);
    loop {
        let limits = if counts {
            let instructions = (machine.retired() + LOOK).min(settings.instructions);
            Limits { deadline, instructions: Some(instructions) }
        } else {
            let look = Instant::now() + LOOK_TIME;
            Limits {
                deadline: Some(deadline.map_or(look, |end| end.min(look))),
                instructions: None,
            }
        };
        let end = machine.run(&limits);
        let goes_on = match end {
            End::InstructionLimit => limits.instructions < Some(settings.instructions),
            End::Timeout => deadline.is_none_or(|end| Instant::now() < end),
            _ => false,
        };
        if !goes_on || is_done(&machine) {
            return Ok(Ended { machine, end, serial });
        }
    }
}

/// Runs a guest and judges what it has reported.
pub(super) fn run(
    name: &str,
    guest: Guest,
    reporting: &Reporting,
    settings: &Settings,
) -> Result<Suite> {
    let kind = if matches!(guest, Guest::Rom(_)) { "ROM" } else { "kernel" };
    let reference = match &reporting.reference {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the reference {}", path.display()))?,
        ),
        None => None,
    };
    let post_pass = reporting.post_pass.unwrap_or(POST_PASS);
    let taps = [reporting.post_port, reporting.ascii_port].into_iter().flatten().collect();
    let ended = execute(guest, taps, settings, |machine| {
        let code = reporting.post_port.and_then(|port| machine.written(port).last().copied());
        code == Some(post_pass) || result(machine, reporting).is_some_and(|value| value != 0)
    })?;
    let Ended { machine, end, serial } = &ended;
    let mut suite = Suite::new(name, kind);
    let ascii = reporting
        .ascii_port
        .map(|port| String::from_utf8_lossy(&machine.written(port)).into_owned());
    let text = ascii.clone().unwrap_or_else(|| serial.text());
    match &reference {
        Some(reference) => lines::compare("text", reference, &text, &mut suite),
        None => lines::judge(&text, &mut suite),
    }
    if ascii.is_some() && reference.is_none() {
        lines::judge(&serial.text(), &mut suite);
    }
    if let Some(port) = reporting.post_port {
        let codes = machine.written(port);
        if codes.last() == Some(&post_pass) {
            // Each code but the first says that the tests of the one before it have passed.
            suite.passed += codes.len() as u64;
        } else {
            suite.passed += (codes.len() as u64).saturating_sub(1);
            suite.fail(post_failure(&ended, &codes, post_pass));
        }
    }
    if let Some(value) = result(machine, reporting) {
        let pass = reporting.result_pass.unwrap_or(RESULT_PASS);
        suite.check("the result in memory", format!("{pass:#x}"), format!("{value:#x}"));
    }
    judge_end(&ended, end, &mut suite);
    Ok(suite)
}

fn result(machine: &Machine, reporting: &Reporting) -> Option<u32> {
    let mut bytes = [0; 4];
    machine.map().read_slice(GuestPhys(reporting.result_at?), &mut bytes).ok()?;
    Some(u32::from_le_bytes(bytes))
}

fn post_failure(ended: &Ended, codes: &[u8], pass: u8) -> Failure {
    let shown = &codes[codes.len().saturating_sub(LAST_CODES)..];
    let shown: Vec<String> = shown.iter().map(|code| format!("{code:02x}")).collect();
    Failure {
        case: format!("the tests of code {}", shown.last().map_or("none", String::as_str)),
        instruction: ended.place(),
        input: String::new(),
        expected: format!("code {pass:02x}"),
        got: format!("codes {}, then {}", shown.join(" "), ended.end_in_words()),
    }
}

/// An end that is itself a report, and one that no test means. A guest that has reported
/// otherwise may end as it likes, but not die.
fn judge_end(ended: &Ended, end: &End, suite: &mut Suite) {
    let has_reported = suite.passed + suite.failed + suite.skipped() > 0;
    match end {
        End::ExitPort { value } => {
            suite.check("the exit port", "0x0", format!("{value:#x}"));
        }
        End::TripleFault { .. } | End::ResetLoop { .. } | End::HostError { .. } => {
            suite.fail(ended.failure("the end", "another end"));
        }
        _ if !has_reported => {
            let expected = "a report: lines, a value at the exit port, or what options say";
            suite.fail(ended.failure("the report", expected));
        }
        _ => {}
    }
}

impl Ended {
    pub(super) fn failure(&self, case: &str, expected: &str) -> Failure {
        Failure {
            case: case.into(),
            instruction: self.place(),
            input: String::new(),
            expected: expected.into(),
            got: self.end_in_words(),
        }
    }

    /// How it ended, and the exceptions on the way there.
    pub(super) fn end_in_words(&self) -> String {
        let words = match &self.end {
            End::ExitPort { value } => format!("{value:#x} at the exit port"),
            end => end.message().unwrap_or_else(|| "the guest switched the power off".into()),
        };
        let chain = self.end.report().map_or(&[][..], |report| &report.chain);
        chain.iter().fold(words, |words, cause| format!("{words}; {cause}"))
    }

    /// Where it stood.
    pub(super) fn place(&self) -> String {
        let report = CrashReport::new(&self.machine);
        let instruction = report.code.first().map_or("unreadable code", |line| &line.text);
        format!("{instruction} at {:#x}", report.registers.linear_rip())
    }
}
