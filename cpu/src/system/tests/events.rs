//! Delivery of exceptions and interrupts, debug traps, shadows.

use brolga_mmu::Linear;

use crate::core::Stop;
use crate::exception::vector;
use crate::system::debug;
use crate::system::testing::*;
use crate::vcpu::{SegReg, attr, cr4, gpr, rflags};

const INT_40: [u8; 2] = [0xcd, 0x40];

#[test]
fn real_mode_interrupt_uses_the_vector_table() {
    let mut b = Bench::real();
    b.put(0x40 * 4, 4, 0x2000_0123);
    b.core().vcpu.eflags |= rflags::IF;
    b.step(&INT_40);
    assert_eq!((b.selector(SegReg::Cs), b.ip()), (0x2000, 0x123));
    assert_eq!(b.reg(gpr::RSP), STACK - 6);
    assert_eq!(b.get(STACK - 6, 4), CODE + 2);
    assert_eq!(b.get(STACK - 2, 2), rflags::IF | rflags::FIXED);
    assert_eq!(b.core().vcpu.eflags & rflags::IF, 0);
    b.step(&[0xcf]);
    assert_eq!((b.ip(), b.reg(gpr::RSP)), (CODE + 2, STACK));
    assert!(b.core().vcpu.eflags & rflags::IF != 0);
}

#[test]
fn triple_fault_tells_its_causes() {
    let mut b = Bench::protected();
    b.core().vcpu.idtr.limit = 0x0f;
    let stop = b.run(&[0x0f, 0x0b], 10);
    assert_eq!(stop, Stop::Shutdown);
    let chain = &b.core().delivery.chain;
    let vectors: Vec<u8> = chain.iter().map(|l| l.vector).collect();
    assert_eq!(vectors, [vector::UD, vector::GP, vector::GP, vector::DF, vector::GP]);
    assert_eq!(chain[1].why.to_string(), "IDT entry 6 beyond limit 0x00f");
    assert_eq!(chain[1].error, Some(6 << 3 | 3), "IDT and EXT");
    assert_eq!(chain[0].rip, CODE);
}

#[test]
fn contributory_exceptions_become_a_double_fault() {
    // #GP (privilege) whose gate is not present: #NP, then #DF with error code 0.
    let mut b = Bench::protected().user();
    b.put(IDT + 13 * 8 + 5, 1, 0x0e);
    b.step(&[0xf4]);
    assert_eq!(b.fault(), (vector::DF, Some(0)));
    assert_eq!(b.ip(), b.handler(vector::DF));
    assert_eq!(b.get(STACK - 24, 4), 0, "error code");
    assert_eq!(b.get(STACK - 20, 4), CODE, "address of the first fault");
}

#[test]
fn int_n_checks_the_gate() {
    let mut b = Bench::protected().user();
    b.step(&INT_40);
    assert_eq!(b.fault(), (vector::GP, Some(0x40 << 3 | 2)), "DPL below CPL, not external");
    assert_eq!(b.get(STACK - 20, 4), CODE, "INT n is restarted");
    assert_eq!(b.get(STACK - 12, 4) & rflags::RF, rflags::RF, "faults set RF in the image");

    let mut b = Bench::protected().user();
    b.put(IDT + 0x40 * 8, 8, gate(CODE0, ENTRY, 15, 3, 0));
    b.core().vcpu.eflags |= rflags::IF;
    b.step(&INT_40);
    assert_eq!((b.ip(), b.core().vcpu.cpl), (ENTRY, 0));
    assert!(b.core().vcpu.eflags & rflags::IF != 0, "a trap gate leaves IF alone");
    let frame: Vec<u64> = (0..5).map(|i| b.get(STACK - 20 + 4 * i, 4)).collect();
    let flags = rflags::IF | rflags::FIXED;
    assert_eq!(frame, [CODE + 2, CODE3.into(), flags, STACK3, DATA3.into()]);
}

#[test]
fn sixteen_bit_gate_pushes_words() {
    let mut b = Bench::protected();
    b.put(IDT + 0x40 * 8, 8, gate(CODE0, ENTRY, 6, 0, 0));
    b.step(&INT_40);
    assert_eq!((b.ip(), b.reg(gpr::RSP)), (ENTRY, STACK - 6));
    assert_eq!(b.get(STACK - 6, 2), CODE + 2);
}

