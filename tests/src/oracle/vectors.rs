//! Results captured from a processor, for hosts that have none of the kind.
//!
//! `tests/vectors` has a file for each family: compressed lines of JSON, an encoding each. Inputs are
//! not stored but drawn again, from the same seed; a checksum tells whether they are the same. What
//! the instruction changed is stored.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use brolga_cpu::vcpu::rflags::STATUS;
use fastrand::Rng;
use flate2::Crc;
use flate2::read::GzDecoder;
use iced_x86::Code;
use serde::{Deserialize, Serialize};

use super::check::{Engines, verdict};
use super::families::Family;
use super::generate::{Generated, generate, vary};
use super::state::{Ending, Mode, Raised, State};

/// Instructions of each encoding, and states for each instruction.
const INSTANCES: usize = 2;
const STATES: usize = 2;
const DF: u64 = 1 << 10;

/// What is captured of an encoding.
#[derive(Serialize, Deserialize)]
struct Captured {
    code: String,
    bits: u32,
    /// A CRC of the inputs of all cases.
    inputs: u32,
    outcomes: Vec<Outcome>,
}

/// What an instruction did.
#[derive(Serialize, Deserialize)]
struct Outcome {
    /// Vector, error code and address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raised: Option<(u8, u64, u64)>,
    /// Bytes that are not as before: places in [`image`], and the bytes in hexadecimal.
    changes: Vec<(usize, String)>,
}

/// Runs what is captured of `family` on both engines. An error if a result differs.
pub fn replay(family: &Family) -> Result<()> {
    let packed =
        fs::File::open(path(family)).with_context(|| path(family).display().to_string())?;
    let mut text = String::new();
    GzDecoder::new(packed).read_to_string(&mut text)?;
    let by_name: BTreeMap<String, Code> =
        Code::values().map(|code| (format!("{code:?}"), code)).collect();
    let family = &family.captured();
    let mut engines = Engines::new()?;
    let (mut bad, mut total) = (Vec::new(), 0);
    for line in text.lines() {
        let captured: Captured = serde_json::from_str(line)?;
        let code = *by_name.get(&captured.code).context("an encoding that iced does not know")?;
        let mode = Mode::ALL.into_iter().find(|mode| mode.bits() == captured.bits);
        let cases = cases(code, mode.context("bits")?);
        ensure!(
            captured.inputs == checksum(&cases) && captured.outcomes.len() == cases.len(),
            "{code:?}: cases are drawn in another way than when their results were captured; \
             run `cargo xtask oracle capture` on an x86-64 host"
        );
        for (case, outcome) in cases.iter().zip(&captured.outcomes) {
            total += 1;
            let expected = outcome.ending(&case.state)?;
            let difference = engines
                .interpret(family, case, &expected)
                .or_else(|| engines.translate(family, case, &expected));
            bad.extend(difference.map(|text| (code, text)));
        }
    }
    ensure!(total > 0, "nothing is captured");
    println!("{}: {total} captured cases", family.name);
    verdict(&bad)
}

/// Captures all families on this host's processor. Returns how many cases there are.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub fn capture() -> Result<usize> {
    use super::{families, host, native::Native};
    use flate2::{Compression, write::GzEncoder};

    let mut native = Native::new()?;
    let mut total = 0;
    fs::create_dir_all(directory())?;
    for family in families::all() {
        let mut packed = GzEncoder::new(fs::File::create(path(family))?, Compression::best());
        for mode in Mode::ALL.into_iter().filter(|mode| family.exists(*mode)) {
            for code in host::runnable(family, mode, &native)? {
                let cases = cases(code, mode);
                let outcomes = cases
                    .iter()
                    .map(|case| Ok(Outcome::new(&case.state, &native.run(case)?)))
                    .collect::<Result<Vec<_>>>()?;
                total += outcomes.len();
                let (code, bits) = (format!("{code:?}"), mode.bits());
                let line = Captured { code, bits, inputs: checksum(&cases), outcomes };
                writeln!(packed, "{}", serde_json::to_string(&line)?)?;
            }
        }
        packed.finish()?;
    }
    Ok(total)
}

