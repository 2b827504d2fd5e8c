//! MMX and SSE to SSE4.2, with their VEX forms. Most instructions are [`Operation`]s: a destination
//! and a source vector give a result. What differs between their forms (register file, memory
//! operand) is here, once; what AVX adds is in [`super::avx`].

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
pub mod three_d_now;
pub mod xsave;

use crate::insn::{Insn, bits};
use crate::vector::{VecWidth, VectorBackend};

/// How an instruction reads a vector from memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub(crate) width: VecWidth,
    pub(crate) aligned: bool,
}

impl Memory {
    pub(crate) const M2: Memory = Memory { width: VecWidth::V2, aligned: false };
    pub(crate) const M4: Memory = Memory { width: VecWidth::V4, aligned: false };
    pub(crate) const M8: Memory = Memory { width: VecWidth::V8, aligned: false };
    /// 16 bytes that must be aligned, the rule for SSE operands.
    pub(crate) const M16: Memory = Memory { width: VecWidth::V16, aligned: true };
    /// 16 bytes at any address.
    pub(crate) const M16U: Memory = Memory { width: VecWidth::V16, aligned: false };

    /// As an instruction with the same meaning on register file `R` reads it.
    const fn on<R: File>(self) -> Memory {
        match self.width {
            VecWidth::V16 if R::MMX => Memory::M8,
            _ if R::VEX => Memory { aligned: false, ..self },
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
    /// VEX-encoded: a destination of its own, memory at any address, and the upper half of the
    /// result becomes zero.
    const VEX: bool = false;
}

/// XMM0-15.
#[derive(Debug)]
pub enum Xmm {}

/// MM0-7.
#[derive(Debug)]
pub enum Mm {}

/// XMM0-15 as VEX-encoded instructions of 128 bits use them.
#[derive(Debug)]
pub enum Vex {}

impl File for Vex {
    const MMX: bool = false;
    const VEX: bool = true;
}

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
pub(crate) fn get<B: VectorBackend, R: File>(b: &mut B, r: u8) -> B::X {
    if R::MMX { b.mm(r) } else { b.xmm(r) }
}

#[inline(always)]
pub(crate) fn set<B: VectorBackend, R: File>(b: &mut B, r: u8, v: B::X) {
    if R::MMX {
        b.mmx_enter();
        b.set_mm(r, v);
    } else {
        b.set_xmm(r, v);
        if R::VEX {
            let zero = b.const_x(0);
            b.set_xmm(UPPER + r, zero);
        }
    }
}

/// The number of YMM0's upper half: see [`VectorBackend::xmm`].
pub(crate) const UPPER: u8 = 16;

/// The operand that is the source: the first that is not changed and can be memory.
#[inline(always)]
pub(crate) fn source_index<R: File>(i: &Insn) -> usize {
    if R::VEX && i.has(bits::THREE) { 2 } else { 1 }
}

/// What the instruction works on beside its source: the old value of operand 0, or the first source.
#[inline(always)]
fn first<B: VectorBackend, R: File>(b: &mut B, i: &Insn) -> B::X {
    let operand = if R::VEX && i.has(bits::THREE) { 1 } else { 0 };
    get::<B, R>(b, i.reg[operand])
}

/// The memory operand.
#[inline(always)]
pub(crate) fn load<B: VectorBackend>(b: &mut B, i: &Insn, m: Memory) -> Result<B::X, B::E> {
    let ea = b.ea(i);
    b.load_x(m.width, i.seg, ea, m.aligned)
}

/// The source: a register, or memory if `MEM`.
#[inline(always)]
fn source<B: VectorBackend, R: File, const MEM: bool>(
    b: &mut B,
    i: &Insn,
    m: Memory,
) -> Result<B::X, B::E> {
    if MEM { load(b, i, m.on::<R>()) } else { Ok(get::<B, R>(b, i.reg[source_index::<R>(i)])) }
}

/// An [`Operation`] on registers of one file.
pub fn operation<B: VectorBackend, O: Operation, R: File, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    begin::<B, R>(b)?;
    let s = source::<B, R, MEM>(b, i, O::MEMORY)?;
    let d = first::<B, R>(b, i);
    let r = O::eval(b, i, d, s)?;
    set::<B, R>(b, i.reg[0], r);
    Ok(())
}

/// Defines operations and the functions that find their handlers by mnemonic. Each line is one
/// instruction: the value of the destination, from its old value and the source. The lines stand
/// in groups by the form of the source in memory. Behind the name of an instruction follows that
/// of its VEX form, with the bits of the immediate that its upper half does not use, if any.
macro_rules! operations {
    (
        $(#[$doc:meta])* $select:ident, $select_vex:ident;
        |$b:ident, $i:ident, $d:ident, $s:ident|
        $($memory:ident { $(
            $name:ident $(/ $vex:ident $(>> $imm:literal)?)? => $body:expr,
        )+ })+
    ) => {
        $crate::semantics::sse::operations! {
            $(#[$doc])* $select;
            |$b, $i, $d, $s|
            $($memory { $($name => $body,)+ })+
        }
        $crate::semantics::sse::operations! {
            @vex /** Their VEX forms. */ $select_vex;
            $($($($vex $name ($(+ $imm)?),)?)+)+
        }
    };
    (
        $(#[$doc:meta])* vex $select_vex:ident;
        |$b:ident, $i:ident, $d:ident, $s:ident|
        $($memory:ident { $($name:ident $(>> $imm:literal)? => $body:expr,)+ })+
    ) => {
        $crate::semantics::sse::operations! {
            @types |$b, $i, $d, $s| $($memory { $($name => $body,)+ })+
        }
        $crate::semantics::sse::operations! {
            @vex $(#[$doc])* $select_vex;
            $($($name $name ($(+ $imm)?),)+)+
        }
    };
    (
        $(#[$doc:meta])* $select:ident;
        |$b:ident, $i:ident, $d:ident, $s:ident|
        $($memory:ident { $($name:ident => $body:expr,)+ })+
    ) => {
        $crate::semantics::sse::operations! {
            @types |$b, $i, $d, $s| $($memory { $($name => $body,)+ })+
        }

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
    (
        @types |$b:ident, $i:ident, $d:ident, $s:ident|
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
    };
    (@vex $(#[$doc:meta])* $select:ident; $($vex:ident $name:ident ($(+ $imm:literal)?),)+) => {
        $(#[$doc])*
        pub fn $select<B: $crate::vector::VectorBackend>(
            i: &iced_x86::Instruction,
        ) -> Option<$crate::backend::Handler<B>> {
            use $crate::semantics::avx::operation;
            use iced_x86::Mnemonic;
            Some(match i.mnemonic() {
                $(Mnemonic::$vex => operation::<B, $name, { 0 $(+ $imm)? }>,)+
                _ => return None,
            })
        }
    };
}
pub(crate) use operations;
