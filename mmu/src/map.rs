//! The guest-physical map: which addresses are RAM or ROM. Everything else belongs to the bus.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::addr::{GuestPhys, PAGE_SIZE, Width};
use crate::ram::{HostPtr, Ram, RamError};

/// What answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// RAM, at this offset of the [`Ram`].
    Ram {
        /// Offset in the RAM.
        offset: u64,
    },
    /// ROM, at this offset of one of the images.
    Rom {
        /// Which image.
        rom: RomId,
        /// Offset in the image.
        offset: u64,
    },
    /// A device, or nothing: ask the bus.
    Mmio,
}

/// One ROM image of a [`PhysMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RomId(usize);

/// A page as [`PhysMap::lookup`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysPage {
    /// The page's address on the bus, after A20. Code tracking is keyed by this.
    pub phys: GuestPhys,
    /// What answers at the page's first byte.
    pub backing: Backing,
    /// The host address of the page's first byte; null for [`Backing::Mmio`].
    pub host: HostPtr,
}

/// Why the map could not be changed or accessed.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Regions are made of whole pages inside the address space.
    #[error("{len:#x} bytes at {at} are not a range of whole pages")]
    Range {
        /// Start of the range.
        at: GuestPhys,
        /// Its length.
        len: u64,
    },
    /// All RAM has been placed already.
    #[error("{wanted:#x} bytes of RAM to be placed at {at}, {left:#x} left")]
    RamExhausted {
        /// Start of the range.
        at: GuestPhys,
        /// Its length.
        wanted: u64,
        /// RAM that has no place yet.
        left: u64,
    },
    /// A bulk access touches something that is not memory of the wanted kind.
    #[error("no such memory at {at}")]
    NotMemory {
        /// The first such address.
        at: GuestPhys,
    },
    /// Making or accessing the host memory failed.
    #[error(transparent)]
    Ram(#[from] RamError),
}

/// A piece of an access: the memory, the offset in it, and the range of the caller's bytes.
type Piece<'a> = (&'a Ram, u64, Range<usize>);

#[derive(Clone, Copy, Debug)]
struct Region {
    start: u64,
    /// The last address, so that a region may reach the end of the address space.
    last: u64,
    /// What answers at `start`.
    backing: Backing,
}

/// The flat view of guest-physical memory: regions, sorted and without overlap.
///
/// Everything but the A20 gate is set up before the guest runs; whoever changes the map or the
/// gate later flushes the TLBs.
#[derive(Debug)]
pub struct PhysMap {
    ram: Ram,
    ram_placed: u64,
    roms: Vec<Ram>,
    regions: Vec<Region>,
    a20_mask: AtomicU64,
}

/// The address line that the gate forces low (IBM PC/AT Technical Reference, 8042 output port).
const A20: u64 = 1 << 20;

impl PhysMap {
    /// A map in which nothing is placed yet. The A20 gate is open.
    pub fn new(ram: Ram) -> Self {
        Self {
            ram,
            ram_placed: 0,
            roms: Vec::new(),
            regions: Vec::new(),
            a20_mask: AtomicU64::new(u64::MAX),
        }
    }

    /// The RAM.
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Places the next `len` bytes of RAM at `at`.
    pub fn add_ram(&mut self, at: GuestPhys, len: u64) -> Result<(), MapError> {
        let left = self.ram.len() - self.ram_placed;
        if len > left {
            return Err(MapError::RamExhausted { at, wanted: len, left });
        }
        self.claim(at, len, Backing::Ram { offset: self.ram_placed })?;
        self.ram_placed += len;
        Ok(())
    }

    /// Places a ROM image at `at`, in front of what was there. The last page is filled up with
    /// 0FFh, as erased ROM is.
    pub fn add_rom(&mut self, at: GuestPhys, image: &[u8]) -> Result<RomId, MapError> {
        let rom = Ram::new(image.len() as u64)?;
        rom.write_bytes(0, image)?;
        let padding = vec![0xff; rom.len() as usize - image.len()];
        rom.write_bytes(image.len() as u64, &padding)?;
        let (id, len) = (RomId(self.roms.len()), rom.len());
        self.roms.push(rom);
        self.claim(at, len, Backing::Rom { rom: id, offset: 0 })?;
        Ok(id)
    }

