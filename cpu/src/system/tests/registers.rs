//! Segment, control and model-specific registers, flags, ports, CPUID.

use crate::cpuid::{CpuModel, Feature};
use crate::exception::vector;
use crate::system::testing::*;
use crate::vcpu::{RIP, SegReg, attr, cr0, cr4, efer, gpr, rflags};

const WRMSR: [u8; 2] = [0x0f, 0x30];
const RDMSR: [u8; 2] = [0x0f, 0x32];
const MOV_CR0_EAX: [u8; 3] = [0x0f, 0x22, 0xc0];
const MOV_CR4_EAX: [u8; 3] = [0x0f, 0x22, 0xe0];
const MOV_DS_AX: [u8; 2] = [0x8e, 0xd8];
const MOV_SS_AX: [u8; 2] = [0x8e, 0xd0];

#[test]
fn real_mode_loads_keep_the_limit() {
    let mut b = Bench::real();
    b.core().vcpu.segs[SegReg::Ds as usize].limit = u32::MAX;
    b.set(gpr::RAX, 0x1234);
    b.step(&MOV_DS_AX);
    let ds = *b.core().vcpu.seg(SegReg::Ds);
    assert_eq!((ds.selector, ds.base, ds.limit), (0x1234, 0x1_2340, u32::MAX));
}

#[test]
fn data_segment_loads_are_checked() {
    let user_data = attr::P | attr::S | attr::RW | 3 << 5;
    let cases = [
        (user_data, None, "writable data"),
        (user_data & !attr::P, Some((vector::NP, FREE)), "not present"),
        (attr::P | attr::S | attr::CODE | 3 << 5, Some((vector::GP, FREE)), "execute-only"),
        (attr::P | attr::S | attr::RW, Some((vector::GP, FREE)), "DPL 0 at CPL 3"),
        (attr::P | attr::S | attr::CODE | attr::RW | attr::DC, None, "readable conforming"),
        (attr::P | 2, Some((vector::GP, FREE)), "system"),
    ];
    for (rights, want, what) in cases {
        let mut b = Bench::protected().user();
        b.set_descriptor(FREE, descriptor(0x1000, 0xfff, rights));
        b.set(gpr::RAX, (FREE | 3).into());
        b.step(&MOV_DS_AX);
        match want {
            None => {
                assert!(b.quiet(), "{what}: {:?}", b.core().delivery.chain);
                assert_eq!(b.core().vcpu.seg(SegReg::Ds).base, 0x1000, "{what}");
                assert_eq!(b.get(GDT + u64::from(FREE) + 5, 1) & 1, 1, "{what}: accessed");
            }
            Some((vector, error)) => {
                assert_eq!(b.fault(), (vector, Some(error.into())), "{what}");
            }
        }
    }
}

#[test]
fn stack_segment_loads_are_checked() {
    for (selector, want) in
        [(0u16, (vector::GP, 0)), (DATA3, (vector::GP, DATA3 & !3)), (CODE0, (vector::GP, CODE0))]
    {
        let mut b = Bench::protected();
        b.set(gpr::RAX, selector.into());
        b.step(&MOV_SS_AX);
        assert_eq!(b.fault(), (want.0, Some(want.1.into())), "{selector:#x}");
    }
    let mut b = Bench::long();
    b.set(gpr::RAX, 0);
    b.step(&MOV_SS_AX);
    assert!(b.quiet(), "64-bit mode takes a null SS at CPL 0");
}

#[test]
fn segment_loads_from_memory() {
    let mut b = Bench::protected();
    b.put(ENTRY, 2, DATA3.into());
    b.step(&[0x8e, 0x1d, 0x00, 0x90, 0, 0]);
    assert_eq!(b.selector(SegReg::Ds), DATA3);
    b.put(ENTRY, 8, 0x0010_1234_5678);
    b.step(&[0x66, 0xc4, 0x05, 0x00, 0x90, 0, 0]);
    assert_eq!(b.fault(), (vector::GP, Some(0x1234)), "LES cx: selector 1234h");
    let mut b = Bench::protected();
    b.put(ENTRY, 8, 0x0010_1234_5678);
    b.step(&[0xc4, 0x05, 0x00, 0x90, 0, 0]);
    assert_eq!((b.selector(SegReg::Es), b.reg(gpr::RAX)), (DATA0, 0x1234_5678));
}

#[test]
fn mov_to_cs_is_undefined() {
    let mut b = Bench::protected();
    b.step(&[0x8e, 0xc8]);
    assert_eq!(b.fault(), (vector::UD, None));
}

