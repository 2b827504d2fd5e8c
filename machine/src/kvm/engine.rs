//! The engine: it runs the guest under KVM for as long as that can, and by the interpreter where it
//! cannot.
//!
//! The state is in one of two places. [`Engine::enter`] moves it to KVM when the guest is to run
//! there, [`Engine::leave`] back when somebody wants to see or change it; in between, slices follow
//! each other without moving anything. Events are offered before each entry: KVM takes an interrupt
//! when the guest can, and tells when it can if it could not.

mod apic;
mod step;

use std::io;
use std::sync::{Arc, Mutex};

use brolga_cpu::core::{Core, Interpreter, Stop};
use brolga_cpu::system::interrupt;
use brolga_cpu::system::msr;
use brolga_cpu::vcpu::{Activity, Shadow, rflags};
use brolga_mmu::{GuestPhys, Width};
use kvm_bindings::{KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_guest_debug};

use super::alarm::Alarm;
use super::counts::Counts;
use super::exit::{self, Exit, GivesUp, MmioAccess, PortAccess};
use super::state::Pending;
use super::sys::host;
use super::vm::Vm;
use super::{Host, msrs, state, sys};
use crate::accel::{Accelerator, HostFailure, KvmError, Slice};
use crate::board::Chipset;
use apic::KernelApic;
pub use step::Stepping;

/// A guest that runs under KVM.
pub struct Engine {
    interpreter: Interpreter,
    vm: Vm,
    alarm: Option<Alarm>,
    /// KVM's local APIC takes the place of the board's.
    apic: Option<KernelApic>,
    /// The state is KVM's; what the vCPU holds of it is old.
    away: bool,
    /// The last exit's instruction is not over: KVM ends it when the guest is entered again.
    unfinished: bool,
    /// An interrupt can be injected at the next entry.
    open: bool,
    /// RFLAGS.IF at the last exit.
    if_flag: bool,
    /// What the interpreter has found in memory may be old.
    stale: bool,
    /// KVM's time-stamp counter shows the guest's time.
    tsc_set: bool,
    /// It cannot be set: see [`Host::open`].
    tsc_is_fixed: bool,
    /// The guest never reads it: time-stamp counter and time are the interpreter's.
    tsc_is_ours: bool,
    failure: Option<HostFailure>,
    counts: Counts,
}

/// How a single step has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// The instruction is done, or its fault delivered.
    Done,
    /// KVM could not do it.
    GaveUp(&'static str),
    /// A triple fault.
    Shutdown,
    /// It left KVM: HLT, a port, a register.
    Exited,
}

/// What comes of an exit.
type Next = io::Result<Option<Stop>>;

impl Engine {
    /// An engine for a vCPU whose model the host can give ([`Host::adapt`]): first everything that
    /// can fail, then what takes the vCPU. If there are `chips`, KVM's local APIC takes the place of
    /// theirs.
    pub fn prepare(
        host: &Host,
        core: &Core,
        chips: Option<Arc<Mutex<Chipset>>>,
    ) -> Result<impl FnOnce(Core) -> Self + use<>, KvmError> {
        let vm = Vm::new(host, core.mem.map.clone(), &core.model, chips.is_some())?;
        let tsc_is_fixed = host.tsc_is_fixed;
        Ok(move |core| Self {
            interpreter: Interpreter::new(core),
            vm,
            alarm: None,
            apic: chips.map(KernelApic::new),
            away: false,
            unfinished: false,
            open: false,
            if_flag: false,
            stale: false,
            tsc_set: false,
            tsc_is_fixed,
            tsc_is_ours: false,
            failure: None,
            counts: Counts::default(),
        })
    }

    /// Moves the state to KVM and back, without a run: nothing changes.
    pub fn round_trip(&mut self) -> io::Result<()> {
        self.enter()?;
        self.leave()
    }

    /// Executes one instruction under KVM and brings the state back; how KVM ended it.
    pub fn step(&mut self) -> io::Result<Stepped> {
        self.enter()?;
        let exit = self.step_once();
        self.debug(0)?;
        self.leave()?;
        Ok(match exit? {
            Exit::Debug => Stepped::Done,
            Exit::GivesUp(on) => Stepped::GaveUp(on.why),
            Exit::Shutdown => Stepped::Shutdown,
            _ => Stepped::Exited,
        })
    }

