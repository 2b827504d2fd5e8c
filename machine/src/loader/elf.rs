//! ELF executables: headers, notes, and loading by physical address. Names and numbers are those
//! of the System V gABI and the x86 psABIs.

use std::ops::Range;

use super::LoadError;
use super::fields::Fields;
use super::space::GuestSpace;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
/// More loaded segments than any kernel has.
const SEGMENTS_MAX: usize = 64;

/// Machines that kernels are built for, by `e_machine`.
const MACHINES: [(u16, &str); 14] = [
    (2, "a SPARC"),
    (4, "a 68000"),
    (8, "a MIPS"),
    (15, "a PA-RISC"),
    (20, "a 32-bit PowerPC"),
    (21, "a 64-bit PowerPC"),
    (22, "an S/390"),
    (40, "a 32-bit Arm"),
    (42, "a SuperH"),
    (43, "a 64-bit SPARC"),
    (50, "an Itanium"),
    (183, "an arm64 (AArch64)"),
    (243, "a RISC-V"),
    (258, "a LoongArch"),
];

struct Segment {
    kind: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    file_size: u64,
    memory_size: u64,
    align: u64,
}

/// An x86 ELF file.
pub(super) struct Elf<'a> {
    bytes: &'a [u8],
    /// Whether this is ELF64.
    wide: bool,
    kind: u16,
    entry: u64,
    segments: Vec<Segment>,
}

impl<'a> Elf<'a> {
    /// Reads the headers; `None` if this is not an ELF file. One for another machine is an error.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Option<Self>, LoadError> {
        const CLASS_64: u8 = 2;
        const BIG_ENDIAN: u8 = 2;
        if !bytes.starts_with(b"\x7fELF") {
            return Ok(None);
        }
        let truncated =
            |needed| LoadError::Truncated { what: "ELF header", needed, have: bytes.len() as u64 };
        let ident = bytes.bytes_at(0, 20).ok_or(truncated(20))?;
        let (wide, big) = (ident[4] == CLASS_64, ident[5] == BIG_ENDIAN);
        let machine = if big { [ident[19], ident[18]] } else { [ident[18], ident[19]] };
        let machine = u16::from_le_bytes(machine);
        if big || !matches!(machine, EM_386 | EM_X86_64) {
            return Err(foreign(machine));
        }
        let len = if wide { 64 } else { 52 };
        let header = bytes.bytes_at(0, len).ok_or(truncated(len))?;
        let field = |wide_at, narrow_at| match wide {
            true => header.u64_at(wide_at).unwrap_or(0),
            false => header.u32_at(narrow_at).unwrap_or(0).into(),
        };
        let half = |wide_at, narrow_at| header.u16_at(if wide { wide_at } else { narrow_at });
        let table = field(32, 28);
        let (size, count) = (half(54, 42).unwrap_or(0), half(56, 44).unwrap_or(0));
        Ok(Some(Self {
            bytes,
            wide,
            kind: header.u16_at(16).unwrap_or(0),
            entry: field(24, 24),
            segments: segments(bytes, wide, table, size, count)?,
        }))
    }

    /// The refusal of a file that nothing says how to enter.
    pub(super) fn no_entry(&self) -> LoadError {
        let kind = match self.kind {
            1 => "object file",
            2 => "executable",
            3 => "shared object",
            4 => "core dump",
            _ => "file",
        };
        LoadError::NoEntry { bits: if self.wide { 64 } else { 32 }, kind }
    }

    /// The contents of the note `name` of type `kind`.
    pub(super) fn note(&self, name: &[u8], kind: u32) -> Option<&'a [u8]> {
        self.segments.iter().filter(|segment| segment.kind == PT_NOTE).find_map(|segment| {
            let notes = self.bytes.bytes_at(segment.offset, segment.file_size)?;
            // Entries are aligned to 4 bytes by custom, to 8 by the letter of the gABI; linkers
            // merge both kinds into one segment.
            let aligns = if segment.align == 8 { [8, 4] } else { [4, 8] };
            aligns.into_iter().find_map(|align| find_note(notes, align, name, kind))
        })
    }

    /// The physical address of the entry point. Kernels that run in high virtual addresses often
    /// give a virtual one.
    pub(super) fn physical_entry(&self) -> u64 {
        let holds = |segment: &&Segment| {
            self.entry.checked_sub(segment.vaddr).is_some_and(|at| at < segment.memory_size)
        };
        match self.loaded().find(holds) {
            Some(segment) => (self.entry - segment.vaddr).wrapping_add(segment.paddr),
            None => self.entry,
        }
    }

    /// The physical addresses from the first to the last segment; `None` if nothing is loaded.
    pub(super) fn span(&self) -> Option<Range<u64>> {
        let start = self.loaded().map(|segment| segment.paddr).min()?;
        let end = self.loaded().map(|s| s.paddr.saturating_add(s.memory_size)).max()?;
        Some(start..end)
    }

    /// Loads all segments, moved by `slide` bytes (modulo 2^64); returns the end of the last.
    pub(super) fn load(&self, space: &mut GuestSpace<'_>, slide: u64) -> Result<u64, LoadError> {
        let mut end = 0;
        for segment in self.loaded() {
            let data = self.bytes.bytes_at(segment.offset, segment.file_size).ok_or(
                LoadError::Truncated {
                    what: "ELF segment",
                    needed: segment.offset.saturating_add(segment.file_size),
                    have: self.bytes.len() as u64,
                },
            )?;
            if segment.file_size > segment.memory_size {
                return Err(LoadError::Malformed {
                    what: "ELF segment is larger in the file than in memory",
                });
            }
            let at = segment.paddr.wrapping_add(slide);
            space.claim("kernel segment", at, segment.memory_size)?;
            space.write(at, data)?;
            space.clear(at + segment.file_size..at + segment.memory_size)?;
            end = end.max(at + segment.memory_size);
        }
        if end == 0 {
            return Err(LoadError::Malformed { what: "ELF file has nothing to load" });
        }
        Ok(end)
    }

    fn loaded(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.kind == PT_LOAD && segment.memory_size != 0)
    }
}