#[test]
fn lar_lsl_and_verr_answer_without_faulting() {
    let mut b = Bench::protected().user();
    b.set(gpr::RAX, DATA3.into());
    b.step(&[0x0f, 0x02, 0xc8]);
    assert!(b.core().vcpu.flags.zf());
    assert_eq!(b.reg(gpr::RCX), 0x00c0_f300);
    b.step(&[0x0f, 0x03, 0xc8]);
    assert_eq!(b.reg(gpr::RCX), 0xffff_ffff);
    for selector in [DATA0, 0xf8 | 4, 0, 0x1000] {
        b.set(gpr::RAX, selector.into());
        b.step(&[0x0f, 0x00, 0xe0]);
        assert!(!b.core().vcpu.flags.zf(), "{selector:#x}");
    }
    assert!(b.quiet());
}

#[test]
fn umip_hides_tables_from_user_mode() {
    let mut b = Bench::protected().user();
    b.step(&[0x0f, 0x01, 0x05, 0x00, 0x90, 0, 0]);
    assert!(b.quiet());
    assert_eq!(b.get(0x9000, 6), 0xff | GDT << 16);
    b.core().vcpu.sys.cr4 |= cr4::UMIP;
    b.step(&[0x0f, 0x01, 0x05, 0x00, 0x90, 0, 0]);
    assert_eq!(b.fault(), (vector::GP, Some(0)));
}

#[test]
fn ltr_marks_the_tss_busy() {
    let mut b = Bench::protected();
    b.set_descriptor(FREE, descriptor(TSS2, 0x67, attr::P | 9));
    b.set(gpr::RAX, FREE.into());
    b.step(&[0x0f, 0x00, 0xd8]);
    assert_eq!((b.core().vcpu.tr.selector, b.core().vcpu.tr.kind()), (FREE, 11));
    b.step(&[0x0f, 0x00, 0xd8]);
    assert_eq!(b.fault(), (vector::GP, Some(FREE.into())), "busy now");
}

#[test]
fn cr0_consistency_is_checked() {
    for (value, what) in [(cr0::PG, "PG without PE"), (cr0::PE | cr0::NW, "NW without CD")] {
        let mut b = Bench::protected();
        b.set(gpr::RAX, value);
        b.step(&MOV_CR0_EAX);
        assert_eq!(b.fault(), (vector::GP, Some(0)), "{what}");
    }
}

#[test]
fn paging_with_lme_enters_ia32e_mode() {
    let mut b = Bench::protected();
    let sys = &mut b.core().vcpu.sys;
    sys.efer = efer::LME;
    sys.cr3 = 0x10_0000;
    b.set(gpr::RAX, cr0::PE | cr0::PG);
    b.step(&MOV_CR0_EAX);
    assert_eq!(b.fault(), (vector::GP, Some(0)), "without PAE");

    let mut b = Bench::protected();
    b.put(0x10_0000, 8, 0x10_1003);
    b.put(0x10_1000, 8, 0x83);
    let sys = &mut b.core().vcpu.sys;
    (sys.efer, sys.cr3, sys.cr4) = (efer::LME, 0x10_0000, cr4::PAE);
    b.set(gpr::RAX, cr0::PE | cr0::PG);
    b.step(&MOV_CR0_EAX);
    assert!(b.quiet());
    assert!(b.core().vcpu.long_mode() && !b.core().vcpu.code64());
    b.set(gpr::RAX, 0);
    b.step(&MOV_CR4_EAX);
    assert_eq!(b.core().delivery.chain[0].vector, vector::GP, "PAE cannot be cleared");
}

#[test]
fn reserved_cr4_bits_fault() {
    let mut b = Bench::protected();
    b.set(gpr::RAX, 1 << 13);
    b.step(&MOV_CR4_EAX);
    assert_eq!(b.fault(), (vector::GP, Some(0)), "VMXE");
}

fn wrmsr(b: &mut Bench, msr: u64, v: u64) {
    b.set(gpr::RCX, msr);
    b.set(gpr::RAX, v & 0xffff_ffff);
    b.set(gpr::RDX, v >> 32);
    b.step(&WRMSR);
}

fn rdmsr(b: &mut Bench, msr: u64) -> u64 {
    b.set(gpr::RCX, msr);
    b.step(&RDMSR);
    b.reg(gpr::RDX) << 32 | b.reg(gpr::RAX)
}