    /// Places `len` bytes of a ROM image, from `offset`, at a further address.
    pub fn mirror_rom(
        &mut self,
        at: GuestPhys,
        rom: RomId,
        offset: u64,
        len: u64,
    ) -> Result<(), MapError> {
        let size = self.roms.get(rom.0).map_or(0, Ram::len);
        let inside = offset.checked_add(len).is_some_and(|end| end <= size);
        if !inside || !offset.is_multiple_of(PAGE_SIZE) {
            return Err(MapError::Ram(RamError::Bounds { offset, len }));
        }
        self.claim(at, len, Backing::Rom { rom, offset })
    }

    /// Gives a range back to the bus.
    pub fn add_mmio(&mut self, at: GuestPhys, len: u64) -> Result<(), MapError> {
        self.claim(at, len, Backing::Mmio)
    }

    fn claim(&mut self, at: GuestPhys, len: u64, backing: Backing) -> Result<(), MapError> {
        let whole = at.page_offset() == 0 && len.is_multiple_of(PAGE_SIZE) && len != 0;
        let last = at.0.checked_add(len.wrapping_sub(1)).filter(|_| whole);
        let (start, last) = (at.0, last.ok_or(MapError::Range { at, len })?);
        let mut regions = Vec::with_capacity(self.regions.len() + 2);
        for &old in &self.regions {
            if old.start < start {
                regions.push(Region { last: old.last.min(start - 1), ..old });
            }
            if old.last > last {
                let start = old.start.max(last + 1);
                regions.push(Region { start, backing: old.backing_at(start), ..old });
            }
        }
        if backing != Backing::Mmio {
            regions.push(Region { start, last, backing });
        }
        regions.sort_unstable_by_key(|region| region.start);
        self.regions = regions;
        Ok(())
    }

    /// Opens or closes the A20 gate: while it is closed, bit 20 of every guest-physical address
    /// is zero. The caller flushes the TLBs.
    pub fn set_a20(&self, open: bool) {
        self.a20_mask.store(if open { u64::MAX } else { !A20 }, Ordering::Relaxed);
    }

    /// Whether the A20 gate is open.
    pub fn a20(&self) -> bool {
        self.a20_mask.load(Ordering::Relaxed) == u64::MAX
    }

    /// The address that appears on the bus for `phys`.
    #[inline]
    pub fn bus_address(&self, phys: GuestPhys) -> GuestPhys {
        GuestPhys(phys.0 & self.a20_mask.load(Ordering::Relaxed))
    }

    /// What answers at the page of `phys`.
    pub fn lookup(&self, phys: GuestPhys) -> PhysPage {
        let phys = self.bus_address(phys).page_base();
        let backing = self.backing(phys);
        let host = match backing {
            Backing::Ram { offset } => self.ram.host(offset),
            Backing::Rom { rom, offset } => {
                self.roms.get(rom.0).map_or(HostPtr::null(), |rom| rom.host(offset))
            }
            Backing::Mmio => HostPtr::null(),
        };
        PhysPage { phys, backing, host }
    }

    fn backing(&self, phys: GuestPhys) -> Backing {
        let after = self.regions.partition_point(|region| region.start <= phys.0);
        match after.checked_sub(1).map(|i| &self.regions[i]) {
            Some(region) if phys.0 <= region.last => region.backing_at(phys.0),
            _ => Backing::Mmio,
        }
    }

