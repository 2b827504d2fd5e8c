//! The accelerator that has the host's processor execute the guest, through Linux's KVM.
//!
//! The machine stays the same: its memory is the guest's memory, its chips are ours (KVM's
//! interrupt controllers are not used), its model-specific registers but those that the processor
//! itself works with are ours, and the state moves losslessly between [`brolga_cpu::vcpu::Vcpu`] and
//! KVM ([`state`]). What KVM gives up on, the interpreter executes, one instruction at a time, and
//! the engine counts it ([`engine`]).

mod alarm;
mod counts;
mod cpuid;
mod engine;
mod exit;
mod host;
mod msrs;
mod state;
mod sys;
mod syscall;
mod vm;

pub use engine::{Engine, Stepped, Stepping};
pub use host::Host;
