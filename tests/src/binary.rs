//! The product's binary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// Names a binary to test instead of the one of this checkout.
pub const VARIABLE: &str = "BROLGA_BINARY";

/// The release build of `brolga`, built when it is not up to date.
pub fn brolga() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY.get_or_init(|| find_or_build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn find_or_build() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os(VARIABLE) {
        return Ok(std::path::absolute(binary)?);
    }
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package=brolga-machine", "--bin=brolga"])
        .args(["--quiet", "--message-format=json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting cargo")?;
    ensure!(output.status.success(), "brolga does not build");
    String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no executable")
}
