//! Accesses of more than 8 bytes, and runs of elements for repeated string instructions. One of the
//! crate's modules with `unsafe`: host pointers out of the TLB are used here.

use brolga_mmu::{HostPtr, Linear, Width};

use super::By;
use super::segment::segment_violation;
use crate::core::{Core, Exit};
use crate::vcpu::Seg;

/// Bytes of a RAM page that may be read, until the TLB or the map next changes.
pub(crate) struct RunToRead {
    host: HostPtr,
    bytes: u64,
}

impl RunToRead {
    /// Element `n`, of width `w`; 0 behind the end.
    #[inline(always)]
    pub(crate) fn get(&self, w: Width, n: u64) -> u64 {
        let at = n * w.bytes();
        if at + w.bytes() > self.bytes {
            return 0;
        }
        // SAFETY: `host` was a TLB hit of `bytes` bytes, inside RAM that the map keeps alive.
        unsafe { self.host.wrapping_add(at).read(w) }
    }
}

impl Core {
    /// The linear address of a run of `bytes` bytes that needs neither a fault nor a wrap, for
    /// bulk string operations. `None`: go one by one.
    fn plain_run(&self, seg: Seg, ea: u64, bytes: u64, write: bool) -> Option<Linear> {
        if seg.is_flat() {
            return Some(Linear(ea));
        }
        let s = &self.vcpu.segs[seg.index()];
        let plain = !self.alignment_checked()
            && (self.vcpu.code64()
                || segment_violation(s, ea, bytes, write, self.vcpu.protected()).is_none());
        let linear = ea.wrapping_add(s.base);
        let mask = if self.vcpu.code64() { u64::MAX } else { 0xffff_ffff };
        plain.then_some(Linear(linear & mask))
    }

    /// Copies `bytes` bytes inside RAM pages, upwards, as a string instruction would element by
    /// element. False if that is not possible in one go.
    pub(crate) fn copy_run(&self, from: (Seg, u64), to: (Seg, u64), bytes: u64) -> bool {
        let run = || {
            let source = self.plain_run(from.0, from.1, bytes, false)?;
            let target = self.plain_run(to.0, to.1, bytes, true)?;
            Some((self.host_read(source, bytes)?, self.host_write(target, bytes)?))
        };
        let Some((source, target)) = run() else { return false };
        // A target just above the source repeats the elements between them.
        if target.addr().wrapping_sub(source.addr()) < bytes {
            return false;
        }
        let (source, target) = (source.addr() as *const u8, target.addr() as *mut u8);
        // SAFETY: both runs are TLB hits of `bytes` bytes, inside RAM that the map keeps alive;
        // `copy` allows the target to overlap below the source.
        unsafe { target.copy_from(source, bytes as usize) };
        true
    }

    /// `bytes` bytes inside a RAM page, for reading. `None` if that is not possible in one go.
    pub(crate) fn run_to_read(&self, seg: Seg, ea: u64, bytes: u64) -> Option<RunToRead> {
        let at = self.plain_run(seg, ea, bytes, false)?;
        self.host_read(at, bytes).map(|host| RunToRead { host, bytes })
    }

    /// Stores `count` elements of value `v` inside a RAM page. False if that is not possible in
    /// one go.
    pub(crate) fn fill_run(&self, to: (Seg, u64), w: Width, count: u64, v: u64) -> bool {
        let bytes = count * w.bytes();
        let target = self.plain_run(to.0, to.1, bytes, true);
        let Some(host) = target.and_then(|t| self.host_write(t, bytes)) else { return false };
        let byte = v as u8;
        if v == u64::from_le_bytes([byte; 8]) & w.mask() {
            // SAFETY: as below.
            unsafe { (host.addr() as *mut u8).write_bytes(byte, bytes as usize) };
            return true;
        }
        for n in 0..count {
            // SAFETY: a TLB hit of all `bytes` bytes, inside RAM that the map keeps alive.
            unsafe { host.wrapping_add(n * w.bytes()).write(w, v) };
        }
        true
    }

