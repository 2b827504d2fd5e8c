//! A whole machine: the board, memory, a vCPU, and what it boots.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brolga_cpu::core::Core;
use brolga_cpu::cpuid::{CRYSTAL_HZ, CpuModel};
use brolga_mmu::{MapError, PhysMap, Ram, RamError};

use crate::accel::{Accelerator, Change, EngineError, EngineSpec, KvmError, KvmHost, Surroundings};
use crate::board::{BoardBus, BoardConfig, Chipset, Stopwatch, lock};
use crate::clock::{Clock, ClockKind};
use crate::debug::DebugState;
use crate::firmware::{self, FirmwareError, MemoryLayout};
use crate::loader::{self, BootState, KernelImage, LoadError};
use crate::serial::Serial;
use crate::start;

/// What the real-time clock shows at power-on in virtual time: 2025-01-01 00:00:00.
const VIRTUAL_EPOCH: i64 = 1_735_689_600;

/// What a machine boots.
#[derive(Clone, Debug)]
pub enum Guest {
    /// A ROM at the reset vector.
    Rom(Vec<u8>),
    /// A kernel that is entered directly.
    Kernel {
        /// The kernel file.
        kernel: Vec<u8>,
        /// The initial RAM disk.
        initrd: Option<Vec<u8>>,
        /// The command line.
        cmdline: String,
    },
}

/// What happens after a triple fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnTripleFault {
    /// The run ends with a report.
    #[default]
    Stop,
    /// The machine resets, as a PC does.
    Reset,
}

/// How a machine is built.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// How much RAM, and where.
    pub memory: MemoryLayout,
    /// The processor.
    pub cpu: CpuModel,
    /// What executes.
    pub accel: EngineSpec,
    /// This host's KVM, for a machine that is to run under it at some time ([`Self::adapt`]).
    pub kvm: Option<Arc<KvmHost>>,
    /// What time follows.
    pub clock: ClockKind,
    /// What is booted.
    pub guest: Guest,
    /// What happens after a triple fault.
    pub on_triple_fault: OnTripleFault,
    /// A text that ends the run when it appears on the serial line.
    pub stop_text: Option<String>,
    /// Ports whose output is kept for [`Machine::written`].
    pub taps: Vec<u16>,
}

impl MachineConfig {
    /// Makes this a machine that can run under KVM, with the processor that KVM gives; what its
    /// guest will miss, in lines for people.
    pub fn adapt(&mut self, kvm: Arc<KvmHost>) -> Result<Vec<String>, KvmError> {
        let (cpu, lost) = kvm.adapt(self.cpu.clone())?;
        self.cpu = cpu;
        let lost = (!lost.is_empty()).then(|| {
            format!("KVM does not give, and the guest's processor lacks: {}", lost.join(", "))
        });
        let shortcoming = kvm.shortcoming().map(str::to_owned);
        self.kvm = Some(kvm);
        Ok(lost.into_iter().chain(shortcoming).collect())
    }
}

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The host does not give the memory.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The memory map is wrong.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The firmware tables do not fit.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// There is no such engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What is to be booted cannot be.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// A machine.
pub struct Machine {
    pub(crate) accel: Box<dyn Accelerator>,
    /// What `accel` was made from.
    pub(crate) engine: EngineSpec,
    /// This host's KVM, if it is open.
    pub(crate) kvm: Option<Arc<KvmHost>>,
    /// What follows it.
    pub(crate) changes: VecDeque<Change>,
    /// What the accelerators before it have done.
    pub(crate) past_counts: Vec<(String, u64)>,
    pub(crate) chipset: Arc<Mutex<Chipset>>,
    pub(crate) serial: Serial,
    pub(crate) on_triple_fault: OnTripleFault,
    pub(crate) resets: crate::run::ResetCounter,
    /// The count of retired instructions at which the machine looks at its chips.
    pub(crate) next_look: u64,
    /// How long a slice may take before the machine looks at its chips.
    pub(crate) slice_time: Duration,
    pub(crate) debug: DebugState,
    map: Arc<PhysMap>,
    layout: MemoryLayout,
    guest: Guest,
}

impl Machine {
    /// A machine at power-on, with its guest loaded.
    pub fn new(config: MachineConfig, serial: Serial) -> Result<Self, BuildError> {
        let (spec, kvm) = (config.accel.clone(), config.kvm.clone());
        if !spec.counts() && config.clock == ClockKind::Virtual {
            return Err(EngineError::from(KvmError::VirtualClock).into());
        }
        Self::with_accelerator(config, serial, |core, chips| {
            Ok(spec.build(core, Surroundings { kvm: kvm.as_deref(), chips: Some(chips) })?)
        })
    }

