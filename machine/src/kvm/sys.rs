//! The system calls that the crates have no safe form of.

use std::io;
use std::os::fd::AsRawFd;

use brolga_cpu::cpuid::CpuModel;
use brolga_cpu::vcpu::{cr0, cr4, efer};
use brolga_mmu::PhysMap;
use kvm_bindings as kvm;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use libc::c_ulong;

use super::{cpuid, msrs};
use crate::accel::KvmError;

const READ: c_ulong = 2;
const WRITE: c_ulong = 1;

/// The number of an ioctl of KVM's (`asm-generic/ioctl.h`, `linux/kvm.h`).
const fn request(direction: c_ulong, number: c_ulong, size: usize) -> c_ulong {
    const KVMIO: c_ulong = 0xae;
    direction << 30 | (size as c_ulong) << 16 | KVMIO << 8 | number
}

const GET_SREGS2: c_ulong = request(READ, 0xcc, size_of::<kvm::kvm_sregs2>());
const SET_SREGS2: c_ulong = request(WRITE, 0xcd, size_of::<kvm::kvm_sregs2>());
const INTERRUPT: c_ulong = request(WRITE, 0x86, size_of::<u32>());
const SET_SIGNAL_MASK: c_ulong = request(WRITE, 0x8b, size_of::<u32>());

