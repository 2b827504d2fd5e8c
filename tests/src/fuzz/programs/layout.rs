//! Where things are. Without paging, and in the identity mapping of the tables, linear addresses
//! are physical ones.

/// Bytes of RAM.
pub(super) const RAM: u64 = 0x2_8000;

pub(super) const GDT: u64 = 0x1000;
pub(super) const IDT: u64 = 0x2000;
pub(super) const TSS: u64 = 0x2c00;
/// What handlers read and write: see the constants behind.
pub(super) const SYSTEM: u64 = 0x3000;
/// Exceptions and interrupts so far, 32 bits.
pub(super) const COUNT: u64 = 0x200;
/// Where handlers continue: [`TARGETS`] times an offset (32 bits) and the selectors of its code at
/// levels 0 and 3 (16 bits each).
pub(super) const TABLE: u64 = 0x400;
pub(super) const TARGETS: u64 = 16;
/// What the last [`LOGGED`] events were, 16 bytes each.
pub(super) const LOG: u64 = 0x800;
pub(super) const LOGGED: u64 = 64;

/// The entry of vector 0; each has 16 bytes.
pub(super) const HANDLERS: u64 = 0x4000;
/// The handlers' common part.
pub(super) const COMMON: u64 = 0x4400;

/// The ends of the stacks for interrupts from level 3, and for exceptions in IA-32e mode.
pub(super) const KERNEL_STACK: u64 = 0x7000;
pub(super) const FAULT_STACK: u64 = 0x6800;

/// The program.
pub(super) const CODE: u64 = 0x8000;
pub(super) const CODE_END: u64 = 0xc000;
/// What it works on.
pub(super) const DATA: u64 = 0x1_0000;
pub(super) const DATA_END: u64 = 0x1_8000;
/// Its stack.
pub(super) const STACK: u64 = 0x1_8000;
pub(super) const STACK_END: u64 = 0x1_a000;
pub(super) const STACK_TOP: u64 = 0x1_9ff0;

/// Two sets of page tables, four pages each, mapped at [`WINDOW`] only. Two pages of the first
/// set's and the second set's last level.
pub(super) const TABLES: [u64; 2] = [0x2_0000, 0x2_4000];
pub(super) const WINDOW: u64 = 0x1f_0000;
/// What is below 1 MiB, mapped once more: writable here,
pub(super) const ALIAS: u64 = 0x10_0000;
/// read-only here,
pub(super) const READ_ONLY: u64 = 0x14_0000;
/// and here nothing is mapped.
pub(super) const UNMAPPED: u64 = 0x18_0000;

/// What memory that has no purpose is filled with: INT3.
pub(super) const ASTRAY: u8 = 0xcc;

/// Selectors at level 0, and those of level 3 with their RPL.
pub(super) const CODE64: [u16; 2] = [0x08, 0x3b];
pub(super) const DATA32: [u16; 2] = [0x10, 0x33];
pub(super) const CODE32: [u16; 2] = [0x18, 0x2b];
pub(super) const CODE16: [u16; 2] = [0x20, 0x43];
/// A stack segment of 16 bits.
pub(super) const DATA16: [u16; 2] = [0x48, 0x53];
pub(super) const TASK: u16 = 0x58;

/// The vector of the external interrupt.
pub(super) const INTERRUPT: u8 = 0x40;
/// The software interrupt that leads to level 0.
pub(super) const SERVICE: u8 = 0x80;
