//! Integers by definition: sums in 128 bits, shifts one bit at a time.

/// Status flags (SDM vol. 1, 3.4.3.1).
pub(super) const CF: u64 = 1;
pub(super) const PF: u64 = 1 << 2;
pub(super) const AF: u64 = 1 << 4;
pub(super) const ZF: u64 = 1 << 6;
pub(super) const SF: u64 = 1 << 7;
pub(super) const OF: u64 = 1 << 11;
pub(super) const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// An operand size in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u32);

pub(super) const SIZES: [Size; 4] = [Size(8), Size(16), Size(32), Size(64)];

impl Size {
    /// The operand's bits of a register.
    pub(super) fn cut(self, v: u64) -> u64 {
        v << (64 - self.0) >> (64 - self.0)
    }
    /// As a signed number.
    pub(super) fn signed(self, v: u64) -> i128 {
        i128::from((v << (64 - self.0)) as i64 >> (64 - self.0))
    }
    pub(super) fn sign(self, v: u64) -> bool {
        v >> (self.0 - 1) & 1 != 0
    }
    /// What a register that held `old` is when an operand is written (SDM vol. 1, 3.4.1.1).
    pub(super) fn merge(self, old: u64, v: u64) -> u64 {
        match self.0 {
            32 => v & 0xffff_ffff,
            64 => v,
            bits => old >> bits << bits | self.cut(v),
        }
    }
}

pub(super) fn flag(set: bool, flag: u64) -> u64 {
    if set { flag } else { 0 }
}

/// ZF, SF and PF of a result.
pub(super) fn of_result(size: Size, v: u64) -> u64 {
    let v = size.cut(v);
    let ones = (0..8).filter(|bit| v >> bit & 1 != 0).count();
    flag(v == 0, ZF) | flag(size.sign(v), SF) | flag(ones % 2 == 0, PF)
}

/// `a + b + carry`, and its flags.
pub(super) fn add(size: Size, a: u64, b: u64, carry: u64) -> (u64, u64) {
    let (x, y) = (size.cut(a), size.cut(b));
    let sum = u128::from(x) + u128::from(y) + u128::from(carry);
    let signed = size.signed(a) + size.signed(b) + i128::from(carry);
    let half = (x & 15) + (y & 15) + carry > 15;
    (sum as u64, around(size, sum as u64, sum >> size.0 != 0, half, signed))
}

/// `a - b - borrow`, and its flags.
pub(super) fn sub(size: Size, a: u64, b: u64, borrow: u64) -> (u64, u64) {
    let (x, y) = (i128::from(size.cut(a)), i128::from(size.cut(b)));
    let difference = x - y - i128::from(borrow);
    let signed = size.signed(a) - size.signed(b) - i128::from(borrow);
    let half = (x & 15) - (y & 15) < i128::from(borrow);
    let result = difference as u64;
    (result, around(size, result, difference < 0, half, signed))
}

/// Flags of a sum or difference: OF says that the signed result does not fit.
fn around(size: Size, result: u64, carry: bool, half: bool, signed: i128) -> u64 {
    let overflow = signed != size.signed(result);
    of_result(size, result) | flag(carry, CF) | flag(half, AF) | flag(overflow, OF)
}

/// A shift or rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shift {
    Rol,
    Ror,
    Rcl,
    Rcr,
    Shl,
    Shr,
    Sar,
}

