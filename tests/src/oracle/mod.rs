//! Oracles: what real processors do, to compare ours with.

pub mod machine;
