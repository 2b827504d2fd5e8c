//! The second tier: the regions there are, how they are found, and what ends them.

mod again;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use brolga_cpu::block::{BlockCache, Mode};
use brolga_cpu::core::tier::{Handed, Left, Tier};
use brolga_cpu::core::{Core, is_canonical};
use brolga_mmu::{GuestPhys, Linear, PAGE_SIZE, TlbEntry};
use iced_x86::Code;
use rustc_hash::FxBuildHasher;

use crate::arena::{ArenaError, CodeArena, CodeId};
use crate::background::{Background, Finished};
use crate::code::page_with_tail;
use crate::compile::{CompileError, Compiled, Compiler, host_isa};
use crate::config::JitConfig;
use crate::dump::{Dump, Subject};
use crate::enter::Entrance;
use crate::interpreted::{Interpreted, InterpretedTable};
use crate::job::Job;
use crate::jump::{Jumps, set_key};
use crate::plan::{Bounds, plan};
use crate::sites::{Crossings, SitePool, Used};
use crate::stats::JitStats;
use crate::translate::{Products, Reason};

/// Most regions that wait for the background's threads. While so many do, a block that asks is told
/// to ask again, so the hottest is the likeliest to be next; a longer queue holds what was hot, and
/// each in it holds sites.
const MAX_WAITING: usize = 8;
/// After so many questions for a region, each some executions after the last, the vCPU makes it.
const MAX_ASKED: u32 = 300;
/// Most instructions of a region where everything is translated: hardly any of it is executed
/// often enough to be worth that.
const MOST_AT_ONCE: usize = 64;
/// Regions of one page that a block may be part of before others leave it out and link to a region
/// of its own. Without a limit, a boot translates each instruction 3.4 times on average: what follows
/// the calls of a function is in the region after each.
const MOST_COPIES: usize = 3;

/// Slots of the jump cache that a region may have before it is looked up which still lead to it.
const MOST_SLOTS: usize = 32;

