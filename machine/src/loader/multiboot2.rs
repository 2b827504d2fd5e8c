//! Multiboot 2 (Multiboot2 Specification, version 2.0), through the 32-bit entry.

use std::ops::Range;

use super::elf::Elf;
use super::fields::Fields;
use super::multiboot::{Addresses, LOADER_NAME, basic_memory, no_framebuffer, place_module};
use super::space::{BOOT_INFO, COMMAND_LINE_MAX, FOUR_GIB, check_command_line};
use super::{Boot, BootState, Gpr, LoadError};

const HEADER_MAGIC: u32 = 0xe852_50d6;
const LOADER_MAGIC: u64 = 0x36d7_6289;
/// The header lies within the first 32 KiB (3.1.1).
const SEARCH: u64 = 32768;

/// Types of the tags of the information structure (3.6) that are passed.
mod tag {
    pub(super) const END: u32 = 0;
    pub(super) const CMDLINE: u32 = 1;
    pub(super) const LOADER_NAME: u32 = 2;
    pub(super) const MODULE: u32 = 3;
    pub(super) const BASIC_MEMORY: u32 = 4;
    pub(super) const MEMORY_MAP: u32 = 6;
    pub(super) const ACPI_OLD: u32 = 14;
    pub(super) const ACPI_NEW: u32 = 15;
    pub(super) const LOAD_BASE: u32 = 21;
    pub(super) const ALL: [u32; 9] = [
        END,
        CMDLINE,
        LOADER_NAME,
        MODULE,
        BASIC_MEMORY,
        MEMORY_MAP,
        ACPI_OLD,
        ACPI_NEW,
        LOAD_BASE,
    ];
}

/// Where a kernel that can run anywhere may go (3.1.12).
struct Relocation {
    range: Range<u64>,
    align: u64,
    highest: bool,
}

/// A header, at its place in the file, with the tags that direct loading.
pub(super) struct Header {
    at: u64,
    addresses: Option<Addresses>,
    entry: Option<u32>,
    relocation: Option<Relocation>,
}

impl Header {
    /// Finds the header, at a multiple of 8 bytes, by its magic number and checksum. One that asks
    /// for what cannot be provided is an error.
    pub(super) fn find(bytes: &[u8]) -> Result<Option<Self>, LoadError> {
        const I386: u32 = 0;
        let found = (0..SEARCH - 16).step_by(8).find_map(|at| {
            if bytes.u32_at(at)? != HEADER_MAGIC {
                return None;
            }
            let (arch, len) = (bytes.u32_at(at + 4)?, bytes.u32_at(at + 8)?);
            let sum = HEADER_MAGIC.wrapping_add(arch).wrapping_add(len);
            (sum.wrapping_add(bytes.u32_at(at + 12)?) == 0).then_some((at, arch, len))
        });
        let Some((at, arch, len)) = found else { return Ok(None) };
        if arch != I386 {
            return Err(LoadError::Foreign { what: "a multiboot kernel for MIPS".to_owned() });
        }
        let have = bytes.len() as u64;
        let needed = at + u64::from(len);
        let tags = bytes.bytes_at(at, len.into()).and_then(|header| header.get(16..));
        let tags = tags.ok_or(LoadError::Truncated { what: "multiboot 2 header", needed, have })?;
        Self::parse(at, tags).map(Some)
    }

    fn parse(at: u64, tags: &[u8]) -> Result<Self, LoadError> {
        const BAD: LoadError = LoadError::Malformed { what: "multiboot 2 header has a broken tag" };
        const TAG_HEADER: u64 = 8;
        const OPTIONAL: u16 = 1;
        let mut header = Self { at, addresses: None, entry: None, relocation: None };
        let mut next = 0;
        while next < tags.len() as u64 {
            let kind = tags.u16_at(next).ok_or(BAD)?;
            let optional = tags.u16_at(next + 2).ok_or(BAD)? & OPTIONAL != 0;
            let size = u64::from(tags.u32_at(next + 4).ok_or(BAD)?);
            let body = size.checked_sub(TAG_HEADER).ok_or(BAD)?;
            let body = tags.bytes_at(next + TAG_HEADER, body).ok_or(BAD)?;
            if kind == 0 {
                break;
            }
            header.take_tag(kind, optional, body).ok_or(BAD)??;
            next += size.next_multiple_of(8);
        }
        Ok(header)
    }

