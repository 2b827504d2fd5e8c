//! Stops for debuggers, exact to the instruction.

use brolga_mmu::Linear;

use super::stops::{Hit, StopPlan, WatchFor, Watchpoint};
use crate::core::Stop;
use crate::system::testing::{Bench, CODE, TABLES};
use crate::vcpu::{RIP, gpr};

/// `inc eax; inc ebx; inc ecx; jmp` back to the start.
const LOOP: [u8; 5] = [0x40, 0x43, 0x41, 0xeb, 0xfb];
const DATA: u64 = CODE + 0x2100;

fn breaking_at(at: u64) -> StopPlan {
    StopPlan { breakpoints: [at].into_iter().collect(), ..StopPlan::default() }
}

fn watching(at: u64, len: u64, kind: WatchFor) -> StopPlan {
    StopPlan { watchpoints: vec![Watchpoint { at, len, kind }], ..StopPlan::default() }
}

#[test]
fn a_breakpoint_in_known_code_stops_before_its_instruction_each_time() {
    let mut b = Bench::protected();
    b.set(RIP, CODE);
    b.run(&LOOP, 400);
    b.core().set_stops(breaking_at(CODE + 1));
    for round in 101..200 {
        assert_eq!(b.go(1000), Stop::Debugger);
        assert_eq!(b.core().stops.take(), Some(Hit::Breakpoint { at: CODE + 1 }));
        assert_eq!((b.ip(), b.reg(gpr::RAX), b.reg(gpr::RBX)), (CODE + 1, round, round - 1));
        b.core().pass_breakpoint();
    }
    b.core().set_stops(StopPlan::default());
    assert_eq!(b.go(1000), Stop::Budget);
}

#[test]
fn a_breakpoint_is_met_again_at_once_unless_it_is_passed() {
    let mut b = Bench::protected();
    b.core().set_stops(breaking_at(CODE));
    b.set(RIP, CODE);
    b.load(&LOOP);
    for _ in 0..2 {
        assert_eq!(b.go(10), Stop::Debugger);
        assert!(b.core().stops.take().is_some());
        assert_eq!(b.reg(gpr::RAX), 0);
    }
    b.core().pass_breakpoint();
    assert_eq!(b.go(1), Stop::Budget);
    assert_eq!(b.reg(gpr::RAX), 1);
}

#[test]
fn a_linear_breakpoint_counts_at_its_own_address_only_and_a_physical_one_at_all() {
    const ALIAS: u64 = 0x40_0000;
    const FRAME: u64 = 0x4000;
    const TABLE: u64 = TABLES + 0x3000;
    let mut b = Bench::long();
    b.put(TABLES + 0x2010, 8, TABLE | 7);
    b.put(TABLE, 8, FRAME | 7);
    b.put(TABLE + 8, 8, FRAME | 7);
    b.core().mem.tlb.flush_all();
    // nop; nop; nop
    b.put(FRAME, 3, 0x90_9090);
    let stops_at = |b: &mut Bench, from: u64| {
        b.set(RIP, from);
        let stop = b.go(3);
        b.core().stops.take().map(|_| b.ip()).xor((stop == Stop::Budget).then_some(0))
    };
    assert_eq!(stops_at(&mut b, ALIAS), Some(0));
    b.core().set_stops(breaking_at(ALIAS + 0x1001));
    assert_eq!(stops_at(&mut b, ALIAS), Some(0), "another address of the same memory");
    assert_eq!(stops_at(&mut b, ALIAS + 0x1000), Some(ALIAS + 0x1001));
    assert_eq!(stops_at(&mut b, ALIAS), Some(0));
    let physical = [FRAME + 2].into_iter().collect();
    b.core().set_stops(StopPlan { physical, ..StopPlan::default() });
    for page in [ALIAS, ALIAS + 0x1000] {
        assert_eq!(stops_at(&mut b, page), Some(page + 2));
    }
}

#[test]
fn a_data_access_lets_no_code_with_a_breakpoint_be_executed() {
    let mut b = Bench::protected();
    b.set(RIP, CODE);
    b.run(&LOOP, 40);
    b.core().set_stops(breaking_at(CODE + 1));
    // The page of code enters the TLB as data first.
    let read = b.core().read_linear(Linear(CODE), brolga_mmu::Width::W8, super::By::Current);
    assert_eq!(read.ok(), Some(0x40));
    assert_eq!(b.go(40), Stop::Debugger);
    assert_eq!(b.ip(), CODE + 1);
}

