//! Exceptions as the CPU raises them, with the reason that a crash report prints.

use std::fmt;

use brolga_mmu::WalkFailure;
use serde::{Serialize, Serializer};

/// Exception vectors (SDM vol. 3, table 6-1).
#[allow(missing_docs)]
pub mod vector {
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const BR: u8 = 5;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const MC: u8 = 18;
    pub const XM: u8 = 19;
}

/// Which check failed, in words that complete the sentence "raised because ...".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// A fixed text.
    Text(&'static str),
    /// A fixed text about a value: "selector beyond the table limit: 0x0048".
    Value(&'static str, u64),
    /// The entry of a vector is not in the IDT.
    IdtLimit {
        /// The vector.
        vector: u8,
        /// The IDT's limit.
        limit: u16,
    },
    /// A page walk.
    Walk(WalkFailure),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Text(t) => f.write_str(t),
            Why::Value(t, v) => write!(f, "{t}: {v:#x}"),
            Why::IdtLimit { vector, limit } => {
                write!(f, "IDT entry {vector} beyond limit {limit:#05x}")
            }
            Why::Walk(w) => write!(f, "{w}"),
        }
    }
}

impl Serialize for Why {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An exception that an instruction, or the delivery of an event, has raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// See [`vector`].
    pub vector: u8,
    /// The error code that is pushed, for vectors that have one.
    pub error: Option<u32>,
    /// The faulting linear address, for page faults: it goes to CR2.
    pub address: Option<u64>,
    /// RIP pushed is that of the *next* instruction (#BP, #OF, traps).
    pub trap: bool,
    /// Which check failed.
    pub why: Why,
}

impl Exception {
    /// An exception without error code, reported at the instruction itself.
    pub fn plain(vector: u8, why: &'static str) -> Exception {
        Exception { vector, error: None, address: None, trap: false, why: Why::Text(why) }
    }
    /// An exception with error code.
    pub fn code(vector: u8, error: u32, why: &'static str) -> Exception {
        Exception { error: Some(error), ..Exception::plain(vector, why) }
    }
    /// An exception whose error code is a selector (RPL cleared), named in the reason.
    pub fn selector(vector: u8, selector: u16, why: &'static str) -> Exception {
        Exception {
            error: Some(u32::from(selector & !3)),
            why: Why::Value(why, selector.into()),
            ..Exception::plain(vector, why)
        }
    }
    /// What failed is the delivery of an event external to the program: bit EXT of the error codes
    /// that have it (SDM vol. 3, 6.13).
    pub(crate) fn set_external(&mut self) {
        const EXT: u32 = 1;
        if matches!(self.vector, vector::TS | vector::NP | vector::SS | vector::GP | vector::AC) {
            self.error = self.error.map(|error| error | EXT);
        }
    }
    /// #GP(0).
    pub fn gp(why: &'static str) -> Exception {
        Exception::code(vector::GP, 0, why)
    }
    /// #UD.
    pub fn ud(why: &'static str) -> Exception {
        Exception::plain(vector::UD, why)
    }
}

/// The mnemonic of an exception vector: `#PF`.
pub fn name(vector: u8) -> &'static str {
    const NAMES: [&str; 20] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "CSO", "#TS", "#NP", "#SS",
        "#GP", "#PF", "15", "#MF", "#AC", "#MC", "#XM",
    ];
    NAMES.get(vector as usize).copied().unwrap_or("interrupt")
}
