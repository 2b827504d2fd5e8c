//! Decoded blocks and the cache that finds them: keyed by physical address and mode, never by
//! linear address alone.

use std::cell::Cell;
use std::collections::HashMap;

use brolga_mmu::{GuestPhys, PAGE_SIZE};

use crate::backend::{Backend, Handler};
use crate::chain::Chained;
use crate::insn::Insn;

/// Everything outside the instruction bytes that decoding depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mode(u32);

macro_rules! mode_bits {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl Mode {
            $($(#[$doc])* pub const $name: Mode = Mode(1 << $bit);)*
        }
    };
}

mode_bits! {
    /// CS.D: 32-bit code.
    CODE32 = 0;
    /// 64-bit mode.
    CODE64 = 1;
    /// SS.B: 32-bit stack pointer (64 bits wide in 64-bit mode).
    STACK32 = 2;
    /// CS has base 0 and limit 4 GiB: no fetch or branch leaves it.
    CS_FLAT = 3;
    /// DS is flat and writable.
    DS_FLAT = 4;
    /// ES is flat and writable.
    ES_FLAT = 5;
    /// SS is flat and writable.
    SS_FLAT = 6;
    /// CR0.EM.
    FPU_EMULATE = 7;
    /// CR0.TS.
    TASK_SWITCHED = 8;
    /// CR0.MP.
    MONITOR_COPROCESSOR = 9;
    /// CR4.OSFXSR.
    OSFXSR = 10;
    /// CPL 3.
    USER = 11;
    /// Every data access is checked for alignment: no segment counts as flat.
    ALIGNMENT_CHECKED = 12;
    /// MXCSR does not mask all SIMD floating-point exceptions: translated code cannot raise them.
    SIMD_UNMASKED = 13;
    /// The x87's control word does not mask all exceptions: nor these.
    X87_UNMASKED = 14;
    /// Protected mode, and not virtual-8086 mode: VEX prefixes exist.
    PROTECTED = 15;
    /// CR4.LA57: linear addresses of 57 bits.
    LA57 = 16;
    /// Instructions on YMM registers exist: protected mode, and CR4.OSXSAVE and XCR0 enable them.
    AVX = 17;
}

impl Mode {
    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Mode) -> bool {
        self.0 & other.0 == other.0
    }
    /// Sets the bits of `other` if `on`.
    #[must_use]
    pub const fn with(self, other: Mode, on: bool) -> Mode {
        if on { Mode(self.0 | other.0) } else { self }
    }
    /// Bits of a linear address in 64-bit mode.
    #[inline(always)]
    pub const fn linear_bits(self) -> u32 {
        if self.has(Mode::LA57) { 57 } else { 48 }
    }
    /// Instruction set width: 16, 32 or 64.
    pub const fn bitness(self) -> u32 {
        if self.has(Mode::CODE64) {
            64
        } else if self.has(Mode::CODE32) {
            32
        } else {
            16
        }
    }
}

/// An instruction bound to its meaning on backend `B`; one cache line.
#[repr(align(64))]
pub struct Op<B: Backend> {
    /// Its meaning.
    pub handler: Handler<B>,
    /// The same, and the rest of the block after it, for engines that execute ([`Backend::QUICK`]).
    /// It may do without what [`Backend::quick_load`] and the like cannot do: where they fail, the
    /// engine uses `handler` and goes on with the next instruction.
    pub quick: Chained<B>,
    /// Its operands.
    pub insn: Insn,
}

/// A straight run of instructions inside one page, or a single one that crosses into the next.
pub struct Block<B: Backend> {
    /// The instructions; none once the block has been invalidated.
    pub ops: Box<[Op<B>]>,
    /// Length in bytes.
    pub bytes: u16,
    /// Offset of the last instruction.
    pub last: u16,
    /// The last instruction sets RIP itself.
    pub jumps: bool,
    /// The run loop must look for events, and for a change of mode, after the block.
    pub checks: bool,
    /// How often it is executed yet before it is hot.
    pub patience: Cell<u32>,
    /// Where it begins in guest memory, if a second tier may take it over.
    pub place: Option<GuestPhys>,
    /// Where execution has gone on from here, the latest first.
    pub links: [Jump; 2],
}

