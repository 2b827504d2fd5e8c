//! Decimal adjustments. Flags the manual leaves undefined follow what processors do where that is
//! known (AAM, AAD: from the result; AAA, AAS, DAA, DAS: OF clear).

use brolga_mmu::Width;

use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::exception::{Exception, vector};
use crate::flags::LazyFlags;
use crate::insn::Insn;
use crate::vcpu::{gpr, rflags};

fn set_status(core: &mut Core, result: u8, carry: bool, adjust: bool) {
    let parity = result.count_ones() & 1 == 0;
    let bits = [
        (carry, rflags::CF),
        (adjust, rflags::AF),
        (result == 0, rflags::ZF),
        (result & 0x80 != 0, rflags::SF),
        (parity, rflags::PF),
    ];
    let status = bits.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum();
    core.vcpu.flags = LazyFlags::from_rflags(status);
}

/// DAA, and DAS if `SUBTRACT`.
pub fn adjust_packed<const SUBTRACT: bool>(core: &mut Core, _: &Insn) -> Result<(), Exit> {
    let old = core.reg(Width::W8, gpr::RAX) as u8;
    let (cf, af) = (core.vcpu.flags.cf(), core.vcpu.flags.af());
    let (mut al, mut carry) = (old, false);
    let low = old & 15 > 9 || af;
    if low {
        carry = cf || if SUBTRACT { old < 6 } else { old > 0xff - 6 };
        al = if SUBTRACT { al.wrapping_sub(6) } else { al.wrapping_add(6) };
    }
    if old > 0x99 || cf {
        al = if SUBTRACT { al.wrapping_sub(0x60) } else { al.wrapping_add(0x60) };
        carry = true;
    }
    core.set_reg(Width::W8, gpr::RAX, al.into());
    set_status(core, al, carry, low);
    Ok(())
}

/// AAA, and AAS if `SUBTRACT`.
pub fn adjust_unpacked<const SUBTRACT: bool>(core: &mut Core, _: &Insn) -> Result<(), Exit> {
    let mut ax = core.reg(Width::W16, gpr::RAX) as u16;
    let adjust = ax & 15 > 9 || core.vcpu.flags.af();
    if adjust {
        ax = if SUBTRACT { ax.wrapping_sub(0x106) } else { ax.wrapping_add(0x106) };
    }
    ax &= 0xff0f;
    core.set_reg(Width::W16, gpr::RAX, ax.into());
    set_status(core, ax as u8, adjust, adjust);
    Ok(())
}

/// AAM imm8.
pub fn aam(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let base = i.imm as u8;
    if base == 0 {
        return Err(core.raise(Exception::plain(vector::DE, "AAM with base 0")));
    }
    let al = core.reg(Width::W8, gpr::RAX) as u8;
    let r = u64::from(al / base) << 8 | u64::from(al % base);
    core.set_reg(Width::W16, gpr::RAX, r);
    set_status(core, r as u8, false, false);
    Ok(())
}

/// AAD imm8.
pub fn aad(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let ax = core.reg(Width::W16, gpr::RAX);
    let al = (ax as u8).wrapping_add(((ax >> 8) as u8).wrapping_mul(i.imm as u8));
    core.set_reg(Width::W16, gpr::RAX, al.into());
    set_status(core, al, false, false);
    Ok(())
}
