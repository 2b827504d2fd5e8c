//! The I/O ports.

use brolga_devices::VmTime;
use brolga_devices::dma8237::DmaPair;
use brolga_devices::pic::PicPair;
use brolga_devices::pm;
use brolga_mmu::Width;
use tracing::Level;

use super::{Chip, Chipset, Ranges, stopwatch, vga};
use crate::firmware::acpi;

/// The name of the tracing target of port accesses.
const TARGET: &str = "pio";

/// Which chip answers at a range of ports, and the chip's own number of the first one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    chip: Chip,
    offset: u16,
}

/// Where each chip answers. Other ports, COM2 to COM4 among them, belong to nobody.
pub(super) fn table() -> Ranges<u16, Place> {
    let at = |range, chip, offset| (range, Place { chip, offset });
    Ranges::new([
        at(0x00..=0x0f, Chip::Dma, DmaPair::FIRST),
        at(0x20..=0x21, Chip::Pic, PicPair::MASTER),
        at(0x40..=0x43, Chip::Pit, 0),
        at(0x60..=0x60, Chip::I8042, 0),
        at(0x61..=0x61, Chip::Port61, 0),
        at(0x64..=0x64, Chip::I8042, 4),
        at(0x70..=0x71, Chip::Rtc, 0),
        // The page register at 80h has no channel; on PCs the port shows POST codes.
        at(0x80..=0x80, Chip::Post, 0),
        at(0x81..=0x8f, Chip::Dma, DmaPair::PAGES + 1),
        at(0x92..=0x92, Chip::Port92, 0),
        at(0xa0..=0xa1, Chip::Pic, PicPair::SLAVE),
        at(0xc0..=0xdf, Chip::Dma, DMA_SECOND_PORTS),
        at(0xe9..=0xe9, Chip::Debug, 0),
        at(0xf0..=0xf0, Chip::CoprocessorError, 0),
        at(0xf4..=0xf7, Chip::ExitPort, 0),
        at(vga::PORTS..=vga::PORTS_LAST, Chip::Vga, vga::PORTS),
        at(acpi::COM1_PORT..=acpi::COM1_PORT + 7, Chip::Uart, 0),
        at(0x4d0..=0x4d1, Chip::Pic, PicPair::ELCR),
        at(acpi::PM_BASE..=acpi::PM_BASE + pm::GPE0 - 1, Chip::Pm, 0),
        at(acpi::GPE0..=acpi::GPE0 + 3, Chip::Pm, pm::GPE0),
        at(0xcf8..=0xcf8, Chip::Pci, 0),
        at(acpi::RESET_PORT..=acpi::RESET_PORT, Chip::ResetControl, 0),
        at(0xcfc..=0xcff, Chip::Pci, 4),
        at(stopwatch::PORTS, Chip::Stopwatch, 0),
    ])
}

impl Chipset {
    /// IN. Also says which chip has answered.
    pub(super) fn port_read(
        &mut self,
        now: VmTime,
        port: u16,
        width: Width,
    ) -> (u64, Option<Chip>) {
        let found = self.place(port);
        let value = match found {
            Some((chip, offset)) if chip.is_wide() => self.read_wide(now, chip, offset, width),
            _ => (0..width.bytes()).fold(0, |value, i| {
                let byte = self.read_byte(now, port.wrapping_add(i as u16));
                value | u64::from(byte) << (8 * i)
            }),
        };
        if tracing::enabled!(target: TARGET, Level::TRACE) {
            self.trace_port("in", now, port, width, value, found);
        }
        (value, found.map(|(chip, _)| chip))
    }

    /// OUT. Says which chip has taken it.
    pub(super) fn port_write(
        &mut self,
        now: VmTime,
        port: u16,
        width: Width,
        value: u64,
    ) -> Option<Chip> {
        let found = self.place(port);
        if tracing::enabled!(target: TARGET, Level::TRACE) {
            self.trace_port("out", now, port, width, value, found);
        }
        if !self.taps.is_empty() {
            for i in 0..width.bytes() {
                self.taps.record(port.wrapping_add(i as u16), (value >> (8 * i)) as u8);
            }
        }
        match found {
            Some((chip, offset)) if chip.is_wide() => {
                self.write_wide(now, chip, offset, width, value);
            }
            _ => {
                for i in 0..width.bytes() {
                    self.write_byte(now, port.wrapping_add(i as u16), (value >> (8 * i)) as u8);
                }
            }
        }
        found.map(|(chip, _)| chip)
    }

    fn place(&self, port: u16) -> Option<(Chip, u16)> {
        let (first, Place { chip, offset }) = self.port_table.find(port)?;
        Some((chip, offset + (port - first)))
    }

    fn read_wide(&mut self, now: VmTime, chip: Chip, offset: u16, width: Width) -> u64 {
        let size = width.bytes() as u8;
        let value = match chip {
            Chip::Pm => self.pm.read(now, offset, size),
            Chip::Pci => self.pci.read(now, offset, size),
            Chip::Stopwatch => stopwatch::read(self.stopwatch.as_deref_mut(), offset),
            _ => self.exit_port.read(now),
        };
        u64::from(value) & width.mask()
    }

