use super::*;
use crate::ram::Ram;

const PML4: u64 = 0x1000;
const PML5: u64 = 0x5000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PT: u64 = 0x4000;
const FRAME: u64 = 0x1234_4000_0000 & bits(0, 36);

const READ: Access = Access { kind: AccessKind::Read, user: false, smap_checked: false };
const WRITE: Access = Access { kind: AccessKind::Write, ..READ };

/// One mapping: the tables of a mode down to a page of 2^`page_bits` bytes.
struct Mapping {
    map: PhysMap,
    mode: PagingMode,
    page_bits: u8,
    pdptes: [u64; 4],
    linear: Linear,
}

const ALL_KINDS: [(PagingKind, u8); 10] = [
    (PagingKind::Legacy32 { pse: false }, 12),
    (PagingKind::Legacy32 { pse: true }, 12),
    (PagingKind::Legacy32 { pse: true }, 22),
    (PagingKind::Pae, 12),
    (PagingKind::Pae, 21),
    (PagingKind::FourLevel, 12),
    (PagingKind::FourLevel, 21),
    (PagingKind::FourLevel, 30),
    (PagingKind::FiveLevel, 12),
    (PagingKind::FiveLevel, 30),
];

fn mode(kind: PagingKind) -> PagingMode {
    let (pat, gb_pages) = (true, true);
    PagingMode {
        kind,
        nxe: true,
        pge: true,
        pat,
        gb_pages,
        max_phys_bits: 40,
        ..Default::default()
    }
}

impl Mapping {
    fn new(mode: PagingMode, page_bits: u8) -> Self {
        let mut map = PhysMap::new(Ram::new(0x10_0000).unwrap());
        map.add_ram(GuestPhys(0), 0x10_0000).unwrap();
        let linear = match mode.kind {
            PagingKind::FourLevel => Linear(0x6_7eed_b123),
            PagingKind::FiveLevel => Linear(0x12_0006_7eed_b123),
            _ => Linear(0x7eed_b123),
        };
        let mut mapping = Self { map, mode, page_bits, pdptes: [0; 4], linear };
        for level in mapping.levels() {
            mapping.set(level, mapping.plain(level));
        }
        mapping.pdptes[1] = PD | P;
        mapping
    }

    fn legacy(&self) -> bool {
        matches!(self.mode.kind, PagingKind::Legacy32 { .. })
    }

    /// Levels in memory, from the root.
    fn levels(&self) -> Vec<Level> {
        let top = match self.mode.kind {
            PagingKind::FourLevel => 4,
            PagingKind::FiveLevel => 5,
            _ => 2,
        };
        let leaf = self.leaf() as usize;
        let all = [Level::Table, Level::Directory, Level::Pointer, Level::Map4, Level::Map5];
        all[leaf - 1..top].iter().rev().copied().collect()
    }

    fn leaf(&self) -> Level {
        match self.page_bits {
            12 => Level::Table,
            30 => Level::Pointer,
            _ => Level::Directory,
        }
    }

    fn width(&self) -> Width {
        if self.legacy() { Width::W32 } else { Width::W64 }
    }

    /// The page's address.
    fn frame(&self) -> u64 {
        if self.legacy() { FRAME & 0xffff_ffff } else { FRAME }
    }

    /// A present entry that is read-only, supervisor, executable.
    fn plain(&self, level: Level) -> u64 {
        let large = if level == Level::Table { 0 } else { PS };
        match level {
            _ if level == self.leaf() => self.frame() | P | large,
            Level::Map5 => PML4 | P,
            Level::Map4 => PDPT | P,
            Level::Pointer => PD | P,
            Level::Directory | Level::Table => PT | P,
        }
    }

