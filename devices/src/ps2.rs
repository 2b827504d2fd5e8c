//! PS/2 devices: a keyboard and a mouse as the 8042 sees them over the wire (IBM PS/2 Hardware
//! Interface Technical Reference, "Keyboards", "Mouse").

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

const ACKNOWLEDGE: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const SELF_TEST_PASSED: u8 = 0xaa;
const ECHO: u8 = 0xee;

/// A device's own buffer; what does not fit is lost.
const BUFFER: usize = 16;

/// Bytes on their way from a device to the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Buffer(VecDeque<u8>);

impl Buffer {
    /// A scan code or packet: all of it or nothing.
    fn event(&mut self, bytes: &[u8]) {
        if self.0.len() + bytes.len() <= BUFFER {
            self.0.extend(bytes);
        }
    }

    /// The answer to a command, which takes the place of what was waiting.
    fn answer(&mut self, bytes: &[u8]) {
        self.0.clear();
        self.0.extend(bytes);
    }
}

/// A 101-key keyboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keyboard {
    buffer: Buffer,
    /// The command that waits for its argument.
    command: Option<u8>,
    scanning: bool,
    scan_set: u8,
    leds: u8,
    last_sent: u8,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self {
            buffer: Buffer::default(),
            command: None,
            scanning: true,
            scan_set: 2,
            leds: 0,
            last_sent: 0,
        }
    }
}

impl Keyboard {
    /// A key goes down or up.
    pub(crate) fn event(&mut self, codes: &[u8]) {
        if self.scanning {
            self.buffer.event(codes);
        }
    }

    pub(crate) fn leds(&self) -> u8 {
        self.leds
    }

    pub(crate) fn send(&mut self) -> Option<u8> {
        let byte = self.buffer.0.pop_front()?;
        self.last_sent = byte;
        Some(byte)
    }

    pub(crate) fn receive(&mut self, byte: u8) {
        match self.command.take() {
            // Every argument is below 80h; another command replaces the one that waits.
            Some(command) if byte < 0x80 => self.argument(command, byte),
            _ => self.command(byte),
        }
    }

    fn command(&mut self, command: u8) {
        match command {
            0xed | 0xf0 | 0xf3 | 0xfb..=0xfd => {
                self.command = Some(command);
                self.buffer.answer(&[ACKNOWLEDGE]);
            }
            0xee => self.buffer.answer(&[ECHO]),
            0xf2 => self.buffer.answer(&[ACKNOWLEDGE, 0xab, 0x83]),
            0xf4 => {
                self.scanning = true;
                self.buffer.answer(&[ACKNOWLEDGE]);
            }
            0xf5 | 0xf6 => {
                *self = Self { scanning: command == 0xf6, leds: self.leds, ..Self::default() };
                self.buffer.answer(&[ACKNOWLEDGE]);
            }
            0xf7..=0xfa => self.buffer.answer(&[ACKNOWLEDGE]),
            0xfe => self.buffer.answer(&[self.last_sent]),
            0xff => {
                *self = Self::default();
                self.buffer.answer(&[ACKNOWLEDGE, SELF_TEST_PASSED]);
            }
            _ => self.buffer.answer(&[RESEND]),
        }
    }

    fn argument(&mut self, command: u8, argument: u8) {
        match (command, argument) {
            (0xed, leds) => self.leds = leds & 7,
            (0xf0, 0) => return self.buffer.answer(&[ACKNOWLEDGE, self.scan_set]),
            // Key events come in set 2, whichever is selected.
            (0xf0, set @ 1..=3) => self.scan_set = set,
            (0xf0, _) => return self.buffer.answer(&[RESEND]),
            // The repeat rate: keys do not repeat by themselves here. Key types: only in set 3.
            _ => {}
        }
        self.buffer.answer(&[ACKNOWLEDGE]);
    }
}

/// A three-button mouse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mouse {
    buffer: Buffer,
    command: Option<u8>,
    reporting: bool,
    remote: bool,
    scaling: bool,
    rate: u8,
    resolution: u8,
    buttons: u8,
    dx: i32,
    dy: i32,
}

impl Default for Mouse {
    fn default() -> Self {
        Self {
            buffer: Buffer::default(),
            command: None,
            reporting: false,
            remote: false,
            scaling: false,
            rate: 100,
            resolution: 2,
            buttons: 0,
            dx: 0,
            dy: 0,
        }
    }
}

impl Mouse {
    /// The mouse moves (right and up are positive) and holds `buttons`: left 1, right 2, middle 4.
    pub(crate) fn event(&mut self, dx: i32, dy: i32, buttons: u8) {
        self.buttons = buttons & 7;
        if self.reporting || self.remote {
            self.dx = self.dx.saturating_add(dx);
            self.dy = self.dy.saturating_add(dy);
        }
        if self.reporting && !self.remote && self.buffer.0.len() + 3 <= BUFFER {
            let packet = self.packet();
            self.buffer.event(&packet);
        }
    }

    pub(crate) fn send(&mut self) -> Option<u8> {
        self.buffer.0.pop_front()
    }

    pub(crate) fn receive(&mut self, byte: u8) {
        match self.command.take() {
            Some(command) => {
                match command {
                    0xe8 => self.resolution = byte & 3,
                    _ => self.rate = byte,
                }
                self.buffer.answer(&[ACKNOWLEDGE]);
            }
            None => self.command(byte),
        }
    }

    fn command(&mut self, command: u8) {
        self.buffer.answer(&[ACKNOWLEDGE]);
        match command {
            0xe6 | 0xe7 => self.scaling = command == 0xe7,
            0xe8 | 0xf3 => self.command = Some(command),
            0xe9 => {
                let state = u8::from(self.remote) << 6
                    | u8::from(self.reporting) << 5
                    | u8::from(self.scaling) << 4
                    | (self.buttons & 1) << 2
                    | self.buttons >> 1 & 2
                    | self.buttons >> 1 & 1;
                self.buffer.event(&[state, self.resolution, self.rate]);
            }
            0xea | 0xf0 => self.remote = command == 0xf0,
            0xeb => {
                let packet = self.packet();
                self.buffer.event(&packet);
            }
            0xf2 => self.buffer.event(&[0]),
            0xf4 | 0xf5 => self.reporting = command == 0xf4,
            0xf6 => {
                *self = Self { buttons: self.buttons, ..Self::default() };
                self.buffer.answer(&[ACKNOWLEDGE]);
            }
            0xff => {
                *self = Self { buttons: self.buttons, ..Self::default() };
                self.buffer.answer(&[ACKNOWLEDGE, SELF_TEST_PASSED, 0]);
            }
            _ => self.buffer.answer(&[RESEND]),
        }
    }

    /// A movement packet: nine-bit deltas, whose signs are in the first byte.
    fn packet(&mut self) -> [u8; 3] {
        let (dx, dy) = (take_part(&mut self.dx), take_part(&mut self.dy));
        let signs = u8::from(dx < 0) << 4 | u8::from(dy < 0) << 5;
        [0x08 | signs | self.buttons, dx as u8, dy as u8]
    }
}

/// Takes from a delta what fits into nine bits.
fn take_part(delta: &mut i32) -> i32 {
    let part = (*delta).clamp(-256, 255);
    *delta -= part;
    part
}
