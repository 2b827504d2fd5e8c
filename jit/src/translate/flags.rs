//! Status flags while code is translated: which operation set them last is mostly known, and a
//! condition is then one comparison. The formulas are those of [`brolga_cpu::flags`], which define
//! what they mean; a test compares the two.

use brolga_cpu::backend::Bin;
use brolga_cpu::core::translated::{REPLACED_MASK, offset};
use brolga_cpu::flags::{Cond, FlagOp};
use brolga_cpu::vcpu::rflags;
use brolga_mmu::Width;
use cranelift_codegen::ir::condcodes::{CondCode, FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};

use super::lazy::Parts;
use super::node::{Kind, Node, int};
use super::{Translator, at, trusted};

/// Index of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlagsId(u32);

impl FlagsId {
    /// The first state: [`State::InVcpu`].
    pub(super) const IN_VCPU: FlagsId = FlagsId(0);
}

/// Where the flags stand.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// In the vCPU: as the region found them, or stored since.
    InVcpu,
    /// Set by a known operation. `exact`: the result is that of the operation itself, without a
    /// carry or borrow in.
    Produced { op: FlagOp, w: Width, r: Node, a: Node, b: Node, exact: bool },
    /// CF, OF or both set to those of `new`, and the others left.
    Replaced { before: FlagsId, mask: u64, new: Node },
    /// Set by one or the other.
    If { c: Node, then: FlagsId, otherwise: FlagsId },
}

/// The condition codes without their negations.
#[derive(Clone, Copy)]
enum Base {
    Overflow,
    Below,
    Zero,
    BelowOrEqual,
    Sign,
    Parity,
    Less,
    LessOrEqual,
}

impl Base {
    /// The condition on `a - b` as a comparison of `a` and `b`.
    fn of_difference(self) -> Option<IntCC> {
        match self {
            Base::Zero => Some(IntCC::Equal),
            Base::Below => Some(IntCC::UnsignedLessThan),
            Base::BelowOrEqual => Some(IntCC::UnsignedLessThanOrEqual),
            Base::Less => Some(IntCC::SignedLessThan),
            Base::LessOrEqual => Some(IntCC::SignedLessThanOrEqual),
            Base::Overflow | Base::Sign | Base::Parity => None,
        }
    }
}

fn base(cc: Cond) -> (Base, bool) {
    use Base::*;
    let all = [Overflow, Below, Zero, BelowOrEqual, Sign, Parity, Less, LessOrEqual];
    (all[cc as usize / 2], cc as usize % 2 == 1)
}

/// What a condition on an operation is computed from.
struct Producer {
    op: FlagOp,
    w: Width,
    r: Node,
    a: Node,
    b: Node,
    exact: bool,
}

