//! Memory-mapped registers.

use brolga_devices::VmTime;
use brolga_mmu::{GuestPhys, Width};
use tracing::Level;

use super::{Chip, Chipset, Ranges, vga};
use crate::firmware::acpi;

/// The name of the tracing target of memory-mapped accesses.
const TARGET: &str = "mmio";

const IOAPIC: u64 = acpi::IOAPIC_ADDRESS as u64;
const HPET: u64 = acpi::HPET_ADDRESS as u64;
/// The size of a local APIC's page.
const LAPIC_LEN: u64 = 0x1000;

/// Where each chip answers. The local APIC is not in the table: software may move it.
pub(super) fn table() -> Ranges<u64, Chip> {
    Ranges::new([
        (vga::WINDOW..=vga::WINDOW + vga::WINDOW_LEN - 1, Chip::Vga),
        (IOAPIC..=IOAPIC + 0xfff, Chip::IoApic),
        (HPET..=HPET + 0x3ff, Chip::Hpet),
    ])
}

impl Chipset {
    /// A load. Also says which chip has answered.
    pub(super) fn mmio_read(
        &mut self,
        now: VmTime,
        addr: GuestPhys,
        width: Width,
    ) -> (u64, Option<Chip>) {
        let found = self.mapped(addr);
        let value = match found {
            Some((Chip::Vga, offset)) => self.vga.read_window(offset, width),
            Some((Chip::Hpet, offset)) => self.hpet.read(now, offset, width.bytes() as u8),
            Some((Chip::IoApic, offset)) => {
                self.ioapic.read(now, offset & !3) as u64 >> (8 * (offset & 3)) & width.mask()
            }
            // 32 bits of every 16 bytes are a register (SDM vol. 3, 12.4.1).
            Some((Chip::Lapic, offset)) if offset & 0xc == 0 => {
                let register = self.lapic.read(now, offset as u32 & !3);
                u64::from(register) >> (8 * (offset & 3)) & width.mask()
            }
            Some((Chip::Lapic, _)) => 0,
            _ => width.mask(),
        };
        if tracing::enabled!(target: TARGET, Level::TRACE) {
            trace("load", now, addr, width, value, found);
        }
        (value, found.map(|(chip, _)| chip))
    }

    /// A store. Says which chip has taken it.
    pub(super) fn mmio_write(
        &mut self,
        now: VmTime,
        addr: GuestPhys,
        width: Width,
        value: u64,
    ) -> Option<Chip> {
        let found = self.mapped(addr);
        if tracing::enabled!(target: TARGET, Level::TRACE) {
            trace("store", now, addr, width, value, found);
        }
        let is_register = width >= Width::W32;
        match found {
            Some((Chip::Vga, offset)) => self.vga.write_window(offset, width, value),
            Some((Chip::Hpet, offset)) => {
                self.hpet.write(now, offset, width.bytes() as u8, value);
            }
            Some((Chip::IoApic, offset)) if offset & 3 == 0 => {
                self.ioapic.write(now, offset, value as u32);
            }
            // Narrow and unaligned stores to the local APIC are undefined; here they are lost.
            Some((Chip::Lapic, offset)) if is_register && offset & 0xf == 0 => {
                self.lapic.write(now, offset as u32, value as u32);
            }
            _ => {}
        }
        found.map(|(chip, _)| chip)
    }

    fn mapped(&self, addr: GuestPhys) -> Option<(Chip, u64)> {
        let into_lapic = self.lapic.mmio_base().map(|base| addr.0.wrapping_sub(base));
        match into_lapic {
            Some(offset) if offset < LAPIC_LEN => Some((Chip::Lapic, offset)),
            _ => self.memory_table.find(addr.0).map(|(first, chip)| (chip, addr.0 - first)),
        }
    }
}

#[cold]
fn trace(
    what: &str,
    now: VmTime,
    addr: GuestPhys,
    width: Width,
    value: u64,
    found: Option<(Chip, u64)>,
) {
    let digits = 2 * width.bytes() as usize;
    let who = found.map_or("nobody".into(), |(chip, _)| format!("{chip:?}"));
    tracing::trace!(target: TARGET, "{} {what} {addr} {value:0digits$x} {who}", now.0);
}
