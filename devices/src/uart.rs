//! The 16550A serial port (National Semiconductor PC16550D datasheet, June 1995).
//!
//! Bytes leave at once, whatever the divisor says: the transmitter is always empty again. The
//! receiver's character timeout does follow the divisor, as a driver may depend on it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::line::IrqLine;
use crate::time::VmTime;

const FIFO_SIZE: usize = 16;
/// The crystal of a PC's port, divided by the 16 of the baud generator.
const BAUD_BASE: u64 = 115_200;

const IER_RECEIVED: u8 = 0x01;
const IER_THR_EMPTY: u8 = 0x02;
const IER_LINE_STATUS: u8 = 0x04;
const IER_MODEM_STATUS: u8 = 0x08;

const LCR_DLAB: u8 = 0x80;

const MCR_OUT2: u8 = 0x08;
const MCR_LOOP: u8 = 0x10;
const MCR_WRITABLE: u8 = 0x1f;

const LSR_DATA_READY: u8 = 0x01;
const LSR_OVERRUN: u8 = 0x02;
const LSR_BREAK: u8 = 0x10;
const LSR_THR_EMPTY: u8 = 0x20;
const LSR_TRANSMITTER_EMPTY: u8 = 0x40;
const LSR_FIFO_ERROR: u8 = 0x80;
/// Errors that travel with a character through the FIFO.
const LSR_CHARACTER_ERRORS: u8 = 0x1c;

const FCR_ENABLE: u8 = 0x01;
const FCR_CLEAR_RECEIVER: u8 = 0x02;

/// CTS, DSR and DCD of a terminal that is there.
const MODEM_CONNECTED: u8 = 0xb0;
const MSR_RING: u8 = 0x40;

/// A received character and the line-status errors that belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Received {
    byte: u8,
    errors: u8,
}

/// A serial port.
#[derive(Debug)]
pub struct Uart {
    /// The interrupt output, after the gate that a PC puts behind it (OUT2).
    pub irq: IrqLine,
    receiver: VecDeque<Received>,
    transmitted: Vec<u8>,
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    /// Overrun, and the errors of characters that have reached the top of the FIFO.
    errors: u8,
    msr: u8,
    scratch: u8,
    divisor: u16,
    /// The "transmitter holding register empty" interrupt is pending.
    thr_empty_pending: bool,
    timeout_pending: bool,
    /// When the received characters will have waited too long.
    timeout_at: Option<VmTime>,
}

