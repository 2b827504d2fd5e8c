//! Sets of pages, for the flushes of the TLB.

use rustc_hash::FxHashSet;

use crate::addr::Linear;

/// A set of pages of all sizes.
#[derive(Default)]
pub(crate) struct PageSet {
    /// Page numbers, each with its size.
    pages: FxHashSet<u64>,
    /// The sizes that there have been, as bits of [`PAGE_SIZES`].
    sizes: u8,
}

/// The sizes of pages, as log2.
const PAGE_SIZES: [u8; 4] = [12, 21, 22, 30];

impl PageSet {
    fn key(linear: Linear, page_bits: u8) -> u64 {
        (linear.0 >> page_bits) << 8 | u64::from(page_bits)
    }

    pub(crate) fn insert(&mut self, linear: Linear, page_bits: u8) {
        if self.pages.insert(Self::key(linear, page_bits)) {
            let size = PAGE_SIZES.iter().position(|bits| *bits == page_bits);
            self.sizes |= size.map_or(0, |size| 1 << size);
        }
    }

    /// The keys under which a page that contains `linear` would be.
    fn keys(&self, linear: Linear) -> impl Iterator<Item = u64> + use<> {
        let sizes = self.sizes;
        let held = PAGE_SIZES.into_iter().enumerate().filter(move |(n, _)| sizes >> n & 1 != 0);
        held.map(move |(_, bits)| Self::key(linear, bits))
    }

    /// Whether a page contains `linear`.
    pub(crate) fn covers(&self, linear: Linear) -> bool {
        self.keys(linear).any(|key| self.pages.contains(&key))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Takes the pages out that contain `linear`; whether there were any.
    pub(crate) fn take(&mut self, linear: Linear) -> bool {
        let mut any = false;
        for key in self.keys(linear) {
            any |= self.pages.remove(&key);
        }
        any
    }

    /// Takes all out; whether there were any.
    pub(crate) fn clear(&mut self) -> bool {
        let any = !self.pages.is_empty();
        self.pages.clear();
        self.sizes = 0;
        any
    }
}
