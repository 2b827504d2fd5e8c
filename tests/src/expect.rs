//! A program on a pseudo-terminal, driven by what it prints.

use std::ffi::OsString;
use std::fmt::{self, Debug, Formatter};
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, SlavePty, native_pty_system};

/// How much of what was printed an error shows.
const TAIL: usize = 2000;

/// The program. Dropping it kills the program.
pub struct Session {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    /// Held so that the terminal outlives the program and can be looked at.
    slave: Option<Box<dyn SlavePty + Send>>,
    writer: Box<dyn Write + Send>,
    reader: Option<JoinHandle<()>>,
    screen: Arc<Screen>,
    consumed: usize,
    initial_modes: TerminalModes,
}

/// The modes of a terminal (termios(3)), to compare.
#[derive(Clone, PartialEq)]
pub struct TerminalModes(String);

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit status, or an error that names the signal.
    pub status: Result<i32, String>,
    /// What it printed since the last match.
    pub output: String,
}

/// Everything printed so far, and news of more.
#[derive(Default)]
struct Screen {
    bytes: Mutex<Vec<u8>>,
    grown: Condvar,
}

impl Session {
    /// Starts a program with a new terminal of 80x25 as its controlling terminal.
    pub fn spawn(command: &[OsString]) -> Result<Self> {
        let size = PtySize { rows: 25, cols: 80, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size)?;
        let mut builder = CommandBuilder::from_argv(command.to_vec());
        builder.cwd(std::env::current_dir()?);
        builder.env("TERM", "xterm");
        let initial_modes = modes(&*pair.master)?;
        let child =
            pair.slave.spawn_command(builder).with_context(|| format!("starting {command:?}"))?;
        let writer = pair.master.take_writer()?;
        let screen = Arc::new(Screen::default());
        let reader = screen.clone().follow(pair.master.try_clone_reader()?);
        Ok(Self {
            child,
            master: pair.master,
            slave: Some(pair.slave),
            writer,
            reader: Some(reader),
            screen,
            consumed: 0,
            initial_modes,
        })
    }

    /// Types something.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.writer.write_all(text.as_bytes())?;
        Ok(self.writer.flush()?)
    }

    /// Waits until `text` is printed after the last match and returns what came before it.
    pub fn expect(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut bytes = self.screen.lock();
        loop {
            let fresh = &bytes[self.consumed..];
            if let Some(at) = find(fresh, text.as_bytes()) {
                let before = String::from_utf8_lossy(&fresh[..at]).into_owned();
                self.consumed += at + text.len();
                return Ok(before);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let tail = tail(&bytes);
                bail!("{text:?} did not come in {limit:?}; the last that came:\n{tail}");
            }
            let ended = self.child.try_wait()?;
            // The reader may still hold what the program printed last: one more look.
            let patience = left.min(Duration::from_millis(200));
            let length = bytes.len();
            (bytes, _) = self
                .screen
                .grown
                .wait_timeout(bytes, patience)
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(status) = ended
                && bytes.len() == length
            {
                let tail = tail(&bytes);
                bail!("the program ended ({status}) before {text:?} came; the last:\n{tail}");
            }
        }
    }

    /// Everything printed so far.
    pub fn transcript(&self) -> String {
        self.screen.since(0)
    }

    /// The program's process number.
    pub fn process_id(&self) -> Result<u32> {
        self.child.process_id().context("the program has ended")
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        let id = i32::try_from(self.process_id()?)?;
        Ok(kill(Pid::from_raw(id), Signal::SIGTERM)?)
    }

    /// The modes of the terminal as they are.
    pub fn terminal_modes(&self) -> Result<TerminalModes> {
        modes(&*self.master)
    }

    /// The modes that the terminal had before the program started.
    pub fn initial_terminal_modes(&self) -> TerminalModes {
        self.initial_modes.clone()
    }

    /// Waits until the program has ended.
    pub fn wait(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                let tail = tail(&self.screen.lock());
                bail!("the program has not ended after {limit:?}; the last that came:\n{tail}");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits for the end and closes the terminal.
    pub fn finish(mut self, limit: Duration) -> Result<Ended> {
        self.wait(limit)?;
        let status = self.child.wait()?;
        let status = match status.signal() {
            Some(signal) => Err(format!("died of {signal}")),
            None => Ok(i32::try_from(status.exit_code())?),
        };
        // With the last slave closed the reader sees the end of what was printed.
        self.slave = None;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let output = self.screen.since(self.consumed);
        Ok(Ended { status, output })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It may end by itself just now.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Screen {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since(&self, at: usize) -> String {
        String::from_utf8_lossy(&self.lock()[at..]).into_owned()
    }

    fn follow(self: Arc<Self>, mut terminal: Box<dyn Read + Send>) -> JoinHandle<()> {
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = terminal.read(&mut buffer) {
                self.lock().extend_from_slice(&buffer[..count]);
                self.grown.notify_all();
            }
        })
    }
}

fn modes(terminal: &dyn MasterPty) -> Result<TerminalModes> {
    let modes = terminal.get_termios().context("the terminal has modes")?;
    Ok(TerminalModes(format!("{modes:?}")))
}

impl Debug for TerminalModes {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn tail(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Session {
        let command = ["sh", "-c", script].map(OsString::from);
        Session::spawn(&command).expect("sh starts")
    }

    #[test]
    fn a_dialogue_is_followed_to_its_end() -> Result<()> {
        let mut session = shell("echo name?; read name; echo hello $name; exit 3");
        session.expect("name?", LIMIT)?;
        session.send("crane\n")?;
        assert_eq!(session.expect("crane\r\nhello", LIMIT)?.trim(), "");
        let ended = session.finish(LIMIT)?;
        assert_eq!(ended.status, Ok(3));
        assert_eq!(ended.output, " crane\r\n");
        Ok(())
    }

    #[test]
    fn silence_and_early_ends_are_told_apart() {
        let mut silent = shell("sleep 10");
        let error = silent.expect("never", Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("did not come"), "{error}");
        let mut brief = shell("echo last words");
        let error = brief.expect("never", LIMIT).unwrap_err().to_string();
        assert!(error.contains("ended") && error.contains("last words"), "{error}");
    }

    #[test]
    fn changed_terminal_modes_show() -> Result<()> {
        let mut session = shell("read go; stty raw -echo; echo done; read go");
        let before = session.terminal_modes()?;
        assert!(before == session.terminal_modes()?);
        session.send("go\n")?;
        session.expect("done", LIMIT)?;
        assert!(before != session.terminal_modes()?);
        Ok(())
    }
}
