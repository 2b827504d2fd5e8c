//! Far transfers, returns and task switches.

use crate::cpuid::CpuModel;
use crate::exception::vector;
use crate::system::testing::*;
use crate::vcpu::{SegReg, attr, efer, gpr, rflags};

/// JMP FAR 0x33:... to an arbitrary selector: EA off32 sel16.
fn far(opcode: u8, selector: u16, offset: u32) -> Vec<u8> {
    let mut code = vec![opcode];
    code.extend(offset.to_le_bytes());
    code.extend(selector.to_le_bytes());
    code
}

#[test]
fn real_mode_far_call_and_return() {
    let mut b = Bench::real();
    b.step(&[0x9a, 0x34, 0x12, 0x00, 0x20]);
    assert_eq!((b.selector(SegReg::Cs), b.ip()), (0x2000, 0x1234));
    assert_eq!(b.core().vcpu.seg(SegReg::Cs).base, 0x2_0000);
    assert_eq!(b.get(STACK - 4, 4), CODE + 5, "CS:IP of the next instruction");
    b.step(&[0xca, 0x02, 0x00]);
    assert_eq!((b.selector(SegReg::Cs), b.ip()), (0, CODE + 5));
    assert_eq!(b.reg(gpr::RSP), STACK + 2);
}

#[test]
fn direct_far_jump_checks_the_descriptor() {
    let cases = [
        (0u16, vector::GP, 0, "null"),
        (0x100, vector::GP, 0x100, "beyond the limit"),
        (DATA0, vector::GP, DATA0, "data"),
        (CODE3, vector::GP, CODE3 & !3, "outer level"),
    ];
    for (selector, vector, error, what) in cases {
        let mut b = Bench::protected();
        b.step(&far(0xea, selector, 0x8000));
        assert_eq!(b.fault(), (vector, Some(error.into())), "{what}");
        assert_eq!(b.ip(), b.handler(vector), "{what}");
    }
    let mut b = Bench::protected();
    let not_present = descriptor(0, 0xf_ffff, attr::S | attr::CODE | attr::DB | attr::G);
    b.set_descriptor(FREE, not_present);
    b.step(&far(0xea, FREE, 0));
    assert_eq!(b.fault(), (vector::NP, Some(FREE.into())));
    let mut b = Bench::protected();
    b.set_descriptor(FREE, descriptor(0, 0xfff, attr::P | attr::S | attr::CODE | attr::DB));
    b.step(&far(0xea, FREE, 0x1000));
    assert_eq!(b.fault(), (vector::GP, Some(0)), "EIP beyond the new limit");
    assert_eq!(b.selector(SegReg::Cs), CODE0);
}

#[test]
fn call_gate_to_an_inner_level_copies_parameters_and_returns() {
    let mut b = Bench::protected().user();
    b.set_descriptor(FREE, gate(CODE0, ENTRY, 12, 3, 2));
    b.put(STACK3, 8, 0x2222_2222_1111_1111);
    b.step(&far(0x9a, FREE | 3, 0));
    assert_eq!((b.selector(SegReg::Cs), b.ip()), (CODE0, ENTRY));
    assert_eq!((b.selector(SegReg::Ss), b.reg(gpr::RSP)), (DATA0, STACK - 24));
    let frame: Vec<u64> = (0..6).map(|i| b.get(STACK - 24 + 4 * i, 4)).collect();
    let want = [CODE + 7, CODE3.into(), 0x1111_1111, 0x2222_2222, STACK3, DATA3.into()];
    assert_eq!(frame, want);
    assert_eq!(b.core().vcpu.cpl, 0);

    // A privileged data segment does not survive the return to level 3.
    let ds = flat(DATA0, attr::P | attr::S | attr::RW);
    b.core().vcpu.segs[SegReg::Ds as usize] = ds;
    b.step(&[0xca, 8, 0]);
    assert_eq!((b.selector(SegReg::Cs), b.ip()), (CODE3, CODE + 7));
    assert_eq!((b.selector(SegReg::Ss), b.reg(gpr::RSP)), (DATA3, STACK3 + 8));
    assert_eq!(b.selector(SegReg::Ds), 0);
    assert_eq!(b.selector(SegReg::Es), DATA3);
}

