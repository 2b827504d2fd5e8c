//! The translation lookaside buffer: what makes most guest accesses three host instructions.
//!
//! An entry holds one tag per kind of access. An access of `size` bytes hits if
//! `linear - tag <= 4095 - (size - 1)`, unsigned and wrapping: one compare for the page and for
//! the page's end. A tag that must not match holds the address of a page that belongs in another
//! slot, so that there is no valid bit. Pages that need care (MMIO, ROM and code pages for
//! writing, pages with a watchpoint) are not entered, and every access to them takes the slow
//! path.
//!
//! There is a table for each privilege ([`MmuIndex`]), so that a change of CPL flushes nothing,
//! and one such set for each of the last [`CONTEXTS`] PCIDs (SDM vol. 3A, 4.10.1). Global pages
//! are entered in the context that used them; the flushes see to it that this does not show.

use bytemuck::Zeroable;
use bytemuck::allocation::zeroed_slice_box;

use crate::addr::{GuestPhys, Linear, PAGE_BITS, PAGE_SIZE, Width};
use crate::page_set::PageSet;
use crate::ram::HostPtr;
use crate::sites::{PLANES, Sites};

/// Entries of one table; direct-mapped by the low bits of the linear page number.
pub const TLB_ENTRIES: usize = 16384;
/// Tables of one context: a power of two, so that the look-up needs no bounds check.
const TABLES: usize = 4;
/// Address spaces that are held at once.
const CONTEXTS: usize = 8;
const CONTEXT_ENTRIES: usize = TABLES * TLB_ENTRIES;
pub(crate) const SLOTS: usize = CONTEXTS * CONTEXT_ENTRIES;

/// One entry. The layout is part of the interface: generated code reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
#[repr(C)]
pub struct TlbEntry {
    /// The page that may be read, or a page of another slot.
    pub read: u64,
    /// The page that may be written, or a page of another slot.
    pub write: u64,
    /// The page that may be executed, or a page of another slot.
    pub exec: u64,
    /// Host address minus linear address, wrapping.
    pub addend: u64,
}

const _: () = assert!(size_of::<TlbEntry>() == 32);

impl TlbEntry {
    const fn invalid(slot: usize) -> Self {
        let tag = invalid_tag(slot);
        Self { read: tag, write: tag, exec: tag, addend: 0 }
    }

    /// Whether `tag` (one of this entry's) covers all of an access of `size` bytes, 1 to 4096.
    #[inline(always)]
    pub const fn hit(tag: u64, linear: Linear, size: u64) -> bool {
        linear.0.wrapping_sub(tag) <= PAGE_SIZE - size
    }

    /// The host address for an access that hit.
    #[inline(always)]
    pub const fn host(&self, linear: Linear) -> HostPtr {
        HostPtr::from_addr(linear.0.wrapping_add(self.addend))
    }

    /// The host address for reading, on a hit.
    #[inline(always)]
    pub const fn for_read(&self, linear: Linear, width: Width) -> Option<HostPtr> {
        if Self::hit(self.read, linear, width.bytes()) { Some(self.host(linear)) } else { None }
    }

    /// The host address for writing, on a hit.
    #[inline(always)]
    pub const fn for_write(&self, linear: Linear, width: Width) -> Option<HostPtr> {
        if Self::hit(self.write, linear, width.bytes()) { Some(self.host(linear)) } else { None }
    }
}

/// A page whose slot is not this one: page 0 wherever that will do, so that most of a new TLB is
/// memory that the host has not provided yet.
const fn invalid_tag(slot: usize) -> u64 {
    if slot.is_multiple_of(TLB_ENTRIES) { PAGE_SIZE } else { 0 }
}

/// Which table serves an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum MmuIndex {
    /// CPL 0 to 2, and implicit accesses; SMAP, if on, forbids user pages (EFLAGS.AC = 0).
    Supervisor = 0,
    /// CPL 3.
    User = 1,
    /// CPL 0 to 2 with EFLAGS.AC = 1: SMAP does not apply.
    SupervisorNoSmap = 2,
}

/// What to enter: the outcome of a walk, as far as each kind of access is allowed and plain.
#[derive(Clone, Copy, Debug)]
pub struct TlbFill {
    /// The table.
    pub index: MmuIndex,
    /// Any address of the page.
    pub linear: Linear,
    /// Where the page is in guest memory ([`crate::PhysPage::phys`]).
    pub phys: GuestPhys,
    /// The host address of the page's first byte.
    pub host: HostPtr,
    /// Reads may be served.
    pub read: bool,
    /// Writes may be served: writable, dirty, RAM, holds no code.
    pub write: bool,
    /// Instruction fetches may be served.
    pub exec: bool,
    /// log2 of the size of the guest's page: 12, 21, 22 or 30.
    pub page_bits: u8,
    /// Survives flushes that spare global pages.
    pub global: bool,
}

