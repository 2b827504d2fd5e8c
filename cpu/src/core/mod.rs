//! One executing vCPU: its state, its view of memory, its bus, and the run loop. `Core` is also
//! the interpreter: it implements [`crate::backend::Backend`] with plain integers.

mod backend;
mod events;
mod fetch;
mod memory;
mod modes;
mod run;
pub mod sites;
pub mod stops;
#[cfg(test)]
mod stops_tests;
#[cfg(test)]
mod tests;
pub mod tier;
mod trail;
pub mod translated;
mod vector;

use std::sync::Arc;

use brolga_mmu::PhysMap;

pub use crate::block::Mode;
use crate::block::{Block, Op};
use crate::bus::{Bus, Lines, NoDevices};
use crate::cpuid::CpuModel;
use crate::exception::Exception;
use crate::insn::Insn;
use crate::system::interrupt::Delivery;
use crate::vcpu::{RIP, Seg, Vcpu};
pub use memory::{By, Softmmu, is_canonical};
pub use run::{Interpreter, Stop};
pub use trail::{Trail, Transfer};

/// How a handler leaves its block early. One byte, so that `Result<(), Exit>` is a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The instruction has raised [`Core::exception`] and changed nothing else.
    Fault = 1,
    /// A repeated string instruction has done some iterations, is to be executed again, and has
    /// used up its slice (or must let an event in between). Or: the instruction waits for an
    /// interrupt before it begins, and the vCPU is halted.
    Again,
    /// [`crate::block::Op::quick`] has done nothing: it takes the instruction's full meaning.
    Slow,
}

/// A vCPU with everything it executes on. Laid out as written: translated code reaches what comes
/// first with short displacements.
#[repr(C)]
pub struct Core {
    /// Architectural state.
    pub vcpu: Vcpu,
    /// What translated code shares with this core.
    pub translated: translated::Translated,
    /// TLB, page tables, physical memory.
    pub mem: Softmmu,
    /// The machine around.
    pub bus: Box<dyn Bus>,
    /// Interrupt inputs; the machine drives them between slices.
    pub lines: Lines,
    /// What CPUID and the MSRs report.
    pub model: Arc<CpuModel>,
    /// The exception behind an [`Exit::Fault`].
    pub exception: Option<Exception>,
    /// The last exceptions delivered, and the control transfers before them.
    pub trail: Trail,
    /// What a slow path has come to, beside its `Result<(), Exit>`: a result of one byte keeps the
    /// fast paths around the call free of a stack frame.
    slow_value: u64,
    /// Position in the run: see [`Progress`].
    pub(crate) progress: Progress,
    /// The exceptions behind the last delivery that did not go through at once.
    pub delivery: Delivery,
    /// Where a debugger wants it to stop.
    pub stops: stops::Stops,
    /// The mode that blocks are decoded for, kept in step with CS, SS, CR0 and so on.
    pub(crate) mode: Mode,
}

/// Where execution stands inside a slice and a block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Instructions retired when the current block was entered, plus finished REP iterations.
    pub(crate) retired: u64,
    /// The address of the block's first instruction, and of (something in) the current one: see
    /// [`Progress::index`].
    first: usize,
    current: usize,
    /// The block is left after the current instruction.
    pub(crate) leave: bool,
    /// Offset of the current complex instruction from the block's start.
    pub(crate) at: u16,
    /// The count of retired instructions at which the slice ends.
    pub(crate) slice_end: u64,
    /// Only one instruction (or one REP iteration) may be executed before events are looked at.
    pub(crate) single: bool,
    /// The machine must look before the next instruction.
    pub(crate) replan: bool,
}

impl Progress {
    /// A block begins.
    #[inline(always)]
    pub(crate) fn enter(&mut self, block: &Block<Core>) {
        self.first = block.ops.as_ptr() as usize;
        self.current = self.first;
        self.leave = false;
    }

