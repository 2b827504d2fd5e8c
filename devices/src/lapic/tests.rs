use super::*;

const NOW: VmTime = VmTime(5_000);
const SVR: u32 = 0xf0;
const LVT_TIMER: u32 = 0x320;
const LVT_ERROR: u32 = 0x370;

fn config() -> LapicConfig {
    LapicConfig { id: 0x12, bootstrap: true, timer_hz: 1_000_000_000, physical_bits: 40 }
}

/// An APIC that software has enabled.
fn lapic() -> Lapic {
    let mut lapic = Lapic::new(config());
    lapic.write(NOW, SVR, 0x1ff);
    lapic
}

fn x2apic() -> Lapic {
    let mut lapic = lapic();
    lapic.set_base(NOW, lapic.base() | BASE_X2APIC).expect("xAPIC to x2APIC is allowed");
    lapic
}

fn fixed(vector: u8, level: bool) -> InterruptMessage {
    InterruptMessage::with_short_destination(vector, DeliveryMode::Fixed, 0x12, false, level)
}

#[test]
fn power_on_state() {
    let mut lapic = Lapic::new(config());
    assert_eq!(lapic.base(), 0xfee0_0900);
    for (offset, value) in [
        (0x20, 0x1200_0000),
        (0x30, 0x0005_0014),
        (0x80, 0),
        (0xd0, 0),
        (0xe0, 0xffff_ffff),
        (SVR, 0xff),
        (LVT_TIMER, 0x1_0000),
        (0x350, 0x1_0000),
        (0x380, 0),
        (0x390, 0),
    ] {
        assert_eq!(lapic.read(NOW, offset), value, "register {offset:#x}");
    }
    lapic.write(NOW, LVT_TIMER, 0x30);
    assert_eq!(lapic.read(NOW, LVT_TIMER), 0x1_0030, "masked while disabled by software");
    lapic.deliver(&fixed(0x40, false));
    assert_eq!(lapic.pending(), None, "fixed interrupts are refused while disabled");
}

#[test]
fn interrupts_nest_by_class() {
    let mut lapic = lapic();
    lapic.deliver(&fixed(0x45, false));
    lapic.deliver(&fixed(0x51, false));
    assert_eq!(lapic.acknowledge(), 0x51);
    assert_eq!(lapic.pending(), None);
    assert_eq!(lapic.processor_priority(), 0x50);
    lapic.deliver(&fixed(0x5f, false));
    assert_eq!(lapic.pending(), None, "the same class");
    lapic.deliver(&fixed(0x60, false));
    assert_eq!(lapic.acknowledge(), 0x60);
    assert_eq!(lapic.read(NOW, 0x130), 1, "in service: 60h");
    assert_eq!(lapic.read(NOW, 0x120), 1 << 17, "in service: 51h");
    lapic.write(NOW, 0xb0, 0);
    lapic.write(NOW, 0xb0, 0);
    assert_eq!(lapic.acknowledge(), 0x5f);
}

#[test]
fn the_task_priority_holds_interrupts_back() {
    let mut lapic = lapic();
    lapic.set_cr8(5);
    assert_eq!(lapic.read(NOW, 0x80), 0x50);
    lapic.deliver(&fixed(0x5f, false));
    assert_eq!(lapic.pending(), None);
    assert_eq!(lapic.acknowledge(), 0xff, "the spurious vector");
    assert_eq!(lapic.read(NOW, 0x120), 0, "which is not in service");
    lapic.write(NOW, 0x80, 0x4f);
    assert_eq!(lapic.cr8(), 4);
    assert_eq!(lapic.pending(), Some(0x5f));
}

#[test]
fn only_level_interrupts_broadcast_their_end() {
    let mut lapic = lapic();
    for (level, eoi) in [(true, Some(0x33)), (false, None)] {
        lapic.deliver(&fixed(0x33, level));
        assert_eq!(lapic.acknowledge(), 0x33);
        lapic.write(NOW, 0xb0, 0);
        assert_eq!(lapic.take_eoi(), eoi);
    }
    lapic.write(NOW, 0xb0, 0);
    assert_eq!(lapic.take_eoi(), None, "nothing is in service");
}

