//! Why an image cannot be booted.

use std::fmt;

use brolga_mmu::MapError;

/// Why an image cannot be booted. Each message is one line: what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel file has no bytes.
    #[error("the kernel file is empty; give an x86 kernel image")]
    Empty,
    /// No format fits.
    #[error(
        "this is not a kernel image; give a Linux bzImage (vmlinuz), an ELF kernel with a PVH \
         note, or a multiboot kernel (a firmware image goes to --bios)"
    )]
    Unrecognised,
    /// Data compressed as a whole.
    #[error(
        "this is {format}-compressed data, not a kernel image; decompress it first, or give the \
         bzImage (vmlinuz) that decompresses itself"
    )]
    Compressed {
        /// Of the compression.
        format: &'static str,
    },
    /// A kernel, or something like one, that is not for this machine.
    #[error("this is {what}, which an x86 PC cannot boot; give a kernel built for x86")]
    Foreign {
        /// What was found.
        what: String,
    },
    /// An x86 ELF file that nothing says how to enter.
    #[error(
        "this {bits}-bit x86 ELF {kind} has neither a PVH note nor a multiboot header; give the \
         bzImage (vmlinuz), or build the kernel with CONFIG_PVH"
    )]
    NoEntry {
        /// 32 or 64.
        bits: u8,
        /// Its ELF type.
        kind: &'static str,
    },
    /// The file ends too early.
    #[error(
        "the kernel is cut short: its {what} ends at byte {needed}, but the file has {have}; \
         copy it again"
    )]
    Truncated {
        /// What is missing.
        what: &'static str,
        /// Where it would end.
        needed: u64,
        /// The size of the file.
        have: u64,
    },
    /// Header fields contradict each other.
    #[error("the kernel's {what}; the file is damaged or not made for a PC")]
    Malformed {
        /// The part and its fault.
        what: &'static str,
    },
    /// The image asks for what this machine or loader does not have.
    #[error("the kernel asks for {what}, which this loader does not provide; {remedy}")]
    Unsupported {
        /// What it asks for.
        what: String,
        /// What could be done.
        remedy: &'static str,
    },
    /// No gap in RAM is large enough.
    #[error(
        "no room for the {what} ({}) between {from:#x} and {below:#x}; give the machine more \
         memory (-m)",
        Size(*size)
    )]
    NoRoom {
        /// What was to be placed.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The lowest address it may have.
        from: u64,
        /// The address it must end at.
        below: u64,
    },
    /// A fixed address that has no RAM.
    #[error(
        "the {what} ({}) belongs at {at:#x}, where RAM is missing; give the machine more memory \
         (-m), if its RAM can reach there",
        Size(*size)
    )]
    NoRam {
        /// What was to be placed.
        what: &'static str,
        /// Its size.
        size: u64,
        /// Where.
        at: u64,
    },
    /// A fixed address that is in use.
    #[error("the {what} at {at:#x} overlaps the {other}; link the kernel at another address")]
    Overlap {
        /// What was to be placed.
        what: &'static str,
        /// Where.
        at: u64,
        /// What is there already.
        other: &'static str,
    },
    /// The initrd file has no bytes.
    #[error("the initrd is empty; give another one, or none")]
    EmptyInitrd,
    /// The command line is too long.
    #[error("the command line has {len} bytes, but this kernel takes {max}; shorten it")]
    CommandLineLength {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The command line cannot be passed as a C string.
    #[error("the command line contains a NUL character; remove it")]
    CommandLineNul,
    /// A ROM of a size that boot ROMs do not have.
    #[error("the ROM has {0} bytes; it must be a multiple of 64 KiB, up to 16 MiB")]
    RomSize(usize),
    /// RAM is not where the memory layout says.
    #[error("guest memory cannot be written: {0}")]
    Memory(#[from] MapError),
}

/// A size as people read it.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..0x1_0000 => write!(f, "{} bytes", self.0),
            0x1_0000..0x100_0000 => write!(f, "{} KiB", self.0.div_ceil(1 << 10)),
            _ => write!(f, "{} MiB", self.0.div_ceil(1 << 20)),
        }
    }
}
