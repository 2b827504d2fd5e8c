//! The registers, as the xAPIC's page and as x2APIC MSRs.

use super::*;

/// The access is a general-protection fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrFault;

/// Integrated APIC, six LVT entries.
const VERSION: u32 = 0x14 | 5 << 16;

/// Register numbers: the MSR's offset from 800h, or the page offset divided by 16.
pub(super) mod reg {
    pub(in crate::lapic) const ID: u32 = 0x02;
    pub(in crate::lapic) const VERSION: u32 = 0x03;
    pub(in crate::lapic) const TPR: u32 = 0x08;
    pub(in crate::lapic) const APR: u32 = 0x09;
    pub(in crate::lapic) const PPR: u32 = 0x0a;
    pub(in crate::lapic) const EOI: u32 = 0x0b;
    pub(in crate::lapic) const RRD: u32 = 0x0c;
    pub(in crate::lapic) const LDR: u32 = 0x0d;
    pub(in crate::lapic) const DFR: u32 = 0x0e;
    pub(in crate::lapic) const SVR: u32 = 0x0f;
    pub(in crate::lapic) const ISR: u32 = 0x10;
    pub(in crate::lapic) const TMR: u32 = 0x18;
    pub(in crate::lapic) const IRR: u32 = 0x20;
    pub(in crate::lapic) const ESR: u32 = 0x28;
    pub(in crate::lapic) const ICR: u32 = 0x30;
    pub(in crate::lapic) const ICR_HIGH: u32 = 0x31;
    pub(in crate::lapic) const LVT: u32 = 0x32;
    pub(in crate::lapic) const LVT_LAST: u32 = 0x37;
    pub(in crate::lapic) const TIMER_INITIAL: u32 = 0x38;
    pub(in crate::lapic) const TIMER_CURRENT: u32 = 0x39;
    pub(in crate::lapic) const TIMER_DIVIDE: u32 = 0x3e;
    pub(in crate::lapic) const SELF_IPI: u32 = 0x3f;
}

/// The first x2APIC MSR.
const MSR_FIRST: u32 = 0x800;

pub(super) const SVR_WRITABLE: u32 = 0x1ff;
/// Vector, delivery mode, destination mode, level, trigger, shorthand.
pub(super) const ICR_WRITABLE: u32 = 0x000c_cfff;

/// The writable bits of each LVT entry (figure 10-8).
pub(super) const LVT_WRITABLE: [u32; 6] =
    [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];

/// Delivery status, and at the pins remote IRR: not reserved, writes of them are ignored.
const LVT_READ_ONLY: [u32; 6] = [0x1000, 0x1000, 0x1000, 0x5000, 0x5000, 0x1000];

impl Lapic {
    /// Reads a register of the xAPIC's page: 32 bits at a multiple of 16 (10.4.1).
    pub fn read(&mut self, now: VmTime, offset: u32) -> u32 {
        self.advance(now);
        self.read_page(now, offset >> 4 & 0xff).unwrap_or_else(|| {
            self.report(ESR_ILLEGAL_REGISTER);
            0
        })
    }

    /// A register of the page, by its number; none if there is no such register.
    pub(super) fn read_page(&self, now: VmTime, index: u32) -> Option<u32> {
        match index {
            reg::ID => Some(u32::from(self.xapic_id) << 24),
            reg::LDR => Some(u32::from(self.ldr) << 24),
            reg::DFR => Some(self.dfr),
            reg::ICR => Some(self.icr as u32),
            reg::ICR_HIGH => Some((self.icr >> 32) as u32),
            reg::APR | reg::RRD | reg::EOI => Some(0),
            _ => self.read_common(now, index),
        }
    }

    /// Writes a register of the xAPIC's page. Then the machine takes EOIs, IPIs and signals.
    pub fn write(&mut self, now: VmTime, offset: u32, value: u32) {
        self.advance(now);
        let index = offset >> 4 & 0xff;
        match index {
            reg::ID => self.xapic_id = (value >> 24) as u8,
            reg::LDR => self.ldr = (value >> 24) as u8,
            reg::DFR => self.dfr = value | 0x0fff_ffff,
            reg::EOI => self.end_of_interrupt(),
            reg::ESR => self.latch_errors(),
            reg::ICR => {
                self.icr = self.icr & !0xffff_ffff | u64::from(value & ICR_WRITABLE);
                self.send((self.icr >> 56) as u32);
            }
            reg::ICR_HIGH => {
                self.icr = self.icr & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32;
            }
            reg::LVT..=reg::LVT_LAST => self.write_lvt((index - reg::LVT) as usize, value),
            _ if self.write_common(now, index, value) => {}
            // Read-only registers.
            reg::APR | reg::RRD => {}
            _ if self.read_common(now, index).is_some() => {}
            _ => self.report(ESR_ILLEGAL_REGISTER),
        }
    }

    /// RDMSR of an x2APIC register, 800h to 8FFh (10.12.1.2).
    pub fn msr_read(&mut self, now: VmTime, msr: u32) -> Result<u64, MsrFault> {
        if !self.enabled() || !self.x2apic() {
            return Err(MsrFault);
        }
        self.advance(now);
        let index = msr.wrapping_sub(MSR_FIRST);
        match index {
            reg::ID => Ok(self.config.id.into()),
            reg::LDR => Ok(self.logical_x2apic_id().into()),
            reg::ICR => Ok(self.icr),
            _ => self.read_common(now, index).map(u64::from).ok_or(MsrFault),
        }
    }

