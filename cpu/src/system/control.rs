//! Control registers, and what follows from writing them (SDM vol. 3, 2.5, 4.10.4 and 9.8).

use brolga_mmu::{Linear, Width, load_pdptes};

use super::Done;
use super::descriptor::kind;
use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::cpuid::Feature;
use crate::exception::{Exception, Why};
use crate::insn::Insn;
use crate::vcpu::{SegReg, attr, cr0, cr4, efer};

/// MOV to CR3 with PCIDs: keep what the TLB holds for the new PCID.
const CR3_NO_FLUSH: u64 = 1 << 63;
const PCID_MASK: u64 = 0xfff;

/// Loads the PDPTE registers for PAE paging with `cr3`. A reserved bit set is #GP(0).
fn pdptes(core: &mut Core, cr3: u64) -> Result<[u64; 4], Exit> {
    let bits = core.model.phys_bits();
    let loaded = load_pdptes(&*core.mem.map, cr3, bits);
    loaded.map_err(|bad| {
        let why = Why::Value("reserved bits set in a PDPTE", bad.entry);
        core.raise(Exception { why, ..Exception::gp("") })
    })
}

/// Whether paging will be PAE paging, whose top level lives in registers.
fn is_pae(cr0: u64, cr4: u64, efer: u64) -> bool {
    cr0 & cr0::PG != 0 && cr4 & cr4::PAE != 0 && efer & efer::LME == 0
}

/// Writes CR0 with all checks (SDM vol. 2, MOV to control registers).
pub(super) fn set_cr0(core: &mut Core, v: u64) -> Done {
    use cr0::{AM, CD, EM, ET, MP, NE, NW, PE, PG, TS, WP};
    const WRITABLE: u64 = PE | MP | EM | TS | NE | WP | AM | NW | CD | PG;
    core.require(v >> 32 == 0, Exception::gp("upper half of CR0 is not 0"))?;
    core.require(v & PG == 0 || v & PE != 0, Exception::gp("CR0.PG without CR0.PE"))?;
    core.require(v & NW == 0 || v & CD != 0, Exception::gp("CR0.NW without CR0.CD"))?;
    let new = v & WRITABLE | ET;
    let old = core.vcpu.sys.cr0;
    let (cr4, mut efer) = (core.vcpu.sys.cr4, core.vcpu.sys.efer);
    let rising = new & !old & PG != 0;
    let falling = old & !new & PG != 0;
    if rising && efer & efer::LME != 0 {
        let cs64 = core.vcpu.seg(SegReg::Cs).has(attr::L);
        let tss16 = matches!(core.vcpu.tr.kind(), kind::TSS16 | kind::TSS16_BUSY);
        let ok = cr4 & cr4::PAE != 0;
        core.require(ok, Exception::gp("entering IA-32e mode without CR4.PAE"))?;
        core.require(!cs64, Exception::gp("entering IA-32e mode with CS.L set"))?;
        core.require(!tss16, Exception::gp("entering IA-32e mode with a 16-bit TSS"))?;
        efer |= efer::LMA;
    }
    if falling {
        let ok = !core.vcpu.code64();
        core.require(ok, Exception::gp("clearing CR0.PG in 64-bit mode"))?;
        let ok = cr4 & cr4::PCIDE == 0;
        core.require(ok, Exception::gp("clearing CR0.PG with CR4.PCIDE set"))?;
        efer &= !efer::LMA;
    }
    if is_pae(new, cr4, efer) && (old ^ new) & (PG | CD | NW) != 0 {
        core.vcpu.sys.pdptes = pdptes(core, core.vcpu.sys.cr3)?;
    }
    core.vcpu.sys.cr0 = new;
    core.vcpu.sys.efer = efer;
    // A change of PG or WP changes the paging mode: `mode_changed` flushes the TLB.
    core.mode_changed();
    core.leave_block(false);
    Ok(())
}

/// Writes CR3 with all checks.
fn set_cr3(core: &mut Core, v: u64) -> Done {
    let cr4 = core.vcpu.sys.cr4;
    let pcide = cr4 & cr4::PCIDE != 0;
    let no_flush = pcide && v & CR3_NO_FLUSH != 0;
    let v = if pcide { v & !CR3_NO_FLUSH } else { v };
    let ok = v >> core.model.phys_bits() == 0;
    core.require(ok, Exception::gp("CR3 beyond the physical address width"))?;
    if is_pae(core.vcpu.sys.cr0, cr4, core.vcpu.sys.efer) {
        core.vcpu.sys.pdptes = pdptes(core, v)?;
    }
    core.vcpu.sys.cr3 = v;
    if pcide {
        let pcid = (v & PCID_MASK) as u16;
        core.mem.tlb.switch(pcid);
        if !no_flush {
            core.mem.tlb.flush_context(pcid);
        }
    } else {
        core.mem.tlb.flush_non_global();
    }
    core.leave_block(false);
    Ok(())
}

