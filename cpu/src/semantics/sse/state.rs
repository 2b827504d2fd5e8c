//! Saving and restoring state: LDMXCSR, STMXCSR, FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XRSTOR
//! (SDM vol. 1, 10.5 and chapter 13). The processor has no compacted format.

use std::ops::Range;

use brolga_mmu::{Linear, Width};

use crate::backend::Backend;
use crate::core::{By, Core, Exit};
use crate::exception::{Exception, vector};
use crate::insn::{Insn, bits};
use crate::semantics::x87::{release_ferr, settle_masks};
use crate::vcpu::{cr0, cr4, gpr};
use crate::vector::mxcsr;
use crate::x87::X87;

/// Length of the legacy region.
const LEGACY: u64 = 512;
/// Offset and length of the XSAVE header.
const HEADER: u64 = LEGACY;
const HEADER_LEN: u64 = 64;

/// The state components, as bits of XCR0 (SDM vol. 1, 13.1).
const X87_COMPONENT: u64 = 1;
const SSE_COMPONENT: u64 = 1 << 1;
const AVX_COMPONENT: u64 = 1 << 2;

/// Places in the legacy region.
const X87_CONTROL: Range<usize> = 0..24;
const MXCSR: Range<usize> = 24..32;
const X87_REGISTERS: Range<usize> = 32..160;
const XMM: usize = 160;

type Area = [u8; LEGACY as usize];

/// XMM8-15 exist in 64-bit mode only; elsewhere their places are left alone.
fn xmm_place(core: &Core) -> Range<usize> {
    XMM..XMM + if core.vcpu.code64() { 256 } else { 128 }
}

/// The legacy region with everything in its place.
fn image(core: &Core, wide: bool) -> Area {
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
fn write(core: &mut Core, at: Linear, area: &Area, part: Range<usize>) -> Result<(), Exit> {
    let (words, _) = area[part.clone()].as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let place = at.wrapping_add((part.start + 8 * n) as u64);
        core.write_linear(place, Width::W64, u64::from_le_bytes(*word), By::Current)?;
    }
    Ok(())
}

fn read(core: &mut Core, at: Linear) -> Result<Area, Exit> {
    let mut area = [0; LEGACY as usize];
    for (n, word) in area.chunks_exact_mut(8).enumerate() {
        let v = core.read_linear(at.wrapping_add(8 * n as u64), Width::W64, By::Current)?;
        word.copy_from_slice(&v.to_le_bytes());
    }
    Ok(area)
}

/// The MXCSR in `area`; #GP(0) if it has reserved bits.
fn mxcsr_of(core: &mut Core, area: &Area) -> Result<u32, Exit> {
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
fn set_mxcsr(core: &mut Core, v: u32) {
    let changed = core.vcpu.mxcsr ^ v;
    core.vcpu.mxcsr = v;
    if changed & mxcsr::MASKS != 0 {
        core.mode_changed();
        core.leave_block(false);
    }
}

/// Gives the x87 another state.
fn replace_x87(core: &mut Core, replace: impl FnOnce(&mut X87)) {
    let masked = core.vcpu.x87.masks_all();
    replace(&mut core.vcpu.x87);
    release_ferr(core);
    settle_masks(core, masked);
}

fn load_xmm(core: &mut Core, area: &Area) {
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

/// The checks that XSAVE and its relatives share. Gives the area's address and the components that
/// are both enabled and requested.
fn xsave_area(core: &mut Core, i: &Insn, write: bool) -> Result<(Linear, u64), Exit> {
    if core.vcpu.sys.cr4 & cr4::OSXSAVE == 0 {
        return Err(core.raise(Exception::ud("XSAVE without CR4.OSXSAVE")));
    }
    if core.vcpu.sys.cr0 & cr0::TS != 0 {
        return Err(core.raise(Exception::plain(vector::NM, "CR0.TS is set")));
    }
    let ea = core.ea(i);
    core.check_aligned(i.seg, ea, 64)?;
    let at = core.check_area(i.seg, ea, LEGACY + HEADER_LEN, write)?;
    let low = core.reg(Width::W32, gpr::RAX);
    let high = core.reg(Width::W32, gpr::RDX);
    Ok((at, core.vcpu.sys.xcr0 & (high << 32 | low)))
}

/// The components that are not in their initial configuration.
fn in_use(core: &Core) -> u64 {
    let x87 = if core.vcpu.x87 == X87::default() { 0 } else { X87_COMPONENT };
    let n = xmm_place(core).len() / 16;
    let sse = if core.vcpu.xmm[..n].iter().all(|x| *x == 0) { 0 } else { SSE_COMPONENT };
    x87 | sse
}

/// XSAVE and XSAVEOPT, and their 64-bit forms. `OPTIMIZE` leaves out components in their initial
/// configuration.
pub fn xsave<const OPTIMIZE: bool>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let (at, requested) = xsave_area(core, i, true)?;
    let header = at.wrapping_add(HEADER);
    let old = core.read_linear(header, Width::W64, By::Current)?;
    let in_use = in_use(core);
    let saved = if OPTIMIZE { requested & in_use } else { requested };
    let area = image(core, i.has(bits::WIDE));
    if saved & X87_COMPONENT != 0 {
        write(core, at, &area, X87_CONTROL)?;
        write(core, at, &area, X87_REGISTERS)?;
    }
    // MXCSR belongs to AVX as well, and is written even where the registers are not.
    if requested & (SSE_COMPONENT | AVX_COMPONENT) != 0 {
        write(core, at, &area, MXCSR)?;
    }
    if saved & SSE_COMPONENT != 0 {
        let part = xmm_place(core);
        write(core, at, &area, part)?;
    }
    let present = old & !requested | in_use & requested;
    core.write_linear(header, Width::W64, present, By::Current)
}

/// XRSTOR, XRSTOR64.
pub fn xrstor(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let (at, requested) = xsave_area(core, i, false)?;
    let mut header = [0; 3];
    for (n, word) in header.iter_mut().enumerate() {
        let place = at.wrapping_add(HEADER + 8 * n as u64);
        *word = core.read_linear(place, Width::W64, By::Current)?;
    }
    let [present, compaction, reserved] = header;
    if present & !core.vcpu.sys.xcr0 != 0 || compaction != 0 || reserved != 0 {
        return Err(core.raise(Exception::gp("XRSTOR header names unknown state or format")));
    }
    let area = read(core, at)?;
    if requested & (SSE_COMPONENT | AVX_COMPONENT) != 0 {
        let v = mxcsr_of(core, &area)?;
        set_mxcsr(core, v);
    }
    if requested & X87_COMPONENT != 0 {
        replace_x87(core, |x87| match present & X87_COMPONENT {
            0 => *x87 = X87::default(),
            _ => x87.fxrstor(i.has(bits::WIDE), &area),
        });
    }
    if requested & SSE_COMPONENT != 0 {
        let initial = [0; LEGACY as usize];
        load_xmm(core, if present & SSE_COMPONENT != 0 { &area } else { &initial });
    }
    Ok(())
}

/// MFENCE: also orders this vCPU's accesses as other host threads see them.
pub fn mfence(_: &mut Core, _: &Insn) -> Result<(), Exit> {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}
