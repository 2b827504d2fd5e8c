//! Debuggers and the machine.
//!
//! [`DebugTarget`] is what a debugger sees of a machine: registers, memory by linear and by
//! physical address, and running until something stops it. Crash reports read the machine through
//! it, and [`serve`] lets GDB and LLDB in by GDB's remote protocol, on top of the crate gdbstub.
//!
//! - [`layout`]: the register file, and its description for debuggers
//! - `door`: where debuggers come in
//! - `link`: packets, their checksums and acknowledgements
//! - `session`: one debugger from its first byte to its last
//! - `stub`: gdbstub's view of a [`DebugTarget`]
//! - `server`: debuggers come and go while the machine runs

mod door;
pub mod layout;
mod link;
mod registers;
mod server;
mod session;
mod stub;
mod target;

pub use door::{Address, Bell, Door};
pub use registers::{GENERAL, Registers, SEGMENTS, SegmentRegister, TableRegister};
pub use server::serve;
pub use target::{DebugError, DebugTarget, Requests, Resume, Stopped, Watch, WatchKind};