/// Index of a block in its [`BlockCache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId(u32);

/// What a [`Jump`] holds under, besides the address: the executable mappings and the mode.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct JumpKey(u64);

/// Room for the bits of [`Mode`] in a [`JumpKey`], and for one above them that is always set: in its
/// mode no key is like 0, so a table of zeros leads nowhere.
const MODE_WIDTH: u32 = 20;
const NOT_ZERO: u64 = 1 << (MODE_WIDTH - 1);

impl JumpKey {
    const NONE: JumpKey = JumpKey(u64::MAX);

    /// The key for the mappings of `generation` (see `Tlb::generation`; a counter that never comes
    /// near 2^44).
    #[inline(always)]
    pub fn new(generation: u64, mode: Mode) -> JumpKey {
        JumpKey(generation << MODE_WIDTH | NOT_ZERO | u64::from(mode.0) & (NOT_ZERO - 1))
    }

    /// The bits of [`JumpKey::number`] that stand for the mode.
    pub const MODE_BITS: u64 = (1 << MODE_WIDTH) - 1;

    /// Whether both are of one mode.
    fn same_mode(self, other: JumpKey) -> bool {
        (self.0 ^ other.0) & JumpKey::MODE_BITS == 0
    }

    /// The key as a number: equal keys, and no others, have the same.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Where a jump leads. It holds for all blocks that jump to `ip`, and under all aliases of their own
/// addresses.
#[derive(Clone, Copy)]
pub struct Jump {
    ip: u64,
    key: JumpKey,
    block: BlockId,
}

impl Jump {
    /// Leads nowhere.
    pub const NONE: Jump = Jump { ip: 0, key: JumpKey::NONE, block: BlockId(0) };

    #[inline(always)]
    fn leads(&self, ip: u64, key: JumpKey) -> bool {
        self.ip == ip && self.key == key
    }
}

const JUMPS: usize = 1 << 14;
/// Blocks kept before the cache starts afresh: about 400 bytes each.
const MAX_BLOCKS: usize = 1 << 18;

/// Where an instruction lies that crosses a page. As for other blocks, that is a place in physical
/// memory: whatever maps both pages side by side finds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crossing {
    /// Its first byte.
    pub first: GuestPhys,
    /// The page that it goes on in.
    pub second: GuestPhys,
    /// What it is decoded for.
    pub mode: Mode,
}

impl Crossing {
    /// Address and length of both parts of `bytes` bytes.
    pub fn parts(&self, bytes: u16) -> [(GuestPhys, u64); 2] {
        let first = PAGE_SIZE - self.first.page_offset();
        [(self.first, first), (self.second, u64::from(bytes) - first)]
    }
}

/// Bytes of one physical page that a block was decoded from.
#[derive(Clone, Copy)]
struct Piece {
    at: GuestPhys,
    len: u64,
    mode: Mode,
    block: BlockId,
}

/// The blocks of one vCPU.
pub struct BlockCache<B: Backend> {
    /// Never reused before [`BlockCache::clear`]: stale jumps find an invalidated block empty.
    blocks: Vec<Block<B>>,
    by_place: HashMap<(GuestPhys, Mode), BlockId, rustc_hash::FxBuildHasher>,
    /// Single instructions that cross a page, by where both their parts are.
    crossing: HashMap<Crossing, BlockId, rustc_hash::FxBuildHasher>,
    /// What lies in each physical page.
    by_page: HashMap<u64, Vec<Piece>, rustc_hash::FxBuildHasher>,
    jumps: Box<[Jump; JUMPS]>,
    /// What new blocks have in pages that are not restless.
    patience: u32,
    /// Pages whose code is changed soon after it has been translated, and how often that has
    /// happened in a row: new blocks have more patience there.
    restless: HashMap<u64, u32, rustc_hash::FxBuildHasher>,
}

/// Where a page has more blocks than these and is written to, all are dropped: code that writes
/// beside itself with each instruction would wait for their sifting, and few are needed again.
const MOST_SIFTED: usize = 64;

/// The patience of blocks in a page that is restless for ever: 2^16.
const MOST_RESTLESS: u32 = 16;

