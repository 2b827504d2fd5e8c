//! KVM's local APIC in place of ours: the split form of its interrupt controllers, in which 8259s and
//! IOAPIC stay with the machine.
//!
//! The state of the local APIC moves with the vCPU's. While KVM has it, the IOAPIC's messages go
//! there, ends of level-triggered interrupts come back as exits, and the guest halts inside KVM.

use std::io;
use std::sync::{Arc, Mutex};

use brolga_cpu::core::Core;
use brolga_cpu::system::msr;
use brolga_cpu::vcpu::Activity;
use brolga_devices::lapic::{Count, Page};
use brolga_devices::message::BROADCAST;
use brolga_devices::{DeliveryMode, InterruptMessage, ioapic};
use kvm_bindings as kvm;

use super::Engine;
use crate::board::{Chipset, LapicState, lock};
use crate::kvm::sys::host;
use crate::kvm::vm::Vm;
use crate::kvm::{msrs, sys};

/// The board whose local APIC is KVM's while the guest runs.
pub(super) struct KernelApic {
    chips: Arc<Mutex<Chipset>>,
    /// The IOAPIC's messages whose ends KVM tells.
    told: [Option<InterruptMessage>; ioapic::PINS],
}

impl KernelApic {
    pub(super) fn new(chips: Arc<Mutex<Chipset>>) -> Self {
        Self { chips, told: [None; ioapic::PINS] }
    }

    /// Whether KVM has the board's local APIC.
    fn is_lent(&self) -> bool {
        lock(&self.chips).lapic_is_lent()
    }

    /// Whether an interrupt of the 8259s would reach the processor.
    pub(super) fn accepts_external_interrupts(&self) -> bool {
        lock(&self.chips).accepts_external_interrupts()
    }

    /// Gives KVM the local APIC. Its time-stamp counter shows the guest's time already.
    pub(super) fn give(&self, vm: &Vm, core: &mut Core) -> io::Result<()> {
        let mut chips = lock(&self.chips);
        let now = chips.now(core.now());
        let LapicState { page, deadline, .. } = chips.lapic_state(now);
        let mut state = kvm::kvm_lapic_state::default();
        for (register, value) in state.regs.chunks_exact_mut(16).zip(page) {
            for (place, byte) in register.iter_mut().zip(value.to_le_bytes()) {
                *place = byte as _;
            }
        }
        vm.vcpu.set_lapic(&state).map_err(host)?;
        // Also where there is none: KVM would go on with the last one that it had.
        sys::write_msr(&vm.vcpu, msrs::TSC_DEADLINE, deadline)?;
        chips.lend_lapic();
        core.lines.intr = chips.intr();
        Ok(())
    }

    /// Brings the IOAPIC's messages to KVM; how many.
    pub(super) fn send(&mut self, vm: &Vm) -> io::Result<u64> {
        let mut chips = lock(&self.chips);
        let level = chips.level_messages();
        if level != self.told {
            sys::set_routes(&vm.vm, level.iter().flatten().map(message))?;
            self.told = level;
        }
        let mut count = 0;
        while let Some(next) = chips.next_message() {
            vm.vm.signal_msi(message(&next)).map_err(host)?;
            count += 1;
        }
        Ok(count)
    }

    pub(super) fn end_of_interrupt(&self, vector: u8) {
        lock(&self.chips).end_of_interrupt(vector);
    }
}

/// The registers of KVM's local APIC.
fn page(vm: &Vm) -> io::Result<Page> {
    let state = vm.vcpu.get_lapic().map_err(host)?;
    Ok(std::array::from_fn(|n| {
        u32::from_le_bytes(std::array::from_fn(|byte| state.regs[16 * n + byte] as u8))
    }))
}

impl Engine {
    /// The registers of KVM's local APIC, if it has ours, before the vCPU's state is read.
    ///
    /// KVM does not tell of an interrupt of its timer that is due and not yet requested. One that
    /// waits for a deadline still has it then, and one that counts down once is over only if its
    /// count is; in other cases, KVM is given the occasion to request it.
    pub(super) fn page(&mut self) -> io::Result<Option<Page>> {
        if !self.apic.as_ref().is_some_and(KernelApic::is_lent) {
            return Ok(None);
        }
        let before = page(&self.vm)?;
        let Some(count) = Count::of(&before).filter(|count| count.periodic || count.current == 0)
        else {
            return Ok(Some(before));
        };
        self.settle_timer()?;
        let mut after = page(&self.vm)?;
        // It has run out in between, and perhaps after KVM has looked.
        if Count::of(&after).is_some_and(|now| now.current > count.current) {
            count.request(&mut after);
        }
        Ok(Some(after))
    }

