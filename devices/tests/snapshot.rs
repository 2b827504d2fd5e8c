//! Every chip's state goes through a serialized form and comes back the same.

use std::fmt::Debug;

use brolga_devices::lapic::{Lapic, LapicConfig};
use brolga_devices::misc::{DebugConsole, ExitPort, Port92, PostPort, ResetControl};
use brolga_devices::pci::{PciBus, PciFunction};
use brolga_devices::{
    VmTime, dma8237::DmaPair, ferr::CoprocessorError, hpet::Hpet, i8042::I8042, ioapic::IoApic,
    pic::PicPair, pit::Pit, pm::AcpiPm, port61::Port61, rtc::Rtc, uart::Uart,
};
use serde::{Serialize, de::DeserializeOwned};

const NOW: VmTime = VmTime(123_456_789);

/// Serializes `saved`, checks that it is not what a new chip has, and returns what comes back.
fn round_trip<S: Serialize + DeserializeOwned + PartialEq + Debug>(saved: S, new: S) -> S {
    assert_ne!(saved, new, "the test has not changed the chip");
    let text = serde_json::to_string(&saved).expect("the state can be serialized");
    serde_json::from_str(&text).expect("the text is what was just written")
}

macro_rules! survives {
    ($new:expr, $change:expr) => {{
        let mut chip = $new;
        #[allow(clippy::redundant_closure_call)]
        ($change)(&mut chip);
        let mut other = $new;
        other.restore(round_trip(chip.saved(), other.saved()));
        assert_eq!(other.saved(), chip.saved());
    }};
}

#[test]
fn interrupt_controllers() {
    survives!(PicPair::new(), |chip: &mut PicPair| chip.set_input(12, true));
    survives!(IoApic::new(), |chip: &mut IoApic| chip.write(NOW, 0, 0x12));
    let config = LapicConfig { id: 3, bootstrap: false, timer_hz: 1_000_000, physical_bits: 36 };
    survives!(Lapic::new(config), |chip: &mut Lapic| {
        chip.enter_virtual_wire_mode();
        chip.write(NOW, 0x380, 77);
        chip.write(NOW, 0x300, 0xc_4500);
    });
}

#[test]
fn timers() {
    survives!(Pit::new(), |chip: &mut Pit| chip.write(NOW, 3, 0x34));
    survives!(Port61::default(), |chip: &mut Port61| chip.write(NOW, 3));
    survives!(Hpet::new(), |chip: &mut Hpet| chip.write(NOW, 0x108, 8, 55));
    survives!(Rtc::new(0), |chip: &mut Rtc| chip.set_ram(0x40, 9));
    survives!(AcpiPm::new(true, 5), AcpiPm::press_power_button);
}

#[test]
fn peripherals() {
    survives!(Uart::new(), |chip: &mut Uart| chip.receive_break(NOW));
    survives!(I8042::new(), |chip: &mut I8042| chip.key_event(NOW, &[0xe0, 0x75]));
    survives!(DmaPair::new(), |chip: &mut DmaPair| chip.write(NOW, 0x17, 9));
    let bus = || {
        let mut bus = PciBus::new();
        bus.insert(1, 0, PciFunction::piix3_isa_bridge());
        bus
    };
    survives!(bus(), |chip: &mut PciBus| {
        chip.write(NOW, 0, 4, 0x8000_0860);
        chip.write(NOW, 4, 1, 0x0b);
    });
}

#[test]
fn ports() {
    survives!(PostPort::default(), |chip: &mut PostPort| chip.write(NOW, 0x55));
    survives!(DebugConsole::default(), |chip: &mut DebugConsole| chip.write(NOW, b'x'));
    survives!(Port92::default(), |chip: &mut Port92| chip.write(NOW, 2));
    survives!(ResetControl::default(), |chip: &mut ResetControl| chip.write(NOW, 6));
    survives!(CoprocessorError::default(), |chip: &mut CoprocessorError| chip.set_ferr(true));
    survives!(ExitPort::default(), |chip: &mut ExitPort| chip.write(NOW, 1));
}

#[test]
fn a_block_of_another_length_is_refused() {
    let saved = PciFunction::piix3_isa_bridge().saved();
    let text = serde_json::to_string(&saved).expect("the state can be serialized");
    let cut = text.replacen("134,", "", 1);
    assert_ne!(text, cut);
    let restored = serde_json::from_str::<brolga_devices::pci::PciFunctionSaved>(&cut);
    assert!(restored.is_err_and(|error| error.to_string().contains("255 bytes")));
}
