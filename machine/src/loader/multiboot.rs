//! Multiboot 1 (The Multiboot Specification, version 0.6.96).

use brolga_mmu::PAGE_SIZE;

use super::elf::Elf;
use super::fields::Fields;
use super::space::{BOOT_INFO, COMMAND_LINE_MAX, FOUR_GIB, GuestSpace};
use super::{Boot, BootState, Gpr, LoadError};
use crate::firmware::memory::{EBDA, ONE_MIB};

const HEADER_MAGIC: u32 = 0x1bad_b002;
const LOADER_MAGIC: u64 = 0x2bad_b002;
/// The header lies within the first 8 KiB (3.1).
const SEARCH: u64 = 8192;

/// Header flags (3.1.2).
const WANTS_VIDEO_MODE: u32 = 1 << 2;
const HAS_ADDRESSES: u32 = 1 << 16;
/// Flags in the lower half are requirements; these are met: page-aligned modules, memory sizes,
/// video mode (if it is text).
const KNOWN_REQUIREMENTS: u32 = 0b111;

/// The name that kernels are told.
pub(super) const LOADER_NAME: &[u8] = b"Brolga\0";

/// A header, at its place in the file.
pub(super) struct Header {
    at: u64,
    flags: u32,
}

impl Header {
    /// Finds the header, at a multiple of 4 bytes, by its magic number and checksum.
    pub(super) fn find(bytes: &[u8]) -> Option<Self> {
        (0..SEARCH - 12).step_by(4).find_map(|at| {
            let flags = bytes.u32_at(at + 4)?;
            let sum = HEADER_MAGIC.wrapping_add(flags).wrapping_add(bytes.u32_at(at + 8)?);
            (bytes.u32_at(at)? == HEADER_MAGIC && sum == 0).then_some(Self { at, flags })
        })
    }

    fn field(&self, bytes: &[u8], offset: u64) -> Result<u32, LoadError> {
        let at = self.at + offset;
        bytes.u32_at(at).ok_or(LoadError::Truncated {
            what: "multiboot header",
            needed: at + 4,
            have: bytes.len() as u64,
        })
    }

    fn check_requirements(&self, bytes: &[u8]) -> Result<(), LoadError> {
        const MODE_TYPE: u64 = 32;
        const LINEAR_GRAPHICS: u32 = 0;
        let unknown = self.flags & 0xffff & !KNOWN_REQUIREMENTS;
        if unknown != 0 {
            return Err(LoadError::Unsupported {
                what: format!("the multiboot features {unknown:#x}"),
                remedy: "boot it with its own loader",
            });
        }
        if self.flags & WANTS_VIDEO_MODE != 0 && self.field(bytes, MODE_TYPE)? == LINEAR_GRAPHICS {
            return Err(no_framebuffer());
        }
        Ok(())
    }
}

/// The refusal of graphics modes, which this machine has no device for.
pub(super) fn no_framebuffer() -> LoadError {
    LoadError::Unsupported {
        what: "a graphics framebuffer".to_owned(),
        remedy: "build it for a text or serial console",
    }
}

/// Where a kernel that is not loaded as ELF belongs: the address fields of either version.
pub(super) struct Addresses {
    pub(super) header: u32,
    /// In version 2, all ones: the file from its start.
    pub(super) load: u32,
    /// Zero: the whole file.
    pub(super) load_end: u32,
    /// Zero: no BSS.
    pub(super) bss_end: u32,
}

impl Addresses {
    /// Loads the file, whose header is at `header_at`; returns the end of the BSS.
    pub(super) fn load(
        &self,
        space: &mut GuestSpace<'_>,
        bytes: &[u8],
        header_at: u64,
    ) -> Result<u64, LoadError> {
        const BAD: LoadError =
            LoadError::Malformed { what: "multiboot header has impossible addresses" };
        let header = u64::from(self.header);
        let load = match self.load {
            u32::MAX => header.checked_sub(header_at).ok_or(BAD)?,
            load => load.into(),
        };
        let before_header = header.checked_sub(load).ok_or(BAD)?;
        let from = header_at.checked_sub(before_header).ok_or(BAD)?;
        let have = bytes.len() as u64;
        let len = match self.load_end {
            0 => have.checked_sub(from).ok_or(BAD)?,
            end => u64::from(end).checked_sub(load).ok_or(BAD)?,
        };
        let data = bytes.bytes_at(from, len).ok_or(LoadError::Truncated {
            what: "multiboot image",
            needed: from + len,
            have,
        })?;
        let end = match self.bss_end {
            0 => load + len,
            end => u64::from(end),
        };
        let size = end.checked_sub(load).filter(|&size| size >= len).ok_or(BAD)?;
        space.claim("kernel", load, size)?;
        space.write(load, data)?;
        space.clear(load + len..end)?;
        Ok(end)
    }
}

