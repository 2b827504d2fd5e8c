//! Numbers as exact integers times powers of two, operations on them, and one rounding at the end
//! (IEEE 754; SDM vol. 1, 4.8 and 4.9): what all formats of floating point have in common.

/// Exceptions, as the status bits of MXCSR and of the x87 status word.
pub(super) const IE: u64 = 1;
pub(super) const DE: u64 = 2;
pub(super) const ZE: u64 = 4;
pub(super) const OE: u64 = 8;
pub(super) const UE: u64 = 16;
pub(super) const PE: u64 = 32;

/// A direction of rounding, by its number in MXCSR.RC and in the x87 control word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    Nearest,
    Down,
    Up,
    Zero,
}

impl Rounding {
    pub(super) const ALL: [Self; 4] = [Self::Nearest, Self::Down, Self::Up, Self::Zero];

    /// Whether what is too large becomes infinite, and not the largest number (SDM vol. 1, 4.9.1.4).
    pub(super) fn overflows(self, negative: bool) -> bool {
        match self {
            Rounding::Nearest => true,
            Rounding::Down => negative,
            Rounding::Up => !negative,
            Rounding::Zero => false,
        }
    }
}

/// What an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Nan { quiet: bool },
    Infinite { negative: bool },
    Finite(Number),
}

/// `significand * 2^scale`, and something more than nothing but less than one of its units if
/// `more`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) negative: bool,
    pub(super) significand: u128,
    pub(super) scale: i32,
    pub(super) more: bool,
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

/// What an operation comes to before it is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exact {
    Number(Number),
    Infinite {
        negative: bool,
    },
    /// Infinite by a division by zero.
    Divided {
        negative: bool,
    },
    Invalid,
}

/// A number of so many bits, or fewer if it is tiny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rounded {
    pub(super) significand: u128,
    pub(super) unit: i32,
    /// Below the smallest normal number, if exponents had no bound.
    pub(super) tiny: bool,
    pub(super) exact: bool,
    /// The magnitude has become larger.
    pub(super) up: bool,
}

/// The bits that quotients and roots are worked out to: enough for each format and its rounding.
const ENOUGH: i32 = 68;

impl Operation {
    /// The exact result for operands that are not NaNs; `rounding` decides on the sign of a zero.
    pub(super) fn of(self, x: Value, y: Value, rounding: Rounding) -> Exact {
        match self {
            Operation::Add => sum(x, y, rounding),
            Operation::Sub => sum(x, negated(y), rounding),
            Operation::Mul => product(x, y),
            Operation::Div => quotient(x, y),
            Operation::Sqrt => root(x),
        }
    }
}

impl Number {
    /// Zero.
    fn zero(negative: bool) -> Number {
        Number { negative, significand: 0, scale: 0, more: false }
    }

    /// How many bits the significand has.
    fn width(&self) -> i32 {
        128 - self.significand.leading_zeros() as i32
    }

    /// Rounded to `precision` bits, none of which counts less than `2^lowest`. Not for zero.
    pub(super) fn round(&self, precision: u32, lowest: i32, rounding: Rounding) -> Rounded {
        let unbounded = self.round_freely(precision, rounding);
        let tiny = unbounded.unit < lowest;
        if tiny { Rounded { tiny, ..self.round_at(lowest, rounding) } } else { unbounded }
    }

    /// Rounded to `precision` bits, whatever they count. Not for zero.
    pub(super) fn round_freely(&self, precision: u32, rounding: Rounding) -> Rounded {
        let unit = self.width() + self.scale - precision as i32;
        let rounded = self.round_at(unit, rounding);
        match rounded.significand >> precision {
            0 => rounded,
            _ => Rounded { significand: rounded.significand >> 1, unit: unit + 1, ..rounded },
        }
    }

    /// Rounded to a multiple of `2^unit`.
    pub(super) fn round_at(&self, unit: i32, rounding: Rounding) -> Rounded {
        let drop = unit - self.scale;
        let (kept, rest, half) = match drop {
            // Whoever has something more than all bits has more of these than the format.
            ..=0 => (self.significand << -drop, 0, u128::MAX),
            1..128 => {
                (self.significand >> drop, self.significand & ((1 << drop) - 1), 1 << (drop - 1))
            }
            _ => (0, self.significand, u128::MAX),
        };
        let exact = rest == 0 && !self.more;
        let up = match rounding {
            Rounding::Nearest => rest > half || rest == half && (self.more || kept & 1 != 0),
            Rounding::Down => self.negative && !exact,
            Rounding::Up => !self.negative && !exact,
            Rounding::Zero => false,
        };
        Rounded { significand: kept + u128::from(up), unit, tiny: false, exact, up }
    }
}

