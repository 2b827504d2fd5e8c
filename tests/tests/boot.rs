//! Debian's unmodified kernels, from the loader to typed commands, through a pseudo-terminal.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use brolga_tests::guests::{AMD64, Flavour, Guest, I686, I686_PAE};
use brolga_tests::shell::{BOOT_LIMIT, COMMAND_LIMIT, CTRL_C, CTRL_Z, QUIT, Shell};
use brolga_tests::suite::{self, Skip, trial};
use brolga_tests::vmm::{Boot, Vmm};
use brolga_tests::{dmesg, exit, process};
use libtest_mimic::Trial;

/// How long a machine may take to end once it is told to.
const END_LIMIT: Duration = Duration::from_secs(30);

fn main() {
    let mut trials: Vec<_> = [AMD64, I686].into_iter().flat_map(trials).collect();
    // With PAE only the page tables differ from I686: to the shell and back shows them.
    trials.push(booting(I686_PAE, "powers_off", powers_off));
    suite::run(trials)
}

/// A test that boots a guest of its own.
fn booting(flavour: Flavour, name: &str, test: fn(&Guest) -> Result<()>) -> Trial {
    trial(format!("{}::{name}", flavour.name), move || test(&flavour.cached()?))
}

fn trials(flavour: Flavour) -> Vec<Trial> {
    let shared = Arc::new(SharedShell { flavour, shell: Mutex::default() });
    let at_prompt = |name: &str, test: fn(&mut Shell, Flavour) -> Result<()>| {
        let shared = shared.clone();
        trial(format!("{}::{name}", flavour.name), move || {
            shared.with(|shell| test(shell, flavour))
        })
    };
    vec![
        at_prompt("names_its_machine", names_its_machine),
        at_prompt("counts_interrupts", counts_interrupts),
        at_prompt("pipes", pipes),
        at_prompt("controls_jobs", controls_jobs),
        at_prompt("edits_with_vi", edits_with_vi),
        at_prompt("log_has_no_complaints", log_has_no_complaints),
        at_prompt("log_time_runs_forward", log_time_runs_forward),
        at_prompt("sleeps_five_seconds", sleeps_five_seconds),
        at_prompt("idles_cheaply", idles_cheaply),
        booting(flavour, "powers_off", powers_off),
        booting(flavour, "reboots", reboots),
    ]
}

/// One guest at its prompt for all the tests that leave it there. A test that fails leaves
/// none, and the next boots again.
struct SharedShell {
    flavour: Flavour,
    shell: Mutex<Option<Shell>>,
}

impl SharedShell {
    fn with(&self, test: impl FnOnce(&mut Shell) -> Result<()>) -> Result<()> {
        let mut shared = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shell = match shared.take() {
            Some(shell) => shell,
            None => boot(&self.flavour.cached()?)?,
        };
        test(&mut shell)?;
        *shared = Some(shell);
        Ok(())
    }
}

fn boot(guest: &Guest) -> Result<Shell> {
    Shell::boot(Vmm::under_test(), guest, &Boot::default())
}

fn names_its_machine(shell: &mut Shell, flavour: Flavour) -> Result<()> {
    let machine = shell.run("uname -m")?;
    ensure!(machine.trim() == flavour.machine, "uname -m: {machine:?}");
    Ok(())
}

fn counts_interrupts(shell: &mut Shell, _: Flavour) -> Result<()> {
    let before = shell.run("cat /proc/interrupts")?;
    shell.run("sleep 1")?;
    let after = shell.run("cat /proc/interrupts")?;
    for source in ["ttyS0", "timer interrupts"] {
        let counts = (count_of(&before, source), count_of(&after, source));
        ensure!(counts.0 < counts.1, "{source}: {counts:?} interrupts:\n{after}");
    }
    Ok(())
}

