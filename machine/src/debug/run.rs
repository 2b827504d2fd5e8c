//! How the machine runs while debuggers may come in.

use brolga_cpu::core::stops::{Hit, StopPlan, WatchFor, Watchpoint};
use brolga_cpu::exception;
use brolga_gdb::{DebugTarget, Requests, Resume, Stopped, Watch, WatchKind};

use crate::board::lock;
use crate::crash::CrashReport;
use crate::exit::End;
use crate::machine::Machine;
use crate::run::Limits;

/// Makes `--trace`'s topics, or `off`, what is traced.
pub(crate) type Tracer = Box<dyn FnMut(&str) -> Result<(), String> + Send>;

/// What the machine knows of its debuggers.
#[derive(Default)]
pub(crate) struct DebugState {
    /// Changes what is traced.
    pub(crate) tracer: Option<Tracer>,
    /// What ends the run from outside.
    pub(super) limits: Limits,
    /// A debugger is there.
    pub(super) engaged: bool,
    /// What it has asked for by command.
    pub(super) wishes: Wishes,
    /// How the run has ended.
    pub(super) end: Option<End>,
    /// The count of instructions at which the debugger was told of a breakpoint that it does not
    /// know, and will not step over.
    told_of_breakpoint: Option<u64>,
    /// The count of instructions at which the debugger was told that the machine is about to die.
    told_of_death: Option<u64>,
}

/// What a debugger has asked for by command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// Stops, but for those that the protocol has packets for.
    pub(super) plan: StopPlan,
    /// Of `plan.vectors`, those that are only told of.
    pub(super) told: [u64; 4],
    /// The count of instructions to stop at.
    pub(super) goto: Option<u64>,
}

impl DebugState {
    /// Whether a debugger is there that has not yet been told of the machine's death, at this
    /// count of instructions.
    pub(crate) fn is_to_see_the_end(&self, retired: u64) -> bool {
        self.engaged && self.told_of_death != Some(retired)
    }
}