/// The error of a call of the crate's.
pub(super) fn host(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

/// Makes the error of a call of the crate's the one of setting up what it is for.
pub(super) fn failed(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Setup { what, error: host(error) }
}

fn result(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// KVM_GET_SREGS2.
pub(super) fn get_sregs(vcpu: &VcpuFd) -> io::Result<kvm::kvm_sregs2> {
    let mut sregs = kvm::kvm_sregs2::default();
    // SAFETY: KVM fills one structure of the type that the request's number tells the size of.
    result(unsafe { libc::ioctl(vcpu.as_raw_fd(), GET_SREGS2, &mut sregs) })?;
    Ok(sregs)
}

/// KVM_SET_SREGS2.
pub(super) fn set_sregs(vcpu: &VcpuFd, sregs: &kvm::kvm_sregs2) -> io::Result<()> {
    // SAFETY: KVM reads one structure of the type that the request's number tells the size of.
    result(unsafe { libc::ioctl(vcpu.as_raw_fd(), SET_SREGS2, sregs) })
}

/// KVM_INTERRUPT: the guest, which can take it, takes an external interrupt.
pub(super) fn interrupt(vcpu: &VcpuFd, vector: u8) -> io::Result<()> {
    let vector = u32::from(vector);
    // SAFETY: KVM reads a `kvm_interrupt`, which is this one integer.
    result(unsafe { libc::ioctl(vcpu.as_raw_fd(), INTERRUPT, &vector) })
}

/// KVM_SET_SIGNAL_MASK: the signals that are blocked while the guest runs.
pub(super) fn set_signal_mask(vcpu: &VcpuFd, blocked: u64) -> io::Result<()> {
    #[repr(C)]
    struct Mask {
        len: u32,
        set: [u8; 8],
    }
    let mask = Mask { len: 8, set: blocked.to_le_bytes() };
    // SAFETY: KVM reads the length and as many bytes behind it.
    result(unsafe { libc::ioctl(vcpu.as_raw_fd(), SET_SIGNAL_MASK, &mask) })
}

/// KVM_SET_XSAVE.
pub(super) fn set_xsave(vcpu: &VcpuFd, xsave: &kvm::kvm_xsave) -> io::Result<()> {
    // SAFETY: nothing here enables state that does not fit into the structure's 4096 bytes
    // (arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM)), so KVM reads no more.
    unsafe { vcpu.set_xsave(xsave) }.map_err(host)
}

/// Gives the guest the machine's memory. Whoever holds `vm` holds `map`.
pub(super) fn set_memory(vm: &VmFd, map: &PhysMap) -> Result<(), KvmError> {
    for (slot, (at, len, host, writable)) in map.host_regions().enumerate() {
        let region = kvm::kvm_userspace_memory_region {
            slot: slot as u32,
            flags: if writable { 0 } else { kvm::KVM_MEM_READONLY },
            guest_phys_addr: at.0,
            memory_size: len,
            userspace_addr: host.addr(),
        };
        // SAFETY: the range is host memory of the map, which lives as long as `vm` and is only ever
        // accessed through raw pointers.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}

fn entry(index: u32, data: u64) -> io::Result<kvm::Msrs> {
    let entry = kvm::kvm_msr_entry { index, data, ..Default::default() };
    Ok(kvm::Msrs::from_entries(&[entry]).map_err(|_| io::ErrorKind::OutOfMemory)?)
}

/// A model-specific register of KVM's; 0 if it has none of that number.
pub(super) fn read_msr(vcpu: &VcpuFd, index: u32) -> io::Result<u64> {
    let mut list = entry(index, 0)?;
    vcpu.get_msrs(&mut list).map_err(host)?;
    Ok(list.as_slice().first().map_or(0, |entry| entry.data))
}

/// Sets a model-specific register of KVM's, if it takes the value.
pub(super) fn write_msr(vcpu: &VcpuFd, index: u32, value: u64) -> io::Result<()> {
    vcpu.set_msrs(&entry(index, value)?).map(drop).map_err(host)
}

/// KVM_SET_GSI_ROUTING: the messages whose ends are to be told.
pub(super) fn set_routes(
    vm: &VmFd,
    messages: impl Iterator<Item = kvm::kvm_msi>,
) -> io::Result<()> {
    let entries: Vec<_> = messages
        .enumerate()
        .map(|(gsi, message)| {
            let mut entry = kvm::kvm_irq_routing_entry {
                gsi: gsi as u32,
                type_: kvm::KVM_IRQ_ROUTING_MSI,
                ..Default::default()
            };
            entry.u.msi.address_lo = message.address_lo;
            entry.u.msi.data = message.data;
            entry
        })
        .collect();
    let routing =
        kvm::KvmIrqRouting::from_entries(&entries).map_err(|_| io::ErrorKind::OutOfMemory)?;
    vm.set_gsi_routing(&routing).map_err(host)
}

/// A guest without memory, to ask what a guest's processor is like.
pub(super) struct Probe {
    vcpu: VcpuFd,
    _vm: VmFd,
}

impl Probe {
    pub(super) fn new(kvm: &Kvm) -> Result<Self, KvmError> {
        let vm = kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
        let vcpu = vm.create_vcpu(0).map_err(failed("KVM_CREATE_VCPU"))?;
        Ok(Self { vcpu, _vm: vm })
    }

    /// Its time-stamp counter.
    pub(super) fn tsc(&self) -> Result<u64, KvmError> {
        read_msr(&self.vcpu, msrs::TSC)
            .map_err(|error| KvmError::Setup { what: "KVM_GET_MSRS", error })
    }

    /// Whether its time-stamp counter cannot be set.
    pub(super) fn tsc_is_fixed(&self) -> Result<bool, KvmError> {
        let far = 1_000_000_000_000_000;
        let before = self.tsc()?;
        write_msr(&self.vcpu, msrs::TSC, before.wrapping_add(far))
            .map_err(|error| KvmError::Setup { what: "KVM_SET_MSRS", error })?;
        Ok(self.tsc()?.wrapping_sub(before) < far / 2)
    }

    /// Whether a guest with a processor that shows it can have paging of five levels: kvm_pvm says
    /// so where the host's processor has it, and refuses it.
    pub(super) fn takes_five_levels(&self, model: &CpuModel) -> Result<bool, KvmError> {
        self.vcpu.set_cpuid2(&cpuid::entries(model)?).map_err(failed("KVM_SET_CPUID2"))?;
        let mut sregs = get_sregs(&self.vcpu)
            .map_err(|error| KvmError::Setup { what: "KVM_GET_SREGS2", error })?;
        sregs.cr0 |= cr0::PE | cr0::PG;
        sregs.cr4 |= cr4::PAE | cr4::LA57;
        sregs.efer |= efer::LME | efer::LMA;
        Ok(set_sregs(&self.vcpu, &sregs).is_ok())
    }

    /// The frequency of its time-stamp counter.
    pub(super) fn tsc_khz(&self) -> Result<u32, KvmError> {
        self.vcpu.get_tsc_khz().map_err(failed("KVM_GET_TSC_KHZ"))
    }
}