/// The count of CPU 0 in the line of an interrupt source.
fn count_of(interrupts: &str, source: &str) -> Option<u64> {
    let line = interrupts.lines().find(|line| line.contains(source))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn pipes(shell: &mut Shell, _: Flavour) -> Result<()> {
    let sum = shell.run("seq 1000 | awk '{n+=$1} END {print n}'")?;
    ensure!(sum.trim() == "500500", "the sum of 1 to 1000 is {sum:?}");
    let lines = shell.run("yes crane | head -n 5000 | sort -u | tr a-z A-Z")?;
    ensure!(lines.trim() == "CRANE", "{lines:?}");
    let hash = shell.run("seq 10000 | sha256sum | cut -c1-16")?;
    // `seq 10000 | sha256sum` on any Linux.
    ensure!(hash.trim() == "8060aa0ac20a3e5d", "the hash is {hash:?}");
    Ok(())
}

/// A job that says when it is continued. The shell names a job before it hands the terminal to
/// it; a key typed between the two would not reach the job.
const JOB: &str =
    r"trap 'n=$((n+1)); echo resumed $n | tee -a /tmp/log' CONT; while sleep 0.1; do :; done";

fn controls_jobs(shell: &mut Shell, _: Flavour) -> Result<()> {
    shell.run(&format!("echo \"{}\" > /tmp/crane", JOB.replace('$', r"\$")))?;
    shell.run("sh /tmp/crane &")?;
    let job_is = |shell: &mut Shell, state: &str| -> Result<()> {
        let jobs = shell.run("jobs")?;
        ensure!(jobs.contains(state) && jobs.contains("sh /tmp/crane"), "not {state}: {jobs:?}");
        Ok(())
    };
    job_is(shell, "Running")?;
    shell.session().send("fg\n")?;
    shell.session().expect("resumed 1", COMMAND_LIMIT)?;
    shell.run_keys(CTRL_Z)?;
    job_is(shell, "Stopped")?;
    // Two signals in a row would be one.
    shell.run("bg; until grep -q 'resumed 2' /tmp/log; do sleep 0.1; done")?;
    job_is(shell, "Running")?;
    shell.session().send("fg\n")?;
    shell.session().expect("resumed 3", COMMAND_LIMIT)?;
    shell.run_keys(CTRL_C)?;
    let status = shell.run("echo $?")?;
    // 128 + SIGINT
    ensure!(status.trim() == "130", "the status after Ctrl-C is {status:?}");
    let jobs = shell.run("jobs")?;
    ensure!(jobs.trim().is_empty(), "jobs are left: {jobs:?}");
    Ok(())
}

fn edits_with_vi(shell: &mut Shell, _: Flavour) -> Result<()> {
    shell.session().send("vi /tmp/dance\n")?;
    // The status line of an empty file: vi has drawn its screen.
    shell.session().expect("/tmp/dance", COMMAND_LIMIT)?;
    shell.session().expect("1/1", COMMAND_LIMIT)?;
    let mut type_until = |keys: &str, drawn: &str| -> Result<()> {
        shell.session().send(keys)?;
        shell.session().expect(drawn, COMMAND_LIMIT).map(drop)
    };
    // Insert two lines, delete the first, change a word of the second. An escape is alone in
    // its packet: with keys right behind it, it would be the beginning of a function key.
    let (insert_mode, command_mode) = ("I /tmp/dance", "- /tmp/dance");
    type_until("ione\ntwo cranes", "cranes")?;
    type_until("\x1b", command_mode)?;
    type_until("kdd0cwthree", insert_mode)?;
    type_until("\x1b", command_mode)?;
    shell.run_keys(":wq\n")?;
    let text = shell.run("cat /tmp/dance")?;
    ensure!(text == "three cranes\n", "vi saved {text:?}");
    Ok(())
}

fn log_has_no_complaints(shell: &mut Shell, _: Flavour) -> Result<()> {
    let complaints = dmesg::complaints(&shell.run("dmesg -r")?)?;
    ensure!(complaints.is_empty(), "not on the allow-list:\n{}", complaints.join("\n"));
    Ok(())
}

fn log_time_runs_forward(shell: &mut Shell, _: Flavour) -> Result<()> {
    let last = dmesg::last_time(&shell.run("dmesg -r")?)?;
    let limit = BOOT_LIMIT.as_secs_f64();
    ensure!((0.1..limit).contains(&last), "the last message has the time {last}");
    let uptime = shell.run("cut -d' ' -f1 /proc/uptime")?;
    let uptime: f64 = uptime.trim().parse()?;
    ensure!(uptime >= last, "up for {uptime}, but the last message is of {last}");
    Ok(())
}

fn sleeps_five_seconds(shell: &mut Shell, _: Flavour) -> Result<()> {
    let started = Instant::now();
    shell.run("sleep 5")?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!((4.9..6.0).contains(&seconds), "`sleep 5` took {seconds:.2} s");
    Ok(())
}

fn idles_cheaply(shell: &mut Shell, flavour: Flavour) -> Result<()> {
    const BAR: f64 = 3.0;
    const SPINNING: f64 = 25.0;
    let id = shell.session().process_id()?;
    let before = process::cpu_time(id)?;
    let started = Instant::now();
    thread::sleep(Duration::from_secs(5));
    let used = process::cpu_time(id)?.saturating_sub(before);
    let share = 100.0 * used.as_secs_f64() / started.elapsed().as_secs_f64();
    eprintln!("an idle guest takes {share:.1} % of a host core");
    ensure!(share < SPINNING, "an idle guest takes {share:.1} % of a host core");
    if share >= BAR && flavour.machine != AMD64.machine {
        // Debian builds its i386 kernels with CONFIG_HZ_PERIODIC: an idle one still takes 250
        // timer interrupts a second, each of which finds the host's caches cold.
        let reason = format!("over the bar of {BAR} %: {share:.1} %, with 250 ticks a second");
        return Err(Skip(reason).into());
    }
    ensure!(share < BAR, "an idle guest takes {share:.1} % of a host core");
    Ok(())
}

fn powers_off(guest: &Guest) -> Result<()> {
    let mut shell = boot(guest)?;
    shell.session().send("poweroff -f\n")?;
    let ended = shell.finish(END_LIMIT)?;
    ensure!(ended.status == Ok(exit::POWER_OFF), "{ended:?}");
    Ok(())
}

fn reboots(guest: &Guest) -> Result<()> {
    let mut shell = boot(guest)?;
    shell.session().send("reboot -f\n")?;
    shell.expect_boot()?;
    let uptime: f64 = shell.run("cut -d' ' -f1 /proc/uptime")?.trim().parse()?;
    ensure!(uptime < BOOT_LIMIT.as_secs_f64(), "up for {uptime} s after a reset");
    shell.session().send(QUIT)?;
    shell.finish(END_LIMIT)?;
    Ok(())
}
