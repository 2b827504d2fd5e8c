//! The virtual machine monitors that boot the same guest: Brolga, and QEMU as the measure.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::binary;
use crate::guests::Guest;

/// Which program runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vmm {
    /// This project's.
    Brolga,
    /// `qemu-system-x86_64` with its translator, TCG.
    Qemu,
}

/// How to boot.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The kernel command line.
    pub append: String,
    /// Guest RAM in MiB.
    pub memory: u32,
    /// More arguments, in the words of the program.
    pub extra: Vec<OsString>,
}

impl Default for Boot {
    fn default() -> Self {
        Self { append: "console=ttyS0".into(), memory: 512, extra: Vec::new() }
    }
}

impl Vmm {
    /// The one that the boot tests drive. `BROLGA_VMM=qemu` is for debugging the tests' own
    /// scripts.
    pub fn under_test() -> Self {
        match std::env::var("BROLGA_VMM").as_deref() {
            Ok("qemu") => Self::Qemu,
            _ => Self::Brolga,
        }
    }

    /// Whether QEMU can be had as the measure.
    pub fn qemu_is_installed() -> bool {
        let mut version = Command::new("qemu-system-x86_64");
        version.arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// The command that boots `guest` with its serial console on the terminal.
    pub fn command(self, guest: &Guest, boot: &Boot) -> Result<Vec<OsString>> {
        let mut command: Vec<OsString> = match self {
            Self::Brolga => vec![binary::brolga()?.into(), "run".into()],
            Self::Qemu => ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu", "max"]
                .iter()
                .chain(&["-nographic", "-nic", "none"])
                .map(OsString::from)
                .collect(),
        };
        let dashes = if self == Self::Brolga { "--" } else { "-" };
        let mut option = |name: &str, value: OsString| {
            command.extend([format!("{dashes}{name}").into(), value]);
        };
        option("kernel", guest.kernel.clone().into());
        option("initrd", guest.initrd.clone().into());
        option("append", boot.append.clone().into());
        command.extend(["-m".into(), format!("{}M", boot.memory).into()]);
        command.extend(boot.extra.iter().cloned());
        Ok(command)
    }
}
