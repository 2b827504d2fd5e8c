//! Which guest code becomes one region, and what is known about it before translation: its blocks,
//! the edges between them, and which registers and flags matter where.

use brolga_cpu::block::Mode;
use brolga_cpu::cpuid::CpuModel;
use brolga_cpu::decode::{Decoded, decode};
use brolga_mmu::PAGE_SIZE;

use crate::recipe::{Meeting, find_meetings};
use crate::survey::{Effects, RegSet, Survey, Transfer, VectorUse};
use crate::translate::PASSED_SET;

/// Most blocks of a region.
const MAX_BLOCKS: usize = 24;
/// Most instructions of a region.
const MAX_INSNS: usize = 400;

/// Where a block of a region continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nowhere that translation knows of.
    Outside,
    /// At the block with this index.
    Block(usize),
}

/// A straight run of instructions.
#[derive(Debug)]
pub(crate) struct PlanBlock {
    /// Offset in the page of the first instruction.
    pub(crate) start: u16,
    /// Offset of the first byte behind it.
    pub(crate) end: u16,
    /// What each instruction does.
    pub(crate) insns: Vec<Effects>,
    /// What matters after each instruction that the interpreter executes.
    pub(crate) reloads: Vec<Live>,
    /// Where a taken jump or branch at the end goes.
    pub(crate) taken: Next,
    /// Where it goes otherwise.
    pub(crate) falls: Next,
    /// Edges that lead here, the region's entry among them.
    pub(crate) predecessors: usize,
    /// It is part of a loop.
    pub(crate) in_loop: bool,
    /// The slice's budget is looked at here.
    pub(crate) polls: bool,
    /// What a path from here costs at most, up to the next such place.
    pub(crate) longest: u64,
    /// General and vector registers that may have changed since the region was entered.
    pub(crate) dirty: RegSet,
    pub(crate) vector_dirty: RegSet,
    /// The flags may have changed since the region was entered.
    pub(crate) flags_dirty: bool,
    /// What they are at the start matters.
    pub(crate) flags_live: bool,
    /// Where they are found there, if several paths lead here.
    pub(crate) meeting: Meeting,
}

/// A region.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The entry is the first block; every block but for loops comes after its predecessors.
    pub(crate) blocks: Vec<PlanBlock>,
    /// Registers whose values at the entry matter.
    pub(crate) live_in: RegSet,
    pub(crate) vector_live_in: RegSet,
    /// Vector registers on which all arithmetic is on the lowest double, or the lowest single.
    pub(crate) doubles: RegSet,
    pub(crate) singles: RegSet,
}

impl Plan {
    /// Offset in the page of the entry.
    pub(crate) fn entry(&self) -> u16 {
        self.blocks[0].start
    }

    /// Guest instructions.
    pub(crate) fn insns(&self) -> usize {
        self.blocks.iter().map(|b| b.insns.len()).sum()
    }

    /// Those that the interpreter executes.
    pub(crate) fn interpreted(&self) -> usize {
        self.blocks.iter().map(|b| b.reloads.len()).sum()
    }

    /// Most link cells that its code refers to.
    pub(crate) fn links(&self) -> usize {
        2 * self.blocks.len()
    }

    /// The byte ranges that the region was made from. The last instruction of the page may go on in
    /// the next.
    pub(crate) fn extents(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.blocks.iter().map(|b| (b.start, b.end))
    }

    /// Those in the page.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.extents().map(|(start, end)| (start, end.min(PAGE_SIZE as u16)))
    }
}

/// What keeps a region from growing.
pub(crate) struct Bounds<'a> {
    /// It is full with so many instructions.
    pub(crate) most: usize,
    /// Whether the block at an offset of the page is worth its translation.
    pub(crate) warm: &'a dyn Fn(u16) -> bool,
    /// Whether the block at an offset of the page is in enough regions already: it becomes part of
    /// this one only as part of a loop around the entry.
    pub(crate) crowded: &'a dyn Fn(u16) -> bool,
    /// It ends before these offsets.
    pub(crate) excluded: &'a [u16],
}

