//! ROMs about long mode; `kit` is the ground that they stand on.

mod calls;
pub(super) mod control;
mod decoding;
pub(super) mod keys;
pub(in crate::conformance) mod kit;
pub(super) mod modes;
pub(super) mod paging;
pub(super) mod rules;
pub(super) mod transfers;

/// Vectors.
const BP: u8 = 3;
const UD: u8 = 6;
const NP: u8 = 11;
const SS: u8 = 12;
const GP: u8 = 13;
const PF: u8 = 14;
