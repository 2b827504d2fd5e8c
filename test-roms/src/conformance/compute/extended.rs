//! The x87's double extended format (SDM vol. 1, 4.8, 4.9, 8.2 and 8.5): what its bits mean, what
//! instructions make of them, and how they answer exceptions, masked or not.

use super::exact::{DE, Exact, IE, Number, OE, Operation, PE, Rounded, Rounding, UE, Value, ZE};
use super::float::{self, Format, Stored};

/// Bits of the status word besides the exceptions.
pub(super) const C0: u64 = 1 << 8;
pub(super) const C1: u64 = 1 << 9;
pub(super) const C2: u64 = 1 << 10;
pub(super) const C3: u64 = 1 << 14;

/// The explicit leading bit of the significand, and the bit that makes a NaN quiet.
const LEADING: u64 = 1 << 63;
const QUIET: u64 = 1 << 62;
const TOP: u16 = 0x7fff;
const BIAS: i32 = 0x3fff;
/// What the exponent of a result is moved by when its overflow or underflow is not masked.
const WRAP: i32 = 0x6000;

/// A number in a register: sign and exponent, and the significand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extended(pub(super) u16, pub(super) u64);

/// The "real indefinite".
pub(super) const INDEFINITE: Extended = Extended(0xffff, LEADING | QUIET);

/// How the control word says to compute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control {
    pub(super) rounding: Rounding,
    /// Bits of a significand.
    pub(super) precision: u32,
    /// Exceptions that are not masked.
    pub(super) unmasked: u64,
}

/// What an instruction leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left<T> {
    /// Its result; nothing if it has written none.
    pub(super) result: Option<T>,
    /// Exceptions and condition codes.
    pub(super) status: u64,
}

/// What a control word says: RC in bits 10 and 11, PC in bits 8 and 9, the masks in the lowest six.
pub(super) fn control(word: u16) -> Control {
    Control {
        rounding: Rounding::ALL[usize::from(word >> 10 & 3)],
        precision: [24, 0, 53, 64][usize::from(word >> 8 & 3)],
        unmasked: u64::from(!word & 0x3f),
    }
}

impl Control {
    /// What an instruction with these exceptions leaves: it writes nothing if one of those before
    /// the computation is not masked.
    fn leave<T>(&self, result: T, status: u64) -> Left<T> {
        let early = status & (IE | DE | ZE) & self.unmasked != 0;
        Left { result: (!early).then_some(result), status }
    }

    /// An instruction on operands that it cannot take.
    fn invalid<T>(&self, result: T) -> Left<T> {
        self.leave(result, IE)
    }
}

impl Extended {
    fn negative(self) -> bool {
        self.0 >> 15 != 0
    }
    fn infinity(negative: bool) -> Extended {
        Extended(u16::from(negative) << 15 | TOP, LEADING)
    }
    /// With an exponent other than zero and without the leading bit: no number since the 387
    /// (SDM vol. 1, 8.2.2).
    fn is_unsupported(self) -> bool {
        self.0 & TOP != 0 && self.1 & LEADING == 0
    }
    fn is_nan(self) -> bool {
        self.0 & TOP == TOP && self.1 << 1 != 0
    }
    fn signals(self) -> bool {
        self.is_nan() && self.1 & QUIET == 0
    }
    /// Pseudo-denormals too.
    pub(super) fn is_denormal(self) -> bool {
        self.0 & TOP == 0 && self.1 != 0
    }
    fn quiet(self) -> Extended {
        Extended(self.0, self.1 | QUIET)
    }

    fn read(self) -> Value {
        let (negative, exponent) = (self.negative(), self.0 & TOP);
        match (exponent, self.1 << 1) {
            (TOP, 0) => Value::Infinite { negative },
            (TOP, _) => Value::Nan { quiet: !self.signals() },
            _ => {
                let scale = i32::from(exponent.max(1)) - BIAS - 63;
                let significand = self.1.into();
                Value::Finite(Number { negative, significand, scale, more: false })
            }
        }
    }

    /// A number as it is written, its exponent moved by `wrap`.
    fn write(negative: bool, rounded: &Rounded, precision: u32, wrap: i32) -> Extended {
        let significand = (rounded.significand as u64) << (64 - precision);
        let exponent = rounded.unit + precision as i32 - 1 + BIAS + wrap;
        let exponent = if significand & LEADING == 0 { 0 } else { exponent as u16 };
        Extended(u16::from(negative) << 15 | exponent, significand)
    }
}

/// The NaN that comes of operands of which one is: a quiet one before one that signals, otherwise
/// the larger significand (SDM vol. 1, table 4-7).
fn of_nans(a: Extended, b: Extended) -> Extended {
    let chosen = match (a.is_nan(), b.is_nan()) {
        (true, false) => a,
        (false, true) => b,
        _ if a.signals() != b.signals() => [a, b][usize::from(a.signals())],
        _ if a.1 >= b.1 => a,
        _ => b,
    };
    chosen.quiet()
}

