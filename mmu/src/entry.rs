//! Paging modes and the format of their entries (SDM vol. 3A, 4.1 to 4.5).

use std::fmt;

use crate::addr::Width;

/// The format of the paging structures (SDM vol. 3A, 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PagingKind {
    /// CR0.PG = 0: linear addresses are physical.
    #[default]
    None,
    /// 32-bit paging.
    Legacy32 {
        /// CR4.PSE: 4 MiB pages.
        pse: bool,
    },
    /// PAE paging.
    Pae,
    /// 4-level paging.
    FourLevel,
    /// 5-level paging.
    FiveLevel,
}

impl PagingKind {
    /// The modes whose tables translate more than 32 bits.
    pub(crate) const fn is_long(self) -> bool {
        matches!(self, Self::FourLevel | Self::FiveLevel)
    }
}

/// What CR0, CR4, EFER and CPUID say about paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PagingMode {
    /// The format.
    pub kind: PagingKind,
    /// CR0.WP
    pub wp: bool,
    /// CR4.SMEP
    pub smep: bool,
    /// CR4.SMAP
    pub smap: bool,
    /// EFER.NXE
    pub nxe: bool,
    /// CR4.PGE
    pub pge: bool,
    /// CR4.PCIDE
    pub pcide: bool,
    /// The rights of the protection keys, where CR4.PKE gives user pages keys (IA-32e mode only).
    pub pkru: Option<u32>,
    /// CPUID: 4 MiB pages reach 40 physical address bits.
    pub pse36: bool,
    /// CPUID: page-attribute table.
    pub pat: bool,
    /// CPUID: 1 GiB pages.
    pub gb_pages: bool,
    /// CPUID: MAXPHYADDR.
    pub max_phys_bits: u8,
}

/// The levels of the paging structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Page table: PTE.
    Table = 1,
    /// Page directory: PDE.
    Directory,
    /// Page-directory-pointer table: PDPTE.
    Pointer,
    /// Page map level 4: PML4E.
    Map4,
    /// Page map level 5: PML5E.
    Map5,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Table => "PTE",
            Self::Directory => "PDE",
            Self::Pointer => "PDPTE",
            Self::Map4 => "PML4E",
            Self::Map5 => "PML5E",
        })
    }
}

pub(crate) const P: u64 = 1 << 0;
pub(crate) const RW: u64 = 1 << 1;
pub(crate) const US: u64 = 1 << 2;
pub(crate) const PWT: u64 = 1 << 3;
pub(crate) const PCD: u64 = 1 << 4;
pub(crate) const A: u64 = 1 << 5;
pub(crate) const D: u64 = 1 << 6;
/// Page size in a PDPTE or PDE. In a PTE the same bit is PAT.
pub(crate) const PS: u64 = 1 << 7;
pub(crate) const G: u64 = 1 << 8;
pub(crate) const PAT_LARGE: u64 = 1 << 12;
pub(crate) const XD: u64 = 1 << 63;

/// The protection key of a leaf.
pub(crate) const fn protection_key(leaf: u64) -> u8 {
    (leaf >> 59) as u8 & 15
}

/// The bits `low..high`.
pub(crate) const fn bits(low: u32, high: u32) -> u64 {
    if low >= high { 0 } else { (u64::MAX >> (64 - (high - low))) << low }
}

/// How the levels of a mode differ.
pub(crate) struct Format<'a> {
    pub(crate) mode: &'a PagingMode,
    /// Bits of the linear address that one level consumes.
    pub(crate) index_bits: u32,
    pub(crate) width: Width,
    /// Reserved in every entry that is present.
    reserved: u64,
}

impl<'a> Format<'a> {
    pub(crate) fn new(mode: &'a PagingMode) -> Self {
        let max = u32::from(mode.max_phys_bits);
        let no_xd = if mode.nxe { 0 } else { XD };
        let (index_bits, width, reserved) = match mode.kind {
            // Entries of 32-bit paging hold 32 address bits at most, all of which exist.
            PagingKind::None | PagingKind::Legacy32 { .. } => (10, Width::W32, 0),
            // SDM vol. 3A, tables 4-9 to 4-11: bits 62:MAXPHYADDR.
            PagingKind::Pae => (9, Width::W64, bits(max, 63) | no_xd),
            // Tables 4-14 to 4-20: bits 51:MAXPHYADDR; 62:52 are ignored.
            PagingKind::FourLevel | PagingKind::FiveLevel => (9, Width::W64, bits(max, 52) | no_xd),
        };
        Self { mode, index_bits, width, reserved }
    }

    fn legacy(&self) -> bool {
        self.width == Width::W32
    }

    /// log2 of what one entry of the level maps.
    pub(crate) fn shift(&self, level: Level) -> u32 {
        12 + self.index_bits * (level as u32 - 1)
    }

    pub(crate) fn is_leaf(&self, level: Level, entry: u64) -> bool {
        match level {
            Level::Table => true,
            Level::Directory => entry & PS != 0 && self.mode.kind != NO_PSE,
            Level::Pointer => entry & PS != 0 && self.mode.gb_pages,
            Level::Map4 | Level::Map5 => false,
        }
    }

    /// The bits of a present entry that must be clear.
    pub(crate) fn reserved(&self, level: Level, leaf: bool) -> u64 {
        let no_pat = |bit| if self.mode.pat { 0 } else { bit };
        let max = u32::from(self.mode.max_phys_bits);
        self.reserved
            | match (level, leaf) {
                (Level::Table, _) => no_pat(PS),
                // PSE-36 puts address bits 39:32 in bits 20:13 of a PDE (table 4-4), as many as
                // MAXPHYADDR has.
                (Level::Directory, true) if self.legacy() => {
                    let used = if self.mode.pse36 { max.clamp(32, 40) - 32 } else { 0 };
                    bits(13 + used, 22) | no_pat(PAT_LARGE)
                }
                (_, true) => bits(13, self.shift(level)) | no_pat(PAT_LARGE),
                (Level::Directory, false) => 0,
                // A PDPTE is no leaf where 1 GiB pages do not exist; those above never are.
                (Level::Pointer | Level::Map4 | Level::Map5, false) => PS,
            }
    }

    /// The address bits of an entry that points to a table.
    pub(crate) fn table(&self, entry: u64) -> u64 {
        entry & bits(12, 52)
    }

    /// The address bits of an entry that maps a page.
    pub(crate) fn frame(&self, level: Level, entry: u64) -> u64 {
        let frame = entry & bits(self.shift(level), 52);
        if self.legacy() && level == Level::Directory {
            frame | (entry & bits(13, 21)) << (32 - 13)
        } else {
            frame
        }
    }
}

/// The format in which PDEs map no pages.
const NO_PSE: PagingKind = PagingKind::Legacy32 { pse: false };
