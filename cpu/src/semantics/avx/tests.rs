//! What comparing with a host cannot show: faults part-way, state images, modes without AVX.

use crate::block::Mode;
use crate::core::Core;
use crate::cpuid::CpuModel;
use crate::decode::{Decoded, decode};
use crate::exception::{Exception, vector};
use crate::semantics::sse::testing::{core, execute, peek, poke};
use crate::vcpu::{cr0, cr4, gpr, rflags, xcr0};

const AREA: u64 = 0x4000;
const EVERYTHING: u64 = xcr0::X87 | xcr0::SSE | xcr0::AVX;

/// VADDPS ymm1, ymm2, ymm3.
const VADDPS: &[u8] = &[0xc5, 0xec, 0x58, 0xcb];
/// VMOVAPS ymm1, [rdi] and [rdi], ymm1.
const VMOVAPS_LOAD: &[u8] = &[0xc5, 0xfc, 0x28, 0x0f];
const VMOVAPS_STORE: &[u8] = &[0xc5, 0xfc, 0x29, 0x0f];
/// VMOVUPS ymm1, [rdi].
const VMOVUPS_LOAD: &[u8] = &[0xc5, 0xfc, 0x10, 0x0f];
/// VDPPS ymm1, ymm2, ymm3, 0ffh.
const VDPPS: &[u8] = &[0xc4, 0xe3, 0x6d, 0x40, 0xcb, 0xff];
const VZEROUPPER: &[u8] = &[0xc5, 0xf8, 0x77];
const VZEROALL: &[u8] = &[0xc5, 0xfc, 0x77];
/// VPGATHERQQ ymm1, [rdi + ymm2], ymm3.
const GATHER: &[u8] = &[0xc4, 0xe2, 0xe5, 0x91, 0x0c, 0x17];
/// VPMASKMOVD [rdi], ymm3, ymm1.
const MASKED_STORE: &[u8] = &[0xc4, 0xe2, 0x65, 0x8e, 0x0f];
const XSAVE: &[u8] = &[0x0f, 0xae, 0x27];
const XSAVEOPT: &[u8] = &[0x0f, 0xae, 0x37];
const XSAVEC: &[u8] = &[0x0f, 0xc7, 0x27];
const XSAVES: &[u8] = &[0x0f, 0xc7, 0x2f];
const XRSTOR: &[u8] = &[0x0f, 0xae, 0x2f];
const XRSTORS: &[u8] = &[0x0f, 0xc7, 0x1f];

/// A vCPU with AVX enabled, whose RDI is `at`.
fn core_at(at: u64) -> Core {
    let mut core = core();
    core.vcpu.sys.xcr0 = EVERYTHING;
    core.vcpu.regs[usize::from(gpr::RDI)] = at;
    core
}

fn request(core: &mut Core, components: u64) {
    core.vcpu.regs[usize::from(gpr::RAX)] = components;
    core.vcpu.regs[usize::from(gpr::RDX)] = 0;
}

#[track_caller]
fn assert_gp(result: Result<(), Exception>) {
    assert_eq!(result.expect_err("#GP(0)").vector, vector::GP);
}

/// Executes 64-bit or other code in a mode.
fn raised_in(mode: Mode, bytes: &[u8]) -> Option<u8> {
    let mut core = core_at(AREA);
    let Decoded::Block(block) = decode::<Core>(bytes, mode, &CpuModel::default(), 1) else {
        panic!("{bytes:02x?} is a whole instruction");
    };
    let op = &block.ops[0];
    (op.handler)(&mut core, &op.insn).err().and(core.exception).map(|e| e.vector)
}

