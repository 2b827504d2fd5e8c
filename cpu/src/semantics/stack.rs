//! Stack instructions.

use brolga_mmu::Width;

use super::operand::{Access, Anywhere, Size, Src};
use crate::backend::{Backend, Bin};
use crate::core::{Core, Exit};
use crate::insn::Insn;
use crate::vcpu::gpr;

/// Pushes `v`; nothing changes if the store faults.
#[inline(always)]
pub fn push<B: Backend, A: Access>(b: &mut B, i: &Insn, w: Width, v: B::V) -> Result<(), B::E> {
    let sp = b.reg(i.stack, gpr::RSP);
    let size = b.imm(w.bytes());
    let sp = b.bin(Bin::Sub, i.stack, sp, size);
    A::store(b, w, i.stack_seg, sp, v)?;
    b.set_reg(i.stack, gpr::RSP, sp);
    Ok(())
}

/// The value on top of the stack, and the stack pointer above it (not yet written).
#[inline(always)]
pub fn top<B: Backend, A: Access>(b: &mut B, i: &Insn, w: Width) -> Result<(B::V, B::V), B::E> {
    let sp = b.reg(i.stack, gpr::RSP);
    let v = A::load(b, w, i.stack_seg, sp)?;
    let size = b.imm(w.bytes());
    let above = b.bin(Bin::Add, i.stack, sp, size);
    Ok((v, above))
}

/// PUSH r/m/imm.
#[inline(always)]
pub fn push_operand<B: Backend, A: Access, S: Src, W: Size>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let v = S::get(b, W::W, i)?;
    push::<B, A>(b, i, W::W, v)
}

/// POP r. POP rSP leaves the value popped.
#[inline(always)]
pub fn pop_register<B: Backend, A: Access, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (v, above) = top::<B, A>(b, i, W::W)?;
    b.set_reg(i.stack, gpr::RSP, above);
    b.set_reg(W::W, i.reg[0], v);
    Ok(())
}

/// POP m: an address based on rSP uses its value after the pop (SDM vol. 2, POP).
#[inline(always)]
pub fn pop_memory<B: Backend, W: Size>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let (v, above) = top::<B, Anywhere>(b, i, W::W)?;
    let mut ea = b.ea(i);
    if i.base == gpr::RSP {
        let (size, mask) = (b.imm(W::W.bytes()), b.imm(i.ea_mask));
        ea = b.bin(Bin::Add, Width::W64, ea, size);
        ea = b.bin(Bin::And, Width::W64, ea, mask);
    }
    b.store(W::W, i.seg, ea, v)?;
    b.set_reg(i.stack, gpr::RSP, above);
    Ok(())
}

/// PUSHA, PUSHAD: all or nothing.
pub fn pusha(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let (w, sp) = (i.opsize, core.reg(i.stack, gpr::RSP));
    let slot = |n: u64| sp.wrapping_sub((n + 1) * w.bytes()) & i.stack.mask();
    for n in 0..8 {
        core.modify(w, i.stack_seg, slot(n))?;
    }
    for n in 0..8 {
        // Of rSP too, all that the operand size takes, whatever the stack's size.
        let v = core.reg(w, n as u8);
        core.store(w, i.stack_seg, slot(n), v)?;
    }
    core.set_reg(i.stack, gpr::RSP, slot(7));
    Ok(())
}

/// POPA, POPAD: the stored rSP is skipped.
pub fn popa(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let (w, sp) = (i.opsize, core.reg(i.stack, gpr::RSP));
    let mut values = [0; 8];
    for (n, v) in values.iter_mut().enumerate() {
        let at = sp.wrapping_add(n as u64 * w.bytes()) & i.stack.mask();
        *v = core.load(w, i.stack_seg, at)?;
    }
    for (n, &v) in values.iter().enumerate() {
        let r = 7 - n as u8;
        if r != gpr::RSP {
            core.set_reg(w, r, v);
        }
    }
    core.set_reg(i.stack, gpr::RSP, sp.wrapping_add(8 * w.bytes()) & i.stack.mask());
    Ok(())
}

/// ENTER imm16, imm8 (SDM vol. 2, ENTER).
pub fn enter(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let (w, mask) = (i.opsize, i.stack.mask());
    let level = u64::from(i.aux & 31);
    let top = core.reg(Width::W64, gpr::RSP);
    let frame = top.wrapping_sub(w.bytes()) & mask;
    // What is kept of the frame pointer goes by operand size, where it lies by stack size.
    let pointer = (top & !mask | frame) & w.mask();
    let old = core.reg(w, gpr::RBP);
    // Everything is written below the stack pointer, so that a fault half-way is harmless: the
    // registers change last, and the instruction is executed again.
    core.store(w, i.stack_seg, frame, old)?;
    let mut sp = frame;
    if level > 0 {
        let mut bp = core.reg(i.stack, gpr::RBP);
        for _ in 1..level {
            bp = bp.wrapping_sub(w.bytes()) & mask;
            sp = sp.wrapping_sub(w.bytes()) & mask;
            let v = core.load(w, i.stack_seg, bp)?;
            core.store(w, i.stack_seg, sp, v)?;
        }
        sp = sp.wrapping_sub(w.bytes()) & mask;
        core.store(w, i.stack_seg, sp, pointer)?;
    }
    sp = sp.wrapping_sub(i.imm & 0xffff) & mask;
    // The new top of the stack must be writable too.
    core.modify(w, i.stack_seg, sp)?;
    core.set_reg(w, gpr::RBP, pointer);
    core.set_reg(i.stack, gpr::RSP, sp);
    Ok(())
}

/// LEAVE: rSP = rBP, pop rBP.
#[inline(always)]
pub fn leave<B: Backend, A: Access>(b: &mut B, i: &Insn) -> Result<(), B::E> {
    let bp = b.reg(i.stack, gpr::RBP);
    let v = A::load(b, i.opsize, i.stack_seg, bp)?;
    let size = b.imm(i.opsize.bytes());
    let sp = b.bin(Bin::Add, i.stack, bp, size);
    b.set_reg(i.stack, gpr::RSP, sp);
    b.set_reg(i.opsize, gpr::RBP, v);
    Ok(())
}
