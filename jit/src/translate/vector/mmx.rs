//! MMX registers: they are used where they lie in the vCPU.

use brolga_cpu::core::translated::offset;
use brolga_cpu::vector::ComFmt;
use brolga_cpu::x87::status;
use cranelift_codegen::ir::{InstBuilder, types};

use super::Vector;
use crate::translate::{Translator, at, trusted};

/// Sign and exponent of a register that MMX has written.
const SIGN_EXPONENT: i64 = 0xffff;

impl Translator<'_> {
    pub(super) fn mmx_register(&mut self, r: u8) -> Vector {
        let field = at(offset::x87_significand(r));
        let low = self.f.ins().load(types::F64, trusted(), self.core, field);
        Vector::Whole(self.f.ins().scalar_to_vector(types::F64X2, low))
    }

    pub(super) fn set_mmx_register(&mut self, r: u8, v: Vector) {
        let low = self.low(ComFmt::Sd, v);
        let ones = self.f.ins().iconst(types::I16, SIGN_EXPONENT);
        self.f.ins().store(trusted(), low, self.core, at(offset::x87_significand(r)));
        self.f.ins().store(trusted(), ones, self.core, at(offset::x87_sign_exponent(r)));
    }

    /// TOP becomes 0, and all registers are valid.
    pub(super) fn enter_mmx(&mut self) {
        if !std::mem::replace(&mut self.x87.in_mmx, true) {
            self.set_x87_tags(0xff);
        }
    }

    /// TOP becomes 0, and all registers are empty.
    pub(super) fn leave_mmx(&mut self) {
        self.x87.in_mmx = false;
        self.set_x87_tags(0);
    }

    fn set_x87_tags(&mut self, valid: i64) {
        let field = at(offset::X87_STATUS);
        let old = self.f.ins().load(types::I16, trusted(), self.core, field);
        let new = self.f.ins().band_imm_u(old, i64::from(!status::TOP));
        self.f.ins().store(trusted(), new, self.core, field);
        let valid = self.f.ins().iconst(types::I8, valid);
        self.f.ins().store(trusted(), valid, self.core, at(offset::X87_VALID));
    }
}