#[test]
fn vex_needs_what_the_system_enables() {
    let on = Mode::CODE64.with(Mode::AVX, true).with(Mode::PROTECTED, true);
    assert_eq!(raised_in(on, VADDPS), None);
    assert_eq!(raised_in(Mode::CODE64.with(Mode::OSFXSR, true), VADDPS), Some(vector::UD));
    assert_eq!(raised_in(on.with(Mode::TASK_SWITCHED, true), VADDPS), Some(vector::NM));
    assert_eq!(raised_in(on.with(Mode::FPU_EMULATE, true), VADDPS), None, "CR0.EM does not count");
    // VMOVAPS uses one source: vvvv must be 1111b; and no prefix may come before VEX.
    assert_eq!(raised_in(on, &[0xc5, 0xf4, 0x28, 0xca]), Some(vector::UD));
    assert_eq!(raised_in(on, &[0x66, 0xc5, 0xec, 0x58, 0xcb]), Some(vector::UD));
    assert_eq!(raised_in(on, &[0x48, 0xc5, 0xec, 0x58, 0xcb]), Some(vector::UD));
}

#[test]
fn the_mode_has_avx_only_where_everything_enables_it() {
    let mut core = core_at(AREA);
    let mut has = |change: fn(&mut Core)| {
        core.vcpu.sys.cr0 |= cr0::PE;
        core.vcpu.sys.cr4 |= cr4::OSXSAVE;
        core.vcpu.sys.xcr0 = EVERYTHING;
        core.vcpu.eflags &= !rflags::VM;
        change(&mut core);
        core.mode_changed();
        core.mode().has(Mode::AVX)
    };
    assert!(has(|_| {}));
    assert!(!has(|core| core.vcpu.sys.cr0 &= !cr0::PE));
    assert!(!has(|core| core.vcpu.sys.cr4 &= !cr4::OSXSAVE));
    assert!(!has(|core| core.vcpu.sys.xcr0 = xcr0::X87 | xcr0::SSE));
    assert!(!has(|core| core.vcpu.eflags |= rflags::VM));
}

#[test]
fn legacy_instructions_keep_the_upper_halves_and_vex_ones_clear_them() {
    let mut core = core_at(AREA);
    core.vcpu.ymm_high = [7; 16];
    // ADDPS xmm1, xmm3; VADDPS xmm1, xmm2, xmm3.
    assert_eq!(execute(&mut core, &[0x0f, 0x58, 0xcb]), Ok(()));
    assert_eq!(core.vcpu.ymm_high[1], 7);
    assert_eq!(execute(&mut core, &[0xc5, 0xe8, 0x58, 0xcb]), Ok(()));
    assert_eq!(core.vcpu.ymm_high[..3], [7, 0, 7]);
}

#[test]
fn only_the_aligned_moves_care_about_alignment() {
    let mut core = core_at(AREA + 16);
    assert_gp(execute(&mut core, VMOVAPS_LOAD));
    assert_gp(execute(&mut core, VMOVAPS_STORE));
    assert_eq!(execute(&mut core, VMOVUPS_LOAD), Ok(()));
    core.vcpu.regs[usize::from(gpr::RDI)] = AREA + 32;
    assert_eq!(execute(&mut core, VMOVAPS_LOAD), Ok(()));
}

#[test]
fn clearing_is_of_all_registers() {
    let mut core = core_at(AREA);
    core.vcpu.xmm = [5; 16];
    core.vcpu.ymm_high = [7; 16];
    assert_eq!(execute(&mut core, VZEROUPPER), Ok(()));
    assert_eq!((core.vcpu.xmm, core.vcpu.ymm_high), ([5; 16], [0; 16]));
    assert_eq!(execute(&mut core, VZEROALL), Ok(()));
    assert_eq!(core.vcpu.xmm, [0; 16]);
}

#[test]
fn a_gather_that_faults_keeps_what_it_has_loaded() {
    const ONES: u128 = u128::MAX;
    let mut core = core_at(AREA);
    poke(&core, AREA, 0x11);
    poke(&core, AREA + 8, 0x22);
    // Element 2 is masked off, and 3 not canonical.
    (core.vcpu.xmm[2], core.vcpu.ymm_high[2]) = (8 << 64, (1 << 60) << 64 | 1 << 62);
    (core.vcpu.xmm[3], core.vcpu.ymm_high[3]) = (ONES, ONES << 64);
    (core.vcpu.xmm[1], core.vcpu.ymm_high[1]) = (ONES, ONES);
    assert_gp(execute(&mut core, GATHER));
    assert_eq!((core.vcpu.xmm[1], core.vcpu.ymm_high[1]), (0x22 << 64 | 0x11, ONES));
    assert_eq!((core.vcpu.xmm[3], core.vcpu.ymm_high[3]), (0, ONES << 64));
    core.vcpu.ymm_high[2] = 0;
    assert_eq!(execute(&mut core, GATHER), Ok(()));
    assert_eq!(core.vcpu.ymm_high[1], 0x11 << 64 | u128::from(u64::MAX));
    assert_eq!(core.vcpu.ymm_high[3], 0);
}