    fn write_wide(&mut self, now: VmTime, chip: Chip, offset: u16, width: Width, value: u64) {
        let (size, value) = (width.bytes() as u8, value as u32);
        match chip {
            Chip::Pm => self.pm.write(now, offset, size, value),
            Chip::Pci => self.pci.write(now, offset, size, value),
            Chip::Stopwatch => stopwatch::write(self.stopwatch.as_deref_mut(), now, offset, value),
            _ => self.exit_port.write(now, value),
        }
    }

    fn read_byte(&mut self, now: VmTime, port: u16) -> u8 {
        let Some((chip, offset)) = self.place(port) else { return 0xff };
        match chip {
            Chip::Pic => self.pic.read(now, offset),
            Chip::Pit => self.pit.read(now, offset),
            Chip::Port61 => {
                let speaker_timer = self.pit.output(now, 2);
                self.port61.read(now, speaker_timer)
            }
            Chip::Rtc => self.rtc.read(now, offset),
            Chip::Dma => self.dma.read(now, dma_register(offset)),
            Chip::I8042 => self.i8042.read(now, offset),
            Chip::Uart => self.uart.read(now, offset),
            Chip::Vga => self.vga.read(offset),
            Chip::Post => self.post.read(now),
            Chip::Debug => self.debug.read(now),
            Chip::Port92 => self.port92.read(now),
            Chip::ResetControl => self.reset_control.read(now),
            Chip::Pm | Chip::Pci | Chip::ExitPort | Chip::Stopwatch => {
                self.read_wide(now, chip, offset, Width::W8) as u8
            }
            Chip::CoprocessorError | Chip::Hpet | Chip::IoApic | Chip::Lapic => 0xff,
        }
    }

    fn write_byte(&mut self, now: VmTime, port: u16, value: u8) {
        let Some((chip, offset)) = self.place(port) else { return };
        match chip {
            Chip::Pic => self.pic.write(now, offset, value),
            Chip::Pit => self.pit.write(now, offset, value),
            Chip::Port61 => {
                self.port61.write(now, value);
                self.pit.set_gate2(now, self.port61.gate2());
            }
            Chip::Rtc => self.rtc.write(now, offset, value),
            Chip::Dma => self.dma.write(now, dma_register(offset), value),
            Chip::I8042 => self.i8042.write(now, offset, value),
            Chip::CoprocessorError => self.ferr.write(now, value),
            Chip::Uart => {
                self.uart.write(now, offset, value);
                self.collect_serial_output();
            }
            Chip::Vga => self.vga.write(offset, value),
            Chip::Post => self.post.write(now, value),
            Chip::Debug => {
                self.debug.write(now, value);
                self.collect_debug_output();
            }
            Chip::Port92 => self.port92.write(now, value),
            Chip::ResetControl => self.reset_control.write(now, value),
            Chip::Pm | Chip::Pci | Chip::ExitPort | Chip::Stopwatch => {
                self.write_wide(now, chip, offset, Width::W8, value.into());
            }
            Chip::Hpet | Chip::IoApic | Chip::Lapic => {}
        }
    }

    fn collect_serial_output(&mut self) {
        let sent = self.uart.take_output();
        if let Some(text) = &mut self.stop_text {
            self.signals.text_seen |= sent.iter().any(|&byte| text.feed(byte));
        }
        self.serial_output.extend_from_slice(&sent);
    }

    /// The debug console is a trace target, a line at a time.
    fn collect_debug_output(&mut self) {
        const LONGEST_LINE: usize = 1024;
        for byte in self.debug.take_output() {
            if byte != b'\n' && self.debug_line.len() < LONGEST_LINE {
                self.debug_line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.debug_line);
            tracing::trace!(target: "debugcon", "{}", String::from_utf8_lossy(&line));
        }
    }

    #[cold]
    fn trace_port(
        &self,
        what: &str,
        now: VmTime,
        port: u16,
        width: Width,
        value: u64,
        found: Option<(Chip, u16)>,
    ) {
        let digits = 2 * width.bytes() as usize;
        let who = found.map_or("nobody".into(), |(chip, _)| format!("{chip:?}"));
        tracing::trace!(target: TARGET, "{} {what} {port:04x} {value:0digits$x} {who}", now.0);
    }
}

impl Chip {
    /// Whether the chip takes a wide access as one; the others are on an 8-bit bus, which splits
    /// it into consecutive ports.
    fn is_wide(self) -> bool {
        matches!(self, Chip::Pm | Chip::Pci | Chip::ExitPort | Chip::Stopwatch)
    }
}

/// The board's own numbers of the second DMA controller's ports.
const DMA_SECOND_PORTS: u16 = 0x80;

/// The second controller is on a 16-bit bus: its registers are two ports apart.
fn dma_register(offset: u16) -> u16 {
    match offset.checked_sub(DMA_SECOND_PORTS) {
        Some(port) => DmaPair::SECOND + port / 2,
        None => offset,
    }
}
