use super::*;
use crate::ram::HostPtr;
use crate::{GuestPhys, MmuIndex, TlbFill};

const PAGE: Linear = Linear(0x7000);
const SITE: u32 = 5000;

fn fill(linear: Linear, phys: u64) -> TlbFill {
    TlbFill {
        index: MmuIndex::Supervisor,
        linear,
        phys: GuestPhys(phys),
        host: HostPtr::from_addr(0x7f00_0000_0000 + phys),
        read: true,
        write: true,
        exec: false,
        page_bits: 12,
        global: false,
    }
}

fn entry(tlb: &Tlb, index: MmuIndex, site: u32) -> TlbEntry {
    tlb.entries[index as usize * TLB_ENTRIES + site_offset(site) / size_of::<TlbEntry>()]
}

fn hits(tlb: &Tlb) -> bool {
    TlbEntry::hit(entry(tlb, MmuIndex::Supervisor, SITE).write, PAGE, 8)
}

/// A TLB with two sites.
fn new() -> Tlb {
    let mut tlb = Tlb::new();
    tlb.empty_site(SITE);
    tlb.empty_site(SITE + 1);
    tlb
}

fn filled() -> Tlb {
    let mut tlb = new();
    tlb.fill(&fill(PAGE, 0x3000));
    tlb.fill_site(SITE, PAGE);
    assert!(hits(&tlb));
    tlb
}

#[test]
fn a_site_holds_what_its_table_does() {
    let tlb = filled();
    assert_eq!(entry(&tlb, MmuIndex::Supervisor, SITE), *tlb.current_entry(PAGE));
    assert_eq!(entry(&tlb, MmuIndex::User, SITE), tlb.sites.empty());
    assert_eq!(entry(&tlb, MmuIndex::Supervisor, SITE + 1), tlb.sites.empty());
}

#[test]
fn an_empty_site_matches_no_canonical_address() {
    let tlb = new();
    let empty = entry(&tlb, MmuIndex::User, SITE);
    for top in [0, 1, 0x7fff, 0xffff_8000, 0xffff_ffff] {
        for page in 0..1 << 10 {
            let linear = Linear(top << 32 | page << 12);
            assert!(
                !TlbEntry::hit(empty.read, linear, 1) && !TlbEntry::hit(empty.write, linear, 1)
            );
        }
    }
}

#[test]
fn whatever_takes_a_page_out_of_the_table_takes_it_out_of_the_sites() {
    let collides = Linear(PAGE.0 + TLB_ENTRIES as u64 * PAGE_SIZE);
    type Way<'a> = (&'a str, &'a dyn Fn(&mut Tlb));
    let ways: [Way<'_>; 6] = [
        ("flush_all", &|tlb| tlb.flush_all()),
        ("flush_non_global", &|tlb| tlb.flush_non_global()),
        ("flush_page", &|tlb| tlb.flush_page(PAGE)),
        ("flush_context", &|tlb| tlb.flush_context(0)),
        ("drop_write", &|tlb| tlb.drop_write(GuestPhys(0x3000))),
        ("another page", &|tlb| tlb.fill(&fill(collides, 0x9000))),
    ];
    for (name, way) in ways {
        let mut tlb = filled();
        way(&mut tlb);
        assert!(!hits(&tlb), "{name}");
        assert_eq!(entry(&tlb, MmuIndex::Supervisor, SITE), tlb.sites.empty(), "{name}");
    }
}

#[test]
fn a_site_follows_its_access_to_other_pages() {
    let mut tlb = filled();
    let other = Linear(0xb000);
    tlb.fill(&fill(other, 0x5000));
    tlb.fill_site(SITE, other);
    tlb.fill_site(SITE + 1, other);
    tlb.flush_page(PAGE);
    assert!(TlbEntry::hit(entry(&tlb, MmuIndex::Supervisor, SITE).read, other, 8));
    tlb.flush_page(other);
    for site in [SITE, SITE + 1] {
        assert_eq!(entry(&tlb, MmuIndex::Supervisor, site), tlb.sites.empty());
    }
}
