//! Why KVM came back, as plain values.

use brolga_mmu::Width;
use kvm_bindings as kvm;
use kvm_bindings::kvm_run;

/// Why a run of the guest has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// IN or OUT, once or repeated.
    Port(PortAccess),
    /// An access outside memory.
    Mmio(MmioAccess),
    /// RDMSR of a register of ours.
    ReadMsr(u32),
    /// WRMSR of such a register.
    WriteMsr(u32, u64),
    /// HLT.
    Halt,
    /// Interrupts can be delivered now.
    Window,
    /// The guest has lowered its task priority.
    Priority,
    /// The end of a level-triggered interrupt, in KVM's local APIC.
    EndOfInterrupt(u8),
    /// A triple fault.
    Shutdown,
    /// The one instruction is over, or a breakpoint was met.
    Debug,
    /// A signal.
    Signal,
    /// KVM cannot execute an instruction, or says so: the bytes that it was looking at.
    GivesUp(GivesUp),
}

/// An access to ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortAccess {
    pub(super) port: u16,
    pub(super) width: Width,
    pub(super) write: bool,
    pub(super) count: u32,
    /// Where the values are, from the start of the shared pages.
    data: u64,
}

/// A load or store outside memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MmioAccess {
    pub(super) at: u64,
    pub(super) len: usize,
    pub(super) write: bool,
    pub(super) bytes: [u8; 8],
}

/// What KVM could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivesUp {
    /// Why, in words.
    pub(super) why: &'static str,
    /// The instruction's bytes, as many as KVM tells.
    pub(super) code: [u8; 15],
    pub(super) len: usize,
}

impl GivesUp {
    pub(super) fn on(why: &'static str) -> Self {
        Self { why, code: [0; 15], len: 0 }
    }
}

/// Reads why KVM came back.
pub(super) fn read(run: &kvm_run) -> Exit {
    // SAFETY (of each block here): the exit's reason tells which member of the union KVM has
    // written, and all of them are plain integers.
    let union = &run.__bindgen_anon_1;
    match run.exit_reason {
        kvm::KVM_EXIT_IO => {
            // SAFETY: as above.
            let io = unsafe { union.io };
            Exit::Port(PortAccess {
                port: io.port,
                width: Width::from_bytes(io.size.into()).unwrap_or(Width::W8),
                write: u32::from(io.direction) == kvm::KVM_EXIT_IO_OUT,
                count: io.count,
                data: io.data_offset,
            })
        }
        kvm::KVM_EXIT_MMIO => {
            // SAFETY: as above.
            let mmio = unsafe { union.mmio };
            Exit::Mmio(MmioAccess {
                at: mmio.phys_addr,
                len: (mmio.len as usize).min(8),
                write: mmio.is_write != 0,
                bytes: mmio.data,
            })
        }
        reason @ (kvm::KVM_EXIT_X86_RDMSR | kvm::KVM_EXIT_X86_WRMSR) => {
            // SAFETY: as above.
            let msr = unsafe { union.msr };
            match reason {
                kvm::KVM_EXIT_X86_RDMSR => Exit::ReadMsr(msr.index),
                _ => Exit::WriteMsr(msr.index, msr.data),
            }
        }
        kvm::KVM_EXIT_HLT => Exit::Halt,
        kvm::KVM_EXIT_IRQ_WINDOW_OPEN => Exit::Window,
        kvm::KVM_EXIT_SET_TPR => Exit::Priority,
        kvm::KVM_EXIT_IOAPIC_EOI => {
            // SAFETY: as above.
            Exit::EndOfInterrupt(unsafe { union.eoi }.vector)
        }
        kvm::KVM_EXIT_SHUTDOWN => Exit::Shutdown,
        kvm::KVM_EXIT_DEBUG => Exit::Debug,
        kvm::KVM_EXIT_INTR => Exit::Signal,
        kvm::KVM_EXIT_INTERNAL_ERROR => Exit::GivesUp(internal_error(run)),
        kvm::KVM_EXIT_FAIL_ENTRY => Exit::GivesUp(GivesUp::on("the processor refuses the state")),
        _ => Exit::GivesUp(GivesUp::on("an exit of an unknown kind")),
    }
}

fn internal_error(run: &kvm_run) -> GivesUp {
    // SAFETY: the caller has seen the exit's reason; all of this are plain integers.
    let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
    let why = match failure.suberror {
        kvm::KVM_INTERNAL_ERROR_EMULATION => "not emulated",
        kvm::KVM_INTERNAL_ERROR_DELIVERY_EV => "an exit while an event is delivered",
        _ => "an internal error",
    };
    let mut error = GivesUp::on(why);
    let has_bytes = kvm::KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    if failure.suberror == kvm::KVM_INTERNAL_ERROR_EMULATION
        && failure.ndata > 0
        && failure.flags & u64::from(has_bytes) != 0
    {
        // SAFETY: the flag says that KVM has written the bytes.
        let bytes = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
        error.len = usize::from(bytes.insn_size).min(15);
        error.code = bytes.insn_bytes;
    }
    error
}

/// The values of an access to ports, in the pages that are shared with KVM.
pub(super) fn port_data<'a>(run: &'a mut kvm_run, access: &PortAccess) -> &'a mut [u8] {
    let len = access.width.bytes() as usize * access.count as usize;
    let start = std::ptr::from_mut(run).cast::<u8>();
    // SAFETY: KVM has put `len` bytes at this offset of the mapping that `run` is the start of, and
    // does not touch them until the next run.
    unsafe { std::slice::from_raw_parts_mut(start.add(access.data as usize), len) }
}

/// Answers a load outside memory.
pub(super) fn answer_mmio(run: &mut kvm_run, bytes: [u8; 8]) {
    run.__bindgen_anon_1.mmio.data = bytes;
}

/// Answers RDMSR, or accepts WRMSR; `None` is #GP.
pub(super) fn answer_msr(run: &mut kvm_run, value: Option<u64>) {
    // SAFETY: the exit was one for a register, so that this is the member that KVM has written.
    let msr = unsafe { &mut run.__bindgen_anon_1.msr };
    msr.error = u8::from(value.is_none());
    msr.data = value.unwrap_or_default();
}
