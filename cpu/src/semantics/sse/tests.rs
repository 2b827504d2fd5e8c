//! What comparing results with a host's cannot show: exceptions, state images, the x87 beside MMX.

use super::testing::{core, execute, peek, poke};
use crate::core::Core;
use crate::exception::{Exception, vector};
use crate::softfloat::F80;
use crate::vcpu::{cr0, cr4, gpr};

const AREA: u64 = 0x4000;

const FXSAVE: &[u8] = &[0x0f, 0xae, 0x07];
const FXSAVE64: &[u8] = &[0x48, 0x0f, 0xae, 0x07];
const FXRSTOR: &[u8] = &[0x0f, 0xae, 0x0f];
const FXRSTOR64: &[u8] = &[0x48, 0x0f, 0xae, 0x0f];
const LDMXCSR: &[u8] = &[0x0f, 0xae, 0x17];
const XSAVE: &[u8] = &[0x0f, 0xae, 0x27];
const XRSTOR: &[u8] = &[0x0f, 0xae, 0x2f];
const MOVAPS_LOAD: &[u8] = &[0x0f, 0x28, 0x0f];
const MOVAPS_STORE: &[u8] = &[0x0f, 0x29, 0x0f];
const MOVUPS_LOAD: &[u8] = &[0x0f, 0x10, 0x0f];
const PADDB_LOAD: &[u8] = &[0x66, 0x0f, 0xfc, 0x0f];
/// PADDB mm1, mm2.
const PADDB_MMX: &[u8] = &[0x0f, 0xfc, 0xca];
const EMMS: &[u8] = &[0x0f, 0x77];
/// DIVPS xmm1, xmm2.
const DIVPS: &[u8] = &[0x0f, 0x5e, 0xca];
/// MASKMOVDQU xmm1, xmm2.
const MASKMOVDQU: &[u8] = &[0x66, 0x0f, 0xf7, 0xca];

/// A vCPU whose RDI is `at`.
fn core_at(at: u64) -> Core {
    let mut core = core();
    core.vcpu.regs[usize::from(gpr::RDI)] = at;
    core
}

fn request(core: &mut Core, components: u64) {
    core.vcpu.regs[usize::from(gpr::RAX)] = components;
    core.vcpu.regs[usize::from(gpr::RDX)] = 0;
}

fn fill(core: &mut Core) {
    for (n, x) in core.vcpu.xmm.iter_mut().enumerate() {
        *x = 0x0123_4567_89ab_cdef_0123_4567_89ab_cd00 + n as u128;
    }
    core.vcpu.mxcsr = 0x3fa1;
    for n in 0..8 {
        core.vcpu.x87.set_mmx(n, 0x8000_0000_0000_0000 | u64::from(n));
    }
    core.vcpu.x87.enter_mmx();
    core.vcpu.x87.set_control(0x027f);
}

#[track_caller]
fn assert_gp(result: Result<(), Exception>) {
    let e = result.expect_err("#GP(0)");
    assert_eq!((e.vector, e.error), (vector::GP, Some(0)), "{e:?}");
}

#[test]
fn aligned_accesses_fault_and_unaligned_ones_do_not() {
    let mut core = core_at(AREA + 8);
    poke(&core, AREA + 8, 1);
    assert_gp(execute(&mut core, MOVAPS_LOAD));
    assert_gp(execute(&mut core, MOVAPS_STORE));
    assert_gp(execute(&mut core, PADDB_LOAD));
    assert_eq!(core.vcpu.xmm[1], 0);
    assert_eq!(execute(&mut core, MOVUPS_LOAD), Ok(()));
    assert_eq!(core.vcpu.xmm[1], 1);
}

#[test]
fn fxsave_and_fxrstor_are_inverse() {
    for (save, restore) in [(FXSAVE, FXRSTOR), (FXSAVE64, FXRSTOR64)] {
        let mut core = core_at(AREA);
        fill(&mut core);
        for n in 0..64 {
            poke(&core, AREA + 8 * n, u64::MAX);
        }
        let before = core.vcpu.clone();
        assert_eq!(execute(&mut core, save), Ok(()));
        assert_eq!(peek(&core, AREA + 24), 0xffff << 32 | 0x3fa1, "MXCSR and its mask");
        assert_eq!(peek(&core, AREA + 160 + 16 * 15), 0x0123_4567_89ab_cd0f, "XMM15");
        assert_eq!(peek(&core, AREA + 416), u64::MAX, "beyond XMM15 nothing is written");
        core.vcpu.xmm = [0; 16];
        core.vcpu.mxcsr = 0x1f80;
        core.vcpu.x87.init();
        core.vcpu.x87.set_mmx(3, 0);
        assert_eq!(execute(&mut core, restore), Ok(()));
        assert_eq!(core.vcpu.xmm, before.xmm);
        assert_eq!(core.vcpu.mxcsr, before.mxcsr);
        assert_eq!(core.vcpu.x87, before.x87);
    }
}

#[test]
fn reserved_mxcsr_bits_fault_before_anything_changes() {
    let mut core = core_at(AREA);
    fill(&mut core);
    assert_eq!(execute(&mut core, FXSAVE64), Ok(()));
    poke(&core, AREA + 24, 0x1_1f80);
    core.vcpu.xmm[0] = 7;
    let x87 = core.vcpu.x87.clone();
    assert_gp(execute(&mut core, FXRSTOR64));
    assert_eq!((core.vcpu.xmm[0], core.vcpu.mxcsr), (7, 0x3fa1));
    assert_eq!(core.vcpu.x87, x87);
    core.vcpu.regs[usize::from(gpr::RDI)] = AREA + 24;
    assert_gp(execute(&mut core, LDMXCSR));
    assert_eq!(core.vcpu.mxcsr, 0x3fa1);
}

