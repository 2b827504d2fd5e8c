//! The 8259A interrupt controller, and the cascaded pair of a PC.
//!
//! Intel 8259A datasheet (231468); the edge/level registers are those of the PIIX3 (2.5.2.11).
//! Only the 8086 mode is modelled: ICW4's µPM bit is ignored, as nothing in a PC could execute the
//! MCS-80's CALL sequence.

use serde::{Deserialize, Serialize};

use crate::time::VmTime;

/// The initialization command word that the next write to the odd port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Expect {
    Icw2,
    Icw3,
    Icw4,
    /// Initialization is over: the odd port is the mask.
    Ocw1,
}

/// One 8259A.
#[derive(Debug)]
pub struct Pic {
    inputs: u8,
    /// Rising edges that were not yet acknowledged, of inputs that are still high.
    edges: u8,
    isr: u8,
    imr: u8,
    elcr: u8,
    /// The pins that can be made level-triggered.
    elcr_writable: u8,
    expect: Expect,
    icw1: u8,
    vector_base: u8,
    /// On a master, the pins that slaves are connected to.
    icw3: u8,
    icw4: u8,
    /// The pin of lowest priority.
    lowest: u8,
    rotate_on_auto_eoi: bool,
    special_mask: bool,
    read_isr: bool,
    poll: bool,
    master: bool,
}

saved_state! {
    /// The state of a [`Pic`].
    PicSaved of Pic {
        inputs: u8, edges: u8, isr: u8, imr: u8, elcr: u8, expect: Expect, icw1: u8,
        vector_base: u8, icw3: u8, icw4: u8, lowest: u8, rotate_on_auto_eoi: bool,
        special_mask: bool, read_isr: bool, poll: bool,
    }
    wiring { elcr_writable, master }
}

const ICW1_NEEDS_ICW4: u8 = 0x01;
const ICW1_SINGLE: u8 = 0x02;
const ICW1_LEVEL: u8 = 0x08;
const ICW4_AUTO_EOI: u8 = 0x02;
const ICW4_SPECIAL_FULLY_NESTED: u8 = 0x10;

impl Pic {
    /// A chip at power-on; `master` is its SP/EN pin, `elcr_writable` the pins whose trigger mode
    /// software may choose.
    pub fn new(master: bool, elcr_writable: u8) -> Self {
        Self {
            inputs: 0,
            edges: 0,
            isr: 0,
            imr: 0,
            elcr: 0,
            elcr_writable,
            expect: Expect::Ocw1,
            icw1: 0,
            vector_base: 0,
            icw3: 0,
            icw4: 0,
            lowest: 7,
            rotate_on_auto_eoi: false,
            special_mask: false,
            read_isr: false,
            poll: false,
            master,
        }
    }

    /// The power-on state; the inputs stay as they are driven.
    pub fn reset(&mut self) {
        *self = Self { inputs: self.inputs, ..Self::new(self.master, self.elcr_writable) };
    }

    /// Drives an input pin. A request lasts only while its pin is high, in edge mode too
    /// (datasheet, "Edge and level triggered modes": the input must stay high until the first
    /// INTA; if it does not, the acknowledge finds nothing and gives IR7).
    pub fn set_input(&mut self, pin: u8, level: bool) {
        let bit = 1 << (pin & 7);
        if !level {
            self.inputs &= !bit;
            self.edges &= !bit;
        } else if self.inputs & bit == 0 {
            self.inputs |= bit;
            self.edges |= bit;
        }
    }

    /// The INT output.
    pub fn output(&self) -> bool {
        self.expect == Expect::Ocw1 && self.highest_request().is_some()
    }

    /// The INTA cycle: the vector, which is IR7's when no request is left (a spurious interrupt:
    /// its in-service bit is not set).
    pub fn acknowledge(&mut self) -> u8 {
        self.vector_base | self.accept().unwrap_or(7)
    }

