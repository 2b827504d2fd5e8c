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

    /// The flags are not, or not all, those of the operation noted last.
    pub(crate) fn forget_flags(&mut self) {
        self.flags = None;
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
    /// The predecessors that hand on flags of a mixed meeting with the same recipe.
    handed_on: u32,
    /// There are such others.
    pub(crate) mixed: bool,
}

impl Meeting {
    fn out(&self) -> Out {
        let out = if self.mixed { Out::Mixed } else { Out::Recipe };
        self.recipe.map_or(Out::Other, out)
    }

    /// Whether flags that come from block `from` (the region's entry is none) follow the recipe.
    pub(crate) fn follows_recipe(&self, from: Option<usize>) -> bool {
        from.is_some_and(|from| self.by_recipe >> from & 1 != 0)
    }

    /// Whether flags that come from block `from` may follow the recipe or be in the vCPU, as they
    /// did where `from` began.
    pub(crate) fn hands_on(&self, from: Option<usize>) -> bool {
        from.is_some_and(|from| self.handed_on >> from & 1 != 0)
    }
}

/// Where the flags are at the end of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Out {
    /// Elsewhere than in registers that last.
    Other,
    Recipe(Recipe),
    /// Of that recipe or in the vCPU: which is known when the code runs.
    Mixed(Recipe),
}

impl Out {
    fn recipe(self) -> Option<Recipe> {
        match self {
            Out::Other => None,
            Out::Recipe(recipe) | Out::Mixed(recipe) => Some(recipe),
        }
    }

    /// The same behind instructions that write these registers, and no flags.
    fn after(self, writes: RegSet) -> Out {
        if self.recipe().is_some_and(|recipe| recipe.survives(writes)) { self } else { Out::Other }
    }
}

/// Finds the meetings of all blocks.
pub(crate) fn find_meetings(blocks: &mut [PlanBlock]) {
    let own = |b: &PlanBlock| last_recipe(&b.insns).map_or(Out::Other, Out::Recipe);
    let mut outs: Vec<Out> = blocks.iter().map(own).collect();
    for index in 0..blocks.len() {
        let from: Vec<usize> = (0..blocks.len()).filter(|p| leads(&blocks[*p], index)).collect();
        let meeting = meet(blocks, index, &from, &outs);
        // Flags that are only handed on.
        let insns = &blocks[index].insns;
        if !insns.iter().any(|insn| insn.writes_flags || insn.interpreted) {
            let writes = insns.iter().fold(0, |set, insn| set | insn.writes);
            let comes_in = match blocks[index].predecessors {
                1 => from.first().map_or(Out::Other, |p| outs[*p]),
                _ => meeting.out(),
            };
            outs[index] = comes_in.after(writes);
        }
        blocks[index].meeting = meeting;
    }
}

fn leads(block: &PlanBlock, to: usize) -> bool {
    block.taken == Next::Block(to) || block.falls == Next::Block(to)
}

fn meet(blocks: &[PlanBlock], index: usize, from: &[usize], outs: &[Out]) -> Meeting {
    let block = &blocks[index];
    // The innermost loop's recipe is worth most: that of the nearest jump back.
    let by_distance = |p: &&usize| {
        let from = blocks[**p].start;
        (from < block.start, from.abs_diff(block.start))
    };
    let with_recipe = from.iter().filter(|p| outs[**p].recipe().is_some());
    let Some(recipe) = with_recipe.min_by_key(by_distance).and_then(|p| outs[*p].recipe()) else {
        return Meeting::default();
    };
    let with = |out| from.iter().filter(|p| outs[**p] == out).fold(0, |set, p| set | 1 << p);
    let (by_recipe, handed_on) = (with(Out::Recipe(recipe)), with(Out::Mixed(recipe)));
    let others = from.iter().any(|p| outs[*p] != Out::Recipe(recipe));
    debug_assert!(block.predecessors >= from.len());
    Meeting { recipe: Some(recipe), by_recipe, handed_on, mixed: others || index == 0 }
}

/// The recipe for the flags at the end of a run of instructions that sets some.
fn last_recipe(insns: &[Effects]) -> Option<Recipe> {
    let last = insns.iter().rposition(|insn| insn.writes_flags || insn.interpreted)?;
    let later = insns[last + 1..].iter().fold(0, |set, insn| set | insn.writes);
    insns[last].recipe.filter(|recipe| recipe.survives(later))
}

#[cfg(test)]
mod tests {
    use brolga_cpu::block::Mode;
    use brolga_cpu::cpuid::CpuModel;

    use super::*;
    use crate::plan::{Bounds, Plan, plan};

    const RAX: u8 = 0;
    const RCX: u8 = 1;
    const W32: Width = Width::W32;

    fn reg(w: Width, r: u8) -> Term {
        Term::Register(w, r)
    }

    fn planned(code: &[u8]) -> Plan {
        planned_from(0, code)
    }

    fn planned_from(entry: u16, code: &[u8]) -> Plan {
        let mut page = vec![0xf4; 4096];
        page[..code.len()].copy_from_slice(code);
        let mode = Mode::CODE64.with(Mode::CS_FLAT, true).with(Mode::PROTECTED, true);
        let bounds =
            Bounds { most: usize::MAX, warm: &|_| true, crowded: &|_| false, excluded: &[] };
        plan(&page, entry, mode, &CpuModel::default(), &bounds).expect("a plan")
    }

