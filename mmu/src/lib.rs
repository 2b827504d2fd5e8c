//! Guest memory: addresses, RAM, the guest-physical map, page-table walks, the TLB, and the
//! record of which bytes of RAM hold translated code.

mod addr;
mod code;
mod entry;
mod map;
mod ram;
mod sites;
mod tlb;
mod walk;

pub use addr::{GuestPhys, Linear, PAGE_BITS, PAGE_SIZE, Width};
pub use code::CodePages;
pub use entry::{Level, PagingKind, PagingMode};
pub use map::{Backing, MapError, PhysMap, PhysPage, RomId};
pub use ram::{AtomicOp, HostPtr, Ram, RamError};
pub use sites::{SITES, site_offset};
pub use tlb::{Held, MmuIndex, TLB_ENTRIES, Tlb, TlbEntry, TlbFill};
pub use walk::{
    Access, AccessKind, BadPdpte, PageFault, Probe, TableMemory, Translation, WalkFailure,
    WalkStep, load_pdptes, probe, walk,
};
