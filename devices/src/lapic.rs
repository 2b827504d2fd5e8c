//! The local APIC, as xAPIC and x2APIC (Intel SDM vol. 3, chapter "Advanced Programmable Interrupt
//! Controller"; sections are numbered as while that was chapter 10, up to 2022: later editions
//! count 11.x and 12.x).
//!
//! Not modelled: EOI-broadcast suppression, the CMCI entry, arbitration ids, and level-triggered
//! fixed interrupts on LINT0 (they are taken at their rising edge).

mod page;
mod registers;
#[cfg(test)]
mod tests;
mod timer;
mod vectors;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::message::{BROADCAST, DeliveryMode, InterruptMessage};
use crate::time::VmTime;
pub use page::{Count, Page};
pub use registers::MsrFault;
use timer::{Timer, TimerMode};
use vectors::Vectors;

const BASE_BOOTSTRAP: u64 = 1 << 8;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_DEFAULT: u64 = 0xfee0_0000;

const SVR_ENABLE: u32 = 1 << 8;
const LVT_MASKED: u32 = 1 << 16;

const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
const ESR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// The entries of the local vector table that something here raises, by the order of their
/// registers; 1 and 2 are the thermal sensor's and the performance counters'.
#[derive(Clone, Copy)]
enum Lvt {
    Timer = 0,
    Lint0 = 3,
    Lint1 = 4,
    Error = 5,
}

/// What the machine fixes when it builds a local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LapicConfig {
    /// The initial (x2)APIC id.
    pub id: u32,
    /// Whether this is the bootstrap processor's.
    pub bootstrap: bool,
    /// The frequency that the timer divides, at most 1 GHz.
    pub timer_hz: u64,
    /// MAXPHYADDR: the width of the base address register.
    pub physical_bits: u8,
}

/// What a local APIC tells its processor, beside the vectored interrupts of [`Lapic::pending`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuSignal {
    /// A non-maskable interrupt.
    Nmi,
    /// A system-management interrupt.
    Smi,
    /// The INIT reset.
    Init,
    /// Start-up at the real-mode address `vector << 12`, heard only after INIT.
    StartUp(u8),
    /// An interrupt whose vector the 8259 supplies, sent as a message.
    ExtInt,
}

/// Whom an IPI goes to (10.6.1, destination shorthand; to itself needs no message).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shorthand {
    /// Those that match the message's destination.
    Destination,
    /// All, the sender included.
    All,
    /// All but the sender.
    Others,
}

/// An interprocessor interrupt for the machine to route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpiMessage {
    /// Whom it goes to.
    pub shorthand: Shorthand,
    /// The message, to [`deliver`](Lapic::deliver) to each of them.
    pub message: InterruptMessage,
}

/// A local APIC.
#[derive(Debug)]
pub struct Lapic {
    config: LapicConfig,
    base: u64,
    /// The id register of the xAPIC, which software may change.
    xapic_id: u8,
    tpr: u8,
    ldr: u8,
    dfr: u32,
    svr: u32,
    icr: u64,
    lvt: [u32; 6],
    irr: Vectors,
    isr: Vectors,
    /// For each vector, whether it was level-triggered.
    tmr: Vectors,
    /// What a read gives, and what has been detected since.
    esr: u32,
    errors: u32,
    timer: Timer,
    lint: [bool; 2],
    eoi: Option<u8>,
    ipis: VecDeque<IpiMessage>,
    signals: VecDeque<CpuSignal>,
}

saved_state! {
    /// The state of a [`Lapic`].
    LapicSaved of Lapic {
        base: u64, xapic_id: u8, tpr: u8, ldr: u8, dfr: u32, svr: u32, icr: u64, lvt: [u32; 6],
        irr: Vectors, isr: Vectors, tmr: Vectors, esr: u32, errors: u32, timer: Timer,
        lint: [bool; 2], eoi: Option<u8>, ipis: VecDeque<IpiMessage>,
        signals: VecDeque<CpuSignal>,
    }
    wiring { config }
}

impl Lapic {
    /// A local APIC at power-on: enabled by its base register, disabled by software (10.4.7.1).
    pub fn new(config: LapicConfig) -> Self {
        let bootstrap = if config.bootstrap { BASE_BOOTSTRAP } else { 0 };
        Self {
            config,
            base: BASE_DEFAULT | BASE_ENABLE | bootstrap,
            xapic_id: config.id as u8,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            icr: 0,
            lvt: [LVT_MASKED; 6],
            irr: Vectors::default(),
            isr: Vectors::default(),
            tmr: Vectors::default(),
            esr: 0,
            errors: 0,
            timer: Timer::new(config.timer_hz),
            lint: [false; 2],
            eoi: None,
            ipis: VecDeque::new(),
            signals: VecDeque::new(),
        }
    }

    /// The power-on state; the LINT pins stay as they are driven.
    pub fn reset(&mut self) {
        *self = Self { lint: self.lint, ..Self::new(self.config) };
    }