    /// An instruction of the block begins.
    #[inline(always)]
    pub(crate) fn arrive(&mut self, insn: &Insn) {
        self.current = std::ptr::from_ref(insn) as usize;
    }

    /// A block is over.
    #[inline(always)]
    pub(crate) fn between(&mut self) {
        self.current = self.first;
    }

    /// The number of the current instruction in its block, from 0; 0 between blocks.
    #[inline(always)]
    pub(crate) fn index(&self) -> u64 {
        (self.current.wrapping_sub(self.first) / size_of::<Op<Core>>()) as u64
    }
}

impl Core {
    /// A vCPU after power-up.
    pub fn new(model: Arc<CpuModel>, map: Arc<PhysMap>, bus: Box<dyn Bus>) -> Core {
        let mut core = Core {
            vcpu: Vcpu::new(model.signature()),
            mem: Softmmu::new(map),
            bus,
            lines: Lines::default(),
            model,
            exception: None,
            trail: Trail::default(),
            delivery: Delivery::default(),
            slow_value: 0,
            translated: translated::Translated::default(),
            progress: Progress::default(),
            stops: stops::Stops::default(),
            mode: Mode::default(),
        };
        core.mode_changed();
        core
    }

    /// Gives up the vCPU, with the machine around it, so that another engine can go on with it: what
    /// stays here has the same memory, and nobody on its bus.
    pub fn hand_over(&mut self) -> Core {
        let spare = Core::new(self.model.clone(), self.mem.map.clone(), Box::new(NoDevices));
        let old = std::mem::replace(self, spare);
        let retired = old.now();
        // What was derived from the state, or found in memory, is found anew.
        let mut core = Core::new(old.model, old.mem.map, old.bus);
        core.vcpu = old.vcpu;
        core.lines = old.lines;
        core.trail = old.trail;
        core.delivery = old.delivery;
        core.stops = old.stops;
        core.progress.retired = retired;
        core.mode_changed();
        core
    }

    /// RESET: the state after power-up; retired instructions go on counting.
    pub fn reset(&mut self) {
        self.vcpu = Vcpu::new(self.model.signature());
        self.lines = Lines::default();
        self.exception = None;
        self.delivery = Delivery::default();
        self.mem.tlb.flush_all();
        self.mode_changed();
    }

    /// Instructions retired before the current one.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        self.progress.retired + self.progress.index()
    }

    /// Counts an instruction, or an iteration of one, that another engine has executed.
    pub fn count_one(&mut self) {
        self.progress.retired += 1;
    }

    /// Records `e` as the outcome of the current instruction.
    #[cold]
    pub fn raise(&mut self, e: Exception) -> Exit {
        self.exception = Some(e);
        Exit::Fault
    }

    /// Continues at `ip` (an offset in CS), already checked. Only for handlers that end a block.
    #[inline(always)]
    pub fn set_rip(&mut self, ip: u64) {
        self.vcpu.regs[RIP as usize] = ip;
    }

    /// Whether an access by an engine's own hands may have changed what comes next, so that the
    /// machine must look.
    pub fn take_replan(&mut self) -> bool {
        self.bus.take_replan() | std::mem::take(&mut self.progress.replan)
    }

    /// Leaves the block after the current instruction, and the slice if `replan`.
    pub(crate) fn leave_block(&mut self, replan: bool) {
        self.progress.leave = true;
        self.progress.replan |= replan;
    }

    /// How many iterations a repeated string instruction may do now: at least one.
    pub(crate) fn iterations_left(&self) -> u64 {
        if self.progress.single {
            return 1;
        }
        self.progress.slice_end.saturating_sub(self.now()).max(1)
    }

    /// Whether the block is to be left after the current instruction or iteration.
    pub(crate) fn must_leave(&self) -> bool {
        self.progress.leave
    }

    /// The base of the segment that an operand goes through.
    pub(crate) fn seg_base(&self, seg: Seg) -> u64 {
        if seg.is_flat() { 0 } else { self.vcpu.segs[seg.index()].base }
    }
}