impl<B: Backend> BlockCache<B> {
    /// An empty cache, whose blocks are hot after `threshold` executions.
    pub fn new(threshold: u32) -> Self {
        let jumps: Box<[Jump]> = vec![Jump::NONE; JUMPS].into_boxed_slice();
        let Ok(jumps) = jumps.try_into() else { unreachable!("made with JUMPS entries") };
        BlockCache {
            blocks: Vec::new(),
            by_place: HashMap::default(),
            crossing: HashMap::default(),
            by_page: HashMap::default(),
            jumps,
            patience: threshold.saturating_sub(1),
            restless: HashMap::default(),
        }
    }

    /// What was translated in a page is lost, `soon` after it was made or not. Each time doubles
    /// what it takes there to be translated again, so that a guest that changes its code all the
    /// time does not keep the translator busy.
    pub fn translation_lost(&mut self, page: u64, soon: bool) {
        if !soon {
            self.restless.remove(&page);
            return;
        }
        let times = self.restless.entry(page).or_default();
        *times = (*times + 1).min(MOST_RESTLESS);
        // What was translated together with the bytes that have changed may be a block beside them.
        let least = self.patience_in(page);
        for piece in self.by_page.get(&page).into_iter().flatten() {
            let patience = &self.get(piece.block).patience;
            patience.set(patience.get().max(least));
        }
    }

    /// What new blocks of a page have; none has any where everything is translated at once.
    fn patience_in(&self, page: u64) -> u32 {
        if self.patience == 0 {
            return 0;
        }
        let restless = self.restless.get(&page).map_or(0, |times| (1 << times) - 1);
        self.patience.max(restless)
    }

    /// Whether the block at a physical address has been executed often enough to be translated
    /// together with a hot one.
    pub fn is_warm(&self, at: GuestPhys, mode: Mode) -> bool {
        let crossing = || {
            let mut pieces = self.by_page.get(&at.page_number()).into_iter().flatten();
            Some(pieces.find(|piece| (piece.at, piece.mode) == (at, mode))?.block)
        };
        let block = self.by_place(at, mode).or_else(crossing).map(|id| self.get(id));
        block.is_some_and(|b| b.patience.get() <= self.patience - self.patience / 16)
    }

    #[inline(always)]
    fn slot(ip: u64) -> usize {
        (ip ^ ip >> 14) as usize & (JUMPS - 1)
    }

    /// The block that was last remembered for linear address `ip` under `key`.
    #[inline(always)]
    pub fn by_jump(&self, ip: u64, key: JumpKey) -> Option<BlockId> {
        let jump = &self.jumps[Self::slot(ip)];
        (jump.leads(ip, key) && self.lives(jump.block)).then_some(jump.block)
    }

    /// The block that was last remembered for linear address `ip`, under another key of the same
    /// mode, if it begins at `place` and lies in one page: it is remembered under `key` from now on.
    pub fn renew(&mut self, ip: u64, key: JumpKey, place: GuestPhys) -> Option<BlockId> {
        let jump = self.jumps[Self::slot(ip)];
        let holds = jump.ip == ip
            && jump.key.same_mode(key)
            && self.lives(jump.block)
            && self.get(jump.block).place == Some(place)
            && u64::from(self.get(jump.block).bytes) <= PAGE_SIZE - place.page_offset();
        if holds {
            self.jumps[Self::slot(ip)].key = key;
        }
        holds.then_some(jump.block)
    }

    /// As [`BlockCache::by_jump`], where execution comes from block `from`.
    #[inline(always)]
    pub fn after(&mut self, from: BlockId, ip: u64, key: JumpKey) -> Option<BlockId> {
        let [latest, other] = &self.get(from).links;
        if latest.leads(ip, key) && self.lives(latest.block) {
            return Some(latest.block);
        }
        if other.leads(ip, key) && self.lives(other.block) {
            return Some(other.block);
        }
        self.link(from, ip, key)
    }

