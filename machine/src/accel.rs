//! What executes a guest's instructions.

use brolga_cpu::core::tier::Tier;
use brolga_cpu::core::{Core, Interpreter, Stop};
use brolga_mmu::{GuestPhys, PAGE_BITS, PAGE_SIZE};
use clap::ValueEnum;

/// The accelerators there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccelKind {
    /// The interpreter.
    Interp,
    /// The interpreter, and a translator to host code for what is hot.
    Jit,
}

/// An engine with the vCPU that it runs. All engines count instructions alike and stop at the
/// same ones.
pub trait Accelerator: Send {
    /// Executes at most `budget` instructions.
    fn run(&mut self, budget: u64) -> Stop;

    /// The vCPU.
    fn core(&self) -> &Core;

    /// The vCPU, to change it between runs.
    fn core_mut(&mut self) -> &mut Core;

    /// Memory was written by somebody else than the vCPU: what was decoded from `len` bytes at
    /// `at` is dropped.
    fn invalidate_code(&mut self, at: GuestPhys, len: u64);

    /// As [`Accelerator::invalidate_code`], for all memory.
    fn invalidate_all_code(&mut self) {
        let pages: Vec<u64> = self.core().mem.code.pages().collect();
        for page in pages {
            self.invalidate_code(GuestPhys(page << PAGE_BITS), PAGE_SIZE);
        }
    }
}

impl<T: Tier> Accelerator for Interpreter<T> {
    fn run(&mut self, budget: u64) -> Stop {
        Interpreter::run(self, budget)
    }

    fn core(&self) -> &Core {
        &self.core
    }

    fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    fn invalidate_code(&mut self, at: GuestPhys, len: u64) {
        Interpreter::invalidate_code(self, at, len);
    }
}