/// An entry in use, for people to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The table.
    pub index: MmuIndex,
    /// The page's first address.
    pub linear: Linear,
    /// Where it is in guest memory.
    pub phys: GuestPhys,
    /// Whether reads, writes and fetches are served.
    pub read: bool,
    /// See [`Held::read`].
    pub write: bool,
    /// See [`Held::read`].
    pub exec: bool,
    /// Survives flushes that spare global pages.
    pub global: bool,
}

/// A link of the lists of slots; `NONE` ends them.
type Slot = u32;
const NONE: Slot = Slot::MAX;
const _: () = assert!(SLOTS <= NONE as usize);

/// What the flushes know of a slot.
#[derive(Clone, Copy, Zeroable)]
struct Shadow {
    /// The guest-physical page number while the slot is in use.
    phys_page: u64,
    linear_page: u64,
    /// Neighbours among the slots in use whose physical pages share a bucket.
    next: Slot,
    previous: Slot,
    page_bits: u8,
    in_use: bool,
    global: bool,
    /// Whether the slot is on its context's list of local, of global pages.
    listed: [bool; 2],
}

impl Shadow {
    /// Whether the slot's page, of whatever size the guest gave it, contains `linear`.
    fn covers(&self, linear: Linear) -> bool {
        let same = |shift| self.linear_page >> shift == linear.page_number() >> shift;
        self.in_use && same(u32::from(self.page_bits) - PAGE_BITS)
    }
}

/// What was entered for the local, or for the global, pages of a context since they were flushed.
#[derive(Default)]
struct Entered {
    slots: Vec<Slot>,
    /// The large pages: to flush one is to flush all its fragments.
    large: PageSet,
    /// The executable pages of each [`Privilege`], those included whose entries gave way to others.
    exec: [PageSet; 2],
}

/// Who executes a page: users, or everybody else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Privilege {
    Supervisor,
    User,
}

impl Privilege {
    const ALL: [Privilege; 2] = [Privilege::Supervisor, Privilege::User];

    fn of(index: MmuIndex) -> Self {
        if index == MmuIndex::User { Privilege::User } else { Privilege::Supervisor }
    }
}

/// One address space.
struct Context {
    pcid: u16,
    last_used: u64,
    /// For each [`Privilege`]; 0 in the place of the supervisor's stands for [`Tlb::shared`].
    generations: [u64; 2],
    /// For local pages and for global ones.
    entered: [Entered; 2],
}

const LOCAL: usize = 0;
const GLOBAL: usize = 1;

/// Buckets of the index from physical pages to slots.
const BUCKETS: usize = 1024;

/// The TLB of one vCPU.
pub struct Tlb {
    /// Those of the tables, and behind them those of sites, which are not initialised.
    pub(crate) entries: Box<[TlbEntry; SLOTS * (1 + PLANES)]>,
    pub(crate) sites: Sites,
    /// The first slot of the current context.
    base: usize,
    /// The table of [`Tlb::current_entry`], and its first slot in the current context.
    index: MmuIndex,
    table: usize,
    shadows: Box<[Shadow]>,
    /// The first slot in use of each bucket of physical pages.
    buckets: Box<[Slot; BUCKETS]>,
    contexts: [Context; CONTEXTS],
    /// Counts switches: the clock of `Context::last_used`.
    switches: u64,
    last_generation: u64,
    /// The supervisor's generation in all contexts that hold no executable local pages for it:
    /// kernels' code is global, and stays where it is when the process changes.
    shared: u64,
    /// The generation of the current context and privilege.
    generation: u64,
}

impl Default for Tlb {
    fn default() -> Self {
        Self::new()
    }
}

impl Tlb {
    /// An empty TLB; the current PCID is 0.
    pub fn new() -> Self {
        let mut entries: Box<[TlbEntry]> = zeroed_slice_box(SLOTS * (1 + PLANES));
        for slot in (0..SLOTS).step_by(TLB_ENTRIES) {
            entries[slot] = TlbEntry::invalid(slot);
        }
        let Ok(entries) = entries.try_into() else { unreachable!("made with so many") };
        // Contexts that were never used hold PCIDs too; nothing is entered for them.
        let contexts = std::array::from_fn(|i| Context {
            pcid: i as u16,
            last_used: 0,
            generations: [0, 1 + i as u64],
            entered: Default::default(),
        });
        let shared = 1 + CONTEXTS as u64;
        Self {
            entries,
            sites: Sites::new(),
            base: 0,
            index: MmuIndex::Supervisor,
            table: 0,
            shadows: zeroed_slice_box(SLOTS),
            buckets: Box::new([NONE; BUCKETS]),
            contexts,
            switches: 0,
            last_generation: shared,
            shared,
            generation: shared,
        }
    }

