use std::sync::{Arc, Mutex};

use brolga_cpu::bus::Bus;
use brolga_cpu::cpuid::TSC_KHZ;
use brolga_devices::VmTime;
use brolga_mmu::{GuestPhys, PhysMap, Ram, Width};

use super::*;
use crate::clock::{Clock, ClockKind};

/// A board with a vCPU's connection to it, in virtual time: the instruction count is the time.
struct Bench {
    bus: BoardBus,
    chipset: Arc<Mutex<Chipset>>,
}

impl Bench {
    fn new() -> Self {
        let chipset = Arc::new(Mutex::new(Chipset::new(BoardConfig {
            clock: Clock::new(ClockKind::Virtual),
            unix_seconds: 1_735_689_600,
            physical_bits: 40,
            lapic_timer_hz: 1_000_000_000,
            stop_text: Some("ok".into()),
            taps: Vec::new(),
        })));
        let map = Arc::new(PhysMap::new(Ram::new(4096).expect("host memory")));
        Self { bus: BoardBus::new(chipset.clone(), map, TSC_KHZ), chipset }
    }

    fn out(&mut self, at: u64, port: u16, value: u8) {
        self.bus.port_write(at, port, Width::W8, value.into());
    }

    fn outs(&mut self, at: u64, writes: &[(u16, u8)]) {
        writes.iter().for_each(|&(port, value)| self.out(at, port, value));
    }

    fn inb(&mut self, port: u16) -> u64 {
        self.bus.port_read(0, port, Width::W8)
    }

    fn chips(&self) -> std::sync::MutexGuard<'_, Chipset> {
        lock(&self.chipset)
    }

    /// The machine's look between slices: time passes, and the next event is planned.
    fn look(&mut self, at: u64) -> Option<VmTime> {
        let mut chips = self.chips();
        chips.advance(VmTime(at));
        let event = chips.next_event(VmTime(at));
        chips.plan(event);
        event
    }

    /// Both 8259s with vectors from 20h and 28h, all but `mask` of the master masked.
    fn program_pics(&mut self, mask: u8) {
        let master = [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, mask)];
        let slave = [(0xa0, 0x11), (0xa1, 0x28), (0xa1, 2), (0xa1, 1), (0xa1, 0xff)];
        self.outs(0, &master);
        self.outs(0, &slave);
    }

    /// Channel 0 of the 8254 as a rate generator.
    fn program_pit(&mut self, at: u64, count: u16) {
        let [low, high] = count.to_le_bytes();
        self.outs(at, &[(0x43, 0x34), (0x40, low), (0x40, high)]);
    }
}

#[test]
fn unclaimed_reads_are_ones_and_unclaimed_writes_vanish() {
    let mut bench = Bench::new();
    for (width, ones) in [(Width::W8, 0xff), (Width::W16, 0xffff), (Width::W32, 0xffff_ffff)] {
        assert_eq!(bench.bus.port_read(0, 0x2f8, width), ones, "COM2 at {width:?}");
    }
    let nobody = GuestPhys(0xf000_0000);
    bench.bus.mmio_write(0, nobody, Width::W64, 0);
    assert_eq!(bench.bus.mmio_read(0, nobody, Width::W64), u64::MAX);
    assert!(!bench.bus.take_replan());
}

#[test]
fn wide_accesses_to_byte_ports_are_split() {
    let mut bench = Bench::new();
    // The scratch register and the modem status before it.
    bench.out(0, 0x3ff, 0x5a);
    assert_eq!(bench.bus.port_read(0, 0x3fe, Width::W16) >> 8, 0x5a);
    // Index and data of the CRT controller in one write.
    bench.bus.port_write(0, 0x3d4, Width::W16, 0x120e);
    assert_eq!(bench.inb(0x3d5), 0x12);
}

#[test]
fn pci_configuration_and_the_reset_register_share_their_ports() {
    let mut bench = Bench::new();
    bench.bus.port_write(0, 0xcf8, Width::W32, 0x8000_0000);
    assert_eq!(bench.bus.port_read(0, 0xcfc, Width::W32), 0x1237_8086);
    assert_eq!(bench.bus.port_read(0, 0xcfe, Width::W16), 0x1237);
    bench.out(0, 0xcf9, 0x02);
    assert_eq!(bench.inb(0xcf9), 2);
    assert_eq!(bench.bus.port_read(0, 0xcf8, Width::W32), 0x8000_0000);
    assert!(bench.chips().take_signals().request.is_none());
    bench.out(0, 0xcf9, 0x06);
    assert_eq!(bench.chips().take_signals().request, Some(Request::Reset));
}

#[test]
fn the_second_dma_controller_is_two_ports_apart() {
    let mut bench = Bench::new();
    // Channel 5's address, low byte then high; its pointer flip-flop is cleared first.
    bench.outs(0, &[(0xd8, 0), (0xc4, 0x34), (0xc4, 0x12), (0xd8, 0)]);
    assert_eq!((bench.inb(0xc4), bench.inb(0xc4)), (0x34, 0x12));
    bench.out(0, 0x83, 0x77);
    assert_eq!(bench.inb(0x83), 0x77);
}

