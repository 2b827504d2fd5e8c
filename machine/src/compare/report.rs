//! Samples made into figures.

use serde::Serialize;

use super::clock::By;
use super::host::Host;
use super::measure::{Counts, Outcome, Problem};
use super::watch::Failure;
use super::{RowInfo, Settings, Subject, is_kvm};
use brolga_test_roms::nanobench::{EMPTY, EMPTY_AT_LEVEL_3};

/// Counts below this are not told: one in a hundred operations.
const RARE: f64 = 0.01;
/// What is shorter, in nanoseconds, is too short to be told from nothing.
pub const SHORTEST: f64 = 0.05;
/// Level 0 is emulated if the empty loop takes so many times longer there than at level 3: on
/// hardware both are the same instructions of the same processor.
const EMULATED: f64 = 8.0;
/// Where there is no figure at level 3: no processor takes so many nanoseconds for two instructions.
const SLOW_LOOP: f64 = 20.0;

/// All that was found out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub guest: String,
    /// On what.
    pub host: Host,
    /// How often each engine had its turn.
    pub rounds: u32,
    /// What time was taken by.
    pub by: By,
    /// Whole runs were timed, and the rows that the guest reported; nothing is subtracted.
    pub whole_runs: bool,
    /// By what.
    pub engines: Vec<Column>,
    /// What KVM is here, in a sentence or two.
    pub kvm: Kvm,
    /// The engine that ratios are to, an index.
    pub reference: Option<usize>,
    /// Why it is that one.
    pub reference_is: String,
    /// The figures.
    pub rows: Vec<Row>,
}

/// An engine.
#[derive(Clone, Debug, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Why it has no figures.
    pub problem: Option<String>,
    /// The geometric mean of its ratios to the reference.
    pub mean_ratio: Option<f64>,
}

/// What KVM is on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvmKind {
    /// Nobody asked for it.
    NotAsked,
    /// It cannot be had.
    Missing,
    /// It executes guests on the processor.
    Hardware,
    /// It executes a guest's level 0 by an emulator, as measured.
    Emulating,
    /// It may emulate: this guest does not show it, but the host looks like it.
    Doubtful,
}

/// What KVM is on this host, and what tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kvm {
    /// In a word.
    pub kind: KvmKind,
    /// In a sentence or two.
    pub words: String,
}

/// A row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What one operation is.
    pub about: String,
    /// By each engine.
    pub cells: Vec<Cell>,
}

/// A row by an engine.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cell {
    /// What an operation takes, if it was measured.
    pub time: Option<Time>,
    /// Why there is none.
    pub failure: Option<String>,
    /// How many times the time of the reference.
    pub ratio: Option<f64>,
    /// What the engine has left its fast path for, and how often an operation.
    pub counts: Counts,
}

/// Nanoseconds of the host's time an operation, without the loop and what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Time {
    /// The median of all samples.
    pub median_ns: f64,
    /// Their quartiles.
    pub quartiles_ns: [f64; 2],
    /// The median in cycles of the host's time-stamp counter.
    pub cycles: Option<f64>,
    /// How many samples.
    pub samples: usize,
}

impl Time {
    /// Of samples, less what is no part of the operation.
    fn new(mut samples: Vec<f64>, less: f64, tsc_ghz: Option<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let at = |part: f64| quantile(&samples, part).map(|ns| (ns - less).max(0.0));
        let median_ns = at(0.5)?;
        Some(Self {
            median_ns,
            quartiles_ns: [at(0.25)?, at(0.75)?],
            cycles: tsc_ghz.map(|ghz| median_ns * ghz),
            samples: samples.len(),
        })
    }

    /// Half the distance of the quartiles, as a part of the median; that of something too short
    /// says nothing.
    pub fn spread(&self) -> Option<f64> {
        let [low, high] = self.quartiles_ns;
        (self.median_ns >= SHORTEST).then(|| (high - low) / 2.0 / self.median_ns)
    }
}

/// Between the two samples next to it.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let place = part * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    Some(sorted[low] + (sorted[high] - sorted[low]) * place.fract())
}

impl Report {
    /// What the outcomes say.
    pub fn new(subject: &Subject, settings: &Settings, host: Host, outcomes: &[Outcome]) -> Self {
        let names: Vec<String> =
            settings.engines.iter().map(|engine| engine.name.clone()).collect();
        let mut rows = rows(subject, settings.by, &host, outcomes);
        let kvm = kvm(&names, outcomes, &host, &rows);
        let means: Vec<Option<f64>> = (0..names.len()).map(|engine| mean(&rows, engine)).collect();
        let (reference, reference_is) = reference(&names, &means, kvm.kind);
        if let Some(reference) = reference {
            rows.iter_mut().for_each(|row| row.compare_with(reference));
        }
        let columns =
            names.into_iter().zip(outcomes).enumerate().map(|(engine, (name, outcome))| {
                let problem = outcome.problem.as_ref().map(|problem| match problem {
                    Problem::Unavailable(why) | Problem::Died(why) => why.clone(),
                });
                Column { name, problem, mean_ratio: mean_ratio(&rows, engine) }
            });
        Self {
            guest: subject.name.clone(),
            engines: columns.collect(),
            host,
            rounds: settings.rounds,
            by: settings.by,
            whole_runs: subject.is_timed_as_a_whole(),
            kvm,
            reference,
            reference_is,
            rows,
        }
    }

