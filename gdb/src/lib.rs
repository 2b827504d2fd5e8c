//! What a debugger sees of a machine.
//!
//! [`DebugTarget`] is the interface that the machine implements: registers, memory by linear and
//! by physical address, and running a number of instructions. Crash reports read the machine
//! through it. There is no GDB session here yet: a server for GDB's remote protocol is to be built
//! on this trait.

mod registers;
mod target;

pub use registers::{GENERAL, Registers, SEGMENTS, SegmentRegister, TableRegister};
pub use target::{DebugError, DebugTarget, Stopped};
