//! Shifts of lanes and of whole registers.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::{File, Memory, Vex, begin, get, set, source};
use crate::backend::Handler;
use crate::insn::Insn;
use crate::semantics::avx::{each_half, half};
use crate::vector::{Lane, Shift, VectorBackend};

/// What a shift instruction does to which lanes.
trait LaneShift {
    const SHIFT: Shift;
    const LANE: Lane;
}

/// By an immediate.
fn by_immediate<B: VectorBackend, S: LaneShift, R: File>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    begin::<B, R>(b)?;
    let d = get::<B, R>(b, i.reg[0]);
    let r = b.shift_imm(S::SHIFT, S::LANE, d, i.imm as u8);
    set::<B, R>(b, i.reg[0], r);
    Ok(())
}

/// By the low quadword of another operand.
fn by_vector<B: VectorBackend, S: LaneShift, R: File, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    begin::<B, R>(b)?;
    let count = source::<B, R, MEM>(b, i, Memory::M16)?;
    let count = b.extract(Lane::Q, count, 0);
    let d = get::<B, R>(b, i.reg[0]);
    let r = b.shift(S::SHIFT, S::LANE, d, count);
    set::<B, R>(b, i.reg[0], r);
    Ok(())
}

fn forms<B: VectorBackend, S: LaneShift, R: File>(i: &Instruction) -> Handler<B> {
    match i.op1_kind() {
        OpKind::Memory => by_vector::<B, S, R, true>,
        OpKind::Register => by_vector::<B, S, R, false>,
        _ => by_immediate::<B, S, R>,
    }
}

/// The VEX form by an immediate.
fn by_immediate_vex<B: VectorBackend, S: LaneShift>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    each_half(b, i, |b, n| {
        let s = half(b, i.reg[1], n);
        Ok(b.shift_imm(S::SHIFT, S::LANE, s, i.imm as u8))
    })
}

/// The VEX form by a vector, of which 128 bits count.
fn by_vector_vex<B: VectorBackend, S: LaneShift, const MEM: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let count = source::<B, Vex, MEM>(b, i, Memory::M16)?;
    let count = b.extract(Lane::Q, count, 0);
    each_half(b, i, |b, n| {
        let s = half(b, i.reg[1], n);
        Ok(b.shift(S::SHIFT, S::LANE, s, count))
    })
}

fn forms_vex<B: VectorBackend, S: LaneShift>(i: &Instruction) -> Handler<B> {
    match i.op2_kind() {
        OpKind::Memory => by_vector_vex::<B, S, true>,
        OpKind::Register => by_vector_vex::<B, S, false>,
        _ => by_immediate_vex::<B, S>,
    }
}

macro_rules! shifts {
    ($($name:ident $vex:ident: $shift:ident $lane:ident,)+) => {
        $(
            enum $name {}

            impl LaneShift for $name {
                const SHIFT: Shift = Shift::$shift;
                const LANE: Lane = Lane::$lane;
            }
        )+

        /// The handler of a shift on a register file.
        pub fn select<B: VectorBackend, R: File>(i: &Instruction) -> Option<Handler<B>> {
            Some(match i.mnemonic() {
                $(Mnemonic::$name => forms::<B, $name, R>(i),)+
                Mnemonic::Pslldq if !R::MMX => whole::<B, true>,
                Mnemonic::Psrldq if !R::MMX => whole::<B, false>,
                _ => return None,
            })
        }

        /// The handler of a VEX form.
        pub fn select_vex<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
            Some(match i.mnemonic() {
                $(Mnemonic::$vex => forms_vex::<B, $name>(i),)+
                Mnemonic::Vpslldq => whole_vex::<B, true>,
                Mnemonic::Vpsrldq => whole_vex::<B, false>,
                _ => return None,
            })
        }
    };
}

shifts! {
    Psllw Vpsllw: Shl W,
    Pslld Vpslld: Shl D,
    Psllq Vpsllq: Shl Q,
    Psrlw Vpsrlw: Shr W,
    Psrld Vpsrld: Shr D,
    Psrlq Vpsrlq: Shr Q,
    Psraw Vpsraw: Sar W,
    Psrad Vpsrad: Sar D,
}

/// PSLLDQ and PSRLDQ: the register by bytes.
fn whole<B: VectorBackend, const LEFT: bool>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let d = b.xmm(i.reg[0]);
    let r = shift_bytes::<B, LEFT>(b, d, i.imm as u8);
    b.set_xmm(i.reg[0], r);
    Ok(())
}

/// VPSLLDQ and VPSRLDQ: each half by bytes.
fn whole_vex<B: VectorBackend, const LEFT: bool>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    each_half(b, i, |b, n| {
        let s = half(b, i.reg[1], n);
        Ok(shift_bytes::<B, LEFT>(b, s, i.imm as u8))
    })
}

/// Shifts by `count` bytes, zeros moving in.
#[inline(always)]
pub(super) fn shift_bytes<B: VectorBackend, const LEFT: bool>(
    b: &mut B,
    x: B::X,
    count: u8,
) -> B::X {
    let count = count.min(16);
    let zero = b.const_x(0);
    // A window of 16 bytes onto zeros beside the value.
    if LEFT {
        b.shuffle(zero, x, std::array::from_fn(|i| 16 - count + i as u8))
    } else {
        b.shuffle(x, zero, std::array::from_fn(|i| count + i as u8))
    }
}
