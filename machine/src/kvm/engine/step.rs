//! KVM one instruction at a time, as an oracle for other engines: every instruction is counted, and
//! time is that count.
//!
//! KVM executes what it can be asked about. The interpreter delivers events and executes what
//! follows: what a single step changes ([`is_ours`]), what KVM gives up on, and instructions that
//! fault. That an instruction faults is KVM's to say, though: it works with an IDT that delivers
//! nothing, so that a fault shuts it down with nothing changed. If the interpreter then does not
//! fault, that is a difference, and the vCPU is shut down for all to see.

use std::io;

use brolga_cpu::core::{Core, Stop};
use brolga_cpu::vcpu::{Activity, RIP, TableReg, Vcpu, attr, cr0, efer, gpr, rflags};
use brolga_mmu::{Access, AccessKind, GuestPhys, Linear, PAGE_SIZE, probe};
use iced_x86::{
    Decoder, DecoderOptions, Instruction, Mnemonic, OpCodeTableKind, OpKind, Register, RflagsBits,
};

use super::{Engine, Exit};
use crate::accel::Accelerator;
use crate::kvm::state;

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
        let operand = if untold != 0 { Memory::of_operand(core, &insn) } else { Memory::default() };
        let step = match self.by_kvm(&insn) {
            Ok(step) => step,
            Err(error) => {
                tracing::debug!(target: "kvm", "a step fails: {error}");
                Step::Ours("KVM refuses the state".to_owned())
            }
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
    fn settle(&mut self, before: Vcpu, operand: &Memory, untold: u64) -> Option<Stop> {
        let core = &mut self.engine.interpreter.core;
        let (kvm, stored) = (core.vcpu.clone(), operand.again(core));
        operand.put(core);
        self.restore(before);
        self.engine.interpreter.forget();
        let stop = self.engine.interpreter.run(1);
        let core = &self.engine.interpreter.core;
        let mut ours = core.vcpu.clone();
        let flags = kvm.rflags() & untold | ours.rflags() & !untold;
        ours.set_rflags(flags);
        if ours != kvm || operand.again(core) != stored {
            stored.put(core);
            self.restore(kvm);
        }
        (stop != Stop::Budget).then_some(stop)
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
        self.engine.interpreter.forget();
        let before = self.engine.interpreter.core.now();
        let stop = self.engine.interpreter.run(1);
        let count = self.engine.interpreter.core.now() - before;
        self.engine.counts.interpreted(why, count);
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

/// Pieces of memory: where they are, and what was there.
#[derive(Default, PartialEq)]
struct Memory(Vec<(GuestPhys, Vec<u8>)>);

impl Memory {
    /// The operand of an instruction that is in memory, if one is and it is mapped: every byte that
    /// it may have.
    fn of_operand(core: &Core, insn: &Instruction) -> Self {
        const WIDEST: u64 = 8;
        let v = &core.vcpu;
        let value = |register: Register, _, _| {
            if register.is_segment_register() {
                let flat = v.code64() && register.number() < 4;
                return Some(if flat { 0 } else { v.segs[register.number()].base });
            }
            let value = v.regs.get(register.full_register().number())?;
            Some(value & (u64::MAX >> (64 - 8 * register.size())))
        };
        let operand = (0..insn.op_count()).find(|&n| insn.op_kind(n) == OpKind::Memory);
        let Some(at) = operand.and_then(|n| insn.virtual_address(n, 0, value)) else {
            return Self::default();
        };
        let bytes = (0..WIDEST).filter_map(|n| {
            let linear =
                Linear(at.wrapping_add(n) & if v.code64() { u64::MAX } else { u32::MAX.into() });
            let phys = translate(core, linear)?;
            let mut byte = [0];
            core.mem.map.read_slice(phys, &mut byte).ok()?;
            Some((phys, byte.to_vec()))
        });
        Self(bytes.collect())
    }

    /// The same pieces as they are now.
    fn again(&self, core: &Core) -> Self {
        let mut now = Vec::new();
        for (at, bytes) in &self.0 {
            let mut read = vec![0; bytes.len()];
            // They could be read before.
            let _ = core.mem.map.read_slice(*at, &mut read);
            now.push((*at, read));
        }
        Self(now)
    }

    /// Makes memory what it was.
    fn put(&self, core: &Core) {
        for (at, bytes) in &self.0 {
            let _ = core.mem.map.write_slice(*at, bytes);
        }
    }
}

/// Where a linear address leads, whatever the access rights.
fn translate(core: &Core, at: Linear) -> Option<GuestPhys> {
    let sys = &core.vcpu.sys;
    let any = Access { kind: AccessKind::Read, user: false, smap_checked: false };
    let found = probe(&*core.mem.map, sys.cr3, &sys.pdptes, &core.mem.paging, at, any);
    found.outcome.ok().map(|translation| translation.phys)
}

/// The flags that KVM cannot tell: those that an instruction leaves undefined, as processors do not
/// agree in them (but that logical operations clear AF), and TF, which is hidden while it steps.
fn untold(insn: &Instruction) -> u64 {
    use Mnemonic::{And, Iret, Iretd, Or, Popf, Popfd, Popfq, Test, Xor};
    let bits = insn.rflags_undefined();
    let flags = [
        (RflagsBits::OF, rflags::OF),
        (RflagsBits::SF, rflags::SF),
        (RflagsBits::ZF, rflags::ZF),
        (RflagsBits::AF, rflags::AF),
        (RflagsBits::CF, rflags::CF),
        (RflagsBits::PF, rflags::PF),
    ];
    match insn.mnemonic() {
        And | Or | Test | Xor => return 0,
        Popf | Popfd | Popfq | Iret | Iretd => return rflags::TF,
        _ => {}
    }
    flags.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, flag)| flag).sum()
}

