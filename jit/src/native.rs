//! Which vector operations are translated. The others leave to the interpreter.

use brolga_cpu::vector::{ComFmt, Cvt, Fmt, Fp1, Fp2, IntCvt, Lane, Shift, X2};
use brolga_mmu::Width;

pub(crate) fn x2(op: X2, _: Lane) -> bool {
    matches!(op, X2::And | X2::AndNot | X2::Or | X2::Xor)
}

pub(crate) fn abs(_: Lane) -> bool {
    false
}

pub(crate) fn shift(_: Shift, _: Lane, _constant: bool) -> bool {
    false
}

pub(crate) const SHUFFLE_BY: bool = false;

pub(crate) fn movemask(_: Lane) -> bool {
    false
}

pub(crate) fn pack(_: Lane, _signed: bool) -> bool {
    false
}

pub(crate) fn fp2(_: Fp2, _: Fmt) -> bool {
    false
}

pub(crate) fn fp1(_: Fp1, _: Fmt) -> bool {
    false
}

pub(crate) fn fp_compare(_: ComFmt, _quiet: bool) -> bool {
    false
}

pub(crate) fn cvt(_: Cvt) -> bool {
    false
}

pub(crate) fn cvt_from_int(_: ComFmt, _: Width) -> bool {
    false
}

pub(crate) fn cvt_to_int(_: IntCvt) -> bool {
    false
}
