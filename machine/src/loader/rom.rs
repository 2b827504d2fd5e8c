//! A flat ROM at the reset vector.

use brolga_mmu::{GuestPhys, PhysMap};

use super::{BootState, LoadError};
use crate::firmware::memory::ONE_MIB;

/// The unit that boot ROMs come in.
const STEP: usize = 64 << 10;
/// The largest ROM: what fits above the local APIC and its neighbours.
const MAX: usize = 16 << 20;
/// How much of the ROM's end also answers below 1 MiB.
const MIRROR: u64 = 128 << 10;

/// Maps a ROM so that it ends at 4 GiB, and its last 128 KiB (or all of a smaller one) also at
/// 1 MiB, where chipsets show it after reset.
pub fn load_rom(map: &mut PhysMap, image: &[u8]) -> Result<BootState, LoadError> {
    let size = image.len();
    if size == 0 || size > MAX || !size.is_multiple_of(STEP) {
        return Err(LoadError::RomSize(size));
    }
    let size = size as u64;
    let rom = map.add_rom(GuestPhys(super::space::FOUR_GIB - size), image)?;
    let mirrored = size.min(MIRROR);
    map.mirror_rom(GuestPhys(ONE_MIB - mirrored), rom, size - mirrored, mirrored)?;
    Ok(BootState::reset_vector())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::EntryMode;
    use crate::loader::testing::Pc;

    /// A ROM whose 64 KiB blocks are filled with their numbers, from the end, starting at 1.
    fn rom(blocks: usize) -> Vec<u8> {
        (0..blocks).rev().flat_map(|n| vec![n as u8 + 1; STEP]).collect()
    }

    #[test]
    fn the_rom_ends_at_four_gib_and_its_end_is_mirrored_below_one_mib() {
        for blocks in [1, 2, 3, MAX / STEP - 1] {
            let mut pc = Pc::new(2 << 20);
            let state = load_rom(pc.map_mut(), &rom(blocks)).expect("a legal size");
            assert_eq!((state.mode, state.entry), (EntryMode::Real, 0xffff_fff0));
            assert_eq!(pc.read(0xffff_fff0, 1), [1], "the reset vector of {blocks} blocks");
            assert_eq!(pc.read((1 << 32) - (blocks * STEP) as u64, 1), [blocks as u8]);
            assert_eq!(pc.read(0xf_fff0, 1), [1]);
            let second = if blocks == 1 { 0 } else { 2 };
            assert_eq!(pc.read(0xe_0000, 1), [second], "E0000 of {blocks} blocks");
        }
    }

    #[test]
    fn other_sizes_are_refused() {
        let mut pc = Pc::new(2 << 20);
        for size in [0, 1, STEP - 1, STEP + 1, MAX + STEP] {
            let refused = load_rom(pc.map_mut(), &vec![0; size]);
            assert!(matches!(refused, Err(LoadError::RomSize(n)) if n == size), "{size} bytes");
        }
        assert!(load_rom(pc.map_mut(), &vec![0; MAX]).is_ok());
    }
}