    /// Notes one tag (3.1.4 to 3.1.13); `None` if it is too short.
    fn take_tag(
        &mut self,
        kind: u16,
        optional: bool,
        body: &[u8],
    ) -> Option<Result<(), LoadError>> {
        let refuse = |error| if optional { Ok(()) } else { Err(error) };
        let unsupported =
            |what| refuse(LoadError::Unsupported { what, remedy: "boot it with its own loader" });
        Some(match kind {
            1 => {
                let mut requests = body.chunks_exact(4).filter_map(|chunk| chunk.u32_at(0));
                match requests.find(|request| !tag::ALL.contains(request)) {
                    Some(kind) => unsupported(format!("multiboot 2 information of type {kind}")),
                    None => Ok(()),
                }
            }
            2 => {
                self.addresses = Some(Addresses {
                    header: body.u32_at(0)?,
                    load: body.u32_at(4)?,
                    load_end: body.u32_at(8)?,
                    bss_end: body.u32_at(12)?,
                });
                Ok(())
            }
            3 => {
                self.entry = Some(body.u32_at(0)?);
                Ok(())
            }
            // The console: a text screen is not required by either flag, a console is there.
            4 => Ok(()),
            5 => {
                // A depth of zero means that any will do, text too.
                if body.u32_at(8)? == 0 { Ok(()) } else { refuse(no_framebuffer()) }
            }
            // Modules are aligned to pages in any case; the EFI entries are for EFI machines.
            6 | 8 | 9 => Ok(()),
            10 => {
                self.relocation = Some(Relocation::parse(body)?);
                Ok(())
            }
            other => unsupported(format!("the multiboot 2 feature of tag {other}")),
        })
    }
}

impl Relocation {
    fn parse(body: &[u8]) -> Option<Self> {
        const HIGHEST: u32 = 2;
        let align = u64::from(body.u32_at(8)?.max(1));
        Some(Self {
            range: body.u32_at(0)?.into()..u64::from(body.u32_at(4)?).saturating_add(1),
            align: align.is_power_of_two().then_some(align)?,
            highest: body.u32_at(12)? == HIGHEST,
        })
    }
}

/// A kernel in memory.
struct Loaded {
    entry: u64,
    end: u64,
    /// Where its first byte went, if that was open.
    base: Option<u64>,
}

/// Loads a multiboot 2 kernel.
pub(super) fn load(
    mut boot: Boot<'_>,
    header: &Header,
    elf: Option<&Elf<'_>>,
) -> Result<BootState, LoadError> {
    check_command_line(boot.image.cmdline, COMMAND_LINE_MAX)?;
    let loaded = load_kernel(&mut boot, header, elf)?;
    let module = place_module(&mut boot, loaded.end)?;
    let information = information(&boot, module, loaded.base)?;
    boot.space.write(BOOT_INFO.start, &information)?;
    let registers = vec![(Gpr::Rax, LOADER_MAGIC), (Gpr::Rbx, BOOT_INFO.start)];
    BootState::protected32(&boot.space, loaded.entry, registers)
}