#[test]
fn the_one_shot_timer_counts_divided_ticks() {
    let mut lapic = lapic();
    lapic.write(NOW, 0x3e0, 0x3);
    lapic.write(NOW, LVT_TIMER, 0x30);
    lapic.write(NOW, 0x380, 100);
    let at = NOW.add(1600);
    assert_eq!(lapic.next_event(NOW), Some(at), "divided by 16");
    assert_eq!(lapic.read(NOW.add(161), 0x390), 90);
    lapic.advance(at.sub(1));
    assert_eq!(lapic.pending(), None);
    lapic.advance(at);
    assert_eq!(lapic.acknowledge(), 0x30);
    assert_eq!(lapic.read(at, 0x390), 0);
    assert_eq!(lapic.next_event(at), None);
}

#[test]
fn every_divide_value() {
    for (value, divisor) in [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)]
    {
        let mut lapic = lapic();
        lapic.write(NOW, LVT_TIMER, 0x30);
        lapic.write(NOW, 0x3e0, value);
        lapic.write(NOW, 0x380, 10);
        assert_eq!(lapic.next_event(NOW), Some(NOW.add(10 * divisor)), "divide value {value}");
    }
}

#[test]
fn the_periodic_timer_does_not_drift_and_coalesces() {
    let mut lapic = lapic();
    lapic.write(NOW, 0x3e0, 0xb);
    lapic.write(NOW, LVT_TIMER, 0x2_0030);
    lapic.write(NOW, 0x380, 1000);
    lapic.advance(NOW.add(3_500));
    assert_eq!(lapic.acknowledge(), 0x30);
    lapic.write(NOW.add(3_500), 0xb0, 0);
    assert_eq!(lapic.pending(), None, "three expiries, one interrupt");
    assert_eq!(lapic.read(NOW.add(3_500), 0x390), 500);
    assert_eq!(lapic.next_event(NOW.add(3_500)), Some(NOW.add(4_000)));
}

#[test]
fn expiries_behind_the_mask_are_lost() {
    let mut lapic = lapic();
    lapic.write(NOW, 0x3e0, 0xb);
    lapic.write(NOW, LVT_TIMER, 0x3_0030);
    lapic.write(NOW, 0x380, 1000);
    assert_eq!(lapic.next_event(NOW), None);
    lapic.write(NOW.add(1_500), LVT_TIMER, 0x2_0030);
    assert_eq!(lapic.pending(), None);
    assert_eq!(lapic.next_event(NOW.add(1_500)), Some(NOW.add(2_000)));
}

#[test]
fn the_tsc_deadline() {
    let mut lapic = lapic();
    lapic.set_tsc_deadline(NOW, 77, Some(NOW.add(10)));
    assert_eq!(lapic.tsc_deadline(), 0, "ignored in one-shot mode");
    lapic.write(NOW, LVT_TIMER, 0x4_0030);
    lapic.set_tsc_deadline(NOW, 77, Some(NOW.add(10)));
    assert_eq!(lapic.tsc_deadline(), 77);
    lapic.write(NOW, 0x380, 1000);
    assert_eq!(lapic.read(NOW, 0x380), 0, "the initial count is ignored");
    assert_eq!(lapic.next_event(NOW), Some(NOW.add(10)));
    lapic.advance(NOW.add(10));
    assert_eq!(lapic.acknowledge(), 0x30);
    assert_eq!(lapic.tsc_deadline(), 0);
    lapic.write(NOW, 0xb0, 0);
    lapic.set_tsc_deadline(NOW, 5, Some(VmTime::ZERO));
    assert_eq!(lapic.pending(), Some(0x30), "a deadline in the past fires at once");
    lapic.set_tsc_deadline(NOW, 99, Some(NOW.add(99)));
    lapic.write(NOW, LVT_TIMER, 0x30);
    assert_eq!(lapic.tsc_deadline(), 0, "leaving the mode disarms");
}

