//! The second tier: the regions there are, how they are found, and what ends them.

use std::collections::HashMap;

use brolga_cpu::block::{BlockCache, Mode};
use brolga_cpu::core::tier::{Left, Tier};
use brolga_cpu::core::{Core, is_canonical};
use brolga_cpu::cpuid::CpuModel;
use brolga_mmu::{GuestPhys, Linear, PAGE_SIZE, TlbEntry};
use iced_x86::Code;
use rustc_hash::FxBuildHasher;

use crate::arena::{ArenaError, CodeArena, CodeId};
use crate::compile::{CompileError, Compiled, Compiler, host_isa};
use crate::dump::{Dump, DumpConfig, Subject};
use crate::enter::Entrance;
use crate::interpreted::{Interpreted, InterpretedTable};
use crate::jump::{JUMP_BITS, Jumps, set_key};
use crate::plan::{Plan, plan};
use crate::sites::{SitePool, Used};
use crate::stats::JitStats;
use crate::translate::{Products, Reason, Request};

/// Most link cells of one region: two for each of its blocks.
const MAX_LINKS: usize = 64;

/// How the translator works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JitConfig {
    /// Executions after which a block is translated; 1 translates everything at once.
    pub threshold: u32,
    /// Bytes of machine code that are kept.
    pub cache_bytes: usize,
    /// What is written about the code.
    pub dump: DumpConfig,
    /// [`Tier::report`] names the instructions that code is left for.
    pub stats: bool,
}

impl Default for JitConfig {
    fn default() -> Self {
        JitConfig {
            threshold: 2000,
            cache_bytes: 64 << 20,
            dump: DumpConfig::default(),
            stats: false,
        }
    }
}

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
    /// What is to be written about the code cannot be.
    #[error("cannot write about translated code: {0}")]
    Dump(#[from] std::io::Error),
}

struct Region {
    code: CodeId,
    entry: u64,
    place: GuestPhys,
    mode: Mode,
    /// Offsets in the page of what it was made from.
    pieces: Vec<(u16, u16)>,
    /// Cells that lead here, and slots of the jump cache that do.
    incoming: Vec<u32>,
    slots: Vec<u32>,
    /// Of instructions that the interpreter executes for it.
    numbers: Vec<u32>,
    sites: Vec<Used>,
    /// Where it was when it was translated.
    linear: Linear,
}

/// What a region is made from.
struct Source<'a> {
    page: &'a [u8],
    place: GuestPhys,
    /// Where it is now.
    linear: Linear,
    mode: Mode,
    model: &'a CpuModel,
}

/// Why a plan has not become a region.
enum Untranslated {
    /// There is no room left for code or cells.
    Full,
    /// The compiler has failed, and would again.
    Failed,
}

/// A region's machine code and what belongs to it.
struct Made {
    id: CodeId,
    entry: u64,
    numbers: Vec<u32>,
    sites: Vec<Used>,
}

/// Index of a region.
type RegionId = u32;