/// Refuses: captured results come from a processor.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub fn capture() -> Result<usize> {
    anyhow::bail!("results are captured on x86-64 hosts with Linux")
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn path(family: &Family) -> PathBuf {
    directory().join(format!("{}.gz", family.name))
}

/// The cases of an encoding.
fn cases(code: Code, mode: Mode) -> Vec<Generated> {
    let mut rng = Rng::with_seed(code as u64);
    let mut instance = || {
        let first = generate(&mut rng, code, mode);
        std::iter::successors(Some(first), |before| {
            let mut next = before.clone();
            vary(&mut rng, &mut next);
            Some(next)
        })
        .take(STATES)
        .collect::<Vec<_>>()
    };
    (0..INSTANCES).flat_map(|_| instance()).collect()
}

fn checksum(cases: &[Generated]) -> u32 {
    let mut crc = Crc::new();
    for case in cases {
        crc.update(&case.bytes);
        crc.update(&image(&case.state));
    }
    crc.sum()
}

/// A state as bytes: registers, flags, the FXSAVE image but for what [`State::fx_fields`] leaves out,
/// upper halves of YMM registers, memory.
fn image(state: &State) -> Vec<u8> {
    const LEFT_OUT: [std::ops::Range<usize>; 3] = [5..6, 28..32, 416..512];
    let mut fx = state.fx;
    for range in LEFT_OUT {
        fx[range].fill(0);
    }
    for number in fx[32..160].as_chunks_mut::<16>().0 {
        number[10..].fill(0);
    }
    let mut bytes: Vec<u8> = state.regs.iter().flat_map(|r| r.to_le_bytes()).collect();
    bytes.extend((state.rflags & (STATUS | DF)).to_le_bytes());
    bytes.extend(fx);
    bytes.extend(state.ymm_high.iter().flat_map(|y| y.to_le_bytes()));
    bytes.extend(&state.scratch[..]);
    bytes
}

/// The state of which `bytes` is the image.
fn from_image(bytes: &[u8]) -> Option<State> {
    let (regs, rest) = bytes.split_first_chunk::<128>()?;
    let (rflags, rest) = rest.split_first_chunk::<8>()?;
    let (fx, rest) = rest.split_first_chunk::<512>()?;
    let (ymm_high, scratch) = rest.split_first_chunk::<256>()?;
    let (regs, ymm_high) = (regs.as_chunks::<8>().0, ymm_high.as_chunks::<16>().0);
    Some(State {
        regs: std::array::from_fn(|n| u64::from_le_bytes(regs[n])),
        rflags: u64::from_le_bytes(*rflags),
        fx: *fx,
        ymm_high: std::array::from_fn(|n| u128::from_le_bytes(ymm_high[n])),
        scratch: Box::new(scratch.try_into().ok()?),
    })
}

impl Outcome {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn new(before: &State, ending: &Ending) -> Outcome {
        let (before, after) = (image(before), image(&ending.state));
        let mut changes: Vec<(usize, String)> = Vec::new();
        let mut end = None;
        for (at, byte) in after.iter().enumerate().filter(|(at, byte)| before[*at] != **byte) {
            match changes.last_mut().filter(|_| end == Some(at)) {
                Some((_, run)) => run.push_str(&format!("{byte:02x}")),
                None => changes.push((at, format!("{byte:02x}"))),
            }
            end = Some(at + 1);
        }
        let raised = ending.raised.map(|r| (r.vector, r.error, r.address));
        Outcome { raised, changes }
    }

    fn ending(&self, before: &State) -> Result<Ending> {
        let mut bytes = image(before);
        for (at, run) in &self.changes {
            for (n, digits) in run.as_bytes().chunks(2).enumerate() {
                let byte = u8::from_str_radix(str::from_utf8(digits)?, 16)?;
                *bytes.get_mut(at + n).context("a change outside the state")? = byte;
            }
        }
        let raised = self.raised.map(|(vector, error, address)| Raised { vector, error, address });
        Ok(Ending { state: from_image(&bytes).context("the state's image")?, raised })
    }
}
