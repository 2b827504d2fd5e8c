//! Single instructions that work on the system's state (segment loads, far transfers, IRET), on random
//! state, by KVM and by our interpreter: what they leave must be the same.
//!
//! All of it is 32-bit protected mode without paging, which not every KVM has there. Tables, code and handlers lie in 1 MiB of RAM that
//! is made anew for each case. Each vector has a handler of NOPs: KVM, stepping over an instruction
//! that faults, executes the first instruction of the handler too, so that inside a handler only
//! which one it is counts.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use anyhow::Result;
use brolga_cpu::core::{Core, Interpreter};
use brolga_cpu::vcpu::{RIP, SegReg, Segment, TableReg, Vcpu, attr, cr0, gpr, rflags};
use brolga_machine::accel::Accelerator;
use brolga_machine::kvm::{Engine, Host, Stepped};
use brolga_mmu::GuestPhys;
use fastrand::Rng;

const RAM: u64 = 1 << 20;
const GDT: u64 = 0x1000;
const GDT_ENTRIES: u64 = 32;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
const CODE: u64 = 0x1_0000;
/// Operands in memory.
const DATA: u64 = 0x2_0000;
/// Where each privilege level's stack ends.
const STACKS: [u64; 4] = [0x3_0000, 0x3_4000, 0x3_8000, 0x3_c000];
/// The handler of vector 0; those of others follow in this distance.
const HANDLERS: u64 = 0x8_0000;
const HANDLER_LEN: u64 = 0x100;
const NOP: u8 = 0x90;

/// The selectors of flat segments for a privilege level.
fn code_selector(level: u16) -> u16 {
    ((1 + 2 * level) * 8) | level
}

fn data_selector(level: u16) -> u16 {
    ((2 + 2 * level) * 8) | level
}

const TSS_SELECTOR: u16 = 9 * 8;

/// What came of many cases.
#[derive(Debug, Default)]
pub struct Tally {
    /// Cases that agree.
    pub same: u64,
    /// Cases that KVM gave up on.
    pub given_up: u64,
    /// Differences that are known to be this KVM's, by why.
    pub known: BTreeMap<&'static str, u64>,
    /// The first other differences.
    pub unexplained: Vec<String>,
    /// How many others there are.
    pub others: u64,
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} agree, {} given up, {} differ", self.same, self.given_up, self.others)?;
        self.known.iter().try_for_each(|(why, count)| writeln!(f, "{count:>8} {why}"))?;
        self.unexplained.iter().try_for_each(|case| writeln!(f, "{case}"))
    }
}

/// Compares `count` cases, from one seed on.
pub fn compare(count: u64, first_seed: u64) -> Result<Tally> {
    const SHOWN: usize = 20;
    let host = Host::open()?;
    let mut engine = super::engine(&host, RAM)?;
    let mut ours = Interpreter::new(super::core(&host, RAM)?);
    let mut tally = Tally::default();
    for seed in first_seed..first_seed + count {
        let case = Case::new(&mut Rng::with_seed(seed));
        let kvm = case.under_kvm(&mut engine)?;
        let interp = case.by_us(&mut ours);
        match kvm {
            None => tally.given_up += 1,
            Some(outcome) if outcome == interp => tally.same += 1,
            Some(outcome) => match known(&case, &outcome, &interp) {
                Some(why) => *tally.known.entry(why).or_default() += 1,
                None => {
                    tally.others += 1;
                    if tally.unexplained.len() < SHOWN {
                        let lines = outcome.differences(&interp);
                        tally.unexplained.push(format!("seed {seed}: {case}\n{lines}"));
                    }
                }
            },
        }
    }
    Ok(tally)
}

/// Why a difference is not ours (docs/kvm.md).
fn known(case: &Case, kvm: &Outcome, ours: &Outcome) -> Option<&'static str> {
    const UD: Result<u64, u64> = Ok(6);
    (kvm.at == UD && ours.at != UD && case.state.cpl == 3)
        .then_some("KVM raises #UD at CPL 3 for what it does not emulate")
}

/// An instruction, and what it works on.
struct Case {
    name: &'static str,
    code: Vec<u8>,
    memory: Vec<u8>,
    state: Vcpu,
}

impl Display for Case {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let v = &self.state;
        write!(f, "{} {:02x?} at level {}, eax {:#x}", self.name, self.code, v.cpl, v.regs[0])
    }
}

/// What is left after an instruction.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// The handler that was entered, or RIP.
    at: Result<u64, u64>,
    shutdown: bool,
    state: Vec<(&'static str, u64)>,
    memory: Vec<u8>,
}

