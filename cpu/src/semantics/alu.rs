//! Addition, subtraction, logic and comparison.

use brolga_mmu::{AtomicOp, Width};

use super::operand::{Dst, Size, Src};
use crate::backend::{Backend, Bin, Un};
use crate::flags::{Cond, FlagOp};
use crate::insn::Insn;

/// A two-operand operation that sets all status flags.
pub trait Alu {
    /// Computes the result and records the flags.
    fn apply<B: Backend>(b: &mut B, w: Width, a: B::V, c: B::V) -> B::V;
    /// The same on a locked memory operand: the atomic operation and its operand.
    fn locked<B: Backend>(b: &mut B, w: Width, c: B::V) -> (AtomicOp, B::V);
}

macro_rules! logic {
    ($($name:ident: $bin:ident, $atomic:ident;)*) => {$(
        #[doc = concat!(stringify!($name), ": CF = OF = AF = 0.")]
        pub struct $name;
        impl Alu for $name {
            #[inline(always)]
            fn apply<B: Backend>(b: &mut B, w: Width, a: B::V, c: B::V) -> B::V {
                let r = b.bin(Bin::$bin, w, a, c);
                b.flags(FlagOp::Logic, w, r, a, c);
                r
            }
            #[inline(always)]
            fn locked<B: Backend>(_: &mut B, _: Width, c: B::V) -> (AtomicOp, B::V) {
                (AtomicOp::$atomic, c)
            }
        }
    )*};
}
logic! { And: And, And; Or: Or, Or; Xor: Xor, Xor; }

/// ADD.
pub struct Add;
impl Alu for Add {
    #[inline(always)]
    fn apply<B: Backend>(b: &mut B, w: Width, a: B::V, c: B::V) -> B::V {
        let r = b.bin(Bin::Add, w, a, c);
        b.flags(FlagOp::Add, w, r, a, c);
        r
    }
    #[inline(always)]
    fn locked<B: Backend>(_: &mut B, _: Width, c: B::V) -> (AtomicOp, B::V) {
        (AtomicOp::Add, c)
    }
}

/// SUB, and CMP where the result is dropped.
pub struct Sub;
impl Alu for Sub {
    #[inline(always)]
    fn apply<B: Backend>(b: &mut B, w: Width, a: B::V, c: B::V) -> B::V {
        let r = b.bin(Bin::Sub, w, a, c);
        b.flags(FlagOp::Sub, w, r, a, c);
        r
    }
    #[inline(always)]
    fn locked<B: Backend>(b: &mut B, w: Width, c: B::V) -> (AtomicOp, B::V) {
        (AtomicOp::Add, b.un(Un::Neg, w, c))
    }
}

#[inline(always)]
fn carry<B: Backend>(b: &mut B) -> B::V {
    let c = b.cond(Cond::B);
    b.cond_value(c)
}

/// ADC.
pub struct Adc;
impl Alu for Adc {
    #[inline(always)]
    fn apply<B: Backend>(b: &mut B, w: Width, a: B::V, c: B::V) -> B::V {
        let carry = carry(b);
        let sum = b.bin(Bin::Add, w, a, c);
        let r = b.bin(Bin::Add, w, sum, carry);
        b.flags(FlagOp::Add, w, r, a, c);
        r
    }
    #[inline(always)]
    fn locked<B: Backend>(b: &mut B, w: Width, c: B::V) -> (AtomicOp, B::V) {
        let carry = carry(b);
        (AtomicOp::Add, b.bin(Bin::Add, w, c, carry))
    }
}

/// SBB.
pub struct Sbb;
impl Alu for Sbb {
    #[inline(always)]
    fn apply<B: Backend>(b: &mut B, w: Width, a: B::V, c: B::V) -> B::V {
        let carry = carry(b);
        let difference = b.bin(Bin::Sub, w, a, c);
        let r = b.bin(Bin::Sub, w, difference, carry);
        b.flags(FlagOp::Sub, w, r, a, c);
        r
    }
    #[inline(always)]
    fn locked<B: Backend>(b: &mut B, w: Width, c: B::V) -> (AtomicOp, B::V) {
        let carry = carry(b);
        let sum = b.bin(Bin::Add, w, c, carry);
        (AtomicOp::Add, b.un(Un::Neg, w, sum))
    }
}

