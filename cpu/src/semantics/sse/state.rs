//! Saving and restoring state: LDMXCSR, STMXCSR, FXSAVE, FXRSTOR, and the legacy region, which
//! XSAVE and its relatives share with them (SDM vol. 1, 10.5).

use std::ops::Range;

use brolga_mmu::{Linear, Width};

use crate::backend::Backend;
use crate::core::{By, Core, Exit};
use crate::exception::Exception;
use crate::insn::{Insn, bits};
use crate::semantics::x87::{release_ferr, settle_masks};
use crate::vector::mxcsr;
use crate::x87::X87;

/// Length of the legacy region.
pub(super) const LEGACY: u64 = 512;
/// Places in the legacy region.
pub(super) const X87_CONTROL: Range<usize> = 0..24;
pub(super) const MXCSR: Range<usize> = 24..32;
pub(super) const X87_REGISTERS: Range<usize> = 32..160;
const XMM: usize = 160;

pub(super) type Area = [u8; LEGACY as usize];

/// XMM8-15 exist in 64-bit mode only; elsewhere their places are left alone.
pub(super) fn xmm_place(core: &Core) -> Range<usize> {
    XMM..XMM + if core.vcpu.code64() { 256 } else { 128 }
}

/// The legacy region with everything in its place.
pub(super) fn image(core: &Core, wide: bool) -> Area {
    let mut area = [0; LEGACY as usize];
    core.vcpu.x87.fxsave(wide, &mut area);
    area[24..28].copy_from_slice(&core.vcpu.mxcsr.to_le_bytes());
    area[28..32].copy_from_slice(&mxcsr::WRITABLE.to_le_bytes());
    for (place, x) in area[XMM..].chunks_exact_mut(16).zip(core.vcpu.xmm) {
        place.copy_from_slice(&x.to_le_bytes());
    }
    area
}

/// Writes a part of `area` to its place in the region at `at`, which has been checked.
pub(super) fn write(
    core: &mut Core,
    at: Linear,
    area: &Area,
    part: Range<usize>,
) -> Result<(), Exit> {
    let (words, _) = area[part.clone()].as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let place = at.wrapping_add((part.start + 8 * n) as u64);
        core.write_linear(place, Width::W64, u64::from_le_bytes(*word), By::Current)?;
    }
    Ok(())
}

pub(super) fn read(core: &mut Core, at: Linear) -> Result<Area, Exit> {
    let mut area = [0; LEGACY as usize];
    for (n, word) in area.chunks_exact_mut(8).enumerate() {
        let v = core.read_linear(at.wrapping_add(8 * n as u64), Width::W64, By::Current)?;
        word.copy_from_slice(&v.to_le_bytes());
    }
    Ok(area)
}

/// The MXCSR in `area`; #GP(0) if it has reserved bits.
pub(super) fn mxcsr_of(core: &mut Core, area: &Area) -> Result<u32, Exit> {
    let v = u32::from_le_bytes([area[24], area[25], area[26], area[27]]);
    check_mxcsr(core, v)
}

fn check_mxcsr(core: &mut Core, v: u32) -> Result<u32, Exit> {
    if v & !mxcsr::WRITABLE != 0 {
        return Err(core.raise(Exception::gp("reserved bit of MXCSR set")));
    }
    Ok(v)
}

/// The exception masks are part of the mode: what follows is other code.
pub(super) fn set_mxcsr(core: &mut Core, v: u32) {
    let changed = core.vcpu.mxcsr ^ v;
    core.vcpu.mxcsr = v;
    if changed & mxcsr::MASKS != 0 {
        core.mode_changed();
        core.leave_block(false);
    }
}

/// Gives the x87 another state.
pub(super) fn replace_x87(core: &mut Core, replace: impl FnOnce(&mut X87)) {
    let masked = core.vcpu.x87.masks_all();
    replace(&mut core.vcpu.x87);
    release_ferr(core);
    settle_masks(core, masked);
}

pub(super) fn load_xmm(core: &mut Core, area: &Area) {
    let part = xmm_place(core);
    let (values, _) = area[part].as_chunks::<16>();
    for (x, bytes) in core.vcpu.xmm.iter_mut().zip(values) {
        *x = u128::from_le_bytes(*bytes);
    }
}

/// LDMXCSR.
pub fn ldmxcsr(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let ea = core.ea(i);
    let v = core.load(Width::W32, i.seg, ea)? as u32;
    let v = check_mxcsr(core, v)?;
    set_mxcsr(core, v);
    Ok(())
}

/// STMXCSR.
pub fn stmxcsr(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let ea = core.ea(i);
    let v = core.vcpu.mxcsr;
    core.store(Width::W32, i.seg, ea, v.into())
}

/// FXSAVE, FXSAVE64.
pub fn fxsave(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let ea = core.ea(i);
    core.check_aligned(i.seg, ea, 16)?;
    let at = core.check_area(i.seg, ea, LEGACY, true)?;
    let area = image(core, i.has(bits::WIDE));
    let end = xmm_place(core).end;
    write(core, at, &area, 0..end)
}

/// FXRSTOR, FXRSTOR64.
pub fn fxrstor(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let ea = core.ea(i);
    core.check_aligned(i.seg, ea, 16)?;
    let at = core.check_area(i.seg, ea, LEGACY, false)?;
    let area = read(core, at)?;
    let v = mxcsr_of(core, &area)?;
    set_mxcsr(core, v);
    replace_x87(core, |x87| x87.fxrstor(i.has(bits::WIDE), &area));
    load_xmm(core, &area);
    Ok(())
}

/// MFENCE: also orders this vCPU's accesses as other host threads see them.
pub fn mfence(_: &mut Core, _: &Insn) -> Result<(), Exit> {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}
