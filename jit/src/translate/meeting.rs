//! Status flags where paths meet: computed again from registers by a [`Recipe`] where there is one,
//! and in the vCPU otherwise.

use brolga_cpu::backend::{Backend, Bin};
use brolga_cpu::flags::FlagOp;
use brolga_mmu::Width;
use cranelift_codegen::ir::{InstBuilder, types};

use super::Translator;
use super::flags::{FlagsId, State};
use super::node::{Kind, Node};
use crate::plan::PlanBlock;
use crate::recipe::{Meeting, Recipe, Term};

impl Translator<'_> {
    /// The flags at the start of a block with several predecessors.
    pub(super) fn meet(&mut self, block: &PlanBlock) -> FlagsId {
        let Meeting { recipe: Some(recipe), mixed, .. } = block.meeting else {
            return FlagsId::IN_VCPU;
        };
        if !block.flags_dirty || !block.flags_live {
            return FlagsId::IN_VCPU;
        }
        let then = self.follow(&recipe);
        if !mixed {
            return then;
        }
        let by_recipe = self.f.use_var(self.by_recipe);
        let c = self.given_narrow(Width::W8, by_recipe);
        self.flag_state(State::If { c, then, otherwise: FlagsId::IN_VCPU })
    }

    /// Leaves the flags where a block expects them.
    pub(super) fn go_to_meeting(&mut self, meeting: &Meeting) {
        // The block has set no flags: what holds at its start holds now, and the variable says it.
        if meeting.hands_on(self.index) && matches!(self.state(self.flags), State::If { .. }) {
            return;
        }
        let follows = meeting.follows_recipe(self.index);
        if !follows {
            self.store_flags(self.flags);
        }
        if meeting.mixed {
            let follows = self.f.ins().iconst(types::I8, i64::from(follows));
            self.f.def_var(self.by_recipe, follows);
        }
    }

    fn follow(&mut self, recipe: &Recipe) -> FlagsId {
        let (op, w, r, a, b) = match *recipe {
            Recipe::Logic(w, r) => {
                let r = self.term(r);
                (FlagOp::Logic, w, r, r, r)
            }
            Recipe::LogicOf(op, w, a, b) => {
                let (a, b) = (self.term(a), self.term(b));
                let r = self.bin(op, w, a, b);
                (FlagOp::Logic, w, r, a, b)
            }
            Recipe::Operands(op, w, a, b) => {
                let (a, b) = (self.term(a), self.term(b));
                (op, w, self.forward(op, w, a, b), a, b)
            }
            Recipe::ResultAndSecond(op, w, r, b) => {
                let (r, b) = (self.term(r), self.term(b));
                (op, w, r, self.backward(op, w, r, b), b)
            }
        };
        self.flag_state(State::Produced { op, w, r, a, b, exact: true })
    }

    fn term(&mut self, term: Term) -> Node {
        match term {
            Term::Constant(v) => self.constant(v),
            Term::Register(w, r) => self.reg(w, r),
        }
    }

    /// The result of an addition or a subtraction.
    fn forward(&mut self, op: FlagOp, w: Width, a: Node, b: Node) -> Node {
        let op = if op == FlagOp::Add { Bin::Add } else { Bin::Sub };
        self.node(w, Kind::Bin(op, a, b))
    }

    /// The first operand that led to a result.
    fn backward(&mut self, op: FlagOp, w: Width, r: Node, b: Node) -> Node {
        let undo = if op == FlagOp::Add { FlagOp::Sub } else { FlagOp::Add };
        self.forward(undo, w, r, b)
    }
}