    /// Has KVM request the interrupts of its timer that are due, as it does each time before it looks
    /// for signals. The guest executes nothing.
    fn settle_timer(&mut self) -> io::Result<()> {
        self.vm.vcpu.get_kvm_run().request_interrupt_window = 0;
        self.alarm()?.ring()?;
        loop {
            let ran = self.vm.vcpu.run().map(drop);
            match ran {
                Ok(()) => drop(self.serve()?),
                Err(error) if error.errno() == libc::EINTR => break,
                Err(error) => return Err(host(error)),
            }
        }
        self.alarm()?.silence();
        Ok(())
    }

    /// Goes on with our local APIC, which at KVM has come to have these registers.
    pub(super) fn take_apic_back(&mut self, page: Page) -> io::Result<()> {
        let base = sys::read_msr(&self.vm.vcpu, msrs::APIC_BASE)?;
        let deadline = sys::read_msr(&self.vm.vcpu, msrs::TSC_DEADLINE)?;
        let core = &mut self.interpreter.core;
        let Some(apic) = &self.apic else { return Ok(()) };
        let mut chips = lock(&apic.chips);
        let now = chips.now(core.now());
        chips.take_lapic_back(now, &LapicState { base, page, deadline });
        drop(chips);
        // As the guest would write it, because its own offset is a part of it. In other modes than
        // the deadline's, this is ignored.
        let _ = msr::write(core, msrs::TSC_DEADLINE, deadline);
        core.lines.intr = lock(&apic.chips).intr();
        Ok(())
    }

    /// After a signal: if the guest has halted inside KVM, which says so to nobody, that is known
    /// from here on, and its local APIC is ours again.
    pub(super) fn follow_halt(&mut self) -> io::Result<()> {
        if self.apic.is_none() {
            return Ok(());
        }
        let state = self.vm.vcpu.get_mp_state().map_err(host)?;
        if state.mp_state != kvm::KVM_MP_STATE_HALTED {
            return Ok(());
        }
        let running = kvm::kvm_mp_state { mp_state: kvm::KVM_MP_STATE_RUNNABLE };
        self.vm.vcpu.set_mp_state(running).map_err(host)?;
        let pending = self.take_back()?;
        if pending.event.is_none() {
            self.interpreter.core.vcpu.activity = Activity::Halted;
        }
        self.deliver(pending);
        Ok(())
    }
}

/// An interrupt message as a store to memory (SDM vol. 3, 10.11).
fn message(from: &InterruptMessage) -> kvm::kvm_msi {
    const ADDRESS: u32 = 0xfee0_0000;
    const ASSERT: u32 = 1 << 14;
    let InterruptMessage { vector, delivery, destination, logical, level } = *from;
    let to = if destination == BROADCAST { 0xff } else { destination & 0xff };
    let lowest = delivery == DeliveryMode::LowestPriority;
    kvm::kvm_msi {
        address_lo: ADDRESS | to << 12 | u32::from(lowest) << 3 | u32::from(logical) << 2,
        data: u32::from(vector) | delivery.bits() << 8 | ASSERT | u32::from(level) << 15,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_stores() {
        let fixed = |destination, logical, level| InterruptMessage {
            vector: 0x51,
            delivery: DeliveryMode::Fixed,
            destination,
            logical,
            level,
        };
        let plain = message(&fixed(3, false, false));
        assert_eq!((plain.address_lo, plain.address_hi, plain.data), (0xfee0_3000, 0, 0x4051));
        let level = message(&fixed(BROADCAST, true, true));
        assert_eq!((level.address_lo, level.data), (0xfeef_f004, 0xc051));
        let delivery = DeliveryMode::LowestPriority;
        let lowest = message(&InterruptMessage { delivery, ..fixed(1, true, false) });
        assert_eq!((lowest.address_lo, lowest.data), (0xfee0_100c, 0x4151));
    }
}
