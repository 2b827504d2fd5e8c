//! Delivery of exceptions and interrupts (SDM vol. 3, chapter 6; vol. 2, INT n).

use brolga_mmu::Width;
use serde::Serialize;

use super::descriptor::{Descriptor, fetch, kind, null_segment, set_accessed};
use super::far::inner_stack;
use super::segment::real_segment;
use super::stack::Stack;
use super::{Done, debug, gp_on, is_null, on_selector, task, with_rpl};
use crate::core::{By, Core, Exit};
use crate::exception::{Exception, Why, vector};
use crate::vcpu::rflags::{AC, IF, NT, RF, TF, VM};
use crate::vcpu::{Activity, SegReg, Segment, Shadow, attr, gpr};

/// Something that interrupts the program between instructions.
#[derive(Clone, Debug)]
pub enum Event {
    /// An exception that an instruction has raised.
    Exception(Exception),
    /// A maskable interrupt with its vector.
    Interrupt(u8),
    /// A non-maskable interrupt.
    Nmi,
}

/// One attempt at a delivery. The last delivery's attempts tell how a triple fault came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainLink {
    /// The vector that was to be delivered.
    pub vector: u8,
    /// Its error code.
    pub error: Option<u32>,
    /// The faulting address, for page faults.
    pub address: Option<u64>,
    /// The code segment that was interrupted.
    pub cs: u16,
    /// The address that was to be pushed.
    pub rip: u64,
    /// Why it was raised.
    pub why: Why,
}

/// State of deliveries that outlives a single function call.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// The attempts of the last delivery: its cause, then what each attempt failed with.
    pub chain: Vec<ChainLink>,
    /// The instruction pointer to push, if a task switch has failed after its commit point.
    pub(super) resume: Option<u64>,
    /// A software interrupt has cleared TF: it is not followed by a single-step trap.
    pub(super) software: bool,
}

/// What is to be entered through the IDT.
pub(super) struct Entry {
    pub(super) vector: u8,
    /// Pushed in protected mode.
    pub(super) error: Option<u32>,
    /// The return address.
    pub(super) ip: u64,
    /// The RFLAGS image to push.
    pub(super) flags: u64,
    /// INT n, INT3 and INTO: the gate's DPL is checked against CPL.
    pub(super) checked: bool,
}

/// How exceptions combine (SDM vol. 3, table 6-4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

fn class(vector: u8) -> Class {
    match vector {
        vector::DE | vector::TS | vector::NP | vector::SS | vector::GP => Class::Contributory,
        vector::PF => Class::PageFault,
        vector::DF => Class::DoubleFault,
        _ => Class::Benign,
    }
}

/// What follows when delivering `first` raises `second`: `None` is shutdown.
fn combine(first: Class, second: Exception) -> Option<Exception> {
    use Class::{Contributory, DoubleFault, PageFault};
    match (first, class(second.vector)) {
        (DoubleFault, Contributory | PageFault) => None,
        (Contributory, Contributory) | (PageFault, Contributory | PageFault) => {
            Some(Exception::code(vector::DF, 0, "an exception could not be delivered"))
        }
        _ => Some(second),
    }
}

/// Delivers `event`, and whatever its delivery raises, until a handler is entered or the
/// processor shuts down. RIP must be the address to return to.
pub fn deliver(core: &mut Core, event: Event) {
    core.delivery.chain.clear();
    core.vcpu.shadow = Shadow::None;
    let nmi = matches!(event, Event::Nmi);
    let (mut current, mut first) = match event {
        Event::Exception(e) => {
            let class = class(e.vector);
            (e, class)
        }
        Event::Interrupt(n) => (external(n, "external interrupt"), Class::Benign),
        Event::Nmi => (external(vector::NMI, "non-maskable interrupt"), Class::Benign),
    };
    loop {
        let Err(_) = attempt(core, &current) else {
            core.vcpu.nmi_blocked |= nmi;
            return;
        };
        let Some(mut failed) = core.exception.take() else { return };
        failed.set_external();
        match combine(first, failed.clone()) {
            Some(next) => {
                if next.vector == vector::DF {
                    note(core, &failed);
                }
                first = class(next.vector);
                current = next;
            }
            None => {
                note(core, &failed);
                tracing::debug!(target: "exception", "triple fault");
                core.vcpu.activity = Activity::Shutdown;
                core.leave_block(false);
                return;
            }
        }
    }
}

