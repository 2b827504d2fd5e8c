//! ROMs that check the processor, one for each subject.
//!
//! A check executes something and reports one value, which [`Check::expected`] is compared with by
//! whoever runs the ROM: `brolga conform`, or anybody who reads port E9h ([`Report::read`]). The
//! expected values are worked out here, from what the manual says, by code that shares nothing
//! with the emulator. A ROM ends with a 0 at the exit port; one that dies has reported what it had
//! come to.
//!
//! `kit` is the ground that they stand on, in 32-bit protected mode; `ground` is what it has in common
//! with that in 64-bit mode.

mod compute;
mod debugging;
mod exceptions;
mod features;
mod ground;
mod kit;
mod long;
mod modifying;
mod paging;
mod script;
mod segments;
mod shadows;
mod tasks;
mod timing;
mod virtual86;

use crate::rom::Emit;
pub use features::{Feature, Register};

/// Where values are reported.
pub const REPORT_PORT: u16 = 0xe9;

/// A ROM and what it should report.
#[derive(Clone, Debug)]
pub struct Rom {
    /// Its name.
    pub name: &'static str,
    /// What it checks.
    pub about: &'static str,
    /// What a processor must have for it to run.
    pub needs: Vec<Feature>,
    /// It compares times, which a guest that follows the host's clock does not keep to.
    pub in_virtual_time: bool,
    /// The image, which ends at 4 GiB.
    pub image: Vec<u8>,
    /// Its checks, in the order of their numbers.
    pub checks: Vec<Check>,
}

/// What a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Number,
    /// An [outcome](exception).
    Outcome,
}

/// One check.
#[derive(Clone, Debug)]
pub struct Check {
    /// What is checked.
    pub name: String,
    /// The manual's section that says what is right.
    pub source: &'static str,
    /// The right value, where `mask` has ones.
    pub expected: u64,
    /// The bits that the manual defines.
    pub mask: u64,
    /// What the value means.
    pub kind: Kind,
    /// What a processor must have, besides what the ROM needs, for the value to mean anything.
    pub needs: Vec<Feature>,
}

impl Check {
    /// Whether `value` is right.
    pub fn accepts(&self, value: u64) -> bool {
        (value ^ self.expected) & self.mask == 0
    }

    /// A value for people.
    pub fn show(&self, value: u64) -> String {
        let value = value & self.mask;
        match self.kind {
            Kind::Number => format!("{value:#x}"),
            Kind::Outcome => show_outcome(value as u32),
        }
    }
}

/// The outcome of what raises nothing.
pub(crate) const NOTHING: u32 = 0;
/// Bits of an outcome that a subject may use for itself: here those of a page-table entry.
pub(crate) const ACCESSED: u32 = 1 << 24;
pub(crate) const DIRTY: u32 = 1 << 25;
const RAISED: u32 = 1 << 31;

/// The outcome of what raises an exception: vector and the low half of its error code.
pub(crate) const fn exception(vector: u8, error: u32) -> u32 {
    RAISED | (vector as u32) << 16 | error & 0xffff
}

fn show_outcome(value: u32) -> String {
    const NAMES: [&str; 20] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "CSO", "#TS", "#NP", "#SS",
        "#GP", "#PF", "15", "#MF", "#AC", "#MC", "#XM",
    ];
    let mut text = if value & RAISED == 0 {
        "no exception".to_owned()
    } else {
        let vector = value >> 16 & 0xff;
        let name = NAMES.get(vector as usize).map_or(format!("vector {vector}"), |n| (*n).into());
        format!("{name}({:#x})", value & 0xffff)
    };
    for (bit, name) in [(ACCESSED, ", accessed"), (DIRTY, ", dirty")] {
        if value & bit != 0 {
            text.push_str(name);
        }
    }
    text
}

/// A value as it is reported: the check's number and its complement, then the value, 12 bytes
/// in all, the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The check's number.
    pub check: u16,
    /// The value.
    pub value: u64,
}

