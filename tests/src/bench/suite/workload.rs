//! One run of a workload, by its marks on the terminal (`tests/workloads/main.c`).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bench::times::{Stopwatch, Times};
use crate::expect::Session;
use crate::guests::initramfs::PROMPT;
use crate::shell::COMMAND_LIMIT;

/// How long a workload may take, by an engine that has yet to become fast.
const LIMIT: Duration = Duration::from_secs(300);

/// What a run gave.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The time between the marks, by the host's clocks.
    pub(super) times: Times,
    /// The same by the guest's.
    pub(super) guest: Duration,
    /// The checksum.
    pub(super) sum: u64,
}

/// What the workload says at its end.
#[derive(Debug, PartialEq)]
struct Line {
    sum: u64,
    wall: Duration,
    cpu: Duration,
}

/// Runs a workload on this host.
pub(super) fn run_natively(program: &Path, workload: &str, count: u64) -> Result<Outcome> {
    let count = count.to_string();
    let mut session = Session::spawn(&[program.into(), workload.into(), count.into()])?;
    expect_begin(&mut session, workload)?;
    let start = Instant::now();
    session.expect(">", LIMIT)?;
    let wall = start.elapsed();
    let Line { sum, wall: guest, cpu } = Line::expect(&mut session, workload)?;
    let ended = session.finish(COMMAND_LIMIT)?;
    ensure!(ended.status == Ok(0), "{workload} ended with {:?}", ended.status);
    Ok(Outcome { times: Times { wall, cpu }, guest, sum })
}

/// Runs a workload from a guest's shell prompt to the next.
pub(super) fn run_in_guest(session: &mut Session, workload: &str, count: u64) -> Result<Outcome> {
    session.send(&format!("bench {workload} {count}\n"))?;
    expect_begin(session, workload)?;
    let stopwatch = Stopwatch::start(session)?;
    session.expect(">", LIMIT)?;
    let times = stopwatch.read()?;
    let Line { sum, wall: guest, .. } = Line::expect(session, workload)?;
    session.expect(PROMPT, COMMAND_LIMIT)?;
    Ok(Outcome { times, guest, sum })
}

fn expect_begin(session: &mut Session, workload: &str) -> Result<()> {
    session.expect(&format!("BENCH {workload} begin"), COMMAND_LIMIT)?;
    session.expect("<", COMMAND_LIMIT)?;
    Ok(())
}

impl Line {
    fn expect(session: &mut Session, workload: &str) -> Result<Self> {
        let line = session.expect("\n", COMMAND_LIMIT)?;
        Self::parse(&line, workload).with_context(|| format!("reading {line:?}"))
    }

    /// Reads ` BENCH sieve end sum=0123456789abcdef ns=12345 cpu=12300`.
    fn parse(line: &str, workload: &str) -> Option<Self> {
        let fields = line.trim().strip_prefix(&format!("BENCH {workload} end "))?;
        let field = |name: &str| fields.split(' ').find_map(|field| field.strip_prefix(name));
        let nanoseconds = |name| Some(Duration::from_nanos(field(name)?.parse().ok()?));
        let sum = u64::from_str_radix(field("sum=")?, 16).ok()?;
        Some(Self { sum, wall: nanoseconds("ns=")?, cpu: nanoseconds("cpu=")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_read() {
        let line = " BENCH crc end sum=00000000000000ff ns=1500 cpu=1000\r";
        let (wall, cpu) = (Duration::from_nanos(1500), Duration::from_nanos(1000));
        assert_eq!(Line::parse(line, "crc"), Some(Line { sum: 255, wall, cpu }));
        assert_eq!(Line::parse(line, "lz"), None);
        assert_eq!(Line::parse(" BENCH crc end sum=xyz ns=1500 cpu=0", "crc"), None);
    }
}
