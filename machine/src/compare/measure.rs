//! A guest under every engine in turns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::watch::{Mark, Measured, Plan, Watch};
use super::{Engine, Settings, Subject};
use crate::accel::{AccelKind, KvmHost};
use crate::clock::ClockKind;
use crate::exit::End;
use crate::firmware::MemoryLayout;
use crate::machine::{BuildError, Machine, MachineConfig, OnTripleFault};
use crate::run::Limits;
use crate::serial::Serial;

/// How long samples are whose slow paths are counted: counting takes time of its own.
const COUNTED_SAMPLE: Duration = Duration::from_millis(2);

/// What an engine has left its fast path for: kinds, and how often a repetition.
pub type Counts = Vec<(String, f64)>;

/// What an engine has to show.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Why it could not run, or not to the end.
    pub problem: Option<Problem>,
    /// What guests miss under it.
    pub missing: Vec<String>,
    /// What each run measured of each row.
    pub rounds: Vec<BTreeMap<u32, Measured>>,
    /// How long each run took, in seconds.
    pub runs: Vec<f64>,
    /// Counts of a further run: by row, and of all of it.
    pub counts: BTreeMap<u32, Counts>,
    /// The same of the whole run.
    pub total: Counts,
}

/// Why an engine has nothing to show, or not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It cannot be had here.
    Unavailable(String),
    /// A run has ended in another way than it should.
    Died(String),
}

/// One run of a guest.
struct Run {
    rows: BTreeMap<u32, Measured>,
    counts: BTreeMap<u32, Counts>,
    total: Counts,
    seconds: f64,
}

/// What came of an attempt to run a guest by an engine.
enum Attempt {
    Ran(Run),
    Failed(Problem),
}

/// Where the work stands: the round and the rounds there are, the engine, the row.
pub type Progress<'a> = &'a dyn Fn(u32, u32, &str, &str);

/// Runs the subject by all engines, round for round, and once more for the counts.
pub fn measure(
    subject: &Subject,
    settings: &Settings,
    progress: Progress<'_>,
) -> Result<Vec<Outcome>> {
    let timed = Plan::Timed { sample: settings.sample, samples: settings.samples };
    let mut outcomes = Vec::new();
    let mut configs = Vec::new();
    for engine in &settings.engines {
        let (config, outcome) = match config(subject, settings, engine, ClockKind::Host)? {
            Ok((config, missing)) => (Some(config), Outcome { missing, ..Outcome::default() }),
            Err(problem) => (None, Outcome { problem: Some(problem), ..Outcome::default() }),
        };
        configs.push(config);
        outcomes.push(outcome);
    }
    let rounds = settings.rounds + 1;
    for round in 1..=rounds {
        let counting = round == rounds;
        let plan =
            if counting { Plan::Timed { sample: COUNTED_SAMPLE, samples: 1 } } else { timed };
        let engines = settings.engines.iter().zip(&configs).zip(&mut outcomes);
        for ((engine, config), outcome) in engines {
            let Some(config) = config.clone().filter(|_| outcome.problem.is_none()) else {
                continue;
            };
            let show = |row: &str| progress(round, rounds, &engine.name, row);
            match attempt(subject, settings, config, plan, counting, &show)? {
                Attempt::Failed(problem) => outcome.problem = Some(problem),
                Attempt::Ran(run) if counting => {
                    outcome.counts = run.counts;
                    outcome.total = run.total;
                }
                Attempt::Ran(run) => {
                    outcome.rounds.push(run.rows);
                    outcome.runs.push(run.seconds);
                }
            }
        }
    }
    Ok(outcomes)
}