    fn at(&self, level: Level) -> GuestPhys {
        let index = |shift: u32, count: u64| self.linear.0 >> shift & (count - 1);
        GuestPhys(match (level, self.legacy()) {
            (Level::Map5, _) => PML5 + 8 * index(48, 512),
            (Level::Map4, _) => PML4 + 8 * index(39, 512),
            (Level::Pointer, _) => PDPT + 8 * index(30, 512),
            (Level::Directory, false) => PD + 8 * index(21, 512),
            (Level::Table, false) => PT + 8 * index(12, 512),
            (Level::Directory, true) => PD + 4 * index(22, 1024),
            (Level::Table, true) => PT + 4 * index(12, 1024),
        })
    }

    fn set(&self, level: Level, entry: u64) {
        self.map.write_phys(self.at(level), self.width(), entry).unwrap();
    }

    fn get(&self, level: Level) -> u64 {
        self.map.read_phys(self.at(level), self.width()).unwrap()
    }

    fn cr3(&self) -> u64 {
        match self.mode.kind {
            PagingKind::FourLevel => PML4,
            PagingKind::FiveLevel => PML5,
            _ => PD,
        }
    }

    fn walk(&self, access: Access) -> Result<Translation, PageFault> {
        walk(&self.map, self.cr3(), &self.pdptes, &self.mode, self.linear, access)
    }

    fn probe(&self, access: Access) -> Probe {
        probe(&self.map, self.cr3(), &self.pdptes, &self.mode, self.linear, access)
    }
}

fn accesses() -> Vec<Access> {
    let mut all = Vec::new();
    for kind in [AccessKind::Read, AccessKind::Write, AccessKind::Execute] {
        for (user, smap_checked) in [(true, false), (false, false), (false, true)] {
            all.push(Access { kind, user, smap_checked });
        }
    }
    all
}

/// The SDM's rules in its own order, section 4.6.1: `user`, `writable`, `no_execute` are those of
/// the whole translation.
fn model_allows(
    mode: &PagingMode,
    [user, writable, no_execute]: [bool; 3],
    access: Access,
) -> bool {
    match (access.user, access.kind) {
        (false, AccessKind::Read) => !(user && mode.smap && access.smap_checked),
        (false, AccessKind::Write) => {
            !(user && mode.smap && access.smap_checked) && (!mode.wp || writable)
        }
        (false, AccessKind::Execute) => !(no_execute || user && mode.smep),
        (true, AccessKind::Read) => user,
        (true, AccessKind::Write) => user && writable,
        (true, AccessKind::Execute) => user && !no_execute,
    }
}

/// Every combination of U/S, R/W and XD at every level, of the mode's controls and of the access.
#[test]
fn permissions() {
    for (kind, page_bits) in ALL_KINDS {
        for controls in 0..8_u32 {
            let [wp, smep, smap] = [1, 2, 4].map(|bit| controls & bit != 0);
            check_permissions(PagingMode { wp, smep, smap, ..mode(kind) }, page_bits);
        }
    }
}

fn check_permissions(mode: PagingMode, page_bits: u8) {
    let mapping = Mapping::new(mode, page_bits);
    let levels = mapping.levels();
    let flags = if mapping.legacy() { 2 } else { 3 };
    for combination in 0..1_u32 << (levels.len() * flags) {
        let of = |level: usize| (combination >> (level * flags)) & ((1 << flags) - 1);
        let mut total = [true, true, false];
        let entries: Vec<u64> = (0..levels.len())
            .map(|i| {
                let [us, rw, xd] = [1, 2, 4].map(|bit| of(i) & bit != 0);
                total = [total[0] & us, total[1] & rw, total[2] | xd];
                let flag = |set, flag| if set { flag } else { 0 };
                mapping.plain(levels[i]) | flag(us, US) | flag(rw, RW) | flag(xd, XD)
            })
            .collect();
        for access in accesses() {
            for (&level, &entry) in levels.iter().zip(&entries) {
                mapping.set(level, entry);
            }
            check_access(&mapping, &entries, total, access);
        }
    }
}