#[test]
fn the_vga_window_and_the_ioapic_answer_in_memory() {
    let mut bench = Bench::new();
    let cell = GuestPhys(0xb_8000);
    bench.bus.mmio_write(0, cell, Width::W16, 0x0741);
    assert_eq!(bench.bus.mmio_read(0, cell, Width::W8), 0x41);
    bench.bus.mmio_write(0, GuestPhys(0xfec0_0000), Width::W32, 1);
    assert_eq!(bench.bus.mmio_read(0, GuestPhys(0xfec0_0010), Width::W32), 0x17_0020);
}

#[test]
fn the_local_apic_follows_its_base_register() {
    const VERSION: u64 = 0x30;
    let mut bench = Bench::new();
    let read =
        |bench: &mut Bench, base| bench.bus.mmio_read(0, GuestPhys(base + VERSION), Width::W32);
    assert_eq!(read(&mut bench, 0xfee0_0000), 0x5_0014);
    assert_eq!(bench.bus.msr_read(0, 0x1b), Some(0xfee0_0900));
    assert_eq!(bench.bus.msr_write(0, 0x1b, 0xd000_0900), Some(()));
    assert_eq!(read(&mut bench, 0xd000_0000), 0x5_0014);
    assert_eq!(read(&mut bench, 0xfee0_0000), 0xffff_ffff);
    assert_eq!(bench.bus.msr_read(0, 0x802), None, "x2APIC registers fault outside x2APIC mode");
}

#[test]
fn a_timer_tick_reaches_the_processor_through_the_8259s() {
    let mut bench = Bench::new();
    bench.chips().prepare_for_kernel();
    // Setting the mode lets the output rise: that edge is over before the 8259s are set up.
    bench.program_pit(0, 11_932);
    bench.program_pics(0xfe);
    let tick = bench.look(0).expect("the timer runs");
    assert!((9_990_000..10_020_000).contains(&tick.0), "{tick:?}");
    bench.look(tick.0 - 1);
    assert!(!bench.chips().intr());
    // The output falls first and rises a tick of the 8254 later.
    let rise = (tick.0..tick.0 + 2_000).find(|&at| {
        bench.look(at);
        bench.chips().intr()
    });
    let rise = rise.expect("an interrupt");
    assert_eq!(bench.bus.acknowledge(rise), Some(0x20));
    assert!(!bench.chips().intr());
    assert_eq!(bench.bus.acknowledge(rise), None);
}

#[test]
fn a_masked_local_apic_keeps_the_8259s_away() {
    let mut bench = Bench::new();
    bench.program_pics(0xfe);
    bench.program_pit(0, 11_932);
    bench.look(30_000_000);
    assert!(!bench.chips().intr(), "LINT0 is masked after reset");
    bench.chips().prepare_for_kernel();
    assert!(bench.chips().intr());
}

#[test]
fn the_timer_is_on_ioapic_pin_2() {
    const PIN_2: u64 = 0x14;
    let mut bench = Bench::new();
    bench.chips().prepare_for_kernel();
    let (select, window) = (GuestPhys(0xfec0_0000), GuestPhys(0xfec0_0010));
    bench.bus.mmio_write(0, select, Width::W32, PIN_2);
    bench.bus.mmio_write(0, window, Width::W32, 0x51);
    bench.program_pit(0, 11_932);
    bench.look(30_000_000);
    assert!(bench.chips().intr());
    assert_eq!(bench.bus.acknowledge(30_000_000), Some(0x51));
}

#[test]
fn the_serial_line_interrupts_on_4() {
    let mut bench = Bench::new();
    bench.chips().prepare_for_kernel();
    bench.program_pics(0xef);
    bench.outs(0, &[(0x3fc, 0x0b), (0x3f9, 0x01)]);
    let mut chips = bench.chips();
    chips.receive_serial(VmTime(5), b'a');
    chips.advance(VmTime(5));
    assert!(chips.intr());
    drop(chips);
    assert_eq!(bench.bus.acknowledge(5), Some(0x24));
}

#[test]
fn only_what_concerns_the_processor_ends_the_slice() {
    let mut bench = Bench::new();
    bench.program_pics(0xff);
    bench.look(0);
    bench.bus.take_replan();
    for port in [0x20, 0x61, 0x64, 0x71, 0x3fd, 0x608] {
        bench.inb(port);
        assert!(!bench.bus.take_replan(), "a read of {port:#x}");
    }
    bench.program_pit(0, 1_000);
    assert!(bench.bus.take_replan(), "the timer makes an event that nobody has planned for");
    bench.look(0);
    bench.inb(0x40);
    assert!(!bench.bus.take_replan(), "the event is planned now");
}

