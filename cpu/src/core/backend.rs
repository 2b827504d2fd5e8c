//! The interpreter: the semantics instantiated with plain integers.

use std::cmp::Ordering;

use brolga_mmu::{AtomicOp, Linear, Width};

use super::memory::Place;
use super::{Core, Exit};
use crate::backend::{Backend, Bin, Cmp, Complex, Un};
use crate::exception::{Exception, Why, vector};
use crate::flags::{Cond, FlagOp, LazyFlags, Replaced, sign_extend};
use crate::host::extended;
use crate::insn::{Insn, bits};
use crate::semantics::divide::{signed, unsigned};
use crate::vcpu::{REG_SLOTS, SegReg, rflags};

/// The register slot that `Insn::reg` number `r` lies in, for byte registers.
#[inline(always)]
const fn byte_slot(r: u8) -> (usize, u32) {
    ((r & 15) as usize, (r >> 4 & 1) as u32 * 8)
}

impl Backend for Core {
    type V = u64;
    type C = bool;
    type L = Place;
    type E = Exit;

    #[inline(always)]
    fn imm(&mut self, v: u64) -> u64 {
        v
    }

    #[inline(always)]
    fn reg(&mut self, w: Width, r: u8) -> u64 {
        if w == Width::W8 {
            let (slot, shift) = byte_slot(r);
            return self.vcpu.regs[slot] >> shift & 0xff;
        }
        self.vcpu.regs[r as usize & (REG_SLOTS - 1)] & w.mask()
    }

    #[inline(always)]
    fn set_reg(&mut self, w: Width, r: u8, v: u64) {
        match w {
            Width::W8 => {
                let (slot, shift) = byte_slot(r);
                let reg = &mut self.vcpu.regs[slot];
                *reg = *reg & !(0xff << shift) | (v & 0xff) << shift;
            }
            Width::W16 => {
                let reg = &mut self.vcpu.regs[r as usize & (REG_SLOTS - 1)];
                *reg = *reg & !0xffff | v & 0xffff;
            }
            Width::W32 | Width::W64 => {
                self.vcpu.regs[r as usize & (REG_SLOTS - 1)] = v & w.mask();
            }
        }
    }

    #[inline(always)]
    fn bin(&mut self, op: Bin, w: Width, a: u64, b: u64) -> u64 {
        let n = w.bits();
        let v = match op {
            Bin::Add => a.wrapping_add(b),
            Bin::Sub => a.wrapping_sub(b),
            Bin::And => a & b,
            Bin::Or => a | b,
            Bin::Xor => a ^ b,
            Bin::Mul => a.wrapping_mul(b),
            Bin::Shl => a << (b & 63),
            Bin::Shr => a >> (b & 63),
            Bin::Sar => (sign_extend(w, a) as i64 >> (b & 63)) as u64,
            Bin::Deposit => extended::deposit(a, b),
            Bin::Extract => extended::extract(a, b),
            Bin::Rol => return rotate_left(w, a, b as u32 % n),
            Bin::Ror => return rotate_left(w, a, (n - b as u32 % n) % n),
        };
        v & w.mask()
    }

    #[inline(always)]
    fn un(&mut self, op: Un, w: Width, a: u64) -> u64 {
        match op {
            Un::Not => !a & w.mask(),
            Un::Neg => a.wrapping_neg() & w.mask(),
            Un::Bswap => a.swap_bytes() >> (64 - w.bits()),
            Un::Popcnt => u64::from(a.count_ones()),
            Un::Ctz => u64::from(a.trailing_zeros().min(w.bits())),
            Un::Clz => u64::from(a.leading_zeros() - (64 - w.bits())),
        }
    }

    #[inline(always)]
    fn mul_high(&mut self, signed: bool, w: Width, a: u64, b: u64) -> u64 {
        let product = if signed {
            let (a, b) = (sign_extend(w, a) as i64, sign_extend(w, b) as i64);
            (i128::from(a) * i128::from(b)) as u128
        } else {
            u128::from(a) * u128::from(b)
        };
        (product >> w.bits()) as u64 & w.mask()
    }

