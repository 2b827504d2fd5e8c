//! A vCPU that executes single vector instructions in 64-bit code, without paging.

use std::sync::Arc;

use brolga_mmu::{GuestPhys, PhysMap, Ram, Width};

use crate::block::Mode;
use crate::bus::NoDevices;
use crate::core::Core;
use crate::cpuid::CpuModel;
use crate::decode::{Decoded, decode};
use crate::exception::Exception;
use crate::vcpu::{SegReg, attr, cr4, efer};

/// A vCPU of the model with every feature, with 1 MiB of memory.
pub(crate) fn core() -> Core {
    let mut map = PhysMap::new(Ram::new(1 << 20).expect("guest memory"));
    map.add_ram(GuestPhys(0), 1 << 20).expect("mapped");
    let model = Arc::new(CpuModel::by_name("max").expect("model"));
    let mut core = Core::new(model, Arc::new(map), Box::new(NoDevices));
    core.vcpu.sys.efer |= efer::LME | efer::LMA;
    core.vcpu.sys.cr4 |= cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    core.vcpu.segs[SegReg::Cs as usize].attr |= attr::L;
    core
}

/// Executes one instruction.
pub(crate) fn execute(core: &mut Core, bytes: &[u8]) -> Result<(), Exception> {
    const MODE: Mode =
        Mode::CODE64.with(Mode::OSFXSR, true).with(Mode::AVX, true).with(Mode::PROTECTED, true);
    let Decoded::Block(block) = decode::<Core>(bytes, MODE, &core.model, 1) else {
        panic!("cannot decode {bytes:02x?}");
    };
    let op = &block.ops[0];
    (op.handler)(core, &op.insn).map_err(|exit| {
        core.exception.take().unwrap_or_else(|| panic!("{exit:?} without exception"))
    })
}

/// Reads a quadword of guest memory.
pub(crate) fn peek(core: &Core, at: u64) -> u64 {
    core.mem.map.read_phys(GuestPhys(at), Width::W64).expect("memory")
}

/// Writes a quadword of guest memory.
pub(crate) fn poke(core: &Core, at: u64, v: u64) {
    core.mem.map.write_phys(GuestPhys(at), Width::W64, v).expect("memory");
}