/// `dst = dst op src`.
#[inline(always)]
pub fn alu<B: Backend, O: Alu, D: Dst, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let src = S::get(b, W::W, i)?;
    let (place, a) = D::begin(b, W::W, i)?;
    let r = O::apply(b, W::W, a, src);
    D::put(b, W::W, i, place, r);
    Ok(())
}

/// `lock dst op= src` on memory.
#[inline(always)]
pub fn alu_locked<B: Backend, O: Alu, S: Src, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let src = S::get(b, W::W, i)?;
    let (op, operand) = O::locked(b, W::W, src);
    let ea = b.ea(i);
    let old = b.atomic(op, W::W, i.seg, ea, operand)?;
    O::apply(b, W::W, old, src);
    Ok(())
}

/// CMP (`O` = [`Sub`]) and TEST (`O` = [`And`]): flags only.
#[inline(always)]
pub fn compare<B: Backend, O: Alu, D: Src, S: Src, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let src = S::get(b, W::W, i)?;
    let a = D::get(b, W::W, i)?;
    O::apply(b, W::W, a, src);
    Ok(())
}

/// A one-operand operation.
pub trait Unary {
    /// Computes the result and records the flags it sets.
    fn apply<B: Backend>(b: &mut B, w: Width, a: B::V) -> B::V;
    /// The same on a locked memory operand.
    fn locked<B: Backend>(b: &mut B, w: Width) -> (AtomicOp, B::V);
}

macro_rules! step {
    ($($name:ident: $bin:ident, $by:expr;)*) => {$(
        #[doc = concat!(stringify!($name), ": the carry flag stays.")]
        pub struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn apply<B: Backend>(b: &mut B, w: Width, a: B::V) -> B::V {
                let carry = carry(b);
                let one = b.imm(1);
                let r = b.bin(Bin::$bin, w, a, one);
                b.flags(FlagOp::$name, w, r, a, carry);
                r
            }
            #[inline(always)]
            fn locked<B: Backend>(b: &mut B, w: Width) -> (AtomicOp, B::V) {
                (AtomicOp::Add, b.imm($by & w.mask()))
            }
        }
    )*};
}
step! { Inc: Add, 1; Dec: Sub, u64::MAX; }

/// NOT: no flags.
pub struct Not;
impl Unary for Not {
    #[inline(always)]
    fn apply<B: Backend>(b: &mut B, w: Width, a: B::V) -> B::V {
        b.un(Un::Not, w, a)
    }
    #[inline(always)]
    fn locked<B: Backend>(b: &mut B, w: Width) -> (AtomicOp, B::V) {
        (AtomicOp::Xor, b.imm(w.mask()))
    }
}

/// `dst = op dst`.
#[inline(always)]
pub fn unary<B: Backend, O: Unary, D: Dst, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (place, a) = D::begin(b, W::W, i)?;
    let r = O::apply(b, W::W, a);
    D::put(b, W::W, i, place, r);
    Ok(())
}

/// `lock op dst` on memory.
#[inline(always)]
pub fn unary_locked<B: Backend, O: Unary, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (op, operand) = O::locked(b, W::W);
    let ea = b.ea(i);
    let old = b.atomic(op, W::W, i.seg, ea, operand)?;
    O::apply(b, W::W, old);
    Ok(())
}

/// NEG.
#[inline(always)]
pub fn neg<B: Backend, D: Dst, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (place, a) = D::begin(b, W::W, i)?;
    let zero = b.imm(0);
    let r = Sub::apply(b, W::W, zero, a);
    D::put(b, W::W, i, place, r);
    Ok(())
}

/// LOCK NEG, which no atomic operation expresses: a compare-and-exchange that another vCPU's write
/// in between makes fail is tried again.
pub fn neg_locked<W: Size>(
    core: &mut crate::core::Core,
    i: &Insn,
) -> Result<(), crate::core::Exit> {
    let ea = core.ea(i);
    // As a write from the start: a page fault says so.
    let (_, mut a) = core.modify(W::W, i.seg, ea)?;
    loop {
        let r = core.un(Un::Neg, W::W, a);
        let seen = core.compare_exchange(W::W, i.seg, ea, a, r)?;
        if seen == a {
            core.flags(FlagOp::Sub, W::W, r, 0, a);
            return Ok(());
        }
        a = seen;
    }
}