#[test]
fn long_mode_aligns_the_stack_and_pushes_it() {
    let mut b = Bench::long();
    b.set(gpr::RSP, STACK - 5);
    b.step(&INT_40);
    assert_eq!(b.reg(gpr::RSP), STACK - 16 - 40);
    let frame: Vec<u64> = (0..5).map(|i| b.get(STACK - 56 + 8 * i, 8)).collect();
    assert_eq!(frame, [CODE + 2, CODE0.into(), 2, STACK - 5, DATA0.into()]);
    assert_eq!(b.selector(SegReg::Ss), DATA0, "no change of level: SS stays");
}

#[test]
fn long_mode_interrupt_stack_table() {
    let mut b = Bench::long().user();
    b.put(IDT + 0x40 * 16, 8, gate(CODE0, ENTRY, 14, 3, 2));
    b.put(TSS + 0x24 + 8, 8, 0x5010);
    b.step(&INT_40);
    assert_eq!((b.ip(), b.reg(gpr::RSP)), (ENTRY, 0x5010 - 40));
    assert_eq!((b.selector(SegReg::Ss), b.core().vcpu.cpl), (0, 0));
    assert_eq!(b.get(0x5010 - 8, 8), u64::from(DATA3));
}

#[test]
fn page_fault_sets_cr2_and_its_error_code() {
    let mut b = Bench::long().user();
    // mov [0x500000], al: beyond the mapped 4 MiB.
    b.step(&[0x88, 0x04, 0x25, 0, 0, 0x50, 0]);
    assert_eq!(b.fault(), (vector::PF, Some(6)), "write, user, not present");
    assert_eq!(b.core().vcpu.sys.cr2, 0x50_0000);
    assert_eq!(b.get(STACK - 48, 8), 6);
}

#[test]
fn external_interrupt_waits_for_if_and_the_sti_shadow() {
    let mut b = Bench::protected();
    b.core().lines.intr = true;
    b.run(&[0x90, 0xfb, 0x90, 0x90], 2);
    assert!(b.quiet(), "IF was clear");
    b.go(1);
    assert_eq!(b.ip(), CODE + 3, "one instruction after STI");
    b.go(1);
    assert_eq!(b.fault(), (0x40, None));
    let sp = b.reg(gpr::RSP);
    assert_eq!(b.get(sp, 4), CODE + 3);
}

#[test]
fn mov_ss_holds_off_nmi() {
    let mut b = Bench::protected();
    b.set(gpr::RAX, DATA0.into());
    b.step(&[0x8e, 0xd0, 0x90, 0x90]);
    b.core().lines.nmi = true;
    b.go(1);
    assert_eq!(b.ip(), CODE + 3);
    b.go(1);
    assert_eq!(b.fault(), (vector::NMI, None));
}

#[test]
fn trap_flag_steps_one_instruction() {
    let mut b = Bench::protected();
    b.core().vcpu.eflags |= rflags::TF;
    b.load(&[0x90, 0x90]);
    b.go(2);
    assert_eq!(b.fault(), (vector::DB, None));
    assert_eq!(b.core().vcpu.sys.dr6 & 0xe00f, 1 << 14, "BS");
    assert_eq!(b.get(STACK - 12, 4), CODE + 1, "the next instruction");
    assert!(b.get(STACK - 4, 4) & rflags::TF != 0);
    assert_eq!(b.core().vcpu.eflags & rflags::TF, 0);
}

#[test]
fn instruction_breakpoint_faults_once_with_rf() {
    let mut b = Bench::protected();
    b.core().vcpu.sys.dr[1] = CODE + 1;
    b.core().vcpu.sys.dr7 = 0x408;
    b.load(&[0x90, 0x90, 0x90]);
    b.go(2);
    assert_eq!(b.fault(), (vector::DB, None));
    assert_eq!(b.core().vcpu.sys.dr6 & 0xf, 2);
    assert_eq!(b.get(STACK - 12, 4), CODE + 1, "the breakpoint's own instruction");
    let flags = b.get(STACK - 4, 4);
    assert_eq!(flags & rflags::RF, 0);
    // The handler sets RF and returns: the instruction runs.
    b.core().delivery.chain.clear();
    b.set(gpr::RSP, STACK - 12);
    b.put(STACK - 4, 4, flags | rflags::RF);
    b.step(&[0xcf]);
    b.go(1);
    assert!(b.quiet());
    assert_eq!(b.ip(), CODE + 2);
}

