//! The event loop: slices of execution, and what happens between them.

use std::time::{Duration, Instant};

use brolga_cpu::bus::Lines;
use brolga_cpu::core::Stop;
use brolga_devices::Request;

use crate::accel::{HostFailure, Slice};
use crate::board::{Signals, lock};
use crate::crash::CrashReport;
use crate::exit::End;
use crate::machine::{Machine, OnTripleFault};
use crate::start;

/// The longest sleep without a look at the host.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// The shortest and the longest slice of an engine that does not count instructions: long enough to
/// make headway, and short enough that input and output are not late.
const SHORTEST_SLICE: Duration = Duration::from_micros(10);
const LONGEST_SLICE: Duration = Duration::from_millis(1);

/// What ends a run from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// When to give up.
    pub deadline: Option<Instant>,
    /// The count of retired instructions at which to stop.
    pub instructions: Option<u64>,
}

/// Recognises a guest that does nothing but reset.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ResetCounter {
    in_a_row: u32,
    last: u64,
}

impl ResetCounter {
    /// Resets so close to each other are a loop...
    const CLOSE: u64 = 100_000;
    /// ... when there are so many of them.
    const MANY: u32 = 10;

    /// A reset after `retired` instructions: whether it is one too many.
    fn count(&mut self, retired: u64) -> bool {
        let is_close = retired.saturating_sub(self.last) <= Self::CLOSE;
        self.in_a_row = if is_close { self.in_a_row + 1 } else { 1 };
        self.last = retired;
        self.in_a_row >= Self::MANY
    }
}

impl Machine {
    /// Runs until the guest, the user, or a limit ends it.
    pub fn run(&mut self, limits: &Limits) -> End {
        loop {
            if let Err(end) = self.turn(limits) {
                return end;
            }
        }
    }

    /// As [`Machine::slice`]; if it ends the run, the vCPU can be looked at.
    pub(crate) fn turn(&mut self, limits: &Limits) -> Result<(), End> {
        let turned = self.slice(limits);
        if turned.is_err() {
            self.accel.settle();
        }
        turned
    }

    /// One slice of execution, and the look around before it if one is due: a limit cuts a slice
    /// short without one, so that a run in pieces is the same as a run in one.
    fn slice(&mut self, limits: &Limits) -> Result<(), End> {
        if self.retired() >= self.next_look {
            self.look()?;
        }
        self.check_limits(limits)?;
        let before = self.retired();
        let limit = limits.instructions.unwrap_or(u64::MAX);
        let instructions = self.next_look.min(limit).saturating_sub(before);
        let started = Instant::now();
        let stop = if limits.instructions.is_some() {
            self.accel.run(instructions)
        } else {
            let slice = Slice { instructions, time: self.slice_time };
            self.accel.run_slice(&slice).map_err(host_error)?
        };
        let executed = self.retired() - before;
        if !matches!(stop, Stop::Budget | Stop::Debugger) {
            self.next_look = 0;
        }
        match stop {
            Stop::Budget | Stop::Replan | Stop::Debugger => {
                lock(&self.chipset).clock.ran(executed, started.elapsed());
                Ok(())
            }
            Stop::Halted => self.idle(limits),
            Stop::Shutdown => self.shut_down(),
        }
    }

    /// Brings the chips up to date, exchanges what there is between guest, chips and user, and
    /// plans the next slice.
    fn look(&mut self) -> Result<(), End> {
        let quit = self.serial.wants_to_quit();
        // What is written may be answered at once.
        self.flush()?;
        let signals = self.exchange();
        if signals.text_seen {
            return Err(End::StoppedOnSerial);
        }
        match signals.request {
            Some(Request::PowerOff) => return Err(End::PowerOff),
            Some(Request::Exit(value)) => return Err(End::ExitPort { value }),
            Some(Request::Reset) => self.reset_by_guest()?,
            Some(Request::A20(_)) | None => {}
        }
        if quit {
            return Err(End::Quit);
        }
        self.drive_vcpu(signals);
        self.follow_plan()?;
        self.plan();
        Ok(())
    }

    /// Time passes for the chips, and bytes go over the serial line.
    fn exchange(&mut self) -> Signals {
        let retired = self.retired();
        let mut chips = lock(&self.chipset);
        let now = chips.now(retired);
        while chips.uart.rx_space() > 0
            && let Some(byte) = self.serial.next_byte()
        {
            chips.receive_serial(now, byte);
        }
        chips.advance(now);
        chips.take_signals()
    }

    /// Writes what the guest has sent.
    pub(crate) fn flush(&mut self) -> Result<(), End> {
        let output = lock(&self.chipset).take_serial_output();
        if output.is_empty() {
            return Ok(());
        }
        self.serial.write(&output).map_err(|error| End::HostError {
            message: format!("the serial output cannot be written: {error}"),
        })
    }

