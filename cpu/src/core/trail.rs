//! What led here: the last control transfers, kept for crash reports.

/// Control transfers remembered.
const TRANSFERS: usize = 32;

/// A taken control transfer that ended a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Linear address of the transferring instruction; of the interrupted one for an event.
    pub from: u64,
    /// Linear address of the first instruction executed afterwards.
    pub to: u64,
    /// The number of instructions retired at that point.
    pub at: u64,
}

/// A ring of the last control transfers.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    ring: [Transfer; TRANSFERS],
    next: usize,
}

impl Trail {
    #[inline(always)]
    pub(crate) fn record(&mut self, from: u64, to: u64, at: u64) {
        self.ring[self.next % TRANSFERS] = Transfer { from, to, at };
        self.next = self.next.wrapping_add(1);
    }

    /// The transfers, oldest first.
    pub fn transfers(&self) -> impl Iterator<Item = Transfer> + '_ {
        (0..TRANSFERS)
            .map(|i| self.ring[(self.next + i) % TRANSFERS])
            .filter(|t| *t != Transfer::default())
    }
}
