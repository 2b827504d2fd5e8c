//! Integer arithmetic, logic, comparison and shifts on lanes.

use brolga_cpu::vector::{ComFmt, Lane, Shift, X2};
use brolga_mmu::Width;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

use super::{Rest, Vector, integers, scalar_types};
use crate::translate::Translator;
use crate::translate::node::Node;

impl Translator<'_> {
    pub(super) fn lane_operation(&mut self, op: X2, lane: Lane, a: Vector, b: Vector) -> Vector {
        match (op, a == b) {
            // What compilers clear and fill registers with.
            (X2::Xor | X2::Sub | X2::CmpGtS | X2::AndNot, true) => return Vector::Constant(0),
            (X2::CmpEq, true) => return Vector::Constant(u128::MAX),
            (X2::And | X2::Or, true) => return a,
            (X2::And | X2::AndNot | X2::Or | X2::Xor, false) => return self.bitwise(op, a, b),
            _ => {}
        }
        let ty = integers(lane);
        let (a, b) = (self.lanes(ty, a), self.lanes(ty, b));
        let ins = self.f.ins();
        Vector::Whole(match op {
            X2::And | X2::AndNot | X2::Or | X2::Xor => unreachable!("bitwise"),
            X2::Add => ins.iadd(a, b),
            X2::Sub => ins.isub(a, b),
            X2::CmpEq => ins.icmp(IntCC::Equal, a, b),
            X2::CmpGtS => ins.icmp(IntCC::SignedGreaterThan, a, b),
            X2::MulLo => ins.imul(a, b),
            X2::AddSatS => ins.sadd_sat(a, b),
            X2::AddSatU => ins.uadd_sat(a, b),
            X2::SubSatS => ins.ssub_sat(a, b),
            X2::SubSatU => ins.usub_sat(a, b),
            X2::MinS => ins.smin(a, b),
            X2::MinU => ins.umin(a, b),
            X2::MaxS => ins.smax(a, b),
            X2::MaxU => ins.umax(a, b),
            X2::AvgU => ins.avg_round(a, b),
            X2::MulHiS => self.multiply_high(true, a, b),
            X2::MulHiU => self.multiply_high(false, a, b),
            X2::MulEvenS if lane == Lane::D => self.multiply_even_words(a, b),
            X2::MulEvenS => self.multiply_even(true, a, b),
            X2::MulEvenU => self.multiply_even(false, a, b),
        })
    }

    /// A scalar stays one: its lowest lane and the others are computed apart.
    fn bitwise(&mut self, op: X2, a: Vector, b: Vector) -> Vector {
        let scalar = |v| if let Vector::Scalar { low, .. } = v { Some(low) } else { None };
        let Some(low) = scalar(a).or(scalar(b)) else {
            let (a, b) = (self.lanes(types::I8X16, a), self.lanes(types::I8X16, b));
            return Vector::Whole(self.bits(op, a, b));
        };
        let double = self.f.func.dfg.value_type(low) == types::F64;
        let fmt = if double { ComFmt::Sd } else { ComFmt::Ss };
        let (x, y) = (self.low(fmt, a), self.low(fmt, b));
        let low = self.bits(op, x, y);
        let (x, y) = (self.upper_lanes(fmt, a), self.upper_lanes(fmt, b));
        Vector::Scalar { low, rest: Rest::Of(self.bits(op, x, y)) }
    }

    /// A vector whose lowest lane does not matter.
    pub(super) fn upper_lanes(&mut self, fmt: ComFmt, v: Vector) -> Value {
        let (scalar, vector) = scalar_types(fmt);
        match v {
            Vector::Scalar { low, rest } if self.f.func.dfg.value_type(low) == scalar => {
                self.rest(vector, rest)
            }
            _ => self.lanes(vector, v),
        }
    }

    fn bits(&mut self, op: X2, a: Value, b: Value) -> Value {
        let ins = self.f.ins();
        match op {
            X2::And => ins.band(a, b),
            X2::Or => ins.bor(a, b),
            X2::Xor => ins.bxor(a, b),
            _ => ins.band_not(b, a),
        }
    }

    /// High halves of the products of words.
    fn multiply_high(&mut self, signed: bool, a: Value, b: Value) -> Value {
        let half = |t: &mut Self, high: bool| {
            let mut widen = |v| match (signed, high) {
                (true, false) => t.f.ins().swiden_low(v),
                (true, true) => t.f.ins().swiden_high(v),
                (false, false) => t.f.ins().uwiden_low(v),
                (false, true) => t.f.ins().uwiden_high(v),
            };
            let (x, y) = (widen(a), widen(b));
            let product = t.f.ins().imul(x, y);
            let by = t.f.ins().iconst(types::I32, 16);
            let ins = t.f.ins();
            if signed { ins.sshr(product, by) } else { ins.ushr(product, by) }
        };
        let (low, high) = (half(self, false), half(self, true));
        let ins = self.f.ins();
        if signed { ins.snarrow(low, high) } else { ins.unarrow(low, high) }
    }

    /// Products of the even signed words: PMADDWD, whose other products are zero.
    fn multiply_even_words(&mut self, a: Value, b: Value) -> Value {
        let even = self.constant_lanes(types::I32X4, 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff);
        let a = self.f.ins().band(a, even);
        let (a, b) = (self.cast(types::I16X8, a), self.cast(types::I16X8, b));
        let (x, y) = (self.f.ins().swiden_low(a), self.f.ins().swiden_low(b));
        let low = self.f.ins().imul(x, y);
        let (x, y) = (self.f.ins().swiden_high(a), self.f.ins().swiden_high(b));
        let high = self.f.ins().imul(x, y);
        self.f.ins().iadd_pairwise(low, high)
    }

    /// Products of the even doublewords.
    fn multiply_even(&mut self, signed: bool, a: Value, b: Value) -> Value {
        let mut even = |v| {
            let v = self.shuffled(Vector::Whole(v), Vector::Whole(v), {
                [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]
            });
            let v = self.lanes(types::I32X4, v);
            if signed { self.f.ins().swiden_low(v) } else { self.f.ins().uwiden_low(v) }
        };
        let (a, b) = (even(a), even(b));
        self.f.ins().imul(a, b)
    }

    pub(super) fn shift_by_constant(
        &mut self,
        op: Shift,
        lane: Lane,
        a: Vector,
        count: u64,
    ) -> Vector {
        let width = u64::from(lane.bits());
        if count >= width && op != Shift::Sar {
            return Vector::Constant(0);
        }
        let a = self.lanes(integers(lane), a);
        let by = self.f.ins().iconst(types::I64, count.min(width - 1) as i64);
        Vector::Whole(self.shift_lanes(op, a, by))
    }

    pub(super) fn shift_by(&mut self, op: Shift, lane: Lane, a: Vector, count: Node) -> Vector {
        let count = self.narrow(count, Width::W64);
        let ty = integers(lane);
        let a = self.lanes(ty, a);
        let width = i64::from(lane.bits());
        let inside = self.f.ins().icmp_imm_u(IntCC::UnsignedLessThan, count, width);
        if op == Shift::Sar {
            let most = self.f.ins().iconst(types::I64, width - 1);
            let count = self.f.ins().select(inside, count, most);
            return Vector::Whole(self.shift_lanes(op, a, count));
        }
        let v = self.shift_lanes(op, a, count);
        let zero = self.constant_lanes(ty, 0);
        Vector::Whole(self.f.ins().select(inside, v, zero))
    }

    fn shift_lanes(&mut self, op: Shift, a: Value, by: Value) -> Value {
        let ins = self.f.ins();
        match op {
            Shift::Shl => ins.ishl(a, by),
            Shift::Shr => ins.ushr(a, by),
            Shift::Sar => ins.sshr(a, by),
        }
    }
}
