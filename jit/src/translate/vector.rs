//! The vector half of the semantics' interface.

use std::convert::Infallible;

use brolga_cpu::vcpu::Seg;
use brolga_cpu::vector::{
    ComFmt, Cvt, Fmt, Fp1, Fp2, IntCvt, Lane, Pattern, Shift, VecWidth, VectorBackend, X2,
};
use brolga_mmu::Width;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{ConstantData, InstBuilder, MemFlagsData, Type, Value, types};

use super::Translator;
use super::node::Node;

/// The vector type with lanes of a size.
fn lanes(lane: Lane) -> Type {
    match lane {
        Lane::B => types::I8X16,
        Lane::W => types::I16X8,
        Lane::D => types::I32X4,
        Lane::Q => types::I64X2,
    }
}

impl Translator<'_> {
    /// A vector as lanes of another type.
    fn cast(&mut self, ty: Type, v: Value) -> Value {
        if self.f.func.dfg.value_type(v) == ty {
            return v;
        }
        let little = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);
        self.f.ins().bitcast(ty, little, v)
    }

    fn bytes(&mut self, v: Value) -> Value {
        self.cast(types::I8X16, v)
    }

    fn check_alignment(&mut self, seg: Seg, ea: Node) {
        let linear = self.wide(ea);
        let linear = if seg.is_flat() { linear } else { self.plus_base(seg, linear) };
        let low = self.f.ins().band_imm_u(linear, 15);
        let crooked = self.f.ins().icmp_imm_u(IntCC::NotEqual, low, 0);
        self.leave_if(crooked);
    }
}

/// What the survey calls untranslatable never gets here.
fn surveyed() -> ! {
    unreachable!("surveyed as untranslatable")
}

