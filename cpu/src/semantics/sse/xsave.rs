//! XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR and XRSTORS (SDM vol. 1, chapter 13).
//!
//! The x87 and SSE components lie in the legacy region; the others behind the header, in the standard
//! format at places of their own, in the compacted one behind each other. No component is the
//! supervisor's: IA32_XSS is zero.

use brolga_mmu::{Linear, Width};

use super::state::{self, Area, LEGACY, MXCSR, X87_CONTROL, X87_REGISTERS, xmm_place};
use crate::backend::Backend;
use crate::core::{By, Core, Exit};
use crate::exception::{Exception, vector};
use crate::insn::{Insn, bits};
use crate::vcpu::{cr0, cr4, gpr, xcr0};
use crate::vector::mxcsr;
use crate::x87::X87;

/// Offset and length of the header.
const HEADER: u64 = LEGACY;
const HEADER_LEN: u64 = 64;
/// Where the components behind the header begin.
const EXTENDED: u64 = HEADER + HEADER_LEN;
/// XCOMP_BV: the format is the compacted one.
const COMPACTED: u64 = 1 << 63;

/// A state component behind the header.
pub(crate) struct Component {
    /// Its bit in XCR0.
    pub(crate) bit: u64,
    /// Its length in bytes, a multiple of 8.
    pub(crate) len: u64,
    /// Its offset in the standard format.
    pub(crate) standard: u64,
}

/// All of them, by their bits.
pub(crate) const COMPONENTS: [Component; 2] = [
    Component { bit: xcr0::AVX, len: 256, standard: EXTENDED },
    Component { bit: xcr0::PKRU, len: 8, standard: EXTENDED + 256 },
];

/// The length of an area with these components: in the standard format, or the compacted one.
pub(crate) fn area_len(components: u64, compacted: bool) -> u64 {
    places(components, compacted).map(|(c, at)| at + c.len).max().unwrap_or(EXTENDED)
}

/// The components among `components` that lie behind the header, and their offsets.
fn places(components: u64, compacted: bool) -> impl Iterator<Item = (&'static Component, u64)> {
    let mut next = EXTENDED;
    COMPONENTS.iter().filter(move |c| components & c.bit != 0).map(move |c| {
        let at = if compacted { next } else { c.standard };
        next += c.len;
        (c, at)
    })
}

/// The YMM registers that the mode has.
fn ymm_count(core: &Core) -> usize {
    if core.vcpu.code64() { 16 } else { 8 }
}

/// The components that are not in their initial configuration.
pub(crate) fn in_use(core: &Core) -> u64 {
    let n = ymm_count(core);
    let flag = |on: bool, bit: u64| if on { bit } else { 0 };
    flag(core.vcpu.x87 != X87::default(), xcr0::X87)
        | flag(core.vcpu.xmm[..n].iter().any(|x| *x != 0), xcr0::SSE)
        | flag(core.vcpu.ymm_high[..n].iter().any(|x| *x != 0), xcr0::AVX)
        | flag(core.vcpu.sys.pkru != 0, xcr0::PKRU)
}

/// The words of a component that the mode has, from its start.
fn words(core: &Core, component: &Component) -> Vec<u64> {
    match component.bit {
        xcr0::AVX => {
            let halves = core.vcpu.ymm_high[..ymm_count(core)].iter();
            halves.flat_map(|x| [*x as u64, (*x >> 64) as u64]).collect()
        }
        xcr0::PKRU => vec![core.vcpu.sys.pkru.into()],
        _ => Vec::new(),
    }
}

/// Replaces what [`words`] gives.
fn set_words(core: &mut Core, component: &Component, words: &[u64]) {
    match (component.bit, words) {
        (xcr0::AVX, words) => {
            for (half, [low, high]) in core.vcpu.ymm_high.iter_mut().zip(words.as_chunks().0) {
                *half = u128::from(*high) << 64 | u128::from(*low);
            }
        }
        (xcr0::PKRU, [pkru, ..]) => core.set_pkru(*pkru as u32),
        _ => {}
    }
}

