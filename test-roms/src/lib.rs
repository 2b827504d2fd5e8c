//! ROM images of our own: the guest that Brolga boots when it is given nothing else, and small
//! ones for tests. They are written with iced-x86's assembler and built at run time, in about a
//! millisecond; a caller that needs one often keeps it.
//!
//! An image is [`rom::ROM_SIZE`] bytes, ends at 4 GiB, and is mirrored so that it ends at 1 MiB
//! too.

pub mod conformance;
mod default_guest;
pub mod nanobench;
pub mod rom;
mod small;

pub use default_guest::default_guest;
pub use small::{
    exit_rom, halt_forever_rom, hello_rom, reset_loop_rom, short_sleeps_rom, spin_rom,
    triple_fault_rom,
};
