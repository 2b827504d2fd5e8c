//! The 8254 programmable interval timer (Intel 8254 datasheet, 231164).
//!
//! Each channel is computed from the tick at which its counting element was loaded. A tick is one
//! falling edge of the 1.193182 MHz clock; what software writes between two ticks takes effect
//! with the next one.

mod channel;

use crate::line::IrqLine;
use crate::time::VmTime;
use channel::Channel;

/// The frequency of the PC's timer clock.
pub const HZ: u64 = 1_193_182;

/// The timer. Channel 0's output is a line; those of 1 and 2 are read by [`Pit::output`].
#[derive(Debug)]
pub struct Pit {
    /// The output of channel 0.
    pub irq: IrqLine,
    channels: [Channel; 3],
    /// The tick up to which the line is up to date.
    seen: u64,
}

saved_state! {
    /// The state of a [`Pit`].
    PitSaved of Pit { irq: IrqLine, channels: [Channel; 3], seen: u64 }
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

impl Pit {
    /// A timer at power-on. The datasheet leaves its state undefined; here no channel counts, and
    /// port 61h keeps the gate of channel 2 low.
    pub fn new() -> Self {
        let mut channels = [Channel::default(); 3];
        channels[2].set_gate(0, false);
        Self { irq: IrqLine::default(), channels, seen: 0 }
    }

    /// The power-on state.
    pub fn reset(&mut self) {
        *self = Self { irq: self.irq, seen: self.seen, ..Self::new() };
        self.irq.set(false);
    }

    /// The output of a channel now.
    pub fn output(&self, now: VmTime, channel: usize) -> bool {
        self.channels.get(channel).is_some_and(|channel| channel.output(now.ticks(HZ)))
    }

    /// Drives the gate of channel 2. Those of 0 and 1 are tied high.
    pub fn set_gate2(&mut self, now: VmTime, level: bool) {
        self.advance(now);
        self.channels[2].set_gate(now.ticks(HZ), level);
    }

    /// Reads a counter (0 to 2); the control word register (3) cannot be read.
    pub fn read(&mut self, now: VmTime, offset: u16) -> u8 {
        self.advance(now);
        match self.channels.get_mut(usize::from(offset)) {
            Some(channel) => channel.read(now.ticks(HZ)),
            None => 0xff,
        }
    }

    /// Writes a counter (0 to 2) or the control word register (3).
    pub fn write(&mut self, now: VmTime, offset: u16, value: u8) {
        self.advance(now);
        let tick = now.ticks(HZ);
        match offset {
            0..3 => self.channels[usize::from(offset)].write(tick, value),
            3 if value >> 6 == 3 => self.read_back(tick, value),
            3 => self.channels[usize::from(value >> 6)].control(tick, value),
            _ => {}
        }
        self.irq.set(self.channels[0].output(tick));
    }

    /// Brings the line up to date. However many edges there were, the line keeps only that it
    /// was pulsed, so looking at three is enough.
    pub fn advance(&mut self, now: VmTime) {
        let tick = now.ticks(HZ);
        for _ in 0..3 {
            match self.channels[0].next_edge(self.seen) {
                Some(edge) if edge <= tick => {
                    self.irq.set(self.channels[0].output(edge));
                    self.seen = edge;
                }
                _ => break,
            }
        }
        self.irq.set(self.channels[0].output(tick));
        self.channels.iter_mut().for_each(|channel| channel.roll(tick));
        self.seen = self.seen.max(tick);
    }

    /// When the line will next change.
    pub fn next_event(&self, now: VmTime) -> Option<VmTime> {
        let edge = self.channels[0].next_edge(now.ticks(HZ))?;
        Some(VmTime::from_ticks(edge, HZ))
    }

    /// The read-back command latches status and count of the selected channels.
    fn read_back(&mut self, tick: u64, command: u8) {
        for (i, channel) in self.channels.iter_mut().enumerate() {
            if command >> (i + 1) & 1 != 0 {
                if command & 0x20 == 0 {
                    channel.latch_count(tick);
                }
                if command & 0x10 == 0 {
                    channel.latch_status(tick);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A timer, and a clock that tests move by ticks.
    struct Bench {
        pit: Pit,
        tick: u64,
    }

    impl Bench {
        fn new() -> Self {
            Self { pit: Pit::new(), tick: 1000 }
        }

        fn now(&self) -> VmTime {
            VmTime::from_ticks(self.tick, HZ)
        }

        fn program(&mut self, channel: u8, mode: u8, count: u16) {
            self.pit.write(self.now(), 3, channel << 6 | 0x30 | mode << 1);
            self.count(channel, count);
        }

        fn count(&mut self, channel: u8, count: u16) {
            for byte in count.to_le_bytes() {
                self.pit.write(self.now(), channel.into(), byte);
            }
        }

        fn gate(&mut self, level: bool) {
            self.pit.set_gate2(self.now(), level);
        }

        fn read(&mut self, channel: u16) -> u16 {
            let now = self.now();
            u16::from_le_bytes([self.pit.read(now, channel), self.pit.read(now, channel)])
        }

        /// The output over the next ticks, the present one first.
        fn trace(&mut self, channel: usize, ticks: usize) -> String {
            let trace = (0..ticks)
                .map(|i| VmTime::from_ticks(self.tick + i as u64, HZ))
                .map(|at| if self.pit.output(at, channel) { '#' } else { '_' })
                .collect();
            self.tick += ticks as u64;
            self.pit.advance(self.now());
            trace
        }
    }

    #[test]
    fn mode_0_rises_n_plus_1_ticks_after_the_count() {
        let mut bench = Bench::new();
        bench.program(0, 0, 4);
        assert_eq!(bench.trace(0, 8), "_____###");
        bench.count(0, 2);
        assert_eq!(bench.trace(0, 5), "___##", "a new count starts over");
    }

    #[test]
    fn mode_0_counts_only_while_the_gate_is_high() {
        let mut bench = Bench::new();
        bench.gate(true);
        bench.program(2, 0, 4);
        assert_eq!(bench.trace(2, 3), "___");
        bench.gate(false);
        assert_eq!(bench.trace(2, 20), "_".repeat(20));
        assert_eq!(bench.read(2), 2);
        bench.gate(true);
        assert_eq!(bench.trace(2, 4), "__##");
    }

    #[test]
    fn mode_1_is_a_retriggerable_one_shot() {
        let mut bench = Bench::new();
        bench.program(2, 1, 3);
        assert_eq!(bench.trace(2, 3), "###");
        bench.gate(true);
        assert_eq!(bench.trace(2, 3), "#__");
        bench.gate(false);
        bench.gate(true);
        assert_eq!(bench.trace(2, 6), "____##");
    }

    #[test]
    fn mode_2_is_low_for_the_last_tick_of_each_period() {
        let mut bench = Bench::new();
        bench.program(0, 2, 4);
        assert_eq!(bench.trace(0, 10), "####_###_#");
        bench.count(0, 3);
        assert_eq!(bench.trace(0, 8), "##_##_##", "the new count starts with the next period");
    }

    #[test]
    fn mode_2_restarts_with_the_gate() {
        let mut bench = Bench::new();
        bench.gate(true);
        bench.program(2, 2, 3);
        assert_eq!(bench.trace(2, 3), "###");
        assert_eq!(bench.trace(2, 1), "_");
        bench.gate(false);
        assert_eq!(bench.trace(2, 5), "#####");
        bench.gate(true);
        assert_eq!(bench.trace(2, 5), "###_#");
    }

    #[test]
    fn mode_3_is_a_square_wave() {
        let mut bench = Bench::new();
        bench.program(0, 3, 4);
        assert_eq!(bench.trace(0, 9), "###__##__");
        let mut bench = Bench::new();
        bench.program(0, 3, 5);
        assert_eq!(bench.trace(0, 11), "####__###__", "odd: one tick more is high");
        let mut bench = Bench::new();
        bench.program(0, 3, 6);
        assert_eq!(bench.trace(0, 2), "##");
        bench.count(0, 2);
        assert_eq!(bench.trace(0, 6), "##_#_#", "the new count starts with the next half");
    }

    #[test]
    fn mode_4_strobes_for_one_tick() {
        let mut bench = Bench::new();
        bench.program(0, 4, 3);
        assert_eq!(bench.trace(0, 8), "####_###");
        assert_eq!(bench.trace(0, 4), "####", "once only");
    }

    #[test]
    fn mode_5_strobes_after_a_trigger() {
        let mut bench = Bench::new();
        bench.program(2, 5, 3);
        assert_eq!(bench.trace(2, 6), "######");
        bench.gate(true);
        assert_eq!(bench.trace(2, 6), "####_#");
    }

    #[test]
    fn counts_are_latched_and_read_in_halves() {
        let mut bench = Bench::new();
        bench.program(0, 2, 0x1000);
        bench.tick += 1 + 0x234;
        bench.pit.write(bench.now(), 3, 0x00);
        bench.tick += 0x100;
        bench.pit.write(bench.now(), 3, 0x00);
        assert_eq!(bench.read(0), 0x1000 - 0x234, "the first latch holds");
        assert_eq!(bench.read(0), 0x1000 - 0x334);
    }

    #[test]
    fn a_count_of_zero_is_the_largest() {
        let mut bench = Bench::new();
        bench.program(0, 2, 0);
        let start = bench.tick + 1;
        assert_eq!(bench.pit.next_event(bench.now()), Some(VmTime::from_ticks(start + 0xffff, HZ)));
    }

    #[test]
    fn bcd_counts_in_decimal() {
        let mut bench = Bench::new();
        bench.pit.write(bench.now(), 3, 0x31);
        bench.count(0, 0x1000);
        bench.tick += 2;
        assert_eq!(bench.read(0), 0x0999);
        bench.tick += 1000;
        assert_eq!(bench.read(0), 0x9999, "past zero it goes on from 9999");
    }

    #[test]
    fn read_back_gives_status_then_count() {
        let mut bench = Bench::new();
        bench.program(0, 2, 100);
        bench.pit.write(bench.now(), 3, 0xe2);
        assert_eq!(bench.pit.read(bench.now(), 0), 0xf4, "output high, null count, two bytes");
        bench.tick += 11;
        bench.pit.write(bench.now(), 3, 0xc2);
        assert_eq!(bench.pit.read(bench.now(), 0), 0xb4);
        assert_eq!(bench.read(0), 90);
    }

    #[test]
    fn single_byte_access_modes() {
        let mut bench = Bench::new();
        bench.pit.write(bench.now(), 3, 0x10);
        bench.pit.write(bench.now(), 0, 0x80);
        bench.tick += 2;
        assert_eq!(bench.pit.read(bench.now(), 0), 0x7f);
        bench.pit.write(bench.now(), 3, 0x20);
        bench.pit.write(bench.now(), 0, 0x80);
        bench.tick += 2;
        assert_eq!(bench.pit.read(bench.now(), 0), 0x7f);
    }

    #[test]
    fn the_line_keeps_every_kind_of_edge() {
        let mut bench = Bench::new();
        bench.program(0, 2, 1000);
        bench.pit.irq.take();
        bench.tick += 10_500;
        bench.pit.advance(bench.now());
        let change = bench.pit.irq.take().expect("ten periods have passed");
        assert!(change.level && change.pulsed);
        let event = bench.pit.next_event(bench.now()).expect("the next falling edge");
        bench.pit.advance(event.sub(1));
        assert_eq!(bench.pit.irq.take(), None, "nothing before its time");
        bench.pit.advance(event);
        assert!(!bench.pit.irq.level());
    }

    #[test]
    fn periods_do_not_drift() {
        let mut bench = Bench::new();
        bench.program(0, 2, 11_932);
        let start = bench.tick + 1;
        let mut now = bench.now();
        for event in 1..=20_000u64 {
            now = bench.pit.next_event(now).expect("periodic");
            bench.pit.advance(now);
            let period = event.div_ceil(2);
            let tick = start + period * 11_932 - event % 2;
            assert_eq!(now, VmTime::from_ticks(tick, HZ), "event {event}");
        }
    }

    #[test]
    fn illegal_counts_neither_hang_nor_panic() {
        for mode in 0..8 {
            let mut bench = Bench::new();
            bench.program(0, mode, 1);
            bench.tick += 1_000_000;
            bench.pit.advance(bench.now());
            bench.read(0);
            bench.pit.next_event(bench.now());
        }
    }

    #[test]
    fn state_survives_a_snapshot() {
        let mut bench = Bench::new();
        bench.program(0, 3, 1000);
        bench.tick += 1234;
        let mut other = Pit::new();
        other.restore(bench.pit.saved());
        assert_eq!(other.next_event(bench.now()), bench.pit.next_event(bench.now()));
        assert_eq!(other.read(bench.now(), 0), bench.pit.read(bench.now(), 0));
    }
}