impl Translator<'_> {
    pub(super) fn flag_state(&mut self, state: State) -> FlagsId {
        self.flag_states.push(state);
        FlagsId(self.flag_states.len() as u32 - 1)
    }

    pub(super) fn state(&self, id: FlagsId) -> State {
        self.flag_states[id.0 as usize]
    }

    /// The state after an operation.
    pub(super) fn produced(&mut self, op: FlagOp, w: Width, r: Node, a: Node, b: Node) -> FlagsId {
        let exact = match op {
            FlagOp::Add => self.kind(r) == Kind::Bin(Bin::Add, a, b),
            FlagOp::Sub => self.kind(r) == Kind::Bin(Bin::Sub, a, b),
            _ => false,
        };
        self.flag_state(State::Produced { op, w, r, a, b, exact })
    }

    /// The state after an operation that sets flags only if `c`.
    pub(super) fn produced_if(
        &mut self,
        c: Node,
        op: FlagOp,
        w: Width,
        r: Node,
        a: Node,
        b: Node,
    ) -> FlagsId {
        let otherwise = self.flags;
        let then = self.produced(op, w, r, a, b);
        self.flag_state(State::If { c, then, otherwise })
    }

    /// A condition, 0 or 1 in 8 bits.
    pub(super) fn flag(&mut self, flags: FlagsId, cc: Cond) -> Value {
        let (base, negated) = base(cc);
        let v = match self.state(flags) {
            State::Produced { op, w, r, a, b, exact } => {
                let p = Producer { op, w, r, a, b, exact };
                if let Some(flag) = self.compared(&p, base, negated) {
                    return flag;
                }
                if let (FlagOp::Bits, Kind::Compared(a, b)) = (op, self.kind(r)) {
                    return self.compared_flag(a, b, base, negated);
                }
                self.produced_flag(&p, base)
            }
            State::If { c, then, otherwise: FlagsId::IN_VCPU } => self.flag_if(c, then, even(cc)),
            State::If { c, then, otherwise } => {
                let even = even(cc);
                let c = self.condition(c);
                let (x, y) = (self.flag(then, even), self.flag(otherwise, even));
                self.f.ins().select(c, x, y)
            }
            State::Replaced { before, mask, new } => self.replaced_flag(before, mask, new, base),
            State::InVcpu => self.unknown_flag(flags, base),
        };
        if negated { self.f.ins().bxor_imm_u(v, 1) } else { v }
    }

    /// The condition, or its negation, by one comparison, where it is one.
    fn compared(&mut self, p: &Producer, base: Base, negated: bool) -> Option<Value> {
        let (cc, x, y) = self.comparison(p, base)?;
        let cc = if negated { cc.complement() } else { cc };
        let (x, y) = (self.narrow(x, p.w), self.narrow(y, p.w));
        Some(self.f.ins().icmp(cc, x, y))
    }

    /// The condition as one comparison, where it is one.
    fn comparison(&mut self, p: &Producer, base: Base) -> Option<(IntCC, Node, Node)> {
        let zero = |t: &mut Self, cc| Some((cc, p.r, t.constant(0)));
        match (p.op, base) {
            (FlagOp::Bits, _) => None,
            (FlagOp::Sub, _) if p.exact && base.of_difference().is_some() => {
                base.of_difference().map(|cc| (cc, p.a, p.b))
            }
            (FlagOp::Add, Base::Below) if p.exact => Some((IntCC::UnsignedLessThan, p.r, p.a)),
            (FlagOp::Add, Base::Less | Base::LessOrEqual) if p.exact => {
                // Whether a + b < 0 in numbers without end: a < -b, where -b exists.
                let b = self.as_const(p.b).filter(|b| b & p.w.mask() != p.w.sign_bit())?;
                let negated = self.constant(b.wrapping_neg() & p.w.mask());
                base.of_difference().map(|cc| (cc, p.a, negated))
            }
            (FlagOp::Inc | FlagOp::Dec, Base::Less | Base::LessOrEqual) => {
                let Kind::Bin(Bin::Add | Bin::Sub, a, _) = self.kind(p.r) else { return None };
                let negated = if p.op == FlagOp::Inc { p.w.mask() } else { 1 };
                let negated = self.constant(negated);
                base.of_difference().map(|cc| (cc, a, negated))
            }
            (_, Base::Zero) | (FlagOp::Logic, Base::BelowOrEqual) => zero(self, IntCC::Equal),
            (_, Base::Sign) | (FlagOp::Logic, Base::Less) => zero(self, IntCC::SignedLessThan),
            (FlagOp::Logic, Base::LessOrEqual) => zero(self, IntCC::SignedLessThanOrEqual),
            _ => None,
        }
    }

    /// A condition, or its negation, after a comparison of floating-point numbers: forms that are
    /// one condition code each.
    fn compared_flag(&mut self, a: Value, b: Value, base: Base, negated: bool) -> Value {
        let cc = match base {
            Base::Below => FloatCC::UnorderedOrLessThan,
            Base::Zero | Base::LessOrEqual => FloatCC::UnorderedOrEqual,
            Base::BelowOrEqual => FloatCC::UnorderedOrLessThanOrEqual,
            Base::Overflow | Base::Sign | Base::Parity | Base::Less => {
                return self.constant_flag(negated);
            }
        };
        self.f.ins().fcmp(if negated { cc.complement() } else { cc }, a, b)
    }

    fn produced_flag(&mut self, p: &Producer, base: Base) -> Value {
        if let Some(flag) = self.compared(p, base, false) {
            return flag;
        }
        if p.op == FlagOp::Bits {
            if let Kind::Compared(a, b) = self.kind(p.r) {
                return self.compared_flag(a, b, base, false);
            }
            let r = self.wide(p.r);
            return self.bit_flag(r, base);
        }
        match base {
            Base::Zero => self.compare_zero(p, IntCC::Equal),
            Base::Sign => self.compare_zero(p, IntCC::SignedLessThan),
            Base::Below => self.carry(p),
            Base::Overflow => self.overflow(p),
            Base::Parity => {
                let r = self.narrow(p.r, Width::W8);
                self.parity(r)
            }
            Base::BelowOrEqual => {
                let (x, y) = (self.carry(p), self.compare_zero(p, IntCC::Equal));
                self.f.ins().bor(x, y)
            }
            Base::Less => self.less(p),
            Base::LessOrEqual => {
                let (x, y) = (self.less(p), self.compare_zero(p, IntCC::Equal));
                self.f.ins().bor(x, y)
            }
        }
    }

    fn compare_zero(&mut self, p: &Producer, cc: IntCC) -> Value {
        let r = self.narrow(p.r, p.w);
        self.f.ins().icmp_imm_s(cc, r, 0)
    }

    fn less(&mut self, p: &Producer) -> Value {
        let (sign, overflow) = (self.compare_zero(p, IntCC::SignedLessThan), self.overflow(p));
        self.f.ins().bxor(sign, overflow)
    }

    fn constant_flag(&mut self, on: bool) -> Value {
        self.f.ins().iconst(types::I8, i64::from(on))
    }

    /// Whether a value of a width has its top bit set.
    fn negative(&mut self, v: Value) -> Value {
        self.f.ins().icmp_imm_s(IntCC::SignedLessThan, v, 0)
    }

    fn carry(&mut self, p: &Producer) -> Value {
        if let Some(flag) = self.compared(p, Base::Below, false) {
            return flag;
        }
        match p.op {
            FlagOp::Add | FlagOp::Sub => self.carry_chain(p),
            FlagOp::Logic | FlagOp::Bits => self.constant_flag(false),
            FlagOp::Inc | FlagOp::Dec | FlagOp::Mul => self.is_set(p.b),
            FlagOp::Shl | FlagOp::Shr | FlagOp::Sar => self.shifted_out(p),
        }
    }

    /// Whether a number that is 0 or 1 is 1.
    fn is_set(&mut self, n: Node) -> Value {
        if let Kind::OfCondition(c) = self.kind(n) {
            return self.condition(c);
        }
        let v = self.wide(n);
        self.f.ins().icmp_imm_u(IntCC::NotEqual, v, 0)
    }

    /// The carry or borrow out of the top, with any carry in.
    fn carry_chain(&mut self, p: &Producer) -> Value {
        let (r, b) = (self.narrow(p.r, p.w), self.narrow(p.b, p.w));
        let a = self.narrow(p.a, p.w);
        let (a, rest) = match p.op {
            FlagOp::Add => (a, self.f.ins().bnot(r)),
            _ => (self.f.ins().bnot(a), r),
        };
        let both = self.f.ins().band(a, b);
        let either = self.f.ins().bor(a, b);
        let passed = self.f.ins().band(either, rest);
        let out = self.f.ins().bor(both, passed);
        self.negative(out)
    }

    /// The last bit that a shift moved out.
    fn shifted_out(&mut self, p: &Producer) -> Value {
        let count = self.wide(p.b);
        let v = match p.op {
            FlagOp::Shl if p.w == Width::W64 => {
                let a = self.wide(p.a);
                let width = self.f.ins().iconst(types::I64, 64);
                let by = self.f.ins().isub(width, count);
                self.f.ins().ushr(a, by)
            }
            FlagOp::Shl => {
                let a = self.wide(p.a);
                let moved = self.f.ins().ishl(a, count);
                self.f.ins().ushr_imm_u(moved, i64::from(p.w.bits()))
            }
            op => {
                let by = self.f.ins().iadd_imm_s(count, -1);
                if op == FlagOp::Shr || p.w == Width::W64 {
                    let a = self.wide(p.a);
                    let ins = self.f.ins();
                    if op == FlagOp::Shr { ins.ushr(a, by) } else { ins.sshr(a, by) }
                } else {
                    let a = self.narrow(p.a, p.w);
                    let a = self.f.ins().sextend(types::I64, a);
                    self.f.ins().sshr(a, by)
                }
            }
        };
        let bit = self.f.ins().ireduce(types::I8, v);
        self.f.ins().band_imm_u(bit, 1)
    }

    fn overflow(&mut self, p: &Producer) -> Value {
        let sign = (p.w.sign_bit() as i64) << (64 - p.w.bits()) >> (64 - p.w.bits());
        match p.op {
            FlagOp::Logic | FlagOp::Sar | FlagOp::Bits => self.constant_flag(false),
            FlagOp::Mul => self.is_set(p.b),
            FlagOp::Add | FlagOp::Sub => {
                let (r, a) = (self.narrow(p.r, p.w), self.narrow(p.a, p.w));
                let b = self.narrow(p.b, p.w);
                let x = self.f.ins().bxor(a, r);
                let y = if p.op == FlagOp::Add { r } else { a };
                let y = self.f.ins().bxor(b, y);
                let both = self.f.ins().band(x, y);
                self.negative(both)
            }
            FlagOp::Inc | FlagOp::Dec => {
                let r = self.narrow(p.r, p.w);
                let edge = if p.op == FlagOp::Inc { sign } else { !sign };
                let edge = self.f.ins().iconst(int(p.w), edge & p.w.mask() as i64);
                self.f.ins().icmp(IntCC::Equal, r, edge)
            }
            FlagOp::Shl => {
                let r = self.narrow(p.r, p.w);
                let (sign, carry) = (self.negative(r), self.carry(p));
                self.f.ins().bxor(sign, carry)
            }
            FlagOp::Shr => {
                let r = self.narrow(p.r, p.w);
                let doubled = self.f.ins().ishl_imm_u(r, 1);
                let differs = self.f.ins().bxor(doubled, r);
                self.negative(differs)
            }
        }
    }

    /// Whether the number of ones in 8 bits is even.
    fn parity(&mut self, v: Value) -> Value {
        let v = self.f.ins().uextend(types::I32, v);
        let high = self.f.ins().ushr_imm_u(v, 4);
        let folded = self.f.ins().bxor(v, high);
        let index = self.f.ins().band_imm_u(folded, 15);
        // Bit n: whether n, of four bits, has an even number of ones.
        let table = self.f.ins().iconst(types::I32, 0x9669);
        let bit = self.f.ins().ushr(table, index);
        let bit = self.f.ins().ireduce(types::I8, bit);
        self.f.ins().band_imm_u(bit, 1)
    }

    /// A condition on flags in their RFLAGS positions.
    fn bit_flag(&mut self, status: Value, base: Base) -> Value {
        let any = |t: &mut Self, mask: u64| {
            let v = t.f.ins().band_imm_u(status, mask as i64);
            t.f.ins().icmp_imm_u(IntCC::NotEqual, v, 0)
        };
        match base {
            Base::Overflow => any(self, rflags::OF),
            Base::Below => any(self, rflags::CF),
            Base::Zero => any(self, rflags::ZF),
            Base::BelowOrEqual => any(self, rflags::CF | rflags::ZF),
            Base::Sign => any(self, rflags::SF),
            Base::Parity => any(self, rflags::PF),
            Base::Less | Base::LessOrEqual => {
                let (s, o) = (any(self, rflags::SF), any(self, rflags::OF));
                let less = self.f.ins().bxor(s, o);
                if matches!(base, Base::Less) {
                    return less;
                }
                let zero = any(self, rflags::ZF);
                self.f.ins().bor(less, zero)
            }
        }
    }

    /// A condition on flags of which some have been replaced.
    fn replaced_flag(&mut self, before: FlagsId, mask: u64, new: Node, base: Base) -> Value {
        match base {
            Base::Overflow => self.replaced_bit(before, mask, new, rflags::OF),
            Base::Below => self.replaced_bit(before, mask, new, rflags::CF),
            Base::Zero => self.flag(before, Cond::E),
            Base::Sign => self.flag(before, Cond::S),
            Base::Parity => self.flag(before, Cond::P),
            Base::BelowOrEqual => {
                let carry = self.replaced_bit(before, mask, new, rflags::CF);
                let zero = self.flag(before, Cond::E);
                self.f.ins().bor(carry, zero)
            }
            Base::Less | Base::LessOrEqual => {
                let overflow = self.replaced_bit(before, mask, new, rflags::OF);
                let sign = self.flag(before, Cond::S);
                let less = self.f.ins().bxor(sign, overflow);
                if matches!(base, Base::Less) {
                    return less;
                }
                let zero = self.flag(before, Cond::E);
                self.f.ins().bor(less, zero)
            }
        }
    }

    /// CF or OF, of which `mask` have been replaced.
    fn replaced_bit(&mut self, before: FlagsId, mask: u64, new: Node, flag: u64) -> Value {
        if mask & flag == 0 {
            return self.flag(before, if flag == rflags::CF { Cond::B } else { Cond::O });
        }
        if mask == rflags::CF {
            return self.is_set(new);
        }
        let new = self.wide(new);
        let bit = self.f.ins().band_imm_u(new, flag as i64);
        self.f.ins().icmp_imm_u(IntCC::NotEqual, bit, 0)
    }

    /// A condition on flags whose producer is known only when the code runs.
    fn unknown_flag(&mut self, flags: FlagsId, base: Base) -> Value {
        let parts = self.parts(flags);
        if !matches!(base, Base::Below) {
            let status = self.call_status(parts);
            return self.bit_flag(status, base);
        }
        // INC and DEC in a loop hand the carry on and on.
        let (slow, on) = (self.cold_block(), self.f.create_block());
        let result = self.f.append_block_param(on, types::I8);
        let op = self.f.ins().band_imm_u(parts.op, 0xff | i64::from(u16::MAX) << REPLACED_MASK);
        let from_inc = self.f.ins().iadd_imm_s(op, -(FlagOp::Inc as i64));
        let keeps = self.f.ins().icmp_imm_u(IntCC::UnsignedLessThanOrEqual, from_inc, 1);
        let kept = self.f.ins().ireduce(types::I8, parts.b);
        self.f.ins().brif(keeps, on, &[kept.into()], slow, &[]);
        self.f.seal_block(slow);
        self.f.switch_to_block(slow);
        let status = self.call_status(parts);
        let carry = self.f.ins().ireduce(types::I8, status);
        let carry = self.f.ins().band_imm_u(carry, rflags::CF as i64);
        self.f.ins().jump(on, &[carry.into()]);
        self.f.seal_block(on);
        self.f.switch_to_block(on);
        result
    }

    fn call_status(&mut self, parts: Parts) -> Value {
        let function = self.f.ins().load(types::I64, trusted(), self.core, at(offset::STATUS));
        let arguments = [self.core, parts.r, parts.a, parts.b, parts.op];
        self.f.ins().call_indirect(self.signatures.status, function, &arguments);
        self.load_field(offset::RESULT)
    }

    /// The six flags in their RFLAGS positions.
    pub(super) fn status_bits(&mut self, flags: FlagsId) -> Value {
        match self.state(flags) {
            State::Produced { op: FlagOp::Bits, r, .. } => self.wide(r),
            State::Produced { op, w, r, a, b, exact } => {
                self.produced_status(&Producer { op, w, r, a, b, exact })
            }
            State::Replaced { before, mask, new } => {
                let (status, new) = (self.status_bits(before), self.wide(new));
                let kept = self.f.ins().band_imm_s(status, !mask as i64);
                self.f.ins().bor(kept, new)
            }
            State::If { c, then, otherwise } => {
                let c = self.condition(c);
                let (x, y) = (self.status_bits(then), self.status_bits(otherwise));
                self.f.ins().select(c, x, y)
            }
            State::InVcpu => {
                let parts = self.parts(flags);
                self.call_status(parts)
            }
        }
    }

    fn produced_status(&mut self, p: &Producer) -> Value {
        let bits = [
            (Base::Below, 0),
            (Base::Parity, 2),
            (Base::Zero, 6),
            (Base::Sign, 7),
            (Base::Overflow, 11),
        ];
        let mut status = self.adjust(p);
        for (base, position) in bits {
            let bit = self.produced_flag(p, base);
            let bit = self.f.ins().uextend(types::I64, bit);
            let bit = self.f.ins().ishl_imm_u(bit, position);
            status = self.f.ins().bor(status, bit);
        }
        status
    }

    /// AF in its position.
    fn adjust(&mut self, p: &Producer) -> Value {
        let af = rflags::AF as i64;
        match p.op {
            FlagOp::Add | FlagOp::Sub => {
                let (r, a, b) = (self.wide(p.r), self.wide(p.a), self.wide(p.b));
                let x = self.f.ins().bxor(a, b);
                let x = self.f.ins().bxor(x, r);
                self.f.ins().band_imm_u(x, af)
            }
            FlagOp::Inc | FlagOp::Dec => {
                let r = self.wide(p.r);
                let low = self.f.ins().band_imm_u(r, 15);
                let edge = if p.op == FlagOp::Inc { 0 } else { 15 };
                let on = self.f.ins().icmp_imm_u(IntCC::Equal, low, edge);
                let on = self.f.ins().uextend(types::I64, on);
                self.f.ins().ishl_imm_u(on, 4)
            }
            _ => self.f.ins().iconst(types::I64, 0),
        }
    }

    /// A condition on `then` if `c`, and otherwise on the flags in the vCPU: rarely, and by a call.
    fn flag_if(&mut self, c: Node, then: FlagsId, cc: Cond) -> Value {
        let c = self.condition(c);
        let (known, unknown) = (self.f.create_block(), self.cold_block());
        let on = self.f.create_block();
        let result = self.f.append_block_param(on, types::I8);
        self.f.ins().brif(c, known, &[], unknown, &[]);
        for (block, flags) in [(known, then), (unknown, FlagsId::IN_VCPU)] {
            self.f.seal_block(block);
            self.f.switch_to_block(block);
            let mark = self.mark();
            let flag = self.flag(flags, cc);
            self.forget_since(mark);
            self.f.ins().jump(on, &[flag.into()]);
        }
        self.f.seal_block(on);
        self.f.switch_to_block(on);
        result
    }
}

/// The condition code without negation.
fn even(cc: Cond) -> Cond {
    use Cond::*;
    [O, B, E, Be, S, P, L, Le][cc as usize / 2]
}
