//! The high precision event timer (IA-PC HPET Specification 1.0a): three comparators on a counter
//! of 100 MHz, every one of them 64 bits wide and able to run periodically.
//!
//! An edge-triggered comparator drives its line low and high again when it matches, and leaves it
//! high until the next match: inputs that look at the level while they acknowledge find it.

use serde::{Deserialize, Serialize};

use crate::line::IrqLine;
use crate::time::VmTime;

/// The counter's frequency.
pub const HZ: u64 = 100_000_000;

/// The number of comparators.
pub const TIMERS: usize = 3;

/// Femtoseconds a tick.
const PERIOD: u64 = 10_000_000;
/// Revision 1, three timers, 64-bit counter, legacy replacement, vendor 8086h (2.3.4).
const CAPABILITIES: u64 =
    PERIOD << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;
/// The IOAPIC pins that a comparator can be routed to: 2, 8 and those that no ISA device has.
const ROUTES: u64 = 0x00f0_0104;

const CONFIG_ENABLE: u64 = 1;
const CONFIG_LEGACY: u64 = 2;

const TIMER_LEVEL: u64 = 1 << 1;
const TIMER_ENABLE: u64 = 1 << 2;
const TIMER_PERIODIC: u64 = 1 << 3;
const TIMER_SET_VALUE: u64 = 1 << 6;
const TIMER_32_BIT: u64 = 1 << 8;
const TIMER_WRITABLE: u64 = 0x3f4e;
/// Periodic and 64-bit capable.
const TIMER_CAPABILITIES: u64 = ROUTES << 32 | 1 << 5 | 1 << 4;

