//! The chips as a list: what time does to them.

use brolga_devices::VmTime;

use super::Chipset;

/// A chip, or a part of the board that answers accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chip {
    Pic,
    Pit,
    Port61,
    Rtc,
    Dma,
    I8042,
    CoprocessorError,
    Uart,
    Vga,
    Post,
    Debug,
    Port92,
    ResetControl,
    ExitPort,
    Pm,
    Pci,
    Hpet,
    IoApic,
    Lapic,
    Stopwatch,
}

impl Chip {
    /// Those that change something by themselves as time passes.
    const TIMED: [Chip; 6] = [Chip::Pit, Chip::Rtc, Chip::Uart, Chip::Pm, Chip::Hpet, Chip::Lapic];
}

impl Chipset {
    /// Brings every chip up to date and carries what has changed through the wires.
    pub fn advance(&mut self, now: VmTime) {
        for chip in Chip::TIMED {
            self.advance_chip(chip, now);
        }
        self.propagate();
    }

    /// When a chip will next change something by itself.
    pub fn next_event(&self, now: VmTime) -> Option<VmTime> {
        Chip::TIMED.into_iter().filter_map(|chip| self.next_event_of(chip, now)).min()
    }

    /// Says when the machine will look at the chips again at the latest: an access that makes an
    /// earlier event ends the slice.
    pub fn plan(&mut self, deadline: Option<VmTime>) {
        self.planned = deadline.unwrap_or(VmTime::MAX);
    }

    /// Whether, after an access to `chip`, something must happen before the time that the machine
    /// has planned for. Whoever holds the stopwatch may want to look at each mark.
    pub(super) fn is_early(&self, chip: Chip, now: VmTime) -> bool {
        chip == Chip::Stopwatch
            || now >= self.planned
            || self.next_event_of(chip, now).is_some_and(|event| event < self.planned)
    }

    fn advance_chip(&mut self, chip: Chip, now: VmTime) {
        match chip {
            Chip::Pit => self.pit.advance(now),
            Chip::Rtc => self.rtc.advance(now),
            Chip::Uart => self.uart.advance(now),
            Chip::Pm => self.pm.advance(now),
            Chip::Hpet => self.hpet.advance(now),
            Chip::Lapic if self.lent.is_none() => self.lapic.advance(now),
            _ => {}
        }
    }

    fn next_event_of(&self, chip: Chip, now: VmTime) -> Option<VmTime> {
        match chip {
            Chip::Pit => self.pit.next_event(now),
            Chip::Rtc => self.rtc.next_event(now),
            Chip::Uart => self.uart.next_event(now),
            Chip::Pm => self.pm.next_event(now),
            Chip::Hpet => self.hpet.next_event(now),
            Chip::Lapic if self.lent.is_none() => self.lapic.next_event(now),
            _ => None,
        }
    }
}
