//! Two engines side by side on one guest: they are compared every so many instructions, and where
//! they differ, the first instruction that makes a difference is found and shown.
//!
//! At every step the registers (flags as architecture has them), the chips, the time, the
//! instruction count, the serial output and a possible end of the run are compared; RAM, whose
//! comparison costs more than many steps, at every [`Settings::ram_every`]th step and at the end.
//!
//! The search needs no snapshots: in virtual time a run is a function of its inputs, and cutting
//! it into pieces changes nothing ([`Machine::run`]). So both machines are built again, run to the
//! last step that agreed, in the same pieces as before, and from there on in smaller ones.

mod fields;
mod pair;
mod report;
mod search;
#[cfg(test)]
mod tests;

use std::time::Instant;

pub use fields::{Field, Row, of_any, of_vcpu, rows};
pub use report::Report;

use crate::exit::End;
use crate::machine::{BuildError, Machine};
use crate::run::Limits;
use crate::serial::Serial;
use pair::Pair;

/// Builds the machine of one of two engines (0 or 1) with a serial line, each time alike.
pub type Builder<'a> = dyn Fn(usize, Serial) -> Result<Machine, BuildError> + 'a;

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Instructions in a step, at least 1.
    pub every: u64,
    /// Steps between comparisons of RAM, at least 1.
    pub ram_every: u64,
    /// What ends the run from outside.
    pub limits: Limits,
}

/// What came of it.
#[derive(Debug)]
pub enum Verdict {
    /// No difference up to the end of the run.
    Same {
        /// How the run ended.
        end: Box<End>,
        /// Instructions retired.
        instructions: u64,
        /// The hash of the state ([`Machine::state_hash`]).
        state: String,
        /// What the engines have counted ([`Machine::counts`]).
        counts: Vec<(String, u64)>,
    },
    /// The engines differ.
    Different(Box<Report>),
}

/// Runs the two machines side by side, to the end of the run or the first difference.
pub fn run(build: &Builder<'_>, settings: &Settings) -> Result<Verdict, BuildError> {
    let Settings { every, ram_every, limits } = *settings;
    let limit = limits.instructions.unwrap_or(u64::MAX);
    let mut pair = Pair::new(build)?;
    let mut agreed = 0;
    let mut steps = 0;
    loop {
        pair.run_to(pair.at().saturating_add(every).min(limit));
        steps += 1;
        let timeout = limits.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let end = pair.take_end().or(match () {
            () if pair.at() >= limit => Some(End::InstructionLimit),
            () if timeout => Some(End::Timeout),
            () => None,
        });
        let compares_ram = end.is_some() || steps % ram_every == 0;
        if !pair.agrees(&[]) || compares_ram && !pair.differing_pages().is_empty() {
            let report = search::first_difference(build, every, agreed, &pair)?;
            return Ok(Verdict::Different(Box::new(report)));
        }
        if let Some(end) = end {
            let machine = pair.machine(0);
            let (instructions, state) = (machine.retired(), machine.state_hash());
            let counts = [0, 1].into_iter().flat_map(|number| pair.machine(number).counts());
            let counts = counts.collect();
            return Ok(Verdict::Same { end: Box::new(end), instructions, state, counts });
        }
        if compares_ram {
            agreed = pair.at();
        }
    }
}
