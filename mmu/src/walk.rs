//! Page-table walks (SDM vol. 3A, chapter 4).

use std::fmt;

use crate::addr::{GuestPhys, Linear, Width};
use crate::entry::{
    A, D, Format, G, Level, P, PAT_LARGE, PCD, PS, PWT, PagingKind, PagingMode, RW, US, XD, bits,
    protection_key,
};
use crate::map::{Backing, PhysMap};

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Reads data.
    Read,
    /// Writes data (or reads it to write it back).
    Write,
    /// Fetches instructions.
    Execute,
}

/// An access, as far as permissions depend on it (SDM vol. 3A, 4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// What it does.
    pub kind: AccessKind,
    /// A user-mode access: CPL = 3, and not implicit.
    pub user: bool,
    /// A supervisor-mode access that SMAP applies to: EFLAGS.AC = 0, or implicit.
    pub smap_checked: bool,
}

/// Where an access goes, and what else may be done with that page by accesses of the same
/// privilege without another walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address of the very byte, before A20.
    pub phys: GuestPhys,
    /// log2 of the page's size: 12, 21, 22 or 30.
    pub page_bits: u8,
    /// Reads are allowed.
    pub readable: bool,
    /// Writes are allowed and the page is dirty already, so that they need no walk.
    pub writable_now: bool,
    /// Instruction fetches are allowed.
    pub executable: bool,
    /// A user-mode page.
    pub user: bool,
    /// The protection key of a user page; 0 where pages have none.
    pub key: u8,
    /// Survives CR3 loads (CR4.PGE and the G flag).
    pub global: bool,
    /// The index in the page-attribute table: PAT, PCD, PWT.
    pub cache: u8,
}

/// Which check a walk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkFailure {
    /// The P flag is clear.
    NotPresent {
        /// Of this entry.
        level: Level,
    },
    /// Bits are set that must be clear.
    Reserved {
        /// In this entry.
        level: Level,
        /// These bits.
        bits: u64,
    },
    /// User-mode access to a supervisor page.
    SupervisorPage {
        /// The uppermost entry with U/S clear.
        level: Level,
    },
    /// Write to a read-only page.
    ReadOnly {
        /// The uppermost entry with R/W clear.
        level: Level,
    },
    /// Fetch from a page with XD set.
    NoExecute {
        /// The uppermost entry with XD set.
        level: Level,
    },
    /// Supervisor-mode fetch from a user page.
    Smep,
    /// Supervisor-mode data access to a user page.
    Smap,
    /// Data access that PKRU forbids.
    ProtectionKey {
        /// The page's key.
        key: u8,
    },
}

impl fmt::Display for WalkFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPresent { level } => write!(f, "{level} not present"),
            Self::Reserved { level, bits } => {
                write!(f, "reserved bits {bits:#x} set in the {level}")
            }
            Self::SupervisorPage { level } => {
                write!(f, "user access to a supervisor page (U/S clear in the {level})")
            }
            Self::ReadOnly { level } => {
                write!(f, "write to a read-only page (R/W clear in the {level})")
            }
            Self::NoExecute { level } => {
                write!(f, "fetch from a no-execute page (XD set in the {level})")
            }
            Self::Smep => f.write_str("supervisor fetch from a user page (SMEP)"),
            Self::Smap => f.write_str("supervisor access to a user page (SMAP)"),
            Self::ProtectionKey { key } => write!(f, "PKRU forbids accesses with key {key}"),
        }
    }
}

/// A page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (error code {error_code:#x})")]
pub struct PageFault {
    /// The error code (SDM vol. 3A, 4.7).
    pub error_code: u32,
    /// Why, for people.
    pub reason: WalkFailure,
}

/// Where paging structures are read and their flags are set.
pub trait TableMemory {
    /// Reads an entry; all ones where nothing answers.
    fn read_entry(&self, at: GuestPhys, width: Width) -> u64;

    /// Replaces `old` by `new` atomically; false if the entry was no longer `old`. A write that
    /// memory does not take (ROM) succeeds.
    fn update_entry(&self, at: GuestPhys, width: Width, old: u64, new: u64) -> bool;
}

impl TableMemory for PhysMap {
    fn read_entry(&self, at: GuestPhys, width: Width) -> u64 {
        self.read_phys(at, width).unwrap_or(width.mask())
    }

