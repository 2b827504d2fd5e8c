//! String instructions with their REP prefixes. One iteration counts as one retired instruction,
//! so that a repetition can be interrupted, single-stepped and resumed at any iteration.

use brolga_mmu::{PAGE_SIZE, Width};

use super::operand::Size;
use crate::backend::{Backend, Bin};
use crate::core::{Core, Exit};
use crate::flags::{Cond, FlagOp};
use crate::insn::{Insn, bits};
use crate::vcpu::{Seg, SegReg, gpr, rflags};

/// ES, which the destination always goes through. In 64-bit code it is as flat as the stack's
/// segment: unless alignment is checked.
pub(crate) fn es(i: &Insn) -> Seg {
    let flat = i.has(bits::CODE64) && i.stack_seg.is_flat();
    if flat { Seg::flat(SegReg::Es) } else { Seg::checked(SegReg::Es) }
}

/// Offset of an index register, at the address size.
fn offset<B: Backend>(b: &mut B, i: &Insn, r: u8) -> B::V {
    b.reg(i.addrsize, r)
}

/// Moves an index register by one element in the direction of DF.
pub(crate) fn step<B: Backend>(b: &mut B, i: &Insn, w: Width, r: u8) {
    let (at, by) = (offset(b, i, r), b.string_step(w));
    let next = b.bin(Bin::Add, i.addrsize, at, by);
    b.set_reg(i.addrsize, r, next);
}

/// Whether a repetition ends after this iteration.
pub(crate) type Ends = bool;

/// Runs `one` as often as rCX and the slice allow. `bulk` may do up to the given
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
    core.vcpu.repeating = false;
    let mut count = core.reg(i.addrsize, gpr::RCX);
    let mut budget = core.iterations_left();
    while count != 0 {
        let (steps, ends) = match bulk(core, i, count.min(budget)) {
            0 => (1, one(core, i)?),
            steps => (steps, false),
        };
        count -= steps;
        budget -= steps;
        core.set_reg(i.addrsize, gpr::RCX, count);
        if ends || count == 0 {
            // The run loop counts the instruction itself: the last iteration.
            core.progress.retired += steps - 1;
            break;
        }
        core.progress.retired += steps;
        if budget == 0 || core.must_leave() {
            core.vcpu.repeating = true;
            return Err(Exit::Again);
        }
    }
    Ok(())
}

/// As [`repeat`], for instructions that have no bulk form.
pub(crate) fn repeat_singly(
    core: &mut Core,
    i: &Insn,
    one: impl FnMut(&mut Core, &Insn) -> Result<Ends, Exit>,
) -> Result<(), Exit> {
    repeat(core, i, |_, _, _| 0, one)
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
pub fn movs<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (si, di) = (offset(b, i, gpr::RSI), offset(b, i, gpr::RDI));
    let v = b.load(W::W, i.seg, si)?;
    b.store(W::W, es(i), di, v)?;
    step(b, i, W::W, gpr::RSI);
    step(b, i, W::W, gpr::RDI);
    Ok(())
}

/// STOS.
pub fn stos<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (v, di) = (b.reg(W::W, gpr::RAX), offset(b, i, gpr::RDI));
    b.store(W::W, es(i), di, v)?;
    step(b, i, W::W, gpr::RDI);
    Ok(())
}

/// LODS.
pub fn lods<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let si = offset(b, i, gpr::RSI);
    let v = b.load(W::W, i.seg, si)?;
    b.set_reg(W::W, gpr::RAX, v);
    step(b, i, W::W, gpr::RSI);
    Ok(())
}

/// CMPS.
pub fn cmps<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (si, di) = (offset(b, i, gpr::RSI), offset(b, i, gpr::RDI));
    let left = b.load(W::W, i.seg, si)?;
    let right = b.load(W::W, es(i), di)?;
    compare(b, W::W, left, right);
    step(b, i, W::W, gpr::RSI);
    step(b, i, W::W, gpr::RDI);
    Ok(())
}

