//! Times of a process as the host sees them.

use std::ops::Sub;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::expect::Session;
use crate::process::cpu_time;

/// A span of time by the host's two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// By the clock on the wall.
    pub(super) wall: Duration,
    /// What the process used of the host's processors.
    pub(super) cpu: Duration,
}

impl Sub for Times {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { wall: self.wall - earlier.wall, cpu: self.cpu.saturating_sub(earlier.cpu) }
    }
}

/// Measures a running process.
pub(super) struct Stopwatch {
    process: u32,
    wall: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub(super) fn start(session: &Session) -> Result<Self> {
        let process = session.process_id()?;
        Ok(Self { process, cpu: cpu_time(process)?, wall: Instant::now() })
    }

    /// The time since the start.
    pub(super) fn read(&self) -> Result<Times> {
        let wall = self.wall.elapsed();
        Ok(Times { wall, cpu: cpu_time(self.process)?.saturating_sub(self.cpu) })
    }
}