/// The load of CR3 in a task switch: no effect if it stays the same.
pub(super) fn switch_cr3(core: &mut Core, v: u64) -> Done {
    if v == core.vcpu.sys.cr3 { Ok(()) } else { set_cr3(core, v) }
}

/// The CR4 bits that this model has.
fn cr4_supported(core: &Core) -> u64 {
    use Feature as F;
    const BITS: [(Feature, u64); 19] = [
        (F::Vme, cr4::VME | cr4::PVI),
        (F::Tsc, cr4::TSD),
        (F::De, cr4::DE),
        (F::Pse, cr4::PSE),
        (F::Pae, cr4::PAE),
        (F::Mce, cr4::MCE),
        (F::Pge, cr4::PGE),
        (F::Mmx, cr4::PCE),
        (F::Fxsr, cr4::OSFXSR),
        (F::Sse, cr4::OSXMMEXCPT),
        (F::Umip, cr4::UMIP),
        (F::Fsgsbase, cr4::FSGSBASE),
        (F::Pcid, cr4::PCIDE),
        (F::Xsave, cr4::OSXSAVE),
        (F::Smep, cr4::SMEP),
        (F::Smap, cr4::SMAP),
        (F::Pse36, cr4::PSE),
        (F::La57, cr4::LA57),
        (F::Pku, cr4::PKE),
    ];
    BITS.iter().filter(|(f, _)| core.model.has(*f)).fold(0, |bits, (_, b)| bits | b)
}

/// Writes CR4 with all checks.
fn set_cr4(core: &mut Core, v: u64) -> Done {
    const PAGING: u64 =
        cr4::PSE | cr4::PAE | cr4::PGE | cr4::LA57 | cr4::PCIDE | cr4::SMEP | cr4::SMAP;
    let reserved = v & !cr4_supported(core);
    let why = Why::Value("reserved bits set in CR4", reserved);
    core.require(reserved == 0, Exception { why, ..Exception::gp("") })?;
    let (old, cr0, efer) = (core.vcpu.sys.cr4, core.vcpu.sys.cr0, core.vcpu.sys.efer);
    let long = core.vcpu.long_mode();
    let ok = !long || v & cr4::PAE != 0;
    core.require(ok, Exception::gp("clearing CR4.PAE in IA-32e mode"))?;
    let ok = !long || (old ^ v) & cr4::LA57 == 0;
    core.require(ok, Exception::gp("changing CR4.LA57 in IA-32e mode"))?;
    if v & !old & cr4::PCIDE != 0 {
        let ok = long && core.vcpu.sys.cr3 & PCID_MASK == 0;
        core.require(ok, Exception::gp("setting CR4.PCIDE outside IA-32e mode or with CR3[11:0]"))?;
    }
    if is_pae(cr0, v, efer) && (old ^ v) & (cr4::PAE | cr4::PGE | cr4::PSE | cr4::SMEP) != 0 {
        core.vcpu.sys.pdptes = pdptes(core, core.vcpu.sys.cr3)?;
    }
    core.vcpu.sys.cr4 = v;
    if (old ^ v) & PAGING != 0 {
        core.mem.tlb.flush_all();
        if v & cr4::PCIDE == 0 {
            core.mem.tlb.switch(0);
        }
    }
    core.mode_changed();
    core.leave_block(false);
    Ok(())
}

/// MOV CRn, r.
pub fn mov_to_cr(core: &mut Core, insn: &Insn) -> Done {
    core.require_cpl0()?;
    let w = core.native_width();
    let (n, v) = (insn.reg[0], core.reg(w, insn.reg[1]));
    set_cr(core, n, v)?;
    core.control_written(n, v);
    Ok(())
}

/// Writes a control register with all checks.
fn set_cr(core: &mut Core, n: u8, v: u64) -> Done {
    match n {
        0 => set_cr0(core, v),
        2 => {
            core.vcpu.sys.cr2 = v;
            Ok(())
        }
        3 => set_cr3(core, v),
        4 if cr4_supported(core) == 0 => Err(core.raise(no_such_register())),
        4 => set_cr4(core, v),
        8 => {
            core.require(v <= 15, Exception::gp("reserved bits set in CR8"))?;
            let now = core.now();
            core.bus.set_cr8(now, v);
            if core.bus.take_replan() {
                core.leave_block(true);
            }
            Ok(())
        }
        _ => Err(core.raise(no_such_register())),
    }
}

fn no_such_register() -> Exception {
    Exception::ud("no such control register")
}

