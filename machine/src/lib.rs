//! The PC that Brolga emulates, and the program that runs it.
//!
//! - [`board`]: the chips and how they are wired.
//! - [`clock`], [`run`]: the guest's time, and the event loop.
//! - [`accel`]: what executes instructions; `kvm`: one of them, on hosts with Linux on x86-64.
//! - [`firmware`], [`loader`]: what is in memory before the first instruction.
//! - [`machine`]: all of it together.
//! - [`debug`], [`crash`], [`hash`]: looking into a machine.
//! - [`lockstep`]: two engines side by side; [`conform`]: an engine against test ROMs and vectors;
//!   [`compare`]: what engines take for operations.
//! - [`cli`], [`terminal`], [`serial`], [`exit`]: the program around it.

pub mod accel;
pub mod board;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod conform;
pub mod crash;
pub mod debug;
pub mod exit;
pub mod firmware;
pub mod hash;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod kvm;
mod linear;
pub mod loader;
pub mod lockstep;
pub mod machine;
pub mod run;
pub mod serial;
mod start;
pub mod terminal;
