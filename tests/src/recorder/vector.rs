//! The vector half. Vectors are texts like integers.

use std::convert::Infallible;

use brolga_cpu::vcpu::Seg;
use brolga_cpu::vector::{
    ComFmt, Crypto, Cvt, Fmt, Fp1, Fp2, IntCvt, Lane, Pattern, Shift, VecWidth, VectorBackend, X2,
};
use brolga_mmu::Width;

use super::{Recorder, Value};

const fn bytes(w: VecWidth) -> u64 {
    match w {
        VecWidth::V2 => 2,
        VecWidth::V4 => 4,
        VecWidth::V8 => 8,
        VecWidth::V16 => 16,
    }
}

impl Recorder {
    /// `name(operands)`.
    fn call(&mut self, name: String, operands: &[Value]) -> Value {
        let operands: Vec<_> = operands.iter().map(|v| self.text(*v)).collect();
        self.value(format!("{name}({})", operands.join(", ")))
    }

    /// The result called `name` and the flags of a comparison of strings.
    fn compared_strings(
        &mut self,
        name: &str,
        control: u8,
        a: Value,
        b: Value,
        lens: Option<[Value; 2]>,
    ) -> (Value, Value) {
        let operands: Vec<_> = [a, b].into_iter().chain(lens.into_iter().flatten()).collect();
        let call = |t: &mut Self, name| t.call(format!("{name}.{control:02x}"), &operands);
        (call(self, name), call(self, "StringFlags"))
    }

    fn aligned(&mut self, seg: Seg, ea: Value, w: VecWidth, aligned: bool) -> String {
        let place = self.place(bytes(w), seg, ea);
        if aligned { format!("aligned {place}") } else { place }
    }
}

impl VectorBackend for Recorder {
    type X = Value;

    fn const_x(&mut self, v: u128) -> Value {
        self.value(format!("{v:#x}"))
    }
    fn xmm(&mut self, r: u8) -> Value {
        self.value(format!("xmm{r}"))
    }
    fn set_xmm(&mut self, r: u8, v: Value) {
        self.effect(format!("xmm{r} = {}", self.text(v)));
    }
    fn mm(&mut self, r: u8) -> Value {
        self.value(format!("mm{r}"))
    }
    fn set_mm(&mut self, r: u8, v: Value) {
        self.effect(format!("mm{r} = {}", self.text(v)));
    }
    fn mmx_check(&mut self) -> Result<(), Infallible> {
        self.effect("check x87 exceptions".to_owned());
        Ok(())
    }
    fn mmx_enter(&mut self) {
        self.effect("enter mmx".to_owned());
    }
    fn mmx_leave(&mut self) {
        self.effect("leave mmx".to_owned());
    }

    fn load_x(
        &mut self,
        w: VecWidth,
        seg: Seg,
        ea: Value,
        aligned: bool,
    ) -> Result<Value, Infallible> {
        let place = self.aligned(seg, ea, w, aligned);
        Ok(self.loaded("load", &place))
    }
    fn store_x(
        &mut self,
        w: VecWidth,
        seg: Seg,
        ea: Value,
        aligned: bool,
        v: Value,
    ) -> Result<(), Infallible> {
        let place = self.aligned(seg, ea, w, aligned);
        self.effect(format!("store {place} = {}", self.text(v)));
        Ok(())
    }