    /// Engines that have figures, by index.
    pub fn measured(&self) -> impl Iterator<Item = (usize, &Column)> {
        let has = |engine: usize| self.rows.iter().any(|row| row.cells[engine].time.is_some());
        self.engines.iter().enumerate().filter(move |(engine, _)| has(*engine))
    }

    /// Rows that did not do what they measure, with the engine: a fault of the engine's.
    pub fn wrong(&self) -> Vec<String> {
        let cells = self.rows.iter().flat_map(|row| {
            row.cells.iter().zip(&self.engines).map(move |(cell, engine)| (row, cell, engine))
        });
        cells
            .filter_map(|(row, cell, engine)| {
                let failure = cell.failure.as_ref()?;
                Some(format!("{} by {}: {failure}", row.name, engine.name))
            })
            .collect()
    }
}

impl Row {
    fn compare_with(&mut self, reference: usize) {
        let median = |cell: &Cell| cell.time.map(|time| time.median_ns);
        let Some(base) = median(&self.cells[reference]).filter(|&base| base >= SHORTEST) else {
            return;
        };
        for cell in &mut self.cells {
            cell.ratio = median(cell).map(|ns| ns / base);
        }
    }
}

fn rows(subject: &Subject, by: By, host: &Host, outcomes: &[Outcome]) -> Vec<Row> {
    let largest = outcomes.iter().flat_map(|outcome| &outcome.rounds);
    let seen = largest.filter_map(|rows| rows.keys().next_back()).max();
    let count = subject.rows.len().max(seen.map_or(0, |&last| last as usize + 1));
    let mut rows: Vec<Row> = Vec::new();
    if subject.is_timed_as_a_whole() {
        rows.push(Row {
            name: "run".to_owned(),
            about: "from power-on to the end".to_owned(),
            cells: outcomes.iter().map(|outcome| whole(outcome, host)).collect(),
        });
    }
    for number in 0..count {
        let unknown = || RowInfo {
            name: number.to_string(),
            about: format!("row {number}"),
            waits_ns: 0,
            baseline: None,
        };
        let mut info = subject.rows.get(number).cloned().unwrap_or_else(unknown);
        if !by.waits() {
            info.waits_ns = 0;
        }
        let cells = outcomes.iter().map(|outcome| cell(&info, number as u32, outcome, host));
        rows.push(Row { cells: cells.collect(), name: info.name, about: info.about });
    }
    rows
}

/// All runs of an engine as one row.
fn whole(outcome: &Outcome, host: &Host) -> Cell {
    let runs = outcome.runs.iter().map(|seconds| seconds * 1e9).collect();
    Cell {
        time: Time::new(runs, 0.0, host.tsc_ghz),
        counts: outcome.total.clone(),
        ..Cell::default()
    }
}

fn samples(number: u32, outcome: &Outcome) -> Vec<f64> {
    let measured = outcome.rounds.iter().filter_map(|rows| rows.get(&number));
    measured.flat_map(|row| row.samples.iter().map(super::watch::Sample::host_ns)).collect()
}

fn cell(info: &RowInfo, number: u32, outcome: &Outcome, host: &Host) -> Cell {
    let empty = info.baseline.and_then(|row| {
        Time::new(samples(row as u32, outcome), 0.0, host.tsc_ghz).map(|time| time.median_ns)
    });
    let less = empty.unwrap_or(0.0) + info.waits_ns as f64;
    let mut failures = outcome.rounds.iter().filter_map(|rows| rows.get(&number)?.failure);
    let failure = failures.next_back().map(|failure| match failure {
        Failure::Exception(vector) => format!("exception {vector}"),
        Failure::Count { asked, seen } => format!("{seen} of {asked} operations happened"),
    });
    let counts = outcome.counts.get(&number).into_iter().flatten();
    Cell {
        time: match failure {
            Some(_) => None,
            None => Time::new(samples(number, outcome), less, host.tsc_ghz),
        },
        failure,
        ratio: None,
        counts: counts.filter(|(_, count)| *count >= RARE).cloned().collect(),
    }
}

/// The geometric mean of an engine's times, of the rows that all engines with figures have.
fn mean(rows: &[Row], engine: usize) -> Option<f64> {
    let has_some = |engine: usize| rows.iter().any(|row| row.cells[engine].time.is_some());
    let times = |row: &Row, engine: usize| row.cells[engine].time.map(|time| time.median_ns);
    let shared = rows.iter().filter(|row| {
        (0..row.cells.len()).all(|other| !has_some(other) || times(row, other).is_some())
    });
    geometric(shared.filter_map(|row| times(row, engine)))
}

