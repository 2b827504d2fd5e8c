//! The sites of translated code ([`brolga_mmu::site_offset`]) while it runs: filled by the slow
//! path, which also finds those that are not worth having.

use brolga_mmu::{Linear, SITES, TlbEntry};

use super::Core;

/// A miss that comes sooner than so many instructions after the last one costs more than the
/// look-up in the TLB that the site saves.
const SOON: u64 = 600;
/// What a site may collect: so many more misses that come soon than others.
const MOST_STRIKES: u8 = 32;

/// How a site has done of late.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    last_miss: u64,
    strikes: u8,
}

/// What is known of all sites.
#[derive(Debug)]
pub struct SiteRecords {
    records: Box<[Record]>,
    restless: Vec<u32>,
}

impl Default for SiteRecords {
    fn default() -> Self {
        Self { records: vec![Record::default(); SITES].into(), restless: Vec::new() }
    }
}

impl SiteRecords {
    /// Notes that a site has missed when `now` instructions had been executed.
    fn miss(&mut self, site: u32, now: u64) {
        let Some(record) = self.records.get_mut(site as usize) else { return };
        let soon = now.wrapping_sub(record.last_miss) < SOON;
        record.last_miss = now;
        record.strikes = if soon { record.strikes + 1 } else { record.strikes.saturating_sub(1) };
        if record.strikes >= MOST_STRIKES {
            record.strikes = 0;
            self.restless.push(site);
        }
    }

    /// Takes the sites that miss too often.
    pub fn take_restless(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.restless)
    }

    /// Whether there are such.
    #[inline]
    pub fn any_restless(&self) -> bool {
        !self.restless.is_empty()
    }
}

impl Core {
    /// The slow path for a site that has missed: the host address.
    pub(super) fn host_for_site(
        &mut self,
        site: u32,
        at: Linear,
        size: u64,
        write: bool,
    ) -> Option<u64> {
        if self.in_tlb(at, size, write) {
            let now = self.progress.slice_end.wrapping_sub(self.translated.budget);
            self.translated.sites.miss(site, now);
            self.mem.tlb.fill_site(site, at);
            return Some(self.mem.tlb.current_entry(at).host(at).addr());
        }
        let host = self.host_after_fill(at, size, write)?;
        if self.in_tlb(at, size, write) {
            self.mem.tlb.fill_site(site, at);
        }
        Some(host)
    }

    fn in_tlb(&self, at: Linear, size: u64, write: bool) -> bool {
        let entry = self.mem.tlb.current_entry(at);
        TlbEntry::hit(if write { entry.write } else { entry.read }, at, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_that_often_misses_is_found_out_once() {
        let mut records = SiteRecords::default();
        for n in 0..u64::from(MOST_STRIKES) {
            assert!(!records.any_restless(), "after {n} misses");
            records.miss(7, 10_000 + n * (SOON - 1));
        }
        // The first miss comes long after none.
        records.miss(7, 10_000 + u64::from(MOST_STRIKES) * (SOON - 1));
        assert_eq!(records.take_restless(), [7]);
        assert!(!records.any_restless());
    }

    #[test]
    fn a_site_that_seldom_misses_stays() {
        let mut records = SiteRecords::default();
        for n in 1..1000 {
            records.miss(7, n * SOON);
        }
        assert!(!records.any_restless());
    }
}