    /// Reads the even (0) or the odd (1) port.
    pub fn read(&mut self, _now: VmTime, offset: u16) -> u8 {
        if std::mem::take(&mut self.poll) {
            return self.accept().map_or(0, |pin| 0x80 | pin);
        }
        match (offset & 1, self.read_isr) {
            (1, _) => self.imr,
            (_, true) => self.isr,
            (_, false) => self.irr(),
        }
    }

    /// Writes the even (0) or the odd (1) port.
    pub fn write(&mut self, _now: VmTime, offset: u16, value: u8) {
        if offset & 1 != 0 {
            self.write_odd(value);
        } else if value & 0x10 != 0 {
            self.initialize(value);
        } else if value & 0x08 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    /// The edge/level control register.
    pub fn elcr(&self) -> u8 {
        self.elcr
    }

    /// Writes the edge/level control register.
    pub fn set_elcr(&mut self, value: u8) {
        self.elcr = value & self.elcr_writable;
    }

    fn level_pins(&self) -> u8 {
        if self.icw1 & ICW1_LEVEL != 0 { 0xff } else { self.elcr }
    }

    fn irr(&self) -> u8 {
        let level = self.level_pins();
        self.inputs & level | self.edges & !level
    }

    /// The pins from the highest priority to the lowest.
    fn by_priority(&self) -> impl Iterator<Item = u8> {
        let lowest = self.lowest;
        (1..=8).map(move |i| (lowest + i) & 7)
    }

    /// The pin that may interrupt now: of higher priority than anything in service, where the
    /// special mask mode disregards what is masked, and the special fully nested mode lets a slave
    /// interrupt itself (datasheet, "Special mask mode", "Special fully nested mode").
    fn highest_request(&self) -> Option<u8> {
        let requests = self.irr() & !self.imr;
        let serving = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let nested =
            if self.master && self.icw4 & ICW4_SPECIAL_FULLY_NESTED != 0 { self.icw3 } else { 0 };
        let pin = self.by_priority().find(|&pin| (requests | serving) >> pin & 1 != 0)?;
        let bit = 1 << pin;
        (requests & bit != 0 && serving & !nested & bit == 0).then_some(pin)
    }

    fn accept(&mut self) -> Option<u8> {
        let pin = self.highest_request()?;
        self.edges &= !(1 << pin);
        if self.icw4 & ICW4_AUTO_EOI == 0 {
            self.isr |= 1 << pin;
        } else if self.rotate_on_auto_eoi {
            self.lowest = pin;
        }
        Some(pin)
    }

    /// ICW1 (datasheet, "Initialization command words"). The datasheet does not name the
    /// in-service register among what it clears, but no interrupt survives it on real chips.
    fn initialize(&mut self, icw1: u8) {
        self.icw1 = icw1;
        self.edges = 0;
        self.isr = 0;
        self.imr = 0;
        self.lowest = 7;
        self.rotate_on_auto_eoi = false;
        self.special_mask = false;
        self.read_isr = false;
        self.poll = false;
        if icw1 & ICW1_NEEDS_ICW4 == 0 {
            self.icw4 = 0;
        }
        self.expect = Expect::Icw2;
    }

    fn write_odd(&mut self, value: u8) {
        let after_icw3 = if self.icw1 & ICW1_NEEDS_ICW4 != 0 { Expect::Icw4 } else { Expect::Ocw1 };
        match self.expect {
            Expect::Icw2 => {
                self.vector_base = value & 0xf8;
                self.expect = if self.icw1 & ICW1_SINGLE != 0 { after_icw3 } else { Expect::Icw3 };
            }
            Expect::Icw3 => {
                self.icw3 = value;
                self.expect = after_icw3;
            }
            Expect::Icw4 => {
                self.icw4 = value;
                self.expect = Expect::Ocw1;
            }
            Expect::Ocw1 => self.imr = value,
        }
    }

    /// End of interrupt and rotation (datasheet, "Operation control word 2").
    fn write_ocw2(&mut self, value: u8) {
        let rotate = value & 0x80 != 0;
        let specific = (value & 0x40 != 0).then_some(value & 7);
        if value & 0x20 != 0 {
            let pin = specific.or_else(|| self.highest_in_service());
            if let Some(pin) = pin {
                self.isr &= !(1 << pin);
                if rotate {
                    self.lowest = pin;
                }
            }
        } else if let Some(pin) = specific {
            if rotate {
                self.lowest = pin;
            }
        } else {
            self.rotate_on_auto_eoi = rotate;
        }
    }

    /// What a non-specific EOI ends. In special mask mode a masked level stays in service
    /// (datasheet, "End of interrupt").
    fn highest_in_service(&self) -> Option<u8> {
        let serving = if self.special_mask { self.isr & !self.imr } else { self.isr };
        self.by_priority().find(|&pin| serving >> pin & 1 != 0)
    }

    fn write_ocw3(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        self.poll = value & 0x04 != 0;
        if value & 0x02 != 0 {
            self.read_isr = value & 0x01 != 0;
        }
    }
}

/// The master's pin that the slave's output is connected to.
const CASCADE: u8 = 2;

/// The two 8259As of a PC, the second behind pin 2 of the first.
#[derive(Debug)]
pub struct PicPair {
    master: Pic,
    slave: Pic,
}

/// The state of a [`PicPair`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PicPairSaved {
    master: PicSaved,
    slave: PicSaved,
}

