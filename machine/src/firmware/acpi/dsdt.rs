//! The Differentiated System Description Table: soft-off, the PCI root bridge, and the ISA
//! devices that no bus can enumerate.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Memory32Fixed, Name, Package,
    PackageBuilder, Path, ResourceTemplate, Scope,
};
use acpi_tables::{Aml, AmlSink};

use crate::firmware::memory::{LOW_RAM_END, SHADOW, VGA_WINDOW};

/// Last address of the PCI memory window: the IOAPIC follows.
const PCI_WINDOW_LAST: u32 = super::IOAPIC_ADDRESS - 1;

/// The whole table.
pub(super) fn table() -> Vec<u8> {
    let mut aml = Vec::new();
    sleep_states(&mut aml);
    Scope::new("_SB_".into(), vec![&pci_root(), &hpet()]).to_aml_bytes(&mut aml);
    // Revision 2 makes integers 64 bits wide (ACPI 6.5, table 5.7).
    super::tables::sdt(*b"DSDT", 2, &aml)
}

/// `\_S5`: the `SLP_TYP` values of PM1a and PM1b for soft-off, and two reserved elements.
fn sleep_states(aml: &mut Vec<u8>) {
    let soft_off = Package::new(vec![&super::S5_SLEEP_TYPE, &0u8, &0u8, &0u8]);
    Name::new("_S5_".into(), &soft_off).to_aml_bytes(aml);
}

/// AML that is already encoded.
struct Encoded(Vec<u8>);

impl Encoded {
    fn new(aml: &dyn Aml) -> Self {
        let mut bytes = Vec::new();
        aml.to_aml_bytes(&mut bytes);
        Self(bytes)
    }
}

impl Aml for Encoded {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// An edge-triggered, active-high ISA interrupt: `IRQNoFlags` (ACPI 6.5, 6.4.2.1).
struct IsaIrq(u8);

impl Aml for IsaIrq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x22);
        sink.word(1 << self.0);
    }
}

/// An ISA DMA channel: compatibility speed, 8 bits wide, not a bus master (6.4.2.2).
struct IsaDma(u8);

impl Aml for IsaDma {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x2a);
        sink.byte(1 << self.0);
        sink.byte(0);
    }
}

/// `len` ports from `base`.
fn ports(base: u16, len: u8) -> IO {
    IO::new(base, base, 1, len)
}

/// `_CRS`: the resources a device uses, or a bridge passes on.
fn current_resources(resources: Vec<&dyn Aml>) -> Name {
    Name::new("_CRS".into(), &ResourceTemplate::new(resources))
}

/// A device with a Plug and Play ID and fixed resources.
fn device(name: &str, id: &str, resources: Vec<&dyn Aml>) -> Encoded {
    Encoded::new(&Device::new(
        Path::new(name),
        vec![&Name::new("_HID".into(), &EISAName::new(id)), &current_resources(resources)],
    ))
}

/// The host bridge, with the windows that it passes on to PCI.
fn pci_root() -> Encoded {
    let uncached = |first, last| {
        AddressSpace::<u32>::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            first,
            last,
            None,
        )
    };
    let windows = current_resources(vec![
        &AddressSpace::<u16>::new_bus_number(0, 0xff),
        // The configuration ports (and the reset register in them) are the bridge's own.
        &IO::new(0xcf8, 0xcf8, 1, 8),
        &AddressSpace::<u16>::new_io(0, 0xcf7, None),
        &AddressSpace::<u16>::new_io(0xd00, 0xffff, None),
        &uncached(VGA_WINDOW as u32, SHADOW as u32 - 1),
        &uncached(LOW_RAM_END as u32, PCI_WINDOW_LAST),
    ]);
    Encoded::new(&Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &0u8),
            &Name::new("_BBN".into(), &0u8),
            &windows,
            &Name::new("_PRT".into(), &interrupt_routes()),
            &isa_bridge(),
        ],
    ))
}

/// `_PRT`: which IOAPIC input each pin of each slot is wired to (ACPI 6.5, 6.2.13).
fn interrupt_routes() -> PackageBuilder {
    const SLOTS: u8 = 32;
    const PINS: u8 = 4;
    let mut routes = PackageBuilder::new();
    for (slot, pin) in (1..SLOTS).flat_map(|slot| (0..PINS).map(move |pin| (slot, pin))) {
        let all_functions = u32::from(slot) << 16 | 0xffff;
        let input = super::pci_interrupt(slot, pin);
        routes.add_element(&Package::new(vec![&all_functions, &pin, &0u8, &input]));
    }
    routes
}

fn isa_bridge() -> Encoded {
    let address = u32::from(super::ISA_BRIDGE_SLOT) << 16;
    Encoded::new(&Device::new(
        "ISA_".into(),
        vec![
            &Name::new("_ADR".into(), &address),
            &device(
                "PIC_",
                "PNP0000",
                vec![&ports(0x20, 2), &ports(0xa0, 2), &ports(0x4d0, 2), &IsaIrq(2)],
            ),
            &device("TIMR", "PNP0100", vec![&ports(0x40, 4), &IsaIrq(0)]),
            &device(
                "DMAC",
                "PNP0200",
                vec![&ports(0x00, 0x10), &ports(0x81, 0x0f), &ports(0xc0, 0x20), &IsaDma(4)],
            ),
            &device("RTC_", "PNP0B00", vec![&ports(0x70, 2), &IsaIrq(8)]),
            &device("KBD_", "PNP0303", vec![&ports(0x60, 1), &ports(0x64, 1), &IsaIrq(1)]),
            &device("MOU_", "PNP0F13", vec![&IsaIrq(12)]),
            &com1(),
            &device("PMIO", "PNP0C02", vec![&ports(super::PM_BASE, super::PM_LEN)]),
        ],
    ))
}

fn com1() -> Encoded {
    let resources = current_resources(vec![&ports(super::COM1_PORT, 8), &IsaIrq(4)]);
    Encoded::new(&Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &1u8),
            &resources,
        ],
    ))
}

fn hpet() -> Encoded {
    device("HPET", "PNP0103", vec![&Memory32Fixed::new(true, super::HPET_ADDRESS, 0x400)])
}
