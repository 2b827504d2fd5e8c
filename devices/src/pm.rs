//! ACPI power management: the fixed hardware of the PIIX4 (82371AB datasheet 290562, 7.2) as the
//! ACPI specification describes it (4.8.3, fixed hardware registers).
//!
//! The chip is always in ACPI mode (SCI_EN reads one), as a FADT without SMI command declares it.

use crate::line::IrqLine;
use crate::request::Request;
use crate::time::VmTime;

/// The frequency of the PM timer.
pub const TIMER_HZ: u64 = 3_579_545;

/// Written to the reset register, this resets the machine.
pub const RESET_VALUE: u8 = 0x0f;

/// Offset of the PM1a event block: status, then enable, two bytes each.
pub const PM1_EVENT: u16 = 0x00;
/// Offset of the PM1a control register, two bytes.
pub const PM1_CONTROL: u16 = 0x04;
/// Offset of the PM timer, four bytes.
pub const TIMER: u16 = 0x08;
/// Offset of the general-purpose event block 0: status, then enable, two bytes each.
pub const GPE0: u16 = 0x0c;
/// Offset of the reset register, one byte.
pub const RESET: u16 = 0x10;
/// The size of all the registers.
pub const SIZE: u16 = 0x14;

const TIMER_STATUS: u16 = 1 << 0;
const POWER_BUTTON: u16 = 1 << 8;
/// Timer, bus master, global lock, power button, sleep button, RTC, wake.
const PM1_STATUS: u16 = 0x8731;
/// Timer, global lock, power button, sleep button, RTC.
const PM1_ENABLE: u16 = 0x0721;
const SCI_ENABLE: u16 = 1 << 0;
const SLEEP_TYPE: u16 = 7 << 10;
const SLEEP_ENABLE: u16 = 1 << 13;
/// Bus master reload; sleep type. Global release and sleep enable are write-only.
const CONTROL_KEPT: u16 = 1 << 1 | SLEEP_TYPE;

/// The power-management block.
#[derive(Debug)]
pub struct AcpiPm {
    /// The system control interrupt: level-triggered, high while an enabled event is pending.
    pub sci: IrqLine,
    /// The width of the timer: 24 or 32 bits.
    timer_bits: u32,
    /// SLP_TYP of the soft-off state, as the firmware's \_S5 package says.
    soft_off_type: u8,
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u16,
    gpe_enable: u16,
    /// How often the timer's highest bit had changed when the status was last brought up to date.
    toggles: u64,
    request: Option<Request>,
}

saved_state! {
    /// The state of an [`AcpiPm`].
    AcpiPmSaved of AcpiPm {
        sci: IrqLine, status: u16, enable: u16, control: u16, gpe_status: u16, gpe_enable: u16,
        toggles: u64, request: Option<Request>,
    }
    wiring { timer_bits, soft_off_type }
}

impl AcpiPm {
    /// A block at power-on, with a timer of 32 or 24 bits; `soft_off_type` is the SLP_TYP that
    /// the firmware declares for S5.
    pub fn new(timer_32_bit: bool, soft_off_type: u8) -> Self {
        Self {
            sci: IrqLine::default(),
            timer_bits: if timer_32_bit { 32 } else { 24 },
            soft_off_type,
            status: 0,
            enable: 0,
            control: 0,
            gpe_status: 0,
            gpe_enable: 0,
            toggles: 0,
            request: None,
        }
    }

    /// The power-on state. The timer runs on.
    pub fn reset(&mut self) {
        let Self { sci, toggles, timer_bits, soft_off_type, .. } = *self;
        *self = Self { sci, toggles, ..Self::new(timer_bits == 32, soft_off_type) };
        self.update();
    }