impl Report {
    /// The reports in what was written to [`REPORT_PORT`]; other bytes between them are passed
    /// over.
    pub fn read(mut bytes: &[u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            while let Some((record, rest)) = bytes.split_first_chunk::<12>() {
                let [a, b, c, d, value @ ..] = *record;
                let (check, complement) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                if check == !complement {
                    bytes = rest;
                    return Some(Self { check, value: u64::from_le_bytes(value) });
                }
                bytes = &bytes[1..];
            }
            None
        })
    }
}

/// Builds a ROM.
type Build = fn() -> Emit<Rom>;

/// All ROMs by name.
const ROMS: &[(&str, Build)] = &[
    ("exceptions", exceptions::rom),
    ("segments", segments::rom),
    ("paging", paging::legacy),
    ("paging-pae", paging::pae),
    ("debugging", debugging::rom),
    ("shadows", shadows::rom),
    ("tasks", tasks::rom),
    ("virtual86", virtual86::rom),
    ("modifying", modifying::rom),
    ("long-mode", long::rules::rom),
    ("long-control", long::control::rom),
    ("long-transfers", long::transfers::rom),
    ("modes", long::modes::rom),
    ("paging-4", long::paging::four_levels),
    ("paging-5", long::paging::five_levels),
    ("protection-keys", long::keys::rom),
    ("timing", timing::rom),
    ("arithmetic", compute::rules::rom),
    ("shifts", compute::shifts::rom),
    ("bits", compute::bits::rom),
    ("muldiv", compute::muldiv::rom),
    ("decimal", compute::decimal::rom),
    ("strings", compute::strings::rom),
    ("extensions", compute::extensions::rom),
    ("packed-mmx", compute::packed::mmx),
    ("packed-sse", compute::packed::sse),
    ("packed-avx", compute::packed::avx),
    ("x87", compute::x87::rom),
    ("sse-single", compute::scalar::single),
    ("sse-double", compute::scalar::double),
];

fn build((_, rom): &(&str, Build)) -> Rom {
    rom().expect("the ROMs' instructions are all encodable")
}

/// All ROMs.
pub fn all() -> Vec<Rom> {
    ROMS.iter().map(build).collect()
}

/// The ROM with this name, if there is one; no other is built.
pub fn by_name(name: &str) -> Option<Rom> {
    ROMS.iter().find(|(known, _)| *known == name).map(build)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_found_among_other_bytes() {
        let bytes = [7, 1, 0, 0xfe, 0xff, 4, 3, 2, 1, 0, 0, 0, 5, 9, 9];
        let reports: Vec<Report> = Report::read(&bytes).collect();
        assert_eq!(reports, [Report { check: 1, value: 0x0500_0000_0102_0304 }]);
    }

    #[test]
    fn outcomes_are_shown_by_name() {
        assert_eq!(show_outcome(NOTHING), "no exception");
        assert_eq!(show_outcome(exception(14, 5)), "#PF(0x5)");
        assert_eq!(show_outcome(ACCESSED | DIRTY), "no exception, accessed, dirty");
        assert_eq!(show_outcome(exception(0x40, 0)), "vector 64(0x0)");
    }

    #[test]
    fn every_rom_has_checks_with_names_of_their_own() {
        for (rom, (name, _)) in all().iter().zip(ROMS) {
            assert_eq!(rom.name, *name);
            assert_eq!(rom.image.len(), crate::rom::ROM_SIZE, "{}", rom.name);
            let mut names: Vec<&str> = rom.checks.iter().map(|check| check.name.as_str()).collect();
            assert!(!names.is_empty() && names.len() <= usize::from(u16::MAX), "{}", rom.name);
            names.sort_unstable();
            let same = names.windows(2).find(|pair| pair[0] == pair[1]);
            assert_eq!(same, None, "{}", rom.name);
        }
    }
}
