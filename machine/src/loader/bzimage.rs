//! Linux's own format, by its boot protocol 2.00 to 2.15 (the kernel's
//! Documentation/arch/x86/boot.rst), through the 32-bit or the 64-bit entry.

use brolga_mmu::PAGE_SIZE;

use super::fields::Fields;
use super::space::{self, FOUR_GIB};
use super::{Boot, BootState, Gpr, LoadError};
use crate::firmware::memory::ONE_MIB;

/// Offsets in the file, and in the zero page, where the setup header has the same place.
mod offset {
    pub(super) const ACPI_RSDP: usize = 0x70;
    pub(super) const ALT_MEM_K: usize = 0x1e0;
    pub(super) const E820_ENTRIES: usize = 0x1e8;
    pub(super) const SETUP_SECTS: u64 = 0x1f1;
    pub(super) const SYSSIZE: u64 = 0x1f4;
    pub(super) const BOOT_FLAG: u64 = 0x1fe;
    pub(super) const JUMP_LEN: u64 = 0x201;
    pub(super) const MAGIC: u64 = 0x202;
    pub(super) const VERSION: u64 = 0x206;
    pub(super) const TYPE_OF_LOADER: usize = 0x210;
    pub(super) const LOADFLAGS: u64 = 0x211;
    pub(super) const CODE32_START: usize = 0x214;
    pub(super) const RAMDISK_IMAGE: usize = 0x218;
    pub(super) const RAMDISK_SIZE: usize = 0x21c;
    pub(super) const CMD_LINE_PTR: usize = 0x228;
    pub(super) const INITRD_ADDR_MAX: u64 = 0x22c;
    pub(super) const KERNEL_ALIGNMENT: u64 = 0x230;
    pub(super) const RELOCATABLE: u64 = 0x234;
    pub(super) const XLOADFLAGS: u64 = 0x236;
    pub(super) const CMDLINE_SIZE: u64 = 0x238;
    pub(super) const SETUP_DATA: usize = 0x250;
    pub(super) const PREF_ADDRESS: u64 = 0x258;
    pub(super) const INIT_SIZE: u64 = 0x260;
    pub(super) const E820_TABLE: usize = 0x2d0;
}

const SECTOR: u64 = 512;
/// Bytes of the 64-bit entry after the start of the protected-mode kernel.
const ENTRY_64: u64 = 0x200;

/// Whether a file has Linux's setup header.
pub(super) fn is_bzimage(bytes: &[u8]) -> bool {
    bytes.u16_at(offset::BOOT_FLAG) == Some(0xaa55)
        && bytes.bytes_at(offset::MAGIC, 4) == Some(b"HdrS")
}

/// The fields of the setup header that a loader reads, with the defaults of protocol versions
/// that lack them.
struct SetupHeader {
    version: u16,
    /// Where the protected-mode kernel begins in the file.
    setup_len: u64,
    /// First byte after the header.
    end: u64,
    long_entry: bool,
    initrd_limit: u64,
    cmdline_max: usize,
    /// The alignment of a kernel that runs where it is loaded.
    relocatable: Option<u64>,
    pref_address: u64,
    init_size: u64,
}