    /// As [`Machine::new`], with an accelerator that `build` makes instead of the configured one.
    pub fn with_accelerator(
        config: MachineConfig,
        serial: Serial,
        build: impl FnOnce(Core, &Arc<Mutex<Chipset>>) -> Result<Box<dyn Accelerator>, BuildError>,
    ) -> Result<Self, BuildError> {
        let MachineConfig {
            memory,
            cpu,
            accel: engine,
            kvm,
            clock,
            guest,
            on_triple_fault,
            stop_text,
            taps,
        } = config;
        let mut map = PhysMap::new(Ram::new(memory.backed_bytes())?);
        for (at, len) in memory.ram_regions() {
            map.add_ram(at, len)?;
        }
        if let Guest::Rom(image) = &guest {
            loader::load_rom(&mut map, image)?;
        }
        let map = Arc::new(map);
        let unix_seconds = match clock {
            ClockKind::Virtual => VIRTUAL_EPOCH,
            ClockKind::Host => host_unix_seconds(),
        };
        let chipset = Arc::new(Mutex::new(Chipset::new(BoardConfig {
            clock: Clock::new(clock),
            unix_seconds,
            physical_bits: cpu.phys_bits(),
            lapic_timer_hz: CRYSTAL_HZ.into(),
            stop_text,
            taps,
        })));
        let bus = BoardBus::new(chipset.clone(), map.clone(), cpu.tsc_khz());
        let core = Core::new(Arc::new(cpu), map.clone(), Box::new(bus));
        let mut machine = Self {
            accel: build(core, &chipset)?,
            engine,
            kvm,
            changes: VecDeque::new(),
            past_counts: Vec::new(),
            slice_time: Duration::ZERO,
            chipset,
            serial,
            on_triple_fault,
            resets: crate::run::ResetCounter::default(),
            next_look: 0,
            debug: DebugState::default(),
            map,
            layout: memory,
            guest,
        };
        // All accelerators have the time-stamp counter that KVM cannot set.
        let shows = machine.kvm.as_deref().filter(|_| clock == ClockKind::Host);
        let ticks = shows.map(KvmHost::fixed_tsc).transpose();
        if let Some(ticks) = ticks.map_err(EngineError::from)?.flatten() {
            machine.set_tsc(ticks);
        }
        machine.boot()?;
        Ok(machine)
    }

    /// Connects the serial line to something else.
    pub fn connect(&mut self, serial: Serial) {
        self.serial = serial;
    }

    /// Lets the guest have its operations timed.
    pub fn set_stopwatch(&mut self, stopwatch: Box<dyn Stopwatch>) {
        lock(&self.chipset).set_stopwatch(stopwatch);
    }

    /// RESET: every chip and the vCPU start again, and so does the guest: firmware tables and
    /// boot image are loaded anew. Other RAM keeps its contents.
    pub fn reset(&mut self) -> Result<(), BuildError> {
        self.next_look = 0;
        self.accel.settle();
        lock(&self.chipset).reset();
        self.accel.core_mut().reset();
        self.boot()
    }

    /// Instructions retired since power-on.
    pub fn retired(&self) -> u64 {
        self.accel.core().now()
    }

    /// What the guest has written to a port of [`MachineConfig::taps`], as bytes.
    pub fn written(&self, port: u16) -> Vec<u8> {
        lock(&self.chipset).written(port).to_vec()
    }

    /// The vCPU.
    pub fn core(&self) -> &Core {
        self.accel.core()
    }

    /// The physical memory.
    pub fn map(&self) -> &PhysMap {
        &self.map
    }

    /// Loads the guest and puts the vCPU where it begins.
    fn boot(&mut self) -> Result<(), BuildError> {
        self.map.set_a20(true);
        if let Guest::Kernel { kernel, initrd, cmdline } = &self.guest {
            let image = KernelImage { bytes: kernel, initrd: initrd.as_deref(), cmdline };
            let state = load_kernel(&self.map, &image, &self.layout)?;
            lock(&self.chipset).prepare_for_kernel();
            let core = self.accel.core_mut();
            let physical_bits = core.model.phys_bits();
            firmware::set_mtrrs(&mut core.vcpu.sys, physical_bits);
            start::enter(core, &state);
        }
        self.accel.core_mut().mem.tlb.flush_all();
        self.accel.invalidate_all_code();
        Ok(())
    }
}

fn load_kernel(
    map: &PhysMap,
    image: &KernelImage<'_>,
    layout: &MemoryLayout,
) -> Result<BootState, BuildError> {
    const CPUS: usize = 1;
    let tables = firmware::install(map, layout, CPUS)?;
    Ok(loader::load(map, image, layout, &tables)?)
}

fn host_unix_seconds() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(VIRTUAL_EPOCH)
}
