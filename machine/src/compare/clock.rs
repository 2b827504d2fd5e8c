//! The host's clocks.

use std::time::{Duration, Instant};

use clap::ValueEnum;
#[cfg(target_os = "linux")]
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// What time is taken by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Time as it passes: what a user waits for.
    #[default]
    Wall,
    /// What the vCPU's thread uses of a processor: steadier on a host that is busy with other
    /// things. Sleeping takes none.
    #[cfg(target_os = "linux")]
    Cpu,
}

/// A clock that has been started.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    by: By,
    at: Instant,
    #[cfg(target_os = "linux")]
    used: Duration,
}

impl By {
    /// Starts the clock of this thread.
    pub fn start(self) -> Started {
        Started {
            by: self,
            #[cfg(target_os = "linux")]
            used: used(self),
            at: Instant::now(),
        }
    }

    /// Whether waiting takes time.
    pub fn waits(self) -> bool {
        self == By::Wall
    }
}

impl Started {
    /// The time since then, on the same thread.
    pub fn elapsed(&self) -> Duration {
        match self.by {
            By::Wall => self.at.elapsed(),
            #[cfg(target_os = "linux")]
            By::Cpu => used(self.by).saturating_sub(self.used),
        }
    }
}

/// What this thread has used of a processor, if that is what is asked for.
#[cfg(target_os = "linux")]
fn used(by: By) -> Duration {
    match by {
        By::Wall => Duration::ZERO,
        By::Cpu => {
            clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_takes_time_but_no_processor() {
        const SLEEP: Duration = Duration::from_millis(30);
        let clocks: Vec<(By, Started)> =
            By::value_variants().iter().map(|by| (*by, by.start())).collect();
        std::thread::sleep(SLEEP);
        for (by, started) in clocks {
            assert_eq!(started.elapsed() >= SLEEP, by.waits(), "{by:?}");
        }
    }
}