/// A result of arithmetic in a register (SDM vol. 1, 4.9.1.4, 4.9.1.5, 8.5.4 and 8.5.5).
fn store(number: &Number, c: &Control) -> Left<Extended> {
    let negative = number.negative;
    if number.significand == 0 {
        return Left { result: Some(Extended(u16::from(negative) << 15, 0)), status: 0 };
    }
    let lowest = 1 - BIAS - (c.precision as i32 - 1);
    let free = number.round_freely(c.precision, c.rounding);
    let bounded = number.round(c.precision, lowest, c.rounding);
    let exponent = free.unit + c.precision as i32 - 1 + BIAS;
    let (flags, rounded, wrap) = match exponent {
        ..1 if c.unmasked & UE != 0 => (UE, free, WRAP),
        ..1 => (if bounded.exact { 0 } else { UE }, bounded, 0),
        0x7fff.. if c.unmasked & OE != 0 => (OE, free, -WRAP),
        0x7fff.. => return overflow(negative, c),
        _ => (0, bounded, 0),
    };
    let result = Extended::write(negative, &rounded, c.precision, wrap);
    Left { result: Some(result), status: flags | inexact(&rounded) }
}

fn overflow(negative: bool, c: &Control) -> Left<Extended> {
    let sign = u16::from(negative) << 15;
    let (result, up) = if c.rounding.overflows(negative) {
        (Extended::infinity(negative), C1)
    } else {
        (Extended(sign | (TOP - 1), u64::MAX << (64 - c.precision)), 0)
    };
    Left { result: Some(result), status: OE | PE | up }
}

/// #P, and in C1 its direction.
fn inexact(rounded: &Rounded) -> u64 {
    let flag = if rounded.exact { 0 } else { PE };
    flag | if rounded.up { C1 } else { 0 }
}

/// FADD and its like.
pub(super) fn arithmetic(op: Operation, a: Extended, b: Extended, c: &Control) -> Left<Extended> {
    if a.is_unsupported() || b.is_unsupported() {
        return c.invalid(INDEFINITE);
    }
    if a.is_nan() || b.is_nan() {
        return c.leave(of_nans(a, b), if a.signals() || b.signals() { IE } else { 0 });
    }
    let denormal = if a.is_denormal() || b.is_denormal() { DE } else { 0 };
    let left = match op.of(a.read(), b.read(), c.rounding) {
        Exact::Invalid => return c.invalid(INDEFINITE),
        Exact::Divided { negative } => return c.leave(Extended::infinity(negative), ZE),
        _ if denormal & c.unmasked != 0 => return Left { result: None, status: DE },
        Exact::Infinite { negative } => c.leave(Extended::infinity(negative), 0),
        Exact::Number(number) => store(&number, c),
    };
    Left { status: left.status | denormal, ..left }
}

/// FLD of a single or a double.
pub(super) fn load_float(bits: u64, format: Format, c: &Control) -> Left<Extended> {
    let shift = 64 - format.precision;
    let negative = bits & format.sign(true) != 0;
    match format.read(bits) {
        Value::Infinite { negative } => c.leave(Extended::infinity(negative), 0),
        Value::Nan { quiet } => {
            let nan = Extended(u16::from(negative) << 15 | TOP, LEADING | bits << shift);
            c.leave(nan.quiet(), if quiet { 0 } else { IE })
        }
        Value::Finite(number) => {
            // Each number of the shorter formats is one of this.
            let exactly = Control { precision: 64, ..*c };
            let denormal = if format.is_denormal(bits) { DE } else { 0 };
            let loaded = store(&number, &exactly);
            Left { status: loaded.status | denormal, ..loaded }
        }
    }
}

/// FRNDINT.
pub(super) fn round_to_integer(v: Extended, c: &Control) -> Left<Extended> {
    if v.is_unsupported() {
        return c.invalid(INDEFINITE);
    }
    if v.is_nan() {
        return c.leave(v.quiet(), if v.signals() { IE } else { 0 });
    }
    let denormal = if v.is_denormal() { DE } else { 0 };
    if denormal & c.unmasked != 0 {
        return Left { result: None, status: DE };
    }
    match v.read() {
        Value::Finite(number) if number.significand != 0 && number.scale < 0 => {
            let rounded = number.round_at(0, c.rounding);
            let number = Number { significand: rounded.significand, scale: 0, ..number };
            let whole = store(&number, &Control { precision: 64, unmasked: 0, ..*c }).result;
            c.leave(whole.unwrap_or(v), denormal | inexact(&rounded))
        }
        _ => c.leave(v, denormal),
    }
}

