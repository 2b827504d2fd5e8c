//! The 8042 keyboard controller with a keyboard and a mouse (IBM PS/2 Hardware Interface
//! Technical Reference, "Keyboard and auxiliary device controller").
//!
//! Bytes take no time on the wire: as soon as the output buffer is read, the next byte is there.

use serde::{Deserialize, Serialize};

use crate::line::IrqLine;
use crate::ps2::{Keyboard, Mouse};
use crate::request::Request;
use crate::time::VmTime;

const STATUS_OUTPUT_FULL: u8 = 0x01;
const STATUS_SYSTEM: u8 = 0x04;
const STATUS_COMMAND: u8 = 0x08;
/// The keyboard lock is open.
const STATUS_UNLOCKED: u8 = 0x10;
const STATUS_AUX: u8 = 0x20;

const MODE_INTERRUPT: u8 = 0x01;
const MODE_AUX_INTERRUPT: u8 = 0x02;
const MODE_DISABLE_KEYBOARD: u8 = 0x10;
const MODE_DISABLE_AUX: u8 = 0x20;
const MODE_TRANSLATE: u8 = 0x40;

const OUTPUT_NOT_RESET: u8 = 0x01;
const OUTPUT_A20: u8 = 0x02;

/// What waits in the output buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Output {
    byte: u8,
    aux: bool,
}

/// The controller, and the two devices on its ports.
#[derive(Debug)]
pub struct I8042 {
    /// The keyboard's interrupt.
    pub irq_keyboard: IrqLine,
    /// The auxiliary device's interrupt.
    pub irq_aux: IrqLine,
    keyboard: Keyboard,
    mouse: Mouse,
    /// The controller's 32 bytes of RAM; the first is the command byte.
    ram: [u8; 32],
    output_port: u8,
    output: Option<Output>,
    /// What the controller itself has to say, before any device.
    answer: Option<Output>,
    /// The command whose argument the next write of the data port is.
    command: Option<u8>,
    /// The last write was a command.
    last_was_command: bool,
    /// The translator has seen a break prefix.
    release: bool,
    request: Option<Request>,
}

saved_state! {
    /// The state of an [`I8042`].
    I8042Saved of I8042 {
        irq_keyboard: IrqLine, irq_aux: IrqLine, keyboard: Keyboard, mouse: Mouse,
        ram: [u8; 32], output_port: u8, output: Option<Output>, answer: Option<Output>,
        command: Option<u8>, last_was_command: bool, release: bool, request: Option<Request>,
    }
}

impl Default for I8042 {
    fn default() -> Self {
        Self::new()
    }
}

impl I8042 {
    /// Offset of the data register (port 60h).
    pub const DATA: u16 = 0;
    /// Offset of the status and command register (port 64h).
    pub const COMMAND: u16 = 4;

    /// A controller as a PC's firmware leaves it: tested, interrupts off, translating, A20 open.
    pub fn new() -> Self {
        let mut ram = [0; 32];
        ram[0] = STATUS_SYSTEM | MODE_TRANSLATE;
        Self {
            irq_keyboard: IrqLine::default(),
            irq_aux: IrqLine::default(),
            keyboard: Keyboard::default(),
            mouse: Mouse::default(),
            ram,
            output_port: OUTPUT_NOT_RESET | OUTPUT_A20,
            output: None,
            answer: None,
            command: None,
            last_was_command: false,
            release: false,
            request: None,
        }
    }

    /// The power-on state.
    pub fn reset(&mut self) {
        let Self { irq_keyboard, irq_aux, .. } = *self;
        *self = Self { irq_keyboard, irq_aux, ..Self::new() };
        self.update();
    }

    /// The level of the A20 gate.
    pub fn a20(&self) -> bool {
        self.output_port & OUTPUT_A20 != 0
    }

    /// The keyboard's lights: scroll lock 1, num lock 2, caps lock 4.
    pub fn leds(&self) -> u8 {
        self.keyboard.leds()
    }

    /// Takes what the guest asked for: a reset, or a change of A20.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    /// A key goes down or up: its scan codes in set 2.
    pub fn key_event(&mut self, _now: VmTime, codes: &[u8]) {
        self.keyboard.event(codes);
        self.update();
    }

    /// The mouse moves (right and up are positive) and holds `buttons`: left 1, right 2, middle 4.
    pub fn mouse_event(&mut self, _now: VmTime, dx: i32, dy: i32, buttons: u8) {
        self.mouse.event(dx, dy, buttons);
        self.update();
    }

