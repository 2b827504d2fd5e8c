//! `brolga conform`: the built-in ROMs, captured vectors and test386.asm where they are, vectors
//! and guests of our own making, and hostile files; on both engines.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use brolga_test_roms as roms;
use brolga_tests::moo::{self, Case386, reg};
use brolga_tests::process::{self, Finished};
use brolga_tests::suite::{self, Skip, trial};
use brolga_tests::{binary, exit};
use libtest_mimic::Trial;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(900);
/// All engines: the translator with everything translated, and as users have it.
const ENGINES: [(&str, &[&str]); 3] = [
    ("interp", &["--accel", "interp"]),
    ("jit", &["--accel", "jit", "--jit-threshold", "1"]),
    ("tiered", &["--accel", "jit"]),
];
/// Translated code takes its time at a threshold of 1: one file of vectors out of so many, others
/// each day.
const JIT_SHARE: usize = 8;
const FAILED: i32 = 1;

fn main() {
    let mut trials: Vec<Trial> = Vec::new();
    for (name, engine) in ENGINES {
        let mut add = |what: &str, test: fn(&[&str]) -> Result<()>| {
            trials.push(trial(format!("{what}_{name}"), move || test(engine)));
        };
        add("built_in_roms", built_in_roms);
        add("captured_80286", captured_80286);
        add("test386", test386);
        add("vectors_of_an_80386", vectors_of_an_80386);
        add("vectors_of_an_8088", vectors_of_an_8088);
        add("guests_that_report", guests_that_report);
        add("kernels_that_report", kernels_that_report);
    }
    trials.extend([
        trial("lesser_models_skip_what_they_lack", lesser_models_skip_what_they_lack),
        trial("a_wrong_vector_is_explained", a_wrong_vector_is_explained),
        trial("revoked_vectors_are_left_out", revoked_vectors_are_left_out),
        trial("reports_are_written", reports_are_written),
        trial("unusable_files_are_named", unusable_files_are_named),
        trial("qemu_passes_the_roms", qemu_passes_the_roms),
    ]);
    suite::run(trials)
}

fn conform<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Result<Finished> {
    let mut command = Command::new(binary::brolga()?);
    process::run(command.arg("conform").args(arguments), LIMIT)
}

fn passes(finished: &Finished) -> Result<()> {
    let code = finished.code()?;
    ensure!(code == 0, "exit status {code}\n{}\n{}", finished.stdout, finished.stderr);
    Ok(())
}

fn built_in_roms(engine: &[&str]) -> Result<()> {
    passes(&conform(engine)?)
}

/// A folder of `$BROLGA_VECTORS`, or of `../shared/vectors` beside the workspace.
fn vectors(processor: &str) -> Result<PathBuf> {
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

fn captured_80286(engine: &[&str]) -> Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(vectors("80286")?)? {
        files.push(entry?.path());
    }
    files.retain(|path| path.to_string_lossy().ends_with(".MOO.gz"));
    files.sort();
    let (share, first) =
        if engine.contains(&"--jit-threshold") { (JIT_SHARE, today() % JIT_SHARE) } else { (1, 0) };
    println!("each {share}th of {} files, from the {first}th on", files.len());
    let files = files.iter().skip(first).step_by(share).map(|path| path.as_os_str());
    passes(&conform(engine.iter().map(|word| word.as_ref()).chain(files))?)
}

/// The number of the day, or `BROLGA_ROTATION`, which repeats another day's choice.
fn today() -> usize {
    const DAY: u64 = 24 * 60 * 60;
    let said = std::env::var("BROLGA_ROTATION").ok().and_then(|number| number.parse().ok());
    said.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        usize::try_from(now.as_secs() / DAY).unwrap_or_default()
    })
}

