//! RCL and RCR: rotates through the carry flag, one bit at a time as the manual defines them.

use brolga_mmu::Width;

use super::operand::Size;
use super::shift::Count;
use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::insn::{Insn, bits};
use crate::vcpu::rflags;

/// RCL (`LEFT`) or RCR.
pub fn rotate_through<const LEFT: bool, C: Count, W: Size>(
    core: &mut Core,
    i: &Insn,
) -> Result<(), Exit> {
    let w = W::W;
    let mask = if w == Width::W64 { 63 } else { 31 };
    let masked = C::get(core, i) & mask;
    let count = masked as u32 % (w.bits() + 1);
    if !i.has(bits::MEM0) {
        let a = core.reg(w, i.reg[0]);
        let r = apply::<LEFT>(core, w, a, count, masked != 0);
        core.set_reg(w, i.reg[0], r);
        return Ok(());
    }
    let ea = core.ea(i);
    let (place, a) = core.modify(w, i.seg, ea)?;
    let r = apply::<LEFT>(core, w, a, count, masked != 0);
    core.commit(place, w, r);
    Ok(())
}

fn apply<const LEFT: bool>(core: &mut Core, w: Width, a: u64, count: u32, flags: bool) -> u64 {
    let top = w.bits() - 1;
    let (mut r, mut carry) = (a, u64::from(core.vcpu.flags.cf()));
    for _ in 0..count {
        if LEFT {
            let out = r >> top & 1;
            r = (r << 1 | carry) & w.mask();
            carry = out;
        } else {
            let out = r & 1;
            r = r >> 1 | carry << top;
            carry = out;
        }
    }
    if flags {
        let msb = r >> top & 1;
        let of = if LEFT { msb ^ carry } else { msb ^ r >> (top - 1) & 1 };
        let kept = core.status() & !(rflags::CF | rflags::OF);
        core.vcpu.flags = crate::flags::LazyFlags::from_rflags(kept | carry | of << 11);
    }
    r
}
