//! From offsets in segments to linear addresses, with what is checked on the way.

use brolga_mmu::Linear;

use crate::core::{Core, Exit};
use crate::exception::{Exception, Why, vector};
use crate::vcpu::{Seg, Segment, attr};

impl Core {
    /// The linear address of `size` bytes at `ea` in `seg`, after the segment's checks.
    #[inline(always)]
    pub(in crate::core) fn linear(
        &mut self,
        seg: Seg,
        ea: u64,
        size: u64,
        write: bool,
    ) -> Result<Linear, Exit> {
        if seg.is_flat() {
            return Ok(Linear(ea));
        }
        self.segmented(seg, ea, size, write)?;
        Ok(Linear(self.slow_value))
    }

    /// Segment type and limit checks (SDM vol. 3, 5.3 and 5.4.1), then the base is added: the
    /// linear address goes to [`Core::slow_value`].
    #[inline(never)]
    fn segmented(&mut self, seg: Seg, ea: u64, size: u64, write: bool) -> Result<(), Exit> {
        let s = &self.vcpu.segs[seg.index()];
        if self.vcpu.code64() {
            let linear = Linear(ea.wrapping_add(s.base));
            return self.aligned(linear, size);
        }
        let linear = Linear((ea.wrapping_add(s.base)) & 0xffff_ffff);
        match segment_violation(s, ea, size, write, self.vcpu.protected()) {
            None => self.aligned(linear, size),
            Some(why) => {
                let vector = if seg.is_stack() { vector::SS } else { vector::GP };
                let why = Why::Value(why, ea);
                Err(self.raise(Exception { why, ..Exception::code(vector, 0, "") }))
            }
        }
    }

    /// The alignment check (SDM vol. 3, 6.15, #AC). While it can strike, no segment is flat.
    #[inline]
    fn aligned(&mut self, at: Linear, size: u64) -> Result<(), Exit> {
        if self.alignment_checked() && at.0 & (alignment(size) - 1) != 0 {
            return Err(self.raise(Exception::code(vector::AC, 0, "operand is not aligned")));
        }
        self.slow_value = at.0;
        Ok(())
    }

    /// #GP(0), or #SS(0), where `size` bytes at `at` are not canonical (SDM vol. 1, 3.3.7.1).
    #[inline]
    pub(crate) fn canonical(&mut self, seg: Seg, at: Linear, size: u64) -> Result<(), Exit> {
        let last = at.0.wrapping_add(size - 1);
        if !self.vcpu.code64() || self.is_canonical(at.0) && self.is_canonical(last) {
            return Ok(());
        }
        let vector = if seg.is_stack() { vector::SS } else { vector::GP };
        let why = Why::Value("address is not canonical", at.0);
        Err(self.raise(Exception { why, ..Exception::code(vector, 0, "") }))
    }
}

/// How an operand of `size` bytes must be aligned if alignment is checked (SDM vol. 3, table 6-7).
const fn alignment(size: u64) -> u64 {
    match size {
        // Numbers of 80 bits, binary and decimal.
        10 => 8,
        // The FPU's environment and state, with 16-bit operand size.
        14 | 94 => 2,
        // The same with 32-bit operand size.
        28 | 108 => 4,
        // The areas of FXSAVE and XSAVE: their instructions check more than this.
        17.. => 16,
        _ => size,
    }
}

/// Whether `v` is canonical for linear addresses of `bits` bits, 48 or 57.
#[inline(always)]
pub const fn is_canonical(v: u64, bits: u32) -> bool {
    let unused = 64 - bits;
    (v << unused) as i64 >> unused == v as i64
}

/// Why `size` bytes at offset `ea` of `s` must not be accessed, if so. Types count in protected mode
/// only: real-address and virtual-8086 mode write through CS as well (SDM vol. 3, 5.1).
pub(super) fn segment_violation(
    s: &Segment,
    ea: u64,
    size: u64,
    write: bool,
    protected: bool,
) -> Option<&'static str> {
    if s.has(attr::UNUSABLE) {
        return Some("access through a null selector, offset");
    }
    if !protected {
        // Nothing but the limit.
    } else if s.has(attr::CODE) {
        if write {
            return Some("write to a code segment, offset");
        }
        if !s.has(attr::RW) {
            return Some("read from an execute-only code segment, offset");
        }
    } else if write && !s.has(attr::RW) {
        return Some("write to a read-only data segment, offset");
    }
    let (limit, last) = (u64::from(s.limit), ea.wrapping_add(size - 1));
    let outside = if !s.has(attr::CODE) && s.has(attr::DC) {
        // Expand-down: valid offsets lie above the limit (SDM vol. 3, 5.3).
        let top = if s.has(attr::DB) { 0xffff_ffff } else { 0xffff };
        ea <= limit || last > top
    } else {
        // A full 4 GiB segment wraps around rather than ending (5.3: implementation-defined).
        limit != 0xffff_ffff && last > limit
    };
    outside.then_some("beyond the segment limit, offset")
}