    /// Reads 16 bytes at `ea`.
    #[inline(always)]
    pub(crate) fn load128(&mut self, seg: Seg, ea: u64) -> Result<u128, Exit> {
        let at = self.linear(seg, ea, 16, false)?;
        if let Some(host) = self.host_read(at, 16) {
            // SAFETY: as in `read_host`.
            return Ok(unsafe { host.read128() });
        }
        self.load_words(seg, at).map(join)
    }

    /// Writes 16 bytes at `ea`, all or nothing.
    #[inline(always)]
    pub(crate) fn store128(&mut self, seg: Seg, ea: u64, v: u128) -> Result<(), Exit> {
        let at = self.linear(seg, ea, 16, true)?;
        if let Some(host) = self.host_write(at, 16) {
            // SAFETY: as in `read_host`.
            unsafe { host.write128(v) };
            return Ok(());
        }
        self.store_words(seg, at, split(v))
    }

    /// Reads 32 bytes at `ea`.
    #[inline(always)]
    pub(crate) fn load256(&mut self, seg: Seg, ea: u64) -> Result<[u128; 2], Exit> {
        let at = self.linear(seg, ea, 32, false)?;
        if let Some(host) = self.host_read(at, 32) {
            // SAFETY: as in `read_host`.
            return Ok(unsafe { [host.read128(), host.wrapping_add(16).read128()] });
        }
        let [a, b, c, d] = self.load_words(seg, at)?;
        Ok([join([a, b]), join([c, d])])
    }

    /// Writes 32 bytes at `ea`, all or nothing.
    #[inline(always)]
    pub(crate) fn store256(&mut self, seg: Seg, ea: u64, v: [u128; 2]) -> Result<(), Exit> {
        let at = self.linear(seg, ea, 32, true)?;
        if let Some(host) = self.host_write(at, 32) {
            // SAFETY: as in `read_host`.
            unsafe {
                host.write128(v[0]);
                host.wrapping_add(16).write128(v[1]);
            }
            return Ok(());
        }
        let ([a, b], [c, d]) = (split(v[0]), split(v[1]));
        self.store_words(seg, at, [a, b, c, d])
    }

    /// Reads what the TLB does not serve, 8 bytes at a time.
    #[cold]
    fn load_words<const N: usize>(&mut self, seg: Seg, at: Linear) -> Result<[u64; N], Exit> {
        let bytes = 8 * N as u64;
        self.canonical(seg, at, bytes)?;
        self.check_read(at, bytes, By::Current)?;
        let mut words = [0; N];
        for (word, offset) in words.iter_mut().zip((0..).step_by(8)) {
            *word = self.read_linear(at.wrapping_add(offset), Width::W64, By::Current)?;
        }
        Ok(words)
    }

    /// As [`Core::load_words`], for writing: none if any of it faults.
    #[cold]
    fn store_words<const N: usize>(
        &mut self,
        seg: Seg,
        at: Linear,
        words: [u64; N],
    ) -> Result<(), Exit> {
        let bytes = 8 * N as u64;
        self.canonical(seg, at, bytes)?;
        self.check_write(at, bytes, By::Current)?;
        for (word, offset) in words.into_iter().zip((0..).step_by(8)) {
            self.write_linear(at.wrapping_add(offset), Width::W64, word, By::Current)?;
        }
        Ok(())
    }

    /// Atomically replaces 16 aligned bytes if they are `expected`; returns the old value.
    pub(crate) fn compare_exchange128(
        &mut self,
        seg: Seg,
        ea: u64,
        expected: u128,
        new: u128,
    ) -> Result<u128, Exit> {
        let at = self.linear(seg, ea, 16, true)?;
        self.canonical(seg, at, 16)?;
        self.check_write(at, 16, By::Current)?;
        if let Some(host) = self.host_write(at, 16) {
            // SAFETY: as in `read_host`; the instruction's own check has aligned the address.
            return Ok(unsafe { host.compare_exchange128(expected, new) });
        }
        let old = self.load128(seg, ea)?;
        self.store128(seg, ea, if old == expected { new } else { old })?;
        Ok(old)
    }
}

fn join([low, high]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

fn split(v: u128) -> [u64; 2] {
    [v as u64, (v >> 64) as u64]
}
