//! Accesses to some elements only: VMASKMOV, VPMASKMOV and the gathers. What is masked off is not
//! accessed, and does not fault.

use brolga_mmu::Width;

use super::{half, set_halves, set_low};
use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::insn::{Insn, bits};
use crate::semantics::sse::UPPER;
use crate::vcpu::ZERO;
use crate::vector::{Lane, VectorBackend};

const fn lane(wide: bool) -> Lane {
    if wide { Lane::Q } else { Lane::D }
}

/// The number of elements.
fn count(i: &Insn, lane: Lane) -> usize {
    (if i.has(bits::YMM) { 32 } else { 16 }) / lane.bytes()
}

/// Where element `n` is: the half, and the lane in it.
fn place(lane: Lane, n: usize) -> (usize, u8) {
    let each = 16 / lane.bytes();
    (n / each, (n % each) as u8)
}

fn element(core: &mut Core, r: u8, lane: Lane, n: usize) -> u64 {
    let (h, at) = place(lane, n);
    let x = half(core, r, h);
    core.extract(lane, x, at)
}

/// The elements whose mask in register `r` has its top bit set.
fn selected(core: &mut Core, i: &Insn, r: u8, lane: Lane) -> Vec<usize> {
    let top = |core: &mut Core, n| element(core, r, lane, n) >> (lane.bits() - 1) & 1 != 0;
    (0..count(i, lane)).filter(|n| top(core, *n)).collect()
}

/// VMASKMOV and VPMASKMOV from memory: what is masked off becomes zero.
pub fn load<const WIDE: bool>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let lane = lane(WIDE);
    let ea = core.ea(i);
    let mut r = [0; 2];
    for n in selected(core, i, i.reg[1], lane) {
        let at = ea.wrapping_add((n * lane.bytes()) as u64) & i.ea_mask;
        let v = core.load(lane.width(), i.seg, at)?;
        let (h, at) = place(lane, n);
        r[h] = core.insert(lane, r[h], at, v);
    }
    set_halves(core, i.reg[0], r);
    Ok(())
}

/// VMASKMOV and VPMASKMOV to memory.
pub fn store<const WIDE: bool>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let lane = lane(WIDE);
    let ea = core.ea(i);
    let elements = selected(core, i, i.reg[1], lane);
    let place = |n: usize| ea.wrapping_add((n * lane.bytes()) as u64) & i.ea_mask;
    for n in &elements {
        core.check_area(i.seg, place(*n), lane.bytes() as u64, true)?;
    }
    for n in elements {
        let v = element(core, i.reg[2], lane, n);
        core.store(lane.width(), i.seg, place(n), v)?;
    }
    Ok(())
}

/// VGATHER and VPGATHER of elements of 64 bits if `WIDE`, by indices of 64 bits if `FAR`. An element that
/// faults leaves those before it loaded, and their masks cleared (SDM vol. 2, VGATHERDPS).
pub fn gather<const WIDE: bool, const FAR: bool>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let (lane, index_lane) = (lane(WIDE), lane(FAR));
    let (to, mask) = (i.reg[0], i.reg[2]);
    // As many as there are indices, and as the destination holds.
    let elements = count(i, if WIDE { lane } else { index_lane });
    for n in 0..elements {
        let (h, at) = place(lane, n);
        if element(core, mask, lane, n) >> (lane.bits() - 1) & 1 != 0 {
            let address = gather_address(core, i, index_lane, n);
            let v = core.load(lane.width(), i.seg, address)?;
            let old = half(core, to, h);
            let new = core.insert(lane, old, at, v);
            core.set_xmm(to + UPPER * h as u8, new);
        }
        let old = half(core, mask, h);
        let new = core.insert(lane, old, at, 0);
        core.set_xmm(mask + UPPER * h as u8, new);
    }
    // What lies above the elements becomes zero, in both registers.
    let bytes = elements * lane.bytes();
    let kept = |x: u128| if bytes < 16 { x & ((1 << (8 * bytes)) - 1) } else { x };
    let low = kept(core.xmm(to));
    if bytes <= 16 {
        set_low(core, to, low);
    }
    set_halves(core, mask, [0; 2]);
    Ok(())
}

fn gather_address(core: &mut Core, i: &Insn, index_lane: Lane, n: usize) -> u64 {
    let index = element(core, i.index, index_lane, n);
    let index = if index_lane == Lane::D { index as i32 as u64 } else { index };
    let base = if i.base == ZERO { 0 } else { core.reg(Width::W64, i.base) };
    base.wrapping_add(index << i.scale).wrapping_add(i.disp) & i.ea_mask
}
