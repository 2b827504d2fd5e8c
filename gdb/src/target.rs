//! The interface between a debugger and a machine.

use crate::registers::Registers;

/// Why a debugger's request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DebugError {
    /// Nothing is mapped at a linear address.
    #[error("nothing is mapped at {0:#x}")]
    NotMapped(u64),
    /// A physical address that is not memory.
    #[error("there is no memory at {0:#x}")]
    NoMemory(u64),
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The instructions asked for are executed.
    Done,
    /// The machine has come to an end: powered off, shut down, or halted for good.
    Ended,
}

/// A machine that can be looked into, changed, and run step by step.
///
/// Looking has no side effects: accessed flags are not set, devices are not touched.
pub trait DebugTarget {
    /// The registers.
    fn registers(&self) -> Registers;

    /// Reads memory as the running program sees it, ignoring access rights. Returns the number of
    /// bytes that could be read: fewer than asked for where a page is not mapped or not memory.
    fn read_linear(&self, at: u64, to: &mut [u8]) -> usize;

    /// Writes memory as the running program sees it, ignoring access rights.
    fn write_linear(&mut self, at: u64, from: &[u8]) -> Result<(), DebugError>;

    /// Reads memory by physical address.
    fn read_physical(&self, at: u64, to: &mut [u8]) -> Result<(), DebugError>;

    /// Writes memory by physical address.
    fn write_physical(&mut self, at: u64, from: &[u8]) -> Result<(), DebugError>;

    /// Runs for a number of instructions.
    fn run(&mut self, instructions: u64) -> Stopped;
}
