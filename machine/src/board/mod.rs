//! The PC's board: every chip, where it answers, and what its pins are connected to.
//!
//! All chips are in one [`Chipset`] behind one lock; a vCPU reaches them through its [`BoardBus`].

mod bus;
mod chips;
mod lent;
mod memory;
mod ports;
mod ranges;
mod saved;
mod stopwatch;
mod taps;
mod vga;
mod wiring;

#[cfg(test)]
mod tests;

use brolga_devices::dma8237::DmaPair;
use brolga_devices::ferr::CoprocessorError;
use brolga_devices::hpet::Hpet;
use brolga_devices::i8042::I8042;
use brolga_devices::ioapic::{self, IoApic};
use brolga_devices::lapic::{Lapic, LapicConfig};
use brolga_devices::misc::{DebugConsole, ExitPort, Port92, PostPort, ResetControl};
use brolga_devices::pci::{PciBus, PciFunction};
use brolga_devices::pic::PicPair;
use brolga_devices::pit::Pit;
use brolga_devices::pm::AcpiPm;
use brolga_devices::port61::Port61;
use brolga_devices::rtc::Rtc;
use brolga_devices::uart::Uart;
use brolga_devices::{DeliveryMode, Request, VmTime};

use crate::clock::Clock;
use crate::firmware::acpi;
use crate::serial::TextMatch;
pub use bus::BoardBus;
pub(crate) use bus::lock;
use chips::Chip;
pub(crate) use lent::LapicState;
use lent::Lent;
use ranges::Ranges;
pub use saved::ChipsetSaved;
pub use stopwatch::Stopwatch;
use taps::Taps;
pub use vga::Vga;

/// Whether the power-management timer has 32 bits; the FADT says that it has 24.
const PM_TIMER_32_BIT: bool = false;

/// What a board is built with.
#[derive(Debug)]
pub struct BoardConfig {
    /// The guest's clock.
    pub clock: Clock,
    /// What the real-time clock shows at power-on, in seconds since 1970.
    pub unix_seconds: i64,
    /// MAXPHYADDR of the CPU.
    pub physical_bits: u8,
    /// The frequency of the local APIC's timer.
    pub lapic_timer_hz: u64,
    /// A text that ends the run when it appears on the serial line.
    pub stop_text: Option<String>,
    /// Ports whose output is kept for [`Chipset::written`].
    pub taps: Vec<u16>,
}

/// All chips, the clock they are asked with, and what they have to say to the machine.
#[derive(Debug)]
pub struct Chipset {
    /// The guest's clock.
    pub clock: Clock,
    /// What the vCPU's time-stamp counter showed at power-on.
    pub tsc_start: u64,
    /// COM1.
    pub uart: Uart,
    /// The VGA window and registers.
    pub vga: Vga,
    pic: PicPair,
    pit: Pit,
    port61: Port61,
    rtc: Rtc,
    dma: DmaPair,
    i8042: I8042,
    ferr: CoprocessorError,
    post: PostPort,
    debug: DebugConsole,
    port92: Port92,
    reset_control: ResetControl,
    exit_port: ExitPort,
    pm: AcpiPm,
    pci: PciBus,
    hpet: Hpet,
    ioapic: IoApic,
    lapic: Lapic,
    /// Somebody else goes on with the local APIC.
    lent: Option<Lent>,
    /// Interrupts 0 and 8 come from the HPET now.
    legacy_replacement: bool,
    signals: Signals,
    /// When the machine will look at the chips again at the latest.
    planned: VmTime,
    /// What was written to the serial line and not yet taken.
    serial_output: Vec<u8>,
    debug_line: Vec<u8>,
    stop_text: Option<TextMatch>,
    taps: Taps,
    /// No chip, but an instrument of the host's: not a part of the guest's state.
    stopwatch: Option<Box<dyn Stopwatch>>,
    port_table: Ranges<u16, ports::Place>,
    memory_table: Ranges<u64, Chip>,
}

/// What the chips ask of the vCPU and the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signals {
    /// A non-maskable interrupt has come and is not yet taken.
    pub nmi: bool,
    /// An INIT has come and is not yet taken.
    pub init: bool,
    /// An interrupt whose vector the 8259s supply has come as a message.
    ext_int: bool,
    /// The most urgent request of a chip.
    pub request: Option<Request>,
    /// The text that ends the run has appeared on the serial line.
    pub text_seen: bool,
}

impl Chipset {
    /// A board at power-on.
    pub fn new(config: BoardConfig) -> Self {
        let BoardConfig { clock, unix_seconds, physical_bits, lapic_timer_hz, stop_text, taps } =
            config;
        let mut pci = PciBus::new();
        pci.insert(0, 0, PciFunction::i440fx_host_bridge());
        pci.insert(acpi::ISA_BRIDGE_SLOT, 0, PciFunction::piix3_isa_bridge());
        let power = PciFunction::piix4_power_management(acpi::PM_BASE);
        pci.insert(acpi::ISA_BRIDGE_SLOT, 3, power);
        let lapic = LapicConfig { id: 0, bootstrap: true, timer_hz: lapic_timer_hz, physical_bits };
        Self {
            clock,
            tsc_start: 0,
            uart: Uart::new(),
            vga: Vga::default(),
            pic: PicPair::new(),
            pit: Pit::new(),
            port61: Port61::default(),
            rtc: Rtc::new(unix_seconds),
            dma: DmaPair::new(),
            i8042: I8042::new(),
            ferr: CoprocessorError::default(),
            post: PostPort::default(),
            debug: DebugConsole::default(),
            port92: Port92::default(),
            reset_control: ResetControl::default(),
            exit_port: ExitPort::default(),
            pm: AcpiPm::new(PM_TIMER_32_BIT, acpi::S5_SLEEP_TYPE),
            pci,
            hpet: Hpet::new(),
            ioapic: IoApic::new(),
            lapic: Lapic::new(lapic),
            lent: None,
            legacy_replacement: false,
            signals: Signals::default(),
            planned: VmTime::MAX,
            serial_output: Vec::new(),
            debug_line: Vec::new(),
            stop_text: stop_text.map(TextMatch::new),
            taps: Taps::new(&taps),
            stopwatch: None,
            port_table: ports::table(),
            memory_table: memory::table(),
        }
    }