fn external(vector: u8, why: &'static str) -> Exception {
    Exception { trap: true, ..Exception::plain(vector, why) }
}

/// The address to return to: RIP, unless a task switch has already replaced it.
fn return_ip(core: &Core) -> u64 {
    core.delivery.resume.unwrap_or_else(|| core.rip())
}

/// Appends `e` to the chain of causes.
fn note(core: &mut Core, e: &Exception) {
    let link = ChainLink {
        vector: e.vector,
        error: e.error,
        address: e.address,
        cs: core.vcpu.seg(SegReg::Cs).selector,
        rip: return_ip(core),
        why: e.why.clone(),
    };
    tracing::trace!(
        target: "exception",
        vector = link.vector, error = link.error, cs = link.cs, rip = link.rip, why = %link.why
    );
    core.delivery.chain.push(link);
}

/// One attempt to enter the handler of `e`.
fn attempt(core: &mut Core, e: &Exception) -> Done {
    note(core, e);
    if let Some(address) = e.address {
        core.vcpu.sys.cr2 = address;
    }
    if e.vector == vector::DB {
        core.vcpu.sys.dr7 &= !debug::GENERAL_DETECT;
    }
    let mut flags = core.vcpu.rflags();
    if !e.trap {
        // A faulting instruction is executed again: its data breakpoints trap then. Faults set RF
        // in the image, but for instruction breakpoints (SDM vol. 3, 17.3.1.1).
        core.vcpu.pending_db = 0;
        if e.vector != vector::DB {
            flags |= RF;
        }
    }
    if core.vcpu.repeating {
        flags |= RF;
    }
    let ip = return_ip(core);
    let from = core.code_address(ip).0;
    let entry = Entry { vector: e.vector, error: e.error, ip, flags, checked: false };
    enter(core, &entry)?;
    core.delivery.resume = None;
    core.vcpu.repeating = false;
    core.vcpu.activity = Activity::Running;
    let to = core.code_address(core.vcpu.regs[usize::from(crate::vcpu::RIP)]).0;
    let now = core.now();
    core.trail.record(from, to, now);
    Ok(())
}

/// Enters a handler, and tells a debugger that waits for the vector.
pub(super) fn enter(core: &mut Core, e: &Entry) -> Done {
    let from = core.code_address(e.ip).0;
    enter_handler(core, e)?;
    core.vector_entered(e.vector, from, e.error);
    Ok(())
}

/// Enters a handler through the IDT or, in real-address mode, the interrupt vector table.
fn enter_handler(core: &mut Core, e: &Entry) -> Done {
    if core.vcpu.sys.cr0 & crate::vcpu::cr0::PE == 0 {
        return enter_real(core, e);
    }
    let gate = gate(core, e)?;
    if gate.kind() == kind::TASK_GATE {
        let tss = task::available(core, gate.gate_selector())?;
        task::switch(core, &tss, task::Cause::Nest, e.ip, e.flags)?;
        return match e.error {
            Some(error) => task::push_error(core, error),
            None => Ok(()),
        };
    }
    through_gate(core, e, &gate)
}

fn enter_real(core: &mut Core, e: &Entry) -> Done {
    let offset = u64::from(e.vector) * 4;
    check_idt_limit(core, e.vector, offset + 3, 0)?;
    let at = core.table_address(core.vcpu.idtr.base, offset);
    let target = core.read_linear(at, Width::W32, By::System)?;
    enter_vector(core, target, e, IF | TF | AC | RF)
}

