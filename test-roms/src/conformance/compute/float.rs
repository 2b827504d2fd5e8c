//! SSE's formats of floating point (SDM vol. 1, 4.8, 4.9 and 11.5): what their bits mean, and what
//! becomes of results.

use super::exact::{DE, Exact, IE, Number, OE, Operation, PE, Rounding, UE, Value, ZE};

/// A format of IEEE 754 with an implicit leading bit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// Bits of the significand, with the leading one.
    pub(super) precision: u32,
    /// Bits of the exponent.
    pub(super) exponent: u32,
}

pub(super) const SINGLE: Format = Format { precision: 24, exponent: 8 };
pub(super) const DOUBLE: Format = Format { precision: 53, exponent: 11 };

/// How MXCSR says to compute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control {
    pub(super) rounding: Rounding,
    pub(super) denormals_are_zero: bool,
    pub(super) flush_to_zero: bool,
    /// Exceptions that are not masked.
    pub(super) unmasked: u64,
}

/// A number in a format: its bits, exceptions, and whether the magnitude has become larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) bits: u64,
    pub(super) flags: u64,
    pub(super) up: bool,
}

impl Format {
    fn bits(self) -> u32 {
        self.precision + self.exponent
    }
    fn fraction_bits(self) -> u32 {
        self.precision - 1
    }
    fn top(self) -> u64 {
        (1 << self.exponent) - 1
    }
    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }
    pub(super) fn sign(self, negative: bool) -> u64 {
        u64::from(negative) << (self.bits() - 1)
    }
    pub(super) fn quiet_bit(self) -> u64 {
        1 << (self.fraction_bits() - 1)
    }
    pub(super) fn infinity(self, negative: bool) -> u64 {
        self.sign(negative) | self.top() << self.fraction_bits()
    }
    fn largest(self, negative: bool) -> u64 {
        self.infinity(negative) - 1
    }
    /// The "real indefinite" (SDM vol. 1, 4.8.3.7).
    pub(super) fn indefinite(self) -> u64 {
        self.infinity(true) | self.quiet_bit()
    }
    pub(super) fn is_denormal(self, v: u64) -> bool {
        let rest = v & !self.sign(true);
        rest != 0 && rest >> self.fraction_bits() == 0
    }

    pub(super) fn read(self, v: u64) -> Value {
        let negative = v & self.sign(true) != 0;
        let exponent = v >> self.fraction_bits() & self.top();
        let fraction = v & ((1 << self.fraction_bits()) - 1);
        let scale = exponent.max(1) as i32 - self.bias() - self.fraction_bits() as i32;
        let leading = u64::from(exponent != 0) << self.fraction_bits();
        let significand = (leading | fraction).into();
        match (exponent == self.top(), fraction) {
            (true, 0) => Value::Infinite { negative },
            (true, _) => Value::Nan { quiet: fraction & self.quiet_bit() != 0 },
            _ => Value::Finite(Number { negative, significand, scale, more: false }),
        }
    }

    /// A number rounded to this format.
    pub(super) fn store(self, number: &Number, c: &Control) -> Stored {
        let sign = self.sign(number.negative);
        if number.significand == 0 {
            return Stored { bits: sign, flags: 0, up: false };
        }
        let lowest = 1 - self.bias() - self.fraction_bits() as i32;
        let rounded = number.round(self.precision, lowest, c.rounding);
        let inexact = if rounded.exact { 0 } else { PE };
        if rounded.tiny && c.unmasked & UE != 0 {
            return Stored { bits: 0, flags: UE | inexact, up: false };
        }
        if rounded.tiny && c.flush_to_zero {
            return Stored { bits: sign, flags: UE | PE, up: false };
        }
        let kept = rounded.significand as u64;
        let normal = kept >> self.fraction_bits() != 0;
        let exponent = if normal { (rounded.unit - lowest + 1) as u64 } else { 0 };
        if exponent >= self.top() {
            let up = c.rounding.overflows(number.negative);
            let bits =
                if up { self.infinity(number.negative) } else { self.largest(number.negative) };
            return Stored { bits, flags: OE | PE, up };
        }
        let fraction = kept & ((1 << self.fraction_bits()) - 1);
        let underflow = if rounded.tiny && !rounded.exact { UE } else { 0 };
        Stored {
            bits: sign | exponent << self.fraction_bits() | fraction,
            flags: underflow | inexact,
            up: rounded.up,
        }
    }

    /// The result of an operation and its exceptions; only those before the computation if one of
    /// them is not masked (SDM vol. 1, 4.9.2 and 11.5.2).
    pub(super) fn compute(self, op: Operation, a: u64, b: u64, c: &Control) -> (u64, u64) {
        let flush =
            |v| if c.denormals_are_zero && self.is_denormal(v) { v & self.sign(true) } else { v };
        let (a, b) = (flush(a), if op == Operation::Sqrt { 0 } else { flush(b) });
        let (x, y) = (self.read(a), self.read(b));
        for (v, value) in [(a, x), (b, y)] {
            if let Value::Nan { .. } = value {
                let signals = [x, y].contains(&Value::Nan { quiet: false });
                return (v | self.quiet_bit(), if signals { IE } else { 0 });
            }
        }
        let denormal = if self.is_denormal(a) || self.is_denormal(b) { DE } else { 0 };
        let (result, flags) = match op.of(x, y, c.rounding) {
            // These come before #D.
            Exact::Invalid => return (self.indefinite(), IE),
            Exact::Divided { negative } => return (self.infinity(negative), ZE),
            Exact::Infinite { negative } => (self.infinity(negative), 0),
            Exact::Number(number) => {
                let Stored { bits, flags, .. } = self.store(&number, c);
                (bits, flags)
            }
        };
        if denormal & c.unmasked != 0 { (result, denormal) } else { (result, flags | denormal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Control = Control {
        rounding: Rounding::Nearest,
        denormals_are_zero: false,
        flush_to_zero: false,
        unmasked: 0,
    };

    /// Rust's own arithmetic rounds to nearest.
    #[test]
    fn numbers_are_those_of_rust() {
        use Operation::{Add, Div, Mul, Sqrt, Sub};
        let values = [1.0, -3.5, 1e300, 1e-300, 5e-324, 0.1, -1e308, 2.0f64.powi(52) + 1.0, 0.0];
        for a in values {
            for b in values {
                for (op, right) in
                    [(Add, a + b), (Sub, a - b), (Mul, a * b), (Div, a / b), (Sqrt, a.sqrt())]
                {
                    let (got, _) = DOUBLE.compute(op, a.to_bits(), b.to_bits(), &PLAIN);
                    let same = got == right.to_bits() || right.is_nan();
                    assert!(same, "{op:?} of {a:e} and {b:e}: {:e}", f64::from_bits(got));
                }
            }
        }
    }

    #[test]
    fn exceptions_are_found() {
        let one = 1.0f64.to_bits();
        let tiny = 5e-324f64.to_bits();
        assert_eq!(DOUBLE.compute(Operation::Div, one, 0, &PLAIN).1, ZE);
        assert_eq!(DOUBLE.compute(Operation::Mul, tiny, tiny, &PLAIN), (0, DE | UE | PE));
        let down = Control { rounding: Rounding::Down, ..PLAIN };
        assert_eq!(DOUBLE.compute(Operation::Sub, one, one, &down), (1 << 63, 0));
        let up = Control { rounding: Rounding::Up, ..PLAIN };
        assert_eq!(DOUBLE.compute(Operation::Add, one, tiny, &up), (one + 1, DE | PE));
    }
}
