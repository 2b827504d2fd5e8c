//! Regions that are made again, because accesses of theirs have been found to go from page to page.

use brolga_cpu::core::Core;
use brolga_cpu::vcpu::RIP;

use super::{Jit, Region, RegionId};
use crate::job::Job;

impl Jit {
    /// Has regions translated again whose sites do not pay, without those.
    #[cold]
    pub(super) fn give_up_sites(&mut self, core: &mut Core) {
        for site in core.translated.sites.take_restless() {
            let found = self.regions.iter().zip(0..).find_map(|(region, id)| {
                let region = region.as_ref()?;
                let (_, at) = region.sites.iter().find(|used| used.0 == site)?;
                Some((id, *at))
            });
            if let Some((id, at)) = found {
                self.translate_again(core, id, at);
            }
        }
    }

    /// Has regions translated again that have been left because a group of accesses at RIP did not
    /// lie in one page, if that happens often.
    #[cold]
    pub(super) fn note_crossing(&mut self, core: &mut Core) {
        let linear = core.code_address(core.vcpu.regs[usize::from(RIP)]);
        if !self.crossings.note(linear, core.now()) {
            return;
        }
        let at = linear.page_offset() as u16;
        let mode = core.mode();
        let concerned = |region: &Region| {
            (region.mode, region.linear.page_base()) == (mode, linear.page_base())
                && region.contains(at)
        };
        let ids: Vec<RegionId> = (0..)
            .zip(&self.regions)
            .filter(|(_, region)| region.as_ref().is_some_and(concerned))
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            self.translate_again(core, id, at);
        }
    }

    /// Has a region translated again, now that the accesses of the instruction at an offset of its
    /// page are known to go from page to page.
    fn translate_again(&mut self, core: &mut Core, id: RegionId, at: u16) {
        let Some(region) = &self.regions[id as usize] else { return };
        let (name, linear) = ((region.place, region.mode), region.linear);
        let starts: Vec<u16> = region.pieces.iter().map(|(start, _)| *start).collect();
        self.sites.note_restless(name.0.page_number(), at);
        if self.awaited.contains(&name) {
            return;
        }
        if let Some(job) = self.job(core, name, linear, &|at| starts.contains(&at)) {
            self.start(core, Job { again: true, ..job }, false);
        }
    }
}
