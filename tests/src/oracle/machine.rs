//! The least machine that a processor runs in: RAM, and nothing else.

use std::sync::Arc;

use anyhow::{Context, Result};
use brolga_cpu::bus::Bus;
use brolga_cpu::core::{Core, Interpreter};
use brolga_cpu::cpuid::CpuModel;
use brolga_mmu::{GuestPhys, PhysMap, Ram, Width};

/// A bus with no device.
struct NoDevices;

impl Bus for NoDevices {
    fn port_read(&mut self, _: u64, _: u16, w: Width) -> u64 {
        w.mask()
    }
    fn port_write(&mut self, _: u64, _: u16, _: Width, _: u64) {}
    fn mmio_read(&mut self, _: u64, _: GuestPhys, w: Width) -> u64 {
        w.mask()
    }
    fn mmio_write(&mut self, _: u64, _: GuestPhys, _: Width, _: u64) {}
    fn msr_read(&mut self, _: u64, _: u32) -> Option<u64> {
        None
    }
    fn msr_write(&mut self, _: u64, _: u32, _: u64) -> Option<()> {
        None
    }
    fn tsc(&mut self, at: u64) -> u64 {
        at
    }
    fn cr8(&mut self) -> u64 {
        0
    }
    fn set_cr8(&mut self, _: u64, _: u64) {}
    fn acknowledge(&mut self, _: u64) -> Option<u8> {
        None
    }
    fn take_replan(&mut self) -> bool {
        false
    }
}

/// An interpreter with RAM from address 0.
pub struct Machine {
    /// The engine.
    pub interpreter: Interpreter,
    /// Its memory.
    pub map: Arc<PhysMap>,
}

impl Machine {
    /// A machine after power-up, with `bytes` bytes of RAM and the processor that can most.
    pub fn new(bytes: u64) -> Result<Machine> {
        let mut map = PhysMap::new(Ram::new(bytes)?);
        map.add_ram(GuestPhys(0), bytes)?;
        let map = Arc::new(map);
        let model = CpuModel::by_name("max").context("the model `max`")?;
        let core = Core::new(Arc::new(model), Arc::clone(&map), Box::new(NoDevices));
        Ok(Machine { interpreter: Interpreter::new(core), map })
    }

    /// Writes memory behind the processor's back.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.map.write_slice(GuestPhys(at), bytes)?;
        self.interpreter.invalidate_code(GuestPhys(at), bytes.len() as u64);
        Ok(())
    }

    /// Reads memory.
    pub fn read(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.map.read_slice(GuestPhys(at), &mut bytes)?;
        Ok(bytes)
    }

    /// Zeroes all memory.
    pub fn clear_ram(&mut self) -> Result<()> {
        self.write(0, &vec![0; self.map.ram().len() as usize])
    }
}
