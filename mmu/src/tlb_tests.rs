use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use MmuIndex::{Supervisor, SupervisorNoSmap, User};

const RWX: [bool; 3] = [true; 3];

fn fill(index: MmuIndex, linear: u64, phys: u64) -> TlbFill {
    TlbFill {
        index,
        linear: Linear(linear),
        phys: GuestPhys(phys),
        host: HostPtr::from_addr(0x7f00_0000_0000 + (phys & !0xfff)),
        read: true,
        write: true,
        exec: true,
        page_bits: 12,
        global: false,
    }
}

/// Which of read, write, execute hit for one byte.
fn hits(tlb: &Tlb, index: MmuIndex, linear: u64) -> [bool; 3] {
    let entry = tlb.entry(index, Linear(linear));
    [entry.read, entry.write, entry.exec].map(|tag| TlbEntry::hit(tag, Linear(linear), 1))
}

fn misses(tlb: &Tlb, index: MmuIndex, linear: u64) -> bool {
    hits(tlb, index, linear) == [false; 3]
}

#[test]
fn an_empty_tlb_matches_nothing() {
    let tlb = Tlb::new();
    for page in (0..2 * TLB_ENTRIES as u64).chain([u64::MAX >> 12, 0xf_ffff_8000_0000]) {
        for index in [Supervisor, User, SupervisorNoSmap] {
            for offset in [0, 1, 4095] {
                assert!(misses(&tlb, index, (page << 12) + offset), "page {page:#x}");
            }
        }
    }
}

#[test]
fn a_hit_needs_the_whole_access_in_the_page() {
    let mut tlb = Tlb::new();
    tlb.fill(&fill(User, 0xffff_f123, 0x5000));
    let entry = *tlb.entry(User, Linear(0xffff_f000));
    for (linear, width, hit) in [
        (0xffff_f000, Width::W64, true),
        (0xffff_fff8, Width::W64, true),
        (0xffff_fff9, Width::W64, false),
        (0xffff_fffd, Width::W32, false),
        (0xffff_ffff, Width::W8, true),
        (0xffff_ffff, Width::W16, false),
        (0xffff_efff, Width::W16, false),
        (0x1_ffff_f000, Width::W8, false),
    ] {
        let host = entry.for_read(Linear(linear), width);
        let expected = HostPtr::from_addr(0x7f00_0000_5000 + (linear & 0xfff));
        assert_eq!(host, hit.then_some(expected), "{width:?} at {linear:#x}");
        assert_eq!(entry.for_write(Linear(linear), width), host);
    }
    assert!(misses(&tlb, Supervisor, 0xffff_f123), "tables are separate");
}

#[test]
fn permissions_of_one_page_add_up_and_another_page_replaces_them() {
    let mut tlb = Tlb::new();
    tlb.fill(&TlbFill { write: false, exec: false, ..fill(User, 0x3000, 0x9000) });
    assert_eq!(hits(&tlb, User, 0x3000), [true, false, false]);
    tlb.fill(&TlbFill { read: false, exec: false, ..fill(User, 0x3000, 0x9000) });
    assert_eq!(hits(&tlb, User, 0x3000), [true, true, false]);
    let collides = 0x3000 + (TLB_ENTRIES as u64) * PAGE_SIZE;
    tlb.fill(&TlbFill { write: false, exec: false, ..fill(User, collides, 0x9000) });
    assert!(misses(&tlb, User, 0x3000));
    assert_eq!(hits(&tlb, User, collides), [true, false, false]);
    tlb.fill(&TlbFill { read: false, write: false, ..fill(User, collides, 0xa000) });
    assert_eq!(hits(&tlb, User, collides), [false, false, true], "the page was moved");
}

#[test]
fn global_pages_survive_until_named() {
    let mut tlb = Tlb::new();
    let global = TlbFill { global: true, ..fill(Supervisor, 0x4000, 0x1000) };
    tlb.fill(&global);
    tlb.fill(&fill(User, 0x5000, 0x2000));
    tlb.flush_non_global();
    assert_eq!(hits(&tlb, Supervisor, 0x4000), RWX);
    assert!(misses(&tlb, User, 0x5000));
    tlb.switch(9);
    tlb.fill(&global);
    tlb.flush_context_page(9, Linear(0x4000));
    assert_eq!(hits(&tlb, Supervisor, 0x4000), RWX, "INVPCID type 0 spares global pages");
    tlb.flush_page(Linear(0x4fff));
    assert!(misses(&tlb, Supervisor, 0x4000));
    tlb.switch(0);
    assert!(misses(&tlb, Supervisor, 0x4000), "INVLPG reaches global pages of other contexts");
    tlb.fill(&global);
    tlb.flush_all();
    assert!(misses(&tlb, Supervisor, 0x4000));
}

