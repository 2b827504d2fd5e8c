//! RDMSR and WRMSR (SDM vol. 4). What is not in the table here goes to the bus, which knows the
//! local APIC's registers; what is unknown there too is #GP(0).

use brolga_mmu::Width;

use super::Done;
use crate::backend::Backend;
use crate::core::Core;
use crate::cpuid::{CpuModel, Feature};
use crate::exception::{Exception, Why};
use crate::insn::Insn;
use crate::vcpu::{MC_BANKS, SegReg, cr0, efer, gpr};

/// Register numbers (SDM vol. 4, table 2-2).
mod index {
    pub(super) const P5_MC_ADDR: u32 = 0;
    pub(super) const P5_MC_TYPE: u32 = 1;
    pub(super) const TSC: u32 = 0x10;
    pub(super) const PLATFORM_ID: u32 = 0x17;
    pub(super) const APIC_BASE: u32 = 0x1b;
    pub(super) const EBL_CR_POWERON: u32 = 0x2a;
    pub(super) const FEATURE_CONTROL: u32 = 0x3a;
    pub(super) const TSC_ADJUST: u32 = 0x3b;
    pub(super) const SPEC_CTRL: u32 = 0x48;
    pub(super) const PRED_CMD: u32 = 0x49;
    pub(super) const BIOS_UPDATE: u32 = 0x79;
    pub(super) const BIOS_SIGN_ID: u32 = 0x8b;
    pub(super) const MTRRCAP: u32 = 0xfe;
    pub(super) const ARCH_CAPABILITIES: u32 = 0x10a;
    pub(super) const SYSENTER_CS: u32 = 0x174;
    pub(super) const SYSENTER_ESP: u32 = 0x175;
    pub(super) const SYSENTER_EIP: u32 = 0x176;
    pub(super) const MCG_CAP: u32 = 0x179;
    pub(super) const MCG_STATUS: u32 = 0x17a;
    pub(super) const MCG_CTL: u32 = 0x17b;
    pub(super) const MISC_ENABLE: u32 = 0x1a0;
    pub(super) const DEBUGCTL: u32 = 0x1d9;
    pub(super) const MTRR_PHYSBASE0: u32 = 0x200;
    pub(super) const MTRR_PHYSMASK7: u32 = 0x20f;
    pub(super) const MTRR_FIX64K: u32 = 0x250;
    pub(super) const MTRR_FIX16K_80000: u32 = 0x258;
    pub(super) const MTRR_FIX16K_A0000: u32 = 0x259;
    pub(super) const MTRR_FIX4K_C0000: u32 = 0x268;
    pub(super) const MTRR_FIX4K_F8000: u32 = 0x26f;
    pub(super) const PAT: u32 = 0x277;
    pub(super) const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub(super) const MC0_CTL: u32 = 0x400;
    pub(super) const TSC_DEADLINE: u32 = 0x6e0;
    pub(super) const X2APIC_FIRST: u32 = 0x800;
    pub(super) const X2APIC_LAST: u32 = 0x8ff;
    pub(super) const XSS: u32 = 0xda0;
    pub(super) const EFER: u32 = 0xc000_0080;
    pub(super) const STAR: u32 = 0xc000_0081;
    pub(super) const LSTAR: u32 = 0xc000_0082;
    pub(super) const CSTAR: u32 = 0xc000_0083;
    pub(super) const SFMASK: u32 = 0xc000_0084;
    pub(super) const FS_BASE: u32 = 0xc000_0100;
    pub(super) const GS_BASE: u32 = 0xc000_0101;
    pub(super) const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub(super) const TSC_AUX: u32 = 0xc000_0103;
}
use index::*;

/// Eight variable ranges, fixed ranges, write-combining.
const MTRR_CAPABILITIES: u64 = 8 | 1 << 8 | 1 << 10;
/// IA32_APIC_BASE: x2APIC mode.
const APIC_BASE_X2APIC: u64 = 1 << 10;
/// IA32_FEATURE_CONTROL: locked, VMX off.
const FEATURE_CONTROL_LOCKED: u64 = 1;
/// IA32_MISC_ENABLE bits that can be changed: fast strings, thermal control, limit CPUID, execute
/// disable. Nothing here depends on them.
const MISC_ENABLE_WRITABLE: u64 = 1 | 1 << 3 | 1 << 22 | 1 << 34;
/// IA32_SPEC_CTRL: IBRS, STIBP, SSBD.
const SPEC_CTRL_WRITABLE: u64 = 7;
/// The processor is subject to none of the speculative-execution vulnerabilities that have a bit
/// here: it does not speculate. RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO,
/// IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO,
/// ITS_NO (SDM vol. 4, IA32_ARCH_CAPABILITIES).
const NOT_VULNERABLE: u64 = 1
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 7 << 13
    | 1 << 20
    | 1 << 24
    | 1 << 26
    | 1 << 27
    | 1 << 62;