/// Enters an 8086-style handler at `target` (segment << 16 | offset) and clears flags.
pub(super) fn enter_vector(core: &mut Core, target: u64, e: &Entry, cleared: u64) -> Done {
    let cs = real_segment(core, SegReg::Cs, (target >> 16) as u16);
    let ip = target & 0xffff;
    core.check_ip(&cs, ip)?;
    let mut stack = Stack::current(core);
    let old_cs = core.vcpu.seg(SegReg::Cs).selector;
    stack.push(core, Width::W16, &[e.flags, old_cs.into(), e.ip])?;
    stack.commit(core, 0);
    core.vcpu.eflags &= !cleared;
    let cpl = core.vcpu.cpl;
    core.enter_code(cs, cpl, ip);
    Ok(())
}

/// #GP unless the IDT reaches to offset `last`.
fn check_idt_limit(core: &mut Core, vector: u8, last: u64, error: u32) -> Done {
    let limit = core.vcpu.idtr.limit;
    if last <= u64::from(limit) {
        return Ok(());
    }
    let why = Why::IdtLimit { vector, limit };
    Err(core.raise(Exception { why, ..Exception::code(vector::GP, error, "") }))
}

/// The IDT entry for `e`, checked.
fn gate(core: &mut Core, e: &Entry) -> Result<Descriptor, Exit> {
    let long = core.vcpu.long_mode();
    let size = if long { 16 } else { 8 };
    let offset = u64::from(e.vector) * size;
    let error = u32::from(e.vector) << 3 | 2;
    check_idt_limit(core, e.vector, offset + size - 1, error)?;
    let at = core.table_address(core.vcpu.idtr.base, offset);
    let low = core.read_linear(at, Width::W64, By::System)?;
    let high = match long {
        true => core.read_linear(at.wrapping_add(8), Width::W64, By::System)? & 0xffff_ffff,
        false => 0,
    };
    let gate = Descriptor { selector: 0, low, high, at };
    let known = gate.system()
        && match gate.kind() {
            kind::INTERRUPT32 | kind::TRAP32 => true,
            kind::TASK_GATE | kind::INTERRUPT16 | kind::TRAP16 => !long,
            _ => false,
        };
    let on_entry = |vector: u8, why| Exception {
        why: Why::Value(why, e.vector.into()),
        ..Exception::code(vector, error, "")
    };
    core.require(known, on_entry(vector::GP, "IDT entry is not a gate, vector"))?;
    let ok = !e.checked || gate.dpl() >= core.vcpu.cpl;
    core.require(ok, on_entry(vector::GP, "DPL of the IDT gate below CPL, vector"))?;
    core.require(gate.present(), on_entry(vector::NP, "IDT gate not present, vector"))?;
    Ok(gate)
}

/// The code segment that an interrupt or trap gate leads to, checked.
fn handler_segment(core: &mut Core, gate: &Descriptor) -> Result<Descriptor, Exit> {
    let selector = gate.gate_selector();
    core.require(!is_null(selector), Exception::gp("IDT gate with a null code selector"))?;
    let mut code = fetch(core, selector, vector::GP)?;
    let ok = code.code() && code.dpl() <= core.vcpu.cpl;
    core.require(ok, gp_on(selector, "IDT gate to no code segment, or a less privileged one"))?;
    let ok = !core.vcpu.long_mode() || code.has(attr::L) && !code.has(attr::DB);
    core.require(ok, gp_on(selector, "IDT gate to code that is not 64-bit"))?;
    core.require(code.present(), on_selector(vector::NP, selector, "code segment not present"))?;
    set_accessed(core, &mut code)?;
    Ok(code)
}

/// The words to push, in order.
#[derive(Default)]
struct Frame {
    words: [u64; 10],
    len: usize,
}

impl Frame {
    fn add(&mut self, v: u64) {
        if let Some(slot) = self.words.get_mut(self.len) {
            *slot = v;
            self.len += 1;
        }
    }
}

