//! A report as text and as Markdown. JSON is the report itself.

use std::fmt::{self, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, TableStyle, presets};

use super::is_kvm;
use super::measure::Counts;
use super::report::{Cell, Report, SHORTEST, Time};

/// How many kinds of slow paths of a row are told.
const KINDS: usize = 4;

/// What times are shown in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Unit {
    /// Nanoseconds, microseconds, ...
    #[default]
    Time,
    /// Cycles of the host's time-stamp counter.
    Cycles,
}

impl Unit {
    fn show(self, time: &Time) -> String {
        match (self, time.cycles) {
            (Unit::Cycles, Some(cycles)) => digits(cycles),
            (Unit::Cycles, None) => "-".to_owned(),
            (Unit::Time, _) => duration(time.median_ns),
        }
    }
}

/// Three digits that matter.
fn digits(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// A time with its unit.
pub fn duration(ns: f64) -> String {
    if ns < SHORTEST {
        return format!("<{SHORTEST} ns");
    }
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "us")];
    let (scale, unit) = units.into_iter().find(|(scale, _)| ns >= *scale).unwrap_or((1.0, "ns"));
    format!("{} {unit}", digits(ns / scale))
}

/// How many times the reference's time.
pub fn ratio(value: f64) -> String {
    format!("{}x", digits(value))
}

/// The report for a terminal.
pub fn text(report: &Report, unit: Unit) -> String {
    let mut text = String::new();
    let _ = write_text(&mut text, report, unit);
    text
}

fn write_text(to: &mut String, report: &Report, unit: Unit) -> fmt::Result {
    writeln!(to, "Host: {}", report.host.describe())?;
    writeln!(to, "Guest: {}\n", report.guest)?;
    writeln!(to, "{}\n", times(report, unit, presets::NOTHING))?;
    let counts = counts(report, presets::NOTHING);
    if counts.row_count() > 0 {
        writeln!(to, "{counts}\n")?;
    }
    remarks(report).iter().try_for_each(|line| writeln!(to, "{line}"))
}

/// The report as the body of a Markdown section.
pub fn markdown(report: &Report, unit: Unit) -> String {
    let mut text = String::new();
    let _ = write_markdown(&mut text, report, unit);
    text
}

fn write_markdown(to: &mut String, report: &Report, unit: Unit) -> fmt::Result {
    writeln!(to, "Host: {}. Guest: {}.\n", report.host.describe(), report.guest)?;
    for line in remarks(report) {
        writeln!(to, "{line}\n")?;
    }
    writeln!(to, "{}\n", times(report, unit, presets::ASCII_MARKDOWN))?;
    let counts = counts(report, presets::ASCII_MARKDOWN);
    if counts.row_count() > 0 {
        writeln!(to, "{counts}\n")?;
    }
    Ok(())
}

/// What is to be known about the figures.
pub fn remarks(report: &Report) -> Vec<String> {
    let (what, subtracted) = if report.whole_runs {
        ("whole runs, and of one operation in the rows that the guest reports", "")
    } else {
        ("one operation", "; the empty loop of the same level, and waiting for timers, subtracted")
    };
    let mut lines = vec![format!(
        "{} of {what}: medians of {} rounds in turn, with half the distance of the quartiles\
         {subtracted}.",
        if report.by.waits() { "Host time" } else { "Processor time of the vCPU's thread" },
        report.rounds
    )];
    // Of the first KVM there is more to say, below.
    let kvm = report.engines.iter().position(|engine| is_kvm(&engine.name));
    let others = report.engines.iter().enumerate().filter(|(at, _)| Some(*at) != kvm);
    for (_, engine) in others {
        if let Some(problem) = &engine.problem {
            lines.push(format!("No figures by {}: {problem}.", engine.name));
        }
    }
    let words = [report.reference_is.clone(), report.kvm.words.clone()];
    lines.extend(words.into_iter().filter(|words| !words.is_empty()));
    lines.extend(report.wrong().into_iter().map(|what| format!("Not measured: {what}.")));
    lines
}

fn table(style: TableStyle, header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(header);
    table
}

fn times(report: &Report, unit: Unit, style: TableStyle) -> Table {
    let engines: Vec<usize> = report.measured().map(|(engine, _)| engine).collect();
    let mut header = vec!["operation".to_owned()];
    for &engine in &engines {
        header.extend([report.engines[engine].name.clone(), "+-".to_owned()]);
    }
    let compared: Vec<usize> =
        engines.iter().copied().filter(|engine| Some(*engine) != report.reference).collect();
    if let Some(reference) = report.reference {
        let base = &report.engines[reference].name;
        header.extend(compared.iter().map(|&e| format!("{}/{base}", report.engines[e].name)));
    }
    header.push(String::new());
    let last = header.len() - 1;
    let mut table = table(style, header);
    for row in &report.rows {
        let mut line = vec![row.name.clone()];
        for &engine in &engines {
            line.extend(time_and_spread(&row.cells[engine], unit));
        }
        line.extend(compared.iter().map(|&e| row.cells[e].ratio.map_or("-".into(), ratio)));
        line.push(row.about.clone());
        table.add_row(line);
    }
    if report.rows.len() > 1 {
        let mut line = vec!["geometric mean".to_owned()];
        line.resize(1 + 2 * engines.len(), String::new());
        line.extend(
            compared.iter().map(|&e| report.engines[e].mean_ratio.map_or("-".into(), ratio)),
        );
        line.push(String::new());
        table.add_row(line);
    }
    for column in table.column_iter_mut().skip(1).take(last.saturating_sub(1)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn time_and_spread(cell: &Cell, unit: Unit) -> [String; 2] {
    match &cell.time {
        Some(time) => [unit.show(time), percent(time)],
        None => [cell.failure.as_ref().map_or("-", |_| "failed").to_owned(), String::new()],
    }
}

/// The spread of a time, if it has one.
pub fn percent(time: &Time) -> String {
    time.spread().map_or(String::new(), |spread| format!("{:.0} %", spread * 100.0))
}

fn counts(report: &Report, style: TableStyle) -> Table {
    let header = ["operation", "engine", "for one operation, the engine left its fast path to"];
    let mut table = table(style, header.map(str::to_owned).to_vec());
    for row in &report.rows {
        for (cell, engine) in row.cells.iter().zip(&report.engines) {
            if !cell.counts.is_empty() {
                table.add_row([row.name.clone(), engine.name.clone(), kinds(&cell.counts)]);
            }
        }
    }
    table
}

/// The most frequent kinds in a line.
pub fn kinds(counts: &Counts) -> String {
    let told = counts.iter().take(KINDS).map(|(what, count)| format!("{} {what}", digits(*count)));
    let mut told: Vec<String> = told.collect();
    if counts.len() > KINDS {
        told.push(format!("{} more kinds", counts.len() - KINDS));
    }
    told.join(", ")
}
