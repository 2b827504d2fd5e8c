//! How a guest ends is how `brolga` ends: each way has its exit status.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use brolga_test_roms::{
    exit_rom, halt_forever_rom, hello_rom, reset_loop_rom, short_sleeps_rom, spin_rom,
    triple_fault_rom,
};
use brolga_tests::process::{self, Finished};
use brolga_tests::state::State;
use brolga_tests::suite::{self, trial};
use brolga_tests::{binary, exit};

const LIMIT: Duration = Duration::from_secs(30);

fn main() {
    suite::run(vec![
        trial("exit_port_value_is_the_status", exit_port_value_is_the_status),
        trial("large_exit_port_values_are_one_status", large_exit_port_values_are_one_status),
        trial("triple_fault", || ends(triple_fault_rom(), &[], exit::TRIPLE_FAULT)),
        trial("halt_with_interrupts_off", || ends(halt_forever_rom(), &[], exit::HALTED)),
        trial("reset_loop", || ends(reset_loop_rom(), &[], exit::RESET_LOOP)),
        trial("short_sleeps_end", short_sleeps_end),
        trial("instruction_limit", instruction_limit),
        trial("timeout", timeout),
        trial("stop_on_serial", || {
            ends(hello_rom(), &["--stop-on-serial", "ell"], exit::STOPPED_ON_SERIAL)
        }),
        trial("serial_goes_to_stdout", serial_goes_to_stdout),
        trial("serial_goes_to_a_file", serial_goes_to_a_file),
        trial("death_is_explained", death_is_explained),
        trial("death_is_explained_as_json", death_is_explained_as_json),
    ])
}

/// Runs a ROM without a terminal.
fn run(rom: Vec<u8>, arguments: &[&str]) -> Result<Finished> {
    run_by("virtual", rom, arguments)
}

fn run_by(clock: &str, rom: Vec<u8>, arguments: &[&str]) -> Result<Finished> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), rom)?;
    let mut command = Command::new(binary::brolga()?);
    command.args(["run", "--clock", clock, "--bios"]).arg(file.path()).args(arguments);
    process::run(&mut command, LIMIT)
}

fn ends(rom: Vec<u8>, arguments: &[&str], status: i32) -> Result<()> {
    let finished = run(rom, arguments)?;
    ensure!(finished.code()? == status, "status {status} was due: {finished:?}");
    Ok(())
}

/// Timers that run out just before HLT wake the guest all the same.
fn short_sleeps_end() -> Result<()> {
    let finished = run_by("host", short_sleeps_rom(), &[])?;
    ensure!(finished.code()? == 0, "{finished:?}");
    Ok(())
}

fn exit_port_value_is_the_status() -> Result<()> {
    [0, 1, 2, 42, 63].into_iter().try_for_each(|code| ends(exit_rom(code), &[], code.into()))
}

fn large_exit_port_values_are_one_status() -> Result<()> {
    [64, 65, 255].into_iter().try_for_each(|code| ends(exit_rom(code), &[], exit::EXIT_PORT_MAX))
}

fn instruction_limit() -> Result<()> {
    let arguments = ["--max-insns", "123457", "--state-hash"];
    let finished = run(spin_rom(), &arguments)?;
    ensure!(finished.code()? == exit::INSTRUCTION_LIMIT, "{finished:?}");
    let instructions = State::find(&finished.stderr)?.instructions;
    ensure!(instructions == 123_457, "{instructions} instructions were executed");
    Ok(())
}

fn timeout() -> Result<()> {
    let started = Instant::now();
    ends(spin_rom(), &["--timeout", "2"], exit::TIMEOUT)?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!((1.9..5.0).contains(&seconds), "a timeout of 2 s took {seconds:.2} s");
    Ok(())
}

fn serial_goes_to_stdout() -> Result<()> {
    let finished = run(hello_rom(), &["--serial", "stdio"])?;
    ensure!(finished.code()? == 0 && finished.stdout == "hello\n", "{finished:?}");
    Ok(())
}

fn serial_goes_to_a_file() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let name = file.path().to_str().expect("temporary names are UTF-8");
    let finished = run(hello_rom(), &["--serial", name])?;
    ensure!(finished.code()? == 0 && finished.stdout.is_empty(), "{finished:?}");
    let text = fs::read_to_string(file.path())?;
    ensure!(text == "hello\n", "the file holds {text:?}");
    Ok(())
}

fn death_is_explained() -> Result<()> {
    let finished = run(triple_fault_rom(), &[])?;
    let report = finished.stderr.to_lowercase();
    // The chain begins with the undefined opcode and names what stood in the way; the
    // disassembly shows the instruction.
    for word in ["triple fault", "#ud", "idt", "ud2"] {
        ensure!(report.contains(word), "no {word:?} in the report:\n{}", finished.stderr);
    }
    Ok(())
}

fn death_is_explained_as_json() -> Result<()> {
    let finished = run(triple_fault_rom(), &["--json"])?;
    let texts = [&finished.stdout, &finished.stderr];
    let report = texts.iter().find_map(|text| serde_json::from_str(text).ok());
    let report: serde_json::Value =
        report.ok_or_else(|| anyhow::anyhow!("no JSON document: {finished:?}"))?;
    ensure!(report.is_object(), "not an object: {report}");
    Ok(())
}
