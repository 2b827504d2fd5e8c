//! Small programs on a vCPU with RAM and a few ports.

use std::sync::Arc;

use brolga_cpu::bus::Bus;
use brolga_cpu::core::tier::Tier;
use brolga_cpu::core::{Core, Interpreter};
use brolga_cpu::cpuid::CpuModel;
use brolga_cpu::vcpu::{RIP, SegReg, Segment, Vcpu, attr, cr0, gpr};
use brolga_mmu::{GuestPhys, PhysMap, Ram, Width};

const CODE: u64 = 0x1000;
const DATA: u64 = 0x4ff0;
const STACK: u64 = 0x8000;
const RAM: u64 = 0x10000;

/// Ports answer with the time; writing to one asks for a new plan.
#[derive(Default)]
struct Ports(bool);

impl Bus for Ports {
    fn port_read(&mut self, at: u64, port: u16, w: Width) -> u64 {
        (at ^ u64::from(port)) & w.mask()
    }
    fn port_write(&mut self, _: u64, _: u16, _: Width, _: u64) {
        self.0 = true;
    }
    fn tsc(&mut self, at: u64) -> u64 {
        at
    }
    fn take_replan(&mut self) -> bool {
        std::mem::take(&mut self.0)
    }
}

/// A vCPU in flat protected mode at a program, with data that is not all alike.
pub(crate) fn core(program: &[u8]) -> Core {
    let mut map = PhysMap::new(Ram::new(RAM).expect("RAM"));
    map.add_ram(GuestPhys(0), RAM).expect("free");
    let data: Vec<u8> = (0..0x2000_u32).map(|n| ((n * n) >> 9) as u8).collect();
    map.write_slice(GuestPhys(DATA), &data).expect("RAM");
    map.write_slice(GuestPhys(CODE), program).expect("RAM");
    let model = CpuModel::by_name("max").expect("a model");
    let mut core = Core::new(Arc::new(model), Arc::new(map), Box::new(Ports::default()));
    let rights = attr::P | attr::S | attr::RW | attr::ACCESSED | attr::DB | attr::G;
    let flat = |selector, attr| Segment { selector, base: 0, limit: u32::MAX, attr };
    core.vcpu.sys.cr0 = cr0::PE;
    core.vcpu.segs[SegReg::Cs as usize] = flat(8, rights | attr::CODE);
    for seg in [SegReg::Ss, SegReg::Ds, SegReg::Es] {
        core.vcpu.segs[seg as usize] = flat(16, rights);
    }
    core.vcpu.regs[usize::from(gpr::RSP)] = STACK;
    core.vcpu.regs[usize::from(RIP)] = CODE;
    core.mode_changed();
    core
}

/// Runs `count` instructions in slices, and tells the state then.
pub(crate) fn run<T: Tier>(
    mut engine: Interpreter<T>,
    count: u64,
    slice: u64,
) -> (Box<Vcpu>, Vec<u8>, Option<String>) {
    while engine.core.now() < count {
        engine.run(slice.min(count - engine.core.now()));
    }
    assert_eq!(engine.core.now(), count);
    let mut ram = vec![0; RAM as usize];
    engine.core.mem.map.read_slice(GuestPhys(0), &mut ram).expect("RAM");
    (Box::new(engine.core.vcpu.clone()), ram, engine.tier.report())
}

/// `jmp` back to the start, behind `program`.
pub(crate) fn forever(mut program: Vec<u8>) -> Vec<u8> {
    let back = -(program.len() as i32 + 5);
    program.push(0xe9);
    program.extend(back.to_le_bytes());
    program
}
