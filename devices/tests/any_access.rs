//! Whatever a guest reads, writes and waits for, no chip panics, none runs backwards, and none
//! says that something happens in the past or lets its queues grow.

use brolga_devices::lapic::{Lapic, LapicConfig};
use brolga_devices::pci::{Bar, BarKind, PciBus, PciFunction};
use brolga_devices::{
    VmTime, dma8237::DmaPair, hpet::Hpet, i8042::I8042, ioapic::IoApic, pic::PicPair, pit::Pit,
    pm::AcpiPm, rtc::Rtc, uart::Uart,
};

/// A xorshift generator: the same accesses in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A value of interest as often as any other.
    fn value(&mut self) -> u64 {
        let shift = self.below(64);
        match self.below(4) {
            0 => self.next(),
            1 => self.next() >> shift,
            2 => u64::MAX << shift,
            _ => 1 << shift,
        }
    }

    fn size(&mut self) -> u8 {
        [1, 2, 4, 8][self.below(4) as usize]
    }
}

/// Runs random accesses at times that jump by anything from a nanosecond to hours, and follows
/// the chip's own events now and then.
fn torture<C>(
    new: impl Fn() -> C,
    access: impl Fn(&mut C, VmTime, &mut Random),
    advance: impl Fn(&mut C, VmTime),
    next_event: impl Fn(&C, VmTime) -> Option<VmTime>,
) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20 {
        let mut chip = new();
        let mut now = VmTime::ZERO;
        for _ in 0..5_000 {
            access(&mut chip, now, &mut random);
            advance(&mut chip, now);
            if let Some(event) = next_event(&chip, now) {
                assert!(event > now, "an event at {event:?}, not after {now:?}");
                if random.below(2) == 0 {
                    now = event;
                    advance(&mut chip, now);
                    continue;
                }
            }
            let scale = random.below(44);
            now = now.add(random.below(1 << scale) + 1);
        }
        advance(&mut chip, VmTime::MAX);
        next_event(&chip, VmTime::MAX);
        access(&mut chip, VmTime::MAX, &mut random);
    }
}

/// The same for a chip that does nothing by itself.
fn torture_passive<C>(new: impl Fn() -> C, access: impl Fn(&mut C, VmTime, &mut Random)) {
    torture(new, access, |_, _| {}, |_, _| None);
}

#[test]
fn pit() {
    torture(
        Pit::new,
        |pit, now, random| match random.below(8) {
            0 => pit.set_gate2(now, random.below(2) == 0),
            1 | 2 => {
                pit.read(now, random.below(5) as u16);
            }
            _ => pit.write(now, random.below(5) as u16, random.value() as u8),
        },
        Pit::advance,
        Pit::next_event,
    );
}

#[test]
fn uart() {
    torture(
        Uart::new,
        |uart, now, random| {
            match random.below(4) {
                0 => uart.receive(now, random.value() as u8),
                1 => {
                    uart.read(now, random.below(9) as u16);
                }
                _ => uart.write(now, random.below(9) as u16, random.value() as u8),
            }
            assert!(uart.rx_space() <= 16);
            assert!(uart.take_output().len() <= 1);
        },
        Uart::advance,
        Uart::next_event,
    );
}

#[test]
fn lapic() {
    let config = LapicConfig { id: 0, bootstrap: true, timer_hz: 1_000_000_000, physical_bits: 40 };
    torture(
        || Lapic::new(config),
        |lapic, now, random| {
            let (index, value) = (random.below(0x41) as u32, random.value());
            match random.below(16) {
                0 => {
                    let _ = lapic.set_base(now, value);
                }
                1 => {
                    let _ = lapic.set_base(now, 0xfee0_0900 | random.below(2) << 10);
                }
                2 => lapic.set_tsc_deadline(now, value, Some(now.add(random.below(1000)))),
                3 => lapic.set_lint(random.below(3) as usize, random.below(2) == 0),
                4 => {
                    lapic.acknowledge();
                }
                5 => lapic.init(),
                6 => {
                    let _ = lapic.msr_read(now, 0x800 + index);
                }
                7 => {
                    lapic.read(now, index << 4);
                }
                8..12 => {
                    let _ = lapic.msr_write(now, 0x800 + index, value);
                }
                _ => lapic.write(now, index << 4, value as u32),
            }
            lapic.take_eoi();
            while let Some(ipi) = lapic.take_ipi() {
                if lapic.matches(&ipi.message) {
                    lapic.deliver(&ipi.message);
                }
            }
            while lapic.take_signal().is_some() {}
            assert!(lapic.pending().is_none_or(|vector| vector >= 16));
        },
        Lapic::advance,
        Lapic::next_event,
    );
}

