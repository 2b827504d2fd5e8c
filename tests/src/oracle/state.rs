//! What an instruction works on and what it leaves behind, on either processor.

use iced_x86::CodeSize;

use super::layout::SCRATCH_LEN;

/// The submode of long mode that an instruction is executed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 64-bit mode.
    Long,
    /// Compatibility mode, in a 32-bit code segment. Of the state the lower halves of RAX to RDI are
    /// in use; the rest is zero.
    Compatibility,
}

impl Mode {
    /// Both.
    pub const ALL: [Mode; 2] = [Mode::Long, Mode::Compatibility];

    /// The size of code, in bits.
    pub fn bits(self) -> u32 {
        match self {
            Mode::Long => 64,
            Mode::Compatibility => 32,
        }
    }

    /// The same, for iced.
    pub fn code_size(self) -> CodeSize {
        match self {
            Mode::Long => CodeSize::Code64,
            Mode::Compatibility => CodeSize::Code32,
        }
    }
}

/// Registers and memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// RAX to R15 in encoding order.
    pub regs: [u64; 16],
    /// The status flags, DF and what is always set.
    pub rflags: u64,
    /// x87, MXCSR and XMM0-15 as FXSAVE64 lays them out.
    pub fx: [u8; 512],
    /// The upper halves of YMM0-15.
    pub ymm_high: [u128; 16],
    /// The scratch memory.
    pub scratch: Box<[u8; SCRATCH_LEN]>,
}

/// An exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// Its vector.
    pub vector: u8,
    /// Its error code; 0 for vectors without one.
    pub error: u64,
    /// CR2 of a page fault, else 0.
    pub address: u64,
}

/// What executing an instruction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The state afterwards, or at the exception.
    pub state: State,
    /// The exception.
    pub raised: Option<Raised>,
}

/// What a program leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The state: the kernel's if the program has raised an exception.
    pub state: State,
    /// Where it stands.
    pub rip: u64,
    /// CR2.
    pub fault_address: u64,
    /// Instructions retired, exceptions included.
    pub retired: u64,
}

impl State {
    /// Whether [`State::fx_fields`] has the same in both, but for the upper halves.
    pub fn same_fx(&self, other: &State) -> bool {
        let numbers = (32..160).step_by(16).map(|at| at..at + 10);
        let mut compared = [0..5, 6..28, 160..416].into_iter().chain(numbers);
        compared.all(|range| self.fx[range.clone()] == other.fx[range])
    }

    /// The upper halves of the YMM registers, and the parts of the FXSAVE image in which an
    /// instruction's effect shows: not the mask of MXCSR and the reserved bytes.
    pub fn fx_fields(&self) -> impl Iterator<Item = (String, u128)> + '_ {
        let number = |from: usize, len: usize| {
            let mut bytes = [0; 16];
            bytes[..len].copy_from_slice(&self.fx[from..from + len]);
            u128::from_le_bytes(bytes)
        };
        let control = [
            ("FCW", 0, 2),
            ("FSW", 2, 2),
            ("tags", 4, 1),
            ("FOP", 6, 2),
            ("FIP", 8, 8),
            ("FDP", 16, 8),
            ("MXCSR", 24, 4),
        ];
        let registers = (0..24).map(|n| match n {
            0..8 => (format!("ST{n}"), 32 + 16 * n, 10),
            _ => (format!("XMM{}", n - 8), 32 + 16 * n, 16),
        });
        let upper = self.ymm_high.iter().enumerate();
        let upper = upper.map(|(n, v)| (format!("YMM{n} upper"), *v));
        control
            .map(|(name, from, len)| (name.to_owned(), from, len))
            .into_iter()
            .chain(registers)
            .map(move |(name, from, len)| (name, number(from, len)))
            .chain(upper)
    }
}
