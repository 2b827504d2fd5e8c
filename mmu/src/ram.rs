//! Guest RAM: the one module that touches raw guest memory.
//!
//! Nothing here hands out a Rust reference to guest bytes, because several vCPUs and devices may
//! write them at any time: every access goes through a raw pointer, by volatile or atomic
//! operations, or by `ptr::copy` for bulk transfers.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use crate::addr::{PAGE_SIZE, Width};

/// Why RAM could not be made or accessed.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// The host has no such amount of address space.
    #[error("cannot map {bytes} bytes of guest memory: {source}")]
    Map {
        /// The size asked for.
        bytes: u64,
        /// The host's reason.
        source: io::Error,
    },
    /// The size is nothing that can be mapped.
    #[error("{bytes} bytes is not a possible size of guest memory")]
    Size {
        /// The size asked for.
        bytes: u64,
    },
    /// A bulk access beyond the end.
    #[error("{len} bytes at offset {offset:#x} are outside guest memory")]
    Bounds {
        /// Where the access starts.
        offset: u64,
        /// How long it is.
        len: u64,
    },
}

/// One anonymous host mapping that holds guest memory. The host populates it page by page as the
/// guest touches it. Its size is a whole number of pages.
#[derive(Debug)]
pub struct Ram {
    mapping: MmapRaw,
}

impl Ram {
    /// Maps `bytes` bytes of zeros (rounded up to whole pages).
    pub fn new(bytes: u64) -> Result<Self, RamError> {
        let size = bytes
            .checked_next_multiple_of(PAGE_SIZE)
            .filter(|&size| size != 0 && size <= isize::MAX as u64)
            .ok_or(RamError::Size { bytes })?;
        let mapping = MmapOptions::new()
            .len(size as usize)
            .no_reserve_swap()
            .map_anon()
            .map_err(|source| RamError::Map { bytes, source })?;
        Ok(Self { mapping: mapping.into() })
    }

    /// The size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "RAM is never empty")]
    pub fn len(&self) -> u64 {
        self.mapping.len() as u64
    }

    fn range(&self, offset: u64, len: u64) -> Result<*mut u8, RamError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => {
                Ok(self.mapping.as_mut_ptr().wrapping_add(offset as usize))
            }
            _ => Err(RamError::Bounds { offset, len }),
        }
    }

    /// Copies the bytes at `offset` to `to`.
    pub fn read_bytes(&self, offset: u64, to: &mut [u8]) -> Result<(), RamError> {
        let from = self.range(offset, to.len() as u64)?;
        // SAFETY: `range` has checked that the source lies inside the mapping, and `to` cannot
        // overlap it: nobody is ever given a reference into the mapping.
        unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies `from` to `offset`.
    pub fn write_bytes(&self, offset: u64, from: &[u8]) -> Result<(), RamError> {
        let to = self.range(offset, from.len() as u64)?;
        // SAFETY: as in `read_bytes`, with the roles exchanged.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    /// Reads a little-endian integer; all ones beyond the end, as from a bus where nothing answers.
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        match self.range(offset, width.bytes()) {
            // SAFETY: `range` has checked that all bytes lie inside the mapping.
            Ok(at) => unsafe { HostPtr(at as usize).read(width) },
            Err(_) => width.mask(),
        }
    }

    /// Writes a little-endian integer; nothing happens beyond the end.
    pub fn write(&self, offset: u64, width: Width, value: u64) {
        if let Ok(at) = self.range(offset, width.bytes()) {
            // SAFETY: `range` has checked that all bytes lie inside the mapping.
            unsafe { HostPtr(at as usize).write(width, value) }
        }
    }

    /// [`HostPtr::compare_exchange`] at `offset`; all ones, and no write, beyond the end.
    pub fn compare_exchange(&self, offset: u64, width: Width, expected: u64, new: u64) -> u64 {
        match self.range(offset, width.bytes()) {
            // SAFETY: `range` has checked that all bytes lie inside the mapping.
            Ok(at) => unsafe { HostPtr(at as usize).compare_exchange(width, expected, new) },
            Err(_) => width.mask(),
        }
    }

    /// The host address of the byte at `offset`, or null beyond the end.
    pub fn host_ptr(&self, offset: u64) -> *mut u8 {
        self.range(offset, 1).unwrap_or(std::ptr::null_mut())
    }

    /// The same, in the form that the TLB holds.
    pub fn host(&self, offset: u64) -> HostPtr {
        HostPtr(self.host_ptr(offset) as usize)
    }
}

