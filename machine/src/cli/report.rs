//! What is said at the end of a run.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::args::RunArguments;
use crate::exit::End;
use crate::machine::Machine;

/// What is said at the end of a run.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    status: u8,
    instructions: u64,
    #[serde(flatten)]
    end: &'a End,
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
}

/// What `--stats` shows.
#[derive(Debug, Serialize)]
struct Stats {
    seconds: f64,
    mips: f64,
    peak_rss_kib: Option<u64>,
}

impl<'a> Summary<'a> {
    pub(super) fn new(
        run: &RunArguments,
        machine: &Machine,
        end: &'a End,
        elapsed: Duration,
    ) -> Self {
        let instructions = machine.retired();
        // Memory is measured before the hash reads all of the guest's.
        let stats = run.stats.then(|| Stats::new(instructions, elapsed));
        let state = run.state_hash.then(|| machine.state_hash());
        let (status, message) = (end.status(), end.message());
        Self { status, instructions, end, message, state, stats }
    }

    /// One JSON object.
    pub(super) fn write_json(&self, to: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *to, self)?;
        writeln!(to)
    }

    /// Lines for people; nothing about an end that was asked for.
    pub(super) fn write_text(&self, to: &mut impl Write, fresh_line: bool) -> io::Result<()> {
        let speaks = self.message.is_some() || self.state.is_some() || self.stats.is_some();
        if speaks && fresh_line {
            writeln!(to)?;
        }
        if let Some(message) = &self.message {
            writeln!(to, "brolga: {message}")?;
        }
        if let Some(report) = self.end.report() {
            write!(to, "{report}")?;
        }
        let instructions = self.instructions;
        if let Some(stats) = &self.stats {
            let Stats { seconds, mips, peak_rss_kib } = stats;
            write!(to, "brolga: stats insns={instructions} seconds={seconds:.3} mips={mips:.1}")?;
            match peak_rss_kib {
                Some(kib) => writeln!(to, " peak-rss-kib={kib}")?,
                None => writeln!(to)?,
            }
        }
        if let Some(state) = &self.state {
            writeln!(to, "brolga: state {instructions} insns {state}")?;
        }
        Ok(())
    }
}

impl Stats {
    fn new(instructions: u64, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let mips = instructions as f64 / 1e6 / seconds.max(1e-9);
        Self { seconds, mips, peak_rss_kib: peak_rss_kib() }
    }
}

/// The most memory that this process has had resident, where the host tells (proc(5)).
fn peak_rss_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