#[test]
fn a_slot_that_changes_between_local_and_global_obeys_what_it_holds() {
    let mut tlb = Tlb::new();
    let local = fill(User, 0x4000, 0x1000);
    let global = TlbFill { global: true, ..local };
    tlb.fill(&local);
    tlb.fill(&global);
    tlb.flush_non_global();
    assert_eq!(hits(&tlb, User, 0x4000), RWX);
    tlb.fill(&local);
    tlb.flush_non_global();
    assert!(misses(&tlb, User, 0x4000));
}

#[test]
fn any_address_of_a_large_page_flushes_all_its_fragments() {
    for page_bits in [21, 22, 30] {
        for global in [false, true] {
            let mut tlb = Tlb::new();
            let base = 0xffff_8880_4000_0000_u64;
            let last = base + (1 << page_bits) - PAGE_SIZE;
            let large = |linear| TlbFill {
                page_bits,
                global,
                ..fill(Supervisor, linear, linear & 0xffff_ffff)
            };
            let beyond = base + (1 << page_bits) + 0x5000;
            for linear in [base + 0x3000, last, beyond] {
                tlb.fill(&large(linear));
            }
            let generation = tlb.generation();
            tlb.flush_page(Linear(base + 0x8_0000));
            assert!(misses(&tlb, Supervisor, base + 0x3000), "2^{page_bits}");
            assert!(misses(&tlb, Supervisor, last), "2^{page_bits}");
            assert_eq!(hits(&tlb, Supervisor, beyond), RWX, "2^{page_bits}: the next page");
            assert_ne!(tlb.generation(), generation, "2^{page_bits}");
        }
    }
}

#[test]
fn contexts_are_kept_and_the_oldest_gives_way() {
    let mut tlb = Tlb::new();
    for pcid in 0..CONTEXTS as u16 {
        tlb.switch(0x100 + pcid);
        tlb.fill(&fill(User, 0x7000, 0x1000 * u64::from(pcid)));
    }
    for pcid in 0..CONTEXTS as u16 {
        tlb.switch(0x100 + pcid);
        let host = tlb.entry(User, Linear(0x7000)).for_read(Linear(0x7000), Width::W8);
        let expected = HostPtr::from_addr(0x7f00_0000_0000 + 0x1000 * u64::from(pcid));
        assert_eq!(host, Some(expected), "PCID {pcid}");
    }
    tlb.switch(0xfff);
    assert!(misses(&tlb, User, 0x7000));
    tlb.switch(0x101);
    assert_eq!(hits(&tlb, User, 0x7000), RWX);
    tlb.switch(0x100);
    assert!(misses(&tlb, User, 0x7000), "PCID 100h was away longest");
}

#[test]
fn generations_follow_executable_pages_only() {
    let mut tlb = Tlb::new();
    tlb.set_index(User);
    tlb.fill(&fill(User, 0x1000, 0x1000));
    tlb.fill(&TlbFill { exec: false, ..fill(User, 0x2000, 0x2000) });
    let first = tlb.generation();
    tlb.flush_page(Linear(0x2000));
    assert_eq!(tlb.generation(), first, "a data page was flushed");
    tlb.fill(&fill(User, 0x1000 + 0x40_0000, 0x3000));
    assert_eq!(tlb.generation(), first, "an entry gave way, its mapping still holds");
    tlb.switch(5);
    assert_ne!(tlb.generation(), first);
    tlb.switch(0);
    assert_eq!(tlb.generation(), first, "nothing happened to the context meanwhile");
    tlb.flush_page(Linear(0x1000));
    assert_ne!(tlb.generation(), first, "the page is executable though its entry is gone");
    let second = tlb.generation();
    tlb.switch(5);
    tlb.flush_context(0);
    tlb.switch(0);
    assert_ne!(tlb.generation(), second, "flushed from afar");
}