#[test]
fn hpet() {
    torture(
        Hpet::new,
        |hpet, now, random| {
            let (offset, size) = (random.below(0x180), random.size());
            match random.below(4) {
                0 => {
                    hpet.read(now, offset, size);
                }
                1 => hpet.write(now, 0x10, 4, random.below(4)),
                _ => hpet.write(now, offset & !7, size, random.value()),
            }
            assert!(hpet.routing(3).is_none());
        },
        Hpet::advance,
        Hpet::next_event,
    );
}

#[test]
fn rtc() {
    torture(
        || Rtc::new(1_795_305_598),
        |rtc, now, random| {
            let index = if random.below(2) == 0 { random.below(16) } else { random.below(256) };
            rtc.write(now, 0, index as u8);
            if random.below(3) == 0 {
                rtc.read(now, 1);
            } else {
                rtc.write(now, 1, random.value() as u8);
            }
        },
        Rtc::advance,
        Rtc::next_event,
    );
}

#[test]
fn pm() {
    for wide in [false, true] {
        torture(
            || AcpiPm::new(wide, 5),
            |pm, now, random| {
                let (offset, size) = (random.below(0x18) as u16, random.size());
                if random.below(3) == 0 {
                    pm.read(now, offset, size);
                } else {
                    pm.write(now, offset, size, random.value() as u32);
                }
                pm.take_request();
            },
            AcpiPm::advance,
            AcpiPm::next_event,
        );
    }
}

#[test]
fn interrupt_controllers() {
    torture_passive(PicPair::new, |pic, now, random| match random.below(4) {
        0 => pic.set_input(random.below(17) as u8, random.below(2) == 0),
        1 => {
            pic.acknowledge();
        }
        2 => {
            pic.read(now, random.below(7) as u16);
        }
        _ => pic.write(now, random.below(7) as u16, random.value() as u8),
    });
    torture_passive(IoApic::new, |ioapic, now, random| {
        match random.below(4) {
            0 => ioapic.set_input(random.below(25) as usize, random.below(2) == 0),
            1 => ioapic.end_of_interrupt(random.value() as u8),
            2 => {
                ioapic.read(now, 0x10);
            }
            _ => {
                ioapic.write(now, 0, random.below(0x44) as u32);
                ioapic.write(now, 0x10, random.value() as u32);
            }
        }
        let sent = std::iter::from_fn(|| ioapic.take_message()).count();
        assert!(sent <= 24, "each pin sends at most once");
    });
}

#[test]
fn keyboard_controller() {
    torture_passive(I8042::new, |kbc, now, random| match random.below(6) {
        0 => kbc.key_event(now, &[0xe0, 0xf0, random.value() as u8]),
        1 => kbc.mouse_event(now, random.value() as i32, random.value() as i32, 7),
        2 => {
            kbc.read(now, random.below(6) as u16);
        }
        _ => kbc.write(now, random.below(6) as u16, random.value() as u8),
    });
}

#[test]
fn buses() {
    torture_passive(DmaPair::new, |dma, now, random| {
        dma.write(now, random.below(0x34) as u16, random.value() as u8);
        dma.read(now, random.below(0x34) as u16);
    });
    let bus = || {
        let mut bus = PciBus::new();
        let bars = [Bar { index: 5, kind: BarKind::Memory64Prefetchable, size: 16 }];
        bus.insert(0, 0, PciFunction::new(1, 2, 3, 4).with_bars(&bars));
        bus
    };
    torture_passive(bus, |bus, now, random| {
        bus.write(now, 0, 4, 0x8000_0000 | random.below(0x200) as u32);
        bus.write(now, random.below(10) as u16, random.size(), random.value() as u32);
        bus.read(now, random.below(10) as u16, random.size());
        bus.function(0, 0).map(|function| function.bar_address(5));
    });
}