/// Plans the region that begins at offset `entry` of `page`, which may go on with bytes of the next
/// for its last instruction.
pub(crate) fn plan(
    page: &[u8],
    entry: u16,
    mode: Mode,
    model: &CpuModel,
    bounds: &Bounds<'_>,
) -> Option<Plan> {
    let mut runs = discover(page, entry, mode, model, bounds)?;
    split_at_leaders(&mut runs);
    let runs = leave_out_crowded(runs, bounds.crowded);
    let blocks = order(connect(runs), entry);
    let mut plan = Plan { blocks, live_in: 0, vector_live_in: 0, doubles: 0, singles: 0 };
    find_scalars(&mut plan);
    place_polls(&mut plan.blocks);
    spread_dirt(&mut plan.blocks);
    find_live(&mut plan);
    find_meetings(&mut plan.blocks);
    Some(plan)
}

/// A run of instructions as decoded: [`PlanBlock`] before its edges are known.
struct Run {
    start: u16,
    end: u16,
    insns: Vec<Effects>,
    /// Offset of each instruction from the start.
    offsets: Vec<u16>,
    /// Page offsets of the successors inside the page.
    taken: Option<u16>,
    falls: Option<u16>,
}

fn discover(
    page: &[u8],
    entry: u16,
    mode: Mode,
    model: &CpuModel,
    bounds: &Bounds<'_>,
) -> Option<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut queue = std::collections::VecDeque::from([entry]);
    let mut total = 0;
    while let Some(at) = queue.pop_front() {
        let known = runs.iter().any(|r| r.start == at);
        if known
            || runs.len() >= MAX_BLOCKS
            || total >= bounds.most.min(MAX_INSNS)
            || at != entry && !(bounds.warm)(at)
        {
            continue;
        }
        let Some(run) = survey(page, at, mode, model, bounds.excluded) else { continue };
        total += run.insns.len();
        queue.extend(run.falls.iter().chain(run.taken.iter()));
        runs.push(run);
    }
    (runs.first()?.start == entry).then_some(runs)
}

/// Leaves out the runs that are in enough other regions already, but for those of which a way leads
/// back to the entry, and what is only reached through them.
fn leave_out_crowded(runs: Vec<Run>, crowded: &dyn Fn(u16) -> bool) -> Vec<Run> {
    let index = |at: Option<u16>| at.and_then(|at| runs.iter().position(|r| r.start == at));
    let next: Vec<[Option<usize>; 2]> =
        runs.iter().map(|r| [index(r.falls), index(r.taken)]).collect();
    let successors = |i: usize| next[i].into_iter().flatten();
    let mut returns = vec![false; runs.len()];
    returns[0] = true;
    let mut changed = true;
    while changed {
        changed = false;
        for i in 0..runs.len() {
            if !returns[i] && successors(i).any(|n| returns[n]) {
                returns[i] = true;
                changed = true;
            }
        }
    }
    let mut kept = vec![false; runs.len()];
    let mut ways = vec![0];
    while let Some(i) = ways.pop() {
        if !std::mem::replace(&mut kept[i], true) {
            ways.extend(successors(i).filter(|n| returns[*n] || !crowded(runs[*n].start)));
        }
    }
    runs.into_iter().zip(kept).filter_map(|(run, kept)| kept.then_some(run)).collect()
}

