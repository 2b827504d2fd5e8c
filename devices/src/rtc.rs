//! The MC146818 real-time clock with 128 bytes of RAM (Motorola MC146818A datasheet, ADI1026).
//!
//! The clock counts UTC or local time as the machine chooses the base. The weekday follows the
//! date (the chip counts it separately), and the daylight saving switch has no effect.

mod calendar;

use crate::line::IrqLine;
use crate::state::Bytes;
use crate::time::VmTime;
use calendar::DateTime;

/// The index of the century, as the FADT may declare it.
pub const CENTURY: u8 = 0x32;

/// The time base.
const HZ: u64 = 32_768;

const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;

const A_UPDATE_IN_PROGRESS: u8 = 0x80;
/// Divider bits: 010 is the 32.768 kHz operation, 11x holds the divider in reset.
const A_DIVIDER_RUNS: u8 = 0x20;
const A_DIVIDER_RESET: u8 = 0x60;

const B_SET: u8 = 0x80;
const B_UPDATE_INTERRUPT: u8 = 0x10;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;

const C_REQUEST: u8 = 0x80;
const C_PERIODIC: u8 = 0x40;
const C_ALARM: u8 = 0x20;
const C_UPDATE: u8 = 0x10;

/// An alarm byte from C0h up matches everything.
const ALARM_ANY: u8 = 0xc0;

/// The update takes 1984 us, and the flag announces it 244 us earlier (datasheet, table 4):
/// 73 ticks of the time base.
const UPDATE_TICKS: u64 = 73;

/// The bytes that show the date and time, in the order of [`DateTime::fields`].
const TIME_INDICES: [u8; 8] = [0, 2, 4, 6, 7, 8, 9, CENTURY];

/// A real-time clock.
#[derive(Debug)]
pub struct Rtc {
    /// The interrupt: high until register C is read.
    pub irq: IrqLine,
    index: u8,
    nmi_masked: bool,
    ram: Bytes<128>,
    a: u8,
    b: u8,
    c: u8,
    /// The Unix time, in the calendar that the chip shows, when the divider had made no tick.
    base: i64,
    /// The divider was at `divider_start` at the time `divider_since`.
    divider_since: VmTime,
    divider_start: u64,
    /// The divider's tick up to which the flags are up to date.
    seen: u64,
    /// The time bytes as software sees and sets them while the clock stands still.
    held: Option<[u8; 8]>,
}

saved_state! {
    /// The state of an [`Rtc`].
    RtcSaved of Rtc {
        irq: IrqLine, index: u8, nmi_masked: bool, ram: Bytes<128>, a: u8, b: u8, c: u8,
        base: i64, divider_since: VmTime, divider_start: u64, seen: u64, held: Option<[u8; 8]>,
    }
}

impl Rtc {
    /// A clock that shows `unix_seconds` at power-on, as a PC's firmware sets it: 1.024 kHz
    /// periodic rate, BCD, 24 hours.
    pub fn new(unix_seconds: i64) -> Self {
        Self {
            irq: IrqLine::default(),
            index: 0,
            nmi_masked: false,
            ram: Bytes::default(),
            a: A_DIVIDER_RUNS | 6,
            b: B_24_HOURS,
            c: 0,
            base: unix_seconds,
            divider_since: VmTime::ZERO,
            divider_start: 0,
            seen: 0,
            held: None,
        }
    }

    /// The RESET pin: interrupts are disabled and cleared, the battery keeps everything else.
    pub fn reset(&mut self) {
        self.index = 0;
        self.nmi_masked = false;
        self.b &= !(C_PERIODIC | C_ALARM | C_UPDATE | 0x08);
        self.c = 0;
        self.irq.set(false);
    }

    /// Whether the index port's bit 7 keeps NMIs away from the processor.
    pub fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    /// Sets a byte of the RAM, as firmware does.
    pub fn set_ram(&mut self, index: u8, value: u8) {
        if index > REGISTER_D && index != CENTURY && index < 128 {
            self.ram.0[usize::from(index)] = value;
        }
    }

