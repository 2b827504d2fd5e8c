//! The interpreter's vectors: `u128` values.

use brolga_mmu::{Linear, Width};

use super::memory::By;
use super::{Core, Exit};
use crate::backend::Backend;
use crate::exception::{Exception, vector};
use crate::flags::sign_extend;
use crate::host::{extended, float};
use crate::semantics::x87::report_pending;
use crate::vcpu::{Seg, cr4};
use crate::vector::{
    ComFmt, Crypto, Cvt, Fmt, Fp, Fp1, Fp2, IntCvt, Lane, Pattern, Shift, VecWidth, VectorBackend,
    X2, lanes, string,
};

impl Core {
    /// Takes over the flags of a floating-point operation, and its result if they allow.
    #[inline(always)]
    fn fp_result<T>(&mut self, r: Fp<T>) -> Result<T, Exit> {
        self.vcpu.mxcsr |= u32::from(r.flags);
        if r.unmasked(self.vcpu.mxcsr) != 0 {
            return Err(self.simd_exception());
        }
        Ok(r.value)
    }

    /// #XM, or #UD if the system has not said that it handles it (SDM vol. 3, 2.5).
    #[cold]
    fn simd_exception(&mut self) -> Exit {
        let vector = if self.vcpu.sys.cr4 & cr4::OSXMMEXCPT != 0 { vector::XM } else { vector::UD };
        self.raise(Exception::plain(vector, "unmasked SIMD floating-point exception"))
    }

    #[cold]
    fn misaligned(&mut self) -> Exit {
        self.raise(Exception::gp("vector operand is not aligned to 16 bytes"))
    }

    /// #GP(0) unless the linear address of `ea` is a multiple of `to`, a power of two.
    #[inline(always)]
    pub(crate) fn check_aligned(&mut self, seg: Seg, ea: u64, to: u64) -> Result<(), Exit> {
        let base = if seg.is_flat() { 0 } else { self.vcpu.segs[seg.index()].base };
        if base.wrapping_add(ea) & (to - 1) == 0 { Ok(()) } else { Err(self.misaligned()) }
    }

    /// Checks that `len` bytes (less than a page) at `ea` can be read, or written, and gives their
    /// linear address.
    pub(crate) fn check_area(
        &mut self,
        seg: Seg,
        ea: u64,
        len: u64,
        write: bool,
    ) -> Result<Linear, Exit> {
        let at = self.linear(seg, ea, len, write)?;
        self.canonical(seg, at, len)?;
        if write {
            self.check_write(at, len, By::Current)?;
        } else {
            self.check_read(at, len, By::Current)?;
        }
        Ok(at)
    }
}

impl VectorBackend for Core {
    type X = u128;

    #[inline(always)]
    fn const_x(&mut self, v: u128) -> u128 {
        v
    }

    #[inline(always)]
    fn xmm(&mut self, r: u8) -> u128 {
        self.vcpu.xmm[usize::from(r & 15)]
    }

    #[inline(always)]
    fn set_xmm(&mut self, r: u8, v: u128) {
        self.vcpu.xmm[usize::from(r & 15)] = v;
    }

    #[inline(always)]
    fn mm(&mut self, r: u8) -> u128 {
        self.vcpu.x87.mmx(r).into()
    }

    #[inline(always)]
    fn set_mm(&mut self, r: u8, v: u128) {
        self.vcpu.x87.set_mmx(r, v as u64);
    }

    #[inline(always)]
    fn mmx_check(&mut self) -> Result<(), Exit> {
        if self.vcpu.x87.pending() {
            return report_pending(self);
        }
        Ok(())
    }

    #[inline(always)]
    fn mmx_enter(&mut self) {
        self.vcpu.x87.enter_mmx();
    }

    #[inline(always)]
    fn mmx_leave(&mut self) {
        self.vcpu.x87.empty_mmx();
    }

    #[inline(always)]
    fn load_x(&mut self, w: VecWidth, seg: Seg, ea: u64, aligned: bool) -> Result<u128, Exit> {
        match w {
            VecWidth::V2 => self.load(Width::W16, seg, ea).map(u128::from),
            VecWidth::V4 => self.load(Width::W32, seg, ea).map(u128::from),
            VecWidth::V8 => self.load(Width::W64, seg, ea).map(u128::from),
            VecWidth::V16 => {
                if aligned {
                    self.check_aligned(seg, ea, 16)?;
                }
                self.load128(seg, ea)
            }
        }
    }

    #[inline(always)]
    fn store_x(
        &mut self,
        w: VecWidth,
        seg: Seg,
        ea: u64,
        aligned: bool,
        v: u128,
    ) -> Result<(), Exit> {
        match w {
            VecWidth::V2 => self.store(Width::W16, seg, ea, v as u64 & 0xffff),
            VecWidth::V4 => self.store(Width::W32, seg, ea, v as u64 & 0xffff_ffff),
            VecWidth::V8 => self.store(Width::W64, seg, ea, v as u64),
            VecWidth::V16 => {
                if aligned {
                    self.check_aligned(seg, ea, 16)?;
                }
                self.store128(seg, ea, v)
            }
        }
    }