/// IA32_MCG_CAP: the banks, and that IA32_MCG_CTL exists.
const MCG_CAPABILITIES: u64 = MC_BANKS as u64 | 1 << 8;

/// A register of a machine-check bank (SDM vol. 3, 16.3.2).
enum Bank {
    /// IA32_MCi_CTL of a bank.
    Control(usize),
    /// IA32_MCi_STATUS, ADDR or MISC: zero as long as no error is reported.
    Report,
}

fn bank(msr: u32) -> Option<Bank> {
    let offset = msr.checked_sub(MC0_CTL).filter(|offset| *offset < 4 * MC_BANKS as u32)?;
    Some(if offset % 4 == 0 { Bank::Control(offset as usize / 4) } else { Bank::Report })
}

/// Where a fixed-range MTRR is kept.
fn fixed_range(msr: u32) -> Option<usize> {
    match msr {
        MTRR_FIX64K => Some(0),
        MTRR_FIX16K_80000 => Some(1),
        MTRR_FIX16K_A0000 => Some(2),
        MTRR_FIX4K_C0000..=MTRR_FIX4K_F8000 => Some((msr - MTRR_FIX4K_C0000) as usize + 3),
        _ => None,
    }
}

/// Whether the model has the register (SDM vol. 4, tables 2-2, 2-20 and 2-22 for the first ones).
fn exists(model: &CpuModel, msr: u32) -> bool {
    let intel = !model.is_amd();
    let feature = match msr {
        P5_MC_ADDR | P5_MC_TYPE => Feature::Mce,
        PLATFORM_ID | EBL_CR_POWERON | BIOS_UPDATE => return intel && model.family() >= 6,
        APIC_BASE | BIOS_SIGN_ID | DEBUGCTL => return model.family() >= 6,
        MISC_ENABLE => return intel && model.has(Feature::Sse2),
        FEATURE_CONTROL => return intel && model.has(Feature::Sse3),
        TSC => Feature::Tsc,
        TSC_ADJUST => Feature::TscAdjust,
        TSC_DEADLINE => Feature::TscDeadline,
        SPEC_CTRL | PRED_CMD => Feature::SpecCtrl,
        ARCH_CAPABILITIES => Feature::ArchCapabilities,
        SYSENTER_CS | SYSENTER_ESP | SYSENTER_EIP => Feature::Sep,
        MCG_CAP | MCG_STATUS | MCG_CTL => Feature::Mca,
        _ if bank(msr).is_some() => Feature::Mca,
        MTRRCAP
        | MTRR_DEF_TYPE
        | MTRR_PHYSBASE0..=MTRR_PHYSMASK7
        | MTRR_FIX64K
        | MTRR_FIX16K_80000
        | MTRR_FIX16K_A0000
        | MTRR_FIX4K_C0000..=MTRR_FIX4K_F8000 => Feature::Mtrr,
        PAT => Feature::Pat,
        X2APIC_FIRST..=X2APIC_LAST => Feature::X2apic,
        XSS => Feature::Xsaves,
        EFER => return efer_supported(model) != 0,
        STAR | SFMASK => Feature::Syscall,
        LSTAR | CSTAR | FS_BASE | GS_BASE | KERNEL_GS_BASE => Feature::Lm,
        TSC_AUX => return model.has(Feature::Rdtscp) || model.has(Feature::Rdpid),
        _ => return true,
    };
    model.has(feature)
}

