//! What a second tier looks like to the run loop: something that executes hot code faster.

use brolga_mmu::{GuestPhys, Linear};

use super::Core;
use crate::block::BlockCache;

/// How a run of translated code has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// There is none.
    NotEntered,
    /// Go on wherever RIP points.
    GoOn,
    /// Something may be due before the instruction at RIP: the run loop must look around.
    LookAround,
    /// The instruction at RIP is for the interpreter.
    Interpret,
    /// The rest of the slice is for the interpreter.
    Slice,
}

/// What has come of a block that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// There is translated code now.
    Translated,
    /// There may be soon: ask again.
    Later,
    /// There cannot be.
    Never,
}

/// Executes translated code. All state is in the core before and after; instructions are counted
/// exactly, and none is executed beyond the slice.
pub trait Tier: Send {
    /// Whether there is anything to ask at all.
    const TRANSLATES: bool;

    /// Executions after which a block is handed over.
    fn threshold(&self) -> u32;

    /// Executes the translated code at `at`, which is `ip` in CS, if there is some.
    fn resume(&mut self, core: &mut Core, at: Linear) -> Left;

    /// Translates the code that begins with the block at `place`, now mapped at `at`: there
    /// [`Tier::resume`] finds it.
    fn translate(
        &mut self,
        core: &mut Core,
        blocks: &BlockCache<Core>,
        place: GuestPhys,
        at: Linear,
    ) -> Handed;

    /// Drops what was made from any of `len` bytes at `at`, inside one page. Returns for how many
    /// instructions, up to `now`, the youngest of that has been there.
    fn invalidate(&mut self, at: GuestPhys, len: u64, now: u64) -> Option<u64>;

    /// What in a page code has been made from.
    fn in_page(&self, page: u64) -> Vec<(GuestPhys, u64)>;

    /// Drops everything.
    fn clear(&mut self);

    /// What it has done, for people, if it has been told to count.
    fn report(&self) -> Option<String> {
        None
    }

    /// What translated code was left for, by kind, if it has been told to count.
    fn counts(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

/// The interpreter alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTier;

impl Tier for NoTier {
    const TRANSLATES: bool = false;

    fn threshold(&self) -> u32 {
        u32::MAX
    }

    fn resume(&mut self, _: &mut Core, _: Linear) -> Left {
        Left::NotEntered
    }

    fn translate(&mut self, _: &mut Core, _: &BlockCache<Core>, _: GuestPhys, _: Linear) -> Handed {
        Handed::Never
    }

    fn invalidate(&mut self, _: GuestPhys, _: u64, _: u64) -> Option<u64> {
        None
    }

    fn in_page(&self, _: u64) -> Vec<(GuestPhys, u64)> {
        Vec::new()
    }

    fn clear(&mut self) {}
}