/// Loads the initrd as the only module, on a page after the kernel, where kernels that map
/// little memory can reach it, or else before it.
pub(super) fn place_module(
    boot: &mut Boot<'_>,
    kernel_end: u64,
) -> Result<Option<(u32, u32)>, LoadError> {
    let Some(initrd) = boot.image.initrd else { return Ok(None) };
    let size = initrd.len() as u64;
    let mut place_from = |from| boot.space.place_low("initrd", size, PAGE_SIZE, from..FOUR_GIB);
    let at = place_from(kernel_end).or_else(|_| place_from(ONE_MIB))?;
    boot.space.write(at, initrd)?;
    // Below 4 GiB by the call above, and so is the end: RAM ends at 3 GiB.
    Ok(Some((at as u32, (at + size) as u32)))
}

/// KiB of memory from 0, and from 1 MiB up to the first hole.
pub(super) fn basic_memory(boot: &Boot<'_>) -> [u32; 2] {
    let upper = boot.layout.low_ram_end() - ONE_MIB;
    [EBDA, upper].map(|bytes| (bytes / 1024) as u32)
}

/// Loads a multiboot 1 kernel.
pub(super) fn load(
    mut boot: Boot<'_>,
    header: &Header,
    elf: Option<&Elf<'_>>,
) -> Result<BootState, LoadError> {
    let bytes = boot.image.bytes;
    header.check_requirements(bytes)?;
    let (entry, end) = if header.flags & HAS_ADDRESSES != 0 {
        let addresses = Addresses {
            header: header.field(bytes, 12)?,
            load: header.field(bytes, 16)?,
            load_end: header.field(bytes, 20)?,
            bss_end: header.field(bytes, 24)?,
        };
        let entry = header.field(bytes, 28)?.into();
        (entry, addresses.load(&mut boot.space, bytes, header.at)?)
    } else {
        let elf = elf.ok_or(LoadError::Malformed {
            what: "multiboot header gives no addresses, and it is no ELF file",
        })?;
        (elf.physical_entry(), elf.load(&mut boot.space, 0)?)
    };
    let module = place_module(&mut boot, end)?;
    let cmdline = boot.space.write_command_line(boot.image.cmdline, COMMAND_LINE_MAX)?;
    boot.space.write(BOOT_INFO.start, &information(&boot, cmdline as u32, module))?;
    let registers = vec![(Gpr::Rax, LOADER_MAGIC), (Gpr::Rbx, BOOT_INFO.start)];
    BootState::protected32(&boot.space, entry, registers)
}