#[test]
fn call_gate_faults_before_it_changes_anything() {
    let mut b = Bench::protected().user();
    b.set_descriptor(FREE, gate(CODE0, ENTRY, 12, 2, 0));
    b.step(&far(0x9a, FREE | 3, 0));
    assert_eq!(b.fault(), (vector::GP, Some(FREE.into())), "gate DPL below CPL");

    let mut b = Bench::protected().user();
    b.set_descriptor(FREE, gate(CODE0, ENTRY, 12, 3, 0));
    b.put(TSS + 8, 4, 0);
    // The handler cannot be entered either without a stack: the first cause is in the chain.
    b.step(&far(0x9a, FREE | 3, 0));
    let first = b.core().delivery.chain[0].clone();
    assert_eq!((first.vector, first.error), (vector::TS, Some(0)), "{first:?}");
    assert_eq!(b.reg(gpr::RSP), STACK3);
}

#[test]
fn iret_to_virtual_8086_mode_and_interrupt_back() {
    let mut b = Bench::protected();
    let flags = rflags::VM | rflags::FIXED | rflags::IF;
    let frame = [0x20, 0x3000, flags, 0x0500, 0x2000, 0x10, 0x20, 0x30, 0x40];
    for (i, v) in (0..).zip(frame) {
        b.put(STACK - 64 + 4 * i, 4, v);
    }
    b.set(gpr::RSP, STACK - 64);
    b.step(&[0xcf]);
    assert!(b.core().vcpu.v86());
    assert_eq!((b.selector(SegReg::Cs), b.ip(), b.core().vcpu.cpl), (0x3000, 0x20, 3));
    assert_eq!((b.selector(SegReg::Ss), b.reg(gpr::RSP)), (0x2000, 0x500));
    assert_eq!(b.selector(SegReg::Gs), 0x40);
    // CLI with IOPL 0 is #GP(0); the handler runs at CPL 0 with null data segments.
    b.step(&[0xfa]);
    assert_eq!(b.fault(), (vector::GP, Some(0)));
    assert!(!b.core().vcpu.v86());
    assert_eq!(b.selector(SegReg::Gs), 0);
    assert_eq!(b.reg(gpr::RSP), STACK - 40);
    let pushed: Vec<u64> = (0..10).map(|i| b.get(STACK - 40 + 4 * i, 4)).collect();
    let flags = flags | rflags::RF;
    assert_eq!(pushed, [0, 0x20, 0x3000, flags, 0x500, 0x2000, 0x10, 0x20, 0x30, 0x40]);
}

#[test]
fn iret_at_cpl_3_keeps_iopl_and_if() {
    let mut b = Bench::protected().user();
    b.put(STACK3, 4, ENTRY);
    b.put(STACK3 + 4, 4, CODE3.into());
    b.put(STACK3 + 8, 4, rflags::IOPL | rflags::IF | rflags::CF | rflags::VIP | rflags::ID);
    b.step(&[0xcf]);
    assert_eq!(b.ip(), ENTRY);
    assert_eq!(b.core().vcpu.rflags(), rflags::CF | rflags::ID | rflags::FIXED);
}

#[test]
fn iretq_always_pops_the_stack_and_allows_a_null_ss() {
    let mut b = Bench::long();
    for (i, v) in (0..).zip([ENTRY, CODE0.into(), 2, 0x5008, 0]) {
        b.put(STACK + 8 * i, 8, v);
    }
    b.step(&[0x48, 0xcf]);
    assert!(b.quiet());
    assert_eq!((b.ip(), b.reg(gpr::RSP), b.selector(SegReg::Ss)), (ENTRY, 0x5008, 0));

    for (cs, what) in [(CODE3, "null SS for CPL 3"), (CODE0, "null SS whose RPL is not CPL")] {
        let mut b = Bench::long();
        for (i, v) in (0..).zip([ENTRY, cs.into(), 2, 0x5008, 3]) {
            b.put(STACK + 8 * i, 8, v);
        }
        b.step(&[0x48, 0xcf]);
        assert_eq!(b.fault(), (vector::GP, Some(0)), "{what}");
    }
}

