//! The vector half of the semantics' interface.

mod convert;
mod float;
mod lanes;
mod mmx;
mod registers;
pub(crate) mod shuffle;
mod string;

use std::convert::Infallible;

use brolga_cpu::backend::Bin;
use brolga_cpu::vcpu::Seg;
use brolga_cpu::vector::{
    ComFmt, Crypto, Cvt, Fmt, Fp1, Fp2, IntCvt, Lane, Pattern, Shift, VecWidth, VectorBackend, X2,
};
use brolga_mmu::Width;
use cranelift_codegen::ir::{
    ConstantData, Endianness, InstBuilder, MemFlagsData, Type, Value, types,
};

use super::node::Node;
use super::{Translator, at, trusted};
use crate::operations::Operation;
pub(super) use registers::{Home, homes};

/// A 128-bit value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vector {
    Constant(u128),
    /// In any type of 128 bits.
    Whole(Value),
    /// The lowest lane by itself, an F32 or F64; the others are those of `rest`. Chains of scalar
    /// arithmetic then need no instruction that puts the two together.
    Scalar {
        low: Value,
        rest: Rest,
    },
}

/// The lanes above the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Zero,
    /// As in this vector, whose lowest lane does not count.
    Of(Value),
}

/// The integer vector type with lanes of a size.
fn integers(lane: Lane) -> Type {
    match lane {
        Lane::B => types::I8X16,
        Lane::W => types::I16X8,
        Lane::D => types::I32X4,
        Lane::Q => types::I64X2,
    }
}

/// The type of a scalar, and of the vector of its kind.
fn scalar_types(fmt: ComFmt) -> (Type, Type) {
    match fmt {
        ComFmt::Ss => (types::F32, types::F32X4),
        ComFmt::Sd => (types::F64, types::F64X2),
    }
}

impl Translator<'_> {
    /// A vector as lanes of a type.
    fn lanes(&mut self, ty: Type, v: Vector) -> Value {
        let v = match v {
            Vector::Constant(v) => return self.constant_lanes(ty, v),
            Vector::Whole(v) => v,
            Vector::Scalar { low, rest } => {
                let double = self.f.func.dfg.value_type(low) == types::F64;
                let (_, ty) = scalar_types(if double { ComFmt::Sd } else { ComFmt::Ss });
                let rest = self.rest(ty, rest);
                self.f.ins().insertlane(rest, low, 0)
            }
        };
        self.cast(ty, v)
    }

    fn constant_lanes(&mut self, ty: Type, v: u128) -> Value {
        let data = ConstantData::from(v.to_le_bytes().as_slice());
        let constant = self.f.func.dfg.constants.insert(data);
        self.f.ins().vconst(ty, constant)
    }

    fn cast(&mut self, ty: Type, v: Value) -> Value {
        if self.f.func.dfg.value_type(v) == ty {
            return v;
        }
        let little = MemFlagsData::new().with_endianness(Endianness::Little);
        self.f.ins().bitcast(ty, little, v)
    }

    /// A vector with these upper lanes.
    fn rest(&mut self, ty: Type, rest: Rest) -> Value {
        match rest {
            Rest::Zero => self.constant_lanes(ty, 0),
            Rest::Of(v) => self.cast(ty, v),
        }
    }

    /// The lowest lane.
    fn low(&mut self, fmt: ComFmt, v: Vector) -> Value {
        let (scalar, vector) = scalar_types(fmt);
        match v {
            Vector::Scalar { low, .. } if self.f.func.dfg.value_type(low) == scalar => low,
            _ => {
                let v = self.lanes(vector, v);
                self.f.ins().extractlane(v, 0)
            }
        }
    }

    /// `low` with the other lanes of `upper`.
    fn with_low(&mut self, low: Value, upper: Vector) -> Vector {
        let rest = match upper {
            Vector::Scalar { low: old, rest }
                if self.f.func.dfg.value_type(old) == self.f.func.dfg.value_type(low) =>
            {
                rest
            }
            Vector::Constant(0) => Rest::Zero,
            _ => Rest::Of(self.lanes(types::F64X2, upper)),
        };
        Vector::Scalar { low, rest }
    }

    /// The host address of 16 bytes.
    fn access_16(&mut self, seg: Seg, ea: Node, write: bool, aligned: bool) -> Value {
        if aligned {
            return self.aligned_access(16, seg, ea, write);
        }
        self.access(16, seg, ea, write)
    }

    /// Calls the function for an operation on vectors.
    fn vector_operation(&mut self, op: Operation, a: Vector, b: Vector) -> Vector {
        let (a, b) = (self.lanes(types::I8X16, a), self.lanes(types::I8X16, b));
        let function = self.operation(op);
        let arguments = [self.core, a, b];
        self.f.ins().call_indirect(self.signatures.vectors, function, &arguments);
        self.vector_result()
    }

    /// The vector that a function has computed.
    fn vector_result(&mut self) -> Vector {
        let result = at(super::offset::RESULT);
        Vector::Whole(self.f.ins().load(types::I8X16, trusted(), self.core, result))
    }

    /// Computes an integer from two, by a function.
    pub(super) fn integer_operation(&mut self, op: Operation, a: Node, b: Node) {
        let (a, b) = (self.wide(a), self.wide(b));
        let function = self.operation(op);
        let arguments = [self.core, a, b];
        self.f.ins().call_indirect(self.signatures.integers, function, &arguments);
    }

    /// PDEP ([`Bin::Deposit`]) or PEXT.
    pub(super) fn scatter(&mut self, op: Bin, w: Width, a: Node, mask: Node) -> Value {
        // The operands are zero-extended: then 64 bits do what `w` would.
        let op = if op == Bin::Deposit { Operation::Deposit } else { Operation::Extract };
        self.integer_operation(op, a, mask);
        let result = at(super::offset::RESULT);
        self.f.ins().load(super::node::int(w), trusted(), self.core, result)
    }

    fn operation(&mut self, op: Operation) -> Value {
        let table = at(super::offset::OPERATIONS);
        let table = self.f.ins().load(types::I64, trusted(), self.core, table);
        let place = at(size_of::<u64>() * op.index());
        self.f.ins().load(types::I64, trusted(), table, place)
    }

    /// The integer result of a function.
    fn integer_result(&mut self, w: Width) -> Node {
        let result = at(super::offset::RESULT);
        let v = self.f.ins().load(super::node::int(w), trusted(), self.core, result);
        self.given_narrow(w, v)
    }
}

