//! Our engines' side: a guest in long mode at CPL 3, as a process on the host is.

use anyhow::{Result, bail};
use brolga_cpu::core::tier::{NoTier, Tier};
use brolga_cpu::exception::vector as exception;
use brolga_cpu::vcpu::{
    Activity, RIP, SegReg, Segment, TableReg, Vcpu, attr, cr0, cr4, efer, gpr, xcr0,
};

use super::generate::Generated;
use super::layout::{CODE, INSTRUCTION, REGION, SCRATCH, SCRATCH_LEN, SYSTEM};
use super::machine::Machine;
use super::state::{Ending, Mode, Raised, Remains, State};

/// Guest-physical places.
mod phys {
    pub(super) const PML4: u64 = 0x1000;
    pub(super) const PDPT: u64 = 0x2000;
    pub(super) const DIRECTORY: u64 = 0x3000;
    pub(super) const TABLE: u64 = 0x4000;
    /// GDT, IDT, TSS, handlers and stack, a page each.
    pub(super) const SYSTEM: u64 = 0x5000;
    pub(super) const CODE: u64 = 0x1_0000;
    pub(super) const SCRATCH: u64 = 0x1_2000;
    pub(super) const RAM: u64 = 0x2_0000;
}

const PAGE: u64 = 0x1000;
const GDT: u64 = 0;
const IDT: u64 = PAGE;
const TSS: u64 = 2 * PAGE;
const HANDLERS: u64 = 3 * PAGE;
const STACK_TOP: u64 = 5 * PAGE;
/// Bytes from one handler to the next.
const HANDLER: u64 = 16;
const VECTORS: u64 = 32;
const KERNEL_CODE: u64 = 8;
const USER_CODE_64: u16 = 0x33;
const USER_CODE_32: u16 = 0x23;
const USER_DATA: u16 = 0x2b;
const HLT: u8 = 0xf4;
/// Behind the instruction: privileged, so that it ends a run that began with a larger budget.
const GUARD: u8 = HLT;

/// Vectors that push an error code (SDM vol. 3, table 6-1).
const WITH_ERROR: [u8; 7] = [8, 10, 11, 12, 13, 14, 17];

/// A guest ready to execute instructions.
pub struct Guest<T: Tier = NoTier> {
    machine: Machine<T>,
    start: Vcpu,
    /// The code in memory: what an engine has made of it is kept from one run to the next.
    code: Vec<u8>,
}

impl Guest {
    /// Sets up page tables, descriptor tables and handlers.
    pub fn new() -> Result<Guest> {
        Guest::with_tier(NoTier)
    }
}

impl<T: Tier> Guest<T> {
    /// As [`Guest::new`], with a second tier.
    pub fn with_tier(tier: T) -> Result<Guest<T>> {
        let mut machine = Machine::with_tier(phys::RAM, tier)?;
        page_tables(&mut machine)?;
        system(&mut machine)?;
        let mut start = machine.interpreter.core.vcpu.clone();
        registers(&mut start);
        Ok(Guest { machine, start, code: Vec::new() })
    }

    /// The second tier.
    pub fn tier(&self) -> &T {
        &self.machine.interpreter.tier
    }

    /// Executes an instruction, and what stands behind it if `budget` is more than it takes: that
    /// has no effect.
    pub fn run(&mut self, case: &Generated, budget: u64) -> Result<Ending> {
        self.prepare(&case.bytes, case.mode, &case.state)?;
        self.machine.interpreter.run(budget);
        self.ending(INSTRUCTION + case.bytes.len() as u64, &case.state)
    }

    /// Executes the program `code` to its end, to an exception, or for `budget` instructions, and
    /// gives everything that it leaves behind.
    pub fn execute(
        &mut self,
        code: &[u8],
        mode: Mode,
        budget: u64,
        state: &State,
    ) -> Result<Remains> {
        self.prepare(code, mode, state)?;
        let start = self.machine.interpreter.core.now();
        self.machine.interpreter.run(budget);
        let core = &self.machine.interpreter.core;
        Ok(Remains {
            rip: core.vcpu.regs[RIP as usize],
            fault_address: core.vcpu.sys.cr2,
            retired: core.now() - start,
            state: self.state(state)?,
        })
    }