/// Why there is no translator.
#[derive(Debug, thiserror::Error)]
pub enum JitError {
    /// No memory for code.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// No compiler.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The entry could not be built.
    #[error("Cranelift's JIT module: {0}")]
    Module(#[from] Box<cranelift_module::ModuleError>),
    /// The threads that translate could not be started.
    #[error("cannot start a thread that translates: {0}")]
    Threads(std::io::Error),
    /// What is to be written about the code cannot be.
    #[error("cannot write about translated code: {0}")]
    Dump(#[from] std::io::Error),
}

struct Region {
    code: CodeId,
    entry: u64,
    place: GuestPhys,
    mode: Mode,
    /// When it was made, in instructions.
    born: u64,
    /// Offsets in the page of what it was made from.
    pieces: Vec<(u16, u16)>,
    /// Cells that lead here, and slots of the jump cache that do.
    incoming: Vec<u32>,
    slots: Vec<u32>,
    /// Of instructions that the interpreter executes for it.
    numbers: Vec<u32>,
    sites: Vec<Used>,
    /// Where it was mapped when it was planned.
    linear: Linear,
}

impl Region {
    /// Whether it was made from the byte at an offset of its page, among others.
    fn contains(&self, at: u16) -> bool {
        self.pieces.iter().any(|(start, end)| (*start..*end).contains(&at))
    }
}

/// Index of a region.
type RegionId = u32;

/// The translator and its regions.
pub struct Jit {
    config: JitConfig,
    compiler: Compiler,
    background: Option<Background>,
    /// The places of jobs that the background has been given.
    awaited: HashSet<(GuestPhys, Mode), FxBuildHasher>,
    /// How often the run loop has asked for those there are none of yet.
    asked: HashMap<(GuestPhys, Mode), u32, FxBuildHasher>,
    /// Those of which no region can be made.
    impossible: HashSet<(GuestPhys, Mode), FxBuildHasher>,
    entrance: Entrance,
    dump: Dump,
    arena: CodeArena,
    jumps: Jumps,
    interpreted: InterpretedTable,
    sites: SitePool,
    crossings: Crossings,
    regions: Vec<Option<Region>>,
    free: Vec<RegionId>,
    by_place: HashMap<(GuestPhys, Mode), RegionId, FxBuildHasher>,
    by_page: HashMap<u64, Vec<RegionId>, FxBuildHasher>,
    /// The cell through which code has just left: what is entered next is linked to it.
    unlinked: Option<(u32, u64)>,
    stats: JitStats,
}

impl Jit {
    /// A translator that has translated nothing yet.
    pub fn new(config: JitConfig) -> Result<Jit, JitError> {
        let threads = if config.threshold > 1 { config.threads } else { 0 };
        let background = (threads > 0).then(|| Background::new(threads)).transpose();
        Ok(Jit {
            compiler: Compiler::new()?,
            background: background.map_err(JitError::Threads)?,
            awaited: HashSet::default(),
            asked: HashMap::default(),
            impossible: HashSet::default(),
            entrance: Entrance::new(host_isa()?)?,
            dump: Dump::new(&config.dump)?,
            arena: CodeArena::new(config.cache_bytes)?,
            jumps: Jumps::new(),
            interpreted: InterpretedTable::default(),
            sites: SitePool::new(),
            crossings: Crossings::default(),
            regions: Vec::new(),
            free: Vec::new(),
            by_place: HashMap::default(),
            by_page: HashMap::default(),
            unlinked: None,
            stats: JitStats::default(),
            config,
        })
    }

    /// What is to be known to make the region that begins at `place`. `None` if there can be none.
    fn job(
        &mut self,
        core: &Core,
        (place, mode): (GuestPhys, Mode),
        linear: Linear,
        warm: &dyn Fn(u16) -> bool,
    ) -> Option<Job> {
        let page = page_with_tail(core, place, linear)?;
        let most = if self.translates_all() { MOST_AT_ONCE } else { usize::MAX };
        let excluded = core.stops.armed_in(place.page_number()).to_vec();
        let crowded = |at: u16| self.is_crowded(place, mode, at);
        let bounds = Bounds { most, warm, crowded: &crowded, excluded: &excluded };
        let entry = place.page_offset() as u16;
        let plan = plan(&page[..], entry, mode, &core.model, &bounds)?;
        let first_cell = self.jumps.take_cells(plan.links()).or_else(|| {
            self.flush();
            self.jumps.take_cells(plan.links())
        })?;
        Some(Job {
            numbers: self.interpreted.take(plan.interpreted()),
            sites_for_all: self.sites.has_plenty(),
            sites: self.sites.take(),
            restless: self.sites.restless(place.page_number()).clone(),
            excluded,
            again: false,
            first_cell,
            plan,
            page,
            place,
            linear,
            mode,
            model: Arc::clone(&core.model),
            wants_text: self.dump.wants_text(),
            flushes: self.stats.flushes,
        })
    }

    /// Whether the block at an offset of the page of `place` is part of enough regions, not counting
    /// the one that begins at `place`.
    fn is_crowded(&self, place: GuestPhys, mode: Mode, at: u16) -> bool {
        let ids = self.by_page.get(&place.page_number()).into_iter().flatten();
        let regions = ids.filter_map(|id| self.regions[*id as usize].as_ref());
        let others = regions.filter(|region| region.mode == mode && region.place != place);
        others.filter(|region| region.contains(at)).nth(MOST_COPIES - 1).is_some()
    }

    fn translates_all(&self) -> bool {
        self.config.threshold <= 1
    }

    /// Makes the region of a job, or has it made.
    fn start(&mut self, core: &mut Core, job: Job, urgent: bool) -> Handed {
        if let Some(background) = self.background.as_ref().filter(|_| !urgent) {
            self.awaited.insert(job.name());
            background.start(job);
            return Handed::Later;
        }
        let outcome = self.compiler.compile(&job.request());
        self.finish(core, (job, outcome));
        Handed::Never
    }

    /// Takes over what the background has made.
    fn take_finished(&mut self, core: &mut Core) {
        while let Some(finished) = self.background.as_ref().and_then(Background::finished) {
            self.awaited.remove(&finished.0.name());
            self.finish(core, finished);
        }
    }

    /// Makes a region of what has become of a job, if its code still is what is to be executed.
    fn finish(&mut self, core: &mut Core, (job, outcome): Finished) {
        let name = job.name();
        let there = self.by_place.get(&name).copied();
        self.asked.remove(&name);
        let gone = job.flushes != self.stats.flushes
            || there.is_some() != job.again
            || !job.is_current(core);
        match outcome {
            _ if gone => self.give_back(&job),
            Ok(compiled) => {
                if let Some(id) = there {
                    self.remove(id);
                }
                self.publish(core, job, compiled);
            }
            Err(error) => {
                tracing::warn!("the code at {} is not translated: {error}", job.place);
                self.give_back(&job);
                self.impossible.insert(name);
            }
        }
    }

    /// Gives back what a job had reserved.
    fn give_back(&mut self, job: &Job) {
        self.interpreted.give_back(&job.numbers);
        self.sites.give_back(job.sites.iter().copied());
    }

    fn publish(&mut self, core: &mut Core, job: Job, compiled: Compiled) {
        let Compiled { code, entry, products, text } = compiled;
        let Some((id, start)) = self.publish_code(&code) else {
            self.give_back(&job);
            self.impossible.insert(job.name());
            return;
        };
        let Job { plan, page, place, linear, mode, model, numbers, sites, .. } = job;
        self.stats.code_bytes += code.len() as u64;
        let host = start as u64;
        self.dump.region(
            &Subject { plan: &plan, page: &page[..], mode, place, linear, host, code: &code },
            &text,
        );
        let Products { interpreted, sites: used, .. } = products;
        for (site, _) in &used {
            core.mem.tlb.empty_site(*site);
        }
        self.sites.give_back(sites.into_iter().skip(used.len()));
        for (number, insn) in numbers.iter().zip(interpreted) {
            let code = &page[usize::from(insn.at)..];
            self.interpreted.enter(*number, Interpreted::new(code, mode, &model, insn.needs));
        }
        let pieces = plan.pieces().collect();
        self.stats.regions += 1;
        self.stats.insns += plan.insns() as u64;
        let (incoming, slots) = (Vec::new(), Vec::new());
        let (entry, born) = (host + entry as u64, core.now());
        self.add(
            core,
            Region {
                code: id,
                entry,
                place,
                mode,
                born,
                pieces,
                incoming,
                slots,
                numbers,
                sites: used,
                linear,
            },
        );
    }

    /// Puts code into the arena, in place of older code if need be. `None` if that is too small.
    fn publish_code(&mut self, code: &[u8]) -> Option<(CodeId, *const u8)> {
        loop {
            if let Ok(id) = self.arena.publish(code) {
                return Some((id, self.arena.entry(id)?));
            }
            if !self.evict() {
                return None;
            }
        }
    }

    /// Drops the quarter of all regions that was made first; false if there are none.
    fn evict(&mut self) -> bool {
        let born = |(region, id): (&Option<Region>, RegionId)| Some((region.as_ref()?.born, id));
        let mut by_age: Vec<(u64, RegionId)> =
            self.regions.iter().zip(0..).filter_map(born).collect();
        by_age.sort_unstable();
        let oldest = &by_age[..by_age.len().div_ceil(4)];
        oldest.iter().for_each(|(_, id)| self.remove(*id));
        self.stats.evictions += u64::from(!oldest.is_empty());
        !oldest.is_empty()
    }

    fn add(&mut self, core: &mut Core, region: Region) {
        let Region { place, mode, .. } = region;
        for (start, end) in &region.pieces {
            let at = GuestPhys(place.page_base().0 + u64::from(*start));
            if core.mem.code.mark(at, u64::from(end - start)) {
                core.mem.tlb.drop_write(at);
            }
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.regions.push(None);
            self.regions.len() as RegionId - 1
        });
        self.regions[id as usize] = Some(region);
        self.by_place.insert((place, mode), id);
        self.by_page.entry(place.page_number()).or_default().push(id);
    }

    /// Whether the vCPU had better make a region itself: the threads have kept it waiting for long.
    fn is_urgent(&mut self, name: (GuestPhys, Mode)) -> bool {
        let asked = self.asked.entry(name).or_default();
        *asked += 1;
        *asked > MAX_ASKED
    }

    /// Drops a region of a page that keeps its others.
    fn remove(&mut self, id: RegionId) {
        let Some(region) = &self.regions[id as usize] else { return };
        if let Some(ids) = self.by_page.get_mut(&region.place.page_number()) {
            ids.retain(|other| *other != id);
        }
        self.drop_region(id);
    }

    /// Drops a region; its code is free.
    fn drop_region(&mut self, id: RegionId) {
        let Some(region) = self.regions[id as usize].take() else { return };
        for cell in region.incoming {
            self.jumps.unlink(cell);
        }
        for slot in region.slots {
            self.jumps.forget(slot, region.entry);
        }
        self.arena.free(region.code);
        self.interpreted.give_back(&region.numbers);
        self.sites.give_back(region.sites.iter().map(|(site, _)| *site));
        self.by_place.remove(&(region.place, region.mode));
        self.free.push(id);
    }

    /// Drops everything.
    fn flush(&mut self) {
        self.stats.flushes += 1;
        for region in self.regions.drain(..).flatten() {
            self.interpreted.give_back(&region.numbers);
            self.sites.give_back(region.sites.iter().map(|(site, _)| *site));
        }
        self.free.clear();
        self.by_place.clear();
        self.by_page.clear();
        self.jumps.clear();
        self.arena.reset();
        self.unlinked = None;
        self.awaited.clear();
        self.asked.clear();
        self.impossible.clear();
    }

    /// The code for `at`: what the jump cache knows, or what there is for the page that `at` was
    /// last fetched from.
    fn find(&mut self, core: &Core, at: Linear) -> Option<u64> {
        let known = self.jumps.find(at, core);
        let link = self.unlinked.take().filter(|(_, now)| *now == core.now());
        if let (Some(code), None) = (known, link) {
            return Some(code);
        }
        let place = core.mem.tlb.fetched_from(at)?;
        let id = *self.by_place.get(&(place, core.mode()))?;
        if known.is_none() {
            self.remember(core, id, at);
        }
        let region = self.regions[id as usize].as_mut()?;
        if let Some((cell, _)) = link {
            self.jumps.link(cell, region.entry);
            region.incoming.push(cell);
        }
        Some(region.entry)
    }

    /// Makes the jump cache lead from `at` to a region.
    fn remember(&mut self, core: &Core, id: RegionId, at: Linear) {
        let entry = core.mem.tlb.current_entry(at);
        let fetched = TlbEntry::hit(entry.exec, at, 1);
        // No page is mapped there.
        let addend = if fetched { entry.addend } else { u64::MAX };
        if let Some(region) = self.regions[id as usize].as_mut() {
            let slot = self.jumps.enter(at, core.jump_key(), region.entry, addend);
            if !region.slots.contains(&slot) {
                if region.slots.len() >= MOST_SLOTS {
                    // Programs that are loaded elsewhere each time leave slots behind.
                    region.slots.retain(|slot| self.jumps.has(*slot, region.entry));
                }
                region.slots.push(slot);
            }
        }
    }

    /// How often each kind of instruction has been executed by the interpreter while translated code
    /// waited.
    pub fn interpreted(&self) -> impl Iterator<Item = (Code, u64)> {
        self.interpreted.counts().into_iter()
    }
}

/// Whether a near jump from code around `at` stays canonical: translated code does not look.
fn far_from_the_edge(mode: Mode, at: Linear) -> bool {
    const REACH: u64 = (1 << 31) + PAGE_SIZE;
    let inside = || {
        [at.0.wrapping_sub(REACH), at.0.wrapping_add(REACH)]
            .into_iter()
            .all(|at| is_canonical(at, mode.linear_bits()))
    };
    !mode.has(Mode::CODE64) || inside()
}

impl Tier for Jit {
    const TRANSLATES: bool = true;

