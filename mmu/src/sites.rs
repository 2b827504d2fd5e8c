//! Sites: accesses of translated code that have entries of the TLB of their own. Most accesses find
//! the page that they found the last time. Such a one compares with its site's entry, whose place
//! does not depend on the address: the host address is known without a load that waits for the
//! guest's.
//!
//! A site's entry is a copy of one of its table's, and goes with it. Each site has an entry in every
//! table.

use std::sync::atomic::AtomicU64;

use crate::addr::{Linear, PAGE_SIZE};
use crate::tlb::{SLOTS, TLB_ENTRIES, Tlb, TlbEntry};
use bytemuck::{Zeroable, allocation::zeroed_slice_box};

/// Sites there are. More would give entries to accesses that are executed too seldom to gain by
/// them: each has to be filled in each table.
pub const SITES: usize = 8192;
/// The entries of sites lie behind those of the tables, in arrays of the same shape.
pub(crate) const PLANES: usize = SITES.div_ceil(TLB_ENTRIES);

/// No access goes to this address: it is not canonical, whatever number of levels page tables
/// have (SDM vol. 1, 3.3.7.1). A comparison that never holds would cost each access an
/// instruction; 64-bit code that does use the address finds [`Sites::nowhere`] instead of #GP.
const NOWHERE: u64 = 0x5a5a_a5a5_a5a5_a000;

/// Distance in bytes of a site's entry from its table's first.
pub const fn site_offset(site: u32) -> usize {
    let site = site as usize % SITES;
    (SLOTS * (1 + site / TLB_ENTRIES) + site % TLB_ENTRIES) * size_of::<TlbEntry>()
}

/// A slot or an entry of a site, by its number plus 1; 0 is none.
type Index = u32;
const NONE: Index = 0;

/// A site's entry, among those that are copies of the same slot.
#[derive(Clone, Copy, Zeroable)]
struct Copied {
    slot: Index,
    next: Index,
    previous: Index,
}

/// Which entries of sites are copies of which slots.
pub(crate) struct Sites {
    /// By the number of the entry less [`SLOTS`].
    copies: Box<[Copied]>,
    /// The first copy of each slot.
    heads: Box<[Index]>,
    /// What an address that hits no page leads to.
    nowhere: Box<[AtomicU64; PAGE_SIZE as usize / 8]>,
}

impl Sites {
    pub(crate) fn new() -> Self {
        Self {
            copies: zeroed_slice_box(SLOTS * PLANES),
            heads: zeroed_slice_box(SLOTS),
            nowhere: Box::new([const { AtomicU64::new(0) }; PAGE_SIZE as usize / 8]),
        }
    }

    /// An entry without a page.
    pub(crate) fn empty(&self) -> TlbEntry {
        let host = self.nowhere[0].as_ptr() as u64;
        let addend = host.wrapping_sub(NOWHERE);
        TlbEntry { read: NOWHERE, write: NOWHERE, exec: NOWHERE, addend }
    }

    fn attach(&mut self, copy: usize, slot: usize) {
        self.detach(copy);
        let index = copy as Index + 1;
        let next = std::mem::replace(&mut self.heads[slot], index);
        self.copies[copy] = Copied { slot: slot as Index + 1, next, previous: NONE };
        if next != NONE {
            self.copies[next as usize - 1].previous = index;
        }
    }

    fn detach(&mut self, copy: usize) {
        let Copied { slot, next, previous } = self.copies[copy];
        if slot == NONE {
            return;
        }
        match previous {
            NONE => self.heads[slot as usize - 1] = next,
            _ => self.copies[previous as usize - 1].next = next,
        }
        if next != NONE {
            self.copies[next as usize - 1].previous = previous;
        }
        self.copies[copy].slot = NONE;
    }

    /// Takes a copy of a slot from the list.
    fn take(&mut self, slot: usize) -> Option<usize> {
        let copy = (self.heads[slot] as usize).checked_sub(1)?;
        self.detach(copy);
        Some(copy)
    }
}

impl Tlb {
    /// Empties a site's entries in all tables: to be done before code uses it.
    pub fn empty_site(&mut self, site: u32) {
        for table in (0..SLOTS).step_by(TLB_ENTRIES) {
            let at = table + site_offset(site) / size_of::<TlbEntry>();
            self.entries[at] = self.sites.empty();
            self.sites.detach(at - SLOTS);
        }
    }

    /// Copies the entry for `linear`, in the current table, to a site's.
    pub fn fill_site(&mut self, site: u32, linear: Linear) {
        let slot = self.current_slot(linear);
        let table = slot - slot % TLB_ENTRIES;
        let at = table + site_offset(site) / size_of::<TlbEntry>();
        self.entries[at] = self.entries[slot];
        self.sites.attach(at - SLOTS, slot);
    }

    /// Empties the copies of a slot.
    #[inline]
    pub(crate) fn empty_copies(&mut self, slot: usize) {
        while let Some(copy) = self.sites.take(slot) {
            self.entries[SLOTS + copy] = self.sites.empty();
        }
    }
}

#[cfg(test)]
#[path = "sites_tests.rs"]
mod tests;
