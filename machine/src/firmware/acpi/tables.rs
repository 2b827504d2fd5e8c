//! The tables of plain data. Sections are those of ACPI 6.5.

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use brolga_mmu::GuestPhys;

use crate::firmware::checksum;

pub(super) const OEM_ID: [u8; 6] = *b"BROLGA";
pub(super) const OEM_TABLE_ID: [u8; 8] = *b"BROLGAPC";
pub(super) const OEM_REVISION: u32 = 1;

/// Length of the header that all tables but the RSDP and the FACS begin with (5.2.6).
const HEADER_LEN: u32 = 36;

/// A table with a body that is already in its final form.
pub(super) fn sdt(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Sdt::new(signature, HEADER_LEN, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(body);
    table.as_slice().to_vec()
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Root System Description Pointer (5.2.5.3), with both root tables.
pub(super) fn rsdp(rsdt: GuestPhys, xsdt: GuestPhys) -> Vec<u8> {
    const ACPI_1_LEN: usize = 20;
    const LEN: u32 = 36;
    let mut rsdp = Vec::new();
    rsdp.extend(b"RSD PTR ");
    rsdp.push(0);
    rsdp.extend(OEM_ID);
    rsdp.push(2);
    rsdp.extend((rsdt.0 as u32).to_le_bytes());
    rsdp[8] = checksum(&rsdp[..ACPI_1_LEN]);
    rsdp.extend(LEN.to_le_bytes());
    rsdp.extend(xsdt.0.to_le_bytes());
    rsdp.push(checksum(&rsdp));
    rsdp.extend([0; 3]);
    rsdp
}

/// Root System Description Table (5.2.7), for systems that know no 64-bit addresses.
pub(super) fn rsdt(described: &[GuestPhys]) -> Vec<u8> {
    let entries: Vec<u8> =
        described.iter().flat_map(|table| (table.0 as u32).to_le_bytes()).collect();
    sdt(*b"RSDT", 1, &entries)
}

/// Extended System Description Table (5.2.8).
pub(super) fn xsdt(described: &[GuestPhys]) -> Vec<u8> {
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in described {
        xsdt.add_entry(table.0);
    }
    bytes(&xsdt)
}

/// Firmware ACPI Control Structure (5.2.10).
pub(super) fn facs() -> Vec<u8> {
    bytes(&FACS::new())
}

/// Fixed ACPI Description Table (5.2.9).
pub(super) fn fadt(facs: GuestPhys, dsdt: GuestPhys) -> Vec<u8> {
    /// IAPC_BOOT_ARCH: devices on the ISA bus, an 8042, and no VGA.
    const BOOT_ARCH: u16 = 1 << 0 | 1 << 1 | 1 << 2;
    /// A latency that says the C-state does not exist.
    const NO_C_STATE: u16 = 0xfff;
    /// CMOS byte that holds the century.
    const CENTURY: u8 = 0x32;

    let port = |port: u16, bits: u8, access| {
        GAS::new(AddressSpace::SystemIo, bits, 0, access, port.into())
    };
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::Desktop)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // Set: there is no such button among the fixed hardware. (The power button is.)
        .flag(Flags::SlpButton)
        // Set: the RTC's wake-up is not among the fixed hardware.
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup)
        .gpe_info(super::GPE0.into(), 0, 4, 0, 0);
    // Both the old and the wide fields are filled, so that readers of either find the same.
    fadt.firmware_ctrl = (facs.0 as u32).into();
    fadt.dsdt = (dsdt.0 as u32).into();
    fadt.x_dsdt = dsdt.0.into();
    fadt.sci_int = u16::from(super::SCI).into();
    fadt.pm1a_evt_blk = u32::from(super::PM1A_EVENT).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = port(super::PM1A_EVENT, 32, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(super::PM1A_CONTROL).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = port(super::PM1A_CONTROL, 16, AccessSize::WordAccess);
    fadt.pm_tmr_blk = u32::from(super::PM_TIMER).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm_tmr_blk = port(super::PM_TIMER, 32, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = port(super::GPE0, 32, AccessSize::ByteAccess);
    fadt.p_lvl2_lat = NO_C_STATE.into();
    fadt.p_lvl3_lat = NO_C_STATE.into();
    fadt.century = CENTURY;
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = port(super::RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = super::RESET_VALUE;
    bytes(&fadt.finalize())
}

/// Multiple APIC Description Table (5.2.12).
pub(super) fn madt(cpus: usize) -> Vec<u8> {
    /// The system also has two 8259s.
    const PCAT_COMPAT: u32 = 1;
    /// MPS INTI flags (table 5.27).
    const AS_THE_BUS: u16 = 0;
    const LEVEL_ACTIVE_HIGH: u16 = 0b11 << 2 | 0b01;

    let mut body = Vec::new();
    body.extend(super::LAPIC_ADDRESS.to_le_bytes());
    body.extend(PCAT_COMPAT.to_le_bytes());
    for id in (0..=u8::MAX).take(cpus) {
        // Processor local APIC: UID, APIC ID, enabled.
        body.extend([0, 8, id, id, 1, 0, 0, 0]);
    }
    body.extend([1, 12, super::IOAPIC_ID, 0]);
    body.extend(super::IOAPIC_ADDRESS.to_le_bytes());
    body.extend(0u32.to_le_bytes());
    // The PIT is on input 2, because input 0 takes the 8259s' output.
    for (irq, gsi, flags) in [(0, 2, AS_THE_BUS), (super::SCI, super::SCI, LEVEL_ACTIVE_HIGH)] {
        body.extend([2, 10, 0, irq]);
        body.extend(u32::from(gsi).to_le_bytes());
        body.extend(flags.to_le_bytes());
    }
    // Local APIC NMI: all processors, as the bus, LINT1.
    body.extend([4, 6, 0xff, 0, 0, 1]);
    sdt(*b"APIC", 3, &body)
}

/// HPET Description Table (IA-PC HPET 1.0a, 3.2.4).
pub(super) fn hpet() -> Vec<u8> {
    /// The shortest period in ticks that interrupts are not lost at.
    const MIN_TICK: u16 = 100;
    let mut body = super::HPET_CAPABILITIES.to_le_bytes().to_vec();
    let registers = GAS::new(
        AddressSpace::SystemMemory,
        64,
        0,
        AccessSize::Undefined,
        super::HPET_ADDRESS.into(),
    );
    registers.to_aml_bytes(&mut body);
    body.push(0);
    body.extend(MIN_TICK.to_le_bytes());
    body.push(0);
    sdt(*b"HPET", 1, &body)
}
