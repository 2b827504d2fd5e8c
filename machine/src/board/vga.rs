//! What the machine has of a VGA: the 128 KiB window as plain memory, and registers that keep
//! what is written to them (IBM VGA Technical Reference, chapter 2).
//!
//! Nothing is displayed, and planes, latches and the retrace timing are not modelled: text that a
//! guest writes to B8000h can be read back, by the guest, a debugger or a test.

use serde::{Deserialize, Serialize};

use brolga_mmu::Width;

/// First address of the window.
pub(super) const WINDOW: u64 = 0xa_0000;
/// The size of the window.
pub(super) const WINDOW_LEN: u64 = 0x2_0000;
/// The first of the ports.
pub(super) const PORTS: u16 = 0x3b0;
/// The last of the ports.
pub(super) const PORTS_LAST: u16 = 0x3df;

/// Ports of an index register, each followed by its data port: CRT controller (mono and colour),
/// sequencer, graphics controller.
const INDEXED: [u16; 4] = [0x3b4, 0x3c4, 0x3ce, 0x3d4];
/// Index and data share this port; a read of an input status register selects the index.
const ATTRIBUTE: u16 = 0x3c0;
/// Reads the attribute controller's data.
const ATTRIBUTE_READ: u16 = 0x3c1;
const MISC_OUTPUT_WRITE: u16 = 0x3c2;
const MISC_OUTPUT_READ: u16 = 0x3cc;
const STATUS_MONO: u16 = 0x3ba;
const STATUS_COLOUR: u16 = 0x3da;
/// Display disabled, and vertical retrace.
const STATUS_TOGGLES: u8 = 0x09;

/// The registers and the window.
#[derive(Clone, Debug)]
pub struct Vga {
    window: Vec<u8>,
    registers: VgaRegisters,
}

/// The state of the registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VgaRegisters {
    /// Plain ports, by their offset from [`PORTS`].
    ports: Vec<u8>,
    /// Indexed registers of each of [`INDEXED`], then of the attribute controller.
    indexed: Vec<Vec<u8>>,
    attribute_wants_data: bool,
    status: u8,
}

impl Default for Vga {
    fn default() -> Self {
        let registers = VgaRegisters {
            ports: vec![0; usize::from(PORTS_LAST - PORTS) + 1],
            indexed: vec![vec![0; 256]; INDEXED.len() + 1],
            attribute_wants_data: false,
            status: 0,
        };
        Self { window: vec![0; WINDOW_LEN as usize], registers }
    }
}

impl Vga {
    /// The registers, for a snapshot.
    pub fn registers(&self) -> &VgaRegisters {
        &self.registers
    }

    /// The contents of the window.
    pub fn window(&self) -> &[u8] {
        &self.window
    }

    /// Reads the window; ones beyond its end.
    pub fn read_window(&self, offset: u64, width: Width) -> u64 {
        let mut bytes = [0xff; 8];
        for (at, byte) in (offset..).zip(&mut bytes[..width.bytes() as usize]) {
            *byte = self.window.get(at as usize).copied().unwrap_or(0xff);
        }
        u64::from_le_bytes(bytes) & width.mask()
    }

    /// Writes the window.
    pub fn write_window(&mut self, offset: u64, width: Width, value: u64) {
        for (at, byte) in (offset..).zip(&value.to_le_bytes()[..width.bytes() as usize]) {
            if let Some(cell) = self.window.get_mut(at as usize) {
                *cell = *byte;
            }
        }
    }

    /// Reads a port.
    pub fn read(&mut self, port: u16) -> u8 {
        match port {
            STATUS_MONO | STATUS_COLOUR => {
                self.registers.attribute_wants_data = false;
                self.registers.status ^= STATUS_TOGGLES;
                self.registers.status
            }
            MISC_OUTPUT_READ => self.plain(MISC_OUTPUT_WRITE),
            ATTRIBUTE_READ => *self.selected(INDEXED.len(), ATTRIBUTE),
            _ => match data_port(port) {
                Some((bank, index_port)) => *self.selected(bank, index_port),
                None => self.plain(port),
            },
        }
    }

    /// Writes a port.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            ATTRIBUTE => {
                let is_data = self.registers.attribute_wants_data;
                self.registers.attribute_wants_data = !is_data;
                if is_data {
                    *self.selected(INDEXED.len(), ATTRIBUTE) = value;
                } else {
                    self.set_plain(ATTRIBUTE, value & 0x1f);
                }
            }
            ATTRIBUTE_READ | STATUS_MONO | STATUS_COLOUR => {}
            _ => match data_port(port) {
                Some((bank, index_port)) => *self.selected(bank, index_port) = value,
                None => self.set_plain(port, value),
            },
        }
    }

    /// The register of a bank that its index port selects.
    fn selected(&mut self, bank: usize, index_port: u16) -> &mut u8 {
        let index = usize::from(self.plain(index_port));
        &mut self.registers.indexed[bank][index]
    }

    fn plain(&self, port: u16) -> u8 {
        let at = usize::from(port.wrapping_sub(PORTS));
        self.registers.ports.get(at).copied().unwrap_or(0xff)
    }

    fn set_plain(&mut self, port: u16, value: u8) {
        let at = usize::from(port.wrapping_sub(PORTS));
        if let Some(cell) = self.registers.ports.get_mut(at) {
            *cell = value;
        }
    }
}

/// The bank that a data port belongs to, and the port of its index.
fn data_port(port: u16) -> Option<(usize, u16)> {
    let bank = INDEXED.iter().position(|&index| index + 1 == port)?;
    Some((bank, port - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_memory() {
        let mut vga = Vga::default();
        vga.write_window(0x1_8000, Width::W32, 0x0742_0741);
        assert_eq!(vga.read_window(0x1_8002, Width::W16), 0x0742);
        vga.write_window(WINDOW_LEN - 1, Width::W16, 0x1234);
        assert_eq!(vga.read_window(WINDOW_LEN - 1, Width::W16), 0xff34);
    }

    #[test]
    fn indexed_registers_are_kept_apart() {
        let mut vga = Vga::default();
        for (index, value) in [(0x0e, 3), (0x0f, 80)] {
            vga.write(0x3d4, index);
            vga.write(0x3d5, value);
        }
        vga.write(0x3d4, 0x0e);
        assert_eq!(vga.read(0x3d5), 3);
        assert_eq!(vga.read(0x3b5), 0, "the mono CRT controller is another bank");
    }

    #[test]
    fn the_attribute_port_alternates_until_the_status_is_read() {
        let mut vga = Vga::default();
        vga.write(0x3c0, 5);
        vga.write(0x3c0, 0x2a);
        assert_eq!(vga.read(0x3c1), 0x2a);
        vga.write(0x3c0, 6);
        vga.read(0x3da);
        vga.write(0x3c0, 5);
        assert_eq!(vga.read(0x3c1), 0x2a);
    }

    #[test]
    fn the_retrace_bit_does_not_stand_still() {
        let mut vga = Vga::default();
        assert_ne!(vga.read(0x3da) & 8, vga.read(0x3da) & 8);
    }
}
