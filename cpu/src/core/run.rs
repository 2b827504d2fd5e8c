//! The run loop: fetch, block execution.

use brolga_mmu::{GuestPhys, Linear, PAGE_SIZE};

use super::events::Events;
use super::tier::{Handed, Left, NoTier, Tier};
use super::{Core, Exit, Mode};
use crate::block::{Block, BlockCache, BlockId, JumpKey, Op};
use crate::chain;
use crate::decode::Decoded;
use crate::system::debug;
use crate::vcpu::{RIP, SegReg, rflags};

const _: () = assert!(size_of::<Op<Core>>() == 64, "one cache line of the host's");

/// Bytes that are looked at to decode a block.
const LONGEST_BLOCK: usize = 256;

/// Instructions that the guest executes in the time that a translation takes: one that is lost
/// sooner was in vain.
const WORTH_TRANSLATING: u64 = 1 << 20;
/// Executions of a block after which a tier is asked again that has said [`Handed::Later`].
const UNTIL_LATER: u32 = 32;

/// Why [`Interpreter::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The budget is used up.
    Budget,
    /// An access to a device may have changed what comes next: the machine must look.
    Replan,
    /// HLT, and no event that would end it.
    Halted,
    /// A triple fault: only a reset helps.
    Shutdown,
    /// The debugger wants to look: [`super::stops::Stops::take`] says why.
    Debugger,
}

/// The interpreting engine: a vCPU and the blocks it has decoded. With a [`Tier`], hot blocks are
/// executed by that.
pub struct Interpreter<T: Tier = NoTier> {
    /// The vCPU.
    pub core: Core,
    /// What executes hot blocks.
    pub tier: T,
    blocks: BlockCache<Core>,
    /// What is left of the slice is too little for translated code.
    short: bool,
}

impl Interpreter {
    /// An engine that has decoded nothing yet.
    pub fn new(core: Core) -> Interpreter {
        Interpreter::with_tier(core, NoTier)
    }
}

impl<T: Tier> Interpreter<T> {
    /// As [`Interpreter::new`], with a second tier for what is hot.
    pub fn with_tier(core: Core, tier: T) -> Interpreter<T> {
        let blocks = BlockCache::new(tier.threshold());
        Interpreter { core, tier, blocks, short: false }
    }

    /// Executes at most `budget` instructions. A REP iteration counts as one, and so does the
    /// delivery of an event: a guest whose handlers fault at once uses up its budget too.
    pub fn run(&mut self, budget: u64) -> Stop {
        self.core.progress.slice_end = self.core.progress.retired.saturating_add(budget);
        self.short = false;
        loop {
            if !self.core.mem.stale.is_empty() {
                self.drop_stale();
            }
            if self.core.stops.due() {
                return Stop::Debugger;
            }
            let progress = &mut self.core.progress;
            if progress.replan {
                progress.replan = false;
                return Stop::Replan;
            }
            if progress.retired >= progress.slice_end {
                return Stop::Budget;
            }
            progress.single = false;
            if self.core.has_event() {
                match self.core.take_events() {
                    Some(Events::Stop(stop)) => return stop,
                    Some(Events::Delivered) => continue,
                    None => {}
                }
            }
            if self.core.progress.single {
                self.step_block(1);
            } else {
                self.run_blocks();
            }
        }
    }

    /// Executes one instruction, or lets one event in, for an engine that runs the guest elsewhere
    /// and leaves this one to us. Nothing is taken from what was found in memory before, and nothing
    /// is kept: the guest may have changed any of it. A repetition may do some iterations.
    pub fn run_alone(&mut self) -> Stop {
        const ITERATIONS: u64 = 1024;
        let core = &mut self.core;
        core.mem.tlb.flush_all();
        core.mode_changed();
        core.progress.replan = false;
        core.progress.single = false;
        core.progress.slice_end = core.progress.retired.saturating_add(ITERATIONS);
        if core.has_event()
            && let Some(events) = core.take_events()
        {
            return match events {
                Events::Stop(stop) => stop,
                Events::Delivered => Stop::Budget,
            };
        }
        let ip = core.vcpu.regs[RIP as usize];
        let at = core.code_address(ip);
        core.progress.at = 0;
        core.progress.between();
        match core.fetch_one(ip) {
            Ok(block) => core.execute(&block, at, 1),
            Err(_) => core.deliver_fault(),
        }
        if std::mem::take(&mut core.progress.replan) { Stop::Replan } else { Stop::Budget }
    }

