//! Where a debugger wants the vCPU to stop. Nothing here is visible to the guest, and nothing is
//! looked at on a fast path:
//!
//! - A breakpoint is *armed* in physical memory when its page is entered into the TLB for
//!   execution. What was made from the instruction there is dropped; what is made afterwards ends
//!   before it; and the instruction itself is never kept, so that each way to it leads through the
//!   run loop's look for an unknown block, where the breakpoint is checked.
//! - Pages with a watchpoint are not entered into the TLB.
//! - Vectors, ports, registers and control registers are asked for where those are accessed, which
//!   is slow anyway.

use std::ops::RangeInclusive;

use brolga_mmu::{GuestPhys, Linear, PAGE_BITS, PAGE_SIZE};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Core;

/// Which accesses a watchpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WatchFor {
    /// Writes.
    Writes,
    /// Reads.
    Reads,
    /// Both.
    Accesses,
}

impl WatchFor {
    fn matches(self, write: bool) -> bool {
        match self {
            WatchFor::Writes => write,
            WatchFor::Reads => !write,
            WatchFor::Accesses => true,
        }
    }
}

/// Some bytes of linear memory that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watchpoint {
    /// The first byte.
    pub at: u64,
    /// How many, at least one.
    pub len: u64,
    /// What for.
    pub kind: WatchFor,
}

impl Watchpoint {
    /// The last byte; the watched bytes do not wrap.
    fn last(&self) -> u64 {
        self.at.saturating_add(self.len.max(1) - 1)
    }

    /// The first watched byte among `len` bytes at `at`.
    fn touched(&self, at: u64, len: u64) -> Option<u64> {
        let last = at.saturating_add(len - 1);
        (at <= self.last() && self.at <= last).then_some(at.max(self.at))
    }
}

/// All that the vCPU is to stop for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopPlan {
    /// Linear addresses of instructions, in any address space.
    pub breakpoints: FxHashSet<u64>,
    /// Physical addresses of instructions.
    pub physical: FxHashSet<u64>,
    /// Watched data.
    pub watchpoints: Vec<Watchpoint>,
    /// Vectors of exceptions and interrupts, one bit each.
    pub vectors: [u64; 4],
    /// I/O ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Physical addresses of registers.
    pub mmio: Vec<RangeInclusive<u64>>,
    /// Control registers that are written, one bit each.
    pub controls: u16,
}

impl StopPlan {
    /// Whether `vector` is asked for.
    pub fn has_vector(&self, vector: u8) -> bool {
        self.vectors[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0
    }
}

/// Why the vCPU has stopped for the debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// The next instruction has a breakpoint.
    Breakpoint {
        /// Its linear address.
        at: u64,
    },
    /// The last instruction has accessed watched data.
    Watchpoint {
        /// The first watched byte that it accessed.
        at: u64,
        /// What the watchpoint is for.
        kind: WatchFor,
        /// Whether the access was a write.
        write: bool,
    },
    /// A handler has been entered.
    Vector {
        /// The vector.
        vector: u8,
        /// The linear address that it is to return to.
        from: u64,
        /// The error code.
        error: Option<u32>,
    },
    /// The last instruction has accessed a port.
    Port {
        /// The port.
        port: u16,
        /// Bytes.
        bytes: u64,
        /// OUT.
        write: bool,
        /// What was read or written.
        value: u64,
    },
    /// The last instruction has accessed a memory-mapped register.
    Mmio {
        /// The physical address.
        at: u64,
        /// Bytes.
        bytes: u64,
        /// A store.
        write: bool,
        /// What was read or written.
        value: u64,
    },
    /// The last instruction has written a control register.
    Control {
        /// Its number.
        number: u8,
        /// What it holds now.
        value: u64,
    },
}

/// The state of a debugger's wishes on one vCPU.
#[derive(Debug, Default)]
pub struct Stops {
    plan: StopPlan,
    /// The linear pages of breakpoints.
    pages: FxHashSet<u64>,
    /// For each physical page with armed breakpoints, their offsets.
    armed: FxHashMap<u64, Vec<u16>>,
    /// Breakpoints do not count while this many instructions are retired.
    passing: Option<u64>,
    hit: Option<Hit>,
}

impl Stops {
    /// What is asked for.
    pub fn plan(&self) -> &StopPlan {
        &self.plan
    }

    /// Takes the reason of the stop.
    pub fn take(&mut self) -> Option<Hit> {
        self.hit.take()
    }

    /// Whether there is a reason to stop.
    #[inline(always)]
    pub(super) fn due(&self) -> bool {
        self.hit.is_some()
    }

    /// Whether the instruction at `phys` may have a breakpoint.
    pub(super) fn is_armed(&self, phys: GuestPhys) -> bool {
        self.armed_in(phys.page_number()).contains(&(phys.page_offset() as u16))
    }

    /// Offsets in a physical page of the instructions that may have a breakpoint: what is made from
    /// the page's code must neither contain nor pass one.
    pub fn armed_in(&self, page: u64) -> &[u16] {
        self.armed.get(&page).map_or(&[], Vec::as_slice)
    }

