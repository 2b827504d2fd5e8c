//! A program on two engines.

use std::sync::Arc;

use anyhow::Context;
use brolga_cpu::core::{Core, Stop};
use brolga_cpu::cpuid::CpuModel;
use brolga_cpu::vcpu::Vcpu;
use brolga_machine::accel::Accelerator;
use brolga_machine::lockstep::{of_vcpu, rows};
use brolga_mmu::{GuestPhys, PhysMap, Ram};
use fastrand::Rng;

use super::bus::Answers;
use super::environment;
use super::generate::{Event, Program};
use super::layout::RAM;

/// Makes an engine for a vCPU.
pub(super) type Build<'a> = dyn Fn(Core) -> anyhow::Result<Box<dyn Accelerator>> + Sync + 'a;

/// The engines that are compared. The second one gets its budgets in pieces of random lengths.
pub(super) type Engines<'a> = [&'a Build<'a>; 2];

/// Where two engines are seen to differ.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    /// The last count of instructions at which they agreed.
    pub(super) agreed: u64,
    /// The count that both were to run to.
    pub(super) at: u64,
    /// The states, the last that both agreed on first.
    pub(super) before: Box<State>,
    pub(super) after: [Box<State>; 2],
}

/// What came of a program: the last state, on which the engines agree, or how they differ.
pub(super) type Outcome = Result<Box<State>, Box<Difference>>;

/// What is compared.
#[derive(Clone, PartialEq)]
pub(super) struct State {
    pub(super) vcpu: Vcpu,
    pub(super) retired: u64,
    pub(super) ended: Option<Stop>,
    /// Vector, error code and address of the exceptions of the last delivery that failed at first.
    pub(super) raised: Vec<(u8, Option<u32>, Option<u64>)>,
    pub(super) ram: Vec<u8>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "after {} instructions", self.retired)
    }
}

/// Runs a program on both engines, to its end or the first difference.
pub(super) fn run(engines: Engines<'_>, program: &Program) -> anyhow::Result<Outcome> {
    let memory = environment::memory(program)?;
    let mut first = Side::new(engines[0], program, &memory, u64::MAX)?;
    let mut rng = Rng::with_seed(!program.seed);
    let longest = [u64::MAX, 1, 4, 30, 300][rng.usize(..5)];
    let mut second = Side::new(engines[1], program, &memory, longest)?;
    let mut before = Box::new(first.state());
    for &(at, event) in program.events.iter().chain(&[(program.budget, Event::Look)]) {
        first.run_to(at, &mut rng);
        second.run_to(at, &mut rng);
        if !first.agrees(&second) {
            let after = [Box::new(first.state()), Box::new(second.state())];
            let agreed = before.retired;
            return Ok(Err(Box::new(Difference { agreed, at, before, after })));
        }
        before = Box::new(first.state());
        if first.ended.is_some() {
            break;
        }
        first.happens(event);
        second.happens(event);
    }
    Ok(Ok(before))
}

/// One of the engines.
struct Side {
    engine: Box<dyn Accelerator>,
    ended: Option<Stop>,
    /// The longest piece of a budget.
    longest: u64,
}

impl Side {
    fn new(
        build: &Build<'_>,
        program: &Program,
        memory: &[u8],
        longest: u64,
    ) -> anyhow::Result<Self> {
        let mut map = PhysMap::new(Ram::new(RAM)?);
        map.add_ram(GuestPhys(0), RAM)?;
        let model = CpuModel::by_name("max").context("the model `max`")?;
        let bus = Box::new(Answers::default());
        let mut core = Core::new(Arc::new(model), Arc::new(map), bus);
        environment::begin(&mut core, program, memory)?;
        Ok(Self { engine: build(core)?, ended: None, longest })
    }

    /// Runs until `count` instructions are retired, or nothing can wake or restart the vCPU.
    fn run_to(&mut self, count: u64, rng: &mut Rng) {
        let mut woken = None;
        while self.ended.is_none() && self.engine.core().now() < count {
            let left = count - self.engine.core().now();
            let piece = if self.longest == u64::MAX { left } else { rng.u64(1..=self.longest) };
            match self.engine.run(piece.min(left)) {
                Stop::Budget | Stop::Replan => {}
                // An NMI wakes it, except from a handler of one.
                Stop::Halted if woken != Some(self.engine.core().now()) => {
                    woken = Some(self.engine.core().now());
                    self.engine.core_mut().lines.nmi = true;
                }
                stop => self.ended = Some(stop),
            }
        }
    }

    fn happens(&mut self, event: Event) {
        let lines = &mut self.engine.core_mut().lines;
        match event {
            Event::Interrupt => lines.intr = true,
            Event::Nmi => lines.nmi = true,
            Event::Look => {}
            Event::Dma(at, byte) => {
                // The address lies in RAM.
                let _ = self.engine.core().mem.map.write_slice(GuestPhys(at), &[byte]);
                self.engine.invalidate_code(GuestPhys(at), 1);
            }
        }
    }

    fn agrees(&self, other: &Side) -> bool {
        let (a, b) = (self.engine.core(), other.engine.core());
        a.now() == b.now()
            && self.ended == other.ended
            && a.vcpu == b.vcpu
            && raised(a) == raised(b)
            && self.ram() == other.ram()
    }

    fn ram(&self) -> Vec<u8> {
        let mut bytes = vec![0; RAM as usize];
        // All of it is mapped.
        let _ = self.engine.core().mem.map.ram().read_bytes(0, &mut bytes);
        bytes
    }

    fn state(&self) -> State {
        let core = self.engine.core();
        State {
            vcpu: core.vcpu.clone(),
            retired: core.now(),
            ended: self.ended,
            raised: raised(core),
            ram: self.ram(),
        }
    }
}

fn raised(core: &Core) -> Vec<(u8, Option<u32>, Option<u64>)> {
    core.delivery.chain.iter().map(|link| (link.vector, link.error, link.address)).collect()
}

impl Difference {
    /// The lines of a report.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { agreed, at, before, after } = self;
        let mut lines = vec![format!("agree after {agreed} instructions, differ after {at}:")];
        let fields = after.each_ref().map(|state| of_vcpu(&state.vcpu));
        let rows = rows(&of_vcpu(&before.vcpu), fields.each_ref().map(Vec::as_slice));
        lines.extend(rows.iter().map(ToString::to_string));
        let [first, second] = after;
        if first.retired != second.retired || first.ended != second.ended {
            let end = |state: &State| format!("{} {:?}", state.retired, state.ended);
            lines.push(format!("> retired, end: {} and {}", end(first), end(second)));
        }
        if first.raised != second.raised {
            lines.push(format!("> raised: {:x?} and {:x?}", first.raised, second.raised));
        }
        let differing = (0..first.ram.len()).filter(|&at| first.ram[at] != second.ram[at]);
        lines.extend(differing.take(16).map(|at| {
            let [was, a, b] = [&**before, first, second].map(|state| state.ram[at]);
            format!("> at {at:#x}: {was:02x}, then {a:02x} and {b:02x}")
        }));
        lines
    }
}