    /// Forgets everything that was found in memory: somebody else has executed the guest.
    pub fn forget(&mut self) {
        self.blocks.clear();
        self.tier.clear();
        self.core.mem.stale.clear();
        self.core.mem.code.clear();
        self.core.mem.tlb.flush_all();
        self.core.mode_changed();
    }

    /// Executes whole blocks for as long as each is known, fits in the slice, and cannot have
    /// changed what the run loop looks at between blocks.
    #[inline(always)]
    fn run_blocks(&mut self) {
        loop {
            match self.run_translated() {
                Left::GoOn => continue,
                Left::Slice => self.short = true,
                Left::LookAround => return,
                Left::Interpret => return self.step_block(1),
                Left::NotEntered => {}
            }
            match self.interpret_blocks() {
                Interpreted::Hot => continue,
                Interpreted::LookAround => return,
                Interpreted::Stuck => return self.step_block(u64::MAX),
            }
        }
    }

    /// Executes the translated code at RIP, if there is any.
    #[inline(always)]
    fn run_translated(&mut self) -> Left {
        if !T::TRANSLATES || self.short {
            return Left::NotEntered;
        }
        let at = self.core.code_address(self.core.vcpu.regs[RIP as usize]);
        self.tier.resume(&mut self.core, at)
    }

    /// Interprets blocks as [`Interpreter::run_blocks`] says, up to one that is translated now.
    #[inline(always)]
    fn interpret_blocks(&mut self) -> Interpreted {
        // Within a block, only what ends one that `checks` changes the mode or the mappings of code.
        let mut key = self.core.jump_key();
        let mut at = self.core.code_address(self.core.vcpu.regs[RIP as usize]);
        let mut next = self.blocks.by_jump(at.0, key);
        loop {
            let id = match next {
                Some(id) => id,
                None => match self.find_next(at) {
                    Some(id) => id,
                    None => return Interpreted::Stuck,
                },
            };
            let core = &mut self.core;
            if next.is_none() {
                key = core.jump_key();
            }
            let block = self.blocks.get(id);
            if T::TRANSLATES && !self.short {
                if let (0, Some(place)) = (block.patience.get(), block.place) {
                    match self.tier.translate(core, &self.blocks, place, at) {
                        Handed::Translated => return Interpreted::Hot,
                        Handed::Later => block.patience.set(UNTIL_LATER),
                        Handed::Never => block.patience.set(u32::MAX),
                    }
                }
                block.patience.set(block.patience.get().saturating_sub(1));
            }
            if !core.fits(block) {
                return Interpreted::Stuck;
            }
            let Some(to) = core.execute_whole(block, at) else { return Interpreted::LookAround };
            debug_assert!(key == core.jump_key(), "the block checks");
            next = self.blocks.after(id, to.0, key);
            at = to;
        }
    }

    /// Finds or decodes the block at RIP, unless the slice is over. `None` also where
    /// [`Interpreter::step_block`] has more to do.
    #[cold]
    #[inline(never)]
    fn find_next(&mut self, at: Linear) -> Option<BlockId> {
        if self.core.progress.retired >= self.core.progress.slice_end {
            return None;
        }
        match self.find(self.core.vcpu.regs[RIP as usize], at) {
            Ok(Found::Cached(id)) => Some(id),
            Ok(Found::Once(_) | Found::Stop) => None,
            Err(_) => {
                // It will be raised again.
                self.core.exception = None;
                None
            }
        }
    }