/// A read-modify-write operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    /// old + operand
    Add,
    /// old & operand
    And,
    /// old | operand
    Or,
    /// old ^ operand
    Xor,
    /// operand
    Xchg,
}

impl AtomicOp {
    /// The new value.
    pub fn apply(self, old: u64, operand: u64) -> u64 {
        match self {
            Self::Add => old.wrapping_add(operand),
            Self::And => old & operand,
            Self::Or => old | operand,
            Self::Xor => old ^ operand,
            Self::Xchg => operand,
        }
    }
}

/// An unaligned integer in guest memory. A volatile access to it is one host instruction where
/// the host can access unaligned memory, so that it does not tear where it is aligned, and the
/// compiler keeps it in program order with others, which makes x86 hosts give the guest x86's
/// memory ordering.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Unaligned<T>(T);

/// A host address inside guest RAM (or ROM), as the TLB holds it.
///
/// All methods that access memory share one contract: every byte of the access lies inside one
/// mapping that is alive: a [`Ram`] that the caller keeps. Nothing is asked of alignment unless
/// the method says so. Integers are little-endian; the bits of values above the width are ignored
/// on the way in and zero on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct HostPtr(usize);

macro_rules! by_width {
    ($width:expr, $access:ident) => {
        match $width {
            Width::W8 => $access!(u8, AtomicU8, W8),
            Width::W16 => $access!(u16, AtomicU16, W16),
            Width::W32 => $access!(u32, AtomicU32, W32),
            Width::W64 => $access!(u64, AtomicU64, W64),
        }
    };
}

impl HostPtr {
    /// The pointer of pages that have no host memory.
    pub const fn null() -> Self {
        Self(0)
    }

    /// Whether there is no host memory here.
    #[inline(always)]
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The pointer with this address: `linear + addend` of a TLB hit.
    #[inline(always)]
    pub const fn from_addr(addr: u64) -> Self {
        Self(addr as usize)
    }

    /// The host address.
    #[inline(always)]
    pub const fn addr(self) -> u64 {
        self.0 as u64
    }