impl Outcome {
    fn of(core: &Core, shutdown: bool) -> Self {
        let v = &core.vcpu;
        let rip = v.regs[RIP as usize];
        let handler = rip.wrapping_sub(HANDLERS) / HANDLER_LEN;
        let entered = handler < 32 && rip >= HANDLERS;
        let mut state: Vec<(&'static str, u64)> = Vec::new();
        let names = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];
        state.extend(names.into_iter().zip(v.regs));
        for (name, s) in ["es", "cs", "ss", "ds", "fs", "gs"].into_iter().zip(&v.segs) {
            let parts = [u64::from(s.selector), s.attr.into(), s.limit.into(), s.base];
            // Of a segment that cannot be used, only the selector is there.
            let parts = if s.has(attr::UNUSABLE) { [parts[0], 1 << 16, 0, 0] } else { parts };
            state.extend(parts.map(|part| (name, part)));
        }
        state.push(("flags", v.rflags()));
        state.push(("cpl", v.cpl.into()));
        state.push(("cr2", v.sys.cr2));
        state.push(("tr", v.tr.selector.into()));
        state.push(("ldtr", v.ldtr.selector.into()));
        let mut memory = vec![0; 0x4_0000];
        let _ = core.mem.map.read_slice(GuestPhys(0), &mut memory);
        if entered {
            // KVM steps by TF, which it leaves in the flags that a fault pushes.
            let with_error = matches!(handler, 8 | 10..=14 | 17);
            let flags = v.regs[gpr::RSP as usize] + if with_error { 12 } else { 8 };
            if let Some(byte) = memory.get_mut(flags as usize + 1) {
                *byte &= !1;
            }
        }
        if shutdown {
            state.clear();
            memory.clear();
        }
        Self { at: if entered { Ok(handler) } else { Err(rip) }, shutdown, state, memory }
    }

    fn differences(&self, ours: &Self) -> String {
        let mut text = format!("  kvm at {:x?}, we at {:x?}", self.at, ours.at);
        for ((name, a), (_, b)) in self.state.iter().zip(&ours.state).filter(|(a, b)| a != b) {
            text += &format!("\n  {name}: kvm {a:#x}, we {b:#x}");
        }
        for (at, (a, b)) in
            self.memory.iter().zip(&ours.memory).enumerate().filter(|(_, (a, b))| a != b)
        {
            text += &format!("\n  [{at:#x}]: kvm {a:#x}, we {b:#x}");
        }
        text
    }
}

impl Case {
    fn new(rng: &mut Rng) -> Self {
        let level = if rng.bool() { 0 } else { 3 };
        let mut state = Vcpu::new(0);
        for n in 0..8 {
            state.regs[n] = rng.u32(..).into();
        }
        let selector = selector(rng);
        state.regs[gpr::RAX as usize] = selector.into();
        state.regs[gpr::RSP as usize] = STACKS[usize::from(level)] - 0x100;
        state.regs[RIP as usize] = CODE;
        state.cpl = level as u8;
        state.eflags = rflags::FIXED | if level == 3 { rng.u64(..) & rflags::IOPL } else { 0 };
        state.segs = [flat(data_selector(level), attr::RW | attr::ACCESSED); 6];
        state.segs[SegReg::Cs as usize] =
            flat(code_selector(level), attr::CODE | attr::RW | attr::ACCESSED);
        state.gdtr = TableReg { base: GDT, limit: (GDT_ENTRIES * 8 - 1) as u16 };
        state.idtr = TableReg { base: IDT, limit: 32 * 8 - 1 };
        state.tr = Segment { selector: TSS_SELECTOR, attr: attr::P | 11, limit: 0x67, base: TSS };
        state.ldtr = Segment { selector: 0, attr: attr::UNUSABLE, limit: 0, base: 0 };
        state.sys.cr0 = cr0::PE | cr0::ET | cr0::NE;
        let memory = memory(rng, selector);
        let (name, code) = instruction(rng);
        let mut case = Self { name, code, memory, state };
        let at = CODE as usize;
        case.memory[at..at + case.code.len()].copy_from_slice(&case.code);
        case
    }

    fn prepare(&self, core: &mut Core) {
        let _ = core.mem.map.write_slice(GuestPhys(0), &self.memory);
        core.vcpu = self.state.clone();
        core.mode_changed();
    }

    /// What KVM makes of it; `None` if nothing.
    fn under_kvm(&self, engine: &mut Engine) -> Result<Option<Outcome>> {
        self.prepare(engine.core_mut());
        let stepped = engine.step()?;
        let shutdown = stepped == Stepped::Shutdown;
        let told = matches!(stepped, Stepped::Done | Stepped::Shutdown);
        Ok(told.then(|| Outcome::of(engine.core(), shutdown)))
    }

    fn by_us(&self, ours: &mut Interpreter) -> Outcome {
        self.prepare(&mut ours.core);
        ours.run_alone();
        let shutdown = ours.core.vcpu.activity != Default::default();
        Outcome::of(&ours.core, shutdown)
    }
}

fn flat(selector: u16, kind: u32) -> Segment {
    let dpl = u32::from(selector & 3) << 5;
    let attr = kind | dpl | attr::P | attr::S | attr::DB | attr::G;
    Segment { selector, attr, limit: u32::MAX, base: 0 }
}

