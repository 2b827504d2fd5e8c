//! The vCPU's lazy flags: read and written where the flags of a region meet those of the
//! interpreter and of other regions.

use brolga_cpu::core::translated::{
    REPLACED_FLAGS, REPLACED_MASK, Translated, offset, packed_flag_op,
};
use brolga_cpu::flags::FlagOp;
use cranelift_codegen::ir::{InstBuilder, Value, types};

use super::flags::{FlagsId, State};
use super::node::Node;
use super::{Translator, at, trusted};

/// A lazy state; `op` is packed.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub(super) r: Value,
    pub(super) a: Value,
    pub(super) b: Value,
    pub(super) op: Value,
}

impl Translator<'_> {
    /// The values to be stored for a state that the region has produced.
    pub(super) fn parts(&mut self, flags: FlagsId) -> Parts {
        match self.state(flags) {
            State::InVcpu => {
                let mut load = |field| self.load_field(offset::FLAGS + field);
                Parts {
                    r: load(offset::OF_R),
                    a: load(offset::OF_A),
                    b: load(offset::OF_B),
                    op: load(offset::OF_OP),
                }
            }
            State::Produced { op, w, r, a, b, .. } => {
                let (has_a, has_b) = counts(op);
                let r = self.wide(r);
                let a = if has_a { self.wide(a) } else { r };
                let b = if has_b { self.wide(b) } else { r };
                let op = packed_flag_op(op, w) as i64;
                Parts { r, a, b, op: self.f.ins().iconst(types::I64, op) }
            }
            State::Replaced { before, mask, new } => {
                let (parts, new) = (self.parts(before), self.wide(new));
                Parts { op: self.replaced_op(parts.op, mask, new), ..parts }
            }
            State::If { c, then, otherwise } => {
                let c = self.condition(c);
                let (x, y) = (self.parts(then), self.parts(otherwise));
                let mut choose = |x, y| self.f.ins().select(c, x, y);
                Parts {
                    r: choose(x.r, y.r),
                    a: choose(x.a, y.a),
                    b: choose(x.b, y.b),
                    op: choose(x.op, y.op),
                }
            }
        }
    }

    /// Stores the flags where the interpreter expects them.
    pub(super) fn store_flags(&mut self, flags: FlagsId) {
        match self.state(flags) {
            State::InVcpu => return,
            State::If { c, then, otherwise: FlagsId::IN_VCPU } => {
                return self.store_flags_if(c, then);
            }
            _ => {}
        }
        self.store_parts(flags, offset::FLAGS);
    }

    /// Stores the flags where [`brolga_cpu::core::Core::take_exit`] finds them, as code must that goes
    /// on in the region afterwards: states that replace some flags, or set them on a condition, are
    /// made of those in the vCPU. Which parts, as bits of [`Translated::exit`], and the condition on
    /// which they count.
    pub(super) fn prepare_flags(&mut self, flags: FlagsId) -> (u64, Option<Value>) {
        match self.state(flags) {
            State::InVcpu => (0, None),
            State::If { c, then, otherwise: FlagsId::IN_VCPU } => {
                let c = self.condition(c);
                (self.store_parts(then, offset::LEFT_FLAGS), Some(c))
            }
            _ => (self.store_parts(flags, offset::LEFT_FLAGS), None),
        }
    }

    /// Stores the parts that are not those in the vCPU; which, as bits of [`Translated::exit`].
    fn store_parts(&mut self, flags: FlagsId, to: usize) -> u64 {
        let (has_r, has_a, has_b) = self.differs(flags);
        let parts = self.parts(flags);
        let mut stored = 0;
        for (v, field, bit, wanted) in [
            (parts.r, offset::OF_R, Translated::FLAGS_R, has_r),
            (parts.op, offset::OF_OP, Translated::FLAGS_OP, true),
            (parts.a, offset::OF_A, Translated::FLAGS_A, has_a),
            (parts.b, offset::OF_B, Translated::FLAGS_B, has_b),
        ] {
            if wanted {
                self.f.ins().store(trusted(), v, self.core, at(to + field));
                stored |= bit;
            }
        }
        stored
    }

    /// Which of the result and the operands count and are not those in the vCPU.
    fn differs(&self, flags: FlagsId) -> (bool, bool, bool) {
        match self.state(flags) {
            State::InVcpu => (false, false, false),
            State::Produced { op, .. } => {
                let (a, b) = counts(op);
                (true, a, b)
            }
            State::Replaced { before, .. } => self.differs(before),
            State::If { .. } => (true, true, true),
        }
    }

    /// A packed operation under which flags are replaced.
    fn replaced_op(&mut self, op: Value, mask: u64, new: Value) -> Value {
        let kept = self.f.ins().band_imm_s(op, !(mask << REPLACED_FLAGS) as i64);
        let marked = self.f.ins().bor_imm_u(kept, (mask << REPLACED_MASK) as i64);
        let new = self.f.ins().ishl_imm_u(new, i64::from(REPLACED_FLAGS));
        self.f.ins().bor(marked, new)
    }

    /// Stores flags if `c`; otherwise those in the vCPU are the right ones.
    fn store_flags_if(&mut self, c: Node, then: FlagsId) {
        let c = self.condition(c);
        let cold = self.f.current_block().is_some_and(|block| self.f.func.layout.is_cold(block));
        let (store, on) = (self.f.create_block(), self.f.create_block());
        if cold {
            self.f.set_cold_block(store);
            self.f.set_cold_block(on);
        }
        self.f.ins().brif(c, store, &[], on, &[]);
        self.f.seal_block(store);
        self.f.switch_to_block(store);
        let mark = self.mark();
        self.store_flags(then);
        self.forget_since(mark);
        self.f.ins().jump(on, &[]);
        self.f.seal_block(on);
        self.f.switch_to_block(on);
    }
}

/// Whether the operands `a` and `b` of an operation count, beside its result.
fn counts(op: FlagOp) -> (bool, bool) {
    match op {
        FlagOp::Bits | FlagOp::Logic => (false, false),
        FlagOp::Inc | FlagOp::Dec | FlagOp::Mul => (false, true),
        _ => (true, true),
    }
}
