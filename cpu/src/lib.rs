//! The vCPU: architectural state, decoding, the semantics of every instruction, and the
//! interpreter that is their first instantiation.
//!
//! - [`vcpu`], [`flags`]: the state.
//! - [`decode`], [`select`], [`insn`], [`block`], [`chain`]: from bytes to handlers.
//! - [`backend`], [`semantics`], [`vector`]: what instructions mean, generic over an engine.
//! - [`core`]: the interpreter: softmmu, run loop, events.
//! - [`system`], [`cpuid`], [`exception`]: privileged and complex instructions, event delivery.
//! - [`x87`], [`softfloat`], [`host`]: floating point.

pub mod backend;
pub mod block;
pub mod bus;
pub mod chain;
pub mod core;
pub mod cpuid;
pub mod decode;
pub mod exception;
pub mod flags;
pub mod host;
pub mod insn;
pub mod select;
pub mod semantics;
pub mod softfloat;
pub mod system;
pub mod vcpu;
pub mod vector;
pub mod x87;
