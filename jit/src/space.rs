//! Which bytes of an arena are taken: a bump pointer, and the holes below it.

use std::collections::BTreeMap;

/// Code begins at multiples of this, as Cranelift prefers for functions on x86-64.
pub const CODE_ALIGN: usize = 32;

/// A run of bytes; start and length are multiples of [`CODE_ALIGN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Span {
    pub(crate) fn end(self) -> usize {
        self.start + self.len
    }
}

/// The allocator: it knows offsets only, and touches no memory.
#[derive(Debug)]
pub(crate) struct Space {
    size: usize,
    /// Everything from here on is free.
    top: usize,
    /// Starts and lengths of the free spans below `top`: none touches another, or `top`.
    holes: BTreeMap<usize, usize>,
}

impl Space {
    /// `size` free bytes, a multiple of [`CODE_ALIGN`].
    pub(crate) fn new(size: usize) -> Space {
        debug_assert!(size.is_multiple_of(CODE_ALIGN));
        Space { size, top: 0, holes: BTreeMap::new() }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Bytes that are not free.
    pub(crate) fn taken(&self) -> usize {
        self.top - self.holes.values().sum::<usize>()
    }

    /// Takes a span for `bytes` bytes: the first hole that is large enough, else the space above
    /// everything taken.
    pub(crate) fn take(&mut self, bytes: usize) -> Option<Span> {
        let len = bytes.max(1).checked_next_multiple_of(CODE_ALIGN)?;
        let hole = self.holes.iter().find(|&(_, &hole)| hole >= len);
        if let Some((&start, &hole)) = hole {
            self.holes.remove(&start);
            if hole > len {
                self.holes.insert(start + len, hole - len);
            }
            return Some(Span { start, len });
        }
        if self.size - self.top < len {
            return None;
        }
        let start = self.top;
        self.top += len;
        Some(Span { start, len })
    }

    /// Gives back a span that [`Space::take`] has returned.
    pub(crate) fn give_back(&mut self, span: Span) {
        let Span { mut start, mut len } = span;
        if let Some(behind) = self.holes.remove(&span.end()) {
            len += behind;
        }
        let before = self.holes.range(..start).next_back().map(|(&at, &hole)| (at, hole));
        if let Some((at, hole)) = before
            && at + hole == start
        {
            self.holes.remove(&at);
            (start, len) = (at, len + hole);
        }
        if start + len == self.top {
            self.top = start;
        } else {
            self.holes.insert(start, len);
        }
    }

    /// Gives back everything.
    pub(crate) fn clear(&mut self) {
        self.top = 0;
        self.holes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64 * CODE_ALIGN;

    fn units(n: usize) -> usize {
        n * CODE_ALIGN
    }

    #[test]
    fn spans_follow_each_other_aligned() {
        let mut space = Space::new(SIZE);
        for (bytes, start, len) in [(1, 0, 1), (32, 1, 1), (33, 2, 2), (0, 4, 1)] {
            let want = Span { start: units(start), len: units(len) };
            assert_eq!(space.take(bytes), Some(want), "{bytes} bytes");
        }
        assert_eq!(space.taken(), units(5));
    }

    #[test]
    fn the_bound_is_exact() {
        let mut space = Space::new(SIZE);
        assert_eq!(space.take(SIZE + 1), None);
        assert_eq!(space.take(usize::MAX), None);
        assert_eq!(space.take(SIZE), Some(Span { start: 0, len: SIZE }));
        assert_eq!(space.take(1), None);
    }

    #[test]
    fn neighbouring_holes_become_one() -> Result<(), &'static str> {
        let mut space = Space::new(SIZE);
        let mut take = |n| space.take(units(n)).ok_or("full");
        let (a, b, c) = (take(2)?, take(3)?, take(4)?);
        take(1)?;
        for span in [a, c, b] {
            space.give_back(span);
        }
        assert_eq!(space.taken(), units(1));
        assert_eq!(space.take(units(9)), Some(Span { start: 0, len: units(9) }));
        Ok(())
    }

    /// Random takes and returns, against the plain list of what is taken.
    #[test]
    fn spans_never_overlap_and_nothing_is_lost() {
        let mut space = Space::new(SIZE);
        let mut held: Vec<Span> = Vec::new();
        let mut random = 1_u32;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let pick = (random >> 16) as usize;
            if pick & 1 == 0 {
                let Some(span) = space.take(pick % units(8)) else { continue };
                let clash = held.iter().find(|h| h.start < span.end() && span.start < h.end());
                assert_eq!(clash, None, "{span:?} is taken twice");
                assert!(span.end() <= SIZE && span.start.is_multiple_of(CODE_ALIGN), "{span:?}");
                held.push(span);
            } else if !held.is_empty() {
                space.give_back(held.swap_remove(pick % held.len()));
            }
            assert_eq!(space.taken(), held.iter().map(|h| h.len).sum::<usize>());
        }
        held.into_iter().for_each(|span| space.give_back(span));
        assert_eq!(space.take(SIZE), Some(Span { start: 0, len: SIZE }));
    }
}
