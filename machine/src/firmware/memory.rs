//! The guest-physical layout of RAM, and the map of it that the firmware reports (E820).
//!
//! | from      | to               | what                                                  |
//! |-----------|------------------|-------------------------------------------------------|
//! | 0         | 9_FFFF           | RAM; the last KiB is the extended BIOS data area       |
//! | A_0000    | B_FFFF           | VGA window, not RAM                                    |
//! | C_0000    | F_FFFF           | RAM that shadows the firmware; the tables are at F_0000|
//! | 10_0000   | min(m, 3 GiB) -1 | RAM                                                   |
//! | C000_0000 | FFFF_FFFF        | PCI windows, IOAPIC, HPET, local APIC, boot ROM        |
//! | 4 GiB     | m + 1 GiB - 1    | what RAM is left of `m`                               |
//!
//! As on a PC, the 128 KiB behind the VGA window are lost.

use std::ops::Range;

use brolga_mmu::{GuestPhys, PAGE_SIZE};

/// First address above 1 MiB: where extended memory begins.
pub const ONE_MIB: u64 = 1 << 20;
/// Where RAM below 4 GiB ends at the latest and the PCI window begins.
pub const LOW_RAM_END: u64 = 3 << 30;
/// Where the RAM that does not fit below [`LOW_RAM_END`] goes on.
pub const HIGH_RAM_BASE: u64 = 4 << 30;
/// First address of the extended BIOS data area.
pub const EBDA: u64 = 0x9_fc00;
/// End of conventional memory, and first address of the VGA window.
pub const VGA_WINDOW: u64 = 0xa_0000;
/// First address of the RAM that shadows option ROMs and firmware.
pub const SHADOW: u64 = 0xc_0000;
/// First address of the firmware's tables.
pub const TABLES: u64 = 0xf_0000;

/// Why an amount of RAM cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Less than [`MemoryLayout::MIN`].
    #[error("{0} bytes of RAM are too few; give the machine 1 MiB or more")]
    TooSmall(u64),
    /// More than [`MemoryLayout::MAX`].
    #[error("{0} bytes of RAM are too many; this machine takes up to 64 GiB")]
    TooLarge(u64),
    /// Not a whole number of pages.
    #[error("{0} bytes of RAM are not a whole number of 4 KiB pages; round the size")]
    PartialPage(u64),
}

/// How a range of an E820 map may be used (ACPI 6.5, table 15.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// RAM, free for the operating system.
    Usable = 1,
    /// Not to be touched.
    Reserved = 2,
}

/// One entry of an E820 map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
    /// What may be done with them.
    pub kind: E820Kind,
}

/// Where the RAM of a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLayout {
    bytes: u64,
}

impl MemoryLayout {
    /// The least RAM: what real mode can address.
    pub const MIN: u64 = ONE_MIB;
    /// The most RAM.
    pub const MAX: u64 = 64 << 30;

    /// The layout of `bytes` of RAM.
    pub fn new(bytes: u64) -> Result<Self, MemoryError> {
        match bytes {
            ..Self::MIN => Err(MemoryError::TooSmall(bytes)),
            _ if bytes > Self::MAX => Err(MemoryError::TooLarge(bytes)),
            _ if !bytes.is_multiple_of(PAGE_SIZE) => Err(MemoryError::PartialPage(bytes)),
            _ => Ok(Self { bytes }),
        }
    }

    /// The RAM as its buyer counts it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The RAM that [`Self::ram_regions`] places: all but what the VGA window hides.
    pub fn backed_bytes(&self) -> u64 {
        self.ram_regions().iter().map(|&(_, len)| len).sum()
    }

    /// First address after the RAM below 4 GiB.
    pub fn low_ram_end(&self) -> u64 {
        self.bytes.min(LOW_RAM_END)
    }

    /// First address after the RAM above 4 GiB, if there is any.
    pub fn high_ram_end(&self) -> Option<u64> {
        let rest = self.bytes.saturating_sub(LOW_RAM_END);
        (rest != 0).then_some(HIGH_RAM_BASE + rest)
    }