#[test]
fn iret_unblocks_nmi() {
    let mut b = Bench::protected();
    b.core().lines.nmi = true;
    b.step(&[0x90]);
    assert_eq!(b.ip(), b.handler(vector::NMI));
    assert!(b.core().vcpu.nmi_blocked);
    b.step(&[0xcf]);
    assert!(!b.core().vcpu.nmi_blocked);
}

/// A second task at [`TSS2`] that starts at ENTRY.
fn second_task(b: &mut Bench) {
    b.set_descriptor(FREE, descriptor(TSS2, 0x67, attr::P | 9));
    for (offset, v) in [
        (0x20, ENTRY),
        (0x24, rflags::FIXED),
        (0x28, 0xaaaa),
        (0x38, 0x5000),
        (0x48, DATA0.into()),
        (0x4c, CODE0.into()),
        (0x50, DATA0.into()),
        (0x54, DATA0.into()),
    ] {
        b.put(TSS2 + offset, 4, v);
    }
}

#[test]
fn task_switch_by_call_and_back_by_iret() {
    let mut b = Bench::protected();
    second_task(&mut b);
    b.set(gpr::RBX, 0x1234_5678);
    b.step(&far(0x9a, FREE, 0));
    assert!(b.quiet(), "{:?}", b.core().delivery.chain);
    assert_eq!((b.ip(), b.reg(gpr::RAX), b.reg(gpr::RSP)), (ENTRY, 0xaaaa, 0x5000));
    assert_eq!(b.core().vcpu.tr.selector, FREE);
    assert!(b.core().vcpu.eflags & rflags::NT != 0);
    assert_eq!(b.get(TSS2, 2), u64::from(TASK), "back link");
    assert_eq!(b.get(TSS + 0x20, 4), CODE + 7, "the old task continues after the CALL");
    assert_eq!(b.get(TSS + 0x34, 4), 0x1234_5678, "EBX of the old task");
    assert_eq!(b.get(GDT + u64::from(FREE) + 5, 1), 0x8b, "new task busy");
    assert!(b.core().vcpu.sys.cr0 & crate::vcpu::cr0::TS != 0);

    b.step(&[0xcf]);
    assert!(b.quiet(), "{:?}", b.core().delivery.chain);
    assert_eq!((b.ip(), b.reg(gpr::RBX)), (CODE + 7, 0x1234_5678));
    assert_eq!(b.core().vcpu.tr.selector, TASK);
    assert_eq!(b.get(GDT + u64::from(FREE) + 5, 1), 0x89, "nested task available again");
    assert_eq!(b.get(TSS2 + 0x24, 4) & rflags::NT, 0, "NT cleared in the saved flags");
}

/// A 16-bit task at [`TSS2`] that starts at ENTRY (SDM vol. 3, figure 7-10).
fn sixteen_bit_task(b: &mut Bench) {
    b.set_descriptor(FREE, descriptor(TSS2, 0x2b, attr::P | 1));
    for (offset, v) in [
        (0x0e, ENTRY),
        (0x10, rflags::FIXED | rflags::CF),
        (0x12, 0xaaaa),
        (0x1a, 0x5000),
        (0x22, DATA0.into()),
        (0x24, CODE0.into()),
        (0x26, DATA0.into()),
        (0x28, DATA0.into()),
    ] {
        b.put(TSS2 + offset, 2, v);
    }
}

