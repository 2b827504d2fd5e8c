//! Segment and gate descriptors in the GDT, LDT and IDT (SDM vol. 3, 3.4.5, 5.8.3, 6.11).

use brolga_mmu::{Linear, Width};

use super::{Done, on_selector};
use crate::core::{By, Core, Exit};
use crate::vcpu::{Segment, attr};

/// Types of system descriptors (SDM vol. 3, table 3-2).
pub(super) mod kind {
    pub(crate) const TSS16: u8 = 1;
    pub(crate) const LDT: u8 = 2;
    pub(crate) const TSS16_BUSY: u8 = 3;
    pub(crate) const CALL16: u8 = 4;
    pub(crate) const TASK_GATE: u8 = 5;
    pub(crate) const INTERRUPT16: u8 = 6;
    pub(crate) const TRAP16: u8 = 7;
    pub(crate) const TSS32: u8 = 9;
    pub(crate) const TSS32_BUSY: u8 = 11;
    pub(crate) const CALL32: u8 = 12;
    pub(crate) const INTERRUPT32: u8 = 14;
    pub(crate) const TRAP32: u8 = 15;
}

/// The bit that tells a busy TSS from an available one.
pub(super) const BUSY: u32 = 2;

/// A descriptor as it lies in its table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    /// The selector that named it.
    pub(super) selector: u16,
    /// Its first eight bytes.
    pub(super) low: u64,
    /// The following eight, for 16-byte descriptors of IA-32e mode; 0 otherwise.
    pub(super) high: u64,
    /// Where it lies.
    pub(super) at: Linear,
}

impl Descriptor {
    /// Access rights in the form of [`Segment::attr`].
    pub(super) fn attr(&self) -> u32 {
        (self.low >> 40) as u32 & 0xf0ff
    }
    pub(super) fn has(&self, mask: u32) -> bool {
        self.attr() & mask == mask
    }
    pub(super) fn base(&self) -> u64 {
        self.low >> 16 & 0xff_ffff | self.low >> 32 & 0xff00_0000 | self.high << 32
    }
    /// Highest offset in bytes.
    pub(super) fn limit(&self) -> u32 {
        let raw = (self.low & 0xffff | self.low >> 32 & 0xf_0000) as u32;
        if self.has(attr::G) { raw << 12 | 0xfff } else { raw }
    }
    pub(super) fn dpl(&self) -> u8 {
        (self.low >> 45 & 3) as u8
    }
    pub(super) fn kind(&self) -> u8 {
        (self.low >> 40 & 15) as u8
    }
    pub(super) fn present(&self) -> bool {
        self.has(attr::P)
    }
    /// Neither code nor data.
    pub(super) fn system(&self) -> bool {
        !self.has(attr::S)
    }
    pub(super) fn code(&self) -> bool {
        self.has(attr::S | attr::CODE)
    }
    pub(super) fn conforming(&self) -> bool {
        self.has(attr::S | attr::CODE | attr::DC)
    }
    pub(super) fn readable(&self) -> bool {
        !self.system() && (!self.code() || self.has(attr::RW))
    }
    pub(super) fn writable(&self) -> bool {
        !self.system() && !self.code() && self.has(attr::RW)
    }

    /// Gates: the selector of the target.
    pub(super) fn gate_selector(&self) -> u16 {
        (self.low >> 16) as u16
    }
    /// Gates: the entry point; 16-bit gates have only the low half.
    pub(super) fn gate_offset(&self) -> u64 {
        let high = if self.kind() & 8 != 0 { self.low >> 32 & 0xffff_0000 } else { 0 };
        self.low & 0xffff | high | self.high << 32
    }
    /// Call gates: number of parameters. IDT gates of IA-32e mode: IST index in the low 3 bits.
    pub(super) fn gate_count(&self) -> u64 {
        self.low >> 32 & 31
    }

    /// The segment register contents that `selector` and this descriptor make.
    pub(super) fn segment(&self, selector: u16) -> Segment {
        Segment { selector, attr: self.attr(), limit: self.limit(), base: self.base() }
    }
}

/// A segment register loaded with a null selector. `dpl` matters for SS, where it shows CPL.
pub(super) fn null_segment(selector: u16, dpl: u8) -> Segment {
    Segment { selector, attr: attr::UNUSABLE | u32::from(dpl) << 5, limit: 0, base: 0 }
}

/// Reads the descriptor that `selector`, not null, names. A selector outside its table raises
/// `vector` with the selector as error code.
pub(super) fn fetch(core: &mut Core, selector: u16, vector: u8) -> Result<Descriptor, Exit> {
    let offset = u64::from(selector & !7);
    let (base, limit) = if selector & 4 == 0 {
        (core.vcpu.gdtr.base, u64::from(core.vcpu.gdtr.limit))
    } else {
        let ldtr = core.vcpu.ldtr;
        core.require(
            !ldtr.has(attr::UNUSABLE),
            on_selector(vector, selector, "selector in the LDT, and LDTR is null"),
        )?;
        (ldtr.base, u64::from(ldtr.limit))
    };
    core.require(
        offset + 7 <= limit,
        on_selector(vector, selector, "selector beyond the limit of its descriptor table"),
    )?;
    let at = core.table_address(base, offset);
    let low = core.read_linear(at, Width::W64, By::System)?;
    Ok(Descriptor { selector, low, high: 0, at })
}

/// Completes a system descriptor of IA-32e mode, which is 16 bytes long (SDM vol. 3, 3.5.2).
/// Does nothing in legacy mode.
pub(super) fn extend(core: &mut Core, d: &mut Descriptor, vector: u8) -> Done {
    if !core.vcpu.long_mode() {
        return Ok(());
    }
    let limit = if d.selector & 4 == 0 {
        u64::from(core.vcpu.gdtr.limit)
    } else {
        u64::from(core.vcpu.ldtr.limit)
    };
    core.require(
        u64::from(d.selector & !7) + 15 <= limit,
        on_selector(vector, d.selector, "16-byte descriptor beyond the limit of its table"),
    )?;
    d.high = core.read_linear(d.at.wrapping_add(8), Width::W64, By::System)?;
    core.require(
        d.high >> 40 & 0x1f == 0,
        on_selector(vector, d.selector, "type field in the upper half of a descriptor is not 0"),
    )?;
    d.high &= 0xffff_ffff;
    Ok(())
}

/// #GP or #TS(selector) unless the base of a 16-byte system descriptor is canonical.
pub(super) fn check_base(core: &mut Core, d: &Descriptor, vector: u8) -> Done {
    core.require(
        core.is_canonical_base(d.base()),
        on_selector(vector, d.selector, "base in a system descriptor is not canonical"),
    )
}

/// Sets the accessed bit of a code or data descriptor if it is clear.
pub(super) fn set_accessed(core: &mut Core, d: &mut Descriptor) -> Done {
    if !d.has(attr::ACCESSED) {
        write_rights(core, d, d.attr() | attr::ACCESSED)?;
        d.low |= 1 << 40;
    }
    Ok(())
}

/// Marks a TSS descriptor busy or available.
pub(super) fn set_busy(core: &mut Core, d: &Descriptor, busy: bool) -> Done {
    let rights = if busy { d.attr() | BUSY } else { d.attr() & !BUSY };
    write_rights(core, d, rights)
}

fn write_rights(core: &mut Core, d: &Descriptor, rights: u32) -> Done {
    core.write_linear(d.at.wrapping_add(5), Width::W8, u64::from(rights & 0xff), By::System)
}
