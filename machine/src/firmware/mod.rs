//! What firmware leaves in memory for an operating system that is entered directly: the BIOS
//! data area, ACPI tables, SMBIOS structures, the memory map, and memory types.

pub mod acpi;
pub mod memory;
mod mtrr;
mod smbios;

use brolga_mmu::{GuestPhys, MapError, PhysMap};

pub use memory::{E820Entry, E820Kind, MemoryError, MemoryLayout};
pub use mtrr::set_mtrrs;

/// The most CPUs the tables can describe: 8-bit local APIC IDs, FFh being the broadcast.
pub const MAX_CPUS: usize = 255;

/// Where the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareInfo {
    /// ACPI's Root System Description Pointer.
    pub rsdp: GuestPhys,
    /// The SMBIOS entry point.
    pub smbios: GuestPhys,
}

/// Why the tables could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// The tables describe 1 to [`MAX_CPUS`] CPUs.
    #[error("{0} CPUs cannot be described; give the machine 1 to {MAX_CPUS}")]
    Cpus(usize),
    /// The tables outgrow their 64 KiB.
    #[error("the firmware tables do not fit in the 64 KiB below 1 MiB")]
    Full,
    /// There is no RAM where the tables belong.
    #[error("the firmware tables cannot be written: {0}")]
    Memory(#[from] MapError),
}

/// Writes the BIOS data area and all tables below 1 MiB.
pub fn install(
    map: &PhysMap,
    layout: &MemoryLayout,
    cpus: usize,
) -> Result<FirmwareInfo, FirmwareError> {
    if cpus == 0 || cpus > MAX_CPUS {
        return Err(FirmwareError::Cpus(cpus));
    }
    write_bios_data(map)?;
    let mut area = TableArea { map, next: memory::TABLES, end: memory::ONE_MIB };
    let smbios = smbios::install(&mut area, layout, cpus)?;
    let rsdp = acpi::install(&mut area, cpus)?;
    Ok(FirmwareInfo { rsdp, smbios })
}

/// The fields of the BIOS data area that kernels read without a BIOS to call: the address of
/// COM1 (40:00), the segment of the extended area (40:0E), and the KiB of conventional memory
/// (40:13). The extended area begins with its own size in KiB.
fn write_bios_data(map: &PhysMap) -> Result<(), MapError> {
    let kib = (memory::EBDA / 1024) as u16;
    let fields: [(u64, u16); 3] =
        [(0x400, acpi::COM1_PORT), (0x40e, (memory::EBDA >> 4) as u16), (0x413, kib)];
    for (at, value) in fields {
        map.write_slice(GuestPhys(at), &value.to_le_bytes())?;
    }
    map.write_slice(GuestPhys(memory::EBDA), &[1])
}

/// The memory that tables are placed in, from its lowest address up.
struct TableArea<'a> {
    map: &'a PhysMap,
    next: u64,
    end: u64,
}

impl TableArea<'_> {
    /// Writes `table` at the next multiple of `align`, a power of two.
    fn place(&mut self, align: u64, table: &[u8]) -> Result<GuestPhys, FirmwareError> {
        let at = self.next.next_multiple_of(align);
        let end = at + table.len() as u64;
        if end > self.end {
            return Err(FirmwareError::Full);
        }
        self.map.write_slice(GuestPhys(at), table)?;
        self.next = end;
        Ok(GuestPhys(at))
    }

    /// Where the next table at a multiple of `align` will be.
    fn peek(&self, align: u64) -> u64 {
        self.next.next_multiple_of(align)
    }
}

/// The byte that makes the sum of `bytes` and itself zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_mmu::Ram;

    /// A map with the RAM of `layout` and nothing else.
    pub(crate) fn map_of(layout: &MemoryLayout) -> PhysMap {
        let mut map = PhysMap::new(Ram::new(layout.backed_bytes()).expect("host memory"));
        for (at, len) in layout.ram_regions() {
            map.add_ram(at, len).expect("the regions are what the RAM was made for");
        }
        map
    }

    pub(crate) fn read(map: &PhysMap, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        map.read_slice(GuestPhys(at), &mut bytes).expect("RAM");
        bytes
    }

    fn installed(ram: u64, cpus: usize) -> (PhysMap, FirmwareInfo) {
        let layout = MemoryLayout::new(ram).expect("a legal size");
        let map = map_of(&layout);
        let info = install(&map, &layout, cpus).expect("the tables fit");
        (map, info)
    }

    #[test]
    fn both_entry_points_are_where_scans_look() {
        for cpus in [1, MAX_CPUS] {
            let (map, info) = installed(MemoryLayout::MIN, cpus);
            for (at, anchor) in [(info.rsdp, &b"RSD PTR "[..]), (info.smbios, b"_SM_")] {
                assert!(at.0.is_multiple_of(16), "{at} is not on a paragraph");
                assert!((0xf_0000..0x10_0000).contains(&at.0), "{at} is out of the scanned range");
                assert_eq!(read(&map, at.0, anchor.len()), anchor);
            }
        }
    }

    #[test]
    fn cpu_counts_outside_the_limits_are_refused() {
        let layout = MemoryLayout::new(MemoryLayout::MIN).expect("a legal size");
        for cpus in [0, MAX_CPUS + 1, usize::MAX] {
            let refused = install(&map_of(&layout), &layout, cpus);
            assert!(matches!(refused, Err(FirmwareError::Cpus(n)) if n == cpus), "{refused:?}");
        }
    }

    #[test]
    fn the_bios_data_area_points_at_com1_and_the_extended_area() {
        let (map, _) = installed(MemoryLayout::MIN, 1);
        assert_eq!(read(&map, 0x400, 2), 0x3f8u16.to_le_bytes());
        assert_eq!(read(&map, 0x40e, 2), 0x9fc0u16.to_le_bytes());
        assert_eq!(read(&map, 0x413, 2), 639u16.to_le_bytes());
    }

    #[test]
    fn a_full_area_is_an_error() {
        let layout = MemoryLayout::new(MemoryLayout::MIN).expect("a legal size");
        let map = map_of(&layout);
        let mut area = TableArea { map: &map, next: 0xf_fff0, end: 0x10_0000 };
        assert!(matches!(area.place(16, &[0; 17]), Err(FirmwareError::Full)));
        assert_eq!(area.place(16, &[1; 16]).expect("fits exactly"), GuestPhys(0xf_fff0));
    }
}
