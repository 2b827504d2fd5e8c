//! The rows of the suite: what is measured, in which guest, and how much of it.

use crate::guests::{AMD64, Flavour, I686};

/// What rows are compared as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Compute,
    ScalarFp,
    PackedFp,
    X87,
    String,
    System,
    /// Many short processes: what people do with a system.
    Macro,
    /// From the first line of the unpacked kernel to user space.
    Boot,
    /// From the start of the process to that line.
    Unpack,
}

impl Group {
    pub(super) const ALL: [Self; 9] = [
        Self::Compute,
        Self::ScalarFp,
        Self::PackedFp,
        Self::X87,
        Self::String,
        Self::System,
        Self::Macro,
        Self::Boot,
        Self::Unpack,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::ScalarFp => "scalar FP",
            Self::PackedFp => "packed FP",
            Self::X87 => "x87",
            Self::String => "string",
            Self::System => "system",
            Self::Macro => "macro",
            Self::Boot => "boot",
            Self::Unpack => "unpack",
        }
    }
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    pub(super) group: Group,
    pub(super) flavour: Flavour,
    /// Units of work, in the words of `tests/workloads`; nothing for rows of the boot itself.
    pub(super) count: Option<u64>,
}

impl Row {
    const fn work(name: &'static str, group: Group, count: u64) -> Self {
        Self { name, group, flavour: AMD64, count: Some(count) }
    }

    /// The same workload as 32-bit code in a 32-bit guest; its name ends in [`SUFFIX_32`].
    const fn work_32(name: &'static str, group: Group, count: u64) -> Self {
        Self { name, group, flavour: I686, count: Some(count) }
    }

    const fn boot(name: &'static str, group: Group, flavour: Flavour) -> Self {
        Self { name, group, flavour, count: None }
    }

    /// The row with `times` its work, or of `units` if they are given.
    pub(super) fn with_work(self, times: u64, units: Option<u64>) -> Self {
        Self { count: self.count.map(|count| units.unwrap_or(count) * times), ..self }
    }

    /// The name of the row in the program of the workloads.
    pub(super) fn workload(&self) -> &'static str {
        self.name.strip_suffix(SUFFIX_32).unwrap_or(self.name)
    }
}

const SUFFIX_32: &str = "-32";

/// All rows. The counts of workloads are chosen so that TCG takes 1 to 3 s for them on an x86-64 host
/// of 2024: programs that an engine knows after their first tenth. For shorter ones there is the boot,
/// and `exec`. `forkwait` is as long as in the literature.
pub(super) const ROWS: [Row; 39] = [
    Row::work("sieve", Group::Compute, 900),
    Row::work("calls", Group::Compute, 40_000),
    Row::work("crc", Group::Compute, 3200),
    Row::work("qsort", Group::Compute, 1500),
    Row::work("chase", Group::Compute, 4000),
    Row::work("indirect", Group::Compute, 12_000),
    Row::work("bytecode", Group::Compute, 800),
    Row::work("lz", Group::Compute, 1800),
    Row::work("sha256", Group::Compute, 7000),
    Row::work("json", Group::Compute, 7000),
    Row::work("jit-same", Group::Compute, 100_000),
    Row::work("jit-changed", Group::Compute, 100_000),
    Row::work("nbody", Group::ScalarFp, 16_000),
    Row::work("matmul-scalar", Group::ScalarFp, 800),
    Row::work("matmul-packed", Group::PackedFp, 800),
    Row::work("nbody-x87", Group::X87, 2000),
    Row::work("memcpy", Group::String, 600_000),
    Row::work("memset", Group::String, 700_000),
    Row::work("strlen", Group::String, 1_500_000),
    Row::work("strcmp", Group::String, 1_400_000),
    Row::work("memchr", Group::String, 1_200_000),
    Row::work("syscall", Group::System, 4_000_000),
    Row::work("fault", Group::System, 350),
    Row::work("mmap", Group::System, 12_000),
    Row::work("fork", Group::System, 2000),
    Row::work("exec", Group::System, 400),
    Row::work("pipe", Group::System, 21_000),
    Row::work("forkwait", Group::Macro, 40_000),
    Row::work("compile", Group::Macro, 40),
    Row::boot("boot-amd64", Group::Boot, AMD64),
    Row::boot("unpack-amd64", Group::Unpack, AMD64),
    Row::work_32("sieve-32", Group::Compute, 900),
    Row::work_32("bytecode-32", Group::Compute, 800),
    Row::work_32("json-32", Group::Compute, 7000),
    Row::work_32("nbody-x87-32", Group::X87, 2000),
    Row::work_32("syscall-32", Group::System, 2_000_000),
    Row::work_32("fork-32", Group::System, 1500),
    Row::boot("boot-686", Group::Boot, I686),
    Row::boot("unpack-686", Group::Unpack, I686),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_say_what_is_32_bit() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        for row in ROWS.iter().filter(|row| row.count.is_some()) {
            assert_eq!(row.name.ends_with(SUFFIX_32), row.flavour == I686, "{}", row.name);
        }
    }
}