#[test]
fn data_breakpoint_traps_after_the_instruction() {
    let mut b = Bench::protected();
    b.core().vcpu.sys.dr[0] = ENTRY;
    // Breakpoint 0: local, write, 4 bytes.
    b.core().vcpu.sys.dr7 = 0x400 | 1 | 1 << 16 | 3 << 18;
    debug::data_access(b.core(), Linear(ENTRY + 4), 1, true);
    debug::data_access(b.core(), Linear(ENTRY), 4, false);
    assert_eq!(b.core().vcpu.pending_db, 0, "beside it, or a read");
    debug::data_access(b.core(), Linear(ENTRY - 1), 2, true);
    b.step(&[0x90]);
    assert_eq!(b.fault(), (vector::DB, None));
    assert_eq!(b.core().vcpu.sys.dr6 & 0xf, 1);
    assert_eq!(b.get(STACK - 12, 4), CODE);
}

#[test]
fn general_detect_faults_on_debug_register_access() {
    let mut b = Bench::protected();
    b.core().vcpu.sys.dr7 |= 1 << 13;
    b.step(&[0x0f, 0x21, 0xc0]);
    assert_eq!(b.fault(), (vector::DB, None));
    assert!(b.core().vcpu.sys.dr6 & 1 << 13 != 0);
    assert_eq!(b.core().vcpu.sys.dr7 & 1 << 13, 0);
}

#[test]
fn icebp_is_a_debug_trap_that_no_privilege_stops() {
    const ICEBP: [u8; 1] = [0xf1];
    // The gate's DPL is 0: INT 1 faults there.
    let mut b = Bench::protected().user();
    b.step(&[0xcd, vector::DB]);
    assert_eq!(b.fault(), (vector::GP, Some(1 << 3 | 2)));

    let mut b = Bench::protected().user();
    let dr6 = b.core().vcpu.sys.dr6;
    b.step(&ICEBP);
    assert_eq!((b.ip(), b.core().vcpu.cpl), (b.handler(vector::DB), 0));
    assert_eq!(b.get(STACK - 20, 4), CODE + 1, "a trap: the next instruction");
    assert_eq!(b.get(STACK - 12, 4) & rflags::RF, 0);
    assert_eq!(b.core().vcpu.sys.dr6, dr6);

    let mut b = Bench::protected();
    b.put(IDT + 8 + 5, 1, 0x0e);
    b.step(&ICEBP);
    assert_eq!(b.fault(), (vector::NP, Some(1 << 3 | 3)), "gate not present: EXT is set");
    assert_eq!(b.get(STACK - 12, 4), CODE, "ICEBP is restarted");
}

#[test]
fn bound_compares_signed_and_faults_outside() {
    const AT: u64 = 0x4000;
    // bound eax, [edi], and with 16 bits.
    let codes: [(&[u8], usize); 2] = [(&[0x62, 0x07], 4), (&[0x66, 0x62, 0x07], 2)];
    for (code, bytes) in codes {
        for (index, inside) in [(-3, false), (-2, true), (0, true), (5, true), (6, false)] {
            let mut b = Bench::protected();
            b.put(AT, bytes, -2_i64 as u64);
            b.put(AT + bytes as u64, bytes, 5);
            b.set(gpr::RDI, AT);
            b.set(gpr::RAX, u64::from(index as u32));
            b.step(code);
            let raised = (!b.quiet()).then(|| b.fault());
            assert_eq!(raised, (!inside).then_some((vector::BR, None)), "{index} of {bytes} bytes");
            if !inside {
                assert_eq!(b.get(STACK - 12, 4), CODE, "a fault: BOUND itself");
            }
        }
    }
    let mut b = Bench::long();
    b.step(&[0x62, 0x07, 0x90, 0x90]);
    assert_eq!(b.fault(), (vector::UD, None), "64-bit code has no BOUND");
}

/// Two iterations of `rep movsb` with ECX = 3, before the next instruction.
fn two_of_three_iterations() -> Bench {
    let mut b = Bench::protected();
    b.set(gpr::RCX, 3);
    b.set(gpr::RSI, 0x4000);
    b.set(gpr::RDI, 0x5000);
    b.core().vcpu.eflags |= rflags::IF;
    b.run(&REP_MOVSB, 2);
    b
}

const REP_MOVSB: [u8; 2] = [0xf3, 0xa4];

