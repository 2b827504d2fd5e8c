//! The board as a vCPU reaches it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brolga_cpu::bus::Bus;
use brolga_devices::VmTime;
use brolga_mmu::{GuestPhys, PhysMap, Width};

use super::{Chip, Chipset};

/// IA32_APIC_BASE.
const APIC_BASE: u32 = 0x1b;
/// IA32_TSC_DEADLINE.
const TSC_DEADLINE: u32 = 0x6e0;
/// The x2APIC's registers.
const X2APIC: std::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// A vCPU's connection to the board.
pub struct BoardBus {
    chipset: Arc<Mutex<Chipset>>,
    map: Arc<PhysMap>,
    replan: bool,
}

/// Locks the chips. A panic elsewhere does not make their state less valid than it is.
pub(crate) fn lock(chipset: &Mutex<Chipset>) -> MutexGuard<'_, Chipset> {
    chipset.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BoardBus {
    /// A connection to the board.
    pub fn new(chipset: Arc<Mutex<Chipset>>, map: Arc<PhysMap>) -> Self {
        Self { chipset, map, replan: false }
    }

    /// Does `access`, which returns a result and the chip that it has reached; then carries what
    /// the chip has to say through the wires, and finds out whether the machine must look.
    fn with_chips<R>(
        &mut self,
        at: u64,
        access: impl FnOnce(&mut Chipset, VmTime) -> (R, Option<Chip>),
    ) -> R {
        let chipset = &mut *lock(&self.chipset);
        let now = chipset.now(at);
        let before = chipset.intr();
        let (result, chip) = access(chipset, now);
        let Some(chip) = chip else { return result };
        chipset.propagate();
        let signals = chipset.signals;
        self.replan |= chipset.intr() != before
            || signals.nmi
            || signals.init
            || signals.text_seen
            || signals.request.is_some()
            || chipset.a20() != self.map.a20()
            || chipset.is_early(chip, now);
        result
    }
}

impl Bus for BoardBus {
    fn port_read(&mut self, at: u64, port: u16, w: Width) -> u64 {
        self.with_chips(at, |chips, now| chips.port_read(now, port, w))
    }

    fn port_write(&mut self, at: u64, port: u16, w: Width, value: u64) {
        self.with_chips(at, |chips, now| ((), chips.port_write(now, port, w, value)));
    }

    fn mmio_read(&mut self, at: u64, addr: GuestPhys, w: Width) -> u64 {
        self.with_chips(at, |chips, now| chips.mmio_read(now, addr, w))
    }

    fn mmio_write(&mut self, at: u64, addr: GuestPhys, w: Width, value: u64) {
        self.with_chips(at, |chips, now| ((), chips.mmio_write(now, addr, w, value)));
    }

    fn msr_read(&mut self, at: u64, msr: u32) -> Option<u64> {
        self.with_chips(at, |chips, now| {
            let value = match msr {
                APIC_BASE => Some(chips.lapic.base()),
                TSC_DEADLINE => {
                    chips.lapic.advance(now);
                    Some(chips.lapic.tsc_deadline())
                }
                _ if X2APIC.contains(&msr) => chips.lapic.msr_read(now, msr).ok(),
                _ => None,
            };
            (value, Some(Chip::Lapic))
        })
    }

    fn msr_write(&mut self, at: u64, msr: u32, value: u64) -> Option<()> {
        self.with_chips(at, |chips, now| {
            let done = match msr {
                APIC_BASE => chips.lapic.set_base(now, value).ok(),
                _ if X2APIC.contains(&msr) => chips.lapic.msr_write(now, msr, value).ok(),
                _ => None,
            };
            (done, Some(Chip::Lapic))
        })
    }

    fn set_tsc_deadline(&mut self, at: u64, value: u64, due: u64) {
        self.with_chips(at, |chips, now| {
            // The counter is the guest's time in nanoseconds.
            chips.lapic.set_tsc_deadline(now, value, Some(VmTime(due)));
            ((), Some(Chip::Lapic))
        });
    }

    fn tsc(&mut self, at: u64) -> u64 {
        lock(&self.chipset).now(at).0
    }

    fn cr8(&mut self) -> u64 {
        lock(&self.chipset).lapic.cr8().into()
    }

    fn set_cr8(&mut self, at: u64, value: u64) {
        self.with_chips(at, |chips, _| {
            chips.lapic.set_cr8(value as u8);
            ((), Some(Chip::Lapic))
        });
    }

    fn set_ferr(&mut self, at: u64, active: bool) {
        self.with_chips(at, |chips, _| {
            chips.ferr.set_ferr(active);
            ((), Some(Chip::CoprocessorError))
        });
    }

    fn ignne(&mut self) -> bool {
        lock(&self.chipset).ferr.ignne()
    }

    fn acknowledge(&mut self, at: u64) -> Option<u8> {
        self.with_chips(at, |chips, now| (chips.acknowledge(now), Some(Chip::Pic)))
    }

    fn take_replan(&mut self) -> bool {
        std::mem::take(&mut self.replan)
    }
}