fn check_access(mapping: &Mapping, entries: &[u64], total: [bool; 3], access: Access) {
    let (mode, levels) = (&mapping.mode, mapping.levels());
    let write = access.kind == AccessKind::Write;
    let outcome = mapping.walk(access);
    let allowed = model_allows(mode, total, access);
    let context = || format!("{mode:?} 2^{} {total:?} {access:?} {outcome:?}", mapping.page_bits);
    for (&level, &entry) in levels.iter().zip(entries) {
        let dirty = if write && level == mapping.leaf() { D } else { 0 };
        let expected = if allowed { entry | A | dirty } else { entry };
        assert_eq!(mapping.get(level), expected, "{level}: {}", context());
    }
    match outcome {
        Ok(to) => {
            let may = |kind| model_allows(mode, total, Access { kind, ..access });
            let in_page = mapping.linear.0 & ((1 << mapping.page_bits) - 1);
            assert!(allowed, "{}", context());
            assert_eq!(to.phys, GuestPhys(mapping.frame() + in_page), "{}", context());
            assert_eq!((to.page_bits, to.user), (mapping.page_bits, total[0]), "{}", context());
            assert_eq!(to.readable, may(AccessKind::Read), "{}", context());
            assert_eq!(to.executable, may(AccessKind::Execute), "{}", context());
            // The page is dirty exactly if this access wrote.
            assert_eq!(to.writable_now, write, "{}", context());
        }
        Err(fault) => {
            assert!(!allowed, "{}", context());
            // NXE is on in all modes here, but tells of fetches only with 8-byte entries.
            let fetch = access.kind == AccessKind::Execute && (!mapping.legacy() || mode.smep);
            let expected =
                1 | u32::from(write) << 1 | u32::from(access.user) << 2 | u32::from(fetch) << 4;
            assert_eq!(fault.error_code, expected, "{}", context());
        }
    }
}

#[test]
fn a_dirty_page_is_writable_without_another_walk_if_writes_are_allowed() {
    for (kind, page_bits) in ALL_KINDS {
        let mut mapping = Mapping::new(mode(kind), page_bits);
        mapping.set(mapping.leaf(), mapping.plain(mapping.leaf()) | D);
        assert!(mapping.walk(READ).unwrap().writable_now, "{kind:?}: WP is off");
        mapping.mode.wp = true;
        assert!(!mapping.walk(READ).unwrap().writable_now, "{kind:?}: WP is on");
    }
}

/// The levels of the present entries with `flag`, from the root.
fn levels_with(mapping: &Mapping, flag: u64) -> Vec<Level> {
    let has = |&level: &Level| mapping.get(level) & (flag | P) == flag | P;
    mapping.levels().into_iter().filter(has).collect()
}

#[test]
fn not_present_at_each_level() {
    for (kind, page_bits) in ALL_KINDS {
        let mapping = Mapping::new(mode(kind), page_bits);
        for level in mapping.levels() {
            // All other bits set: they mean nothing.
            mapping.set(level, !P);
            let fault = mapping.walk(Access { user: true, ..WRITE }).unwrap_err();
            assert_eq!(fault.error_code, 0b110, "{kind:?} {level}");
            assert_eq!(fault.reason, WalkFailure::NotPresent { level }, "{kind:?}");
            assert_eq!(levels_with(&mapping, A), [], "{kind:?} {level}");
            mapping.levels().into_iter().for_each(|level| mapping.set(level, mapping.plain(level)));
        }
        assert!(mapping.walk(READ).is_ok(), "{kind:?}");
    }
}

#[test]
fn pae_pdpte_registers_are_used_and_not_memory() {
    let mut mapping = Mapping::new(mode(PagingKind::Pae), 12);
    mapping.pdptes[1] = PD;
    let fault = mapping.walk(READ).unwrap_err();
    assert_eq!(fault.reason, WalkFailure::NotPresent { level: Level::Pointer });
    assert_eq!(fault.error_code, 0);
}