    fn extract(&mut self, lane: Lane, a: Value, n: u8) -> Value {
        self.call(format!("Extract.{lane:?}{n}"), &[a])
    }
    fn insert(&mut self, lane: Lane, a: Value, n: u8, v: Value) -> Value {
        self.call(format!("Insert.{lane:?}{n}"), &[a, v])
    }
    fn movemask(&mut self, lane: Lane, a: Value) -> Value {
        self.call(format!("Mask.{lane:?}"), &[a])
    }
    fn x2(&mut self, op: X2, lane: Lane, a: Value, b: Value) -> Value {
        self.call(format!("{op:?}.{lane:?}"), &[a, b])
    }
    fn abs(&mut self, lane: Lane, a: Value) -> Value {
        self.call(format!("Abs.{lane:?}"), &[a])
    }
    fn shift(&mut self, op: Shift, lane: Lane, a: Value, count: Value) -> Value {
        self.call(format!("{op:?}.{lane:?}"), &[a, count])
    }
    fn bit_select(&mut self, mask: Value, a: Value, b: Value) -> Value {
        self.call("BitSelect".to_owned(), &[mask, a, b])
    }
    fn shuffle(&mut self, a: Value, b: Value, pattern: Pattern) -> Value {
        self.call(format!("Shuffle{pattern:?}"), &[a, b])
    }
    fn shuffle_by(&mut self, a: Value, by: Value) -> Value {
        self.call("ShuffleBy".to_owned(), &[a, by])
    }
    fn interleave(&mut self, lane: Lane, high: bool, a: Value, b: Value) -> Value {
        let half = if high { "High" } else { "Low" };
        self.call(format!("Interleave{half}.{lane:?}"), &[a, b])
    }
    fn pack(&mut self, from: Lane, signed: bool, a: Value, b: Value) -> Value {
        let sign = if signed { "S" } else { "U" };
        self.call(format!("Pack{sign}.{from:?}"), &[a, b])
    }

    fn fp2(&mut self, op: Fp2, fmt: Fmt, a: Value, b: Value) -> Result<Value, Infallible> {
        Ok(self.call(format!("F{op:?}.{fmt:?}"), &[a, b]))
    }
    fn fp1(&mut self, op: Fp1, fmt: Fmt, upper: Value, a: Value) -> Result<Value, Infallible> {
        Ok(self.call(format!("F{op:?}.{fmt:?}"), &[upper, a]))
    }
    fn fp_compare(
        &mut self,
        fmt: ComFmt,
        quiet: bool,
        a: Value,
        b: Value,
    ) -> Result<Value, Infallible> {
        let kind = if quiet { "Quiet" } else { "Signaling" };
        Ok(self.call(format!("FCompare{kind}.{fmt:?}"), &[a, b]))
    }
    fn cvt(&mut self, op: Cvt, upper: Value, a: Value) -> Result<Value, Infallible> {
        Ok(self.call(format!("{op:?}"), &[upper, a]))
    }
    fn cvt_from_int(
        &mut self,
        fmt: ComFmt,
        w: Width,
        upper: Value,
        v: Value,
    ) -> Result<Value, Infallible> {
        Ok(self.call(format!("FromInt{}.{fmt:?}", w.bits()), &[upper, v]))
    }
    fn cvt_to_int(&mut self, op: IntCvt, a: Value) -> Result<Value, Infallible> {
        let how = if op.truncate { "Truncate" } else { "Round" };
        let bits = if op.wide { 64 } else { 32 };
        Ok(self.call(format!("{how}{bits}.{:?}", op.from), &[a]))
    }
    fn crc32c(&mut self, w: Width, crc: Value, data: Value) -> Value {
        self.call(format!("Crc32c.{}", w.bits()), &[crc, data])
    }
    fn crypto(&mut self, op: Crypto, a: Value, b: Value) -> Value {
        self.call(format!("{op:?}"), &[a, b])
    }
    fn sha256_rounds(&mut self, cdgh: Value, abef: Value, keys: Value) -> Value {
        self.call("Sha256Rounds".to_owned(), &[cdgh, abef, keys])
    }

    fn string_index(
        &mut self,
        control: u8,
        a: Value,
        b: Value,
        lens: Option<[Value; 2]>,
    ) -> (Value, Value) {
        self.compared_strings("StringIndex", control, a, b, lens)
    }
    fn string_mask(
        &mut self,
        control: u8,
        a: Value,
        b: Value,
        lens: Option<[Value; 2]>,
    ) -> (Value, Value) {
        self.compared_strings("StringMask", control, a, b, lens)
    }

    fn shuffle_d(&mut self, a: Value, b: Value, lanes: [u8; 4]) -> Value {
        self.call(format!("ShuffleD{lanes:?}"), &[a, b])
    }
}