impl SetupHeader {
    fn parse(bytes: &[u8]) -> Result<Self, LoadError> {
        /// What older versions take in `setup_sects` = 0 to mean.
        const DEFAULT_SETUP_SECTS: u64 = 4;
        /// The initrd limit before the field existed: the end of directly mapped memory.
        const OLD_INITRD_MAX: u32 = 0x37ff_ffff;
        const LOADED_HIGH: u8 = 1 << 0;
        const XLF_KERNEL_64: u16 = 1 << 0;
        /// Where the setup header ends at the latest: the zero page's next field.
        const END_MAX: u64 = 0x290;

        let truncated = |needed| LoadError::Truncated {
            what: "setup header",
            needed,
            have: bytes.len() as u64,
        };
        let byte = |at| bytes.bytes_at(at, 1).map(|byte| byte[0]).ok_or(truncated(at + 1));
        let half = |at| bytes.u16_at(at).ok_or(truncated(at + 2));
        let word = |at| bytes.u32_at(at).ok_or(truncated(at + 4));

        let version = half(offset::VERSION)?;
        if byte(offset::LOADFLAGS)? & LOADED_HIGH == 0 {
            return Err(LoadError::Unsupported {
                what: "loading below 1 MiB, being a zImage".to_owned(),
                remedy: "build a bzImage",
            });
        }
        let has = |since| version >= since;
        let relocatable = match has(0x205) && byte(offset::RELOCATABLE)? != 0 {
            true => Some(u64::from(word(offset::KERNEL_ALIGNMENT)?)),
            false => None,
        };
        if relocatable.is_some_and(|align| !align.is_power_of_two()) {
            return Err(LoadError::Malformed {
                what: "setup header has an alignment that is not a power of two",
            });
        }
        let sectors = match byte(offset::SETUP_SECTS)? {
            0 => DEFAULT_SETUP_SECTS,
            sectors => sectors.into(),
        };
        let pref = || bytes.u64_at(offset::PREF_ADDRESS).ok_or(truncated(offset::INIT_SIZE));
        Ok(Self {
            version,
            setup_len: (sectors + 1) * SECTOR,
            end: (offset::MAGIC + u64::from(byte(offset::JUMP_LEN)?)).min(END_MAX),
            long_entry: has(0x20c) && half(offset::XLOADFLAGS)? & XLF_KERNEL_64 != 0,
            initrd_limit: 1 + u64::from(match has(0x203) {
                true => word(offset::INITRD_ADDR_MAX)?,
                false => OLD_INITRD_MAX,
            }),
            cmdline_max: match has(0x206) {
                true => word(offset::CMDLINE_SIZE)? as usize,
                false => 255,
            },
            relocatable,
            pref_address: if has(0x20a) { pref()? } else { ONE_MIB },
            init_size: if has(0x20a) { word(offset::INIT_SIZE)?.into() } else { 0 },
        })
    }
}

/// The part of the file that runs in protected mode.
fn protected_mode_kernel<'a>(bytes: &'a [u8], header: &SetupHeader) -> Result<&'a [u8], LoadError> {
    /// What `syssize` counts in. Old kernels do not fill up their last paragraph.
    const PARAGRAPH: u64 = 16;
    let have = bytes.len() as u64;
    // The field has 32 bits from version 2.04 on; those above were zero before.
    let syssize = bytes.u32_at(offset::SYSSIZE).unwrap_or(0);
    let needed = header.setup_len + u64::from(syssize.max(1)) * PARAGRAPH;
    if have + (PARAGRAPH - 1) < needed {
        return Err(LoadError::Truncated { what: "protected-mode code", needed, have });
    }
    let body = bytes.bytes_at(header.setup_len, have.saturating_sub(header.setup_len));
    body.filter(|body| !header.long_entry || body.len() as u64 > ENTRY_64).ok_or(
        LoadError::Truncated { what: "64-bit entry", needed: header.setup_len + ENTRY_64, have },
    )
}

/// Takes the memory the kernel needs until it manages memory itself (`init_size`); returns where
/// to load it.
fn place_kernel(
    boot: &mut Boot<'_>,
    header: &SetupHeader,
    image_len: u64,
) -> Result<u64, LoadError> {
    const WHAT: &str = "kernel";
    let span = header.init_size.max(image_len);
    let preferred = header.pref_address.max(ONE_MIB);
    match header.relocatable {
        // A kernel that is loaded below its preferred address moves up to it, so the first fit
        // from there is the lowest it can run at.
        Some(align) => boot.space.place_low(WHAT, span, align, preferred..FOUR_GIB),
        // It starts at 1 MiB and moves itself to where it runs.
        None => {
            let missing = LoadError::NoRam { what: WHAT, size: span, at: preferred };
            let end = preferred.checked_add(header.init_size).ok_or(missing)?;
            boot.space.claim(WHAT, ONE_MIB, image_len.max(end - ONE_MIB))?;
            Ok(ONE_MIB)
        }
    }
}