impl Machine {
    /// [`DebugTarget::resume`].
    pub(super) fn run_for_debugger(
        &mut self,
        how: Resume,
        requests: &Requests,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Stopped {
        if let Some(end) = &self.debug.end {
            return Stopped::Ended(end.status());
        }
        lock(&self.chipset).clock.go_on();
        let stopped = match how {
            Resume::Continue => {
                self.ask_for_stops(requests);
                if self.debug.told_of_breakpoint == Some(self.retired()) {
                    self.accel.core_mut().pass_breakpoint();
                }
                self.run_up_to(self.debug.wishes.goto, requests, interrupted)
            }
            Resume::Step => self.step(requests, interrupted),
            Resume::StepInside { start, end } => {
                self.step_inside(start, end, requests, interrupted)
            }
        };
        // No timer goes on while the clock stands.
        self.accel.settle();
        lock(&self.chipset).clock.stop();
        // Whoever looks at the console sees all that the guest has written. A failure shows again.
        let _ = self.flush();
        stopped
    }

    fn ask_for_stops(&mut self, requests: &Requests) {
        let mut plan = self.debug.wishes.plan.clone();
        plan.breakpoints.extend(&requests.breakpoints);
        plan.watchpoints.extend(requests.watches.iter().map(watchpoint));
        self.accel.core_mut().set_stops(plan);
    }

    /// One step, whatever breakpoint the instruction has.
    fn step(&mut self, requests: &Requests, interrupted: &mut dyn FnMut() -> bool) -> Stopped {
        self.accel.core_mut().pass_breakpoint();
        self.run_up_to(Some(self.retired() + 1), requests, interrupted)
    }

    fn step_inside(
        &mut self,
        start: u64,
        end: u64,
        requests: &Requests,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Stopped {
        self.ask_for_stops(requests);
        loop {
            let stopped = self.step(requests, interrupted);
            let at = self.registers().linear_rip();
            if stopped != Stopped::Done || !(start..end).contains(&at) {
                return stopped;
            }
            if requests.breakpoints.contains(&at) {
                return Stopped::Breakpoint(at);
            }
        }
    }

    /// Runs until `goal` instructions are retired, or something stops it before.
    fn run_up_to(
        &mut self,
        goal: Option<u64>,
        requests: &Requests,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Stopped {
        let most = self.debug.limits.instructions;
        let instructions = [goal, most].into_iter().flatten().min();
        let limits = Limits { instructions, ..self.debug.limits };
        loop {
            if interrupted() {
                return Stopped::Interrupted;
            }
            match self.turn(&limits) {
                Ok(()) => {}
                Err(End::InstructionLimit) if most.is_none_or(|most| self.retired() < most) => {
                    return self.arrived();
                }
                Err(end) => return self.ended(end),
            }
            if let Some(hit) = self.accel.core_mut().stops.take() {
                return self.tell(hit, requests);
            }
        }
    }

    /// The goal is reached.
    fn arrived(&mut self) -> Stopped {
        let goto = &mut self.debug.wishes.goto;
        match goto.take_if(|goal| *goal <= self.accel.core().now()) {
            Some(goal) => Stopped::Noticed(format!("{goal} instructions are retired")),
            None => Stopped::Done,
        }
    }

    /// The run is over, unless it ends in a death that a debugger has not seen.
    fn ended(&mut self, end: End) -> Stopped {
        let retired = self.retired();
        let dies = matches!(end, End::TripleFault { .. } | End::Halted { .. });
        if dies && self.debug.is_to_see_the_end(retired) {
            self.debug.told_of_death = Some(retired);
            let what = end.message().unwrap_or_default();
            let why = match &end {
                End::TripleFault { report } => causes(report),
                _ => String::new(),
            };
            return Stopped::Dying(format!("{what}{why}"));
        }
        let status = end.status();
        self.debug.end = Some(end);
        Stopped::Ended(status)
    }

    fn tell(&mut self, hit: Hit, requests: &Requests) -> Stopped {
        let direction =
            |write, out: &'static str, into: &'static str| if write { out } else { into };
        Stopped::Noticed(match hit {
            Hit::Breakpoint { at } if requests.breakpoints.contains(&at) => {
                return Stopped::Breakpoint(at);
            }
            Hit::Breakpoint { at } => {
                self.debug.told_of_breakpoint = Some(self.retired());
                format!("breakpoint by physical address, at {at:#x}")
            }
            Hit::Watchpoint { at, kind, .. } => {
                return Stopped::Watchpoint { at, kind: watch_kind(kind) };
            }
            Hit::Vector { vector, from, error } => {
                let error = error.map_or(String::new(), |error| format!(", error code {error:#x}"));
                let address = match vector {
                    exception::vector::PF => format!(", for {:#x}", self.core().vcpu.sys.cr2),
                    _ => String::new(),
                };
                let name = exception::name(vector);
                let text = format!("vector {vector} ({name}{error}{address}) from {from:#x}");
                if self.debug.wishes.told[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0 {
                    return Stopped::Said(format!("{}: {text}", self.retired()));
                }
                text
            }
            Hit::Port { port, bytes, write, value } => {
                let what = direction(write, "out", "in");
                format!("{what} {port:#06x}: {bytes} bytes, {value:#x}")
            }
            Hit::Mmio { at, bytes, write, value } => {
                let what = direction(write, "store to", "load from");
                format!("{what} {at:#x}: {bytes} bytes, {value:#x}")
            }
            Hit::Control { number, value } => format!("cr{number} is written: {value:#x}"),
        })
    }
}

/// The causes of a triple fault, a line each.
fn causes(report: &CrashReport) -> String {
    report.chain.iter().map(|cause| format!("\n  {cause}")).collect()
}

fn watchpoint(watch: &Watch) -> Watchpoint {
    let kind = match watch.kind {
        WatchKind::Write => WatchFor::Writes,
        WatchKind::Read => WatchFor::Reads,
        WatchKind::Access => WatchFor::Accesses,
    };
    Watchpoint { at: watch.at, len: watch.len, kind }
}

fn watch_kind(kind: WatchFor) -> WatchKind {
    match kind {
        WatchFor::Writes => WatchKind::Write,
        WatchFor::Reads => WatchKind::Read,
        WatchFor::Accesses => WatchKind::Access,
    }
}
