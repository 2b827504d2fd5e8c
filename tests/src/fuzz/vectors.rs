//! Hostile vector files: cases with random registers and memory, and files with wrong lengths and
//! bytes.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use fastrand::Rng;

use super::HANG;
use crate::moo::{self, Case386};
use crate::{exit, process};

/// Registers of the format, and bits that name none.
const REGISTERS: u32 = 20;
/// All cases passed; some failed.
const RAN: [i32; 2] = [0, 1];

/// The file of a seed.
pub(super) fn generate(seed: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed);
    let count = rng.u32(..4);
    let cases: Vec<Vec<u8>> = (0..count).map(|index| case(&mut rng).chunk(index)).collect();
    let cpu = rng.choice([b"386E", b"C286", b"8088", b"V20 "]).unwrap_or(b"386E");
    let mut file = moo::file(cpu, &cases);
    if rng.bool() {
        mutate(&mut file, &mut rng);
    }
    file
}

fn case(rng: &mut Rng) -> Case386 {
    const HLT: u8 = 0xf4;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(6).collect();
    bytes.push(HLT);
    // Mostly in real mode, with code in RAM.
    let mask = if rng.u8(..8) == 0 { u32::MAX } else { 0xfffe };
    let registers = |rng: &mut Rng| (0..REGISTERS).map(|n| (n, rng.u32(..) & mask)).collect();
    let (before, after) = (registers(rng), registers(rng));
    let memory = (0..rng.u32(..8)).map(|_| (rng.u32(..0x12_0000), rng.u8(..), rng.u8(..)));
    let memory = memory.collect();
    let exception = rng.bool().then(|| rng.u8(..));
    Case386 { name: "random", bytes, before, after, memory, exception, ..Case386::default() }
}

fn mutate(file: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.u8(1..8) {
        let at = rng.usize(..file.len());
        file[at] = rng.u8(..);
    }
    if rng.bool() {
        file.truncate(rng.usize(..=file.len()));
    }
}

/// Runs a file: its cases run, or it is refused in one clear line.
pub(super) fn judge(binary: &Path, file: &Path) -> Result<()> {
    let mut command = Command::new(binary);
    command.args(["conform", "--accel", "interp"]).arg(file);
    let finished = process::run(&mut command, HANG)?;
    let status = finished.code()?;
    ensure!(!finished.stderr.contains("panicked at"), "{}", finished.stderr);
    let is_refusal = status == exit::USER_ERROR && finished.stderr.lines().count() == 1;
    ensure!(RAN.contains(&status) || is_refusal, "exit status {status}:\n{}", finished.stderr);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::generate;

    #[test]
    fn a_seed_is_a_file_and_most_begin_as_they_should() {
        assert_eq!(generate(7), generate(7));
        let good = (0..200).filter(|&seed| generate(seed).starts_with(b"MOO ")).count();
        assert!((150..200).contains(&good), "{good}");
    }
}
