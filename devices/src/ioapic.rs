//! The I/O APIC (Intel 82093AA datasheet, 290566), version 20h: with an EOI register.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::message::{DeliveryMode, InterruptMessage};
use crate::time::VmTime;

/// The number of input pins.
pub const PINS: usize = 24;

/// 24 redirection entries, version 20h.
const VERSION: u32 = (PINS as u32 - 1) << 16 | 0x20;

const LOGICAL: u64 = 1 << 11;
const ACTIVE_LOW: u64 = 1 << 13;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// All but delivery status, remote IRR and the reserved bits.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// An entry of the redirection table (datasheet 3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Redirection(u64);

impl Redirection {
    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    fn message(self) -> InterruptMessage {
        InterruptMessage::with_short_destination(
            self.0 as u8,
            DeliveryMode::from_bits((self.0 >> 8) as u32),
            (self.0 >> 56) as u8,
            self.has(LOGICAL),
            self.has(LEVEL),
        )
    }
}

/// An I/O APIC.
#[derive(Debug)]
pub struct IoApic {
    select: u8,
    id: u8,
    entries: [Redirection; PINS],
    /// The electrical level of each pin.
    inputs: u32,
    messages: VecDeque<InterruptMessage>,
}

saved_state! {
    /// The state of an [`IoApic`].
    IoApicSaved of IoApic {
        select: u8, id: u8, entries: [Redirection; PINS], inputs: u32,
        messages: VecDeque<InterruptMessage>,
    }
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl IoApic {
    /// An I/O APIC at power-on: every pin is masked.
    pub fn new() -> Self {
        Self {
            select: 0,
            id: 0,
            entries: [Redirection(MASKED); PINS],
            inputs: 0,
            messages: VecDeque::new(),
        }
    }

    /// The power-on state; the inputs stay as they are driven.
    pub fn reset(&mut self) {
        *self = Self { inputs: self.inputs, ..Self::new() };
    }

    /// Drives a pin with an electrical level: where the firmware tables declare an interrupt
    /// active low, the asserted level is `false`.
    pub fn set_input(&mut self, pin: usize, level: bool) {
        if pin >= PINS {
            return;
        }
        let was_active = self.active(pin);
        self.inputs = self.inputs & !(1 << pin) | u32::from(level) << pin;
        self.evaluate(pin, was_active);
    }

    /// A local APIC has ended a level-triggered interrupt: what is still asserted is sent again.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for pin in 0..PINS {
            let entry = self.entries[pin];
            if entry.has(REMOTE_IRR) && entry.0 as u8 == vector {
                self.entries[pin].0 &= !REMOTE_IRR;
                self.evaluate(pin, true);
            }
        }
    }

    /// The message that a pin below [`PINS`] sends when it is not masked.
    pub fn entry(&self, pin: usize) -> Option<InterruptMessage> {
        self.entries.get(pin).map(|entry| entry.message())
    }

    /// Takes the next message to the local APICs.
    pub fn take_message(&mut self) -> Option<InterruptMessage> {
        self.messages.pop_front()
    }

    /// Reads IOREGSEL (0) or IOWIN (10h).
    pub fn read(&mut self, _now: VmTime, offset: u64) -> u32 {
        match offset {
            0x00 => self.select.into(),
            0x10 => self.read_selected(),
            _ => 0,
        }
    }

    /// Writes IOREGSEL (0), IOWIN (10h) or the EOI register (40h).
    pub fn write(&mut self, _now: VmTime, offset: u64, value: u32) {
        match offset {
            0x00 => self.select = value as u8,
            0x10 => self.write_selected(value),
            0x40 => self.end_of_interrupt(value as u8),
            _ => {}
        }
    }

    fn read_selected(&self) -> u32 {
        match self.select {
            // The arbitration id follows the id.
            0 | 2 => u32::from(self.id) << 24,
            1 => VERSION,
            _ => self
                .selected_entry()
                .map_or(0, |(pin, shift)| (self.entries[pin].0 >> shift) as u32),
        }
    }

    fn write_selected(&mut self, value: u32) {
        if self.select == 0 {
            self.id = (value >> 24) as u8 & 0xf;
        }
        let Some((pin, shift)) = self.selected_entry() else { return };
        let was_active = self.active(pin);
        let writable = WRITABLE & 0xffff_ffff << shift;
        let entry = &mut self.entries[pin].0;
        *entry = *entry & !writable | u64::from(value) << shift & writable;
        if *entry & LEVEL == 0 {
            // An edge-triggered entry has no remote IRR; software clears a stuck one this way.
            *entry &= !REMOTE_IRR;
        }
        self.evaluate(pin, was_active);
    }

    /// The pin and the half that IOREGSEL selects.
    fn selected_entry(&self) -> Option<(usize, u32)> {
        let index = usize::from(self.select.checked_sub(0x10)?);
        (index / 2 < PINS).then_some((index / 2, (index as u32 & 1) * 32))
    }

    fn active(&self, pin: usize) -> bool {
        (self.inputs >> pin & 1 != 0) != self.entries[pin].has(ACTIVE_LOW)
    }

    /// Sends the pin's message if it is due. An edge on a masked pin is lost (datasheet 3.2.4,
    /// interrupt mask).
    fn evaluate(&mut self, pin: usize, was_active: bool) {
        let entry = self.entries[pin];
        if entry.has(MASKED) || !self.active(pin) {
            return;
        }
        if entry.has(LEVEL) {
            if !entry.has(REMOTE_IRR) {
                self.entries[pin].0 |= REMOTE_IRR;
                self.messages.push_back(entry.message());
            }
        } else if !was_active {
            self.messages.push_back(entry.message());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: VmTime = VmTime::ZERO;

    fn set(ioapic: &mut IoApic, register: u32, value: u32) {
        ioapic.write(NOW, 0, register);
        ioapic.write(NOW, 0x10, value);
    }

    fn get(ioapic: &mut IoApic, register: u32) -> u32 {
        ioapic.write(NOW, 0, register);
        ioapic.read(NOW, 0x10)
    }

    fn entry(pin: u32, low: u32) -> IoApic {
        let mut ioapic = IoApic::new();
        set(&mut ioapic, 0x11 + 2 * pin, 0x0300_0000);
        set(&mut ioapic, 0x10 + 2 * pin, low);
        ioapic
    }

    #[test]
    fn identification() {
        let mut ioapic = IoApic::new();
        assert_eq!(get(&mut ioapic, 1), 0x0017_0020);
        set(&mut ioapic, 0, 0xff00_0000);
        assert_eq!(get(&mut ioapic, 0), 0x0f00_0000);
        assert_eq!(get(&mut ioapic, 0x10), 0x0001_0000, "masked");
        assert_eq!(get(&mut ioapic, 0x40), 0, "there is no pin 24");
    }

    #[test]
    fn an_edge_sends_one_message() {
        let mut ioapic = entry(4, 0x0931);
        ioapic.set_input(4, true);
        ioapic.set_input(4, true);
        let message = ioapic.take_message().expect("a message");
        assert_eq!(message.vector, 0x31);
        assert_eq!(message.delivery, DeliveryMode::LowestPriority);
        assert_eq!((message.destination, message.logical, message.level), (3, true, false));
        assert_eq!(ioapic.take_message(), None);
        ioapic.set_input(4, false);
        assert_eq!(ioapic.take_message(), None);
        ioapic.set_input(4, true);
        assert!(ioapic.take_message().is_some());
    }

    #[test]
    fn an_edge_on_a_masked_pin_is_lost() {
        let mut ioapic = entry(4, 0x1_0031);
        ioapic.set_input(4, true);
        set(&mut ioapic, 0x18, 0x31);
        assert_eq!(ioapic.take_message(), None);
    }

    #[test]
    fn a_level_is_sent_again_after_its_end_until_it_is_gone() {
        let mut ioapic = entry(9, 0x8039);
        ioapic.set_input(9, true);
        assert!(ioapic.take_message().is_some_and(|message| message.level));
        assert_eq!(get(&mut ioapic, 0x22), 0xc039, "remote IRR");
        ioapic.set_input(9, false);
        ioapic.set_input(9, true);
        assert_eq!(ioapic.take_message(), None, "not before the end of the first");
        ioapic.end_of_interrupt(0x38);
        assert_eq!(ioapic.take_message(), None, "another vector's end");
        ioapic.write(NOW, 0x40, 0x39);
        assert!(ioapic.take_message().is_some());
        ioapic.set_input(9, false);
        ioapic.end_of_interrupt(0x39);
        assert_eq!(ioapic.take_message(), None);
        assert_eq!(get(&mut ioapic, 0x22), 0x8039);
    }

    #[test]
    fn a_level_waits_behind_the_mask() {
        let mut ioapic = entry(9, 0x1_8039);
        ioapic.set_input(9, true);
        assert_eq!(ioapic.take_message(), None);
        set(&mut ioapic, 0x22, 0x8039);
        assert!(ioapic.take_message().is_some());
    }

    #[test]
    fn polarity_inverts_the_pin() {
        let mut ioapic = IoApic::new();
        ioapic.set_input(16, true);
        set(&mut ioapic, 0x30, 0xa041);
        assert_eq!(ioapic.take_message(), None);
        ioapic.set_input(16, false);
        assert!(ioapic.take_message().is_some());
    }

    #[test]
    fn changing_to_edge_clears_the_remote_irr() {
        let mut ioapic = entry(9, 0x8039);
        ioapic.set_input(9, true);
        ioapic.take_message();
        set(&mut ioapic, 0x22, 0x1_0039);
        set(&mut ioapic, 0x22, 0x8039);
        assert!(ioapic.take_message().is_some());
    }

    #[test]
    fn state_survives_a_snapshot() {
        let mut ioapic = entry(9, 0x8039);
        ioapic.set_input(9, true);
        let mut other = IoApic::new();
        other.restore(ioapic.saved());
        assert_eq!(other.take_message(), ioapic.take_message());
    }
}