    /// The meeting at the head of a loop of some instructions that ends in JNE.
    fn at_loop_head(body: &[u8]) -> Meeting {
        let back = -(body.len() as i8 + 2);
        planned(&[body, &[0x75, back as u8]].concat()).blocks[0].meeting
    }

    #[test]
    fn a_comparison_of_registers_is_made_again() {
        let meeting = at_loop_head(&[0x48, 0x83, 0xc0, 1, 0x39, 0xc8]); // add rax, 1; cmp eax, ecx
        let recipe = Recipe::Operands(FlagOp::Sub, W32, reg(W32, RAX), reg(W32, RCX));
        assert_eq!(meeting.recipe, Some(recipe));
        assert!(meeting.mixed, "the region's entry brings flags in the vCPU");
        assert!(meeting.follows_recipe(Some(0)) && !meeting.follows_recipe(None));
    }

    #[test]
    fn an_operand_that_is_gone_follows_from_the_result() {
        let meeting = at_loop_head(&[0x83, 0xe9, 5]); // sub ecx, 5
        let recipe = Recipe::ResultAndSecond(FlagOp::Sub, W32, reg(W32, RCX), Term::Constant(5));
        assert_eq!(meeting.recipe, Some(recipe));
    }

    #[test]
    fn logic_needs_its_result() {
        let test = at_loop_head(&[0x84, 0xc8]); // test al, cl
        let (al, cl) = (reg(Width::W8, RAX), reg(Width::W8, RCX));
        assert_eq!(test.recipe, Some(Recipe::LogicOf(Bin::And, Width::W8, al, cl)));
        let and = at_loop_head(&[0x21, 0xc8]); // and eax, ecx
        assert_eq!(and.recipe, Some(Recipe::Logic(W32, reg(W32, RAX))));
    }

    #[test]
    fn the_innermost_loops_recipe_is_taken() {
        // add rax, 1; cmp rax, rcx; jne to the start; and edx, esi; jmp to the start
        let plan =
            planned(&[0x48, 0x83, 0xc0, 1, 0x48, 0x39, 0xc8, 0x75, 0xf7, 0x21, 0xf2, 0xeb, 0xf3]);
        let recipe =
            Recipe::Operands(FlagOp::Sub, Width::W64, reg(Width::W64, RAX), reg(Width::W64, RCX));
        assert_eq!(plan.blocks[0].meeting.recipe, Some(recipe));
    }

    #[test]
    fn flags_of_a_mixed_meeting_are_handed_on() {
        // outer: xor r8d, r8d; jmp middle; loop: mov edi, edx (the entry); middle: add esi, 1;
        // cmp eax, ecx; jne loop; jmp outer
        let code = |mov| {
            [
                0x45, 0x31, 0xc0, 0xeb, 2, 0x89, mov, 0x83, 0xc6, 1, 0x39, 0xc8, 0x75, 0xf7, 0xeb,
                0xf0,
            ]
        };
        let plan = planned_from(5, &code(0xd7));
        let middle = plan.blocks.iter().position(|b| b.start == 7).expect("where paths meet");
        let meeting = plan.blocks[middle].meeting;
        let recipe = Recipe::Operands(FlagOp::Sub, W32, reg(W32, RAX), reg(W32, RCX));
        assert_eq!(meeting.recipe, Some(recipe));
        assert!(meeting.mixed && meeting.hands_on(Some(0)) && !meeting.follows_recipe(Some(0)));
        // mov eax, edx: the recipe needs EAX
        let plan = planned_from(5, &code(0xd0));
        assert!(plan.blocks.iter().all(|b| !b.meeting.hands_on(Some(0))));
    }

    #[test]
    fn what_registers_do_not_tell_has_no_recipe() {
        let cases: [(&str, &[u8]); 8] = [
            ("cmp [rax], ecx", &[0x39, 0x08]),
            ("cmp eax, ecx; mov eax, [rdx]", &[0x39, 0xc8, 0x8b, 0x02]),
            ("adc eax, ecx", &[0x11, 0xc8]),
            ("sub eax, eax", &[0x29, 0xc0]),
            ("dec eax", &[0xff, 0xc8]),
            ("shl eax, cl", &[0xd3, 0xe0]),
            ("cmp ah, cl", &[0x38, 0xcc]),
            ("blsi eax, ecx", &[0xc4, 0xe2, 0x78, 0xf3, 0xd9]),
        ];
        for (name, body) in cases {
            assert_eq!(at_loop_head(body).recipe, None, "{name}");
        }
    }

    #[test]
    fn blocks_that_set_no_flags_hand_them_on() {
        // cmp eax, ecx; je +2; mov edx, esi; lea rdi, [rdi+1]; jne to the start
        let plan =
            planned(&[0x39, 0xc8, 0x74, 0x02, 0x89, 0xf2, 0x48, 0x8d, 0x7f, 0x01, 0x75, 0xf4]);
        let joined = plan.blocks.iter().find(|b| b.start == 6).expect("the block behind JE");
        let recipe = Recipe::Operands(FlagOp::Sub, W32, reg(W32, RAX), reg(W32, RCX));
        assert_eq!(joined.meeting.recipe, Some(recipe));
        assert!(!joined.meeting.mixed, "both ways bring the same");
        assert_eq!(plan.blocks[0].meeting.recipe, None, "it is not known before its own block");
    }
}
