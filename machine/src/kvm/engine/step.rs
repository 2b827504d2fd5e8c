//! KVM one instruction at a time, as an oracle for other engines: every instruction is counted, and
//! time is that count.
//!
//! KVM executes what it can be asked about. The interpreter delivers events and executes what
//! follows: what a single step changes ([`classes::is_ours`]), what KVM gives up on, and instructions that
//! fault. That an instruction faults is KVM's to say, though: it works with an IDT that delivers
//! nothing, so that a fault shuts it down with nothing changed. If the interpreter then does not
//! fault, that is a difference, and the vCPU is shut down for all to see.

mod classes;
mod operand;

use std::io;

use brolga_cpu::core::{Core, Stop};
use brolga_cpu::vcpu::{Activity, RIP, TableReg, Vcpu, cr0, efer, gpr, rflags};
use brolga_mmu::GuestPhys;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

use super::{Engine, Exit};
use crate::accel::Accelerator;
use crate::kvm::state;
use crate::linear;
use classes::{is_ours, is_unknown_to_emulators, loses_the_step, repetition, untold};
use operand::Operand;

/// The longest instruction (SDM vol. 2, 2.3.11).
const LONGEST: usize = 15;

/// An IDT that delivers nothing: too short for any vector, and in real mode, where KVM does not look
/// at the limit, where there is no memory.
const NOWHERE: TableReg = TableReg { base: 0xf000_0000, limit: 0 };

/// The engine.
pub struct Stepping {
    engine: Engine,
    /// The state that KVM holds, if it is known: what has not changed is not moved again.
    held: Option<Vcpu>,
}

/// What came of a step.
enum Step {
    /// It is done.
    Done,
    /// The instruction faults.
    Faults,
    /// It is the interpreter's, for this reason.
    Ours(String),
}

impl Stepping {
    /// Has `engine` go in single steps.
    pub fn new(mut engine: Engine) -> Self {
        engine.tsc_is_ours = true;
        Self { engine, held: None }
    }

    fn vcpu(&mut self) -> &mut Vcpu {
        &mut self.engine.interpreter.core.vcpu
    }

    /// Executes one instruction, or lets one event in.
    fn step(&mut self) -> Option<Stop> {
        let core = &self.engine.interpreter.core;
        if core.has_event() {
            return self.interpret("an event is due");
        }
        if !core.mem.map.a20() {
            return self.interpret("the A20 gate is closed");
        }
        let Some(insn) = fetch(core) else {
            return self.interpret("code that cannot be read");
        };
        if is_ours(&insn) || core.vcpu.long_mode() && loses_the_step(&insn) {
            return self.interpret(&format!("not to be stepped: {}", name(&insn)));
        }
        let before = core.vcpu.clone();
        let untold = untold(&insn);
        let operand = if untold != 0 { Operand::of(core, &insn) } else { Operand::default() };
        let step = match self.by_kvm(&insn) {
            Ok(step) => step,
            Err(error) => Step::Ours(format!("KVM refuses the state: {error}")),
        };
        match step {
            Step::Done if insn.mnemonic() == Mnemonic::Cpuid => self.cpuid(before),
            Step::Done => {
                self.engine.counts.add("stepped", 1);
                if untold != 0 {
                    return self.settle(before, &operand, untold);
                }
                self.engine.interpreter.core.count_one();
                None
            }
            Step::Ours(why) => {
                self.restore(before);
                self.interpret(&why)
            }
            Step::Faults => {
                self.restore(before);
                self.fault(&insn)
            }
        }
    }

    fn restore(&mut self, state: Vcpu) {
        let core = &mut self.engine.interpreter.core;
        core.vcpu = state;
        core.mode_changed();
    }

    /// After an instruction of which KVM cannot tell some flags: the interpreter says what they are. If
    /// it agrees in everything else, its state is the one to go on with, otherwise KVM's.
    fn settle(&mut self, before: Vcpu, operand: &Operand, untold: u64) -> Option<Stop> {
        let core = &mut self.engine.interpreter.core;
        let (kvm, stored) = (core.vcpu.clone(), operand.again(core));
        operand.put(core);
        self.restore(before);
        let stop = self.run_one();
        let core = &self.engine.interpreter.core;
        let mut ours = core.vcpu.clone();
        let flags = kvm.rflags() & untold | ours.rflags() & !untold;
        ours.set_rflags(flags);
        if ours != kvm || operand.again(core) != stored {
            stored.put(core);
            self.restore(kvm);
        }
        stop
    }

