//! Where translated guest code will live.
//!
//! Nothing is translated yet: the interpreter runs every guest, and a translator (the semantics of
//! `brolga-cpu`, instantiated with Cranelift's function builder) is a later milestone. What exists
//! is its foundation, [`CodeArena`]: memory of a fixed size that takes position-independent
//! machine code, makes it executable, and gets it back in pieces or as a whole.
//!
//! `unsafe` is confined to the module `arena`.

mod arena;
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