    fn update_entry(&self, at: GuestPhys, width: Width, old: u64, new: u64) -> bool {
        match self.lookup(at).backing {
            Backing::Ram { offset } => {
                let offset = offset + at.page_offset();
                self.ram().compare_exchange(offset, width, old, new) == old
            }
            Backing::Rom { .. } | Backing::Mmio => true,
        }
    }
}

/// One entry that a walk used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkStep {
    /// Its level.
    pub level: Level,
    /// Its address; `None` for PAE's PDPTEs, which are registers.
    pub at: Option<GuestPhys>,
    /// Its value.
    pub entry: u64,
    /// Whether it maps a page.
    pub leaf: bool,
}

impl fmt::Display for WalkStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5} {:#018x}", self.level, self.entry)?;
        match self.at {
            Some(at) => write!(f, " at {at}:")?,
            None => f.write_str(" in a register:")?,
        }
        if self.entry & P == 0 {
            return f.write_str(" not present");
        }
        let names = [
            (RW, "R/W"),
            (US, "U/S"),
            (PWT, "PWT"),
            (PCD, "PCD"),
            (A, "A"),
            (D, "D"),
            (PS, if self.level == Level::Table { "PAT" } else { "PS" }),
            (G, "G"),
            (XD, "XD"),
        ];
        f.write_str(" P")?;
        for (_, name) in names.iter().filter(|(bit, _)| self.entry & bit != 0) {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}

/// The entries that a walk used, from the root.
#[derive(Clone, Copy)]
struct Trail {
    steps: [WalkStep; 5],
    len: usize,
}

impl Trail {
    const fn new() -> Self {
        let step = WalkStep { level: Level::Table, at: None, entry: 0, leaf: false };
        Self { steps: [step; 5], len: 0 }
    }

    fn push(&mut self, step: WalkStep) {
        self.steps[self.len] = step;
        self.len += 1;
    }

    fn steps(&self) -> &[WalkStep] {
        &self.steps[..self.len]
    }