    /// Reads an integer from RAM or ROM; `None` where any byte is neither.
    pub fn read_phys(&self, phys: GuestPhys, width: Width) -> Option<u64> {
        let mut bytes = [0; 8];
        let phys = self.bus_address(phys);
        if phys.page_offset() + width.bytes() > PAGE_SIZE {
            self.read_slice(phys, &mut bytes[..width.bytes() as usize]).ok()?;
            return Some(u64::from_le_bytes(bytes));
        }
        match self.backing(phys) {
            Backing::Ram { offset } => Some(self.ram.read(offset, width)),
            Backing::Rom { rom, offset } => Some(self.roms.get(rom.0)?.read(offset, width)),
            Backing::Mmio => None,
        }
    }

    /// Writes an integer to RAM; `None`, and nothing written, where any byte is not RAM.
    pub fn write_phys(&self, phys: GuestPhys, width: Width, value: u64) -> Option<()> {
        let phys = self.bus_address(phys);
        if phys.page_offset() + width.bytes() > PAGE_SIZE {
            return self.write_slice(phys, &value.to_le_bytes()[..width.bytes() as usize]).ok();
        }
        match self.backing(phys) {
            Backing::Ram { offset } => {
                self.ram.write(offset, width, value);
                Some(())
            }
            Backing::Rom { .. } | Backing::Mmio => None,
        }
    }

    /// Reads bytes from RAM and ROM, for loaders, debuggers and devices.
    pub fn read_slice(&self, phys: GuestPhys, to: &mut [u8]) -> Result<(), MapError> {
        let pieces = self.pieces(phys, to.len(), true)?;
        for (memory, offset, range) in pieces {
            memory.read_bytes(offset, &mut to[range])?;
        }
        Ok(())
    }

    /// Writes bytes to RAM, all or nothing. Whoever runs translated code invalidates what was
    /// made from these bytes.
    pub fn write_slice(&self, phys: GuestPhys, from: &[u8]) -> Result<(), MapError> {
        self.write_pieces(phys, from, false)
    }

    /// Writes bytes to RAM and ROM, all or nothing: for loaders and debuggers only.
    pub fn load_slice(&self, phys: GuestPhys, from: &[u8]) -> Result<(), MapError> {
        self.write_pieces(phys, from, true)
    }

    fn write_pieces(&self, phys: GuestPhys, from: &[u8], rom: bool) -> Result<(), MapError> {
        for (memory, offset, range) in self.pieces(phys, from.len(), rom)? {
            memory.write_bytes(offset, &from[range])?;
        }
        Ok(())
    }

    /// Cuts an access into pieces that are contiguous in host memory.
    fn pieces(
        &self,
        phys: GuestPhys,
        len: usize,
        rom_too: bool,
    ) -> Result<Vec<Piece<'_>>, MapError> {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < len {
            // A page at a time, because A20 may fold any two neighbouring megabytes.
            let at = self.bus_address(phys.wrapping_add(done as u64));
            let end = len.min(done + (PAGE_SIZE - at.page_offset()) as usize);
            let (memory, offset) = match self.backing(at) {
                Backing::Ram { offset } => (Some(&self.ram), offset),
                Backing::Rom { rom, offset } if rom_too => (self.roms.get(rom.0), offset),
                _ => (None, 0),
            };
            pieces.push((memory.ok_or(MapError::NotMemory { at })?, offset, done..end));
            done = end;
        }
        Ok(pieces)
    }

    /// What is where, in the order of addresses: each region's first and last address, and what
    /// answers at its start.
    pub fn regions(&self) -> impl Iterator<Item = (GuestPhys, GuestPhys, Backing)> + '_ {
        self.regions.iter().map(|r| (GuestPhys(r.start), GuestPhys(r.last), r.backing))
    }

    /// The host memory behind the regions, as it is with the A20 gate open: each region's first
    /// address, its length, the host address of its first byte, and whether it takes writes.
    pub fn host_regions(&self) -> impl Iterator<Item = (GuestPhys, u64, HostPtr, bool)> + '_ {
        self.regions.iter().filter_map(|region| {
            let (host, writable) = match region.backing {
                Backing::Ram { offset } => (self.ram.host(offset), true),
                Backing::Rom { rom, offset } => (self.roms.get(rom.0)?.host(offset), false),
                Backing::Mmio => return None,
            };
            Some((GuestPhys(region.start), region.last - region.start + 1, host, writable))
        })
    }

    /// The ranges of RAM, in ascending order, neighbours joined: first address and length.
    pub fn ram_ranges(&self) -> Vec<(GuestPhys, u64)> {
        let mut ranges: Vec<(GuestPhys, u64)> = Vec::new();
        for region in &self.regions {
            let Backing::Ram { .. } = region.backing else { continue };
            let len = region.last - region.start + 1;
            match ranges.last_mut() {
                Some((at, joined)) if at.0 + *joined == region.start => *joined += len,
                _ => ranges.push((GuestPhys(region.start), len)),
            }
        }
        ranges
    }
}

