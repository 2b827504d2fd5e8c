//! gdbstub's view of a machine: each of its extensions in terms of [`DebugTarget`].

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::num::NonZeroUsize;

use gdbstub::arch::{Arch, RegId, Registers};
use gdbstub::common::{Endianness, Pid, Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadRangeStepping, MultiThreadRangeSteppingOps, MultiThreadResume,
    MultiThreadResumeOps, MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps,
    MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{
    SingleRegisterAccess, SingleRegisterAccessOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind as GdbWatchKind,
};
use gdbstub::target::ext::extended_mode::{
    Args, AttachKind, ExtendedMode, ExtendedModeOps, ShouldTerminate,
};
use gdbstub::target::ext::host_info::{HostInfo, HostInfoOps, HostInfoResponse};
use gdbstub::target::ext::memory_map::{MemoryMap, MemoryMapOps};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::process_info::{ProcessInfo, ProcessInfoOps, ProcessInfoResponse};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};

use crate::layout::{Entry, Layout};
use crate::target::{DebugError, DebugTarget, Requests, Resume, Watch, WatchKind};

/// The only vCPU, as a thread.
pub(crate) const VCPU: Tid = NonZeroUsize::MIN;
/// The machine, as a process.
const MACHINE: Pid = NonZeroUsize::MIN;

const EFAULT: u8 = 14;
const EINVAL: u8 = 22;
const EIO: u8 = 5;

/// The architecture. Its register file is a [`Layout`], described by the target at run time.
pub(crate) enum X86 {}

impl Arch for X86 {
    type Usize = u64;
    type Registers = RegisterBytes;
    type BreakpointKind = usize;
    type RegId = Number;
}

/// The register file as bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RegisterBytes {
    bytes: Vec<u8>,
    pc: u64,
}

impl Registers for RegisterBytes {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.bytes.iter().for_each(|byte| write_byte(Some(*byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.bytes = bytes.to_vec();
        Ok(())
    }
}

/// A register's number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number(usize);

impl RegId for Number {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        Some((Number(id), None))
    }
}

/// A machine and what a debugger wants of it.
pub(crate) struct Stub<'t, T: DebugTarget> {
    pub(crate) target: &'t mut T,
    pub(crate) layout: &'static Layout,
    /// Addresses of memory are physical.
    pub(crate) physical: bool,
    /// The debugger can run again what it has killed.
    extended: bool,
    /// It has killed the machine, and not yet run it again.
    pub(crate) killed: bool,
    /// What the next run is to do.
    pub(crate) action: Resume,
    pub(crate) software: BTreeSet<u64>,
    pub(crate) hardware: BTreeSet<u64>,
    watches: Vec<Watch>,
}

impl<'t, T: DebugTarget> Stub<'t, T> {
    pub(crate) fn new(target: &'t mut T) -> Self {
        let layout = Layout::of(target.has_long_mode(), target.registers().code_bits());
        Self {
            target,
            layout,
            physical: false,
            extended: false,
            killed: false,
            action: Resume::Continue,
            software: BTreeSet::new(),
            hardware: BTreeSet::new(),
            watches: Vec::new(),
        }
    }

    /// What to stop for, besides what the machine has been told by command.
    pub(crate) fn requests(&self) -> Requests {
        Requests { breakpoints: &self.software | &self.hardware, watches: self.watches.clone() }
    }

    fn entry(&self, number: Number) -> Result<&'static Entry, TargetError<Infallible>> {
        self.layout.entries.get(number.0).ok_or(TargetError::Errno(EINVAL))
    }

    fn value(&self, entry: &Entry) -> [u8; 16] {
        self.target.read_register(entry.register).to_le_bytes()
    }

    fn set(&mut self, entry: &Entry, bytes: &[u8]) -> Result<(), TargetError<Infallible>> {
        if bytes.len() != entry.bytes() {
            return Err(TargetError::Errno(EINVAL));
        }
        let mut value = [0; 16];
        value[..bytes.len()].copy_from_slice(bytes);
        let value = u128::from_le_bytes(value);
        self.target.write_register(entry.register, value).map_err(errno)
    }
}

fn errno(error: DebugError) -> TargetError<Infallible> {
    TargetError::Errno(match error {
        DebugError::NotMapped(_) | DebugError::NoMemory(_) => EFAULT,
        DebugError::BadValue => EINVAL,
    })
}

/// GDB takes addresses outside its map for inaccessible, and thinks in linear ones, which the guest
/// maps as it likes: all of them are memory.
const MEMORY_MAP: &str = "<?xml version=\"1.0\"?>
<!DOCTYPE memory-map PUBLIC \"+//IDN gnu.org//DTD GDB Memory Map V1.0//EN\" \
\"http://sourceware.org/gdb/gdb-memory-map.dtd\">
<memory-map>
<memory type=\"ram\" start=\"0x0\" length=\"0x8000000000000000\"/>
<memory type=\"ram\" start=\"0x8000000000000000\" length=\"0x8000000000000000\"/>
</memory-map>
";