/// Decodes the run at `at`, up to an excluded offset; `None` if not even its first instruction can be
/// translated.
fn survey(page: &[u8], at: u16, mode: Mode, model: &CpuModel, excluded: &[u16]) -> Option<Run> {
    let code = page.get(usize::from(at)..)?;
    let code = &code[..code.len().min(256)];
    let Decoded::Block(block) = decode::<Survey>(code, mode, model, usize::MAX) else {
        return None;
    };
    let mut run = Run {
        start: at,
        end: at,
        insns: Vec::new(),
        offsets: Vec::new(),
        taken: None,
        falls: None,
    };
    let code16 = mode.bitness() == 16;
    let in_page = |offset: u16| u64::from(at) + u64::from(offset) <= PAGE_SIZE;
    for op in block.ops.iter().filter(|op| in_page(op.insn.at + 1)) {
        if excluded.contains(&(at + op.insn.at)) {
            break;
        }
        let mut survey = Survey::new(code16);
        let Ok(()) = (op.handler)(&mut survey, &op.insn);
        let mut effects = survey.effects();
        effects.interpreted |= effects.uses_mxcsr && mode.has(Mode::SIMD_UNMASKED);
        effects.interpreted |= effects.uses_x87 && mode.has(Mode::X87_UNMASKED);
        if effects.interpreted {
            let last = op.insn.next == block.bytes;
            effects = Effects::of_interpreted(last && (block.jumps || block.checks));
        }
        // Where it goes on in the next page, it is looked at before it is executed.
        effects.may_leave |= !in_page(op.insn.next);
        run.insns.push(effects);
        run.offsets.push(op.insn.at);
        run.end = at + op.insn.next;
    }
    let last = run.insns.last()?;
    let inside = |offset: i64| {
        u16::try_from(i64::from(at) + offset).ok().filter(|at| u64::from(*at) < PAGE_SIZE)
    };
    let next = inside(i64::from(run.end - at));
    match last.transfer {
        Some(Transfer::Jump(target)) => run.taken = target.and_then(inside),
        Some(Transfer::Branch(target)) => {
            (run.taken, run.falls) = (target.and_then(inside), next);
        }
        Some(Transfer::Elsewhere) => {}
        None => run.falls = next,
    }
    Some(run)
}

/// Ends each run where another begins.
fn split_at_leaders(runs: &mut [Run]) {
    let starts: Vec<u16> = runs.iter().map(|r| r.start).collect();
    for run in runs {
        let cut = starts
            .iter()
            .filter(|s| **s > run.start && **s < run.end)
            .filter_map(|s| run.offsets.iter().position(|o| run.start + o == *s))
            .min();
        if let Some(n) = cut {
            run.end = run.start + run.offsets[n];
            run.insns.truncate(n);
            run.offsets.truncate(n);
            (run.taken, run.falls) = (None, Some(run.end));
        }
    }
}

fn connect(runs: Vec<Run>) -> Vec<PlanBlock> {
    let starts: Vec<u16> = runs.iter().map(|r| r.start).collect();
    let find = |at: Option<u16>| match at.and_then(|at| starts.iter().position(|s| *s == at)) {
        Some(index) => Next::Block(index),
        None => Next::Outside,
    };
    runs.into_iter()
        .map(|r| PlanBlock {
            start: r.start,
            end: r.end,
            reloads: Vec::new(),
            insns: r.insns,
            taken: find(r.taken),
            falls: find(r.falls),
            predecessors: 0,
            in_loop: false,
            polls: false,
            longest: 0,
            dirty: 0,
            vector_dirty: 0,
            flags_dirty: false,
            flags_live: false,
            meeting: Meeting::default(),
        })
        .collect()
}

impl PlanBlock {
    fn successors(&self) -> impl Iterator<Item = usize> + use<> {
        [self.falls, self.taken].into_iter().filter_map(|next| match next {
            Next::Block(index) => Some(index),
            Next::Outside => None,
        })
    }
}