impl Region {
    fn backing_at(&self, address: u64) -> Backing {
        let distance = address - self.start;
        match self.backing {
            Backing::Ram { offset } => Backing::Ram { offset: offset + distance },
            Backing::Rom { rom, offset } => Backing::Rom { rom, offset: offset + distance },
            Backing::Mmio => Backing::Mmio,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// RAM at 0 to 4 MiB, with a ROM of two pages in front of it at 0xf0000, mirrored at the top
    /// of 4 GiB.
    fn map() -> PhysMap {
        let mut map = PhysMap::new(Ram::new(4 * MIB).unwrap());
        map.add_ram(GuestPhys(0), 4 * MIB).unwrap();
        let image: Vec<u8> = (0..0x1800).map(|i| (i / 16) as u8).collect();
        let rom = map.add_rom(GuestPhys(0xf_0000), &image).unwrap();
        map.mirror_rom(GuestPhys(0xffff_f000), rom, 0x1000, 0x1000).unwrap();
        map
    }

    #[test]
    fn lookup_finds_what_answers() {
        let map = map();
        let rom = RomId(0);
        for (at, backing) in [
            (0x123, Backing::Ram { offset: 0 }),
            (0xe_ffff, Backing::Ram { offset: 0xe_f000 }),
            (0xf_0000, Backing::Rom { rom, offset: 0 }),
            (0xf_1fff, Backing::Rom { rom, offset: 0x1000 }),
            (0xf_2000, Backing::Ram { offset: 0xf_2000 }),
            (0x3f_ffff, Backing::Ram { offset: 0x3f_f000 }),
            (0x40_0000, Backing::Mmio),
            (0xffff_fff0, Backing::Rom { rom, offset: 0x1000 }),
            (0x1_0000_0000, Backing::Mmio),
            (u64::MAX, Backing::Mmio),
        ] {
            let page = map.lookup(GuestPhys(at));
            assert_eq!(page.backing, backing, "at {at:#x}");
            assert_eq!(page.host.is_null(), backing == Backing::Mmio, "at {at:#x}");
            assert_eq!(page.phys, GuestPhys(at).page_base());
        }
        assert_eq!(
            map.ram_ranges(),
            [(GuestPhys(0), 0xf_0000), (GuestPhys(0xf_2000), 4 * MIB - 0xf_2000)]
        );
    }

    #[test]
    fn host_regions_are_those_of_the_map() {
        let map = map();
        let regions: Vec<_> = map.host_regions().collect();
        let kinds: Vec<_> = regions.iter().map(|&(at, len, _, ram)| (at.0, len, ram)).collect();
        let expected = [
            (0, 0xf_0000, true),
            (0xf_0000, 0x2000, false),
            (0xf_2000, 0x30_e000, true),
            (0xffff_f000, 0x1000, false),
        ];
        assert_eq!(kinds, expected);
        for (at, _, host, _) in regions {
            assert_eq!(host, map.lookup(at).host, "at {at}");
        }
    }

    #[test]
    fn rom_reads_and_takes_no_writes() {
        let map = map();
        assert_eq!(map.read_phys(GuestPhys(0xf_1004), Width::W8), Some(0));
        assert_eq!(map.read_phys(GuestPhys(0xf_1014), Width::W16), Some(0x0101));
        assert_eq!(map.read_phys(GuestPhys(0xffff_f014), Width::W16), Some(0x0101), "mirror");
        assert_eq!(map.read_phys(GuestPhys(0xf_1ff8), Width::W64), Some(u64::MAX), "padding");
        assert_eq!(map.write_phys(GuestPhys(0xf_1014), Width::W8, 9), None);
        assert!(map.write_slice(GuestPhys(0xe_fff8), &[7; 16]).is_err());
        assert_eq!(map.read_phys(GuestPhys(0xe_fff8), Width::W64), Some(0), "all or nothing");
        map.load_slice(GuestPhys(0xe_fff8), &[7; 16]).unwrap();
        assert_eq!(map.read_phys(GuestPhys(0xf_0000), Width::W64), Some(0x0707_0707_0707_0707));
    }

    #[test]
    fn accesses_across_regions() {
        let map = map();
        map.write_phys(GuestPhys(0x1ffd), Width::W64, 0x1122_3344_5566_7788).unwrap();
        assert_eq!(map.read_phys(GuestPhys(0x2000), Width::W32), Some(0x2233_4455));
        assert_eq!(map.read_phys(GuestPhys(0x3f_fffc), Width::W64), None);
        assert_eq!(map.write_phys(GuestPhys(0x3f_fffc), Width::W64, 1), None);
        assert_eq!(map.read_phys(GuestPhys(0x3f_fffc), Width::W32), Some(0), "all or nothing");
        assert!(map.read_slice(GuestPhys(u64::MAX), &mut [0; 2]).is_err());
    }

    #[test]
    fn a20_folds_odd_megabytes_onto_even_ones() {
        let map = map();
        map.write_phys(GuestPhys(0x500), Width::W32, 0x1111_1111).unwrap();
        map.write_phys(GuestPhys(MIB + 0x500), Width::W32, 0x2222_2222).unwrap();
        map.set_a20(false);
        assert!(!map.a20());
        assert_eq!(map.read_phys(GuestPhys(MIB + 0x500), Width::W32), Some(0x1111_1111));
        assert_eq!(map.lookup(GuestPhys(3 * MIB)), map.lookup(GuestPhys(2 * MIB)));
        // From the last byte of megabyte 0 the bus wraps to address 0.
        map.write_slice(GuestPhys(MIB - 1), &[0xaa, 0xbb]).unwrap();
        assert_eq!(map.read_phys(GuestPhys(0), Width::W8), Some(0xbb));
        map.set_a20(true);
        assert_eq!(map.read_phys(GuestPhys(MIB + 0x500), Width::W32), Some(0x2222_2222));
        assert_eq!(map.read_phys(GuestPhys(MIB), Width::W8), Some(0));
    }

    #[test]
    fn ram_is_placed_once_around_holes() {
        let mut map = PhysMap::new(Ram::new(MIB).unwrap());
        map.add_ram(GuestPhys(0), 0xa_0000).unwrap();
        map.add_ram(GuestPhys(0x1_0000_0000), MIB - 0xa_0000).unwrap();
        let high = map.lookup(GuestPhys(0x1_0000_0000)).backing;
        assert_eq!(high, Backing::Ram { offset: 0xa_0000 });
        assert!(map.add_ram(GuestPhys(0x2_0000_0000), 4096).is_err(), "no RAM is left");
        map.add_mmio(GuestPhys(0x1000), 0x1000).unwrap();
        assert_eq!(map.lookup(GuestPhys(0x1000)).backing, Backing::Mmio);
        assert_eq!(map.lookup(GuestPhys(0x2000)).backing, Backing::Ram { offset: 0x2000 });
        assert!(map.add_mmio(GuestPhys(0x10), 0x1000).is_err(), "not a whole page");
        assert!(map.add_mmio(GuestPhys(!0xfff), 0x2000).is_err(), "beyond the address space");
        map.add_mmio(GuestPhys(!0xfff), 0x1000).unwrap();
    }
}
