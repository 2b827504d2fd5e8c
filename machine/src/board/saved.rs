//! The state of all chips, for hashes and snapshots.

use brolga_devices::dma8237::DmaPairSaved;
use brolga_devices::ferr::CoprocessorErrorSaved;
use brolga_devices::hpet::HpetSaved;
use brolga_devices::i8042::I8042Saved;
use brolga_devices::ioapic::IoApicSaved;
use brolga_devices::lapic::LapicSaved;
use brolga_devices::misc::{Port92Saved, PostPortSaved, ResetControlSaved};
use brolga_devices::pci::PciBusSaved;
use brolga_devices::pic::PicPairSaved;
use brolga_devices::pit::PitSaved;
use brolga_devices::pm::AcpiPmSaved;
use brolga_devices::port61::Port61Saved;
use brolga_devices::rtc::RtcSaved;
use brolga_devices::uart::UartSaved;
use serde::Serialize;

use super::vga::VgaRegisters;
use super::{Chipset, Vga};

/// The state of all chips.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChipsetSaved {
    uart: UartSaved,
    vga: VgaRegisters,
    vga_window: Vec<u8>,
    pic: PicPairSaved,
    pit: PitSaved,
    port61: Port61Saved,
    rtc: RtcSaved,
    dma: DmaPairSaved,
    i8042: I8042Saved,
    ferr: CoprocessorErrorSaved,
    post: PostPortSaved,
    port92: Port92Saved,
    reset_control: ResetControlSaved,
    pm: AcpiPmSaved,
    pci: PciBusSaved,
    hpet: HpetSaved,
    ioapic: IoApicSaved,
    lapic: LapicSaved,
}

impl Chipset {
    /// The state of all chips. What is on its way to the host (serial and debug output, an exit
    /// code) is not theirs any more; the clock is the machine's.
    pub fn saved(&self) -> ChipsetSaved {
        let Self {
            clock: _,
            tsc_start: _,
            stopwatch: _,
            uart,
            vga,
            pic,
            pit,
            port61,
            rtc,
            dma,
            i8042,
            ferr,
            post,
            debug: _,
            port92,
            reset_control,
            exit_port: _,
            pm,
            pci,
            hpet,
            ioapic,
            lapic,
            lent: _,
            // Follows from the HPET's configuration.
            legacy_replacement: _,
            // Taken at the end of every slice.
            signals: _,
            planned: _,
            serial_output: _,
            debug_line: _,
            stop_text: _,
            taps: _,
            port_table: _,
            memory_table: _,
        } = self;
        ChipsetSaved {
            uart: uart.saved(),
            vga: vga.registers().clone(),
            vga_window: Vga::window(vga).to_vec(),
            pic: pic.saved(),
            pit: pit.saved(),
            port61: port61.saved(),
            rtc: rtc.saved(),
            dma: dma.saved(),
            i8042: i8042.saved(),
            ferr: ferr.saved(),
            post: post.saved(),
            port92: port92.saved(),
            reset_control: reset_control.saved(),
            pm: pm.saved(),
            pci: pci.saved(),
            hpet: hpet.saved(),
            ioapic: ioapic.saved(),
            lapic: lapic.saved(),
        }
    }
}