/// An area in memory whose header can be accessed.
#[derive(Clone, Copy)]
struct Place {
    ea: u64,
    at: Linear,
    /// The components that are both enabled and requested.
    requested: u64,
}

/// The checks that XSAVE and its relatives share.
fn place(core: &mut Core, i: &Insn, write: bool) -> Result<Place, Exit> {
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
    Ok(Place { ea, at, requested: core.vcpu.sys.xcr0 & (high << 32 | low) })
}

/// The same for XSAVES and XRSTORS. All components are the user's: IA32_XSS adds none.
fn supervisor_place(core: &mut Core, i: &Insn, write: bool) -> Result<Place, Exit> {
    let place = place(core, i, write)?;
    if core.vcpu.cpl != 0 {
        return Err(core.raise(Exception::gp("XSAVES or XRSTORS outside CPL 0")));
    }
    Ok(place)
}

impl Place {
    fn read(self, core: &mut Core, offset: u64) -> Result<u64, Exit> {
        core.read_linear(self.at.wrapping_add(offset), Width::W64, By::Current)
    }

    fn write(self, core: &mut Core, offset: u64, v: u64) -> Result<(), Exit> {
        core.write_linear(self.at.wrapping_add(offset), Width::W64, v, By::Current)
    }

    /// Checks the places of components behind the header.
    fn check(
        self,
        core: &mut Core,
        i: &Insn,
        components: u64,
        compacted: Option<u64>,
        write: bool,
    ) -> Result<(), Exit> {
        for (c, at) in places(compacted.unwrap_or(components), compacted.is_some()) {
            if components & c.bit != 0 {
                core.check_area(i.seg, self.ea.wrapping_add(at) & i.ea_mask, c.len, write)?;
            }
        }
        Ok(())
    }

    /// Stores the components in `saved`, whose places have been checked; the SSE component without
    /// MXCSR.
    fn store(
        self,
        core: &mut Core,
        area: &Area,
        saved: u64,
        compacted: Option<u64>,
    ) -> Result<(), Exit> {
        if saved & xcr0::X87 != 0 {
            state::write(core, self.at, area, X87_CONTROL)?;
            state::write(core, self.at, area, X87_REGISTERS)?;
        }
        if saved & xcr0::SSE != 0 {
            let part = xmm_place(core);
            state::write(core, self.at, area, part)?;
        }
        for (c, at) in places(compacted.unwrap_or(saved), compacted.is_some()) {
            if saved & c.bit == 0 {
                continue;
            }
            for (n, word) in words(core, c).into_iter().enumerate() {
                self.write(core, at + 8 * n as u64, word)?;
            }
        }
        Ok(())
    }
}

/// XSAVE and XSAVEOPT, and their 64-bit forms. `OPTIMIZE` leaves out components in their initial
/// configuration.
pub fn xsave<const OPTIMIZE: bool>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let place = place(core, i, true)?;
    let requested = place.requested;
    let in_use = in_use(core);
    let saved = if OPTIMIZE { requested & in_use } else { requested };
    place.check(core, i, saved, None, true)?;
    let old = place.read(core, HEADER)?;
    let area = state::image(core, i.has(bits::WIDE));
    // MXCSR belongs to AVX as well, and is written even where the registers are not.
    if requested & (xcr0::SSE | xcr0::AVX) != 0 {
        state::write(core, place.at, &area, MXCSR)?;
    }
    place.store(core, &area, saved, None)?;
    place.write(core, HEADER, old & !requested | in_use & requested)
}