    /// The uppermost entry in memory whose `flag` is set, or clear.
    fn first_with(&self, flag: u64, set: bool) -> Option<Level> {
        let mut entries = self.steps().iter().filter(|step| step.at.is_some());
        entries.find(|step| (step.entry & flag != 0) == set).map(|step| step.level)
    }
}

/// A leaf: the page frame, before permissions.
struct Leaf {
    frame: u64,
    page_bits: u8,
}

/// Follows the tables down to a leaf. The trail holds every entry that was read.
fn descend<M: TableMemory + ?Sized>(
    memory: &M,
    cr3: u64,
    pdptes: &[u64; 4],
    format: &Format<'_>,
    linear: Linear,
) -> (Trail, Result<Leaf, WalkFailure>) {
    let mut trail = Trail::new();
    let (mut level, mut table) = match format.mode.kind {
        PagingKind::None => {
            let frame = linear.page_base().0 & 0xffff_ffff;
            return (trail, Ok(Leaf { frame, page_bits: 12 }));
        }
        PagingKind::Legacy32 { .. } => (Level::Directory, cr3 & bits(12, 32)),
        PagingKind::Pae => {
            let entry = pdptes[(linear.0 >> 30) as usize & 3];
            trail.push(WalkStep { level: Level::Pointer, at: None, entry, leaf: false });
            if entry & P == 0 {
                return (trail, Err(WalkFailure::NotPresent { level: Level::Pointer }));
            }
            (Level::Directory, format.table(entry))
        }
        PagingKind::FourLevel => (Level::Map4, cr3 & bits(12, 52)),
        PagingKind::FiveLevel => (Level::Map5, cr3 & bits(12, 52)),
    };
    loop {
        let shift = format.shift(level);
        let index = linear.0 >> shift & bits(0, format.index_bits);
        let at = GuestPhys(table + index * format.width.bytes());
        let entry = memory.read_entry(at, format.width);
        let leaf = format.is_leaf(level, entry);
        trail.push(WalkStep { level, at: Some(at), entry, leaf });
        if entry & P == 0 {
            return (trail, Err(WalkFailure::NotPresent { level }));
        }
        match entry & format.reserved(level, leaf) {
            0 => {}
            bits => return (trail, Err(WalkFailure::Reserved { level, bits })),
        }
        if leaf {
            let frame = format.frame(level, entry);
            return (trail, Ok(Leaf { frame, page_bits: shift as u8 }));
        }
        table = format.table(entry);
        level = match level {
            Level::Map5 => Level::Map4,
            Level::Map4 => Level::Pointer,
            Level::Pointer => Level::Directory,
            Level::Directory | Level::Table => Level::Table,
        };
    }
}

/// Whether an access to the page that the trail leads to is allowed (SDM vol. 3A, 4.6.1).
fn permit(trail: &Trail, mode: &PagingMode, access: Access) -> Result<(), WalkFailure> {
    if mode.kind == PagingKind::None {
        return Ok(());
    }
    let supervisor_page = trail.first_with(US, false);
    match supervisor_page {
        Some(level) if access.user => return Err(WalkFailure::SupervisorPage { level }),
        None if !access.user => match access.kind {
            AccessKind::Execute if mode.smep => return Err(WalkFailure::Smep),
            AccessKind::Read | AccessKind::Write if mode.smap && access.smap_checked => {
                return Err(WalkFailure::Smap);
            }
            _ => {}
        },
        _ => {}
    }
    match access.kind {
        AccessKind::Write if access.user || mode.wp => match trail.first_with(RW, false) {
            Some(level) => Err(WalkFailure::ReadOnly { level }),
            None => permit_key(trail, mode, access),
        },
        AccessKind::Read | AccessKind::Write => permit_key(trail, mode, access),
        // Where XD means nothing it is reserved (NXE = 0) or outside the entry (32-bit paging).
        AccessKind::Execute => match trail.first_with(XD, true) {
            Some(level) => Err(WalkFailure::NoExecute { level }),
            None => Ok(()),
        },
    }
}

/// Whether PKRU allows an access to the page that the trail leads to (SDM vol. 3A, 4.6.2). Keys say
/// nothing on fetches and on supervisor pages.
fn permit_key(trail: &Trail, mode: &PagingMode, access: Access) -> Result<(), WalkFailure> {
    const ACCESS_DISABLE: u32 = 1;
    const WRITE_DISABLE: u32 = 2;
    let (Some(pkru), Some(leaf)) = (mode.pkru, trail.steps().last()) else { return Ok(()) };
    if access.kind == AccessKind::Execute || trail.first_with(US, false).is_some() {
        return Ok(());
    }
    let key = protection_key(leaf.entry);
    let rights = pkru >> (2 * key);
    let writes = access.kind == AccessKind::Write && (access.user || mode.wp);
    if rights & ACCESS_DISABLE != 0 || writes && rights & WRITE_DISABLE != 0 {
        return Err(WalkFailure::ProtectionKey { key });
    }
    Ok(())
}

/// Sets the accessed flags of entries that were used, and the dirty flag of the last for a write.
/// False if one has changed since it was read.
fn set_flags<M: TableMemory + ?Sized>(
    memory: &M,
    width: Width,
    used: &mut [WalkStep],
    write: bool,
) -> bool {
    for step in used {
        let Some(at) = step.at else { continue };
        let wanted = step.entry | A | if step.leaf && write { D } else { 0 };
        if wanted != step.entry {
            if !memory.update_entry(at, width, step.entry, wanted) {
                return false;
            }
            step.entry = wanted;
        }
    }
    true
}

fn translation(
    trail: &Trail,
    leaf: &Leaf,
    mode: &PagingMode,
    linear: Linear,
    access: Access,
) -> Translation {
    let allows = |kind| permit(trail, mode, Access { kind, ..access }).is_ok();
    let paging = mode.kind != PagingKind::None;
    let entry = trail.steps().last().map_or(D | US, |step| step.entry);
    let pat = if leaf.page_bits == 12 { PS } else { PAT_LARGE };
    let pat = if paging && mode.pat && entry & pat != 0 { 4 } else { 0 };
    Translation {
        phys: GuestPhys(leaf.frame | linear.0 & bits(0, u32::from(leaf.page_bits))),
        page_bits: leaf.page_bits,
        readable: allows(AccessKind::Read),
        writable_now: entry & D != 0 && allows(AccessKind::Write),
        executable: allows(AccessKind::Execute),
        user: trail.first_with(US, false).is_none(),
        key: if mode.pkru.is_some() { protection_key(entry) } else { 0 },
        global: mode.pge && entry & G != 0,
        cache: pat | ((entry & (PCD | PWT)) >> 3) as u8,
    }
}

/// The error code of a page fault (SDM vol. 3A, 4.7).
fn error_code(failure: WalkFailure, trail: &Trail, mode: &PagingMode, access: Access) -> u32 {
    // PK tells of the key whatever else forbids the access, if there is a page to have one.
    let no_page = matches!(failure, WalkFailure::NotPresent { .. } | WalkFailure::Reserved { .. });
    let long_entries = mode.kind == PagingKind::Pae || mode.kind.is_long();
    let fetch = access.kind == AccessKind::Execute && (mode.smep || long_entries && mode.nxe);
    [
        !matches!(failure, WalkFailure::NotPresent { .. }),
        access.kind == AccessKind::Write,
        access.user,
        matches!(failure, WalkFailure::Reserved { .. }),
        fetch,
        !no_page && permit_key(trail, mode, access).is_err(),
    ]
    .iter()
    .enumerate()
    .fold(0, |code, (bit, &set)| code | u32::from(set) << bit)
}

/// Translates a linear address for an access, as hardware does: the accessed flags of all entries
/// used are set, and for a write the dirty flag of the last (SDM vol. 3A, 4.8), atomically.
///
/// A walk that faults changes nothing. Whether the entries above the one that it fails at have been
/// "used" is for the processor to say (SDM, 4.8; kvm-unit-tests, x86/access.c, takes both for
/// right); the 80386 leaves them alone, and test386.asm insists on it.
///
/// `pdptes` are the PDPTE registers of PAE paging, which other modes ignore.
pub fn walk<M: TableMemory + ?Sized>(
    memory: &M,
    cr3: u64,
    pdptes: &[u64; 4],
    mode: &PagingMode,
    linear: Linear,
    access: Access,
) -> Result<Translation, PageFault> {
    let format = Format::new(mode);
    // Another processor may change an entry between its use and the setting of its flags; then
    // the walk starts again, and that processor has made progress.
    loop {
        let (mut trail, leaf) = descend(memory, cr3, pdptes, &format, linear);
        let fault =
            |reason| PageFault { error_code: error_code(reason, &trail, mode, access), reason };
        let leaf = leaf.map_err(fault)?;
        permit(&trail, mode, access).map_err(fault)?;
        let (used, write) = (trail.len, access.kind == AccessKind::Write);
        if set_flags(memory, format.width, &mut trail.steps[..used], write) {
            return Ok(translation(&trail, &leaf, mode, linear, access));
        }
    }
}

/// A walk without side effects, level by level, for debuggers and crash reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The address.
    pub linear: Linear,
    /// The entries used, from the root; the last is the one that failed, if one did.
    pub steps: Vec<WalkStep>,
    /// Where the access would go, or why it would not.
    pub outcome: Result<Translation, PageFault>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "page walk of {}", self.linear)?;
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        match &self.outcome {
            Ok(translation) => write!(f, "  maps to {}", translation.phys),
            Err(fault) => write!(f, "  fails: {fault}"),
        }
    }
}