    fn threshold(&self) -> u32 {
        self.config.threshold
    }

    fn resume(&mut self, core: &mut Core, at: Linear) -> Left {
        if !far_from_the_edge(core.mode(), at) {
            return Left::NotEntered;
        }
        let Some(code) = self.find(core, at) else { return Left::NotEntered };
        set_key(core, core.jump_key());
        core.translated.interpreted = self.interpreted.address();
        core.translated.jump_cache = self.jumps.table_address();
        core.translated.cells = self.jumps.cells_address();
        self.stats.entries += 1;
        let left = core.left_in_slice();
        self.entrance.run(core, code, left);
        let reason = Reason::from_number(core.take_exit());
        self.stats.leaves[reason as usize] += 1;
        if core.translated.sites.any_restless() {
            self.give_up_sites(core);
        }
        match reason {
            Reason::LookUp => Left::GoOn,
            Reason::Budget => Left::Slice,
            Reason::LookAround => Left::LookAround,
            Reason::Interpret => {
                if std::mem::take(&mut core.translated.crossed) != 0 {
                    self.note_crossing(core);
                }
                if self.config.stats {
                    self.stats.left_for(core);
                }
                Left::Interpret
            }
            Reason::Link => {
                self.unlinked = Some((core.translated.cell as u32, core.now()));
                Left::GoOn
            }
        }
    }

