//! The softmmu as a vCPU uses it: segmentation, TLB, page walks, RAM or bus. One of the crate's
//! modules with `unsafe`: host pointers come out of the TLB here.

mod segment;
mod wide;

use std::sync::Arc;

use brolga_mmu::{
    Access, AccessKind, AtomicOp, CodePages, GuestPhys, HostPtr, Linear, MmuIndex, PAGE_SIZE,
    PagingMode, PhysMap, PhysPage, Tlb, TlbEntry, TlbFill, Translation, Width, walk,
};

pub use segment::is_canonical;

use super::{Core, Exit};
use crate::exception::{Exception, Why, vector};
use crate::vcpu::{Seg, rflags};

/// On whose behalf memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The running program, at CPL.
    Current,
    /// The processor itself, for descriptor tables and TSS: an implicit supervisor access, to
    /// which SMAP always applies (SDM vol. 3, 4.6.1).
    System,
    /// As [`By::Current`], as if CPL had this value: pushes to the stack of an inner level.
    Level(u8),
}

/// A vCPU's view of memory.
pub struct Softmmu {
    /// Cached translations.
    pub tlb: Tlb,
    /// The machine's physical memory.
    pub map: Arc<PhysMap>,
    /// Which pages hold decoded blocks.
    pub code: CodePages,
    /// How paging is set up, kept in step with CR0, CR4 and EFER by [`Core::mode_changed`].
    pub paging: PagingMode,
    /// The protection keys of pages that the TLB may hold, as a set.
    pub(super) keys: u16,
    /// Stores that hit code pages and have not yet been seen by the block cache.
    pub(super) stale: Vec<(GuestPhys, u64)>,
}

impl Softmmu {
    /// A view of `map` with an empty TLB.
    pub fn new(map: Arc<PhysMap>) -> Softmmu {
        Softmmu {
            tlb: Tlb::new(),
            map,
            code: CodePages::new(),
            paging: PagingMode::default(),
            keys: 0,
            stale: Vec::new(),
        }
    }

    #[inline(always)]
    fn entry(&self, linear: Linear) -> &TlbEntry {
        self.tlb.current_entry(linear)
    }
}

/// A location that [`Core::locate`] has checked for writing.
#[derive(Clone, Copy)]
pub struct Place {
    pub(super) linear: Linear,
    /// Null for anything but plain RAM inside one page.
    pub(super) host: HostPtr,
}

/// One or two physical runs behind an access that may cross a page.
#[derive(Clone, Copy)]
struct Span {
    first: GuestPhys,
    /// Bytes in the first page.
    split: u64,
    second: GuestPhys,
}

impl Core {
    /// Reads by linear address, without segment checks.
    #[inline(always)]
    pub fn read_linear(&mut self, at: Linear, w: Width, by: By) -> Result<u64, Exit> {
        let entry = self.mem.tlb.entry(self.index_of(by), at);
        match entry.for_read(at, w) {
            Some(host) => Ok(Core::read_host(host, w)),
            None => self.read_slow(at, w, by),
        }
    }

    /// Writes by linear address, without segment checks. All or nothing.
    #[inline(always)]
    pub fn write_linear(&mut self, at: Linear, w: Width, v: u64, by: By) -> Result<(), Exit> {
        let entry = self.mem.tlb.entry(self.index_of(by), at);
        match entry.for_write(at, w) {
            Some(host) => {
                Core::write_host(host, w, v);
                Ok(())
            }
            None => self.write_slow(at, w, v, by),
        }
    }

    /// Checks that `len` bytes at `at` can be written (at most two pages): following writes there
    /// cannot fault.
    pub fn check_write(&mut self, at: Linear, len: u64, by: By) -> Result<(), Exit> {
        self.span(at, len, AccessKind::Write, by).map(drop)
    }

    /// As [`Core::check_write`], for reading.
    pub fn check_read(&mut self, at: Linear, len: u64, by: By) -> Result<(), Exit> {
        self.span(at, len, AccessKind::Read, by).map(drop)
    }

    #[inline(always)]
    fn index_of(&self, by: By) -> MmuIndex {
        match by {
            By::Current => self.mem.tlb.index(),
            By::System => MmuIndex::Supervisor,
            By::Level(3) => MmuIndex::User,
            By::Level(_) if self.vcpu.eflags & rflags::AC != 0 => MmuIndex::SupervisorNoSmap,
            By::Level(_) => MmuIndex::Supervisor,
        }
    }

    /// The host address of a RAM operand that may be read, for wide accesses.
    #[inline(always)]
    pub(crate) fn host_read(&self, at: Linear, size: u64) -> Option<HostPtr> {
        let entry = self.mem.entry(at);
        TlbEntry::hit(entry.read, at, size).then(|| entry.host(at))
    }

