//! Who answers at an address: ranges without overlap, found by binary search.

use std::fmt::Debug;
use std::ops::RangeInclusive;

/// A table of address ranges, built once.
#[derive(Debug)]
pub(super) struct Ranges<A, T> {
    /// First address, last address, and what answers, in ascending order.
    entries: Vec<(A, A, T)>,
}

impl<A: Copy + Ord + Debug, T: Copy + Debug> Ranges<A, T> {
    /// The table of `entries`.
    ///
    /// # Panics
    /// Panics if two ranges overlap: a table is written by a programmer, not by a guest.
    pub(super) fn new(entries: impl IntoIterator<Item = (RangeInclusive<A>, T)>) -> Self {
        let mut entries: Vec<_> =
            entries.into_iter().map(|(range, what)| (*range.start(), *range.end(), what)).collect();
        entries.sort_by_key(|&(first, ..)| first);
        for pair in entries.windows(2) {
            assert!(pair[0].1 < pair[1].0, "{:x?} and {:x?} overlap", pair[0], pair[1]);
        }
        Self { entries }
    }

    /// The first address of the range that holds `at`, and what answers there.
    pub(super) fn find(&self, at: A) -> Option<(A, T)> {
        let after = self.entries.partition_point(|&(first, ..)| first <= at);
        let (first, last, what) = *self.entries.get(after.checked_sub(1)?)?;
        (at <= last).then_some((first, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_belong_to_the_range_and_gaps_to_nobody() {
        let table = Ranges::new([(0x60..=0x60, 'k'), (0x20..=0x21, 'p'), (0x22..=0x2f, 'q')]);
        let found: Vec<_> =
            [0x1f, 0x20, 0x21, 0x22, 0x2f, 0x30, 0x60, 0x61].map(|at| table.find(at)).into();
        let (p, q, k) = (Some((0x20, 'p')), Some((0x22, 'q')), Some((0x60, 'k')));
        assert_eq!(found, [None, p, p, q, q, None, k, None]);
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlaps_are_refused() {
        Ranges::new([(0..=4u16, 'a'), (4..=5, 'b')]);
    }
}
