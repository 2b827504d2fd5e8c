//! What users may look at: each region as text, and a map of the code in the form of Linux's `perf`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use brolga_cpu::block::Mode;
use brolga_mmu::{GuestPhys, Linear};
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, NasmFormatter};

use crate::plan::Plan;

/// What to write about regions, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpConfig {
    /// A directory that gets a file for each region: guest code, Cranelift's IR, host code.
    pub directory: Option<PathBuf>,
    /// Write `/tmp/perf-PID.map`, as `perf` wants it for code made at run time.
    pub perf_map: bool,
}

/// A region as far as it is of interest.
pub(crate) struct Subject<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) page: &'a [u8],
    pub(crate) mode: Mode,
    pub(crate) place: GuestPhys,
    /// Where it was when it was translated.
    pub(crate) linear: Linear,
    pub(crate) host: u64,
    pub(crate) code: &'a [u8],
}

/// The writer.
pub(crate) struct Dump {
    directory: Option<PathBuf>,
    perf_map: Option<File>,
    written: u64,
}

impl Dump {
    pub(crate) fn new(config: &DumpConfig) -> io::Result<Dump> {
        if let Some(directory) = &config.directory {
            fs::create_dir_all(directory)?;
        }
        let map = format!("/tmp/perf-{}.map", std::process::id());
        let perf_map = if config.perf_map { Some(File::create(map)?) } else { None };
        Ok(Dump { directory: config.directory.clone(), perf_map, written: 0 })
    }

    pub(crate) fn wants_text(&self) -> bool {
        self.directory.is_some()
    }

    /// Writes a region; `clif` is its IR. What cannot be written is said once, and no more tried.
    pub(crate) fn region(&mut self, subject: &Subject<'_>, clif: &str) {
        if let Err(error) = self.try_region(subject, clif) {
            tracing::warn!("translated code is not written any more: {error}");
            (self.directory, self.perf_map) = (None, None);
        }
    }

    fn try_region(&mut self, subject: &Subject<'_>, clif: &str) -> io::Result<()> {
        let Subject { plan, linear, host, code, .. } = subject;
        if let Some(map) = &mut self.perf_map {
            let entry = u64::from(plan.entry());
            let at = |offset: u16| linear.0.wrapping_sub(entry).wrapping_add(u64::from(offset));
            let first = plan.extents().map(|(start, _)| start).min().unwrap_or_default();
            let last = plan.extents().map(|(_, end)| end).max().unwrap_or_default();
            let length = code.len();
            writeln!(
                map,
                "{host:x} {length:x} guest {:x} ({:x}-{:x})",
                linear.0,
                at(first),
                at(last)
            )?;
        }
        if let Some(directory) = &self.directory {
            let name = format!("{:06}-{:x}.txt", self.written, linear.0);
            fs::write(directory.join(name), text(subject, clif))?;
            self.written += 1;
        }
        Ok(())
    }
}

fn text(subject: &Subject<'_>, clif: &str) -> String {
    let Subject { plan, page, mode, place, linear, host, code } = subject;
    let mut out = format!(
        "guest {:#x} (physical {:#x}), {} bits, {} instructions, {} bytes of host code\n",
        linear.0,
        place.0,
        mode.bitness(),
        plan.insns(),
        code.len()
    );
    let page_at = linear.0.wrapping_sub(u64::from(plan.entry()));
    for (start, end) in plan.extents() {
        out.push('\n');
        let bytes = &page[usize::from(start)..usize::from(end)];
        disassemble(&mut out, bytes, mode.bitness(), page_at.wrapping_add(u64::from(start)));
    }
    let _ = writeln!(out, "\n{clif}");
    disassemble(&mut out, code, 64, *host);
    out
}

fn disassemble(out: &mut String, bytes: &[u8], bitness: u32, at: u64) {
    let mut decoder = Decoder::with_ip(bitness, bytes, at, DecoderOptions::NONE);
    let mut formatter = NasmFormatter::new();
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let _ = write!(out, "{:x}  ", instruction.ip());
        formatter.format(&instruction, out);
        out.push('\n');
    }
}