    /// WRMSR of an x2APIC register. Reserved bits, and registers that are read-only or do not
    /// exist, fault. Then the machine takes EOIs, IPIs and signals.
    pub fn msr_write(&mut self, now: VmTime, msr: u32, value: u64) -> Result<(), MsrFault> {
        if !self.enabled() || !self.x2apic() {
            return Err(MsrFault);
        }
        let index = msr.wrapping_sub(MSR_FIRST);
        if value & !Self::msr_writable(index).ok_or(MsrFault)? != 0 {
            return Err(MsrFault);
        }
        self.advance(now);
        let low = value as u32;
        match index {
            reg::EOI => self.end_of_interrupt(),
            reg::ESR => self.latch_errors(),
            reg::ICR => {
                self.icr = value;
                self.send((value >> 32) as u32);
            }
            reg::SELF_IPI => self.send_to_self(value as u8),
            reg::LVT..=reg::LVT_LAST => self.write_lvt((index - reg::LVT) as usize, low),
            _ => {
                self.write_common(now, index, low);
            }
        }
        Ok(())
    }

    /// The bits that may be set in a write of an x2APIC register; none if it cannot be written
    /// (table 10-6).
    fn msr_writable(index: u32) -> Option<u64> {
        Some(match index {
            reg::TPR | reg::SELF_IPI => 0xff,
            reg::EOI | reg::ESR => 0,
            reg::SVR => SVR_WRITABLE.into(),
            reg::ICR => 0xffff_ffff << 32 | u64::from(ICR_WRITABLE),
            reg::LVT..=reg::LVT_LAST => {
                u64::from(LVT_WRITABLE[(index - reg::LVT) as usize])
                    | u64::from(LVT_READ_ONLY[(index - reg::LVT) as usize])
            }
            reg::TIMER_INITIAL => 0xffff_ffff,
            reg::TIMER_DIVIDE => 0xb,
            _ => return None,
        })
    }

    /// The registers that read alike in both modes.
    fn read_common(&self, now: VmTime, index: u32) -> Option<u32> {
        Some(match index {
            reg::VERSION => VERSION,
            reg::TPR => self.tpr.into(),
            reg::PPR => self.processor_priority().into(),
            reg::SVR => self.svr,
            reg::ISR..reg::TMR => self.isr.register((index - reg::ISR) as usize),
            reg::TMR..reg::IRR => self.tmr.register((index - reg::TMR) as usize),
            reg::IRR..reg::ESR => self.irr.register((index - reg::IRR) as usize),
            reg::ESR => self.esr,
            reg::LVT..=reg::LVT_LAST => self.lvt[(index - reg::LVT) as usize],
            reg::TIMER_INITIAL => self.timer.initial(),
            reg::TIMER_CURRENT => self.timer.current(now),
            reg::TIMER_DIVIDE => self.timer.divide(),
            _ => return None,
        })
    }

    /// The registers that are written alike in both modes; whether this was one.
    fn write_common(&mut self, now: VmTime, index: u32, value: u32) -> bool {
        match index {
            reg::TPR => self.tpr = value as u8,
            reg::SVR => {
                self.svr = value & SVR_WRITABLE;
                if !self.software_enabled() {
                    // 10.4.7.2: disabling sets the mask of every entry.
                    self.lvt.iter_mut().for_each(|entry| *entry |= LVT_MASKED);
                }
            }
            reg::TIMER_INITIAL => {
                if self.timer_mode() != TimerMode::TscDeadline {
                    self.timer.set_initial(now, value);
                }
            }
            reg::TIMER_DIVIDE => self.timer.set_divide(now, value),
            _ => return false,
        }
        true
    }

    fn write_lvt(&mut self, index: usize, value: u32) {
        let forced = if self.software_enabled() { 0 } else { LVT_MASKED };
        let value = value & LVT_WRITABLE[index] | forced;
        if index == Lvt::Timer as usize {
            let deadline = |entry| TimerMode::from_lvt(entry) == TimerMode::TscDeadline;
            if deadline(value) != deadline(self.lvt[index]) {
                self.timer.disarm();
            }
        }
        self.lvt[index] = value;
    }

    fn end_of_interrupt(&mut self) {
        if let Some(vector) = self.isr.highest() {
            self.isr.clear(vector);
            if self.tmr.contains(vector) {
                self.eoi = Some(vector);
            }
        }
    }

    /// A write of the error status makes readable what was detected since the last one (10.5.3).
    fn latch_errors(&mut self) {
        self.esr = std::mem::take(&mut self.errors);
    }

    /// Sends what the interrupt command register says (10.6.1).
    fn send(&mut self, destination: u32) {
        let icr = self.icr as u32;
        let delivery = DeliveryMode::from_bits(icr >> 8);
        let vector = icr as u8;
        let fixed = matches!(delivery, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
        let level_deassert = icr & 0xc000 == 0x8000;
        if delivery == DeliveryMode::Init && level_deassert {
            // INIT level de-assert only synchronised arbitration ids, on processors long gone.
            return;
        }
        if fixed && vector < 16 {
            return self.report(ESR_SEND_ILLEGAL_VECTOR);
        }
        let shorthand = match icr >> 18 & 3 {
            0 => Shorthand::Destination,
            1 => {
                return if fixed {
                    self.send_to_self(vector)
                };
            }
            2 => Shorthand::All,
            _ => Shorthand::Others,
        };
        let logical = icr & 0x800 != 0;
        let message = if self.x2apic() {
            InterruptMessage { vector, delivery, destination, logical, level: false }
        } else {
            let destination = destination as u8;
            InterruptMessage::with_short_destination(vector, delivery, destination, logical, false)
        };
        self.ipis.push_back(IpiMessage { shorthand, message });
    }

    fn send_to_self(&mut self, vector: u8) {
        if vector < 16 {
            self.report(ESR_SEND_ILLEGAL_VECTOR);
        } else if self.software_enabled() {
            self.accept(vector, false);
        }
    }
}