#[test]
fn an_interrupt_between_iterations_pushes_rf() {
    let mut b = two_of_three_iterations();
    b.core().lines.intr = true;
    b.go(1);
    assert_eq!(b.get(STACK - 12, 4), CODE, "the repetition goes on afterwards");
    assert_eq!(b.get(STACK - 4, 4) & rflags::RF, rflags::RF);
    assert!(!b.core().vcpu.repeating);

    let mut b = two_of_three_iterations();
    b.go(1);
    b.core().lines.intr = true;
    b.go(1);
    assert_eq!(b.get(STACK - 12, 4), CODE + 2, "after the last iteration");
    assert_eq!(b.get(STACK - 4, 4) & rflags::RF, 0);
}

#[test]
fn a_trap_between_iterations_pushes_rf() {
    let mut b = Bench::protected();
    b.set(gpr::RCX, 2);
    b.core().vcpu.eflags |= rflags::TF;
    b.run(&[0xf3, 0x6e], 2); // rep outsb
    assert_eq!(b.fault(), (vector::DB, None));
    assert_eq!((b.get(STACK - 12, 4), b.reg(gpr::RCX)), (CODE, 1));
    assert_eq!(b.get(STACK - 4, 4) & rflags::RF, rflags::RF);
}

#[test]
fn an_instruction_breakpoint_strikes_before_the_first_iteration_only() {
    let mut b = Bench::protected();
    b.core().vcpu.sys.dr[0] = CODE;
    b.core().vcpu.sys.dr7 = 0x402;
    b.core().vcpu.eflags |= rflags::RF;
    b.set(gpr::RCX, 3);
    b.set(gpr::RSI, 0x4000);
    b.set(gpr::RDI, 0x5000);
    b.run(&REP_MOVSB, 3);
    assert!(b.quiet());
    assert_eq!((b.ip(), b.reg(gpr::RCX)), (CODE + 2, 0));
}

#[test]
fn each_port_access_of_a_repetition_has_its_own_time() {
    let mut b = Bench::protected();
    b.set(gpr::RCX, 4);
    b.set(gpr::RSI, 0x4000);
    b.put(0x4000, 4, 0x0403_0201);
    b.run(&[0x90, 0xf3, 0x6e], 3); // nop; rep outsb
    b.go(2);
    assert_eq!(b.seen().outputs, [(1, 1), (2, 2), (3, 3), (4, 4)]);
    assert_eq!((b.ip(), b.core().now()), (CODE + 3, 5));
}

/// Virtual-8086 mode with VME, IOPL 0.
fn v86() -> Bench {
    let mut b = Bench::protected();
    let v = &mut b.core().vcpu;
    v.eflags |= rflags::VM;
    v.cpl = 3;
    v.sys.cr4 |= cr4::VME;
    for s in &mut v.segs {
        let rights = attr::P | 3 << 5 | attr::S | attr::RW;
        *s = crate::vcpu::Segment::real(0, rights, 0xffff);
    }
    b.core().mode_changed();
    b
}

#[test]
fn vme_virtualizes_the_interrupt_flag() {
    let mut b = v86();
    b.run(&[0xfb, 0x9c, 0xfa], 2);
    assert!(b.quiet());
    assert!(b.core().vcpu.eflags & rflags::VIF != 0);
    let image = b.get(STACK - 2, 2);
    assert_eq!(image, rflags::IF | rflags::IOPL | rflags::FIXED);
    b.go(1);
    assert_eq!(b.core().vcpu.eflags & rflags::VIF, 0);
    b.core().vcpu.eflags |= rflags::VIP;
    b.step(&[0xfb]);
    assert_eq!(b.fault(), (vector::GP, Some(0)), "STI with VIP pending");
}

#[test]
fn vme_redirects_interrupts_by_the_bitmap() {
    let mut b = v86();
    b.put(TSS + 0x66, 2, 0x88);
    b.put(0x40 * 4, 4, 0x0123_4567);
    b.step(&INT_40);
    assert_eq!((b.selector(SegReg::Cs), b.ip()), (0x0123, 0x4567));
    assert!(b.core().vcpu.v86());
    let mut b = v86();
    b.put(TSS + 0x66, 2, 0x88);
    b.put(TSS + 0x68 + 0x40 / 8, 1, 1);
    b.step(&INT_40);
    assert_eq!(b.fault(), (vector::GP, Some(0)), "redirected to the monitor, IOPL < 3");
}
