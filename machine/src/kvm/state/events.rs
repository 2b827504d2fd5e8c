//! What the processor is in the middle of between two instructions.

use brolga_cpu::exception::{Exception, Why, vector};
use brolga_cpu::system::interrupt::Event;
use brolga_cpu::vcpu::{Shadow, Vcpu};
use kvm_bindings as kvm;

/// An event that KVM holds and has not delivered.
#[derive(Debug, Default)]
pub(in crate::kvm) struct Pending {
    /// It is to be delivered before the next instruction.
    pub(in crate::kvm) event: Option<Event>,
    /// An NMI waits for its turn.
    pub(in crate::kvm) nmi: bool,
}

pub(super) fn to_kvm(state: &Vcpu) -> kvm::kvm_vcpu_events {
    let mut events = kvm::kvm_vcpu_events {
        flags: kvm::KVM_VCPUEVENT_VALID_SHADOW
            | kvm::KVM_VCPUEVENT_VALID_NMI_PENDING
            | kvm::KVM_VCPUEVENT_VALID_PAYLOAD,
        ..Default::default()
    };
    events.interrupt.shadow = match state.shadow {
        Shadow::None => 0,
        Shadow::Sti => kvm::KVM_X86_SHADOW_INT_STI as u8,
        Shadow::MovSs => kvm::KVM_X86_SHADOW_INT_MOV_SS as u8,
    };
    events.nmi.masked = state.nmi_blocked.into();
    if state.pending_db != 0 {
        events.exception.pending = 1;
        events.exception.nr = vector::DB;
        events.exception_has_payload = 1;
        events.exception_payload = state.pending_db;
    }
    events
}

pub(super) fn from_kvm(state: &mut Vcpu, events: &kvm::kvm_vcpu_events) -> Pending {
    let shadow = u32::from(events.interrupt.shadow);
    state.shadow = if shadow & kvm::KVM_X86_SHADOW_INT_MOV_SS != 0 {
        Shadow::MovSs
    } else if shadow != 0 {
        Shadow::Sti
    } else {
        Shadow::None
    };
    state.nmi_blocked = events.nmi.masked != 0;
    let exception = &events.exception;
    let payload = (events.exception_has_payload != 0).then_some(events.exception_payload);
    let is_trap = exception.pending != 0 && exception.nr == vector::DB && payload.is_some();
    state.pending_db = if is_trap { events.exception_payload } else { 0 };
    // INT n, INT3 and INTO are delivered by executing them again: RIP is still theirs.
    let by_instruction = exception.injected != 0 && matches!(exception.nr, vector::BP | vector::OF);
    let is_fault = (exception.pending | exception.injected) != 0 && !is_trap && !by_instruction;
    let event = if is_fault {
        Some(Event::Exception(Exception {
            vector: exception.nr,
            error: (exception.has_error_code != 0).then_some(exception.error_code),
            // That of a fault which is being injected is in CR2 already.
            address: payload.filter(|_| exception.nr == vector::PF),
            trap: false,
            why: Why::Text("raised under KVM"),
        }))
    } else if events.nmi.injected != 0 {
        Some(Event::Nmi)
    } else if events.interrupt.injected != 0 && events.interrupt.soft == 0 {
        Some(Event::Interrupt(events.interrupt.nr))
    } else {
        None
    };
    Pending { event, nmi: events.nmi.pending != 0 }
}
