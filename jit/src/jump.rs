//! How one region finds the next: a table in which indirect branches, and those to other pages,
//! look their targets up, and link cells for those inside a page.

use brolga_cpu::block::JumpKey;
use brolga_cpu::core::Core;
use brolga_mmu::{Linear, TlbEntry};
use bytemuck::Zeroable;
use bytemuck::allocation::zeroed_slice_box;

use crate::enter::unlinked;

/// Bits of the table's index.
pub(crate) const JUMP_BITS: u32 = 16;
/// Entries of the table's half in which generated code looks. The other half has as many.
pub(crate) const JUMP_SLOTS: usize = 1 << JUMP_BITS;
/// Bits of an address below those that make the index. Compilers align functions to 16 bytes, so
/// an index that began at bit 0 would leave most of the table to return addresses: a guest that
/// starts programs would lose an entry of ten thousand for each.
pub(crate) const JUMP_SHIFT: u32 = 2;
/// Link cells there are.
const CELLS: usize = 1 << 20;

/// An entry: generated code compares the first two fields and jumps to the third. If only the key
/// differs, and not in the mode, [`crate::enter`] asks the TLB whether the page is still where it was:
/// kernels run the same code in many address spaces.
#[derive(Clone, Copy, Debug, Zeroable)]
#[repr(C)]
pub(crate) struct JumpEntry {
    /// The linear address of the target.
    pub(crate) linear: u64,
    /// The mappings and the mode under which it holds ([`JumpKey::number`]).
    pub(crate) key: u64,
    /// The host address of the region.
    pub(crate) code: u64,
    /// The TLB's addend for the target's page.
    pub(crate) addend: u64,
}

impl JumpEntry {
    /// The region for `at` in the current mode, if this is its entry and the page is still mapped
    /// where it was.
    pub(crate) fn leads(&self, at: Linear, core: &Core) -> Option<u64> {
        let key = core.jump_key();
        let mapping = core.mem.tlb.current_entry(at);
        let holds = self.linear == at.0
            && (self.key == key.number()
                || (self.key ^ key.number()) & JumpKey::MODE_BITS == 0
                    && TlbEntry::hit(mapping.exec, at, 1)
                    && mapping.addend == self.addend);
        holds.then_some(self.code)
    }
}