    #[inline(never)]
    fn link(&mut self, from: BlockId, ip: u64, key: JumpKey) -> Option<BlockId> {
        let block = self.by_jump(ip, key)?;
        let links = &mut self.blocks[from.0 as usize].links;
        if !links[0].leads(ip, key) {
            links[1] = links[0];
        }
        links[0] = Jump { ip, key, block };
        Some(block)
    }

    /// Whether a block has not been invalidated.
    #[inline(always)]
    fn lives(&self, id: BlockId) -> bool {
        self.blocks.get(id.0 as usize).is_some_and(|block| !block.ops.is_empty())
    }

    /// The block at a physical address.
    pub fn by_place(&self, at: GuestPhys, mode: Mode) -> Option<BlockId> {
        self.by_place.get(&(at, mode)).copied()
    }

    /// A block by its index.
    #[inline(always)]
    pub fn get(&self, id: BlockId) -> &Block<B> {
        &self.blocks[id.0 as usize]
    }

    /// Remembers that linear address `ip` leads to `block`.
    pub fn remember(&mut self, ip: u64, key: JumpKey, block: BlockId) {
        self.jumps[Self::slot(ip)] = Jump { ip, key, block };
    }

    /// Whether the next block would exceed the cache's bound: [`BlockCache::clear`] it first.
    pub fn is_full(&self) -> bool {
        self.blocks.len() >= MAX_BLOCKS
    }

    /// Adds a block that begins at `at` and lies in one page.
    pub fn insert(&mut self, at: GuestPhys, mode: Mode, block: Block<B>) -> BlockId {
        let len = u64::from(block.bytes);
        let id = self.push(at, block);
        self.by_place.insert((at, mode), id);
        self.add_piece(Piece { at, len, mode, block: id });
        id
    }

    /// The instruction that crosses from one page into another.
    pub fn crossing(&self, place: Crossing) -> Option<BlockId> {
        let id = *self.crossing.get(&place)?;
        (!self.get(id).ops.is_empty()).then_some(id)
    }

    /// Adds an instruction that crosses from one page into another.
    pub fn insert_crossing(&mut self, place: Crossing, block: Block<B>) -> BlockId {
        let parts = place.parts(block.bytes);
        let mode = place.mode;
        let id = self.push(place.first, block);
        self.crossing.insert(place, id);
        for (at, len) in parts {
            self.add_piece(Piece { at, len, mode, block: id });
        }
        id
    }

    fn push(&mut self, at: GuestPhys, mut block: Block<B>) -> BlockId {
        block.patience = Cell::new(self.patience_in(at.page_number()));
        block.place = Some(at);
        self.blocks.push(block);
        BlockId(self.blocks.len() as u32 - 1)
    }

    fn add_piece(&mut self, piece: Piece) {
        self.by_page.entry(piece.at.page_number()).or_default().push(piece);
    }

    /// Drops the blocks that cover any of `len` bytes at `at` (within one page).
    pub fn invalidate(&mut self, at: GuestPhys, len: u64) {
        let Some(page) = self.by_page.get_mut(&at.page_number()) else { return };
        let (by_place, blocks) = (&mut self.by_place, &mut self.blocks);
        let too_many = page.len() > MOST_SIFTED;
        page.retain(|piece| {
            let hit = too_many || piece.at.0 < at.0 + len && at.0 < piece.at.0 + piece.len;
            if hit {
                blocks[piece.block.0 as usize].ops = Box::default();
                if by_place.get(&(piece.at, piece.mode)) == Some(&piece.block) {
                    by_place.remove(&(piece.at, piece.mode));
                }
            }
            !hit
        });
        if page.is_empty() {
            self.by_page.remove(&at.page_number());
        }
    }

