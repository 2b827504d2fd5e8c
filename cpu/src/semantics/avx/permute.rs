//! Rearranging lanes as AVX and AVX2 do: by immediates or by vectors, and across the halves; shifts
//! of each lane by its own count; blends.

use super::{each_half, half, set_halves, sources};
use crate::insn::Insn;
use crate::semantics::sse::shuffle::{blend, blend_by, four};
use crate::semantics::sse::{Memory, operations};
use crate::vector::{Lane, Shift, VectorBackend, X2};

operations! {
    /// Operations that only exist as VEX forms.
    vex select;
    |b, i, d, s|
    M16 {
        Vpermilpd >> 2 => {
            let (low, high) = (i.imm as u8 & 1, i.imm as u8 >> 1 & 1);
            b.shuffle_d(s, s, [2 * low, 2 * low + 1, 2 * high, 2 * high + 1])
        },
        Vpermilps => b.shuffle_d(s, s, four(i.imm)),
        Vpblendd >> 4 => b.shuffle(d, s, blend(Lane::D, i.imm)),
        Vpsllvd => b.shift_each(Shift::Shl, Lane::D, d, s),
        Vpsllvq => b.shift_each(Shift::Shl, Lane::Q, d, s),
        Vpsrlvd => b.shift_each(Shift::Shr, Lane::D, d, s),
        Vpsrlvq => b.shift_each(Shift::Shr, Lane::Q, d, s),
        Vpsravd => b.shift_each(Shift::Sar, Lane::D, d, s),
    }
    M8 {
        Vmovddup => b.interleave(Lane::Q, false, s, s),
    }
}

/// Bytes that name the bytes of doublewords, as [`VectorBackend::shuffle_by`] wants them, from the
/// doublewords' numbers (0 to 3).
#[inline(always)]
fn doubleword_bytes<B: VectorBackend>(b: &mut B, numbers: B::X) -> B::X {
    let first = b.shift_imm(Shift::Shl, Lane::D, numbers, 2);
    let all = b.shuffle(first, first, std::array::from_fn(|n| n as u8 & !3));
    let within = b.const_x(0x0302_0100_0302_0100_0302_0100_0302_0100);
    b.x2(X2::Add, Lane::B, all, within)
}

/// The low two bits of each doubleword.
#[inline(always)]
fn low_two<B: VectorBackend>(b: &mut B, x: B::X) -> B::X {
    let three = b.const_x(0x0000_0003_0000_0003_0000_0003_0000_0003);
    b.x2(X2::And, Lane::D, x, three)
}

/// VPERMILPS by a vector.
pub fn singles_by<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let control = sources(b, i, Memory::M16U)?;
    each_half(b, i, |b, n| {
        let numbers = low_two(b, control[n]);
        let by = doubleword_bytes(b, numbers);
        let s = half(b, i.reg[1], n);
        Ok(b.shuffle_by(s, by))
    })
}

/// VPERMILPD by a vector: bit 1 of each quadword selects.
pub fn doubles_by<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let control = sources(b, i, Memory::M16U)?;
    each_half(b, i, |b, n| {
        let two = b.const_x(0x0000_0002_0000_0002_0000_0002_0000_0002);
        let first = b.x2(X2::And, Lane::D, control[n], two);
        let first = b.shuffle_d(first, first, [0, 0, 2, 2]);
        let within = b.const_x(0x0000_0001_0000_0000_0000_0001_0000_0000);
        let numbers = b.x2(X2::Or, Lane::D, first, within);
        let by = doubleword_bytes(b, numbers);
        let s = half(b, i.reg[1], n);
        Ok(b.shuffle_by(s, by))
    })
}

/// VPERMD, VPERMPS: each doubleword is one of eight, which the low three bits of operand 1's lane
/// name.
pub fn doublewords<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let [low, high] = sources(b, i, Memory::M16U)?;
    each_half(b, i, |b, n| {
        let index = half(b, i.reg[1], n);
        let numbers = low_two(b, index);
        let by = doubleword_bytes(b, numbers);
        let (from_low, from_high) = (b.shuffle_by(low, by), b.shuffle_by(high, by));
        let upper = b.shift_imm(Shift::Shl, Lane::D, index, 29);
        Ok(blend_by(b, Lane::D, upper, from_low, from_high))
    })
}

/// VPERMQ, VPERMPD: each quadword is one of four.
pub fn quadwords<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let s = sources(b, i, Memory::M16U)?;
    let chosen = four(i.imm);
    let r = [0, 2].map(|n| {
        let (low, high) = (chosen[n], chosen[n + 1]);
        let (at, other) = (2 * (low & 1), 4 + 2 * (high & 1));
        let (x, y) = (s[usize::from(low >> 1)], s[usize::from(high >> 1)]);
        b.shuffle_d(x, y, [at, at + 1, other, other + 1])
    });
    set_halves(b, i.reg[0], r);
    Ok(())
}

/// VPBLENDVB, VBLENDVPS, VBLENDVPD: lanes of `1 << KIND` bytes, by the mask in operand 3.
pub fn blend_variable<B: VectorBackend, const KIND: u8>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let lane = match KIND {
        0 => Lane::B,
        2 => Lane::D,
        _ => Lane::Q,
    };
    let s = sources(b, i, Memory::M16U)?;
    each_half(b, i, |b, n| {
        let (d, mask) = (half(b, i.reg[1], n), half(b, i.reg[3], n));
        Ok(blend_by(b, lane, mask, d, s[n]))
    })
}
