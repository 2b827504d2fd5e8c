//! Operand kinds as types: a handler is one function per operation, width and operand kinds, with
//! nothing left to decide when it runs.

use brolga_mmu::Width;

use crate::backend::Backend;
use crate::insn::Insn;

/// An operand width as a type.
pub trait Size {
    /// The width.
    const W: Width;
}

macro_rules! sizes {
    ($($(#[$doc:meta])* $name:ident = $w:ident;)*) => {
        $($(#[$doc])* pub struct $name;
        impl Size for $name {
            const W: Width = Width::$w;
        })*
    };
}

sizes! {
    /// Byte.
    S8 = W8;
    /// Word.
    S16 = W16;
    /// Doubleword.
    S32 = W32;
    /// Quadword.
    S64 = W64;
}

/// A source operand.
pub trait Src {
    /// Its value, zero-extended from `w`.
    fn get<B: Backend>(b: &mut B, w: Width, i: &Insn) -> Result<B::V, B::E>;
}

/// A place to write to, and the value read from it.
pub type Begun<B, P> = Result<(P, <B as Backend>::V), <B as Backend>::E>;

/// A destination that is read, computed with, and written.
pub trait Dst: Src {
    /// Where the result goes, once checked.
    type Place<B: Backend>: Copy;
    /// Reads the value; afterwards [`Dst::put`] cannot fail.
    fn begin<B: Backend>(b: &mut B, w: Width, i: &Insn) -> Begun<B, Self::Place<B>>;
    /// Writes the result of a [`Dst::begin`].
    fn put<B: Backend>(b: &mut B, w: Width, i: &Insn, at: Self::Place<B>, v: B::V);
    /// Writes without reading first.
    fn set<B: Backend>(b: &mut B, w: Width, i: &Insn, v: B::V) -> Result<(), B::E>;
}

/// The register that is operand `N`.
pub struct R<const N: usize>;
/// The memory operand.
pub struct M;
/// The immediate.
pub struct I;

impl<const N: usize> Src for R<N> {
    #[inline(always)]
    fn get<B: Backend>(b: &mut B, w: Width, i: &Insn) -> Result<B::V, B::E> {
        Ok(b.reg(w, i.reg[N]))
    }
}

impl<const N: usize> Dst for R<N> {
    type Place<B: Backend> = ();
    #[inline(always)]
    fn begin<B: Backend>(b: &mut B, w: Width, i: &Insn) -> Begun<B, ()> {
        Ok(((), b.reg(w, i.reg[N])))
    }
    #[inline(always)]
    fn put<B: Backend>(b: &mut B, w: Width, i: &Insn, (): (), v: B::V) {
        b.set_reg(w, i.reg[N], v);
    }
    #[inline(always)]
    fn set<B: Backend>(b: &mut B, w: Width, i: &Insn, v: B::V) -> Result<(), B::E> {
        b.set_reg(w, i.reg[N], v);
        Ok(())
    }
}

impl Src for M {
    #[inline(always)]
    fn get<B: Backend>(b: &mut B, w: Width, i: &Insn) -> Result<B::V, B::E> {
        let ea = b.ea(i);
        b.load(w, i.seg, ea)
    }
}

impl Dst for M {
    type Place<B: Backend> = B::L;
    #[inline(always)]
    fn begin<B: Backend>(b: &mut B, w: Width, i: &Insn) -> Begun<B, B::L> {
        let ea = b.ea(i);
        b.modify(w, i.seg, ea)
    }
    #[inline(always)]
    fn put<B: Backend>(b: &mut B, w: Width, _: &Insn, at: B::L, v: B::V) {
        b.commit(at, w, v);
    }
    #[inline(always)]
    fn set<B: Backend>(b: &mut B, w: Width, i: &Insn, v: B::V) -> Result<(), B::E> {
        let ea = b.ea(i);
        b.store(w, i.seg, ea, v)
    }
}

impl Src for I {
    #[inline(always)]
    fn get<B: Backend>(b: &mut B, w: Width, i: &Insn) -> Result<B::V, B::E> {
        Ok(b.imm(i.imm & w.mask()))
    }
}