    /// The RESET signal: every chip is as after power-on; the clock goes on.
    pub fn reset(&mut self) {
        self.uart.reset();
        self.pic.reset();
        self.pit.reset();
        self.port61.reset();
        self.rtc.reset();
        self.dma.reset();
        self.i8042.reset();
        self.ferr.reset();
        self.post.reset();
        self.debug.reset();
        self.port92.reset();
        self.reset_control.reset();
        self.exit_port.reset();
        self.pm.reset();
        self.pci.reset();
        self.hpet.reset();
        self.ioapic.reset();
        self.lapic.reset();
        self.propagate();
        self.signals = Signals::default();
    }

    /// Sets what firmware would leave behind for a kernel that is entered directly: interrupts of
    /// the 8259s pass through the local APIC, and the SCI is level-triggered.
    pub fn prepare_for_kernel(&mut self) {
        const ELCR_SLAVE: u16 = PicPair::ELCR + 1;
        self.lapic.enter_virtual_wire_mode();
        self.pic.write(VmTime::ZERO, ELCR_SLAVE, 1 << (acpi::SCI - 8));
    }

    /// The guest's time when the vCPU has retired `retired` instructions.
    pub fn now(&mut self, retired: u64) -> VmTime {
        self.clock.now(retired)
    }

    /// Takes what the chips ask of the vCPU and the machine.
    pub fn take_signals(&mut self) -> Signals {
        let ext_int = self.signals.ext_int;
        std::mem::replace(&mut self.signals, Signals { ext_int, ..Signals::default() })
    }

    /// Whether the A20 gate is open: the keyboard controller or port 92h opens it.
    pub fn a20(&self) -> bool {
        self.i8042.a20() || self.port92.a20()
    }

    /// Takes what the guest has sent on the serial line.
    pub fn take_serial_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.serial_output)
    }

    /// What the guest has written to a port of [`BoardConfig::taps`].
    pub(crate) fn written(&self, port: u16) -> &[u8] {
        self.taps.written(port)
    }

    /// Lets the guest have its operations timed.
    pub(crate) fn set_stopwatch(&mut self, stopwatch: Box<dyn Stopwatch>) {
        self.stopwatch = Some(stopwatch);
    }

    /// CR8.
    pub(crate) fn task_priority(&self) -> u8 {
        self.lapic.cr8()
    }

    /// A debugger writes CR8.
    pub(crate) fn set_task_priority(&mut self, priority: u8) {
        self.lapic.set_cr8(priority);
    }

    /// INIT reaches the local APIC of the processor that takes it.
    pub(crate) fn init_lapic(&mut self) {
        self.lapic.init();
    }

    /// Whether something has come that a halted CPU wakes for, or that the machine must see to.
    pub(crate) fn would_wake(&self, interrupts_enabled: bool) -> bool {
        let Signals { nmi, init, request, .. } = self.signals;
        interrupts_enabled && self.intr() || nmi || init || request.is_some()
    }

    /// Whether an entry of the IOAPIC or a pin of the local APIC can cause an NMI, which would
    /// wake a CPU that is halted with interrupts off.
    pub(crate) fn nmi_is_possible(&mut self, now: VmTime) -> bool {
        self.ioapic_can_signal_nmi(now) || self.lint0_can_signal_nmi(now)
    }

    fn ioapic_can_signal_nmi(&mut self, now: VmTime) -> bool {
        const SELECT: u64 = 0x00;
        const WINDOW: u64 = 0x10;
        const FIRST_ENTRY: u32 = 0x10;
        let selected = self.ioapic.read(now, SELECT);
        let possible = (0..ioapic::PINS as u32).any(|pin| {
            self.ioapic.write(now, SELECT, FIRST_ENTRY + 2 * pin);
            is_nmi(self.ioapic.read(now, WINDOW))
        });
        self.ioapic.write(now, SELECT, selected);
        possible
    }

    fn lint0_can_signal_nmi(&mut self, now: VmTime) -> bool {
        const LVT_LINT0: u32 = 0x350;
        const LVT_LINT0_MSR: u32 = 0x835;
        if self.lapic.x2apic() {
            self.lapic.msr_read(now, LVT_LINT0_MSR).is_ok_and(|entry| is_nmi(entry as u32))
        } else {
            self.lapic.enabled() && is_nmi(self.lapic.read(now, LVT_LINT0))
        }
    }

    /// A byte arrives on the serial line.
    pub fn receive_serial(&mut self, now: VmTime, byte: u8) {
        self.uart.receive(now, byte);
    }
}

/// Whether an entry of the IOAPIC or of the local vector table is an NMI, and not masked.
fn is_nmi(entry: u32) -> bool {
    const MASKED: u32 = 1 << 16;
    entry & MASKED == 0 && DeliveryMode::from_bits(entry >> 8) == DeliveryMode::Nmi
}
