//! Memory for machine code. The only module of the crate with `unsafe`.
//!
//! One anonymous file is mapped twice: a view that can be written and a view that can be executed.
//! No mapping is ever both, and none changes its protection, so publishing costs no system call.

use std::io;

use memmap2::MmapRaw;
use rustc_hash::FxHashMap;

use crate::space::{CODE_ALIGN, Space, Span};

/// The largest arena: every place in it reaches every other with a 32-bit relative branch.
pub const MAX_ARENA_BYTES: usize = 1 << 31;

/// INT3: what a jump to freed code, or behind the end of code, runs into.
const TRAP: u8 = 0xcc;

/// Why there is no arena, or no room in it.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// The size is nothing that an arena can have.
    #[error("a code arena has 1 to {MAX_ARENA_BYTES} bytes, not {bytes}")]
    Size {
        /// The size asked for.
        bytes: usize,
    },
    /// Publishing is implemented for Linux on x86-64: others lack `memfd_create`, or want caches
    /// maintained between writing code and running it.
    #[error("code arenas need Linux on x86-64")]
    Unsupported,
    /// The host does not give the memory.
    #[error("cannot map {bytes} bytes for code: {source}")]
    Map {
        /// The size asked for.
        bytes: usize,
        /// The host's reason.
        source: io::Error,
    },
    /// There is no free run of bytes of that size: free code, or reset the arena.
    #[error("no room for {bytes} bytes of code")]
    Full {
        /// The size of the code.
        bytes: usize,
    },
}

/// A piece of published code. Numbers are never used twice, so that one that outlives its code
/// finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeId(u64);

/// A fixed amount of memory for position-independent machine code.
///
/// Code is published on the thread that runs it: code that takes the place of other code needs
/// a serializing instruction between the writing and the running, and
/// [`CodeArena::publish`] executes it.
#[derive(Debug)]
pub struct CodeArena {
    writable: MmapRaw,
    executable: MmapRaw,
    space: Space,
    live: FxHashMap<CodeId, Span>,
    next_id: u64,
    /// Below this offset there has been code before.
    used: usize,
}

impl CodeArena {
    /// Reserves `bytes` bytes (rounded up to [`CODE_ALIGN`]). The host provides pages as they are
    /// filled.
    pub fn new(bytes: usize) -> Result<CodeArena, ArenaError> {
        if !(1..=MAX_ARENA_BYTES).contains(&bytes) {
            return Err(ArenaError::Size { bytes });
        }
        let bytes = bytes.next_multiple_of(CODE_ALIGN);
        let (writable, executable) = map_views(bytes)?;
        Ok(CodeArena {
            writable,
            executable,
            space: Space::new(bytes),
            live: FxHashMap::default(),
            next_id: 0,
            used: 0,
        })
    }

    /// Bytes there are.
    pub fn capacity(&self) -> usize {
        self.space.size()
    }

    /// Bytes that hold code, alignment included.
    pub fn occupied(&self) -> usize {
        self.space.taken()
    }

    /// Copies `code` into the arena, where it can be executed at [`CodeArena::entry`].
    pub fn publish(&mut self, code: &[u8]) -> Result<CodeId, ArenaError> {
        let span = self.space.take(code.len()).ok_or(ArenaError::Full { bytes: code.len() })?;
        let padding = span.len - code.len();
        let to = self.at(span.start);
        // SAFETY: the span lies inside the writable view, and nothing else borrows or writes those
        // bytes: they are not part of any live code, and `self` is borrowed mutably. `code` cannot
        // overlap them, because no reference to the view's bytes is ever made.
        unsafe {
            to.copy_from_nonoverlapping(code.as_ptr(), code.len());
            to.add(code.len()).write_bytes(TRAP, padding);
        }
        if span.start < self.used {
            serialise();
        }
        self.used = self.used.max(span.end());
        let id = CodeId(self.next_id);
        self.next_id += 1;
        self.live.insert(id, span);
        Ok(id)
    }

    /// The address of the code's first byte; `None` once it has been freed. Whoever calls it sees
    /// to it that the code lives until it has returned.
    pub fn entry(&self, id: CodeId) -> Option<*const u8> {
        let span = self.live.get(&id)?;
        Some(self.executable.as_ptr().wrapping_add(span.start))
    }

    /// Frees code, which traps from now on; false if it has been freed before.
    pub fn free(&mut self, id: CodeId) -> bool {
        let Some(span) = self.live.remove(&id) else { return false };
        // SAFETY: as in `publish`; the code was the span's only owner.
        unsafe { self.at(span.start).write_bytes(TRAP, span.len) };
        self.space.give_back(span);
        true
    }

    /// Frees all code.
    pub fn reset(&mut self) {
        for (_, span) in std::mem::take(&mut self.live) {
            // SAFETY: as in `free`.
            unsafe { self.at(span.start).write_bytes(TRAP, span.len) };
        }
        self.space.clear();
    }

    /// The place in the writable view.
    fn at(&self, offset: usize) -> *mut u8 {
        self.writable.as_mut_ptr().wrapping_add(offset)
    }
}

