//! What translated code shares with the core it runs on: where the hot state lies, the slow path
//! behind its TLB checks, and how it hands over.

use std::mem::offset_of;

use brolga_mmu::{AccessKind, GuestPhys, Linear, PAGE_SIZE, Width};

use super::memory::By;
use super::sites::SiteRecords;
use super::{Core, Mode};
use crate::flags::{FlagOp, LazyFlags, Replaced};
use crate::softfloat::F80;
use crate::vcpu::{RIP, Segment, Vcpu};
use crate::x87::{HostImage, LastInstruction, X87};

/// Fields that translated code reads and writes. Addresses are plain numbers: they are valid while
/// the code runs, and the owner of the code sets them before it does.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Translated {
    /// Slow path: the linear address of the access.
    pub address: u64,
    /// Slow path: the size in bytes, [`Translated::WRITE`], [`Translated::ALIGNED`], and the site.
    pub access: u64,
    /// Slow path: the host address, or 0 where the interpreter has to execute the instruction.
    pub host: u64,
    /// On leaving: instructions that were left in the slice when they were last counted.
    pub budget: u64,
    /// On leaving: why ([`Translated::REASON`], the translator's numbers), how many instructions
    /// have been executed since `budget` was counted ([`Translated::PENDING`]), which parts of the
    /// flags are in `flags` instead of the vCPU, and, as a signed number above
    /// [`Translated::IP_SHIFT`], how far execution has come from RIP.
    pub exit: u64,
    /// On leaving: parts of the status flags, as `exit` says. While a region runs, code that may leave
    /// or not stores them here: what the vCPU has is still read.
    pub flags: LazyFlags,
    /// The number of the link cell that was last jumped through.
    pub cell: u64,
    /// Address of the table that indirect branches look their targets up in.
    pub jump_cache: u64,
    /// Address of the link cells.
    pub cells: u64,
    /// What an entry of the jump cache must have been made under.
    pub key: u64,
    /// Spreads the entries of different keys.
    pub key_hash: u64,
    /// Address of the slow path's thunk.
    pub slow_path: u64,
    /// Address of the table of functions for vector operations that the translator cannot express.
    pub operations: u64,
    /// The result of such a function.
    pub result: [u64; 2],
    /// AX after LAHF and SETO, where such a function sets flags: SF, ZF and CF in their positions
    /// in bits 8 to 15, OF in bit 0.
    pub result_flags: u64,
    /// Address of a thunk that computes the status flags from their lazy form.
    pub status: u64,
    /// Address of a function that executes an instruction given by its number.
    pub interpret: u64,
    /// Address of the table of those instructions.
    pub interpreted: u64,
    /// Address of the table of functions that are instructions of the host's x87.
    pub x87_functions: u64,
    /// Address of the function that loads the guest's x87 state into the host's x87.
    pub load_x87: u64,
    /// Address of the function that takes it back.
    pub take_x87: u64,
    /// Whether it is there, 1 or 0: then it is not in the vCPU, but for the control word and the
    /// pointers to the last instruction. Never outside translated code and its slow path.
    pub x87_loaded: u64,
    /// The state on its way there.
    pub x87_image: X87Image,
    /// Address of the TLB's table for the current privilege, as of the last of them.
    pub tlb: u64,
    /// Address of the code to enter first.
    pub code: u64,
    /// Address of what ends translated code.
    pub leave: u64,
    /// Addresses of what regions jump to instead of each other: where the jump cache has no entry
    /// for the target, and where too little is left of the slice for a region that has just begun.
    pub look_up: u64,
    /// See [`Translated::look_up`].
    pub used_up: u64,
    /// What a read has found that crosses a page's end.
    pub gathered: [u8; GATHERED],
    /// Not 0: a group of accesses has been found not to lie in one page.
    pub crossed: u64,
    /// How sites do.
    pub sites: SiteRecords,
}

/// The largest read that may cross a page's end in translated code, in bytes.
const GATHERED: usize = 32;

/// See [`Translated::x87_image`].
#[derive(Debug)]
pub struct X87Image(pub HostImage);

impl Default for X87Image {
    fn default() -> Self {
        X87Image([0; _])
    }
}

