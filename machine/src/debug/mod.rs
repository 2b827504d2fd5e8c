//! The machine as a debugger sees it.

mod monitor;
mod registers;
mod run;

use std::time::Instant;

use brolga_cpu::core::stops::StopPlan;
use brolga_cpu::cpuid::Feature;
use brolga_cpu::vcpu::{RIP, Segment, attr};
use brolga_gdb::layout::Register;
use brolga_gdb::{
    DebugError, DebugTarget, Door, Registers, Requests, Resume, SegmentRegister, Stopped,
    TableRegister,
};
use brolga_mmu::{Access, GuestPhys, Linear, Probe};

use crate::board::lock;
use crate::exit::End;
use crate::linear;
use crate::machine::Machine;
use crate::run::Limits;
pub(crate) use run::{DebugState, Tracer, Wishes};

impl Machine {
    /// How a linear address is translated now, step by step.
    pub fn probe(&self, linear: u64, access: Access) -> Probe {
        linear::walk(self.core(), Linear(linear), access)
    }
}

impl Machine {
    /// Runs to the machine's end, with debuggers that come in at `door`; with `wait`, not before
    /// the first has come.
    pub fn run_with_debugger(&mut self, limits: &Limits, door: &mut Door, wait: bool) -> End {
        self.debug.limits = *limits;
        brolga_gdb::serve(self, door, wait);
        self.debug.end.take().unwrap_or(End::Quit)
    }
}

impl DebugTarget for Machine {
    fn registers(&self) -> Registers {
        let vcpu = &self.core().vcpu;
        let sys = &vcpu.sys;
        let mut general = [0; 16];
        general.copy_from_slice(&vcpu.regs[..16]);
        let table = |table: brolga_cpu::vcpu::TableReg| TableRegister {
            base: table.base,
            limit: table.limit,
        };
        Registers {
            general,
            rip: vcpu.regs[RIP as usize],
            rflags: vcpu.rflags(),
            segments: vcpu.segs.each_ref().map(segment),
            ldtr: segment(&vcpu.ldtr),
            tr: segment(&vcpu.tr),
            gdtr: table(vcpu.gdtr),
            idtr: table(vcpu.idtr),
            cr0: sys.cr0,
            cr2: sys.cr2,
            cr3: sys.cr3,
            cr4: sys.cr4,
            cr8: lock(&self.chipset).task_priority().into(),
            efer: sys.efer,
            dr: sys.dr,
            dr6: sys.dr6,
            dr7: sys.dr7,
            cpl: vcpu.cpl,
        }
    }

    fn has_long_mode(&self) -> bool {
        self.core().model.has(Feature::Lm)
    }

    fn read_register(&self, register: Register) -> u128 {
        registers::read(self, register)
    }

    fn write_register(&mut self, register: Register, value: u128) -> Result<(), DebugError> {
        registers::write(self, register, value)
    }

    fn read_linear(&self, at: u64, to: &mut [u8]) -> usize {
        linear::read(self.core(), Linear(at), to)
    }

    fn write_linear(&mut self, at: u64, from: &[u8]) -> Result<(), DebugError> {
        for (to, range) in linear::pages(Linear(at), from.len()) {
            let phys = linear::translate(self.core(), to).ok_or(DebugError::NotMapped(to.0))?;
            self.write_physical(phys.0, &from[range])?;
        }
        Ok(())
    }

    fn read_physical(&self, at: u64, to: &mut [u8]) -> Result<(), DebugError> {
        self.map().read_slice(GuestPhys(at), to).map_err(|_| DebugError::NoMemory(at))
    }

    fn write_physical(&mut self, at: u64, from: &[u8]) -> Result<(), DebugError> {
        let phys = GuestPhys(at);
        self.map().write_slice(phys, from).map_err(|_| DebugError::NoMemory(at))?;
        self.accel.invalidate_code(self.map().bus_address(phys), from.len() as u64);
        Ok(())
    }

    fn resume(
        &mut self,
        how: Resume,
        requests: &Requests,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Stopped {
        self.run_for_debugger(how, requests, interrupted)
    }

    fn stand(&mut self) -> Option<u8> {
        let late = self.debug.limits.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if self.serial.wants_to_quit() {
            self.debug.end.get_or_insert(End::Quit);
        } else if late {
            self.debug.end.get_or_insert(End::Timeout);
        }
        self.debug.end.as_ref().map(End::status)
    }

    fn command(&mut self, line: &str) -> String {
        monitor::execute(self, line)
    }

    fn restart(&mut self) -> Result<(), DebugError> {
        self.reset().map_err(|_| DebugError::BadValue)
    }

    fn kill(&mut self) {
        self.debug.end.get_or_insert(End::Quit);
    }

    fn engage(&mut self) {
        self.debug.engaged = true;
    }

    fn release(&mut self) {
        self.debug.engaged = false;
        self.debug.wishes = Wishes::default();
        self.accel.core_mut().set_stops(StopPlan::default());
    }
}

fn segment(segment: &Segment) -> SegmentRegister {
    SegmentRegister {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        attributes: segment.attr as u16,
        usable: !segment.has(attr::UNUSABLE),
    }
}
