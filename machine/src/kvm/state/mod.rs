//! Moves the vCPU's state to KVM and back. What KVM does not hold (the registers of
//! [`super::msrs`] that are ours, the activity, FERR#) stays where it is.

mod events;
mod fpu;
mod segments;

use std::fmt::Display;
use std::io;

use brolga_cpu::core::Core;
use brolga_cpu::cpuid::{CpuModel, Feature};
use brolga_cpu::vcpu::{RIP, SegReg, Vcpu, cr0, efer, gpr, rflags};
use kvm_bindings as kvm;
use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use super::{msrs, sys};
pub(super) use events::Pending;

/// The index of XCR0 among the extended control registers.
const XCR0: u32 = 0;

/// An error of KVM's with the name of what has failed.
fn named<E: Display>(what: &'static str) -> impl Fn(E) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}

/// Gives KVM the state. `apic_base` is the local APIC's, `cr8` the task priority.
pub(super) fn to_kvm(
    vcpu: &VcpuFd,
    state: &Vcpu,
    model: &CpuModel,
    apic_base: u64,
    cr8: u64,
) -> io::Result<()> {
    let sregs = segments::to_kvm(state, apic_base, cr8);
    sys::set_sregs(vcpu, &sregs).map_err(named("KVM_SET_SREGS2"))?;
    // kvm_pvm knows paging in long mode only, and drops CR0.PG without a word.
    if sregs.cr0 & cr0::PG != 0 && sregs.efer & efer::LMA == 0 {
        let taken = sys::get_sregs(vcpu)?;
        if taken.cr0 & cr0::PG == 0 {
            return Err(io::Error::other("KVM does not take paging outside long mode"));
        }
    }
    if model.has(Feature::Xsave) {
        let mut xcrs = kvm::kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        xcrs.xcrs[0] = kvm::kvm_xcr { xcr: XCR0, value: state.sys.xcr0, ..Default::default() };
        vcpu.set_xcrs(&xcrs).map_err(named("KVM_SET_XCRS"))?;
    }
    sys::set_xsave(vcpu, &fpu::to_kvm(state, model)).map_err(named("KVM_SET_XSAVE"))?;
    set_msrs(vcpu, state, model)?;
    let sys = &state.sys;
    let debug = kvm::kvm_debugregs { db: sys.dr, dr6: sys.dr6, dr7: sys.dr7, ..Default::default() };
    vcpu.set_debug_regs(&debug).map_err(named("KVM_SET_DEBUGREGS"))?;
    registers_to_kvm(vcpu, state)?;
    // Nor does it know virtual-8086 mode.
    if state.v86() && vcpu.get_regs().map_err(named("KVM_GET_REGS"))?.rflags & rflags::VM == 0 {
        return Err(io::Error::other("KVM does not take virtual-8086 mode"));
    }
    // The last: KVM forgets what is pending when other state is set.
    vcpu.set_vcpu_events(&events::to_kvm(state)).map_err(named("KVM_SET_VCPU_EVENTS"))
}

/// Gives KVM what instructions change most: general registers, RIP and RFLAGS.
pub(super) fn registers_to_kvm(vcpu: &VcpuFd, state: &Vcpu) -> io::Result<()> {
    vcpu.set_regs(&registers(state)).map_err(named("KVM_SET_REGS"))
}

/// Takes the state over. Events that KVM has not delivered yet are returned.
pub(super) fn from_kvm(vcpu: &VcpuFd, core: &mut Core) -> io::Result<Pending> {
    let model = core.model.clone();
    let state = &mut core.vcpu;
    take_registers(state, &vcpu.get_regs().map_err(named("KVM_GET_REGS"))?);
    segments::from_kvm(state, &sys::get_sregs(vcpu)?);
    if model.has(Feature::Xsave) {
        let xcrs = vcpu.get_xcrs().map_err(named("KVM_GET_XCRS"))?;
        let known = xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize).find(|xcr| xcr.xcr == XCR0);
        state.sys.xcr0 = known.map_or(state.sys.xcr0, |xcr| xcr.value);
    }
    fpu::from_kvm(state, &model, &vcpu.get_xsave().map_err(named("KVM_GET_XSAVE"))?);
    get_msrs(vcpu, state, &model)?;
    let debug = vcpu.get_debug_regs().map_err(named("KVM_GET_DEBUGREGS"))?;
    (state.sys.dr, state.sys.dr6, state.sys.dr7) = (debug.db, debug.dr6, debug.dr7);
    let pending =
        events::from_kvm(state, &vcpu.get_vcpu_events().map_err(named("KVM_GET_VCPU_EVENTS"))?);
    core.mode_changed();
    Ok(pending)
}

