//! Lazy status flags: the last flag-setting operation and its operands. Most flags are never read;
//! what is read is usually one condition on a known producer.

use brolga_mmu::Width;
use serde::{Deserialize, Serialize};

use crate::vcpu::rflags::{AF, CF, OF, PF, SF, STATUS, ZF};

/// How the status flags follow from the recorded result and operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum FlagOp {
    /// `r` holds the six flags as they stand in RFLAGS.
    Bits,
    /// `r = a + b`, or `a + b + 1`: ADD, ADC, XADD.
    Add,
    /// `r = a - b`, or `a - b - 1`: SUB, SBB, CMP, NEG (a = 0), CMPXCHG, SCAS, CMPS.
    Sub,
    /// AND, OR, XOR, TEST: CF = OF = AF = 0.
    Logic,
    /// `r = a + 1`; `b` is the carry flag to keep, 0 or 1.
    Inc,
    /// `r = a - 1`; `b` is the carry flag to keep, 0 or 1.
    Dec,
    /// `r = a << b`, 1 <= b <= 63.
    Shl,
    /// `r = a >> b` unsigned.
    Shr,
    /// `r = a >> b` signed.
    Sar,
    /// `r` is the low half of a product; `b` is 1 if the high half is significant.
    Mul,
}

impl FlagOp {
    /// All operations, by number.
    pub const ALL: [FlagOp; 10] = {
        use FlagOp::*;
        [Bits, Add, Sub, Logic, Inc, Dec, Shl, Shr, Sar, Mul]
    };
}

/// The condition codes in encoding order (SDM vol. 1, appendix B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Cond {
    O,
    No,
    B,
    Ae,
    E,
    Ne,
    Be,
    A,
    S,
    Ns,
    P,
    Np,
    L,
    Ge,
    Le,
    G,
}

/// The status flags as the operation that set them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[repr(C)]
pub struct LazyFlags {
    /// Result, zero-extended to 64 bits.
    pub r: u64,
    /// First operand, zero-extended.
    pub a: u64,
    /// Second operand, zero-extended.
    pub b: u64,
    /// The operation.
    pub op: FlagOp,
    /// Operand width.
    #[serde(with = "width_serde")]
    pub w: Width,
    /// What has been replaced since.
    pub replaced: Replaced,
}

/// CF and OF where an instruction has set them and left the other flags: rotates, BT, STC.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[repr(C)]
pub struct Replaced {
    /// Which of them, in their RFLAGS positions.
    pub mask: u16,
    /// What they are, in their RFLAGS positions; 0 for the others.
    pub flags: u16,
}

impl Replaced {
    /// Nothing.
    pub const NONE: Replaced = Replaced { mask: 0, flags: 0 };

    #[inline(always)]
    fn has(self, flag: u64) -> bool {
        if u64::from(self.mask) & flag == 0 {
            return false;
        }
        std::hint::cold_path();
        true
    }

    fn is(self, flag: u64) -> bool {
        u64::from(self.flags) & flag != 0
    }
}

/// Equal flags, however they were set: what a guest can tell.
impl PartialEq for LazyFlags {
    fn eq(&self, other: &LazyFlags) -> bool {
        self.status() == other.status()
    }
}

mod width_serde {
    use brolga_mmu::Width;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(w: &Width, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(w.bytes() as u8)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Width, D::Error> {
        Width::from_bytes(u64::from(u8::deserialize(d)?)).ok_or_else(|| D::Error::custom("width"))
    }
}

impl Default for LazyFlags {
    fn default() -> LazyFlags {
        LazyFlags::from_rflags(0)
    }
}

impl LazyFlags {
    /// Flags as they stand in `rflags`.
    #[inline(always)]
    pub fn from_rflags(rflags: u64) -> LazyFlags {
        let replaced = Replaced::NONE;
        LazyFlags { r: rflags & STATUS, a: 0, b: 0, op: FlagOp::Bits, w: Width::W64, replaced }
    }

    /// Replaces the flags in `mask`, CF or OF or both, by those of `new`, which has no others.
    #[inline(always)]
    pub fn replace(&mut self, mask: u64, new: u64) {
        debug_assert!(mask & !(CF | OF) == 0 && new & !mask == 0);
        self.replaced.mask |= mask as u16;
        self.replaced.flags = self.replaced.flags & !mask as u16 | new as u16;
    }

    #[inline(always)]
    fn msb(&self, v: u64) -> bool {
        v & self.w.sign_bit() != 0
    }

    /// Carry flag.
    #[inline(always)]
    pub fn cf(&self) -> bool {
        if self.replaced.has(CF) {
            return self.replaced.is(CF);
        }
        self.produced_cf()
    }

