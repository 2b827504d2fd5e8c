//! Debian packages through the host's apt, without touching the host's package state.
//!
//! apt runs with its own state and cache directories and an empty dpkg status, for the
//! architectures amd64 and i386, and with the host's sources and keyrings: so the mirror is
//! the one the host uses, nothing is installed, and no foreign architecture is added.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const UPDATE_ATTEMPTS: u32 = 3;

/// A private apt installation in a directory.
pub(super) struct Apt {
    config: PathBuf,
    downloads: PathBuf,
}

/// A downloaded `.deb` file and its control fields.
#[derive(Debug)]
pub(super) struct Package {
    file: PathBuf,
    /// The package's name.
    pub(super) name: String,
    /// Its Debian version.
    pub(super) version: String,
    /// Its Debian architecture.
    pub(super) architecture: String,
}

impl Apt {
    /// Prepares the directories under `root`.
    pub(super) fn new(root: &Path) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
            let found = Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok();
            ensure!(found, "this host has no {tool}, so Debian packages cannot be had");
        }
        let root = std::path::absolute(root)?;
        let (lists, archives) = (root.join("lists/partial"), root.join("cache/archives/partial"));
        let downloads = root.join("downloads");
        for directory in [&lists, &archives, &downloads] {
            fs::create_dir_all(directory)
                .with_context(|| format!("creating {}", directory.display()))?;
        }
        fs::write(root.join("status"), "")?;
        let config = root.join("apt.conf");
        fs::write(&config, configuration(&root))?;
        Ok(Self { config, downloads })
    }

    /// Brings the package indexes up to date. A mirror in the middle of a sync fails single
    /// indexes: after a few attempts what could be had must do.
    pub(super) fn update(&self) -> Result<()> {
        let mut complaint = String::new();
        for attempt in 1..=UPDATE_ATTEMPTS {
            let output = self.command("apt-get").arg("update").output()?;
            if output.status.success() {
                return Ok(());
            }
            complaint = first_error(&output.stderr);
            eprintln!("apt-get update, attempt {attempt} of {UPDATE_ATTEMPTS}: {complaint}");
            if attempt < UPDATE_ATTEMPTS {
                std::thread::sleep(Duration::from_secs(2 * u64::from(attempt)));
            }
        }
        eprintln!("going on with the indexes that could be had");
        let known = self.command("apt-cache").arg("pkgnames").output()?;
        ensure!(!known.stdout.is_empty(), "no package index could be had: {complaint}");
        Ok(())
    }

    /// The versioned package that the metapackage `meta` (`linux-image-686:i386`) stands for.
    pub(super) fn resolve(&self, meta: &str) -> Result<String> {
        let output = self.command("apt-cache").args(["depends", meta]).output()?;
        ensure!(output.status.success(), "no package {meta}: {}", first_error(&output.stderr));
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with("linux-image-"))
            .map(str::to_owned)
            .with_context(|| format!("{meta} depends on no linux-image package"))
    }

    /// Downloads a package; apt checks it against the signed indexes.
    pub(super) fn download(&self, package: &str) -> Result<Package> {
        let directory = tempfile::tempdir_in(&self.downloads)?.keep();
        let output =
            self.command("apt-get").args(["download", package]).current_dir(&directory).output()?;
        if !output.status.success() {
            bail!("apt-get download {package}: {}", first_error(&output.stderr));
        }
        let file = fs::read_dir(&directory)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get download {package} left no file"))?;
        let field = |name| control_field(&file, name);
        let (name, version) = (field("Package")?, field("Version")?);
        let architecture = field("Architecture")?;
        Ok(Package { file, name, version, architecture })
    }

    /// Removes the downloaded packages.
    pub(super) fn clean(&self) -> Result<()> {
        fs::remove_dir_all(&self.downloads)?;
        fs::create_dir_all(&self.downloads)?;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.config).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }
}

impl Package {
    /// The content of the first regular file in the package whose path (without the leading
    /// `./`) `wanted` accepts.
    pub(super) fn extract(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<u8>> {
        let found = self.files(wanted, 1)?.pop();
        found
            .map(|(_, content)| content)
            .with_context(|| format!("{} holds no such file", self.name))
    }

    /// Paths and contents of all such files.
    pub(super) fn extract_all(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        self.files(wanted, usize::MAX)
    }

    fn files(&self, wanted: impl Fn(&str) -> bool, most: usize) -> Result<Vec<(String, Vec<u8>)>> {
        let mut child = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(&self.file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut archive = tar::Archive::new(child.stdout.take().expect("stdout is piped"));
        let mut files = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().into_owned();
            let path = path.trim_start_matches("./");
            if entry.header().entry_type().is_file() && wanted(path) {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                files.push((path.to_owned(), bytes));
                if files.len() == most {
                    break;
                }
            }
        }
        drop(archive);
        child.wait()?;
        Ok(files)
    }
}

/// `-c` is read after the host's configuration, whose hooks must not run: they would act on
/// the host's caches.
fn configuration(root: &Path) -> String {
    let root = root.display();
    format!(
        r#"Dir::State "{root}";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
#clear APT::Architectures;
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; "i386"; }};
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Sandbox::User "root";
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::CNF;
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "3";
"#
    )
}

fn control_field(deb: &Path, field: &str) -> Result<String> {
    let output = Command::new("dpkg-deb").arg("--field").arg(deb).arg(field).output()?;
    ensure!(output.status.success(), "{} is not a Debian package", deb.display());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn first_error(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let errors = || text.lines().filter(|line| line.starts_with("E: "));
    errors().next().or_else(|| text.lines().last()).unwrap_or("no message").to_owned()
}

/// Writes a file so that no reader ever sees half of it.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().context("a file has a directory")?;
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    let file: File = file.persist(path).with_context(|| format!("writing {}", path.display()))?;
    file.sync_all()?;
    Ok(())
}
