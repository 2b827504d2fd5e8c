//! `brolga conform`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use brolga_jit::JitConfig;

use super::args::ConformArguments;
use super::progress::Progress;
use super::{cpu_model, refuse};
use crate::accel::{AccelKind, EngineSpec, KvmHost};
use crate::conform::reporting::{PRESETS, Reporting};
use crate::conform::{self, Input, Report, Settings, input, page, print};
use crate::exit::{HOST_ERROR, USER_ERROR};

/// The status of tests of which some failed.
const FAILED: u8 = 1;

/// Runs the tests, tells, and returns the exit status.
pub(super) fn main(arguments: &ConformArguments) -> ExitCode {
    if arguments.list {
        return list();
    }
    let reports = match if arguments.page { run_page(arguments) } else { run(arguments) } {
        Ok(reports) => reports,
        Err(error) => return refuse(&format!("{error:#}")),
    };
    for line in reports.iter().flat_map(|report| &report.unusable) {
        refuse(line);
    }
    if let Err(error) = tell(arguments, &reports) {
        eprintln!("brolga: {error:#}");
        return ExitCode::from(HOST_ERROR);
    }
    let usable = reports.iter().all(|report| report.unusable.is_empty());
    let failed: u64 = reports.iter().map(|report| report.totals()[1]).sum();
    match (usable, failed) {
        (false, _) => ExitCode::from(USER_ERROR),
        (true, 0) => ExitCode::SUCCESS,
        (true, _) => ExitCode::from(FAILED),
    }
}

fn list() -> ExitCode {
    let mut text = String::from("ROMs that are built in:\n");
    for rom in input::built_in() {
        text += &format!("  {:12} {} ({} checks)\n", rom.name, rom.about, rom.checks.len());
    }
    text += "Presets, known by the beginning of a file's name:\n";
    for preset in PRESETS {
        let settings = preset.settings.replace('\n', ", ");
        text += &format!("  {:12} {} ({settings})\n", preset.name, preset.about);
    }
    // A closed pipe is the reader's choice.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// What is named, on the engine that is.
fn run(arguments: &ConformArguments) -> Result<Vec<Report>> {
    let inputs = input::find(&arguments.files, &reporting(arguments)?)?;
    Ok(vec![run_on(engine(arguments), &inputs, arguments)?])
}

/// The ROMs, then each thing that is named, on every engine.
fn run_page(arguments: &ConformArguments) -> Result<Vec<Report>> {
    let reporting = reporting(arguments)?;
    let mut parts = vec![input::find(&[], &reporting)?];
    for file in &arguments.files {
        parts.push(input::find(std::slice::from_ref(file), &reporting)?);
    }
    let mut reports = Vec::new();
    for inputs in &parts {
        for engine in page::engines() {
            reports.push(run_on(engine, inputs, arguments)?);
        }
    }
    Ok(reports)
}

fn run_on(engine: EngineSpec, inputs: &[Input], arguments: &ConformArguments) -> Result<Report> {
    let mut cpu = cpu_model(arguments.cpu.as_deref())?;
    let mut kvm = None;
    if engine.kind == AccelKind::Kvm {
        let host = KvmHost::open()?;
        let (given, lost) = host.adapt(cpu)?;
        if !lost.is_empty() {
            eprintln!("brolga: KVM does not give, and tests skip: {}", lost.join(", "));
        }
        (cpu, kvm) = (given, Some(Arc::new(host)));
    }
    let settings = Settings {
        engine,
        kvm,
        cpu,
        memory: arguments.memory,
        timeout: arguments.timeout,
        instructions: arguments.max_insns,
    };
    let jobs = match arguments.jobs {
        Some(jobs) => jobs.get(),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let progress = Progress::new();
    let of = inputs.len();
    let show = |done| progress.show(|| format!("{done} of {of} done"));
    let report = conform::run(inputs, &settings, jobs, show);
    progress.clear();
    Ok(report)
}

/// One engine; its threads would only take time from other jobs.
fn engine(arguments: &ConformArguments) -> EngineSpec {
    let spec = arguments.accel.clone().unwrap_or(AccelKind::of_this_host().into());
    let threshold = arguments.jit_threshold.unwrap_or(spec.jit.threshold);
    EngineSpec { jit: JitConfig { threshold, ..spec.jit }, ..spec }
}

fn reporting(arguments: &ConformArguments) -> Result<Reporting> {
    let said = Reporting {
        post_port: arguments.post_port,
        post_pass: arguments.post_pass,
        ascii_port: arguments.ascii_port,
        reference: arguments.reference.clone(),
        result_at: arguments.result_at,
        result_pass: arguments.result_pass,
    };
    let Some(name) = &arguments.preset else { return Ok(said) };
    let preset = Reporting::preset(name).with_context(|| {
        let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        format!("there is no preset {name:?}; there are: {}", names.join(", "))
    })?;
    Ok(said.or(preset))
}

fn tell(arguments: &ConformArguments, reports: &[Report]) -> Result<()> {
    let mut text = if arguments.page { page::HEAD.to_owned() } else { String::new() };
    for report in reports {
        if let Some(path) = &arguments.junit {
            write(path, &print::junit(report))?;
        }
        text += &if arguments.json {
            serde_json::to_string_pretty(report)? + "\n"
        } else if arguments.markdown || arguments.page {
            print::markdown(report)
        } else {
            print::text(report)
        };
    }
    // Sections end with an empty line, a page does not.
    let text = if arguments.page { format!("{}\n", text.trim_end()) } else { text };
    io::stdout().write_all(text.as_bytes()).context("the report cannot be written")
}

fn write(path: &Path, text: &str) -> Result<()> {
    ensure!(!path.is_dir(), "cannot write {}: it is a folder", path.display());
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