    #[inline(always)]
    fn extract(&mut self, lane: Lane, a: u128, n: u8) -> u64 {
        lanes::extract(lane, a, n)
    }

    #[inline(always)]
    fn insert(&mut self, lane: Lane, a: u128, n: u8, v: u64) -> u128 {
        lanes::insert(lane, a, n, v)
    }

    #[inline(always)]
    fn movemask(&mut self, lane: Lane, a: u128) -> u64 {
        lanes::movemask(lane, a)
    }

    #[inline(always)]
    fn x2(&mut self, op: X2, lane: Lane, a: u128, b: u128) -> u128 {
        lanes::x2(op, lane, a, b)
    }

    #[inline(always)]
    fn abs(&mut self, lane: Lane, a: u128) -> u128 {
        lanes::abs(lane, a)
    }

    #[inline(always)]
    fn shift(&mut self, op: Shift, lane: Lane, a: u128, count: u64) -> u128 {
        lanes::shift(op, lane, a, count)
    }

    #[inline(always)]
    fn bit_select(&mut self, mask: u128, a: u128, b: u128) -> u128 {
        mask & a | !mask & b
    }

    #[inline(always)]
    fn shuffle(&mut self, a: u128, b: u128, pattern: Pattern) -> u128 {
        lanes::shuffle(a, b, pattern)
    }

    #[inline(always)]
    fn shuffle_d(&mut self, a: u128, b: u128, lanes: [u8; 4]) -> u128 {
        lanes::shuffle_d(a, b, lanes)
    }

    #[inline(always)]
    fn shuffle_by(&mut self, a: u128, by: u128) -> u128 {
        lanes::shuffle_by(a, by)
    }

    #[inline(always)]
    fn interleave(&mut self, lane: Lane, high: bool, a: u128, b: u128) -> u128 {
        lanes::interleave(lane, high, a, b)
    }

    #[inline(always)]
    fn pack(&mut self, from: Lane, signed: bool, a: u128, b: u128) -> u128 {
        lanes::pack(from, signed, a, b)
    }

    #[inline(always)]
    fn fp2(&mut self, op: Fp2, fmt: Fmt, a: u128, b: u128) -> Result<u128, Exit> {
        let r = float::fp2(op, fmt, a, b, self.vcpu.mxcsr);
        self.fp_result(r)
    }

    #[inline(always)]
    fn fp1(&mut self, op: Fp1, fmt: Fmt, upper: u128, a: u128) -> Result<u128, Exit> {
        let r = float::fp1(op, fmt, upper, a, self.vcpu.mxcsr);
        self.fp_result(r)
    }

    #[inline(always)]
    fn fp_compare(&mut self, fmt: ComFmt, quiet: bool, a: u128, b: u128) -> Result<u64, Exit> {
        let r = float::compare(fmt, quiet, a, b, self.vcpu.mxcsr);
        self.fp_result(r)
    }

    #[inline(always)]
    fn cvt(&mut self, op: Cvt, upper: u128, a: u128) -> Result<u128, Exit> {
        let r = float::cvt(op, upper, a, self.vcpu.mxcsr);
        self.fp_result(r)
    }

    #[inline(always)]
    fn cvt_from_int(&mut self, fmt: ComFmt, w: Width, upper: u128, v: u64) -> Result<u128, Exit> {
        let r = float::from_int(fmt, upper, sign_extend(w, v) as i64, self.vcpu.mxcsr);
        self.fp_result(r)
    }

    #[inline(always)]
    fn cvt_to_int(&mut self, op: IntCvt, a: u128) -> Result<u64, Exit> {
        let r = float::scalar_to_int(op, a, self.vcpu.mxcsr);
        self.fp_result(r)
    }

    #[inline(always)]
    fn crypto(&mut self, op: Crypto, a: u128, b: u128) -> u128 {
        extended::apply(op, a, b)
    }

    #[inline(always)]
    fn sha256_rounds(&mut self, cdgh: u128, abef: u128, keys: u128) -> u128 {
        extended::sha256_rounds(cdgh, abef, keys)
    }

    #[inline(always)]
    fn crc32c(&mut self, w: Width, crc: u64, data: u64) -> u64 {
        lanes::crc32c(crc as u32, data, w.bytes() as u32).into()
    }

    fn string_index(
        &mut self,
        control: u8,
        a: u128,
        b: u128,
        lens: Option<[u64; 2]>,
    ) -> (u64, u64) {
        let compared = string::Compared::new(control, a, b, lens);
        (compared.index(), compared.flags())
    }

    fn string_mask(
        &mut self,
        control: u8,
        a: u128,
        b: u128,
        lens: Option<[u64; 2]>,
    ) -> (u128, u64) {
        let compared = string::Compared::new(control, a, b, lens);
        (compared.mask(), compared.flags())
    }
}
