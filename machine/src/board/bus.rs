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
    tsc_khz: u32,
    replan: bool,
}

/// Nanoseconds in a millisecond: `ns * kHz / this` are ticks.
const NS_PER_MS: u128 = 1_000_000;

/// Locks the chips. A panic elsewhere does not make their state less valid than it is.
pub(crate) fn lock(chipset: &Mutex<Chipset>) -> MutexGuard<'_, Chipset> {
    chipset.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BoardBus {
    /// A connection to the board of a vCPU whose time-stamp counter has this frequency.
    pub fn new(chipset: Arc<Mutex<Chipset>>, map: Arc<PhysMap>, tsc_khz: u32) -> Self {
        Self { chipset, map, tsc_khz: tsc_khz.max(1), replan: false }
    }

    /// When the time-stamp counter, which began with `start`, reaches `ticks`.
    fn time_of(&self, ticks: u64, start: u64) -> VmTime {
        let ticks = u128::from(ticks.saturating_sub(start));
        let ns = (ticks * NS_PER_MS).div_ceil(self.tsc_khz.into());
        VmTime(ns.try_into().unwrap_or(u64::MAX))
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
        let start = lock(&self.chipset).tsc_start;
        let due = self.time_of(due, start);
        self.with_chips(at, |chips, now| {
            chips.lapic.set_tsc_deadline(now, value, Some(due));
            ((), Some(Chip::Lapic))
        });
    }

    fn tsc(&mut self, at: u64) -> u64 {
        let mut chips = lock(&self.chipset);
        let ticks = u128::from(chips.now(at).0) * u128::from(self.tsc_khz) / NS_PER_MS;
        chips.tsc_start.wrapping_add(ticks as u64)
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
