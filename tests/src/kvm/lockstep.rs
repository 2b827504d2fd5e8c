//! The interpreter and KVM, which goes in single steps, side by side on a ROM.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use brolga_cpu::cpuid::CpuModel;
use brolga_machine::accel::{AccelKind, EngineSpec};
use brolga_machine::clock::ClockKind;
use brolga_machine::firmware::MemoryLayout;
use brolga_machine::kvm::Host;
use brolga_machine::lockstep::{self, Settings, Verdict};
use brolga_machine::machine::{Guest, Machine, MachineConfig, OnTripleFault};
use brolga_machine::run::Limits;
use brolga_machine::serial::Serial;

const RAM: u64 = 16 << 20;

/// What came of instructions that KVM was asked about, by name.
pub type Counts = BTreeMap<String, u64>;

/// Runs `rom` for up to so many instructions. An error is a difference.
pub fn compare(host: Arc<Host>, rom: Vec<u8>, instructions: u64) -> Result<Counts> {
    let mut config = MachineConfig {
        memory: MemoryLayout::new(RAM)?,
        cpu: CpuModel::default(),
        accel: AccelKind::Interp.into(),
        kvm: None,
        clock: ClockKind::Virtual,
        guest: Guest::Rom(rom),
        on_triple_fault: OnTripleFault::Stop,
        stop_text: None,
        taps: Vec::new(),
    };
    config.adapt(host)?;
    let engines = [AccelKind::Interp.into(), EngineSpec { steps: true, ..AccelKind::Kvm.into() }];
    let build = |engine: usize, serial: Serial| {
        Machine::new(MachineConfig { accel: engines[engine].clone(), ..config.clone() }, serial)
    };
    let limits = Limits { instructions: Some(instructions), deadline: None };
    match lockstep::run(&build, &Settings { every: 1000, ram_every: 16, limits })? {
        Verdict::Same { counts, .. } => Ok(counts.into_iter().collect()),
        Verdict::Different(report) => bail!("{report}"),
    }
}
