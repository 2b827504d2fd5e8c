//! Guest memory: segment checks, the TLB look-up, and the slow path behind it.

use brolga_cpu::core::translated::{Translated, offset};
use brolga_cpu::vcpu::{Seg, attr};
use brolga_mmu::{TLB_ENTRIES, TlbEntry, Width, site_offset};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};

use super::node::Node;
use super::{Translator, at, trusted};

/// The host address of a place that has been checked for writing.
#[derive(Clone, Copy)]
pub(crate) struct Place(pub(super) Value);

/// What [`Translator::look_up`] has found, and what it has been made with.
#[derive(Clone, Copy)]
pub(super) struct LookUp {
    /// From the linear to the host address.
    pub(super) addend: Value,
    /// The constant that the distance from the page's start is compared with.
    pub(super) last: Value,
    /// The constant that describes the access to the slow path, and its value.
    pub(super) word: Value,
    pub(super) access: u64,
}

const PAGE: i64 = brolga_mmu::PAGE_SIZE as i64;
const ENTRY: i64 = size_of::<TlbEntry>() as i64;
/// `linear >> SHIFT & MASK` is the distance of an entry from its table's start.
const SHIFT: i64 = 12 - ENTRY.trailing_zeros() as i64;
const MASK: i64 = (TLB_ENTRIES as i64 - 1) * ENTRY;

