//! The string comparisons of SSE4.2: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM
//! (SDM vol. 2, 4.1).

use brolga_mmu::Width;

use super::compare::set_flags;
use super::{File, Memory, Xmm, set, source};
use crate::insn::{Insn, bits};
use crate::vcpu::gpr;
use crate::vector::VectorBackend;

/// A length register, sign-extended.
#[inline(always)]
fn length<B: VectorBackend>(b: &mut B, i: &Insn, r: u8) -> B::V {
    let w = if i.has(bits::WIDE) { Width::W64 } else { Width::W32 };
    let v = b.reg(w, r);
    b.sext(w, Width::W64, v)
}

/// Compares two strings, whose lengths are in (R/E)AX and (R/E)DX if `EXPLICIT`. The result is a
/// mask in XMM0 if `MASK`, else an index in ECX.
pub fn compare<
    B: VectorBackend,
    R: File,
    const EXPLICIT: bool,
    const MASK: bool,
    const MEM: bool,
>(
    b: &mut B,
    i: &Insn,
) -> Result<(), B::E> {
    let s = source::<B, Xmm, MEM>(b, i, Memory::M16U)?;
    let d = b.xmm(i.reg[0]);
    let control = i.imm as u8;
    let lens = EXPLICIT.then(|| [gpr::RAX, gpr::RDX].map(|r| length(b, i, r)));
    let flags = if MASK {
        let (mask, flags) = b.string_mask(control, d, s, lens);
        set::<B, R>(b, 0, mask);
        flags
    } else {
        let (index, flags) = b.string_index(control, d, s, lens);
        b.set_reg(Width::W32, gpr::RCX, index);
        flags
    };
    set_flags(b, flags);
    Ok(())
}
