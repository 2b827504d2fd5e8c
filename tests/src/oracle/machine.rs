//! The least machine that a processor runs in: RAM, and nothing else.

use std::sync::Arc;

use anyhow::{Context, Result};
use brolga_cpu::bus::NoDevices;
use brolga_cpu::core::tier::{NoTier, Tier};
use brolga_cpu::core::{Core, Interpreter};
use brolga_cpu::cpuid::CpuModel;
use brolga_mmu::{GuestPhys, PhysMap, Ram};

/// An engine with RAM from address 0.
pub struct Machine<T: Tier = NoTier> {
    /// The engine.
    pub interpreter: Interpreter<T>,
    /// Its memory.
    pub map: Arc<PhysMap>,
}

impl Machine {
    /// A machine after power-up, with `bytes` bytes of RAM and the processor that can most.
    pub fn new(bytes: u64) -> Result<Machine> {
        Machine::with_tier(bytes, NoTier)
    }
}

impl<T: Tier> Machine<T> {
    /// As [`Machine::new`], with a second tier.
    pub fn with_tier(bytes: u64, tier: T) -> Result<Machine<T>> {
        let mut map = PhysMap::new(Ram::new(bytes)?);
        map.add_ram(GuestPhys(0), bytes)?;
        let map = Arc::new(map);
        let model = CpuModel::by_name("max").context("the model `max`")?;
        let core = Core::new(Arc::new(model), Arc::clone(&map), Box::new(NoDevices));
        Ok(Machine { interpreter: Interpreter::with_tier(core, tier), map })
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
