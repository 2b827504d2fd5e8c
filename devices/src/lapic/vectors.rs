//! A set of interrupt vectors: IRR, ISR and TMR.

use serde::{Deserialize, Serialize};

/// 256 bits, in eight registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Vectors([u32; 8]);

impl Vectors {
    /// The set that the eight registers show.
    pub(super) fn from_registers(registers: [u32; 8]) -> Self {
        Self(registers)
    }

    pub(super) fn set(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] |= 1 << (vector & 31);
    }

    pub(super) fn clear(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] &= !(1 << (vector & 31));
    }

    pub(super) fn assign(&mut self, vector: u8, value: bool) {
        if value { self.set(vector) } else { self.clear(vector) }
    }

    pub(super) fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] >> (vector & 31) & 1 != 0
    }

    pub(super) fn highest(&self) -> Option<u8> {
        let register = self.0.iter().rposition(|&bits| bits != 0)?;
        Some((register as u32 * 32 + self.0[register].ilog2()) as u8)
    }

    /// One of the eight registers.
    pub(super) fn register(&self, index: usize) -> u32 {
        self.0[index & 7]
    }
}