impl Translated {
    /// The size in [`Translated::access`].
    pub const SIZE: u64 = 0xffff;
    /// Bit of [`Translated::access`]: a write, or a read-modify-write.
    pub const WRITE: u64 = 1 << 16;
    /// Bit of [`Translated::access`]: only an address that is a multiple of the size will do.
    pub const ALIGNED: u64 = 1 << 17;
    /// Bit of [`Translated::access`]: it stands for several accesses in its bytes.
    pub const GROUP: u64 = 1 << 18;
    /// The reason in [`Translated::exit`].
    pub const REASON: u64 = 0xff;
    /// The instructions in [`Translated::exit`], which begin at [`Translated::PENDING_SHIFT`].
    pub const PENDING: u64 = 0xffff << Translated::PENDING_SHIFT;
    /// See [`Translated::PENDING`].
    pub const PENDING_SHIFT: u32 = 8;
    /// Bits of [`Translated::exit`]: the flags' result, operands, and operation.
    pub const FLAGS_R: u64 = 1 << 24;
    /// See [`Translated::FLAGS_R`].
    pub const FLAGS_A: u64 = 1 << 25;
    /// See [`Translated::FLAGS_R`].
    pub const FLAGS_B: u64 = 1 << 26;
    /// See [`Translated::FLAGS_R`].
    pub const FLAGS_OP: u64 = 1 << 27;
    /// See [`Translated::exit`].
    pub const IP_SHIFT: u32 = 32;
    /// Where [`Translated::access`] holds the number of the site plus 1, or 0 if there is none;
    /// with one, [`Translated::budget`] tells how much of the slice is left.
    pub const SITE_SHIFT: u32 = 32;
}

/// Offsets from the start of [`Core`], for generated code.
#[allow(missing_docs)]
pub mod offset {
    use super::*;

    pub const REGS: usize = offset_of!(Core, vcpu) + offset_of!(Vcpu, regs);
    pub const FLAGS: usize = offset_of!(Core, vcpu) + offset_of!(Vcpu, flags);
    pub const LEFT_FLAGS: usize = offset_of!(Core, translated) + offset_of!(Translated, flags);
    /// From [`FLAGS`] or [`LEFT_FLAGS`].
    pub const OF_R: usize = offset_of!(LazyFlags, r);
    pub const OF_A: usize = offset_of!(LazyFlags, a);
    pub const OF_B: usize = offset_of!(LazyFlags, b);
    pub const OF_OP: usize = offset_of!(LazyFlags, op);
    pub const EFLAGS: usize = offset_of!(Core, vcpu) + offset_of!(Vcpu, eflags);
    /// Vector registers, as [`crate::vector::VectorBackend::xmm`] numbers them.
    pub const XMM: usize = offset_of!(Core, vcpu) + offset_of!(Vcpu, xmm);
    const _: () = assert!(offset_of!(Vcpu, ymm_high) == offset_of!(Vcpu, xmm) + 16 * 16);
    pub const MXCSR: usize = offset_of!(Core, vcpu) + offset_of!(Vcpu, mxcsr);
    pub const ADDRESS: usize = offset_of!(Core, translated) + offset_of!(Translated, address);
    pub const ACCESS: usize = offset_of!(Core, translated) + offset_of!(Translated, access);
    pub const HOST: usize = offset_of!(Core, translated) + offset_of!(Translated, host);
    pub const BUDGET: usize = offset_of!(Core, translated) + offset_of!(Translated, budget);
    pub const EXIT: usize = offset_of!(Core, translated) + offset_of!(Translated, exit);
    pub const CELL: usize = offset_of!(Core, translated) + offset_of!(Translated, cell);
    pub const JUMP_CACHE: usize = offset_of!(Core, translated) + offset_of!(Translated, jump_cache);
    pub const CELLS: usize = offset_of!(Core, translated) + offset_of!(Translated, cells);
    pub const KEY: usize = offset_of!(Core, translated) + offset_of!(Translated, key);
    pub const KEY_HASH: usize = offset_of!(Core, translated) + offset_of!(Translated, key_hash);
    pub const SLOW_PATH: usize = offset_of!(Core, translated) + offset_of!(Translated, slow_path);
    pub const OPERATIONS: usize = offset_of!(Core, translated) + offset_of!(Translated, operations);
    pub const RESULT: usize = offset_of!(Core, translated) + offset_of!(Translated, result);
    pub const RESULT_FLAGS: usize =
        offset_of!(Core, translated) + offset_of!(Translated, result_flags);
    pub const STATUS: usize = offset_of!(Core, translated) + offset_of!(Translated, status);
    pub const INTERPRET: usize = offset_of!(Core, translated) + offset_of!(Translated, interpret);
    pub const TLB: usize = offset_of!(Core, translated) + offset_of!(Translated, tlb);
    pub const CODE: usize = offset_of!(Core, translated) + offset_of!(Translated, code);
    pub const LEAVE: usize = offset_of!(Core, translated) + offset_of!(Translated, leave);
    pub const LOOK_UP: usize = offset_of!(Core, translated) + offset_of!(Translated, look_up);
    pub const USED_UP: usize = offset_of!(Core, translated) + offset_of!(Translated, used_up);