    /// The pointer `bytes` further on.
    #[inline(always)]
    #[must_use]
    pub const fn wrapping_add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes as usize))
    }

    #[inline(always)]
    const fn is_aligned(self, bytes: u64) -> bool {
        self.0 as u64 & (bytes - 1) == 0
    }

    /// Reads an integer. Does not tear where it is aligned.
    ///
    /// # Safety
    /// See the type's contract.
    #[inline(always)]
    pub unsafe fn read(self, width: Width) -> u64 {
        macro_rules! access {
            ($int:ty, $atomic:ty, $w:ident) => {{
                if cfg!(target_arch = "x86_64") || !self.is_aligned(width.bytes()) {
                    // SAFETY: the bytes are inside a live mapping (contract); `Unaligned` asks
                    // for no alignment.
                    let raw = unsafe { (self.0 as *const Unaligned<$int>).read_volatile() };
                    <$int>::from_le(raw.0) as u64
                } else {
                    // SAFETY: inside a live mapping (contract), aligned (just checked), and only
                    // ever accessed through raw pointers.
                    let cell = unsafe { <$atomic>::from_ptr(self.0 as *mut $int) };
                    <$int>::from_le(cell.load(Ordering::Acquire)) as u64
                }
            }};
        }
        by_width!(width, access)
    }

    /// Writes an integer. Does not tear where it is aligned.
    ///
    /// # Safety
    /// See the type's contract.
    #[inline(always)]
    pub unsafe fn write(self, width: Width, value: u64) {
        macro_rules! access {
            ($int:ty, $atomic:ty, $w:ident) => {{
                let value = (value as $int).to_le();
                if cfg!(target_arch = "x86_64") || !self.is_aligned(width.bytes()) {
                    // SAFETY: the bytes are inside a live mapping (contract).
                    unsafe { store::$w(self.0 as *mut Unaligned<$int>, value) }
                } else {
                    // SAFETY: as in `read`.
                    let cell = unsafe { <$atomic>::from_ptr(self.0 as *mut $int) };
                    cell.store(value, Ordering::Release);
                }
            }};
        }
        by_width!(width, access)
    }

    /// Reads 16 bytes, as two reads of 8, low half first.
    ///
    /// # Safety
    /// See the type's contract.
    #[inline(always)]
    pub unsafe fn read128(self) -> u128 {
        // SAFETY: the caller's contract covers both halves.
        let (low, high) = unsafe { (self.read(Width::W64), self.wrapping_add(8).read(Width::W64)) };
        u128::from(high) << 64 | u128::from(low)
    }

    /// Writes 16 bytes, as two writes of 8, low half first.
    ///
    /// # Safety
    /// See the type's contract.
    #[inline(always)]
    pub unsafe fn write128(self, value: u128) {
        // SAFETY: the caller's contract covers both halves.
        unsafe {
            self.write(Width::W64, value as u64);
            self.wrapping_add(8).write(Width::W64, (value >> 64) as u64);
        }
    }

    /// Applies `op` atomically, with any alignment, and returns the old value. A full fence, as
    /// the guest's LOCK prefix is (SDM vol. 3A, 9.1.2).
    ///
    /// # Safety
    /// See the type's contract.
    #[inline]
    pub unsafe fn fetch_op(self, width: Width, op: AtomicOp, operand: u64) -> u64 {
        // One host instruction each, where aligned. And, Or and Xor that return the old value are
        // a loop on the host too.
        if self.is_aligned(width.bytes()) && matches!(op, AtomicOp::Add | AtomicOp::Xchg) {
            macro_rules! access {
                ($int:ty, $atomic:ty, $w:ident) => {{
                    // SAFETY: as in `read`.
                    let cell = unsafe { <$atomic>::from_ptr(self.0 as *mut $int) };
                    if op == AtomicOp::Xchg {
                        let old = cell.swap((operand as $int).to_le(), Ordering::SeqCst);
                        return <$int>::from_le(old) as u64;
                    } else if cfg!(target_endian = "little") {
                        return cell.fetch_add(operand as $int, Ordering::SeqCst) as u64;
                    }
                }};
            }
            by_width!(width, access);
        }
        // SAFETY: the same contract.
        let mut old = unsafe { self.read(width) };
        loop {
            // SAFETY: the same contract.
            let seen = unsafe { self.compare_exchange(width, old, op.apply(old, operand)) };
            if seen == old {
                return old;
            }
            old = seen;
        }
    }

    /// Stores `new` if the value is `expected`, atomically, with any alignment, and returns the
    /// old value. A full fence.
    ///
    /// # Safety
    /// See the type's contract.
    #[inline]
    pub unsafe fn compare_exchange(self, width: Width, expected: u64, new: u64) -> u64 {
        macro_rules! access {
            ($int:ty, $atomic:ty, $w:ident) => {{
                let (expected, new) = ((expected as $int).to_le(), (new as $int).to_le());
                let old = if self.is_aligned(width.bytes()) {
                    // SAFETY: as in `read`.
                    let cell = unsafe { <$atomic>::from_ptr(self.0 as *mut $int) };
                    match cell.compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst) {
                        Ok(old) | Err(old) => old,
                    }
                } else {
                    // SAFETY: the same contract.
                    unsafe { split::$w(self.0 as *mut Unaligned<$int>, expected, new) }
                };
                <$int>::from_le(old) as u64
            }};
        }
        by_width!(width, access)
    }

    /// The same with 16 bytes, which must be aligned to 16 (as CMPXCHG16B demands of the guest).
    ///
    /// # Safety
    /// See the type's contract; and the address is a multiple of 16.
    #[inline]
    pub unsafe fn compare_exchange128(self, expected: u128, new: u128) -> u128 {
        debug_assert!(self.is_aligned(16));
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        if std::arch::is_x86_feature_detected!("cmpxchg16b") {
            // SAFETY: the same contract, and the host has the instruction.
            return unsafe { compare_exchange16(self.0 as *mut u128, expected, new) };
        }
        let _guard = locked::hold();
        // SAFETY: the same contract.
        let old = unsafe { self.read128() };
        if old == expected {
            // SAFETY: the same contract.
            unsafe { self.write128(new) };
        }
        old
    }
}

/// Stores by hand: the compiler sends a volatile [`Unaligned`] through the stack first.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod store {
    #![allow(non_snake_case, reason = "named after the widths")]
    use super::Unaligned;

    macro_rules! store {
        ($name:ident, $int:ty, $class:ident, $instruction:literal) => {
            /// # Safety
            /// The contract of `HostPtr`.
            #[inline(always)]
            pub(super) unsafe fn $name(at: *mut Unaligned<$int>, value: $int) {
                // SAFETY: the bytes are inside a live mapping (contract); MOV asks for no
                // alignment and changes nothing else.
                unsafe {
                    std::arch::asm!(
                        $instruction,
                        at = in(reg) at,
                        value = in($class) value,
                        options(nostack, preserves_flags),
                    );
                }
            }
        };
    }
    store!(W8, u8, reg_byte, "mov [{at}], {value}");
    store!(W16, u16, reg, "mov [{at}], {value:x}");
    store!(W32, u32, reg, "mov [{at}], {value:e}");
    store!(W64, u64, reg, "mov [{at}], {value:r}");
}

