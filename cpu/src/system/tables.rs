//! Descriptor-table registers, LDTR, TR and the machine status word (SDM vol. 3, 2.4 and 2.8.1).

use brolga_mmu::Width;

use super::descriptor::{BUSY, check_base, extend, fetch, kind, null_segment, set_busy};
use super::{Done, control, gp_on, is_null, on_selector};
use crate::backend::Backend;
use crate::core::Core;
use crate::exception::{Exception, vector};
use crate::insn::Insn;
use crate::vcpu::{TableReg, cr0, cr4};

/// User-mode instruction prevention: SGDT, SIDT, SLDT, SMSW, STR (SDM vol. 3, 2.5).
fn check_umip(core: &mut Core) -> Done {
    let ok = core.vcpu.sys.cr4 & cr4::UMIP == 0 || core.vcpu.cpl == 0;
    core.require(ok, Exception::gp("prevented in user mode by CR4.UMIP"))
}

fn store_table(core: &mut Core, insn: &Insn, table: TableReg) -> Done {
    check_umip(core)?;
    let w = core.native_width();
    let ea = core.ea(insn);
    // Both words are checked before either is written.
    let (limit_at, _) = core.modify(Width::W16, insn.seg, ea)?;
    let (base_at, _) = core.modify(w, insn.seg, ea.wrapping_add(2) & insn.ea_mask)?;
    core.commit(limit_at, Width::W16, table.limit.into());
    core.commit(base_at, w, table.base & w.mask());
    Ok(())
}

fn load_table(core: &mut Core, insn: &Insn) -> Result<TableReg, crate::core::Exit> {
    core.require_cpl0()?;
    let w = core.native_width();
    let ea = core.ea(insn);
    let limit = core.load(Width::W16, insn.seg, ea)? as u16;
    let base = core.load(w, insn.seg, ea.wrapping_add(2) & insn.ea_mask)?;
    // The 16-bit form loads 24 bits of the base.
    let base = match (w, insn.opsize) {
        (Width::W32, Width::W16) => base & 0xff_ffff,
        _ => base,
    };
    core.require(
        core.is_canonical_base(base),
        Exception::gp("descriptor table base is not canonical"),
    )?;
    Ok(TableReg { base, limit })
}

/// SGDT.
pub fn sgdt(core: &mut Core, insn: &Insn) -> Done {
    let table = core.vcpu.gdtr;
    store_table(core, insn, table)
}
/// SIDT.
pub fn sidt(core: &mut Core, insn: &Insn) -> Done {
    let table = core.vcpu.idtr;
    store_table(core, insn, table)
}
/// LGDT.
pub fn lgdt(core: &mut Core, insn: &Insn) -> Done {
    core.vcpu.gdtr = load_table(core, insn)?;
    Ok(())
}
/// LIDT.
pub fn lidt(core: &mut Core, insn: &Insn) -> Done {
    core.vcpu.idtr = load_table(core, insn)?;
    Ok(())
}

/// SLDT.
pub fn sldt(core: &mut Core, insn: &Insn) -> Done {
    core.require_protected()?;
    check_umip(core)?;
    let selector = core.vcpu.ldtr.selector;
    core.set_rm16(insn, selector.into())
}
/// STR.
pub fn str(core: &mut Core, insn: &Insn) -> Done {
    core.require_protected()?;
    check_umip(core)?;
    let selector = core.vcpu.tr.selector;
    core.set_rm16(insn, selector.into())
}
/// SMSW. A register destination takes CR0 at the operand size.
pub fn smsw(core: &mut Core, insn: &Insn) -> Done {
    check_umip(core)?;
    let cr0 = core.vcpu.sys.cr0;
    core.set_rm16(insn, cr0)
}

/// LMSW: PE, MP, EM and TS; PE cannot be cleared.
pub fn lmsw(core: &mut Core, insn: &Insn) -> Done {
    const LOADED: u64 = cr0::MP | cr0::EM | cr0::TS;
    core.require_cpl0()?;
    let word = u64::from(core.rm16(insn, 0)?);
    let old = core.vcpu.sys.cr0;
    control::set_cr0(core, old & !LOADED | word & (LOADED | cr0::PE))?;
    core.control_written(0, core.vcpu.sys.cr0);
    Ok(())
}

/// LLDT.
pub fn lldt(core: &mut Core, insn: &Insn) -> Done {
    core.require_protected()?;
    core.require_cpl0()?;
    let selector = core.rm16(insn, 0)?;
    if is_null(selector) {
        core.vcpu.ldtr = null_segment(selector, 0);
        return Ok(());
    }
    core.require(selector & 4 == 0, gp_on(selector, "LDT selector names the LDT"))?;
    let mut d = fetch(core, selector, vector::GP)?;
    let is_ldt = d.system() && d.kind() == kind::LDT;
    core.require(is_ldt, gp_on(selector, "not an LDT descriptor"))?;
    core.require(d.present(), on_selector(vector::NP, selector, "LDT not present"))?;
    extend(core, &mut d, vector::GP)?;
    check_base(core, &d, vector::GP)?;
    core.vcpu.ldtr = d.segment(selector);
    Ok(())
}

/// LTR.
pub fn ltr(core: &mut Core, insn: &Insn) -> Done {
    core.require_protected()?;
    core.require_cpl0()?;
    let selector = core.rm16(insn, 0)?;
    core.require(!is_null(selector), Exception::gp("null selector for TR"))?;
    core.require(selector & 4 == 0, gp_on(selector, "TSS selector names the LDT"))?;
    let mut d = fetch(core, selector, vector::GP)?;
    let available = match d.kind() {
        kind::TSS32 => true,
        kind::TSS16 => !core.vcpu.long_mode(),
        _ => false,
    };
    let ok = d.system() && available;
    core.require(ok, gp_on(selector, "not an available TSS"))?;
    core.require(d.present(), on_selector(vector::NP, selector, "TSS not present"))?;
    extend(core, &mut d, vector::GP)?;
    check_base(core, &d, vector::GP)?;
    set_busy(core, &d, true)?;
    let mut tr = d.segment(selector);
    tr.attr |= BUSY;
    core.vcpu.tr = tr;
    Ok(())
}
