//! The program of the benchmark's workloads, built from `tests/workloads` by this host's gcc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::manifest::Source;
use super::{Cache, Flavour, write_whole};
use crate::suite::Skip;

/// gcc vectorises at -O2 or does not, by its version: rows called scalar always are. Nobody
/// reads `errno` after sqrt().
const FLAGS: [&str; 6] =
    ["-std=gnu11", "-O2", "-fno-tree-vectorize", "-fno-math-errno", "-static", "-Wall"];

/// The rows that need SSE2 get it in 32-bit code too.
const FLAGS_64: &[&str] = &["-m64"];
const FLAGS_32: &[&str] = &["-m32", "-msse2", "-mfpmath=sse"];

impl Flavour {
    /// The static program that runs the workloads in this guest; it runs on an x86-64 Linux
    /// host too. It is built when the cached one was made of something else. Where gcc cannot,
    /// [`Skip`] says why.
    pub fn workloads(self) -> Result<PathBuf> {
        let architecture = self.busybox.architecture();
        let (bits, flags) = match architecture {
            "amd64" => (64, FLAGS_64),
            _ => (32, FLAGS_32),
        };
        let flags = [&FLAGS, flags].concat();
        let compiler = probe(bits, &flags)?;
        let sources = sources()?;
        let cache = Cache::new();
        let file = format!("workloads-{architecture}");
        let path = cache.directory.join(&file);
        let mut manifest = cache.manifest()?;
        let version = version(&compiler, &flags, &sources)?;
        if manifest.version(&file) != Some(&version)
            || manifest.verify(&cache.directory, &file).is_err()
        {
            let program = compile(&flags, &sources)?;
            write_whole(&path, &program)?;
            make_executable(&path)?;
            let source = Source {
                package: "tests/workloads".into(),
                version,
                architecture: architecture.into(),
            };
            manifest.record(&file, source, &program);
            manifest.write(&cache.directory)?;
        }
        Ok(path)
    }
}

/// What `gcc --version` says, if it can build a static program with these flags.
fn probe(bits: u32, flags: &[&str]) -> Result<String> {
    let gcc = |arguments: &[&str]| -> Result<Output> {
        let mut command = Command::new("gcc");
        let command = command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
        command.output().map_err(|_| Skip("no gcc on this host: no workloads".into()).into())
    };
    let version = gcc(&["--version"])?;
    let directory = tempfile::tempdir()?;
    let (source, program) = (directory.path().join("probe.c"), directory.path().join("probe"));
    fs::write(&source, "#include <stdio.h>\nint main(void) { return puts(\"\"); }\n")?;
    let (source, program) = (source.to_string_lossy(), program.to_string_lossy());
    let built = gcc(&[flags, &[&source, "-o", &program]].concat())?;
    if !built.status.success() {
        let complaint = String::from_utf8_lossy(&built.stderr);
        let complaint = complaint.lines().find(|line| line.contains("error")).unwrap_or_default();
        let reason = format!("gcc here builds no static {bits}-bit programs: {complaint}");
        return Err(Skip(reason).into());
    }
    Ok(String::from_utf8_lossy(&version.stdout).into_owned())
}

/// The C files and their headers, in order.
fn sources() -> Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
    let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut sources = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    sources.retain(|path| path.extension().is_some_and(|kind| kind == "c" || kind == "h"));
    sources.sort();
    Ok(sources)
}

/// A digest of all that the program is made of.
fn version(compiler: &str, flags: &[&str], sources: &[PathBuf]) -> Result<String> {
    let mut digest = Sha256::new();
    digest.update(compiler);
    digest.update(flags.join(" "));
    for source in sources {
        digest.update(fs::read(source)?);
    }
    Ok(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn compile(flags: &[&str], sources: &[PathBuf]) -> Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("bench");
    let files = sources.iter().filter(|path| path.extension().is_some_and(|kind| kind == "c"));
    let output = Command::new("gcc").args(flags).args(files).arg("-o").arg(&program).output()?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the workloads do not compile:\n{complaints}");
    Ok(fs::read(program)?)
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