    /// Executes one instruction of the state that is KVM's; why KVM came back.
    fn step_once(&mut self) -> io::Result<Exit> {
        self.debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP)?;
        let ran = self.vm.vcpu.run().map(drop);
        ran.map_err(host)?;
        Ok(exit::read(self.vm.vcpu.get_kvm_run()))
    }

    fn debug(&self, control: u32) -> io::Result<()> {
        let debug = kvm_guest_debug { control, ..Default::default() };
        self.vm.vcpu.set_guest_debug(&debug).map_err(host)
    }

    /// Moves the state to KVM.
    fn enter(&mut self) -> io::Result<()> {
        if self.away {
            return Ok(());
        }
        let core = &mut self.interpreter.core;
        let now = core.now();
        let apic_base = core.bus.msr_read(now, msrs::APIC_BASE).unwrap_or_default();
        let cr8 = core.bus.cr8();
        state::to_kvm(&self.vm.vcpu, &core.vcpu, &core.model, apic_base, cr8)?;
        let v = &core.vcpu;
        self.if_flag = v.eflags & rflags::IF != 0;
        let accepted = self.apic.as_ref().is_none_or(KernelApic::accepts_external_interrupts);
        self.open = accepted && self.if_flag && v.shadow == Shadow::None && v.pending_db == 0;
        self.away = true;
        self.unfinished = false;
        if !self.tsc_set {
            self.set_tsc()?;
        }
        match &self.apic {
            Some(apic) => apic.give(&self.vm, &mut self.interpreter.core),
            None => Ok(()),
        }
    }

    /// Moves the state back.
    fn leave(&mut self) -> io::Result<()> {
        if !self.away {
            return Ok(());
        }
        let pending = self.take_back()?;
        self.deliver(pending);
        Ok(())
    }

    /// Moves the state back but for the events that KVM has not delivered yet.
    fn take_back(&mut self) -> io::Result<Pending> {
        self.finish()?;
        let page = self.page()?;
        let pending = state::from_kvm(&self.vm.vcpu, &mut self.interpreter.core)?;
        if let Some(page) = page {
            self.follow_tsc()?;
            self.take_apic_back(page)?;
        }
        self.away = false;
        Ok(pending)
    }

    /// Delivers what KVM has not.
    fn deliver(&mut self, pending: Pending) {
        let core = &mut self.interpreter.core;
        core.lines.nmi |= pending.nmi;
        if let Some(event) = pending.event {
            core.mem.tlb.flush_all();
            interrupt::deliver(core, event);
        }
    }

    /// Has KVM end the instruction of the last exit.
    fn finish(&mut self) -> io::Result<()> {
        while self.unfinished {
            self.vm.vcpu.set_kvm_immediate_exit(1);
            let ran = self.vm.vcpu.run().map(drop);
            self.vm.vcpu.set_kvm_immediate_exit(0);
            self.unfinished = false;
            match ran {
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(host(error)),
                // Another part of the same instruction.
                Ok(()) => drop(self.serve()?),
            }
        }
        Ok(())
    }

    /// Runs the guest under KVM until something is to be looked at.
    fn run_slice_under_kvm(&mut self, slice: &Slice) -> io::Result<Stop> {
        self.alarm()?.set(slice.time)?;
        loop {
            if let Some(stop) = self.wake() {
                return Ok(stop);
            }
            if let Err(error) = self.enter() {
                let why = format!("KVM refuses the state: {error}");
                return self.interpret(&why, slice.instructions);
            }
            self.offer()?;
            if let Some(stop) = self.once()? {
                return Ok(stop);
            }
            if self.interpreter.core.take_replan() {
                return Ok(Stop::Replan);
            }
        }
    }

    /// The alarm for this thread.
    fn alarm(&mut self) -> io::Result<&Alarm> {
        let alarm = match self.alarm.take().filter(Alarm::is_mine) {
            Some(alarm) => alarm,
            None => Alarm::new(&self.vm.vcpu)?,
        };
        Ok(self.alarm.insert(alarm))
    }

    /// A vCPU that does not execute: whether something has woken it, or what it is to be told.
    fn wake(&mut self) -> Option<Stop> {
        let may_interrupt = self.interrupts_enabled();
        let core = &mut self.interpreter.core;
        match core.vcpu.activity {
            Activity::Running => None,
            Activity::Halted if core.lines.nmi || core.lines.intr && may_interrupt => {
                core.vcpu.activity = Activity::Running;
                None
            }
            Activity::Halted | Activity::WaitForSipi => Some(Stop::Halted),
            Activity::Shutdown => Some(Stop::Shutdown),
        }
    }

    /// Offers the guest what waits for it.
    fn offer(&mut self) -> io::Result<()> {
        let core = &mut self.interpreter.core;
        let vcpu = &mut self.vm.vcpu;
        if std::mem::take(&mut core.lines.nmi) {
            vcpu.nmi().map_err(host)?;
            self.counts.add("injected: nmi", 1);
        }
        if core.lines.intr && self.open {
            let now = core.now();
            if let Some(vector) = core.bus.acknowledge(now) {
                sys::interrupt(vcpu, vector)?;
                self.counts.add("injected: interrupt", 1);
                self.open = false;
            }
            core.lines.intr = false;
        }
        if let Some(apic) = &mut self.apic {
            let sent = apic.send(&self.vm)?;
            if sent > 0 {
                self.counts.add("injected: message", sent);
            }
        }
        let run = self.vm.vcpu.get_kvm_run();
        run.request_interrupt_window = core.lines.intr.into();
        run.cr8 = core.bus.cr8();
        Ok(())
    }

    /// Enters the guest once.
    fn once(&mut self) -> Next {
        self.stale = true;
        self.interpreter.core.vcpu.repeating = false;
        let ran = self.vm.vcpu.run().map(drop);
        self.unfinished = false;
        let run = self.vm.vcpu.get_kvm_run();
        self.if_flag = run.if_flag != 0;
        self.open = run.ready_for_interrupt_injection != 0 && self.if_flag;
        self.follow_cr8();
        match ran {
            Ok(()) => self.serve(),
            Err(error) if error.errno() == libc::EINTR => {
                self.counts.exit(&Exit::Signal);
                if let Some(alarm) = &self.alarm {
                    alarm.silence();
                }
                self.follow_halt()?;
                Ok(Some(Stop::Replan))
            }
            Err(error) if error.errno() == libc::EAGAIN => Ok(None),
            Err(error) => Err(host(error)),
        }
    }

    /// Tells the local APIC, if it is ours, of the priority that the guest has set.
    fn follow_cr8(&mut self) {
        if self.apic.is_some() {
            return;
        }
        let core = &mut self.interpreter.core;
        let cr8 = self.vm.vcpu.get_kvm_run().cr8;
        if cr8 != core.bus.cr8() {
            let now = core.now();
            core.bus.set_cr8(now, cr8);
        }
    }

    /// Does what KVM has come back for.
    fn serve(&mut self) -> Next {
        let exit = exit::read(self.vm.vcpu.get_kvm_run());
        self.answer(exit)
    }

    fn answer(&mut self, exit: Exit) -> Next {
        self.counts.exit(&exit);
        match exit {
            Exit::Port(access) => self.port(&access),
            Exit::Mmio(access) => self.mmio(&access),
            Exit::ReadMsr(index) => self.read_msr(index)?,
            Exit::WriteMsr(index, value) => self.write_msr(index, value)?,
            Exit::Halt => self.interpreter.core.vcpu.activity = Activity::Halted,
            Exit::Window | Exit::Priority => {}
            Exit::EndOfInterrupt(vector) => {
                if let Some(apic) = &self.apic {
                    apic.end_of_interrupt(vector);
                }
            }
            Exit::Shutdown => {
                self.leave()?;
                self.interpreter.core.vcpu.activity = Activity::Shutdown;
            }
            Exit::Debug | Exit::Signal => return Ok(Some(Stop::Replan)),
            Exit::GivesUp(on) => return self.execute_one(&on),
        }
        Ok(None)
    }

    fn port(&mut self, access: &PortAccess) {
        self.unfinished = true;
        let core = &mut self.interpreter.core;
        let now = core.now();
        let data = exit::port_data(self.vm.vcpu.get_kvm_run(), access);
        let PortAccess { port, width, .. } = *access;
        for value in data.chunks_exact_mut(width.bytes() as usize) {
            if access.write {
                core.bus.port_write(now, port, width, integer(value));
            } else {
                let read = core.bus.port_read(now, port, width).to_le_bytes();
                value.copy_from_slice(&read[..value.len()]);
            }
        }
    }

    fn mmio(&mut self, access: &MmioAccess) {
        self.unfinished = true;
        let core = &mut self.interpreter.core;
        let now = core.now();
        let mut bytes = access.bytes;
        let mut done = 0;
        // Accesses that cross a page come in two parts of any length.
        while done < access.len {
            let len = 1 << (access.len - done).ilog2();
            let width = Width::from_bytes(len as u64).unwrap_or(Width::W8);
            let at = GuestPhys(access.at + done as u64);
            let part = &mut bytes[done..done + len];
            if access.write {
                core.bus.mmio_write(now, at, width, integer(part));
            } else {
                part.copy_from_slice(&core.bus.mmio_read(now, at, width).to_le_bytes()[..len]);
            }
            done += len;
        }
        if !access.write {
            exit::answer_mmio(self.vm.vcpu.get_kvm_run(), bytes);
        }
    }

    fn read_msr(&mut self, index: u32) -> io::Result<()> {
        if index == msrs::TSC {
            self.follow_tsc()?;
        }
        let value = msr::read(&mut self.interpreter.core, index);
        self.unfinished = true;
        exit::answer_msr(self.vm.vcpu.get_kvm_run(), value);
        Ok(())
    }

    fn write_msr(&mut self, index: u32, value: u64) -> io::Result<()> {
        let about_time = matches!(index, msrs::TSC | msrs::TSC_ADJUST | msrs::TSC_DEADLINE);
        if about_time {
            self.follow_tsc()?;
        }
        let done = msr::write(&mut self.interpreter.core, index, value);
        if about_time && index != msrs::TSC_DEADLINE {
            self.set_tsc()?;
        }
        self.unfinished = true;
        exit::answer_msr(self.vm.vcpu.get_kvm_run(), done.map(|()| value));
        Ok(())
    }

    /// Makes KVM's time-stamp counter the guest's, or the other way round where KVM's cannot be set.
    fn set_tsc(&mut self) -> io::Result<()> {
        if self.tsc_is_ours {
            return Ok(());
        }
        self.tsc_set = true;
        if self.tsc_is_fixed {
            return self.follow_tsc();
        }
        let want = self.interpreter.core.tsc();
        let hz = 1000 * u64::from(self.interpreter.core.model.tsc_khz());
        // KVM takes a value within a second of what it expects for one that is to change nothing
        // (`kvm_synchronize_tsc`).
        sys::write_msr(&self.vm.vcpu, msrs::TSC, want.wrapping_add(10 * hz))?;
        sys::write_msr(&self.vm.vcpu, msrs::TSC, want)
    }

    /// Makes our time-stamp counter what the guest reads of KVM's, which follows the host's
    /// oscillator and not the host's clock.
    fn follow_tsc(&mut self) -> io::Result<()> {
        if !self.tsc_set {
            return Ok(());
        }
        let shown = sys::read_msr(&self.vm.vcpu, msrs::TSC)?;
        let core = &mut self.interpreter.core;
        let ahead = shown.wrapping_sub(core.tsc());
        core.vcpu.sys.tsc_offset = core.vcpu.sys.tsc_offset.wrapping_add(ahead);
        Ok(())
    }

    /// Executes one instruction by the interpreter, because KVM does not.
    fn execute_one(&mut self, on: &GivesUp) -> Next {
        self.leave()?;
        self.counts.gave_up(on, self.interpreter.core.mode().bitness());
        Ok(Some(self.interpreter.run_alone()).filter(|stop| *stop != Stop::Budget))
    }

    /// Why a slice is the interpreter's: KVM knows no stops for debuggers, and no A20 gate.
    fn reason_to_interpret(&self) -> Option<&'static str> {
        let core = &self.interpreter.core;
        let stops = core.stops.plan() != &Default::default();
        if stops {
            Some("a debugger's stops are set")
        } else {
            (!core.mem.map.a20()).then_some("the A20 gate is closed")
        }
    }

    fn interpret(&mut self, why: &str, budget: u64) -> io::Result<Stop> {
        self.leave()?;
        if std::mem::take(&mut self.stale) {
            self.interpreter.forget();
        }
        let before = self.interpreter.core.now();
        let stop = self.interpreter.run(budget);
        self.counts.interpreted(why, self.interpreter.core.now() - before);
        Ok(stop)
    }

    /// Keeps a failure for the next slice to tell.
    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.failure = Some(HostFailure(format!("KVM does not give the state back: {error}")));
        }
    }
}