/// Where a comparator's line is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Legacy replacement: this interrupt (0 or 8) of the 8259s, in place of the 8254's or the
    /// clock's, and at the IOAPIC the pin of that ISA interrupt (2 or 8).
    Legacy(u8),
    /// This pin of the IOAPIC.
    IoApic(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Comparator {
    line: IrqLine,
    config: u64,
    value: u64,
    period: u64,
}

impl Default for Comparator {
    fn default() -> Self {
        Self { line: IrqLine::default(), config: 0, value: u64::MAX, period: 0 }
    }
}

impl Comparator {
    fn has(&self, bit: u64) -> bool {
        self.config & bit != 0
    }

    fn mask(&self) -> u64 {
        if self.has(TIMER_32_BIT) { u32::MAX.into() } else { u64::MAX }
    }

    /// The ticks from a counter value to the next match: never zero, as a match is an event.
    fn ticks_after(&self, counter: u64) -> u64 {
        let distance = self.value.wrapping_sub(counter) & self.mask();
        if distance == 0 { self.mask() } else { distance }
    }

    /// Whether the comparator matched while the counter went on by `ticks` from `counter`; a
    /// periodic one is moved to its next match (2.3.9.2.2).
    fn matched(&mut self, counter: u64, ticks: u64) -> bool {
        let Some(over) = ticks.checked_sub(self.ticks_after(counter)) else { return false };
        if self.has(TIMER_PERIODIC) && self.period != 0 {
            let periods = over / self.period + 1;
            self.value = self.value.wrapping_add(periods.wrapping_mul(self.period)) & self.mask();
        }
        true
    }
}

/// The timer block.
#[derive(Debug, Default)]
pub struct Hpet {
    config: u64,
    status: u64,
    /// The main counter when it was stopped, written, or last brought up to date.
    counter: u64,
    /// The tick of the 100 MHz clock at which it had that value.
    seen: u64,
    timers: [Comparator; TIMERS],
}

saved_state! {
    /// The state of a [`Hpet`].
    HpetSaved of Hpet {
        config: u64, status: u64, counter: u64, seen: u64, timers: [Comparator; TIMERS],
    }
}

impl Hpet {
    /// A timer block at power-on: stopped.
    pub fn new() -> Self {
        Self::default()
    }

    /// The power-on state.
    pub fn reset(&mut self) {
        let mut timers = [Comparator::default(); TIMERS];
        for (timer, old) in timers.iter_mut().zip(&self.timers) {
            timer.line = old.line;
            timer.line.set(false);
        }
        *self = Self { timers, ..Self::default() };
    }

    /// The line of a comparator.
    pub fn line(&mut self, timer: usize) -> Option<&mut IrqLine> {
        self.timers.get_mut(timer).map(|timer| &mut timer.line)
    }

    /// Whether comparators 0 and 1 replace the 8254 and the clock (2.3.5, LEG_RT_CNF).
    pub fn legacy_replacement(&self) -> bool {
        self.config & CONFIG_LEGACY != 0
    }

    /// Where a comparator's line goes now.
    pub fn routing(&self, timer: usize) -> Option<Routing> {
        let config = self.timers.get(timer)?.config;
        Some(match timer {
            0 if self.legacy_replacement() => Routing::Legacy(0),
            1 if self.legacy_replacement() => Routing::Legacy(8),
            _ => Routing::IoApic((config >> 9 & 0x1f) as u8),
        })
    }

    /// Reads 4 or 8 bytes at a multiple of their size; other sizes read as zero (2.3.1).
    pub fn read(&mut self, now: VmTime, offset: u64, size: u8) -> u64 {
        self.advance(now);
        let register = self.register(offset & !7);
        match (size, offset & 7) {
            (8, 0) => register,
            (4, 0) => register & 0xffff_ffff,
            (4, 4) => register >> 32,
            _ => 0,
        }
    }

    /// Writes 4 or 8 bytes at a multiple of their size.
    pub fn write(&mut self, now: VmTime, offset: u64, size: u8, value: u64) {
        self.advance(now);
        let (mask, shift) = match (size, offset & 7) {
            (8, 0) => (u64::MAX, 0),
            (4, 0) => (0xffff_ffff, 0),
            (4, 4) => (0xffff_ffff << 32, 32),
            _ => return,
        };
        self.write_register(offset & !7, value << shift & mask, mask);
        self.update_lines();
    }

    /// Brings the counter and the lines up to date.
    pub fn advance(&mut self, now: VmTime) {
        let tick = now.ticks(HZ);
        let ticks = tick.saturating_sub(self.seen);
        self.seen = self.seen.max(tick);
        if self.config & CONFIG_ENABLE == 0 || ticks == 0 {
            return;
        }
        for (i, timer) in self.timers.iter_mut().enumerate() {
            if timer.matched(self.counter, ticks) {
                if timer.has(TIMER_LEVEL) {
                    self.status |= 1 << i;
                } else if timer.has(TIMER_ENABLE) {
                    timer.line.set(false);
                    timer.line.set(true);
                }
            }
        }
        self.counter = self.counter.wrapping_add(ticks);
        self.update_lines();
    }

    /// When a line will next change.
    pub fn next_event(&self, _now: VmTime) -> Option<VmTime> {
        if self.config & CONFIG_ENABLE == 0 {
            return None;
        }
        let waits = self.timers.iter().filter(|timer| {
            timer.has(TIMER_ENABLE) && !(timer.has(TIMER_LEVEL) && timer.line.level())
        });
        let ticks = waits.map(|timer| timer.ticks_after(self.counter)).min()?;
        let at = VmTime::from_ticks(self.seen.saturating_add(ticks), HZ);
        (at != VmTime::MAX).then_some(at)
    }

    fn register(&self, offset: u64) -> u64 {
        match offset {
            0x000 => CAPABILITIES,
            0x010 => self.config,
            0x020 => self.status,
            0x0f0 => self.counter,
            _ => match self.timers.get(Self::timer_index(offset)) {
                None => 0,
                Some(timer) => match offset & 0x1f {
                    0x00 => timer.config | TIMER_CAPABILITIES,
                    0x08 => timer.value,
                    _ => 0,
                },
            },
        }
    }

    /// Writes the bits of a register that `mask` selects.
    fn write_register(&mut self, offset: u64, bits: u64, mask: u64) {
        match offset {
            0x010 => self.config = (self.config & !mask | bits) & (CONFIG_ENABLE | CONFIG_LEGACY),
            0x020 => self.status &= !bits,
            // Only while stopped is a write of the counter meaningful (2.3.7).
            0x0f0 => self.counter = self.counter & !mask | bits,
            _ => {
                let Some(timer) = self.timers.get_mut(Self::timer_index(offset)) else { return };
                match offset & 0x1f {
                    0x00 => Self::configure(timer, bits, mask),
                    0x08 => Self::write_comparator(timer, bits, mask),
                    _ => {}
                }
            }
        }
    }

    /// The comparator whose registers are at `offset`; none of them below 100h.
    fn timer_index(offset: u64) -> usize {
        offset.checked_sub(0x100).map_or(usize::MAX, |offset| (offset / 0x20) as usize)
    }

    fn configure(timer: &mut Comparator, bits: u64, mask: u64) {
        timer.config = (timer.config & !mask | bits) & TIMER_WRITABLE;
        let route = timer.config >> 9 & 0x1f;
        if ROUTES >> route & 1 == 0 {
            // A route that is not possible does not read back (2.3.8, Tn_INT_ROUTE_CNF).
            timer.config &= !(0x1f << 9);
        }
        timer.value &= timer.mask();
        timer.period &= timer.mask();
    }

    /// A periodic comparator's register sets the period; only after "set value" the value too
    /// (2.3.8, Tn_VAL_SET_CNF).
    fn write_comparator(timer: &mut Comparator, bits: u64, mask: u64) {
        let periodic = timer.has(TIMER_PERIODIC);
        if !periodic || timer.has(TIMER_SET_VALUE) {
            timer.value = (timer.value & !mask | bits) & timer.mask();
        }
        if periodic {
            timer.period = (timer.period & !mask | bits) & timer.mask();
        }
        timer.config &= !TIMER_SET_VALUE;
    }

    fn update_lines(&mut self) {
        for (i, timer) in self.timers.iter_mut().enumerate() {
            if !timer.has(TIMER_ENABLE) || self.config & CONFIG_ENABLE == 0 {
                timer.line.set(false);
            } else if timer.has(TIMER_LEVEL) {
                timer.line.set(self.status >> i & 1 != 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ticks: u64) -> VmTime {
        VmTime(ticks * 10)
    }

    /// A running block whose timer 0 has the configuration `config`.
    fn hpet(config: u64) -> Hpet {
        let mut hpet = Hpet::new();
        hpet.write(at(0), 0x100, 8, config);
        hpet.write(at(0), 0x010, 8, CONFIG_ENABLE);
        hpet
    }

    fn level(hpet: &mut Hpet, timer: usize) -> bool {
        hpet.line(timer).expect("one of three").level()
    }

    #[test]
    fn identification() {
        let mut hpet = Hpet::new();
        assert_eq!(hpet.read(at(0), 0, 8), 0x0098_9680_8086_a201);
        assert_eq!(hpet.read(at(0), 4, 4), 10_000_000);
        assert_eq!(hpet.read(at(0), 0x104, 4), 0x00f0_0104);
        assert_eq!(hpet.read(at(0), 0x100, 4), 0x30);
        assert_eq!(hpet.read(at(0), 0x160, 8), 0, "there is no timer 3");
    }

    #[test]
    fn the_counter_runs_while_enabled() {
        let mut hpet = Hpet::new();
        assert_eq!(hpet.read(at(100), 0xf0, 8), 0);
        hpet.write(at(100), 0xf0, 8, 0xffff_fff0);
        hpet.write(at(100), 0x10, 4, 1);
        assert_eq!(hpet.read(at(150), 0xf0, 8), 0x1_0000_0022);
        hpet.write(at(150), 0x10, 4, 0);
        assert_eq!(hpet.read(at(999), 0xf4, 4), 1);
        assert_eq!(hpet.read(at(999), 0xf0, 4), 0x22);
    }

    #[test]
    fn a_one_shot_edge() {
        let mut hpet = hpet(TIMER_ENABLE);
        hpet.write(at(10), 0x108, 8, 1000);
        assert_eq!(hpet.next_event(at(10)), Some(at(1000)));
        hpet.advance(at(999));
        assert!(!level(&mut hpet, 0));
        hpet.advance(at(1000));
        assert!(level(&mut hpet, 0));
        assert_eq!(hpet.read(at(1000), 0x20, 4), 0, "an edge leaves no status");
        hpet.write(at(1000), 0x108, 8, 2000);
        hpet.line(0).expect("timer 0").take();
        hpet.advance(at(2000));
        let change = hpet.line(0).expect("timer 0").take();
        assert!(change.is_some_and(|change| change.level && change.pulsed), "a new edge");
    }

    #[test]
    fn a_level_stays_until_its_status_is_cleared() {
        let mut hpet = hpet(TIMER_ENABLE | TIMER_LEVEL);
        hpet.write(at(10), 0x108, 4, 500);
        hpet.write(at(10), 0x10c, 4, 0);
        hpet.advance(at(600));
        assert!(level(&mut hpet, 0));
        assert_eq!(hpet.read(at(600), 0x20, 4), 1);
        hpet.write(at(600), 0x20, 4, 1);
        assert!(!level(&mut hpet, 0));
    }

    #[test]
    fn a_periodic_timer_as_linux_programs_it() {
        let mut hpet = hpet(TIMER_ENABLE | TIMER_PERIODIC | TIMER_SET_VALUE | TIMER_32_BIT);
        hpet.write(at(5), 0x108, 4, 1005);
        hpet.write(at(6), 0x108, 4, 1000);
        for period in 0..5 {
            let event = at(1005 + 1000 * period);
            assert_eq!(hpet.next_event(event.sub(20)), Some(event));
            hpet.advance(event);
        }
        hpet.advance(at(123_456));
        assert_eq!(hpet.next_event(at(123_456)), Some(at(124_005)), "no drift when late");
        assert_eq!(hpet.read(at(123_456), 0x108, 4), 124_005);
    }

    #[test]
    fn a_32_bit_comparator_matches_after_a_wrap() {
        let mut hpet = hpet(TIMER_ENABLE | TIMER_32_BIT);
        hpet.write(at(1000), 0x108, 4, 500);
        assert_eq!(hpet.next_event(at(1000)), Some(at((1 << 32) + 500)));
    }

    #[test]
    fn routing() {
        let mut hpet = Hpet::new();
        hpet.write(at(0), 0x120, 8, 20 << 9);
        assert_eq!(hpet.routing(1), Some(Routing::IoApic(20)));
        hpet.write(at(0), 0x120, 8, 5 << 9);
        assert_eq!(hpet.read(at(0), 0x120, 4), 0x30, "pin 5 is not possible");
        hpet.write(at(0), 0x10, 4, 2);
        assert_eq!(hpet.routing(0), Some(Routing::Legacy(0)));
        assert_eq!(hpet.routing(1), Some(Routing::Legacy(8)));
        assert_eq!(hpet.routing(2), Some(Routing::IoApic(0)));
        assert_eq!(hpet.routing(3), None);
    }

    #[test]
    fn tiny_periods_neither_hang_nor_panic() {
        let mut hpet = hpet(TIMER_ENABLE | TIMER_PERIODIC | TIMER_SET_VALUE);
        hpet.write(at(0), 0x108, 8, 1);
        hpet.advance(at(1_000_000_000));
        assert_eq!(hpet.next_event(at(1_000_000_000)), Some(at(1_000_000_001)));
        hpet.write(at(1_000_000_000), 0x100, 8, TIMER_ENABLE);
        hpet.write(at(1_000_000_000), 0x108, 8, 0);
        hpet.advance(VmTime::MAX);
        hpet.next_event(VmTime::MAX);
    }

    #[test]
    fn state_survives_a_snapshot() {
        let mut hpet = hpet(TIMER_ENABLE);
        hpet.write(at(10), 0x108, 8, 1000);
        let mut other = Hpet::new();
        other.restore(hpet.saved());
        assert_eq!(other.next_event(at(10)), hpet.next_event(at(10)));
    }
}