#[test]
fn requests_end_the_slice() {
    for (port, value, request) in
        [(0xf4, 7, Request::Exit(7)), (0x92, 1, Request::Reset), (0x64, 0xfe, Request::Reset)]
    {
        let mut bench = Bench::new();
        bench.out(0, port, value);
        assert!(bench.bus.take_replan(), "{port:#x}");
        assert_eq!(bench.chips().take_signals().request, Some(request));
    }
    let mut bench = Bench::new();
    // SLP_EN and the type of S5 to PM1a control.
    let soft_off = 1 << 13 | u64::from(acpi::S5_SLEEP_TYPE) << 10;
    bench.bus.port_write(0, acpi::PM1A_CONTROL, Width::W16, soft_off);
    assert_eq!(bench.chips().take_signals().request, Some(Request::PowerOff));
}

#[test]
fn either_gate_opens_a20() {
    let mut bench = Bench::new();
    assert!(bench.chips().a20());
    bench.outs(0, &[(0x64, 0xd1), (0x60, 0xdd)]);
    assert!(!bench.chips().a20());
    assert!(bench.bus.take_replan(), "the map still has A20 open");
    bench.out(0, 0x92, 2);
    assert!(bench.chips().a20());
}

#[test]
fn the_stop_text_is_seen_at_its_last_byte() {
    let mut bench = Bench::new();
    bench.look(0);
    bench.outs(0, &[(0x3f8, b'n'), (0x3f8, b'o')]);
    assert!(!bench.bus.take_replan());
    bench.out(0, 0x3f8, b'k');
    assert!(bench.bus.take_replan());
    assert!(bench.chips().take_signals().text_seen);
    assert_eq!(bench.chips().take_serial_output(), b"nok");
}

#[test]
fn an_nmi_is_possible_only_where_one_is_programmed() {
    let mut bench = Bench::new();
    bench.chips().prepare_for_kernel();
    assert!(!bench.chips().nmi_is_possible(VmTime::ZERO));
    let (select, window) = (GuestPhys(0xfec0_0000), GuestPhys(0xfec0_0010));
    bench.bus.mmio_write(0, select, Width::W32, 0x12);
    bench.bus.mmio_write(0, window, Width::W32, 0x400);
    assert!(bench.chips().nmi_is_possible(VmTime::ZERO));
    assert_eq!(bench.bus.mmio_read(0, select, Width::W32), 0x12, "the selection is kept");
}

#[test]
fn reset_clears_what_was_programmed() {
    let mut bench = Bench::new();
    bench.chips().prepare_for_kernel();
    bench.program_pics(0xfe);
    bench.program_pit(0, 11_932);
    bench.look(30_000_000);
    assert!(bench.chips().intr());
    bench.chips().reset();
    assert!(!bench.chips().intr());
    assert_eq!(bench.look(30_000_000), None, "no timer runs");
}

#[test]
fn an_x87_error_interrupts_through_the_slave_until_port_f0_is_written() {
    let mut bench = Bench::new();
    bench.chips().prepare_for_kernel();
    // All masked but the cascade, and IRQ 13.
    bench.program_pics(0xfb);
    bench.out(0, 0xa1, 0xdf);
    bench.bus.take_replan();
    bench.bus.set_ferr(10, true);
    assert!(bench.bus.take_replan(), "an interrupt has come");
    assert_eq!(bench.bus.acknowledge(20), Some(0x2d));
    assert!(!bench.bus.ignne());
    bench.out(30, 0xf0, 0);
    assert!(bench.bus.ignne(), "the handler may use the coprocessor");
    bench.bus.set_ferr(40, false);
    assert!(!bench.bus.ignne());
    // End of interrupt; the line has gone down.
    bench.outs(50, &[(0xa0, 0x20), (0x20, 0x20)]);
    assert!(!bench.chips().intr());
}

#[test]
fn the_tsc_deadline_is_met_when_it_is_due() {
    const SPURIOUS: GuestPhys = GuestPhys(0xfee0_00f0);
    const LVT_TIMER: GuestPhys = GuestPhys(0xfee0_0320);
    const TSC_DEADLINE: u32 = 0x6e0;
    let mut bench = Bench::new();
    bench.bus.mmio_write(0, SPURIOUS, Width::W32, 0x1ff);
    bench.bus.mmio_write(0, LVT_TIMER, Width::W32, 2 << 17 | 0x55);
    bench.bus.set_tsc_deadline(10, 1 << 40, 500);
    assert_eq!(bench.bus.msr_read(20, TSC_DEADLINE), Some(1 << 40));
    assert_eq!(bench.look(499), Some(VmTime(500)));
    assert!(!bench.chips().intr());
    bench.look(500);
    assert_eq!(bench.bus.acknowledge(500), Some(0x55));
    assert_eq!(bench.bus.msr_read(510, TSC_DEADLINE), Some(0), "disarmed");
}
