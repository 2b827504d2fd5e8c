//! The local APIC while somebody else goes on with it: KVM, which has one of its own in the kernel.
//!
//! The board keeps what it would have sent there until it is asked for. Not carried over: an NMI or a
//! fixed interrupt on LINT0, which is for the 8259s' interrupts alone while the local APIC is lent.

use std::collections::VecDeque;

use brolga_devices::lapic::Page;
use brolga_devices::{DeliveryMode, InterruptMessage, VmTime, ioapic};

use super::Chipset;

/// What waits for whoever has the local APIC.
#[derive(Debug, Default)]
pub(super) struct Lent {
    messages: VecDeque<InterruptMessage>,
}

/// A local APIC on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LapicState {
    /// IA32_APIC_BASE.
    pub(crate) base: u64,
    /// Its registers.
    pub(crate) page: Page,
    /// IA32_TSC_DEADLINE.
    pub(crate) deadline: u64,
}

impl Chipset {
    /// The local APIC, for somebody who will have it after [`Chipset::lend_lapic`].
    pub(crate) fn lapic_state(&mut self, now: VmTime) -> LapicState {
        let page = self.lapic.page(now);
        LapicState { base: self.lapic.base(), page, deadline: self.lapic.tsc_deadline() }
    }

    /// From here on, our local APIC does nothing.
    pub(crate) fn lend_lapic(&mut self) {
        self.lent.get_or_insert_default();
    }

    /// Whether somebody else has the local APIC.
    pub(crate) fn lapic_is_lent(&self) -> bool {
        self.lent.is_some()
    }

    /// Whether the local APIC passes the 8259s' interrupts on.
    pub(crate) fn accepts_external_interrupts(&self) -> bool {
        self.lapic.accept_lint0()
    }

    /// Goes on with the local APIC: without its deadline, which follows as a write of the register.
    pub(crate) fn take_lapic_back(&mut self, now: VmTime, state: &LapicState) {
        let Some(lent) = self.lent.take() else { return };
        self.lapic.go_on(now, state.base, &state.page);
        for message in &lent.messages {
            self.deliver(message);
        }
        self.propagate();
    }

    /// What the board has to say to the local APIC that it has lent.
    pub(crate) fn next_message(&mut self) -> Option<InterruptMessage> {
        self.lent.as_mut()?.messages.pop_front()
    }

    /// The messages of the IOAPIC whose ends it must be told of.
    pub(crate) fn level_messages(&self) -> [Option<InterruptMessage>; ioapic::PINS] {
        std::array::from_fn(|pin| self.ioapic.entry(pin).filter(|message| message.level))
    }

    /// A local APIC elsewhere has ended a level-triggered interrupt.
    pub(crate) fn end_of_interrupt(&mut self, vector: u8) {
        self.ioapic.end_of_interrupt(vector);
        self.propagate();
    }

    /// Keeps what goes to the local APIC that is lent. The 8259s' interrupts do not go there.
    pub(super) fn keep_messages(&mut self) {
        let Some(lent) = &mut self.lent else { return };
        while let Some(message) = self.ioapic.take_message() {
            if message.delivery == DeliveryMode::ExtInt {
                self.signals.ext_int = true;
            } else {
                lent.messages.push_back(message);
            }
        }
    }
}