/// MOV r, CRn.
pub fn mov_from_cr(core: &mut Core, insn: &Insn) -> Done {
    core.require_cpl0()?;
    // A processor without any extension that CR4 controls has none.
    let has_cr4 = cr4_supported(core) != 0;
    let sys = &core.vcpu.sys;
    let v = match insn.reg[1] {
        0 => sys.cr0,
        2 => sys.cr2,
        3 => sys.cr3,
        4 if has_cr4 => sys.cr4,
        8 => core.bus.cr8(),
        _ => return Err(core.raise(no_such_register())),
    };
    let w = core.native_width();
    core.set_reg(w, insn.reg[0], v & w.mask());
    Ok(())
}

/// CLTS.
pub fn clts(core: &mut Core, _: &Insn) -> Done {
    core.require_cpl0()?;
    core.vcpu.sys.cr0 &= !cr0::TS;
    core.mode_changed();
    core.leave_block(false);
    core.control_written(0, core.vcpu.sys.cr0);
    Ok(())
}

/// INVLPG. An address that is not canonical invalidates nothing.
pub fn invlpg(core: &mut Core, insn: &Insn) -> Done {
    core.require_cpl0()?;
    let ea = core.ea(insn);
    let at = if insn.seg.is_flat() {
        ea
    } else {
        core.vcpu.segs[insn.seg.index()].base.wrapping_add(ea)
    };
    let at = at & core.native_width().mask();
    if core.is_canonical_base(at) {
        core.mem.tlb.flush_page(Linear(at));
    }
    core.leave_block(false);
    Ok(())
}

/// INVPCID.
pub fn invpcid(core: &mut Core, insn: &Insn) -> Done {
    core.require_cpl0()?;
    let w = core.native_width();
    let kind = core.reg(w, insn.reg[0]);
    let ea = core.ea(insn);
    let pcid = core.load(Width::W64, insn.seg, ea)?;
    let address = core.load(Width::W64, insn.seg, ea.wrapping_add(8) & insn.ea_mask)?;
    core.require(kind <= 3, Exception::gp("INVPCID of an undefined type"))?;
    let ok = pcid & !PCID_MASK == 0;
    core.require(ok, Exception::gp("reserved bits set in the INVPCID descriptor"))?;
    let enabled = core.vcpu.sys.cr4 & cr4::PCIDE != 0;
    let ok = kind > 1 || enabled || pcid == 0;
    core.require(ok, Exception::gp("INVPCID of a PCID with CR4.PCIDE clear"))?;
    let ok = kind != 0 || core.is_canonical_base(address);
    core.require(ok, Exception::gp("INVPCID of an address that is not canonical"))?;
    let tlb = &mut core.mem.tlb;
    match kind {
        0 => tlb.flush_context_page(pcid as u16, Linear(address)),
        1 => tlb.flush_context(pcid as u16),
        2 => tlb.flush_all(),
        _ => tlb.flush_all_non_global(),
    }
    core.leave_block(false);
    Ok(())
}

/// XGETBV.
pub fn xgetbv(core: &mut Core, _: &Insn) -> Done {
    require_osxsave(core)?;
    let ok = core.reg(Width::W32, crate::vcpu::gpr::RCX) == 0;
    core.require(ok, Exception::gp("XGETBV of an undefined register"))?;
    core.set_pair(core.vcpu.sys.xcr0);
    Ok(())
}

/// XSETBV. Of the state components, x87 must and SSE may be enabled.
pub fn xsetbv(core: &mut Core, _: &Insn) -> Done {
    require_osxsave(core)?;
    core.require_cpl0()?;
    let index = core.reg(Width::W32, crate::vcpu::gpr::RCX);
    let v = core.pair();
    core.require(index == 0, Exception::gp("XSETBV of an undefined register"))?;
    let ok = v & 1 != 0 && v & !3 == 0;
    core.require(ok, Exception::gp("XCR0 without x87 or with reserved bits"))?;
    core.vcpu.sys.xcr0 = v;
    Ok(())
}

fn require_osxsave(core: &mut Core) -> Done {
    let ok = core.vcpu.sys.cr4 & cr4::OSXSAVE != 0;
    core.require(ok, Exception::ud("CR4.OSXSAVE is clear"))
}

/// RDPKRU.
pub fn rdpkru(core: &mut Core, _: &Insn) -> Done {
    require_pke(core)?;
    core.set_pair(core.vcpu.sys.pkru.into());
    Ok(())
}

/// WRPKRU.
pub fn wrpkru(core: &mut Core, _: &Insn) -> Done {
    require_pke(core)?;
    let v = core.pair();
    core.require(v >> 32 == 0, Exception::gp("WRPKRU with EDX set"))?;
    core.set_pkru(v as u32);
    core.leave_block(false);
    Ok(())
}

fn require_pke(core: &mut Core) -> Done {
    let ok = core.vcpu.sys.cr4 & cr4::PKE != 0;
    core.require(ok, Exception::ud("CR4.PKE is clear"))?;
    let ok = core.reg(Width::W32, crate::vcpu::gpr::RCX) == 0;
    core.require(ok, Exception::gp("RDPKRU or WRPKRU with ECX set"))
}