    /// What INIT does: everything but the id and the base register is as after power-on
    /// (10.4.7.3). Signals that came after the INIT are not lost.
    pub fn init(&mut self) {
        let signals = std::mem::take(&mut self.signals);
        let (xapic_id, base, lint) = (self.xapic_id, self.base, self.lint);
        *self = Self { xapic_id, base, lint, signals, ..Self::new(self.config) };
    }

    /// Sets what a PC's firmware leaves behind: the APIC enabled, LINT0 passing the 8259's
    /// interrupts, LINT1 passing NMI ("virtual wire mode", MultiProcessor Specification 3.6.2.2).
    pub fn enter_virtual_wire_mode(&mut self) {
        self.svr = SVR_ENABLE | 0xff;
        self.lvt[Lvt::Lint0 as usize] = 0x700;
        self.lvt[Lvt::Lint1 as usize] = 0x400;
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The physical address of the register page, while there is one (xAPIC mode).
    pub fn mmio_base(&self) -> Option<u64> {
        (self.enabled() && !self.x2apic()).then_some(self.base & !0xfff)
    }

    /// Writes IA32_APIC_BASE. The transitions between the modes are those of figure 10-27;
    /// switching the APIC off loses its state (10.4.3).
    pub fn set_base(&mut self, _now: VmTime, value: u64) -> Result<(), MsrFault> {
        let defined = ((1u64 << self.config.physical_bits.min(52)) - 1) & !0x2ff;
        let mode = |base: u64| (base & BASE_ENABLE != 0, base & BASE_X2APIC != 0);
        let allowed = match (mode(self.base), mode(value)) {
            (_, (false, true)) => false,
            ((true, true), (true, false)) => false,
            ((false, _), (true, true)) => false,
            _ => value & !defined == 0,
        };
        if !allowed {
            return Err(MsrFault);
        }
        if value & BASE_ENABLE == 0 {
            self.reset();
        }
        self.base = value;
        Ok(())
    }

    /// Whether the APIC is enabled by its base register.
    pub fn enabled(&self) -> bool {
        self.base & BASE_ENABLE != 0
    }

    /// Whether the APIC is in x2APIC mode.
    pub fn x2apic(&self) -> bool {
        self.base & BASE_X2APIC != 0
    }

    /// The APIC id that messages are compared with.
    pub fn id(&self) -> u32 {
        if self.x2apic() { self.config.id } else { self.xapic_id.into() }
    }

    /// CR8: the class of the task priority.
    pub fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    /// Writes CR8 (10.8.6.1: the subclass becomes zero).
    pub fn set_cr8(&mut self, value: u8) {
        self.tpr = value << 4;
    }

    /// The processor priority (10.8.3.1).
    pub fn processor_priority(&self) -> u8 {
        let serving = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= serving >> 4 { self.tpr } else { serving & 0xf0 }
    }

    /// The vector that the processor would take now.
    pub fn pending(&self) -> Option<u8> {
        let vector = self.irr.highest()?;
        (self.enabled() && vector >> 4 > self.processor_priority() >> 4).then_some(vector)
    }

    /// The processor takes an interrupt: its vector, which is the spurious one if the interrupt
    /// is no longer deliverable (10.9).
    pub fn acknowledge(&mut self) -> u8 {
        match self.pending() {
            Some(vector) => {
                self.irr.clear(vector);
                self.isr.set(vector);
                vector
            }
            None => self.svr as u8,
        }
    }

    /// Whether the 8259's interrupt, wired to LINT0, passes to the processor.
    pub fn accept_lint0(&self) -> bool {
        if !self.enabled() {
            // Then LINT0 is the processor's INTR pin (10.4.3).
            return true;
        }
        let entry = self.lvt[Lvt::Lint0 as usize];
        entry & LVT_MASKED == 0 && DeliveryMode::from_bits(entry >> 8) == DeliveryMode::ExtInt
    }

    /// Drives LINT0 or LINT1. The 8259 need not be driven here where the machine asks
    /// [`accept_lint0`](Self::accept_lint0) and the 8259's own output.
    pub fn set_lint(&mut self, pin: usize, level: bool) {
        let (Some(input), Some(&entry)) =
            (self.lint.get_mut(pin), self.lvt.get(Lvt::Lint0 as usize + pin))
        else {
            return;
        };
        let rising = level && !std::mem::replace(input, level);
        if !rising {
            return;
        }
        if !self.enabled() {
            if pin == 1 {
                self.signals.push_back(CpuSignal::Nmi);
            }
        } else if entry & LVT_MASKED == 0 {
            match DeliveryMode::from_bits(entry >> 8) {
                DeliveryMode::Fixed => self.accept(entry as u8, false),
                DeliveryMode::Nmi => self.signals.push_back(CpuSignal::Nmi),
                DeliveryMode::Smi => self.signals.push_back(CpuSignal::Smi),
                DeliveryMode::Init => self.signals.push_back(CpuSignal::Init),
                _ => {}
            }
        }
    }

    /// Whether a message's destination includes this APIC (10.6.2, 10.12.9, 10.12.10).
    pub fn matches(&self, message: &InterruptMessage) -> bool {
        let to = message.destination;
        if !self.enabled() {
            return false;
        }
        if to == BROADCAST {
            return true;
        }
        match (message.logical, self.x2apic()) {
            (false, _) => to == self.id(),
            (true, true) => {
                let own = self.logical_x2apic_id();
                own >> 16 == to >> 16 && own & to & 0xffff != 0
            }
            // The flat model compares all eight bits, the cluster model four and four.
            (true, false) if self.dfr >> 28 == 0xf => u32::from(self.ldr) & to != 0,
            (true, false) => {
                let own = u32::from(self.ldr);
                own >> 4 == to >> 4 && own & to & 0xf != 0
            }
        }
    }

    /// A message arrives that is meant for this APIC.
    pub fn deliver(&mut self, message: &InterruptMessage) {
        if !self.enabled() {
            return;
        }
        match message.delivery {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                if self.software_enabled() {
                    self.accept(message.vector, message.level);
                }
            }
            DeliveryMode::Smi => self.signals.push_back(CpuSignal::Smi),
            DeliveryMode::Nmi => self.signals.push_back(CpuSignal::Nmi),
            DeliveryMode::Init => self.signals.push_back(CpuSignal::Init),
            DeliveryMode::StartUp => {
                self.signals.push_back(CpuSignal::StartUp(message.vector));
            }
            DeliveryMode::ExtInt => self.signals.push_back(CpuSignal::ExtInt),
            DeliveryMode::Reserved => {}
        }
    }

