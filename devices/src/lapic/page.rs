//! The whole state as the registers' page shows it, to have somebody else go on with it and to take
//! it back: what KVM_GET_LAPIC and KVM_SET_LAPIC carry, beside the base register and the deadline.

use super::registers::{ICR_WRITABLE, LVT_WRITABLE, SVR_WRITABLE, reg};
use super::timer::Shown;
use super::*;

/// The registers of the xAPIC's page in the order of their offsets, which are multiples of 16
/// (10.4.1). That an APIC is in x2APIC mode makes no difference.
pub type Page = [u32; 64];

/// What a page shows of a timer that counts, and has been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The vector of its interrupt.
    pub vector: u8,
    /// Whether it starts again when it has run out.
    pub periodic: bool,
    /// What is left of it.
    pub current: u32,
}

impl Count {
    /// That of `page`, unless its timer stands still, or waits for a deadline.
    pub fn of(page: &Page) -> Option<Self> {
        let entry = page[reg::LVT as usize + Lvt::Timer as usize];
        let mode = TimerMode::from_lvt(entry);
        let counts = matches!(mode, TimerMode::OneShot | TimerMode::Periodic);
        (counts && page[reg::TIMER_INITIAL as usize] != 0).then_some(Self {
            vector: entry as u8,
            periodic: mode == TimerMode::Periodic,
            current: page[reg::TIMER_CURRENT as usize],
        })
    }

    /// Requests its interrupt in `page`, if that is not masked there.
    pub fn request(self, page: &mut Page) {
        let entry = page[reg::LVT as usize + Lvt::Timer as usize];
        if entry & LVT_MASKED == 0 {
            page[reg::IRR as usize + usize::from(self.vector >> 5)] |= 1 << (self.vector & 31);
        }
    }
}

impl Lapic {
    /// The registers. Errors that are not yet readable are not among them, nor is what the machine
    /// is to take: EOIs, IPIs and signals.
    pub fn page(&mut self, now: VmTime) -> Page {
        self.advance(now);
        let mut page =
            std::array::from_fn(|index| self.read_page(now, index as u32).unwrap_or_default());
        let timer = self.timer.shown(now);
        page[reg::TIMER_INITIAL as usize] = timer.initial;
        page[reg::TIMER_CURRENT as usize] = timer.current;
        page
    }

    /// Goes on with what registers and base register have become elsewhere. The deadline of the
    /// timer, if it is in that mode, is to be [set](Self::set_tsc_deadline) afterwards.
    pub fn go_on(&mut self, now: VmTime, base: u64, page: &Page) {
        let register = |index: u32| page[index as usize];
        let vectors = |first: u32| {
            Vectors::from_registers(std::array::from_fn(|n| register(first + n as u32)))
        };
        self.base = base;
        self.tpr = register(reg::TPR) as u8;
        if !self.x2apic() {
            // In x2APIC mode these two follow from the processor's number.
            self.xapic_id = (register(reg::ID) >> 24) as u8;
            self.ldr = (register(reg::LDR) >> 24) as u8;
        }
        self.dfr = register(reg::DFR) | 0x0fff_ffff;
        self.svr = register(reg::SVR) & SVR_WRITABLE;
        let icr = register(reg::ICR) & ICR_WRITABLE;
        self.icr = u64::from(register(reg::ICR_HIGH)) << 32 | u64::from(icr);
        self.lvt = std::array::from_fn(|n| register(reg::LVT + n as u32) & LVT_WRITABLE[n]);
        (self.isr, self.tmr) = (vectors(reg::ISR), vectors(reg::TMR));
        self.irr = vectors(reg::IRR);
        self.esr = register(reg::ESR);
        let shown = Shown {
            divide: register(reg::TIMER_DIVIDE),
            initial: register(reg::TIMER_INITIAL),
            current: register(reg::TIMER_CURRENT),
        };
        self.timer.go_on(now, self.timer_mode(), shown);
    }
}
