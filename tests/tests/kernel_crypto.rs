//! Linux's own tests of its implementations of cryptography, most of which are SSE, AVX2, AES, SHA or
//! carry-less multiplication: the kernel compares each with known answers when it is loaded.

use anyhow::{Result, ensure};
use brolga_tests::dmesg;
use brolga_tests::guests::modules::{DIRECTORY, ORDER};
use brolga_tests::guests::{AMD64, Flavour, I686};
use brolga_tests::shell::Shell;
use brolga_tests::suite::{self, trial};
use brolga_tests::vmm::{Boot, Vmm};

/// A module that finds itself slow on Atoms, as `max` says it is one, and refuses unless told not to.
const REFUSES: &str = "twofish_x86_64_3way";

/// Drivers that must be there, each tested: AES, SHA, CRC32C, GHASH and ChaCha.
const DRIVERS: [(Flavour, &[&str]); 2] = [
    (
        AMD64,
        &[
            "xts-aes-aesni",
            "generic-gcm-aesni",
            "sha1-ni",
            "sha256-ni",
            "sha256-avx2",
            "sha512-avx2",
            "crc32c-intel",
            "crct10dif-pclmul",
            "ghash-clmulni",
            "chacha20-simd",
            "poly1305-simd",
            "cbc-serpent-avx2",
        ],
    ),
    (
        I686,
        &[
            "cbc-aes-aesni",
            "crc32c-intel",
            "crc32-pclmul",
            "ghash-generic",
            "chacha20-generic",
            "sha512-generic",
        ],
    ),
];

fn main() {
    let test = |(flavour, drivers): (Flavour, &'static [&'static str])| {
        trial(flavour.name, move || passes_its_own_tests(flavour, drivers))
    };
    suite::run(DRIVERS.map(test).into());
}

fn passes_its_own_tests(flavour: Flavour, drivers: &[&str]) -> Result<()> {
    let guest = flavour.cached()?.with_modules()?;
    let mut shell = Shell::boot(Vmm::under_test(), &guest, &Boot::default())?;
    let order = shell.run(&format!("cat /{DIRECTORY}/{ORDER}"))?;
    for module in order.lines() {
        let option = if module == REFUSES { " force=1" } else { "" };
        let complaint = shell.run(&format!("insmod /{DIRECTORY}/{module}.ko{option}"))?;
        ensure!(complaint.trim().is_empty(), "{module}: {complaint}");
    }
    let table = shell.run("cat /proc/crypto")?;
    let field = |entry: &str, name: &str| -> String {
        let line = entry.lines().find(|line| line.starts_with(name));
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
    };
    let entries: Vec<_> = table
        .split("\n\n")
        .map(|entry| (field(entry, "driver"), field(entry, "selftest")))
        .filter(|(driver, _)| !driver.is_empty())
        .collect();
    for (driver, selftest) in &entries {
        ensure!(selftest == "passed", "{driver}: the test of itself is {selftest:?}");
    }
    for driver in drivers {
        ensure!(entries.iter().any(|(name, _)| name == driver), "no {driver}:\n{table}");
    }
    let log = shell.run("dmesg -r")?;
    let complaints = dmesg::complaints(&log)?;
    ensure!(complaints.is_empty(), "not on the allow-list:\n{}", complaints.join("\n"));
    ensure!(log.contains("x86/fpu: "), "the FPU is not set up:\n{log}");
    println!("{}: {} drivers, from {} modules", flavour.name, entries.len(), order.lines().count());
    Ok(())
}