    pub const X87_FUNCTIONS: usize =
        offset_of!(Core, translated) + offset_of!(Translated, x87_functions);
    pub const LOAD_X87: usize = offset_of!(Core, translated) + offset_of!(Translated, load_x87);
    pub const TAKE_X87: usize = offset_of!(Core, translated) + offset_of!(Translated, take_x87);
    pub const X87_LOADED: usize = offset_of!(Core, translated) + offset_of!(Translated, x87_loaded);
    pub const X87_IMAGE: usize = offset_of!(Core, translated) + offset_of!(Translated, x87_image);
    const STATE: usize = offset_of!(Core, vcpu) + offset_of!(Vcpu, x87);
    pub const X87_CONTROL: usize = STATE + X87::CONTROL;
    pub const X87_STATUS: usize = STATE + X87::STATUS;
    pub const X87_VALID: usize = STATE + X87::VALID;
    const X87_LAST: usize = STATE + offset_of!(X87, last);
    pub const X87_LAST_IP: usize = X87_LAST + offset_of!(LastInstruction, ip);
    pub const X87_LAST_CS: usize = X87_LAST + offset_of!(LastInstruction, cs);
    pub const X87_LAST_DP: usize = X87_LAST + offset_of!(LastInstruction, dp);
    pub const X87_LAST_DS: usize = X87_LAST + offset_of!(LastInstruction, ds);

    /// The significand of the physical x87 register `r`: MM`r`.
    pub const fn x87_significand(r: u8) -> usize {
        x87_register(r) + offset_of!(F80, sig)
    }
    /// Its sign and exponent, a `u16`.
    pub const fn x87_sign_exponent(r: u8) -> usize {
        x87_register(r) + offset_of!(F80, se)
    }
    const fn x87_register(r: u8) -> usize {
        STATE + X87::REGS + (r & 7) as usize * size_of::<F80>()
    }

    /// The selector in segment register `index` (encoding order), a `u16`.
    pub const fn segment_selector(index: usize) -> usize {
        segment(index) + offset_of!(Segment, selector)
    }
    /// The base of segment register `index` (encoding order).
    pub const fn segment_base(index: usize) -> usize {
        segment(index) + offset_of!(Segment, base)
    }
    /// The limit, a `u32`.
    pub const fn segment_limit(index: usize) -> usize {
        segment(index) + offset_of!(Segment, limit)
    }
    /// The access rights, a `u32` (see [`crate::vcpu::attr`]).
    pub const fn segment_attr(index: usize) -> usize {
        segment(index) + offset_of!(Segment, attr)
    }
    const fn segment(index: usize) -> usize {
        offset_of!(Core, vcpu) + offset_of!(Vcpu, segs) + index * size_of::<Segment>()
    }
}

/// The eight bytes that [`LazyFlags`] keeps an operation and its width in, with nothing replaced,
/// as one little-endian number: generated code stores them together.
pub const fn packed_flag_op(op: FlagOp, w: Width) -> u64 {
    const _: () = assert!(offset_of!(LazyFlags, w) == offset_of!(LazyFlags, op) + 1);
    const _: () = assert!(offset_of!(LazyFlags, replaced) == offset_of!(LazyFlags, op) + 2);
    const _: () = assert!(size_of::<LazyFlags>() == offset_of!(LazyFlags, op) + 8);
    op as u64 | (w as u64) << 8
}

/// Where [`packed_flag_op`]'s number has the mask and the flags of [`Replaced`].
pub const REPLACED_MASK: u32 = 16;
/// See [`REPLACED_MASK`].
pub const REPLACED_FLAGS: u32 = 32;
const _: () = assert!(offset_of!(Replaced, mask) == 0 && offset_of!(Replaced, flags) == 2);

/// The status flags of a lazy state in its parts; `op` is [`packed_flag_op`]'s. For generated
/// code, where the operation is not known when it is translated.
pub extern "sysv64" fn status_of(r: u64, a: u64, b: u64, op: u64) -> u64 {
    let flag_op = FlagOp::ALL.get((op & 0xff) as usize).copied().unwrap_or(FlagOp::Bits);
    let w = Width::from_bytes(1 << (op >> 8 & 3)).unwrap_or(Width::W64);
    let replaced =
        Replaced { mask: (op >> REPLACED_MASK) as u16, flags: (op >> REPLACED_FLAGS) as u16 };
    LazyFlags { r, a, b, op: flag_op, w, replaced }.status()
}