#[test]
fn interprocessor_interrupts() {
    let mut lapic = lapic();
    lapic.write(NOW, 0x310, 0x0300_0000);
    lapic.write(NOW, 0x300, 0x4500);
    let init = lapic.take_ipi().expect("INIT to 3");
    assert_eq!(init.shorthand, Shorthand::Destination);
    assert_eq!((init.message.delivery, init.message.destination), (DeliveryMode::Init, 3));
    lapic.write(NOW, 0x300, 0x8500);
    assert_eq!(lapic.take_ipi(), None, "INIT level de-assert is nothing");
    lapic.write(NOW, 0x300, 0x4699);
    let sipi = lapic.take_ipi().expect("SIPI to 3").message;
    assert_eq!((sipi.delivery, sipi.vector), (DeliveryMode::StartUp, 0x99));
    lapic.write(NOW, 0x300, 0xc_4400);
    assert_eq!(lapic.take_ipi().map(|ipi| ipi.shorthand), Some(Shorthand::Others));
    lapic.write(NOW, 0x300, 0x8_4041);
    assert_eq!(lapic.take_ipi().map(|ipi| ipi.shorthand), Some(Shorthand::All));
    lapic.write(NOW, 0x300, 0x4_4041);
    assert_eq!(lapic.take_ipi(), None);
    assert_eq!(lapic.pending(), Some(0x41), "to itself");
    lapic.deliver(&sipi);
    lapic.deliver(&init.message);
    assert_eq!(lapic.take_signal(), Some(CpuSignal::StartUp(0x99)));
    assert_eq!(lapic.take_signal(), Some(CpuSignal::Init));
}

#[test]
fn destinations() {
    let to = |destination, logical| {
        let delivery = DeliveryMode::Fixed;
        InterruptMessage::with_short_destination(0x40, delivery, destination, logical, false)
    };
    let mut lapic = lapic();
    lapic.write(NOW, 0xd0, 0x2400_0000);
    assert!(lapic.matches(&to(0x12, false)) && lapic.matches(&to(0xff, false)));
    assert!(!lapic.matches(&to(0x13, false)));
    assert!(lapic.matches(&to(0x04, true)), "the flat model");
    assert!(!lapic.matches(&to(0x18, true)));
    lapic.write(NOW, 0xe0, 0x0fff_ffff);
    assert!(lapic.matches(&to(0x2c, true)), "the cluster model");
    assert!(!lapic.matches(&to(0x14, true)));
    let lapic = x2apic();
    let cluster = |destination| InterruptMessage { destination, ..to(0, true) };
    assert!(lapic.matches(&cluster(0x1_0006)));
    assert!(!lapic.matches(&cluster(0x0_0006)) && !lapic.matches(&cluster(0x1_0002)));
    assert!(lapic.matches(&cluster(BROADCAST)));
}

#[test]
fn lint_pins() {
    let mut lapic = lapic();
    assert!(!lapic.accept_lint0(), "masked");
    lapic.enter_virtual_wire_mode();
    assert!(lapic.accept_lint0());
    lapic.set_lint(1, true);
    lapic.set_lint(1, true);
    assert_eq!(lapic.take_signal(), Some(CpuSignal::Nmi));
    assert_eq!(lapic.take_signal(), None);
    lapic.write(NOW, 0x350, 0x39);
    assert!(!lapic.accept_lint0());
    lapic.set_lint(0, true);
    assert_eq!(lapic.pending(), Some(0x39), "fixed, at the rising edge");
    lapic.write(NOW, SVR, 0xff);
    assert!(!lapic.accept_lint0());
    lapic.set_base(NOW, 0xfee0_0000).expect("switching off is allowed");
    assert!(lapic.accept_lint0(), "without APIC the pin is INTR");
}

#[test]
fn errors_are_latched_by_a_write() {
    let mut lapic = lapic();
    lapic.write(NOW, LVT_ERROR, 0x34);
    lapic.write(NOW, 0x300, 0x4005);
    assert_eq!(lapic.pending(), Some(0x34));
    assert_eq!(lapic.take_ipi(), None);
    lapic.read(NOW, 0x40);
    assert_eq!(lapic.read(NOW, 0x280), 0);
    lapic.write(NOW, 0x280, 0);
    assert_eq!(lapic.read(NOW, 0x280), 0xa0, "send illegal vector, illegal register");
    lapic.write(NOW, 0x280, 0);
    assert_eq!(lapic.read(NOW, 0x280), 0);
    lapic.write(NOW, LVT_ERROR, 0x04);
    lapic.deliver(&fixed(3, false));
    lapic.write(NOW, 0x280, 0);
    assert_eq!(lapic.read(NOW, 0x280), 0x40, "received illegal vector, and no endless report");
}