/// Does what [`walk`] does, but sets no flags, and tells each step.
pub fn probe<M: TableMemory + ?Sized>(
    memory: &M,
    cr3: u64,
    pdptes: &[u64; 4],
    mode: &PagingMode,
    linear: Linear,
    access: Access,
) -> Probe {
    let (trail, leaf) = descend(memory, cr3, pdptes, &Format::new(mode), linear);
    let outcome = leaf
        .and_then(|leaf| {
            permit(&trail, mode, access)?;
            Ok(translation(&trail, &leaf, mode, linear, access))
        })
        .map_err(|reason| PageFault {
            error_code: error_code(reason, &trail, mode, access),
            reason,
        });
    Probe { linear, steps: trail.steps().to_vec(), outcome }
}

/// A PDPTE that cannot be loaded: #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reserved bits {bits:#x} set in PDPTE {index} ({entry:#x})")]
pub struct BadPdpte {
    /// Which of the four.
    pub index: usize,
    /// Its value.
    pub entry: u64,
    /// The reserved bits that are set.
    pub bits: u64,
}

/// Loads the PDPTE registers of PAE paging, as MOV to CR3 does (SDM vol. 3A, 4.4.1).
pub fn load_pdptes<M: TableMemory + ?Sized>(
    memory: &M,
    cr3: u64,
    max_phys_bits: u8,
) -> Result<[u64; 4], BadPdpte> {
    let reserved = bits(1, 3) | bits(5, 9) | bits(u32::from(max_phys_bits), 64);
    let mut pdptes = [0; 4];
    for (index, pdpte) in pdptes.iter_mut().enumerate() {
        let at = GuestPhys((cr3 & bits(5, 32)) + 8 * index as u64);
        let entry = memory.read_entry(at, Width::W64);
        if entry & P != 0 && entry & reserved != 0 {
            return Err(BadPdpte { index, entry, bits: entry & reserved });
        }
        *pdpte = entry;
    }
    Ok(pdptes)
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