    /// The entry where `linear` belongs, in the current context.
    #[inline(always)]
    pub fn entry(&self, index: MmuIndex, linear: Linear) -> &TlbEntry {
        &self.entries[self.slot(index, linear)]
    }

    /// The table that [`Tlb::current_entry`] looks in: that of the current privilege.
    pub fn set_index(&mut self, index: MmuIndex) {
        self.index = index;
        self.table = self.base | (index as usize * TLB_ENTRIES);
        self.choose_generation();
    }

    fn choose_generation(&mut self) {
        let own = self.contexts[self.current()].generations[Privilege::of(self.index) as usize];
        self.generation = if own == 0 { self.shared } else { own };
    }

    /// The table last chosen by [`Tlb::set_index`].
    #[inline(always)]
    pub fn index(&self) -> MmuIndex {
        self.index
    }

    /// The entry where `linear` belongs, in the current context, for the current privilege.
    #[inline(always)]
    pub fn current_entry(&self, linear: Linear) -> &TlbEntry {
        &self.entries[self.current_slot(linear)]
    }

    #[inline(always)]
    pub(crate) fn current_slot(&self, linear: Linear) -> usize {
        let in_table = linear.page_number() as usize & (TLB_ENTRIES - 1);
        (self.table | in_table) & (SLOTS - 1)
    }

    /// Where the instruction at `linear` is in guest memory, if the current privilege has fetched
    /// from its page and the entry is still there.
    pub fn fetched_from(&self, linear: Linear) -> Option<GuestPhys> {
        let slot = self.slot(self.index, linear);
        let page = self.shadows[slot].phys_page << PAGE_BITS;
        TlbEntry::hit(self.entries[slot].exec, linear, 1)
            .then(|| GuestPhys(page | linear.page_offset()))
    }

    /// The address of the table that [`Tlb::current_entry`] looks in, for generated code.
    /// [`Tlb::switch`] and [`Tlb::set_index`] change it.
    pub fn current_table(&self) -> u64 {
        (&raw const self.entries[self.table & (SLOTS - 1)]) as u64
    }