    /// Executes from RIP to the end of a block, or as far as the slice allows, but no more than
    /// `most` instructions.
    fn step_block(&mut self, most: u64) {
        if self.core.progress.retired >= self.core.progress.slice_end {
            return;
        }
        let ip = self.core.vcpu.regs[RIP as usize];
        let at = self.core.code_address(ip);
        if let Some(id) = self.blocks.by_jump(at.0, self.core.jump_key()) {
            let block = self.blocks.get(id);
            if self.core.inside_limit(ip, block.bytes) {
                return self.core.execute(block, at, most);
            }
        }
        match self.find(ip, at) {
            Ok(Found::Cached(id)) => {
                let block = self.blocks.get(id);
                // Code that is hot from the start is known to `run_blocks` now.
                let hot = T::TRANSLATES && block.patience.get() == 0 && most > 1 && !self.short;
                if !hot {
                    self.core.execute(block, at, most);
                }
            }
            Ok(Found::Once(block)) => self.core.execute(&block, at, most),
            Ok(Found::Stop) => {}
            Err(_) => self.core.deliver_fault(),
        }
    }

    /// Finds or decodes the block at `ip`.
    #[cold]
    #[inline(never)]
    fn find(&mut self, ip: u64, at: Linear) -> Result<Found, Exit> {
        let core = &mut self.core;
        core.progress.at = 0;
        core.progress.between();
        let phys = core.fetch_address(ip, at)?;
        if !core.mem.stale.is_empty() {
            // The fetch has armed breakpoints: what was made before may contain them.
            self.drop_stale();
        }
        let core = &mut self.core;
        if core.stops.is_armed(phys) {
            if core.stops_before(at, phys) {
                return Ok(Found::Stop);
            }
            // Another way to the same memory, or to be passed.
            return core.fetch_one(ip).map(Found::Once);
        }
        let (mode, key) = (core.mode, core.jump_key());
        if let Some(id) = self.blocks.renew(at.0, key, phys)
            && core.inside_limit(ip, self.blocks.get(id).bytes)
        {
            return Ok(Found::Cached(id));
        }
        if let Some(id) = self.blocks.by_place(phys, mode)
            && core.inside_limit(ip, self.blocks.get(id).bytes)
        {
            self.blocks.remember(at.0, key, id);
            return Ok(Found::Cached(id));
        }
        let mut code = [0; LONGEST_BLOCK];
        let left_in_page = (PAGE_SIZE - phys.page_offset()) as usize;
        let code = &mut code[..left_in_page.min(core.left_in_segment(ip))];
        let decoded = if core.mem.map.read_slice(phys, code).is_ok() {
            core.decode_up_to_breakpoint(code, mode, phys)
        } else {
            Decoded::NeedsMore
        };
        let Decoded::Block(block) = decoded else { return self.find_crossing(ip, at, phys) };
        self.make_room();
        let core = &mut self.core;
        if core.mem.code.mark(phys, u64::from(block.bytes)) {
            core.mem.tlb.drop_write(phys);
        }
        let id = self.blocks.insert(phys, mode, block);
        self.blocks.remember(at.0, core.jump_key(), id);
        Ok(Found::Cached(id))
    }

    /// Finds or decodes the one instruction at `ip`, of which no block can be made: it crosses a
    /// page (then it is kept) or the segment's end, or does not lie in memory.
    fn find_crossing(&mut self, ip: u64, at: Linear, phys: GuestPhys) -> Result<Found, Exit> {
        if let Some(id) = self.known_crossing(ip, phys) {
            self.blocks.remember(at.0, self.core.jump_key(), id);
            return Ok(Found::Cached(id));
        }
        let block = self.core.fetch_one(ip)?;
        // The TLB may not have had the second page before.
        if let Some(id) = self.known_crossing(ip, phys) {
            self.blocks.remember(at.0, self.core.jump_key(), id);
            return Ok(Found::Cached(id));
        }
        let crosses = u64::from(block.bytes) > PAGE_SIZE - phys.page_offset();
        let Some(place) = self.core.crossing(ip, phys).filter(|_| crosses) else {
            return Ok(Found::Once(block));
        };
        self.make_room();
        let core = &mut self.core;
        for (at, len) in place.parts(block.bytes) {
            if core.mem.code.mark(at, len) {
                core.mem.tlb.drop_write(at);
            }
        }
        let id = self.blocks.insert_crossing(place, block);
        self.blocks.remember(at.0, self.core.jump_key(), id);
        Ok(Found::Cached(id))
    }