impl Default for PicPair {
    fn default() -> Self {
        Self::new()
    }
}

impl PicPair {
    /// Ports by small offsets: the master's two (20h, 21h), ...
    pub const MASTER: u16 = 0;
    /// ... the slave's two (A0h, A1h), ...
    pub const SLAVE: u16 = 2;
    /// ... and the edge/level control registers of both (4D0h, 4D1h).
    pub const ELCR: u16 = 4;

    /// Both chips at power-on. The timer, the keyboard, the cascade, the clock and the coprocessor
    /// (0, 1, 2, 8, 13) are always edge-triggered.
    pub fn new() -> Self {
        Self { master: Pic::new(true, 0xf8), slave: Pic::new(false, 0xde) }
    }

    /// The power-on state; the inputs stay as they are driven.
    pub fn reset(&mut self) {
        self.master.reset();
        self.slave.reset();
        self.cascade();
    }

    /// Drives one of the 16 inputs; 2 is the cascade and is not connected.
    pub fn set_input(&mut self, irq: u8, level: bool) {
        match irq {
            CASCADE => {}
            0..8 => self.master.set_input(irq, level),
            8..16 => self.slave.set_input(irq - 8, level),
            _ => {}
        }
        self.cascade();
    }

    /// The INT output of the master.
    pub fn output(&self) -> bool {
        self.master.output()
    }

    /// The INTA cycle of both: the vector.
    pub fn acknowledge(&mut self) -> u8 {
        match self.master.accept() {
            Some(pin) if self.master.icw3 >> pin & 1 != 0 && pin == CASCADE => {
                let vector = self.slave.acknowledge();
                // INTA resets the slave's INT; it rises again if another request is waiting.
                self.master.set_input(CASCADE, false);
                self.cascade();
                vector
            }
            pin => self.master.vector_base | pin.unwrap_or(7),
        }
    }

    /// Reads a port.
    pub fn read(&mut self, now: VmTime, offset: u16) -> u8 {
        let value = match offset {
            0 | 1 => self.master.read(now, offset),
            2 | 3 => self.slave.read(now, offset),
            4 => self.master.elcr(),
            5 => self.slave.elcr(),
            _ => 0xff,
        };
        self.cascade();
        value
    }

    /// Writes a port.
    pub fn write(&mut self, now: VmTime, offset: u16, value: u8) {
        match offset {
            0 | 1 => self.master.write(now, offset, value),
            2 | 3 => self.slave.write(now, offset, value),
            4 => self.master.set_elcr(value),
            5 => self.slave.set_elcr(value),
            _ => {}
        }
        self.cascade();
    }

    /// The state of both, for a snapshot.
    pub fn saved(&self) -> PicPairSaved {
        let Self { master, slave } = self;
        PicPairSaved { master: master.saved(), slave: slave.saved() }
    }

