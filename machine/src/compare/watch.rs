//! The stopwatch: how often a guest repeats its rows, and how long that takes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brolga_devices::VmTime;

use super::clock::{By, Started};
use crate::board::Stopwatch;

/// Rows with larger numbers are not measured: a guest may name any.
const MOST_ROWS: u32 = 1024;
/// The repetitions that are tried first, and the most that are asked for.
const FIRST: u32 = 16;
const MOST: u32 = 1 << 30;
/// Repetitions grow at most by this factor at a time: code may become faster once it is hot.
const GROWTH: u32 = 8;
/// Trials of the length of a sample that are not counted, until two are alike.
const MOST_TRIALS: u32 = 6;
/// How much two trials may differ that are alike.
const ALIKE: f64 = 0.15;

/// How often rows are repeated.
#[derive(Clone, Copy, Debug)]
pub enum Plan {
    /// So often, once: a run that is a function of its inputs.
    Fixed(u32),
    /// So often that a sample takes about this long, after trials that are not counted.
    Timed {
        /// How long.
        sample: Duration,
        /// How many samples.
        samples: u32,
    },
}

/// Some repetitions of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How many.
    pub repetitions: u32,
    /// How long they took by the host's clock.
    pub host: Duration,
    /// How long they took by the guest's clock, in nanoseconds.
    pub guest_ns: u64,
}

impl Sample {
    /// What one repetition took of the host's time, in nanoseconds.
    pub fn host_ns(&self) -> f64 {
        self.host.as_secs_f64() * 1e9 / f64::from(self.repetitions.max(1))
    }
}

/// Why a row has no samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It has ended with the exception of this vector.
    Exception(u32),
    /// Not as many operations have happened as were asked for.
    Count {
        /// How many were asked for.
        asked: u32,
        /// How many the guest has seen.
        seen: u32,
    },
}

/// What was measured of a row.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The samples.
    pub samples: Vec<Sample>,
    /// What has gone wrong.
    pub failure: Option<Failure>,
}

/// Where a row is.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Shorter than a sample.
    Growing,
    /// The time of a repetition in the last of so many trials, in nanoseconds.
    Trying { ns: f64, trials: u32 },
    /// Samples are taken.
    Sampling,
    /// No more is wanted.
    Done,
}

#[derive(Clone, Debug)]
struct Row {
    phase: Phase,
    repetitions: u32,
    measured: Measured,
}

/// A mark of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Repetitions of this row begin.
    Start(u32),
    /// They are over.
    Stop(u32),
}

/// What is measured in a run.
#[derive(Debug)]
struct Session {
    plan: Plan,
    by: By,
    rows: BTreeMap<u32, Row>,
    row: u32,
    running: Option<(Started, VmTime)>,
    taken: Option<(Duration, u64)>,
    mark: Option<Mark>,
}

/// A stopwatch; clones are the same one.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Mutex<Session>>);