#[test]
fn msrs_check_what_they_take() {
    let refused = [
        (0x1234, 0, "unknown"),
        (0xc000_0080, 1 << 5, "EFER, reserved bit"),
        (0xc000_0100, 1 << 56, "FS_BASE, not canonical"),
        (0x277, 2, "PAT, reserved type"),
        (0x200, 0x206, "MTRR, reserved bits"),
        (0xfe, 0, "MTRRCAP, read-only"),
    ];
    for (msr, v, what) in refused {
        let mut b = Bench::long();
        wrmsr(&mut b, msr, v);
        assert_eq!(b.fault(), (vector::GP, Some(0)), "{what}");
    }
    for (msr, v) in [
        (0x277u64, 0x0007_0106_0007_0406u64),
        (0x201, 0xff_c000_0800),
        (0x26f, 0x0606_0505_0404_0101),
        (0xc000_0102, 0xffff_8000_1234_5678),
        (0xc000_0082, 0xffff_ffff_8123_4567),
    ] {
        let mut b = Bench::long();
        wrmsr(&mut b, msr, v);
        assert_eq!(rdmsr(&mut b, msr), v, "{msr:#x}");
        assert!(b.quiet(), "{msr:#x}");
    }
}

#[test]
fn writing_the_tsc_shows_in_tsc_adjust() {
    let mut b = Bench::long();
    wrmsr(&mut b, 0x10, 1_000_000);
    // Time is the number of retired instructions: one, the WRMSR, has passed.
    assert_eq!(rdmsr(&mut b, 0x10), 1_000_001);
    assert_eq!(rdmsr(&mut b, 0x3b), 1_000_000);
    wrmsr(&mut b, 0x3b, 0);
    assert_eq!(rdmsr(&mut b, 0x10), 4);
}

#[test]
fn machine_check_banks_take_control_and_report_nothing() {
    const MCG_CAP: u64 = 0x179;
    const MCG_CTL: u64 = 0x17b;
    const MC0_CTL: u64 = 0x400;
    let mut b = Bench::protected();
    let banks = rdmsr(&mut b, MCG_CAP) & 0xff;
    assert_eq!(banks, 10);
    for ctl in (0..banks).map(|n| MC0_CTL + 4 * n).chain([MCG_CTL]) {
        wrmsr(&mut b, ctl, u64::MAX);
        assert_eq!(rdmsr(&mut b, ctl), u64::MAX, "{ctl:#x}");
    }
    for report in (MC0_CTL + 1..=MC0_CTL + 3).chain([MC0_CTL + 4 * banks - 1]) {
        wrmsr(&mut b, report, 0);
        assert_eq!(rdmsr(&mut b, report), 0, "{report:#x}");
    }
    assert!(b.quiet());
    wrmsr(&mut b, MC0_CTL + 1, 1);
    assert_eq!(b.fault(), (vector::GP, Some(0)), "a status that is not 0");
    for (model, msr) in [("max", MC0_CTL + 4 * banks), ("pentium", MC0_CTL)] {
        let mut b = Bench::with_model(model).enter_protected();
        rdmsr(&mut b, msr);
        assert_eq!(b.fault(), (vector::GP, Some(0)), "{model}");
    }
}

#[test]
fn popf_respects_privilege() {
    let mut b = Bench::protected().user();
    b.put(STACK3, 4, rflags::IF | rflags::IOPL | rflags::CF | rflags::AC | rflags::VIP);
    b.step(&[0x9d]);
    assert_eq!(b.core().vcpu.rflags(), rflags::FIXED | rflags::CF | rflags::AC);
    assert_eq!(b.reg(gpr::RSP), STACK3 + 4);
}

#[test]
fn port_bitmap_decides_at_cpl_3() {
    let mut b = Bench::protected().user();
    // Ports 0-7 denied but for 3 and 4; the byte beyond is read too.
    b.put(TSS + 0x68, 2, 0x00e7);
    b.step(&[0xe4, 3]);
    assert!(b.quiet());
    assert_eq!(b.reg(gpr::RAX), 3);
    b.step(&[0x66, 0xe5, 3]);
    assert!(b.quiet(), "ports 3 and 4");
    b.step(&[0x66, 0xe5, 4]);
    assert_eq!(b.fault(), (vector::GP, Some(0)), "port 5 is denied");
}

#[test]
fn repeated_input_counts_iterations_and_stops_at_the_slice() {
    let mut b = Bench::protected();
    b.set(gpr::RDI, 0x9000);
    b.set(gpr::RCX, 5);
    b.set(gpr::RDX, 0x77);
    let before = b.core().now();
    b.run(&[0xf3, 0x6c], 3);
    assert_eq!((b.reg(gpr::RCX), b.reg(gpr::RDI), b.ip()), (2, 0x9003, CODE));
    assert_eq!(b.core().now() - before, 3);
    b.go(2);
    assert_eq!((b.reg(gpr::RCX), b.ip()), (0, CODE + 2));
    assert_eq!(b.core().now() - before, 5);
    assert_eq!(b.get(0x9000, 6), 0x77_7777_7777);
}

#[test]
fn rdrand_repeats_and_sets_carry() {
    let draw = || {
        let mut b = Bench::protected();
        b.step(&[0x0f, 0xc7, 0xf0]);
        assert!(b.core().vcpu.flags.cf());
        b.reg(gpr::RAX)
    };
    let first = draw();
    assert_ne!(first, 0);
    assert_eq!(first, draw());
}

