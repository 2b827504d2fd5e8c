//! What executes a guest, and a boot by it with the times that the host sees.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::process::Command;

use anyhow::Result;
use brolga_test_roms::exit_rom;

use super::memory::Memory;
use super::times::{Stopwatch, Times};
use crate::expect::{Ended, Session};
use crate::guests::Guest;
use crate::guests::initramfs::{PROMPT, READY};
use crate::shell::{BOOT_LIMIT, COMMAND_LIMIT};
use crate::vmm::{Boot, Vmm};
use crate::{binary, process};

/// `quiet` comes after the early console, which the kernel sets up as soon as it has been
/// unpacked: the only line before `quiet` has its effect is the one that it begins with.
const APPEND: &str = "console=ttyS0 loglevel=6 earlyprintk=serial,ttyS0,115200 quiet panic=-1";
const ENTERED: &str = "Linux version";

/// An engine by the name that users give it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Engine {
    /// QEMU's translator.
    Tcg,
    /// Brolga with this argument of `--accel`.
    Brolga(String),
}

impl Display for Engine {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcg => "tcg",
            Self::Brolga(accel) => accel,
        })
    }
}

impl Engine {
    /// Whether it is Brolga's translator.
    pub(super) fn translates(&self) -> bool {
        *self == Self::Brolga("jit".into())
    }

    /// QEMU's, if it is installed; its absence is told.
    pub(super) fn measure() -> Option<Self> {
        let installed = Vmm::qemu_is_installed();
        if !installed {
            eprintln!("qemu-system-x86_64 is not installed: Brolga is measured alone");
        }
        installed.then_some(Self::Tcg)
    }

    /// Boots `guest`, with more arguments for Brolga.
    pub(super) fn boot(&self, guest: &Guest, arguments: &[&str]) -> Result<Running> {
        let mut boot = Boot { append: APPEND.into(), ..Boot::default() };
        let vmm = match self {
            Self::Tcg => Vmm::Qemu,
            Self::Brolga(accel) => {
                let extra = [&["--accel", accel], arguments].concat();
                boot.extra = extra.into_iter().map(Into::into).collect();
                Vmm::Brolga
            }
        };
        let command = vmm.command(guest, &boot)?;
        let mut session = Session::spawn(&command)?;
        let stopwatch = Stopwatch::start(&session)?;
        session.expect(ENTERED, BOOT_LIMIT)?;
        let entered = stopwatch.read()?;
        session.expect(READY, BOOT_LIMIT)?;
        let ready = stopwatch.read()?;
        session.expect(PROMPT, COMMAND_LIMIT)?;
        Ok(Running { session, entered, ready, ram: u64::from(boot.memory) })
    }
}

/// Why Brolga cannot use an engine on this host, if it cannot.
pub(super) fn refusal(accel: &str) -> Result<Option<String>> {
    let rom = tempfile::NamedTempFile::new()?;
    fs::write(rom.path(), exit_rom(0))?;
    let mut command = Command::new(binary::brolga()?);
    command.args(["run", "--serial", "none", "--accel", accel, "--bios"]).arg(rom.path());
    let tried = process::run(&mut command, COMMAND_LIMIT)?;
    Ok((tried.code()? != 0).then(|| tried.stderr.trim().to_owned()))
}

/// A guest at its shell prompt.
pub(super) struct Running {
    pub(super) session: Session,
    /// From the start of the process to the first line of the unpacked kernel.
    pub(super) entered: Times,
    /// From the start of the process to user space.
    pub(super) ready: Times,
    ram: u64,
}

impl Running {
    /// What the process takes of the host's memory.
    pub(super) fn memory(&self) -> Result<Memory> {
        Memory::of_process(self.session.process_id()?, self.ram)
    }

    /// Switches the machine off.
    pub(super) fn power_off(mut self) -> Result<Ended> {
        self.session.send("poweroff -f\n")?;
        self.session.finish(COMMAND_LIMIT)
    }
}