/// FST to a single or a double: what is stored, nothing if an exception but #P is not masked.
pub(super) fn store_float(v: Extended, format: Format, c: &Control) -> Left<u64> {
    if v.is_unsupported() {
        return c.invalid(format.indefinite());
    }
    let stored = match v.read() {
        Value::Infinite { negative } => return c.leave(format.infinity(negative), 0),
        Value::Nan { quiet } => {
            let fraction = (v.1 & !LEADING) >> (64 - format.precision);
            let bits = format.infinity(v.negative()) | fraction | format.quiet_bit();
            return c.leave(bits, if quiet { 0 } else { IE });
        }
        Value::Finite(number) => {
            let control = float::Control {
                rounding: c.rounding,
                denormals_are_zero: false,
                flush_to_zero: false,
                unmasked: c.unmasked,
            };
            format.store(&number, &control)
        }
    };
    let Stored { bits, flags, up } = stored;
    let result = (flags & c.unmasked & (OE | UE) == 0).then_some(bits);
    Left { result, status: flags | if up { C1 } else { 0 } }
}

/// FIST: what is stored in `bits` bits.
pub(super) fn store_integer(v: Extended, bits: u32, c: &Control) -> Left<u64> {
    let mask = u64::MAX >> (64 - bits);
    let indefinite = 1_u64 << (bits - 1);
    let Value::Finite(number) = v.read() else { return c.invalid(indefinite) };
    if v.is_unsupported() || number.significand != 0 && number.scale > 0 {
        return c.invalid(indefinite);
    }
    let rounded = number.round_at(0, c.rounding);
    if rounded.significand > u128::from(indefinite) - u128::from(!number.negative) {
        return c.invalid(indefinite);
    }
    let magnitude = rounded.significand as u64;
    let value = if number.negative { magnitude.wrapping_neg() } else { magnitude };
    c.leave(value & mask, inexact(&rounded))
}

/// The condition codes of FCOM, or of FUCOM, which takes quiet NaNs, and its exceptions.
pub(super) fn compare(a: Extended, b: Extended, unordered: bool) -> u64 {
    let unsupported = a.is_unsupported() || b.is_unsupported();
    if unsupported || a.is_nan() || b.is_nan() {
        let invalid = unsupported || !unordered || a.signals() || b.signals();
        return C3 | C2 | C0 | if invalid { IE } else { 0 };
    }
    let denormal = if a.is_denormal() || b.is_denormal() { DE } else { 0 };
    denormal
        | match Operation::Sub.of(a.read(), b.read(), Rounding::Nearest) {
            Exact::Number(Number { significand: 0, .. }) => C3,
            Exact::Number(Number { negative: true, .. }) => C0,
            Exact::Number(_) => 0,
            _ => order(a, b),
        }
}

/// The condition codes if one of the operands is infinite at least.
fn order(a: Extended, b: Extended) -> u64 {
    let rank = |v: Extended| match v.read() {
        Value::Infinite { negative: true } => -1,
        Value::Infinite { negative: false } => 1,
        _ => 0,
    };
    match rank(a).cmp(&rank(b)) {
        std::cmp::Ordering::Less => C0,
        std::cmp::Ordering::Equal => C3,
        std::cmp::Ordering::Greater => 0,
    }
}

/// The condition codes of FXAM (SDM vol. 2, table 3-43).
pub(super) fn examine(v: Extended) -> u64 {
    let class = match v.read() {
        _ if v.is_unsupported() => 0,
        Value::Nan { .. } => C0,
        Value::Infinite { .. } => C2 | C0,
        Value::Finite(Number { significand: 0, .. }) => C3,
        _ if v.is_denormal() => C3 | C2,
        _ => C2,
    };
    class | if v.negative() { C1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::float::DOUBLE;
    use super::*;

    /// With the precision of doubles, what Rust computes; it rounds to nearest.
    #[test]
    fn numbers_are_those_of_rust() {
        use Operation::{Add, Div, Mul, Sqrt, Sub};
        let c = control(0x027f);
        let load = |v: f64| load_float(v.to_bits(), DOUBLE, &c).result.unwrap();
        let values = [1.0, -3.5, 1e150, 1e-150, 0.1, 2.0f64.powi(52) + 1.0, 0.0, f64::INFINITY];
        for a in values {
            for b in values {
                for (op, right) in
                    [(Add, a + b), (Sub, a - b), (Mul, a * b), (Div, a / b), (Sqrt, a.sqrt())]
                {
                    let result = arithmetic(op, load(a), load(b), &c).result.unwrap();
                    let got = store_float(result, DOUBLE, &c).result.unwrap();
                    let same = got == right.to_bits() || right.is_nan();
                    assert!(same, "{op:?} of {a:e} and {b:e}: {:e}", f64::from_bits(got));
                }
            }
        }
    }

    #[test]
    fn unmasked_exceptions_wrap_the_exponent_or_leave_the_operand() {
        let largest = Extended(0x7ffe, u64::MAX);
        let unmasked = control(0x0340);
        let left = arithmetic(Operation::Add, largest, largest, &unmasked);
        assert_eq!(left, Left { result: Some(Extended(0x1fff, u64::MAX)), status: OE });
        let tiny = Extended(0, 1);
        assert_eq!(
            arithmetic(Operation::Add, tiny, tiny, &unmasked),
            Left { result: None, status: DE }
        );
        assert_eq!(compare(tiny, largest, true), C0 | DE);
        assert_eq!(store_integer(largest, 32, &control(0x037f)).result, Some(1 << 31));
    }
}