    /// Puts code and state where they belong.
    fn prepare(&mut self, code: &[u8], mode: Mode, state: &State) -> Result<()> {
        let mut bytes = code.to_vec();
        bytes.resize((code.len() + 1).next_multiple_of(16), GUARD);
        if self.code != bytes {
            self.machine.write(phys::CODE + (INSTRUCTION - CODE), &bytes)?;
            self.code = bytes;
        }
        self.machine.write(phys::SCRATCH, &state.scratch[..])?;
        let core = &mut self.machine.interpreter.core;
        core.vcpu = self.start.clone();
        core.vcpu.segs[SegReg::Cs as usize] = code_segment(mode);
        core.delivery = Default::default();
        core.vcpu.regs[..16].copy_from_slice(&state.regs);
        core.vcpu.set_rflags(state.rflags);
        core.vcpu.x87.fxrstor(true, &state.fx);
        core.vcpu.mxcsr = u32::from_le_bytes([24, 25, 26, 27].map(|n| state.fx[n]));
        for (n, x) in core.vcpu.xmm.iter_mut().enumerate() {
            let at = 160 + 16 * n;
            *x = u128::from_le_bytes(std::array::from_fn(|i| state.fx[at + i]));
        }
        core.vcpu.ymm_high = state.ymm_high;
        core.mode_changed();
        Ok(())
    }

    fn ending(&self, next: u64, before: &State) -> Result<Ending> {
        let mut state = self.state(before)?;
        let raised = self.raised(next, &mut state)?;
        Ok(Ending { state, raised })
    }

    /// The state now; what is not part of it is as in `before`.
    fn state(&self, before: &State) -> Result<State> {
        let vcpu = &self.machine.interpreter.core.vcpu;
        let mut state = before.clone();
        state.regs.copy_from_slice(&vcpu.regs[..16]);
        state.rflags = vcpu.rflags();
        vcpu.x87.fxsave(true, &mut state.fx);
        state.fx[24..28].copy_from_slice(&vcpu.mxcsr.to_le_bytes());
        for (n, x) in vcpu.xmm.iter().enumerate() {
            state.fx[160 + 16 * n..][..16].copy_from_slice(&x.to_le_bytes());
        }
        state.ymm_high = vcpu.ymm_high;
        state.scratch.copy_from_slice(&self.machine.read(phys::SCRATCH, SCRATCH_LEN)?);
        Ok(state)
    }

    /// The exception whose handler has been entered. RSP and RFLAGS come from its frame.
    fn raised(&self, next: u64, state: &mut State) -> Result<Option<Raised>> {
        let vcpu = &self.machine.interpreter.core.vcpu;
        let rip = vcpu.regs[RIP as usize];
        if vcpu.activity == Activity::Shutdown {
            bail!("the guest has shut down: {:?}", self.machine.interpreter.core.delivery.chain);
        }
        if vcpu.cpl == 3 {
            if rip != next {
                bail!("the guest is at {rip:#x}, not at {next:#x}");
            }
            return Ok(None);
        }
        let vector = (rip.wrapping_sub(SYSTEM + HANDLERS) / HANDLER) as u8;
        let slot = |n: u64| -> Result<u64> {
            let bytes = self.machine.read(phys::SYSTEM + STACK_TOP - 8 * n, 8)?;
            Ok(bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b)))
        };
        state.regs[gpr::RSP as usize] = slot(2)?;
        state.rflags = slot(3)?;
        match slot(5)? {
            INSTRUCTION => {}
            // The guard.
            at if at == next && vector == exception::GP => return Ok(None),
            // A trap.
            at if at == next => {}
            at => bail!("exception {vector} at {at:#x}"),
        }
        let error = if WITH_ERROR.contains(&vector) { slot(6)? } else { 0 };
        Ok(Some(Raised { vector, error, address: vcpu.sys.cr2 }))
    }
}

