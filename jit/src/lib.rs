//! The second tier: hot guest code becomes host code, by the semantics of `brolga-cpu` on
//! Cranelift's function builder.
//!
//! - [`Jit`] (`tier.rs`): the regions there are, how they are found, and what ends them.
//! - `code.rs`, `plan.rs`, `survey.rs`, `recipe.rs`: what becomes one region, and what is known of it
//!   beforehand.
//! - `translate`: from a plan to Cranelift's IR; `compile.rs`: from there to machine code, and
//!   `frame.rs` to regions, which share one stack frame.
//! - `job.rs`, `background.rs`: threads that do so beside the vCPU.
//! - `jump.rs`, `interpreted.rs`, `sites.rs`: what translated code looks up while it runs.
//! - [`JitConfig`] (`config.rs`): the settings.
//! - [`CodeArena`] (`arena.rs`): memory for machine code; `enter.rs`: the way in and out.
//! - `operations.rs`, `x87.rs`: instructions of the host that Cranelift does not know.
//! - `dump.rs`, `stats.rs`: what users may look at.
//!
//! `unsafe` is confined to the modules `arena`, `enter`, `operations`, `preserve` and `x87`.

mod arena;
mod background;
mod code;
mod compile;
mod config;
mod dump;
mod enter;
mod frame;
mod interpreted;
mod job;
mod jump;
mod native;
mod operations;
mod plan;
mod preserve;
mod recipe;
mod sites;
#[cfg(test)]
mod snapshot;
mod space;
mod stats;
mod survey;
mod tier;
mod translate;
mod x87;

pub use arena::{ArenaError, CodeArena, CodeId, MAX_ARENA_BYTES};
pub use compile::CompileError;
pub use config::JitConfig;
pub use dump::DumpConfig;
pub use space::CODE_ALIGN;
pub use tier::{Jit, JitError};
