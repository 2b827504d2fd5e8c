//! KVM against our own vCPU: states that move there and back, those of the local APIC too, single
//! instructions as an oracle, and ROMs side by side.

pub mod apic;
pub mod cases;
pub mod lockstep;
pub mod state;

use std::sync::Arc;

use anyhow::Result;
use brolga_cpu::bus::NoDevices;
use brolga_cpu::core::Core;
use brolga_cpu::cpuid::CpuModel;
use brolga_machine::kvm::{Engine, Host};
use brolga_mmu::{GuestPhys, PhysMap, Ram};

/// A vCPU with `bytes` of RAM at 0 and no devices, of the kind that this host's KVM can run.
fn core(host: &Host, bytes: u64) -> Result<Core> {
    let mut map = PhysMap::new(Ram::new(bytes)?);
    map.add_ram(GuestPhys(0), bytes)?;
    let (model, _) = host.adapt(CpuModel::default())?;
    Ok(Core::new(Arc::new(model), Arc::new(map), Box::new(NoDevices)))
}

/// The same under KVM.
fn engine(host: &Host, bytes: u64) -> Result<Engine> {
    let core = core(host, bytes)?;
    let make = Engine::prepare(host, &core, None)?;
    Ok(make(core))
}