fn is_real(state: &Vcpu) -> bool {
    state.sys.cr0 & cr0::PE == 0
}

/// The instruction at RIP.
fn fetch(core: &Core) -> Option<Instruction> {
    let v = &core.vcpu;
    let ip = v.regs[RIP as usize];
    let mut code = [0; LONGEST];
    let mut len = 0;
    while len < LONGEST {
        let at = core.code_address(ip.wrapping_add(len as u64));
        let Some(phys) = translate(core, at) else { break };
        let part = LONGEST.min(len + (PAGE_SIZE - at.page_offset()) as usize);
        if core.mem.map.read_slice(phys, &mut code[len..part]).is_err() {
            break;
        }
        len = part;
    }
    let bits = match (v.code64(), v.segs[1].has(attr::DB)) {
        (true, _) => 64,
        (false, true) => 32,
        (false, false) => 16,
    };
    let insn = Decoder::with_ip(bits, &code[..len], ip, DecoderOptions::NONE).decode();
    (!insn.is_invalid()).then_some(insn)
}

fn name(insn: &Instruction) -> String {
    format!("{:?}", insn.mnemonic()).to_lowercase()
}

/// What is never stepped: what tells of TF, which KVM steps by; of the IDT, which is ours; of time
/// and chance; x87 instructions, whose selectors KVM does not hold; and strings of bits.
fn is_ours(insn: &Instruction) -> bool {
    use Mnemonic::{
        Bt, Btc, Btr, Bts, Fxrstor, Fxrstor64, Int, Int1, Int3, Into, Lidt, Pushf, Pushfd, Pushfq,
        Rdpmc, Rdrand, Rdseed, Rdtsc, Rdtscp, Sidt, Syscall,
    };
    let code = insn.code().op_code();
    let opcode = code.op_code();
    let first = if opcode > 0xff { opcode >> 8 } else { opcode };
    let x87 = code.table() == OpCodeTableKind::Normal && matches!(first, 0x9b | 0xd8..=0xdf);
    // Their operand may lie far from its address, and their other flags are undefined.
    let string_of_bits = matches!(insn.mnemonic(), Bt | Bts | Btr | Btc)
        && insn.op0_kind() == OpKind::Memory
        && insn.op1_kind() == OpKind::Register;
    x87 || string_of_bits
        || matches!(
            insn.mnemonic(),
            Fxrstor
                | Fxrstor64
                | Int
                | Int1
                | Int3
                | Into
                | Lidt
                | Pushf
                | Pushfd
                | Pushfq
                | Rdpmc
                | Rdrand
                | Rdseed
                | Rdtsc
                | Rdtscp
                | Sidt
                | Syscall
        )
}

/// What ends a single step in long mode without a stop after it (docs/kvm.md).
fn loses_the_step(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq)
}

/// What a KVM that emulates raises #UD for at level 3 (docs/kvm.md).
fn is_unknown_to_emulators(insn: &Instruction) -> bool {
    use Mnemonic::{Iret, Iretd, Iretq, Lar, Lsl, Retf, Verr, Verw};
    matches!(insn.mnemonic(), Iret | Iretd | Iretq | Lar | Lsl | Retf | Verr | Verw)
}

/// The mask of rCX, if the instruction is repeated by it.
fn repetition(insn: &Instruction) -> Option<u64> {
    let repeated = insn.has_rep_prefix() || insn.has_repne_prefix();
    let index = |n| match insn.op_kind(n) {
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => Some(0xffff),
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => Some(0xffff_ffff),
        OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => Some(u64::MAX),
        _ => None,
    };
    let string = insn.is_string_instruction();
    (repeated && string).then(|| (0..insn.op_count()).find_map(index)).flatten()
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
