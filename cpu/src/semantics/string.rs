//! String instructions with their REP prefixes. One iteration counts as one retired instruction,
//! so that a repetition can be interrupted, single-stepped and resumed at any iteration.

use brolga_mmu::Width;

use super::operand::Size;
use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::flags::FlagOp;
use crate::insn::{Insn, bits};
use crate::vcpu::{Seg, SegReg, gpr, rflags};

/// ES, which the destination always goes through.
fn es(i: &Insn) -> Seg {
    if i.has(bits::CODE64) { Seg::flat(SegReg::Es) } else { Seg::checked(SegReg::Es) }
}

/// Offset of an index register, at the address size.
fn offset(core: &mut Core, i: &Insn, r: u8) -> u64 {
    core.reg(i.addrsize, r)
}

/// Moves an index register by one element in the direction of DF.
fn step(core: &mut Core, i: &Insn, w: Width, r: u8) {
    let at = core.reg(i.addrsize, r);
    let by = if core.vcpu.eflags & rflags::DF == 0 { w.bytes() } else { w.bytes().wrapping_neg() };
    core.set_reg(i.addrsize, r, at.wrapping_add(by) & i.addrsize.mask());
}

/// Whether a repetition ends after this iteration.
type Ends = bool;

/// Runs `one` once, or under REP as often as rCX and the slice allow.
fn repeat(
    core: &mut Core,
    i: &Insn,
    mut one: impl FnMut(&mut Core, &Insn) -> Result<Ends, Exit>,
) -> Result<(), Exit> {
    if !i.has(bits::REP | bits::REPNE) {
        return one(core, i).map(drop);
    }
    let mut count = core.reg(i.addrsize, gpr::RCX);
    let mut left = core.iterations_left();
    let mut done = 0;
    loop {
        if count == 0 {
            core.retire_iterations(done);
            return Ok(());
        }
        match one(core, i) {
            Ok(ends) => {
                done += 1;
                count = count.wrapping_sub(1);
                core.set_reg(i.addrsize, gpr::RCX, count);
                if ends || count == 0 {
                    core.retire_iterations(done);
                    return Ok(());
                }
            }
            Err(exit) => {
                core.retire_partial(done);
                return Err(exit);
            }
        }
        left -= 1;
        if left == 0 || core.must_leave() {
            core.retire_partial(done);
            return Err(Exit::Again);
        }
    }
}

/// MOVS.
pub fn movs<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let to = es(i);
    repeat(core, i, |core, i| {
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
    repeat(core, i, |core, i| {
        let (v, di) = (core.reg(W::W, gpr::RAX), offset(core, i, gpr::RDI));
        core.store(W::W, to, di, v)?;
        step(core, i, W::W, gpr::RDI);
        Ok(false)
    })
}

/// LODS.
pub fn lods<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    repeat(core, i, |core, i| {
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
    repeat(core, i, |core, i| {
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
    repeat(core, i, |core, i| {
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