fn mean_ratio(rows: &[Row], engine: usize) -> Option<f64> {
    geometric(rows.iter().filter_map(|row| row.cells[engine].ratio))
}

/// What was too short to be measured is left out.
fn geometric(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) =
        values.filter(|&value| value > 0.0).fold((0.0, 0), |(sum, n), v| (sum + v.ln(), n + 1));
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

/// KVM where it is what its name says, otherwise the fastest engine there is.
fn reference(names: &[String], means: &[Option<f64>], kvm: KvmKind) -> (Option<usize>, String) {
    let there = means.iter().enumerate().filter_map(|(engine, mean)| Some((engine, (*mean)?)));
    let kvm_at = (0..names.len()).find(|&at| is_kvm(&names[at]) && means[at].is_some());
    let to_kvm = |at: usize| (Some(at), format!("Ratios are to {}.", names[at]));
    if let (Some(at), KvmKind::Hardware) = (kvm_at, kvm) {
        return to_kvm(at);
    }
    let candidates = there.filter(|(engine, _)| !is_kvm(&names[*engine]));
    let fastest = candidates.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(engine, _)| engine);
    let Some(fastest) = fastest else {
        return kvm_at.map_or((None, String::new()), to_kvm);
    };
    let name = &names[fastest];
    let why = match kvm {
        KvmKind::NotAsked => "the fastest of these on the whole",
        KvmKind::Missing => "the fastest on the whole, as there is no KVM to compare with",
        _ => "the fastest of the others on the whole, as KVM here is no measure of hardware",
    };
    (Some(fastest), format!("Ratios are to {name}: {why}."))
}

fn kvm(names: &[String], outcomes: &[Outcome], host: &Host, rows: &[Row]) -> Kvm {
    let Some(at) = names.iter().position(|name| is_kvm(name)) else {
        return Kvm { kind: KvmKind::NotAsked, words: String::new() };
    };
    let mut kvm = what_kvm_is(at, outcomes, host, rows);
    for missing in &outcomes[at].missing {
        kvm.words = format!("{} {missing}.", kvm.words).trim_start().to_owned();
    }
    kvm
}

/// The same, from the figures of the engine at this index.
fn what_kvm_is(at: usize, outcomes: &[Outcome], host: &Host, rows: &[Row]) -> Kvm {
    let problem = match &outcomes[at].problem {
        Some(Problem::Unavailable(why)) => Some(format!("KVM cannot be used here: {why}.")),
        Some(Problem::Died(why)) => Some(format!("KVM has no figures: {why}.")),
        None => None,
    };
    if let Some(words) = problem {
        return Kvm { kind: KvmKind::Missing, words };
    }
    let doubts = host.virtualization.doubts();
    let because = if doubts.is_empty() {
        String::new()
    } else {
        format!(" It is no wonder: {}.", doubts.join(", and "))
    };
    match empty_loops(rows, at) {
        Some((level_0, level_3)) if level_0 > level_3.map_or(SLOW_LOOP, |ns| EMULATED * ns) => {
            let at_level_3 =
                level_3.map_or(String::new(), |ns| format!(", and {ns:.2} ns at level 3"));
            Kvm {
                kind: KvmKind::Emulating,
                words: format!(
                    "KVM on this host executes a guest's level 0 by an emulator of instructions, \
                     not on the processor: the empty loop takes {level_0:.1} ns a time \
                     there{at_level_3}.{because} What its column shows at level 0 is that emulator \
                     and says nothing of VT-x or AMD-V."
                ),
            }
        }
        Some((level_0, _)) => Kvm {
            kind: KvmKind::Hardware,
            words: format!(
                "KVM on this host executes guests on the processor: the empty loop takes \
                 {level_0:.2} ns a time at level 0."
            ),
        },
        None if doubts.is_empty() => Kvm { kind: KvmKind::Hardware, words: String::new() },
        None => Kvm {
            kind: KvmKind::Doubtful,
            words: format!(
                "KVM on this host probably executes a guest's kernel by an emulator of \
                 instructions: {}. `brolga compare` without a guest measures it.",
                doubts.join(", and ")
            ),
        },
    }
}

/// What the empty loops take at levels 0 and 3; the second may have failed.
fn empty_loops(rows: &[Row], engine: usize) -> Option<(f64, Option<f64>)> {
    let time = |row: usize| Some(rows.get(row)?.cells[engine].time?.median_ns);
    let is_ours = rows.get(EMPTY).is_some_and(|row| row.name == "loop");
    if !is_ours {
        return None;
    }
    Some((time(EMPTY)?, time(EMPTY_AT_LEVEL_3)))
}
