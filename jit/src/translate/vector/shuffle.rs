//! Rearranging lanes.

use brolga_cpu::vector::{ComFmt, Lane, Pattern};
use cranelift_codegen::ir::{ConstantData, InstBuilder, MemFlagsData, Value, types};

use super::{Vector, integers};
use crate::translate::Translator;

/// The lowest lane of the second operand, the others of the first: MOVSD and MOVSS.
pub(crate) fn merges(pattern: Pattern) -> Option<ComFmt> {
    let merged = |bytes: usize| {
        pattern
            .iter()
            .enumerate()
            .all(|(i, p)| usize::from(*p) == i + if i < bytes { 16 } else { 0 })
    };
    if merged(8) {
        Some(ComFmt::Sd)
    } else if merged(4) {
        Some(ComFmt::Ss)
    } else {
        None
    }
}

impl Translator<'_> {
    pub(super) fn shuffled(&mut self, a: Vector, b: Vector, pattern: Pattern) -> Vector {
        if let Some(fmt) = merges(pattern) {
            let low = self.low(fmt, b);
            return self.with_low(low, a);
        }
        // Lanes of one operand and zeros: one PSHUFB, unless the lanes move together, for which
        // Cranelift has shorter forms.
        let window = pattern.windows(2).all(|p| p[1] == p[0].wrapping_add(1));
        if b == Vector::Constant(0) && !window && crate::native::shuffle_by() {
            let by = pattern.map(|p| if p < 16 { p } else { 0x80 });
            let a = self.lanes(types::I8X16, a);
            let by = self.constant_lanes(types::I8X16, u128::from_le_bytes(by));
            return Vector::Whole(self.f.ins().x86_pshufb(a, by));
        }
        let (a, b) = (self.lanes(types::I8X16, a), self.lanes(types::I8X16, b));
        let mask = self.f.func.dfg.immediates.push(ConstantData::from(pattern.as_slice()));
        Vector::Whole(self.f.ins().shuffle(a, b, mask))
    }

    pub(super) fn interleaved(&mut self, lane: Lane, high: bool, a: Vector, b: Vector) -> Vector {
        let bytes = lane.bytes() as u8;
        let first = if high { 8 } else { 0 };
        let pattern = std::array::from_fn(|i| {
            let (pair, byte) = (i as u8 / bytes, i as u8 % bytes);
            let from = if pair % 2 == 0 { 0 } else { 16 };
            from + first + pair / 2 * bytes + byte
        });
        self.shuffled(a, b, pattern)
    }

    pub(super) fn extract_lane(&mut self, lane: Lane, a: Vector, n: u8) -> Value {
        let scalar = match (lane, n) {
            (Lane::Q, 0) => Some(types::F64),
            (Lane::D, 0) => Some(types::F32),
            _ => None,
        };
        match a {
            Vector::Scalar { low, .. } if Some(self.f.func.dfg.value_type(low)) == scalar => {
                let ty = integers(lane).lane_type();
                self.f.ins().bitcast(ty, MemFlagsData::new(), low)
            }
            _ => {
                let a = self.lanes(integers(lane), a);
                self.f.ins().extractlane(a, n)
            }
        }
    }
}