/// The value of a register, as RDMSR reads it; `None` if it is unknown.
pub fn read(core: &mut Core, msr: u32) -> Option<u64> {
    if !exists(&core.model, msr) {
        return None;
    }
    let v = &core.vcpu;
    let sys = &v.sys;
    Some(match msr {
        P5_MC_ADDR | P5_MC_TYPE | PLATFORM_ID | EBL_CR_POWERON | BIOS_SIGN_ID | DEBUGCTL | XSS => 0,
        MCG_CAP => MCG_CAPABILITIES,
        MCG_CTL => sys.mcg_ctl,
        TSC => core.tsc(),
        FEATURE_CONTROL => FEATURE_CONTROL_LOCKED,
        TSC_ADJUST => sys.tsc_adjust,
        SPEC_CTRL => sys.spec_ctrl,
        MTRRCAP => MTRR_CAPABILITIES,
        ARCH_CAPABILITIES => NOT_VULNERABLE,
        SYSENTER_CS => sys.sysenter_cs,
        SYSENTER_ESP => sys.sysenter_esp,
        SYSENTER_EIP => sys.sysenter_eip,
        MCG_STATUS => sys.mcg_status,
        MISC_ENABLE => sys.misc_enable,
        MTRR_PHYSBASE0..=MTRR_PHYSMASK7 => {
            let (base, mask) = sys.mtrr_var[((msr - MTRR_PHYSBASE0) / 2) as usize];
            if msr & 1 == 0 { base } else { mask }
        }
        PAT => sys.pat,
        MTRR_DEF_TYPE => sys.mtrr_def_type,
        EFER => sys.efer,
        STAR => sys.star,
        LSTAR => sys.lstar,
        CSTAR => sys.cstar,
        SFMASK => sys.sfmask,
        FS_BASE => v.seg(SegReg::Fs).base,
        GS_BASE => v.seg(SegReg::Gs).base,
        KERNEL_GS_BASE => sys.kernel_gs_base,
        TSC_AUX => sys.tsc_aux,
        _ => {
            return match (fixed_range(msr), bank(msr)) {
                (Some(n), _) => sys.mtrr_fixed.get(n).copied(),
                (_, Some(Bank::Control(n))) => sys.mc_ctl.get(n).copied(),
                (_, Some(Bank::Report)) => Some(0),
                _ => {
                    let now = core.now();
                    core.bus.msr_read(now, msr)
                }
            };
        }
    })
}

/// Whether `v` is a memory type that an MTRR may name (SDM vol. 3, 11.11.2.1).
fn is_memory_type(v: u64) -> bool {
    matches!(v, 0 | 1 | 4 | 5 | 6)
}

/// Whether all eight bytes of `v` satisfy `valid`.
fn all_bytes(v: u64, valid: impl Fn(u64) -> bool) -> bool {
    v.to_le_bytes().into_iter().all(|b| valid(b.into()))
}

/// Writes a register, as WRMSR does; `None` if it is unknown or does not take the value.
pub fn write(core: &mut Core, msr: u32, v: u64) -> Option<()> {
    if !exists(&core.model, msr) {
        return None;
    }
    let phys_bits = core.model.phys_bits();
    let beyond = |v: u64| v >> phys_bits != 0;
    match msr {
        TSC => {
            // The difference shows in TSC_ADJUST too (SDM vol. 3, 17.17.3).
            let step = v.wrapping_sub(core.tsc());
            adjust_tsc(core, step);
        }
        TSC_ADJUST => {
            let step = v.wrapping_sub(core.vcpu.sys.tsc_adjust);
            adjust_tsc(core, step);
        }
        TSC_DEADLINE => set_tsc_deadline(core, v),
        EFER => return write_efer(core, v),
        FS_BASE | GS_BASE => {
            let reg = if msr == FS_BASE { SegReg::Fs } else { SegReg::Gs };
            let canonical = core.is_canonical_base(v);
            core.vcpu.segs[reg as usize].base = canonical.then_some(v)?;
        }
        _ => return write_plain(core, msr, v, &beyond),
    }
    Some(())
}

fn adjust_tsc(core: &mut Core, step: u64) {
    let sys = &mut core.vcpu.sys;
    sys.tsc_offset = sys.tsc_offset.wrapping_add(step);
    sys.tsc_adjust = sys.tsc_adjust.wrapping_add(step);
    let now = core.now();
    if let Some(armed @ 1..) = core.bus.msr_read(now, TSC_DEADLINE) {
        set_tsc_deadline(core, armed);
    }
}

/// The deadline is compared with the counter that the guest sees (SDM vol. 3, 10.5.4.1).
fn set_tsc_deadline(core: &mut Core, v: u64) {
    let now = core.now();
    let tsc = core.bus.tsc(now);
    let ahead = v.saturating_sub(tsc.wrapping_add(core.vcpu.sys.tsc_offset));
    core.bus.set_tsc_deadline(now, v, tsc.saturating_add(ahead));
    core.after_bus();
}

