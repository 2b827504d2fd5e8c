//! PCI configuration space and configuration mechanism 1 (PCI Local Bus Specification 3.0,
//! 3.2.2.3.2 and chapter 6).

mod function;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::VmTime;
pub use function::{Bar, BarKind, PciFunction, PciFunctionSaved};

const ADDRESS_ENABLE: u32 = 1 << 31;
/// Enable, bus, device, function, register.
const ADDRESS_WRITABLE: u32 = 0x80ff_fffc;

/// Where a function is on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PciAddress {
    /// 0 to 31.
    pub device: u8,
    /// 0 to 7.
    pub function: u8,
}

/// Bus 0, and the two ports that reach it.
#[derive(Debug, Default)]
pub struct PciBus {
    address: u32,
    functions: BTreeMap<PciAddress, PciFunction>,
    configured: Option<PciAddress>,
}

/// The state of a [`PciBus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciBusSaved {
    address: u32,
    functions: Vec<(PciAddress, PciFunctionSaved)>,
    configured: Option<PciAddress>,
}

impl PciBus {
    /// Offset of the address register (port CF8h).
    pub const ADDRESS: u16 = 0;
    /// Offset of the data register's four bytes (ports CFCh to CFFh).
    pub const DATA: u16 = 4;

    /// A bus without any function.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a function on the bus.
    pub fn insert(&mut self, device: u8, function: u8, pci: PciFunction) {
        self.functions.insert(PciAddress { device: device & 31, function: function & 7 }, pci);
    }

    /// A function of the bus.
    pub fn function(&self, device: u8, function: u8) -> Option<&PciFunction> {
        self.functions.get(&PciAddress { device, function })
    }

    /// A function of the bus, to change it as its device or firmware does.
    pub fn function_mut(&mut self, device: u8, function: u8) -> Option<&mut PciFunction> {
        self.functions.get_mut(&PciAddress { device, function })
    }

    /// Every function of the bus.
    pub fn functions(&self) -> impl Iterator<Item = (PciAddress, &PciFunction)> {
        self.functions.iter().map(|(&address, function)| (address, function))
    }

    /// Takes the function whose configuration was written last: its BARs or its command register
    /// may have changed.
    pub fn take_configured(&mut self) -> Option<PciAddress> {
        self.configured.take()
    }

    /// The RST# signal.
    pub fn reset(&mut self) {
        self.address = 0;
        self.configured = None;
        self.functions.values_mut().for_each(PciFunction::reset);
    }

