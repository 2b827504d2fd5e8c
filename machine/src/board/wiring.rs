//! What the chips' pins are connected to.
//!
//! | source                   | 8259s | IOAPIC                               |
//! |--------------------------|-------|--------------------------------------|
//! | 8254 channel 0, or HPET 0| 0     | 2                                    |
//! | keyboard                 | 1     | 1                                    |
//! | COM1                     | 4     | 4                                    |
//! | clock, or HPET 1         | 8     | 8                                    |
//! | SCI                      | 9     | 9                                    |
//! | mouse                    | 12    | 12                                   |
//! | FERR# of the processor   | 13    | 13                                   |
//! | HPET 0 to 2              |       | the pin that the comparator selects  |
//!
//! HPET 0 and 1 replace the 8254 and the clock while the HPET's legacy replacement is on. The
//! 8259s' output is the local APIC's LINT0; nothing on the board drives LINT1 (NMI).

use brolga_devices::hpet::{self, Routing};
use brolga_devices::lapic::{CpuSignal, IpiMessage, Shorthand};
use brolga_devices::{InterruptMessage, LineChange, Request, VmTime};

use super::Chipset;
use crate::firmware::acpi;

const TIMER: u8 = 0;
const KEYBOARD: u8 = 1;
const COM1: u8 = 4;
const CLOCK: u8 = 8;
const MOUSE: u8 = 12;
const COPROCESSOR: u8 = 13;

const LINT0: usize = 0;

/// The IOAPIC pin of an ISA interrupt. The 8254 is on pin 2, because pin 0 is for the 8259s, as
/// the MADT says.
fn ioapic_pin(isa: u8) -> usize {
    if isa == TIMER { 2 } else { isa.into() }
}

impl Chipset {
    /// Carries everything that has changed at the chips' outputs to where it is connected, until
    /// nothing changes any more.
    pub(super) fn propagate(&mut self) {
        self.drive_timers();
        let lines = [
            (KEYBOARD, self.i8042.irq_keyboard.take()),
            (COM1, self.uart.irq.take()),
            (acpi::SCI, self.pm.sci.take()),
            (MOUSE, self.i8042.irq_aux.take()),
            (COPROCESSOR, self.ferr.irq.take()),
        ];
        for (isa, change) in lines {
            self.drive_isa(isa, change);
        }
        if self.lent.is_some() {
            self.keep_messages();
        } else {
            self.route_messages();
            self.lapic.set_lint(LINT0, self.pic.output());
            self.take_lapic_signals();
        }
        self.take_requests();
    }

    /// Whether a maskable interrupt waits: the INTR pin, or the 8259s' output while the local APIC
    /// is lent.
    pub fn intr(&self) -> bool {
        self.local_interrupt() || self.external_interrupt()
    }

    /// The interrupt-acknowledge cycle.
    pub(super) fn acknowledge(&mut self, now: VmTime) -> Option<u8> {
        let (vector, source) = if self.local_interrupt() {
            (self.lapic.acknowledge(), "local APIC")
        } else if self.external_interrupt() {
            self.signals.ext_int = false;
            (self.pic.acknowledge(), "8259")
        } else {
            return None;
        };
        tracing::trace!(target: "interrupt", "{} vector {vector:#04x} from the {source}", now.0);
        self.propagate();
        Some(vector)
    }

    /// Whether our local APIC has an interrupt for the processor.
    fn local_interrupt(&self) -> bool {
        self.lent.is_none() && self.lapic.pending().is_some()
    }

    /// Whether the 8259s have an interrupt, and it reaches the processor, or the one who has the
    /// local APIC.
    fn external_interrupt(&self) -> bool {
        let accepted = self.lent.is_some() || self.lapic.accept_lint0();
        self.signals.ext_int || self.pic.output() && accepted
    }

    fn drive_isa(&mut self, isa: u8, change: Option<LineChange>) {
        for level in change.iter().flat_map(|change| change.levels()) {
            self.set_isa(isa, level);
        }
    }

    fn set_isa(&mut self, isa: u8, level: bool) {
        self.pic.set_input(isa, level);
        self.ioapic.set_input(ioapic_pin(isa), level);
    }

    /// The 8254, the clock and the HPET, whose places depend on the HPET's configuration.
    fn drive_timers(&mut self) {
        let pit = self.pit.irq.take();
        let clock = self.rtc.irq.take();
        let legacy = self.hpet.legacy_replacement();
        if legacy != self.legacy_replacement {
            self.legacy_replacement = legacy;
            self.set_isa(TIMER, !legacy && self.pit.irq.level());
            self.set_isa(CLOCK, !legacy && self.rtc.irq.level());
        } else if !legacy {
            self.drive_isa(TIMER, pit);
            self.drive_isa(CLOCK, clock);
        }
        for timer in 0..hpet::TIMERS {
            let change = self.hpet.line(timer).and_then(|line| line.take());
            match self.hpet.routing(timer) {
                Some(Routing::Legacy(isa)) => self.drive_isa(isa, change),
                Some(Routing::IoApic(pin)) => {
                    for level in change.iter().flat_map(|change| change.levels()) {
                        self.ioapic.set_input(pin.into(), level);
                    }
                }
                None => {}
            }
        }
    }

    /// Ends of interrupts go from the local APIC to the IOAPIC, which may send again.
    fn route_messages(&mut self) {
        loop {
            if let Some(vector) = self.lapic.take_eoi() {
                self.ioapic.end_of_interrupt(vector);
            } else if let Some(message) = self.ioapic.take_message() {
                self.deliver(&message);
            } else if let Some(ipi) = self.lapic.take_ipi() {
                self.route_ipi(&ipi);
            } else {
                return;
            }
        }
    }

    pub(super) fn deliver(&mut self, message: &InterruptMessage) {
        if self.lapic.matches(message) {
            self.lapic.deliver(message);
        }
    }

    /// There is one local APIC: an IPI reaches its sender or nobody.
    fn route_ipi(&mut self, ipi: &IpiMessage) {
        let arrives = match ipi.shorthand {
            Shorthand::Destination => self.lapic.matches(&ipi.message),
            Shorthand::All => true,
            Shorthand::Others => false,
        };
        if arrives {
            self.lapic.deliver(&ipi.message);
        }
    }

    fn take_lapic_signals(&mut self) {
        while let Some(signal) = self.lapic.take_signal() {
            tracing::trace!(target: "interrupt", "local APIC signals {signal:?}");
            match signal {
                CpuSignal::Nmi => self.signals.nmi = true,
                CpuSignal::Init => self.signals.init = true,
                CpuSignal::ExtInt => self.signals.ext_int = true,
                // There is no system-management mode, and a running processor ignores start-up.
                CpuSignal::Smi | CpuSignal::StartUp(_) => {}
            }
        }
    }

    fn take_requests(&mut self) {
        let requests = [
            self.pm.take_request(),
            self.exit_port.take_request(),
            self.reset_control.take_request(),
            self.port92.take_request(),
            self.i8042.take_request(),
        ];
        // A20 is a level that the machine reads; an end of the run outranks a reset.
        let request = requests.into_iter().flatten().find(|r| !matches!(r, Request::A20(_)));
        self.signals.request = self.signals.request.or(request);
    }
}