    fn translate(
        &mut self,
        core: &mut Core,
        blocks: &BlockCache<Core>,
        place: GuestPhys,
        at: Linear,
    ) -> Handed {
        let mode = core.mode();
        if mode.has(Mode::ALIGNMENT_CHECKED) || !far_from_the_edge(mode, at) {
            return Handed::Never;
        }
        self.take_finished(core);
        if self.jumps.find(at, core).is_some() {
            return Handed::Translated;
        }
        let name = (place, mode);
        let mut otherwise = Handed::Later;
        if !self.by_place.contains_key(&name) {
            if self.impossible.contains(&name) {
                return Handed::Never;
            }
            let urgent = self.is_urgent(name);
            let waits = self.awaited.contains(&name) || self.awaited.len() >= MAX_WAITING;
            if waits && !urgent {
                return Handed::Later;
            }
            let all = self.translates_all();
            let base = place.page_base().0;
            let warm = |at: u16| all || blocks.is_warm(GuestPhys(base + u64::from(at)), mode);
            let Some(job) = self.job(core, name, at, &warm) else { return Handed::Never };
            otherwise = self.start(core, job, urgent);
        }
        match self.by_place.get(&name) {
            Some(id) => {
                self.remember(core, *id, at);
                Handed::Translated
            }
            None => otherwise,
        }
    }

