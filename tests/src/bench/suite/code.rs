//! How much host code a row's guest instructions become: counted in what `--jit-dump` writes while
//! it runs. What is rarely executed counts like the rest.

use std::fs;
use std::ops::AddAssign;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The translated code of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Code {
    guest_insns: u64,
    host_insns: u64,
    host_bytes: u64,
}

impl Code {
    /// Host instructions per guest instruction; nothing if there is no code.
    pub(super) fn insns(&self) -> Option<f64> {
        self.per_guest_insn(self.host_insns)
    }

    /// Bytes of host code per guest instruction.
    pub(super) fn bytes(&self) -> Option<f64> {
        self.per_guest_insn(self.host_bytes)
    }

    fn per_guest_insn(&self, n: u64) -> Option<f64> {
        (self.guest_insns != 0).then(|| n as f64 / self.guest_insns as f64)
    }

    /// Reads the file of a region: a line about it, guest code, IR that ends in `}`, host code.
    fn of_region(text: &str) -> Option<Self> {
        let number = |unit: &str| {
            let before = text.lines().next()?.split(unit).next()?;
            before.rsplit(' ').next()?.parse().ok()
        };
        let is_insn = |line: &&str| {
            let (address, insn) = line.split_once(' ').unwrap_or_default();
            u64::from_str_radix(address, 16).is_ok() && insn.trim() != "int3"
        };
        let host = text.lines().skip_while(|line| *line != "}");
        Some(Self {
            guest_insns: number(" instructions")?,
            host_insns: host.filter(is_insn).count() as u64,
            host_bytes: number(" bytes of host code")?,
        })
    }
}

impl AddAssign for Code {
    fn add_assign(&mut self, other: Self) {
        self.guest_insns += other.guest_insns;
        self.host_insns += other.host_insns;
        self.host_bytes += other.host_bytes;
    }
}

/// Where an engine writes its regions.
pub(super) struct Dumps {
    directory: TempDir,
    seen: usize,
}

impl Dumps {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, seen: 0 })
    }

    /// The directory, as an argument.
    pub(super) fn path(&self) -> Result<&str> {
        self.directory.path().to_str().context("the temporary directory's name is not UTF-8")
    }

    /// The code written since the last time: files are numbered.
    pub(super) fn take(&mut self) -> Result<Code> {
        let entries = fs::read_dir(self.directory.path())?;
        let mut paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        paths.sort();
        let mut code = Code::default();
        for path in paths.iter().skip(self.seen) {
            let text = fs::read_to_string(path)?;
            code +=
                Code::of_region(&text).with_context(|| format!("reading {}", path.display()))?;
        }
        self.seen = paths.len();
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_counted() {
        let text = "guest 0x10 (physical 0x10), 64 bits, 2 instructions, 8 bytes of host code\n\n\
            10  nop\n11  jmp short 10h\n\nfunction u0:0() tail {\nblock0:\n    return\n}\n\n\
            7f00 push rbp\n7f01 mov rbp,rsp\n7f04 jmp r10\n7f07 int3\n";
        let code = Code::of_region(text);
        assert_eq!(code, Some(Code { guest_insns: 2, host_insns: 3, host_bytes: 8 }));
        assert_eq!(code.and_then(|code| code.insns()), Some(1.5));
        assert_eq!(Code::of_region("nothing"), None);
        assert_eq!(Code::default().bytes(), None);
    }
}
