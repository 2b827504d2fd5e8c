//! Shifts of lanes and of whole registers.

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::{File, Memory, begin, get, set, source};
use crate::backend::Handler;
use crate::insn::Insn;
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

macro_rules! shifts {
    ($($name:ident: $shift:ident $lane:ident,)+) => {
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
    };
}

shifts! {
    Psllw: Shl W,
    Pslld: Shl D,
    Psllq: Shl Q,
    Psrlw: Shr W,
    Psrld: Shr D,
    Psrlq: Shr Q,
    Psraw: Sar W,
    Psrad: Sar D,
}

/// PSLLDQ and PSRLDQ: the register by bytes.
fn whole<B: VectorBackend, const LEFT: bool>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let d = b.xmm(i.reg[0]);
    let r = shift_bytes::<B, LEFT>(b, d, i.imm as u8);
    b.set_xmm(i.reg[0], r);
    Ok(())
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
