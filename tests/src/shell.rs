//! A Linux guest at its shell prompt.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::expect::{Ended, Session};
use crate::guests::Guest;
use crate::guests::initramfs::{PROMPT, READY};
use crate::vmm::{Boot, Vmm};

/// How long a boot may take, on a loaded CI machine.
pub const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// How long a command may take that only prints.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Ctrl-C and Ctrl-Z as a terminal sends them.
pub const CTRL_C: &str = "\x03";
/// See [`CTRL_C`].
pub const CTRL_Z: &str = "\x1a";
/// Ctrl-A x: leaves Brolga, and QEMU.
pub const QUIT: &str = "\x01x";

/// The guest.
pub struct Shell {
    session: Session,
}

impl Shell {
    /// Boots to the prompt.
    pub fn boot(vmm: Vmm, guest: &Guest, boot: &Boot) -> Result<Self> {
        let session = Session::spawn(&vmm.command(guest, boot)?)?;
        let mut shell = Self { session };
        shell.expect_boot().with_context(|| format!("booting {}", guest.flavour.name))?;
        Ok(shell)
    }

    /// Waits through a boot that has begun.
    pub fn expect_boot(&mut self) -> Result<()> {
        self.session.expect(READY, BOOT_LIMIT)?;
        self.session.expect(PROMPT, COMMAND_LIMIT)?;
        Ok(())
    }

    /// Types a command and returns what it printed before the next prompt.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.session.send(&format!("{command}\n"))?;
        self.prompt().with_context(|| format!("running {command:?}"))
    }

    /// Types something that brings up the prompt when it is done, and returns what came.
    pub fn run_keys(&mut self, keys: &str) -> Result<String> {
        self.session.send(keys)?;
        self.prompt().with_context(|| format!("typing {keys:?}"))
    }

    /// The terminal's program.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Waits for the end of the machine.
    pub fn finish(self, limit: Duration) -> Result<Ended> {
        self.session.finish(limit)
    }

    fn prompt(&mut self) -> Result<String> {
        let printed = plain(&self.session.expect(PROMPT, COMMAND_LIMIT)?);
        // The first line is the echo of what was typed.
        Ok(printed.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned()))
    }
}

/// Text without carriage returns and terminal control sequences (ECMA-48 section 5.4: ESC `[`,
/// parameters, one final byte from `@` to `~`).
pub fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\r' => {}
            '\x1b' => {
                if characters.next() == Some('[') {
                    characters.by_ref().find(|final_byte| ('@'..='~').contains(final_byte));
                }
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_sequences_vanish() {
        assert_eq!(super::plain("\x1b[6na\r\nb\x1b[1;31mc\x1b[0m"), "a\nbc");
    }
}