#[test]
fn what_is_masked_off_is_not_stored() {
    let mut core = core_at(AREA);
    core.vcpu.xmm[1] = u128::MAX;
    core.vcpu.xmm[3] = 1 << 63;
    assert_eq!(execute(&mut core, MASKED_STORE), Ok(()));
    assert_eq!((peek(&core, AREA), peek(&core, AREA + 8)), (0xffff_ffff_0000_0000, 0));
}

#[test]
fn the_standard_format_has_the_upper_halves_behind_the_header() {
    for save in [XSAVE, XSAVEOPT] {
        let mut core = core_at(AREA);
        request(&mut core, EVERYTHING);
        core.vcpu.ymm_high[15] = 0x55 << 64 | 0x66;
        assert_eq!(execute(&mut core, save), Ok(()));
        assert_eq!(peek(&core, AREA + 512), xcr0::AVX, "XSTATE_BV: the rest is initial");
        let last = AREA + 576 + 16 * 15;
        assert_eq!((peek(&core, last), peek(&core, last + 8)), (0x66, 0x55));
        core.vcpu.ymm_high = [9; 16];
        assert_eq!(execute(&mut core, XRSTOR), Ok(()));
        assert_eq!(core.vcpu.ymm_high[15], 0x55 << 64 | 0x66);
        assert_eq!(core.vcpu.ymm_high[0], 0);
        poke(&core, AREA + 512, 0);
        assert_eq!(execute(&mut core, XRSTOR), Ok(()));
        assert_eq!(core.vcpu.ymm_high, [0; 16], "absent: initialized");
    }
}

#[test]
fn the_compacted_format_says_what_it_holds() {
    for (save, restore) in [(XSAVEC, XRSTOR), (XSAVES, XRSTORS)] {
        let mut core = core_at(AREA);
        request(&mut core, EVERYTHING);
        core.vcpu.ymm_high[3] = 8;
        core.vcpu.mxcsr = 0x1fa0;
        assert_eq!(execute(&mut core, save), Ok(()));
        assert_eq!(peek(&core, AREA + 512), xcr0::SSE | xcr0::AVX, "MXCSR is SSE state");
        assert_eq!(peek(&core, AREA + 520), 1 << 63 | EVERYTHING);
        core.vcpu.ymm_high = [9; 16];
        core.vcpu.mxcsr = 0x1f80;
        assert_eq!(execute(&mut core, restore), Ok(()));
        assert_eq!((core.vcpu.ymm_high[3], core.vcpu.ymm_high[4]), (8, 0));
        assert_eq!(core.vcpu.mxcsr, 0x1fa0);
        // SSE absent: MXCSR too has its initial value.
        poke(&core, AREA + 512, xcr0::AVX);
        assert_eq!(execute(&mut core, restore), Ok(()));
        assert_eq!(core.vcpu.mxcsr, 0x1f80);
    }
}

/// The upper half's products are too small, which is unmasked: the lower half's infinities, which are
/// of both signs, are not added. As on an EPYC 9005.
#[test]
fn an_exception_of_one_half_keeps_the_other_from_the_next_step() {
    const INVALID: u32 = 1;
    const UNDERFLOW: u32 = 1 << 4;
    const ALL_MASKED: u32 = 0x1f80;
    const INFINITIES: u128 = 0x7f80_0000_ff80_0000;
    const ONES: u128 = 0x3f80_0000_3f80_0000;
    const TINY: u128 = 0x0080_0000;
    let mut core = core_at(AREA);
    core.vcpu.mxcsr = ALL_MASKED & !(UNDERFLOW << 7 | INVALID << 7);
    (core.vcpu.xmm[2], core.vcpu.xmm[3]) = (INFINITIES, ONES);
    (core.vcpu.ymm_high[2], core.vcpu.ymm_high[3]) = (TINY, TINY);
    let raised = execute(&mut core, VDPPS).expect_err("#XM");
    assert_eq!(raised.vector, vector::XM);
    assert_eq!(core.vcpu.mxcsr & (INVALID | UNDERFLOW), UNDERFLOW);
    core.vcpu.ymm_high[2] = 0;
    core.vcpu.mxcsr &= !UNDERFLOW;
    execute(&mut core, VDPPS).expect_err("#XM");
    assert_eq!(core.vcpu.mxcsr & (INVALID | UNDERFLOW), INVALID);
}

