//! A directory of vector files as one test.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;

use super::classes::CLASSES;
use super::run::{Bench, explain};
use super::{File, parse};
use crate::suite::Skip;
use crate::table;

/// Failed cases shown for one file.
const SHOWN: usize = 3;

/// The vectors of one processor: a folder of `$BROLGA_VECTORS`, or of `../shared/vectors` beside
/// the workspace.
pub fn directory(processor: &str) -> Result<PathBuf> {
    let root = std::env::var_os("BROLGA_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    );
    let directory = root.join(processor);
    if !directory.is_dir() {
        bail!(Skip(format!("no vectors at {}: set BROLGA_VECTORS", directory.display())));
    }
    Ok(directory)
}

/// What became of the cases of a file.
#[derive(Default)]
struct Outcome {
    passed: usize,
    revoked: usize,
    explained: BTreeMap<&'static str, usize>,
    failed: usize,
    shown: Vec<String>,
}

/// Runs every file of `directory` and prints what came of it. An error if a case fails that no
/// class of [`CLASSES`] explains.
pub fn run(directory: &Path) -> Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".MOO.gz") {
            files.push(path);
        }
    }
    files.sort();
    let revoked = std::fs::read_to_string(directory.join("revocation_list.txt"))?;
    let outcomes = in_parallel(&files, |path| run_file(path, &revoked))?;
    report(&files, &outcomes)
}

/// `job` for every file, on all processors of the host; results in the order of the files.
fn in_parallel<T: Send>(
    files: &[PathBuf],
    job: impl Fn(&Path) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || {
        while let Some((n, path)) = {
            let n = next.fetch_add(1, Ordering::Relaxed);
            files.get(n).map(|path| (n, path))
        } {
            let result = job(path).with_context(|| path.display().to_string());
            results.lock().expect("no worker panics with the lock").push((n, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    let mut results = results.into_inner().expect("no worker panics with the lock");
    results.sort_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
}

fn read(path: &Path) -> Result<File> {
    let mut bytes = Vec::new();
    GzDecoder::new(std::fs::File::open(path)?).read_to_end(&mut bytes)?;
    Ok(parse(&bytes)?)
}

fn run_file(path: &Path, revoked: &str) -> Result<Outcome> {
    let mut bench = Bench::new()?;
    let mut outcome = Outcome::default();
    for case in read(path)?.cases {
        if revoked.contains(&hex(&case.hash)) {
            outcome.revoked += 1;
            continue;
        }
        let ran = bench.run(&case)?;
        if ran.differences.is_empty() {
            outcome.passed += 1;
        } else if let Some(class) = CLASSES.iter().find(|c| (c.explains)(&case, &ran)) {
            *outcome.explained.entry(class.name).or_default() += 1;
        } else {
            outcome.failed += 1;
            if outcome.shown.len() < SHOWN {
                outcome.shown.push(explain(&case, &ran));
            }
        }
    }
    if let Some(at) = bench.stray_write() {
        outcome.failed += 1;
        outcome.shown.push(format!("a case has written to {at:05x}, which none names"));
    }
    Ok(outcome)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn report(files: &[PathBuf], outcomes: &[Outcome]) -> Result<()> {
    let mut rows = table::new(["file", "passed", "explained", "failed"]);
    let mut classes = BTreeMap::<&str, usize>::new();
    let (mut passed, mut explained, mut failed, mut revoked) = (0, 0, 0, 0);
    for (path, outcome) in files.iter().zip(outcomes) {
        let differs: usize = outcome.explained.values().sum();
        passed += outcome.passed;
        explained += differs;
        failed += outcome.failed;
        revoked += outcome.revoked;
        for (class, n) in &outcome.explained {
            *classes.entry(class).or_default() += n;
        }
        if differs + outcome.failed > 0 {
            let name = path.file_name().map(|n| n.to_string_lossy().replace(".MOO.gz", ""));
            let counts = [outcome.passed, differs, outcome.failed].map(|n| n.to_string());
            rows.add_row([vec![name.unwrap_or_default()], counts.to_vec()].concat());
        }
    }
    println!("{rows}\n(files in which every case passed are left out)\n");
    let mut rows = table::new(["class", "cases", "why a later processor differs"]);
    for class in CLASSES {
        let cases = classes.get(class.name).copied().unwrap_or(0).to_string();
        rows.add_row([class.name, &cases, class.reason]);
    }
    println!("{rows}\n");
    for text in outcomes.iter().flat_map(|o| &o.shown) {
        println!("{text}");
    }
    println!("{passed} passed, {explained} explained, {failed} failed, {revoked} revoked");
    if failed > 0 {
        bail!("{failed} cases differ from the captured processor");
    }
    Ok(())
}