/// The result, the flags and which of them are defined (SDM vol. 2, SAL/SAR/SHL/SHR and
/// RCL/RCR/ROL/ROR): one bit at a time.
pub(super) fn shift(kind: Shift, size: Size, v: u64, count: u64, flags: u64) -> (u64, u64, u64) {
    let bits = size.0;
    let count = count & if bits == 64 { 63 } else { 31 };
    if count == 0 {
        return (size.cut(v), flags & STATUS, STATUS);
    }
    let before = size.cut(v);
    let (mut v, mut carry) = (before, flags & CF);
    for _ in 0..count {
        let (low, high) = (v & 1, v >> (bits - 1) & 1);
        let (left, right) = (size.cut(v << 1), v >> 1);
        let top = |bit: u64| bit << (bits - 1);
        (v, carry) = match kind {
            Shift::Rol => (left | high, high),
            Shift::Ror => (right | top(low), low),
            Shift::Rcl => (left | carry, high),
            Shift::Rcr => (right | top(carry), low),
            Shift::Shl => (left, high),
            Shift::Shr => (right, low),
            Shift::Sar => (right | top(high), low),
        };
    }
    let (high, next) = (v >> (bits - 1) & 1, v >> (bits - 2) & 1);
    let overflow = match kind {
        Shift::Rol | Shift::Rcl | Shift::Shl => high ^ carry,
        Shift::Ror | Shift::Rcr => high ^ next,
        Shift::Shr => before >> (bits - 1) & 1,
        Shift::Sar => 0,
    };
    let rotates = matches!(kind, Shift::Rol | Shift::Ror | Shift::Rcl | Shift::Rcr);
    let kept = if rotates { flags & (ZF | SF | PF | AF) } else { of_result(size, v) };
    let mut defined = if rotates { STATUS } else { STATUS & !AF };
    // OF is defined for one bit, CF of SHL and SHR as long as a bit of the operand comes out.
    if count != 1 {
        defined &= !OF;
    }
    if matches!(kind, Shift::Shl | Shift::Shr) && count > u64::from(bits) {
        defined &= !CF;
    }
    (v, kept | flag(carry != 0, CF) | flag(overflow != 0, OF), defined)
}

/// SHLD and SHRD: the result, the flags and which of them are defined, or nothing where the count
/// is larger than the operand.
pub(super) fn double_shift(
    left: bool,
    size: Size,
    [v, fill]: [u64; 2],
    count: u64,
    flags: u64,
) -> Option<(u64, u64, u64)> {
    let bits = size.0;
    let count = (count & if bits == 64 { 63 } else { 31 }) as u32;
    if count == 0 {
        return Some((size.cut(v), flags & STATUS, STATUS));
    }
    if count > bits {
        return None;
    }
    let (v, fill) = (u128::from(size.cut(v)), u128::from(size.cut(fill)));
    let (result, carry) = if left {
        ((v << bits | fill) << count >> bits, v >> (bits - count))
    } else {
        ((fill << bits | v) >> count, v >> (count - 1))
    };
    let result = size.cut(result as u64);
    let overflow = size.sign(result) != size.sign(v as u64);
    let set = of_result(size, result) | flag(carry & 1 != 0, CF) | flag(overflow, OF);
    Some((result, set, STATUS & !AF & if count == 1 { STATUS } else { !OF }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_carry_and_overflow() {
        assert_eq!(add(Size(8), 0xff, 1, 0), (0x100, ZF | PF | AF | CF));
        assert_eq!(add(Size(8), 0x7f, 0, 1), (0x80, SF | AF | OF));
        assert_eq!(sub(Size(16), 0, 1, 0).1, SF | PF | AF | CF);
        assert_eq!(sub(Size(32), 0x8000_0000, 1, 0).1, PF | AF | OF);
    }

    #[test]
    fn shifts_move_bits() {
        assert_eq!(shift(Shift::Shl, Size(8), 0x81, 1, 0), (2, CF | OF, STATUS & !AF));
        assert_eq!(shift(Shift::Rcr, Size(16), 1, 17, CF).0, 1, "17 bits and the carry are all");
        assert_eq!(shift(Shift::Sar, Size(32), 0x8000_0000, 31, 0).0, 0xffff_ffff);
        assert_eq!(double_shift(true, Size(32), [1, 0x8000_0000], 1, 0).map(|r| r.0), Some(3));
        assert_eq!(double_shift(false, Size(16), [1, 1], 17, 0), None);
    }
}
