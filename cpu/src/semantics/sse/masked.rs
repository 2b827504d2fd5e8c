//! MASKMOVQ and MASKMOVDQU.

use brolga_mmu::Width;

use super::{File, begin, end, get};
use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::insn::Insn;
use crate::vcpu::gpr;
use crate::vector::{Lane, VectorBackend};

/// Stores the bytes of operand 1 whose bytes in operand 2 have the top bit set, to DS:rDI. Bytes
/// that are not stored are not checked either: with an empty mask nothing can fault.
pub fn store<R: File>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    begin::<Core, R>(core)?;
    let value = get::<Core, R>(core, i.reg[1]);
    let mask = get::<Core, R>(core, i.reg[2]);
    let mask = core.movemask(Lane::B, mask);
    let at = core.reg(i.addrsize, gpr::RDI);
    let place = |n: u8| at.wrapping_add(n.into()) & i.addrsize.mask();
    let selected = || (0..16_u8).filter(|n| mask >> n & 1 != 0);
    for n in selected() {
        core.check_area(i.seg, place(n), 1, true)?;
    }
    for n in selected() {
        core.store(Width::W8, i.seg, place(n), (value >> (8 * n)) as u64 & 0xff)?;
    }
    end::<Core, R>(core);
    Ok(())
}
