//! Where vector registers are kept: the values of the current block, and between blocks variables.

use brolga_cpu::core::translated::offset;
use brolga_cpu::vector::ComFmt;
use cranelift_codegen::ir::{InstBuilder, types};
use cranelift_frontend::{FunctionBuilder, Variable};

use super::{Rest, Vector, scalar_types};
use crate::plan::Plan;
use crate::translate::{Translator, at, trusted};

/// Vector registers, as [`brolga_cpu::vector::VectorBackend::xmm`] numbers them.
pub(in crate::translate) const VECTORS: usize = 32;

/// The variables of a register.
#[derive(Clone, Copy)]
pub(in crate::translate) enum Home {
    Whole(Variable),
    /// The lowest lane by itself: all arithmetic on the register is scalar.
    Scalar {
        fmt: ComFmt,
        low: Variable,
        rest: Variable,
    },
}

/// The variables of all registers.
pub(in crate::translate) fn homes(f: &mut FunctionBuilder<'_>, plan: &Plan) -> [Home; VECTORS] {
    std::array::from_fn(|r| {
        let fmt = match (plan.doubles >> r & 1 != 0, plan.singles >> r & 1 != 0) {
            (true, _) => ComFmt::Sd,
            (_, true) => ComFmt::Ss,
            _ => return Home::Whole(f.declare_var(types::I8X16)),
        };
        let (scalar, vector) = scalar_types(fmt);
        Home::Scalar { fmt, low: f.declare_var(scalar), rest: f.declare_var(vector) }
    })
}

impl Translator<'_> {
    /// Loads a register from the vCPU.
    pub(in crate::translate) fn load_vector_register(&mut self, r: usize) {
        let field = at(offset::XMM + 16 * r);
        match self.xmms[r] {
            Home::Whole(var) => {
                let v = self.f.ins().load(types::I8X16, trusted(), self.core, field);
                self.f.def_var(var, v);
            }
            Home::Scalar { fmt, low, rest } => {
                let (_, vector) = scalar_types(fmt);
                let v = self.f.ins().load(vector, trusted(), self.core, field);
                self.f.def_var(rest, v);
                let v = self.f.ins().extractlane(v, 0);
                self.f.def_var(low, v);
            }
        }
    }

    pub(in crate::translate) fn vector_register(&mut self, r: usize) -> Vector {
        if let Some(v) = self.vectors[r] {
            return v;
        }
        let v = match self.xmms[r] {
            Home::Whole(var) => Vector::Whole(self.f.use_var(var)),
            Home::Scalar { low, rest, .. } => {
                let (low, rest) = (self.f.use_var(low), self.f.use_var(rest));
                Vector::Scalar { low, rest: Rest::Of(rest) }
            }
        };
        self.vectors[r] = Some(v);
        v
    }

    pub(super) fn set_vector_register(&mut self, r: usize, v: Vector) {
        self.vectors[r] = Some(v);
        self.vector_dirty |= 1 << r;
    }

    /// Brings the variables up to date.
    pub(in crate::translate) fn settle_vectors(&mut self) {
        for r in 0..VECTORS {
            let Some(v) = self.vectors[r] else { continue };
            match self.xmms[r] {
                Home::Whole(var) => {
                    let v = self.lanes(types::I8X16, v);
                    self.f.def_var(var, v);
                }
                Home::Scalar { fmt, low, rest } => {
                    let upper = self.upper_lanes(fmt, v);
                    self.f.def_var(rest, upper);
                    let v = self.low(fmt, v);
                    self.f.def_var(low, v);
                }
            }
        }
    }

    /// Stores a register to the vCPU.
    pub(in crate::translate) fn store_vector_register(&mut self, r: usize, v: Vector) {
        let field = at(offset::XMM + 16 * r);
        if let Vector::Scalar { low, rest } = v {
            let rest = self.rest(types::I8X16, rest);
            self.f.ins().store(trusted(), rest, self.core, field);
            self.f.ins().store(trusted(), low, self.core, field);
        } else {
            let v = self.lanes(types::I8X16, v);
            self.f.ins().store(trusted(), v, self.core, field);
        }
    }
}