fn sum(x: Value, y: Value, rounding: Rounding) -> Exact {
    match (x, y) {
        (Value::Infinite { negative: n }, Value::Infinite { negative: m }) if n != m => {
            Exact::Invalid
        }
        (Value::Infinite { negative }, _) | (_, Value::Infinite { negative }) => {
            Exact::Infinite { negative }
        }
        (Value::Finite(x), Value::Finite(y)) => Exact::Number(sum_of_numbers(x, y, rounding)),
        _ => Exact::Invalid,
    }
}

/// The larger scale comes down to the smaller, or as far as 128 bits go: what is then below its
/// units is less than one.
fn sum_of_numbers(x: Number, y: Number, rounding: Rounding) -> Number {
    let (x, y) = if x.significand != 0 && x.scale >= y.scale || y.significand == 0 {
        (x, y)
    } else {
        (y, x)
    };
    let room = (x.significand.leading_zeros() as i32 - 2).min(x.scale - y.scale).max(0);
    let scale = x.scale - room;
    let apart = (scale - y.scale).max(0);
    let (other, more) = match apart {
        0..128 => (y.significand >> apart, y.significand & ((1 << apart) - 1) != 0),
        _ => (0, y.significand != 0),
    };
    let (one, other) = ((x.significand << room) as i128, other as i128);
    let other = if x.negative == y.negative { other } else { -other - i128::from(more) };
    let total = one + other;
    if total == 0 && !more {
        return Number::zero(if x.negative == y.negative {
            x.negative
        } else {
            rounding == Rounding::Down
        });
    }
    let negative = x.negative != (total < 0);
    Number { negative, significand: total.unsigned_abs(), scale, more }
}

fn product(x: Value, y: Value) -> Exact {
    let negative = is_negative(x) != is_negative(y);
    match (x, y) {
        (Value::Finite(x), Value::Finite(y)) => Exact::Number(Number {
            negative,
            significand: x.significand * y.significand,
            scale: x.scale + y.scale,
            more: false,
        }),
        _ if is_zero(x) || is_zero(y) => Exact::Invalid,
        _ => Exact::Infinite { negative },
    }
}

fn quotient(x: Value, y: Value) -> Exact {
    let negative = is_negative(x) != is_negative(y);
    match (x, y) {
        (Value::Infinite { .. }, Value::Infinite { .. }) => Exact::Invalid,
        _ if is_zero(x) && is_zero(y) => Exact::Invalid,
        (Value::Infinite { .. }, _) => Exact::Infinite { negative },
        (_, Value::Infinite { .. }) => Exact::Number(Number::zero(negative)),
        _ if is_zero(x) => Exact::Number(Number::zero(negative)),
        _ if is_zero(y) => Exact::Divided { negative },
        (Value::Finite(x), Value::Finite(y)) => {
            // Bit by bit, as at school, from operands of the same width.
            let up = y.width() - x.width();
            let (mut rest, divisor) = (x.significand << up.max(0), y.significand << (-up).max(0));
            let mut significand = 0;
            for n in 0..=ENOUGH {
                rest <<= i32::from(n != 0);
                significand = significand << 1 | u128::from(rest >= divisor);
                rest -= if rest >= divisor { divisor } else { 0 };
            }
            let scale = x.scale - up - y.scale - ENOUGH;
            Exact::Number(Number { negative, significand, scale, more: rest != 0 })
        }
        _ => Exact::Invalid,
    }
}

fn root(x: Value) -> Exact {
    match x {
        _ if is_zero(x) => Exact::Number(Number::zero(is_negative(x))),
        Value::Finite(x) if !x.negative => {
            // An even scale, and two bits of the operand for each bit of the root.
            let odd = x.scale.rem_euclid(2);
            let operand = x.significand << odd;
            let (mut root, mut rest) = (0_u128, 0_u128);
            for n in (0..64 + ENOUGH).rev() {
                let next = if n >= ENOUGH { operand >> (2 * (n - ENOUGH)) & 3 } else { 0 };
                rest = rest << 2 | next;
                let step = root << 2 | 1;
                root = root << 1 | u128::from(rest >= step);
                rest -= if rest >= step { step } else { 0 };
            }
            let scale = (x.scale - odd) / 2 - ENOUGH;
            Exact::Number(Number { negative: false, significand: root, scale, more: rest != 0 })
        }
        Value::Infinite { negative: false } => Exact::Infinite { negative: false },
        _ => Exact::Invalid,
    }
}

pub(super) fn is_negative(v: Value) -> bool {
    matches!(v, Value::Finite(Number { negative: true, .. }) | Value::Infinite { negative: true })
}

fn is_zero(v: Value) -> bool {
    matches!(v, Value::Finite(Number { significand: 0, .. }))
}

fn negated(v: Value) -> Value {
    match v {
        Value::Finite(number) => Value::Finite(Number { negative: !number.negative, ..number }),
        Value::Infinite { negative } => Value::Infinite { negative: !negative },
        nan => nan,
    }
}
