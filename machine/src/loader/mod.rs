//! Loaders: put a kernel, its initrd and its command line where its boot protocol wants them, and
//! say how to enter it. Everything in an image is untrusted.

mod bzimage;
mod elf;
mod entry;
mod error;
mod fields;
mod identify;
mod multiboot;
mod multiboot2;
mod pvh;
mod rom;
mod space;
#[cfg(test)]
mod testing;

use brolga_mmu::PhysMap;

pub use entry::{BootState, EntryMode, Gpr};
pub use error::LoadError;
pub use rom::load_rom;

use crate::firmware::{FirmwareInfo, MemoryLayout};
use space::GuestSpace;

/// What a guest is booted from.
#[derive(Clone, Copy, Debug)]
pub struct KernelImage<'a> {
    /// The kernel file.
    pub bytes: &'a [u8],
    /// The initial RAM disk, or first module.
    pub initrd: Option<&'a [u8]>,
    /// The command line.
    pub cmdline: &'a str,
}

/// A kernel on its way into memory.
struct Boot<'a> {
    image: &'a KernelImage<'a>,
    layout: &'a MemoryLayout,
    tables: &'a FirmwareInfo,
    space: GuestSpace<'a>,
}

/// Loads a kernel of any known format. A kernel with several ways in is entered through multiboot
/// 2, else multiboot 1, else PVH.
///
/// `layout` and `tables` are what [`crate::firmware::install`] was given and returned.
pub fn load(
    map: &PhysMap,
    image: &KernelImage<'_>,
    layout: &MemoryLayout,
    tables: &FirmwareInfo,
) -> Result<BootState, LoadError> {
    let bytes = image.bytes;
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if image.initrd.is_some_and(<[u8]>::is_empty) {
        return Err(LoadError::EmptyInitrd);
    }
    let boot = Boot { image, layout, tables, space: GuestSpace::new(map, layout) };
    if bzimage::is_bzimage(bytes) {
        return bzimage::load(boot);
    }
    let elf = elf::Elf::parse(bytes)?;
    if let Some(header) = multiboot2::Header::find(bytes)? {
        return multiboot2::load(boot, &header, elf.as_ref());
    }
    if let Some(header) = multiboot::Header::find(bytes) {
        return multiboot::load(boot, &header, elf.as_ref());
    }
    match elf {
        Some(elf) => pvh::load(boot, &elf),
        None => Err(identify::explain(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Pc, SplitMix};
    use super::*;

    #[test]
    fn empty_files_are_refused() {
        let pc = Pc::new(4 << 20);
        assert!(matches!(pc.load(&[], None, ""), Err(LoadError::Empty)));
        assert!(matches!(pc.load(&[1], Some(&[]), ""), Err(LoadError::EmptyInitrd)));
    }

    #[test]
    fn random_bytes_are_not_a_kernel() {
        let pc = Pc::new(4 << 20);
        let mut random = SplitMix(2);
        for len in [1, 64, 512, 1024, 65_536] {
            let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            let refused = pc.load(&bytes, None, "");
            assert!(matches!(refused, Err(LoadError::Unrecognised)), "{len} bytes: {refused:?}");
        }
    }
}