#[test]
fn sixteen_bit_task_switch_and_back() {
    let mut b = Bench::protected();
    sixteen_bit_task(&mut b);
    b.core().vcpu.segs[SegReg::Fs as usize] = flat(DATA0, attr::P | attr::S | attr::RW);
    b.set(gpr::RBX, 0x1234_5678);
    b.step(&far(0x9a, FREE, 0));
    assert!(b.quiet(), "{:?}", b.core().delivery.chain);
    assert_eq!((b.ip(), b.reg(gpr::RAX), b.reg(gpr::RSP)), (ENTRY, 0xffff_aaaa, 0xffff_5000));
    assert_eq!((b.selector(SegReg::Es), b.selector(SegReg::Cs)), (DATA0, CODE0));
    assert_eq!(b.selector(SegReg::Fs), 0, "the format has no FS");
    assert!(b.core().vcpu.flags.cf() && b.core().vcpu.eflags & rflags::NT != 0);
    assert_eq!(b.get(TSS2, 2), u64::from(TASK), "back link");
    assert_eq!(b.get(TSS + 0x34, 4), 0x1234_5678, "the old task's format has 32 bits");
    assert_eq!(b.get(GDT + u64::from(FREE) + 5, 1), 0x83, "new task busy");

    b.set(gpr::RDI, 0x8765_4321);
    b.step(&[0xcf]);
    assert!(b.quiet(), "{:?}", b.core().delivery.chain);
    assert_eq!((b.ip(), b.reg(gpr::RBX)), (CODE + 7, 0x1234_5678));
    assert_eq!(b.selector(SegReg::Fs), DATA0, "the old task's format has FS");
    assert_eq!(b.get(TSS2 + 0x0e, 2), ENTRY + 1);
    assert_eq!(b.get(TSS2 + 0x20, 2), 0x4321, "DI, the last register");
    assert_eq!(b.get(TSS2 + 0x22, 2), DATA0.into(), "ES behind it");
    assert_eq!(b.get(TSS2 + 0x10, 2) & rflags::NT, 0, "NT cleared in the saved flags");
    assert_eq!(b.get(GDT + u64::from(FREE) + 5, 1), 0x81, "nested task available again");
}

#[test]
fn a_sixteen_bit_tss_may_be_smaller() {
    for (limit, fault) in [(0x2b, None), (0x2a, Some((vector::TS, Some(FREE.into()))))] {
        let mut b = Bench::protected();
        sixteen_bit_task(&mut b);
        b.set_descriptor(FREE, descriptor(TSS2, limit, attr::P | 1));
        b.step(&far(0xea, FREE, 0));
        let raised = (!b.quiet()).then(|| b.fault());
        assert_eq!(raised, fault);
    }
}

#[test]
fn faults_after_the_commit_point_belong_to_the_new_task() {
    let mut b = Bench::protected();
    second_task(&mut b);
    b.put(TSS2 + 0x54, 4, u64::from(CODE0) + 0x100);
    b.step(&far(0xea, FREE, 0));
    assert_eq!(b.fault(), (vector::TS, Some(0x108)));
    assert_eq!(b.ip(), b.handler(vector::TS));
    assert_eq!(b.get(0x5000 - 12, 4), ENTRY, "EIP of the new task is pushed on its stack");
    assert_eq!(b.get(GDT + u64::from(TASK) + 5, 1), 0x89, "JMP leaves the old task available");
}

#[test]
fn exception_through_a_task_gate_pushes_its_error_code() {
    let mut b = Bench::protected();
    second_task(&mut b);
    b.put(IDT + 13 * 8, 8, gate(FREE, 0, 5, 0, 0));
    b.step(&far(0xea, DATA0, 0));
    assert_eq!((b.ip(), b.reg(gpr::RSP)), (ENTRY, 0x5000 - 4));
    assert_eq!(b.get(0x5000 - 4, 4), u64::from(DATA0));
    assert_eq!(b.get(TSS + 0x20, 4), CODE, "the faulting instruction is restarted");
}

#[test]
fn busy_task_cannot_be_entered() {
    let mut b = Bench::protected();
    b.step(&far(0xea, TASK, 0));
    assert_eq!(b.fault(), (vector::GP, Some(TASK.into())));
}