    /// Reads the data or the status register.
    pub fn read(&mut self, _now: VmTime, offset: u16) -> u8 {
        match offset {
            Self::DATA => {
                let byte = self.output.take().map_or(0, |output| output.byte);
                self.update_lines();
                self.update();
                byte
            }
            Self::COMMAND => self.status(),
            _ => 0xff,
        }
    }

    /// Writes the data or the command register.
    pub fn write(&mut self, _now: VmTime, offset: u16, value: u8) {
        match offset {
            Self::DATA => {
                self.last_was_command = false;
                match self.command.take() {
                    Some(command) => self.argument(command, value),
                    None => {
                        // A byte for the keyboard enables its port.
                        self.ram[0] &= !MODE_DISABLE_KEYBOARD;
                        self.keyboard.receive(value);
                    }
                }
            }
            Self::COMMAND => {
                self.last_was_command = true;
                self.command = None;
                self.execute(value);
            }
            _ => {}
        }
        self.update();
    }

    fn status(&self) -> u8 {
        let output = match self.output {
            None => 0,
            Some(Output { aux: false, .. }) => STATUS_OUTPUT_FULL,
            Some(Output { aux: true, .. }) => STATUS_OUTPUT_FULL | STATUS_AUX,
        };
        let command = if self.last_was_command { STATUS_COMMAND } else { 0 };
        output | command | STATUS_UNLOCKED | self.ram[0] & STATUS_SYSTEM
    }

    fn answer(&mut self, byte: u8) {
        self.answer = Some(Output { byte, aux: false });
    }

    fn execute(&mut self, command: u8) {
        match command {
            0x20..=0x3f => self.answer(self.ram[usize::from(command & 0x1f)]),
            0x60..=0x7f | 0xd1..=0xd4 => self.command = Some(command),
            0xa7 => self.ram[0] |= MODE_DISABLE_AUX,
            0xa8 => self.ram[0] &= !MODE_DISABLE_AUX,
            // Interface tests: no fault.
            0xa9 | 0xab => self.answer(0x00),
            0xaa => {
                self.ram[0] |= STATUS_SYSTEM | MODE_DISABLE_KEYBOARD | MODE_DISABLE_AUX;
                self.answer(0x55);
            }
            0xad => self.ram[0] |= MODE_DISABLE_KEYBOARD,
            0xae => self.ram[0] &= !MODE_DISABLE_KEYBOARD,
            // The input port: keyboard not locked.
            0xc0 => self.answer(0x80),
            0xd0 => self.answer(self.output_port_now()),
            // A20 closed and open by one command, as some controllers have it.
            0xdd | 0xdf => self.set_output_port(
                self.output_port & !OUTPUT_A20 | if command == 0xdf { OUTPUT_A20 } else { 0 },
            ),
            0xf0..=0xff if command & OUTPUT_NOT_RESET == 0 => self.request = Some(Request::Reset),
            _ => {}
        }
    }

    fn argument(&mut self, command: u8, value: u8) {
        match command {
            0xd1 => self.set_output_port(value),
            0xd2 => self.answer(value),
            0xd3 => self.answer = Some(Output { byte: value, aux: true }),
            0xd4 => {
                self.ram[0] &= !MODE_DISABLE_AUX;
                self.mouse.receive(value);
            }
            _ => self.ram[usize::from(command & 0x1f)] = value,
        }
    }

    /// The output port shows the state of both interrupts.
    fn output_port_now(&self) -> u8 {
        let interrupts = match self.output {
            None => 0,
            Some(Output { aux: false, .. }) => 0x10,
            Some(Output { aux: true, .. }) => 0x20,
        };
        self.output_port & 0xcf | interrupts
    }

    fn set_output_port(&mut self, value: u8) {
        let a20_changed = (self.output_port ^ value) & OUTPUT_A20 != 0;
        self.output_port = value;
        if value & OUTPUT_NOT_RESET == 0 {
            self.request = Some(Request::Reset);
        } else if a20_changed {
            self.request = Some(Request::A20(self.a20()));
        }
    }

    /// Fills an empty output buffer and drives the lines.
    fn update(&mut self) {
        while self.output.is_none() {
            let Some(next) = self.next_output() else { break };
            self.output = next;
        }
        self.update_lines();
    }