    /// After CPUID: a KVM that does not intercept it shows the host's processor (docs/kvm.md).
    fn cpuid(&mut self, before: Vcpu) -> Option<Stop> {
        let shown = self.vcpu().regs;
        self.restore(before);
        let stop = self.interpret("cpuid, to compare");
        if self.vcpu().regs != shown {
            self.engine.counts.add("KVM shows another processor: cpuid", 1);
        }
        stop
    }

    /// Has the interpreter execute one instruction or event.
    fn interpret(&mut self, why: &str) -> Option<Stop> {
        let before = self.engine.interpreter.core.now();
        let stop = self.run_one();
        let count = self.engine.interpreter.core.now() - before;
        self.engine.counts.interpreted(why, count);
        stop
    }

    /// One instruction or event by the interpreter, which does not know what KVM has written.
    fn run_one(&mut self) -> Option<Stop> {
        self.engine.interpreter.forget();
        let stop = self.engine.interpreter.run(1);
        (stop != Stop::Budget).then_some(stop)
    }

    /// KVM says that the instruction faults: which fault it is, and its delivery, is the
    /// interpreter's.
    fn fault(&mut self, insn: &Instruction) -> Option<Stop> {
        let core = &mut self.engine.interpreter.core;
        core.delivery.chain.clear();
        let level = core.vcpu.cpl;
        let stop = self.interpret("it faults");
        if self.engine.interpreter.core.delivery.chain.is_empty() {
            let what = name(insn);
            let sys = &self.vcpu().sys;
            let paging = sys.cr0 & cr0::PG != 0 && sys.efer & efer::LMA == 0;
            if insn.mnemonic() == Mnemonic::Mov && paging {
                self.engine.counts.add("KVM does not know paging outside long mode", 1);
            } else if level == 3 && is_unknown_to_emulators(insn) {
                self.engine.counts.add(&format!("KVM does not know at level 3: {what}"), 1);
            } else {
                self.engine.counts.add(&format!("only KVM faults: {what}"), 1);
                self.vcpu().activity = Activity::Shutdown;
            }
        }
        stop
    }

    /// Has KVM execute the instruction at RIP, or an iteration of it.
    fn by_kvm(&mut self, insn: &Instruction) -> io::Result<Step> {
        let left = self.prepare_iteration(insn);
        let rip = self.vcpu().regs[RIP as usize];
        self.enter()?;
        let cr8 = self.engine.interpreter.core.bus.cr8();
        self.engine.vm.vcpu.get_kvm_run().cr8 = cr8;
        let exit = self.engine.step_once()?;
        self.engine.follow_cr8();
        if matches!(
            exit,
            Exit::Port(_) | Exit::Mmio(_) | Exit::ReadMsr(_) | Exit::WriteMsr(..) | Exit::Halt
        ) {
            self.engine.answer(exit)?;
        }
        let (idtr, last) = (self.vcpu().idtr, self.vcpu().x87.last);
        let pending = self.engine.take_back()?;
        self.vcpu().idtr = idtr;
        // AMD's processors keep it with an exception only (APM vol. 2, 11.4.4).
        self.vcpu().x87.last = last;
        match exit {
            Exit::Shutdown => return Ok(Step::Faults),
            Exit::GivesUp(on) => {
                return Ok(Step::Ours(format!("KVM gives up, {}: {}", on.why, name(insn))));
            }
            _ if pending.event.is_some() => return Ok(Step::Faults),
            _ => {}
        }
        self.held = Some(self.vcpu().clone());
        self.end_iteration(insn, rip, left);
        Ok(Step::Done)
    }