    /// Somebody presses the power button.
    pub fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON;
        self.update();
    }

    /// A general-purpose event happens.
    pub fn raise_gpe(&mut self, event: u8) {
        self.gpe_status |= 1 << (event & 15);
        self.update();
    }

    /// Takes what the guest asked for: power off, or reset.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    /// The PM timer.
    pub fn timer(&self, now: VmTime) -> u32 {
        let mask = (1u64 << self.timer_bits) - 1;
        (now.ticks(TIMER_HZ) & mask) as u32
    }

    /// Reads `size` bytes.
    pub fn read(&mut self, now: VmTime, offset: u16, size: u8) -> u32 {
        self.advance(now);
        let timer = self.timer(now).to_le_bytes();
        (0..u16::from(size.min(4))).fold(0, |value, i| {
            let byte = match offset.wrapping_add(i) {
                at @ TIMER..GPE0 => timer[usize::from(at - TIMER)],
                at if at < SIZE => self.register(at & !1).to_le_bytes()[usize::from(at & 1)],
                _ => 0xff,
            };
            value | u32::from(byte) << (8 * i)
        })
    }

    /// Writes `size` bytes.
    pub fn write(&mut self, now: VmTime, offset: u16, size: u8, value: u32) {
        self.advance(now);
        let mut at = offset;
        let end = offset.saturating_add(size.min(4).into());
        while at < end {
            // A byte write reaches its half of a register only.
            let whole = at & 1 == 0 && end - at >= 2;
            let bits = (value >> (8 * (at - offset))) as u16;
            let (bits, mask) = match (whole, at & 1) {
                (true, _) => (bits, 0xffff),
                (false, 0) => (bits & 0xff, 0x00ff),
                (false, _) => (bits << 8, 0xff00),
            };
            self.write_register(at & !1, bits, mask);
            at += if whole { 2 } else { 1 };
        }
        self.update();
    }

    /// Brings the timer's status and the interrupt up to date.
    pub fn advance(&mut self, now: VmTime) {
        let toggles = self.toggles_at(now);
        if toggles != self.toggles {
            self.toggles = toggles;
            self.status |= TIMER_STATUS;
            self.update();
        }
    }

    /// When the timer will interrupt.
    pub fn next_event(&self, now: VmTime) -> Option<VmTime> {
        if self.enable & TIMER_STATUS == 0 || self.sci.level() {
            return None;
        }
        let ticks = (self.toggles_at(now) + 1) << (self.timer_bits - 1);
        Some(VmTime::from_ticks(ticks, TIMER_HZ))
    }

    /// How often the timer's highest bit has changed (ACPI 4.8.3.1.1, TMR_STS).
    fn toggles_at(&self, now: VmTime) -> u64 {
        now.ticks(TIMER_HZ) >> (self.timer_bits - 1)
    }

    fn register(&self, offset: u16) -> u16 {
        match offset {
            0x00 => self.status,
            0x02 => self.enable,
            0x04 => self.control | SCI_ENABLE,
            0x0c => self.gpe_status,
            0x0e => self.gpe_enable,
            _ => 0,
        }
    }

    /// Writes the bits of a register that `mask` selects.
    fn write_register(&mut self, offset: u16, bits: u16, mask: u16) {
        let merged = |old: u16| old & !mask | bits;
        match offset {
            0x00 => self.status &= !(bits & PM1_STATUS),
            0x02 => self.enable = merged(self.enable) & PM1_ENABLE,
            0x04 => {
                let control = merged(self.control);
                self.control = control & CONTROL_KEPT;
                if bits & SLEEP_ENABLE != 0 {
                    self.sleep((control & SLEEP_TYPE) >> 10);
                }
            }
            0x0c => self.gpe_status &= !bits,
            0x0e => self.gpe_enable = merged(self.gpe_enable),
            RESET if mask & 0xff != 0 && bits as u8 == RESET_VALUE => {
                self.request = Some(Request::Reset);
            }
            _ => {}
        }
    }

    fn sleep(&mut self, sleep_type: u16) {
        if sleep_type == u16::from(self.soft_off_type) {
            self.request = Some(Request::PowerOff);
        } else {
            tracing::warn!(sleep_type, "the guest asks for a sleep state that does not exist");
        }
    }

    fn update(&mut self) {
        let pending = self.status & self.enable | self.gpe_status & self.gpe_enable;
        self.sci.set(pending != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pm() -> AcpiPm {
        AcpiPm::new(false, 5)
    }

    #[test]
    fn the_timer_counts_at_its_rate_and_wraps() {
        let mut pm = pm();
        assert_eq!(pm.read(VmTime(1_000_000_000), TIMER, 4), 3_579_545);
        let wrap = VmTime::from_ticks(1 << 24, TIMER_HZ);
        assert_eq!(pm.read(wrap.sub(1), TIMER, 4), 0xff_ffff);
        assert_eq!(pm.read(wrap, TIMER, 4), 0);
        assert_eq!(AcpiPm::new(true, 5).timer(wrap), 1 << 24);
        assert_eq!(pm.read(VmTime(1_000_000_000), TIMER + 1, 1), 3_579_545 >> 8 & 0xff);
    }

    #[test]
    fn each_change_of_the_highest_bit_interrupts() {
        let mut pm = pm();
        pm.write(VmTime::ZERO, 2, 2, 1);
        let half = VmTime::from_ticks(1 << 23, TIMER_HZ);
        assert_eq!(pm.next_event(VmTime::ZERO), Some(half));
        pm.advance(half.sub(1));
        assert!(!pm.sci.level());
        pm.advance(half);
        assert!(pm.sci.level());
        assert_eq!(pm.read(half, 0, 2), 1);
        pm.write(half, 0, 2, 1);
        assert!(!pm.sci.level());
        assert_eq!(pm.next_event(half), Some(VmTime::from_ticks(1 << 24, TIMER_HZ)));
    }

    #[test]
    fn soft_off_and_reset() {
        let mut pm = pm();
        pm.write(VmTime::ZERO, PM1_CONTROL, 2, 1 << 10 | 1 << 13);
        assert_eq!(pm.take_request(), None, "S1 does not exist");
        pm.write(VmTime::ZERO, PM1_CONTROL, 2, 5 << 10);
        assert_eq!(pm.take_request(), None, "the type alone does nothing");
        assert_eq!(pm.read(VmTime::ZERO, PM1_CONTROL, 2), 5 << 10 | 1);
        pm.write(VmTime::ZERO, PM1_CONTROL + 1, 1, 0x34);
        assert_eq!(pm.take_request(), Some(Request::PowerOff), "a byte write too");
        pm.write(VmTime::ZERO, RESET, 1, 0);
        assert_eq!(pm.take_request(), None);
        pm.write(VmTime::ZERO, RESET, 1, RESET_VALUE.into());
        assert_eq!(pm.take_request(), Some(Request::Reset));
        assert_eq!(pm.take_request(), None);
    }

    #[test]
    fn events_interrupt_until_they_are_cleared() {
        let mut pm = pm();
        pm.press_power_button();
        assert!(!pm.sci.level());
        pm.write(VmTime::ZERO, PM1_EVENT, 4, 0x0100_0000);
        assert!(pm.sci.level());
        assert_eq!(pm.read(VmTime::ZERO, PM1_EVENT, 4), 0x0100_0100);
        pm.write(VmTime::ZERO, PM1_EVENT + 1, 1, 0x01);
        assert!(!pm.sci.level());
        pm.raise_gpe(3);
        pm.write(VmTime::ZERO, GPE0 + 2, 1, 8);
        assert!(pm.sci.level());
        pm.write(VmTime::ZERO, GPE0, 1, 8);
        assert!(!pm.sci.level());
    }

    #[test]
    fn state_survives_a_snapshot() {
        let mut pm = pm();
        pm.press_power_button();
        pm.write(VmTime::ZERO, 2, 2, 0x100);
        let mut other = AcpiPm::new(false, 5);
        other.restore(pm.saved());
        assert!(other.sci.level());
        assert_eq!(other.read(VmTime::ZERO, 0, 4), 0x0100_0100);
    }
}