/// `BROLGA_TEST386` names a ROM of test386.asm with OUT_PORT 0xe9, and `BROLGA_TEST386_REFERENCE`
/// the reference of its results.
fn test386(engine: &[&str]) -> Result<()> {
    let variable = |name| {
        std::env::var_os(name).ok_or_else(|| Skip(format!("{name} names no file of test386.asm")))
    };
    let rom = variable("BROLGA_TEST386")?;
    let reference = variable("BROLGA_TEST386_REFERENCE")?;
    let options = ["--preset".into(), "test386".into(), "--reference".into(), reference, rom];
    passes(&conform(engine.iter().map(Into::into).chain(options))?)
}

/// Registers before every case: code at 1000:0100, data at 2000h, a stack at 3000:0800.
fn before(values: &[(u32, u32)]) -> Vec<(u32, u32)> {
    const FIXED_FLAGS: u32 = 2;
    let place = [
        (reg::CS, 0x1000),
        (reg::EIP, 0x100),
        (reg::DS, 0x2000),
        (reg::SS, 0x3000),
        (reg::ESP, 0x800),
        (reg::EFLAGS, FIXED_FLAGS),
    ];
    place.into_iter().chain(values.iter().copied()).collect()
}

/// Cases with results from the 80386 Programmer's Reference Manual.
fn cases_386() -> Vec<Case386> {
    const HLT: u8 = 0xf4;
    // The handler of #DE lies at 4000:0000.
    let handler = [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0x40, 0x40), (0x4_0000, HLT, HLT)];
    // FLAGS, CS and IP of the instruction, below 3000:0800.
    let frame = [0x00, 0x01, 0x00, 0x10, 0x02, 0x00];
    let pushed = (0x3_07fa..).zip(frame).map(|(at, byte)| (at, 0, byte));
    vec![
        Case386 {
            name: "inc eax",
            bytes: vec![0x66, 0x40, HLT],
            before: before(&[(reg::EAX, 0x7fff_ffff)]),
            // OF, SF, AF, PF.
            after: vec![(reg::EAX, 0x8000_0000), (reg::EIP, 0x103), (reg::EFLAGS, 0x896)],
            ..Case386::default()
        },
        Case386 {
            name: "mov [ecx+edx*4], eax",
            bytes: vec![0x67, 0x66, 0x89, 0x04, 0x91, HLT],
            before: before(&[(reg::EAX, 0x4433_2211), (reg::ECX, 0x10), (reg::EDX, 4)]),
            after: vec![(reg::EIP, 0x106)],
            memory: (0x2_0020..).zip(1..=4).map(|(at, n)| (at, 0, 0x11 * n)).collect(),
            ..Case386::default()
        },
        Case386 {
            name: "shl eax, 2",
            bytes: vec![0x66, 0xc1, 0xe0, 0x02, HLT],
            before: before(&[(reg::EAX, 0x4000_0001)]),
            // CF; the file's metadata say that OF and AF are undefined, and claim they are set.
            after: vec![(reg::EAX, 4), (reg::EIP, 0x105), (reg::EFLAGS, 0x813)],
            masks: vec![(reg::EFLAGS, !0x810)],
            ..Case386::default()
        },
        Case386 {
            name: "div cl",
            bytes: vec![0xf6, 0xf1, HLT],
            before: before(&[(reg::EAX, 1)]),
            after: vec![(reg::CS, 0x4000), (reg::EIP, 1), (reg::ESP, 0x7fa)],
            memory: handler.into_iter().chain(pushed).collect(),
            exception: Some(0),
            ..Case386::default()
        },
    ]
}

fn file_386(cases: &[Case386]) -> Vec<u8> {
    let chunks: Vec<Vec<u8>> = (0..).zip(cases).map(|(index, case)| case.chunk(index)).collect();
    moo::file(b"386E", &chunks)
}

/// Writes `content` to a file of a folder that goes with the result.
fn written(name: &str, content: &[u8]) -> Result<(tempfile::TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join(name);
    std::fs::write(&path, content)?;
    Ok((directory, path))
}

