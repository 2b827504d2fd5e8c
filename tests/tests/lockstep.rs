//! `brolga lockstep`: engines are one machine, on whole guests.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use brolga_tests::guests::AMD64;
use brolga_tests::guests::initramfs::PROMPT;
use brolga_tests::process::{self, Finished};
use brolga_tests::suite::{self, trial};
use brolga_tests::{binary, exit};

const LIMIT: Duration = Duration::from_secs(600);
/// The status of engines that agree.
const SAME: i32 = 0;

/// The pairs of engines that are compared. Slices whose lengths divide no other: they end
/// everywhere.
const ENGINES: [&str; 3] =
    ["interp,interp:slice=997", "interp,jit", "interp,jit:threshold=50:threads=1"];

fn main() {
    let mut trials = vec![
        trial("wrong_engines_are_refused", wrong_engines_are_refused),
        trial("lines_need_a_prompt", lines_need_a_prompt),
    ];
    for engines in ENGINES {
        trials.push(trial(format!("{engines}_embedded_guest"), || {
            agree(engines, &["--max-insns", "30000000"], "state 30000000 insns")
        }));
        trials.push(trial(format!("{engines}_debian_and_a_workload"), || debian(engines)));
    }
    suite::run(trials)
}

fn lockstep(arguments: &[&str]) -> Result<Finished> {
    process::run(Command::new(binary::brolga()?).arg("lockstep").args(arguments), LIMIT)
}

fn agree(engines: &str, arguments: &[&str], says: &str) -> Result<()> {
    let finished = lockstep(&[&["--engines", engines], arguments].concat())?;
    let agree = finished.code()? == SAME && finished.stdout.contains("the engines agree");
    ensure!(agree && finished.stdout.contains(says), "{finished:?}");
    Ok(())
}

/// From power-on to the shell, through commands that fork, compute and use pipes, and off again.
fn debian(engines: &str) -> Result<()> {
    let guest = AMD64.cached()?;
    let files = [&guest.kernel, &guest.initrd].map(|file| file.display().to_string());
    let [kernel, initrd] = files.each_ref().map(String::as_str);
    let arguments = ["--kernel", kernel, "--initrd", initrd, "--append", "console=ttyS0"];
    let lines = ["ls -lR /bin | sort | md5sum", "seq 1 2000 | awk '{s += $1 / 3} END {print s}'"];
    let typed = ["--prompt", PROMPT, "--type", lines[0], "--type", lines[1]];
    // A guest that does not see what is typed runs into the limit, and says so.
    let ends = ["--type", "poweroff -f", "--max-insns", "20000000000"];
    let finished = lockstep(&[&["--engines", engines][..], &arguments, &typed, &ends].concat())?;
    let agree = finished.code()? == SAME && finished.stdout.contains("the engines agree");
    ensure!(agree && !finished.stdout.contains("limit"), "{finished:?}");
    Ok(())
}

fn wrong_engines_are_refused() -> Result<()> {
    for engines in ["interp", "interp,interp,interp", "interp,tcg", "interp,interp:slice=0"] {
        let finished = lockstep(&["--engines", engines])?;
        let refused = finished.code()? == exit::USER_ERROR && finished.is_refusal();
        ensure!(refused, "{engines}: {finished:?}");
    }
    Ok(())
}

fn lines_need_a_prompt() -> Result<()> {
    let finished = lockstep(&["--type", "ls"])?;
    ensure!(finished.code()? == exit::USER_ERROR && finished.is_refusal(), "{finished:?}");
    Ok(())
}
