//! Ports that are hardly chips: POST codes, the debug console, system control port A, the reset
//! control register, and the exit port.

use std::collections::VecDeque;

use crate::request::Request;
use crate::time::VmTime;

/// How many POST codes are remembered.
const POST_HISTORY: usize = 64;

/// Port 80h: power-on self-test codes.
#[derive(Debug, Default)]
pub struct PostPort {
    codes: VecDeque<u8>,
}

saved_state! {
    /// The state of a [`PostPort`].
    PostPortSaved of PostPort { codes: VecDeque<u8> }
}

impl PostPort {
    /// Forgets all codes.
    pub fn reset(&mut self) {
        self.codes.clear();
    }

    /// The last code, zero before the first.
    pub fn read(&mut self, _now: VmTime) -> u8 {
        self.codes.back().copied().unwrap_or(0)
    }

    /// A new code.
    pub fn write(&mut self, _now: VmTime, value: u8) {
        if self.codes.len() == POST_HISTORY {
            self.codes.pop_front();
        }
        self.codes.push_back(value);
    }

    /// The last codes, oldest first.
    pub fn history(&self) -> impl Iterator<Item = u8> {
        self.codes.iter().copied()
    }
}

/// Port E9h: a console that needs no setup. Software finds it by reading the port's own number.
#[derive(Debug, Default)]
pub struct DebugConsole {
    output: Vec<u8>,
}

saved_state! {
    /// The state of a [`DebugConsole`].
    DebugConsoleSaved of DebugConsole { output: Vec<u8> }
}

impl DebugConsole {
    /// Nothing to reset: what was written is not taken back.
    pub fn reset(&mut self) {}

    /// The mark that the console exists.
    pub fn read(&mut self, _now: VmTime) -> u8 {
        0xe9
    }

    /// A byte of output.
    pub fn write(&mut self, _now: VmTime, value: u8) {
        self.output.push(value);
    }

    /// Takes the bytes that were written since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }
}

const PORT92_RESET: u8 = 0x01;
const PORT92_A20: u8 = 0x02;

/// Port 92h, system control port A: the A20 gate and the fast reset (IBM PS/2 Hardware Interface
/// Technical Reference, "System control port A").
#[derive(Debug, Default)]
pub struct Port92 {
    value: u8,
    request: Option<Request>,
}

saved_state! {
    /// The state of a [`Port92`].
    Port92Saved of Port92 { value: u8, request: Option<Request> }
}

impl Port92 {
    /// The power-on state: A20 is up to the keyboard controller.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether the port opens the A20 gate; either it or the keyboard controller is enough.
    pub fn a20(&self) -> bool {
        self.value & PORT92_A20 != 0
    }

    /// Reads the port.
    pub fn read(&mut self, _now: VmTime) -> u8 {
        self.value
    }

    /// Writes the port. A rising reset bit resets.
    pub fn write(&mut self, _now: VmTime, value: u8) {
        let old = std::mem::replace(&mut self.value, value & 0xfb);
        if value & !old & PORT92_RESET != 0 {
            self.request = Some(Request::Reset);
        } else if (value ^ old) & PORT92_A20 != 0 {
            self.request = Some(Request::A20(self.a20()));
        }
    }

    /// Takes what the guest asked for: a reset, or a change of A20.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }
}

const RESET_HARD: u8 = 0x02;
const RESET_CPU: u8 = 0x04;

/// Port CF9h, the reset control register (PIIX3 datasheet 2.5.4): a rising bit 2 resets. Hard and
/// soft reset are the same here: the whole machine starts again.
#[derive(Debug, Default)]
pub struct ResetControl {
    value: u8,
    request: Option<Request>,
}

saved_state! {
    /// The state of a [`ResetControl`].
    ResetControlSaved of ResetControl { value: u8, request: Option<Request> }
}

impl ResetControl {
    /// The power-on state.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Reads the register.
    pub fn read(&mut self, _now: VmTime) -> u8 {
        self.value
    }

    /// Writes the register.
    pub fn write(&mut self, _now: VmTime, value: u8) {
        if value & !self.value & RESET_CPU != 0 {
            self.request = Some(Request::Reset);
        }
        self.value = value & (RESET_HARD | RESET_CPU);
    }

    /// Takes the reset that the guest asked for.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }
}

/// A port whose value ends the run.
#[derive(Debug, Default)]
pub struct ExitPort {
    request: Option<Request>,
}

saved_state! {
    /// The state of an [`ExitPort`].
    ExitPortSaved of ExitPort { request: Option<Request> }
}

impl ExitPort {
    /// The power-on state.
    pub fn reset(&mut self) {
        self.request = None;
    }

    /// Nothing can be read.
    pub fn read(&mut self, _now: VmTime) -> u32 {
        u32::MAX
    }

    /// Ends the run with a value; the first one counts.
    pub fn write(&mut self, _now: VmTime, value: u32) {
        self.request.get_or_insert(Request::Exit(value));
    }

    /// Takes the exit that the guest asked for.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: VmTime = VmTime::ZERO;

    #[test]
    fn post_codes_are_remembered_within_bounds() {
        let mut post = PostPort::default();
        assert_eq!(post.read(NOW), 0);
        (0..200).for_each(|code| post.write(NOW, code));
        assert_eq!(post.read(NOW), 199);
        assert!(post.history().eq(200 - POST_HISTORY as u8..200));
    }

    #[test]
    fn the_debug_console() {
        let mut console = DebugConsole::default();
        assert_eq!(console.read(NOW), 0xe9);
        b"hi".iter().for_each(|&byte| console.write(NOW, byte));
        assert_eq!(console.take_output(), b"hi");
        assert!(console.take_output().is_empty());
    }

    #[test]
    fn port_92() {
        let mut port = Port92::default();
        port.write(NOW, 0x02);
        assert!(port.a20());
        assert_eq!(port.take_request(), Some(Request::A20(true)));
        port.write(NOW, 0x03);
        assert_eq!(port.take_request(), Some(Request::Reset));
        port.write(NOW, 0x03);
        assert_eq!(port.take_request(), None, "only a rising bit resets");
        assert_eq!(port.read(NOW), 0x03);
    }

    #[test]
    fn reset_control() {
        let mut control = ResetControl::default();
        control.write(NOW, 0x02);
        assert_eq!(control.take_request(), None);
        control.write(NOW, 0x06);
        assert_eq!(control.take_request(), Some(Request::Reset));
        assert_eq!(control.read(NOW), 0x06);
        control.write(NOW, 0x0e);
        assert_eq!(control.take_request(), None, "only a rising bit resets");
    }

    #[test]
    fn the_exit_port_keeps_the_first_value() {
        let mut exit = ExitPort::default();
        exit.write(NOW, 0x21);
        exit.write(NOW, 0x99);
        let mut other = ExitPort::default();
        other.restore(exit.saved());
        assert_eq!(other.take_request(), Some(Request::Exit(0x21)));
        assert_eq!(other.take_request(), None);
    }
}
