//! One counter of the 8254.

use serde::{Deserialize, Serialize};

/// A counter. "Operation" names below are the datasheet's mode definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Channel {
    /// 0 to 5.
    mode: u8,
    bcd: bool,
    /// 1: least significant byte, 2: most significant, 3: both.
    access: u8,
    gate: bool,
    /// The count register.
    reload: Option<u32>,
    /// The tick at which the counting element was loaded, or will be; none while it does not run.
    epoch: Option<u64>,
    /// What it was loaded with.
    count: u32,
    /// A count that is waiting for the end of the period (modes 2, 3) or for a trigger (1, 5).
    pending: bool,
    /// The output until `epoch`.
    before: bool,
    /// Ticks that had been counted when the gate went low (modes 0, 4).
    held: Option<u64>,
    /// Mode 3: whether the half that begins at `epoch` is the high one.
    high_half: bool,
    /// The first byte of a two-byte write.
    first_byte: Option<u8>,
    read_second: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            mode: 0,
            bcd: false,
            access: 3,
            gate: true,
            reload: None,
            epoch: None,
            count: 0,
            pending: false,
            before: false,
            held: None,
            high_half: true,
            first_byte: None,
            read_second: false,
            latched_count: None,
            latched_status: None,
        }
    }
}

impl Channel {
    /// Writes a control word: a counter latch command, or a mode.
    pub(super) fn control(&mut self, tick: u64, value: u8) {
        let access = value >> 4 & 3;
        if access == 0 {
            return self.latch_count(tick);
        }
        let mode = value >> 1 & 7;
        *self = Self {
            mode: if mode > 5 { mode - 4 } else { mode },
            bcd: value & 1 != 0,
            access,
            gate: self.gate,
            before: mode != 0,
            ..Self::default()
        };
    }

    pub(super) fn write(&mut self, tick: u64, value: u8) {
        match (self.access, self.first_byte.take()) {
            (1, _) => self.set_count(tick, value.into()),
            (2, _) => self.set_count(tick, u16::from(value) << 8),
            (_, Some(low)) => self.set_count(tick, u16::from_le_bytes([low, value])),
            (_, None) => {
                self.first_byte = Some(value);
                if self.mode == 0 {
                    // Mode 0: the first byte stops the counting, and the output goes low.
                    self.epoch = None;
                    self.before = false;
                }
            }
        }
    }

