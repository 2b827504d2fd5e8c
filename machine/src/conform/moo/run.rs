//! Runs cases on an engine.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::Result;
use brolga_cpu::bus::NoDevices;
use brolga_cpu::core::{Core, Stop};
use brolga_cpu::vcpu::{RIP, SegReg, Segment, gpr};
use brolga_mmu::{GuestPhys, PhysMap, Ram, Width};
use iced_x86::{Decoder, DecoderOptions, FastFormatter, Instruction};

use super::{Case, Cell, Processor, Reg};
use crate::accel::{Accelerator, Surroundings};
use crate::conform::{Failure, Settings};

/// The real-mode address space with the part above 1 MiB that A20 opens.
const RAM: u64 = 0x11_0000;
/// Instructions until the HLT: one, or as many as a repetition has iterations.
const BUDGET: u64 = 0x1000;
/// The bits of CR0 that a case in real mode can change: MP, EM, TS.
const CR0: u32 = 0x0e;

const GENERAL: [(Reg, u8); 8] = [
    (Reg::Ax, gpr::RAX),
    (Reg::Cx, gpr::RCX),
    (Reg::Dx, gpr::RDX),
    (Reg::Bx, gpr::RBX),
    (Reg::Sp, gpr::RSP),
    (Reg::Bp, gpr::RBP),
    (Reg::Si, gpr::RSI),
    (Reg::Di, gpr::RDI),
];

const SEGMENTS: [(Reg, SegReg); 6] = [
    (Reg::Es, SegReg::Es),
    (Reg::Cs, SegReg::Cs),
    (Reg::Ss, SegReg::Ss),
    (Reg::Ds, SegReg::Ds),
    (Reg::Fs, SegReg::Fs),
    (Reg::Gs, SegReg::Gs),
];

/// A place where our processor and the captured one disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A register.
    Reg(Reg),
    /// A byte of memory.
    Ram(u32),
    /// No HLT was reached.
    End,
}

/// One disagreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub place: Place,
    /// What the captured processor had.
    pub expected: u32,
    /// What ours has.
    pub got: u32,
}

/// What became of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Where the processors disagree.
    pub differences: Vec<Difference>,
    /// The exception that the instruction raises here, if anything differs.
    pub raised: Option<u8>,
}

/// A machine for cases in real mode.
pub struct Bench {
    engine: Box<dyn Accelerator>,
    map: Arc<PhysMap>,
    processor: Processor,
}

impl Bench {
    /// A machine with empty memory, for cases of `processor`.
    pub fn new(settings: &Settings, processor: Processor) -> Result<Bench> {
        let mut map = PhysMap::new(Ram::new(RAM)?);
        map.add_ram(GuestPhys(0), RAM)?;
        map.set_a20(processor.has_a20());
        let map = Arc::new(map);
        let cpu = Arc::new(settings.cpu.clone());
        let core = Core::new(cpu, Arc::clone(&map), Box::new(NoDevices));
        let around = Surroundings { kvm: settings.kvm.as_deref(), chips: None };
        let engine = settings.engine.clone().counting();
        Ok(Bench { engine: engine.build(core, around)?, map, processor })
    }