fn foreign(machine: u16) -> LoadError {
    let what = match MACHINES.iter().find(|(number, _)| *number == machine) {
        Some((_, name)) => format!("{name} ELF file"),
        None if machine == EM_386 || machine == EM_X86_64 => "a big-endian ELF file".to_owned(),
        None => format!("an ELF file for machine number {machine}"),
    };
    LoadError::Foreign { what }
}

/// Reads the program headers of the kinds that matter.
fn segments(
    bytes: &[u8],
    wide: bool,
    table: u64,
    entry_size: u16,
    count: u16,
) -> Result<Vec<Segment>, LoadError> {
    let len = if wide { 56 } else { 32 };
    if count != 0 && u64::from(entry_size) < len {
        return Err(LoadError::Malformed { what: "ELF program headers are too small" });
    }
    let mut segments = Vec::new();
    for n in 0..u64::from(count) {
        let at = table.saturating_add(n * u64::from(entry_size));
        let header = bytes.bytes_at(at, len).ok_or(LoadError::Truncated {
            what: "ELF program header table",
            needed: at.saturating_add(len),
            have: bytes.len() as u64,
        })?;
        let segment = program_header(header, wide);
        if matches!(segment.kind, PT_LOAD | PT_NOTE) {
            segments.push(segment);
        }
        if segments.len() > SEGMENTS_MAX {
            return Err(LoadError::Malformed { what: "ELF file has more than 64 segments" });
        }
    }
    Ok(segments)
}

/// Reads one program header, whose bytes are all there.
fn program_header(header: &[u8], wide: bool) -> Segment {
    let field = |wide_at, narrow_at| match wide {
        true => header.u64_at(wide_at).unwrap_or(0),
        false => header.u32_at(narrow_at).unwrap_or(0).into(),
    };
    Segment {
        kind: header.u32_at(0).unwrap_or(0),
        offset: field(8, 4),
        vaddr: field(16, 8),
        paddr: field(24, 12),
        file_size: field(32, 16),
        memory_size: field(40, 20),
        align: field(48, 28),
    }
}

