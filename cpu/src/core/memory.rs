//! The softmmu as a vCPU uses it: segmentation, TLB, page walks, RAM or bus. One of the crate's
//! modules with `unsafe`: host pointers come out of the TLB here.

use std::sync::Arc;

use brolga_mmu::{
    Access, AccessKind, AtomicOp, CodePages, GuestPhys, HostPtr, Linear, MmuIndex, PAGE_SIZE,
    PagingMode, PhysMap, PhysPage, Tlb, TlbEntry, TlbFill, Translation, Width, walk,
};

use super::{Core, Exit};
use crate::exception::{Exception, Why, vector};
use crate::vcpu::{Seg, Segment, attr, rflags};

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

/// Bytes of a RAM page that may be read, until the TLB or the map next changes.
pub(crate) struct RunToRead {
    host: HostPtr,
    bytes: u64,
}

impl RunToRead {
    /// Element `n`, of width `w`; 0 behind the end.
    #[inline(always)]
    pub(crate) fn get(&self, w: Width, n: u64) -> u64 {
        let at = n * w.bytes();
        if at + w.bytes() > self.bytes {
            return 0;
        }
        // SAFETY: `host` was a TLB hit of `bytes` bytes, inside RAM that the map keeps alive.
        unsafe { self.host.wrapping_add(at).read(w) }
    }
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

    /// The linear address of `size` bytes at `ea` in `seg`, after the segment's checks.
    #[inline(always)]
    pub(super) fn linear(
        &mut self,
        seg: Seg,
        ea: u64,
        size: u64,
        write: bool,
    ) -> Result<Linear, Exit> {
        if seg.is_flat() {
            return Ok(Linear(ea));
        }
        self.segmented(seg, ea, size, write)?;
        Ok(Linear(self.slow_value))
    }

    /// Segment type and limit checks (SDM vol. 3, 5.3 and 5.4.1), then the base is added: the
    /// linear address goes to [`Core::slow_value`].
    #[inline(never)]
    fn segmented(&mut self, seg: Seg, ea: u64, size: u64, write: bool) -> Result<(), Exit> {
        let s = &self.vcpu.segs[seg.index()];
        if self.vcpu.code64() {
            let linear = Linear(ea.wrapping_add(s.base));
            return self.aligned(linear, size);
        }
        let linear = Linear((ea.wrapping_add(s.base)) & 0xffff_ffff);
        match segment_violation(s, ea, size, write, self.vcpu.protected()) {
            None => self.aligned(linear, size),
            Some(why) => {
                let vector = if seg.is_stack() { vector::SS } else { vector::GP };
                let why = Why::Value(why, ea);
                Err(self.raise(Exception { why, ..Exception::code(vector, 0, "") }))
            }
        }
    }

