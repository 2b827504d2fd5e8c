//! Floating-point arithmetic and comparison, on the host's SSE unit.
//!
//! Translated code runs with the guest's MXCSR in the host's. So an instruction of the host that
//! does what the guest's does also rounds as it does, and sets the same sticky flags. What this
//! takes:
//! - operands keep their order, as the first NaN wins: see `load_x` about operands in memory;
//! - no operation that can set a flag gets lost because nothing uses its result:
//!   [`Translator::keep_float_results`];
//! - extra operations raise nothing that the guest's does not: scalar operations that only exist on
//!   vectors are done on a vector of equal lanes;
//! - all exceptions are masked: the mode tells regions for other MXCSRs apart, and they leave for
//!   the interpreter.

use std::collections::HashSet;

use brolga_cpu::core::translated::offset;
use brolga_cpu::vcpu::rflags;
use brolga_cpu::vector::{ComFmt, Fma, Fmt, Fp1, Fp2, Pred};
use brolga_mmu::Width;
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{Function, Inst, InstBuilder, Type, Value, ValueDef, types};

use super::{Vector, scalar_types};
use crate::operations::Operation;
use crate::translate::node::{Kind, Node};
use crate::translate::{Translator, at, trusted};

/// The format of the lanes, and whether only the lowest counts.
fn parts(fmt: Fmt) -> (ComFmt, bool) {
    match fmt {
        Fmt::Ss => (ComFmt::Ss, true),
        Fmt::Sd => (ComFmt::Sd, true),
        Fmt::Ps => (ComFmt::Ss, false),
        Fmt::Pd => (ComFmt::Sd, false),
    }
}

fn condition(pred: Pred) -> FloatCC {
    match pred {
        Pred::Eq => FloatCC::Equal,
        Pred::Lt => FloatCC::LessThan,
        Pred::Le => FloatCC::LessThanOrEqual,
        Pred::Unord => FloatCC::Unordered,
        Pred::Neq => FloatCC::NotEqual,
        Pred::Nlt => FloatCC::UnorderedOrGreaterThanOrEqual,
        Pred::Nle => FloatCC::UnorderedOrGreaterThan,
        Pred::Ord => FloatCC::Ordered,
    }
}

