//! `brolga` without arguments: the embedded guest, and the terminal it is given.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Result, ensure};
use brolga_tests::expect::Session;
use brolga_tests::suite::{self, trial};
use brolga_tests::{binary, exit};

const LIMIT: Duration = Duration::from_secs(60);
const PROMPT: &str = "brolga>";

fn main() {
    suite::run(vec![
        trial("reaches_its_prompt", reaches_its_prompt),
        trial("monitor_answers", monitor_answers),
        trial("survives_faults_on_purpose", survives_faults_on_purpose),
        trial("resets", resets),
        trial("exit_gives_its_status", || ends_by("exit 5", 5)),
        trial("triple_fault_on_purpose_ends", || ends_by("fault triple", exit::TRIPLE_FAULT)),
        trial("ctrl_c_goes_to_the_guest", ctrl_c_goes_to_the_guest),
        trial("ctrl_a_h_helps", ctrl_a_h_helps),
        trial("terminal_is_restored_after_power_off", || {
            terminal_is_restored(|session| session.send("poweroff\r"), Some(exit::POWER_OFF))
        }),
        trial("terminal_is_restored_after_ctrl_a_x", || {
            terminal_is_restored(|session| session.send("\x01x"), Some(exit::QUIT))
        }),
        trial("terminal_is_restored_after_sigterm", || {
            terminal_is_restored(|session| session.terminate(), None)
        }),
    ])
}

fn start() -> Result<Session> {
    Session::spawn(&[OsString::from(binary::brolga()?)])
}

fn at_prompt() -> Result<Session> {
    let mut session = start()?;
    session.expect(PROMPT, LIMIT)?;
    Ok(session)
}

/// Types a command and returns what came before the next prompt.
fn ask(session: &mut Session, command: &str) -> Result<String> {
    session.send(&format!("{command}\r"))?;
    session.expect(PROMPT, LIMIT)
}

fn reaches_its_prompt() -> Result<()> {
    let mut session = start()?;
    let banner = session.expect(PROMPT, LIMIT)?.to_lowercase();
    for word in ["real mode", "protected mode", "long mode", "instructions per second"] {
        ensure!(banner.contains(word), "the guest does not say {word:?}:\n{banner}");
    }
    Ok(())
}

fn monitor_answers() -> Result<()> {
    let mut session = at_prompt()?;
    let help = ask(&mut session, "help")?;
    for command in ["cpuid", "dump", "fault", "poweroff"] {
        ensure!(help.contains(command), "help does not list {command}:\n{help}");
    }
    let answer = ask(&mut session, "cpuid")?;
    ensure!(answer.lines().count() > 2, "cpuid says {answer:?}");
    // The reset vector's far jump, mirrored below 1 MiB.
    let dump = ask(&mut session, "dump ffff0")?;
    ensure!(dump.contains("000FFFF0") && dump.contains(" EA "), "the dump shows {dump:?}");
    Ok(())
}

fn survives_faults_on_purpose() -> Result<()> {
    let mut session = at_prompt()?;
    for fault in ["de", "ud", "pf", "gp"] {
        let report = ask(&mut session, &format!("fault {fault}"))?;
        let name = format!("#{}", fault.to_uppercase());
        ensure!(report.contains(&name), "no {name} in {report:?}");
    }
    Ok(())
}

fn resets() -> Result<()> {
    let mut session = at_prompt()?;
    let banner = ask(&mut session, "reset")?;
    ensure!(banner.contains("real mode"), "no banner after the reset: {banner:?}");
    Ok(())
}

fn ends_by(command: &str, status: i32) -> Result<()> {
    let mut session = at_prompt()?;
    session.send(&format!("{command}\r"))?;
    let ended = session.finish(LIMIT)?;
    ensure!(ended.status == Ok(status), "{command:?} ended otherwise: {ended:?}");
    Ok(())
}

fn ctrl_c_goes_to_the_guest() -> Result<()> {
    let mut session = at_prompt()?;
    // The monitor drops the line for a new one.
    session.send("no such command\x03")?;
    session.expect(PROMPT, LIMIT)?;
    ensure!(ask(&mut session, "help")?.contains("poweroff"), "the monitor does not answer");
    Ok(())
}

fn ctrl_a_h_helps() -> Result<()> {
    let mut session = at_prompt()?;
    session.send("\x01h")?;
    session.expect("Ctrl-A x", LIMIT)?;
    Ok(())
}

/// While the guest owns the terminal it is raw; after the end it is as it was.
fn terminal_is_restored(
    end: impl FnOnce(&mut Session) -> Result<()>,
    status: Option<i32>,
) -> Result<()> {
    let mut session = start()?;
    let before = session.initial_terminal_modes();
    session.expect(PROMPT, LIMIT)?;
    ensure!(session.terminal_modes()? != before, "the terminal is not raw at the prompt");
    end(&mut session)?;
    session.wait(LIMIT)?;
    let after = session.terminal_modes()?;
    ensure!(after == before, "the terminal's modes were {before:?} and are {after:?}");
    let ended = session.finish(LIMIT)?;
    if let Some(status) = status {
        ensure!(ended.status == Ok(status), "{ended:?}");
    }
    Ok(())
}