    fn invalidate(&mut self, at: GuestPhys, len: u64, now: u64) -> Option<u64> {
        let ids = self.by_page.remove(&at.page_number())?;
        self.sites.forget(at.page_number());
        let mut youngest = None;
        let (first, end) = (at.page_offset(), at.page_offset() + len);
        let mut kept = Vec::new();
        for id in ids {
            let Some(region) = &self.regions[id as usize] else { continue };
            let hit =
                |(start, stop): &(u16, u16)| u64::from(*start) < end && first < u64::from(*stop);
            if region.pieces.iter().any(hit) {
                let age = now - region.born;
                youngest = Some(youngest.map_or(age, |other: u64| other.min(age)));
                self.drop_region(id);
            } else {
                kept.push(id);
            }
        }
        if !kept.is_empty() {
            self.by_page.insert(at.page_number(), kept);
        }
        youngest
    }

    fn in_page(&self, page: u64) -> Vec<(GuestPhys, u64)> {
        let regions = self.by_page.get(&page).into_iter().flatten();
        let regions = regions.filter_map(|id| self.regions[*id as usize].as_ref());
        let pieces = regions.flat_map(|region| &region.pieces);
        let base = page * PAGE_SIZE;
        pieces.map(|(s, e)| (GuestPhys(base + u64::from(*s)), u64::from(e - s))).collect()
    }

    fn clear(&mut self) {
        self.flush();
    }

    fn report(&self) -> Option<String> {
        self.config.stats.then(|| self.stats.table(&self.interpreted.counts()))
    }

    fn counts(&self) -> Vec<(String, u64)> {
        if !self.config.stats {
            return Vec::new();
        }
        self.stats.kinds(&self.interpreted.counts())
    }
}