    #[inline(always)]
    fn divide(
        &mut self,
        is_signed: bool,
        w: Width,
        high: u64,
        low: u64,
        by: u64,
    ) -> Result<(u64, u64), Exit> {
        if by == 0 {
            return Err(self.divide_error("division by zero"));
        }
        let found = if is_signed { signed(w, high, low, by) } else { unsigned(w, high, low, by) };
        found.ok_or_else(|| self.divide_error("quotient does not fit"))
    }

    #[inline(always)]
    fn sext(&mut self, from: Width, to: Width, v: u64) -> u64 {
        sign_extend(from, v) & to.mask()
    }

    #[inline(always)]
    fn trunc(&mut self, w: Width, v: u64) -> u64 {
        v & w.mask()
    }

    #[inline(always)]
    fn cmp(&mut self, op: Cmp, w: Width, a: u64, b: u64) -> bool {
        match op {
            Cmp::Eq => a == b,
            Cmp::Ne => a != b,
            Cmp::UnsignedLt => a < b,
            Cmp::SignedLt => {
                (sign_extend(w, a) as i64).cmp(&(sign_extend(w, b) as i64)) == Ordering::Less
            }
        }
    }

    #[inline(always)]
    fn select(&mut self, c: bool, a: u64, b: u64) -> u64 {
        if c { a } else { b }
    }

    #[inline(always)]
    fn cond_value(&mut self, c: bool) -> u64 {
        u64::from(c)
    }

    #[inline(always)]
    fn flags(&mut self, op: FlagOp, w: Width, r: u64, a: u64, b: u64) {
        self.vcpu.flags = LazyFlags { r, a, b, op, w, replaced: Replaced::NONE };
    }

    #[inline(always)]
    fn flags_if(&mut self, c: bool, op: FlagOp, w: Width, r: u64, a: u64, b: u64) {
        if c {
            self.flags(op, w, r, a, b);
        }
    }

    #[inline(always)]
    fn replace_flags(&mut self, mask: u64, new: u64) {
        self.vcpu.flags.replace(mask, new);
    }

    #[inline(always)]
    fn replace_flags_if(&mut self, c: bool, mask: u64, new: u64) {
        if c {
            self.replace_flags(mask, new);
        }
    }

    #[inline(always)]
    fn cond(&mut self, cc: Cond) -> bool {
        self.vcpu.flags.cond(cc)
    }

    #[inline(always)]
    fn status(&mut self) -> u64 {
        self.vcpu.flags.status()
    }

    #[inline(always)]
    fn load(&mut self, w: Width, seg: crate::vcpu::Seg, ea: u64) -> Result<u64, Exit> {
        let at = self.linear(seg, ea, w.bytes(), false)?;
        match self.host_read(at, w.bytes()) {
            Some(host) => Ok(Core::read_host(host, w)),
            None => {
                self.load_slow(w, seg, at)?;
                Ok(self.slow_value)
            }
        }
    }

    #[inline(always)]
    fn store(&mut self, w: Width, seg: crate::vcpu::Seg, ea: u64, v: u64) -> Result<(), Exit> {
        let at = self.linear(seg, ea, w.bytes(), true)?;
        match self.host_write(at, w.bytes()) {
            Some(host) => {
                Core::write_host(host, w, v);
                Ok(())
            }
            None => self.store_slow(w, seg, at, v),
        }
    }

    #[inline(always)]
    fn modify(&mut self, w: Width, seg: crate::vcpu::Seg, ea: u64) -> Result<(Place, u64), Exit> {
        let place = self.locate(w, seg, ea)?;
        let v = self.read_place(place, w)?;
        Ok((place, v))
    }

    #[inline(always)]
    fn commit(&mut self, at: Place, w: Width, v: u64) {
        self.write_place(at, w, v);
    }

    const QUICK: bool = true;

    #[inline(always)]
    fn quick_load(&mut self, w: Width, _: crate::vcpu::Seg, ea: u64) -> Result<u64, Exit> {
        let host = self.host_read(Linear(ea), w.bytes()).ok_or(Exit::Slow)?;
        Ok(Core::read_host(host, w))
    }

    #[inline(always)]
    fn quick_store(&mut self, w: Width, _: crate::vcpu::Seg, ea: u64, v: u64) -> Result<(), Exit> {
        let host = self.host_write(Linear(ea), w.bytes()).ok_or(Exit::Slow)?;
        Core::write_host(host, w, v);
        Ok(())
    }