/// Sorts the blocks into reverse post-order, the entry first, and drops those that splitting has
/// cut off.
fn order(blocks: Vec<PlanBlock>, entry: u16) -> Vec<PlanBlock> {
    let first = blocks.iter().position(|b| b.start == entry).unwrap_or(0);
    let mut post = Vec::with_capacity(blocks.len());
    let mut seen = vec![false; blocks.len()];
    let mut stack = vec![(first, blocks[first].successors().collect::<Vec<_>>())];
    seen[first] = true;
    while let Some((index, left)) = stack.last_mut() {
        match left.pop() {
            Some(next) if !seen[next] => {
                seen[next] = true;
                let successors = blocks[next].successors().collect();
                stack.push((next, successors));
            }
            Some(_) => {}
            None => {
                post.push(*index);
                stack.pop();
            }
        }
    }
    post.reverse();
    let mut place = vec![usize::MAX; blocks.len()];
    for (new, old) in post.iter().enumerate() {
        place[*old] = new;
    }
    let mut kept: Vec<Option<PlanBlock>> = blocks.into_iter().map(Some).collect();
    let mut ordered: Vec<PlanBlock> = post.iter().filter_map(|old| kept[*old].take()).collect();
    for block in &mut ordered {
        for next in [&mut block.taken, &mut block.falls] {
            if let Next::Block(index) = next {
                *index = place[*index];
            }
        }
    }
    ordered[0].predecessors = 1;
    for index in 0..ordered.len() {
        for next in ordered[index].successors() {
            ordered[next].predecessors += 1;
        }
    }
    ordered
}

/// Finds the registers that are used for scalars.
fn find_scalars(plan: &mut Plan) {
    let (mut doubles, mut singles, mut packed) = (0, 0, 0);
    for insn in plan.blocks.iter().flat_map(|b| &b.insns) {
        // Upper halves are no scalars.
        let written = insn.vector_writes & 0xffff;
        match insn.vector_use {
            VectorUse::Double => doubles |= written,
            VectorUse::Single => singles |= written,
            VectorUse::Packed => packed |= written,
            VectorUse::Neutral => {}
        }
    }
    plan.doubles = doubles & !packed;
    plan.singles = singles & !packed & !doubles;
}

/// Puts a poll at the entry and at every loop's head: in reverse post-order, the targets of edges
/// that do not lead forward. Without the edges into those the region has no cycle.
fn place_polls(blocks: &mut [PlanBlock]) {
    let mut polls = vec![false; blocks.len()];
    let mut in_loop = vec![false; blocks.len()];
    polls[0] = true;
    for (index, block) in blocks.iter().enumerate() {
        for next in block.successors().filter(|next| *next <= index) {
            polls[next] = true;
            in_loop[next..=index].fill(true);
        }
    }
    let mut longest = vec![0; blocks.len()];
    for index in (0..blocks.len()).rev() {
        let rest = blocks[index].successors().filter(|n| !polls[*n]).map(|n| longest[n]).max();
        longest[index] = blocks[index].insns.len() as u64 + rest.unwrap_or(0);
    }
    for (index, block) in blocks.iter_mut().enumerate() {
        block.in_loop = in_loop[index];
        block.polls = polls[index];
        block.longest = longest[index].max(1);
    }
}

/// Finds what may have changed at the start of each block.
fn spread_dirt(blocks: &mut [PlanBlock]) {
    // Passed registers are not in the vCPU.
    blocks[0].dirty = PASSED_SET;
    let mut changed = true;
    while changed {
        changed = false;
        for index in 0..blocks.len() {
            let block = &blocks[index];
            let mut after = (block.dirty, block.vector_dirty, block.flags_dirty);
            for insn in &block.insns {
                if insn.interpreted {
                    after = (0, 0, false);
                }
                after.0 |= insn.writes;
                after.1 |= insn.vector_writes;
                after.2 |= insn.writes_flags;
            }
            for next in blocks[index].successors() {
                let next = &mut blocks[next];
                let before = (next.dirty, next.vector_dirty, next.flags_dirty);
                next.dirty |= after.0;
                next.vector_dirty |= after.1;
                next.flags_dirty |= after.2;
                changed |= before != (next.dirty, next.vector_dirty, next.flags_dirty);
            }
        }
    }
}

/// What matters at a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) regs: RegSet,
    pub(crate) vectors: RegSet,
    flags: bool,
}