impl Translator<'_> {
    /// The host address of `size` bytes at `ea`; leaves where the interpreter must do the access.
    pub(super) fn access(&mut self, size: u64, seg: Seg, ea: Node, write: bool) -> Value {
        let linear = self.linear(size, seg, ea, write);
        self.grouped(size, linear, write)
    }

    /// The same of an access that must be aligned to its size, a power of two.
    pub(super) fn aligned_access(&mut self, size: u64, seg: Seg, ea: Node, write: bool) -> Value {
        let linear = self.linear(size, seg, ea, write);
        self.host(size, linear, write, true)
    }

    /// The linear address, after the segment's checks: those for segments that only grow up,
    /// other kinds leave (SDM vol. 3, 5.3).
    pub(super) fn linear(&mut self, size: u64, seg: Seg, ea: Node, write: bool) -> Value {
        let ea = self.wide(ea);
        if seg.is_flat() {
            return ea;
        }
        if !self.code64 {
            self.check_segment(size, seg, ea, write);
        }
        self.plus_base(seg, ea)
    }

    /// Adds a segment's base.
    pub(super) fn plus_base(&mut self, seg: Seg, ea: Value) -> Value {
        let base = offset::segment_base(seg.index());
        let base = self.f.ins().load(types::I64, trusted(), self.core, at(base));
        let linear = self.f.ins().iadd(ea, base);
        if self.code64 {
            return linear;
        }
        let low = self.f.ins().ireduce(types::I32, linear);
        self.f.ins().uextend(types::I64, low)
    }

    fn check_segment(&mut self, size: u64, seg: Seg, ea: Value, write: bool) {
        let rights = offset::segment_attr(seg.index());
        let rights = self.f.ins().load(types::I32, trusted(), self.core, at(rights));
        let (mask, wanted) = if write {
            (attr::CODE | attr::DC | attr::UNUSABLE | attr::RW, attr::RW)
        } else {
            (attr::CODE | attr::DC | attr::UNUSABLE, 0)
        };
        let relevant = self.f.ins().band_imm_u(rights, i64::from(mask));
        let odd = self.f.ins().icmp_imm_u(IntCC::NotEqual, relevant, i64::from(wanted));
        self.leave_if(odd);
        let limit = self.segment_limit(seg.index());
        let last = match size {
            1 => ea,
            _ => self.f.ins().iadd_imm_u(ea, size as i64 - 1),
        };
        let beyond = self.f.ins().icmp(IntCC::UnsignedGreaterThan, last, limit);
        self.leave_if(beyond);
    }

    /// The limit of a segment, zero-extended.
    pub(super) fn segment_limit(&mut self, index: usize) -> Value {
        let limit = at(offset::segment_limit(index));
        self.f.ins().uload32(trusted(), self.core, limit)
    }

    /// The address of the TLB's entry for a linear address.
    pub(super) fn tlb_entry(&mut self, linear: Value) -> Value {
        let by = self.f.ins().ushr_imm_u(linear, SHIFT);
        let by = self.f.ins().band_imm_u(by, MASK);
        self.f.ins().iadd(self.tlb, by)
    }

    /// A site for an access of the current instruction, if it is to have one.
    fn site(&mut self) -> Option<u32> {
        let site = *self.request.sites.get(self.sites.len()).filter(|_| self.wants_sites)?;
        let entry = i64::from(self.request.plan.entry());
        self.sites.push((site, (entry + self.insn_at) as u16));
        Some(site)
    }

    /// The host address of an access that has a look-up of its own.
    pub(super) fn host(&mut self, size: u64, linear: Value, write: bool, aligned: bool) -> Value {
        let addend = self.look_up(size, linear, write, aligned).addend;
        self.f.ins().iadd(linear, addend)
    }

    /// Looks an address up in the TLB; leaves where the interpreter must do the access.
    pub(super) fn look_up(
        &mut self,
        size: u64,
        linear: Value,
        write: bool,
        aligned: bool,
    ) -> LookUp {
        self.before();
        let site = self.site();
        let (entry, base) = match site {
            Some(site) => (self.tlb, site_offset(site)),
            None => (self.tlb_entry(linear), 0),
        };
        let tag = if write {
            std::mem::offset_of!(TlbEntry, write)
        } else {
            std::mem::offset_of!(TlbEntry, read)
        };
        let tag = self.f.ins().load(types::I64, trusted(), entry, at(base + tag));
        let distance = self.f.ins().isub(linear, tag);
        let (miss, last) = self.beyond_page(size, distance, aligned);
        let addend = at(base + std::mem::offset_of!(TlbEntry, addend));
        let addend = self.f.ins().load(types::I64, trusted(), entry, addend);
        let (slow, on) = (self.cold_block(), self.f.create_block());
        let result = self.f.append_block_param(on, types::I64);
        self.f.ins().brif(miss, slow, &[], on, &[addend.into()]);
        self.f.seal_block(slow);
        self.f.switch_to_block(slow);
        self.prepare_to_interpret();
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        let access = size | flag(write, Translated::WRITE) | flag(aligned, Translated::ALIGNED);
        let site = site.map_or(0, |site| u64::from(site) + 1);
        let access = access | site << Translated::SITE_SHIFT;
        let word = self.f.ins().iconst(types::I64, access as i64);
        let found = self.slow_path(linear, word);
        let addend = self.f.ins().isub(found, linear);
        self.f.ins().jump(on, &[addend.into()]);
        self.f.seal_block(on);
        self.f.switch_to_block(on);
        LookUp { addend: result, last, word, access }
    }

    /// Whether an access so far from a page's start is not inside the page, or not aligned: then the
    /// low bits of the distance, rotated to the top, make it too large as well.
    /// Also the largest distance that will do.
    fn beyond_page(&mut self, size: u64, distance: Value, aligned: bool) -> (Value, Value) {
        let (distance, last) = match i64::from(size.trailing_zeros()) {
            bits if aligned => (self.f.ins().rotr_imm_u(distance, bits), (PAGE >> bits) - 1),
            _ => (distance, PAGE - size as i64),
        };
        let last = self.f.ins().iconst(types::I64, last);
        (self.f.ins().icmp(IntCC::UnsignedGreaterThan, distance, last), last)
    }

    /// Calls the slow path, which changes no register; the host address. If there is none, it does
    /// not return: see [`Translator::prepare_to_interpret`].
    fn slow_path(&mut self, linear: Value, access: Value) -> Value {
        let core = self.core;
        self.f.ins().store(trusted(), linear, core, at(offset::ADDRESS));
        self.f.ins().store(trusted(), access, core, at(offset::ACCESS));
        let thunk = self.f.ins().load(types::I64, trusted(), core, at(offset::SLOW_PATH));
        self.f.ins().call_indirect(self.signatures.slow_path, thunk, &[core]);
        self.f.ins().load(types::I64, trusted(), core, at(offset::HOST))
    }

    /// Loads an integer.
    pub(super) fn load_integer(&mut self, w: Width, host: Value) -> Node {
        let ins = self.f.ins();
        let v = match w {
            Width::W8 => ins.uload8(types::I64, guest(), host, 0),
            Width::W16 => ins.uload16(types::I64, guest(), host, 0),
            Width::W32 => ins.uload32(guest(), host, 0),
            Width::W64 => ins.load(types::I64, guest(), host, 0),
        };
        self.given(w, v)
    }

    pub(super) fn load_host(&mut self, ty: Type, host: Value) -> Value {
        self.load_host_at(ty, host, 0)
    }

    pub(super) fn load_host_at(&mut self, ty: Type, host: Value, offset: i32) -> Value {
        self.f.ins().load(ty, guest(), host, offset)
    }

    pub(super) fn store_host(&mut self, v: Value, host: Value) {
        self.store_host_at(v, host, 0);
    }

    pub(super) fn store_host_at(&mut self, v: Value, host: Value, offset: i32) {
        self.f.ins().store(guest(), v, host, offset);
    }
}

/// Guest memory traps only by way of the TLB, and has any alignment.
fn guest() -> cranelift_codegen::ir::MemFlagsData {
    cranelift_codegen::ir::MemFlagsData::new().with_notrap()
}
