//! System control port B, port 61h: the speaker, channel 2's gate, and the refresh toggle
//! (PIIX3 datasheet 2.5.3.1, "NMI status and control register").

use crate::pit;
use crate::time::VmTime;

/// Channel 1 of the 8254 requests a refresh every 18 of its ticks, about 15 us.
const REFRESH_TICKS: u64 = 18;

/// Bits 0 to 3 can be written: gate 2, speaker data, and the two NMI disables.
const WRITABLE: u8 = 0x0f;

/// System control port B. The 8254 is another chip: the machine carries the gate to it and brings
/// its output.
#[derive(Debug, Default)]
pub struct Port61 {
    control: u8,
}

saved_state! {
    /// The state of a [`Port61`].
    Port61Saved of Port61 { control: u8 }
}

impl Port61 {
    /// The power-on state.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The gate of the 8254's channel 2.
    pub fn gate2(&self) -> bool {
        self.control & 1 != 0
    }

    /// Whether channel 2's output reaches the speaker.
    pub fn speaker(&self) -> bool {
        self.control & 3 == 3
    }

    /// Reads the port; `out2` is the output of the 8254's channel 2 now.
    pub fn read(&mut self, now: VmTime, out2: bool) -> u8 {
        let refreshes = now.ticks(pit::HZ) / REFRESH_TICKS;
        self.control | (refreshes as u8 & 1) << 4 | u8::from(out2) << 5
    }

    /// Writes the port. The machine then sets the 8254's gate from [`gate2`](Self::gate2).
    pub fn write(&mut self, _now: VmTime, value: u8) {
        self.control = value & WRITABLE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_bits_are_read_only() {
        let mut port = Port61::default();
        port.write(VmTime::ZERO, 0xff);
        assert_eq!(port.read(VmTime::ZERO, false), 0x0f);
        assert_eq!(port.read(VmTime::ZERO, true), 0x2f);
        assert!(port.gate2() && port.speaker());
        port.write(VmTime::ZERO, 1);
        assert!(port.gate2() && !port.speaker());
    }

    #[test]
    fn the_refresh_bit_toggles_every_fifteen_microseconds() {
        let mut port = Port61::default();
        let bits: Vec<u8> =
            (0..4).map(|i| port.read(VmTime(i * 15_086 + 10), false) & 0x10).collect();
        assert_eq!(bits, [0, 0x10, 0, 0x10]);
    }
}