fn vectors_of_an_80386(engine: &[&str]) -> Result<()> {
    let (directory, _) = written("386.moo", &file_386(&cases_386()))?;
    let folder = directory.path().as_os_str();
    let finished =
        conform(engine.iter().map(|word| word.as_ref()).chain([folder, "--json".as_ref()]))?;
    passes(&finished)?;
    let report: Value = serde_json::from_str(&finished.stdout)?;
    ensure!(report["suites"][0]["passed"] == cases_386().len(), "{report:#}");
    Ok(())
}

/// Cases of an 8088 end with the instruction. What a later processor does otherwise is left out.
fn vectors_of_an_8088(engine: &[&str]) -> Result<()> {
    let cases = [
        Case386 {
            name: "inc ax",
            bytes: vec![0x40],
            before: before(&[(reg::EAX, 0x7fff)]),
            after: vec![(reg::EAX, 0x8000), (reg::EIP, 0x101), (reg::EFLAGS, 0xf896)],
            ..Case386::default()
        },
        Case386 {
            name: "rep stosb",
            bytes: vec![0xf3, 0xaa],
            before: before(&[(reg::EAX, 0x55), (reg::ECX, 2)]),
            after: vec![(reg::ECX, 0), (reg::EDI, 2), (reg::EIP, 0x102)],
            memory: vec![(0, 0, 0x55), (1, 0, 0x55)],
            ..Case386::default()
        },
        Case386 {
            name: "push sp",
            bytes: vec![0x54],
            before: before(&[]),
            after: vec![(reg::ESP, 0x7fe), (reg::EIP, 0x101)],
            memory: vec![(0x3_07fe, 0, 0xfe), (0x3_07ff, 0, 0x07)],
            ..Case386::default()
        },
    ];
    let chunks: Vec<Vec<u8>> = (0..).zip(&cases).map(|(index, case)| case.chunk(index)).collect();
    let (_directory, path) = written("8088.moo", &moo::file(b"8088", &chunks))?;
    let finished = conform(engine.iter().map(|word| word.as_ref()).chain([path.as_os_str()]))?;
    passes(&finished)?;
    let counts = "2 passed, 0 failed, 1 skipped";
    ensure!(finished.stdout.contains(counts), "{}", finished.stdout);
    ensure!(finished.stdout.contains("PUSH SP: the 8086"), "{}", finished.stdout);
    Ok(())
}

fn a_wrong_vector_is_explained() -> Result<()> {
    let mut cases = cases_386();
    cases[0].after[0].1 = 0x1234;
    let (_directory, path) = written("386.moo", &file_386(&cases))?;
    let finished = conform([&path])?;
    ensure!(finished.code()? == FAILED, "{}", finished.stdout);
    for part in
        ["inc eax (6640f4)", "ax=7fffffff", "expected     ax=1234", "got          ax=80000000"]
    {
        ensure!(finished.stdout.contains(part), "{part:?} is missing:\n{}", finished.stdout);
    }
    Ok(())
}

fn revoked_vectors_are_left_out() -> Result<()> {
    let mut cases = cases_386();
    cases[0].after[0].1 = 0x1234;
    let (directory, path) = written("386.moo", &file_386(&cases))?;
    std::fs::write(directory.path().join("revocation_list.txt"), format!("{}\n", "01".repeat(20)))?;
    let finished = conform([&path])?;
    passes(&finished)?;
    ensure!(finished.stdout.contains("3 passed, 0 failed, 1 skipped"), "{}", finished.stdout);
    Ok(())
}