    /// The next byte: the controller's own, the keyboard's, the mouse's. None at all if nothing
    /// waits; a byte that the translator swallows fills nothing.
    fn next_output(&mut self) -> Option<Option<Output>> {
        if let Some(answer) = self.answer.take() {
            return Some(Some(answer));
        }
        if self.ram[0] & MODE_DISABLE_KEYBOARD == 0
            && let Some(byte) = self.keyboard.send()
        {
            return Some(self.translate(byte).map(|byte| Output { byte, aux: false }));
        }
        if self.ram[0] & MODE_DISABLE_AUX == 0 {
            return self.mouse.send().map(|byte| Some(Output { byte, aux: true }));
        }
        None
    }

    /// Translates set 2 to set 1: the break prefix becomes bit 7 of the next code.
    fn translate(&mut self, byte: u8) -> Option<u8> {
        if self.ram[0] & MODE_TRANSLATE == 0 {
            return Some(byte);
        }
        if byte == 0xf0 {
            self.release = true;
            return None;
        }
        let code = match byte {
            0x83 => 0x41,
            0x84 => 0x54,
            _ => SET_2_TO_1.get(usize::from(byte)).copied().unwrap_or(byte),
        };
        Some(if std::mem::take(&mut self.release) { code | 0x80 } else { code })
    }

    fn update_lines(&mut self) {
        let full = |aux| self.output.is_some_and(|output| output.aux == aux);
        let keyboard = full(false) && self.ram[0] & MODE_INTERRUPT != 0;
        let aux = full(true) && self.ram[0] & MODE_AUX_INTERRUPT != 0;
        self.irq_keyboard.set(keyboard);
        self.irq_aux.set(aux);
    }
}