fn load_kernel(
    boot: &mut Boot<'_>,
    header: &Header,
    elf: Option<&Elf<'_>>,
) -> Result<Loaded, LoadError> {
    if let Some(addresses) = &header.addresses {
        let end = addresses.load(&mut boot.space, boot.image.bytes, header.at)?;
        let entry = header.entry.ok_or(LoadError::Malformed {
            what: "multiboot 2 header has load addresses, but no entry address",
        })?;
        return Ok(Loaded { entry: entry.into(), end, base: None });
    }
    let elf = elf.ok_or(LoadError::Malformed {
        what: "multiboot 2 header gives no addresses, and it is no ELF file",
    })?;
    let entry = header.entry.map_or(elf.physical_entry(), u64::from);
    let Some(relocation) = &header.relocation else {
        return Ok(Loaded { entry, end: elf.load(&mut boot.space, 0)?, base: None });
    };
    let linked = elf.span().ok_or(LoadError::Malformed { what: "ELF file has nothing to load" })?;
    let base = free_base(boot, relocation, &linked)?;
    let slide = base.wrapping_sub(linked.start);
    let end = elf.load(&mut boot.space, slide)?;
    Ok(Loaded { entry: entry.wrapping_add(slide), end, base: Some(base) })
}

/// An address for a relocatable kernel. The search takes what it finds, so it has a space of its
/// own; the kernel's segments then take theirs.
fn free_base(
    boot: &Boot<'_>,
    relocation: &Relocation,
    linked: &Range<u64>,
) -> Result<u64, LoadError> {
    let mut search = boot.space.clone();
    let (size, align) = (linked.end - linked.start, relocation.align);
    let range = relocation.range.start..relocation.range.end.min(FOUR_GIB);
    if relocation.highest {
        let at = search.place_high("kernel", size, align, range.end)?;
        if at >= range.start {
            return Ok(at);
        }
    }
    search.place_low("kernel", size, align, range)
}

/// The information structure (3.6): tags at multiples of 8 bytes.
fn information(
    boot: &Boot<'_>,
    module: Option<(u32, u32)>,
    base: Option<u64>,
) -> Result<Vec<u8>, LoadError> {
    const MAP_ENTRY_LEN: u32 = 24;
    const MAP_VERSION: u32 = 0;
    let mut info = Information(vec![0; 8]);
    let cmdline = [boot.image.cmdline.as_bytes(), &[0]].concat();
    info.tag(tag::CMDLINE, &cmdline);
    info.tag(tag::LOADER_NAME, LOADER_NAME);
    if let Some((start, end)) = module {
        // The address range, and an empty command line.
        let body = [&start.to_le_bytes()[..], &end.to_le_bytes(), &[0]].concat();
        info.tag(tag::MODULE, &body);
    }
    info.tag(tag::BASIC_MEMORY, &basic_memory(boot).map(u32::to_le_bytes).concat());
    let mut map = [MAP_ENTRY_LEN, MAP_VERSION].map(u32::to_le_bytes).concat();
    for entry in boot.layout.e820() {
        map.extend(entry.base.to_le_bytes());
        map.extend(entry.len.to_le_bytes());
        map.extend((entry.kind as u32).to_le_bytes());
        map.extend(0u32.to_le_bytes());
    }
    info.tag(tag::MEMORY_MAP, &map);
    // Copies of the RSDP: its ACPI 1.0 part, and all of it.
    let mut rsdp = [0; 36];
    boot.space.read(boot.tables.rsdp.0, &mut rsdp)?;
    info.tag(tag::ACPI_OLD, &rsdp[..20]);
    info.tag(tag::ACPI_NEW, &rsdp);
    if let Some(base) = base {
        info.tag(tag::LOAD_BASE, &(base as u32).to_le_bytes());
    }
    info.tag(tag::END, &[]);
    Ok(info.finish())
}

/// The information structure while it is being written.
struct Information(Vec<u8>);

impl Information {
    fn tag(&mut self, kind: u32, body: &[u8]) {
        const HEADER: u32 = 8;
        self.0.extend(kind.to_le_bytes());
        self.0.extend((HEADER + body.len() as u32).to_le_bytes());
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let total = self.0.len() as u32;
        self.0[..4].copy_from_slice(&total.to_le_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests;