    /// Reads the index (0, port 70h: write-only, floating) or the data port (1, port 71h).
    pub fn read(&mut self, now: VmTime, offset: u16) -> u8 {
        if offset != 1 {
            return 0xff;
        }
        self.advance(now);
        match self.index {
            REGISTER_A => self.a | if self.updating(now) { A_UPDATE_IN_PROGRESS } else { 0 },
            REGISTER_B => self.b,
            REGISTER_C => {
                let flags = std::mem::take(&mut self.c);
                self.update();
                flags
            }
            // Valid RAM and time.
            REGISTER_D => 0x80,
            index => match TIME_INDICES.iter().position(|&time| time == index) {
                Some(field) => self.time_bytes(now)[field],
                None => self.ram.0[usize::from(index & 0x7f)],
            },
        }
    }

    /// Writes the index or the data port.
    pub fn write(&mut self, now: VmTime, offset: u16, value: u8) {
        self.advance(now);
        match (offset, self.index) {
            (0, _) => {
                self.index = value & 0x7f;
                self.nmi_masked = value & 0x80 != 0;
            }
            (1, REGISTER_A) => self.write_a(now, value),
            (1, REGISTER_B) => self.write_b(now, value),
            (1, REGISTER_C | REGISTER_D) => {}
            (1, index) => match TIME_INDICES.iter().position(|&time| time == index) {
                Some(field) => {
                    let mut bytes = self.time_bytes(now);
                    bytes[field] = value;
                    self.set_time_bytes(now, bytes);
                }
                None => self.ram.0[usize::from(index & 0x7f)] = value,
            },
            _ => {}
        }
        self.update();
    }

    /// Brings the flags and the line up to date.
    pub fn advance(&mut self, now: VmTime) {
        if self.divider_stopped() {
            return;
        }
        let (from, to) = (self.seen, self.divider(now));
        self.seen = self.seen.max(to);
        if let Some(period) = self.period()
            && to / period > from / period
        {
            self.c |= C_PERIODIC;
        }
        if self.held.is_none() && to / HZ > from / HZ {
            self.c |= C_UPDATE;
            if self.next_alarm(from).is_some_and(|alarm| alarm <= to) {
                self.c |= C_ALARM;
            }
        }
        self.update();
    }

    /// When the clock will next interrupt.
    pub fn next_event(&self, now: VmTime) -> Option<VmTime> {
        if self.irq.level() || self.divider_stopped() {
            return None;
        }
        let tick = self.divider(now);
        let periodic = self.period().map(|period| (tick / period + 1) * period);
        let update = self.held.is_none().then_some((tick / HZ + 1) * HZ);
        let events = [
            (C_PERIODIC, periodic),
            (C_UPDATE, update),
            (C_ALARM, update.and_then(|_| self.next_alarm(tick))),
        ];
        let enabled = events.into_iter().filter(|(flag, _)| self.b & flag != 0);
        let tick = enabled.filter_map(|(_, tick)| tick).min()?;
        let since = self.divider_since;
        Some(since.add(VmTime::from_ticks(tick.saturating_sub(self.divider_start), HZ).0))
    }

    fn divider_stopped(&self) -> bool {
        self.a & A_DIVIDER_RESET == A_DIVIDER_RESET
    }

    fn divider(&self, now: VmTime) -> u64 {
        self.divider_start + VmTime(now.since(self.divider_since)).ticks(HZ)
    }

    fn seconds(&self, tick: u64) -> i64 {
        self.base.saturating_add_unsigned(tick / HZ)
    }

    fn updating(&self, now: VmTime) -> bool {
        let running = self.held.is_none() && !self.divider_stopped();
        running && self.divider(now) % HZ >= HZ - UPDATE_TICKS
    }