impl VectorBackend for Translator<'_> {
    type X = Value;

    fn const_x(&mut self, v: u128) -> Value {
        let data = ConstantData::from(v.to_le_bytes().as_slice());
        let constant = self.f.func.dfg.constants.insert(data);
        self.f.ins().vconst(types::I8X16, constant)
    }

    fn xmm(&mut self, r: u8) -> Value {
        self.f.use_var(self.xmms[usize::from(r & 15)])
    }

    fn set_xmm(&mut self, r: u8, v: Value) {
        self.changes();
        let v = self.bytes(v);
        self.f.def_var(self.xmms[usize::from(r & 15)], v);
        self.vector_dirty |= 1 << (r & 15);
    }

    fn mm(&mut self, _: u8) -> Value {
        surveyed()
    }
    fn set_mm(&mut self, _: u8, _: Value) {
        surveyed()
    }
    fn mmx_check(&mut self) -> Result<(), Infallible> {
        surveyed()
    }
    fn mmx_enter(&mut self) {
        surveyed()
    }
    fn mmx_leave(&mut self) {
        surveyed()
    }

    fn load_x(
        &mut self,
        w: VecWidth,
        seg: Seg,
        ea: Node,
        aligned: bool,
    ) -> Result<Value, Infallible> {
        let (size, lane) = match w {
            VecWidth::V2 => (2, Lane::W),
            VecWidth::V4 => (4, Lane::D),
            VecWidth::V8 => (8, Lane::Q),
            VecWidth::V16 => {
                if aligned {
                    self.check_alignment(seg, ea);
                }
                let host = self.access(16, seg, ea, false);
                return Ok(self.load_host(types::I8X16, host));
            }
        };
        let host = self.access(size, seg, ea, false);
        let v = self.load_host(lanes(lane).lane_type(), host);
        let zero = self.const_x(0);
        let zero = self.cast(lanes(lane), zero);
        let v = self.f.ins().insertlane(zero, v, 0);
        Ok(self.bytes(v))
    }

    fn store_x(
        &mut self,
        w: VecWidth,
        seg: Seg,
        ea: Node,
        aligned: bool,
        v: Value,
    ) -> Result<(), Infallible> {
        let (size, lane) = match w {
            VecWidth::V2 => (2, Lane::W),
            VecWidth::V4 => (4, Lane::D),
            VecWidth::V8 => (8, Lane::Q),
            VecWidth::V16 => {
                if aligned {
                    self.check_alignment(seg, ea);
                }
                let host = self.access(16, seg, ea, true);
                self.store_host(v, host);
                return Ok(());
            }
        };
        let host = self.access(size, seg, ea, true);
        let v = self.cast(lanes(lane), v);
        let v = self.f.ins().extractlane(v, 0);
        self.store_host(v, host);
        Ok(())
    }

    fn extract(&mut self, lane: Lane, a: Value, n: u8) -> Node {
        let a = self.cast(lanes(lane), a);
        let v = self.f.ins().extractlane(a, n);
        self.given_narrow(lane.width(), v)
    }

    fn insert(&mut self, lane: Lane, a: Value, n: u8, v: Node) -> Value {
        let v = self.narrow(v, lane.width());
        let a = self.cast(lanes(lane), a);
        let v = self.f.ins().insertlane(a, v, n);
        self.bytes(v)
    }

    fn movemask(&mut self, _: Lane, _: Value) -> Node {
        surveyed()
    }

    fn x2(&mut self, op: X2, _: Lane, a: Value, b: Value) -> Value {
        match op {
            X2::And => self.f.ins().band(a, b),
            X2::AndNot => self.f.ins().band_not(b, a),
            X2::Or => self.f.ins().bor(a, b),
            X2::Xor => self.f.ins().bxor(a, b),
            _ => surveyed(),
        }
    }

    fn abs(&mut self, _: Lane, _: Value) -> Value {
        surveyed()
    }

    fn shift(&mut self, _: Shift, _: Lane, _: Value, _: Node) -> Value {
        surveyed()
    }

    fn bit_select(&mut self, mask: Value, a: Value, b: Value) -> Value {
        self.f.ins().bitselect(mask, a, b)
    }

    fn shuffle(&mut self, a: Value, b: Value, pattern: Pattern) -> Value {
        let mask = self.f.func.dfg.immediates.push(ConstantData::from(pattern.as_slice()));
        self.f.ins().shuffle(a, b, mask)
    }

    fn shuffle_by(&mut self, _: Value, _: Value) -> Value {
        surveyed()
    }

    fn interleave(&mut self, lane: Lane, high: bool, a: Value, b: Value) -> Value {
        let count = 16 / lane.bytes() as u8;
        let first = if high { count / 2 } else { 0 };
        let bytes = lane.bytes() as u8;
        let pattern: Pattern = std::array::from_fn(|i| {
            let (pair, byte) = (i as u8 / bytes, i as u8 % bytes);
            let from = if pair % 2 == 0 { 0 } else { 16 };
            from + (first + pair / 2) * bytes + byte
        });
        self.shuffle(a, b, pattern)
    }

    fn pack(&mut self, _: Lane, _: bool, _: Value, _: Value) -> Value {
        surveyed()
    }

    fn fp2(&mut self, _: Fp2, _: Fmt, _: Value, _: Value) -> Result<Value, Infallible> {
        surveyed()
    }
    fn fp1(&mut self, _: Fp1, _: Fmt, _: Value, _: Value) -> Result<Value, Infallible> {
        surveyed()
    }
    fn fp_compare(&mut self, _: ComFmt, _: bool, _: Value, _: Value) -> Result<Node, Infallible> {
        surveyed()
    }
    fn cvt(&mut self, _: Cvt, _: Value, _: Value) -> Result<Value, Infallible> {
        surveyed()
    }
    fn cvt_from_int(
        &mut self,
        _: ComFmt,
        _: Width,
        _: Value,
        _: Node,
    ) -> Result<Value, Infallible> {
        surveyed()
    }
    fn cvt_to_int(&mut self, _: IntCvt, _: Value) -> Result<Node, Infallible> {
        surveyed()
    }
    fn crc32c(&mut self, _: Width, _: Node, _: Node) -> Node {
        surveyed()
    }
}