#[test]
fn mode_transitions() {
    let off = 0xfee0_0100;
    let (xapic, x2) = (off | BASE_ENABLE, off | BASE_ENABLE | BASE_X2APIC);
    let steps = [
        (off | BASE_X2APIC, false),
        (xapic | 1, false),
        (xapic | 1 << 40, false),
        (xapic, true),
        (x2, true),
        (xapic, false),
        (off, true),
        (x2, false),
        (xapic, true),
    ];
    let mut lapic = Lapic::new(config());
    for (value, allowed) in steps {
        let before = lapic.base();
        assert_eq!(lapic.set_base(NOW, value).is_ok(), allowed, "{before:#x} to {value:#x}");
        assert_eq!(lapic.base(), if allowed { value } else { before });
    }
    assert_eq!(lapic.mmio_base(), Some(0xfee0_0000));
    assert_eq!(lapic.read(NOW, SVR), 0xff, "switching off has lost the state");
}

#[test]
fn x2apic_registers() {
    assert_eq!(lapic().msr_read(NOW, 0x802), Err(MsrFault), "not in xAPIC mode");
    let mut lapic = x2apic();
    assert_eq!(lapic.mmio_base(), None);
    assert_eq!(lapic.msr_read(NOW, 0x802), Ok(0x12));
    assert_eq!(lapic.msr_read(NOW, 0x80d), Ok(0x1_0004));
    lapic.msr_write(NOW, 0x830, 0x1_0000_4041).expect("an IPI in one write");
    assert_eq!(lapic.take_ipi().map(|ipi| ipi.message.destination), Some(1));
    lapic.msr_write(NOW, 0x83f, 0x42).expect("self IPI");
    assert_eq!(lapic.acknowledge(), 0x42);
    lapic.msr_write(NOW, 0x80b, 0).expect("EOI");
    assert_eq!(lapic.msr_read(NOW, 0x812), Ok(0));
}

#[test]
fn x2apic_faults() {
    let mut lapic = x2apic();
    for msr in [0x800, 0x80b, 0x80e, 0x82f, 0x831, 0x83f, 0x8ff] {
        assert_eq!(lapic.msr_read(NOW, msr), Err(MsrFault), "read of {msr:#x}");
    }
    for (msr, value) in [
        (0x802, 0),
        (0x803, 0),
        (0x808, 0x100),
        (0x80a, 0),
        (0x80b, 1),
        (0x80d, 0),
        (0x80f, 1 << 12),
        (0x810, 0),
        (0x828, 1),
        (0x830, 1 << 20),
        (0x831, 0),
        (0x832, 1 << 8),
        (0x838, 1 << 32),
        (0x839, 0),
        (0x83e, 4),
        (0x83f, 0x100),
    ] {
        assert_eq!(lapic.msr_write(NOW, msr, value), Err(MsrFault), "{value:#x} to {msr:#x}");
    }
}

#[test]
fn init_keeps_the_mode_and_the_id() {
    let mut lapic = x2apic();
    lapic.deliver(&fixed(0x40, false));
    lapic.init();
    assert!(lapic.x2apic());
    assert_eq!((lapic.id(), lapic.pending()), (0x12, None));
    assert_eq!(lapic.msr_read(NOW, 0x80f), Ok(0xff));
}

/// The one that has gone on elsewhere for `since`, untouched, and come back.
fn handed_over(lapic: &mut Lapic, since: VmTime) -> Lapic {
    let (base, page) = (lapic.base(), lapic.page(since));
    let deadline = lapic.tsc_deadline();
    let mut other = Lapic::new(config());
    other.go_on(since, base, &page);
    other.set_tsc_deadline(since, deadline, Some(VmTime(deadline)));
    other
}

