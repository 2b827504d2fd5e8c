//! What Brolga's cross-crate tests, benches and fuzzers share, and the guests they run.

pub mod bench;
pub mod binary;
pub mod coverage;
pub mod debugger;
pub mod dmesg;
pub mod exit;
pub mod expect;
pub mod fuzz;
pub mod guests;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod kvm;
pub mod moo;
pub mod operands;
pub mod oracle;
pub mod process;
pub mod qemu_roms;
pub mod recorder;
pub mod shell;
pub mod state;
pub mod suite;
pub mod symbols;
pub mod table;
pub mod vmm;
