//! What a running process takes of the host's memory, from /proc (proc(5)).

use std::fs;

use anyhow::{Context, Result};

const KIB_PER_MIB: f64 = 1024.0;
/// What a mapping of guest RAM may lack: below 1 MiB there are other things as well.
const HOLES: u64 = 1024;

/// Memory in MiB.
pub(super) struct Memory {
    /// The largest resident set so far.
    pub(super) peak: f64,
    /// What is resident now beside guest RAM.
    pub(super) beyond_ram: f64,
}

impl Memory {
    /// Reads the memory of a process whose guest RAM is one mapping of `ram` MiB.
    pub(super) fn of_process(id: u32, ram: u64) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let peak = status.lines().find_map(|line| kib(line, "VmHWM:")).context("no VmHWM")?;
        let maps = fs::read_to_string(format!("/proc/{id}/smaps"))?;
        let beyond_ram = resident_below(&maps, ram * 1024 - HOLES);
        let mebibytes = |kib: u64| kib as f64 / KIB_PER_MIB;
        Ok(Self { peak: mebibytes(peak), beyond_ram: mebibytes(beyond_ram) })
    }
}

/// Sums the resident KiB of the mappings in an `smaps` text that are smaller than `ram` KiB.
fn resident_below(smaps: &str, ram: u64) -> u64 {
    let mut sum = 0;
    let mut is_ram = false;
    for line in smaps.lines() {
        if let Some(size) = kib(line, "Size:") {
            is_ram = size >= ram;
        } else if let Some(resident) = kib(line, "Rss:")
            && !is_ram
        {
            sum += resident;
        }
    }
    sum
}

fn kib(line: &str, label: &str) -> Option<u64> {
    line.strip_prefix(label)?.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::resident_below;

    #[test]
    fn guest_ram_is_left_out() {
        let smaps =
            "a\nSize: 8 kB\nRss: 4 kB\nb\nSize: 1024 kB\nRss: 512 kB\nc\nSize: 4 kB\nRss: 1 kB";
        assert_eq!(resident_below(smaps, 1024), 5);
    }
}
