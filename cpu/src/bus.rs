//! What a vCPU sees of the machine around it.

use brolga_mmu::{GuestPhys, Width};

/// Ports, MMIO and everything else that lies outside the vCPU and its memory.
///
/// `at` is the number of instructions that the vCPU has retired at the access: the guest's time
/// follows from it. Reads nobody claims are all ones, writes nobody claims vanish.
pub trait Bus: Send {
    /// IN. The value is zero-extended from `w`.
    fn port_read(&mut self, at: u64, port: u16, w: Width) -> u64;
    /// OUT.
    fn port_write(&mut self, at: u64, port: u16, w: Width, value: u64);
    /// A load from a page that is not RAM; it does not cross a page.
    fn mmio_read(&mut self, at: u64, addr: GuestPhys, w: Width) -> u64;
    /// A store to a page that is not RAM; it does not cross a page.
    fn mmio_write(&mut self, at: u64, addr: GuestPhys, w: Width, value: u64);
    /// RDMSR of a register outside the vCPU (APIC base, x2APIC, TSC deadline). `None` is #GP.
    fn msr_read(&mut self, at: u64, msr: u32) -> Option<u64>;
    /// WRMSR of such a register. `None` is #GP.
    fn msr_write(&mut self, at: u64, msr: u32, value: u64) -> Option<()>;
    /// The time-stamp counter before the guest's own offset.
    fn tsc(&mut self, at: u64) -> u64;
    /// The task-priority register as MOV from CR8 sees it, 0-15.
    fn cr8(&mut self) -> u64;
    /// MOV to CR8, `value` 0-15.
    fn set_cr8(&mut self, at: u64, value: u64);
    /// The interrupt-acknowledge cycle: the vector to deliver, `None` if the request has gone.
    fn acknowledge(&mut self, at: u64) -> Option<u8>;
    /// Whether an access since the last call may have changed interrupt lines, timers or the run
    /// state, so that the machine must look before the vCPU executes its next instruction.
    fn take_replan(&mut self) -> bool;
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
