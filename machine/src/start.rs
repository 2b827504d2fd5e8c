//! The vCPU's state at the start of a run: after RESET, after INIT, or as a boot protocol wants it.

use brolga_cpu::core::Core;
use brolga_cpu::vcpu::{RIP, SegReg, Segment, TableReg, Vcpu, attr, cr0, cr4, efer};

use crate::loader::{BootState, EntryMode};

/// Sets up a vCPU after RESET for what was loaded.
pub(crate) fn enter(core: &mut Core, state: &BootState) {
    if state.mode != EntryMode::Real {
        enter_protected(&mut core.vcpu, state);
    }
    core.mode_changed();
}

/// INIT: as RESET, but the floating-point state, the caches' mode and most MSRs are kept
/// (SDM vol. 3, table 10-1).
pub(crate) fn init(core: &mut Core) {
    const CACHE_MODE: u64 = cr0::CD | cr0::NW;
    let old = core.vcpu.clone();
    core.reset();
    let vcpu = &mut core.vcpu;
    vcpu.xmm = old.xmm;
    vcpu.ymm_high = old.ymm_high;
    vcpu.mxcsr = old.mxcsr;
    vcpu.x87 = old.x87;
    vcpu.ferr = old.ferr;
    vcpu.sys.xcr0 = old.sys.xcr0;
    vcpu.sys.cr0 = vcpu.sys.cr0 & !CACHE_MODE | old.sys.cr0 & CACHE_MODE;
    vcpu.sys.pat = old.sys.pat;
    vcpu.sys.mcg_ctl = old.sys.mcg_ctl;
    vcpu.sys.mc_ctl = old.sys.mc_ctl;
    vcpu.sys.tsc_offset = old.sys.tsc_offset;
    vcpu.sys.mtrr_def_type = old.sys.mtrr_def_type;
    vcpu.sys.mtrr_fixed = old.sys.mtrr_fixed;
    vcpu.sys.mtrr_var = old.sys.mtrr_var;
    core.mode_changed();
}

fn enter_protected(vcpu: &mut Vcpu, state: &BootState) {
    const FLAT: u32 = attr::P | attr::S | attr::RW | attr::ACCESSED | attr::G;
    const BUSY_TSS: u32 = attr::P | 11;
    let long = state.mode == EntryMode::Long64;
    let code_size = if long { attr::L } else { attr::DB };
    let flat = |selector, attr| Segment { selector, attr, limit: u32::MAX, base: 0 };
    vcpu.segs = [flat(BootState::DATA, FLAT | attr::DB); 6];
    vcpu.segs[SegReg::Cs as usize] = flat(BootState::CODE, FLAT | attr::CODE | code_size);
    vcpu.tr = Segment { selector: BootState::TASK, attr: BUSY_TSS, limit: 0x67, base: 0 };
    vcpu.gdtr = TableReg { base: state.gdt.0, limit: state.gdt_limit };
    vcpu.regs[RIP as usize] = state.entry;
    for &(register, value) in &state.registers {
        vcpu.regs[register as usize] = value;
    }
    vcpu.sys.cr0 = cr0::PE | cr0::ET;
    if long {
        vcpu.sys.cr0 |= cr0::PG;
        vcpu.sys.cr3 = state.cr3;
        vcpu.sys.cr4 = cr4::PAE;
        vcpu.sys.efer = efer::LME | efer::LMA;
    }
}