/// Registers that are storage behind a check.
fn write_plain(core: &mut Core, msr: u32, v: u64, beyond: &dyn Fn(u64) -> bool) -> Option<()> {
    let canonical = core.is_canonical_base(v);
    let sys = &mut core.vcpu.sys;
    let within = |mask: u64| (v & !mask == 0).then_some(v);
    let address = || canonical.then_some(v);
    match msr {
        P5_MC_ADDR | P5_MC_TYPE | EBL_CR_POWERON | BIOS_UPDATE | BIOS_SIGN_ID => {}
        DEBUGCTL => drop(within(3)?),
        SPEC_CTRL => sys.spec_ctrl = within(SPEC_CTRL_WRITABLE)?,
        PRED_CMD => drop(within(1)?),
        SYSENTER_CS => sys.sysenter_cs = v,
        SYSENTER_ESP => sys.sysenter_esp = address()?,
        SYSENTER_EIP => sys.sysenter_eip = address()?,
        XSS => drop(within(0)?),
        MCG_STATUS => sys.mcg_status = within(0)?,
        MCG_CTL => sys.mcg_ctl = v,
        MISC_ENABLE => {
            sys.misc_enable = sys.misc_enable & !MISC_ENABLE_WRITABLE | v & MISC_ENABLE_WRITABLE;
        }
        MTRR_PHYSBASE0..=MTRR_PHYSMASK7 => {
            let range = &mut sys.mtrr_var[((msr - MTRR_PHYSBASE0) / 2) as usize];
            if msr & 1 == 0 {
                let ok = is_memory_type(v & 0xff) && v & 0xf00 == 0 && !beyond(v);
                range.0 = ok.then_some(v)?;
            } else {
                let ok = v & 0x7ff == 0 && !beyond(v);
                range.1 = ok.then_some(v)?;
            }
        }
        PAT => sys.pat = all_bytes(v, |t| is_memory_type(t) || t == 7).then_some(v)?,
        MTRR_DEF_TYPE => {
            let ok = is_memory_type(v & 0xff) && v & !0xcff == 0;
            sys.mtrr_def_type = ok.then_some(v)?;
        }
        STAR => sys.star = v,
        LSTAR => sys.lstar = address()?,
        CSTAR => sys.cstar = address()?,
        SFMASK => sys.sfmask = within(0xffff_ffff)?,
        KERNEL_GS_BASE => sys.kernel_gs_base = address()?,
        TSC_AUX => sys.tsc_aux = within(0xffff_ffff)?,
        PLATFORM_ID | FEATURE_CONTROL | MTRRCAP | MCG_CAP | ARCH_CAPABILITIES => return None,
        APIC_BASE if v & APIC_BASE_X2APIC != 0 && !core.model.has(Feature::X2apic) => return None,
        _ => match (fixed_range(msr), bank(msr)) {
            (Some(n), _) => {
                *sys.mtrr_fixed.get_mut(n)? = all_bytes(v, is_memory_type).then_some(v)?
            }
            (_, Some(Bank::Control(n))) => *sys.mc_ctl.get_mut(n)? = v,
            // Software can only clear them.
            (_, Some(Bank::Report)) => drop(within(0)?),
            _ => {
                let now = core.now();
                core.bus.msr_write(now, msr, v)?;
                core.after_bus();
            }
        },
    }
    Some(())
}

/// The EFER bits that a model has.
fn efer_supported(model: &CpuModel) -> u64 {
    [(Feature::Syscall, efer::SCE), (Feature::Lm, efer::LME | efer::LMA), (Feature::Nx, efer::NXE)]
        .into_iter()
        .filter(|(f, _)| model.has(*f))
        .fold(0, |bits, (_, bit)| bits | bit)
}

/// EFER: LMA is the processor's own, LME is fixed while paging is on.
fn write_efer(core: &mut Core, v: u64) -> Option<()> {
    let old = core.vcpu.sys.efer;
    let paging = core.vcpu.sys.cr0 & cr0::PG != 0;
    if v & !efer_supported(&core.model) != 0 || paging && (old ^ v) & efer::LME != 0 {
        return None;
    }
    core.vcpu.sys.efer = v & !efer::LMA | old & efer::LMA;
    core.mode_changed();
    core.leave_block(false);
    Some(())
}

fn bad(what: &'static str, msr: u32) -> Exception {
    tracing::debug!(target: "msr", "{what}: {msr:#x}");
    Exception { why: Why::Value(what, msr.into()), ..Exception::gp("") }
}

/// RDMSR.
pub fn rdmsr(core: &mut Core, _: &Insn) -> Done {
    core.require_cpl0()?;
    let msr = core.reg(Width::W32, gpr::RCX) as u32;
    match read(core, msr) {
        Some(v) => {
            tracing::trace!(target: "msr", "read {msr:#x}: {v:#x}");
            core.set_pair(v);
            Ok(())
        }
        None => Err(core.raise(bad("RDMSR of an unknown register", msr))),
    }
}

/// WRMSR.
pub fn wrmsr(core: &mut Core, _: &Insn) -> Done {
    core.require_cpl0()?;
    let msr = core.reg(Width::W32, gpr::RCX) as u32;
    let v = core.pair();
    match write(core, msr, v) {
        Some(()) => {
            tracing::trace!(target: "msr", "write {msr:#x}: {v:#x}");
            Ok(())
        }
        None => Err(core.raise(bad("WRMSR of an unknown register or a reserved value", msr))),
    }
}