fn place_initrd(
    boot: &mut Boot<'_>,
    header: &SetupHeader,
) -> Result<Option<(u64, u64)>, LoadError> {
    let Some(initrd) = boot.image.initrd else { return Ok(None) };
    let size = initrd.len() as u64;
    let at = boot.space.place_high("initrd", size, PAGE_SIZE, header.initrd_limit)?;
    boot.space.write(at, initrd)?;
    Ok(Some((at, size)))
}

/// Loads a bzImage.
pub(super) fn load(mut boot: Boot<'_>) -> Result<BootState, LoadError> {
    let header = SetupHeader::parse(boot.image.bytes)?;
    let body = protected_mode_kernel(boot.image.bytes, &header)?;
    let cmdline = boot.space.write_command_line(boot.image.cmdline, header.cmdline_max)?;
    let kernel = place_kernel(&mut boot, &header, body.len() as u64)?;
    boot.space.write(kernel, body)?;
    let initrd = place_initrd(&mut boot, &header)?;

    let page = zero_page(&boot, &header, kernel, cmdline, initrd);
    boot.space.write(space::ZERO_PAGE, &page)?;
    let registers = vec![(Gpr::Rsi, space::ZERO_PAGE)];
    match header.long_entry {
        true => BootState::long64(&boot.space, kernel + ENTRY_64, registers),
        false => BootState::protected32(&boot.space, kernel, registers),
    }
}

/// The boot parameters: the setup header as the file has it, with the loader's fields filled in.
/// The screen is left out: without a video mode Linux takes no VGA to be there.
fn zero_page(
    boot: &Boot<'_>,
    header: &SetupHeader,
    kernel: u64,
    cmdline: u64,
    initrd: Option<(u64, u64)>,
) -> Vec<u8> {
    const UNKNOWN_LOADER: u8 = 0xff;
    let mut page = vec![0; PAGE_SIZE as usize];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);

    let length = header.end - offset::SETUP_SECTS;
    if let Some(setup) = boot.image.bytes.bytes_at(offset::SETUP_SECTS, length) {
        put(offset::SETUP_SECTS as usize, setup);
    }
    put(offset::TYPE_OF_LOADER, &[UNKNOWN_LOADER]);
    put(offset::CODE32_START, &(kernel as u32).to_le_bytes());
    let (at, size) = initrd.unwrap_or((0, 0));
    put(offset::RAMDISK_IMAGE, &(at as u32).to_le_bytes());
    put(offset::RAMDISK_SIZE, &(size as u32).to_le_bytes());
    if header.version >= 0x202 {
        put(offset::CMD_LINE_PTR, &(cmdline as u32).to_le_bytes());
    } else {
        /// Where versions before 2.02 look: a magic number, and the distance from the zero page.
        const OLD_CMD_LINE: usize = 0x20;
        const OLD_CMD_LINE_MAGIC: u16 = 0xa33f;
        put(OLD_CMD_LINE, &OLD_CMD_LINE_MAGIC.to_le_bytes());
        put(OLD_CMD_LINE + 2, &((cmdline - space::ZERO_PAGE) as u16).to_le_bytes());
    }
    if header.version >= 0x209 {
        put(offset::SETUP_DATA, &[0; 8]);
    }
    put(offset::ACPI_RSDP, &boot.tables.rsdp.0.to_le_bytes());
    let extended_kib = (boot.layout.low_ram_end() - ONE_MIB) / 1024;
    put(offset::ALT_MEM_K, &(extended_kib as u32).to_le_bytes());
    let map = boot.layout.e820();
    put(offset::E820_ENTRIES, &[map.len() as u8]);
    for (entry, at) in map.iter().zip((offset::E820_TABLE..).step_by(20)) {
        put(at, &entry.base.to_le_bytes());
        put(at + 8, &entry.len.to_le_bytes());
        put(at + 16, &(entry.kind as u32).to_le_bytes());
    }
    page
}

#[cfg(test)]
mod tests;
