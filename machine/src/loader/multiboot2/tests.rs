use super::*;
use crate::loader::EntryMode;
use crate::loader::elf::tests::{Part, build};
use crate::loader::testing::{Pc, put};

const MIB: u64 = 1 << 20;
const REQUIRED: u16 = 0;
const OPTIONAL: u16 = 1;

fn header(tags: &[(u16, u16, &[u32])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, flags, fields) in tags.iter().chain(&[(0, 0, &[][..])]) {
        body.extend(kind.to_le_bytes());
        body.extend(flags.to_le_bytes());
        body.extend((8 + 4 * fields.len() as u32).to_le_bytes());
        body.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let len = 16 + body.len() as u32;
    let checksum = 0u32.wrapping_sub(HEADER_MAGIC).wrapping_sub(len);
    let mut header: Vec<u8> =
        [HEADER_MAGIC, 0, len, checksum].iter().flat_map(|field| field.to_le_bytes()).collect();
    header.extend(body);
    header
}

/// An ELF kernel for 1 MiB with these header tags; its entry is 8 bytes before its end.
fn elf(tags: &[(u16, u16, &[u32])]) -> Vec<u8> {
    let mut code = header(tags);
    code.extend([0x90; 8]);
    let entry = MIB + code.len() as u64 - 8;
    // The header's place in the file is a multiple of 8 bytes: 64 + 56.
    build(true, 62, entry, &[Part::load(MIB, &code, 4096)])
}

/// The body of the information's tag of this kind.
fn information_tag(pc: &Pc, kind: u32) -> Option<Vec<u8>> {
    let mut at = 0x1_0008;
    let end = 0x1_0000 + u64::from(pc.u32_at(0x1_0000));
    while at < end {
        let size = pc.u32_at(at + 4);
        if pc.u32_at(at) == kind {
            return Some(pc.read(at + 8, size as usize - 8));
        }
        at += u64::from(size).next_multiple_of(8);
    }
    None
}

#[test]
fn an_elf_kernel_enters_protected_mode() {
    let pc = Pc::new(4 * MIB);
    let image = elf(&[]);
    let state = pc.load(&image, None, "").expect("loads");
    assert_eq!((state.mode, state.entry), (EntryMode::Protected32, MIB + 24));
    assert_eq!(state.registers, vec![(Gpr::Rax, 0x36d7_6289), (Gpr::Rbx, 0x1_0000)]);
    assert_eq!(pc.u32_at(MIB), HEADER_MAGIC);
}

#[test]
fn the_information_holds_all_tags() {
    let pc = Pc::new(4 * MIB);
    pc.load(&elf(&[]), Some(b"module"), "-v").expect("loads");
    assert_eq!(information_tag(&pc, tag::CMDLINE).as_deref(), Some(&b"-v\0"[..]));
    assert_eq!(information_tag(&pc, tag::LOADER_NAME).as_deref(), Some(&b"Brolga\0"[..]));
    let module = information_tag(&pc, tag::MODULE).expect("a module");
    let start = module.u32_at(0).expect("start").into();
    assert_eq!(start, MIB + 4096);
    assert_eq!(module.u32_at(4), Some(start as u32 + 6));
    assert_eq!(pc.read(start, 6), b"module");
    let memory = information_tag(&pc, tag::BASIC_MEMORY).expect("memory sizes");
    assert_eq!((memory.u32_at(0), memory.u32_at(4)), (Some(639), Some(3 * 1024)));
    let map = information_tag(&pc, tag::MEMORY_MAP).expect("a memory map");
    assert_eq!((map.len(), map.u32_at(0)), (8 + 4 * 24, Some(24)));
    assert_eq!((map.u64_at(8), map.u64_at(16)), (Some(0), Some(0x9_fc00)));
    assert_eq!(information_tag(&pc, tag::ACPI_OLD), Some(pc.read(pc.rsdp().0, 20)));
    assert_eq!(information_tag(&pc, tag::ACPI_NEW), Some(pc.read(pc.rsdp().0, 36)));
    assert_eq!(information_tag(&pc, tag::END), Some(Vec::new()));
    assert_eq!(information_tag(&pc, tag::LOAD_BASE), None);
}

#[test]
fn a_flat_kernel_goes_where_its_tags_say() {
    let base = MIB as u32;
    for load in [base, u32::MAX] {
        let addresses = [base + 8, load, 0, base + 4096];
        let mut image = vec![0x90; 8];
        image.extend(header(&[(2, REQUIRED, &addresses), (3, REQUIRED, &[base + 100])]));
        let pc = Pc::new(4 * MIB);
        let state = pc.load(&image, None, "").expect("loads");
        assert_eq!(state.entry, MIB + 100);
        assert_eq!(pc.read(MIB, image.len()), image);
    }
}

#[test]
fn a_relocatable_kernel_moves_into_its_range() {
    let load = |preference| {
        let pc = Pc::new(16 * MIB);
        let range = [8 << 20, (12 << 20) - 1, 0x1_0000, preference];
        let state = pc.load(&elf(&[(10, REQUIRED, &range)]), None, "").expect("loads");
        let base = information_tag(&pc, tag::LOAD_BASE).and_then(|base| base.u32_at(0));
        let base = u64::from(base.expect("a load base"));
        assert_eq!(pc.u32_at(base), HEADER_MAGIC);
        assert_eq!(state.entry, base + 24 + 24);
        base
    };
    assert_eq!(load(0), 8 * MIB);
    assert_eq!(load(1), 8 * MIB);
    assert_eq!(load(2), 12 * MIB - 0x1_0000);
}

#[test]
fn a_module_goes_before_a_kernel_at_the_end_of_memory() {
    let pc = Pc::new(16 * MIB);
    let anywhere_high = [MIB as u32, u32::MAX, 0x1000, 2];
    pc.load(&elf(&[(10, REQUIRED, &anywhere_high)]), Some(b"module"), "").expect("loads");
    let module = information_tag(&pc, tag::MODULE).expect("a module");
    assert_eq!(module.u32_at(0), Some(MIB as u32));
    assert_eq!(pc.read(MIB, 6), b"module");
}

#[test]
fn requirements_that_are_not_met_are_refused_and_wishes_are_not() {
    let pc = Pc::new(4 * MIB);
    let framebuffer = [1024, 768, 32];
    for (kind, fields, word) in [
        (1, &[9][..], "information of type 9"),
        (5, &framebuffer, "framebuffer"),
        (7, &[], "tag 7"),
        (99, &[], "tag 99"),
    ] {
        let message = pc.refusal(&elf(&[(kind, REQUIRED, fields)]));
        assert!(message.contains(word), "{message}");
        let wish = pc.load(&elf(&[(kind, OPTIONAL, fields)]), None, "");
        assert!(wish.is_ok(), "optional tag {kind}: {wish:?}");
    }
    assert!(pc.load(&elf(&[(1, REQUIRED, &[1, 6, 14, 15])]), None, "").is_ok());
}

#[test]
fn broken_tags_are_refused() {
    let pc = Pc::new(4 * MIB);
    let mut image = elf(&[(3, REQUIRED, &[0x10_0000])]);
    for size in [0u32, 7, 8, 11, 1000, u32::MAX] {
        put(&mut image, 120 + 16 + 4, &size.to_le_bytes());
        let refused = pc.load(&image, None, "");
        assert!(matches!(refused, Err(LoadError::Malformed { .. })), "size {size}: {refused:?}");
    }
}

#[test]
fn damage_never_panics() {
    let pc = Pc::new(16 * MIB);
    let relocation = [2 << 20, (12 << 20) - 1, 0x1000, 1];
    let image = elf(&[(1, REQUIRED, &[1, 2]), (10, REQUIRED, &relocation)]);
    pc.survives_damage(&image, image.len());
}