    /// What remains of a page's blocks, to be marked as code again.
    pub fn in_page(&self, page: u64) -> impl Iterator<Item = (GuestPhys, u64)> + '_ {
        self.by_page.get(&page).into_iter().flatten().map(|piece| (piece.at, piece.len))
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.by_place.clear();
        self.crossing.clear();
        self.by_page.clear();
        self.restless.clear();
        for jump in self.jumps.iter_mut() {
            jump.key = JumpKey::NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Core;
    use crate::cpuid::CpuModel;
    use crate::decode::{Decoded, decode};

    /// `mov eax, imm32`, alone.
    fn block() -> Block<Core> {
        match decode::<Core>(&[0xb8, 1, 2, 3, 4], Mode::CODE64, &CpuModel::default(), 1) {
            Decoded::Block(block) => block,
            Decoded::NeedsMore => panic!("the instruction is whole"),
        }
    }

    #[test]
    fn code_that_changes_soon_after_translation_waits_ever_longer() {
        let mut cache = BlockCache::new(3);
        let patience = |cache: &mut BlockCache<Core>| {
            let id = cache.insert(GuestPhys(0x1000), Mode::CODE64, block());
            cache.get(id).patience.get()
        };
        assert_eq!(patience(&mut cache), 2);
        let after: Vec<u32> = (0..20)
            .map(|_| {
                cache.translation_lost(1, true);
                patience(&mut cache)
            })
            .collect();
        assert_eq!(after[..4], [2, 3, 7, 15]);
        assert_eq!(after[15..], [65535; 5], "it has an end");
        cache.translation_lost(2, false);
        assert_eq!(patience(&mut cache), 65535, "another page");
        cache.translation_lost(1, false);
        assert_eq!(patience(&mut cache), 2);
        let mut at_once = BlockCache::new(1);
        (0..5).for_each(|_| at_once.translation_lost(1, true));
        assert_eq!(patience(&mut at_once), 0);
    }

    #[test]
    fn many_blocks_of_a_page_that_is_written_are_not_sifted() {
        let last = 8 * MOST_SIFTED as u64;
        for (count, keeps) in [(MOST_SIFTED, true), (MOST_SIFTED + 1, false)] {
            let mut cache = BlockCache::new(1);
            for n in 0..count as u64 {
                cache.insert(GuestPhys(0x1000 + 8 * n), Mode::CODE64, block());
            }
            cache.insert(GuestPhys(0x2000), Mode::CODE64, block());
            cache.invalidate(GuestPhys(0x1000 + last), 1);
            let there = |at| cache.by_place(GuestPhys(at), Mode::CODE64).is_some();
            assert_eq!((there(0x1000), there(0x2000)), (keeps, true), "{count} blocks");
        }
    }

    #[test]
    fn a_crossing_is_known_by_both_its_pages_until_either_is_written() {
        let place =
            Crossing { first: GuestPhys(0x1ffe), second: GuestPhys(0x7000), mode: Mode::CODE64 };
        for written in [0x1fff, 0x7002] {
            let mut cache = BlockCache::new(1);
            let id = cache.insert_crossing(place, block());
            assert_eq!(cache.crossing(place), Some(id));
            let elsewhere = [
                Crossing { first: GuestPhys(0x2ffe), ..place },
                Crossing { second: GuestPhys(0x2000), ..place },
                Crossing { mode: Mode::CODE32, ..place },
            ];
            assert!(elsewhere.iter().all(|other| cache.crossing(*other).is_none()));
            cache.invalidate(GuestPhys(0x7003), 1);
            assert_eq!(cache.crossing(place), Some(id), "beside it");
            cache.invalidate(GuestPhys(written), 1);
            assert_eq!(cache.crossing(place), None, "{written:#x}");
        }
    }

    #[test]
    fn a_crossing_becomes_hot_but_is_not_known_by_its_first_page_alone() {
        let place =
            Crossing { first: GuestPhys(0x1ffe), second: GuestPhys(0x7000), mode: Mode::CODE64 };
        let [old, new] = [1, 2].map(|generation| JumpKey::new(generation, Mode::CODE64));
        let mut cache = BlockCache::new(33);
        let id = cache.insert_crossing(place, block());
        cache.remember(0x40_1ffe, old, id);
        assert_eq!(cache.by_jump(0x40_1ffe, old), Some(id));
        assert_eq!(
            cache.renew(0x40_1ffe, new, place.first),
            None,
            "its second page may be another"
        );
        assert_eq!(cache.get(id).place, Some(place.first));
        assert!(!cache.is_warm(place.first, Mode::CODE64));
        cache.get(id).patience.set(30);
        assert!(cache.is_warm(place.first, Mode::CODE64));
        assert!(!cache.is_warm(place.first, Mode::CODE32));
    }
}
