//! What it takes to make a region, in one piece: it can be handed to another thread.

use std::sync::Arc;

use brolga_cpu::block::Mode;
use brolga_cpu::core::Core;
use brolga_cpu::cpuid::CpuModel;
use brolga_mmu::{GuestPhys, Linear, PAGE_SIZE};

use crate::plan::Plan;
use crate::sites::Restless;
use crate::translate::Request;

/// A region that is to be made.
pub(crate) struct Job {
    pub(crate) plan: Plan,
    /// The page as it was when this was planned, and the bytes of the next that its last
    /// instruction may have.
    pub(crate) page: Vec<u8>,
    pub(crate) place: GuestPhys,
    /// Where it was mapped then.
    pub(crate) linear: Linear,
    pub(crate) mode: Mode,
    pub(crate) model: Arc<CpuModel>,
    /// The first of [`Plan::links`] cells.
    pub(crate) first_cell: u32,
    /// One for each of [`Plan::interpreted`].
    pub(crate) numbers: Vec<u32>,
    pub(crate) sites: Vec<u32>,
    pub(crate) sites_for_all: bool,
    pub(crate) restless: Restless,
    /// Offsets in the page that the debugger had breakpoints at.
    pub(crate) excluded: Vec<u16>,
    /// It is to replace the region that there is.
    pub(crate) again: bool,
    pub(crate) wants_text: bool,
    /// How often everything had been dropped: since the next time its cells belong to others.
    pub(crate) flushes: u64,
}

impl Job {
    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            plan: &self.plan,
            page: &self.page[..],
            mode: self.mode,
            model: &self.model,
            first_cell: self.first_cell,
            sites: &self.sites,
            sites_for_all: self.sites_for_all,
            restless: &self.restless,
            numbers: &self.numbers,
            wants_text: self.wants_text,
        }
    }

    /// Under which the region will be found.
    pub(crate) fn name(&self) -> (GuestPhys, Mode) {
        (self.place, self.mode)
    }

    /// Whether memory still holds the bytes that this is made from, and the same breakpoints.
    pub(crate) fn is_current(&self, core: &Core) -> bool {
        let mut page = [0; PAGE_SIZE as usize];
        let there = core.mem.map.read_slice(self.place.page_base(), &mut page).is_ok();
        let same = |(start, end): (u16, u16)| {
            let range = usize::from(start)..usize::from(end);
            page[range.clone()] == self.page[range]
        };
        let broken = core.stops.armed_in(self.place.page_number());
        there && self.plan.pieces().all(same) && broken == self.excluded
    }
}
