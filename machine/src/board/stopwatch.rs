//! Ports at which a guest has its operations timed by the host: see
//! [`brolga_test_roms::nanobench`]. Nobody answers there unless the host measures.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use brolga_devices::VmTime;
use brolga_test_roms::nanobench::{FAULT, MARK, RESULT, ROW, START, STOP, STOPWATCH};

/// The ports.
pub(super) const PORTS: RangeInclusive<u16> = STOPWATCH..=STOPWATCH + 15;

/// The host's hand on the watch. Rows are numbers that the guest gives.
pub trait Stopwatch: Debug + Send {
    /// The guest is about to begin with a row.
    fn row(&mut self, row: u32);

    /// How often the guest is to repeat the row; never again if 0.
    fn repetitions(&mut self) -> u32;

    /// The repetitions begin, when the guest's time is `now`.
    fn start(&mut self, now: VmTime);

    /// They are over.
    fn stop(&mut self, now: VmTime);

    /// The guest has seen so many operations happen.
    fn result(&mut self, operations: u32);

    /// The row has ended with an exception.
    fn fault(&mut self, vector: u32);
}

/// IN, of 32 bits.
pub(super) fn read(stopwatch: Option<&mut (dyn Stopwatch + 'static)>, offset: u16) -> u32 {
    match (stopwatch, offset) {
        (Some(stopwatch), ROW) => stopwatch.repetitions(),
        _ => u32::MAX,
    }
}

/// OUT, of 32 bits.
pub(super) fn write(
    stopwatch: Option<&mut (dyn Stopwatch + 'static)>,
    now: VmTime,
    offset: u16,
    value: u32,
) {
    let Some(stopwatch) = stopwatch else { return };
    match (offset, value) {
        (ROW, _) => stopwatch.row(value),
        (MARK, START) => stopwatch.start(now),
        (MARK, STOP) => stopwatch.stop(now),
        (RESULT, _) => stopwatch.result(value),
        (FAULT, _) => stopwatch.fault(value),
        _ => {}
    }
}
