//! The instructions that the interpreter executes for regions: code refers to them by number.

use std::cell::Cell;

use brolga_cpu::block::{Block, Mode};
use brolga_cpu::core::Core;
use brolga_cpu::cpuid::CpuModel;
use brolga_cpu::decode::{Decoded, decode};
use iced_x86::{Code, CpuidFeature};

use crate::stats::Counts;

/// One of them.
pub(crate) struct Interpreted {
    /// A block of this instruction alone.
    block: Block<Core>,
    /// Instructions that the slice must allow afterwards, for the region to go on.
    needs: u64,
    /// It computes with floating point, or its state is an operand.
    pub(crate) computes: bool,
    /// How often it has been executed.
    runs: Cell<u64>,
}

impl Interpreted {
    /// Decodes it from the first of `code`; `None` if that is not all there.
    pub(crate) fn new(code: &[u8], mode: Mode, model: &CpuModel, needs: u64) -> Option<Self> {
        let Decoded::Block(block) = decode::<Core>(code, mode, model, 1) else { return None };
        let computes = computes(code_of(&block));
        Some(Interpreted { block, needs, computes, runs: Cell::new(0) })
    }

    /// Executes it. True if its region may go on behind it.
    pub(crate) fn execute(&self, core: &mut Core) -> bool {
        self.runs.set(self.runs.get() + 1);
        core.retire_until_left(core.translated.budget);
        let plain = core.interpret(&self.block) && !self.block.jumps;
        core.translated.budget = core.left_in_slice();
        plain && core.translated.budget >= self.needs
    }

    fn code(&self) -> Code {
        code_of(&self.block)
    }
}

fn code_of(block: &Block<Core>) -> Code {
    let code = block.ops.first().map(|op| usize::from(op.insn.code));
    code.and_then(|code| Code::try_from(code).ok()).unwrap_or(Code::INVALID)
}

/// Whether an instruction may have to do with MXCSR or the x87: all that is not known to be of the
/// integer or the system kind.
fn computes(code: Code) -> bool {
    use CpuidFeature::*;
    const OTHERS: [CpuidFeature; 18] = [
        INTEL8086, INTEL186, INTEL286, INTEL386, INTEL486, X64, CPUID, CX8, CMPXCHG16B, FSGSBASE,
        INVPCID, MSR, RDRAND, RDTSCP, SEP, SMAP, SYSCALL, TSC,
    ];
    // iced counts WAIT among the instructions of the 8086.
    code == Code::Wait || !code.cpuid_features().iter().all(|feature| OTHERS.contains(feature))
}

/// All of them. A number belongs to its region until it is given back.
#[derive(Default)]
pub(crate) struct InterpretedTable {
    entries: Vec<Option<Interpreted>>,
    free: Vec<u32>,
    /// Of entries that are gone.
    counts: Counts,
}

impl InterpretedTable {
    /// Where the table lies, until numbers are next taken.
    pub(crate) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// Takes `n` numbers.
    pub(crate) fn take(&mut self, n: usize) -> Vec<u32> {
        (0..n)
            .map(|_| {
                self.free.pop().unwrap_or_else(|| {
                    self.entries.push(None);
                    self.entries.len() as u32 - 1
                })
            })
            .collect()
    }

    /// Enters an instruction under a number that has been taken.
    pub(crate) fn enter(&mut self, number: u32, interpreted: Option<Interpreted>) {
        self.entries[number as usize] = interpreted;
    }

    /// Takes numbers back.
    pub(crate) fn give_back(&mut self, numbers: &[u32]) {
        for number in numbers {
            if let Some(gone) = self.entries[*number as usize].take() {
                *self.counts.entry(gone.code()).or_default() += gone.runs.get();
            }
        }
        self.free.extend(numbers);
    }

    /// How often each kind of instruction has been executed.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = self.counts.clone();
        for entry in self.entries.iter().flatten() {
            *counts.entry(entry.code()).or_default() += entry.runs.get();
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_do_with_mxcsr_is_known() {
        use Code::*;
        let others = [Syscall, Iretq, Mov_cr_r64, Swapgs, Rdtsc, Cli, Out_imm8_AL, Movsb_m8_m8];
        assert!(others.into_iter().all(|code| !computes(code)));
        let computing = [
            Stmxcsr_m32,
            Ldmxcsr_m32,
            Fxsave_m512byte,
            Fxrstor64_m512byte,
            Xsave_mem,
            Fbld_m80bcd,
            Addss_xmm_xmmm32,
            Emms,
            Wait,
            Cvtpi2ps_xmm_mmm64,
        ];
        assert!(computing.into_iter().all(computes));
    }
}