    /// The ticks between periodic interrupts (datasheet, table 5: rates 1 and 2 are those of 8
    /// and 9).
    fn period(&self) -> Option<u64> {
        match self.a & 0xf {
            0 => None,
            rate @ (1 | 2) => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// The tick of the first alarm after `tick`.
    fn next_alarm(&self, tick: u64) -> Option<u64> {
        let [second, minute, hour] = [1, 3, 5].map(|index: usize| self.ram.0[index]);
        let matches = |alarm: u8, shown: u8| alarm >= ALARM_ANY || alarm == shown;
        let now = self.seconds(tick);
        let mut at = now + 1;
        while at <= now + 86_400 {
            let of_day = at.rem_euclid(86_400) as u32;
            if !matches(hour, self.encode_hour((of_day / 3600) as u8)) {
                at += i64::from(3600 - of_day % 3600);
            } else if !matches(minute, self.encode((of_day / 60 % 60) as u8)) {
                at += i64::from(60 - of_day % 60);
            } else if !matches(second, self.encode((of_day % 60) as u8)) {
                at += 1;
            } else {
                return Some((tick / HZ + at.abs_diff(now)) * HZ);
            }
        }
        None
    }

    /// Writes register A. Releasing the divider from reset starts it half a second before the
    /// first update (datasheet, "Divider control").
    fn write_a(&mut self, now: VmTime, value: u8) {
        let stopped = self.divider_stopped();
        let bytes = self.time_bytes(now);
        self.a = value & !A_UPDATE_IN_PROGRESS;
        match (stopped, self.divider_stopped()) {
            (false, true) => self.held = Some(bytes),
            (true, false) => {
                self.divider_since = now;
                self.divider_start = HZ / 2;
                self.seen = HZ / 2;
                self.release(now);
            }
            _ => {}
        }
    }

    /// Writes register B. SET stops the updates and clears their interrupt enable; the divider
    /// runs on.
    fn write_b(&mut self, now: VmTime, value: u8) {
        let bytes = self.time_bytes(now);
        self.b = value;
        if value & B_SET != 0 {
            self.b &= !B_UPDATE_INTERRUPT;
            self.held = Some(bytes);
        } else {
            self.release(now);
        }
    }

    /// Lets the clock go on from the bytes that it held, if nothing holds it any more.
    fn release(&mut self, now: VmTime) {
        if self.b & B_SET == 0
            && !self.divider_stopped()
            && let Some(bytes) = self.held.take()
        {
            self.set_time_bytes(now, bytes);
        }
    }

    fn time_bytes(&self, now: VmTime) -> [u8; 8] {
        self.held.unwrap_or_else(|| {
            let time = DateTime::from_unix(self.seconds(self.divider(now)));
            let mut bytes = time.fields().map(|field| self.encode(field));
            bytes[2] = self.encode_hour(time.hour);
            bytes
        })
    }

    fn set_time_bytes(&mut self, now: VmTime, bytes: [u8; 8]) {
        if self.held.is_some() {
            self.held = Some(bytes);
            return;
        }
        let mut fields = bytes.map(|byte| self.decode(byte));
        fields[2] = self.decode_hour(bytes[2]);
        let shown = DateTime::from_fields(fields).to_unix();
        self.base = shown.saturating_sub_unsigned(self.divider(now) / HZ);
    }

    fn encode(&self, value: u8) -> u8 {
        if self.b & B_BINARY != 0 { value } else { (value / 10 * 16) + value % 10 }
    }

    fn decode(&self, byte: u8) -> u8 {
        if self.b & B_BINARY != 0 { byte } else { (byte >> 4) * 10 + (byte & 0xf) }
    }

    /// Hours in the 12-hour mode are 12, 1 to 11, and bit 7 for PM.
    fn encode_hour(&self, hour: u8) -> u8 {
        if self.b & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let pm = if hour >= 12 { 0x80 } else { 0 };
        self.encode((hour + 11) % 12 + 1) | pm
    }

    fn decode_hour(&self, byte: u8) -> u8 {
        if self.b & B_24_HOURS != 0 {
            return self.decode(byte);
        }
        self.decode(byte & 0x7f) % 12 + if byte & 0x80 != 0 { 12 } else { 0 }
    }

    /// The request flag and the line: any flag whose enable bit is set (register B has them at
    /// the same places).
    fn update(&mut self) {
        let enabled = self.c & self.b & (C_PERIODIC | C_ALARM | C_UPDATE);
        self.c = self.c & !C_REQUEST | if enabled != 0 { C_REQUEST } else { 0 };
        self.irq.set(enabled != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21 (a Saturday) 23:59:58.
    const BASE: i64 = 1_795_305_598;

    fn seconds(seconds: u64) -> VmTime {
        VmTime(seconds * 1_000_000_000)
    }

    fn get(rtc: &mut Rtc, now: VmTime, index: u8) -> u8 {
        rtc.write(now, 0, index);
        rtc.read(now, 1)
    }

    fn set(rtc: &mut Rtc, now: VmTime, index: u8, value: u8) {
        rtc.write(now, 0, index);
        rtc.write(now, 1, value);
    }

    /// Century, year, month, day, weekday, hour, minute, second.
    fn shown(rtc: &mut Rtc, now: VmTime) -> [u8; 8] {
        [CENTURY, 9, 8, 7, 6, 4, 2, 0].map(|index| get(rtc, now, index))
    }

    #[test]
    fn the_clock_runs_in_bcd_and_in_binary() {
        let mut rtc = Rtc::new(BASE);
        let evening = [0x20, 0x26, 0x11, 0x21, 0x07, 0x23, 0x59, 0x58];
        assert_eq!(shown(&mut rtc, VmTime::ZERO), evening);
        let midnight = [0x20, 0x26, 0x11, 0x22, 0x01, 0x00, 0x00, 0x00];
        assert_eq!(shown(&mut rtc, seconds(2)), midnight);
        set(&mut rtc, seconds(2), REGISTER_B, B_BINARY | B_24_HOURS);
        assert_eq!(shown(&mut rtc, seconds(2)), [20, 26, 11, 22, 1, 0, 0, 0]);
        assert_eq!(get(&mut rtc, seconds(2), REGISTER_D), 0x80);
    }

    #[test]
    fn twelve_hour_mode() {
        let mut rtc = Rtc::new(BASE);
        set(&mut rtc, VmTime::ZERO, REGISTER_B, 0);
        let bytes = [0, 1, 11, 12, 13, 23].map(|hour| {
            let now = seconds(2 + hour * 3600);
            get(&mut rtc, now, 4)
        });
        assert_eq!(bytes, [0x12, 0x01, 0x11, 0x92, 0x81, 0x91]);
        set(&mut rtc, seconds(2), 4, 0x92);
        set(&mut rtc, seconds(2), REGISTER_B, B_24_HOURS);
        assert_eq!(get(&mut rtc, seconds(2), 4), 0x12, "noon");
    }

    #[test]
    fn software_sets_the_clock() {
        let mut rtc = Rtc::new(BASE);
        set(&mut rtc, VmTime::ZERO, REGISTER_B, B_SET | B_24_HOURS);
        let stopped = shown(&mut rtc, seconds(10));
        assert_eq!(stopped[7], 0x58, "SET stops the updates");
        for (index, value) in [(CENTURY, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23)] {
            set(&mut rtc, seconds(10), index, value);
        }
        set(&mut rtc, seconds(10), REGISTER_B, B_24_HOURS);
        let new_year = [0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00];
        assert_eq!(shown(&mut rtc, seconds(12)), new_year);
    }

    #[test]
    fn a_released_divider_updates_half_a_second_later() {
        let mut rtc = Rtc::new(BASE);
        set(&mut rtc, VmTime::ZERO, REGISTER_A, 0x76);
        let released = VmTime::from_millis(5_250);
        set(&mut rtc, released, REGISTER_A, 0x26);
        assert_eq!(get(&mut rtc, released.add(499_000_000), 0), 0x58);
        assert_eq!(get(&mut rtc, released.add(500_000_000), 0), 0x59);
    }

    #[test]
    fn the_update_is_announced() {
        let mut rtc = Rtc::new(BASE);
        let update = seconds(1);
        for (before, flag) in [(2_300_000, 0), (2_200_000, 0x80), (1, 0x80), (0, 0)] {
            let a = get(&mut rtc, update.sub(before), REGISTER_A);
            assert_eq!(a, 0x26 | flag, "{before} ns before the update");
        }
    }

    #[test]
    fn the_update_interrupt() {
        let mut rtc = Rtc::new(BASE);
        set(&mut rtc, VmTime::ZERO, REGISTER_B, B_24_HOURS | B_UPDATE_INTERRUPT);
        assert_eq!(rtc.next_event(VmTime::ZERO), Some(seconds(1)));
        rtc.advance(seconds(1));
        assert!(rtc.irq.level());
        assert_eq!(rtc.next_event(seconds(1)), None, "high until register C is read");
        assert_eq!(get(&mut rtc, seconds(1), REGISTER_C) & 0x90, 0x90);
        assert!(!rtc.irq.level());
        assert_eq!(get(&mut rtc, seconds(1), REGISTER_C), 0);
    }

    #[test]
    fn the_periodic_interrupt_does_not_drift() {
        let mut rtc = Rtc::new(BASE);
        set(&mut rtc, VmTime::ZERO, REGISTER_B, B_24_HOURS | C_PERIODIC);
        let mut now = VmTime::ZERO;
        for event in 1..=1024 {
            now = rtc.next_event(now).expect("periodic");
            assert_eq!(now, VmTime::from_ticks(event * 32, HZ));
            rtc.advance(now);
            assert!(rtc.irq.level(), "event {event}");
            get(&mut rtc, now, REGISTER_C);
        }
        assert_eq!(now, seconds(1));
        for (rate, period) in [(1, 128), (2, 256), (3, 4), (8, 128), (15, 16_384)] {
            set(&mut rtc, now, REGISTER_A, 0x20 | rate);
            assert_eq!(rtc.period(), Some(period), "rate {rate}");
        }
    }

    #[test]
    fn the_alarm() {
        let mut rtc = Rtc::new(BASE);
        set(&mut rtc, VmTime::ZERO, REGISTER_B, B_24_HOURS | C_ALARM);
        for (alarm, after) in [
            ([0x59, 0x59, 0x23], 1),
            ([0x58, 0x59, 0x23], 86_400),
            ([0x00, 0x30, 0x06], 2 + 6 * 3600 + 30 * 60),
            ([0xff, 0xff, 0xff], 1),
            ([0x05, 0xff, 0xff], 7),
            ([0x00, 0x07, 0xc0], 2 + 7 * 60),
        ] {
            for (index, value) in [1, 3, 5].into_iter().zip(alarm) {
                set(&mut rtc, VmTime::ZERO, index, value);
            }
            assert_eq!(rtc.next_event(VmTime::ZERO), Some(seconds(after)), "{alarm:x?}");
        }
        set(&mut rtc, VmTime::ZERO, 5, 0x77);
        assert_eq!(rtc.next_event(VmTime::ZERO), None, "there is no hour 77");
        set(&mut rtc, VmTime::ZERO, 5, 0xff);
        rtc.advance(seconds(2 + 7 * 60));
        assert_eq!(get(&mut rtc, seconds(2 + 7 * 60), REGISTER_C) & 0xa0, 0xa0);
    }

    #[test]
    fn index_and_ram() {
        let mut rtc = Rtc::new(BASE);
        set(&mut rtc, VmTime::ZERO, 0x80 | 0x7f, 0x5a);
        assert!(rtc.nmi_masked());
        assert_eq!(get(&mut rtc, VmTime::ZERO, 0x7f), 0x5a);
        assert!(!rtc.nmi_masked());
        rtc.set_ram(0x10, 0x40);
        assert_eq!(get(&mut rtc, VmTime::ZERO, 0x10), 0x40);
        rtc.reset();
        assert_eq!(get(&mut rtc, VmTime::ZERO, 0x10), 0x40, "the battery keeps it");
    }

    #[test]
    fn state_survives_a_snapshot() {
        let mut rtc = Rtc::new(BASE);
        set(&mut rtc, VmTime::ZERO, 0x40, 0x77);
        set(&mut rtc, VmTime::ZERO, REGISTER_B, B_24_HOURS | C_PERIODIC);
        let mut other = Rtc::new(0);
        other.restore(rtc.saved());
        assert_eq!(shown(&mut other, seconds(5)), shown(&mut rtc, seconds(5)));
        assert_eq!(other.next_event(seconds(5)), rtc.next_event(seconds(5)));
        assert_eq!(get(&mut other, seconds(5), 0x40), 0x77);
    }
}