#[test]
fn models_show_their_features() {
    for name in CpuModel::names() {
        let m = CpuModel::by_name(name).expect(name);
        assert_eq!(m.name(), name);
        let leaf0 = m.leaf(0, 0, 0, 1);
        let vendor =
            if m.is_amd() { (0x6874_7541, 0x6974_6e65) } else { (0x756e_6547, 0x4965_6e69) };
        assert_eq!((leaf0.ebx, leaf0.edx), vendor, "{name}: AuthenticAMD or GenuineIntel");
        let lm = m.leaf(0x8000_0000, 0, 0, 1).eax >= 0x8000_0001
            && m.leaf(0x8000_0001, 0, 0, 1).edx >> 29 & 1 != 0;
        assert_eq!(lm, m.has(Feature::Lm), "{name}");
        assert_eq!(m.leaf(1, 0, 0, 1).edx & 1, 1, "{name}: FPU");
    }
    // AMD 20734: the extended leaf of an Athlon repeats features and adds its own.
    let athlon = CpuModel::by_name("athlon").expect("athlon");
    let extended = athlon.leaf(0x8000_0001, 0, 0, 1).edx;
    assert_eq!(extended, 0xc1c3_fbff, "{extended:#x}");
    assert!(CpuModel::by_name("6502").is_none());
    let max = CpuModel::default();
    assert_eq!(max.signature(), 0x30661);
    assert_eq!(max.leaf(1, 0, cr4::OSXSAVE, 1).ecx & !max.leaf(1, 0, 0, 1).ecx, 1 << 27, "OSXSAVE");
    assert_eq!(max.leaf(0x15, 0, 0, 1).ecx, 1_000_000_000);
}

#[test]
fn older_models_lack_registers_and_modes() {
    let mut b = Bench::with_model("486");
    b.set(gpr::RAX, cr4::PAE);
    b.step(&MOV_CR4_EAX);
    assert!(!b.quiet(), "CR4.PAE does not exist");
    assert_eq!(b.core().vcpu.sys.cr4, 0);
}

#[test]
fn the_tsc_deadline_is_in_the_guests_own_time() {
    const TSC: u32 = 0x10;
    const TSC_ADJUST: u32 = 0x3b;
    const TSC_DEADLINE: u32 = 0x6e0;
    let mut b = Bench::protected();
    let mut write = |msr: u32, v: u64| {
        b.set(RIP, CODE);
        b.set(gpr::RCX, msr.into());
        b.set(gpr::RAX, v & 0xffff_ffff);
        b.set(gpr::RDX, v >> 32);
        let at = b.core().now();
        b.step(&WRMSR);
        assert!(b.quiet());
        (at, b.seen().deadline)
    };
    // The bus counts instructions.
    assert_eq!(write(TSC_DEADLINE, 5000), (0, (5000, 5000)));
    assert_eq!(write(TSC, 1000), (1, (5000, 4001)), "999 ahead: due that much earlier");
    assert_eq!(write(TSC_ADJUST, 0), (2, (5000, 5000)));
    assert_eq!(write(TSC_ADJUST, u64::MAX), (3, (5000, 5001)));
    assert_eq!(write(TSC, 6000), (4, (5000, 4)), "it has passed");
    assert_eq!(write(TSC_DEADLINE, 0), (5, (0, 5)), "disarmed");
    assert_eq!(write(TSC, 1 << 63), (6, (0, 5)), "stays so");
    assert_eq!(write(TSC_DEADLINE, (1 << 63) + 100), (7, ((1 << 63) + 100, 106)));
}

#[test]
fn models_with_leaf_2_describe_their_tlbs() {
    // TLBs for 4 KiB pages among the descriptors (SDM vol. 2, table 3-12).
    const INSTRUCTION: [u8; 2] = [0x51, 0xb2];
    const DATA: [u8; 1] = [0x03];
    for name in CpuModel::names() {
        let m = CpuModel::by_name(name).expect(name);
        if m.leaf(0, 0, 0, 1).eax < 2 {
            continue;
        }
        let leaf = m.leaf(2, 0, 0, 1);
        assert_eq!(leaf.eax & 0xff, 1, "{name}: one query tells all");
        let rest = [leaf.eax >> 8, leaf.ebx, leaf.ecx, leaf.edx];
        assert!(rest.iter().all(|word| word >> 31 == 0), "{name}: valid");
        let descriptors: Vec<u8> = rest.iter().flat_map(|word| word.to_le_bytes()).collect();
        let has = |kind: &[u8]| descriptors.iter().any(|d| kind.contains(d));
        assert!(has(&INSTRUCTION) && has(&DATA), "{name}: {descriptors:02x?}");
    }
}