    /// The instruction at `ip`, if it is known to cross into the next page.
    fn known_crossing(&self, ip: u64, phys: GuestPhys) -> Option<BlockId> {
        let id = self.blocks.crossing(self.core.crossing(ip, phys)?)?;
        self.core.inside_limit(ip, self.blocks.get(id).bytes).then_some(id)
    }

    /// Starts the block cache afresh if it has reached its bound.
    fn make_room(&mut self) {
        if self.blocks.is_full() {
            self.blocks.clear();
            self.tier.clear();
            self.core.mem.code.clear();
            self.core.mem.tlb.flush_all();
        }
    }

    /// Drops the blocks whose bytes have been overwritten.
    fn drop_stale(&mut self) {
        for (phys, len) in std::mem::take(&mut self.core.mem.stale) {
            self.blocks.invalidate(phys, len);
            let page = phys.page_number();
            if let Some(age) = self.tier.invalidate(phys, len, self.core.now()) {
                self.blocks.translation_lost(page, age < WORTH_TRANSLATING);
            }
            let code = &mut self.core.mem.code;
            code.clear_page(page);
            for (at, len) in self.blocks.in_page(page).chain(self.tier.in_page(page)) {
                code.mark(at, len);
            }
        }
    }

    /// Memory was written behind the vCPU's back (DMA, a debugger, a loader): blocks decoded from
    /// `len` bytes at `at` are dropped.
    pub fn invalidate_code(&mut self, at: GuestPhys, len: u64) {
        let mut next = at.0;
        let end = at.0.saturating_add(len);
        while next < end {
            let run = (PAGE_SIZE - (next & (PAGE_SIZE - 1))).min(end - next);
            self.core.mem.stale.push((GuestPhys(next), run));
            next += run;
        }
        self.drop_stale();
    }
}

/// Why [`Interpreter::interpret_blocks`] has returned.
enum Interpreted {
    /// There is translated code at RIP.
    Hot,
    /// The run loop must look around.
    LookAround,
    /// The block at RIP is not known, or not all of it may be executed.
    Stuck,
}

enum Found {
    Cached(BlockId),
    /// Not to be kept: it crosses the segment's end, does not lie in memory, or has a breakpoint.
    Once(Block<Core>),
    /// The debugger wants to look first.
    Stop,
}

impl Core {
    /// What executable mappings hold under, now.
    #[inline(always)]
    pub fn jump_key(&self) -> JumpKey {
        JumpKey::new(self.mem.tlb.generation(), self.mode)
    }

    /// Whether `bytes` bytes at `ip` lie inside CS.
    #[inline(always)]
    pub(super) fn inside_limit(&self, ip: u64, bytes: u16) -> bool {
        self.mode.has(Mode::CS_FLAT)
            || ip + u64::from(bytes) - 1 <= u64::from(self.vcpu.seg(SegReg::Cs).limit)
    }

    /// How many bytes from `ip` on lie inside CS, up to [`LONGEST_BLOCK`]; the first does.
    fn left_in_segment(&self, ip: u64) -> usize {
        if self.mode.has(Mode::CS_FLAT) {
            return LONGEST_BLOCK;
        }
        let left = u64::from(self.vcpu.seg(SegReg::Cs).limit).saturating_sub(ip) + 1;
        left.min(LONGEST_BLOCK as u64) as usize
    }

    /// Executes the one instruction of `block`, at RIP, for translated code: at least one is left in
    /// the slice, and no event is due. False if it did not end as one that lets the next follow.
    pub fn interpret(&mut self, block: &Block<Core>) -> bool {
        let at = self.code_address(self.vcpu.regs[RIP as usize]);
        self.execute_whole(block, at).is_some()
    }

