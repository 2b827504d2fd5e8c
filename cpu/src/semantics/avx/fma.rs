//! FMA: products and sums with one rounding.

use iced_x86::{Instruction, Mnemonic};

use super::{each_half, half, sources};
use crate::backend::Handler;
use crate::insn::Insn;
use crate::semantics::sse::Memory;
use crate::vector::{Fma, Fmt, VectorBackend};

/// An operation on lanes of a format.
trait Fused {
    const OP: Fma;
    const FMT: Fmt;
}

/// The order of the operands, as the digits in a mnemonic name it: the factors, then the summand.
fn fused<B: VectorBackend, F: Fused, const ORDER: u8>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let memory = match F::FMT {
        Fmt::Ss => Memory::M4,
        Fmt::Sd => Memory::M8,
        Fmt::Ps | Fmt::Pd => Memory::M16U,
    };
    let third = sources(b, i, memory)?;
    each_half(b, i, |b, n| {
        let (first, second) = (half(b, i.reg[0], n), half(b, i.reg[1], n));
        let operands = match ORDER {
            132 => [first, third[n], second],
            213 => [second, first, third[n]],
            _ => [second, third[n], first],
        };
        b.fma(F::OP, F::FMT, first, operands)
    })
}

macro_rules! fused {
    ($($op:ident $fmt:ident: $first:ident $second:ident $third:ident,)+) => {
        /// The handler of an FMA instruction.
        pub fn select<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
            Some(match i.mnemonic() {
                $(Mnemonic::$first | Mnemonic::$second | Mnemonic::$third => {
                    enum Operation {}
                    impl Fused for Operation {
                        const OP: Fma = Fma::$op;
                        const FMT: Fmt = Fmt::$fmt;
                    }
                    match i.mnemonic() {
                        Mnemonic::$first => fused::<B, Operation, 132>,
                        Mnemonic::$second => fused::<B, Operation, 213>,
                        _ => fused::<B, Operation, 231>,
                    }
                })+
                _ => return None,
            })
        }
    };
}

fused! {
    Add Ps: Vfmadd132ps Vfmadd213ps Vfmadd231ps,
    Add Pd: Vfmadd132pd Vfmadd213pd Vfmadd231pd,
    Add Ss: Vfmadd132ss Vfmadd213ss Vfmadd231ss,
    Add Sd: Vfmadd132sd Vfmadd213sd Vfmadd231sd,
    Sub Ps: Vfmsub132ps Vfmsub213ps Vfmsub231ps,
    Sub Pd: Vfmsub132pd Vfmsub213pd Vfmsub231pd,
    Sub Ss: Vfmsub132ss Vfmsub213ss Vfmsub231ss,
    Sub Sd: Vfmsub132sd Vfmsub213sd Vfmsub231sd,
    NegatedAdd Ps: Vfnmadd132ps Vfnmadd213ps Vfnmadd231ps,
    NegatedAdd Pd: Vfnmadd132pd Vfnmadd213pd Vfnmadd231pd,
    NegatedAdd Ss: Vfnmadd132ss Vfnmadd213ss Vfnmadd231ss,
    NegatedAdd Sd: Vfnmadd132sd Vfnmadd213sd Vfnmadd231sd,
    NegatedSub Ps: Vfnmsub132ps Vfnmsub213ps Vfnmsub231ps,
    NegatedSub Pd: Vfnmsub132pd Vfnmsub213pd Vfnmsub231pd,
    NegatedSub Ss: Vfnmsub132ss Vfnmsub213ss Vfnmsub231ss,
    NegatedSub Sd: Vfnmsub132sd Vfnmsub213sd Vfnmsub231sd,
    AddSub Ps: Vfmaddsub132ps Vfmaddsub213ps Vfmaddsub231ps,
    AddSub Pd: Vfmaddsub132pd Vfmaddsub213pd Vfmaddsub231pd,
    SubAdd Ps: Vfmsubadd132ps Vfmsubadd213ps Vfmsubadd231ps,
    SubAdd Pd: Vfmsubadd132pd Vfmsubadd213pd Vfmsubadd231pd,
}