/// XSAVEC and XSAVES: the compacted format, whose SSE component includes MXCSR.
pub fn xsave_compacted<const SUPERVISOR: bool>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let place = if SUPERVISOR { supervisor_place } else { place }(core, i, true)?;
    let requested = place.requested;
    let mxcsr_in_use = if core.vcpu.mxcsr == mxcsr::DEFAULT { 0 } else { xcr0::SSE };
    let saved = requested & (in_use(core) | mxcsr_in_use);
    place.check(core, i, saved, Some(requested), true)?;
    let area = state::image(core, i.has(bits::WIDE));
    if saved & xcr0::SSE != 0 {
        state::write(core, place.at, &area, MXCSR)?;
    }
    place.store(core, &area, saved, Some(requested))?;
    place.write(core, HEADER, saved)?;
    place.write(core, HEADER + 8, requested | COMPACTED)
}

/// What a header says.
struct Header {
    /// XSTATE_BV: the components that the area holds; the others are to be initialized.
    present: u64,
    /// The components that have a place, if the format is the compacted one.
    compacted: Option<u64>,
}

/// Reads the header and checks it (SDM vol. 1, 13.8.1, 13.8.2 and 13.12).
fn header(core: &mut Core, place: Place, supervisor: bool) -> Result<Header, Exit> {
    let mut words = [0; 8];
    for (n, word) in words.iter_mut().enumerate() {
        *word = place.read(core, HEADER + 8 * n as u64)?;
    }
    let [present, compaction, reserved @ ..] = words;
    let enabled = core.vcpu.sys.xcr0;
    let ok = if compaction & COMPACTED == 0 {
        !supervisor && present & !enabled == 0 && compaction == 0 && reserved[0] == 0
    } else {
        let components = compaction & !COMPACTED;
        (supervisor || core.model.has(crate::cpuid::Feature::Xsavec))
            && components & !enabled == 0
            && present & !components == 0
            && reserved == [0; 6]
    };
    if !ok {
        return Err(core.raise(Exception::gp("XRSTOR header names unknown state or format")));
    }
    let compacted = (compaction & COMPACTED != 0).then_some(compaction & !COMPACTED);
    Ok(Header { present, compacted })
}

/// XRSTOR and XRSTORS, and their 64-bit forms.
pub fn xrstor<const SUPERVISOR: bool>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let place = if SUPERVISOR { supervisor_place } else { place }(core, i, false)?;
    let Header { present, compacted } = header(core, place, SUPERVISOR)?;
    let requested = place.requested;
    let loaded = requested & present;
    place.check(core, i, loaded, compacted, false)?;
    let area = state::read(core, place.at)?;
    let mut extended = Vec::new();
    for (c, at) in places(compacted.unwrap_or(loaded), compacted.is_some()) {
        if loaded & c.bit == 0 {
            continue;
        }
        let len = words(core, c).len() as u64;
        let words: Result<Vec<_>, _> = (0..len).map(|n| place.read(core, at + 8 * n)).collect();
        extended.push((c, words?));
    }
    let new_mxcsr = match compacted {
        // Part of the SSE component.
        Some(_) if requested & xcr0::SSE == 0 => None,
        Some(_) if present & xcr0::SSE == 0 => Some(mxcsr::DEFAULT),
        None if requested & (xcr0::SSE | xcr0::AVX) == 0 => None,
        _ => Some(state::mxcsr_of(core, &area)?),
    };
    if let Some(v) = new_mxcsr {
        state::set_mxcsr(core, v);
    }
    if requested & xcr0::X87 != 0 {
        state::replace_x87(core, |x87| match present & xcr0::X87 {
            0 => *x87 = X87::default(),
            _ => x87.fxrstor(i.has(bits::WIDE), &area),
        });
    }
    if requested & xcr0::SSE != 0 {
        let initial = [0; LEGACY as usize];
        state::load_xmm(core, if present & xcr0::SSE != 0 { &area } else { &initial });
    }
    for c in COMPONENTS.iter().filter(|c| requested & !present & c.bit != 0) {
        let initial = vec![0; words(core, c).len()];
        set_words(core, c, &initial);
    }
    for (c, words) in extended {
        set_words(core, c, &words);
    }
    Ok(())
}
