//! The CPU at the first instruction of what was loaded.

use brolga_mmu::GuestPhys;

use super::LoadError;
use super::space::{FOUR_GIB, GDT, GuestSpace, PAGE_TABLES};

/// The mode the CPU enters in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryMode {
    /// As after RESET: the reset vector, FFFF_FFF0, in real mode.
    Real,
    /// Flat 32-bit protected mode without paging: CR0.PE is set.
    Protected32,
    /// 64-bit mode: CR0.PE and PG, CR4.PAE, EFER.LME and LMA are set.
    Long64,
}

/// A general register, in encoding order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
}

/// What the CPU holds at entry; whatever is not said here is as after RESET. Interrupts are off,
/// A20 is open. The protected modes have these segments, all but the last flat and 4 GiB long:
///
/// | selector                     | segment                                          |
/// |------------------------------|--------------------------------------------------|
/// | [`BootState::CODE`]          | CS: 32-bit or, in long mode, 64-bit code         |
/// | [`BootState::DATA`]          | DS, ES, FS, GS, SS: writable data                |
/// | [`BootState::TASK`]          | TR: a busy TSS with base 0 and limit 67h         |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootState {
    /// The mode.
    pub mode: EntryMode,
    /// The linear address of the first instruction.
    pub entry: u64,
    /// Where the GDT is.
    pub gdt: GuestPhys,
    /// The offset of the GDT's last byte; zero in real mode.
    pub gdt_limit: u16,
    /// CR3; zero unless in long mode.
    pub cr3: u64,
    /// General registers that are not zero.
    pub registers: Vec<(Gpr, u64)>,
}

impl BootState {
    /// Linux's `__BOOT_CS` (boot protocol, "32-bit boot protocol").
    pub const CODE: u16 = 0x10;
    /// Linux's `__BOOT_DS`.
    pub const DATA: u16 = 0x18;
    /// The task that PVH wants in TR.
    pub const TASK: u16 = 0x20;

    /// Execution from the reset vector.
    pub(super) fn reset_vector() -> Self {
        Self {
            mode: EntryMode::Real,
            entry: 0xffff_fff0,
            gdt: GuestPhys(0),
            gdt_limit: 0,
            cr3: 0,
            registers: Vec::new(),
        }
    }

    /// Entry in protected mode, which reaches the first 4 GiB; writes the GDT.
    pub(super) fn protected32(
        space: &GuestSpace<'_>,
        entry: u64,
        registers: Vec<(Gpr, u64)>,
    ) -> Result<Self, LoadError> {
        const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
        if entry >= FOUR_GIB {
            return Err(LoadError::Malformed { what: "32-bit entry point is above 4 GiB" });
        }
        let gdt_limit = write_gdt(space, CODE_32)?;
        let mode = EntryMode::Protected32;
        Ok(Self { mode, entry, gdt: GuestPhys(GDT), gdt_limit, cr3: 0, registers })
    }

    /// Entry in long mode; writes the GDT and page tables for the first 4 GiB.
    pub(super) fn long64(
        space: &GuestSpace<'_>,
        entry: u64,
        registers: Vec<(Gpr, u64)>,
    ) -> Result<Self, LoadError> {
        const CODE_64: u64 = 0x00af_9b00_0000_ffff;
        let gdt_limit = write_gdt(space, CODE_64)?;
        write_page_tables(space)?;
        let mode = EntryMode::Long64;
        Ok(Self { mode, entry, gdt: GuestPhys(GDT), gdt_limit, cr3: PAGE_TABLES, registers })
    }
}

/// Writes the GDT (SDM vol. 3A, 3.4.5); returns its limit. The TSS takes two entries, because
/// its descriptor is 16 bytes long in long mode.
fn write_gdt(space: &GuestSpace<'_>, code: u64) -> Result<u16, LoadError> {
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    const BUSY_TSS: u64 = 0x0000_8b00_0000_0067;
    let table: Vec<u8> =
        [0, 0, code, DATA, BUSY_TSS, 0].into_iter().flat_map(u64::to_le_bytes).collect();
    space.write(GDT, &table)?;
    Ok(table.len() as u16 - 1)
}

/// Writes a PML4, a PDPT and four page directories (SDM vol. 3A, 4.5) that map the first 4 GiB
/// to themselves in 2 MiB pages.
fn write_page_tables(space: &GuestSpace<'_>) -> Result<(), LoadError> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    const TABLE: u64 = 0x1000;
    const DIRECTORIES: u64 = 4;
    let pdpt = PAGE_TABLES + TABLE;
    let directories = pdpt + TABLE;

    space.clear(PAGE_TABLES..directories)?;
    space.write(PAGE_TABLES, &(pdpt | PRESENT_WRITABLE).to_le_bytes())?;
    let pointers: Vec<u8> = (0..DIRECTORIES)
        .flat_map(|n| ((directories + n * TABLE) | PRESENT_WRITABLE).to_le_bytes())
        .collect();
    space.write(pdpt, &pointers)?;
    let pages: Vec<u8> = (0..DIRECTORIES * 512)
        .flat_map(|n| (n << 21 | LARGE | PRESENT_WRITABLE).to_le_bytes())
        .collect();
    space.write(directories, &pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::testing::Pc;

    #[test]
    fn the_page_tables_map_four_gib_to_themselves() {
        let pc = Pc::new(1 << 20);
        let state = BootState::long64(&pc.space(), 0x100_0200, Vec::new()).expect("RAM");
        let entry = |table: u64, index: u64| {
            let raw = pc.read((table & !0xfff) + index * 8, 8);
            u64::from_le_bytes(raw.try_into().expect("8 bytes"))
        };
        for linear in [0u64, 0x20_0000, 0x100_0200, 0xc000_0000, 0xffff_ffff] {
            let pdpte = entry(entry(state.cr3, linear >> 39), linear >> 30 & 511);
            let pde = entry(pdpte, linear >> 21 & 511);
            assert_eq!(pde & 0x83, 0x83, "{linear:#x} is not in a present, writable 2 MiB page");
            assert_eq!(pde & !0x1f_ffff, linear & !0x1f_ffff);
        }
        assert_eq!(entry(entry(state.cr3, 0), 4), 0, "nothing is mapped from 4 GiB up");
    }

    #[test]
    fn protected_mode_cannot_start_above_four_gib() {
        let pc = Pc::new(1 << 20);
        assert!(BootState::protected32(&pc.space(), FOUR_GIB - 1, Vec::new()).is_ok());
        let refused = BootState::protected32(&pc.space(), FOUR_GIB, Vec::new());
        assert!(matches!(refused, Err(LoadError::Malformed { .. })), "{refused:?}");
    }

    #[test]
    fn the_code_descriptor_is_that_of_the_mode() {
        let pc = Pc::new(1 << 20);
        let long = BootState::long64(&pc.space(), 0, Vec::new()).expect("RAM");
        let code = long.gdt.0 + u64::from(BootState::CODE);
        assert_eq!(pc.read(code, 8)[6] & 0x60, 0x20, "L without D");
        BootState::protected32(&pc.space(), 0, Vec::new()).expect("RAM");
        assert_eq!(pc.read(code, 8)[6] & 0x60, 0x40, "D without L");
        assert_eq!(usize::from(long.gdt_limit), usize::from(BootState::TASK) + 15);
    }
}
