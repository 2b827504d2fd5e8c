//! The guest's clock.

use std::time::{Duration, Instant};

use brolga_devices::VmTime;
use clap::ValueEnum;

/// Instructions in a slice of the host clock: about a millisecond, so that input, timers and
/// output are never late by more.
const HOST_SLICE: u64 = 200_000;
/// The least slice, so that a near timer does not make the machine look after every instruction.
const LEAST_HOST_SLICE: u64 = 2_000;
/// Instructions after which the machine looks at its host (input, time limit) in virtual time.
const VIRTUAL_SLICE: u64 = 1_000_000;
/// Instructions a microsecond that the host clock assumes before it has measured.
const FIRST_PACE: u64 = 100;

/// What the guest's time follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClockKind {
    /// The host's clock.
    Host,
    /// Executed instructions, at a nominal 1 GHz: runs with the same input are identical.
    Virtual,
}

/// The guest's clock. It never goes back.
#[derive(Debug)]
pub enum Clock {
    /// One instruction is one nanosecond; a halted CPU skips to the next event.
    Virtual {
        /// What has been skipped, in nanoseconds.
        skipped: u64,
    },
    /// The host's monotonic clock, read whenever the guest or the machine asks.
    Host {
        /// Power-on.
        started: Instant,
        /// Instructions executed in a microsecond of late.
        pace: u64,
        /// Since when it stands.
        stopped: Option<Instant>,
    },
}

impl Clock {
    /// A clock at power-on.
    pub fn new(kind: ClockKind) -> Self {
        match kind {
            ClockKind::Virtual => Self::Virtual { skipped: 0 },
            ClockKind::Host => {
                Self::Host { started: Instant::now(), pace: FIRST_PACE, stopped: None }
            }
        }
    }

    /// The time when the CPU has retired `retired` instructions.
    pub fn now(&self, retired: u64) -> VmTime {
        match self {
            Self::Virtual { skipped } => VmTime(retired.saturating_add(*skipped)),
            Self::Host { started, stopped: Some(stopped), .. } => {
                VmTime(nanos(stopped.saturating_duration_since(*started)))
            }
            Self::Host { started, .. } => VmTime(nanos(started.elapsed())),
        }
    }

    /// What it follows.
    pub fn kind(&self) -> ClockKind {
        match self {
            Self::Virtual { .. } => ClockKind::Virtual,
            Self::Host { .. } => ClockKind::Host,
        }
    }

    /// Time stands still until [`Clock::go_on`]: a debugger has the machine.
    pub fn stop(&mut self) {
        if let Self::Host { stopped, .. } = self {
            stopped.get_or_insert_with(Instant::now);
        }
    }

    /// Time goes on where it stood.
    pub fn go_on(&mut self) {
        if let Self::Host { started, stopped, .. } = self
            && let Some(stopped) = stopped.take()
        {
            *started += stopped.elapsed();
        }
    }

    /// How many instructions may be executed before the machine must look at the chips, at least
    /// one.
    pub fn budget(&self, now: VmTime, deadline: Option<VmTime>) -> u64 {
        let left = deadline.map_or(u64::MAX, |deadline| deadline.since(now));
        match self {
            Self::Virtual { .. } => left.clamp(1, VIRTUAL_SLICE),
            Self::Host { pace, .. } => {
                (left / 1000).saturating_mul(*pace).clamp(LEAST_HOST_SLICE, HOST_SLICE)
            }
        }
    }

    /// A slice of `instructions` took `elapsed`: the host clock learns how fast the guest runs.
    pub fn ran(&mut self, instructions: u64, elapsed: Duration) {
        if let Self::Host { pace, .. } = self
            && instructions >= LEAST_HOST_SLICE
        {
            let measured = instructions.saturating_mul(1000) / nanos(elapsed).max(1);
            *pace = (*pace * 7 + measured.min(100_000)).div_ceil(8);
        }
    }

    /// The CPU sleeps until `event`: virtual time is there at once. Returns how long the host
    /// has to wait.
    pub fn sleep_until(&mut self, now: VmTime, event: VmTime) -> Duration {
        let wait = event.since(now);
        match self {
            Self::Virtual { skipped } => {
                *skipped = skipped.saturating_add(wait);
                Duration::ZERO
            }
            Self::Host { .. } => Duration::from_nanos(wait),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_time_is_instructions_and_what_was_slept() {
        let mut clock = Clock::new(ClockKind::Virtual);
        assert_eq!(clock.now(1500), VmTime(1500));
        assert_eq!(clock.sleep_until(VmTime(1500), VmTime(9500)), Duration::ZERO);
        assert_eq!(clock.now(1500), VmTime(9500));
        assert_eq!(clock.now(1501), VmTime(9501));
    }

    #[test]
    fn virtual_slices_end_exactly_at_the_event() {
        let clock = Clock::new(ClockKind::Virtual);
        assert_eq!(clock.budget(VmTime(100), Some(VmTime(350))), 250);
        assert_eq!(clock.budget(VmTime(100), Some(VmTime(100))), 1);
        assert_eq!(clock.budget(VmTime(100), Some(VmTime(50))), 1);
        assert_eq!(clock.budget(VmTime(0), None), VIRTUAL_SLICE);
    }

    #[test]
    fn host_time_passes_by_itself_and_is_slept() {
        let mut clock = Clock::new(ClockKind::Host);
        let before = clock.now(0);
        std::thread::sleep(Duration::from_millis(2));
        let after = clock.now(0);
        assert!(after.since(before) >= 2_000_000, "{before:?} to {after:?}");
        assert_eq!(clock.sleep_until(VmTime(5), VmTime(30)), Duration::from_nanos(25));
    }

    #[test]
    fn host_time_stands_still_while_a_debugger_has_the_machine() {
        let mut clock = Clock::new(ClockKind::Host);
        clock.stop();
        let before = clock.now(0);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(clock.now(0), before);
        clock.go_on();
        assert!(clock.now(0).since(before) < 20_000_000);
        assert!(clock.now(0) >= before);
    }

    #[test]
    fn host_slices_follow_the_measured_pace() {
        let mut clock = Clock::new(ClockKind::Host);
        let event = Some(VmTime(100_000));
        assert_eq!(clock.budget(VmTime(0), event), 100 * FIRST_PACE);
        for _ in 0..100 {
            clock.ran(200_000, Duration::from_millis(1));
        }
        let learned = clock.budget(VmTime(0), event);
        assert!((19_000..=21_000).contains(&learned), "{learned}");
        assert_eq!(clock.budget(VmTime(0), None), HOST_SLICE);
        assert_eq!(clock.budget(VmTime(0), Some(VmTime(0))), LEAST_HOST_SLICE);
    }
}
