//! An instruction that goes on in the next page. A region is made from one page, and nobody tells it
//! when the next one changes, in the page tables or in memory: it looks for itself.

use brolga_mmu::{PAGE_SIZE, TlbEntry, Width};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, types};

use super::node::{Kind, int};
use super::{Translator, at, trusted};

impl Translator<'_> {
    /// Leaves before the current instruction unless the next page begins with `tail`.
    pub(super) fn check_tail(&mut self, tail: &[u8]) {
        let entry = i64::from(self.request.plan.entry());
        let ip = self.node(Width::W64, Kind::Ip(PAGE_SIZE as i64 - entry));
        let ip = self.wide(ip);
        let linear = self.code_address(ip);
        let page = self.tlb_entry(linear);
        let tag = at(std::mem::offset_of!(TlbEntry, exec));
        let tag = self.f.ins().load(types::I64, trusted(), page, tag);
        let other = self.f.ins().icmp(IntCC::NotEqual, linear, tag);
        self.leave_if(other);
        let addend = at(std::mem::offset_of!(TlbEntry, addend));
        let addend = self.f.ins().load(types::I64, trusted(), page, addend);
        let host = self.f.ins().iadd(linear, addend);
        let mut done = 0;
        for w in [Width::W64, Width::W32, Width::W16, Width::W8] {
            let len = w.bytes() as usize;
            if tail.len() & len == 0 {
                continue;
            }
            let bytes = tail[done..done + len].iter().rev();
            let expected = bytes.fold(0, |v, byte| v << 8 | i64::from(*byte));
            let place = self.f.ins().iadd_imm_s(host, done as i64);
            let there = self.load_host(int(w), place);
            let expected = self.f.ins().iconst(int(w), expected);
            let changed = self.f.ins().icmp(IntCC::NotEqual, there, expected);
            self.leave_if(changed);
            done += len;
        }
    }
}