fn find_note<'a>(notes: &'a [u8], align: u64, name: &[u8], kind: u32) -> Option<&'a [u8]> {
    const HEADER: u64 = 12;
    let mut at = 0u64;
    loop {
        let name_size = u64::from(notes.u32_at(at)?);
        let size = u64::from(notes.u32_at(at + 4)?);
        let contents = (at + HEADER + name_size).next_multiple_of(align);
        if notes.u32_at(at + 8)? == kind && notes.bytes_at(at + HEADER, name_size)? == name {
            return notes.bytes_at(contents, size);
        }
        at = (contents + size).next_multiple_of(align);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::loader::testing::Pc;

    /// One program header of a synthetic ELF file.
    pub(in crate::loader) struct Part {
        pub(in crate::loader) kind: u32,
        pub(in crate::loader) vaddr: u64,
        pub(in crate::loader) paddr: u64,
        pub(in crate::loader) data: Vec<u8>,
        pub(in crate::loader) memory_size: u64,
    }

    impl Part {
        pub(in crate::loader) fn load(paddr: u64, data: &[u8], memory_size: u64) -> Self {
            Self { kind: PT_LOAD, vaddr: paddr, paddr, data: data.to_vec(), memory_size }
        }

        pub(in crate::loader) fn note(name: &[u8], kind: u32, contents: &[u8]) -> Self {
            let mut data = Vec::new();
            for field in [name.len() as u32, contents.len() as u32, kind] {
                data.extend(field.to_le_bytes());
            }
            for bytes in [name, contents] {
                data.extend(bytes);
                data.resize(data.len().next_multiple_of(4), 0);
            }
            Self { kind: PT_NOTE, vaddr: 0, paddr: 0, data, memory_size: 0 }
        }
    }

    /// An ELF executable. The parts' data follow the headers in order.
    pub(in crate::loader) fn build(
        wide: bool,
        machine: u16,
        entry: u64,
        parts: &[Part],
    ) -> Vec<u8> {
        let (header, entry_size) = if wide { (64u64, 56u64) } else { (52, 32) };
        let mut elf = b"\x7fELF".to_vec();
        elf.extend([if wide { 2 } else { 1 }, 1, 1]);
        elf.resize(16, 0);
        elf.extend(2u16.to_le_bytes());
        elf.extend(machine.to_le_bytes());
        elf.extend(1u32.to_le_bytes());
        let word = |elf: &mut Vec<u8>, value: u64| match wide {
            true => elf.extend(value.to_le_bytes()),
            false => elf.extend((value as u32).to_le_bytes()),
        };
        for value in [entry, header, 0] {
            word(&mut elf, value);
        }
        elf.extend(0u32.to_le_bytes());
        for half in [header, entry_size, parts.len() as u64, 0, 0, 0] {
            elf.extend((half as u16).to_le_bytes());
        }
        let mut offset = header + entry_size * parts.len() as u64;
        for part in parts {
            let size = part.data.len() as u64;
            elf.extend(part.kind.to_le_bytes());
            if wide {
                elf.extend(0u32.to_le_bytes());
            }
            for value in [offset, part.vaddr, part.paddr, size, part.memory_size] {
                word(&mut elf, value);
            }
            if !wide {
                elf.extend(0u32.to_le_bytes());
            }
            word(&mut elf, 4);
            offset += size;
        }
        elf.extend(parts.iter().flat_map(|part| &part.data));
        elf
    }

    fn parse(bytes: &[u8]) -> Elf<'_> {
        Elf::parse(bytes).expect("valid").expect("ELF")
    }

    #[test]
    fn segments_are_loaded_and_their_rest_is_cleared() {
        for (wide, machine) in [(true, EM_X86_64), (false, EM_386)] {
            let pc = Pc::new(4 << 20);
            let mut space = pc.space();
            space.write(0x10_0000, &[0xff; 16]).expect("RAM");
            let file = build(wide, machine, 0x10_0000, &[Part::load(0x10_0000, b"code", 12)]);
            assert_eq!(parse(&file).load(&mut space, 0).expect("loads"), 0x10_000c);
            assert_eq!(pc.read(0x10_0000, 16), b"code\0\0\0\0\0\0\0\0\xff\xff\xff\xff");
        }
    }

    #[test]
    fn a_virtual_entry_is_translated_and_a_physical_one_is_kept() {
        let mut part = Part::load(0x10_0000, b"code", 0x1000);
        part.vaddr = 0xffff_ffff_8010_0000;
        let file = build(true, EM_X86_64, part.vaddr + 8, std::slice::from_ref(&part));
        assert_eq!(parse(&file).physical_entry(), 0x10_0008);
        let file = build(true, EM_X86_64, 0x10_0010, &[part]);
        assert_eq!(parse(&file).physical_entry(), 0x10_0010);
    }

    #[test]
    fn notes_are_found_behind_others() {
        let mut notes = Part::note(b"GNU\0", 5, &[9; 7]);
        notes.data.extend(Part::note(b"Xen\0", 18, &[1, 2, 3, 4]).data);
        let file = build(true, EM_X86_64, 0, &[notes]);
        assert_eq!(parse(&file).note(b"Xen\0", 18), Some(&[1, 2, 3, 4][..]));
        assert_eq!(parse(&file).note(b"Xen\0", 17), None);
    }

    #[test]
    fn other_machines_are_named() {
        let pc = Pc::new(1 << 20);
        assert!(pc.refusal(&build(true, 183, 0, &[])).contains("arm64"));
        assert!(pc.refusal(&build(true, 999, 0, &[])).contains("machine number 999"));
        let mut big = build(true, 0, 0, &[]);
        big[5] = 2;
        big[18..20].copy_from_slice(&22u16.to_be_bytes());
        assert!(pc.refusal(&big).contains("S/390"));
    }

    #[test]
    fn an_executable_without_an_entry_note_is_refused_by_its_kind() {
        let pc = Pc::new(1 << 20);
        let message = pc.refusal(&build(true, EM_X86_64, 0, &[]));
        assert!(message.contains("64-bit x86 ELF executable"), "{message}");
        let message = pc.refusal(&build(false, EM_386, 0, &[]));
        assert!(message.contains("32-bit x86 ELF executable"), "{message}");
    }

    #[test]
    fn impossible_segments_are_refused() {
        let pc = Pc::new(4 << 20);
        let load = |part: Part| {
            let file = build(true, EM_X86_64, 0, &[part]);
            parse(&file).load(&mut pc.space(), 0).expect_err("must not load")
        };
        let shrinking = load(Part::load(0x10_0000, b"code", 3));
        assert!(matches!(shrinking, LoadError::Malformed { .. }), "{shrinking:?}");
        let huge = load(Part::load(0x10_0000, b"code", u64::MAX));
        assert!(matches!(huge, LoadError::NoRam { .. }), "{huge:?}");
        let empty = load(Part::load(0x10_0000, b"", 0));
        assert!(matches!(empty, LoadError::Malformed { .. }), "{empty:?}");
        let rom = load(Part::load(0xf_0000, b"code", 4));
        assert!(matches!(rom, LoadError::NoRam { .. }), "{rom:?}");
    }
}