/// An error is one of the guest's files or the command line's, which no engine could mend.
fn attempt(
    subject: &Subject,
    settings: &Settings,
    mut config: MachineConfig,
    plan: Plan,
    counting: bool,
    show: &dyn Fn(&str),
) -> Result<Attempt> {
    config.accel.jit.stats = counting;
    let mut machine = match Machine::new(config, Serial::nowhere()) {
        Ok(machine) => machine,
        Err(BuildError::Engine(error)) => {
            return Ok(Attempt::Failed(Problem::Unavailable(error.to_string())));
        }
        Err(error) => bail!(error),
    };
    let watch = Watch::new(plan, settings.by);
    machine.set_stopwatch(Box::new(watch.clone()));
    let deadline = Instant::now().checked_add(settings.timeout);
    let limits = Limits { deadline, instructions: None };
    let started = settings.by.start();
    let mut counter = Counter::default();
    let end = loop {
        if let Err(end) = machine.turn(&limits) {
            break end;
        }
        if counting && let Some(mark) = watch.take_mark() {
            counter.mark(mark, &machine, &watch);
        }
        let number = watch.current_row();
        show(subject.rows.get(number as usize).map_or("", |row| &row.name));
    };
    let seconds = started.elapsed().as_secs_f64();
    if let Some(problem) = unwanted(&end) {
        return Ok(Attempt::Failed(Problem::Died(problem)));
    }
    let total = machine.accel.counts().into_iter().map(|(what, count)| (what, count as f64));
    let mut total: Counts = total.collect();
    sort(&mut total);
    Ok(Attempt::Ran(Run { rows: watch.measured(), counts: counter.rows, total, seconds }))
}

/// The machine that an engine gets, and what its guest misses, or why the engine cannot be had here.
pub fn config(
    subject: &Subject,
    settings: &Settings,
    engine: &Engine,
    clock: ClockKind,
) -> Result<Result<(MachineConfig, Vec<String>), Problem>> {
    let accel = match &engine.spec {
        Ok(spec) => spec.clone(),
        Err(reason) => return Ok(Err(Problem::Unavailable(reason.clone()))),
    };
    let is_kvm = accel.kind == AccelKind::Kvm;
    let mut config = MachineConfig {
        memory: MemoryLayout::new(settings.memory)?,
        cpu: settings.cpu.clone(),
        accel,
        kvm: None,
        clock,
        guest: subject.guest.clone(),
        on_triple_fault: OnTripleFault::Stop,
        stop_text: subject.stop_text.clone(),
        taps: Vec::new(),
    };
    if !is_kvm {
        return Ok(Ok((config, Vec::new())));
    }
    let missing = KvmHost::open().and_then(|host| config.adapt(Arc::new(host)));
    Ok(match missing {
        Ok(missing) => Ok((config, missing)),
        Err(error) => Err(Problem::Unavailable(error.to_string())),
    })
}

/// What is wrong with an end, if it is not what the guest was run for.
fn unwanted(end: &End) -> Option<String> {
    match end {
        End::ExitPort { value: 0 } | End::PowerOff | End::StoppedOnSerial => None,
        End::ExitPort { value } => Some(format!("the guest has exited with {value}")),
        end => Some(end.message().unwrap_or_else(|| "the guest has ended".to_owned())),
    }
}

/// Counts between marks.
#[derive(Default)]
struct Counter {
    before: BTreeMap<String, u64>,
    rows: BTreeMap<u32, Counts>,
}

impl Counter {
    /// The last repetitions of a row are the ones that are kept.
    fn mark(&mut self, mark: Mark, machine: &Machine, watch: &Watch) {
        let counts = machine.accel.counts();
        match mark {
            Mark::Start(_) => self.before = counts.into_iter().collect(),
            Mark::Stop(row) => {
                let repetitions = watch.asked().max(1);
                let since = counts.into_iter().map(|(what, count)| {
                    let before = self.before.get(&what).copied().unwrap_or(0);
                    (what, count.saturating_sub(before) as f64 / f64::from(repetitions))
                });
                let mut counts: Counts = since.collect();
                sort(&mut counts);
                self.rows.insert(row, counts);
            }
        }
    }
}

/// The most frequent first, and none that has not happened.
fn sort(counts: &mut Counts) {
    counts.retain(|(_, count)| *count > 0.0);
    counts.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
}
