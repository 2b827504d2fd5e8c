//! Process-context identifiers and INVPCID (SDM vol. 3, 4.10; vol. 2, INVPCID): which translations
//! outlive what, seen in whether a changed page table shows.

use brolga_mmu::{Linear, Width};

use crate::core::By;
use crate::exception::vector;
use crate::system::testing::*;
use crate::vcpu::{RIP, cr4, gpr};

/// Two 2 MiB pages beyond what [`Bench::long`] maps, and their page-directory entries.
const LOCAL: u64 = 0x40_0000;
const GLOBAL: u64 = 0x60_0000;
const LOCAL_PDE: u64 = TABLES + 0x2010;
const GLOBAL_PDE: u64 = TABLES + 0x2018;
/// Present, writable, user, large; and global.
const LARGE: u64 = 0x87;
const LARGE_GLOBAL: u64 = 0x187;
/// Where the two pages that they may lead to differ.
const MARK: u64 = 0x0f_0000;
const OLD: u64 = 0x20_0000;
const NEW: u64 = 0;

const MOV_CR3_RAX: [u8; 3] = [0x0f, 0x22, 0xd8];
const INVPCID_RAX_RDI: [u8; 5] = [0x66, 0x0f, 0x38, 0x82, 0x07];
const INVLPG_RDI: [u8; 3] = [0x0f, 0x01, 0x3f];
const NO_FLUSH: u64 = 1 << 63;
const DESCRIPTOR: u64 = 0x5000;

/// 64-bit code in PCID 1; the pages' old translations are cached in PCIDs 1 and 2, and the tables
/// have new ones.
fn stale() -> Bench {
    let mut b = Bench::long();
    b.core().vcpu.sys.cr4 |= cr4::PCIDE | cr4::PGE;
    b.core().mode_changed();
    b.put(OLD + MARK, 1, b'o'.into());
    b.put(NEW + MARK, 1, b'n'.into());
    b.put(LOCAL_PDE, 8, OLD | LARGE);
    b.put(GLOBAL_PDE, 8, OLD | LARGE_GLOBAL);
    for pcid in [2, 1] {
        switch(&mut b, pcid, NO_FLUSH);
        assert_eq!(seen(&mut b), "oo");
    }
    b.put(LOCAL_PDE, 8, NEW | LARGE);
    b.put(GLOBAL_PDE, 8, NEW | LARGE_GLOBAL);
    assert_eq!(seen(&mut b), "oo", "nobody has flushed anything");
    b
}

fn switch(b: &mut Bench, pcid: u64, no_flush: u64) {
    b.set(RIP, CODE);
    b.set(gpr::RAX, TABLES | pcid | no_flush);
    b.step(&MOV_CR3_RAX);
    assert!(b.quiet());
}

/// What the local and the global page show: `o`ld or `n`ew.
fn seen(b: &mut Bench) -> String {
    [LOCAL, GLOBAL]
        .map(|page| {
            let read = b.core().read_linear(Linear(page + MARK), Width::W8, By::Current);
            char::from(read.expect("both pages are mapped") as u8)
        })
        .iter()
        .collect()
}

/// What PCIDs 1 and 2 see.
fn seen_by_both(b: &mut Bench) -> [String; 2] {
    [1, 2].map(|pcid| {
        switch(b, pcid, NO_FLUSH);
        seen(b)
    })
}

fn invpcid(b: &mut Bench, kind: u64, pcid: u64, address: u64) {
    b.set(RIP, CODE);
    b.put(DESCRIPTOR, 8, pcid);
    b.put(DESCRIPTOR + 8, 8, address);
    b.set(gpr::RDI, DESCRIPTOR);
    b.set(gpr::RAX, kind);
    b.step(&INVPCID_RAX_RDI);
}

#[test]
fn a_switch_flushes_its_own_pcid_unless_told_not_to() {
    let mut b = stale();
    switch(&mut b, 1, 0);
    assert_eq!(seen(&mut b), "no", "global translations stay");
    switch(&mut b, 2, NO_FLUSH);
    assert_eq!(seen(&mut b), "oo");
    switch(&mut b, 2, 0);
    assert_eq!(seen(&mut b), "no");
}

#[test]
fn invpcid_flushes_what_its_type_says() {
    let cases = [
        // Individual address: not if it is global.
        ((0, 2, LOCAL), ["oo", "no"]),
        ((0, 2, GLOBAL), ["oo", "oo"]),
        ((0, 1, LOCAL + 0x1234), ["no", "oo"]),
        // Single context.
        ((1, 2, 0), ["oo", "no"]),
        // All contexts, with global translations and without.
        ((2, 0, 0), ["nn", "nn"]),
        ((3, 0, 0), ["no", "no"]),
    ];
    for ((kind, pcid, address), want) in cases {
        let mut b = stale();
        invpcid(&mut b, kind, pcid, address);
        assert!(b.quiet());
        assert_eq!(seen_by_both(&mut b), want, "type {kind} of {pcid}, {address:#x}");
    }
}

#[test]
fn invlpg_flushes_the_current_pcid_and_global_translations() {
    let mut b = stale();
    b.set(RIP, CODE);
    b.set(gpr::RDI, LOCAL);
    b.step(&INVLPG_RDI);
    assert_eq!(seen_by_both(&mut b), ["no", "oo"]);
    b.set(RIP, CODE);
    b.set(gpr::RDI, GLOBAL);
    b.step(&INVLPG_RDI);
    assert_eq!(seen_by_both(&mut b), ["nn", "on"]);
}

#[test]
fn invpcid_checks_its_descriptor() {
    let cases = [
        (4, 1, 0, "undefined type"),
        (1, 0x1000, 0, "reserved bits"),
        (0, 1, 1 << 56, "not canonical"),
    ];
    for (kind, pcid, address, what) in cases {
        let mut b = stale();
        invpcid(&mut b, kind, pcid, address);
        assert_eq!(b.fault(), (vector::GP, Some(0)), "{what}");
    }
    // Without PCIDs there is PCID 0 only.
    for (pcid, faults) in [(0, false), (1, true)] {
        let mut b = Bench::long();
        invpcid(&mut b, 1, pcid, 0);
        assert_eq!(!b.quiet(), faults, "PCID {pcid}");
    }
    let mut b = Bench::long().user();
    invpcid(&mut b, 2, 0, 0);
    assert_eq!(b.fault(), (vector::GP, Some(0)), "CPL 3");
}