    /// Puts both into a state that `saved` returned.
    pub fn restore(&mut self, saved: PicPairSaved) {
        let PicPairSaved { master, slave } = saved;
        self.master.restore(master);
        self.slave.restore(slave);
    }

    fn cascade(&mut self) {
        self.master.set_input(CASCADE, self.slave.output());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: VmTime = VmTime::ZERO;

    /// A PC's pair as an operating system sets it up: vectors 20h and 28h, nothing masked.
    fn pair() -> PicPair {
        pair_with_icw4(0x01)
    }

    fn pair_with_icw4(icw4: u8) -> PicPair {
        let mut pair = PicPair::new();
        for (base, vector, icw3) in [(0, 0x20, 0x04), (2, 0x28, 0x02)] {
            pair.write(NOW, base, 0x11);
            for value in [vector, icw3, icw4] {
                pair.write(NOW, base + 1, value);
            }
        }
        pair
    }

    fn edge(pair: &mut PicPair, irq: u8) {
        pair.set_input(irq, false);
        pair.set_input(irq, true);
    }

    fn isr(pair: &mut PicPair, base: u16) -> u8 {
        pair.write(NOW, base, 0x0b);
        pair.read(NOW, base)
    }

    #[test]
    fn an_edge_interrupts_once() {
        let mut pair = pair();
        edge(&mut pair, 3);
        assert!(pair.output());
        assert_eq!(pair.acknowledge(), 0x23);
        assert_eq!(isr(&mut pair, 0), 0x08);
        pair.write(NOW, 0, 0x20);
        assert_eq!(isr(&mut pair, 0), 0);
        assert!(!pair.output(), "the input is still high, but there was no new edge");
    }

    #[test]
    fn a_level_interrupts_until_it_is_gone() {
        let mut pair = pair();
        pair.write(NOW, PicPair::ELCR + 1, 0xff);
        assert_eq!(pair.read(NOW, PicPair::ELCR + 1), 0xde, "8 and 13 are edge-triggered");
        pair.set_input(10, true);
        assert_eq!(pair.acknowledge(), 0x2a);
        pair.write(NOW, 2, 0x20);
        pair.write(NOW, 0, 0x20);
        assert!(pair.output());
        pair.set_input(10, false);
        assert!(!pair.output());
    }

    #[test]
    fn priorities_nest() {
        let mut pair = pair();
        edge(&mut pair, 4);
        assert_eq!(pair.acknowledge(), 0x24);
        edge(&mut pair, 5);
        assert!(!pair.output(), "5 is below 4");
        edge(&mut pair, 1);
        assert_eq!(pair.acknowledge(), 0x21);
        pair.write(NOW, 0, 0x20);
        assert_eq!(isr(&mut pair, 0), 0x10, "the non-specific EOI ended the highest");
        pair.write(NOW, 0, 0x64);
        assert_eq!(isr(&mut pair, 0), 0);
        assert_eq!(pair.acknowledge(), 0x25);
    }

    #[test]
    fn the_mask_holds_a_request_back() {
        let mut pair = pair();
        pair.write(NOW, 1, 0x08);
        edge(&mut pair, 3);
        assert!(!pair.output());
        pair.write(NOW, 0, 0x0a);
        assert_eq!(pair.read(NOW, 0), 0x08, "the request register does not know the mask");
        pair.write(NOW, 1, 0);
        assert_eq!(pair.acknowledge(), 0x23);
    }

    #[test]
    fn a_request_that_goes_away_is_spurious() {
        let mut pair = pair();
        edge(&mut pair, 3);
        pair.set_input(3, false);
        assert!(!pair.output());
        assert_eq!(pair.acknowledge(), 0x27);
        assert_eq!(isr(&mut pair, 0), 0);
    }

    #[test]
    fn a_spurious_slave_interrupt_leaves_the_cascade_in_service() {
        let mut pair = pair();
        edge(&mut pair, 12);
        pair.slave.set_input(4, false);
        assert_eq!(pair.acknowledge(), 0x2f);
        assert_eq!((isr(&mut pair, 0), isr(&mut pair, 2)), (0x04, 0));
    }

    #[test]
    fn the_slave_raises_its_next_request_after_the_acknowledge() {
        let mut pair = pair_with_icw4(0x03);
        edge(&mut pair, 9);
        edge(&mut pair, 14);
        assert_eq!(pair.acknowledge(), 0x29);
        assert!(pair.output());
        assert_eq!(pair.acknowledge(), 0x2e);
        assert!(!pair.output());
    }

    #[test]
    fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
        for (icw4, nests) in [(0x01, false), (0x11, true)] {
            let mut pair = pair_with_icw4(icw4);
            edge(&mut pair, 14);
            assert_eq!(pair.acknowledge(), 0x2e);
            edge(&mut pair, 8);
            assert_eq!(pair.output(), nests, "ICW4 {icw4:#x}");
        }
    }

