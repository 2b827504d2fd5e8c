//! Which bytes of guest memory hold translated code.

use rustc_hash::FxHashMap;

use crate::addr::{GuestPhys, PAGE_BITS, PAGE_SIZE};

/// The granule of tracking: a page has as many as a `u64` has bits.
const GRANULE_BITS: u32 = PAGE_BITS - 6;

/// Which pages hold translated code, and which 64-byte granules of each. Pages are numbered by
/// bus address ([`crate::PhysPage::phys`]), so that A20 aliases are one page.
#[derive(Clone, Debug, Default)]
pub struct CodePages {
    granules: FxHashMap<u64, u64>,
}

impl CodePages {
    /// No code anywhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that `len` bytes at `phys` hold translated code. True if a page newly became a code
    /// page: the caller then drops the write tags of the pages that the bytes lie in.
    pub fn mark(&mut self, phys: GuestPhys, len: u64) -> bool {
        let mut new = false;
        for (page, mask) in pages(phys, len) {
            let granules = self.granules.entry(page).or_default();
            new |= *granules == 0;
            *granules |= mask;
        }
        new
    }

    /// Whether the page with this number holds translated code.
    #[inline]
    pub fn is_code_page(&self, page: u64) -> bool {
        self.granules.contains_key(&page)
    }

    /// Whether `len` bytes at `phys` touch a granule that holds translated code.
    #[inline]
    pub fn overlaps(&self, phys: GuestPhys, len: u64) -> bool {
        pages(phys, len)
            .any(|(page, mask)| self.granules.get(&page).is_some_and(|held| held & mask != 0))
    }

    /// Forgets the page with this number: its code is gone.
    pub fn clear_page(&mut self, page: u64) {
        self.granules.remove(&page);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.granules.clear();
    }

    /// The numbers of all code pages, in no particular order.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.granules.keys().copied()
    }
}

/// The pages that `len` bytes at `phys` lie in, with the granules they touch in each.
fn pages(phys: GuestPhys, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let last = phys.0.saturating_add(len.saturating_sub(1));
    let count = if len == 0 { 0 } else { (last >> PAGE_BITS) - phys.page_number() + 1 };
    (0..count).map(move |i| {
        let page = phys.page_number() + i;
        let first = if i == 0 { phys.page_offset() } else { 0 };
        let last = if i + 1 == count { last & (PAGE_SIZE - 1) } else { PAGE_SIZE - 1 };
        let (low, high) = (first >> GRANULE_BITS, last >> GRANULE_BITS);
        (page, (u64::MAX << low) & (u64::MAX >> (63 - high)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_touched_granules_overlap() {
        let mut code = CodePages::new();
        assert!(code.mark(GuestPhys(0x1040), 3));
        assert!(!code.mark(GuestPhys(0x107e), 4), "the page held code already");
        assert!(code.is_code_page(1) && !code.is_code_page(0) && !code.is_code_page(2));
        for (at, len, hit) in [
            (0x103f, 1, false),
            (0x103f, 2, true),
            (0x10bf, 1, true),
            (0x10c0, 8, false),
            (0x0ff8, 16, false),
            (0x0ff8, 0x49, true),
            (0x1040, 0, false),
        ] {
            assert_eq!(code.overlaps(GuestPhys(at), len), hit, "{len} bytes at {at:#x}");
        }
        code.clear_page(1);
        assert!(!code.is_code_page(1) && !code.overlaps(GuestPhys(0x1040), 64));
        assert!(code.mark(GuestPhys(0x1040), 1), "the page is new again");
    }

    #[test]
    fn code_may_cross_pages() {
        let mut code = CodePages::new();
        assert!(code.mark(GuestPhys(0x1fff), 2));
        assert!(code.overlaps(GuestPhys(0x1fc0), 1) && code.overlaps(GuestPhys(0x203f), 1));
        assert!(!code.overlaps(GuestPhys(0x1fbf), 1) && !code.overlaps(GuestPhys(0x2040), 1));
        assert!(code.mark(GuestPhys(0x2ff0), 0x20), "page 3 is new, page 2 is not");
        let mut pages: Vec<_> = code.pages().collect();
        pages.sort_unstable();
        assert_eq!(pages, [1, 2, 3]);
    }

    #[test]
    fn whole_pages_and_the_end_of_the_address_space() {
        let mut code = CodePages::new();
        code.mark(GuestPhys(0x5000), PAGE_SIZE);
        assert!((0..64).all(|i| code.overlaps(GuestPhys(0x5000 + i * 64), 1)));
        assert!(!code.is_code_page(6));
        code.mark(GuestPhys(u64::MAX), 100);
        assert!(code.overlaps(GuestPhys(u64::MAX), 1));
    }
}
