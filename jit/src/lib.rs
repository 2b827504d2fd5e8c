//! The second tier: hot guest code becomes host code, by the semantics of `brolga-cpu` on
//! Cranelift's function builder.
//!
//! - [`Jit`] (`tier.rs`): the regions there are, how they are found, and what ends them.
//! - `plan.rs`, `survey.rs`: what becomes one region, and what is known of it beforehand.
//! - `translate`: from a plan to Cranelift's IR; `compile.rs`: from there to machine code.
//! - `background.rs`: threads that do so beside the vCPU.
//! - `jump.rs`, `interpreted.rs`: what translated code looks up while it runs.
//! - [`CodeArena`] (`arena.rs`): memory for machine code; `enter.rs`: the way in and out.
//! - `dump.rs`, `stats.rs`: what users may look at.
//!
//! `unsafe` is confined to the modules `arena`, `enter` and `operations`.

mod arena;
mod background;
mod compile;
mod dump;
mod enter;
mod interpreted;
mod jump;
mod native;
mod operations;
mod plan;
mod space;
mod stats;
mod survey;
mod tier;
mod translate;

pub use arena::{ArenaError, CodeArena, CodeId, MAX_ARENA_BYTES};
pub use compile::CompileError;
pub use dump::DumpConfig;
pub use space::CODE_ALIGN;
pub use tier::{Jit, JitConfig, JitError};
