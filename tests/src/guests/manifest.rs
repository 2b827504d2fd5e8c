//! What the cache holds, where it came from, and the hash that each file must have.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::apt::write_whole;
use crate::table;

const FILE: &str = "manifest.json";

/// The cached files by name.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Manifest {
    files: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    source: Source,
    sha256: String,
}

/// The Debian package that a file came from; of our own programs, what they were built from.
#[derive(Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) package: String,
    pub(super) version: String,
    pub(super) architecture: String,
}

impl Manifest {
    /// The manifest of a cache; an empty one where there is no cache yet.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)
                .with_context(|| format!("{} is damaged: remove it", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        write_whole(&directory.join(FILE), &serde_json::to_vec_pretty(self)?)
    }

    pub(super) fn lists(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// The version of a listed file.
    pub(super) fn version(&self, file: &str) -> Option<&str> {
        self.files.get(file).map(|entry| entry.source.version.as_str())
    }

    pub(super) fn record(&mut self, file: &str, source: Source, content: &[u8]) {
        self.files.insert(file.to_owned(), Entry { source, sha256: sha256(content) });
    }

    /// Checks that a listed file is what was fetched.
    pub(super) fn verify(&self, directory: &Path, file: &str) -> Result<()> {
        let path = directory.join(file);
        let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let expected = self.files.get(file).map(|entry| entry.sha256.as_str());
        ensure!(
            expected == Some(&sha256(&content)),
            "{} is not the file that was fetched: run `cargo xtask guests`",
            path.display()
        );
        Ok(())
    }

    /// Drops entries whose file is gone or changed, so that they are fetched again.
    pub(super) fn forget_damaged(&mut self, directory: &Path) {
        let damaged: Vec<_> = self
            .files
            .keys()
            .filter(|file| self.verify(directory, file).is_err())
            .cloned()
            .collect();
        for file in damaged {
            eprintln!("{file} in the cache is missing or damaged");
            self.files.remove(&file);
        }
    }

    pub(super) fn table(&self, directory: &Path) -> String {
        let mut table =
            table::new(["file", "KiB", "package", "version", "architecture", "SHA-256"]);
        for (file, entry) in &self.files {
            let size = fs::metadata(directory.join(file)).map_or(0, |data| data.len() / 1024);
            table.add_row([
                file.clone(),
                size.to_string(),
                entry.source.package.clone(),
                entry.source.version.clone(),
                entry.source.architecture.clone(),
                entry.sha256.chars().take(16).collect(),
            ]);
        }
        format!("{}\n{table}", directory.display())
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        let field = |text: &str| text.to_owned();
        Source { package: field("p"), version: field("1"), architecture: field("i386") }
    }

    #[test]
    fn the_hash_is_sha256() {
        // FIPS 180-4, the example of one block.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), expected);
    }

    #[test]
    fn a_changed_file_is_noticed_and_forgotten() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let mut manifest = Manifest::default();
        for file in ["good", "bad"] {
            fs::write(directory.path().join(file), file)?;
            manifest.record(file, source(), file.as_bytes());
        }
        manifest.write(directory.path())?;
        fs::write(directory.path().join("bad"), "Bad")?;

        let mut manifest = Manifest::read(directory.path())?;
        assert!(manifest.verify(directory.path(), "good").is_ok());
        assert!(manifest.verify(directory.path(), "bad").is_err());
        manifest.forget_damaged(directory.path());
        assert!(manifest.lists("good") && !manifest.lists("bad"));
        Ok(())
    }
}
