//! A function's configuration space.

use serde::{Deserialize, Serialize};

use crate::state::Bytes;

const COMMAND: u8 = 0x04;
const COMMAND_IO: u8 = 0x01;
const COMMAND_MEMORY: u8 = 0x02;
const HEADER_TYPE: u8 = 0x0e;
const MULTIFUNCTION: u8 = 0x80;
const BAR0: u8 = 0x10;
const INTERRUPT_LINE: u8 = 0x3c;

/// What a base address register maps (6.2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BarKind {
    /// Ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere, without side effects on reads; takes the next register too.
    Memory64Prefetchable,
}

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// 0 to 5.
    pub index: u8,
    /// What it maps.
    pub kind: BarKind,
    /// How much, a power of two.
    pub size: u64,
}

impl Bar {
    fn register(&self) -> u8 {
        BAR0 + 4 * self.index
    }

    fn flags(&self) -> u32 {
        match self.kind {
            BarKind::Io => 1,
            BarKind::Memory32 => 0,
            BarKind::Memory64Prefetchable => 0xc,
        }
    }
}

/// A function: 256 bytes of configuration space, and which of their bits software can write.
#[derive(Clone, Debug)]
pub struct PciFunction {
    config: Bytes<256>,
    /// The configuration after RST#.
    initial: Bytes<256>,
    writable: Bytes<256>,
    bars: Vec<Bar>,
}

saved_state! {
    /// The state of a [`PciFunction`].
    PciFunctionSaved of PciFunction { config: Bytes<256> }
    wiring { initial, writable, bars }
}

impl PciFunction {
    /// A function with a type 0 header: ids, class code (24 bits) and revision.
    pub fn new(vendor: u16, device: u16, class: u32, revision: u8) -> Self {
        let zero = Bytes([0; 256]);
        let function = Self { config: zero, initial: zero, writable: zero, bars: Vec::new() };
        function
            .with_initial(0x00, u32::from(device) << 16 | u32::from(vendor))
            .with_initial(0x08, class << 8 | u32::from(revision))
            // I/O, memory, bus master, interrupt disable.
            .with_writable(COMMAND, 0x0407)
            .with_writable(INTERRUPT_LINE, 0xff)
    }

    /// The same function with these base address registers.
    #[must_use]
    pub fn with_bars(mut self, bars: &[Bar]) -> Self {
        for bar in bars.iter().filter(|bar| bar.index < 6 && bar.size.is_power_of_two()) {
            let mask = !(bar.size - 1);
            let flag_bits = if bar.kind == BarKind::Io { 0x3 } else { 0xf };
            self = self
                .with_initial(bar.register(), bar.flags())
                .with_writable(bar.register(), mask as u32 & !flag_bits);
            if bar.kind == BarKind::Memory64Prefetchable && bar.index < 5 {
                self = self.with_writable(bar.register() + 4, (mask >> 32) as u32);
            }
            self.bars.push(*bar);
        }
        self
    }

    /// The same function with an initial value in the doubleword at `register`.
    #[must_use]
    pub fn with_initial(mut self, register: u8, value: u32) -> Self {
        put(&mut self.initial.0, register, value);
        self.config = self.initial;
        self
    }

    /// The same function with these bits of the doubleword at `register` writable.
    #[must_use]
    pub fn with_writable(mut self, register: u8, mask: u32) -> Self {
        put(&mut self.writable.0, register, mask);
        self
    }

    /// The same function, saying that its device has others.
    #[must_use]
    pub fn multifunction(mut self) -> Self {
        self.initial.0[usize::from(HEADER_TYPE)] |= MULTIFUNCTION;
        self.config = self.initial;
        self
    }

    /// The Intel 82441FX host bridge (440FX datasheet, 290549): only the registers that choose
    /// what is behind the legacy area, read and written without effect.
    pub fn i440fx_host_bridge() -> Self {
        Self::new(0x8086, 0x1237, 0x06_0000, 2)
            .with_writable(0x58, 0xffff_ff00)
            .with_writable(0x5c, 0xffff_ffff)
            .with_writable(0x70, 0x00ff_0000)
    }

    /// The ISA bridge of the Intel PIIX3 (82371SB datasheet, 290550), with its PIRQ route control
    /// registers, which start disabled.
    pub fn piix3_isa_bridge() -> Self {
        Self::new(0x8086, 0x7000, 0x06_0100, 0)
            .with_initial(COMMAND, 0x0200_0007)
            .with_writable(COMMAND, 0)
            .with_initial(0x60, 0x8080_8080)
            .with_writable(0x60, 0x8f8f_8f8f)
            .multifunction()
    }

    /// The power-management function of the Intel PIIX4 (82371AB datasheet, 290562, 7.1), its
    /// registers enabled at the I/O address `base`.
    pub fn piix4_power_management(base: u16) -> Self {
        Self::new(0x8086, 0x7113, 0x06_8000, 3)
            .with_initial(0x3c, 0x0000_0109)
            .with_initial(0x40, u32::from(base & 0xffc0) | 1)
            .with_initial(0x80, 1)
    }

    /// The RST# signal.
    pub fn reset(&mut self) {
        self.config = self.initial;
    }

    /// The address a base address register decodes now; none while its decoding is off.
    pub fn bar_address(&self, index: u8) -> Option<u64> {
        let bar = self.bars.iter().find(|bar| bar.index == index)?;
        let command = self.config.0[usize::from(COMMAND)];
        let low = u64::from(self.read(bar.register(), 4));
        match bar.kind {
            BarKind::Io => (command & COMMAND_IO != 0).then_some(low & !3),
            BarKind::Memory32 => (command & COMMAND_MEMORY != 0).then_some(low & !0xf),
            BarKind::Memory64Prefetchable => {
                let high = u64::from(self.read(bar.register() + 4, 4));
                (command & COMMAND_MEMORY != 0).then_some(high << 32 | low & !0xf)
            }
        }
    }

    /// Its base address registers.
    pub fn bars(&self) -> &[Bar] {
        &self.bars
    }

    /// Reads `size` bytes; beyond the end are ones.
    pub fn read(&self, register: u8, size: u8) -> u32 {
        (0..usize::from(size.min(4))).fold(0, |value, i| {
            let byte = self.config.0.get(usize::from(register) + i).copied().unwrap_or(0xff);
            value | u32::from(byte) << (8 * i)
        })
    }

    /// Writes the writable bits of `size` bytes.
    pub fn write(&mut self, register: u8, size: u8, value: u32) {
        let bytes = value.to_le_bytes();
        let at = usize::from(register);
        let registers = self.config.0.iter_mut().zip(self.writable.0).skip(at);
        for ((byte, writable), new) in registers.zip(bytes).take(size.into()) {
            *byte = *byte & !writable | new & writable;
        }
    }
}

/// Puts a doubleword into a configuration space.
fn put(space: &mut [u8; 256], register: u8, value: u32) {
    let at = usize::from(register & !3);
    space[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
