//! The test registers of the i486 (i486 Microprocessor Programmer's Reference Manual, 1990, 10.2 and
//! 10.3): TR3 to TR5 are for its cache, TR6 and TR7 for its TLB. There is neither a cache to see
//! nor a TLB whose entries stay: registers keep what is written to them, and look-ups miss.

use brolga_mmu::Width;

use super::Done;
use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::exception::Exception;
use crate::insn::Insn;

/// TR6: the command is a look-up, not a write.
const LOOK_UP: u32 = 1;
/// TR7: the look-up has hit.
const HIT: u32 = 1 << 4;
const FIRST: u8 = 3;
/// TR6 and TR7, counted from TR3.
const COMMAND: usize = 3;
const DATA: usize = 4;

/// Checks an access; returns the register, counted from TR3.
fn check_access(core: &mut Core, n: u8) -> Result<usize, Exit> {
    core.require((FIRST..8).contains(&n), Exception::ud("no such test register"))?;
    core.require_cpl0()?;
    Ok(usize::from(n - FIRST))
}

/// MOV r32, TRn.
pub fn mov_from_tr(core: &mut Core, insn: &Insn) -> Done {
    let n = check_access(core, insn.reg[1])?;
    let v = core.vcpu.sys.test[n];
    core.set_reg(Width::W32, insn.reg[0], v.into());
    Ok(())
}

/// MOV TRn, r32.
pub fn mov_to_tr(core: &mut Core, insn: &Insn) -> Done {
    let n = check_access(core, insn.reg[0])?;
    let v = core.reg(Width::W32, insn.reg[1]) as u32;
    let test = &mut core.vcpu.sys.test;
    test[n] = v;
    if n == COMMAND && v & LOOK_UP != 0 {
        test[DATA] &= !HIT;
    }
    Ok(())
}