/// The controller's translation table, for the codes below 80h.
#[rustfmt::skip]
const SET_2_TO_1: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
];

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: VmTime = VmTime::ZERO;

    fn command(kbc: &mut I8042, command: u8, argument: Option<u8>) {
        kbc.write(NOW, I8042::COMMAND, command);
        if let Some(argument) = argument {
            kbc.write(NOW, I8042::DATA, argument);
        }
    }

    /// Everything that waits, and whether it came from the auxiliary device.
    fn drain(kbc: &mut I8042) -> Vec<(u8, bool)> {
        let mut bytes = Vec::new();
        loop {
            let status = kbc.read(NOW, I8042::COMMAND);
            if status & STATUS_OUTPUT_FULL == 0 {
                return bytes;
            }
            bytes.push((kbc.read(NOW, I8042::DATA), status & STATUS_AUX != 0));
        }
    }

    fn keyboard_bytes(kbc: &mut I8042) -> Vec<u8> {
        drain(kbc).into_iter().filter(|(_, aux)| !aux).map(|(byte, _)| byte).collect()
    }

    #[test]
    fn self_test_and_interface_tests() {
        let mut kbc = I8042::new();
        for (test, answer) in [(0xaa, 0x55), (0xab, 0), (0xa9, 0)] {
            command(&mut kbc, test, None);
            assert_eq!(keyboard_bytes(&mut kbc), [answer], "command {test:#x}");
        }
        assert_eq!(kbc.read(NOW, I8042::COMMAND), 0x1c);
    }

    #[test]
    fn the_command_byte_is_read_and_written() {
        let mut kbc = I8042::new();
        command(&mut kbc, 0x60, Some(0x65));
        command(&mut kbc, 0xad, None);
        command(&mut kbc, 0x20, None);
        assert_eq!(keyboard_bytes(&mut kbc), [0x75]);
        command(&mut kbc, 0x7f, Some(0x99));
        command(&mut kbc, 0x3f, None);
        assert_eq!(keyboard_bytes(&mut kbc), [0x99]);
    }

    #[test]
    fn keys_are_translated_and_interrupt() {
        let mut kbc = I8042::new();
        command(&mut kbc, 0x60, Some(0x45));
        kbc.key_event(NOW, &[0x1c]);
        assert!(kbc.irq_keyboard.level());
        kbc.key_event(NOW, &[0xf0, 0x1c]);
        kbc.key_event(NOW, &[0xe0, 0xf0, 0x75]);
        kbc.irq_keyboard.take();
        assert_eq!(kbc.read(NOW, I8042::DATA), 0x1e);
        let change = kbc.irq_keyboard.take();
        assert!(change.is_some_and(|change| change.level && change.pulsed), "the next byte");
        assert_eq!(keyboard_bytes(&mut kbc), [0x9e, 0xe0, 0xc8]);
        assert!(!kbc.irq_keyboard.level());
        command(&mut kbc, 0x60, Some(0x05));
        kbc.key_event(NOW, &[0xf0, 0x1c]);
        assert_eq!(keyboard_bytes(&mut kbc), [0xf0, 0x1c], "without translation");
    }

    #[test]
    fn a_disabled_keyboard_waits() {
        let mut kbc = I8042::new();
        command(&mut kbc, 0xad, None);
        kbc.key_event(NOW, &[0x1c]);
        assert_eq!(keyboard_bytes(&mut kbc), []);
        command(&mut kbc, 0xae, None);
        assert_eq!(keyboard_bytes(&mut kbc), [0x1e]);
    }

    #[test]
    fn keyboard_commands() {
        let mut kbc = I8042::new();
        command(&mut kbc, 0x60, Some(0x04));
        for (sent, answer) in [
            (&[0xff][..], &[0xfa, 0xaa][..]),
            (&[0xf2], &[0xfa, 0xab, 0x83]),
            (&[0xee], &[0xee]),
            (&[0x01], &[0xfe]),
        ] {
            sent.iter().for_each(|&byte| kbc.write(NOW, I8042::DATA, byte));
            assert_eq!(keyboard_bytes(&mut kbc), answer, "{sent:x?}");
        }
        for (byte, argument) in [(0xed, 0x05), (0xf3, 0x20), (0xf0, 0x02)] {
            for byte in [byte, argument] {
                kbc.write(NOW, I8042::DATA, byte);
                assert_eq!(keyboard_bytes(&mut kbc), [0xfa], "{byte:#x}");
            }
        }
        assert_eq!(kbc.leds(), 5);
        kbc.write(NOW, I8042::DATA, 0xf5);
        keyboard_bytes(&mut kbc);
        kbc.key_event(NOW, &[0x1c]);
        assert_eq!(keyboard_bytes(&mut kbc), [], "scanning is disabled");
    }

    #[test]
    fn the_auxiliary_port() {
        let mut kbc = I8042::new();
        command(&mut kbc, 0x60, Some(0x06));
        command(&mut kbc, 0xd3, Some(0xa5));
        assert!(kbc.irq_aux.level(), "the loop command, as Linux probes");
        assert_eq!(drain(&mut kbc), [(0xa5, true)]);
        command(&mut kbc, 0xd4, Some(0xff));
        assert_eq!(drain(&mut kbc), [(0xfa, true), (0xaa, true), (0, true)]);
        kbc.mouse_event(NOW, 1, 1, 0);
        assert_eq!(drain(&mut kbc), [], "reporting is off after a reset");
        command(&mut kbc, 0xd4, Some(0xf4));
        drain(&mut kbc);
        kbc.mouse_event(NOW, 4, -6, 1);
        assert_eq!(drain(&mut kbc), [(0x29, true), (4, true), (0xfa, true)]);
    }

    #[test]
    fn reset_and_a20() {
        let mut kbc = I8042::new();
        assert!(kbc.a20());
        command(&mut kbc, 0xd1, Some(0xdd));
        assert_eq!(kbc.take_request(), Some(Request::A20(false)));
        command(&mut kbc, 0xd0, None);
        assert_eq!(keyboard_bytes(&mut kbc), [0xcd]);
        command(&mut kbc, 0xdf, None);
        assert_eq!(kbc.take_request(), Some(Request::A20(true)));
        command(&mut kbc, 0xff, None);
        assert_eq!(kbc.take_request(), None, "pulses nothing");
        command(&mut kbc, 0xfe, None);
        assert_eq!(kbc.take_request(), Some(Request::Reset));
    }

    #[test]
    fn a_flood_of_events_is_bounded() {
        let mut kbc = I8042::new();
        for _ in 0..1000 {
            kbc.key_event(NOW, &[0xe0, 0x75]);
            command(&mut kbc, 0xd2, None);
        }
        assert!(drain(&mut kbc).len() <= 20);
    }

    #[test]
    fn state_survives_a_snapshot() {
        let mut kbc = I8042::new();
        kbc.key_event(NOW, &[0xf0, 0x1c]);
        let mut other = I8042::new();
        other.restore(kbc.saved());
        assert_eq!(keyboard_bytes(&mut other), [0x9e]);
    }
}
