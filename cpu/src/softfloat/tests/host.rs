//! Single SSE instructions on the host, under a given MXCSR whose exceptions must all be masked.
//! Operands and results are the low 64 bits of registers; the second result is MXCSR afterwards.

use std::arch::asm;

/// What an instruction is given: two or three XMM operands.
pub(super) type Operands = [u64; 3];

/// Defines functions that run one instruction. `{x}`, `{y}`, `{z}` are XMM registers holding the
/// operands, `{r}` is a general register holding the first; the result is `{x}`, or `{r}` where
/// the instructions put it there.
macro_rules! instructions {
    ($($name:ident = $($line:literal),+;)*) => {$(
        pub(super) fn $name(operands: Operands, mut mxcsr: u32) -> (u64, u32) {
            let [mut r, y, z] = operands;
            let mut saved = 0_u32;
            // SAFETY: changes only the named registers, locals and balanced stack below the red
            // zone that the compiler knows of, and restores MXCSR; masked, nothing traps.
            unsafe {
                asm!(
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{csr}]",
                    "movq {x}, {r}",
                    "movq {y}, {ry}",
                    "movq {z}, {rz}",
                    $($line,)+
                    "stmxcsr [{csr}]",
                    "ldmxcsr [{saved}]",
                    "/* {y} {z} */",
                    saved = in(reg) &mut saved,
                    csr = in(reg) &mut mxcsr,
                    r = inout(reg) r,
                    ry = in(reg) y,
                    rz = in(reg) z,
                    x = out(xmm_reg) _,
                    y = out(xmm_reg) _,
                    z = out(xmm_reg) _,
                );
            }
            (r, mxcsr)
        }
    )*};
}

instructions! {
    addss = "addss {x}, {y}", "movq {r}, {x}";
    subss = "subss {x}, {y}", "movq {r}, {x}";
    mulss = "mulss {x}, {y}", "movq {r}, {x}";
    divss = "divss {x}, {y}", "movq {r}, {x}";
    sqrtss = "sqrtss {x}, {x}", "movq {r}, {x}";
    addsd = "addsd {x}, {y}", "movq {r}, {x}";
    subsd = "subsd {x}, {y}", "movq {r}, {x}";
    mulsd = "mulsd {x}, {y}", "movq {r}, {x}";
    divsd = "divsd {x}, {y}", "movq {r}, {x}";
    sqrtsd = "sqrtsd {x}, {x}", "movq {r}, {x}";
    fmass = "vfmadd213ss {x}, {y}, {z}", "movq {r}, {x}";
    fmasd = "vfmadd213sd {x}, {y}, {z}", "movq {r}, {x}";
    roundss = "roundss {x}, {x}, 4", "movq {r}, {x}";
    roundsd_quiet = "roundsd {x}, {x}, 12", "movq {r}, {x}";
    cvtss2sd = "cvtss2sd {x}, {x}", "movq {r}, {x}";
    cvtsd2ss = "cvtsd2ss {x}, {x}", "movq {r}, {x}";
    cvtsi2ss = "cvtsi2ss {x}, {r}", "movq {r}, {x}";
    cvtsi2sd = "cvtsi2sd {x}, {r}", "movq {r}, {x}";
    cvtss2si32 = "cvtss2si {r:e}, {x}";
    cvtss2si64 = "cvtss2si {r}, {x}";
    cvtsd2si32 = "cvtsd2si {r:e}, {x}";
    cvttsd2si64 = "cvttsd2si {r}, {x}";
    comiss = "comiss {x}, {y}", "pushfq", "pop {r}";
    ucomiss = "ucomiss {x}, {y}", "pushfq", "pop {r}";
    comisd = "comisd {x}, {y}", "pushfq", "pop {r}";
    ucomisd = "ucomisd {x}, {y}", "pushfq", "pop {r}";
}
