//! The two 8237A DMA controllers of a PC and their page registers, as far as software can probe
//! them: every register reads back, nothing is ever transferred (Intel 8237A datasheet, 231466;
//! page registers: PIIX3 2.5.1).

use serde::{Deserialize, Serialize};

use crate::time::VmTime;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Channel {
    address: u16,
    count: u16,
    mode: u8,
}

/// One 8237A.
#[derive(Debug)]
pub struct Dma8237 {
    channels: [Channel; 4],
    command: u8,
    requests: u8,
    masks: u8,
    /// The next byte of an address or a count is the high one.
    high_byte: bool,
}

saved_state! {
    /// The state of a [`Dma8237`].
    Dma8237Saved of Dma8237 {
        channels: [Channel; 4], command: u8, requests: u8, masks: u8, high_byte: bool,
    }
}

impl Default for Dma8237 {
    fn default() -> Self {
        Self { channels: Default::default(), command: 0, requests: 0, masks: 0xf, high_byte: false }
    }
}

impl Dma8237 {
    /// Clears what the master clear command clears: all but addresses, counts and modes
    /// (datasheet, "Software commands").
    fn master_clear(&mut self) {
        *self = Self { channels: self.channels, ..Self::default() };
    }

    /// Reads one of the 16 registers.
    pub fn read(&mut self, _now: VmTime, offset: u16) -> u8 {
        match offset {
            0..8 => {
                let channel = &self.channels[usize::from(offset / 2)];
                let word = if offset & 1 == 0 { channel.address } else { channel.count };
                let byte = word.to_le_bytes()[usize::from(self.high_byte)];
                self.high_byte = !self.high_byte;
                byte
            }
            // Status: requests; no channel has reached its terminal count.
            8 => self.requests << 4,
            // The temporary register.
            13 => 0,
            15 => self.masks | 0xf0,
            _ => 0xff,
        }
    }

    /// Writes one of the 16 registers.
    pub fn write(&mut self, _now: VmTime, offset: u16, value: u8) {
        let bit = 1 << (value & 3);
        let set = value & 4 != 0;
        match offset {
            0..8 => {
                let channel = &mut self.channels[usize::from(offset / 2)];
                let word = if offset & 1 == 0 { &mut channel.address } else { &mut channel.count };
                let mut bytes = word.to_le_bytes();
                bytes[usize::from(self.high_byte)] = value;
                *word = u16::from_le_bytes(bytes);
                self.high_byte = !self.high_byte;
            }
            8 => self.command = value,
            9 => self.requests = self.requests & !bit | if set { bit } else { 0 },
            10 => self.masks = self.masks & !bit | if set { bit } else { 0 },
            11 => self.channels[usize::from(value & 3)].mode = value,
            12 => self.high_byte = false,
            13 => self.master_clear(),
            14 => self.masks = 0,
            15 => self.masks = value & 0xf,
            _ => {}
        }
    }
}

/// Both controllers and the page registers.
#[derive(Debug, Default)]
pub struct DmaPair {
    first: Dma8237,
    second: Dma8237,
    pages: [u8; 16],
}

/// The state of a [`DmaPair`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmaPairSaved {
    first: Dma8237Saved,
    second: Dma8237Saved,
    pages: [u8; 16],
}

impl DmaPair {
    /// Offsets: the first controller's 16 registers (ports 00h to 0Fh), ...
    pub const FIRST: u16 = 0x00;
    /// ... the second's (ports C0h to DEh, even ones: the port's offset halved), ...
    pub const SECOND: u16 = 0x10;
    /// ... and the page registers (ports 80h to 8Fh).
    pub const PAGES: u16 = 0x20;

    /// Both controllers at power-on.
    pub fn new() -> Self {
        Self::default()
    }

    /// The power-on state.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Reads a register.
    pub fn read(&mut self, now: VmTime, offset: u16) -> u8 {
        match offset {
            0x00..0x10 => self.first.read(now, offset),
            0x10..0x20 => self.second.read(now, offset - Self::SECOND),
            0x20..0x30 => self.pages[usize::from(offset - Self::PAGES)],
            _ => 0xff,
        }
    }

    /// Writes a register.
    pub fn write(&mut self, now: VmTime, offset: u16, value: u8) {
        match offset {
            0x00..0x10 => self.first.write(now, offset, value),
            0x10..0x20 => self.second.write(now, offset - Self::SECOND, value),
            0x20..0x30 => self.pages[usize::from(offset - Self::PAGES)] = value,
            _ => {}
        }
    }

    /// The state of both, for a snapshot.
    pub fn saved(&self) -> DmaPairSaved {
        let Self { first, second, pages } = self;
        DmaPairSaved { first: first.saved(), second: second.saved(), pages: *pages }
    }

    /// Puts both into a state that `saved` returned.
    pub fn restore(&mut self, saved: DmaPairSaved) {
        let DmaPairSaved { first, second, pages } = saved;
        self.first.restore(first);
        self.second.restore(second);
        self.pages = pages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: VmTime = VmTime::ZERO;

    #[test]
    fn addresses_and_counts_read_back_in_two_bytes() {
        let mut dma = DmaPair::new();
        for base in [DmaPair::FIRST, DmaPair::SECOND] {
            for offset in base..base + 8 {
                dma.write(NOW, base + 12, 0);
                dma.write(NOW, offset, offset as u8);
                dma.write(NOW, offset, 0xa0 | offset as u8);
            }
            for offset in base..base + 8 {
                dma.write(NOW, base + 12, 0);
                let bytes = [dma.read(NOW, offset), dma.read(NOW, offset)];
                assert_eq!(bytes, [offset as u8, 0xa0 | offset as u8]);
            }
        }
    }

    #[test]
    fn masks_and_requests() {
        let mut dma = DmaPair::new();
        assert_eq!(dma.read(NOW, 15), 0xff, "masked after power-on");
        dma.write(NOW, 10, 2);
        assert_eq!(dma.read(NOW, 15), 0xfb);
        dma.write(NOW, 9, 5);
        assert_eq!(dma.read(NOW, 8), 0x20);
        dma.write(NOW, 14, 0);
        assert_eq!(dma.read(NOW, 15), 0xf0);
        dma.write(NOW, 13, 0);
        assert_eq!((dma.read(NOW, 15), dma.read(NOW, 8)), (0xff, 0));
    }

    #[test]
    fn pages_read_back_and_survive_a_snapshot() {
        let mut dma = DmaPair::new();
        dma.write(NOW, DmaPair::PAGES + 7, 0x5a);
        let mut other = DmaPair::new();
        other.restore(dma.saved());
        assert_eq!(other.read(NOW, DmaPair::PAGES + 7), 0x5a);
        other.reset();
        assert_eq!(other.read(NOW, DmaPair::PAGES + 7), 0);
    }
}
