//! The guest's clock.

use serde::{Deserialize, Serialize};

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Guest nanoseconds since power-on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct VmTime(pub u64);

impl VmTime {
    /// Power-on.
    pub const ZERO: Self = Self(0);

    /// A time that never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// The time this many milliseconds after power-on.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// This time, `nanos` later.
    #[must_use]
    pub const fn add(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// This time, `nanos` earlier, but not before power-on.
    #[must_use]
    pub const fn sub(self, nanos: u64) -> Self {
        Self(self.0.saturating_sub(nanos))
    }

    /// The nanoseconds from `earlier` until this time; none if that is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The complete ticks of a clock of `hz` since power-on.
    pub const fn ticks(self, hz: u64) -> u64 {
        let ticks = self.0 as u128 * hz as u128 / NANOS_PER_SECOND;
        if ticks > u64::MAX as u128 { u64::MAX } else { ticks as u64 }
    }

    /// The first time at which a clock of `hz` has made this many ticks. Up to 1 GHz each tick has
    /// a nanosecond of its own, so `from_ticks(n, hz).ticks(hz) == n`.
    pub const fn from_ticks(ticks: u64, hz: u64) -> Self {
        let nanos = (ticks as u128 * NANOS_PER_SECOND).div_ceil(hz as u128);
        if nanos > u64::MAX as u128 { Self::MAX } else { Self(nanos as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_survive_the_round_trip_at_any_clock() {
        for hz in [1, 32_768, 1_193_182, 3_579_545, 100_000_000, 1_000_000_000] {
            for ticks in [0, 1, 2, 3, 65_535, 1_193_182, 1 << 24, (1 << 32) + 1] {
                let time = VmTime::from_ticks(ticks, hz);
                assert_eq!(time.ticks(hz), ticks, "{ticks} ticks of {hz} Hz");
                if ticks > 0 {
                    assert_eq!(time.sub(1).ticks(hz), ticks - 1, "{ticks} ticks of {hz} Hz");
                }
            }
        }
    }

    #[test]
    fn a_second_has_exactly_hz_ticks_even_after_a_year() {
        let year = 365 * 86_400;
        assert_eq!(VmTime(year * 1_000_000_000).ticks(1_193_182), year * 1_193_182);
    }

    #[test]
    fn out_of_range_saturates() {
        assert_eq!(VmTime::from_ticks(u64::MAX, 1), VmTime::MAX);
        assert_eq!(VmTime::MAX.ticks(u64::MAX), u64::MAX);
        assert_eq!(VmTime(1).sub(2), VmTime::ZERO);
        assert_eq!(VmTime(1).since(VmTime(2)), 0);
    }
}