fn registers(state: &Vcpu) -> kvm::kvm_regs {
    let r = &state.regs;
    kvm::kvm_regs {
        rax: r[gpr::RAX as usize],
        rbx: r[gpr::RBX as usize],
        rcx: r[gpr::RCX as usize],
        rdx: r[gpr::RDX as usize],
        rsi: r[gpr::RSI as usize],
        rdi: r[gpr::RDI as usize],
        rsp: r[gpr::RSP as usize],
        rbp: r[gpr::RBP as usize],
        r8: r[8],
        r9: r[9],
        r10: r[10],
        r11: r[11],
        r12: r[12],
        r13: r[13],
        r14: r[14],
        r15: r[15],
        rip: r[RIP as usize],
        rflags: state.rflags(),
    }
}

fn take_registers(state: &mut Vcpu, k: &kvm::kvm_regs) {
    let general = [
        k.rax, k.rcx, k.rdx, k.rbx, k.rsp, k.rbp, k.rsi, k.rdi, k.r8, k.r9, k.r10, k.r11, k.r12,
        k.r13, k.r14, k.r15,
    ];
    state.regs[..16].copy_from_slice(&general);
    state.regs[RIP as usize] = k.rip;
    state.set_rflags(k.rflags);
}

fn set_msrs(vcpu: &VcpuFd, state: &Vcpu, model: &CpuModel) -> io::Result<()> {
    let mut sys = state.sys.clone();
    let entries: Vec<kvm_msr_entry> = msrs::moved(model)
        .map(|register| kvm_msr_entry {
            index: register.index,
            data: *(register.field)(&mut sys),
            ..Default::default()
        })
        .collect();
    let refused = || io::Error::other("KVM does not take a model-specific register");
    let list = Msrs::from_entries(&entries).map_err(|_| refused())?;
    let taken = vcpu.set_msrs(&list).map_err(named("KVM_SET_MSRS"))?;
    if taken == entries.len() { Ok(()) } else { Err(refused()) }
}

fn get_msrs(vcpu: &VcpuFd, state: &mut Vcpu, model: &CpuModel) -> io::Result<()> {
    let entries: Vec<kvm_msr_entry> = msrs::moved(model)
        .map(|register| kvm_msr_entry { index: register.index, ..Default::default() })
        .collect();
    let missing = || io::Error::other("KVM does not tell a model-specific register");
    let mut list = Msrs::from_entries(&entries).map_err(|_| missing())?;
    if vcpu.get_msrs(&mut list).map_err(named("KVM_GET_MSRS"))? != entries.len() {
        return Err(missing());
    }
    for (register, entry) in msrs::moved(model).zip(list.as_slice()) {
        *(register.field)(&mut state.sys) = entry.data;
    }
    Ok(())
}

/// The privilege level that a state has: real mode has 0, virtual-8086 mode 3.
fn privilege(state: &Vcpu, ss_dpl: u8) -> u8 {
    match (state.sys.cr0 & cr0::PE != 0, state.v86()) {
        (false, _) => 0,
        (true, true) => 3,
        (true, false) => ss_dpl,
    }
}

/// The segment registers in the order of [`SegReg`].
fn in_order(sregs: &mut kvm::kvm_sregs2) -> [(SegReg, &mut kvm::kvm_segment); 6] {
    [
        (SegReg::Es, &mut sregs.es),
        (SegReg::Cs, &mut sregs.cs),
        (SegReg::Ss, &mut sregs.ss),
        (SegReg::Ds, &mut sregs.ds),
        (SegReg::Fs, &mut sregs.fs),
        (SegReg::Gs, &mut sregs.gs),
    ]
}