/// The translator and its regions.
pub struct Jit {
    config: JitConfig,
    compiler: Compiler,
    entrance: Entrance,
    dump: Dump,
    arena: CodeArena,
    jumps: Jumps,
    interpreted: InterpretedTable,
    sites: SitePool,
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
        Ok(Jit {
            compiler: Compiler::new()?,
            entrance: Entrance::new(host_isa()?)?,
            dump: Dump::new(&config.dump)?,
            arena: CodeArena::new(config.cache_bytes)?,
            jumps: Jumps::new(),
            interpreted: InterpretedTable::default(),
            sites: SitePool::new(),
            regions: Vec::new(),
            free: Vec::new(),
            by_place: HashMap::default(),
            by_page: HashMap::default(),
            unlinked: None,
            stats: JitStats::default(),
            config,
        })
    }

    /// The region that begins at `place`, translated now if there is none.
    fn region(
        &mut self,
        core: &mut Core,
        blocks: &BlockCache<Core>,
        place: GuestPhys,
        linear: Linear,
    ) -> Option<RegionId> {
        let mode = core.mode();
        if let Some(id) = self.by_place.get(&(place, mode)) {
            return Some(*id);
        }
        let mut page = [0; PAGE_SIZE as usize];
        core.mem.map.read_slice(place.page_base(), &mut page).ok()?;
        let all = self.config.threshold <= 1;
        let base = place.page_base();
        let warm = |at: u16| all || blocks.is_warm(GuestPhys(base.0 + u64::from(at)), mode);
        let plan = plan(&page, place.page_offset() as u16, mode, &core.model, &warm)?;
        let model = core.model.clone();
        let source = Source { page: &page, place, linear, mode, model: &model };
        // What is full starts afresh: the second time there is room.
        match self.translate(core, &plan, &source) {
            Err(Untranslated::Full) => {
                self.flush();
                self.translate(core, &plan, &source).ok()
            }
            region => region.ok(),
        }
    }

    /// Translates a plan.
    fn translate(
        &mut self,
        core: &mut Core,
        plan: &Plan,
        source: &Source,
    ) -> Result<RegionId, Untranslated> {
        let Source { page, place, linear, mode, model } = *source;
        let first_cell = self.jumps.first_free_cell(MAX_LINKS).ok_or(Untranslated::Full)?;
        let numbers = self.interpreted.take(plan.interpreted());
        let jump_bits = JUMP_BITS;
        let sites = self.sites.take();
        let restless = self.sites.restless(place.page_number());
        let request = Request {
            plan,
            page,
            mode,
            model,
            first_cell,
            jump_bits,
            sites: &sites,
            restless,
            numbers: &numbers,
        };
        let Compiled { code, entry, products } = match self.compiler.compile(&request) {
            Ok(compiled) => compiled,
            Err(error) => {
                tracing::warn!("the code at {place} is not translated: {error}");
                self.interpreted.give_back(&numbers);
                self.sites.give_back(sites);
                return Err(Untranslated::Failed);
            }
        };
        self.stats.code_bytes += code.len() as u64;
        let published = self.arena.publish(&code).ok();
        let Some((id, host)) = published.and_then(|id| Some((id, self.arena.entry(id)? as u64)))
        else {
            self.interpreted.give_back(&numbers);
            self.sites.give_back(sites);
            return Err(Untranslated::Full);
        };
        let entry = host + entry as u64;
        let text = if self.dump.wants_text() { self.compiler.clif() } else { String::new() };
        let code = &code;
        self.dump.region(&Subject { plan, page, mode, place, linear, host, code }, &text);
        let Products { links, interpreted, sites: used } = products;
        self.sites.give_back(sites.into_iter().skip(used.len()));
        self.jumps.take_cells(links.len());
        for (number, insn) in numbers.iter().zip(interpreted) {
            let code = &page[usize::from(insn.at)..];
            self.interpreted.enter(*number, Interpreted::new(code, mode, model, insn.needs));
        }
        Ok(self.add(core, plan, source, Made { id, entry, numbers, sites: used }))
    }

    fn add(&mut self, core: &mut Core, plan: &Plan, source: &Source, made: Made) -> RegionId {
        let Source { place, mode, linear, .. } = *source;
        let Made { id: code, entry, numbers, sites } = made;
        let pieces: Vec<_> = plan.pieces().collect();
        for (start, end) in &pieces {
            let at = GuestPhys(place.page_base().0 + u64::from(*start));
            if core.mem.code.mark(at, u64::from(end - start)) {
                core.mem.tlb.drop_write(at);
            }
        }
        self.stats.regions += 1;
        self.stats.insns += plan.insns() as u64;
        let (incoming, slots) = (Vec::new(), Vec::new());
        let region =
            Region { code, entry, place, mode, pieces, incoming, slots, numbers, sites, linear };
        let id = self.free.pop().unwrap_or_else(|| {
            self.regions.push(None);
            self.regions.len() as RegionId - 1
        });
        self.regions[id as usize] = Some(region);
        self.by_place.insert((place, mode), id);
        self.by_page.entry(place.page_number()).or_default().push(id);
        id
    }

    /// Translates regions again whose sites do not pay, without those.
    #[cold]
    fn give_up_sites(&mut self, core: &mut Core) {
        for site in core.translated.sites.take_restless() {
            let uses = |region: &Region| region.sites.iter().find(|used| used.0 == site).copied();
            let found = self.regions.iter().enumerate().find_map(|(id, region)| {
                let region = region.as_ref()?;
                Some((id as RegionId, region.place, uses(region)?.1))
            });
            if let Some((id, place, at)) = found {
                self.sites.note_restless(place.page_number(), at);
                self.translate_again(core, id);
            }
        }
    }

    fn translate_again(&mut self, core: &mut Core, id: RegionId) {
        let Some(region) = &self.regions[id as usize] else { return };
        let (place, mode, linear) = (region.place, region.mode, region.linear);
        let starts: Vec<u16> = region.pieces.iter().map(|(start, _)| *start).collect();
        if let Some(ids) = self.by_page.get_mut(&place.page_number()) {
            ids.retain(|other| *other != id);
        }
        self.drop_region(id);
        let mut page = [0; PAGE_SIZE as usize];
        if core.mem.map.read_slice(place.page_base(), &mut page).is_err() {
            return;
        }
        let model = core.model.clone();
        let entry = place.page_offset() as u16;
        if let Some(plan) = plan(&page, entry, mode, &model, &|at| starts.contains(&at)) {
            let source = Source { page: &page, place, linear, mode, model: &model };
            // Without room it is interpreted until it is hot once more.
            let _ = self.translate(core, &plan, &source);
        }
    }

    /// Drops a region; its code is free.
    fn drop_region(&mut self, id: RegionId) {
        let Some(region) = self.regions[id as usize].take() else { return };
        for cell in region.incoming {
            self.jumps.link(cell, 0);
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
    let inside =
        || is_canonical(at.0.wrapping_sub(REACH)) && is_canonical(at.0.wrapping_add(REACH));
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
        core.retire_until_left(core.translated.budget);
        let reason = Reason::from_number(core.translated.exit);
        self.stats.leaves[reason as usize] += 1;
        if core.translated.sites.any_restless() {
            self.give_up_sites(core);
        }
        match reason {
            Reason::LookUp => Left::GoOn,
            Reason::Budget => Left::Slice,
            Reason::LookAround => Left::LookAround,
            Reason::Interpret => {
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
    ) -> bool {
        let mode = core.mode();
        if mode.has(Mode::ALIGNMENT_CHECKED) || !far_from_the_edge(mode, at) {
            return false;
        }
        if self.jumps.find(at, core).is_some() {
            return true;
        }
        let Some(id) = self.region(core, blocks, place, at) else { return false };
        self.remember(core, id, at);
        true
    }

    fn invalidate(&mut self, at: GuestPhys, len: u64) {
        let Some(ids) = self.by_page.remove(&at.page_number()) else { return };
        self.sites.forget(at.page_number());
        let (first, end) = (at.page_offset(), at.page_offset() + len);
        let mut kept = Vec::new();
        for id in ids {
            let Some(region) = &self.regions[id as usize] else { continue };
            let hit =
                |(start, stop): &(u16, u16)| u64::from(*start) < end && first < u64::from(*stop);
            if region.pieces.iter().any(hit) {
                self.drop_region(id);
            } else {
                kept.push(id);
            }
        }
        if !kept.is_empty() {
            self.by_page.insert(at.page_number(), kept);
        }
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
}