/// Finds what matters at the start of each block: what is read, and what has to be stored wherever
/// execution may leave.
fn find_live(plan: &mut Plan) {
    let blocks = &mut plan.blocks;
    let mut live = vec![Live::default(); blocks.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for index in (0..blocks.len()).rev() {
            let mut reloads = Vec::new();
            let now = live_at_start(&blocks[index], &live, &mut reloads);
            changed |= now != live[index];
            live[index] = now;
            reloads.reverse();
            blocks[index].reloads = reloads;
        }
    }
    for (block, live) in blocks.iter_mut().zip(&live) {
        block.flags_live = live.flags;
    }
    plan.live_in = live[0].regs;
    plan.vector_live_in = live[0].vectors;
}

/// What matters at a block's start, and, from its end to its start, after each instruction that the
/// interpreter executes.
fn live_at_start(block: &PlanBlock, live: &[Live], reloads: &mut Vec<Live>) -> Live {
    // What is dirty before each instruction, and after the last.
    let mut dirt = vec![(block.dirty, block.vector_dirty)];
    for insn in &block.insns {
        let (regs, vectors) = if insn.interpreted { (0, 0) } else { dirt[dirt.len() - 1] };
        dirt.push((regs | insn.writes, vectors | insn.vector_writes));
    }
    let (regs, vectors) = dirt[dirt.len() - 1];
    let leaves = block.taken == Next::Outside || block.falls == Next::Outside;
    let mut now = match leaves {
        true => Live { regs: regs | PASSED_SET, vectors, flags: true },
        false => Live::default(),
    };
    for next in block.successors() {
        now.regs |= live[next].regs;
        now.vectors |= live[next].vectors;
        now.flags |= live[next].flags;
    }
    for (insn, (regs, vectors)) in block.insns.iter().zip(&dirt).rev() {
        if insn.interpreted {
            reloads.push(std::mem::take(&mut now));
        }
        now.regs = now.regs & !insn.replaces | insn.reads;
        now.vectors = now.vectors & !(insn.vector_writes & !insn.vector_reads) | insn.vector_reads;
        now.flags = now.flags && !insn.replaces_flags || insn.reads_flags;
        if insn.may_leave {
            now.regs |= regs;
            now.vectors |= vectors;
            now.flags = true;
        }
    }
    if block.polls {
        now.regs |= block.dirty;
        now.vectors |= block.vector_dirty;
        now.flags = true;
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    /// test eax, eax; jz 6; inc ecx; (6:) dec edx; jnz 12; (10:) jmp to the start; (12:) ret
    const LOOP_WITH_EXIT: [u8; 13] =
        [0x85, 0xc0, 0x74, 2, 0xff, 0xc1, 0xff, 0xca, 0x75, 2, 0xeb, 0xf4, 0xc3];

    /// Where the blocks of the region at `entry` begin if those at `crowded` are in enough others.
    fn starts(entry: u16, crowded: &[u16]) -> Vec<u16> {
        let mut page = vec![0xf4; PAGE_SIZE as usize];
        page[..LOOP_WITH_EXIT.len()].copy_from_slice(&LOOP_WITH_EXIT);
        let mode = Mode::CODE64.with(Mode::CS_FLAT, true).with(Mode::PROTECTED, true);
        let crowded = |at: u16| crowded.contains(&at);
        let bounds = Bounds { most: usize::MAX, warm: &|_| true, crowded: &crowded, excluded: &[] };
        let plan = plan(&page, entry, mode, &CpuModel::default(), &bounds).expect("a plan");
        let mut starts: Vec<u16> = plan.blocks.iter().map(|b| b.start).collect();
        starts.sort_unstable();
        starts
    }

    #[test]
    fn a_crowded_block_is_left_out() {
        assert_eq!(starts(0, &[]), [0, 4, 6, 10, 12]);
        assert_eq!(starts(0, &[12]), [0, 4, 6, 10]);
    }

    #[test]
    fn a_crowded_block_of_a_loop_around_the_entry_stays() {
        assert_eq!(starts(0, &[0, 4, 6, 10]), [0, 4, 6, 10, 12]);
        assert_eq!(starts(4, &[0, 6, 10, 12]), [0, 4, 6, 10]);
    }
}
