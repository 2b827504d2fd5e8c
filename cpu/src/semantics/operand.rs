//! Operand kinds as types: a handler is one function per operation, width and operand kinds, with
//! nothing left to decide when it runs.

use std::marker::PhantomData;

use brolga_mmu::Width;

use crate::backend::{Backend, Bin};
use crate::insn::Insn;
use crate::vcpu::Seg;

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
/// The memory operand, reached by `A` at the address that `E` computes.
pub struct Mem<A, E>(PhantomData<(A, E)>);
/// The memory operand in all cases.
pub type M = Mem<Anywhere, Indexed>;
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

/// How memory is reached.
pub trait Access {
    /// Not everything is reached so.
    const QUICK: bool;
    /// [`Backend::load`].
    fn load<B: Backend>(b: &mut B, w: Width, seg: Seg, ea: B::V) -> Result<B::V, B::E>;
    /// [`Backend::store`].
    fn store<B: Backend>(b: &mut B, w: Width, seg: Seg, ea: B::V, v: B::V) -> Result<(), B::E>;
    /// [`Backend::modify`].
    fn modify<B: Backend>(b: &mut B, w: Width, seg: Seg, ea: B::V) -> Begun<B, B::L>;
    /// [`Backend::commit`].
    fn commit<B: Backend>(b: &mut B, at: B::L, w: Width, v: B::V);
}

macro_rules! access {
    ($($(#[$doc:meta])* $name:ident = $quick:literal: $load:ident, $store:ident, $modify:ident, $commit:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Access for $name {
            const QUICK: bool = $quick;
            #[inline(always)]
            fn load<B: Backend>(b: &mut B, w: Width, seg: Seg, ea: B::V) -> Result<B::V, B::E> {
                b.$load(w, seg, ea)
            }
            #[inline(always)]
            fn store<B: Backend>(
                b: &mut B,
                w: Width,
                seg: Seg,
                ea: B::V,
                v: B::V,
            ) -> Result<(), B::E> {
                b.$store(w, seg, ea, v)
            }
            #[inline(always)]
            fn modify<B: Backend>(b: &mut B, w: Width, seg: Seg, ea: B::V) -> Begun<B, B::L> {
                b.$modify(w, seg, ea)
            }
            #[inline(always)]
            fn commit<B: Backend>(b: &mut B, at: B::L, w: Width, v: B::V) {
                b.$commit(at, w, v);
            }
        }
    )*};
}
access! {
    /// Through any segment, to whatever is there.
    Anywhere = false: load, store, modify, commit;
    /// Through a flat segment, where [`Backend::quick_load`] and the like suffice.
    Quick = true: quick_load, quick_store, quick_modify, quick_commit;
}

/// What an effective address consists of.
pub trait Address {
    /// The effective address of the memory operand.
    fn ea<B: Backend>(b: &mut B, i: &Insn) -> B::V;
}

/// All there may be: [`Backend::ea`].
pub struct Indexed;
impl Address for Indexed {
    #[inline(always)]
    fn ea<B: Backend>(b: &mut B, i: &Insn) -> B::V {
        b.ea(i)
    }
}

/// Base and displacement.
pub struct Based;
impl Address for Based {
    #[inline(always)]
    fn ea<B: Backend>(b: &mut B, i: &Insn) -> B::V {
        let (base, disp) = (b.reg(Width::W64, i.base), b.imm(i.disp));
        let sum = b.bin(Bin::Add, Width::W64, base, disp);
        let mask = b.imm(i.ea_mask);
        b.bin(Bin::And, Width::W64, sum, mask)
    }
}

/// A kind of memory operand, and of access to the stack beside it.
pub trait Memory: Dst {
    /// How memory is reached.
    type Access: Access;
}

impl<A: Access, E: Address> Memory for Mem<A, E> {
    type Access = A;
}

impl<A: Access, E: Address> Src for Mem<A, E> {
    #[inline(always)]
    fn get<B: Backend>(b: &mut B, w: Width, i: &Insn) -> Result<B::V, B::E> {
        let ea = E::ea(b, i);
        A::load(b, w, i.seg, ea)
    }
}

impl<A: Access, E: Address> Dst for Mem<A, E> {
    type Place<B: Backend> = B::L;
    #[inline(always)]
    fn begin<B: Backend>(b: &mut B, w: Width, i: &Insn) -> Begun<B, B::L> {
        let ea = E::ea(b, i);
        A::modify(b, w, i.seg, ea)
    }
    #[inline(always)]
    fn put<B: Backend>(b: &mut B, w: Width, _: &Insn, at: B::L, v: B::V) {
        A::commit(b, at, w, v);
    }
    #[inline(always)]
    fn set<B: Backend>(b: &mut B, w: Width, i: &Insn, v: B::V) -> Result<(), B::E> {
        let ea = E::ea(b, i);
        A::store(b, w, i.seg, ea, v)
    }
}

impl Src for I {
    #[inline(always)]
    fn get<B: Backend>(b: &mut B, w: Width, i: &Insn) -> Result<B::V, B::E> {
        Ok(b.imm(i.imm & w.mask()))
    }
}