/// A flat ROM that reports to ports, and in lines; each with what says how it reports.
fn guests_that_report(engine: &[&str]) -> Result<()> {
    for (rom, options, expected) in [
        (roms::exit_rom(0), &[][..], 0),
        (roms::exit_rom(3), &[], FAILED),
        (roms::halt_forever_rom(), &[], FAILED),
        (roms::triple_fault_rom(), &[], FAILED),
        (roms::exit_rom(0), &["--post-port", "0xf4", "--post-pass", "0"], 0),
        (roms::exit_rom(0), &["--post-port", "0xf4"], FAILED),
        (roms::spin_rom(), &["--max-insns", "100000"], FAILED),
    ] {
        let (_directory, path) = written("test.rom", &rom)?;
        let words = engine.iter().chain(options).map(|word| word.as_ref());
        let finished = conform(words.chain([path.as_os_str()]))?;
        ensure!(finished.code()? == expected, "{options:?}: {}", finished.stdout);
    }
    let (directory, path) = written("hello.rom", &roms::hello_rom())?;
    std::fs::write(directory.path().join("text"), "hello\n")?;
    std::fs::write(
        directory.path().join("hello.rom.conform"),
        "ascii-port = 0xe9 # as the serial line\nreference = text\n",
    )?;
    let finished = conform(engine.iter().map(|word| word.as_ref()).chain([path.as_os_str()]))?;
    passes(&finished)?;
    std::fs::write(directory.path().join("text"), "hallo\n")?;
    let finished = conform([&path])?;
    ensure!(finished.stdout.contains("text, line 1"), "{}", finished.stdout);
    Ok(())
}

/// Where [`kernel`] is loaded, and where it leaves a result.
const LOADED: u32 = 0x10_0000;
const RESULT: u32 = 0x20_0000;

/// A multiboot 1 kernel (The Multiboot Specification, 3.1 and 3.2; ELF-32): the header, then `code`,
/// which is entered in 32-bit protected mode with flat segments.
fn kernel(code: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 0x1000;
    const MAGIC: u32 = 0x1bad_b002;
    let multiboot = [MAGIC, 0, MAGIC.wrapping_neg()].map(u32::to_le_bytes).concat();
    let entry = LOADED + multiboot.len() as u32;
    let text = [multiboot, code.to_vec()].concat();
    let size = text.len() as u32;
    // 32 bits, little-endian, executable, for the 386; one program header behind this one.
    let mut image = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    image.extend([1, entry, 52, 0, 0].map(u32::to_le_bytes).concat());
    image.extend([52_u16, 32, 1, 40, 0, 0].map(u16::to_le_bytes).concat());
    // PT_LOAD of all, readable, writable and executable.
    let load = [1, HEADERS, LOADED, LOADED, size, size, 7, HEADERS];
    image.extend(load.map(u32::to_le_bytes).concat());
    image.resize(HEADERS as usize, 0);
    image.extend(text);
    image
}

/// Writes a text to COM1, a result to memory and a value to the exit port, and halts.
fn reporting_kernel(text: &str, result: u32, exit: Option<u8>) -> Result<Vec<u8>> {
    use iced_x86::code_asm::*;
    let mut a = CodeAssembler::new(32)?;
    a.mov(edx, 0x3f8)?;
    for byte in text.bytes() {
        a.mov(al, u32::from(byte))?;
        a.out(dx, al)?;
    }
    a.mov(dword_ptr(RESULT), result)?;
    if let Some(value) = exit {
        a.mov(al, u32::from(value))?;
        a.out(0xf4, al)?;
    }
    a.cli()?;
    a.hlt()?;
    Ok(kernel(&a.assemble(u64::from(LOADED) + 12)?))
}