fn through_gate(core: &mut Core, e: &Entry, gate: &Descriptor) -> Done {
    let code = handler_segment(core, gate)?;
    let (cpl, long, v86) = (core.vcpu.cpl, core.vcpu.long_mode(), core.vcpu.v86());
    let inner = !code.conforming() && code.dpl() < cpl;
    let ok = !v86 || inner && code.dpl() == 0;
    core.require(ok, gp_on(code.selector, "handler for virtual-8086 mode is not at level 0"))?;
    let level = if inner { code.dpl() } else { cpl };
    let w = match (long, gate.kind() & 8 != 0) {
        (true, _) => Width::W64,
        (false, true) => Width::W32,
        (false, false) => Width::W16,
    };

    let old_sp = core.vcpu.regs[usize::from(gpr::RSP)];
    let mut stack = handler_stack(core, gate, inner.then_some(level))?;
    let cs = code.segment(with_rpl(code.selector, level));
    let ip = gate.gate_offset();
    core.check_ip(&cs, ip)?;

    let mut frame = Frame::default();
    let selector = |core: &Core, reg| u64::from(core.vcpu.seg(reg).selector);
    if v86 {
        for reg in [SegReg::Gs, SegReg::Fs, SegReg::Ds, SegReg::Es] {
            frame.add(selector(core, reg));
        }
    }
    if inner || long {
        frame.add(selector(core, SegReg::Ss));
        frame.add(old_sp);
    }
    frame.add(e.flags);
    frame.add(selector(core, SegReg::Cs));
    frame.add(e.ip);
    if let Some(error) = e.error {
        frame.add(error.into());
    }
    stack.push(core, w, &frame.words[..frame.len])?;

    let interrupt_gate = gate.kind() & 1 == 0;
    core.vcpu.eflags &= !(TF | NT | RF | VM | if interrupt_gate { IF } else { 0 });
    core.vcpu.segs[SegReg::Ss as usize] = stack.ss;
    stack.commit(core, 0);
    if v86 {
        for reg in [SegReg::Gs, SegReg::Fs, SegReg::Ds, SegReg::Es] {
            core.vcpu.segs[reg as usize] = null_segment(0, 0);
        }
    }
    core.enter_code(cs, level, ip);
    Ok(())
}

/// The stack for a handler: that of privilege level `inner`, one of the interrupt stack table, or
/// the current one. IA-32e mode aligns it to 16 bytes (SDM vol. 3, 6.14.2).
fn handler_stack(core: &mut Core, gate: &Descriptor, inner: Option<u8>) -> Result<Stack, Exit> {
    if !core.vcpu.long_mode() {
        return match inner {
            Some(level) => inner_stack(core, level),
            None => Ok(Stack::current(core)),
        };
    }
    let level = inner.unwrap_or(core.vcpu.cpl);
    let ss = match inner {
        Some(level) => null_segment(level.into(), level),
        None => *core.vcpu.seg(SegReg::Ss),
    };
    let mut stack = match (gate.gate_count() & 7, inner) {
        (0, Some(level)) => inner_stack(core, level)?,
        (0, None) => {
            let sp = core.vcpu.regs[usize::from(gpr::RSP)];
            Stack::other(ss, sp, Width::W64, level)
        }
        (ist, _) => Stack::other(ss, ist_pointer(core, ist)?, Width::W64, level),
    };
    stack.sp &= !15;
    Ok(stack)
}

/// Entry `ist` (1-7) of the interrupt stack table.
fn ist_pointer(core: &mut Core, ist: u64) -> Result<u64, Exit> {
    let tr: Segment = core.vcpu.tr;
    let offset = ist * 8 + 28;
    core.require(
        offset + 7 <= u64::from(tr.limit),
        on_selector(vector::TS, tr.selector, "interrupt stack table beyond the TSS limit"),
    )?;
    let at = core.table_address(tr.base, offset);
    core.read_linear(at, Width::W64, By::System)
}
