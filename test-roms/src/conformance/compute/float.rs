//! Floating point by definition (IEEE 754; SDM vol. 1, 4.8 and 4.9): operands as exact integers times
//! powers of two, one rounding at the end.

/// Exceptions, as the status bits of MXCSR and of the x87 status word.
pub(super) const IE: u64 = 1;
pub(super) const DE: u64 = 2;
pub(super) const ZE: u64 = 4;
pub(super) const OE: u64 = 8;
pub(super) const UE: u64 = 16;
pub(super) const PE: u64 = 32;

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

/// A direction of rounding, by its number in MXCSR.RC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    Nearest,
    Down,
    Up,
    Zero,
}

impl Rounding {
    pub(super) const ALL: [Self; 4] = [Self::Nearest, Self::Down, Self::Up, Self::Zero];
}

/// What an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Nan {
        quiet: bool,
    },
    Infinite {
        negative: bool,
    },
    /// `significand * 2^scale`
    Finite {
        negative: bool,
        significand: u128,
        scale: i32,
    },
}

/// An operation of two operands, or of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Sub,
    Mul,
    Div,
    Sqrt,
}

/// How MXCSR says to compute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control {
    pub(super) rounding: Rounding,
    pub(super) denormals_are_zero: bool,
    pub(super) flush_to_zero: bool,
    /// Exceptions that are not masked.
    pub(super) unmasked: u64,
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
    fn sign(self, negative: bool) -> u64 {
        u64::from(negative) << (self.bits() - 1)
    }
    fn quiet_bit(self) -> u64 {
        1 << (self.fraction_bits() - 1)
    }
    fn infinity(self, negative: bool) -> u64 {
        self.sign(negative) | self.top() << self.fraction_bits()
    }
    fn largest(self, negative: bool) -> u64 {
        self.infinity(negative) - 1
    }
    /// The "real indefinite" (SDM vol. 1, 4.8.3.7).
    fn indefinite(self) -> u64 {
        self.infinity(true) | self.quiet_bit()
    }
    pub(super) fn is_denormal(self, v: u64) -> bool {
        let rest = v & !self.sign(true);
        rest != 0 && rest >> self.fraction_bits() == 0
    }

    fn read(self, v: u64) -> Value {
        let negative = v & self.sign(true) != 0;
        let exponent = v >> self.fraction_bits() & self.top();
        let fraction = v & ((1 << self.fraction_bits()) - 1);
        let scale = exponent.max(1) as i32 - self.bias() - self.fraction_bits() as i32;
        let leading = u64::from(exponent != 0) << self.fraction_bits();
        match (exponent == self.top(), fraction) {
            (true, 0) => Value::Infinite { negative },
            (true, _) => Value::Nan { quiet: fraction & self.quiet_bit() != 0 },
            _ => Value::Finite { negative, significand: (leading | fraction).into(), scale },
        }
    }

    /// Rounds `significand * 2^scale`, and something more than nothing but less than one of its
    /// units if `more`. The result and its exceptions.
    fn round(
        self,
        negative: bool,
        significand: u128,
        scale: i32,
        more: bool,
        c: &Control,
    ) -> (u64, u64) {
        if significand == 0 && !more {
            return (self.sign(negative), 0);
        }
        let width = 128 - significand.leading_zeros() as i32;
        let lowest = 1 - self.bias() - self.fraction_bits() as i32;
        // Tiny is what would be below the smallest normal number if exponents had no bound.
        let free = width + scale - self.precision as i32;
        let (unbounded, _) = keep(negative, significand, free - scale, more, c.rounding);
        let grows = u128::from(unbounded) >> self.precision != 0;
        let tiny = free + i32::from(grows) < lowest;
        let unit = free.max(lowest);
        let (kept, exact) = keep(negative, significand, unit - scale, more, c.rounding);
        let inexact = if exact { 0 } else { PE };
        if tiny && c.unmasked & UE != 0 {
            return (0, UE | inexact);
        }
        if tiny && c.flush_to_zero {
            return (self.sign(negative), UE | PE);
        }
        let (kept, unit) =
            if kept >> self.precision != 0 { (kept >> 1, unit + 1) } else { (kept, unit) };
        let normal = kept >> self.fraction_bits() != 0;
        let exponent = if normal { (unit - lowest + 1) as u64 } else { 0 };
        if exponent >= self.top() {
            let away = match c.rounding {
                Rounding::Nearest => true,
                Rounding::Down => negative,
                Rounding::Up => !negative,
                Rounding::Zero => false,
            };
            let result = if away { self.infinity(negative) } else { self.largest(negative) };
            return (result, OE | PE);
        }
        let fraction = kept & ((1 << self.fraction_bits()) - 1);
        let underflow = if tiny && !exact { UE } else { 0 };
        (self.sign(negative) | exponent << self.fraction_bits() | fraction, underflow | inexact)
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
        let (result, flags) = match op {
            Operation::Add => self.sum(x, y, c),
            Operation::Sub => self.sum(x, negated(y), c),
            Operation::Mul => self.product(x, y, c),
            Operation::Div => self.quotient(x, y, c),
            Operation::Sqrt => self.root(x, c),
        };
        // #I and #Z come before #D.
        if flags & (IE | ZE) != 0 {
            return (result, flags);
        }
        if denormal & c.unmasked != 0 { (result, denormal) } else { (result, flags | denormal) }
    }

    fn sum(self, x: Value, y: Value, c: &Control) -> (u64, u64) {
        use Value::{Finite, Infinite};
        match (x, y) {
            (Infinite { negative: n }, Infinite { negative: m }) if n != m => {
                (self.indefinite(), IE)
            }
            (Infinite { negative }, _) | (_, Infinite { negative }) => (self.infinity(negative), 0),
            (
                Finite { negative: n, significand: s, scale: e },
                Finite { negative: m, significand: t, scale: f },
            ) => {
                // The larger scale comes down to the smaller, or as far as 128 bits go: what is
                // then below its units is less than one.
                let ((n, s, e), (m, t, f)) = if (s != 0 && e >= f) || t == 0 {
                    ((n, s, e), (m, t, f))
                } else {
                    ((m, t, f), (n, s, e))
                };
                let room = (s.leading_zeros() as i32 - 2).min(e - f).max(0);
                let (s, e) = (s << room, e - room);
                let apart = (e - f).max(0);
                let (t, lost) = if apart > 127 {
                    (0, t != 0)
                } else {
                    (t >> apart, t & ((1 << apart) - 1) != 0)
                };
                let (s, t) = (s as i128, t as i128);
                let t = if n == m { t } else { -t - i128::from(lost) };
                let total = s + t;
                if total == 0 && !lost {
                    let zero = if n == m { n } else { c.rounding == Rounding::Down };
                    return (self.sign(zero), 0);
                }
                let negative = if total < 0 { !n } else { n };
                self.round(negative, total.unsigned_abs(), e, lost, c)
            }
            _ => (self.indefinite(), IE),
        }
    }

    fn product(self, x: Value, y: Value, c: &Control) -> (u64, u64) {
        use Value::{Finite, Infinite};
        match (x, y) {
            (
                Finite { negative: n, significand: s, scale: e },
                Finite { negative: m, significand: t, scale: f },
            ) => self.round(n != m, s * t, e + f, false, c),
            (Infinite { .. }, Finite { significand: 0, .. })
            | (Finite { significand: 0, .. }, Infinite { .. }) => (self.indefinite(), IE),
            _ => (self.infinity(is_negative(x) != is_negative(y)), 0),
        }
    }

    fn quotient(self, x: Value, y: Value, c: &Control) -> (u64, u64) {
        use Value::{Finite, Infinite};
        let negative = is_negative(x) != is_negative(y);
        match (x, y) {
            (Infinite { .. }, Infinite { .. })
            | (Finite { significand: 0, .. }, Finite { significand: 0, .. }) => {
                (self.indefinite(), IE)
            }
            (Infinite { .. }, _) => (self.infinity(negative), 0),
            (_, Infinite { .. }) | (Finite { significand: 0, .. }, _) => (self.sign(negative), 0),
            (_, Finite { significand: 0, .. }) => (self.infinity(negative), ZE),
            (Finite { significand: s, scale: e, .. }, Finite { significand: t, scale: f, .. }) => {
                let up = s.leading_zeros();
                let s = s << up;
                self.round(negative, s / t, e - up as i32 - f, s % t != 0, c)
            }
            _ => (self.indefinite(), IE),
        }
    }

    fn root(self, x: Value, c: &Control) -> (u64, u64) {
        match x {
            Value::Finite { negative, significand: 0, .. } => (self.sign(negative), 0),
            Value::Finite { negative: false, significand, scale } => {
                let up = (significand.leading_zeros() & !1) as i32;
                let up = if (scale - up) % 2 == 0 { up } else { up - 1 };
                let v = significand << up;
                let root = v.isqrt();
                self.round(false, root, (scale - up) / 2, root * root != v, c)
            }
            Value::Infinite { negative: false } => (self.infinity(false), 0),
            _ => (self.indefinite(), IE),
        }
    }
}

