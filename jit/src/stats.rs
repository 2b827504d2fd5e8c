//! What the translator has done: the table behind `--jit-stats`.

use std::collections::HashMap;
use std::fmt::Write;

use brolga_cpu::core::Core;
use brolga_cpu::vcpu::RIP;
use brolga_mmu::PAGE_SIZE;
use iced_x86::{Code, Decoder, DecoderOptions};
use rustc_hash::FxBuildHasher;

use crate::translate::Reason;

/// How often instructions of a kind have been executed by the interpreter.
pub(crate) type Counts = HashMap<Code, u64, FxBuildHasher>;

/// Kinds of instructions that the table names.
const ROWS: usize = 40;

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct JitStats {
    /// Regions translated, their guest instructions and the bytes of their code.
    pub(crate) regions: u64,
    pub(crate) insns: u64,
    pub(crate) code_bytes: u64,
    /// Entries from the run loop, and returns to it by reason.
    pub(crate) entries: u64,
    pub(crate) leaves: [u64; Reason::ALL.len()],
    /// Times that the oldest regions were dropped for want of room.
    pub(crate) evictions: u64,
    /// Times that everything was dropped for want of cells.
    pub(crate) flushes: u64,
    /// What code was left for, if that is counted.
    pub(crate) left_for: Counts,
}

impl JitStats {
    /// Counts the instruction at RIP, which the run loop is to have interpreted.
    pub(crate) fn left_for(&mut self, core: &Core) {
        let at = core.code_address(core.vcpu.regs[usize::from(RIP)]);
        let Some(place) = core.mem.tlb.fetched_from(at) else { return };
        let mut code = [0; 15];
        let inside = (PAGE_SIZE - place.page_offset()).min(code.len() as u64) as usize;
        if core.mem.map.read_slice(place, &mut code[..inside]).is_ok() {
            let bitness = core.mode().bitness();
            let insn = Decoder::new(bitness, &code[..inside], DecoderOptions::NONE).decode();
            *self.left_for.entry(insn.code()).or_default() += 1;
        }
    }

    /// The returns to the run loop by reason, and the instructions that were executed for code or
    /// instead of it.
    pub(crate) fn kinds(&self, called: &Counts) -> Vec<(String, u64)> {
        let reasons = Reason::ALL.iter().zip(self.leaves);
        let mut kinds: Vec<(String, u64)> =
            reasons.map(|(reason, count)| (format!("return: {}", reason.text()), count)).collect();
        for (what, counts) in [("called", called), ("left for", &self.left_for)] {
            kinds.extend(counts.iter().map(|(code, count)| (format!("{what} {code:?}"), *count)));
        }
        kinds.retain(|(_, count)| *count > 0);
        kinds
    }

    /// The table; `called`: what the interpreter has executed while code waited.
    pub(crate) fn table(&self, called: &Counts) -> String {
        let mut text = String::new();
        let each = self.code_bytes as f64 / self.insns.max(1) as f64;
        let _ = writeln!(
            text,
            "jit: {} regions, {} guest instructions, {} bytes of code ({each:.1} each), \
             {} times the oldest dropped, {} times all",
            self.regions, self.insns, self.code_bytes, self.evictions, self.flushes
        );
        let _ = writeln!(text, "jit: {:>12} entries", self.entries);
        for (reason, count) in Reason::ALL.iter().zip(self.leaves) {
            let _ = writeln!(text, "jit: {count:>12} returns: {}", reason.text());
        }
        for (what, counts) in [("called", called), ("left for", &self.left_for)] {
            let mut rows: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
            rows.sort_by_key(|(code, count)| (std::cmp::Reverse(**count), **code));
            for (code, count) in rows.iter().take(ROWS) {
                let _ = writeln!(text, "jit: {count:>12} {what} {code:?}");
            }
        }
        text
    }
}