    /// What the current context holds.
    pub fn held(&self) -> impl Iterator<Item = Held> + '_ {
        let indices = [MmuIndex::Supervisor, MmuIndex::User, MmuIndex::SupervisorNoSmap];
        indices.into_iter().flat_map(move |index| {
            let first = self.base | (index as usize * TLB_ENTRIES);
            let slots = (first..first + TLB_ENTRIES).filter(|slot| self.shadows[*slot].in_use);
            slots.map(move |slot| {
                let (entry, shadow) = (&self.entries[slot], &self.shadows[slot]);
                let linear = Linear(shadow.linear_page << PAGE_BITS);
                Held {
                    index,
                    linear,
                    phys: GuestPhys(shadow.phys_page << PAGE_BITS),
                    read: TlbEntry::hit(entry.read, linear, 1),
                    write: TlbEntry::hit(entry.write, linear, 1),
                    exec: TlbEntry::hit(entry.exec, linear, 1),
                    global: shadow.global,
                }
            })
        })
    }

    #[inline(always)]
    fn slot(&self, index: MmuIndex, linear: Linear) -> usize {
        let in_table = linear.page_number() as usize & (TLB_ENTRIES - 1);
        (self.base | (index as usize * TLB_ENTRIES) | in_table) & (SLOTS - 1)
    }

    /// A number that stands for what the current privilege may execute in the current context: as
    /// long as it is the same, an executable mapping that was entered once still holds, even if its
    /// entry has given way to another. It returns when a context does that was not flushed
    /// meanwhile; contexts in which the supervisor executes global pages only share its number.
    #[inline(always)]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    #[inline(always)]
    fn current(&self) -> usize {
        self.base / CONTEXT_ENTRIES % CONTEXTS
    }

    /// The current context's PCID.
    pub fn pcid(&self) -> u16 {
        self.contexts[self.current()].pcid
    }

    /// Makes `pcid`'s context the current one. What it holds stays valid; a PCID without a context
    /// gets that of the PCID that has been away longest.
    pub fn switch(&mut self, pcid: u16) {
        self.switches += 1;
        self.contexts[self.current()].last_used = self.switches;
        let context = self.find(pcid).unwrap_or_else(|| self.recycle(pcid));
        self.base = context * CONTEXT_ENTRIES;
        self.set_index(self.index);
    }

    fn find(&self, pcid: u16) -> Option<usize> {
        self.contexts.iter().position(|context| context.pcid == pcid)
    }

    fn recycle(&mut self, pcid: u16) -> usize {
        let current = self.current();
        let oldest = (0..CONTEXTS)
            .filter(|&context| context != current)
            .min_by_key(|&context| self.contexts[context].last_used)
            .unwrap_or(0);
        self.flush(oldest, GLOBAL);
        self.flush(oldest, LOCAL);
        self.contexts[oldest].pcid = pcid;
        oldest
    }

    /// Enters a page in the current context. Permissions that the entry already holds for the same
    /// page stay; another page gives way.
    pub fn fill(&mut self, fill: &TlbFill) {
        let slot = self.slot(fill.index, fill.linear);
        let page = fill.linear.page_base().0;
        self.occupy(slot, fill);
        self.record(slot, fill);
        let addend = fill.host.addr().wrapping_sub(page);
        let entry = &mut self.entries[slot];
        entry.addend = addend;
        for (tag, allowed) in [
            (&mut entry.read, fill.read),
            (&mut entry.write, fill.write),
            (&mut entry.exec, fill.exec),
        ] {
            if allowed {
                *tag = page;
            }
        }
    }

    /// Makes `slot` hold the page of `fill`, without any permission if it held another.
    fn occupy(&mut self, slot: usize, fill: &TlbFill) {
        let shadow = &self.shadows[slot];
        let same = shadow.in_use
            && shadow.linear_page == fill.linear.page_number()
            && shadow.phys_page == fill.phys.page_number()
            && shadow.page_bits == fill.page_bits
            && shadow.global == fill.global;
        if same {
            return;
        }
        self.vacate(slot);
        let bucket = fill.phys.page_number() as usize % BUCKETS;
        let next = std::mem::replace(&mut self.buckets[bucket], slot as Slot);
        if next != NONE {
            self.shadows[next as usize].previous = slot as Slot;
        }
        self.shadows[slot] = Shadow {
            phys_page: fill.phys.page_number(),
            linear_page: fill.linear.page_number(),
            next,
            previous: NONE,
            page_bits: fill.page_bits,
            in_use: true,
            global: fill.global,
            listed: self.shadows[slot].listed,
        };
    }

    /// Notes what the flushes of the current context must know of the new entry.
    fn record(&mut self, slot: usize, fill: &TlbFill) {
        let kind = usize::from(fill.global);
        let context = self.current();
        let entered = &mut self.contexts[context].entered[kind];
        if !std::mem::replace(&mut self.shadows[slot].listed[kind], true) {
            entered.slots.push(slot as Slot);
        }
        if u32::from(fill.page_bits) > PAGE_BITS {
            entered.large.insert(fill.linear, fill.page_bits);
        }
        if fill.exec {
            let privilege = Privilege::of(fill.index);
            entered.exec[privilege as usize].insert(fill.linear, fill.page_bits);
            let own = self.contexts[context].generations[privilege as usize] != 0;
            if !fill.global && !own {
                self.renew_generation(context, privilege);
            }
        }
    }

    /// Makes the slot match nothing.
    fn vacate(&mut self, slot: usize) {
        let shadow = &mut self.shadows[slot];
        if !std::mem::replace(&mut shadow.in_use, false) {
            return;
        }
        let Shadow { next, previous, phys_page, .. } = *shadow;
        match previous {
            NONE => self.buckets[phys_page as usize % BUCKETS] = next,
            _ => self.shadows[previous as usize].next = next,
        }
        if next != NONE {
            self.shadows[next as usize].previous = previous;
        }
        self.entries[slot] = TlbEntry::invalid(slot);
        self.empty_copies(slot);
    }

    /// Flushes the local or the global pages of a context. The work is proportional to what was
    /// entered since the last such flush.
    fn flush(&mut self, context: usize, kind: usize) {
        let entered = &mut self.contexts[context].entered[kind];
        entered.large.clear();
        let exec = entered.exec.each_mut().map(PageSet::clear);
        let mut slots = std::mem::take(&mut entered.slots);
        for slot in slots.drain(..).map(|slot| slot as usize) {
            self.shadows[slot].listed[kind] = false;
            // A slot on both lists holds a page of one kind only, the last one entered.
            if usize::from(self.shadows[slot].global) == kind {
                self.vacate(slot);
            }
        }
        self.contexts[context].entered[kind].slots = slots;
        self.renew_generations(context, kind, exec);
    }

    /// Executable pages of the privileges in `of` are gone from a context.
    fn renew_generations(&mut self, context: usize, kind: usize, of: [bool; 2]) {
        for privilege in Privilege::ALL.into_iter().filter(|privilege| of[*privilege as usize]) {
            self.renew_generation(context, privilege);
        }
        let supervisor = Privilege::Supervisor as usize;
        if of[supervisor] {
            if kind == GLOBAL {
                self.last_generation += 1;
                self.shared = self.last_generation;
            }
            if self.contexts[context].entered[LOCAL].exec[supervisor].is_empty() {
                self.contexts[context].generations[supervisor] = 0;
            }
            self.choose_generation();
        }
    }

    fn renew_generation(&mut self, context: usize, privilege: Privilege) {
        self.last_generation += 1;
        self.contexts[context].generations[privilege as usize] = self.last_generation;
        self.choose_generation();
    }

    /// Flushes everything, global pages included: writes to CR0.PG, CR0.WP, CR4.PGE, CR4.SMEP and
    /// the like, INVPCID type 2 (SDM vol. 3A, 4.10.4.1).
    pub fn flush_all(&mut self) {
        for context in 0..CONTEXTS {
            self.flush(context, LOCAL);
            self.flush(context, GLOBAL);
        }
    }

    /// Flushes the current context but for global pages: MOV to CR3 without PCIDs.
    pub fn flush_non_global(&mut self) {
        self.flush(self.current(), LOCAL);
    }

    /// Flushes all contexts but for global pages: INVPCID type 3.
    pub fn flush_all_non_global(&mut self) {
        for context in 0..CONTEXTS {
            self.flush(context, LOCAL);
        }
    }

    /// Flushes one PCID's context but for global pages: INVPCID type 1, MOV to CR3 with bit 63
    /// clear.
    pub fn flush_context(&mut self, pcid: u16) {
        if let Some(context) = self.find(pcid) {
            self.flush(context, LOCAL);
        }
    }

    /// Flushes the page of any size that contains `linear` from the current context, and from all
    /// contexts where it is global: INVLPG.
    pub fn flush_page(&mut self, linear: Linear) {
        self.flush_page_of(self.current(), LOCAL, linear);
        for context in 0..CONTEXTS {
            self.flush_page_of(context, GLOBAL, linear);
        }
    }

    /// Flushes the page of any size that contains `linear` from one PCID's context, unless it is
    /// global: INVPCID type 0.
    pub fn flush_context_page(&mut self, pcid: u16, linear: Linear) {
        if let Some(context) = self.find(pcid) {
            self.flush_page_of(context, LOCAL, linear);
        }
    }

    fn flush_page_of(&mut self, context: usize, kind: usize, linear: Linear) {
        let global = kind == GLOBAL;
        let entered = &mut self.contexts[context].entered[kind];
        if entered.slots.is_empty() {
            return;
        }
        let large = entered.large.covers(linear);
        let exec = entered.exec.each_mut().map(|pages| pages.take(linear));
        if large {
            let slots = std::mem::take(&mut self.contexts[context].entered[kind].slots);
            for slot in slots.iter().copied().map(|slot| slot as usize) {
                let shadow = &self.shadows[slot];
                if shadow.global == global && shadow.covers(linear) {
                    self.vacate(slot);
                }
            }
            self.contexts[context].entered[kind].slots = slots;
        } else {
            let in_table = linear.page_number() as usize % TLB_ENTRIES;
            for table in 0..TABLES {
                let slot = context * CONTEXT_ENTRIES + table * TLB_ENTRIES + in_table;
                let shadow = &self.shadows[slot];
                if shadow.global == global && shadow.covers(linear) {
                    self.vacate(slot);
                }
            }
        }
        self.renew_generations(context, kind, exec);
    }

    /// Removes the write tags of a physical page ([`crate::PhysPage::phys`]) from all contexts:
    /// it holds code now, or is watched.
    pub fn drop_write(&mut self, phys: GuestPhys) {
        let page = phys.page_number();
        let mut slot = self.buckets[page as usize % BUCKETS];
        while slot != NONE {
            let at = slot as usize;
            let shadow = &self.shadows[at];
            slot = shadow.next;
            if shadow.phys_page == page {
                self.entries[at].write = invalid_tag(at);
                self.empty_copies(at);
            }
        }
    }
}

#[cfg(test)]
#[path = "tlb_tests.rs"]
mod tests;