impl Translator<'_> {
    pub(super) fn float_binary(&mut self, op: Fp2, fmt: Fmt, a: Vector, b: Vector) -> Vector {
        let (lane, scalar) = parts(fmt);
        if op == Fp2::AddSub {
            return self.vector_operation(Operation::AddSub(fmt), a, b);
        }
        if !scalar {
            let (_, ty) = scalar_types(lane);
            let (a, b) = (self.lanes(ty, a), self.lanes(ty, b));
            let v = self.packed(op, ty, a, b);
            return Vector::Whole(self.float_result(v));
        }
        let (x, y) = (self.low(lane, a), self.low(lane, b));
        let v = match op {
            Fp2::Cmp(pred) => self.scalar_mask(pred, lane, x, y),
            _ => self.scalar(op, x, y),
        };
        let v = self.float_result(v);
        self.with_low(v, a)
    }

    fn scalar(&mut self, op: Fp2, a: Value, b: Value) -> Value {
        match op {
            Fp2::Add => self.f.ins().fadd(a, b),
            Fp2::Sub => self.f.ins().fsub(a, b),
            Fp2::Mul => self.f.ins().fmul(a, b),
            Fp2::Div => self.f.ins().fdiv(a, b),
            // Cranelift makes MINSS and MAXSS of exactly this.
            Fp2::Min => {
                let less = self.f.ins().fcmp(FloatCC::LessThan, a, b);
                self.f.ins().select(less, a, b)
            }
            _ => {
                let more = self.f.ins().fcmp(FloatCC::LessThan, b, a);
                self.f.ins().select(more, a, b)
            }
        }
    }

    fn packed(&mut self, op: Fp2, ty: Type, a: Value, b: Value) -> Value {
        match op {
            Fp2::Cmp(pred) => {
                let mask = self.f.ins().fcmp(condition(pred), a, b);
                self.cast(ty, mask)
            }
            // Cranelift makes MINPS and MAXPS of exactly this.
            Fp2::Min | Fp2::Max => {
                let (x, y) = if op == Fp2::Min { (a, b) } else { (b, a) };
                let mask = self.f.ins().fcmp(FloatCC::LessThan, x, y);
                let mask = self.cast(ty, mask);
                self.f.ins().bitselect(mask, a, b)
            }
            _ => self.scalar(op, a, b),
        }
    }

    /// A scalar comparison into a mask: Cranelift has those of vectors.
    fn scalar_mask(&mut self, pred: Pred, lane: ComFmt, a: Value, b: Value) -> Value {
        let (_, ty) = scalar_types(lane);
        let (a, b) = (self.f.ins().splat(ty, a), self.f.ins().splat(ty, b));
        let mask = self.f.ins().fcmp(condition(pred), a, b);
        let mask = self.cast(ty, mask);
        self.f.ins().extractlane(mask, 0)
    }

    pub(super) fn float_unary(&mut self, op: Fp1, fmt: Fmt, upper: Vector, a: Vector) -> Vector {
        let (lane, scalar) = parts(fmt);
        match op {
            Fp1::Sqrt if scalar => {
                let a = self.low(lane, a);
                let v = self.f.ins().sqrt(a);
                let v = self.float_result(v);
                self.with_low(v, upper)
            }
            Fp1::Sqrt => {
                let (_, ty) = scalar_types(lane);
                let a = self.lanes(ty, a);
                let v = self.f.ins().sqrt(a);
                Vector::Whole(self.float_result(v))
            }
            Fp1::Round(how) => self.vector_operation(Operation::Round(fmt, how), upper, a),
            Fp1::Rcp => self.vector_operation(Operation::Rcp(fmt), upper, a),
            Fp1::Rsqrt => self.vector_operation(Operation::Rsqrt(fmt), upper, a),
        }
    }

    /// Fused multiplication and addition, by the host's instruction.
    pub(super) fn fused(&mut self, op: Fma, fmt: Fmt, upper: Vector, x: [Vector; 3]) -> Vector {
        let [a, b, c] = x.map(|x| self.lanes(types::I8X16, x));
        let function = self.operation(Operation::Fma(op, fmt));
        let arguments = [self.core, a, b, c];
        self.f.ins().call_indirect(self.signatures.three_vectors, function, &arguments);
        let (lane, scalar) = parts(fmt);
        let (ty, vector) = scalar_types(lane);
        let result = at(offset::RESULT);
        if scalar {
            let low = self.f.ins().load(ty, trusted(), self.core, result);
            return self.with_low(low, upper);
        }
        Vector::Whole(self.f.ins().load(vector, trusted(), self.core, result))
    }

    /// COMISS and its relatives. Cranelift only has the quiet form, and what uses the flags may be
    /// far away: the comparison for NaNs, which leaves for the interpreter, is what sets the sticky
    /// flags, and makes the quiet and the signalling form the same behind it.
    pub(super) fn float_compare(&mut self, fmt: ComFmt, a: Vector, b: Vector) -> Node {
        let (a, b) = (self.low(fmt, a), self.low(fmt, b));
        let unordered = self.f.ins().fcmp(FloatCC::Unordered, a, b);
        self.leave_if(unordered);
        self.node(Width::W64, Kind::Compared(a, b))
    }

    /// The flags that it has set, in their positions.
    pub(in crate::translate) fn compared_flags(&mut self, a: Value, b: Value) -> Value {
        let equal = self.f.ins().fcmp(FloatCC::UnorderedOrEqual, a, b);
        let less = self.f.ins().fcmp(FloatCC::UnorderedOrLessThan, a, b);
        let zf = self.f.ins().uextend(types::I64, equal);
        let cf = self.f.ins().uextend(types::I64, less);
        let zf = self.f.ins().ishl_imm_u(zf, i64::from(rflags::ZF.trailing_zeros()));
        self.f.ins().bor(zf, cf)
    }

    /// Notes a value whose computation may set sticky flags.
    pub(super) fn float_result(&mut self, v: Value) -> Value {
        self.float_results.push(v);
        v
    }

    /// Stores those results that nothing uses, as Cranelift would not compute them.
    pub(in crate::translate) fn keep_float_results(&mut self) {
        if self.float_results.is_empty() {
            return;
        }
        let used = used_values(self.f.func);
        let core = self.core;
        for v in &self.float_results {
            let dfg = &self.f.func.dfg;
            let v = dfg.resolve_aliases(*v);
            let ValueDef::Result(inst, _) = dfg.value_def(v) else { continue };
            if !used.contains(&v) {
                let mut cursor = FuncCursor::new(self.f.func).after_inst(inst);
                cursor.ins().store(trusted(), v, core, at(offset::RESULT));
            }
        }
    }
}

/// The values that instructions with effects depend on.
fn used_values(func: &Function) -> HashSet<Value> {
    let mut used = HashSet::new();
    let mut waiting: Vec<Inst> = Vec::new();
    for block in func.layout.blocks() {
        waiting.extend(func.layout.block_insts(block).filter(|inst| {
            let opcode = func.dfg.insts[*inst].opcode();
            opcode.is_terminator()
                || opcode.is_call()
                || opcode.can_load()
                || opcode.can_store()
                || opcode.other_side_effects()
        }));
    }
    while let Some(inst) = waiting.pop() {
        for v in func.dfg.inst_values(inst) {
            let v = func.dfg.resolve_aliases(v);
            if used.insert(v)
                && let ValueDef::Result(inst, _) = func.dfg.value_def(v)
            {
                waiting.push(inst);
            }
        }
    }
    used
}
