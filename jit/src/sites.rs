//! Which memory accesses of translated code have sites ([`brolga_mmu::site_offset`]): entries of
//! the TLB of their own.

use std::collections::{HashMap, HashSet};

use brolga_cpu::insn::Insn;
use brolga_cpu::vcpu::{RIP, ZERO};
use brolga_mmu::{Linear, SITES};
use rustc_hash::{FxBuildHasher, FxHashSet};

/// Most sites of one region.
const MOST: usize = 64;

/// Offsets in a page of instructions whose accesses go from page to page.
pub(crate) type Restless = FxHashSet<u16>;

/// A site that a region uses, and the offset in its page of the instruction that does.
pub(crate) type Used = (u32, u16);

/// Whether an instruction's accesses are likely to stay in a page: to the stack, to variables, to
/// what a thread or a CPU has of its own.
pub(crate) fn stays(insn: &Insn) -> bool {
    const RSP: u8 = 4;
    const RBP: u8 = 5;
    let fixed = matches!(insn.base, RSP | RBP | RIP | ZERO) && insn.index == ZERO;
    fixed || !insn.seg.is_flat()
}

/// How often groups of accesses do not lie in one page, by their first instruction's address.
#[derive(Default)]
pub(crate) struct Crossings {
    /// When the last time was, and how many of them came soon after the one before.
    known: HashMap<Linear, (u64, u8), FxBuildHasher>,
}

impl Crossings {
    /// A time that comes sooner than so many instructions after the last one costs more than the
    /// group saves meanwhile.
    const SOON: u64 = 10_000;
    /// How many of them are borne.
    const MOST: u8 = 8;
    /// Places that are kept in mind.
    const PLACES: usize = 1024;

    /// Notes one after `now` instructions; whether the group does not pay.
    pub(crate) fn note(&mut self, at: Linear, now: u64) -> bool {
        if self.known.len() >= Self::PLACES {
            self.known.clear();
        }
        let (last, strikes) = self.known.entry(at).or_default();
        *strikes = if now.wrapping_sub(*last) < Self::SOON { *strikes + 1 } else { 0 };
        *last = now;
        let too_many = *strikes >= Self::MOST;
        if too_many {
            self.known.remove(&at);
        }
        too_many
    }
}

/// The sites that nobody uses, and what is known of those that were used.
pub(crate) struct SitePool {
    free: Vec<u32>,
    restless: HashMap<u64, Restless, FxBuildHasher>,
    none: Restless,
}

impl SitePool {
    pub(crate) fn new() -> Self {
        let free = (0..SITES as u32).rev().collect();
        Self { free, restless: HashMap::default(), none: HashSet::default() }
    }

    /// Sites for a region, as far as there are any. What it does not use is to be given back.
    pub(crate) fn take(&mut self) -> Vec<u32> {
        let kept = self.free.len().saturating_sub(MOST);
        self.free.split_off(kept)
    }

    pub(crate) fn give_back(&mut self, sites: impl IntoIterator<Item = u32>) {
        self.free.extend(sites);
    }

    /// Whether there are enough of them for accesses outside loops.
    pub(crate) fn has_plenty(&self) -> bool {
        self.free.len() > SITES / 2
    }

    /// What has been found out about a page's instructions.
    pub(crate) fn restless(&self, page: u64) -> &Restless {
        self.restless.get(&page).unwrap_or(&self.none)
    }

    /// Notes that an instruction's accesses go from page to page.
    pub(crate) fn note_restless(&mut self, page: u64, at: u16) {
        self.restless.entry(page).or_default().insert(at);
    }

    /// Forgets what was found out about a page: its code has changed.
    pub(crate) fn forget(&mut self, page: u64) {
        self.restless.remove(&page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_often_crosses_is_found_out() {
        let (mut crossings, at) = (Crossings::default(), Linear(0x1000));
        let mut note = |n: u64| crossings.note(at, 1_000_000 + n * (Crossings::SOON - 1));
        assert!((0..u64::from(Crossings::MOST)).all(|n| !note(n)));
        assert!(note(u64::from(Crossings::MOST)));
    }

    #[test]
    fn a_group_that_seldom_crosses_stays() {
        let (mut crossings, at) = (Crossings::default(), Linear(0x1000));
        assert!((1..1000).all(|n| !crossings.note(at, n * Crossings::SOON)));
    }
}