fn integer(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl Accelerator for Engine {
    fn run(&mut self, budget: u64) -> Stop {
        match self.interpret("exact counts are wanted", budget) {
            Ok(stop) => stop,
            Err(error) => {
                self.note(Err(error));
                Stop::Replan
            }
        }
    }

    fn run_slice(&mut self, slice: &Slice) -> Result<Stop, HostFailure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let stop = match self.reason_to_interpret() {
            Some(why) => self.interpret(why, slice.instructions),
            None => self.run_slice_under_kvm(slice),
        };
        stop.map_err(|error| HostFailure(format!("KVM fails: {error}")))
    }

    fn counts_instructions(&self) -> bool {
        false
    }

    fn core(&self) -> &Core {
        &self.interpreter.core
    }

    fn core_mut(&mut self) -> &mut Core {
        self.settle();
        &mut self.interpreter.core
    }

    fn lines_mut(&mut self) -> &mut brolga_cpu::bus::Lines {
        &mut self.interpreter.core.lines
    }

    fn interrupts_enabled(&self) -> bool {
        if self.away { self.if_flag } else { self.interpreter.core.vcpu.eflags & rflags::IF != 0 }
    }

    fn settle(&mut self) {
        let result = self.leave();
        self.note(result);
    }

    fn hand_over(&mut self) -> Core {
        self.settle();
        let result = self.follow_tsc();
        self.note(result);
        self.interpreter.core.hand_over()
    }

    fn invalidate_code(&mut self, at: GuestPhys, len: u64) {
        self.interpreter.invalidate_code(at, len);
    }

    fn counts(&self) -> Vec<(String, u64)> {
        self.counts.all()
    }
}
