//! String instructions with their REP prefixes. One iteration counts as one retired instruction,
//! so that a repetition can be interrupted, single-stepped and resumed at any iteration.

use brolga_mmu::{PAGE_SIZE, Width};

use super::operand::Size;
use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::flags::FlagOp;
use crate::insn::{Insn, bits};
use crate::vcpu::{Seg, SegReg, gpr, rflags};

/// ES, which the destination always goes through.
pub(crate) fn es(i: &Insn) -> Seg {
    if i.has(bits::CODE64) { Seg::flat(SegReg::Es) } else { Seg::checked(SegReg::Es) }
}

/// Offset of an index register, at the address size.
fn offset(core: &mut Core, i: &Insn, r: u8) -> u64 {
    core.reg(i.addrsize, r)
}

/// Moves an index register by one element in the direction of DF.
pub(crate) fn step(core: &mut Core, i: &Insn, w: Width, r: u8) {
    let at = core.reg(i.addrsize, r);
    let by = if core.vcpu.eflags & rflags::DF == 0 { w.bytes() } else { w.bytes().wrapping_neg() };
    core.set_reg(i.addrsize, r, at.wrapping_add(by) & i.addrsize.mask());
}

/// Whether a repetition ends after this iteration.
type Ends = bool;

/// Runs `one` once, or under REP as often as rCX and the slice allow. `bulk` may do up to the given
/// number of iterations in one go and returns how many it has done.
fn repeat(
    core: &mut Core,
    i: &Insn,
    mut bulk: impl FnMut(&mut Core, &Insn, u64) -> u64,
    mut one: impl FnMut(&mut Core, &Insn) -> Result<Ends, Exit>,
) -> Result<(), Exit> {
    if !i.has(bits::REP | bits::REPNE) {
        return one(core, i).map(drop);
    }
    let mut count = core.reg(i.addrsize, gpr::RCX);
    let budget = core.iterations_left();
    let mut done = 0;
    // Iterations that are not counted yet: an access to a device finds the time of its own.
    let mut last = 0;
    while count != 0 {
        core.retire_partial(last);
        if done >= budget || done > 0 && core.must_leave() {
            return Err(Exit::Again);
        }
        let mut ends = false;
        last = bulk(core, i, count.min(budget - done));
        if last == 0 {
            ends = one(core, i)?;
            last = 1;
        }
        done += last;
        count -= last;
        core.set_reg(i.addrsize, gpr::RCX, count);
        if ends {
            break;
        }
    }
    core.retire_iterations(last);
    Ok(())
}

/// No bulk form.
fn singly(_: &mut Core, _: &Insn, _: u64) -> u64 {
    0
}

/// How many of `most` elements upwards from offset `at` lie in its page, below the wrap of the
/// address size. Pages are those of offsets: the caller checks the linear ones.
fn in_page(core: &Core, i: &Insn, seg: Seg, at: u64, w: Width, most: u64) -> u64 {
    let linear = at.wrapping_add(core.seg_base(seg));
    let to_page_end = PAGE_SIZE - (linear & (PAGE_SIZE - 1));
    let to_wrap = (i.addrsize.mask() - at).saturating_add(1);
    most.min(to_page_end.min(to_wrap) / w.bytes())
}

/// Moves an index register up by `n` elements.
fn advance(core: &mut Core, i: &Insn, w: Width, r: u8, n: u64) {
    let at = core.reg(i.addrsize, r);
    core.set_reg(i.addrsize, r, at.wrapping_add(n * w.bytes()) & i.addrsize.mask());
}

fn copy_bulk<W: Size>(core: &mut Core, i: &Insn, most: u64) -> u64 {
    let (si, di) = (offset(core, i, gpr::RSI), offset(core, i, gpr::RDI));
    let n = in_page(core, i, i.seg, si, W::W, most);
    let n = in_page(core, i, es(i), di, W::W, n);
    let bytes = n * W::W.bytes();
    if n < 2
        || core.vcpu.eflags & rflags::DF != 0
        || !core.copy_run((i.seg, si), (es(i), di), bytes)
    {
        return 0;
    }
    advance(core, i, W::W, gpr::RSI, n);
    advance(core, i, W::W, gpr::RDI, n);
    n
}

fn fill_bulk<W: Size>(core: &mut Core, i: &Insn, most: u64) -> u64 {
    let di = offset(core, i, gpr::RDI);
    let n = in_page(core, i, es(i), di, W::W, most);
    let v = core.reg(W::W, gpr::RAX);
    if n < 2 || core.vcpu.eflags & rflags::DF != 0 || !core.fill_run((es(i), di), W::W, n, v) {
        return 0;
    }
    advance(core, i, W::W, gpr::RDI, n);
    n
}

/// MOVS.
pub fn movs<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let to = es(i);
    repeat(core, i, copy_bulk::<W>, |core, i| {
        let (si, di) = (offset(core, i, gpr::RSI), offset(core, i, gpr::RDI));
        let v = core.load(W::W, i.seg, si)?;
        core.store(W::W, to, di, v)?;
        step(core, i, W::W, gpr::RSI);
        step(core, i, W::W, gpr::RDI);
        Ok(false)
    })
}

/// STOS.
pub fn stos<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let to = es(i);
    repeat(core, i, fill_bulk::<W>, |core, i| {
        let (v, di) = (core.reg(W::W, gpr::RAX), offset(core, i, gpr::RDI));
        core.store(W::W, to, di, v)?;
        step(core, i, W::W, gpr::RDI);
        Ok(false)
    })
}

/// LODS.
pub fn lods<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    repeat(core, i, singly, |core, i| {
        let si = offset(core, i, gpr::RSI);
        let v = core.load(W::W, i.seg, si)?;
        core.set_reg(W::W, gpr::RAX, v);
        step(core, i, W::W, gpr::RSI);
        Ok(false)
    })
}

/// Whether REPE (F3) or REPNE (F2) ends after a comparison.
fn mismatch(i: &Insn, equal: bool) -> Ends {
    if i.has(bits::REPNE) { equal } else { !equal }
}

/// CMPS.
pub fn cmps<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let other = es(i);
    repeat(core, i, singly, |core, i| {
        let (si, di) = (offset(core, i, gpr::RSI), offset(core, i, gpr::RDI));
        let a = core.load(W::W, i.seg, si)?;
        let b = core.load(W::W, other, di)?;
        compare(core, W::W, a, b);
        step(core, i, W::W, gpr::RSI);
        step(core, i, W::W, gpr::RDI);
        Ok(mismatch(i, a == b))
    })
}

/// SCAS.
pub fn scas<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let other = es(i);
    repeat(core, i, singly, |core, i| {
        let (a, di) = (core.reg(W::W, gpr::RAX), offset(core, i, gpr::RDI));
        let b = core.load(W::W, other, di)?;
        compare(core, W::W, a, b);
        step(core, i, W::W, gpr::RDI);
        Ok(mismatch(i, a == b))
    })
}

fn compare(core: &mut Core, w: Width, a: u64, b: u64) {
    let r = a.wrapping_sub(b) & w.mask();
    core.flags(FlagOp::Sub, w, r, a, b);
}
