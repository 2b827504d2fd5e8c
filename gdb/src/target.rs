//! The interface between a debugger and a machine.

use std::collections::BTreeSet;

use crate::layout::Register;
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
    /// A register that cannot take a value.
    #[error("the register does not take this value")]
    BadValue,
}

/// Which accesses a watchpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchKind {
    /// Writes.
    Write,
    /// Reads.
    Read,
    /// Both.
    Access,
}

/// Some bytes of linear memory that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watch {
    /// The first byte.
    pub at: u64,
    /// How many.
    pub len: u64,
    /// What for.
    pub kind: WatchKind,
}

/// What a debugger's protocol wants to stop for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Linear addresses of instructions.
    pub breakpoints: BTreeSet<u64>,
    /// Watched data.
    pub watches: Vec<Watch>,
}

/// How far to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// Until something stops it.
    #[default]
    Continue,
    /// For one instruction, one iteration of a repeated one, or up to the first instruction of the
    /// handler that is entered instead.
    Step,
    /// In such steps, until the linear instruction pointer leaves a range.
    StepInside {
        /// The first address of the range.
        start: u64,
        /// The first address behind it.
        end: u64,
    },
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The steps asked for are done.
    Done,
    /// The debugger has something to say.
    Interrupted,
    /// The next instruction has a breakpoint, at this linear address.
    Breakpoint(u64),
    /// The last instruction has accessed watched data.
    Watchpoint {
        /// The first watched byte that it accessed.
        at: u64,
        /// What the watchpoint is for.
        kind: WatchKind,
    },
    /// Something that people have asked for in other ways than by the protocol; in words.
    Noticed(String),
    /// As [`Stopped::Noticed`], but only to be told: the run is to go on.
    Said(String),
    /// The processor has shut down, or halted for good: in words. Going on ends the machine, or
    /// resets it.
    Dying(String),
    /// The machine has come to its end, with this exit status.
    Ended(u8),
}

/// A machine that can be looked into, changed, and run step by step.
///
/// Looking has no side effects: accessed flags are not set, devices are not touched.
pub trait DebugTarget {
    /// The registers, for reports.
    fn registers(&self) -> Registers;

    /// Whether the processor has 64-bit mode, in whatever mode it is now.
    fn has_long_mode(&self) -> bool;

    /// One register.
    fn read_register(&self, register: Register) -> u128;

    /// Changes one register, with what follows from it.
    fn write_register(&mut self, register: Register, value: u128) -> Result<(), DebugError>;

    /// Reads memory as the running program sees it, ignoring access rights. Returns the number of
    /// bytes that could be read: fewer than asked for where a page is not mapped or not memory.
    fn read_linear(&self, at: u64, to: &mut [u8]) -> usize;

    /// Writes memory as the running program sees it, ignoring access rights.
    fn write_linear(&mut self, at: u64, from: &[u8]) -> Result<(), DebugError>;

    /// Reads memory by physical address.
    fn read_physical(&self, at: u64, to: &mut [u8]) -> Result<(), DebugError>;

    /// Writes memory by physical address.
    fn write_physical(&mut self, at: u64, from: &[u8]) -> Result<(), DebugError>;

    /// Runs. `interrupted` is asked now and then whether the debugger wants the machine back.
    fn resume(
        &mut self,
        how: Resume,
        requests: &Requests,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Stopped;

    /// Looks after what goes on while the machine stands: the exit status if it is to end.
    fn stand(&mut self) -> Option<u8>;

    /// Executes a command that a person has typed, and answers in words.
    fn command(&mut self, line: &str) -> String;

    /// Starts the machine anew, as its reset button would.
    fn restart(&mut self) -> Result<(), DebugError>;

    /// Ends the machine: [`DebugTarget::stand`] and [`DebugTarget::resume`] say so from now on.
    fn kill(&mut self);

    /// A debugger has come: the machine stands, and does not die before the debugger has seen it.
    fn engage(&mut self);

    /// The debugger has gone: nothing of it stays behind.
    fn release(&mut self);
}
