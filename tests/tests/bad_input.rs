//! What the user gets wrong ends in one clear line and status 2, and changes nothing.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use brolga_test_roms::halt_forever_rom;
use brolga_tests::expect::Session;
use brolga_tests::guests::{AMD64, I686};
use brolga_tests::suite::{self, trial};
use brolga_tests::{binary, exit, process};
use libtest_mimic::Trial;

const LIMIT: Duration = Duration::from_secs(30);

/// ELF machine numbers (System V ABI registry).
const EM_ARM: u16 = 40;
const EM_AARCH64: u16 = 183;

fn main() {
    let mut trials = kernel_trials();
    trials.extend(memory_trials());
    trials.extend([
        trial("initrd_larger_than_memory", initrd_larger_than_memory),
        trial("initrd_missing", initrd_missing),
        trial("bios_of_a_wrong_size", bios_of_a_wrong_size),
        trial("unknown_option", || refused(&["run", "--no-such-option"])),
        trial("unknown_cpu_model", unknown_cpu_model),
        trial("compare_by_an_unknown_engine", || {
            refused(&["compare", "--engines", "interp,abacus"])
        }),
        trial("compare_without_rounds", || refused(&["compare", "--rounds", "0"])),
        trial("compare_with_a_page_nowhere", || {
            refused(&["compare", "--html", "/nonexistent/report.html"])
        }),
        trial("compare_with_a_folder_as_page", || refused(&["compare", "--html", "/"])),
        trial("compare_of_no_rom", || refused(&["compare", "--rom", "/nonexistent/rom"])),
        trial("terminal_is_left_alone", terminal_is_left_alone),
    ]);
    suite::run(trials)
}

fn kernel_trials() -> Vec<Trial> {
    let file = |name: &str, content: fn() -> Result<Vec<u8>>| {
        trial(format!("kernel_{name}"), move || refused_kernel(&content()?))
    };
    vec![
        trial("kernel_missing", || refused(&["run", "--kernel", "/nonexistent/vmlinuz"])),
        trial("kernel_is_a_directory", || refused(&["run", "--kernel", "/"])),
        file("empty", || Ok(Vec::new())),
        file("one_byte", || Ok(vec![0x7f])),
        file("random_small", || Ok(noise(1, 100))),
        file("random_large", || Ok(noise(2, 5_000_000))),
        file("of_text", || Ok(b"Cranes dance.\n".repeat(1000))),
        file("for_arm", || Ok(elf(1, EM_ARM))),
        file("for_aarch64", || Ok(elf(2, EM_AARCH64))),
        file("for_aarch64_as_image", || Ok(arm64_image())),
        file("amd64_cut_in_its_header", || cut(&AMD64.cached()?.kernel, 0x210)),
        file("amd64_cut_in_its_setup", || cut(&AMD64.cached()?.kernel, 2048)),
        file("amd64_cut_in_half", || cut(&AMD64.cached()?.kernel, 4_000_000)),
        file("686_cut_in_half", || cut(&I686.cached()?.kernel, 2_000_000)),
    ]
}

fn memory_trials() -> Vec<Trial> {
    let sizes = ["0", "1K", "17T", "99999999999999999999M", "-5M", "", "M", "12Q", "512 M", "1.5G"];
    let memory = |size: &'static str| {
        trial(format!("memory_{size:?}"), move || {
            refused_with(&halt_forever_rom(), "--bios", &[&format!("-m={size}")])
        })
    };
    sizes.into_iter().map(memory).collect()
}

fn initrd_larger_than_memory() -> Result<()> {
    let kernel = AMD64.cached()?.kernel;
    let initrd = tempfile::NamedTempFile::new()?;
    initrd.as_file().set_len(100 << 20)?;
    let [kernel, initrd] = [&*kernel, initrd.path()].map(|path| path.to_str().unwrap_or_default());
    refused(&["run", "--kernel", kernel, "--initrd", initrd, "-m", "64M"])
}

fn initrd_missing() -> Result<()> {
    let kernel = AMD64.cached()?.kernel;
    let kernel = kernel.to_str().unwrap_or_default();
    refused(&["run", "--kernel", kernel, "--initrd", "/nonexistent/initrd"])
}

fn bios_of_a_wrong_size() -> Result<()> {
    [0, 1, 65_535, (16 << 20) + 65_536]
        .into_iter()
        .try_for_each(|size| refused_with(&vec![0xf4; size], "--bios", &[]))
}

fn unknown_cpu_model() -> Result<()> {
    refused_with(&halt_forever_rom(), "--bios", &["--cpu", "no-such-model"])
}

/// On a terminal the same, and the terminal's modes stay as they were.
fn terminal_is_left_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let kernel = directory.path().join("kernel");
    fs::write(&kernel, noise(3, 10_000))?;
    // The shell keeps the terminal open until its modes are looked at.
    let script = format!(
        "read go; '{}' run --kernel '{}'; echo status $?; read go",
        binary::brolga()?.display(),
        kernel.display()
    );
    let mut session = Session::spawn(&["sh", "-c", &script].map(OsString::from))?;
    let before = session.terminal_modes()?;
    session.send("\n")?;
    let printed = session.expect("status 2", LIMIT)?;
    let after = session.terminal_modes()?;
    ensure!(before == after, "the terminal's modes were {before:?} and are {after:?}");
    ensure!(!printed.contains('\x1b'), "terminal control sequences: {printed:?}");
    let lines = printed.trim().lines().count();
    ensure!(lines == 1 && printed.contains("brolga: "), "not one clear line: {printed:?}");
    Ok(())
}

fn refused_kernel(image: &[u8]) -> Result<()> {
    refused_with(image, "--kernel", &[])
}

/// Gives an image by `option`, and more arguments.
fn refused_with(image: &[u8], option: &str, arguments: &[&str]) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), image)?;
    let name = file.path().to_str().unwrap_or_default();
    refused(&[&["run", option, name], arguments].concat())
}

/// Checks that `brolga` refuses: one line on stderr, status 2, nothing else written.
fn refused(arguments: &[&str]) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut command = Command::new(binary::brolga()?);
    command.args(arguments).current_dir(directory.path());
    let finished = process::run(&mut command, LIMIT)?;
    let status = finished.code()?;
    ensure!(status == exit::USER_ERROR, "{arguments:?}: status {status}: {finished:?}");
    ensure!(finished.is_refusal(), "{arguments:?}: not one clear line: {finished:?}");
    let left = fs::read_dir(directory.path())?.count();
    ensure!(left == 0, "{arguments:?}: {left} files were written");
    Ok(())
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(size).collect()
}

/// A little-endian executable without segments for some machine.
fn elf(class: u8, machine: u16) -> Vec<u8> {
    let mut header = vec![0x7f, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    header.extend(machine.to_le_bytes());
    header.extend([1, 0, 0, 0]);
    header.resize(4096, 0);
    header
}

/// An arm64 `Image`, as Debian ships it: a PE header's magic and, at 56, `ARM\x64`
/// (Linux `Documentation/arch/arm64/booting.rst`).
fn arm64_image() -> Vec<u8> {
    let mut image = vec![0; 65_536];
    image[..2].copy_from_slice(b"MZ");
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

fn cut(file: &Path, size: usize) -> Result<Vec<u8>> {
    let mut image = fs::read(file)?;
    ensure!(size < image.len(), "{} has only {} bytes", file.display(), image.len());
    image.truncate(size);
    Ok(image)
}