    /// Takes the next signal to the processor.
    pub fn take_signal(&mut self) -> Option<CpuSignal> {
        self.signals.pop_front()
    }

    /// Takes the next IPI that software has sent.
    pub fn take_ipi(&mut self) -> Option<IpiMessage> {
        self.ipis.pop_front()
    }

    /// Takes the vector of a level-triggered interrupt that has ended, to broadcast to the
    /// IOAPICs (10.8.5).
    pub fn take_eoi(&mut self) -> Option<u8> {
        self.eoi.take()
    }

    /// Brings the timer up to date.
    pub fn advance(&mut self, now: VmTime) {
        if self.timer.expired(now, self.timer_mode()) {
            self.raise_local(Lvt::Timer);
        }
    }

    /// When the timer will next interrupt.
    pub fn next_event(&self, now: VmTime) -> Option<VmTime> {
        let masked = self.lvt[Lvt::Timer as usize] & LVT_MASKED != 0;
        if masked { None } else { self.timer.next_expiry(now, self.timer_mode()) }
    }

    /// IA32_TSC_DEADLINE: zero when the timer is not armed.
    pub fn tsc_deadline(&self) -> u64 {
        self.timer.tsc_deadline()
    }

    /// Writes IA32_TSC_DEADLINE; `at` is when the time-stamp counter reaches `value` (none if
    /// that never happens). Zero disarms the timer; in another timer mode the write is ignored
    /// (10.5.4.1).
    pub fn set_tsc_deadline(&mut self, now: VmTime, value: u64, at: Option<VmTime>) {
        self.advance(now);
        if self.timer_mode() == TimerMode::TscDeadline {
            self.timer.set_tsc_deadline(value, at);
            self.advance(now);
        }
    }

    fn software_enabled(&self) -> bool {
        self.svr & SVR_ENABLE != 0
    }

    fn timer_mode(&self) -> TimerMode {
        TimerMode::from_lvt(self.lvt[Lvt::Timer as usize])
    }

    fn logical_x2apic_id(&self) -> u32 {
        let id = self.config.id;
        id >> 4 << 16 | 1 << (id & 0xf)
    }

    /// Accepts a fixed interrupt (10.8.4).
    fn accept(&mut self, vector: u8, level: bool) {
        if vector < 16 {
            return self.report(ESR_RECEIVE_ILLEGAL_VECTOR);
        }
        self.irr.set(vector);
        self.tmr.assign(vector, level);
    }

    /// Raises a local interrupt through its entry of the vector table.
    fn raise_local(&mut self, entry: Lvt) {
        let entry = self.lvt[entry as usize];
        if entry & LVT_MASKED == 0 && self.enabled() {
            self.accept(entry as u8, false);
        }
    }

    /// Records an error; the first since the status was last written interrupts (10.5.3). An
    /// error entry whose own vector is illegal cannot report itself.
    fn report(&mut self, error: u32) {
        let new = error & !self.errors != 0;
        self.errors |= error;
        if new && self.lvt[Lvt::Error as usize] as u8 >= 16 {
            self.raise_local(Lvt::Error);
        }
    }
}
