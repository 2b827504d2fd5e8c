//! Whether SYSCALL works: a KVM without hardware may leave the guest at level 3 (docs/kvm.md), and
//! then no program of a 64-bit kernel survives.

use std::sync::Arc;
use std::time::Duration;

use brolga_cpu::bus::NoDevices;
use brolga_cpu::core::{Core, Stop};
use brolga_cpu::cpuid::CpuModel;
use brolga_cpu::vcpu::{RIP, SegReg, Segment, attr, cr0, cr4, efer};
use brolga_mmu::{GuestPhys, PhysMap, Ram};

use super::{Engine, Host};
use crate::accel::{Accelerator, Slice};

const RAM: u64 = 2 << 20;
/// Tables of the four levels but the last: one page of 2 MiB, for users too.
const TABLES: [u64; 3] = [0x1000, 0x2000, 0x3000];
/// SYSCALL.
const AT_LEVEL_3: u64 = 0x5000;
/// HLT, which level 3 may not: without an interrupt table that is a triple fault.
const TARGET: u64 = 0x6000;

/// Whether SYSCALL at level 3 leads to level 0 under this KVM; `None` if that cannot be tried.
pub(super) fn reaches_level_0(host: &Host) -> Option<bool> {
    let core = guest(host.adapt(CpuModel::default()).ok()?.0)?;
    let mut engine = Engine::prepare(host, &core, None).ok()?(core);
    let slice = Slice { instructions: 2, time: Duration::from_secs(1) };
    match engine.run_slice(&slice).ok()? {
        Stop::Halted => Some(true),
        Stop::Shutdown => Some(false),
        _ => None,
    }
}

/// A vCPU at level 3 of 64-bit mode, about to execute SYSCALL.
fn guest(model: CpuModel) -> Option<Core> {
    let mut map = PhysMap::new(Ram::new(RAM).ok()?);
    map.add_ram(GuestPhys(0), RAM).ok()?;
    let page = |address: u64, flags: u64| (address | 7 | flags).to_le_bytes();
    let large = 1 << 7;
    for (table, entry) in
        TABLES.into_iter().zip([page(TABLES[1], 0), page(TABLES[2], 0), page(0, large)])
    {
        map.write_slice(GuestPhys(table), &entry).ok()?;
    }
    map.write_slice(GuestPhys(AT_LEVEL_3), &[0x0f, 0x05]).ok()?;
    map.write_slice(GuestPhys(TARGET), &[0xf4]).ok()?;
    let mut core = Core::new(Arc::new(model), Arc::new(map), Box::new(NoDevices));
    let v = &mut core.vcpu;
    v.sys.cr0 = cr0::PE | cr0::PG | cr0::ET | cr0::NE;
    v.sys.cr3 = TABLES[0];
    v.sys.cr4 = cr4::PAE;
    v.sys.efer = efer::LME | efer::LMA | efer::SCE;
    v.sys.star = 0x23 << 48 | 0x10 << 32;
    v.sys.lstar = TARGET;
    v.cpl = 3;
    let rights = attr::P | attr::S | attr::RW | attr::ACCESSED | attr::G | 3 << 5;
    let flat = |selector, kind| Segment { selector, attr: rights | kind, limit: !0, base: 0 };
    v.segs[SegReg::Cs as usize] = flat(0x33, attr::CODE | attr::L);
    for reg in [SegReg::Ss, SegReg::Ds, SegReg::Es] {
        v.segs[reg as usize] = flat(0x2b, attr::DB);
    }
    (v.gdtr.limit, v.idtr.limit) = (0, 0);
    v.tr = Segment { selector: 0x40, attr: attr::P | 11, limit: 0x67, base: 0 };
    v.regs[usize::from(RIP)] = AT_LEVEL_3;
    core.mode_changed();
    Some(core)
}

#[cfg(test)]
mod tests {
    use brolga_cpu::core::Interpreter;

    use super::*;

    #[test]
    fn the_guest_halts_where_syscall_works() {
        let mut interpreter = Interpreter::new(guest(CpuModel::default()).expect("a guest"));
        assert_eq!(interpreter.run(100), Stop::Halted);
        // As if it had stayed at level 3.
        let mut core = guest(CpuModel::default()).expect("a guest");
        core.vcpu.regs[usize::from(RIP)] = TARGET;
        assert_eq!(Interpreter::new(core).run(100), Stop::Shutdown);
    }
}