#[test]
fn the_page_has_the_whole_state() {
    for mut lapic in [lapic(), x2apic()] {
        lapic.ldr = 0x42;
        for vector in [0x31, 0x45, 0x46, 0xe0] {
            lapic.deliver(&fixed(vector, vector & 1 == 0));
        }
        lapic.acknowledge();
        lapic.set_cr8(3);
        lapic.lvt = [0x2_0040, 0x1_0000, 0x1_0000, 0x700, 0x400, 0xfe];
        lapic.icr = 0x1200_0000_0008_40f3;
        lapic.esr = 0x40;
        let mut other = handed_over(&mut lapic, NOW);
        other.ldr = lapic.ldr;
        assert_eq!(other.saved(), lapic.saved());
    }
}

#[test]
fn a_timer_goes_on_where_it_was() {
    for (mode, initial) in [(0, 1000), (0, 4_000_000), (0x2_0000, 1000), (0x2_0000, 300)] {
        let mut lapic = lapic();
        lapic.write(NOW, 0x3e0, 3);
        lapic.write(NOW, LVT_TIMER, mode | 0x40);
        lapic.write(NOW, 0x380, initial);
        for elapsed in [0, 1600, 4799, 16_000, 20_000] {
            let now = NOW.add(elapsed);
            let mut other = handed_over(&mut lapic, now);
            let [ours, theirs] = [&mut lapic, &mut other].map(|one| one.next_event(now));
            let near = |a: VmTime, b: VmTime| a.0.abs_diff(b.0) < 16;
            let same = ours.zip(theirs).map_or(ours == theirs, |(a, b)| near(a, b));
            assert!(same, "{mode:#x} {initial} after {elapsed}: {ours:?} {theirs:?}");
        }
    }
}

#[test]
fn a_timer_that_has_run_out_does_not_do_so_again() {
    let mut lapic = lapic();
    lapic.write(NOW, LVT_TIMER, 0x40);
    lapic.write(NOW, 0x380, 1000);
    let later = NOW.add(10_000);
    let page = lapic.page(later);
    assert_eq!((page[0x38], page[0x39]), (0, 0), "initial and current count");
    lapic.go_on(later, lapic.base(), &page);
    assert_eq!(lapic.next_event(later), None);
    assert_eq!(lapic.read(later, 0x380), 1000, "the guest still reads what it has written");
}

#[test]
fn a_page_tells_of_its_timer() {
    let mut lapic = lapic();
    assert_eq!(Count::of(&lapic.page(NOW)), None, "not started");
    lapic.write(NOW, 0x3e0, 0xb);
    lapic.write(NOW, LVT_TIMER, 0x2_0045);
    lapic.write(NOW, 0x380, 1000);
    let mut page = lapic.page(NOW.add(400));
    let count = Count::of(&page).expect("a periodic timer");
    assert_eq!(count, Count { vector: 0x45, periodic: true, current: 600 });
    count.request(&mut page);
    let mut other = Lapic::new(config());
    other.go_on(NOW, lapic.base(), &page);
    assert_eq!(other.pending(), Some(0x45));
    lapic.write(NOW, LVT_TIMER, 0x1_0045);
    let mut page = lapic.page(NOW);
    let before = page;
    Count::of(&page).expect("a timer without an interrupt").request(&mut page);
    assert_eq!(page, before, "masked");
    lapic.write(NOW, LVT_TIMER, 0x4_0045);
    assert_eq!(Count::of(&lapic.page(NOW)), None, "it waits for a deadline");
}

#[test]
fn a_deadline_goes_on_too() {
    let mut lapic = lapic();
    lapic.write(NOW, LVT_TIMER, 0x4_0040);
    lapic.set_tsc_deadline(NOW, 9_000, Some(VmTime(9_000)));
    let mut other = handed_over(&mut lapic, NOW);
    assert_eq!(other.next_event(NOW), Some(VmTime(9_000)));
    assert_eq!(other.saved(), lapic.saved());
    other.advance(VmTime(9_000));
    assert_eq!(other.pending(), Some(0x40));
}

#[test]
fn state_survives_a_snapshot() {
    let mut lapic = lapic();
    lapic.write(NOW, LVT_TIMER, 0x2_0030);
    lapic.write(NOW, 0x380, 1000);
    lapic.deliver(&fixed(0x55, true));
    let mut other = Lapic::new(config());
    other.restore(lapic.saved());
    assert_eq!(other.pending(), Some(0x55));
    assert_eq!(other.next_event(NOW), lapic.next_event(NOW));
}