    fn check_limits(&mut self, limits: &Limits) -> Result<(), End> {
        if limits.instructions.is_some_and(|limit| self.retired() >= limit) {
            self.flush()?;
            return Err(End::InstructionLimit);
        }
        if limits.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(End::Timeout);
        }
        Ok(())
    }

    /// The inputs of the vCPU, and the A20 gate on its address lines.
    fn drive_vcpu(&mut self, signals: Signals) {
        if signals.init {
            self.accel.settle();
            lock(&self.chipset).init_lapic();
            start::init(self.accel.core_mut());
        }
        let chips = lock(&self.chipset);
        let lines = self.accel.lines_mut();
        *lines = Lines { intr: chips.intr(), nmi: lines.nmi || signals.nmi };
        let a20 = chips.a20();
        drop(chips);
        if a20 != self.map().a20() {
            self.map().set_a20(a20);
            self.accel.core_mut().mem.tlb.flush_all();
        }
    }

    /// Plans the next slice: up to the chips' next event.
    fn plan(&mut self) {
        let retired = self.retired();
        let mut chips = lock(&self.chipset);
        let now = chips.now(retired);
        let event = chips.next_event(now);
        chips.plan(event);
        let budget = chips.clock.budget(now, event).min(self.instructions_to_change());
        self.next_look = retired.saturating_add(budget);
        let left = event.map_or(LONGEST_SLICE, |event| Duration::from_nanos(event.since(now)));
        self.slice_time = left.clamp(SHORTEST_SLICE, LONGEST_SLICE);
    }

    /// The CPU has halted: sleeps until something may wake it.
    fn idle(&mut self, limits: &Limits) -> Result<(), End> {
        let interrupts_enabled = self.accel.interrupts_enabled();
        let retired = self.retired();
        let mut chips = lock(&self.chipset);
        let now = chips.now(retired);
        // A timer that has run out since the last look has no event any more, but a result.
        chips.advance(now);
        if chips.would_wake(interrupts_enabled) {
            return Ok(());
        }
        if !interrupts_enabled && !chips.nmi_is_possible(now) {
            drop(chips);
            return Err(self.halted_for_good(false));
        }
        let sleep = match chips.next_event(now) {
            Some(event) => chips.clock.sleep_until(now, event.max(now.add(1))),
            None if self.serial.may_speak() => LONGEST_SLEEP,
            None => {
                drop(chips);
                return Err(self.halted_for_good(true));
            }
        };
        drop(chips);
        if !sleep.is_zero() {
            let left = limits.deadline.map_or(LONGEST_SLEEP, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            self.serial.wait(sleep.min(left).min(LONGEST_SLEEP));
        }
        Ok(())
    }

    fn halted_for_good(&mut self, interrupts_enabled: bool) -> End {
        self.accel.settle();
        End::Halted { interrupts_enabled, report: Box::new(CrashReport::new(self)) }
    }

    fn shut_down(&mut self) -> Result<(), End> {
        match self.on_triple_fault {
            OnTripleFault::Stop => {
                Err(End::TripleFault { report: Box::new(CrashReport::new(self)) })
            }
            OnTripleFault::Reset if self.debug.is_to_see_the_end(self.retired()) => {
                Err(End::TripleFault { report: Box::new(CrashReport::new(self)) })
            }
            OnTripleFault::Reset => self.reset_by_guest(),
        }
    }

    fn reset_by_guest(&mut self) -> Result<(), End> {
        let retired = self.retired();
        // An engine that does not count executes some thousand instructions in a microsecond.
        let done = match self.accel.counts_instructions() {
            true => retired,
            false => lock(&self.chipset).now(retired).0 / 1000,
        };
        if self.resets.count(done) {
            return Err(End::ResetLoop { resets: ResetCounter::MANY });
        }
        self.reset().map_err(|error| End::HostError { message: error.to_string() })
    }
}

fn host_error(HostFailure(message): HostFailure) -> End {
    End::HostError { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_close_resets_are_a_loop() {
        let mut counter = ResetCounter::default();
        let verdicts: Vec<bool> = (1..=10).map(|n| counter.count(n * 100_000)).collect();
        assert_eq!(verdicts, [vec![false; 9], vec![true]].concat());
    }

    #[test]
    fn a_reset_after_some_work_starts_the_count_again() {
        let mut counter = ResetCounter::default();
        assert!((1..=9).all(|n| !counter.count(n)));
        assert!(!counter.count(200_000));
        assert!((1..=8).all(|n| !counter.count(200_000 + n)));
        assert!(counter.count(200_009));
    }
}
