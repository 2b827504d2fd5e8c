//! Oracles: what real processors do, to compare ours with.

pub mod check;
pub mod engines;
pub mod families;
pub mod generate;
pub mod guest;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod host;
pub mod known;
pub mod layout;
pub mod machine;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native;
pub mod state;
pub mod vectors;
