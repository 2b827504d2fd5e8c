//! ROMs about what instructions compute: results and flags of each group, for edges and all modes of
//! rounding. What is right is worked out by [`integer`], [`lanes`], [`exact`], [`float`] and
//! [`extended`], models of ours from the manual's definitions that share nothing with the emulator:
//! integers in 128 bits or bit by bit, floating point with exact integers.

pub(super) mod bits;
pub(super) mod decimal;
mod exact;
mod extended;
pub(super) mod extensions;
mod float;
mod integer;
mod lanes;
pub(super) mod muldiv;
pub(super) mod packed;
pub(super) mod rules;
pub(super) mod scalar;
pub(super) mod shifts;
pub(super) mod strings;
pub(super) mod x87;
