//! The comparison of strings that PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM do, in portable code
//! (SDM vol. 2, 4.1).

use crate::vcpu::rflags::{CF, OF, SF, ZF};

/// What the immediate asks for.
#[derive(Clone, Copy)]
struct Control(u8);

impl Control {
    /// Elements in a vector.
    fn elements(self) -> u32 {
        if self.0 & 1 != 0 { 8 } else { 16 }
    }

    /// Element `n` of `x`.
    fn element(self, x: u128, n: u32) -> i32 {
        match self.0 & 3 {
            0 => i32::from((x >> (8 * n)) as u8),
            1 => i32::from((x >> (16 * n)) as u16),
            2 => i32::from((x >> (8 * n)) as i8),
            _ => i32::from((x >> (16 * n)) as i16),
        }
    }

    /// All bits of an element.
    fn element_mask(self) -> u128 {
        if self.0 & 1 != 0 { 0xffff } else { 0xff }
    }

    /// The number of elements before the first null one.
    fn implicit_len(self, x: u128) -> u32 {
        (0..self.elements()).find(|&n| self.element(x, n) == 0).unwrap_or(self.elements())
    }

    /// A bit for each element of `b`: whether it takes part in a match with the set, the ranges,
    /// the string or the substring `a` (table 4-2; invalid elements as in table 4-7).
    fn aggregate(self, a: &Text, b: &Text) -> u32 {
        let n = self.elements();
        let (at_a, at_b) = (|i| self.element(a.x, i), |j| self.element(b.x, j));
        let hit = |j: u32| match self.0 >> 2 & 3 {
            0 => j < b.len && (0..a.len).any(|i| at_a(i) == at_b(j)),
            1 => {
                let within = |i: u32| at_a(2 * i) <= at_b(j) && at_b(j) <= at_a(2 * i + 1);
                j < b.len && (0..a.len / 2).any(within)
            }
            2 => match (j < a.len, j < b.len) {
                (true, true) => at_a(j) == at_b(j),
                (valid_a, valid_b) => valid_a == valid_b,
            },
            _ => (0..n - j).all(|i| i >= a.len || i + j < b.len && at_a(i) == at_b(i + j)),
        };
        (0..n).fold(0, |r, j| r | u32::from(hit(j)) << j)
    }

    /// Negates all bits, or those of valid elements only (table 4-3).
    fn polarize(self, bits: u32, b: &Text) -> u32 {
        let all = (1 << self.elements()) - 1;
        match self.0 >> 4 & 3 {
            1 => bits ^ all,
            3 => bits ^ ((1 << b.len) - 1),
            _ => bits,
        }
    }

    /// The index of the lowest or highest bit; the number of elements if there is none.
    fn index(self, bits: u32) -> u32 {
        match bits {
            0 => self.elements(),
            _ if self.0 & 0x40 != 0 => bits.ilog2(),
            _ => bits.trailing_zeros(),
        }
    }

    /// The bits themselves, or spread over the elements.
    fn mask(self, bits: u32) -> u128 {
        if self.0 & 0x40 == 0 {
            return bits.into();
        }
        let width = 128 / self.elements();
        let set = (0..self.elements()).filter(|n| bits >> n & 1 != 0);
        set.fold(0, |m, n| m | self.element_mask() << (width * n))
    }
}

/// A vector of which the first `len` elements are valid.
struct Text {
    x: u128,
    len: u32,
}

/// A comparison that has been done.
pub(crate) struct Compared {
    control: Control,
    /// A bit for each element.
    bits: u32,
    flags: u64,
}

impl Compared {
    /// Compares the strings in `a` and `b` as the immediate `control` says. `lens` are their signed
    /// lengths, whose absolute values count; without them a null element ends a string.
    pub(crate) fn new(control: u8, a: u128, b: u128, lens: Option<[u64; 2]>) -> Compared {
        let control = Control(control);
        let n = control.elements();
        let explicit = |len: u64| (len as i64).unsigned_abs().min(n.into()) as u32;
        let [len_a, len_b] = match lens {
            Some(lens) => lens.map(explicit),
            None => [a, b].map(|x| control.implicit_len(x)),
        };
        let (a, b) = (Text { x: a, len: len_a }, Text { x: b, len: len_b });
        let bits = control.polarize(control.aggregate(&a, &b), &b);
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        let flags = flag(bits != 0, CF)
            | flag(b.len < n, ZF)
            | flag(a.len < n, SF)
            | flag(bits & 1 != 0, OF);
        Compared { control, bits, flags }
    }

    /// What goes to ECX.
    pub(crate) fn index(&self) -> u64 {
        self.control.index(self.bits).into()
    }

    /// What goes to XMM0.
    pub(crate) fn mask(&self) -> u128 {
        self.control.mask(self.bits)
    }

    /// The status flags.
    pub(crate) fn flags(&self) -> u64 {
        self.flags
    }
}
