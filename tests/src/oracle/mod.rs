//! Oracles: what real processors do, to compare ours with.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod check;
pub mod engines;
pub mod families;
pub mod generate;
pub mod guest;
pub mod known;
pub mod layout;
pub mod machine;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native;
pub mod state;
