//! Ordered and unordered comparison.

use super::{Class, Env, Format, Unpacked, flag};
use std::cmp::Ordering;

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The first is less.
    Less,
    /// They are equal; zeros are, whatever their signs.
    Equal,
    /// The first is greater.
    Greater,
    /// At least one is not a number.
    Unordered,
}

/// Compares; any NaN is invalid (COMISS, CMPLTSS, FCOM).
pub fn compare<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> Relation {
    let (a, b) = (env.operand::<F>(a), env.operand::<F>(b));
    compare_unpacked(a, b, true, env)
}

/// Compares; only a signaling NaN is invalid (UCOMISS, CMPEQSS, FUCOM).
pub fn compare_quiet<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> Relation {
    let (a, b) = (env.operand::<F>(a), env.operand::<F>(b));
    compare_unpacked(a, b, false, env)
}

/// Compares unpacked operands; a quiet NaN is invalid if `signal_quiet`.
pub(crate) fn compare_unpacked(
    a: Unpacked,
    b: Unpacked,
    signal_quiet: bool,
    env: &mut Env,
) -> Relation {
    let any = |class| a.class == class || b.class == class;
    if any(Class::Unsupported) || any(Class::SignalingNan) || any(Class::QuietNan) && signal_quiet {
        env.raise(flag::INVALID);
        return Relation::Unordered;
    }
    if any(Class::QuietNan) {
        return Relation::Unordered;
    }
    // The relation is known even if the exception is unmasked.
    env.check_denormal(&[a, b]);
    match key(&a).cmp(&key(&b)) {
        Ordering::Less => Relation::Less,
        Ordering::Equal => Relation::Equal,
        Ordering::Greater => Relation::Greater,
    }
}

/// A key that orders as the values do. Ranks keep zeros and infinities outside all exponents.
fn key(x: &Unpacked) -> i128 {
    const RANK: i128 = 1 << 100;
    let magnitude = match x.class {
        Class::Zero => 0,
        Class::Infinity => RANK,
        _ => i128::from(x.exp + (1 << 20)) << 64 | i128::from(x.sig),
    };
    if x.sign { -magnitude } else { magnitude }
}