#[test]
fn watchpoints_stop_after_the_access_and_name_its_first_watched_byte() {
    // mov eax, [DATA]; mov [DATA], eax; nop
    let mut code = vec![0xa1];
    code.extend((DATA as u32).to_le_bytes());
    code.push(0xa3);
    code.extend((DATA as u32).to_le_bytes());
    code.push(0x90);
    for (kind, write, ip) in [
        (WatchFor::Reads, false, CODE + 5),
        (WatchFor::Accesses, false, CODE + 5),
        (WatchFor::Writes, true, CODE + 10),
    ] {
        let mut b = Bench::protected();
        // The page is in the TLB before it is watched.
        b.run(&code, 2);
        b.core().set_stops(watching(DATA + 3, 100, kind));
        b.set(RIP, CODE);
        assert_eq!(b.go(3), Stop::Debugger, "{kind:?}");
        let hit = b.core().stops.take();
        assert_eq!(hit, Some(Hit::Watchpoint { at: DATA + 3, kind, write }));
        assert_eq!(b.ip(), ip, "{kind:?}");
    }
}

#[test]
fn what_is_beside_a_watchpoint_does_not_stop() {
    let mut code = vec![0xa3];
    code.extend((DATA as u32).to_le_bytes());
    for at in [DATA - 1, DATA + 4] {
        let mut b = Bench::protected();
        b.core().set_stops(watching(at, 1, WatchFor::Accesses));
        assert_eq!(b.run(&code, 1), Stop::Budget, "{at:#x}");
    }
}

#[test]
fn every_iteration_of_a_repetition_is_watched() {
    // rep stosb over the watched byte.
    let mut b = Bench::protected();
    b.core().set_stops(watching(DATA + 5, 1, WatchFor::Writes));
    b.set(gpr::RDI, DATA);
    b.set(gpr::RCX, 100);
    assert_eq!(b.run(&[0xf3, 0xaa], 200), Stop::Debugger);
    assert_eq!(b.reg(gpr::RCX), 94);
    assert!(b.core().stops.take().is_some());
    assert_eq!(b.go(94), Stop::Budget);
    assert_eq!(b.reg(gpr::RCX), 0);
}

#[test]
fn vectors_ports_registers_and_control_registers_stop() {
    let mut b = Bench::protected();
    let plan = StopPlan { vectors: [1 << 6, 0, 0, 0], ..StopPlan::default() };
    b.core().set_stops(plan);
    assert_eq!(b.run(&[0x0f, 0x0b], 2), Stop::Debugger); // ud2
    let hit = b.core().stops.take();
    assert_eq!(hit, Some(Hit::Vector { vector: 6, from: CODE, error: None }));
    assert_eq!(b.ip(), b.handler(6));

    let mut b = Bench::protected();
    b.core().set_stops(StopPlan { ports: vec![0x80..=0x80], ..StopPlan::default() });
    assert_eq!(b.run(&[0xe6, 0x7f, 0xe6, 0x80, 0x90], 3), Stop::Debugger); // out 7fh; out 80h
    assert_eq!(b.ip(), CODE + 4);

    let mut b = Bench::protected();
    b.core().set_stops(StopPlan { mmio: vec![0xfee0_0020..=0xfee0_0023], ..StopPlan::default() });
    // mov eax, [fee00000h]; mov al, [fee00023h]; nop
    let code = [0xa1, 0x00, 0x00, 0xe0, 0xfe, 0xa0, 0x23, 0x00, 0xe0, 0xfe, 0x90];
    assert_eq!(b.run(&code, 3), Stop::Debugger);
    assert_eq!(b.ip(), CODE + 10);

    let mut b = Bench::protected();
    b.core().set_stops(StopPlan { controls: 1 << 3, ..StopPlan::default() });
    assert_eq!(b.run(&[0x0f, 0x22, 0xd8, 0x90], 2), Stop::Debugger); // mov cr3, eax
    assert_eq!(b.core().stops.take(), Some(Hit::Control { number: 3, value: 0 }));
}