#[test]
fn contexts_share_the_generation_of_global_code() {
    let global = |linear| TlbFill { global: true, ..fill(Supervisor, linear, 0x1000) };
    let mut tlb = Tlb::new();
    tlb.fill(&global(0x1000));
    let shared = tlb.generation();
    tlb.switch(5);
    assert_eq!(tlb.generation(), shared, "nothing local is executable");
    tlb.set_index(User);
    assert_ne!(tlb.generation(), shared, "users have their own");
    tlb.fill(&fill(User, 0x2000, 0x2000));
    tlb.flush_context(5);
    tlb.set_index(Supervisor);
    assert_eq!(tlb.generation(), shared, "users' code was flushed");
    tlb.fill(&fill(Supervisor, 0x3000, 0x2000));
    assert_ne!(tlb.generation(), shared, "this context has local code");
    tlb.flush_page(Linear(0x3000));
    assert_eq!(tlb.generation(), shared, "and had");
    tlb.flush_page(Linear(0x1000));
    let second = tlb.generation();
    assert_ne!(second, shared, "a global page was flushed");
    tlb.switch(0);
    assert_eq!(tlb.generation(), second, "from all contexts");
}

#[test]
fn drop_write_reaches_every_alias_and_nothing_else() {
    let mut tlb = Tlb::new();
    let same_bucket = 0x9000 + (BUCKETS as u64) * PAGE_SIZE;
    tlb.fill(&fill(Supervisor, 0xffff_8880_0000_9000, 0x9000));
    tlb.fill(&fill(User, 0x40_0000, 0x9000));
    tlb.fill(&fill(User, 0x40_1000, same_bucket));
    tlb.switch(3);
    tlb.fill(&fill(User, 0x55_5000, 0x9000));
    tlb.drop_write(GuestPhys(0x9123));
    assert_eq!(hits(&tlb, User, 0x55_5000), [true, false, true]);
    tlb.switch(0);
    assert_eq!(hits(&tlb, Supervisor, 0xffff_8880_0000_9000), [true, false, true]);
    assert_eq!(hits(&tlb, User, 0x40_0000), [true, false, true]);
    assert_eq!(hits(&tlb, User, 0x40_1000), RWX);
}

#[derive(Clone, Debug)]
enum Op {
    Fill { index: usize, page: usize, phys: u64, write: bool, exec: bool },
    Switch(u16),
    FlushAll,
    FlushNonGlobal,
    FlushAllNonGlobal,
    FlushContext(u16),
    FlushPage(usize),
    FlushContextPage(u16, usize),
    DropWrite(u64),
}

/// Pages of the model: linear address, log2 of the guest's page size, global.
const PAGES: [(u64, u8, bool); 10] = [
    (0x1000, 12, false),
    (0x40_1000, 12, false),
    (0x2000, 12, true),
    (0x40_2000, 12, false),
    (0x80_1000, 21, false),
    (0x80_2000, 21, false),
    (0xa0_1000, 21, true),
    (0xc0_1000, 22, false),
    (0x4000_1000, 30, false),
    (0x6000_2000, 30, false),
];

fn op() -> impl Strategy<Value = Op> {
    let page = 0..PAGES.len();
    let pcid = 0..10_u16;
    let filled = (0..3_usize, page.clone(), 0..4_u64, any::<bool>(), any::<bool>());
    prop_oneof![
        12 => filled.prop_map(|(index, page, phys, write, exec)| {
            Op::Fill { index, page, phys, write, exec }
        }),
        4 => pcid.clone().prop_map(Op::Switch),
        1 => Just(Op::FlushAll),
        1 => Just(Op::FlushNonGlobal),
        1 => Just(Op::FlushAllNonGlobal),
        1 => pcid.clone().prop_map(Op::FlushContext),
        3 => page.clone().prop_map(Op::FlushPage),
        1 => (pcid, page).prop_map(|(pcid, page)| Op::FlushContextPage(pcid, page)),
        2 => (0..4_u64).prop_map(Op::DropWrite),
    ]
}

/// What the TLB may hold: everything entered and not flushed since, by PCID, table and page, with
/// its physical page and whether it may be written and executed.
#[derive(Default)]
struct Model {
    held: HashMap<(u16, usize, usize), (u64, bool, bool)>,
    /// What a jump cache would hold: by generation, table and page.
    jumps: HashMap<(u64, usize, usize), u64>,
}

