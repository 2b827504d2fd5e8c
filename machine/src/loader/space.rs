//! Guest RAM while a loader fills it: what is taken, by what, and what is free.
//!
//! | from   | to     | what                                                              |
//! |--------|--------|-------------------------------------------------------------------|
//! | 0      | 4FF    | real-mode vectors and BIOS data area                              |
//! | 500    | 52F    | the GDT                                                           |
//! | 8000   | DFFF   | page tables that map the first 4 GiB to themselves                |
//! | 1_0000 | 1_FFFF | PVH or multiboot information                                      |
//! | 9_0000 | 9_0FFF | Linux boot parameters (the zero page)                             |
//! | 9_1000 | 9_EFFF | command line                                                      |
//!
//! Linux before boot protocol 2.02 expects the last two in one 64 KiB block at 9_0000.

use std::ops::Range;

use brolga_mmu::{GuestPhys, PhysMap};

use super::LoadError;
use crate::firmware::MemoryLayout;

pub(super) const GDT: u64 = 0x500;
pub(super) const PAGE_TABLES: u64 = 0x8000;
pub(super) const BOOT_INFO: Range<u64> = 0x1_0000..0x2_0000;
pub(super) const ZERO_PAGE: u64 = 0x9_0000;
pub(super) const COMMAND_LINE: Range<u64> = 0x9_1000..0x9_f000;

/// The longest command line there is room for, without its NUL.
pub(super) const COMMAND_LINE_MAX: usize = (COMMAND_LINE.end - COMMAND_LINE.start - 1) as usize;

/// Where 32-bit addresses end.
pub(super) const FOUR_GIB: u64 = 1 << 32;

#[derive(Clone)]
struct Claim {
    range: Range<u64>,
    what: &'static str,
}

/// Guest RAM and the claims on it. Nothing is written where nothing was claimed.
#[derive(Clone)]
pub(super) struct GuestSpace<'a> {
    map: &'a PhysMap,
    ram: Vec<Range<u64>>,
    claims: Vec<Claim>,
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl<'a> GuestSpace<'a> {
    /// The RAM of `layout`, with the table at the top of this file claimed.
    pub(super) fn new(map: &'a PhysMap, layout: &MemoryLayout) -> Self {
        let own = [0..BOOT_INFO.end, ZERO_PAGE..COMMAND_LINE.end];
        let claims = own.map(|range| Claim { range, what: "loader's own tables" });
        Self { map, ram: layout.usable(), claims: claims.into() }
    }

    /// Takes `size` bytes at a fixed address.
    pub(super) fn claim(
        &mut self,
        what: &'static str,
        at: u64,
        size: u64,
    ) -> Result<(), LoadError> {
        let no_ram = LoadError::NoRam { what, size, at };
        let Some(end) = at.checked_add(size) else { return Err(no_ram) };
        if !self.ram.iter().any(|ram| ram.start <= at && end <= ram.end) {
            return Err(no_ram);
        }
        if let Some(claim) = self.conflict(&(at..end)) {
            return Err(LoadError::Overlap { what, at, other: claim.what });
        }
        self.claims.push(Claim { range: at..end, what });
        Ok(())
    }

    /// Takes `size` bytes at the lowest multiple of `align` from `from` up, below `below`.
    pub(super) fn place_low(
        &mut self,
        what: &'static str,
        size: u64,
        align: u64,
        Range { start: from, end: below }: Range<u64>,
    ) -> Result<u64, LoadError> {
        let found = self.ram.iter().find_map(|ram| {
            let mut at = ram.start.max(from).checked_next_multiple_of(align)?;
            loop {
                let end = at.checked_add(size)?;
                if end > ram.end.min(below) {
                    return None;
                }
                match self.conflict(&(at..end)) {
                    None => return Some(at),
                    Some(claim) => at = claim.range.end.checked_next_multiple_of(align)?,
                }
            }
        });
        self.take(what, size, from..below, found)
    }

    /// Takes `size` bytes at the highest multiple of `align` that ends below `below`.
    pub(super) fn place_high(
        &mut self,
        what: &'static str,
        size: u64,
        align: u64,
        below: u64,
    ) -> Result<u64, LoadError> {
        let found = self.ram.iter().rev().find_map(|ram| {
            let mut top = ram.end.min(below);
            loop {
                let at = top.checked_sub(size)?;
                let at = at - at % align;
                if at < ram.start {
                    return None;
                }
                match self.conflict(&(at..at + size)) {
                    None => return Some(at),
                    Some(claim) => top = claim.range.start,
                }
            }
        });
        self.take(what, size, 0..below, found)
    }

    fn take(
        &mut self,
        what: &'static str,
        size: u64,
        Range { start: from, end: below }: Range<u64>,
        found: Option<u64>,
    ) -> Result<u64, LoadError> {
        let at = found.ok_or(LoadError::NoRoom { what, size, from, below })?;
        self.claims.push(Claim { range: at..at + size, what });
        Ok(at)
    }

    fn conflict(&self, range: &Range<u64>) -> Option<&Claim> {
        self.claims.iter().find(|claim| overlap(&claim.range, range))
    }

    /// Reads bytes.
    pub(super) fn read(&self, at: u64, to: &mut [u8]) -> Result<(), LoadError> {
        Ok(self.map.read_slice(GuestPhys(at), to)?)
    }

    /// Writes bytes.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), LoadError> {
        Ok(self.map.write_slice(GuestPhys(at), bytes)?)
    }

    /// Clears bytes; RAM that is clear already is only read, so that the host need not back it.
    pub(super) fn clear(&self, Range { mut start, end }: Range<u64>) -> Result<(), LoadError> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while start < end {
            let len = (end - start).min(ZEROS.len() as u64) as usize;
            let mut old = ZEROS;
            self.read(start, &mut old[..len])?;
            if old != ZEROS {
                self.write(start, &ZEROS[..len])?;
            }
            start += len as u64;
        }
        Ok(())
    }

    /// Writes the command line and its NUL; returns where it is. `max` is what the kernel takes.
    pub(super) fn write_command_line(&self, text: &str, max: usize) -> Result<u64, LoadError> {
        check_command_line(text, max)?;
        self.write(COMMAND_LINE.start, text.as_bytes())?;
        self.write(COMMAND_LINE.start + text.len() as u64, &[0])?;
        Ok(COMMAND_LINE.start)
    }
}

