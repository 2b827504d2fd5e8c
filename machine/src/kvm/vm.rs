//! A guest of KVM's with one vCPU.

use std::sync::Arc;

use brolga_cpu::cpuid::CpuModel;
use brolga_devices::ioapic;
use brolga_mmu::PhysMap;
use kvm_bindings as kvm;
use kvm_ioctls::{Cap, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd, VmFd};

use super::sys::{self, failed};
use super::{Host, cpuid, msrs};
use crate::accel::KvmError;

/// Pages that KVM may need for itself on processors that cannot execute real mode (Intel before
/// Westmere), between the local APIC and the ROM.
const IDENTITY_MAP: u64 = 0xfeff_b000;
const TSS: usize = 0xfeff_c000;

/// The guest: its memory is the machine's.
pub(super) struct Vm {
    pub(super) vcpu: VcpuFd,
    pub(super) vm: VmFd,
    /// The memory that KVM accesses, alive until both above are closed.
    _map: Arc<PhysMap>,
}

impl Vm {
    /// A guest with this memory and processor, which must be one that the host can give, and with
    /// a local APIC of KVM's if it `has_apic`.
    pub(super) fn new(
        host: &Host,
        map: Arc<PhysMap>,
        model: &CpuModel,
        has_apic: bool,
    ) -> Result<Self, KvmError> {
        let vm = host.kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
        vm.set_identity_map_address(IDENTITY_MAP).map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
        vm.set_tss_address(TSS).map_err(failed("KVM_SET_TSS_ADDR"))?;
        enable(
            &vm,
            "KVM_CAP_EXIT_ON_EMULATION_FAILURE",
            kvm::KVM_CAP_EXIT_ON_EMULATION_FAILURE,
            1,
        )?;
        enable(&vm, "KVM_CAP_EXCEPTION_PAYLOAD", kvm::KVM_CAP_EXCEPTION_PAYLOAD, 1)?;
        let to_us = kvm::KVM_MSR_EXIT_REASON_INVAL
            | kvm::KVM_MSR_EXIT_REASON_UNKNOWN
            | kvm::KVM_MSR_EXIT_REASON_FILTER;
        enable(&vm, "KVM_CAP_X86_USER_SPACE_MSR", kvm::KVM_CAP_X86_USER_SPACE_MSR, to_us.into())?;
        if has_apic {
            let pins = ioapic::PINS as u64;
            enable(&vm, "KVM_CAP_SPLIT_IRQCHIP", kvm::KVM_CAP_SPLIT_IRQCHIP, pins)?;
        }
        let direct = msrs::direct(model, has_apic);
        let ranges = direct.each_ref().map(|(base, bits)| MsrFilterRange {
            flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
            base: *base,
            msr_count: 8 * bits.len() as u32,
            bitmap: bits,
        });
        vm.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges)
            .map_err(failed("KVM_X86_SET_MSR_FILTER"))?;
        sys::set_memory(&vm, &map)?;
        let vcpu = vm.create_vcpu(0).map_err(failed("KVM_CREATE_VCPU"))?;
        if host.kvm.check_extension(Cap::TscControl) {
            vcpu.set_tsc_khz(model.tsc_khz()).map_err(failed("KVM_SET_TSC_KHZ"))?;
        }
        vcpu.set_cpuid2(&cpuid::entries(model)?).map_err(failed("KVM_SET_CPUID2"))?;
        Ok(Self { vcpu, vm, _map: map })
    }
}

fn enable(vm: &VmFd, what: &'static str, cap: u32, argument: u64) -> Result<(), KvmError> {
    let args = [argument, 0, 0, 0];
    vm.enable_cap(&kvm::kvm_enable_cap { cap, args, ..Default::default() }).map_err(failed(what))
}