saved_state! {
    /// The state of a [`Uart`].
    UartSaved of Uart {
        irq: IrqLine, receiver: VecDeque<Received>, transmitted: Vec<u8>, ier: u8, fcr: u8,
        lcr: u8, mcr: u8, errors: u8, msr: u8, scratch: u8, divisor: u16,
        thr_empty_pending: bool, timeout_pending: bool, timeout_at: Option<VmTime>,
    }
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// A port at power-on, with a terminal connected (datasheet, table I).
    pub fn new() -> Self {
        Self {
            irq: IrqLine::default(),
            receiver: VecDeque::new(),
            transmitted: Vec::new(),
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            errors: 0,
            msr: MODEM_CONNECTED,
            scratch: 0,
            divisor: 12,
            thr_empty_pending: false,
            timeout_pending: false,
            timeout_at: None,
        }
    }

    /// The power-on state. What was transmitted before is not taken back.
    pub fn reset(&mut self) {
        let transmitted = std::mem::take(&mut self.transmitted);
        *self = Self { irq: self.irq, transmitted, ..Self::new() };
        self.irq.set(false);
    }

    /// How many bytes can be received now without an overrun. None in loopback mode, where the
    /// receiver is not connected to the line.
    pub fn rx_space(&self) -> usize {
        if self.looped() { 0 } else { self.capacity().saturating_sub(self.receiver.len()) }
    }

    /// A byte arrives on the line.
    pub fn receive(&mut self, now: VmTime, byte: u8) {
        self.receive_from_line(now, Received { byte, errors: 0 });
    }

    /// A break arrives on the line.
    pub fn receive_break(&mut self, now: VmTime) {
        self.receive_from_line(now, Received { byte: 0, errors: LSR_BREAK });
    }

    /// Takes the bytes that were transmitted since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.transmitted)
    }

    /// Reads a register.
    pub fn read(&mut self, now: VmTime, offset: u16) -> u8 {
        self.advance(now);
        let value = match offset {
            0 if self.dlab() => self.divisor as u8,
            1 if self.dlab() => (self.divisor >> 8) as u8,
            0 => self.read_receiver(now),
            1 => self.ier,
            2 => self.read_interrupt_identification(),
            3 => self.lcr,
            4 => self.mcr,
            5 => self.read_line_status(),
            6 => {
                let status = self.msr;
                self.msr &= 0xf0;
                status
            }
            7 => self.scratch,
            _ => 0xff,
        };
        self.update();
        value
    }

    /// Writes a register.
    pub fn write(&mut self, now: VmTime, offset: u16, value: u8) {
        self.advance(now);
        match offset {
            0 if self.dlab() => self.divisor = self.divisor & 0xff00 | u16::from(value),
            1 if self.dlab() => self.divisor = self.divisor & 0x00ff | u16::from(value) << 8,
            0 => self.transmit(now, value),
            1 => {
                // Enabling the interrupt while the register is empty raises it.
                self.thr_empty_pending |= value & !self.ier & IER_THR_EMPTY != 0;
                self.ier = value & 0x0f;
            }
            2 => self.write_fifo_control(value),
            3 => self.lcr = value,
            4 => {
                self.mcr = value & MCR_WRITABLE;
                self.update_modem_status();
            }
            7 => self.scratch = value,
            _ => {}
        }
        self.update();
    }

    /// Brings the interrupt output up to date.
    pub fn advance(&mut self, now: VmTime) {
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.timeout_at = None;
            self.timeout_pending = true;
            self.update();
        }
    }

    /// When the character timeout will interrupt.
    pub fn next_event(&self, _now: VmTime) -> Option<VmTime> {
        self.timeout_at.filter(|_| self.ier & IER_RECEIVED != 0 && !self.irq.level())
    }

    fn dlab(&self) -> bool {
        self.lcr & LCR_DLAB != 0
    }

    fn looped(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    fn fifos(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    fn capacity(&self) -> usize {
        if self.fifos() { FIFO_SIZE } else { 1 }
    }

    fn trigger_level(&self) -> usize {
        if self.fifos() { [1, 4, 8, 14][usize::from(self.fcr >> 6)] } else { 1 }
    }

    fn receive_from_line(&mut self, now: VmTime, received: Received) {
        if !self.looped() {
            self.advance(now);
            self.accept(now, received);
            self.update();
        }
    }

    /// A character is complete (datasheet 8.4, overrun: the FIFO keeps what it has and loses the
    /// new character; without FIFO the new one replaces the old).
    fn accept(&mut self, now: VmTime, received: Received) {
        if self.receiver.len() >= self.capacity() {
            self.errors |= LSR_OVERRUN;
            if self.fifos() {
                return;
            }
            self.receiver.clear();
        }
        self.receiver.push_back(received);
        if self.receiver.len() == 1 {
            self.errors |= received.errors;
        }
        self.restart_timeout(now);
    }

    fn read_receiver(&mut self, now: VmTime) -> u8 {
        let byte = self.receiver.pop_front().map_or(0, |received| received.byte);
        self.errors |= self.receiver.front().map_or(0, |next| next.errors);
        self.timeout_pending = false;
        self.restart_timeout(now);
        byte
    }

    /// The FIFO's timeout is four character times after the last character or read (8.10, FIFO
    /// interrupt mode operation).
    fn restart_timeout(&mut self, now: VmTime) {
        let waiting = self.fifos() && !self.receiver.is_empty();
        self.timeout_at = waiting.then(|| now.add(4 * self.character_nanos()));
    }

    fn character_nanos(&self) -> u64 {
        let data_bits = 5 + u64::from(self.lcr & 3);
        let bits = 2 + data_bits + u64::from(self.lcr >> 2 & 1) + u64::from(self.lcr >> 3 & 1);
        bits * u64::from(self.divisor.max(1)) * 1_000_000_000 / BAUD_BASE
    }

    fn transmit(&mut self, now: VmTime, byte: u8) {
        // The register is full for no time at all, but full it was: the line shows the new edge.
        self.thr_empty_pending = false;
        self.update();
        if self.looped() {
            self.accept(now, Received { byte, errors: 0 });
        } else {
            self.transmitted.push(byte);
        }
        self.thr_empty_pending = true;
    }

    /// The FIFO control register (8.5). Its other bits count only together with the enable bit;
    /// a change of that clears both FIFOs.
    fn write_fifo_control(&mut self, value: u8) {
        let changed = (self.fcr ^ value) & FCR_ENABLE != 0;
        if changed || value & (FCR_ENABLE | FCR_CLEAR_RECEIVER) == FCR_ENABLE | FCR_CLEAR_RECEIVER {
            self.receiver.clear();
            self.timeout_at = None;
            self.timeout_pending = false;
        }
        self.fcr = if value & FCR_ENABLE != 0 { value & 0xc9 } else { 0 };
    }

    /// The interrupt of highest priority (8.6, table III).
    fn interrupt(&self) -> Option<u8> {
        let received = self.receiver.len();
        if self.ier & IER_LINE_STATUS != 0 && self.errors != 0 {
            Some(0x06)
        } else if self.ier & IER_RECEIVED != 0 && received >= self.trigger_level() {
            Some(0x04)
        } else if self.ier & IER_RECEIVED != 0 && self.timeout_pending {
            Some(0x0c)
        } else if self.ier & IER_THR_EMPTY != 0 && self.thr_empty_pending {
            Some(0x02)
        } else if self.ier & IER_MODEM_STATUS != 0 && self.msr & 0x0f != 0 {
            Some(0x00)
        } else {
            None
        }
    }

    fn read_interrupt_identification(&mut self) -> u8 {
        let interrupt = self.interrupt();
        if interrupt == Some(0x02) {
            self.thr_empty_pending = false;
        }
        interrupt.unwrap_or(0x01) | if self.fifos() { 0xc0 } else { 0 }
    }

    fn read_line_status(&mut self) -> u8 {
        let mut status = LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY | std::mem::take(&mut self.errors);
        if !self.receiver.is_empty() {
            status |= LSR_DATA_READY;
        }
        let error = |received: &Received| received.errors & LSR_CHARACTER_ERRORS != 0;
        if self.fifos() && self.receiver.iter().any(error) {
            status |= LSR_FIFO_ERROR;
        }
        status
    }

    /// The modem inputs, which in loopback mode are the modem outputs (8.7), and their deltas.
    fn update_modem_status(&mut self) {
        let inputs = if self.looped() {
            // RTS, DTR, OUT1, OUT2 drive CTS, DSR, RI, DCD.
            (self.mcr & 0x02) << 3 | (self.mcr & 0x01) << 5 | (self.mcr & 0x0c) << 4
        } else {
            MODEM_CONNECTED
        };
        let changed = (self.msr ^ inputs) & 0xf0;
        // Of the ring indicator, only the trailing edge counts.
        let deltas = changed & !(inputs & MSR_RING);
        self.msr = inputs | self.msr & 0x0f | deltas >> 4;
    }

    fn update(&mut self) {
        let gate = self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2;
        self.irq.set(gate && self.interrupt().is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: VmTime = VmTime(1_000_000);

    /// A port at 115200 8N1 with FIFOs (trigger level 8) and the interrupts `ier`.
    fn port(ier: u8) -> Uart {
        let mut uart = Uart::new();
        for (offset, value) in [(3, 0x83), (0, 1), (1, 0), (3, 3), (2, 0x87), (4, 0x0b), (1, ier)] {
            uart.write(NOW, offset, value);
        }
        uart
    }

    #[test]
    fn linux_detects_a_16550a() {
        let mut uart = Uart::new();
        uart.write(NOW, 1, 0);
        assert_eq!(uart.read(NOW, 1), 0);
        uart.write(NOW, 1, 0xff);
        assert_eq!(uart.read(NOW, 1), 0x0f, "no sleep mode, no DMA bits");
        uart.write(NOW, 4, 0x1a);
        assert_eq!(uart.read(NOW, 6) & 0xf0, 0x90, "loopback of OUT2 and RTS");
        uart.write(NOW, 4, 0);
        uart.write(NOW, 2, 1);
        assert_eq!(uart.read(NOW, 2) >> 6, 3, "a 16550 has 2, an 8250 or 16450 has 0");
        uart.write(NOW, 3, 0x80);
        uart.write(NOW, 2, 0x21);
        assert_eq!(uart.read(NOW, 2) & 0x20, 0, "no 64-byte FIFO");
        uart.write(NOW, 3, 0);
        uart.write(NOW, 7, 0xa5);
        assert_eq!(uart.read(NOW, 7), 0xa5);
    }

    #[test]
    fn the_transmitter_interrupts_when_enabled_and_after_each_byte() {
        let mut uart = port(0);
        uart.write(NOW, 1, IER_THR_EMPTY);
        assert!(uart.irq.level());
        assert_eq!(uart.read(NOW, 2), 0xc2);
        assert!(!uart.irq.level(), "reading the identification acknowledges");
        assert_eq!(uart.read(NOW, 2), 0xc1);
        uart.irq.take();
        uart.write(NOW, 0, b'x');
        uart.write(NOW, 0, b'y');
        assert!(uart.irq.take().is_some_and(|change| change.level && change.pulsed));
        assert_eq!(uart.take_output(), b"xy");
        assert_eq!(uart.read(NOW, 5), 0x60);
        uart.write(NOW, 1, 0);
        assert!(!uart.irq.level());
    }

    #[test]
    fn the_receiver_interrupts_at_its_trigger_level() {
        let mut uart = port(IER_RECEIVED);
        for byte in 0..7 {
            uart.receive(NOW, byte);
        }
        assert!(!uart.irq.level());
        uart.receive(NOW, 7);
        assert!(uart.irq.level());
        assert_eq!(uart.read(NOW, 2), 0xc4);
        assert_eq!(uart.read(NOW, 0), 0);
        assert!(!uart.irq.level());
        assert_eq!(uart.read(NOW, 5) & 1, 1);
    }

    #[test]
    fn fewer_characters_interrupt_after_four_character_times() {
        let mut uart = port(IER_RECEIVED);
        uart.receive(NOW, b'a');
        let at = uart.next_event(NOW).expect("a timeout");
        assert_eq!(at.since(NOW), 4 * 86_805, "10 bits at 115200 baud");
        uart.advance(at.sub(1));
        assert!(!uart.irq.level());
        uart.advance(at);
        assert!(uart.irq.level());
        assert_eq!(uart.read(at, 2), 0xcc);
        assert_eq!(uart.read(at, 0), b'a');
        assert!(!uart.irq.level());
        assert_eq!(uart.next_event(at), None);
    }

    #[test]
    fn an_overrun_keeps_the_fifo_and_is_read_once() {
        let mut uart = port(IER_LINE_STATUS);
        for byte in 0..17 {
            uart.receive(NOW, byte);
        }
        assert_eq!(uart.rx_space(), 0);
        assert_eq!(uart.read(NOW, 2), 0xc6);
        assert_eq!(uart.read(NOW, 5), 0x63);
        assert_eq!(uart.read(NOW, 5), 0x61);
        assert!((0..16).all(|byte| uart.read(NOW, 0) == byte));
    }

    #[test]
    fn without_fifo_the_last_character_wins() {
        let mut uart = Uart::new();
        uart.receive(NOW, 1);
        uart.receive(NOW, 2);
        assert_eq!(uart.read(NOW, 5) & 3, 3);
        assert_eq!(uart.read(NOW, 0), 2);
        assert_eq!(uart.read(NOW, 5) & 1, 0);
    }

    #[test]
    fn a_break_is_reported_when_it_reaches_the_top() {
        let mut uart = port(IER_LINE_STATUS);
        uart.receive(NOW, b'a');
        uart.receive_break(NOW);
        assert_eq!(uart.read(NOW, 5), 0xe1, "somewhere in the FIFO");
        assert!(!uart.irq.level());
        uart.read(NOW, 0);
        assert!(uart.irq.level());
        assert_eq!(uart.read(NOW, 5) & LSR_BREAK, LSR_BREAK);
    }

    #[test]
    fn interrupts_leave_through_out2_only() {
        let mut uart = port(IER_THR_EMPTY);
        uart.write(NOW, 4, 0x03);
        assert!(!uart.irq.level());
        uart.write(NOW, 4, 0x0b);
        assert!(uart.irq.level());
    }

    #[test]
    fn loopback_returns_what_is_sent() {
        let mut uart = port(0);
        uart.write(NOW, 4, 0x1b);
        uart.write(NOW, 0, b'z');
        assert_eq!(uart.rx_space(), 0);
        uart.receive(NOW, b'!');
        assert_eq!(uart.read(NOW, 0), b'z');
        assert_eq!(uart.read(NOW, 5) & 1, 0);
        assert!(uart.take_output().is_empty());
    }

    #[test]
    fn modem_deltas_interrupt_and_are_read_once() {
        let mut uart = port(IER_MODEM_STATUS);
        uart.read(NOW, 6);
        uart.write(NOW, 4, 0x18);
        assert_eq!(uart.read(NOW, 2), 0xc0);
        assert_eq!(uart.read(NOW, 6), 0x83, "CTS and DSR fell, DCD stayed");
        assert_eq!(uart.read(NOW, 6), 0x80);
    }

    #[test]
    fn the_divisor_is_behind_dlab() {
        let mut uart = port(0);
        uart.write(NOW, 3, 0x83);
        uart.write(NOW, 0, 0x34);
        uart.write(NOW, 1, 0x12);
        assert_eq!((uart.read(NOW, 0), uart.read(NOW, 1)), (0x34, 0x12));
        uart.write(NOW, 3, 0x03);
        assert_eq!(uart.read(NOW, 1), 0);
    }

    #[test]
    fn state_survives_a_snapshot() {
        let mut uart = port(IER_RECEIVED);
        uart.receive(NOW, b'q');
        let mut other = Uart::new();
        other.restore(uart.saved());
        assert_eq!(other.next_event(NOW), uart.next_event(NOW));
        assert_eq!(other.read(NOW, 0), b'q');
    }
}