/// A selector: of one of the GDT's entries most of the time.
fn selector(rng: &mut Rng) -> u16 {
    let index = if rng.u8(..8) == 0 { rng.u16(..64) } else { rng.u16(..GDT_ENTRIES as u16) };
    (index * 8) | if rng.u8(..16) == 0 { 4 } else { 0 } | rng.u16(..4)
}

/// RAM with tables, and random descriptors from the tenth on.
fn memory(rng: &mut Rng, selector: u16) -> Vec<u8> {
    let mut memory = vec![0; RAM as usize];
    let mut put = |at: u64, value: u64, len: usize| {
        let at = at as usize;
        memory[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    for level in 0..4_u64 {
        put(GDT + 8 * (1 + 2 * level), 0x00cf_9b00_0000_ffff | level << 45, 8);
        put(GDT + 8 * (2 + 2 * level), 0x00cf_9300_0000_ffff | level << 45, 8);
    }
    put(GDT + 8 * 9, 0x0000_8b00_0000_0067 | TSS << 16, 8);
    for entry in 10..GDT_ENTRIES {
        put(GDT + 8 * entry, descriptor(rng), 8);
    }
    for vector in 0..32 {
        let to = HANDLERS + vector * HANDLER_LEN;
        let gate = to & 0xffff | 8 << 16 | 0xee00 << 32 | (to >> 16) << 48;
        put(IDT + 8 * vector, gate, 8);
    }
    for level in 0..3 {
        put(TSS + 4 + 8 * level, STACKS[level as usize], 4);
        put(TSS + 8 + 8 * level, data_selector(level as u16).into(), 4);
    }
    put(TSS + 0x66, 0x68, 2);
    put(DATA, (CODE + 0x100) | (u64::from(selector) << 32), 6);
    // What RETF and IRET find: a frame with flags, and a stack behind it.
    for stack in STACKS {
        let frame = stack - 0x100;
        let flags = rng.u64(..) & 0x5_0dd5 | 2;
        put(frame, CODE + 0x200, 4);
        put(frame + 4, selector.into(), 4);
        put(frame + 8, flags, 4);
        put(frame + 12, STACKS[3] - 0x80, 4);
        put(frame + 16, data_selector(selector & 3).into(), 4);
    }
    let code = (CODE as usize, 0x1000);
    let handlers = (HANDLERS as usize, 32 * HANDLER_LEN as usize);
    for (at, len) in [code, handlers] {
        memory[at..at + len].fill(NOP);
    }
    memory
}

/// A descriptor of any kind: code, data, or a call gate to a flat code segment. Task gates and TSSs
/// switch tasks, which is another matter.
fn descriptor(rng: &mut Rng) -> u64 {
    let access = rng.u64(..) & 0xff;
    let level = access >> 5 & 3;
    if access & 0x10 != 0 {
        return 0x00cf_0000_0000_ffff | access << 40;
    }
    let kind = [12, 12, 2, 14, 0][rng.usize(..5)];
    let target = u64::from(code_selector(rng.u16(..4)) & !3);
    let to = CODE + 0x300;
    to & 0xffff | target << 16 | (0x80 | level << 5 | kind) << 40 | (to >> 16) << 48
}

/// An instruction on EAX, which holds a selector, on the far pointer at [`DATA`], or on the stack.
fn instruction(rng: &mut Rng) -> (&'static str, Vec<u8>) {
    let far = |modrm: u8, opcode: &[u8]| {
        let mut code = opcode.to_vec();
        code.push(modrm);
        code.extend((DATA as u32).to_le_bytes());
        code
    };
    match rng.u8(..17) {
        0 => ("mov ds", vec![0x8e, 0xd8]),
        1 => ("mov es", vec![0x8e, 0xc0]),
        2 => ("mov ss", vec![0x8e, 0xd0]),
        3 => ("mov gs", vec![0x8e, 0xe8]),
        4 => ("jmp far", far(0x2d, &[0xff])),
        5 => ("call far", far(0x1d, &[0xff])),
        6 => ("retf", vec![0xcb]),
        7 => ("iret", vec![0xcf]),
        8 => ("lfs", far(0x25, &[0x0f, 0xb4])),
        9 => ("lss", far(0x25, &[0x0f, 0xb2])),
        10 => ("lar", vec![0x0f, 0x02, 0xd8]),
        11 => ("lsl", vec![0x0f, 0x03, 0xd8]),
        12 => ("verr", vec![0x0f, 0x00, 0xe0]),
        13 => ("verw", vec![0x0f, 0x00, 0xe8]),
        14 => ("lldt", vec![0x0f, 0x00, 0xd0]),
        15 => ("mov from memory", far(0x1d, &[0x8b])),
        _ => ("mov to memory", far(0x1d, &[0x89])),
    }
}
