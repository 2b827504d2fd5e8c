//! Deterministic operands, rich in the cases that matter.

/// A source of vectors.
pub(in crate::host) struct Operands {
    state: u64,
}

impl Operands {
    pub(in crate::host) fn new(seed: u64) -> Operands {
        Operands { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// xorshift64*.
    pub(in crate::host) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next() as usize % from.len()]
    }

    fn single(&mut self) -> u32 {
        const SPECIAL: [u32; 18] = [
            0,
            1,
            0x7f_ffff,
            0x80_0000,
            0x80_0001,
            0x3f80_0000,
            0x3f80_0001,
            0x4000_0000,
            0x3f00_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7f80_0001,
            0x7fc0_0000,
            0x7fe1_2345,
            0x4f00_0000,
            0x4eff_ffff,
            0x5f00_0000,
            0x1f80_0000,
        ];
        let sign = (self.next() as u32) << 31;
        match self.next() % 4 {
            0 => self.next() as u32,
            // Near one another, so that sums cancel and quotients are short.
            1 => ((self.next() as u32 & 0x00ff_ffff) + 0x3f00_0000) | sign,
            _ => self.pick(&SPECIAL) | sign,
        }
    }

    fn double(&mut self) -> u64 {
        const SPECIAL: [u64; 20] = [
            0,
            1,
            0x000f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x0010_0000_0000_0001,
            0x3ff0_0000_0000_0000,
            0x3ff0_0000_0000_0001,
            0x3fe0_0000_0000_0000,
            0x4000_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000,
            0x7ff0_0000_0000_0001,
            0x7ff8_0000_0000_0000,
            0x7ffc_1234_5678_9abc,
            0x41df_ffff_ffc0_0000,
            0x41e0_0000_0000_0000,
            0x43e0_0000_0000_0000,
            0x47ef_ffff_f000_0000,
            0x3690_0000_0000_0000,
            0x380f_ffff_ffff_ffff,
        ];
        let sign = self.next() << 63;
        match self.next() % 4 {
            0 => self.next(),
            1 => ((self.next() & 0x001f_ffff_ffff_ffff) + 0x3fe0_0000_0000_0000) | sign,
            _ => self.pick(&SPECIAL) | sign,
        }
    }

    fn quadword(&mut self) -> u64 {
        match self.next() % 5 {
            0 => u64::from(self.single()) << 32 | u64::from(self.single()),
            1 => self.double(),
            // Extremes of bytes, words and doublewords.
            2 => self.bytes(&[0, 1, 0x7f, 0x80, 0xff]),
            // Short strings over a small alphabet, for the string comparisons.
            3 => self.bytes(&[0, b'a', b'b', b'c', b'a', b'b', b'c', b'z', 0xf0]),
            _ => self.next(),
        }
    }

    fn bytes(&mut self, from: &[u8]) -> u64 {
        (0..8).fold(0, |r, _| r << 8 | u64::from(self.pick(from)))
    }

    /// A vector whose halves are of any of these kinds.
    pub(in crate::host) fn vector(&mut self) -> u128 {
        match self.next() % 4 {
            0 => (0..4).fold(0, |r, _| r << 32 | u128::from(self.single())),
            1 => u128::from(self.double()) << 64 | u128::from(self.double()),
            _ => u128::from(self.quadword()) << 64 | u128::from(self.quadword()),
        }
    }

    /// A length for the string comparisons, or a small shift count.
    pub(in crate::host) fn small(&mut self) -> u64 {
        match self.next() % 4 {
            0 => self.next(),
            _ => (self.next() % 40).wrapping_sub(20),
        }
    }
}
