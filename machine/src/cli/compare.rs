//! `brolga compare`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use super::args::CompareArguments;
use super::progress::Progress;
use super::{cpu_model, guest, refuse};
use crate::compare::host::Host;
use crate::compare::report::Report;
use crate::compare::{ENGINES, Engine, Settings, Subject, html, measure, print};
use crate::exit::HOST_ERROR;

/// The status of engines that did not do what is measured.
const WRONG: u8 = 1;

/// Measures, tells, and returns the exit status.
pub(super) fn main(arguments: &CompareArguments) -> ExitCode {
    let report = match run(arguments) {
        Ok(report) => report,
        Err(error) => return refuse(&format!("{error:#}")),
    };
    if let Err(error) = tell(arguments, &report) {
        eprintln!("brolga: {error:#}");
        return ExitCode::from(HOST_ERROR);
    }
    if report.wrong().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(WRONG) }
}

fn run(arguments: &CompareArguments) -> Result<Report> {
    if let Some(path) = &arguments.html {
        // To find out now, not after the work.
        File::options()
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let subject = subject(arguments)?;
    let settings = Settings {
        engines: engines(&arguments.engines)?,
        cpu: cpu_model(arguments.machine.cpu.as_deref())?,
        memory: arguments.machine.memory,
        rounds: arguments.rounds.get(),
        samples: arguments.samples.get(),
        sample: arguments.sample,
        by: arguments.by,
        timeout: arguments.machine.timeout.unwrap_or(super::args::COMPARE_TIMEOUT),
    };
    let progress = Progress::new();
    let host = Host::here();
    let show = |round: u32, rounds: u32, engine: &str, row: &str| {
        progress.show(|| format!("round {round} of {rounds}, {engine}: {row}"));
    };
    let outcomes = measure::measure(&subject, &settings, &show);
    progress.clear();
    let report = Report::new(&subject, &settings, host, &outcomes?);
    if report.measured().next().is_none() {
        let why = report
            .engines
            .iter()
            .filter_map(|engine| Some(format!("{}: {}", engine.name, engine.problem.as_ref()?)));
        bail!("no engine has figures: {}", why.collect::<Vec<_>>().join("; "));
    }
    Ok(report)
}

/// Engines that the user names must be known; those of the default list may be missing.
fn engines(named: &[String]) -> Result<Vec<Engine>> {
    if named.is_empty() {
        return Ok(ENGINES.into_iter().map(Engine::named).collect());
    }
    let engines: Vec<Engine> = named.iter().map(|name| Engine::named(name)).collect();
    for engine in &engines {
        if let Err(error) = &engine.spec {
            bail!("--engines: {error}");
        }
    }
    Ok(engines)
}

fn subject(arguments: &CompareArguments) -> Result<Subject> {
    let machine = &arguments.machine;
    ensure!(
        machine.max_insns.is_none(),
        "--max-insns is of no use here: engines count instructions, but kvm cannot"
    );
    let Some(path) = machine.kernel.as_ref().or(machine.bios.as_ref()) else {
        return Ok(Subject::nanobench());
    };
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Subject::other(name, guest(machine)?, machine.stop_on_serial.clone()))
}

fn tell(arguments: &CompareArguments, report: &Report) -> Result<()> {
    if let Some(path) = &arguments.html {
        let page = html::page(report);
        fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let text = if arguments.json {
        serde_json::to_string_pretty(report)? + "\n"
    } else if arguments.markdown {
        print::markdown(report, arguments.unit)
    } else {
        print::text(report, arguments.unit)
    };
    io::stdout().write_all(text.as_bytes()).context("the report cannot be written")
}