impl Core {
    /// The slow path of a TLB check in translated code: enters the page if the access is one that
    /// the TLB may serve, and leaves the host address in [`Translated::host`]. What it does for an
    /// access that then faults in the interpreter has no effect that a walk of its own would lack.
    pub fn translated_access(&mut self) {
        let at = Linear(self.translated.address);
        let access = self.translated.access;
        let size = access & Translated::SIZE;
        let write = access & Translated::WRITE != 0;
        if access & Translated::GROUP != 0 && at.page_offset() + size > PAGE_SIZE {
            self.translated.crossed = 1;
            self.translated.host = 0;
            return;
        }
        if access & Translated::ALIGNED != 0 && at.0 & (size - 1) != 0 {
            self.translated.host = 0;
            return;
        }
        let host = match (access >> Translated::SITE_SHIFT).checked_sub(1) {
            Some(site) => self.host_for_site(site as u32, at, size, write),
            None => self.host_after_fill(at, size, write),
        };
        self.translated.host = host.unwrap_or(0);
    }

    pub(super) fn host_after_fill(&mut self, at: Linear, size: u64, write: bool) -> Option<u64> {
        if at.page_offset() + size > PAGE_SIZE {
            return if write { None } else { self.gather(at, size) };
        }
        if self.mode.has(Mode::CODE64) && !self.is_canonical(at.0) {
            return None;
        }
        let kind = if write { AccessKind::Write } else { AccessKind::Read };
        let Ok(phys) = self.translate(at, kind, By::Current) else {
            self.exception = None;
            return None;
        };
        let host = if write { self.host_write(at, size) } else { self.host_read(at, size) };
        host.map(|host| host.addr()).or_else(|| self.beside_code(at, phys, size, write))
    }

    /// Reads from RAM that crosses a page's end: the address of a copy.
    fn gather(&mut self, at: Linear, size: u64) -> Option<u64> {
        let split = (PAGE_SIZE - at.page_offset()) as usize;
        let second = Linear(at.0.checked_add(split as u64)?);
        if size > GATHERED as u64 || !self.vcpu.long_mode() && second.0 >> 32 != 0 {
            return None;
        }
        let mut gathered = [0; GATHERED];
        let (low, high) = gathered[..size as usize].split_at_mut(split);
        for (from, part) in [(at, low), (second, high)] {
            let len = part.len() as u64;
            let host = match self.host_read(from, len) {
                Some(host) => host,
                None => {
                    self.host_after_fill(from, len, false)?;
                    self.host_read(from, len)?
                }
            };
            for (n, byte) in part.iter_mut().enumerate() {
                *byte = Core::read_host(host.wrapping_add(n as u64), Width::W8) as u8;
            }
        }
        self.translated.gathered = gathered;
        Some(self.translated.gathered.as_ptr().addr() as u64)
    }

    /// A store to a page of code that touches none of it.
    fn beside_code(&self, at: Linear, phys: GuestPhys, size: u64, write: bool) -> Option<u64> {
        let page = self.mem.map.lookup(phys);
        let plain = write
            && matches!(page.backing, brolga_mmu::Backing::Ram { .. })
            && self.mem.code.is_code_page(page.phys.page_number())
            && !self.mem.code.overlaps(GuestPhys(page.phys.0 | at.page_offset()), size)
            && !self.watched(at);
        plain.then(|| page.host.addr() + at.page_offset())
    }

    /// The address of the TLB's table for the current privilege.
    pub fn tlb_table(&self) -> u64 {
        self.mem.tlb.current_table()
    }

    /// The mode that blocks are decoded for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Instructions left in the slice, at a block's start.
    pub fn left_in_slice(&self) -> u64 {
        self.progress.slice_end.saturating_sub(self.progress.retired)
    }

    /// Takes over flags, RIP and the count where translated code has left; why it has.
    pub fn take_exit(&mut self) -> u64 {
        let exit = self.translated.exit;
        let (left, flags) = (&self.translated.flags, &mut self.vcpu.flags);
        if exit & Translated::FLAGS_R != 0 {
            flags.r = left.r;
        }
        if exit & Translated::FLAGS_A != 0 {
            flags.a = left.a;
        }
        if exit & Translated::FLAGS_B != 0 {
            flags.b = left.b;
        }
        if exit & Translated::FLAGS_OP != 0 {
            (flags.op, flags.w, flags.replaced) = (left.op, left.w, left.replaced);
        }
        let pending = (exit & Translated::PENDING) >> Translated::PENDING_SHIFT;
        self.retire_until_left(self.translated.budget - pending);
        let by = exit.cast_signed() >> Translated::IP_SHIFT;
        let ip = &mut self.vcpu.regs[usize::from(RIP)];
        *ip = ip.wrapping_add_signed(by);
        if !self.mode.has(Mode::CODE64) {
            *ip &= 0xffff_ffff;
        }
        exit & Translated::REASON
    }

    /// Takes over the count of a translated run that left `left` instructions of the slice.
    pub fn retire_until_left(&mut self, left: u64) {
        self.progress.retired = self.progress.slice_end - left;
    }
}