/// Maps the region of [`super::layout`].
fn page_tables<T: Tier>(machine: &mut Machine<T>) -> Result<()> {
    const PRESENT: u64 = 1;
    const WRITE: u64 = 2;
    const USER: u64 = 4;
    const USED: u64 = 0x60;
    let everything = PRESENT | WRITE | USER | USED;
    let mut entry =
        |table: u64, index: u64, value: u64| machine.write(table + 8 * index, &value.to_le_bytes());
    entry(phys::PML4, REGION >> 39 & 511, phys::PDPT | everything)?;
    entry(phys::PDPT, REGION >> 30 & 511, phys::DIRECTORY | everything)?;
    entry(phys::DIRECTORY, REGION >> 21 & 511, phys::TABLE | everything)?;
    let pages = [
        (CODE, phys::CODE, PAGE, everything),
        (SCRATCH, phys::SCRATCH, SCRATCH_LEN as u64, everything),
        (SYSTEM, phys::SYSTEM, STACK_TOP, everything & !USER),
    ];
    for (linear, at, len, bits) in pages {
        for offset in (0..len).step_by(PAGE as usize) {
            entry(phys::TABLE, ((linear + offset) >> 12) & 511, (at + offset) | bits)?;
        }
    }
    Ok(())
}

/// GDT, IDT, TSS and handlers (SDM vol. 3, 3.4.5, 6.14.1 and 7.7).
fn system<T: Tier>(machine: &mut Machine<T>) -> Result<()> {
    const CODE64: u64 = 0x0020_9a00_0000_0000;
    const TSS_RSP0: u64 = 4;
    const INTERRUPT_GATE: u64 = 0x8e00;
    const DPL3: u64 = 3 << 13;
    let mut put = |at: u64, value: u64| machine.write(phys::SYSTEM + at, &value.to_le_bytes());
    put(GDT + KERNEL_CODE, CODE64)?;
    put(TSS + TSS_RSP0, SYSTEM + STACK_TOP)?;
    for vector in 0..VECTORS {
        let handler = SYSTEM + HANDLERS + HANDLER * vector;
        let low = handler & 0xffff | KERNEL_CODE << 16;
        // Processes may use INT3 and INTO, as on Linux.
        let users = matches!(vector as u8, exception::BP | exception::OF);
        let rights = if users { INTERRUPT_GATE | DPL3 } else { INTERRUPT_GATE };
        let gate = low | rights << 32 | (handler >> 16 & 0xffff) << 48;
        put(IDT + 16 * vector, gate)?;
        put(IDT + 16 * vector + 8, handler >> 32)?;
        put(HANDLERS + HANDLER * vector, u64::from(HLT))?;
    }
    Ok(())
}

/// What all user segments have.
const USER: u32 = {
    const DPL3: u32 = 3 << 5;
    attr::P | attr::S | attr::RW | attr::ACCESSED | DPL3 | attr::G
};
/// Flat data.
const DATA: Segment =
    Segment { selector: USER_DATA, attr: USER | attr::DB, limit: u32::MAX, base: 0 };

fn code_segment(mode: Mode) -> Segment {
    let (selector, size) = match mode {
        Mode::Long => (USER_CODE_64, attr::L),
        Mode::Compatibility => (USER_CODE_32, attr::DB),
    };
    Segment { selector, attr: USER | attr::CODE | size, ..DATA }
}

/// Long mode, CPL 3, SSE and AVX enabled.
fn registers(vcpu: &mut Vcpu) {
    vcpu.segs = [DATA; 6];
    vcpu.cpl = 3;
    vcpu.gdtr = TableReg { base: SYSTEM + GDT, limit: 0x3f };
    vcpu.idtr = TableReg { base: SYSTEM + IDT, limit: (16 * VECTORS - 1) as u16 };
    const BUSY_TSS: u32 = 11;
    vcpu.tr = Segment { selector: 0x40, attr: attr::P | BUSY_TSS, limit: 0x67, base: SYSTEM + TSS };
    vcpu.regs[RIP as usize] = INSTRUCTION;
    vcpu.sys.cr0 = cr0::PE | cr0::PG | cr0::MP | cr0::NE | cr0::WP | cr0::ET;
    vcpu.sys.cr3 = phys::PML4;
    vcpu.sys.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    vcpu.sys.xcr0 = xcr0::X87 | xcr0::SSE | xcr0::AVX;
    vcpu.sys.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
}