    /// The alignment check (SDM vol. 3, 6.15, #AC). While it can strike, no segment is flat.
    #[inline]
    fn aligned(&mut self, at: Linear, size: u64) -> Result<(), Exit> {
        if self.alignment_checked() && at.0 & (alignment(size) - 1) != 0 {
            return Err(self.raise(Exception::code(vector::AC, 0, "operand is not aligned")));
        }
        self.slow_value = at.0;
        Ok(())
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

    /// The linear address of a run of `bytes` bytes that needs neither a fault nor a wrap, for
    /// bulk string operations. `None`: go one by one.
    fn plain_run(&self, seg: Seg, ea: u64, bytes: u64, write: bool) -> Option<Linear> {
        if seg.is_flat() {
            return Some(Linear(ea));
        }
        let s = &self.vcpu.segs[seg.index()];
        let plain = !self.alignment_checked()
            && (self.vcpu.code64()
                || segment_violation(s, ea, bytes, write, self.vcpu.protected()).is_none());
        let linear = ea.wrapping_add(s.base);
        let mask = if self.vcpu.code64() { u64::MAX } else { 0xffff_ffff };
        plain.then_some(Linear(linear & mask))
    }

    /// Copies `bytes` bytes inside RAM pages, upwards, as a string instruction would element by
    /// element. False if that is not possible in one go.
    pub(crate) fn copy_run(&self, from: (Seg, u64), to: (Seg, u64), bytes: u64) -> bool {
        let run = || {
            let source = self.plain_run(from.0, from.1, bytes, false)?;
            let target = self.plain_run(to.0, to.1, bytes, true)?;
            Some((self.host_read(source, bytes)?, self.host_write(target, bytes)?))
        };
        let Some((source, target)) = run() else { return false };
        // A target just above the source repeats the elements between them.
        if target.addr().wrapping_sub(source.addr()) < bytes {
            return false;
        }
        let (source, target) = (source.addr() as *const u8, target.addr() as *mut u8);
        // SAFETY: both runs are TLB hits of `bytes` bytes, inside RAM that the map keeps alive;
        // `copy` allows the target to overlap below the source.
        unsafe { target.copy_from(source, bytes as usize) };
        true
    }

    /// `bytes` bytes inside a RAM page, for reading. `None` if that is not possible in one go.
    pub(crate) fn run_to_read(&self, seg: Seg, ea: u64, bytes: u64) -> Option<RunToRead> {
        let at = self.plain_run(seg, ea, bytes, false)?;
        self.host_read(at, bytes).map(|host| RunToRead { host, bytes })
    }

    /// Stores `count` elements of value `v` inside a RAM page. False if that is not possible in
    /// one go.
    pub(crate) fn fill_run(&self, to: (Seg, u64), w: Width, count: u64, v: u64) -> bool {
        let bytes = count * w.bytes();
        let target = self.plain_run(to.0, to.1, bytes, true);
        let Some(host) = target.and_then(|t| self.host_write(t, bytes)) else { return false };
        let byte = v as u8;
        if v == u64::from_le_bytes([byte; 8]) & w.mask() {
            // SAFETY: as below.
            unsafe { (host.addr() as *mut u8).write_bytes(byte, bytes as usize) };
            return true;
        }
        for n in 0..count {
            // SAFETY: a TLB hit of all `bytes` bytes, inside RAM that the map keeps alive.
            unsafe { host.wrapping_add(n * w.bytes()).write(w, v) };
        }
        true
    }

    /// Reads 16 bytes at `ea`.
    #[inline(always)]
    pub(crate) fn load128(&mut self, seg: Seg, ea: u64) -> Result<u128, Exit> {
        let at = self.linear(seg, ea, 16, false)?;
        if let Some(host) = self.host_read(at, 16) {
            // SAFETY: as in `read_host`.
            return Ok(unsafe { host.read128() });
        }
        self.canonical(seg, at, 16)?;
        self.check_read(at, 16, By::Current)?;
        let low = self.read_linear(at, Width::W64, By::Current)?;
        let high = self.read_linear(Linear(at.0.wrapping_add(8)), Width::W64, By::Current)?;
        Ok(u128::from(high) << 64 | u128::from(low))
    }

    /// Writes 16 bytes at `ea`, all or nothing.
    #[inline(always)]
    pub(crate) fn store128(&mut self, seg: Seg, ea: u64, v: u128) -> Result<(), Exit> {
        let at = self.linear(seg, ea, 16, true)?;
        if let Some(host) = self.host_write(at, 16) {
            // SAFETY: as in `read_host`.
            unsafe { host.write128(v) };
            return Ok(());
        }
        self.canonical(seg, at, 16)?;
        self.check_write(at, 16, By::Current)?;
        self.write_linear(at, Width::W64, v as u64, By::Current)?;
        self.write_linear(Linear(at.0.wrapping_add(8)), Width::W64, (v >> 64) as u64, By::Current)
    }

    /// Atomically replaces 16 aligned bytes if they are `expected`; returns the old value.
    pub(crate) fn compare_exchange128(
        &mut self,
        seg: Seg,
        ea: u64,
        expected: u128,
        new: u128,
    ) -> Result<u128, Exit> {
        let at = self.linear(seg, ea, 16, true)?;
        self.canonical(seg, at, 16)?;
        self.check_write(at, 16, By::Current)?;
        if let Some(host) = self.host_write(at, 16) {
            // SAFETY: as in `read_host`; the instruction's own check has aligned the address.
            return Ok(unsafe { host.compare_exchange128(expected, new) });
        }
        let old = self.load128(seg, ea)?;
        self.store128(seg, ea, if old == expected { new } else { old })?;
        Ok(old)
    }

    /// #GP(0), or #SS(0), where `size` bytes at `at` are not canonical (SDM vol. 1, 3.3.7.1).
    #[inline]
    pub(crate) fn canonical(&mut self, seg: Seg, at: Linear, size: u64) -> Result<(), Exit> {
        let last = at.0.wrapping_add(size - 1);
        if !self.vcpu.code64() || self.is_canonical(at.0) && self.is_canonical(last) {
            return Ok(());
        }
        let vector = if seg.is_stack() { vector::SS } else { vector::GP };
        let why = Why::Value("address is not canonical", at.0);
        Err(self.raise(Exception { why, ..Exception::code(vector, 0, "") }))
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

/// How an operand of `size` bytes must be aligned if alignment is checked (SDM vol. 3, table 6-7).
const fn alignment(size: u64) -> u64 {
    match size {
        // Numbers of 80 bits, binary and decimal.
        10 => 8,
        // The FPU's environment and state, with 16-bit operand size.
        14 | 94 => 2,
        // The same with 32-bit operand size.
        28 | 108 => 4,
        // The areas of FXSAVE and XSAVE: their instructions check more than this.
        17.. => 16,
        _ => size,
    }
}

/// Whether `v` is canonical for linear addresses of `bits` bits, 48 or 57.
#[inline(always)]
pub const fn is_canonical(v: u64, bits: u32) -> bool {
    let unused = 64 - bits;
    (v << unused) as i64 >> unused == v as i64
}

/// Why `size` bytes at offset `ea` of `s` must not be accessed, if so. Types count in protected mode
/// only: real-address and virtual-8086 mode write through CS as well (SDM vol. 3, 5.1).
fn segment_violation(
    s: &Segment,
    ea: u64,
    size: u64,
    write: bool,
    protected: bool,
) -> Option<&'static str> {
    if s.has(attr::UNUSABLE) {
        return Some("access through a null selector, offset");
    }
    if !protected {
        // Nothing but the limit.
    } else if s.has(attr::CODE) {
        if write {
            return Some("write to a code segment, offset");
        }
        if !s.has(attr::RW) {
            return Some("read from an execute-only code segment, offset");
        }
    } else if write && !s.has(attr::RW) {
        return Some("write to a read-only data segment, offset");
    }
    let (limit, last) = (u64::from(s.limit), ea.wrapping_add(size - 1));
    let outside = if !s.has(attr::CODE) && s.has(attr::DC) {
        // Expand-down: valid offsets lie above the limit (SDM vol. 3, 5.3).
        let top = if s.has(attr::DB) { 0xffff_ffff } else { 0xffff };
        ea <= limit || last > top
    } else {
        // A full 4 GiB segment wraps around rather than ending (5.3: implementation-defined).
        limit != 0xffff_ffff && last > limit
    };
    outside.then_some("beyond the segment limit, offset")
}
