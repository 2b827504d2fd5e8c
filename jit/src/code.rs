//! The guest code that regions are made from.

use brolga_cpu::core::Core;
use brolga_cpu::decode::MAX_INSN_BYTES;
use brolga_mmu::{GuestPhys, Linear, PAGE_SIZE};

/// The page of `place`, now mapped at `linear`, and the first bytes of the page mapped behind it, if
/// that is known: those that the last instruction may go on in. They are no part of a region, whose
/// code looks at them whenever it executes that instruction.
pub(crate) fn page_with_tail(core: &Core, place: GuestPhys, linear: Linear) -> Option<Vec<u8>> {
    let page = PAGE_SIZE as usize;
    let mut bytes = vec![0; page + MAX_INSN_BYTES - 1];
    let map = &core.mem.map;
    map.read_slice(place.page_base(), &mut bytes[..page]).ok()?;
    let behind = Linear(linear.0 - linear.page_offset()).wrapping_add(PAGE_SIZE);
    let tail = core.mem.tlb.fetched_from(behind);
    if tail.and_then(|at| map.read_slice(at, &mut bytes[page..]).ok()).is_none() {
        bytes.truncate(page);
    }
    Some(bytes)
}
