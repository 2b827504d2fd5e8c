//! Output pins.

use serde::{Deserialize, Serialize};

/// An output pin. The chip sets it; the machine takes what has changed and drives the inputs that
/// are wired to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IrqLine {
    level: bool,
    /// Level changes since the last [`take`](Self::take): none, one, or more.
    changes: u8,
}

/// What became of a line since it was last taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineChange {
    /// The level now.
    pub level: bool,
    /// The line has also been at `level` before and left it again: it changed more than once, and
    /// setting only the final level would lose an edge.
    pub pulsed: bool,
}

impl LineChange {
    /// The levels to drive, in order, so that an input that follows sees every kind of edge that
    /// the line made.
    pub fn levels(self) -> impl Iterator<Item = bool> {
        let Self { level, pulsed } = self;
        [level, !level, level].into_iter().skip(if pulsed { 0 } else { 2 })
    }
}

impl IrqLine {
    /// Drives the pin.
    pub fn set(&mut self, level: bool) {
        if self.level != level {
            self.level = level;
            self.changes = (self.changes + 1).min(2);
        }
    }

    /// Drives the pin to the other level and back.
    pub fn pulse(&mut self) {
        self.changes = 2;
    }

    /// The level now.
    pub fn level(&self) -> bool {
        self.level
    }

    /// What has changed since the last call.
    pub fn take(&mut self) -> Option<LineChange> {
        let changes = std::mem::take(&mut self.changes);
        (changes > 0).then_some(LineChange { level: self.level, pulsed: changes > 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sets: &[bool]) -> Option<LineChange> {
        let mut line = IrqLine::default();
        sets.iter().for_each(|&level| line.set(level));
        line.take()
    }

    #[test]
    fn a_change_is_taken_once() {
        let mut line = IrqLine::default();
        assert_eq!(line.take(), None);
        line.set(true);
        line.set(true);
        assert_eq!(line.take(), Some(LineChange { level: true, pulsed: false }));
        assert_eq!(line.take(), None);
        assert!(line.level());
    }

    #[test]
    fn no_rising_edge_is_lost() {
        for sets in [&[true][..], &[true, false], &[true, false, true]] {
            let change = taken(sets).expect("the line changed");
            let driven: Vec<bool> = std::iter::once(false).chain(change.levels()).collect();
            assert!(driven.windows(2).any(|pair| pair == [false, true]), "{sets:?}: {driven:?}");
            assert_eq!(driven.last(), sets.last());
        }
    }

    #[test]
    fn a_pulse_keeps_the_level() {
        let mut line = IrqLine::default();
        line.pulse();
        assert_eq!(line.take(), Some(LineChange { level: false, pulsed: true }));
    }
}