#[test]
fn syscall_and_sysret() {
    let mut b = Bench::long().user();
    let sys = &mut b.core().vcpu.sys;
    sys.star = 0x0010_0008 << 32;
    sys.lstar = ENTRY;
    sys.sfmask = rflags::IF;
    b.core().vcpu.eflags |= rflags::IF;
    b.step(&[0x0f, 0x05]);
    assert_eq!((b.ip(), b.reg(gpr::RCX), b.core().vcpu.cpl), (ENTRY, CODE + 2, 0));
    assert_eq!((b.selector(SegReg::Cs), b.selector(SegReg::Ss)), (CODE0, DATA0));
    assert_eq!(b.reg(11), rflags::IF | rflags::FIXED);
    assert_eq!(b.core().vcpu.eflags & rflags::IF, 0);
    b.step(&[0x48, 0x0f, 0x07]);
    assert_eq!((b.ip(), b.core().vcpu.cpl), (CODE + 2, 3));
    assert_eq!((b.selector(SegReg::Cs), b.selector(SegReg::Ss)), (0x23, 0x1b));
    assert!(b.core().vcpu.eflags & rflags::IF != 0);
}

/// Compatibility mode at CPL 3, with SYSCALL set up.
fn compatibility(model: CpuModel) -> Bench {
    let mut b = Bench::with_cpu(model).enter_long().user();
    let v = &mut b.core().vcpu;
    v.sys.star = 0x0010_0008 << 32;
    v.sys.cstar = ENTRY;
    let cs = &mut v.segs[SegReg::Cs as usize];
    cs.attr = cs.attr & !attr::L | attr::DB;
    b.core().mode_changed();
    b
}

#[test]
fn syscall_in_compatibility_mode_is_amds() {
    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    let mut intel = compatibility(CpuModel::default());
    intel.step(&SYSCALL);
    assert_eq!(intel.fault(), (vector::UD, None));

    let mut amd = compatibility(CpuModel::default().by_amd());
    amd.step(&SYSCALL);
    assert!(amd.quiet());
    assert_eq!((amd.ip(), amd.reg(gpr::RCX), amd.core().vcpu.cpl), (ENTRY, CODE + 2, 0));
    assert!(amd.core().vcpu.code64(), "CSTAR names 64-bit code");
    // SYSRET without REX.W: back to compatibility mode.
    amd.step(&[0x0f, 0x07]);
    assert_eq!((amd.ip(), amd.core().vcpu.cpl), (CODE + 2, 3));
    assert!(!amd.core().vcpu.code64());
}

#[test]
fn syscall_in_protected_mode_is_amds_too() {
    let mut b = Bench::with_cpu(CpuModel::default().by_amd()).enter_protected().user();
    let sys = &mut b.core().vcpu.sys;
    sys.efer |= efer::SCE;
    sys.star = 0x0010_0008 << 32 | ENTRY;
    b.core().vcpu.eflags |= rflags::IF;
    b.step(&[0x0f, 0x05]);
    assert_eq!((b.ip(), b.reg(gpr::RCX), b.core().vcpu.cpl), (ENTRY, CODE + 2, 0));
    assert_eq!(b.core().vcpu.eflags & rflags::IF, 0);
}

#[test]
fn sysret_to_a_non_canonical_address_faults_at_cpl_0() {
    let mut b = Bench::long();
    b.set(gpr::RCX, 1 << 47);
    b.step(&[0x48, 0x0f, 0x07]);
    assert_eq!(b.fault(), (vector::GP, Some(0)));
    assert_eq!(b.core().vcpu.cpl, 0);
}

#[test]
fn sysenter_and_sysexit() {
    let mut b = Bench::protected().user();
    let sys = &mut b.core().vcpu.sys;
    (sys.sysenter_cs, sys.sysenter_esp, sys.sysenter_eip) = (CODE0.into(), STACK, ENTRY);
    b.step(&[0x0f, 0x34]);
    assert_eq!((b.ip(), b.reg(gpr::RSP), b.core().vcpu.cpl), (ENTRY, STACK, 0));
    b.set(gpr::RDX, 0xa000);
    b.set(gpr::RCX, STACK3);
    b.step(&[0x0f, 0x35]);
    assert_eq!((b.ip(), b.reg(gpr::RSP), b.core().vcpu.cpl), (0xa000, STACK3, 3));
    assert_eq!((b.selector(SegReg::Cs), b.selector(SegReg::Ss)), (0x1b, 0x23));
}