    /// Moves to KVM what it does not hold, with the IDT that delivers nothing.
    fn enter(&mut self) -> io::Result<()> {
        let v = self.engine.interpreter.core.vcpu.clone();
        if let Some(held) = self.held.take().filter(|held| is_real(held) == is_real(&v)) {
            let (regs, flags, eflags) = (v.regs, v.flags, v.eflags);
            let repeating = v.repeating;
            if (Vcpu { regs, flags, eflags, repeating, ..held.clone() }) == v {
                if held != v {
                    state::registers_to_kvm(&self.engine.vm.vcpu, &v)?;
                }
                self.engine.away = true;
                self.engine.unfinished = false;
                return Ok(());
            }
        }
        let base = if is_real(&v) { NOWHERE.base } else { v.idtr.base };
        self.vcpu().idtr = TableReg { base, ..NOWHERE };
        let entered = self.engine.enter();
        self.vcpu().idtr = v.idtr;
        entered
    }

    /// Lets KVM do one iteration only of a repeated instruction: what rCX was, if there are more.
    fn prepare_iteration(&mut self, insn: &Instruction) -> Option<u64> {
        let mask = repetition(insn)?;
        let rcx = self.vcpu().regs[gpr::RCX as usize];
        let more = rcx & mask > 1;
        if more {
            self.set_rcx(rcx, 1, mask);
        }
        more.then_some(rcx)
    }

    /// Goes on with a repetition, or not, as after any of its iterations.
    fn end_iteration(&mut self, insn: &Instruction, rip: u64, rcx: Option<u64>) {
        self.vcpu().repeating = false;
        let Some(mask) = repetition(insn) else { return };
        // KVM's emulator sets it between iterations, where processors show it in images only.
        self.vcpu().eflags &= !rflags::RF;
        let next = rip.wrapping_add(insn.len() as u64)
            & if self.vcpu().code64() { u64::MAX } else { 0xffff_ffff };
        let v = self.vcpu();
        // It also finds out that rCX is zero in another round.
        if v.regs[gpr::RCX as usize] & mask == 0 {
            v.regs[RIP as usize] = next;
        }
        let Some(rcx) = rcx else { return };
        self.set_rcx(rcx, (rcx & mask) - 1, mask);
        let zero = self.vcpu().rflags() & rflags::ZF != 0;
        let compares = matches!(
            insn.mnemonic(),
            Mnemonic::Cmpsb
                | Mnemonic::Cmpsw
                | Mnemonic::Cmpsd
                | Mnemonic::Cmpsq
                | Mnemonic::Scasb
                | Mnemonic::Scasw
                | Mnemonic::Scasd
                | Mnemonic::Scasq
        );
        if !compares || zero != insn.has_repne_prefix() {
            self.vcpu().repeating = true;
            self.vcpu().regs[RIP as usize] = rip;
        }
    }

    /// rCX at the address size: 32 bits of it clear the others.
    fn set_rcx(&mut self, old: u64, count: u64, mask: u64) {
        let kept = if mask == 0xffff { old & !mask } else { 0 };
        self.vcpu().regs[gpr::RCX as usize] = kept | count;
    }
}

fn is_real(state: &Vcpu) -> bool {
    state.sys.cr0 & cr0::PE == 0
}

/// The instruction at RIP.
fn fetch(core: &Core) -> Option<Instruction> {
    let ip = core.vcpu.regs[RIP as usize];
    let mut code = [0; LONGEST];
    let len = linear::read(core, core.code_address(ip), &mut code);
    let bits = core.mode().bitness();
    let insn = Decoder::with_ip(bits, &code[..len], ip, DecoderOptions::NONE).decode();
    (!insn.is_invalid()).then_some(insn)
}

fn name(insn: &Instruction) -> String {
    format!("{:?}", insn.mnemonic()).to_lowercase()
}

impl Accelerator for Stepping {
    fn run(&mut self, budget: u64) -> Stop {
        let end = self.core().now().saturating_add(budget);
        loop {
            if self.engine.interpreter.core.take_replan() {
                return Stop::Replan;
            }
            if self.core().now() >= end {
                return Stop::Budget;
            }
            if let Some(stop) = self.step() {
                return stop;
            }
        }
    }

    fn core(&self) -> &Core {
        &self.engine.interpreter.core
    }

    fn core_mut(&mut self) -> &mut Core {
        &mut self.engine.interpreter.core
    }

    fn invalidate_code(&mut self, at: GuestPhys, len: u64) {
        self.engine.interpreter.invalidate_code(at, len);
    }

    fn counts(&self) -> Vec<(String, u64)> {
        self.engine.counts.all()
    }
}