/// The portable twin.
#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
mod store {
    #![allow(non_snake_case, reason = "named after the widths")]
    use super::Unaligned;

    macro_rules! store {
        ($name:ident, $int:ty) => {
            /// # Safety
            /// The contract of `HostPtr`.
            #[inline(always)]
            pub(super) unsafe fn $name(at: *mut Unaligned<$int>, value: $int) {
                // SAFETY: the bytes are inside a live mapping (contract); `Unaligned` asks for no
                // alignment.
                unsafe { at.write_volatile(Unaligned(value)) }
            }
        };
    }
    store!(W8, u8);
    store!(W16, u16);
    store!(W32, u32);
    store!(W64, u64);
}

/// CMPXCHG16B by hand: `core::arch`'s intrinsic, inlined into code that is compiled without the
/// feature, becomes a call of a library function that does not exist.
///
/// # Safety
/// The contract of [`HostPtr::compare_exchange128`], and the host has the instruction.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
unsafe fn compare_exchange16(at: *mut u128, expected: u128, new: u128) -> u128 {
    let (low, high): (u64, u64);
    // SAFETY: inside a live mapping and aligned (contract). RBX, which the compiler keeps for
    // itself, is restored.
    unsafe {
        std::arch::asm!(
            "xchg rsi, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, rsi",
            in("rdi") at,
            inout("rsi") new as u64 => _,
            in("rcx") (new >> 64) as u64,
            inout("rax") expected as u64 => low,
            inout("rdx") (expected >> 64) as u64 => high,
            options(nostack),
        );
    }
    u128::from(high) << 64 | u128::from(low)
}

/// Compare-and-exchange of unaligned operands by the host's own LOCK prefix, which serves operands
/// that cross cache lines too (slowly, and with a line in the kernel's log where split-lock
/// detection is on).
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod split {
    #![allow(non_snake_case, reason = "named after the widths")]
    use super::Unaligned;

    macro_rules! compare_exchange {
        ($name:ident, $int:ty, $class:ident, $accumulator:tt, $operand:literal) => {
            /// # Safety
            /// The contract of `HostPtr`.
            pub(super) unsafe fn $name(at: *mut Unaligned<$int>, expected: $int, new: $int) -> $int {
                let old: $int;
                // SAFETY: the bytes are inside a live mapping (contract); CMPXCHG with LOCK asks
                // for no alignment, and changes only the accumulator, the operand and the flags.
                unsafe {
                    std::arch::asm!(
                        concat!("lock cmpxchg [{at}], ", $operand),
                        at = in(reg) at,
                        new = in($class) new,
                        inlateout($accumulator) expected => old,
                        options(nostack),
                    );
                }
                old
            }
        };
    }
    compare_exchange!(W8, u8, reg_byte, "al", "{new}");
    compare_exchange!(W16, u16, reg, "ax", "{new:x}");
    compare_exchange!(W32, u32, reg, "eax", "{new:e}");
    compare_exchange!(W64, u64, reg, "rax", "{new:r}");
}

/// The portable twin: one lock orders all such operations among themselves (not against plain
/// stores to the same bytes, which only hardware can do).
#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
mod split {
    #![allow(non_snake_case, reason = "named after the widths")]
    use super::{Unaligned, locked};

    macro_rules! compare_exchange {
        ($name:ident, $int:ty) => {
            /// # Safety
            /// The contract of `HostPtr`.
            pub(super) unsafe fn $name(
                at: *mut Unaligned<$int>,
                expected: $int,
                new: $int,
            ) -> $int {
                let _guard = locked::hold();
                // SAFETY: the bytes are inside a live mapping (contract); `Unaligned` asks for no
                // alignment.
                let old = unsafe { at.read_volatile() }.0;
                if old == expected {
                    // SAFETY: as above.
                    unsafe { at.write_volatile(Unaligned(new)) };
                }
                old
            }
        };
    }
    compare_exchange!(W8, u8);
    compare_exchange!(W16, u16);
    compare_exchange!(W32, u32);
    compare_exchange!(W64, u64);
}

/// The lock of the portable twins. It guards host instructions that the host lacks, and holds no
/// state of any machine.
mod locked {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    static LOCK: Mutex<()> = Mutex::new(());

    pub(super) fn hold() -> MutexGuard<'static, ()> {
        LOCK.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "ram_tests.rs"]
mod tests;
