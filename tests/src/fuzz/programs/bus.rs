//! What a program finds outside RAM.

use brolga_cpu::bus::Bus;
use brolga_mmu::{GuestPhys, Width};

use super::layout::INTERRUPT;

/// A bus whose devices answer with numbers. Time is the count of instructions.
#[derive(Default)]
pub(super) struct Answers {
    cr8: u64,
    replan: bool,
}

impl Bus for Answers {
    fn port_read(&mut self, at: u64, port: u16, w: Width) -> u64 {
        (at ^ u64::from(port)) & w.mask()
    }
    /// Odd ports want the machine to look.
    fn port_write(&mut self, _: u64, port: u16, _: Width, _: u64) {
        self.replan |= port & 1 != 0;
    }
    fn mmio_read(&mut self, at: u64, addr: GuestPhys, w: Width) -> u64 {
        (at << 8 ^ addr.0) & w.mask()
    }
    fn mmio_write(&mut self, _: u64, addr: GuestPhys, _: Width, value: u64) {
        self.replan |= (addr.0 ^ value) & 3 == 0;
    }
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
        self.cr8
    }
    fn set_cr8(&mut self, _: u64, value: u64) {
        self.cr8 = value;
    }
    fn acknowledge(&mut self, _: u64) -> Option<u8> {
        Some(INTERRUPT)
    }
    fn take_replan(&mut self) -> bool {
        std::mem::take(&mut self.replan)
    }
}
