//! Moves of whole registers, broadcasts, and moves of halves.

use brolga_mmu::Width;

use super::{half, in_memory, set_halves, set_low, sources};
use crate::backend::Bin;
use crate::insn::{Insn, bits};
use crate::semantics::sse::{Memory, UPPER, load};
use crate::vector::{Lane, VecWidth, VectorBackend};

/// A whole register, from a register.
pub fn copy<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let low = b.xmm(i.reg[1]);
    if i.has(bits::YMM) {
        let high = half(b, i.reg[1], 1);
        set_halves(b, i.reg[0], [low, high]);
    } else {
        set_low(b, i.reg[0], low);
    }
    Ok(())
}

/// From memory.
pub fn load_register<B: VectorBackend, const ALIGNED: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let ea = b.ea(i);
    if i.has(bits::YMM) {
        let v = b.load_y(i.seg, ea, ALIGNED)?;
        set_halves(b, i.reg[0], v);
    } else {
        let v = b.load_x(VecWidth::V16, i.seg, ea, ALIGNED)?;
        set_low(b, i.reg[0], v);
    }
    Ok(())
}

/// To memory.
pub fn store_register<B: VectorBackend, const ALIGNED: bool>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let low = b.xmm(i.reg[1]);
    let ea = b.ea(i);
    if i.has(bits::YMM) {
        let high = half(b, i.reg[1], 1);
        b.store_y(i.seg, ea, ALIGNED, [low, high])
    } else {
        b.store_x(VecWidth::V16, i.seg, ea, ALIGNED, low)
    }
}

/// VMOVDDUP of 256 bits, whose halves are apart in memory too.
pub fn duplicate<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let [low, high] = sources(b, i, Memory::M16U)?.map(|s| b.interleave(Lane::Q, false, s, s));
    set_halves(b, i.reg[0], [low, high]);
    Ok(())
}

/// The number of a lane kind in const parameters: 128 bits.
const HALF: u8 = 4;

const fn lane(kind: u8) -> Lane {
    match kind {
        0 => Lane::B,
        1 => Lane::W,
        2 => Lane::D,
        _ => Lane::Q,
    }
}

/// VBROADCAST and VPBROADCAST of a lane of `1 << KIND` bytes.
pub fn broadcast<B: VectorBackend, const KIND: u8>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let memory = match KIND {
        // No vector is so small.
        0 if in_memory(i) => {
            let ea = b.ea(i);
            let v = b.load(Width::W8, i.seg, ea)?;
            let v = b.vector_of(v);
            return spread::<B, KIND>(b, i, v);
        }
        0 | 1 => Memory::M2,
        2 => Memory::M4,
        3 => Memory::M8,
        _ => Memory::M16U,
    };
    let v = if in_memory(i) { load(b, i, memory)? } else { b.xmm(i.reg[1]) };
    spread::<B, KIND>(b, i, v)
}

/// The lowest lane of `v` to all.
#[inline(always)]
fn spread<B: VectorBackend, const KIND: u8>(b: &mut B, i: &Insn, v: B::X) -> Result<(), B::E> {
    let v = match KIND {
        HALF => v,
        2 => b.shuffle_d(v, v, [0; 4]),
        3 => b.shuffle_d(v, v, [0, 1, 0, 1]),
        _ => b.shuffle(v, v, crate::vector::pattern(lane(KIND), &[0; 16])),
    };
    if i.has(bits::YMM) {
        set_halves(b, i.reg[0], [v; 2]);
    } else {
        set_low(b, i.reg[0], v);
    }
    Ok(())
}

/// VINSERTF128, VINSERTI128.
pub fn insert_half<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let s = if in_memory(i) { load(b, i, Memory::M16U)? } else { b.xmm(i.reg[2]) };
    let (low, high) = (half(b, i.reg[1], 0), half(b, i.reg[1], 1));
    set_halves(b, i.reg[0], if i.imm & 1 == 0 { [s, high] } else { [low, s] });
    Ok(())
}

/// VEXTRACTF128, VEXTRACTI128.
pub fn extract_half<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let v = half(b, i.reg[1], i.imm as usize & 1);
    if i.has(bits::MEM0) {
        let ea = b.ea(i);
        return b.store_x(VecWidth::V16, i.seg, ea, false, v);
    }
    set_low(b, i.reg[0], v);
    Ok(())
}

/// VPERM2F128, VPERM2I128: each half is one of four, or zero.
pub fn permute_halves<B: VectorBackend>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let s = sources(b, i, Memory::M16U)?;
    let d = [half(b, i.reg[1], 0), half(b, i.reg[1], 1)];
    let all = [d[0], d[1], s[0], s[1]];
    let zero = b.const_x(0);
    let chosen = |control: u64| {
        if control & 8 != 0 { zero } else { all[control as usize & 3] }
    };
    set_halves(b, i.reg[0], [chosen(i.imm), chosen(i.imm >> 4)]);
    Ok(())
}

/// VMOVMSKPS, VMOVMSKPD and VPMOVMSKB of 256 bits, whose lanes have `1 << KIND` bytes.
pub fn mask<B: VectorBackend, const KIND: u8>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (low, high) = (half(b, i.reg[1], 0), half(b, i.reg[1], 1));
    let (low, high) = (b.movemask(lane(KIND), low), b.movemask(lane(KIND), high));
    let up = b.imm(16 >> KIND);
    let high = b.bin(Bin::Shl, Width::W32, high, up);
    let v = b.bin(Bin::Or, Width::W32, low, high);
    b.set_reg(Width::W32, i.reg[0], v);
    Ok(())
}

/// VZEROUPPER, and VZEROALL if `ALL`. Outside 64-bit mode there are eight registers.
pub fn zero<B: VectorBackend, const ALL: bool>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let zero = b.const_x(0);
    for r in 0..if i.has(bits::CODE64) { 16 } else { 8 } {
        if ALL {
            b.set_xmm(r, zero);
        }
        b.set_xmm(UPPER + r, zero);
    }
    Ok(())
}
