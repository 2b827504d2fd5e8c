//! DIV and IDIV. The flags, which the manual leaves undefined, stay.

use brolga_mmu::Width;

use super::operand::Size;
use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::exception::{Exception, vector};
use crate::flags::sign_extend;
use crate::insn::{Insn, bits};
use crate::vcpu::gpr;

const AH: u8 = 16;

fn divisor<W: Size>(core: &mut Core, i: &Insn) -> Result<u64, Exit> {
    let v = if i.has(bits::MEM0) {
        let ea = core.ea(i);
        core.load(W::W, i.seg, ea)?
    } else {
        core.reg(W::W, i.reg[0])
    };
    if v == 0 {
        return Err(core.raise(Exception::plain(vector::DE, "division by zero")));
    }
    Ok(v)
}

/// The double-width dividend, zero-extended.
fn dividend(core: &mut Core, w: Width) -> u128 {
    if w == Width::W8 {
        return u128::from(core.reg(Width::W16, gpr::RAX));
    }
    let (low, high) = (core.reg(w, gpr::RAX), core.reg(w, gpr::RDX));
    u128::from(high) << w.bits() | u128::from(low)
}

fn results(core: &mut Core, w: Width, quotient: u64, remainder: u64) {
    core.set_reg(w, gpr::RAX, quotient);
    core.set_reg(w, if w == Width::W8 { AH } else { gpr::RDX }, remainder);
}

/// DIV.
pub fn div<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let by = divisor::<W>(core, i)?;
    let n = dividend(core, W::W);
    let (quotient, remainder) = if let Ok(n) = u64::try_from(n) {
        (u128::from(n / by), n % by)
    } else {
        (n / u128::from(by), (n % u128::from(by)) as u64)
    };
    if quotient > u128::from(W::W.mask()) {
        return Err(core.raise(Exception::plain(vector::DE, "quotient does not fit")));
    }
    results(core, W::W, quotient as u64, remainder);
    Ok(())
}

/// IDIV.
pub fn idiv<W: Size>(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let w = W::W;
    let by = i128::from(sign_extend(w, divisor::<W>(core, i)?) as i64);
    let unused = 128 - 2 * w.bits();
    let n = (dividend(core, w) << unused) as i128 >> unused;
    // The most negative 128-bit dividend by -1 overflows even i128.
    let quotient = n.checked_div(by).filter(|q| {
        let top = 1i128 << (w.bits() - 1);
        (-top..top).contains(q)
    });
    let Some(quotient) = quotient else {
        return Err(core.raise(Exception::plain(vector::DE, "quotient does not fit")));
    };
    let remainder = n.wrapping_sub(quotient.wrapping_mul(by));
    results(core, w, quotient as u64 & w.mask(), remainder as u64 & w.mask());
    Ok(())
}
