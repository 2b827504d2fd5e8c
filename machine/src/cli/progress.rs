//! A line on the terminal that says how far it is.

use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The line is shown when it takes longer than this.
const PATIENCE: Duration = Duration::from_secs(2);
/// So often it is written anew.
const OFTEN: Duration = Duration::from_millis(200);

/// The line.
pub(super) struct Progress {
    started: Instant,
    last: Mutex<Instant>,
    visible: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        let started = Instant::now();
        Self { started, last: Mutex::new(started), visible: io::stderr().is_terminal() }
    }

    /// Writes the line, if it is due.
    pub(super) fn show(&self, line: impl FnOnce() -> String) {
        if !self.visible || self.started.elapsed() < PATIENCE {
            return;
        }
        let Ok(mut last) = self.last.try_lock() else { return };
        if last.elapsed() > OFTEN {
            *last = Instant::now();
            eprint!("\r\x1b[K{}, {} s", line(), self.started.elapsed().as_secs());
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        if self.visible && self.started.elapsed() > PATIENCE {
            eprint!("\r\x1b[K");
        }
    }
}
