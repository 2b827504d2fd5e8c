//! Single x87 instructions on the host, from and to a whole FPU state. Exceptions may be unmasked:
//! only non-waiting instructions follow, so that nothing traps.

use super::super::{ImageFormat, X87};
use std::arch::asm;

/// A memory operand.
pub(super) type Operand = [u8; 16];

/// Defines functions that run one instruction; `{m}` is the address of the operand.
macro_rules! instructions {
    ($($name:ident = $($line:literal),+;)*) => {$(
        pub(super) fn $name(fpu: &mut X87, operand: &mut Operand) {
            let mut image = [0_u8; 108];
            image.copy_from_slice(fpu.saved_state(ImageFormat::Protected32).as_bytes());
            let mut saved = 0_u16;
            // SAFETY: the x87 stack is empty on entry because all its registers are declared
            // clobbered; FNSAVE leaves it empty again, and the control word is restored. Memory
            // is only the three locals. Nothing traps, as nothing waits before FNSAVE has
            // cleared the exceptions.
            unsafe {
                asm!(
                    "fnstcw word ptr [{saved}]",
                    "fninit",
                    "frstor [{image}]",
                    $($line,)+
                    "fnsave [{image}]",
                    "fldcw word ptr [{saved}]",
                    "/* {m} */",
                    saved = in(reg) &mut saved,
                    image = in(reg) &mut image,
                    m = in(reg) operand,
                    out("rax") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                );
            }
            let last = fpu.last;
            fpu.restore_state(ImageFormat::Protected32, &image);
            fpu.last = last;
        }
    )*};
}

instructions! {
    fadd = "fadd st(0), st(1)";
    faddp = "faddp st(2), st(0)";
    fsub = "fsub st(0), st(1)";
    fsubr = "fsubr st(0), st(1)";
    fmul = "fmul st(0), st(1)";
    fdiv = "fdiv st(0), st(1)";
    fdivr = "fdivr st(0), st(1)";
    fsqrt = "fsqrt";
    frndint = "frndint";
    fscale = "fscale";
    fprem = "fprem";
    fprem1 = "fprem1";
    fxtract = "fxtract";
    fabs = "fabs";
    fchs = "fchs";
    fxch = "fxch st(1)";
    fcmovb = "cmp eax, eax", "fcmovb st(0), st(1)";
    fcmovnb = "cmp eax, eax", "fcmovnb st(0), st(1)";
    fcom = "fcom st(1)";
    fcompp = "fcompp";
    fucomp = "fucomp st(1)";
    ftst = "ftst";
    fxam = "fxam";
    fcomi = "cmp eax, eax", "fcomi st(0), st(1)", "pushfq", "pop qword ptr [{m}]";
    fucomip = "cmp eax, eax", "fucomip st(0), st(1)", "pushfq", "pop qword ptr [{m}]";
    fadd_m32 = "fadd dword ptr [{m}]";
    fdivr_m64 = "fdivr qword ptr [{m}]";
    fimul_m16 = "fimul word ptr [{m}]";
    fisubr_m32 = "fisubr dword ptr [{m}]";
    fcomp_m32 = "fcomp dword ptr [{m}]";
    ficom_m16 = "ficom word ptr [{m}]";
    fld_m32 = "fld dword ptr [{m}]";
    fld_m64 = "fld qword ptr [{m}]";
    fld_m80 = "fld tbyte ptr [{m}]";
    fld_st1 = "fld st(1)";
    fild_m16 = "fild word ptr [{m}]";
    fild_m64 = "fild qword ptr [{m}]";
    fbld = "fbld tbyte ptr [{m}]";
    fld1 = "fld1";
    fldl2t = "fldl2t";
    fldl2e = "fldl2e";
    fldpi = "fldpi";
    fldlg2 = "fldlg2";
    fldln2 = "fldln2";
    fldz = "fldz";
    fst_m32 = "fst dword ptr [{m}]";
    fstp_m64 = "fstp qword ptr [{m}]";
    fstp_m80 = "fstp tbyte ptr [{m}]";
    fstp_st2 = "fstp st(2)";
    fist_m16 = "fist word ptr [{m}]";
    fistp_m32 = "fistp dword ptr [{m}]";
    fistp_m64 = "fistp qword ptr [{m}]";
    fisttp_m32 = "fisttp dword ptr [{m}]";
    fbstp = "fbstp tbyte ptr [{m}]";
    fincstp = "fincstp";
    fdecstp = "fdecstp";
    ffree = "ffree st(1)";
    fnclex = "fnclex";
    fninit = "fninit";
    fldcw = "fldcw word ptr [{m}]";
    emms = "emms";
    movq_mm3 = "movq mm3, qword ptr [{m}]";
}

#[cfg(not(feature = "portable"))]
instructions! {
    f2xm1 = "f2xm1";
    fyl2x = "fyl2x";
    fyl2xp1 = "fyl2xp1";
    fptan = "fptan";
    fpatan = "fpatan";
    fsin = "fsin";
    fcos = "fcos";
    fsincos = "fsincos";
}

/// Defines functions that load a state image and save it again in place.
macro_rules! round_trips {
    ($($name:ident = $load:literal, $save:literal;)*) => {$(
        pub(super) fn $name(image: &mut [u8; 108]) {
            let mut saved = 0_u16;
            // SAFETY: as for the instructions above.
            unsafe {
                asm!(
                    "fnstcw word ptr [{saved}]",
                    "fninit",
                    $load,
                    $save,
                    "fldcw word ptr [{saved}]",
                    saved = in(reg) &mut saved,
                    image = in(reg) image,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                );
            }
        }
    )*};
}

round_trips! {
    round_trip_32 = "frstor [{image}]", "fnsave [{image}]";
    round_trip_16 = ".byte 0x66; frstor [{image}]", ".byte 0x66; fnsave [{image}]";
}
