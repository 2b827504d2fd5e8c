//! MMX and SSE to SSE4.2. Most instructions are [`Operation`]s: a destination and a source vector
//! give a result. What differs between their forms (register file, memory operand) is here, once.

pub mod compare;
pub mod convert;
pub mod crypto;
pub mod float;
pub mod integer;
pub mod masked;
pub mod mmx;
pub mod moves;
pub mod scalar;
pub mod shifts;
pub mod shuffle;
pub mod state;
pub mod string;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::insn::Insn;
use crate::vector::{VecWidth, VectorBackend};

/// How an instruction reads a vector from memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    width: VecWidth,
    aligned: bool,
}

impl Memory {
    pub(crate) const M2: Memory = Memory { width: VecWidth::V2, aligned: false };
    pub(crate) const M4: Memory = Memory { width: VecWidth::V4, aligned: false };
    pub(crate) const M8: Memory = Memory { width: VecWidth::V8, aligned: false };
    /// 16 bytes that must be aligned, the rule for SSE operands.
    pub(crate) const M16: Memory = Memory { width: VecWidth::V16, aligned: true };
    /// 16 bytes at any address.
    pub(crate) const M16U: Memory = Memory { width: VecWidth::V16, aligned: false };

    /// As an MMX instruction with the same meaning reads it.
    const fn mmx(self) -> Memory {
        match self.width {
            VecWidth::V16 => Memory::M8,
            _ => self,
        }
    }
}

/// An instruction that replaces operand 0 by a function of operands 0 and 1, and an immediate.
pub trait Operation {
    /// The form of operand 1 in memory.
    const MEMORY: Memory;

    /// The new value of operand 0, from its old value `d` and the source `s`.
    fn eval<B: VectorBackend>(b: &mut B, i: &Insn, d: B::X, s: B::X) -> Result<B::X, B::E>;
}

/// Which register file a vector instruction uses.
pub trait File {
    /// MMX: the rules of the x87 apply.
    const MMX: bool;
}

/// XMM0-15.
#[derive(Debug)]
pub enum Xmm {}

/// MM0-7.
#[derive(Debug)]
pub enum Mm {}

impl File for Xmm {
    const MMX: bool = false;
}

impl File for Mm {
    const MMX: bool = true;
}

/// What comes before anything else in an instruction on this register file.
#[inline(always)]
fn begin<B: VectorBackend, R: File>(b: &mut B) -> Result<(), B::E> {
    if R::MMX { b.mmx_check() } else { Ok(()) }
}

/// What an instruction that only read this register file leaves behind.
#[inline(always)]
fn end<B: VectorBackend, R: File>(b: &mut B) {
    if R::MMX {
        b.mmx_enter();
    }
}

#[inline(always)]
fn get<B: VectorBackend, R: File>(b: &mut B, r: u8) -> B::X {
    if R::MMX { b.mm(r) } else { b.xmm(r) }
}

#[inline(always)]
fn set<B: VectorBackend, R: File>(b: &mut B, r: u8, v: B::X) {
    if R::MMX {
        b.mmx_enter();
        b.set_mm(r, v);
    } else {
        b.set_xmm(r, v);
    }
}

/// The memory operand.
#[inline(always)]
fn load<B: VectorBackend>(b: &mut B, i: &Insn, m: Memory) -> Result<B::X, B::E> {
    let ea = b.ea(i);
    b.load_x(m.width, i.seg, ea, m.aligned)
}

/// Operand 1: a register, or memory if `MEM`.
#[inline(always)]
fn source<B: VectorBackend, R: File, const MEM: bool>(
    b: &mut B,
    i: &Insn,
    m: Memory,
) -> Result<B::X, B::E> {
    if MEM { load(b, i, if R::MMX { m.mmx() } else { m }) } else { Ok(get::<B, R>(b, i.reg[1])) }
}

/// An [`Operation`] on registers of one file.
pub fn operation<B: VectorBackend, O: Operation, R: File, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    begin::<B, R>(b)?;
    let s = source::<B, R, MEM>(b, i, O::MEMORY)?;
    let d = get::<B, R>(b, i.reg[0]);
    let r = O::eval(b, i, d, s)?;
    set::<B, R>(b, i.reg[0], r);
    Ok(())
}

/// Defines operations and the function that finds their handlers by mnemonic. Each line is one
/// instruction: the value of the destination, from its old value and the source. The lines stand
/// in groups by the form of the source in memory.
macro_rules! operations {
    (
        $(#[$doc:meta])* $select:ident;
        |$b:ident, $i:ident, $d:ident, $s:ident|
        $($memory:ident { $($name:ident => $body:expr,)+ })+
    ) => {
        $($(
            enum $name {}

            impl $crate::semantics::sse::Operation for $name {
                const MEMORY: $crate::semantics::sse::Memory =
                    $crate::semantics::sse::Memory::$memory;

                #[inline(always)]
                #[allow(unused_variables)]
                fn eval<B: $crate::vector::VectorBackend>(
                    $b: &mut B,
                    $i: &$crate::insn::Insn,
                    $d: B::X,
                    $s: B::X,
                ) -> Result<B::X, B::E> {
                    Ok($body)
                }
            }
        )+)+

        $(#[$doc])*
        pub fn $select<B: $crate::vector::VectorBackend, R: $crate::semantics::sse::File>(
            i: &iced_x86::Instruction,
        ) -> Option<$crate::backend::Handler<B>> {
            use $crate::semantics::sse::operation;
            use iced_x86::{Mnemonic, OpKind};
            let mem = i.op1_kind() == OpKind::Memory;
            Some(match i.mnemonic() {
                $($(
                    Mnemonic::$name if mem => operation::<B, $name, R, true>,
                    Mnemonic::$name => operation::<B, $name, R, false>,
                )+)+
                _ => return None,
            })
        }
    };
}
use operations;
