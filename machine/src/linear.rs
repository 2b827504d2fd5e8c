//! Memory by linear address, as the vCPU translates it now: whatever the access rights, and without
//! a trace in the guest's tables or TLB.

use std::ops::Range;

use brolga_cpu::core::Core;
use brolga_mmu::{Access, AccessKind, GuestPhys, Linear, PAGE_SIZE, Probe, probe};

/// How an address is translated, step by step.
pub(crate) fn walk(core: &Core, at: Linear, access: Access) -> Probe {
    let sys = &core.vcpu.sys;
    probe(&*core.mem.map, sys.cr3, &sys.pdptes, &core.mem.paging, at, access)
}

/// Where an address leads.
pub(crate) fn translate(core: &Core, at: Linear) -> Option<GuestPhys> {
    let any = Access { kind: AccessKind::Read, user: false, smap_checked: false };
    walk(core, at, any).outcome.ok().map(|translation| translation.phys)
}

/// Reads from `at` on as far as there is memory; how many bytes that are.
pub(crate) fn read(core: &Core, at: Linear, to: &mut [u8]) -> usize {
    let mut read = 0;
    for (from, range) in pages(at, to.len()) {
        let Some(phys) = translate(core, from) else { break };
        let end = range.end;
        if core.mem.map.read_slice(phys, &mut to[range]).is_err() {
            break;
        }
        read = end;
    }
    read
}

/// Splits `len` bytes at `at` at page borders: for each piece, its address and its range.
pub(crate) fn pages(at: Linear, len: usize) -> impl Iterator<Item = (Linear, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let from = Linear(at.0.wrapping_add(done as u64));
        let left_in_page = (PAGE_SIZE - from.page_offset()) as usize;
        let range = done..len.min(done + left_in_page);
        done = range.end;
        (!range.is_empty()).then_some((from, range))
    })
}