    /// CF as the operation set it.
    #[inline(always)]
    fn produced_cf(&self) -> bool {
        if self.op != FlagOp::Sub {
            // Most of what is asked follows a comparison: no table of jumps for that.
            std::hint::cold_path();
        }
        match self.op {
            FlagOp::Bits => self.r & CF != 0,
            // By a - b - 1 = a if b is all ones, and a + b + 1 = a likewise.
            FlagOp::Sub => self.a < self.b || self.a == self.b && self.r != 0,
            FlagOp::Logic => false,
            FlagOp::Add => self.r < self.a || self.r == self.a && self.b != 0,
            FlagOp::Inc | FlagOp::Dec | FlagOp::Mul => self.b != 0,
            // The last bit shifted out; a count beyond the width shifts out zeros (SAR: the sign).
            FlagOp::Shl => {
                let out = u64::from(self.w.bits()).wrapping_sub(self.b);
                out < 64 && self.a >> out & 1 != 0
            }
            FlagOp::Shr => self.a >> ((self.b - 1) & 63) & 1 != 0,
            FlagOp::Sar => sign_extend(self.w, self.a) >> ((self.b - 1) & 63) & 1 != 0,
        }
    }

    /// Zero flag.
    #[inline(always)]
    pub fn zf(&self) -> bool {
        match self.op {
            FlagOp::Bits => self.r & ZF != 0,
            _ => self.r == 0,
        }
    }

    /// Sign flag.
    #[inline(always)]
    pub fn sf(&self) -> bool {
        match self.op {
            FlagOp::Bits => self.r & SF != 0,
            _ => self.msb(self.r),
        }
    }

    /// Parity flag: even number of ones in the low byte.
    #[inline(always)]
    pub fn pf(&self) -> bool {
        match self.op {
            FlagOp::Bits => self.r & PF != 0,
            _ => (self.r as u8).count_ones() & 1 == 0,
        }
    }

    /// Adjust flag: carry out of bit 3.
    pub fn af(&self) -> bool {
        match self.op {
            FlagOp::Bits => self.r & AF != 0,
            FlagOp::Add | FlagOp::Sub => (self.a ^ self.b ^ self.r) & AF != 0,
            FlagOp::Inc => self.r & 15 == 0,
            FlagOp::Dec => self.r & 15 == 15,
            FlagOp::Logic | FlagOp::Shl | FlagOp::Shr | FlagOp::Sar | FlagOp::Mul => false,
        }
    }

    /// Overflow flag. Where the manual leaves it undefined (shift counts above 1) it follows the
    /// one-bit rule applied to the result, as current processors do.
    #[inline(always)]
    pub fn of(&self) -> bool {
        if self.replaced.has(OF) {
            return self.replaced.is(OF);
        }
        match self.op {
            FlagOp::Bits => self.r & OF != 0,
            FlagOp::Add => self.msb((self.a ^ self.r) & (self.b ^ self.r)),
            FlagOp::Sub => self.msb((self.a ^ self.b) & (self.a ^ self.r)),
            FlagOp::Logic | FlagOp::Sar => false,
            FlagOp::Inc => self.r == self.w.sign_bit(),
            FlagOp::Dec => self.r == self.w.sign_bit() - 1,
            FlagOp::Shl => self.msb(self.r) != self.produced_cf(),
            FlagOp::Shr => self.msb(self.r << 1 ^ self.r),
            FlagOp::Mul => self.b != 0,
        }
    }

    /// The six flags in their RFLAGS positions.
    pub fn status(&self) -> u64 {
        if self.op == FlagOp::Bits && self.replaced.mask == 0 {
            return self.r;
        }
        let bit = |on: bool, mask: u64| if on { mask } else { 0 };
        bit(self.cf(), CF)
            | bit(self.pf(), PF)
            | bit(self.af(), AF)
            | bit(self.zf(), ZF)
            | bit(self.sf(), SF)
            | bit(self.of(), OF)
    }

    /// Evaluates a condition code.
    #[inline(always)]
    pub fn cond(&self, cc: Cond) -> bool {
        match cc {
            Cond::O => self.of(),
            Cond::No => !self.of(),
            Cond::B => self.cf(),
            Cond::Ae => !self.cf(),
            Cond::E => self.zf(),
            Cond::Ne => !self.zf(),
            Cond::Be => self.be(),
            Cond::A => !self.be(),
            Cond::S => self.sf(),
            Cond::Ns => !self.sf(),
            Cond::P => self.pf(),
            Cond::Np => !self.pf(),
            Cond::L => self.lt(),
            Cond::Ge => !self.lt(),
            Cond::Le => self.zf() || self.lt(),
            Cond::G => !(self.zf() || self.lt()),
        }
    }