impl Model {
    fn flush(&mut self, gone: impl Fn(u16, usize) -> bool) {
        self.held.retain(|&(pcid, _, page), _| !gone(pcid, page));
    }

    fn apply(&mut self, tlb: &mut Tlb, op: &Op) {
        let current = tlb.pcid();
        let global = |page: usize| PAGES[page].2;
        let same = |a: usize, b: usize| {
            let bits = PAGES[a].1;
            a == b || bits == PAGES[b].1 && PAGES[a].0 >> bits == PAGES[b].0 >> bits
        };
        let linear = |page: usize| Linear(PAGES[page].0);
        match *op {
            Op::Fill { index, page, phys, write, exec } => {
                let (linear, page_bits, global) = PAGES[page];
                let table = [Supervisor, User, SupervisorNoSmap][index];
                let phys = phys << 12;
                tlb.fill(&TlbFill { write, exec, page_bits, global, ..fill(table, linear, phys) });
                let held = self.held.entry((current, index, page)).or_insert((phys, false, false));
                if held.0 != phys {
                    *held = (phys, false, false);
                }
                held.1 |= write;
                held.2 |= exec;
                if exec {
                    tlb.set_index(table);
                    self.jumps.insert((tlb.generation(), index, page), phys);
                }
            }
            Op::Switch(pcid) => tlb.switch(pcid),
            Op::FlushAll => {
                tlb.flush_all();
                self.flush(|_, _| true);
            }
            Op::FlushNonGlobal => {
                tlb.flush_non_global();
                self.flush(|pcid, page| pcid == current && !global(page));
            }
            Op::FlushAllNonGlobal => {
                tlb.flush_all_non_global();
                self.flush(|_, page| !global(page));
            }
            Op::FlushContext(which) => {
                tlb.flush_context(which);
                self.flush(|pcid, page| pcid == which && !global(page));
            }
            Op::FlushPage(which) => {
                tlb.flush_page(linear(which));
                self.flush(|pcid, page| same(page, which) && (pcid == current || global(page)));
            }
            Op::FlushContextPage(of, which) => {
                tlb.flush_context_page(of, linear(which));
                self.flush(|pcid, page| pcid == of && same(page, which) && !global(page));
            }
            Op::DropWrite(phys) => {
                tlb.drop_write(GuestPhys(phys << 12));
                for held in self.held.values_mut().filter(|held| held.0 == phys << 12) {
                    held.1 = false;
                }
            }
        }
    }

    /// A global page that one context holds may be used in all.
    fn holds(&self, pcid: u16, index: usize, page: usize) -> bool {
        let in_any = |held: &(u16, usize, usize)| held.1 == index && held.2 == page;
        self.held.contains_key(&(pcid, index, page))
            || PAGES[page].2 && self.held.keys().any(in_any)
    }

    fn check(&self, tlb: &mut Tlb) {
        for (page, &(linear, ..)) in PAGES.iter().enumerate() {
            for (index, table) in [Supervisor, User, SupervisorNoSmap].into_iter().enumerate() {
                let held = self.held.get(&(tlb.pcid(), index, page));
                let [read, write, exec] = hits(tlb, table, linear);
                assert!(!read || held.is_some(), "{linear:#x} in {table:?} was flushed");
                assert!(!write || held.is_some_and(|held| held.1), "{linear:#x} not writable");
                assert!(!exec || held.is_some_and(|held| held.2), "{linear:#x} not executable");
                if read {
                    let host = tlb.entry(table, Linear(linear)).host(Linear(linear));
                    let phys = held.map(|held| HostPtr::from_addr(0x7f00_0000_0000 + held.0));
                    assert_eq!(Some(host), phys, "{linear:#x}");
                }
                tlb.set_index(table);
                if self.jumps.contains_key(&(tlb.generation(), index, page)) {
                    assert!(
                        self.holds(tlb.pcid(), index, page),
                        "the generation lets a jump to the flushed {linear:#x} pass"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_flushed_is_ever_found(ops in proptest::collection::vec(op(), 1..120)) {
        let mut tlb = Tlb::new();
        let mut model = Model::default();
        for op in &ops {
            model.apply(&mut tlb, op);
            model.check(&mut tlb);
        }
    }
}
