//! The PVH entry of ELF kernels: a note names a 32-bit entry point, which gets an
//! `hvm_start_info` (Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h).

use brolga_mmu::PAGE_SIZE;

use super::elf::Elf;
use super::fields::Fields;
use super::space::{BOOT_INFO, COMMAND_LINE_MAX, FOUR_GIB};
use super::{Boot, BootState, Gpr, LoadError};

/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PHYS32_ENTRY: u32 = 18;
const MAGIC: u32 = 0x336e_c578;

/// Sizes of `hvm_start_info` (version 1) and `hvm_modlist_entry`.
const START_INFO_LEN: u64 = 56;
const MODULE_LEN: u64 = 32;

/// Loads an ELF kernel with a PVH note.
pub(super) fn load(mut boot: Boot<'_>, elf: &Elf<'_>) -> Result<BootState, LoadError> {
    let note = elf.note(b"Xen\0", PHYS32_ENTRY).ok_or_else(|| elf.no_entry())?;
    // The address has the size of the kernel's words; it is below 4 GiB in any case.
    let entry = note.u32_at(0).ok_or(LoadError::Malformed { what: "PVH note is too short" })?;
    elf.load(&mut boot.space, 0)?;
    let cmdline = boot.space.write_command_line(boot.image.cmdline, COMMAND_LINE_MAX)?;
    let initrd = match boot.image.initrd {
        Some(initrd) => {
            let size = initrd.len() as u64;
            let at = boot.space.place_high("initrd", size, PAGE_SIZE, FOUR_GIB)?;
            boot.space.write(at, initrd)?;
            Some((at, size))
        }
        None => None,
    };
    boot.space.write(BOOT_INFO.start, &start_info(&boot, cmdline, initrd))?;
    let registers = vec![(Gpr::Rbx, BOOT_INFO.start)];
    BootState::protected32(&boot.space, entry.into(), registers)
}

/// `hvm_start_info`, followed by the module list and the memory map that it points at.
fn start_info(boot: &Boot<'_>, cmdline: u64, initrd: Option<(u64, u64)>) -> Vec<u8> {
    const VERSION: u32 = 1;
    const FLAGS: u32 = 0;
    let modules = BOOT_INFO.start + START_INFO_LEN;
    let memory_map = modules + MODULE_LEN;
    let map = boot.layout.e820();

    let mut info = Vec::new();
    for field in [MAGIC, VERSION, FLAGS, initrd.is_some().into()] {
        info.extend(field.to_le_bytes());
    }
    for field in [modules, cmdline, boot.tables.rsdp.0, memory_map] {
        info.extend(field.to_le_bytes());
    }
    for field in [map.len() as u32, 0] {
        info.extend(field.to_le_bytes());
    }
    let (at, size) = initrd.unwrap_or((0, 0));
    for field in [at, size, 0, 0] {
        info.extend(field.to_le_bytes());
    }
    for entry in &map {
        info.extend(entry.base.to_le_bytes());
        info.extend(entry.len.to_le_bytes());
        info.extend((entry.kind as u32).to_le_bytes());
        info.extend(0u32.to_le_bytes());
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::EntryMode;
    use crate::loader::elf::tests::{Part, build};
    use crate::loader::testing::Pc;

    const MIB: u64 = 1 << 20;

    fn kernel(wide: bool) -> Vec<u8> {
        let entry = 0x10_0040u64.to_le_bytes();
        let note = Part::note(b"Xen\0", PHYS32_ENTRY, if wide { &entry } else { &entry[..4] });
        let machine = if wide { 62 } else { 3 };
        build(wide, machine, 0x100, &[Part::load(MIB, &[0x90; 100], 200), note])
    }

    #[test]
    fn the_entry_comes_from_the_note_in_both_classes() {
        for wide in [true, false] {
            let pc = Pc::new(8 * MIB);
            let state = pc.load(&kernel(wide), None, "").expect("loads");
            assert_eq!((state.mode, state.entry), (EntryMode::Protected32, 0x10_0040));
            assert_eq!(pc.read(MIB, 100), [0x90; 100]);
        }
    }

    #[test]
    fn the_start_info_leads_to_everything() {
        let pc = Pc::new(8 * MIB);
        let state = pc.load(&kernel(true), Some(b"initrd"), "a=b").expect("loads");
        let [(Gpr::Rbx, info)] = state.registers[..] else { panic!("{:?}", state.registers) };
        assert_eq!(pc.u32_at(info), 0x336e_c578);
        assert_eq!((pc.u32_at(info + 4), pc.u32_at(info + 12)), (1, 1), "version, modules");
        assert_eq!(pc.read(pc.u64_at(info + 24), 4), b"a=b\0");
        assert_eq!(pc.u64_at(info + 32), pc.rsdp().0);
        let module = pc.u64_at(info + 16);
        assert_eq!(pc.u64_at(module + 8), 6);
        assert_eq!(pc.read(pc.u64_at(module), 6), b"initrd");
        let (map, entries) = (pc.u64_at(info + 40), pc.u32_at(info + 48));
        assert_eq!(entries, 4);
        let last = map + 3 * 24;
        assert_eq!((pc.u64_at(last), pc.u64_at(last + 8)), (MIB, 7 * MIB));
        assert_eq!(pc.u32_at(last + 16), 1);
    }

    #[test]
    fn a_kernel_without_ram_at_its_address_is_refused() {
        let refused = Pc::new(MIB).load(&kernel(true), None, "");
        assert!(matches!(refused, Err(LoadError::NoRam { .. })), "{refused:?}");
    }

    #[test]
    fn damage_never_panics() {
        for wide in [true, false] {
            Pc::new(8 * MIB).survives_damage(&kernel(wide), 300);
        }
    }
}
