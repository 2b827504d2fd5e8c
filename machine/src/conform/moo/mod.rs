//! Instruction vectors captured from real processors, in the MOO format (version 1, of the
//! SingleStepTests project): the reader, the machine that runs a case, and the differences
//! between the processor that was captured and ours.

pub mod classes;
mod read;
pub mod run;

pub use read::{BadMoo, File, MAGIC, parse};

/// The processors that vectors have been captured from, as far as a later one can mean them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Processor {
    /// 8086 and 8088.
    I8086,
    /// 80286.
    I286,
    /// 80386.
    I386,
}

impl Processor {
    /// By the name in a file. NEC's V20 and V30 have instructions and flags of their own.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "8086" | "8088" => Some(Self::I8086),
            "C286" | "286" => Some(Self::I286),
            "386E" | "386" => Some(Self::I386),
            _ => None,
        }
    }

    /// The bits of FLAGS that the processor has as a later one has them: in real mode a 286 keeps
    /// IOPL and NT clear (80286 Programmer's Reference, 10.2), and an 8086 has ones there; AC, VIF,
    /// VIP and ID are of the 486 and later.
    pub fn flags(self) -> u32 {
        match self {
            Self::I8086 | Self::I286 => 0x0fff,
            Self::I386 => 0x3_7fff,
        }
    }

    /// Whether addresses go beyond 1 MiB.
    pub fn has_a20(self) -> bool {
        self != Self::I8086
    }

    /// Whether a case ends with a HLT: captures of the 8086 end with the instruction.
    pub fn ends_with_halt(self) -> bool {
        self != Self::I8086
    }
}

/// Registers by the numbering of the format's 32-bit register chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Reg {
    Cr0,
    Cr3,
    Ax,
    Bx,
    Cx,
    Dx,
    Si,
    Di,
    Bp,
    Sp,
    Cs,
    Ds,
    Es,
    Fs,
    Gs,
    Ss,
    Ip,
    Flags,
    Dr6,
    Dr7,
}

impl Reg {
    /// All of them, in the format's order.
    pub const ALL: [Reg; 20] = [
        Reg::Cr0,
        Reg::Cr3,
        Reg::Ax,
        Reg::Bx,
        Reg::Cx,
        Reg::Dx,
        Reg::Si,
        Reg::Di,
        Reg::Bp,
        Reg::Sp,
        Reg::Cs,
        Reg::Ds,
        Reg::Es,
        Reg::Fs,
        Reg::Gs,
        Reg::Ss,
        Reg::Ip,
        Reg::Flags,
        Reg::Dr6,
        Reg::Dr7,
    ];
}

impl Reg {
    /// Its name as text.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// Some registers with their values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers([Option<u32>; 20]);

impl Registers {
    /// The value of `reg`, if it is among them.
    pub fn get(&self, reg: Reg) -> Option<u32> {
        self.0[reg as usize]
    }
    /// Adds `reg`, or changes its value.
    pub fn set(&mut self, reg: Reg, value: u32) {
        self.0[reg as usize] = Some(value);
    }
}

/// A byte of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its physical address.
    pub at: u32,
    /// Its value.
    pub value: u8,
}

/// The processor and its memory at one end of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Before: all registers. After: those that changed.
    pub regs: Registers,
    /// Before: all bytes that the case reads. After: those that changed.
    pub ram: Vec<Cell>,
}

/// An exception or interrupt that a case goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its vector.
    pub vector: u8,
    /// Physical address of the FLAGS image that was pushed.
    pub flags_at: u32,
}

/// One case: what a processor made of one instruction. It ends with a HLT, which follows the
/// instruction, its target, or the first byte of the handler it goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// Its number in the file.
    pub index: u32,
    /// The instruction in text.
    pub name: String,
    /// The instruction's bytes, and those of the HLT after it.
    pub bytes: Vec<u8>,
    /// Before.
    pub before: State,
    /// After.
    pub after: State,
    /// Which bits of the registers afterwards are defined; all where a register is missing.
    pub masks: Registers,
    /// See [`Taken`].
    pub taken: Option<Taken>,
    /// What names the case in a revocation list.
    pub hash: [u8; 20],
}