/// The reserved bits of a present entry by the SDM's tables 4-4 to 4-20, as ranges.
fn model_reserved(mapping: &Mapping, level: Level, bit: u32) -> bool {
    let mode = &mapping.mode;
    let leaf = level == mapping.leaf();
    if mapping.legacy() {
        return match level {
            Level::Table => bit == 7 && !mode.pat,
            _ if leaf => {
                let lowest = if mode.pse36 { mode.max_phys_bits.clamp(32, 40) - 19 } else { 13 };
                (u32::from(lowest)..=21).contains(&bit) || bit == 12 && !mode.pat
            }
            _ => false,
        };
    }
    let top = if mode.kind == PagingKind::Pae { 62 } else { 51 };
    (u32::from(mode.max_phys_bits)..=top).contains(&bit)
        || bit == 63 && !mode.nxe
        || match level {
            Level::Table => bit == 7 && !mode.pat,
            Level::Directory if leaf => (13..=20).contains(&bit) || bit == 12 && !mode.pat,
            Level::Directory => false,
            Level::Pointer if leaf => (13..=29).contains(&bit) || bit == 12 && !mode.pat,
            Level::Pointer => bit == 7 && !mode.gb_pages,
            Level::Map4 | Level::Map5 => bit == 7,
        }
}

#[test]
fn reserved_bits() {
    for (kind, page_bits) in ALL_KINDS {
        for max_phys_bits in [32, 36, 40, 46, 52] {
            for options in 0..16_u32 {
                let [pat, nxe, pse36, gb_pages] = [1, 2, 4, 8].map(|bit| options & bit != 0);
                if page_bits == 30 && !gb_pages {
                    continue;
                }
                let mode = PagingMode { max_phys_bits, pat, nxe, pse36, gb_pages, ..mode(kind) };
                check_reserved(&Mapping::new(mode, page_bits));
            }
        }
    }
}

fn check_reserved(mapping: &Mapping) {
    // A frame whose bits fit in all widths.
    mapping.set(mapping.leaf(), mapping.plain(mapping.leaf()) & !FRAME);
    for level in mapping.levels() {
        let plain = mapping.get(level);
        for bit in (1..mapping.width().bits()).filter(|bit| plain >> bit & 1 == 0) {
            let makes_leaf = bit == 7 && level != mapping.leaf();
            let reserved = model_reserved(mapping, level, bit);
            if makes_leaf && !reserved {
                continue;
            }
            mapping.set(level, plain | 1 << bit);
            let failure = mapping.walk(WRITE).map_err(|fault| (fault.reason, fault.error_code));
            let expected = (WalkFailure::Reserved { level, bits: 1 << bit }, 0b01011);
            let context = || format!("{:?} {level} bit {bit}", mapping.mode);
            if reserved {
                assert_eq!(failure, Err(expected), "{}", context());
            } else {
                assert_ne!(failure, Err(expected), "{}", context());
            }
        }
        mapping.set(level, plain);
    }
}

#[test]
fn pse36_extends_large_pages() {
    let mode = PagingMode { pse36: true, ..mode(PagingKind::Legacy32 { pse: true }) };
    let mapping = Mapping::new(mode, 22);
    // Address bits 39:32 are 0xa5, bits 31:22 are 0x123; PAT is set.
    mapping.set(Level::Directory, 0x123 << 22 | 0xa5 << 13 | PAT_LARGE | PWT | PS | G | P);
    let to = mapping.walk(READ).unwrap();
    let in_page = mapping.linear.0 & 0x3f_ffff;
    assert_eq!(to.phys, GuestPhys(0xa5_0000_0000 | 0x123 << 22 | in_page));
    assert_eq!((to.cache, to.global), (0b101, true));
}

#[test]
fn global_and_memory_type_come_from_the_leaf() {
    for (kind, page_bits) in ALL_KINDS {
        let mut mapping = Mapping::new(mode(kind), page_bits);
        let pat = if page_bits == 12 { PS } else { PAT_LARGE };
        mapping.set(mapping.leaf(), mapping.plain(mapping.leaf()) | G | PCD | pat);
        let to = mapping.walk(READ).unwrap();
        assert_eq!((to.global, to.cache), (true, 0b110), "{kind:?} 2^{page_bits}");
        mapping.mode.pge = false;
        assert!(!mapping.walk(READ).unwrap().global, "{kind:?}: CR4.PGE is off");
    }
}

