//! Events between instructions: interrupts, traps, and what must be looked at before the next
//! instruction.

use super::Core;
use super::run::Stop;
use crate::system::{debug, interrupt};
use crate::vcpu::{Activity, Shadow, rflags};

/// What came of looking at events.
pub(super) enum Events {
    /// The slice is over.
    Stop(Stop),
    /// A handler has been entered.
    Delivered,
}

impl Core {
    /// Whether anything must be looked at before the next instruction.
    #[inline(always)]
    pub fn has_event(&self) -> bool {
        let v = &self.vcpu;
        (self.lines.intr && v.eflags & rflags::IF != 0)
            || self.lines.nmi
            || v.eflags & (rflags::TF | rflags::RF) != 0
            || v.shadow != Shadow::None
            || v.pending_db != 0
            || v.activity != Activity::Running
            || v.sys.dr7 & 0xff != 0
    }

    /// Whether the next instruction can be executed without a look around. If STI or MOV SS alone
    /// would ask for one, there is no event for them to hold off before the instruction is over:
    /// that is then settled.
    pub fn nothing_due(&mut self) -> bool {
        let progress = &self.progress;
        let leaves = progress.replan || progress.retired >= progress.slice_end || self.stops.due();
        if leaves || !self.mem.stale.is_empty() {
            return false;
        }
        let shadow = std::mem::take(&mut self.vcpu.shadow);
        let due = self.has_event();
        if due {
            self.vcpu.shadow = shadow;
        }
        !due
    }

    /// Events between instructions, in the order of SDM vol. 3, table 6-2.
    #[cold]
    pub(super) fn take_events(&mut self) -> Option<Events> {
        self.progress.at = 0;
        self.progress.between();
        if self.vcpu.activity == Activity::Shutdown {
            return Some(Events::Stop(Stop::Shutdown));
        }
        let shadow = std::mem::take(&mut self.vcpu.shadow);
        if self.vcpu.pending_db != 0 && shadow != Shadow::MovSs {
            debug::deliver_trap(self);
            return Some(self.after_delivery());
        }
        if self.lines.nmi && !self.vcpu.nmi_blocked && shadow != Shadow::MovSs {
            self.lines.nmi = false;
            self.vcpu.activity = Activity::Running;
            interrupt::deliver(self, interrupt::Event::Nmi);
            return Some(self.after_delivery());
        }
        if self.lines.intr && self.vcpu.eflags & rflags::IF != 0 && shadow == Shadow::None {
            let now = self.now();
            if let Some(vector) = self.bus.acknowledge(now) {
                self.vcpu.activity = Activity::Running;
                // Whether another interrupt waits is for the machine to say.
                self.lines.intr = false;
                self.progress.replan = true;
                interrupt::deliver(self, interrupt::Event::Interrupt(vector));
                return Some(self.after_delivery());
            }
            self.lines.intr = false;
        }
        if self.vcpu.activity != Activity::Running {
            return Some(Events::Stop(Stop::Halted));
        }
        let watching = self.vcpu.sys.dr7 & 0xff != 0;
        self.progress.single =
            shadow != Shadow::None || self.vcpu.eflags & (rflags::TF | rflags::RF) != 0 || watching;
        let begins = self.vcpu.eflags & rflags::RF == 0 && !self.vcpu.repeating;
        if watching && begins && debug::instruction_breakpoint(self) {
            return Some(self.after_delivery());
        }
        None
    }

    /// Counts a delivery; it may have shut the vCPU down.
    fn after_delivery(&mut self) -> Events {
        self.progress.retired += 1;
        match self.vcpu.activity {
            Activity::Shutdown => Events::Stop(Stop::Shutdown),
            _ => Events::Delivered,
        }
    }

    /// Delivers the exception that the current instruction has raised.
    #[cold]
    #[inline(never)]
    pub(super) fn deliver_fault(&mut self) {
        self.progress.at = 0;
        if let Some(e) = self.exception.take() {
            interrupt::deliver(self, interrupt::Event::Exception(e));
            self.after_delivery();
        }
    }
}