/// The information structure (3.3), and after it what it points at.
fn information(boot: &Boot<'_>, cmdline: u32, module: Option<(u32, u32)>) -> Vec<u8> {
    const LEN: usize = 116;
    const MEMORY: u32 = 1 << 0;
    const CMDLINE: u32 = 1 << 2;
    const MODULES: u32 = 1 << 3;
    const MEMORY_MAP: u32 = 1 << 6;
    const LOADER: u32 = 1 << 9;
    const MODULE_LEN: usize = 16;

    let modules = LEN;
    let memory_map = modules + MODULE_LEN;
    let mut info = vec![0; memory_map];
    for entry in boot.layout.e820() {
        // The size does not count itself.
        info.extend(20u32.to_le_bytes());
        info.extend(entry.base.to_le_bytes());
        info.extend(entry.len.to_le_bytes());
        info.extend((entry.kind as u32).to_le_bytes());
    }
    let name = info.len();
    info.extend(LOADER_NAME);

    let mut put = |at: usize, value: u32| {
        info[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    let address = |offset: usize| BOOT_INFO.start as u32 + offset as u32;
    let [lower, upper] = basic_memory(boot);
    put(0, MEMORY | CMDLINE | MODULES | MEMORY_MAP | LOADER);
    put(4, lower);
    put(8, upper);
    put(16, cmdline);
    put(20, module.is_some().into());
    put(24, address(modules));
    put(44, (name - memory_map) as u32);
    put(48, address(memory_map));
    put(64, address(name));
    if let Some((start, end)) = module {
        put(modules, start);
        put(modules + 4, end);
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::EntryMode;
    use crate::loader::elf::tests::{Part, build};
    use crate::loader::testing::{Pc, put};

    const MIB: u64 = 1 << 20;

    fn header(flags: u32, fields: &[u32]) -> Vec<u8> {
        let checksum = 0u32.wrapping_sub(HEADER_MAGIC).wrapping_sub(flags);
        [HEADER_MAGIC, flags, checksum]
            .iter()
            .chain(fields)
            .flat_map(|field| field.to_le_bytes())
            .collect()
    }

    /// A flat kernel of 256 bytes for 1 MiB, with its header at byte 16 and 64 bytes of BSS.
    fn flat() -> Vec<u8> {
        let base = MIB as u32;
        let mut image = vec![0x90; 256];
        let fields = [base + 16, base, base + 256, base + 320, base + 64];
        put(&mut image, 16, &header(HAS_ADDRESSES | 3, &fields));
        image
    }

    fn elf(wide: bool) -> Vec<u8> {
        let mut code = header(0, &[]);
        code.extend([0x90; 20]);
        let machine = if wide { 62 } else { 3 };
        build(wide, machine, MIB + 12, &[Part::load(MIB, &code, 4096)])
    }

    #[test]
    fn a_flat_kernel_goes_where_its_header_says() {
        let pc = Pc::new(4 * MIB);
        pc.space().write(MIB + 256, &[0xff; 65]).expect("RAM");
        let state = pc.load(&flat(), None, "").expect("loads");
        assert_eq!((state.mode, state.entry), (EntryMode::Protected32, MIB + 64));
        assert_eq!(state.registers[0], (Gpr::Rax, 0x2bad_b002));
        assert_eq!(pc.read(MIB, 256), flat());
        assert_eq!(pc.read(MIB + 256, 64), [0; 64], "the BSS is cleared");
        assert_eq!(pc.read(MIB + 320, 1), [0xff], "and nothing after it");
    }

    #[test]
    fn an_elf_kernel_of_either_class_is_loaded_by_its_segments() {
        for wide in [true, false] {
            let pc = Pc::new(4 * MIB);
            assert_eq!(pc.load(&elf(wide), None, "").expect("loads").entry, MIB + 12);
            assert_eq!(pc.u32_at(MIB), HEADER_MAGIC);
        }
    }

    #[test]
    fn the_information_leads_to_everything() {
        let pc = Pc::new(4 * MIB);
        let state = pc.load(&flat(), Some(b"module"), "-v").expect("loads");
        let (Gpr::Rbx, info) = state.registers[1] else { panic!("{:?}", state.registers) };
        assert_eq!((pc.u32_at(info + 4), pc.u32_at(info + 8)), (639, 3 * 1024));
        assert_eq!(pc.read(pc.u32_at(info + 16).into(), 3), b"-v\0");
        assert_eq!(pc.u32_at(info + 20), 1);
        let module = pc.u32_at(info + 24).into();
        let (start, end) = (pc.u32_at(module), pc.u32_at(module + 4));
        assert_eq!((start, end), (MIB as u32 + 4096, MIB as u32 + 4096 + 6));
        assert_eq!(pc.read(start.into(), 6), b"module");
        assert_eq!(pc.u32_at(info + 44), 4 * 24, "length of the memory map");
        let map = u64::from(pc.u32_at(info + 48));
        assert_eq!((pc.u32_at(map), pc.u64_at(map + 4), pc.u64_at(map + 12)), (20, 0, 0x9_fc00));
        assert_eq!(pc.read(pc.u32_at(info + 64).into(), 7), b"Brolga\0");
    }

    #[test]
    fn the_header_is_found_up_to_8_kib_only() {
        let pc = Pc::new(4 * MIB);
        let with_header_at = |at: u32| {
            let base = MIB as u32;
            let mut image = vec![0; 16 << 10];
            let fields = [base + at, base, 0, 0, base];
            put(&mut image, at as usize, &header(HAS_ADDRESSES, &fields));
            image
        };
        assert!(pc.load(&with_header_at(8192 - 32), None, "").is_ok());
        assert!(matches!(pc.load(&with_header_at(8192), None, ""), Err(LoadError::Unrecognised)));
    }

    #[test]
    fn what_cannot_be_provided_is_refused() {
        let pc = Pc::new(4 * MIB);
        let kernel = |flags, mode_type| {
            let base = MIB as u32;
            let mut image = header(flags | HAS_ADDRESSES, &[base, base, 0, 0, base, mode_type]);
            image.resize(64, 0);
            image
        };
        assert!(pc.refusal(&kernel(WANTS_VIDEO_MODE, 0)).contains("framebuffer"));
        assert!(pc.load(&kernel(WANTS_VIDEO_MODE, 1), None, "").is_ok(), "text is fine");
        assert!(pc.refusal(&kernel(1 << 5, 0)).contains("0x20"));
    }

    #[test]
    fn impossible_addresses_are_refused() {
        let pc = Pc::new(4 * MIB);
        let base = MIB as u32;
        // Header below load address; data before the file; end before start; BSS inside data.
        for fields in [
            [base - 1, base, 0, 0, base],
            [base + 8, base, 0, 0, base],
            [base, base, base - 1, 0, base],
            [base, base, base + 64, base + 63, base],
        ] {
            let mut image = header(HAS_ADDRESSES, &fields);
            image.resize(64, 0);
            let refused = pc.load(&image, None, "");
            assert!(
                matches!(refused, Err(LoadError::Malformed { .. })),
                "{fields:x?}: {refused:?}"
            );
        }
        let mut image = header(HAS_ADDRESSES, &[base, base, base + 65, 0, base]);
        image.resize(64, 0);
        assert!(matches!(pc.load(&image, None, ""), Err(LoadError::Truncated { .. })));
    }

    #[test]
    fn damage_never_panics() {
        let pc = Pc::new(4 * MIB);
        pc.survives_damage(&flat(), 64);
        pc.survives_damage(&elf(false), 120);
    }
}