#[test]
fn ps_means_nothing_without_pse() {
    let mapping = Mapping::new(mode(PagingKind::Legacy32 { pse: false }), 12);
    mapping.set(Level::Directory, mapping.plain(Level::Directory) | PS);
    assert_eq!(mapping.walk(READ).unwrap().page_bits, 12);
}

#[test]
fn without_paging_linear_is_physical() {
    let mapping = Mapping::new(mode(PagingKind::None), 12);
    let to = mapping.walk(Access { user: true, ..WRITE }).unwrap();
    assert_eq!((to.phys, to.page_bits), (GuestPhys(mapping.linear.0), 12));
    assert!(to.readable && to.writable_now && to.executable && !to.global);
}

#[test]
fn tables_follow_a20_and_need_no_ram() {
    let mapping = Mapping::new(mode(PagingKind::FourLevel), 12);
    let walk_at =
        |cr3| walk(&mapping.map, cr3, &mapping.pdptes, &mapping.mode, mapping.linear, READ);
    let nothing = walk_at(0x10_0000 | PML4).unwrap_err();
    assert!(matches!(nothing.reason, WalkFailure::Reserved { level: Level::Map4, .. }));
    mapping.map.set_a20(false);
    assert!(walk_at(0x10_0000 | PML4).is_ok());
}

#[test]
fn entries_that_change_under_the_walk_are_read_again() {
    use std::cell::Cell;

    /// Memory where another processor clears R/W in the PTE at the first update.
    struct Racing<'a>(&'a Mapping, Cell<bool>);
    impl TableMemory for Racing<'_> {
        fn read_entry(&self, at: GuestPhys, width: Width) -> u64 {
            self.0.map.read_entry(at, width)
        }
        fn update_entry(&self, at: GuestPhys, width: Width, old: u64, new: u64) -> bool {
            if !self.1.replace(true) {
                self.0.set(Level::Table, self.0.plain(Level::Table));
            }
            self.0.map.update_entry(at, width, old, new)
        }
    }
    let mapping = Mapping::new(PagingMode { wp: true, ..mode(PagingKind::FourLevel) }, 12);
    for level in mapping.levels() {
        mapping.set(level, mapping.plain(level) | RW);
    }
    let racing = Racing(&mapping, Cell::new(false));
    let outcome = walk(&racing, PML4, &mapping.pdptes, &mapping.mode, mapping.linear, WRITE);
    let reason = WalkFailure::ReadOnly { level: Level::Table };
    assert_eq!(outcome, Err(PageFault { error_code: 0b11, reason }));
    assert_eq!(mapping.get(Level::Table), mapping.plain(Level::Table));
}

#[test]
fn probe_agrees_with_walk_and_changes_nothing() {
    let mapping = Mapping::new(mode(PagingKind::FourLevel), 12);
    let seen = mapping.probe(READ);
    assert!(mapping.levels().iter().all(|&level| mapping.get(level) == mapping.plain(level)));
    assert_eq!(seen.outcome, mapping.walk(READ));
    mapping.set(Level::Table, FRAME | XD | D | A | RW | P);
    mapping.set(Level::Directory, PT | US | P | 1 << 45);
    let text = mapping.probe(Access { user: true, ..READ }).to_string();
    let expected = "page walk of 0x67eedb123
  PML4E 0x0000000000002021 at 0x1000: P A
  PDPTE 0x0000000000003021 at 0x20c8: P A
  PDE   0x0000200000004005 at 0x3fb8: P U/S
  fails: reserved bits 0x200000000000 set in the PDE (error code 0xd)";
    assert_eq!(text, expected);
    let fetch = Access { kind: AccessKind::Execute, ..READ };
    mapping.set(Level::Directory, PT | P);
    let text = mapping.probe(fetch).to_string();
    assert!(text.contains("PTE   0x8000000440000063 at 0x46d8: P R/W A D XD"), "{text}");
    assert!(text.ends_with("XD set in the PTE) (error code 0x11)"), "{text}");
}