    #[inline(always)]
    fn quick_modify(
        &mut self,
        w: Width,
        _: crate::vcpu::Seg,
        ea: u64,
    ) -> Result<(Place, u64), Exit> {
        let host = self.host_write(Linear(ea), w.bytes()).ok_or(Exit::Slow)?;
        Ok((Place { linear: Linear(ea), host }, Core::read_host(host, w)))
    }

    #[inline(always)]
    fn quick_commit(&mut self, at: Place, w: Width, v: u64) {
        Core::write_host(at.host, w, v);
    }

    #[inline(always)]
    fn arrive(&mut self, insn: &Insn) {
        self.progress.arrive(insn);
    }

    #[inline(always)]
    fn leaving(&self) -> bool {
        self.progress.leave
    }

    fn atomic(
        &mut self,
        op: AtomicOp,
        w: Width,
        seg: crate::vcpu::Seg,
        ea: u64,
        v: u64,
    ) -> Result<u64, Exit> {
        let place = self.locate(w, seg, ea)?;
        self.atomic_place(place, op, w, v)
    }

    fn compare_exchange(
        &mut self,
        w: Width,
        seg: crate::vcpu::Seg,
        ea: u64,
        expected: u64,
        new: u64,
    ) -> Result<u64, Exit> {
        let place = self.locate(w, seg, ea)?;
        self.compare_exchange_place(place, w, expected, new)
    }

    #[inline(always)]
    fn string_step(&mut self, element: Width) -> u64 {
        let up = element.bytes();
        if self.vcpu.eflags & rflags::DF == 0 { up } else { up.wrapping_neg() }
    }

    #[inline(always)]
    fn check_target(&mut self, insn: &Insn, target: u64) -> Result<(), Exit> {
        if insn.has(bits::CODE64) {
            if self.is_canonical(target) { Ok(()) } else { Err(self.bad_target(target)) }
        } else if insn.has(bits::CS_FLAT) || target <= u64::from(self.vcpu.seg(SegReg::Cs).limit) {
            Ok(())
        } else {
            Err(self.bad_target(target))
        }
    }

    #[inline(always)]
    fn jump(&mut self, _: &Insn, target: u64) {
        self.set_rip(target);
    }

    #[inline(always)]
    fn branch_if(&mut self, insn: &Insn, c: bool) -> Result<(), Exit> {
        let target = if c {
            let target = self.direct_target(insn);
            self.check_target(insn, target)?;
            target
        } else {
            self.next_ip(insn)
        };
        self.set_rip(target);
        Ok(())
    }

    fn complex(&mut self, insn: &Insn, f: Complex) -> Result<(), Exit> {
        self.progress.at = insn.at;
        f(self, insn)
    }
}

impl Core {
    #[cold]
    fn divide_error(&mut self, why: &'static str) -> Exit {
        self.raise(Exception::plain(vector::DE, why))
    }

    #[cold]
    fn bad_target(&mut self, target: u64) -> Exit {
        let why = Why::Value("branch target outside the code segment or not canonical", target);
        self.raise(Exception { why, ..Exception::code(vector::GP, 0, "") })
    }

    /// The offset in CS of the current instruction. Known to complex instructions and to event
    /// delivery, where blocks need not track it.
    pub fn rip(&self) -> u64 {
        let ip =
            self.vcpu.regs[crate::vcpu::RIP as usize].wrapping_add(u64::from(self.progress.at));
        if self.vcpu.code64() { ip } else { ip & 0xffff_ffff }
    }

    /// The linear address of the instruction at offset `ip` of CS.
    #[inline(always)]
    pub fn code_address(&self, ip: u64) -> Linear {
        let base = self.vcpu.seg(SegReg::Cs).base;
        if self.mode.has(super::Mode::CODE64) {
            Linear(ip)
        } else {
            Linear(ip.wrapping_add(base) & 0xffff_ffff)
        }
    }
}

/// Rotates the low bits of `w` left by `n`, below the width.
#[inline(always)]
fn rotate_left(w: Width, a: u64, n: u32) -> u64 {
    match w {
        Width::W8 => u64::from((a as u8).rotate_left(n)),
        Width::W16 => u64::from((a as u16).rotate_left(n)),
        Width::W32 => u64::from((a as u32).rotate_left(n)),
        Width::W64 => a.rotate_left(n),
    }
}
