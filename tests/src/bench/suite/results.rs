//! What was measured.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Clock;
use super::code::Code;
use super::rows::Row;
use super::workload::Outcome;
use crate::bench::engine::Engine;
use crate::bench::median;
use crate::bench::times::Times;

const MS_PER_S: f64 = 1e3;

/// What was measured of all rows by all engines.
pub struct Results {
    pub(super) engines: Vec<Engine>,
    pub(super) rows: Vec<Measured>,
    /// Which of the host's clocks decides.
    pub(super) clock: Clock,
    /// The most memory of each engine's process beside guest RAM, in MiB.
    pub(super) beyond_ram: Vec<Option<f64>>,
}

/// What was measured of a row.
pub(super) struct Measured {
    pub(super) row: Row,
    pub(super) native: Cell,
    /// One for each engine.
    pub(super) engines: Vec<Cell>,
    pub(super) instructions: Option<f64>,
    /// What the translator has made for the row, by an engine of Brolga's.
    pub(super) code: Code,
}

/// A row by an engine, or by this host.
#[derive(Clone, Default)]
pub(super) struct Cell {
    /// By the host's clocks, for each round.
    pub(super) host: Vec<Times>,
    /// By the guest's clock.
    pub(super) guest: Vec<Duration>,
    /// All checksums: one, if all is well.
    pub(super) sums: BTreeSet<u64>,
}

impl Results {
    pub(super) fn new(rows: &[Row], engines: Vec<Engine>, clock: Clock) -> Self {
        let measured = |row: &Row| Measured {
            row: *row,
            native: Cell::default(),
            engines: vec![Cell::default(); engines.len()],
            instructions: None,
            code: Code::default(),
        };
        let rows = rows.iter().map(measured).collect();
        Self { rows, beyond_ram: vec![None; engines.len()], engines, clock }
    }

    /// Rows and engines whose results are not this host's.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for measured in &self.rows {
            for (engine, cell) in self.engines.iter().zip(&measured.engines) {
                let same = cell.sums == measured.native.sums && cell.sums.len() == 1;
                if !same && !cell.sums.is_empty() {
                    wrong.push(format!("{} by {engine}", measured.row.name));
                }
            }
        }
        wrong
    }

    /// The index of QEMU's TCG among the engines.
    pub(super) fn tcg(&self) -> Option<usize> {
        self.engines.iter().position(|engine| *engine == Engine::Tcg)
    }

    /// The indices of Brolga's engines.
    pub(super) fn brolga(&self) -> impl Iterator<Item = usize> {
        (0..self.engines.len()).filter(|&index| self.engines[index] != Engine::Tcg)
    }

    /// How many times faster than TCG an engine is in a row.
    pub(super) fn faster(&self, measured: &Measured, engine: usize) -> Option<f64> {
        let time = |engine: usize| measured.engines[engine].median(self.clock);
        Some(time(self.tcg()?)? / time(engine)?)
    }
}

impl Cell {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.host.push(outcome.times);
        self.guest.push(outcome.guest);
        self.sums.insert(outcome.sum);
    }

    /// Of a boot, only the host can tell the time.
    pub(super) fn add_boot(&mut self, times: Times) {
        self.host.push(times);
    }

    /// The milliseconds of each round by one of the host's clocks.
    pub(super) fn rounds(&self, clock: Clock) -> Vec<f64> {
        let milliseconds = |times: &Times| match clock {
            Clock::Wall => times.wall.as_secs_f64() * MS_PER_S,
            Clock::Cpu => times.cpu.as_secs_f64() * MS_PER_S,
        };
        self.host.iter().map(milliseconds).collect()
    }

    /// The median by one of the host's clocks, in milliseconds.
    pub(super) fn median(&self, clock: Clock) -> Option<f64> {
        (!self.host.is_empty()).then(|| median(self.rounds(clock)))
    }

    /// The median by the guest's clock, in milliseconds.
    pub(super) fn guest_median(&self) -> Option<f64> {
        let milliseconds = self.guest.iter().map(|time| time.as_secs_f64() * MS_PER_S);
        (!self.guest.is_empty()).then(|| median(milliseconds.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::ROWS;
    use super::*;

    #[test]
    fn other_checksums_than_the_hosts_are_wrong() {
        let mut results = Results::new(&ROWS[..2], vec![Engine::Tcg], Clock::Wall);
        let outcome = |sum| Outcome { times: Times::default(), guest: Duration::ZERO, sum };
        for measured in &mut results.rows {
            measured.native.add(&outcome(1));
            measured.engines[0].add(&outcome(1));
        }
        assert!(results.wrong().is_empty());
        results.rows[1].engines[0].add(&outcome(2));
        assert_eq!(results.wrong(), [format!("{} by tcg", ROWS[1].name)]);
    }
}
