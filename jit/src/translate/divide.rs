//! Division by the host's instruction, where it cannot trap: other cases leave.

use brolga_mmu::Width;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

use super::Translator;
use super::node::{Node, int};

impl Translator<'_> {
    /// 128 bits by 64, where the upper half is the extension of the lower one.
    pub(super) fn divide_single(
        &mut self,
        signed: bool,
        high: Node,
        low: Node,
        by: Node,
    ) -> (Node, Node) {
        let (high, low, by) = (self.wide(high), self.wide(low), self.wide(by));
        let wide = if signed {
            let extension = self.f.ins().sshr_imm_u(low, 63);
            self.f.ins().icmp(IntCC::NotEqual, high, extension)
        } else {
            self.f.ins().icmp_imm_u(IntCC::NotEqual, high, 0)
        };
        self.leave_if(wide);
        let (quotient, remainder) = self.host_division(signed, low, by);
        (self.given(Width::W64, quotient), self.given(Width::W64, remainder))
    }

    /// At most 64 bits by half of them.
    pub(super) fn divide_double(
        &mut self,
        signed: bool,
        w: Width,
        high: Node,
        low: Node,
        by: Node,
    ) -> (Node, Node) {
        let (low, narrow_by) = (self.wide(low), self.narrow(by, w));
        let high = self.narrow(high, w);
        let extend = |t: &mut Self, v: Value| match signed {
            true => t.f.ins().sextend(types::I64, v),
            false => t.f.ins().uextend(types::I64, v),
        };
        let (high, by) = (extend(self, high), extend(self, narrow_by));
        let upper = self.f.ins().ishl_imm_u(high, i64::from(w.bits()));
        let dividend = self.f.ins().bor(upper, low);
        let (quotient, remainder) = self.host_division(signed, dividend, by);
        let narrow = self.f.ins().ireduce(int(w), quotient);
        let back = extend(self, narrow);
        let cut = self.f.ins().icmp(IntCC::NotEqual, back, quotient);
        self.leave_if(cut);
        let remainder = self.f.ins().ireduce(int(w), remainder);
        (self.given_narrow(w, narrow), self.given_narrow(w, remainder))
    }

    /// 64 bits by 64, unless the host would trap (SDM vol. 2, DIV and IDIV).
    fn host_division(&mut self, signed: bool, n: Value, by: Value) -> (Value, Value) {
        let zero = self.f.ins().icmp_imm_u(IntCC::Equal, by, 0);
        self.leave_if(zero);
        let quotient = if signed {
            let lowest = self.f.ins().icmp_imm_s(IntCC::Equal, n, i64::MIN);
            let negates = self.f.ins().icmp_imm_s(IntCC::Equal, by, -1);
            let overflows = self.f.ins().band(lowest, negates);
            self.leave_if(overflows);
            self.f.ins().sdiv(n, by)
        } else {
            self.f.ins().udiv(n, by)
        };
        let product = self.f.ins().imul(quotient, by);
        let remainder = self.f.ins().isub(n, product);
        (quotient, remainder)
    }
}
