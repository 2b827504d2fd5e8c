//! #AC (SDM vol. 3, 6.15): at level 3 with CR0.AM and EFLAGS.AC, by the type of the operand.

use crate::exception::vector;
use crate::system::testing::*;
use crate::vcpu::{cr0, gpr, rflags};

const AC_0: (u8, Option<u32>) = (vector::AC, Some(0));

/// `bench` at level 3 with alignment checks on.
fn checking(bench: Bench) -> Bench {
    let mut b = bench.user();
    b.core().vcpu.sys.cr0 |= cr0::AM;
    b.core().vcpu.eflags |= rflags::AC;
    b.core().mode_changed();
    b
}

/// What `code` raises with EDI, and ESI, at `at`.
fn raised(bench: Bench, code: &[u8], at: u64) -> Option<(u8, Option<u32>)> {
    let mut b = checking(bench);
    b.set(gpr::RDI, at);
    b.set(gpr::RSI, at);
    b.step(code);
    (!b.quiet()).then(|| b.fault())
}

#[test]
fn string_operands_are_aligned_to_their_elements() {
    let stosd = [0xab];
    let (rep_stosd, movsd, scasw) = ([0xf3, 0xab], [0xa5], [0x66, 0xaf]);
    for bench in [Bench::protected, Bench::long] {
        for code in [&stosd[..], &movsd, &rep_stosd] {
            let counted = || {
                let mut b = bench();
                b.set(gpr::RCX, 1);
                b
            };
            assert_eq!(raised(counted(), code, ENTRY + 4), None, "{code:02x?}");
            assert_eq!(raised(counted(), code, ENTRY + 2), Some(AC_0), "{code:02x?}");
        }
        assert_eq!(raised(bench(), &scasw, ENTRY + 2), None);
        assert_eq!(raised(bench(), &scasw, ENTRY + 1), Some(AC_0));
    }
}

#[test]
fn x87_operands_have_alignments_of_their_own() {
    // (code with the operand at EDI, its alignment)
    let cases: [(&[u8], u64); 7] = [
        (&[0xdb, 0x2f], 8),       // fld tbyte
        (&[0xdf, 0x27], 8),       // fbld
        (&[0xdd, 0x07], 8),       // fld qword
        (&[0xd9, 0x37], 4),       // fnstenv, 28 bytes
        (&[0x66, 0xd9, 0x37], 2), // fnstenv, 14 bytes
        (&[0xdd, 0x37], 4),       // fnsave, 108 bytes
        (&[0x66, 0xdd, 0x37], 2), // fnsave, 94 bytes
    ];
    for (code, to) in cases {
        assert_eq!(raised(Bench::protected(), code, ENTRY + to), None, "{code:02x?}");
        assert_eq!(raised(Bench::protected(), code, ENTRY + to / 2), Some(AC_0), "{code:02x?}");
    }
}

#[test]
fn an_interrupt_to_level_3_checks_the_stack() {
    // The handler is at the level that it interrupts.
    let with_gate = || {
        let mut b = checking(Bench::protected());
        b.put(IDT + 0x40 * 8, 8, gate(CODE3, ENTRY, 14, 3, 0));
        b
    };
    let mut b = with_gate();
    b.step(&[0xcd, 0x40]);
    assert!(b.quiet());
    assert_eq!((b.ip(), b.core().vcpu.cpl), (ENTRY, 3));

    let mut b = with_gate();
    b.set(gpr::RSP, STACK3 - 2);
    b.step(&[0xcd, 0x40]);
    assert_eq!(b.fault(), AC_0);
    assert_eq!(b.get(STACK - 8, 4), STACK3 - 2, "nothing was pushed");

    let mut b = with_gate();
    b.set(gpr::RSP, STACK3 - 2);
    b.core().vcpu.eflags |= rflags::IF;
    b.core().lines.intr = true;
    b.step(&[0x90]);
    assert_eq!(b.fault(), (vector::AC, Some(1)), "an external event");
}

#[test]
fn an_interrupt_to_an_inner_level_does_not() {
    let mut b = checking(Bench::protected());
    b.put(TSS + 4, 4, STACK - 2);
    b.put(IDT + 0x40 * 8, 8, gate(CODE0, ENTRY, 14, 3, 0));
    b.step(&[0xcd, 0x40]);
    assert!(b.quiet());
    assert_eq!(b.reg(gpr::RSP), STACK - 2 - 20);
}

#[test]
fn far_returns_check_the_stack() {
    for (sp, want) in [(STACK3 - 16, None), (STACK3 - 14, Some(AC_0))] {
        let mut b = checking(Bench::protected());
        b.set(gpr::RSP, sp);
        b.put(sp, 4, ENTRY);
        b.put(sp + 4, 4, CODE3.into());
        b.step(&[0xcb]);
        let fault = (!b.quiet()).then(|| b.fault());
        assert_eq!(fault, want);
    }
}