    #[test]
    fn automatic_end_of_interrupt_and_its_rotation() {
        let mut pair = pair_with_icw4(0x03);
        pair.write(NOW, 0, 0x80);
        edge(&mut pair, 0);
        edge(&mut pair, 1);
        assert_eq!(pair.acknowledge(), 0x20);
        assert_eq!(isr(&mut pair, 0), 0);
        edge(&mut pair, 0);
        assert_eq!(pair.acknowledge(), 0x21, "0 has become the lowest");
    }

    #[test]
    fn rotation_and_set_priority() {
        let mut pair = pair();
        edge(&mut pair, 3);
        pair.acknowledge();
        pair.write(NOW, 0, 0xa0);
        edge(&mut pair, 3);
        edge(&mut pair, 4);
        assert_eq!(pair.acknowledge(), 0x24, "rotate on non-specific EOI: 3 is the lowest");
        pair.write(NOW, 0, 0xe4);
        assert_eq!(isr(&mut pair, 0), 0, "rotate on specific EOI");
        edge(&mut pair, 5);
        pair.write(NOW, 0, 0xc2);
        assert_eq!(pair.acknowledge(), 0x23, "set priority: 3 is the highest");
    }

    #[test]
    fn special_mask_mode_lets_lower_levels_through() {
        let mut pair = pair();
        edge(&mut pair, 3);
        pair.acknowledge();
        pair.write(NOW, 1, 0x08);
        edge(&mut pair, 5);
        assert!(!pair.output());
        pair.write(NOW, 0, 0x68);
        assert_eq!(pair.acknowledge(), 0x25);
        pair.write(NOW, 0, 0x20);
        assert_eq!(isr(&mut pair, 0), 0x08, "a masked level is not ended by a non-specific EOI");
    }

    #[test]
    fn a_poll_acknowledges() {
        let mut pair = pair();
        edge(&mut pair, 6);
        pair.write(NOW, 0, 0x0c);
        assert_eq!(pair.read(NOW, 0), 0x86);
        assert_eq!(isr(&mut pair, 0), 0x40);
        pair.write(NOW, 0, 0x0c);
        assert_eq!(pair.read(NOW, 0), 0);
    }

    #[test]
    fn initialization_forgets_old_edges_and_the_mask() {
        let mut pair = pair();
        edge(&mut pair, 3);
        pair.write(NOW, 1, 0xff);
        pair.write(NOW, 0, 0x11);
        assert!(!pair.output());
        for value in [0x40, 0x04, 0x01] {
            pair.write(NOW, 1, value);
        }
        assert_eq!(pair.read(NOW, 1), 0);
        assert!(!pair.output(), "a new low-to-high transition is needed");
        edge(&mut pair, 3);
        assert_eq!(pair.acknowledge(), 0x43);
    }

    #[test]
    fn state_survives_a_snapshot() {
        let mut pair = pair();
        edge(&mut pair, 14);
        edge(&mut pair, 3);
        let mut other = PicPair::new();
        other.restore(pair.saved());
        assert_eq!(other.acknowledge(), 0x2e);
        assert_eq!(other.saved().master.isr, 0x04);
    }
}
