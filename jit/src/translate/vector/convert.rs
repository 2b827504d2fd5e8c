//! Conversions between integers and floating point, and between precisions.

use brolga_cpu::vector::{ComFmt, Cvt, IntCvt};
use brolga_mmu::Width;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};

use super::{Vector, scalar_types};
use crate::operations::Operation;
use crate::translate::Translator;
use crate::translate::node::Node;

/// 2^63: what 64 bits cannot hold.
const LIMIT: f32 = (1u64 << 63) as f32;

impl Translator<'_> {
    pub(super) fn convert(&mut self, op: Cvt, upper: Vector, a: Vector) -> Vector {
        let v = match op {
            Cvt::Ps2Dq => return self.vector_operation(Operation::Ps2Dq, a, a),
            Cvt::Pd2Dq => return self.vector_operation(Operation::Pd2Dq, a, a),
            Cvt::Ph2Ps => return self.vector_operation(Operation::Ph2Ps, a, a),
            Cvt::Ps2Ph(how) => return self.vector_operation(Operation::Ps2Ph(how), a, a),
            Cvt::Ss2Sd => {
                let a = self.low(ComFmt::Ss, a);
                let v = self.f.ins().fpromote(types::F64, a);
                let v = self.float_result(v);
                return self.with_low(v, upper);
            }
            Cvt::Sd2Ss => {
                let a = self.low(ComFmt::Sd, a);
                let v = self.f.ins().fdemote(types::F32, a);
                let v = self.float_result(v);
                return self.with_low(v, upper);
            }
            Cvt::Dq2Ps => {
                let a = self.lanes(types::I32X4, a);
                self.f.ins().fcvt_from_sint(types::F32X4, a)
            }
            Cvt::Dq2Pd => {
                let a = self.lanes(types::I32X4, a);
                let a = self.f.ins().swiden_low(a);
                self.f.ins().fcvt_from_sint(types::F64X2, a)
            }
            Cvt::TPs2Dq => {
                let a = self.lanes(types::F32X4, a);
                self.f.ins().x86_cvtt2dq(types::I32X4, a)
            }
            Cvt::TPd2Dq => {
                let a = self.lanes(types::F64X2, a);
                self.truncate_doubles(a)
            }
            Cvt::Ps2Pd => {
                let a = self.lanes(types::F32X4, a);
                self.f.ins().fvpromote_low(a)
            }
            Cvt::Pd2Ps => {
                let a = self.lanes(types::F64X2, a);
                self.f.ins().fvdemote(a)
            }
        };
        Vector::Whole(self.float_result(v))
    }

    /// CVTTPD2DQ, which Cranelift makes of exactly this.
    fn truncate_doubles(&mut self, a: Value) -> Value {
        let v = self.f.ins().x86_cvtt2dq(types::I64X2, a);
        let zero = self.constant_lanes(types::I64X2, 0);
        self.f.ins().snarrow(v, zero)
    }

    pub(super) fn convert_from_int(
        &mut self,
        fmt: ComFmt,
        w: Width,
        upper: Vector,
        v: Node,
    ) -> Vector {
        let v = self.narrow(v, w);
        let (scalar, _) = scalar_types(fmt);
        let v = self.f.ins().fcvt_from_sint(scalar, v);
        let v = self.float_result(v);
        self.with_low(v, upper)
    }

    pub(super) fn convert_to_int(&mut self, op: IntCvt, a: Vector) -> Node {
        let w = if op.wide { Width::W64 } else { Width::W32 };
        if !op.truncate {
            let a = self.lanes(types::I8X16, a);
            let zero = self.f.ins().iconst(types::I64, 0);
            let function = self.operation(Operation::ToInt(op));
            let arguments = [self.core, zero, zero, a, a];
            self.f.ins().call_indirect(self.signatures.to_integer, function, &arguments);
            return self.integer_result(w);
        }
        let (_, vector) = scalar_types(op.from);
        let a = self.low(op.from, a);
        let v = if op.wide { self.truncate_wide(op.from, a) } else { self.truncate(vector, a) };
        self.given_narrow(w, v)
    }

    /// To 32 bits, by the conversion of a vector of equal lanes: that of a scalar saturates.
    fn truncate(&mut self, ty: Type, a: Value) -> Value {
        let a = self.f.ins().splat(ty, a);
        let v = match ty {
            types::F64X2 => self.truncate_doubles(a),
            _ => self.f.ins().x86_cvtt2dq(types::I32X4, a),
        };
        let v = self.float_result(v);
        self.f.ins().extractlane(v, 0)
    }

    /// To 64 bits, where only Cranelift's saturating conversion exists: it is the same below 2^63.
    /// NaNs and larger numbers are for the interpreter. Their bits say it, as a comparison would
    /// raise the denormal exception.
    fn truncate_wide(&mut self, fmt: ComFmt, a: Value) -> Value {
        let (ty, limit) = match fmt {
            ComFmt::Ss => (types::I32, i64::from(LIMIT.to_bits())),
            ComFmt::Sd => (types::I64, f64::from(LIMIT).to_bits() as i64),
        };
        let bits = self.f.ins().bitcast(ty, MemFlagsData::new(), a);
        let magnitude = self.f.ins().iadd(bits, bits);
        let limit = self.f.ins().iconst(ty, limit << 1);
        let large = self.f.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, magnitude, limit);
        self.leave_if(large);
        let v = self.f.ins().fcvt_to_sint_sat(types::I64, a);
        self.float_result(v)
    }
}