impl Watch {
    /// A stopwatch that has measured nothing.
    pub fn new(plan: Plan, by: By) -> Self {
        Self(Arc::new(Mutex::new(Session {
            plan,
            by,
            rows: BTreeMap::new(),
            row: 0,
            running: None,
            taken: None,
            mark: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last mark, if it has not been taken.
    pub fn take_mark(&self) -> Option<Mark> {
        self.lock().mark.take()
    }

    /// The row that the guest is at.
    pub fn current_row(&self) -> u32 {
        self.lock().row
    }

    /// How often the guest was asked to repeat its row.
    pub fn asked(&self) -> u32 {
        let session = self.lock();
        session.rows.get(&session.row).map_or(0, |row| row.repetitions)
    }

    /// What was measured, by the rows' numbers.
    pub fn measured(&self) -> BTreeMap<u32, Measured> {
        self.lock().rows.iter().map(|(&number, row)| (number, row.measured.clone())).collect()
    }
}

impl Stopwatch for Watch {
    fn row(&mut self, row: u32) {
        let mut session = self.lock();
        session.row = row;
        session.running = None;
        session.taken = None;
    }

    fn repetitions(&mut self) -> u32 {
        let mut session = self.lock();
        let (number, plan) = (session.row, session.plan);
        if number >= MOST_ROWS {
            return 0;
        }
        let row = session.rows.entry(number).or_insert_with(|| Row::new(plan));
        if matches!(row.phase, Phase::Done) { 0 } else { row.repetitions }
    }

    fn start(&mut self, now: VmTime) {
        let mut session = self.lock();
        session.mark = Some(Mark::Start(session.row));
        session.running = Some((session.by.start(), now));
    }

    fn stop(&mut self, now: VmTime) {
        let mut session = self.lock();
        let running = session.running.take();
        session.taken = running.map(|(started, then)| (started.elapsed(), now.since(then)));
        session.mark = Some(Mark::Stop(session.row));
    }

    fn result(&mut self, operations: u32) {
        let mut session = self.lock();
        let (number, plan, taken) = (session.row, session.plan, session.taken.take());
        let (Some(row), Some((host, guest_ns))) = (session.rows.get_mut(&number), taken) else {
            return;
        };
        row.take(plan, Sample { repetitions: row.repetitions, host, guest_ns }, operations);
    }

    fn fault(&mut self, vector: u32) {
        let mut session = self.lock();
        let number = session.row;
        if let Some(row) = session.rows.get_mut(&number) {
            row.fail(Failure::Exception(vector));
        }
    }
}

impl Row {
    fn new(plan: Plan) -> Self {
        let (phase, repetitions) = match plan {
            Plan::Fixed(repetitions) => (Phase::Sampling, repetitions),
            Plan::Timed { .. } => (Phase::Growing, FIRST),
        };
        Self { phase, repetitions, measured: Measured::default() }
    }

    fn fail(&mut self, failure: Failure) {
        self.measured.failure.get_or_insert(failure);
        self.phase = Phase::Done;
    }

    /// A sample has been taken: whether it counts, and what comes next.
    fn take(&mut self, plan: Plan, sample: Sample, operations: u32) {
        if operations != self.repetitions {
            return self.fail(Failure::Count { asked: self.repetitions, seen: operations });
        }
        let Plan::Timed { sample: wanted, samples } = plan else {
            self.measured.samples.push(sample);
            self.phase = Phase::Done;
            return;
        };
        let ns = sample.host_ns().max(1e-3);
        let fitting = (wanted.as_secs_f64() * 1e9 / ns).clamp(1.0, f64::from(MOST)) as u32;
        match self.phase {
            Phase::Growing if fitting / 2 > self.repetitions => {
                self.repetitions = fitting.min(self.repetitions.saturating_mul(GROWTH)).min(MOST);
            }
            Phase::Growing => {
                self.repetitions = fitting;
                self.phase = Phase::Trying { ns, trials: 1 };
            }
            Phase::Trying { ns: before, trials } => {
                let alike = (ns / before - 1.0).abs() < ALIKE;
                self.repetitions = fitting;
                self.phase = if alike || trials == MOST_TRIALS {
                    Phase::Sampling
                } else {
                    Phase::Trying { ns, trials: trials + 1 }
                };
            }
            Phase::Sampling => {
                self.measured.samples.push(sample);
                if self.measured.samples.len() >= samples as usize {
                    self.phase = Phase::Done;
                }
            }
            Phase::Done => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Duration = Duration::from_millis(10);

    /// What a row asks for whose repetitions take `ns` each, until it is done.
    fn asked(ns: impl Fn(u32) -> u64) -> (Vec<u32>, Measured) {
        let plan = Plan::Timed { sample: SAMPLE, samples: 3 };
        let mut row = Row::new(plan);
        let mut asked = Vec::new();
        while !matches!(row.phase, Phase::Done) {
            let repetitions = row.repetitions;
            asked.push(repetitions);
            let host = Duration::from_nanos(ns(asked.len() as u32) * u64::from(repetitions));
            row.take(plan, Sample { repetitions, host, guest_ns: 0 }, repetitions);
        }
        (asked, row.measured)
    }

    #[test]
    fn repetitions_grow_until_a_sample_takes_its_time() {
        let (asked, measured) = asked(|_| 100);
        assert_eq!(asked[..4], [16, 128, 1024, 8192]);
        assert!(asked[5..].iter().all(|&n| n == 100_000), "{asked:?}");
        assert_eq!(measured.samples.len(), 3);
        assert_eq!(measured.samples[0].host_ns(), 100.0);
    }

    #[test]
    fn slow_operations_are_done_at_least_once_a_sample() {
        let (asked, _) = asked(|_| 20_000_000);
        assert!(asked[1..].iter().all(|&n| n == 1), "{asked:?}");
    }

    #[test]
    fn what_becomes_faster_is_tried_until_it_stays_as_it_is() {
        let (asked, measured) = asked(|time| if time < 8 { 1000 / u64::from(time) } else { 100 });
        assert!(asked.len() > 9, "{asked:?}");
        assert!(measured.samples.iter().all(|sample| sample.host_ns() == 100.0), "{measured:?}");
    }

    #[test]
    fn a_row_that_does_something_else_is_not_measured() {
        let mut watch = Watch::new(Plan::Fixed(10), By::Wall);
        for (row, seen) in [(0, 10), (1, 9)] {
            watch.row(row);
            assert_eq!(watch.repetitions(), 10);
            watch.start(VmTime(5));
            watch.stop(VmTime(45));
            watch.result(seen);
            assert_eq!(watch.repetitions(), 0);
        }
        watch.row(2);
        watch.repetitions();
        watch.start(VmTime(50));
        watch.fault(6);
        let measured = watch.measured();
        assert_eq!(measured[&0].samples[0].guest_ns, 40);
        assert_eq!(measured[&1].failure, Some(Failure::Count { asked: 10, seen: 9 }));
        assert_eq!(measured[&2].failure, Some(Failure::Exception(6)));
        assert!(measured[&1].samples.is_empty() && measured[&2].samples.is_empty());
    }

    #[test]
    fn marks_out_of_order_and_rows_without_end_do_no_harm() {
        let mut watch = Watch::new(Plan::Timed { sample: SAMPLE, samples: 1 }, By::Wall);
        watch.stop(VmTime(1));
        watch.result(3);
        watch.fault(3);
        for row in 0..=MOST_ROWS + 5 {
            watch.row(row);
            watch.repetitions();
            watch.result(16);
        }
        assert_eq!(watch.measured().len(), MOST_ROWS as usize);
    }
}