    /// Where RAM answers on the bus, in ascending order: first address and length.
    pub fn ram_regions(&self) -> Vec<(GuestPhys, u64)> {
        let conventional = 0..VGA_WINDOW;
        let rest = [SHADOW..self.low_ram_end(), self.high_ram()];
        std::iter::once(conventional)
            .chain(rest)
            .filter(|range| !range.is_empty())
            .map(|range| (GuestPhys(range.start), range.end - range.start))
            .collect()
    }

    /// The RAM that an operating system may use, in ascending order.
    pub fn usable(&self) -> Vec<Range<u64>> {
        [0..EBDA, ONE_MIB..self.low_ram_end(), self.high_ram()]
            .into_iter()
            .filter(|range| !range.is_empty())
            .collect()
    }

    /// The memory map as INT 15h, AX=E820h would report it.
    pub fn e820(&self) -> Vec<E820Entry> {
        let reserved = [EBDA..VGA_WINDOW, TABLES..ONE_MIB];
        let entry = |kind| {
            move |range: Range<u64>| E820Entry {
                base: range.start,
                len: range.end - range.start,
                kind,
            }
        };
        let mut map: Vec<_> = (self.usable().into_iter().map(entry(E820Kind::Usable)))
            .chain(reserved.into_iter().map(entry(E820Kind::Reserved)))
            .collect();
        map.sort_unstable_by_key(|entry| entry.base);
        map
    }

    fn high_ram(&self) -> Range<u64> {
        HIGH_RAM_BASE..self.high_ram_end().unwrap_or(HIGH_RAM_BASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn layout(bytes: u64) -> MemoryLayout {
        MemoryLayout::new(bytes).expect("a legal size")
    }

    #[test]
    fn sizes_outside_the_limits_are_refused() {
        assert_eq!(MemoryLayout::new(0), Err(MemoryError::TooSmall(0)));
        let too_few = ONE_MIB - PAGE_SIZE;
        assert_eq!(MemoryLayout::new(too_few), Err(MemoryError::TooSmall(too_few)));
        assert_eq!(MemoryLayout::new(ONE_MIB + 1), Err(MemoryError::PartialPage(ONE_MIB + 1)));
        assert_eq!(MemoryLayout::new(u64::MAX), Err(MemoryError::TooLarge(u64::MAX)));
        assert!(MemoryLayout::new(MemoryLayout::MIN).is_ok());
        assert!(MemoryLayout::new(MemoryLayout::MAX).is_ok());
    }

    #[test]
    fn the_least_machine_has_no_extended_memory() {
        let layout = layout(ONE_MIB);
        assert_eq!(layout.usable(), vec![0..EBDA]);
        assert_eq!(
            layout.ram_regions(),
            vec![(GuestPhys(0), 0xa_0000), (GuestPhys(0xc_0000), 0x4_0000)]
        );
    }

    #[test]
    fn ram_wraps_around_the_hole_below_four_gib() {
        assert_eq!(layout(3 * GIB).high_ram_end(), None);
        let large = layout(3 * GIB + PAGE_SIZE);
        assert_eq!(large.low_ram_end(), 3 * GIB);
        assert_eq!(large.high_ram_end(), Some(4 * GIB + PAGE_SIZE));
        assert_eq!(large.ram_regions().last(), Some(&(GuestPhys(4 * GIB), PAGE_SIZE)));
    }

    #[test]
    fn all_ram_but_the_vga_window_is_backed() {
        for bytes in [ONE_MIB, 16 << 20, 3 * GIB, 5 * GIB, MemoryLayout::MAX] {
            assert_eq!(layout(bytes).backed_bytes(), bytes - 0x2_0000, "of {bytes:#x}");
        }
    }

    #[test]
    fn the_e820_map_is_sorted_disjoint_and_reports_the_tables_as_reserved() {
        for bytes in [ONE_MIB, 512 << 20, 5 * GIB] {
            let map = layout(bytes).e820();
            for pair in map.windows(2) {
                assert!(pair[0].base + pair[0].len <= pair[1].base, "{pair:x?} of {bytes:#x}");
            }
            let tables = E820Entry { base: TABLES, len: 0x1_0000, kind: E820Kind::Reserved };
            assert!(map.contains(&tables), "no {tables:x?} in {map:x?}");
            let usable: u64 =
                map.iter().filter(|e| e.kind == E820Kind::Usable).map(|e| e.len).sum();
            assert_eq!(usable, bytes - ONE_MIB + EBDA);
        }
    }
}