    /// Whether all of a block fits in the slice and lies inside CS.
    #[inline(always)]
    fn fits(&self, block: &Block<Core>) -> bool {
        let retired = self.progress.retired.wrapping_add(block.ops.len() as u64);
        retired <= self.progress.slice_end
            && self.inside_limit(self.vcpu.regs[RIP as usize], block.bytes)
    }

    /// Executes all of a block that begins at `at`; no event is due before its end. The address
    /// where to go on; `None` if the run loop must look around first.
    #[inline(always)]
    fn execute_whole(&mut self, block: &Block<Core>, at: Linear) -> Option<Linear> {
        self.progress.enter(block);
        let [op, rest @ ..] = &block.ops[..] else { return None };
        let outcome = (op.quick)(self, op, rest);
        if (outcome.is_err() | self.progress.leave) && self.settle(block, at, outcome) {
            return None;
        }
        let to = self.finish(block, at);
        (!block.checks).then_some(to)
    }

    /// Goes on with a block after the current instruction's quick form, which has ended with
    /// `outcome`. Whether the block has been left before its end.
    #[cold]
    #[inline(never)]
    fn settle(&mut self, block: &Block<Core>, at: Linear, mut outcome: Result<(), Exit>) -> bool {
        while outcome == Err(Exit::Slow) {
            let [op, rest @ ..] = &block.ops[self.progress.index() as usize..] else { break };
            outcome = chain::full(self, op, rest);
        }
        let left = outcome.is_err() || self.progress.leave;
        if left {
            self.leave(block, at, outcome);
        }
        left
    }

    /// Brings the counts and RIP up to date after a whole block; the address where to go on.
    #[inline(always)]
    fn finish(&mut self, block: &Block<Core>, at: Linear) -> Linear {
        self.progress.retired += block.ops.len() as u64;
        self.progress.between();
        if !block.jumps {
            self.advance_ip(block.bytes);
        }
        let to = self.code_address(self.vcpu.regs[RIP as usize]);
        if block.jumps {
            let from = at.0.wrapping_add(u64::from(block.last));
            self.trail.record(from, to.0, self.progress.retired);
        }
        to
    }

    /// Executes a block that begins at `at`, or the part of it that the slice allows.
    fn execute(&mut self, block: &Block<Core>, at: Linear, most: u64) {
        let left = self.progress.slice_end - self.progress.retired;
        let single = self.progress.single;
        let ops = &block.ops[..most.min(left).min(block.ops.len() as u64) as usize];
        let stepping = single && self.vcpu.eflags & rflags::TF != 0;
        if single {
            self.vcpu.eflags &= !rflags::RF;
        }
        self.progress.enter(block);
        let mut outcome = Ok(());
        for op in ops {
            self.progress.arrive(&op.insn);
            outcome = (op.handler)(self, &op.insn);
            if outcome.is_err() || self.progress.leave {
                break;
            }
        }
        self.leave(block, at, outcome);
        if stepping && outcome != Err(Exit::Fault) {
            debug::single_stepped(self);
        }
    }

    /// Brings the counts and RIP up to date after the current instruction of a block, or before it
    /// if it has not completed.
    #[cold]
    #[inline(never)]
    fn leave(&mut self, block: &Block<Core>, at: Linear, outcome: Result<(), Exit>) {
        let done = self.progress.index() + u64::from(outcome.is_ok());
        match block.ops.get(done as usize) {
            None => {
                self.finish(block, at);
            }
            Some(op) => {
                self.progress.retired += done;
                self.progress.between();
                self.advance_ip(op.insn.at);
            }
        }
        if outcome == Err(Exit::Fault) {
            self.deliver_fault();
        }
    }

    #[inline(always)]
    fn advance_ip(&mut self, offset: u16) {
        let ip = &mut self.vcpu.regs[RIP as usize];
        *ip = ip.wrapping_add(u64::from(offset));
        if !self.mode.has(Mode::CODE64) {
            *ip &= 0xffff_ffff;
        }
    }
}