#[test]
fn headers_are_checked() {
    let compacted = 1 << 63 | EVERYTHING;
    for (restore, present, compaction, reserved, good) in [
        (XRSTOR, EVERYTHING, 0, 0, true),
        (XRSTOR, 8, 0, 0, false),
        (XRSTOR, 0, 1, 0, false),
        (XRSTOR, EVERYTHING, compacted, 0, true),
        (XRSTOR, xcr0::AVX, compacted & !xcr0::AVX, 0, false),
        (XRSTOR, 0, compacted | 8, 0, false),
        (XRSTOR, 0, compacted, 1, false),
        (XRSTORS, 0, 0, 0, false),
        (XRSTORS, EVERYTHING, compacted, 0, true),
    ] {
        let mut core = core_at(AREA);
        request(&mut core, EVERYTHING);
        poke(&core, AREA + 512, present);
        poke(&core, AREA + 520, compaction);
        poke(&core, AREA + 528, reserved);
        let result = execute(&mut core, restore);
        assert_eq!(result.is_ok(), good, "{present:x} {compaction:x} {reserved:x}: {result:?}");
    }
}

#[test]
fn the_supervisors_forms_are_its_own() {
    for bytes in [XSAVES, XRSTORS] {
        let mut core = core_at(AREA);
        core.vcpu.cpl = 3;
        assert_gp(execute(&mut core, bytes));
    }
}

#[test]
fn xcr0_has_avx_with_sse_only() {
    /// XSETBV.
    const XSETBV: &[u8] = &[0x0f, 0x01, 0xd1];
    for (value, good) in [(1, true), (3, true), (7, true), (5, false), (6, false), (15, false)] {
        let mut core = core_at(AREA);
        request(&mut core, value);
        core.vcpu.regs[usize::from(gpr::RCX)] = 0;
        assert_eq!(execute(&mut core, XSETBV).is_ok(), good, "{value:x}");
        assert_eq!(core.vcpu.sys.xcr0, if good { value } else { EVERYTHING });
    }
}

#[test]
fn the_components_in_use_can_be_read() {
    /// XGETBV.
    const XGETBV: &[u8] = &[0x0f, 0x01, 0xd0];
    let mut core = core_at(AREA);
    core.vcpu.ymm_high[0] = 1;
    core.vcpu.regs[usize::from(gpr::RCX)] = 1;
    assert_eq!(execute(&mut core, XGETBV), Ok(()));
    assert_eq!(core.vcpu.regs[usize::from(gpr::RAX)], xcr0::AVX);
}

#[test]
fn cpuid_measures_the_areas() {
    let model = CpuModel::default();
    let leaf = |subleaf, xcr0| model.leaf(0xd, subleaf, 0, xcr0);
    let all = leaf(0, EVERYTHING);
    assert_eq!((u64::from(all.eax), all.ebx, all.ecx), (EVERYTHING | xcr0::PKRU, 832, 840));
    assert_eq!(leaf(0, 3).ebx, 576);
    assert_eq!((leaf(1, EVERYTHING).eax, leaf(1, EVERYTHING).ebx), (15, 832));
    assert_eq!((leaf(2, 1).eax, leaf(2, 1).ebx, leaf(2, 1).ecx), (256, 576, 0));
    let old = CpuModel::by_name("nehalem").map(|m| m.leaf(0xd, 2, 0, 3));
    assert_eq!(old.map(|r| r.eax), Some(0));
}
