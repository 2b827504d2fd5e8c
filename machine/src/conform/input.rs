//! What a file is.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use brolga_test_roms::conformance::{Rom, all, by_name};
use flate2::read::GzDecoder;

use super::reporting::Reporting;
use super::{Settings, Suite, guest, moo, roms, vectors};
use crate::machine::Guest;

/// The largest file that is read, after decompression.
const LARGEST: u64 = 1 << 30;
/// What the file beside a guest that says how it reports ends in.
const SIDECAR: &str = ".conform";
/// What a folder's files must end in to be tests.
const ENDINGS: &[&str] = &[".moo", ".moo.gz", ".rom", ".bin", ".elf"];
/// The list of cases that their authors have withdrawn, beside the vectors.
const REVOKED: &str = "revocation_list.txt";

/// Something to run.
#[derive(Clone, Debug)]
pub enum Input {
    /// A ROM of ours.
    Rom(Arc<Rom>),
    /// A file.
    File {
        /// Where it is.
        path: PathBuf,
        /// What the user says about how it reports.
        reporting: Reporting,
    },
}

impl Input {
    /// Its name.
    pub fn name(&self) -> String {
        match self {
            Self::Rom(rom) => rom.name.to_owned(),
            Self::File { path, .. } => path.display().to_string(),
        }
    }

    /// Runs it. An error if the file cannot be used.
    pub fn run(&self, settings: &Settings) -> Result<Suite> {
        match self {
            Self::Rom(rom) => roms::run(rom, settings),
            Self::File { path, reporting } => run_file(path, reporting, settings),
        }
    }
}

/// All ROMs of ours, by name.
pub fn built_in() -> Vec<Arc<Rom>> {
    all().into_iter().map(Arc::new).collect()
}

/// What the arguments name: files, folders with all tests below them, and ROMs of ours; these if
/// there are no arguments.
pub fn find(arguments: &[PathBuf], reporting: &Reporting) -> Result<Vec<Input>> {
    if arguments.is_empty() {
        return Ok(built_in().into_iter().map(Input::Rom).collect());
    }
    let mut inputs = Vec::new();
    for path in arguments {
        let file = |path| Input::File { path, reporting: reporting.clone() };
        if path.is_dir() {
            let mut files = Vec::new();
            walk(path, &mut files)?;
            ensure!(
                !files.is_empty(),
                "{} holds no tests ({})",
                path.display(),
                ENDINGS.join(", ")
            );
            files.sort();
            inputs.extend(files.into_iter().map(file));
        } else if path.exists() {
            inputs.push(file(path.clone()));
        } else {
            let rom = path.to_str().and_then(by_name).with_context(|| {
                format!("{} is neither a file nor a ROM of --list", path.display())
            })?;
            inputs.push(Input::Rom(Arc::new(rom)));
        }
    }
    Ok(inputs)
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let about = || format!("cannot read the folder {}", directory.display());
    for entry in fs::read_dir(directory).with_context(about)? {
        let entry = entry.with_context(about)?;
        let (path, kind) = (entry.path(), entry.file_type().with_context(about)?);
        // Links to folders may lead round in circles.
        if kind.is_dir() {
            walk(&path, files)?;
        } else if is_test(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn is_test(path: &Path) -> bool {
    let name = path.to_string_lossy().to_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Reads a file, decompressed if need be.
fn read(path: &Path) -> Result<Vec<u8>> {
    const GZIP: &[u8] = b"\x1f\x8b";
    ensure!(fs::metadata(path)?.is_file(), "not a regular file");
    let file = fs::File::open(path)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.starts_with(GZIP) {
        let mut inside = Vec::new();
        let decoder = GzDecoder::new(bytes.as_slice());
        decoder.take(LARGEST + 1).read_to_end(&mut inside).context("damaged gzip data")?;
        bytes = inside;
    }
    ensure!(bytes.len() as u64 <= LARGEST, "larger than {} MiB", LARGEST >> 20);
    Ok(bytes)
}

fn run_file(path: &Path, reporting: &Reporting, settings: &Settings) -> Result<Suite> {
    let bytes = read(path)?;
    let name = path.display().to_string();
    if bytes.starts_with(moo::MAGIC) {
        let list = path.with_file_name(REVOKED);
        let revoked = if list.is_file() { fs::read_to_string(list)? } else { String::new() };
        return vectors::run(&name, &moo::parse(&bytes)?, &revoked, settings);
    }
    let reporting = reporting
        .clone()
        .or(sidecar(path)?)
        .or(Reporting::by_file_name(&path.file_name().unwrap_or_default().to_string_lossy()));
    let guest = recognise(bytes)?;
    guest::run(&name, guest, &reporting, settings)
}

/// What stands beside a guest about how it reports. A reference is named from there.
fn sidecar(path: &Path) -> Result<Reporting> {
    let mut name = path.as_os_str().to_owned();
    name.push(SIDECAR);
    let beside = PathBuf::from(name);
    if !beside.is_file() {
        return Ok(Reporting::default());
    }
    let about = || beside.display().to_string();
    let text = fs::read_to_string(&beside).with_context(about)?;
    let mut reporting = Reporting::parse(&text).map_err(anyhow::Error::msg).with_context(about)?;
    reporting.reference = reporting.reference.map(|reference| beside.with_file_name(reference));
    Ok(reporting)
}

/// A kernel, or a ROM by its size.
fn recognise(bytes: Vec<u8>) -> Result<Guest> {
    const ELF: &[u8] = b"\x7fELF";
    const ROM_UNIT: usize = 64 << 10;
    if bytes.starts_with(ELF) {
        return Ok(Guest::Kernel { kernel: bytes, initrd: None, cmdline: String::new() });
    }
    if bytes.is_empty() || !bytes.len().is_multiple_of(ROM_UNIT) {
        bail!("neither vectors (MOO) nor an ELF kernel nor a ROM (a multiple of 64 KiB)");
    }
    Ok(Guest::Rom(bytes))
}