/// Copies the part of `text` that a debugger has asked for.
fn copy_part(text: &str, offset: u64, length: usize, to: &mut [u8]) -> usize {
    let bytes = text.as_bytes();
    let start = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
    let count = length.min(to.len()).min(bytes.len() - start);
    to[..count].copy_from_slice(&bytes[start..start + count]);
    count
}

impl<T: DebugTarget> Target for Stub<'_, T> {
    type Arch = X86;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, X86, Infallible> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_extended_mode(&mut self) -> Option<ExtendedModeOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }

    fn support_memory_map(&mut self) -> Option<MemoryMapOps<'_, Self>> {
        Some(self)
    }

    fn support_host_info(&mut self) -> Option<HostInfoOps<'_, Self>> {
        Some(self)
    }

    fn support_process_info(&mut self) -> Option<ProcessInfoOps<'_, Self>> {
        Some(self)
    }
}

impl<T: DebugTarget> MultiThreadBase for Stub<'_, T> {
    fn read_registers(&mut self, to: &mut RegisterBytes, _: Tid) -> TargetResult<(), Self> {
        let entries = &self.layout.entries;
        to.bytes = entries.iter().fold(Vec::new(), |mut bytes, entry| {
            bytes.extend_from_slice(&self.value(entry)[..entry.bytes()]);
            bytes
        });
        to.pc = self.target.registers().linear_rip();
        Ok(())
    }

    fn write_registers(&mut self, from: &RegisterBytes, _: Tid) -> TargetResult<(), Self> {
        if from.bytes.len() != self.layout.bytes() {
            return Err(TargetError::Errno(EINVAL));
        }
        let mut rest = &from.bytes[..];
        for entry in &self.layout.entries {
            let (bytes, next) = rest.split_at(entry.bytes());
            rest = next;
            if bytes != &self.value(entry)[..entry.bytes()] {
                self.set(entry, bytes)?;
            }
        }
        Ok(())
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, at: u64, to: &mut [u8], _: Tid) -> TargetResult<usize, Self> {
        if self.physical {
            self.target.read_physical(at, to).map_err(errno)?;
            return Ok(to.len());
        }
        match self.target.read_linear(at, to) {
            0 if !to.is_empty() => Err(TargetError::Errno(EFAULT)),
            read => Ok(read),
        }
    }

    fn write_addrs(&mut self, at: u64, from: &[u8], _: Tid) -> TargetResult<(), Self> {
        if self.physical {
            self.target.write_physical(at, from).map_err(errno)
        } else {
            self.target.write_linear(at, from).map_err(errno)
        }
    }

    fn list_active_threads(&mut self, active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        active(VCPU);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl<T: DebugTarget> SingleRegisterAccess<Tid> for Stub<'_, T> {
    fn read_register(
        &mut self,
        _: Tid,
        number: Number,
        to: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let entry = self.entry(number)?;
        let bytes = &self.value(entry)[..entry.bytes()];
        let to = to.get_mut(..bytes.len()).ok_or(TargetError::Errno(EIO))?;
        to.copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_register(&mut self, _: Tid, number: Number, from: &[u8]) -> TargetResult<(), Self> {
        let entry = self.entry(number)?;
        self.set(entry, from)
    }
}

impl<T: DebugTarget> ThreadExtraInfo for Stub<'_, T> {
    fn thread_extra_info(&self, _: Tid, to: &mut [u8]) -> Result<usize, Infallible> {
        let registers = self.target.registers();
        let text = format!("CPU 0, {}-bit code, CPL {}", registers.code_bits(), registers.cpl);
        Ok(copy_part(&text, 0, to.len(), to))
    }
}

impl<T: DebugTarget> MultiThreadResume for Stub<'_, T> {
    fn resume(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.action = Resume::Continue;
        Ok(())
    }

    /// Signals are nothing that a machine could be given.
    fn set_resume_action_continue(&mut self, _: Tid, _: Option<Signal>) -> Result<(), Infallible> {
        self.action = Resume::Continue;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<MultiThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl<T: DebugTarget> MultiThreadSingleStep for Stub<'_, T> {
    fn set_resume_action_step(&mut self, _: Tid, _: Option<Signal>) -> Result<(), Infallible> {
        self.action = Resume::Step;
        Ok(())
    }
}

impl<T: DebugTarget> MultiThreadRangeStepping for Stub<'_, T> {
    fn set_resume_action_range_step(
        &mut self,
        _: Tid,
        start: u64,
        end: u64,
    ) -> Result<(), Infallible> {
        self.action = Resume::StepInside { start, end };
        Ok(())
    }
}

impl<T: DebugTarget> MultiThreadSchedulerLocking for Stub<'_, T> {
    /// There is only one thread.
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl<T: DebugTarget> Breakpoints for Stub<'_, T> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl<T: DebugTarget> SwBreakpoint for Stub<'_, T> {
    fn add_sw_breakpoint(&mut self, at: u64, _: usize) -> TargetResult<bool, Self> {
        self.software.insert(at);
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, at: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.software.remove(&at))
    }
}

