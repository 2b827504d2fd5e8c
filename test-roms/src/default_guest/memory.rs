//! Where the guest keeps things in RAM. (Constants and code are the ROM's; see [`crate::rom`].)
//!
//! ```text
//! 00000  left unmapped by paging, so that null pointers fault
//! 01000  variables (below), interrupt counts
//! 02000  GDT, TSS
//! 03000  IDT
//! 04000  stack of the double-fault handler, down from 06000
//! 06000  stack of everything else, down from 08000
//! 08000  page tables: PML4, PDPT, four page directories, one page table
//! 0F000  data of the speed measurement
//! 10000  the ROM's copy, from which protected and long mode run
//! B8000  VGA text memory
//! ```

/// The first page that paging maps: the variables.
pub(super) const VARIABLES: u32 = 0x1000;
pub(super) const VARIABLES_SIZE: u32 = 0x1000;

/// Byte offset of the VGA cursor in text memory (word).
pub(super) const CURSOR: u32 = 0x1000;
/// VGA attribute of the next character (byte).
pub(super) const ATTRIBUTE: u32 = 0x1002;
/// Where execution resumes if the next exception is expected, or 0 (qword).
pub(super) const RECOVER: u32 = 0x1008;
/// Whether faults return to the monitor (byte).
pub(super) const MONITOR_RUNS: u32 = 0x1010;
/// Producer and consumer indices of [`RECEIVED`] (bytes, wrapping).
pub(super) const RECEIVED_HEAD: u32 = 0x1011;
pub(super) const RECEIVED_TAIL: u32 = 0x1012;
/// The byte last taken from [`RECEIVED`], to tell CR LF from CR (byte).
pub(super) const LAST_RECEIVED: u32 = 0x1013;
/// The frequency of the local APIC timer's counter in Hz, or 0 without a local APIC (qword).
pub(super) const APIC_HZ: u32 = 0x1018;
/// A text of up to 64 bytes being put together.
pub(super) const TEXT: u32 = 0x1040;
/// The line being edited, and its greatest length without the final zero.
pub(super) const LINE: u32 = 0x1100;
pub(super) const LINE_MAX: u32 = 70;
/// The line before it.
pub(super) const PREVIOUS_LINE: u32 = 0x1180;
/// Ring buffer of 256 bytes received by the UART.
pub(super) const RECEIVED: u32 = 0x1200;
/// How often each vector occurred (256 qwords).
pub(super) const COUNTS: u32 = 0x1800;

pub(super) const GDT: u32 = 0x2000;
pub(super) const TSS: u32 = 0x2100;
pub(super) const IDT: u32 = 0x3000;
pub(super) const FAULT_STACK_TOP: u32 = 0x6000;
pub(super) const STACK_TOP: u32 = 0x8000;

pub(super) const PML4: u32 = 0x8000;
pub(super) const PDPT: u32 = 0x9000;
pub(super) const PAGE_DIRECTORIES: u32 = 0xA000;
pub(super) const PAGE_TABLE: u32 = 0xE000;
pub(super) const PAGE_TABLES_SIZE: u32 = 0x7000;

pub(super) const SPEED_DATA: u32 = 0xF000;

/// The copy of the ROM.
pub(super) const SHADOW: u32 = 0x1_0000;
pub(super) const VGA_TEXT: u32 = 0xB_8000;

/// Flat 32-bit code, flat data, 64-bit code.
pub(super) const CODE32: u16 = 0x08;
pub(super) const FLAT: u16 = 0x10;
pub(super) const CODE64: u16 = 0x18;
/// 16-bit code at the ROM, 16-bit data at VGA text memory.
pub(super) const CODE16: u16 = 0x20;
pub(super) const VGA16: u16 = 0x28;
pub(super) const TSS_SELECTOR: u16 = 0x30;