/// Spreads the entries of different modes over the table. An address has one slot under all
/// mappings, so that its entry is found again when they change.
fn key_hash(key: JumpKey) -> u64 {
    (key.number() & JumpKey::MODE_BITS).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

/// The slot in which translated code looks for an entry for `at` under `key`.
pub(crate) fn slot(at: Linear, key: JumpKey) -> usize {
    ((at.0 ^ key_hash(key)) >> JUMP_SHIFT) as usize & (JUMP_SLOTS - 1)
}

/// Tells translated code under which key to look targets up.
pub(crate) fn set_key(core: &mut Core, key: JumpKey) {
    core.translated.key = key.number();
    core.translated.key_hash = key_hash(key);
}

/// Where the targets with a slot are: there, and in the second half what has lost it to another.
pub(crate) fn places(slot: usize) -> [usize; 2] {
    [slot, slot + JUMP_SLOTS]
}

/// The table and the cells.
pub(crate) struct Jumps {
    table: Box<[JumpEntry]>,
    cells: Box<[u64]>,
    cells_used: usize,
}

impl Jumps {
    pub(crate) fn new() -> Jumps {
        // Zeros lead nowhere: no key is like 0. Where the table is not used, the host needs no
        // memory for it.
        let (table, cells) = (zeroed_slice_box(2 * JUMP_SLOTS), zeroed_slice_box(CELLS));
        Jumps { table, cells, cells_used: 0 }
    }

    pub(crate) fn find(&self, at: Linear, core: &Core) -> Option<u64> {
        places(slot(at, core.jump_key())).iter().find_map(|&n| self.table[n].leads(at, core))
    }

    /// Enters a target; its slot.
    pub(crate) fn enter(&mut self, at: Linear, key: JumpKey, code: u64, addend: u64) -> u32 {
        let [first, second] = places(slot(at, key));
        self.table[second] = self.table[first];
        self.table[first] = JumpEntry { linear: at.0, key: key.number(), code, addend };
        first as u32
    }

    /// Whether `code` is what a target with a slot leads to.
    pub(crate) fn has(&self, slot: u32, code: u64) -> bool {
        places(slot as usize).iter().any(|&n| self.table[n].code == code)
    }

    /// Forgets the target with a slot that leads to `code`.
    pub(crate) fn forget(&mut self, slot: u32, code: u64) {
        for n in places(slot as usize) {
            let entry = &mut self.table[n];
            if entry.code == code {
                *entry = JumpEntry::zeroed();
            }
        }
    }

    /// Takes `count` cells, which are not linked; the first, or `None` if there are no more.
    pub(crate) fn take_cells(&mut self, count: usize) -> Option<u32> {
        let first = self.cells_used;
        self.cells.get_mut(first..first + count)?.fill(unlinked as *const () as u64);
        self.cells_used += count;
        Some(first as u32)
    }

    /// Makes a cell lead to `code`.
    pub(crate) fn link(&mut self, cell: u32, code: u64) {
        if let Some(cell) = self.cells.get_mut(cell as usize) {
            *cell = code;
        }
    }

    /// Makes a cell lead nowhere again.
    pub(crate) fn unlink(&mut self, cell: u32) {
        self.link(cell, unlinked as *const () as u64);
    }

    /// Forgets all targets and takes all cells back.
    pub(crate) fn clear(&mut self) {
        self.table.fill(JumpEntry::zeroed());
        self.cells_used = 0;
    }

    /// Where the table is, for code that reads its entries and renews their keys.
    pub(crate) fn table_address(&mut self) -> u64 {
        self.table.as_mut_ptr() as u64
    }

    pub(crate) fn cells_address(&self) -> u64 {
        self.cells.as_ptr() as u64
    }
}

#[cfg(test)]
mod tests {
    use brolga_cpu::block::Mode;

    use super::*;

    #[test]
    fn what_loses_its_slot_is_kept_and_forgotten_beside_it() {
        let mut jumps = Jumps::new();
        let key = JumpKey::new(1, Mode::CODE64);
        let same_slot = |n: u64| Linear(0x1000 + (n << (JUMP_BITS + JUMP_SHIFT)));
        let there = |jumps: &Jumps, slot: u32| places(slot as usize).map(|n| jumps.table[n].code);
        let slots = [1, 2].map(|n| jumps.enter(same_slot(n), key, 100 + n, 0));
        assert_eq!(slots[0], slots[1]);
        assert_eq!(there(&jumps, slots[0]), [102, 101]);
        assert_eq!([100, 101, 102].map(|code| jumps.has(slots[0], code)), [false, true, true]);
        jumps.forget(slots[0], 101);
        assert_eq!(there(&jumps, slots[0]), [102, 0]);
        jumps.forget(slots[0], 102);
        assert_eq!(there(&jumps, slots[0]), [0, 0]);
    }

    #[test]
    fn cells_lead_to_what_leaves_until_they_are_linked() {
        let mut jumps = Jumps::new();
        let cell = jumps.take_cells(2).expect("cells") as usize;
        let nowhere = jumps.cells[cell];
        assert_ne!(nowhere, 0);
        jumps.link(1, 0x1234);
        assert_eq!(jumps.cells[cell..cell + 2], [nowhere, 0x1234]);
        jumps.unlink(1);
        jumps.clear();
        jumps.link(0, 0x1234);
        assert_eq!(jumps.take_cells(2), Some(0));
        assert_eq!(jumps.cells[..2], [nowhere; 2], "those of others before");
    }
}
