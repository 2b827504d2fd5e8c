//! The ACPI tables: what the machine's fixed hardware is and where it answers.
//!
//! AML, the FADT and checksummed tables come from the crate `acpi_tables`. Its RSDP cannot point
//! at an RSDT, which systems older than ACPI 2.0 need, and its MADT can neither say that there
//! are 8259s nor hold interrupt overrides: those two are laid out here.

mod dsdt;
mod tables;

use brolga_mmu::GuestPhys;

use super::{FirmwareError, TableArea};

/// First port of the power-management block.
pub const PM_BASE: u16 = 0x600;
/// PM1a event registers: status and enable, 2 bytes each.
pub const PM1A_EVENT: u16 = PM_BASE;
/// PM1a control register, 2 bytes.
pub const PM1A_CONTROL: u16 = PM_BASE + 4;
/// The 24-bit power-management timer.
pub const PM_TIMER: u16 = PM_BASE + 8;
/// General-purpose event block 0: 2 bytes of status, 2 of enables.
pub const GPE0: u16 = PM_BASE + 0x20;
/// Length of the power-management block.
pub const PM_LEN: u8 = 0x40;
/// The interrupt of the power-management chip (ISA and GSI), level-triggered and active high.
pub const SCI: u8 = 9;
/// `SLP_TYP` of soft-off: with `SLP_EN` in PM1a control it turns the machine off. The PIIX4, which
/// the power-management function on PCI is, has 0 for it (82371AB datasheet, 7.2.3); guests that
/// know the chip use it without tables.
pub const S5_SLEEP_TYPE: u8 = 0;
/// The reset control register.
pub const RESET_PORT: u16 = 0xcf9;
/// What resets the machine when written to [`RESET_PORT`]: a hard reset, and the edge for it.
pub const RESET_VALUE: u8 = 6;
/// First port of the first UART.
pub const COM1_PORT: u16 = 0x3f8;
/// The local APICs.
pub const LAPIC_ADDRESS: u32 = 0xfee0_0000;
/// The IOAPIC.
pub const IOAPIC_ADDRESS: u32 = 0xfec0_0000;
/// The IOAPIC's ID, which is what its register holds after reset. xAPICs talk over the system
/// bus, so it need not differ from those of the local APICs (SDM vol. 3A, 11.1).
pub const IOAPIC_ID: u8 = 0;
/// The HPET.
pub const HPET_ADDRESS: u32 = 0xfed0_0000;
/// The low half of the HPET's capabilities register (IA-PC HPET 1.0a, 2.3.4): vendor 8086h,
/// legacy routing, a 64-bit counter, three comparators, revision 1.
pub const HPET_CAPABILITIES: u32 = 0x8086_a201;
/// The PCI slot of the ISA bridge, on bus 0.
pub const ISA_BRIDGE_SLOT: u8 = 1;

/// The IOAPIC input that a PCI slot's interrupt pin (0 is INTA#) is wired to: the four inputs
/// after the ISA ones, each slot starting one further on.
pub fn pci_interrupt(slot: u8, pin: u8) -> u8 {
    16 + ((slot & 3) + (pin & 3)) % 4
}

/// Writes all tables; returns where the RSDP is.
pub(super) fn install(area: &mut TableArea<'_>, cpus: usize) -> Result<GuestPhys, FirmwareError> {
    // The FACS is aligned as ACPI 6.5, 5.2.10 wants it; RSDP scans go by 16 bytes (5.2.5.1).
    let facs = area.place(64, &tables::facs())?;
    let dsdt = area.place(16, &dsdt::table())?;
    let mut described = Vec::new();
    for table in [tables::fadt(facs, dsdt), tables::madt(cpus), tables::hpet()] {
        described.push(area.place(16, &table)?);
    }
    let rsdt = area.place(16, &tables::rsdt(&described))?;
    let xsdt = area.place(16, &tables::xsdt(&described))?;
    area.place(16, &tables::rsdp(rsdt, xsdt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firmware::tests::{map_of, read};
    use crate::firmware::{MemoryLayout, checksum, memory};
    use brolga_mmu::PhysMap;

    fn installed(cpus: usize) -> (PhysMap, GuestPhys) {
        let map = map_of(&MemoryLayout::new(MemoryLayout::MIN).expect("a legal size"));
        let mut area = TableArea { map: &map, next: memory::TABLES, end: memory::ONE_MIB };
        let rsdp = install(&mut area, cpus).expect("the tables fit");
        (map, rsdp)
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")).into()
    }

    fn table(map: &PhysMap, at: u64) -> Vec<u8> {
        let len = word(&read(map, at + 4, 4), 0) as usize;
        read(map, at, len)
    }

    /// The tables that the root table at `at` lists.
    fn listed(map: &PhysMap, at: u64, entry: usize) -> Vec<Vec<u8>> {
        let root = table(map, at);
        assert_eq!(checksum(&root), 0, "the root table's checksum");
        root[36..].chunks(entry).map(|entry| table(map, word(entry, 0))).collect()
    }

    #[test]
    fn both_root_tables_lead_to_the_same_valid_tables() {
        let (map, rsdp) = installed(2);
        let pointer = read(&map, rsdp.0, 36);
        assert_eq!(checksum(&pointer[..20]), 0, "the ACPI 1.0 checksum");
        assert_eq!(checksum(&pointer), 0, "the extended checksum");
        let old = listed(&map, word(&pointer, 16), 4);
        let new = listed(&map, word(&pointer, 24), 8);
        assert_eq!(old, new);
        let signatures: Vec<_> = new.iter().map(|table| &table[..4]).collect();
        assert_eq!(signatures, [&b"FACP"[..], b"APIC", b"HPET"]);
        for table in &new {
            assert_eq!(
                checksum(table),
                0,
                "checksum of {:?}",
                String::from_utf8_lossy(&table[..4])
            );
        }
    }

    #[test]
    fn the_fadt_leads_to_the_facs_and_the_dsdt() {
        let (map, rsdp) = installed(1);
        let fadt = &listed(&map, word(&read(&map, rsdp.0, 36), 24), 8)[0];
        let (facs, dsdt) = (word(fadt, 36), word(fadt, 40));
        assert!(facs.is_multiple_of(64));
        assert_eq!(&table(&map, facs)[..4], b"FACS");
        let dsdt = table(&map, dsdt);
        assert_eq!(&dsdt[..4], b"DSDT");
        assert_eq!(checksum(&dsdt), 0);
        assert_eq!(word(fadt, 48), 0, "no SMI command port: ACPI mode is always on");
    }

    #[test]
    fn the_madt_lists_every_cpu_once() {
        for cpus in [1, 4, 255] {
            let (map, rsdp) = installed(cpus);
            let madt = &listed(&map, word(&read(&map, rsdp.0, 36), 24), 8)[1];
            assert_eq!(word(madt, 40), 1, "PCAT_COMPAT: there are 8259s");
            let mut ids = Vec::new();
            let mut rest = &madt[44..];
            while let [kind, len, ..] = *rest {
                if kind == 0 {
                    ids.push(usize::from(rest[3]));
                }
                rest = &rest[usize::from(len)..];
            }
            assert_eq!(ids, (0..cpus).collect::<Vec<_>>());
        }
    }
}