    /// Whether `at`'s page holds breakpoints: its code must come through [`Core::arm`].
    pub(super) fn breaks_in_page(&self, at: Linear) -> bool {
        !self.pages.is_empty() && self.pages.contains(&at.page_number())
    }

    /// Whether `at`'s page holds watched data.
    pub(super) fn watches_page(&self, at: Linear) -> bool {
        let page = at.page_base().0;
        self.plan.watchpoints.iter().any(|w| w.touched(page, PAGE_SIZE).is_some())
    }

    fn breaks_at(&self, at: Linear, phys: GuestPhys) -> bool {
        self.plan.breakpoints.contains(&at.0) || self.plan.physical.contains(&phys.0)
    }
}

impl Core {
    /// Asks for other stops than before.
    pub fn set_stops(&mut self, plan: StopPlan) {
        if plan == self.stops.plan {
            return;
        }
        let armed = std::mem::take(&mut self.stops.armed);
        self.mem.stale.extend(armed.keys().map(|page| (GuestPhys(page << PAGE_BITS), PAGE_SIZE)));
        self.stops.pages = plan.breakpoints.iter().map(|at| at >> PAGE_BITS).collect();
        self.stops.plan = plan;
        // Everything comes in anew: what is executed is armed, what is watched stays out.
        self.mem.tlb.flush_all();
        let physical: Vec<u64> = self.stops.plan.physical.iter().copied().collect();
        for at in physical {
            self.arm_at(GuestPhys(at));
        }
    }

    /// The instruction at RIP is executed even if it has a breakpoint.
    pub fn pass_breakpoint(&mut self) {
        self.stops.passing = Some(self.progress.retired);
    }

    /// The page of `at` is at `phys` and about to be executed: arms its breakpoints.
    pub(super) fn arm(&mut self, at: Linear, phys: GuestPhys) {
        if !self.stops.breaks_in_page(at) {
            return;
        }
        let (from, to) = (at.page_base().0, phys.page_base().0);
        let in_page = |b: &&u64| **b >> PAGE_BITS == at.page_number();
        let here: Vec<u64> =
            self.stops.plan.breakpoints.iter().filter(in_page).map(|b| b - from + to).collect();
        for at in here {
            self.arm_at(GuestPhys(at));
        }
    }

    fn arm_at(&mut self, at: GuestPhys) {
        let offsets = self.stops.armed.entry(at.page_number()).or_default();
        let offset = at.page_offset() as u16;
        if !offsets.contains(&offset) {
            offsets.push(offset);
            self.mem.stale.push((at, 1));
        }
    }

    /// Whether to stop before the instruction at RIP, which lies at `phys`.
    pub(super) fn stops_before(&mut self, at: Linear, phys: GuestPhys) -> bool {
        let passes = self.stops.passing == Some(self.progress.retired) || self.vcpu.repeating;
        if passes || !self.stops.breaks_at(at, phys) {
            return false;
        }
        self.stops.hit = Some(Hit::Breakpoint { at: at.0 });
        true
    }

    /// The current instruction accesses data in a watched page.
    pub(super) fn watch_for_debugger(&mut self, at: Linear, len: u64, write: bool) {
        let mut touched = self.stops.plan.watchpoints.iter().filter_map(|w| {
            let at = w.touched(at.0, len).filter(|_| w.kind.matches(write))?;
            Some(Hit::Watchpoint { at, kind: w.kind, write })
        });
        if let Some(hit) = touched.next() {
            self.stop_for(hit);
        }
    }

    /// A handler has been entered for `vector`; `from` is its return address.
    pub(crate) fn vector_entered(&mut self, vector: u8, from: u64, error: Option<u32>) {
        if self.stops.plan.has_vector(vector) {
            self.stop_for(Hit::Vector { vector, from, error });
        }
    }

    /// A port has been accessed.
    pub(crate) fn port_accessed(&mut self, port: u16, bytes: u64, write: bool, value: u64) {
        let last = port.saturating_add(bytes as u16 - 1);
        let touches = |r: &RangeInclusive<u16>| *r.start() <= last && port <= *r.end();
        if self.stops.plan.ports.iter().any(touches) {
            self.stop_for(Hit::Port { port, bytes, write, value });
        }
    }

    /// A memory-mapped register has been accessed.
    pub(super) fn mmio_accessed(&mut self, at: GuestPhys, bytes: u64, write: bool, value: u64) {
        let last = at.0.saturating_add(bytes - 1);
        let touches = |r: &RangeInclusive<u64>| *r.start() <= last && at.0 <= *r.end();
        if self.stops.plan.mmio.iter().any(touches) {
            self.stop_for(Hit::Mmio { at: at.0, bytes, write, value });
        }
    }

    /// A control register has been written.
    pub(crate) fn control_written(&mut self, number: u8, value: u64) {
        if self.stops.plan.controls >> (number & 15) & 1 != 0 {
            self.stop_for(Hit::Control { number, value });
        }
    }

    /// Stops after the current instruction. The first reason counts.
    fn stop_for(&mut self, hit: Hit) {
        self.stops.hit.get_or_insert(hit);
        self.leave_block(false);
    }
}
