//! SMBIOS 2.8 structures: what the machine calls itself.
//!
//! Sections are those of the System Management BIOS Reference Specification (DSP0134) 2.8.

use brolga_mmu::GuestPhys;

use super::{FirmwareError, MemoryLayout, TableArea, checksum};

const MANUFACTURER: &str = "Brolga";
const PRODUCT: &str = "PC";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Systems take the year for the age of the firmware; some distrust what is old.
const DATE: &str = "01/01/2026";

/// Length of the entry point (5.2.1).
const ENTRY_LEN: usize = 0x1f;

/// Handles of structures that others refer to.
const CHASSIS: u16 = 0x300;
const MEMORY_ARRAY: u16 = 0x1000;

/// A structure (6.1) while it is being written: the formatted part, and the strings it refers to
/// by number.
struct Structure {
    formatted: Vec<u8>,
    strings: Vec<&'static str>,
}

impl Structure {
    fn new(kind: u8, handle: u16) -> Self {
        let mut formatted = vec![kind, 0];
        formatted.extend(handle.to_le_bytes());
        Self { formatted, strings: Vec::new() }
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.formatted.extend(bytes);
        self
    }

    fn word(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn dword(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn qword(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A string's number; strings count from one, zero is none.
    fn string(mut self, text: &'static str) -> Self {
        self.strings.push(text);
        self.formatted.push(self.strings.len() as u8);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        self.formatted[1] = self.formatted.len() as u8;
        for text in &self.strings {
            self.formatted.extend(text.as_bytes());
            self.formatted.push(0);
        }
        // The string set ends with an empty string; where there is none, two zeros stand.
        let terminator: &[u8] = if self.strings.is_empty() { &[0, 0] } else { &[0] };
        self.formatted.extend(terminator);
        self.formatted
    }
}

/// Writes the entry point and the structures; returns where the entry point is.
pub(super) fn install(
    area: &mut TableArea<'_>,
    layout: &MemoryLayout,
    cpus: usize,
) -> Result<GuestPhys, FirmwareError> {
    let structures = structures(layout, cpus);
    let at = area.peek(16) + (ENTRY_LEN as u64).next_multiple_of(16);
    let entry = area.place(16, &entry_point(at as u32, &structures))?;
    area.place(16, &structures.concat())?;
    Ok(entry)
}

/// The entry point (5.2.1), with the older one that it holds.
fn entry_point(table: u32, structures: &[Vec<u8>]) -> Vec<u8> {
    const INTERMEDIATE: usize = 0x10;
    let largest = structures.iter().map(Vec::len).max().unwrap_or(0) as u16;
    let total = structures.iter().map(Vec::len).sum::<usize>() as u16;
    let mut entry = b"_SM_\0".to_vec();
    entry.extend([ENTRY_LEN as u8, 2, 8]);
    entry.extend(largest.to_le_bytes());
    entry.extend([0; 6]);
    entry.extend(b"_DMI_\0");
    entry.extend(total.to_le_bytes());
    entry.extend(table.to_le_bytes());
    entry.extend((structures.len() as u16).to_le_bytes());
    entry.push(0x28);
    entry[INTERMEDIATE + 5] = checksum(&entry[INTERMEDIATE..]);
    entry[4] = checksum(&entry);
    entry
}

fn structures(layout: &MemoryLayout, cpus: usize) -> Vec<Vec<u8>> {
    let mut all = vec![bios(), system(), chassis(), processor(cpus)];
    all.extend([memory_array(layout), memory_device(layout)]);
    all.extend(mapped_ranges(layout));
    all.push(Structure::new(32, 0x2000).bytes(&[0; 7]).finish());
    all.push(Structure::new(127, 0x7f00).finish());
    all
}

/// Type 0 (7.1).
fn bios() -> Vec<u8> {
    /// The characteristics are not supported: bit 3. Nothing else is claimed.
    const CHARACTERISTICS: u64 = 1 << 3;
    /// ACPI (first byte); this is a virtual machine (second byte).
    const EXTENSION: [u8; 2] = [1 << 0, 1 << 4];
    /// "No such release number", of the system BIOS and of the embedded controller.
    const NO_RELEASES: [u8; 4] = [0xff; 4];
    Structure::new(0, 0)
        .string(MANUFACTURER)
        .string(VERSION)
        .word((super::memory::TABLES >> 4) as u16)
        .string(DATE)
        .bytes(&[0])
        .qword(CHARACTERISTICS)
        .bytes(&EXTENSION)
        .bytes(&NO_RELEASES)
        .finish()
}

/// Type 1 (7.2). The UUID is absent (all zeros), so that two runs see the same machine.
fn system() -> Vec<u8> {
    const WAKE_UP_POWER_SWITCH: u8 = 6;
    Structure::new(1, 0x100)
        .string(MANUFACTURER)
        .string(PRODUCT)
        .string(VERSION)
        .bytes(&[0])
        .bytes(&[0; 16])
        .bytes(&[WAKE_UP_POWER_SWITCH, 0, 0])
        .finish()
}

/// Type 3 (7.4).
fn chassis() -> Vec<u8> {
    const OTHER: u8 = 1;
    const SAFE: u8 = 3;
    const SECURITY_NONE: u8 = 3;
    Structure::new(3, CHASSIS)
        .string(MANUFACTURER)
        .bytes(&[OTHER, 0, 0, 0])
        .bytes(&[SAFE, SAFE, SAFE, SECURITY_NONE])
        .dword(0)
        .bytes(&[0, 0, 0, 0, 0])
        .finish()
}

/// Type 4 (7.5): one socket that holds all CPUs as cores.
fn processor(cpus: usize) -> Vec<u8> {
    const CENTRAL: u8 = 3;
    const FAMILY_OTHER: u8 = 1;
    const POPULATED_ENABLED: u8 = 0x41;
    const UPGRADE_OTHER: u8 = 1;
    const NO_CACHE: u16 = 0xffff;
    const MULTI_CORE: u16 = 1 << 3;
    let characteristics = if cpus > 1 { MULTI_CORE } else { 0 };
    let cores = cpus as u8;
    Structure::new(4, 0x400)
        .string("CPU 0")
        .bytes(&[CENTRAL, FAMILY_OTHER])
        .string(MANUFACTURER)
        .qword(0)
        .bytes(&[0, 0])
        .word(0)
        .word(0)
        .word(0)
        .bytes(&[POPULATED_ENABLED, UPGRADE_OTHER])
        .word(NO_CACHE)
        .word(NO_CACHE)
        .word(NO_CACHE)
        .bytes(&[0, 0, 0])
        .bytes(&[cores, cores, cores])
        .word(characteristics)
        .word(u16::from(FAMILY_OTHER))
        .finish()
}

/// Type 16 (7.17).
fn memory_array(layout: &MemoryLayout) -> Vec<u8> {
    const SYSTEM_BOARD: u8 = 3;
    const SYSTEM_MEMORY: u8 = 3;
    const NO_ERROR_CORRECTION: u8 = 3;
    const NO_ERROR_HANDLE: u16 = 0xfffe;
    Structure::new(16, MEMORY_ARRAY)
        .bytes(&[SYSTEM_BOARD, SYSTEM_MEMORY, NO_ERROR_CORRECTION])
        .dword((layout.bytes() / 1024) as u32)
        .word(NO_ERROR_HANDLE)
        .word(1)
        .qword(0)
        .finish()
}

/// Type 17 (7.18): one module of all the RAM.
fn memory_device(layout: &MemoryLayout) -> Vec<u8> {
    const NO_ERROR_HANDLE: u16 = 0xfffe;
    const UNKNOWN_WIDTH: u16 = 0xffff;
    const DIMM: u8 = 9;
    const TYPE_RAM: u8 = 7;
    const DETAIL_OTHER: u16 = 1 << 1;
    /// "See the extended size": sizes from 32 GiB - 1 MiB do not fit the word.
    const EXTENDED: u32 = 0x7fff;
    let mebibytes = (layout.bytes() >> 20) as u32;
    let (size, extended) =
        if mebibytes < EXTENDED { (mebibytes, 0) } else { (EXTENDED, mebibytes) };
    Structure::new(17, 0x1100)
        .word(MEMORY_ARRAY)
        .word(NO_ERROR_HANDLE)
        .word(UNKNOWN_WIDTH)
        .word(UNKNOWN_WIDTH)
        .word(size as u16)
        .bytes(&[DIMM, 0])
        .string("DIMM 0")
        .bytes(&[0, TYPE_RAM])
        .word(DETAIL_OTHER)
        .word(0)
        .string(MANUFACTURER)
        .bytes(&[0, 0, 0, 0])
        .dword(extended)
        .word(0)
        .word(0)
        .word(0)
        .word(0)
        .finish()
}

/// Type 19 (7.20), one for the RAM on each side of the hole below 4 GiB.
fn mapped_ranges(layout: &MemoryLayout) -> Vec<Vec<u8>> {
    /// "See the extended addresses": the KiB do not fit the doubleword.
    const EXTENDED: u32 = 0xffff_ffff;
    let high = layout.high_ram_end().map(|end| super::memory::HIGH_RAM_BASE..end);
    (std::iter::once(0..layout.low_ram_end()).chain(high))
        .zip(0x1300..)
        .map(|(range, handle)| {
            let last = range.end - 1;
            let kib = u32::try_from(last / 1024).ok().filter(|&kib| kib != EXTENDED);
            let small = Structure::new(19, handle);
            let small = match kib {
                Some(kib) => small.dword((range.start / 1024) as u32).dword(kib),
                None => small.dword(EXTENDED).dword(EXTENDED),
            };
            let (first, last) = if kib.is_some() { (0, 0) } else { (range.start, last) };
            small.word(MEMORY_ARRAY).bytes(&[1]).qword(first).qword(last).finish()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firmware::memory;
    use crate::firmware::tests::{map_of, read};

    fn structures_of(ram: u64, cpus: usize) -> Vec<Vec<u8>> {
        structures(&MemoryLayout::new(ram).expect("a legal size"), cpus)
    }

    #[test]
    fn the_entry_point_describes_the_table() {
        let layout = MemoryLayout::new(5 << 30).expect("a legal size");
        let map = map_of(&layout);
        let mut area = TableArea { map: &map, next: memory::TABLES, end: memory::ONE_MIB };
        let entry = install(&mut area, &layout, 3).expect("the structures fit");
        let bytes = read(&map, entry.0, ENTRY_LEN);
        assert_eq!(checksum(&bytes), 0);
        assert_eq!(checksum(&bytes[0x10..]), 0, "the intermediate checksum");
        let half = |at| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let table = u32::from_le_bytes(bytes[0x18..0x1c].try_into().expect("4 bytes"));
        let expected = structures(&layout, 3);
        assert_eq!(usize::from(half(0x1c)), expected.len());
        assert_eq!(read(&map, table.into(), half(0x16).into()), expected.concat());
    }

    #[test]
    fn structures_have_the_lengths_of_their_version() {
        let lengths: Vec<_> = structures_of(5 << 30, 1)
            .iter()
            .map(|structure| (structure[0], structure[1]))
            .collect();
        let expected = [
            (0, 0x18),
            (1, 0x1b),
            (3, 0x16),
            (4, 0x2a),
            (16, 0x17),
            (17, 0x28),
            (19, 0x1f),
            (19, 0x1f),
            (32, 0x0b),
            (127, 4),
        ];
        assert_eq!(lengths, expected);
    }

    #[test]
    fn every_structure_ends_with_two_zeros() {
        for structure in structures_of(1 << 20, 255) {
            assert!(structure.ends_with(&[0, 0]), "type {}", structure[0]);
        }
    }

    #[test]
    fn sizes_move_to_the_extended_field_at_32_gib() {
        let device = |ram| {
            let all = structures_of(ram, 1);
            let device = all.iter().find(|s| s[0] == 17).expect("a memory device").clone();
            let extended = u32::from_le_bytes(device[0x1c..0x20].try_into().expect("4 bytes"));
            (u16::from_le_bytes([device[0xc], device[0xd]]), extended)
        };
        assert_eq!(device((32 << 30) - (2 << 20)), (0x7ffe, 0));
        assert_eq!(device(32 << 30), (0x7fff, 32 << 10));
    }
}