#[test]
fn xsave_writes_and_xrstor_reads_what_is_requested() {
    let mut core = core_at(AREA);
    fill(&mut core);
    core.vcpu.sys.xcr0 = 3;
    request(&mut core, 2);
    poke(&core, AREA + 512, 1);
    assert_eq!(execute(&mut core, XSAVE), Ok(()));
    assert_eq!(peek(&core, AREA), 0, "x87 was not requested");
    assert_eq!(peek(&core, AREA + 512), 3, "its bit in XSTATE_BV stays");
    // XMM absent from the image: its initial configuration.
    poke(&core, AREA + 512, 0);
    let x87 = core.vcpu.x87.clone();
    assert_eq!(execute(&mut core, XRSTOR), Ok(()));
    assert_eq!(core.vcpu.xmm, [0; 16]);
    assert_eq!(core.vcpu.mxcsr, 0x3fa1, "MXCSR comes from the image all the same");
    assert_eq!(core.vcpu.x87, x87);
    poke(&core, AREA + 512, 2);
    assert_eq!(execute(&mut core, XRSTOR), Ok(()));
    assert_eq!(core.vcpu.xmm[15] as u8, 15);
}

#[test]
fn xrstor_refuses_what_it_does_not_know() {
    for (offset, value) in [(512, 4), (520, 1 << 63 | 4), (520, 1), (528, 1)] {
        let mut core = core_at(AREA);
        core.vcpu.sys.xcr0 = 3;
        core.vcpu.xmm[0] = 7;
        request(&mut core, 3);
        poke(&core, AREA + offset, value);
        assert_gp(execute(&mut core, XRSTOR));
        assert_eq!(core.vcpu.xmm[0], 7);
    }
}

#[test]
fn xsave_checks_in_order() {
    let mut core = core_at(AREA + 32);
    assert_gp(execute(&mut core, XSAVE));
    core.vcpu.sys.cr0 |= cr0::TS;
    assert_eq!(execute(&mut core, XSAVE).expect_err("#NM").vector, vector::NM);
    core.vcpu.sys.cr4 &= !cr4::OSXSAVE;
    assert_eq!(execute(&mut core, XSAVE).expect_err("#UD").vector, vector::UD);
}

#[test]
fn mmx_takes_over_the_x87_registers() {
    let mut core = core_at(AREA);
    core.vcpu.x87.decrement_top();
    core.vcpu.x87.set_mmx(1, 0x01ff);
    core.vcpu.x87.set_mmx(2, 0x0101);
    assert_eq!(execute(&mut core, PADDB_MMX), Ok(()));
    assert_eq!(core.vcpu.x87.mmx(1), 0x0200);
    assert_eq!(core.vcpu.x87.top(), 0);
    assert!((0..8).all(|n| !core.vcpu.x87.is_empty(n)));
    assert_eq!(core.vcpu.x87.st(1), F80::new(0xffff, 0x0200));
    assert_eq!(execute(&mut core, EMMS), Ok(()));
    assert!((0..8).all(|n| core.vcpu.x87.is_empty(n)));
}

#[test]
fn a_pending_x87_exception_comes_before_an_mmx_instruction() {
    let mut core = core_at(AREA);
    core.vcpu.x87.set_mmx(1, 5);
    // An image whose status word holds an unmasked invalid exception.
    assert_eq!(execute(&mut core, FXSAVE64), Ok(()));
    let head = peek(&core, AREA);
    poke(&core, AREA, head & !0xffff_ffff | 1 << 16 | 0x037e);
    assert_eq!(execute(&mut core, FXRSTOR64), Ok(()));
    core.vcpu.sys.cr0 |= cr0::NE;
    for bytes in [PADDB_MMX, EMMS] {
        let e = execute(&mut core, bytes).expect_err("#MF");
        assert_eq!(e.vector, vector::MF);
        assert_eq!(core.vcpu.x87.mmx(1), 5);
    }
}

#[test]
fn an_unmasked_simd_exception_leaves_flags_and_nothing_else() {
    for (enabled, expected) in [(true, vector::XM), (false, vector::UD)] {
        let mut core = core_at(AREA);
        if !enabled {
            core.vcpu.sys.cr4 &= !cr4::OSXMMEXCPT;
        }
        let one = u128::from(1f32.to_bits());
        core.vcpu.xmm[1] = one << 96 | one << 64 | one << 32 | one;
        let before = core.vcpu.xmm[1];
        core.vcpu.mxcsr = 0x1f80 & !(1 << 9);
        let e = execute(&mut core, DIVPS).expect_err("division by zero");
        assert_eq!(e.vector, expected);
        assert_eq!(core.vcpu.xmm[1], before);
        assert_eq!(core.vcpu.mxcsr, 0x1f80 & !(1 << 9) | 4);
    }
}

#[test]
fn masked_stores_touch_selected_bytes_only() {
    let mut core = core_at(AREA + 3);
    core.vcpu.xmm[1] = 0x1111_2222_3333_4444_5555_6666_7777_8888;
    core.vcpu.xmm[2] = 0x8000_0000_0000_0000_0000_0000_0000_0080;
    assert_eq!(execute(&mut core, MASKMOVDQU), Ok(()));
    assert_eq!(peek(&core, AREA), 0x8800_0000);
    assert_eq!(peek(&core, AREA + 16), 0x0011_0000);
    // Not canonical, but nothing is stored.
    core.vcpu.regs[usize::from(gpr::RDI)] = 1 << 63;
    core.vcpu.xmm[2] = 0;
    assert_eq!(execute(&mut core, MASKMOVDQU), Ok(()));
    core.vcpu.xmm[2] = 0x80;
    assert_gp(execute(&mut core, MASKMOVDQU));
}