#[test]
fn pdpte_registers_are_checked_when_loaded() {
    let mapping = Mapping::new(mode(PagingKind::Pae), 12);
    let put = |i: u64, entry| mapping.map.write_phys(GuestPhys(0x5020 + 8 * i), Width::W64, entry);
    for (i, entry) in [(0, 0x1001), (1, 0), (2, 0x2019), (3, 0xfff0_0000_0000_01e6)] {
        put(i, entry).unwrap();
    }
    let load = || load_pdptes(&mapping.map, 0x503f, 40);
    assert_eq!(load(), Ok([0x1001, 0, 0x2019, 0xfff0_0000_0000_01e6]), "not present: anything");
    for bit in 1..64 {
        put(1, 1 << bit | P).unwrap();
        let reserved = matches!(bit, 1..=2 | 5..=8 | 40..=63);
        let bad = BadPdpte { index: 1, entry: 1 << bit | P, bits: 1 << bit };
        assert_eq!(load().err(), reserved.then_some(bad), "bit {bit}");
    }
}

/// Every key, every right, and every access, by the SDM's rules in its own order (4.6.2).
#[test]
fn protection_keys() {
    for (kind, page_bits) in ALL_KINDS.into_iter().filter(|(kind, _)| kind.is_long()) {
        for key in 0..16u32 {
            for rights in 0..4u32 {
                for (wp, user_page) in [(false, true), (true, true), (true, false)] {
                    let others = !(3 << (2 * key));
                    let pkru = Some(others | rights << (2 * key));
                    let mapping = Mapping::new(PagingMode { wp, pkru, ..mode(kind) }, page_bits);
                    let user = if user_page { US } else { 0 };
                    for level in mapping.levels() {
                        mapping.set(level, mapping.plain(level) | RW | user);
                    }
                    let leaf = mapping.get(mapping.leaf()) | u64::from(key) << 59;
                    mapping.set(mapping.leaf(), leaf);
                    for access in accesses() {
                        check_key(&mapping, user_page, access, key, rights);
                    }
                }
            }
        }
    }
}

fn check_key(mapping: &Mapping, user_page: bool, access: Access, key: u32, rights: u32) {
    let write = access.kind == AccessKind::Write;
    let writes_count = access.user || mapping.mode.wp;
    let denied = user_page
        && access.kind != AccessKind::Execute
        && (rights & 1 != 0 || rights & 2 != 0 && write && writes_count);
    let context = format!("{:?} {access:?} key {key} rights {rights}", mapping.mode);
    match mapping.walk(access) {
        Ok(to) => {
            assert!(!denied && (user_page || !access.user), "{context}");
            assert!(!to.readable || !user_page || rights & 1 == 0, "{context}");
            assert!(!to.writable_now || !user_page || rights == 0 || !writes_count, "{context}");
        }
        Err(fault) if access.user && !user_page => assert_eq!(fault.error_code >> 5, 0),
        Err(fault) => {
            assert!(denied, "{context}");
            assert_eq!(fault.reason, WalkFailure::ProtectionKey { key: key as u8 });
            let expected = 1 | u32::from(write) << 1 | u32::from(access.user) << 2 | 1 << 5;
            assert_eq!(fault.error_code, expected, "{context}");
        }
    }
}

/// PK is set beside the bits of another violation (SDM vol. 3A, 4.7).
#[test]
fn a_key_shows_beside_another_violation() {
    let mode = PagingMode { wp: true, pkru: Some(2), ..mode(PagingKind::FourLevel) };
    let mapping = Mapping::new(mode, 12);
    for level in mapping.levels() {
        mapping.set(level, mapping.plain(level) | US);
    }
    let fault = mapping.walk(Access { user: true, ..WRITE }).unwrap_err();
    assert!(matches!(fault.reason, WalkFailure::ReadOnly { .. }));
    assert_eq!(fault.error_code, 0b10_0111);
    mapping.set(Level::Directory, 0);
    let fault = mapping.walk(Access { user: true, ..WRITE }).unwrap_err();
    assert_eq!(fault.error_code, 0b00_0110, "no page, no key");
}