/// Multiboot kernels that report in lines on the serial line, at the exit port, and in memory.
fn kernels_that_report(engine: &[&str]) -> Result<()> {
    let at = format!("{RESULT:#x}");
    let in_memory = ["--result-at", &at];
    let other = ["--result-at", &at, "--result-pass", "0x600d"];
    for (text, result, exit, options, status, counts) in [
        ("PASS: one\nPASS: two\n", 0, Some(0), &[][..], 0, "3 passed, 0 failed, 0 skipped"),
        ("PASS: one\nFAIL: two\n", 0, Some(0), &[], FAILED, "2 passed, 1 failed, 0 skipped"),
        ("PASS: one\nSKIP: two\n", 0, Some(0), &[], 0, "2 passed, 0 failed, 1 skipped"),
        ("PASS: one\n", 0, Some(5), &[], FAILED, "1 passed, 1 failed, 0 skipped"),
        ("", 1, None, &in_memory, 0, "1 passed, 0 failed, 0 skipped"),
        ("", 2, None, &in_memory, FAILED, "0 passed, 1 failed, 0 skipped"),
        ("", 0x600d, None, &other, 0, "1 passed, 0 failed, 0 skipped"),
        ("", 0, None, &[], FAILED, "0 passed, 1 failed, 0 skipped"),
    ] {
        let (_directory, path) = written("test.elf", &reporting_kernel(text, result, exit)?)?;
        let words = engine.iter().chain(options).map(|word| word.as_ref());
        let finished = conform(words.chain([path.as_os_str()]))?;
        let code = finished.code()?;
        ensure!(code == status, "{text:?}, {result:#x}: {code}\n{}", finished.stdout);
        ensure!(finished.stdout.contains(counts), "{text:?}: {counts}\n{}", finished.stdout);
    }
    Ok(())
}

/// No ROM fails on a model that lacks what it needs: the reason is said instead.
fn lesser_models_skip_what_they_lack() -> Result<()> {
    for (model, reason) in [
        ("486", "LONG_MODE: the CPU 486 lacks it"),
        ("pentium3", "SSE2: the CPU pentium3 lacks it"),
        ("core2", "SSE4_2: the CPU core2 lacks it"),
        ("haswell", "PKU: the CPU haswell lacks it"),
    ] {
        let finished = conform(["--cpu", model])?;
        ensure!(finished.code()? == 0, "{model}: {}", finished.stdout);
        ensure!(finished.stdout.contains(reason), "{reason:?}:\n{}", finished.stdout);
    }
    Ok(())
}

fn reports_are_written() -> Result<()> {
    let (directory, path) = written("386.moo", &file_386(&cases_386()))?;
    let junit = directory.path().join("report.xml");
    let finished =
        conform([path.as_os_str(), "--junit".as_ref(), junit.as_os_str(), "--markdown".as_ref()])?;
    passes(&finished)?;
    ensure!(finished.stdout.starts_with("## `"), "{}", finished.stdout);
    let xml = std::fs::read_to_string(junit)?;
    ensure!(xml.contains("tests=\"4\" failures=\"0\" skipped=\"0\""), "{xml}");
    Ok(())
}

fn unusable_files_are_named() -> Result<()> {
    let good = file_386(&cases_386());
    for (name, content) in [
        ("empty.moo", Vec::new()),
        ("cut.moo", good[..good.len() - 3].to_vec()),
        ("necs.moo", moo::file(b"V30 ", &[])),
        ("damaged.moo.gz", [b"\x1f\x8b".to_vec(), good].concat()),
        ("odd.rom", vec![0; 1000]),
        ("not.elf", b"\x7fELF".to_vec()),
    ] {
        let (_directory, path) = written(name, &content)?;
        let finished = conform([&path])?;
        let line = finished.stderr.lines().next().context("no message")?;
        ensure!(finished.code()? == exit::USER_ERROR, "{name}: {}", finished.stdout);
        ensure!(finished.stderr.lines().count() == 1, "{name}: {}", finished.stderr);
        ensure!(line.starts_with("brolga: ") && line.contains(name), "{name}: {line}");
    }
    for arguments in [&["no-such-file"][..], &["--preset", "no-such-preset"], &["--cpu", "z80"]] {
        let finished = conform(arguments)?;
        ensure!(finished.code()? == exit::USER_ERROR && finished.is_refusal());
    }
    Ok(())
}

/// A check of the ROMs themselves. What QEMU does otherwise is listed with the manual's word.
fn qemu_passes_the_roms() -> Result<()> {
    if !brolga_tests::vmm::Vmm::qemu_is_installed() {
        bail!(Skip("qemu-system-x86_64 is not installed".into()));
    }
    brolga_tests::qemu_roms::run()
}