/// SCAS.
pub fn scas<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (left, di) = (b.reg(W::W, gpr::RAX), offset(b, i, gpr::RDI));
    let right = b.load(W::W, es(i), di)?;
    compare(b, W::W, left, right);
    step(b, i, W::W, gpr::RDI);
    Ok(())
}

fn compare<B: Backend>(b: &mut B, w: Width, left: B::V, right: B::V) {
    let r = b.bin(Bin::Sub, w, left, right);
    b.flags(FlagOp::Sub, w, r, left, right);
}

/// REP MOVS.
pub fn rep_movs<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    repeat(core, i, copy_bulk::<W>, |core, i| movs::<Core, W>(core, i).map(|()| false))
}

/// REP STOS.
pub fn rep_stos<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    repeat(core, i, fill_bulk::<W>, |core, i| stos::<Core, W>(core, i).map(|()| false))
}

/// REP LODS.
pub fn rep_lods<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    repeat_singly(core, i, |core, i| lods::<Core, W>(core, i).map(|()| false))
}

/// REPE CMPS and REPNE CMPS.
pub fn rep_cmps<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    repeat(core, i, compare_bulk::<W>, |core, i| {
        cmps::<Core, W>(core, i)?;
        Ok(last_compared_ends(core, i))
    })
}

/// REPE SCAS and REPNE SCAS.
pub fn rep_scas<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    repeat(core, i, scan_bulk::<W>, |core, i| {
        scas::<Core, W>(core, i)?;
        Ok(last_compared_ends(core, i))
    })
}

/// Whether REPE (F3) or REPNE (F2) ends after a comparison.
fn ends(i: &Insn, equal: bool) -> Ends {
    if i.has(bits::REPNE) { equal } else { !equal }
}

fn last_compared_ends(core: &mut Core, i: &Insn) -> Ends {
    ends(i, core.cond(Cond::E))
}

/// Compares elements of a run inside RAM pages up to the first that ends the repetition, without
/// that one: the flags are those of the last one before it.
fn compare_bulk<W: Size>(core: &mut Core, i: &Insn, most: u64) -> u64 {
    let (si, di) = (offset(core, i, gpr::RSI), offset(core, i, gpr::RDI));
    let n = in_page(core, i, i.seg, si, W::W, most);
    let n = in_page(core, i, es(i), di, W::W, n);
    let bytes = n * W::W.bytes();
    if n < 2 || core.vcpu.eflags & rflags::DF != 0 {
        return 0;
    }
    let Some(left) = core.run_to_read(i.seg, si, bytes) else { return 0 };
    let Some(right) = core.run_to_read(es(i), di, bytes) else { return 0 };
    let run = (0..n).take_while(|n| !ends(i, left.get(W::W, *n) == right.get(W::W, *n)));
    let n = run.count() as u64;
    if n > 0 {
        compare(core, W::W, left.get(W::W, n - 1), right.get(W::W, n - 1));
        advance(core, i, W::W, gpr::RSI, n);
        advance(core, i, W::W, gpr::RDI, n);
    }
    n
}

/// As [`compare_bulk`], against rAX.
fn scan_bulk<W: Size>(core: &mut Core, i: &Insn, most: u64) -> u64 {
    let (v, di) = (core.reg(W::W, gpr::RAX), offset(core, i, gpr::RDI));
    let n = in_page(core, i, es(i), di, W::W, most);
    if n < 2 || core.vcpu.eflags & rflags::DF != 0 {
        return 0;
    }
    let Some(run) = core.run_to_read(es(i), di, n * W::W.bytes()) else { return 0 };
    let n = (0..n).take_while(|n| !ends(i, v == run.get(W::W, *n))).count() as u64;
    if n > 0 {
        compare(core, W::W, v, run.get(W::W, n - 1));
        advance(core, i, W::W, gpr::RDI, n);
    }
    n
}