    /// Reads `size` bytes at an offset from CF8h. The address register answers to four bytes
    /// only; what is absent reads as ones.
    pub fn read(&mut self, _now: VmTime, offset: u16, size: u8) -> u32 {
        let ones = u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)));
        match (offset, size) {
            (Self::ADDRESS, 4) => self.address,
            (4..8, 1 | 2 | 4) => {
                let target = self.target();
                let function = target.and_then(|(address, _)| self.functions.get(&address));
                match (function, target) {
                    (Some(function), Some((_, register))) => {
                        function.read(register | (offset - Self::DATA) as u8, size)
                    }
                    _ => ones,
                }
            }
            _ => ones,
        }
    }

    /// Writes `size` bytes at an offset from CF8h.
    pub fn write(&mut self, _now: VmTime, offset: u16, size: u8, value: u32) {
        match (offset, size) {
            (Self::ADDRESS, 4) => self.address = value & ADDRESS_WRITABLE,
            (4..8, 1 | 2 | 4) => {
                let Some((address, register)) = self.target() else { return };
                if let Some(function) = self.functions.get_mut(&address) {
                    function.write(register | (offset - Self::DATA) as u8, size, value);
                    self.configured = Some(address);
                }
            }
            _ => {}
        }
    }

    /// The function and the register that the address register selects on bus 0.
    fn target(&self) -> Option<(PciAddress, u8)> {
        let [register, function, bus, _] = self.address.to_le_bytes();
        let selects = self.address & ADDRESS_ENABLE != 0 && bus == 0;
        let address = PciAddress { device: function >> 3, function: function & 7 };
        selects.then_some((address, register))
    }

    /// The state of the bus and its functions, for a snapshot.
    pub fn saved(&self) -> PciBusSaved {
        let Self { address, functions, configured } = self;
        let functions = functions.iter().map(|(&at, function)| (at, function.saved())).collect();
        PciBusSaved { address: *address, functions, configured: *configured }
    }

    /// Puts the bus into a state that `saved` returned; it must have the same functions.
    pub fn restore(&mut self, saved: PciBusSaved) {
        let PciBusSaved { address, functions, configured } = saved;
        self.address = address;
        self.configured = configured;
        for (at, saved) in functions {
            if let Some(function) = self.functions.get_mut(&at) {
                function.restore(saved);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: VmTime = VmTime::ZERO;

    fn bus() -> PciBus {
        let mut bus = PciBus::new();
        bus.insert(0, 0, PciFunction::i440fx_host_bridge());
        bus.insert(1, 0, PciFunction::piix3_isa_bridge());
        bus.insert(1, 3, PciFunction::piix4_power_management(0x600));
        let bars = [
            Bar { index: 0, kind: BarKind::Memory32, size: 0x1000 },
            Bar { index: 1, kind: BarKind::Io, size: 0x20 },
            Bar { index: 2, kind: BarKind::Memory64Prefetchable, size: 1 << 33 },
        ];
        bus.insert(5, 0, PciFunction::new(0x1234, 0x1111, 0x03_0000, 0).with_bars(&bars));
        bus
    }

    fn select(bus: &mut PciBus, device: u32, function: u32, register: u32) {
        bus.write(NOW, 0, 4, ADDRESS_ENABLE | device << 11 | function << 8 | register);
    }

    fn get(bus: &mut PciBus, device: u32, function: u32, register: u32) -> u32 {
        select(bus, device, function, register);
        bus.read(NOW, 4, 4)
    }

    fn set(bus: &mut PciBus, device: u32, register: u32, value: u32) {
        select(bus, device, 0, register);
        bus.write(NOW, 4, 4, value);
    }

    #[test]
    fn the_address_register_reads_back_whole_only() {
        let mut bus = bus();
        bus.write(NOW, 0, 4, u32::MAX);
        assert_eq!(bus.read(NOW, 0, 4), 0x80ff_fffc);
        bus.write(NOW, 0, 1, 0);
        assert_eq!(bus.read(NOW, 0, 4), 0x80ff_fffc);
        assert_eq!(bus.read(NOW, 1, 1), 0xff, "not ours: CF9 is");
    }

    #[test]
    fn identities_and_header_types() {
        let mut bus = bus();
        for (device, function, id, class, header) in [
            (0, 0, 0x1237_8086, 0x0600_0002, 0x00),
            (1, 0, 0x7000_8086, 0x0601_0000, 0x80),
            (1, 3, 0x7113_8086, 0x0680_0003, 0x00),
        ] {
            assert_eq!(get(&mut bus, device, function, 0), id);
            assert_eq!(get(&mut bus, device, function, 8), class);
            assert_eq!(get(&mut bus, device, function, 0xc) >> 16 & 0xff, header);
        }
        assert_eq!(get(&mut bus, 1, 3, 0x40), 0x601, "the base of the PM registers");
    }

    #[test]
    fn what_is_absent_reads_as_ones() {
        let mut bus = bus();
        assert_eq!(get(&mut bus, 2, 0, 0), u32::MAX);
        assert_eq!(get(&mut bus, 1, 1, 0), u32::MAX);
        bus.write(NOW, 0, 4, ADDRESS_ENABLE | 1 << 16);
        assert_eq!(bus.read(NOW, 4, 2), 0xffff, "there is no bus 1");
        bus.write(NOW, 0, 4, 0);
        assert_eq!(bus.read(NOW, 4, 1), 0xff, "not enabled");
        bus.write(NOW, 4, 4, 0);
    }

    #[test]
    fn bytes_and_words() {
        let mut bus = bus();
        select(&mut bus, 0, 0, 0);
        assert_eq!(bus.read(NOW, 5, 1), 0x80);
        assert_eq!(bus.read(NOW, 6, 2), 0x1237);
        select(&mut bus, 5, 0, 0x3c);
        bus.write(NOW, 4, 1, 11);
        assert_eq!(bus.read(NOW, 4, 4), 11);
        select(&mut bus, 5, 0, 0xfc);
        assert_eq!(bus.read(NOW, 7, 4) >> 8, 0xff_ffff, "beyond the end");
    }

    #[test]
    fn bars_are_sized_and_decoded() {
        let mut bus = bus();
        for (register, size) in
            [(0x10, 0xffff_f000), (0x14, 0xffff_ffe1), (0x18, 0xc), (0x1c, 0xffff_fffe), (0x20, 0)]
        {
            set(&mut bus, 5, register, u32::MAX);
            assert_eq!(get(&mut bus, 5, 0, register), size, "register {register:#x}");
        }
        for (register, value) in [(0x10, 0xfebf_1000), (0x14, 0xc041), (0x18, 0), (0x1c, 2)] {
            set(&mut bus, 5, register, value);
        }
        assert_eq!(bus.take_configured(), Some(PciAddress { device: 5, function: 0 }));
        let decoded = |bus: &PciBus| {
            let function = bus.function(5, 0).expect("the function exists");
            [0, 1, 2].map(|index| function.bar_address(index))
        };
        assert_eq!(decoded(&bus), [None; 3], "decoding is off");
        set(&mut bus, 5, 4, 3);
        assert_eq!(decoded(&bus), [Some(0xfebf_1000), Some(0xc040), Some(2 << 32)]);
        bus.reset();
        assert_eq!(decoded(&bus), [None; 3]);
    }

    #[test]
    fn identity_is_read_only() {
        let mut bus = bus();
        for register in [0x00, 0x08, 0x2c] {
            let before = get(&mut bus, 5, 0, register);
            set(&mut bus, 5, register, !before);
            assert_eq!(get(&mut bus, 5, 0, register), before);
        }
    }

    #[test]
    fn state_survives_a_snapshot() {
        let mut first = bus();
        set(&mut first, 5, 0x10, 0xfebf_1000);
        let mut other = bus();
        other.restore(first.saved());
        assert_eq!(other.read(NOW, 4, 4), 0xfebf_1000);
    }
}
