//! How status flags can be computed again from the registers that an instruction leaves behind.
//! Where paths meet, flags with a recipe cost nothing: they need not be kept.

use brolga_cpu::backend::Bin;
use brolga_cpu::flags::FlagOp;
use brolga_mmu::Width;

use crate::plan::{Next, PlanBlock};
use crate::survey::{Effects, Known, RegSet};

/// A number that an instruction leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    Constant(u64),
    /// The low bits of a general register.
    Register(Width, u8),
}

/// The flags of an operation, in its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// [`FlagOp::Logic`] of a result.
    Logic(Width, Term),
    /// [`FlagOp::Logic`] of the result of an operation.
    LogicOf(Bin, Width, Term, Term),
    /// [`FlagOp::Add`] or [`FlagOp::Sub`] of both operands.
    Operands(FlagOp, Width, Term, Term),
    /// The same of the result and the second operand.
    ResultAndSecond(FlagOp, Width, Term, Term),
}

impl Recipe {
    fn terms(&self) -> [Term; 2] {
        match *self {
            Recipe::Logic(_, r) => [r, r],
            Recipe::LogicOf(_, _, a, b)
            | Recipe::Operands(_, _, a, b)
            | Recipe::ResultAndSecond(_, _, a, b) => [a, b],
        }
    }

    /// Whether it still holds after these registers have changed.
    fn survives(&self, writes: RegSet) -> bool {
        self.terms().iter().all(|term| match term {
            Term::Constant(_) => true,
            Term::Register(_, r) => writes >> r & 1 == 0,
        })
    }
}

/// What an instruction's meaning says of the flags that it sets, while it is surveyed.
#[derive(Default)]
pub(crate) struct Notes {
    /// Results of operations, by [`Known::Result`].
    results: Vec<(Bin, Width, Known, Known)>,
    /// What registers have been set to.
    set: Vec<(Width, u8, Known)>,
    flags: Option<(FlagOp, Width, Known, Known, Known)>,
}

impl Notes {
    pub(crate) fn result(&mut self, op: Bin, w: Width, a: Known, b: Known) -> Known {
        self.results.push((op, w, a, b));
        Known::Result(self.results.len() - 1)
    }

    pub(crate) fn set(&mut self, w: Width, slot: u8, v: Known) {
        self.set.retain(|(_, r, _)| *r != slot);
        self.set.push((w, slot, v));
    }

    pub(crate) fn flags(&mut self, op: FlagOp, w: Width, r: Known, a: Known, b: Known) {
        self.flags = Some((op, w, r, a, b));
    }

    /// The recipe for the flags that the instruction leaves, if there is one.
    pub(crate) fn recipe(&self) -> Option<Recipe> {
        let (op, w, r, a, b) = self.flags?;
        let computed = if let Known::Result(n) = r { self.results.get(n) } else { None };
        match (op, computed) {
            (FlagOp::Logic, _) if self.term(r).is_some() => Some(Recipe::Logic(w, self.term(r)?)),
            (FlagOp::Logic, Some(&(op, at, a, b))) if at == w => {
                Some(Recipe::LogicOf(op, w, self.term(a)?, self.term(b)?))
            }
            (FlagOp::Add, Some(&(Bin::Add, at, x, y)))
            | (FlagOp::Sub, Some(&(Bin::Sub, at, x, y)))
                if (at, x, y) == (w, a, b) =>
            {
                let second = self.term(b)?;
                Some(match self.term(a) {
                    Some(first) => Recipe::Operands(op, w, first, second),
                    None => Recipe::ResultAndSecond(op, w, self.term(r)?, second),
                })
            }
            _ => None,
        }
    }

    /// Where a number is to be found after the instruction.
    fn term(&self, v: Known) -> Option<Term> {
        match v {
            Known::Constant(v) => Some(Term::Constant(v)),
            Known::Register(w, r) if self.set.iter().all(|(_, set, _)| *set != r) => {
                Some(Term::Register(w, r))
            }
            Known::Result(n) => {
                let w = self.results.get(n)?.1;
                let (_, r, _) = self.set.iter().find(|(at, _, held)| (*at, *held) == (w, v))?;
                Some(Term::Register(w, *r))
            }
            _ => None,
        }
    }
}

/// How a block with several predecessors finds the flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meeting {
    /// What computes them for the predecessors in `by_recipe`, a set of their indices. For the
    /// others they are in the vCPU.
    pub(crate) recipe: Option<Recipe>,
    by_recipe: u32,
    /// There are such others.
    pub(crate) mixed: bool,
}

impl Meeting {
    /// Whether flags that come from block `from` (the region's entry is none) follow the recipe.
    pub(crate) fn follows_recipe(&self, from: Option<usize>) -> bool {
        from.is_some_and(|from| self.by_recipe >> from & 1 != 0)
    }
}

/// Finds the meetings of all blocks.
pub(crate) fn find_meetings(blocks: &mut [PlanBlock]) {
    let mut outs: Vec<Option<Recipe>> = blocks.iter().map(|b| last_recipe(&b.insns)).collect();
    for index in 0..blocks.len() {
        let from: Vec<usize> = (0..blocks.len()).filter(|p| leads(&blocks[*p], index)).collect();
        let meeting = meet(&blocks[index], index, &from, &outs);
        // Flags that are only handed on.
        let insns = &blocks[index].insns;
        if !insns.iter().any(|insn| insn.writes_flags || insn.interpreted) {
            let writes = insns.iter().fold(0, |set, insn| set | insn.writes);
            let comes_in = match blocks[index].predecessors {
                1 => from.first().and_then(|p| outs[*p]),
                _ => meeting.recipe.filter(|_| !meeting.mixed),
            };
            outs[index] = comes_in.filter(|recipe| recipe.survives(writes));
        }
        blocks[index].meeting = meeting;
    }
}

fn leads(block: &PlanBlock, to: usize) -> bool {
    block.taken == Next::Block(to) || block.falls == Next::Block(to)
}

fn meet(block: &PlanBlock, index: usize, from: &[usize], outs: &[Option<Recipe>]) -> Meeting {
    // A loop's recipe is worth most.
    let mut candidates = from.iter().rev().filter_map(|p| outs[*p]);
    let Some(recipe) = candidates.next() else { return Meeting::default() };
    let by_recipe =
        from.iter().filter(|p| outs[**p] == Some(recipe)).fold(0, |set, p| set | 1 << p);
    let others = from.iter().any(|p| outs[*p] != Some(recipe));
    debug_assert!(block.predecessors >= from.len());
    Meeting { recipe: Some(recipe), by_recipe, mixed: others || index == 0 }
}

/// The recipe for the flags at the end of a run of instructions that sets some.
fn last_recipe(insns: &[Effects]) -> Option<Recipe> {
    let last = insns.iter().rposition(|insn| insn.writes_flags || insn.interpreted)?;
    let later = insns[last + 1..].iter().fold(0, |set, insn| set | insn.writes);
    insns[last].recipe.filter(|recipe| recipe.survives(later))
}