/// Refuses a command line longer than `max` or than there is room for, or with a NUL inside.
pub(super) fn check_command_line(text: &str, max: usize) -> Result<(), LoadError> {
    let max = max.min(COMMAND_LINE_MAX);
    if text.len() > max {
        return Err(LoadError::CommandLineLength { len: text.len(), max });
    }
    if text.contains('\0') {
        return Err(LoadError::CommandLineNul);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::testing::Pc;

    const MIB: u64 = 1 << 20;

    #[test]
    fn fixed_claims_need_ram_that_is_free() {
        let pc = Pc::new(4 * MIB);
        let mut space = pc.space();
        space.claim("kernel", MIB, MIB).expect("free RAM");
        assert!(matches!(space.claim("bss", 2 * MIB - 1, 1), Err(LoadError::Overlap { .. })));
        assert!(matches!(space.claim("bss", 0xa_0000, 1), Err(LoadError::NoRam { .. })));
        assert!(matches!(space.claim("bss", 4 * MIB - 1, 2), Err(LoadError::NoRam { .. })));
        assert!(matches!(space.claim("bss", u64::MAX, 2), Err(LoadError::NoRam { .. })));
        assert!(matches!(space.claim("bss", GDT, 1), Err(LoadError::Overlap { .. })));
    }

    #[test]
    fn placing_goes_around_claims_from_either_end() {
        let pc = Pc::new(8 * MIB);
        let mut space = pc.space();
        space.claim("kernel", MIB, MIB + 1).expect("free RAM");
        let low = space.place_low("module", 100, 4096, MIB..FOUR_GIB).expect("room");
        assert_eq!(low, 2 * MIB + 4096);
        let high = space.place_high("initrd", 4097, 4096, FOUR_GIB).expect("room");
        assert_eq!(high, 8 * MIB - 8192);
        let next = space.place_high("initrd", 1, 4096, FOUR_GIB).expect("room");
        assert_eq!(next, high - 4096);
        assert!(matches!(
            space.place_high("initrd", 8 * MIB, 4096, FOUR_GIB),
            Err(LoadError::NoRoom { .. })
        ));
    }

    #[test]
    fn clearing_leaves_the_neighbours_alone() {
        let pc = Pc::new(4 * MIB);
        let space = pc.space();
        space.write(MIB, &[0xff; 10_000]).expect("RAM");
        space.clear(MIB + 1..MIB + 9_999).expect("RAM");
        let bytes = pc.read(MIB, 10_000);
        assert_eq!((bytes[0], bytes[9_999]), (0xff, 0xff));
        assert!(bytes[1..9_999].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn command_lines_are_checked() {
        assert!(check_command_line("quiet", 5).is_ok());
        let long = check_command_line("quiet", 4);
        assert!(matches!(long, Err(LoadError::CommandLineLength { len: 5, max: 4 })));
        let beyond = check_command_line(&"x".repeat(COMMAND_LINE_MAX + 1), usize::MAX);
        assert!(matches!(beyond, Err(LoadError::CommandLineLength { .. })));
        assert!(matches!(check_command_line("a\0b", 9), Err(LoadError::CommandLineNul)));
    }
}