impl VectorBackend for Translator<'_> {
    type X = Vector;

    fn const_x(&mut self, v: u128) -> Vector {
        Vector::Constant(v)
    }

    fn xmm(&mut self, r: u8) -> Vector {
        self.vector_register(usize::from(r & 15))
    }

    fn set_xmm(&mut self, r: u8, v: Vector) {
        self.changes();
        self.set_vector_register(usize::from(r & 15), v);
    }

    fn mm(&mut self, r: u8) -> Vector {
        self.mmx_register(r)
    }
    fn set_mm(&mut self, r: u8, v: Vector) {
        self.changes();
        self.set_mmx_register(r, v);
    }
    /// No exception waits: the mode says that all are masked.
    fn mmx_check(&mut self) -> Result<(), Infallible> {
        self.x87_at_home();
        Ok(())
    }
    fn mmx_enter(&mut self) {
        self.changes();
        self.enter_mmx();
    }
    fn mmx_leave(&mut self) {
        self.changes();
        self.leave_mmx();
    }

    /// What lies in memory must not become an operand of what computes with it: for an addition
    /// Cranelift would swap the operands, and x86 would take the NaN of the other one. The sequence
    /// point (no code) keeps a scalar load in its place; other loads are cast to the lanes' type,
    /// behind which Cranelift does not look.
    fn load_x(
        &mut self,
        w: VecWidth,
        seg: Seg,
        ea: Node,
        aligned: bool,
    ) -> Result<Vector, Infallible> {
        let (size, scalar) = match w {
            VecWidth::V2 => {
                let host = self.access(2, seg, ea, false);
                let v = self.load_host(types::I16, host);
                return Ok(Vector::Whole(self.f.ins().scalar_to_vector(types::I16X8, v)));
            }
            VecWidth::V4 => (4, types::F32),
            VecWidth::V8 => (8, types::F64),
            VecWidth::V16 => {
                let host = self.access_16(seg, ea, false, aligned);
                return Ok(Vector::Whole(self.load_host(types::I8X16, host)));
            }
        };
        let host = self.access(size, seg, ea, false);
        let low = self.load_host(scalar, host);
        self.f.ins().sequence_point();
        Ok(Vector::Scalar { low, rest: Rest::Zero })
    }

    fn store_x(
        &mut self,
        w: VecWidth,
        seg: Seg,
        ea: Node,
        aligned: bool,
        v: Vector,
    ) -> Result<(), Infallible> {
        let (size, v) = match w {
            VecWidth::V2 => {
                let v = self.lanes(types::I16X8, v);
                (2, self.f.ins().extractlane(v, 0))
            }
            VecWidth::V4 => (4, self.low(ComFmt::Ss, v)),
            VecWidth::V8 => (8, self.low(ComFmt::Sd, v)),
            VecWidth::V16 => {
                let v = self.lanes(types::I8X16, v);
                let host = self.access_16(seg, ea, true, aligned);
                self.store_host(v, host);
                return Ok(());
            }
        };
        let host = self.access(size, seg, ea, true);
        self.store_host(v, host);
        Ok(())
    }

    fn extract(&mut self, lane: Lane, a: Vector, n: u8) -> Node {
        let v = self.extract_lane(lane, a, n);
        self.given_narrow(lane.width(), v)
    }

    fn insert(&mut self, lane: Lane, a: Vector, n: u8, v: Node) -> Vector {
        let v = self.narrow(v, lane.width());
        if a == Vector::Constant(0) && n == 0 && matches!(lane, Lane::D | Lane::Q) {
            return Vector::Whole(self.f.ins().scalar_to_vector(integers(lane), v));
        }
        let a = self.lanes(integers(lane), a);
        Vector::Whole(self.f.ins().insertlane(a, v, n))
    }

    fn movemask(&mut self, lane: Lane, a: Vector) -> Node {
        let a = self.lanes(integers(lane), a);
        let v = self.f.ins().vhigh_bits(types::I32, a);
        self.given_narrow(Width::W32, v)
    }

    fn x2(&mut self, op: X2, lane: Lane, a: Vector, b: Vector) -> Vector {
        self.lane_operation(op, lane, a, b)
    }

    fn abs(&mut self, lane: Lane, a: Vector) -> Vector {
        let a = self.lanes(integers(lane), a);
        Vector::Whole(self.f.ins().iabs(a))
    }

    fn shift(&mut self, op: Shift, lane: Lane, a: Vector, count: Node) -> Vector {
        match self.as_const(count) {
            Some(count) => self.shift_by_constant(op, lane, a, count),
            None => self.shift_by(op, lane, a, count),
        }
    }

    fn bit_select(&mut self, mask: Vector, a: Vector, b: Vector) -> Vector {
        // In the mask's own type: a comparison's result is then known to be one.
        let ty = match mask {
            Vector::Whole(v) => self.f.func.dfg.value_type(v),
            _ => types::I8X16,
        };
        let (mask, a, b) = (self.lanes(ty, mask), self.lanes(ty, a), self.lanes(ty, b));
        Vector::Whole(self.f.ins().bitselect(mask, a, b))
    }

    fn shuffle(&mut self, a: Vector, b: Vector, pattern: Pattern) -> Vector {
        self.shuffled(a, b, pattern)
    }

    fn shuffle_by(&mut self, a: Vector, by: Vector) -> Vector {
        let (a, by) = (self.lanes(types::I8X16, a), self.lanes(types::I8X16, by));
        Vector::Whole(self.f.ins().x86_pshufb(a, by))
    }

    fn interleave(&mut self, lane: Lane, high: bool, a: Vector, b: Vector) -> Vector {
        self.interleaved(lane, high, a, b)
    }

    fn pack(&mut self, from: Lane, signed: bool, a: Vector, b: Vector) -> Vector {
        let ty = integers(from);
        let (a, b) = (self.lanes(ty, a), self.lanes(ty, b));
        let ins = self.f.ins();
        Vector::Whole(if signed { ins.snarrow(a, b) } else { ins.unarrow(a, b) })
    }

    fn fp2(&mut self, op: Fp2, fmt: Fmt, a: Vector, b: Vector) -> Result<Vector, Infallible> {
        Ok(self.float_binary(op, fmt, a, b))
    }

    fn fp1(&mut self, op: Fp1, fmt: Fmt, upper: Vector, a: Vector) -> Result<Vector, Infallible> {
        Ok(self.float_unary(op, fmt, upper, a))
    }

    fn fp_compare(
        &mut self,
        fmt: ComFmt,
        _quiet: bool,
        a: Vector,
        b: Vector,
    ) -> Result<Node, Infallible> {
        Ok(self.float_compare(fmt, a, b))
    }

    fn cvt(&mut self, op: Cvt, upper: Vector, a: Vector) -> Result<Vector, Infallible> {
        Ok(self.convert(op, upper, a))
    }

    fn cvt_from_int(
        &mut self,
        fmt: ComFmt,
        w: Width,
        upper: Vector,
        v: Node,
    ) -> Result<Vector, Infallible> {
        Ok(self.convert_from_int(fmt, w, upper, v))
    }

    fn cvt_to_int(&mut self, op: IntCvt, a: Vector) -> Result<Node, Infallible> {
        Ok(self.convert_to_int(op, a))
    }

    fn crc32c(&mut self, w: Width, crc: Node, data: Node) -> Node {
        self.integer_operation(Operation::Crc32c(w), crc, data);
        self.integer_result(Width::W32)
    }

    fn crypto(&mut self, op: Crypto, a: Vector, b: Vector) -> Vector {
        self.vector_operation(Operation::Crypto(op), a, b)
    }

    fn sha256_rounds(&mut self, cdgh: Vector, abef: Vector, keys: Vector) -> Vector {
        let [a, b, keys] = [cdgh, abef, keys].map(|v| self.lanes(types::I8X16, v));
        let function = self.operation(Operation::Sha256Rounds);
        let arguments = [self.core, a, b, keys];
        self.f.ins().call_indirect(self.signatures.three_vectors, function, &arguments);
        self.vector_result()
    }

    fn string_index(
        &mut self,
        control: u8,
        a: Vector,
        b: Vector,
        lens: Option<[Node; 2]>,
    ) -> (Node, Node) {
        let flags = self.compare_strings(false, control, a, b, lens);
        (self.integer_result(Width::W32), flags)
    }

    fn string_mask(
        &mut self,
        control: u8,
        a: Vector,
        b: Vector,
        lens: Option<[Node; 2]>,
    ) -> (Vector, Node) {
        let flags = self.compare_strings(true, control, a, b, lens);
        (self.vector_result(), flags)
    }
}