    #[inline(always)]
    fn be(&self) -> bool {
        self.cf() || self.zf()
    }

    #[inline(always)]
    fn lt(&self) -> bool {
        match self.op {
            _ if self.replaced.has(OF) => self.sf() != self.of(),
            FlagOp::Sub => self.msb(self.r ^ ((self.a ^ self.b) & (self.a ^ self.r))),
            FlagOp::Logic => self.msb(self.r),
            _ => self.sf() != self.of(),
        }
    }
}

/// Sign-extends the low `w` bits of `v` to 64.
#[inline(always)]
pub fn sign_extend(w: Width, v: u64) -> u64 {
    let s = 64 - w.bits();
    ((v << s) as i64 >> s) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Straight from the definitions (SDM vol. 1, 3.4.3.1), with no shared arithmetic.
    fn model(op: FlagOp, a: u8, b: u8, carry: u8) -> (u8, u64) {
        let (wide, signed, half) = match op {
            FlagOp::Add => (
                i32::from(a) + i32::from(b) + i32::from(carry),
                i32::from(a as i8) + i32::from(b as i8) + i32::from(carry),
                i32::from(a & 15) + i32::from(b & 15) + i32::from(carry),
            ),
            _ => (
                i32::from(a) - i32::from(b) - i32::from(carry),
                i32::from(a as i8) - i32::from(b as i8) - i32::from(carry),
                i32::from(a & 15) - i32::from(b & 15) - i32::from(carry),
            ),
        };
        let r = wide as u8;
        let mut f = 0;
        f |= if !(0..256).contains(&wide) { CF } else { 0 };
        f |= if !(-128..128).contains(&signed) { OF } else { 0 };
        f |= if !(0..16).contains(&half) { AF } else { 0 };
        f |= if r == 0 { ZF } else { 0 };
        f |= if r > 127 { SF } else { 0 };
        f |= if r.count_ones().is_multiple_of(2) { PF } else { 0 };
        (r, f)
    }

    #[test]
    fn add_and_sub_match_the_definition_exhaustively() {
        for op in [FlagOp::Add, FlagOp::Sub] {
            for a in 0..=255u8 {
                for b in 0..=255u8 {
                    for carry in 0..2u8 {
                        let (r, want) = model(op, a, b, carry);
                        let f = lazy(op, r.into(), a.into(), b.into());
                        assert_eq!(f.status(), want, "{op:?} {a:#x} {b:#x} {carry}");
                        let bits = LazyFlags::from_rflags(want);
                        for cc in COND {
                            assert_eq!(f.cond(cc), bits.cond(cc), "{op:?} {cc:?} {a:#x} {b:#x}");
                        }
                    }
                }
            }
        }
    }

    fn lazy(op: FlagOp, r: u64, a: u64, b: u64) -> LazyFlags {
        LazyFlags { r, a, b, op, w: Width::W8, replaced: Replaced::NONE }
    }

    #[test]
    fn cf_and_of_can_be_replaced_under_any_operation() {
        let values = [0, 1, 2, 0x7f, 0x80, 0xff];
        let operands = values.into_iter().flat_map(|a| values.map(|b| (a, b)));
        let new = [CF | OF, CF, OF, 0];
        for (op, (a, b)) in
            FlagOp::ALL.into_iter().flat_map(|op| operands.clone().map(move |o| (op, o)))
        {
            let before = match op {
                FlagOp::Bits => LazyFlags::from_rflags(a << 7 | b),
                FlagOp::Shl | FlagOp::Shr | FlagOp::Sar => lazy(op, a, b, a % 8 + 1),
                _ => lazy(op, a, b, a & 1),
            };
            for (mask, new) in [CF, OF, CF | OF].into_iter().flat_map(|m| new.map(|n| (m, n & m))) {
                let (mut once, want) = (before, before.status() & !mask | new);
                once.replace(mask, new);
                assert_eq!(once.status(), want, "{op:?} {a:#x} {b:#x} {mask:#x}");
                let bits = LazyFlags::from_rflags(want);
                for cc in COND {
                    assert_eq!(
                        once.cond(cc),
                        bits.cond(cc),
                        "{op:?} {cc:?} {a:#x} {b:#x} {mask:#x}"
                    );
                }
                once.replace(CF, 0);
                assert_eq!(once.status(), want & !CF, "{op:?}, and CF once more");
            }
        }
    }

    const COND: [Cond; 16] = [
        Cond::O,
        Cond::No,
        Cond::B,
        Cond::Ae,
        Cond::E,
        Cond::Ne,
        Cond::Be,
        Cond::A,
        Cond::S,
        Cond::Ns,
        Cond::P,
        Cond::Np,
        Cond::L,
        Cond::Ge,
        Cond::Le,
        Cond::G,
    ];
}
