//! Runs cases on the interpreter.

use std::fmt::Write;

use anyhow::Result;
use brolga_cpu::core::Stop;
use brolga_cpu::vcpu::{RIP, SegReg, Segment, gpr};
use brolga_mmu::{GuestPhys, Width};

use super::{Case, Cell, Reg};
use crate::oracle::machine::Machine;

/// The real-mode address space with the part above 1 MiB that A20 opens.
const RAM: u64 = 0x11_0000;
/// Instructions until the HLT: one, or as many as a repetition has iterations.
const BUDGET: u64 = 0x1000;
/// FLAGS as a 286 has it in real mode: IOPL and NT stay clear (80286 Programmer's Reference,
/// 10.2), bit 15 does not exist.
pub const FLAGS_286: u32 = 0x0fff;

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

const SEGMENTS: [(Reg, SegReg); 4] =
    [(Reg::Es, SegReg::Es), (Reg::Cs, SegReg::Cs), (Reg::Ss, SegReg::Ss), (Reg::Ds, SegReg::Ds)];

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
    /// The first exception that ours has raised.
    pub raised: Option<u8>,
}

/// A machine for 16-bit cases.
pub struct Bench {
    machine: Machine,
}

impl Bench {
    /// A machine with empty memory.
    pub fn new() -> Result<Bench> {
        Ok(Bench { machine: Machine::new(RAM)? })
    }

    /// Runs `case` and compares. The memory it names is zero again afterwards.
    pub fn run(&mut self, case: &Case) -> Result<Outcome> {
        self.prepare(case);
        let mut stop = self.machine.interpreter.run(1);
        let raised = self.machine.interpreter.core.delivery.chain.first().map(|link| link.vector);
        if stop == Stop::Budget {
            stop = self.machine.interpreter.run(BUDGET);
        }
        let mut differences = self.compare(case);
        if stop != Stop::Halted {
            differences.push(Difference { place: Place::End, expected: 0, got: 0 });
        }
        if differences.is_empty() {
            for cell in case.before.ram.iter().chain(&case.after.ram) {
                self.write(Cell { value: 0, ..*cell });
            }
        } else {
            // It may have written anywhere.
            self.machine.clear_ram()?;
        }
        Ok(Outcome { differences, raised })
    }

    /// The first byte of memory that is not zero: something has been written that no case names.
    pub fn stray_write(&self) -> Option<u32> {
        let mut bytes = vec![0; RAM as usize];
        self.machine.map.read_slice(GuestPhys(0), &mut bytes).ok()?;
        bytes.iter().position(|b| *b != 0).map(|at| at as u32)
    }

    fn write(&self, cell: Cell) {
        let at = GuestPhys(cell.at.into());
        self.machine.map.write_phys(at, Width::W8, cell.value.into());
    }

    fn read(&self, at: u32) -> u32 {
        self.machine.map.read_phys(GuestPhys(at.into()), Width::W8).unwrap_or(0xff) as u32
    }

    fn prepare(&mut self, case: &Case) {
        for cell in &case.before.ram {
            self.write(*cell);
        }
        let interpreter = &mut self.machine.interpreter;
        interpreter.invalidate_code(GuestPhys(0), RAM);
        interpreter.core.reset();
        let vcpu = &mut interpreter.core.vcpu;
        let value = |reg| case.before.regs.get(reg).unwrap_or(0);
        for (reg, slot) in GENERAL {
            vcpu.regs[slot as usize] = value(reg).into();
        }
        for (reg, slot) in SEGMENTS {
            let Segment { attr, limit, .. } = vcpu.segs[slot as usize];
            vcpu.segs[slot as usize] = Segment::real(value(reg) as u16, attr, limit);
        }
        vcpu.regs[RIP as usize] = value(Reg::Ip).into();
        vcpu.set_rflags(u64::from(value(Reg::Flags) & FLAGS_286));
        interpreter.core.mode_changed();
    }

    /// The registers that a case can name.
    fn registers(&self) -> impl Iterator<Item = (Reg, u32)> + '_ {
        let vcpu = &self.machine.interpreter.core.vcpu;
        let general = GENERAL.iter().map(|(reg, slot)| (*reg, vcpu.regs[*slot as usize] as u32));
        let segments = SEGMENTS.iter().map(|(reg, slot)| (*reg, vcpu.seg(*slot).selector.into()));
        let others = [
            (Reg::Ip, vcpu.regs[RIP as usize] as u32),
            (Reg::Flags, vcpu.rflags() as u32 & FLAGS_286),
        ];
        general.chain(segments).chain(others)
    }

    fn compare(&self, case: &Case) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (reg, got) in self.registers() {
            let after = case.after.regs.get(reg).or(case.before.regs.get(reg)).unwrap_or(0);
            let mask = case.masks.get(reg).unwrap_or(u32::MAX);
            let mask = if reg == Reg::Flags { mask & FLAGS_286 } else { mask };
            if (after ^ got) & mask != 0 {
                let expected = if reg == Reg::Flags { after & FLAGS_286 } else { after };
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

/// A case and what differs, for a person.
pub fn explain(case: &Case, outcome: &Outcome) -> String {
    let mut text = format!("#{} {} {:02x?}", case.index, case.name, case.bytes);
    for reg in Reg::ALL {
        if let Some(value) = case.before.regs.get(reg) {
            let _ = write!(text, " {reg:?}={value:04x}");
        }
    }
    if let Some(taken) = case.taken {
        let _ = write!(text, "\n    takes exception {}", taken.vector);
    }
    if let Some(vector) = outcome.raised {
        let _ = write!(text, "\n    ours raises exception {vector}");
    }
    for d in &outcome.differences {
        let _ = match d.place {
            Place::Reg(reg) => {
                write!(text, "\n    {reg:?}: expected {:04x}, got {:04x}", d.expected, d.got)
            }
            Place::Ram(at) => {
                write!(text, "\n    [{at:05x}]: expected {:02x}, got {:02x}", d.expected, d.got)
            }
            Place::End => write!(text, "\n    no HLT was reached"),
        };
    }
    text
}