    /// Why `case` cannot be run here, if so.
    pub fn refusal(&self, case: &Case) -> Option<&'static str> {
        const PE: u32 = 1;
        let in_protected_mode = case.before.regs.get(Reg::Cr0).is_some_and(|cr0| cr0 & PE != 0);
        let mut cells = case.before.ram.iter().chain(&case.after.ram);
        if in_protected_mode {
            Some("protected mode: the format holds no descriptor caches")
        } else if cells.any(|cell| u64::from(cell.at) >= RAM) {
            Some("memory beyond what real mode reaches")
        } else {
            None
        }
    }

    /// Runs `case` and compares. The memory it names is zero again afterwards.
    pub fn run(&mut self, case: &Case) -> Result<Outcome> {
        self.prepare(case);
        let at_end = self.execute(case);
        let mut differences = self.compare(case);
        if !at_end {
            differences.push(Difference { place: Place::End, expected: 0, got: 0 });
        }
        if differences.is_empty() {
            for cell in case.before.ram.iter().chain(&case.after.ram) {
                self.write(Cell { value: 0, ..*cell });
            }
            return Ok(Outcome::default());
        }
        self.clear()?;
        let raised = self.first_exception(case);
        self.clear()?;
        Ok(Outcome { differences, raised })
    }

    /// What the case's instruction raises: what has been executed since may have raised more.
    fn first_exception(&mut self, case: &Case) -> Option<u8> {
        self.prepare(case);
        self.engine.run(1);
        self.engine.core().delivery.chain.first().map(|link| link.vector)
    }

    /// A case that does not end as it should may have written anywhere.
    fn clear(&self) -> Result<()> {
        Ok(self.map.write_slice(GuestPhys(0), &vec![0; RAM as usize])?)
    }

    /// The first byte of memory that is not zero: something has been written that no case names.
    pub fn stray_write(&self) -> Option<u32> {
        let mut bytes = vec![0; RAM as usize];
        self.map.read_slice(GuestPhys(0), &mut bytes).ok()?;
        bytes.iter().position(|b| *b != 0).map(|at| at as u32)
    }

    /// Whether the case has come to its end: HLT, or the end of the instruction where the capture
    /// has none.
    fn execute(&mut self, case: &Case) -> bool {
        if self.processor.ends_with_halt() {
            return self.engine.run(BUDGET) == Stop::Halted;
        }
        let start = self.ip();
        let repeats = instruction(&case.bytes).is_string_instruction();
        for _ in 0..u64::from(u16::MAX) + 2 {
            if !matches!(self.engine.run(1), Stop::Budget | Stop::Halted | Stop::Replan) {
                return false;
            }
            if !repeats || self.ip() != start {
                return true;
            }
        }
        false
    }

    fn ip(&self) -> u64 {
        self.engine.core().vcpu.regs[RIP as usize]
    }

    fn write(&self, cell: Cell) {
        self.map.write_phys(GuestPhys(cell.at.into()), Width::W8, cell.value.into());
    }

    fn read(&self, at: u32) -> u32 {
        self.map.read_phys(GuestPhys(at.into()), Width::W8).unwrap_or(0xff) as u32
    }

    fn prepare(&mut self, case: &Case) {
        for cell in &case.before.ram {
            self.write(*cell);
        }
        self.engine.invalidate_code(GuestPhys(0), RAM);
        let flags = self.processor.flags();
        let core = self.engine.core_mut();
        core.reset();
        let vcpu = &mut core.vcpu;
        let value = |reg| case.before.regs.get(reg).unwrap_or(0);
        for (reg, slot) in GENERAL {
            vcpu.regs[slot as usize] = value(reg).into();
        }
        for (reg, slot) in SEGMENTS {
            let Segment { attr, limit, .. } = vcpu.segs[slot as usize];
            vcpu.segs[slot as usize] = Segment::real(value(reg) as u16, attr, limit);
        }
        vcpu.sys.cr0 = vcpu.sys.cr0 & !u64::from(CR0) | u64::from(value(Reg::Cr0) & CR0);
        vcpu.regs[RIP as usize] = value(Reg::Ip).into();
        vcpu.set_rflags(u64::from(value(Reg::Flags) & flags));
        core.mode_changed();
    }

    /// The registers that a case can name.
    fn registers(&self) -> impl Iterator<Item = (Reg, u32)> + '_ {
        let vcpu = &self.engine.core().vcpu;
        let general = GENERAL.iter().map(|(reg, slot)| (*reg, vcpu.regs[*slot as usize] as u32));
        let segments = SEGMENTS.iter().map(|(reg, slot)| (*reg, vcpu.seg(*slot).selector.into()));
        let others = [
            (Reg::Cr0, vcpu.sys.cr0 as u32),
            (Reg::Ip, vcpu.regs[RIP as usize] as u32),
            (Reg::Flags, vcpu.rflags() as u32),
        ];
        general.chain(segments).chain(others)
    }

    fn compare(&self, case: &Case) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (reg, got) in self.registers() {
            let after = case.after.regs.get(reg).or(case.before.regs.get(reg)).unwrap_or(0);
            let means = match reg {
                Reg::Flags => self.processor.flags(),
                Reg::Cr0 => CR0,
                reg if SEGMENTS.iter().any(|(segment, _)| *segment == reg) => 0xffff,
                _ => u32::MAX,
            };
            let mask = case.masks.get(reg).unwrap_or(u32::MAX) & means;
            if (after ^ got) & mask != 0 {
                let (expected, got) = (after & means, got & means);
                differences.push(Difference { place: Place::Reg(reg), expected, got });
            }
        }
        let kept = case.before.ram.iter().filter(|b| case.after.ram.iter().all(|a| a.at != b.at));
        for cell in case.after.ram.iter().chain(kept) {
            let (expected, got) = (u32::from(cell.value), self.read(cell.at));
            if expected != got {
                differences.push(Difference { place: Place::Ram(cell.at), expected, got });
            }
        }
        differences
    }
}

/// The instruction of a case, without the HLT behind it.
pub(super) fn instruction(bytes: &[u8]) -> Instruction {
    Decoder::new(16, bytes, DecoderOptions::NONE).decode()
}

/// A case and what differs, for a person.
pub fn explain(case: &Case, outcome: &Outcome) -> Failure {
    let bytes: String = case.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = String::new();
    FastFormatter::new().format(&instruction(&case.bytes), &mut text);
    let mut failure = Failure {
        case: format!("#{} {}", case.index, case.name),
        instruction: format!("{text} ({bytes})"),
        ..Failure::default()
    };
    for reg in Reg::ALL {
        if let Some(value) = case.before.regs.get(reg) {
            let _ = write!(failure.input, "{}={value:04x} ", reg.name());
        }
    }
    if let Some(taken) = case.taken {
        let _ = write!(failure.expected, "exception {} ", taken.vector);
    }
    if let Some(vector) = outcome.raised {
        let _ = write!(failure.got, "exception {vector} ");
    }
    for difference in &outcome.differences {
        for (text, value) in
            [(&mut failure.expected, difference.expected), (&mut failure.got, difference.got)]
        {
            let _ = match difference.place {
                Place::Reg(reg) => write!(text, "{}={value:04x} ", reg.name()),
                Place::Ram(at) => write!(text, "[{at:05x}]={value:02x} "),
                Place::End => Ok(()),
            };
        }
        if difference.place == Place::End {
            failure.expected.push_str("an end ");
            failure.got.push_str("none ");
        }
    }
    for text in [&mut failure.input, &mut failure.expected, &mut failure.got] {
        text.truncate(text.trim_end().len());
    }
    failure
}
