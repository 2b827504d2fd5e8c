//! The user's terminal while a guest owns it.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::mpsc::Sender;
use std::thread;

use crossterm::terminal::{disable_raw_mode, enable_raw_mode, is_raw_mode_enabled};

use crate::serial::{Input, Serial};

/// Ctrl-A: what comes next is for Brolga.
const ESCAPE: u8 = 0x01;

const HELP: &str = "\r\n\
    Ctrl-A x       leave Brolga\r\n\
    Ctrl-A h       this help\r\n\
    Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n\
    Everything else goes to the guest, Ctrl-C too.\r\n";

/// What a byte from the keyboard means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The guest gets this byte.
    Send(u8),
    /// The user wants to leave.
    Quit,
    /// The user wants help.
    Help,
    /// The beginning of a command, or an unknown one.
    Nothing,
}

/// Tells commands to Brolga from bytes for the guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct EscapeKeys {
    escaped: bool,
}

impl EscapeKeys {
    /// The next byte.
    pub fn feed(&mut self, byte: u8) -> Key {
        match (std::mem::take(&mut self.escaped), byte) {
            (false, ESCAPE) => {
                self.escaped = true;
                Key::Nothing
            }
            (false, byte) | (true, byte @ ESCAPE) => Key::Send(byte),
            (true, b'x' | b'X') => Key::Quit,
            (true, b'h' | b'H' | b'?') => Key::Help,
            (true, _) => Key::Nothing,
        }
    }
}

/// The terminal in raw mode. Dropping this gives it back; so do panics and signals that end the
/// process.
#[derive(Debug)]
pub struct RawTerminal(());

impl RawTerminal {
    /// Takes the terminal, if standard input is one.
    pub fn take() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        restore_at_panics();
        restore_at_signals()?;
        enable_raw_mode()?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back to the shell. There is nobody to tell of a failure.
fn restore() {
    if is_raw_mode_enabled().unwrap_or(false) {
        let _ = disable_raw_mode();
    }
}

fn restore_at_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        report(panic);
    }));
}

/// SIGTERM and its like still end the process as they do by default, but after the terminal is
/// restored.
#[cfg(unix)]
fn restore_at_signals() -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;

    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            restore();
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn restore_at_signals() -> io::Result<()> {
    Ok(())
}

/// A serial line to standard output and from standard input, which goes to `inputs`. Keys of a
/// terminal pass through [`EscapeKeys`]; a file is read at once, so that runs with it are
/// deterministic.
pub fn standard_io(inputs: &Sender<Input>) -> io::Result<Serial> {
    let serial = Serial::to(io::stdout());
    let stdin = io::stdin();
    if stdin.is_terminal() {
        follow_input(Some(EscapeKeys::default()), inputs.clone());
        return Ok(serial);
    }
    if is_regular_file()? {
        let mut script = Vec::new();
        stdin.lock().read_to_end(&mut script)?;
        return Ok(serial.with_script(script));
    }
    follow_input(None, inputs.clone());
    Ok(serial)
}

#[cfg(unix)]
fn is_regular_file() -> io::Result<bool> {
    use std::os::fd::AsFd;
    let stdin = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
    Ok(stdin.metadata()?.is_file())
}

#[cfg(not(unix))]
fn is_regular_file() -> io::Result<bool> {
    Ok(false)
}

/// Reads standard input on a thread of its own, which drops the sender at its end.
fn follow_input(keys: Option<EscapeKeys>, inputs: Sender<Input>) {
    thread::spawn(move || forward_input(keys, &inputs));
}

fn forward_input(mut keys: Option<EscapeKeys>, sender: &Sender<Input>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = io::stdin().lock().read(&mut buffer) {
        let read = &buffer[..count];
        let inputs = match &mut keys {
            Some(keys) => interpret(keys, read),
            None => vec![Input::Bytes(read.to_vec())],
        };
        if inputs.into_iter().any(|input| sender.send(input).is_err()) {
            return;
        }
    }
}

fn interpret(keys: &mut EscapeKeys, read: &[u8]) -> Vec<Input> {
    let mut bytes = Vec::new();
    let mut quit = false;
    for &byte in read {
        match keys.feed(byte) {
            Key::Send(byte) => bytes.push(byte),
            Key::Quit => quit = true,
            Key::Help => {
                // Only the terminal itself could be told of a failure.
                let _ = io::stderr().write_all(HELP.as_bytes());
            }
            Key::Nothing => {}
        }
    }
    let bytes = (!bytes.is_empty()).then_some(Input::Bytes(bytes));
    bytes.into_iter().chain(quit.then_some(Input::Quit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(bytes: &[u8]) -> Vec<Key> {
        let mut keys = EscapeKeys::default();
        bytes.iter().map(|&byte| keys.feed(byte)).filter(|key| *key != Key::Nothing).collect()
    }

    #[test]
    fn bytes_pass_until_ctrl_a() {
        assert_eq!(feed(b"x\x03"), [Key::Send(b'x'), Key::Send(3)]);
        assert_eq!(feed(b"\x01x"), [Key::Quit]);
        assert_eq!(feed(b"\x01h"), [Key::Help]);
        assert_eq!(feed(b"\x01\x01x"), [Key::Send(1), Key::Send(b'x')]);
    }

    #[test]
    fn an_unknown_command_is_dropped_and_ends_the_escape() {
        assert_eq!(feed(b"\x01qx"), [Key::Send(b'x')]);
    }

    #[test]
    fn an_escape_may_arrive_in_two_reads() {
        let mut keys = EscapeKeys::default();
        assert_eq!(interpret(&mut keys, b"ls\x01"), [Input::Bytes(b"ls".to_vec())]);
        assert_eq!(interpret(&mut keys, b"x"), [Input::Quit]);
    }
}
