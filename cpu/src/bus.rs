//! What a vCPU sees of the machine around it.

use brolga_mmu::{GuestPhys, Width};

/// Ports, MMIO and everything else that lies outside the vCPU and its memory.
///
/// `at` is the number of instructions that the vCPU has retired at the access: the guest's time
/// follows from it. Reads nobody claims are all ones, writes nobody claims vanish: the methods' own
/// bodies are a bus with nobody on it.
pub trait Bus: Send {
    /// IN. The value is zero-extended from `w`.
    fn port_read(&mut self, _at: u64, _port: u16, w: Width) -> u64 {
        w.mask()
    }
    /// OUT.
    fn port_write(&mut self, _at: u64, _port: u16, _w: Width, _value: u64) {}
    /// A load from a page that is not RAM; it does not cross a page.
    fn mmio_read(&mut self, _at: u64, _addr: GuestPhys, w: Width) -> u64 {
        w.mask()
    }
    /// A store to a page that is not RAM; it does not cross a page.
    fn mmio_write(&mut self, _at: u64, _addr: GuestPhys, _w: Width, _value: u64) {}
    /// RDMSR of a register outside the vCPU (APIC base, x2APIC, TSC deadline). `None` is #GP.
    fn msr_read(&mut self, _at: u64, _msr: u32) -> Option<u64> {
        None
    }
    /// WRMSR of such a register. `None` is #GP.
    fn msr_write(&mut self, _at: u64, _msr: u32, _value: u64) -> Option<()> {
        None
    }
    /// WRMSR of IA32_TSC_DEADLINE. It reads back as `value`; the timer expires when [`Bus::tsc`],
    /// which is without the guest's own offset, reaches `due`.
    fn set_tsc_deadline(&mut self, _at: u64, _value: u64, _due: u64) {}
    /// The time-stamp counter before the guest's own offset.
    fn tsc(&mut self, at: u64) -> u64 {
        at
    }
    /// The task-priority register as MOV from CR8 sees it, 0-15.
    fn cr8(&mut self) -> u64 {
        0
    }
    /// MOV to CR8, `value` 0-15.
    fn set_cr8(&mut self, _at: u64, _value: u64) {}
    /// The FERR# pin: an unmasked x87 exception is reported to the board, with CR0.NE clear.
    fn set_ferr(&mut self, _at: u64, _active: bool) {}
    /// The IGNNE# pin: x87 instructions go on although an error is reported.
    fn ignne(&mut self) -> bool {
        true
    }
    /// The interrupt-acknowledge cycle: the vector to deliver, `None` if the request has gone.
    fn acknowledge(&mut self, _at: u64) -> Option<u8> {
        None
    }
    /// Whether an access since the last call may have changed interrupt lines, timers or the run
    /// state, so that the machine must look before the vCPU executes its next instruction.
    fn take_replan(&mut self) -> bool {
        false
    }
}

/// Interrupt inputs of the vCPU, driven by the machine between run slices.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines {
    /// INTR: a maskable interrupt waits to be acknowledged.
    pub intr: bool,
    /// An NMI has been latched.
    pub nmi: bool,
}

/// A bus with no device: a vCPU with RAM and nothing else, as tests of instructions want it. Time
/// is the number of retired instructions.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDevices;

impl Bus for NoDevices {}
