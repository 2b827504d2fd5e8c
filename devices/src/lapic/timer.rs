//! The local APIC's timer (SDM vol. 3, 10.5.4).

use serde::{Deserialize, Serialize};

use crate::time::VmTime;

/// How the timer runs: bits 18:17 of its LVT entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
    Reserved,
}

impl TimerMode {
    pub(super) fn from_lvt(entry: u32) -> Self {
        match entry >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timer {
    hz: u64,
    /// The divide configuration register.
    divide: u32,
    initial: u32,
    /// The tick of the undivided clock at which the count was `count`; none while stopped.
    start: Option<u64>,
    count: u32,
    /// IA32_TSC_DEADLINE while armed, and when that is.
    deadline: u64,
    deadline_at: Option<VmTime>,
}

/// What the timer's registers show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) divide: u32,
    pub(super) initial: u32,
    pub(super) current: u32,
}

impl Timer {
    pub(super) fn new(hz: u64) -> Self {
        Self { hz, divide: 0, initial: 0, start: None, count: 0, deadline: 0, deadline_at: None }
    }

    pub(super) fn divide(&self) -> u32 {
        self.divide
    }

    pub(super) fn initial(&self) -> u32 {
        self.initial
    }

    /// The current count; zero where the timer does not count down.
    pub(super) fn current(&self, now: VmTime) -> u32 {
        let Some(start) = self.start else { return 0 };
        let elapsed = (now.ticks(self.hz).saturating_sub(start)) / self.divisor();
        u64::from(self.count).saturating_sub(elapsed) as u32
    }

    /// Changes the divisor; what is left of the count goes on with the new one.
    pub(super) fn set_divide(&mut self, now: VmTime, value: u32) {
        if self.start.is_some() {
            self.count = self.current(now);
            self.start = Some(now.ticks(self.hz));
        }
        self.divide = value & 0xb;
    }

    /// Writes the initial count, which starts the timer, or stops it with zero.
    pub(super) fn set_initial(&mut self, now: VmTime, value: u32) {
        self.initial = value;
        self.count = value;
        self.start = (value != 0).then(|| now.ticks(self.hz));
    }

    /// Goes on with what the registers of a timer show that has run elsewhere. One that shows no
    /// initial count is stopped: it shows the count that it had before.
    pub(super) fn go_on(&mut self, now: VmTime, mode: TimerMode, shown: Shown) {
        self.divide = shown.divide & 0xb;
        self.deadline = 0;
        self.deadline_at = None;
        // At its very end, a periodic count is at its beginning.
        let periodic = mode == TimerMode::Periodic && shown.current == 0;
        self.count = if periodic { shown.initial } else { shown.current };
        self.start = (self.count != 0).then(|| now.ticks(self.hz));
        if shown.initial != 0 {
            self.initial = shown.initial;
        }
    }

    /// What the registers show to somebody who is to go on with it: a count that has run out would
    /// run out again there, so that one shows no initial count.
    pub(super) fn shown(&self, now: VmTime) -> Shown {
        let initial = if self.start.is_some() { self.initial } else { 0 };
        Shown { divide: self.divide, initial, current: self.current(now) }
    }

    /// Stops the timer, as a change to or from TSC-deadline mode does.
    pub(super) fn disarm(&mut self) {
        self.start = None;
        self.deadline = 0;
        self.deadline_at = None;
    }

    pub(super) fn tsc_deadline(&self) -> u64 {
        self.deadline
    }

    pub(super) fn set_tsc_deadline(&mut self, value: u64, at: Option<VmTime>) {
        self.deadline = value;
        self.deadline_at = at.filter(|_| value != 0);
    }

    /// When the timer will expire next.
    pub(super) fn next_expiry(&self, now: VmTime, mode: TimerMode) -> Option<VmTime> {
        if mode == TimerMode::TscDeadline {
            return self.deadline_at;
        }
        let mut timer = *self;
        timer.expired(now, mode);
        let ticks = u64::from(timer.count) * timer.divisor();
        Some(VmTime::from_ticks(timer.start?.saturating_add(ticks), timer.hz))
    }

    /// Whether the timer has expired, once or more, since it was last asked.
    pub(super) fn expired(&mut self, now: VmTime, mode: TimerMode) -> bool {
        if mode == TimerMode::TscDeadline {
            let expired = self.deadline_at.is_some_and(|at| at <= now);
            if expired {
                self.disarm();
            }
            return expired;
        }
        let Some(start) = self.start else { return false };
        let elapsed = now.ticks(self.hz).saturating_sub(start);
        let first = u64::from(self.count) * self.divisor();
        if elapsed < first {
            return false;
        }
        let period = u64::from(self.initial) * self.divisor();
        if mode == TimerMode::Periodic && period != 0 {
            self.start = Some(start + first + (elapsed - first) / period * period);
            self.count = self.initial;
        } else {
            self.start = None;
        }
        true
    }

    /// The divide value: bits 3, 1 and 0 of its register.
    fn divisor(&self) -> u64 {
        match self.divide & 3 | self.divide >> 1 & 4 {
            7 => 1,
            shift => 2 << shift,
        }
    }
}