fn is_negative(v: Value) -> bool {
    matches!(v, Value::Finite { negative: true, .. } | Value::Infinite { negative: true })
}

fn negated(v: Value) -> Value {
    match v {
        Value::Finite { negative, significand, scale } => {
            Value::Finite { negative: !negative, significand, scale }
        }
        Value::Infinite { negative } => Value::Infinite { negative: !negative },
        nan => nan,
    }
}

/// `significand` without its lowest `drop` bits, rounded, and whether nothing was lost.
fn keep(
    negative: bool,
    significand: u128,
    drop: i32,
    more: bool,
    rounding: Rounding,
) -> (u64, bool) {
    if drop <= 0 {
        // Whoever has something more than all bits has more of these than the format.
        return ((significand << -drop) as u64, !more);
    }
    let (kept, rest, half) = if drop > 127 {
        (0, significand, u128::MAX)
    } else {
        (significand >> drop, significand & ((1 << drop) - 1), 1_u128 << (drop - 1))
    };
    let exact = rest == 0 && !more;
    let up = match rounding {
        Rounding::Nearest => rest > half || rest == half && (more || kept & 1 != 0),
        Rounding::Down => negative && !exact,
        Rounding::Up => !negative && !exact,
        Rounding::Zero => false,
    };
    (kept as u64 + u64::from(up), exact)
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