    /// The host address of a RAM operand that may be written, for wide accesses.
    #[inline(always)]
    pub(crate) fn host_write(&self, at: Linear, size: u64) -> Option<HostPtr> {
        let entry = self.mem.entry(at);
        TlbEntry::hit(entry.write, at, size).then(|| entry.host(at))
    }

    /// Reads from a host address that [`Core::host_read`] has just given.
    #[inline(always)]
    pub(super) fn read_host(host: HostPtr, w: Width) -> u64 {
        // SAFETY: a TLB hit lies inside the RAM that `Softmmu::map` keeps alive.
        unsafe { host.read(w) }
    }

    /// Writes to a host address that [`Core::host_write`] has just given.
    #[inline(always)]
    pub(super) fn write_host(host: HostPtr, w: Width, v: u64) {
        // SAFETY: as in `read_host`.
        unsafe { host.write(w, v) }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn load_slow(&mut self, w: Width, seg: Seg, at: Linear) -> Result<(), Exit> {
        self.canonical(seg, at, w.bytes())?;
        self.slow_value = self.read_slow(at, w, By::Current)?;
        Ok(())
    }

    #[cold]
    #[inline(never)]
    pub(super) fn store_slow(
        &mut self,
        w: Width,
        seg: Seg,
        at: Linear,
        v: u64,
    ) -> Result<(), Exit> {
        self.canonical(seg, at, w.bytes())?;
        self.write_slow(at, w, v, By::Current)
    }

    /// Finds a place for a read-modify-write: afterwards neither half can fault.
    #[inline(always)]
    pub(super) fn locate(&mut self, w: Width, seg: Seg, ea: u64) -> Result<Place, Exit> {
        let linear = self.linear(seg, ea, w.bytes(), true)?;
        match self.host_write(linear, w.bytes()) {
            Some(host) => Ok(Place { linear, host }),
            None => self.locate_slow(w, seg, linear),
        }
    }

    #[cold]
    #[inline(never)]
    fn locate_slow(&mut self, w: Width, seg: Seg, linear: Linear) -> Result<Place, Exit> {
        self.canonical(seg, linear, w.bytes())?;
        self.check_write(linear, w.bytes(), By::Current)?;
        let host = self.host_write(linear, w.bytes()).unwrap_or(HostPtr::null());
        Ok(Place { linear, host })
    }

    /// Reads a located place.
    #[inline(always)]
    pub(super) fn read_place(&mut self, at: Place, w: Width) -> Result<u64, Exit> {
        if at.host.is_null() {
            return self.read_slow(at.linear, w, By::Current);
        }
        // SAFETY: as in `read_host`; nothing changed the TLB since the place was located.
        Ok(unsafe { at.host.read(w) })
    }

    /// Writes a located place.
    #[inline(always)]
    pub(super) fn write_place(&mut self, at: Place, w: Width, v: u64) {
        if at.host.is_null() {
            let written = self.write_slow(at.linear, w, v, By::Current);
            debug_assert!(written.is_ok(), "a located place takes the write");
            return;
        }
        // SAFETY: as in `read_place`.
        unsafe { at.host.write(w, v) };
    }

    /// Atomic read-modify-write of a located place.
    pub(super) fn atomic_place(
        &mut self,
        at: Place,
        op: AtomicOp,
        w: Width,
        v: u64,
    ) -> Result<u64, Exit> {
        if !at.host.is_null() {
            // SAFETY: as in `read_place`.
            return Ok(unsafe { at.host.fetch_op(w, op, v) });
        }
        let old = self.read_slow(at.linear, w, By::Current)?;
        self.write_place(at, w, op.apply(old, v));
        Ok(old)
    }

    /// Atomic compare-and-exchange of a located place.
    pub(super) fn compare_exchange_place(
        &mut self,
        at: Place,
        w: Width,
        expected: u64,
        new: u64,
    ) -> Result<u64, Exit> {
        if !at.host.is_null() {
            // SAFETY: as in `read_place`.
            return Ok(unsafe { at.host.compare_exchange(w, expected, new) });
        }
        let old = self.read_slow(at.linear, w, By::Current)?;
        self.write_place(at, w, if old == expected { new } else { old });
        Ok(old)
    }

    #[cold]
    #[inline(never)]
    fn read_slow(&mut self, at: Linear, w: Width, by: By) -> Result<u64, Exit> {
        let span = self.span(at, w.bytes(), AccessKind::Read, by)?;
        self.watch(at, w.bytes(), false, by);
        if span.split >= w.bytes() {
            return Ok(self.read_phys(span.first, w));
        }
        let mut v = 0;
        for i in 0..w.bytes() {
            v |= self.read_phys(span.byte(i), Width::W8) << (8 * i);
        }
        Ok(v)
    }

    #[cold]
    #[inline(never)]
    fn write_slow(&mut self, at: Linear, w: Width, v: u64, by: By) -> Result<(), Exit> {
        let span = self.span(at, w.bytes(), AccessKind::Write, by)?;
        self.watch(at, w.bytes(), true, by);
        if span.split >= w.bytes() {
            self.write_phys(span.first, w, v);
            return Ok(());
        }
        for i in 0..w.bytes() {
            self.write_phys(span.byte(i), Width::W8, v >> (8 * i));
        }
        Ok(())
    }

    /// Data breakpoints; pages that hold one are not in the TLB.
    #[inline]
    fn watch(&mut self, at: Linear, len: u64, write: bool, by: By) {
        if self.vcpu.sys.dr7 & 0xff != 0 && by != By::System {
            crate::system::debug::data_access(self, at, len, write);
        }
        self.watch_for_debugger(at, len, write);
    }

    /// Translates all pages of an access of up to a page's size.
    fn span(&mut self, at: Linear, len: u64, kind: AccessKind, by: By) -> Result<Span, Exit> {
        let first = self.translate(at, kind, by)?;
        let split = PAGE_SIZE - at.page_offset();
        let mut span = Span { first, split, second: first };
        if len > split {
            let mut next = at.0.wrapping_add(split);
            if !self.vcpu.long_mode() {
                next &= 0xffff_ffff;
            }
            span.second = self.translate(Linear(next), kind, by)?;
        }
        Ok(span)
    }

    /// Walks the page tables for one page, and enters what may be served without a walk.
    pub(super) fn translate(
        &mut self,
        at: Linear,
        kind: AccessKind,
        by: By,
    ) -> Result<GuestPhys, Exit> {
        let index = self.index_of(by);
        let access = Access {
            kind,
            user: index == MmuIndex::User,
            smap_checked: index != MmuIndex::SupervisorNoSmap,
        };
        let sys = &self.vcpu.sys;
        match walk(&*self.mem.map, sys.cr3, &sys.pdptes, &self.mem.paging, at, access) {
            Ok(t) => {
                if kind == AccessKind::Execute {
                    self.arm(at, t.phys);
                }
                self.enter(index, at, kind, &t);
                Ok(t.phys)
            }
            Err(fault) => Err(self.raise(Exception {
                address: Some(at.0),
                why: Why::Walk(fault.reason),
                ..Exception::code(vector::PF, fault.error_code, "")
            })),
        }
    }

    fn enter(&mut self, index: MmuIndex, linear: Linear, kind: AccessKind, t: &Translation) {
        let page = self.mem.map.lookup(t.phys);
        if page.host.is_null() || self.watched(linear) {
            return;
        }
        let ram = matches!(page.backing, brolga_mmu::Backing::Ram { .. });
        let code = self.mem.code.is_code_page(page.phys.page_number());
        self.mem.keys |= 1 << t.key;
        self.mem.tlb.fill(&TlbFill {
            index,
            linear,
            phys: page.phys,
            host: page.host,
            read: t.readable,
            write: t.writable_now && ram && !code,
            // Where breakpoints are, only what arms them lets code be executed.
            exec: t.executable
                && (kind == AccessKind::Execute || !self.stops.breaks_in_page(linear)),
            page_bits: t.page_bits,
            global: t.global,
        });
    }

    /// Reads inside one page of guest-physical memory, from the bus where there is no memory.
    pub fn read_phys(&mut self, at: GuestPhys, w: Width) -> u64 {
        let map = &self.mem.map;
        match map.read_phys(at, w) {
            Some(v) => v,
            None => {
                let (now, at) = (self.now(), map.bus_address(at));
                let v = self.bus.mmio_read(now, at, w) & w.mask();
                self.mmio_accessed(at, w.bytes(), false, v);
                self.after_bus();
                v
            }
        }
    }

    /// Writes inside one page of guest-physical memory, to the bus where there is no memory.
    /// Decoded blocks that the bytes belong to are dropped before the next instruction.
    pub fn write_phys(&mut self, at: GuestPhys, w: Width, v: u64) {
        let phys = self.mem.map.bus_address(at);
        if self.mem.code.overlaps(phys, w.bytes()) {
            self.mem.stale.push((phys, w.bytes()));
            self.leave_block(false);
        }
        if self.mem.map.write_phys(at, w, v).is_none() {
            let PhysPage { backing, .. } = self.mem.map.lookup(at);
            if backing == brolga_mmu::Backing::Mmio {
                let now = self.now();
                self.bus.mmio_write(now, phys, w, v & w.mask());
                self.mmio_accessed(phys, w.bytes(), true, v & w.mask());
                self.after_bus();
            }
        }
    }

    /// To be called after every bus access: an access that concerns interrupts, timers or the
    /// run state ends the slice after the current instruction.
    pub fn after_bus(&mut self) {
        if self.bus.take_replan() {
            self.leave_block(true);
        }
    }
}

impl Span {
    fn byte(&self, i: u64) -> GuestPhys {
        if i < self.split {
            GuestPhys(self.first.0 + i)
        } else {
            GuestPhys(self.second.0 + (i - self.split))
        }
    }
}