/// Maps new memory twice: writable, and executable.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn map_views(bytes: usize) -> Result<(MmapRaw, MmapRaw), ArenaError> {
    use memmap2::MmapOptions;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    let views = || -> io::Result<(MmapRaw, MmapRaw)> {
        let file = memfd_create("brolga-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, bytes as u64)?;
        let writable = MmapOptions::new().len(bytes).map_raw(&file)?;
        // SAFETY: nobody else has the file, so its size stays, and no reference to its bytes is
        // made: the view is used through raw pointers only.
        let executable = unsafe { MmapOptions::new().len(bytes).map_exec(&file)? };
        Ok((writable, executable.into()))
    };
    views().map_err(|source| ArenaError::Map { bytes, source })
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn map_views(_: usize) -> Result<(MmapRaw, MmapRaw), ArenaError> {
    Err(ArenaError::Unsupported)
}

/// Executes a serializing instruction. The processor notices stores to code that it has fetched if
/// both used the same linear address; here they do not (SDM vol. 3, 9.1.3).
fn serialise() {
    #[cfg(target_arch = "x86_64")]
    std::hint::black_box(std::arch::x86_64::__cpuid(0));
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;

    type Function = extern "sysv64" fn(u64) -> u64;

    /// `lea rax, [rdi + n]`, `ret`.
    fn add(n: u8) -> [u8; 5] {
        [0x48, 0x8d, 0x47, n, 0xc3]
    }

    fn call(arena: &CodeArena, id: CodeId, argument: u64) -> u64 {
        let entry = arena.entry(id).expect("the code is live");
        // SAFETY: the tests publish nothing but functions of this type, and the arena is borrowed
        // until the call is over.
        let function = unsafe { std::mem::transmute::<*const u8, Function>(entry) };
        function(argument)
    }

    #[test]
    fn published_code_runs() -> Result<(), ArenaError> {
        let mut arena = CodeArena::new(1 << 16)?;
        let ids: Vec<_> = (0..100).map(|n| arena.publish(&add(n))).collect::<Result<_, _>>()?;
        for (n, id) in ids.into_iter().enumerate() {
            assert_eq!(call(&arena, id, 1000), 1000 + n as u64);
            let entry = arena.entry(id).map(<*const u8>::addr);
            assert_eq!(entry.map(|at| at % CODE_ALIGN), Some(0), "function {n}");
        }
        Ok(())
    }

    #[test]
    fn freed_space_is_used_again_and_runs_the_new_code() -> Result<(), ArenaError> {
        let mut arena = CodeArena::new(CODE_ALIGN)?;
        let mut last = None;
        for n in 0..100 {
            let id = arena.publish(&add(n))?;
            assert_eq!(call(&arena, id, 7), 7 + u64::from(n));
            assert!(last.is_none_or(|old| arena.entry(old).is_none()), "an old id finds new code");
            assert!(matches!(arena.publish(&add(1)), Err(ArenaError::Full { bytes: 5 })));
            assert!(arena.free(id) && !arena.free(id));
            last = Some(id);
        }
        Ok(())
    }

    #[test]
    fn freeing_one_leaves_the_others() -> Result<(), ArenaError> {
        let mut arena = CodeArena::new(1 << 12)?;
        let ids = [arena.publish(&add(1))?, arena.publish(&add(2))?, arena.publish(&add(3))?];
        assert!(arena.free(ids[1]));
        assert_eq!([call(&arena, ids[0], 0), call(&arena, ids[2], 0)], [1, 3]);
        assert_eq!(arena.occupied(), 2 * CODE_ALIGN);
        Ok(())
    }

    #[test]
    fn reset_frees_everything() -> Result<(), ArenaError> {
        let mut arena = CodeArena::new(1000)?;
        assert_eq!(arena.capacity(), 1024);
        let old = arena.publish(&[TRAP; 900])?;
        let full = arena.publish(&[TRAP; 200]);
        assert!(matches!(full, Err(ArenaError::Full { bytes: 200 })), "{full:?}");
        arena.reset();
        assert_eq!((arena.entry(old), arena.occupied()), (None, 0));
        let id = arena.publish(&add(5))?;
        assert_eq!(call(&arena, id, 5), 10);
        Ok(())
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for bytes in [0, MAX_ARENA_BYTES + 1, usize::MAX] {
            assert!(matches!(CodeArena::new(bytes), Err(ArenaError::Size { .. })), "{bytes}");
        }
    }

    #[test]
    fn no_mapping_is_writable_and_executable() -> Result<(), Box<dyn std::error::Error>> {
        let arena = CodeArena::new(1 << 16)?;
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let rights = |view: &MmapRaw| -> Option<String> {
            let line =
                maps.lines().find(|l| l.starts_with(&format!("{:x}-", view.as_ptr().addr())));
            line?.split(' ').nth(1).map(str::to_owned)
        };
        assert_eq!(rights(&arena.writable).as_deref(), Some("rw-s"));
        assert_eq!(rights(&arena.executable).as_deref(), Some("r-xs"));
        Ok(())
    }
}