impl<T: DebugTarget> HwBreakpoint for Stub<'_, T> {
    fn add_hw_breakpoint(&mut self, at: u64, _: usize) -> TargetResult<bool, Self> {
        self.hardware.insert(at);
        Ok(true)
    }

    fn remove_hw_breakpoint(&mut self, at: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.hardware.remove(&at))
    }
}

impl<T: DebugTarget> HwWatchpoint for Stub<'_, T> {
    fn add_hw_watchpoint(
        &mut self,
        at: u64,
        len: u64,
        kind: GdbWatchKind,
    ) -> TargetResult<bool, Self> {
        let watch = Watch { at, len, kind: watch_kind(kind) };
        let possible = len > 0 && at.checked_add(len - 1).is_some();
        if possible && !self.watches.contains(&watch) {
            self.watches.push(watch);
        }
        Ok(possible)
    }

    fn remove_hw_watchpoint(
        &mut self,
        at: u64,
        len: u64,
        kind: GdbWatchKind,
    ) -> TargetResult<bool, Self> {
        let watch = Watch { at, len, kind: watch_kind(kind) };
        let before = self.watches.len();
        self.watches.retain(|other| *other != watch);
        Ok(self.watches.len() < before)
    }
}

fn watch_kind(kind: GdbWatchKind) -> WatchKind {
    match kind {
        GdbWatchKind::Write => WatchKind::Write,
        GdbWatchKind::Read => WatchKind::Read,
        GdbWatchKind::ReadWrite => WatchKind::Access,
    }
}

pub(crate) fn gdb_watch_kind(kind: WatchKind) -> GdbWatchKind {
    match kind {
        WatchKind::Write => GdbWatchKind::Write,
        WatchKind::Read => GdbWatchKind::Read,
        WatchKind::Access => GdbWatchKind::ReadWrite,
    }
}

impl<T: DebugTarget> MonitorCmd for Stub<'_, T> {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), Infallible> {
        let answer = self.target.command(&String::from_utf8_lossy(command));
        // In pieces that fit in any debugger's packets.
        for piece in answer.as_bytes().chunks(crate::link::PACKET_BYTES / 8) {
            out.write_raw(piece);
            out.flush();
        }
        Ok(())
    }
}

impl<T: DebugTarget> ExtendedMode for Stub<'_, T> {
    fn run(&mut self, _: Option<&[u8]>, _: Args<'_, '_>) -> TargetResult<Pid, Self> {
        self.target.restart().map_err(errno)?;
        self.killed = false;
        Ok(MACHINE)
    }

    fn attach(&mut self, _: Pid) -> TargetResult<(), Self> {
        Ok(())
    }

    /// A debugger that leaves detaches from what it was attached to.
    fn query_if_attached(&mut self, _: Pid) -> TargetResult<AttachKind, Self> {
        Ok(AttachKind::Attach)
    }

    fn kill(&mut self, _: Option<Pid>) -> TargetResult<ShouldTerminate, Self> {
        self.killed = true;
        Ok(if self.extended { ShouldTerminate::No } else { ShouldTerminate::Yes })
    }

    fn on_start(&mut self) -> Result<(), Infallible> {
        self.extended = true;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Infallible> {
        if let Err(error) = self.target.restart() {
            tracing::warn!("the machine does not restart: {error}");
        }
        Ok(())
    }
}

impl<T: DebugTarget> TargetDescriptionXmlOverride for Stub<'_, T> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        to: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::Errno(EINVAL));
        }
        Ok(copy_part(&self.layout.xml, offset, length, to))
    }
}

impl<T: DebugTarget> MemoryMap for Stub<'_, T> {
    fn memory_map_xml(
        &self,
        offset: u64,
        length: usize,
        to: &mut [u8],
    ) -> TargetResult<usize, Self> {
        Ok(copy_part(MEMORY_MAP, offset, length, to))
    }
}

/// What LLDB calls the machine.
fn triple(long_mode: bool) -> &'static str {
    if long_mode { "x86_64-unknown-none" } else { "i386-unknown-none" }
}

fn pointer_bytes(long_mode: bool) -> usize {
    if long_mode { 8 } else { 4 }
}

impl<T: DebugTarget> HostInfo for Stub<'_, T> {
    fn host_info(&self, write: &mut dyn FnMut(&HostInfoResponse<'_>)) -> Result<(), Infallible> {
        let long = self.target.has_long_mode();
        write(&HostInfoResponse::Triple(triple(long)));
        write(&HostInfoResponse::Endianness(Endianness::Little));
        write(&HostInfoResponse::PointerSize(pointer_bytes(long)));
        Ok(())
    }
}

impl<T: DebugTarget> ProcessInfo for Stub<'_, T> {
    fn process_info(
        &self,
        write: &mut dyn FnMut(&ProcessInfoResponse<'_>),
    ) -> Result<(), Infallible> {
        let long = self.target.has_long_mode();
        write(&ProcessInfoResponse::Pid(MACHINE));
        write(&ProcessInfoResponse::Triple(triple(long)));
        write(&ProcessInfoResponse::Endianness(Endianness::Little));
        write(&ProcessInfoResponse::PointerSize(pointer_bytes(long)));
        Ok(())
    }
}