    pub(super) fn read(&mut self, tick: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.value(tick)).to_le_bytes();
        let second = self.access == 3 && self.read_second;
        self.read_second = self.access == 3 && !self.read_second;
        if self.access != 3 || second {
            self.latched_count = None;
        }
        if second || self.access == 2 { high } else { low }
    }

    /// Latches the count, unless one is still waiting to be read.
    pub(super) fn latch_count(&mut self, tick: u64) {
        self.latched_count.get_or_insert(self.value(tick));
    }

    /// Latches the status byte, unless one is still waiting to be read.
    pub(super) fn latch_status(&mut self, tick: u64) {
        let null = self.pending || self.epoch.is_none_or(|epoch| tick < epoch);
        let status = u8::from(self.output(tick)) << 7
            | u8::from(null) << 6
            | self.access << 4
            | self.mode << 1
            | u8::from(self.bcd);
        self.latched_status.get_or_insert(status);
    }

    pub(super) fn set_gate(&mut self, tick: u64, level: bool) {
        if self.gate == level {
            return;
        }
        self.roll(tick);
        match (self.mode, level) {
            (0 | 4, false) => self.held = self.epoch.map(|epoch| tick.saturating_sub(epoch)),
            (0 | 4, true) => {
                if let (Some(held), Some(epoch)) = (self.held.take(), self.epoch) {
                    self.epoch = Some(epoch.max(tick.saturating_sub(held)));
                }
            }
            (1 | 5, false) => {}
            (_, false) => {
                // Modes 2 and 3: the output goes high at once.
                self.epoch = None;
                self.before = true;
            }
            (_, true) => {
                if let Some(reload) = self.reload {
                    self.load(tick, reload);
                }
            }
        }
        self.gate = level;
    }

    /// The output during a tick.
    pub(super) fn output(&self, tick: u64) -> bool {
        let channel = self.rolled(tick);
        match channel.elapsed(tick) {
            None => channel.before,
            Some(elapsed) => {
                let count = u64::from(channel.count);
                match channel.mode {
                    0 | 1 => elapsed >= count,
                    2 => elapsed + 1 != count,
                    3 => channel.high_half,
                    _ => elapsed != count,
                }
            }
        }
    }

    /// The first tick after `tick` at which the output differs from the tick before.
    pub(super) fn next_edge(&self, tick: u64) -> Option<u64> {
        let channel = self.rolled(tick);
        let epoch = channel.epoch?;
        if channel.held.is_some() {
            return None;
        }
        let count = u64::from(channel.count);
        let candidates = match channel.mode {
            2 => [0, count.saturating_sub(1), count],
            3 => [0, channel.half(), count],
            _ => [0, count, count + 1],
        };
        candidates
            .into_iter()
            .map(|offset| epoch.saturating_add(offset))
            .find(|&at| at > tick && self.output(at) != self.output(at - 1))
    }

    /// Moves `epoch` to the last reload at or before `tick` (modes 2 and 3).
    pub(super) fn roll(&mut self, tick: u64) {
        let (Some(epoch), 2 | 3) = (self.epoch, self.mode) else { return };
        let span = if self.mode == 2 { self.count.into() } else { self.half() };
        if self.pending && tick >= epoch.saturating_add(span) {
            self.start_half(epoch + span);
            self.count = self.reload.unwrap_or(self.count);
            self.pending = false;
        }
        let (Some(epoch), count) = (self.epoch, u64::from(self.count)) else { return };
        if tick >= epoch {
            self.epoch = Some(tick - (tick - epoch) % count.max(1));
        }
        if self.mode == 3 {
            self.finish_half(tick);
        }
    }

    fn rolled(&self, tick: u64) -> Self {
        let mut channel = *self;
        channel.roll(tick);
        channel
    }

    fn start_half(&mut self, tick: u64) {
        self.epoch = Some(tick);
        self.high_half = self.mode == 2 || !self.high_half;
    }

    fn finish_half(&mut self, tick: u64) {
        if let Some(epoch) = self.epoch
            && tick >= epoch.saturating_add(self.half())
        {
            self.start_half(epoch + self.half());
        }
    }

    /// The ticks of the present half period of mode 3: an odd count's high half has one more.
    fn half(&self) -> u64 {
        u64::from(if self.high_half { self.count.div_ceil(2) } else { self.count / 2 })
    }

    /// Ticks counted since the last load.
    fn elapsed(&self, tick: u64) -> Option<u64> {
        let epoch = self.epoch?;
        self.held.or_else(|| tick.checked_sub(epoch))
    }

    /// The counting element, as software reads it.
    fn value(&self, tick: u64) -> u16 {
        let channel = self.rolled(tick);
        let modulus = channel.modulus();
        let elapsed = (channel.elapsed(tick).unwrap_or(0) % u64::from(modulus)) as u32;
        let count = if channel.mode == 3 {
            // Mode 3 counts an even number down by two in each half.
            (channel.count & !1) + 2 * modulus - 2 * elapsed
        } else {
            channel.count + modulus - elapsed
        };
        channel.encode((count % modulus) as u16)
    }

    fn modulus(&self) -> u32 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    fn encode(&self, count: u16) -> u16 {
        if !self.bcd {
            return count;
        }
        (0..4).fold(0, |bcd, digit| bcd | (count / 10u16.pow(digit) % 10) << (4 * digit))
    }

    fn decode(&self, count: u16) -> u32 {
        let count = if self.bcd {
            (0..4).fold(0, |sum, digit| {
                sum + u32::from(count >> (4 * digit) & 0xf) * 10u32.pow(digit)
            }) % 10_000
        } else {
            count.into()
        };
        if count == 0 { self.modulus() } else { count }
    }

    /// Writes the count register.
    fn set_count(&mut self, tick: u64, count: u16) {
        self.roll(tick);
        let count = self.decode(count);
        self.reload = Some(count);
        match self.mode {
            0 | 4 => {
                self.load(tick, count);
                self.before &= self.mode != 0;
                self.held = (!self.gate).then_some(0);
            }
            1 | 5 => self.pending = true,
            _ if !self.gate => {}
            _ if self.epoch.is_none_or(|epoch| tick < epoch) => self.load(tick, count),
            _ => self.pending = true,
        }
    }

    /// Loads the counting element with the next tick.
    fn load(&mut self, tick: u64, count: u32) {
        self.before = self.output(tick);
        self.epoch = Some(tick + 1);
        self.count = count;
        self.pending = false;
        self.high_half = true;
    }
}
