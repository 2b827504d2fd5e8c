//! This host's processor as the oracle: random cases, or cases to capture.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use fastrand::Rng;
use iced_x86::{Code, CpuidFeature};

use super::check::{Engines, number, verdict};
use super::families::Family;
use super::generate::{generate, vary};
use super::native::Native;
use super::state::Mode;
use crate::operands::codes;
use crate::suite::Skip;

/// Cases for each encoding, unless [`CASES_VARIABLE`] says otherwise: all families together have
/// some 200 000 in each mode.
const CASES: u64 = 80;
const CASES_VARIABLE: &str = "BROLGA_ORACLE_CASES";
/// A number that makes other cases; without it, each day has others.
const SEED_VARIABLE: &str = "BROLGA_ORACLE_SEED";
/// States that an instruction is executed with, one after the other, unless [`STATES_VARIABLE`] says
/// otherwise: to decode it, to translate it and to change code on the host take longer than to execute
/// it.
const STATES: u64 = 8;
const STATES_VARIABLE: &str = "BROLGA_ORACLE_STATES";
/// Of so many instructions one is executed as translated code too, unless [`TRANSLATED_VARIABLE`] says
/// otherwise. With 128 states, all of them take as long as one in eight do with 8.
const TRANSLATED: u64 = 8;
const TRANSLATED_VARIABLE: &str = "BROLGA_ORACLE_TRANSLATED";

/// Runs `family` in `mode` on the host and on both engines. An error if a result differs.
pub fn run(family: &Family, mode: Mode) -> Result<()> {
    let today = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 86_400;
    let (cases, seed) = (number(CASES_VARIABLE, CASES)?, number(SEED_VARIABLE, today)?);
    let states = number(STATES_VARIABLE, STATES)?.max(1);
    let translated = number(TRANSLATED_VARIABLE, TRANSLATED)?.max(1);
    let mut native = Native::new()?;
    let runnable = runnable(family, mode, &native)?;
    let mut engines = Engines::new()?;
    let (mut bad, mut total, mut translations) = (Vec::new(), 0, 0);
    for code in runnable {
        let mut rng = Rng::with_seed(seed << 32 | code as u64);
        let instances = cases.div_ceil(states);
        let difference = (0..instances).find_map(|n| {
            let mut case = generate(&mut rng, code, mode);
            (0..states).find_map(|state| {
                if state > 0 {
                    vary(&mut rng, &mut case);
                }
                total += 1;
                let expected = match native.run(&case) {
                    Ok(expected) => expected,
                    Err(error) => return Some(format!("{error:#}")),
                };
                engines.interpret(family, &case, &expected).or_else(|| {
                    if n % translated != 0 {
                        return None;
                    }
                    translations += 1;
                    engines.translate(family, &case, &expected)
                })
            })
        });
        bad.extend(difference.map(|text| (code, text)));
    }
    println!(
        "{} in {} bits: seed {seed}, {total} cases, {translations} of them translated too",
        family.name,
        mode.bits()
    );
    verdict(&bad)
}

/// The encodings of `family` that the host has.
pub(super) fn runnable(family: &Family, mode: Mode, native: &Native) -> Result<Vec<Code>> {
    if !native.can(mode) {
        return Err(Skip("the kernel has no 32-bit code segment for processes".into()).into());
    }
    let mut all = codes(family.mnemonics, mode.bits());
    all.retain(|code| has(*code));
    if all.is_empty() {
        return Err(Skip(format!("{}: the host lacks the instructions", family.name)).into());
    }
    Ok(all)
}

/// Whether the host has the extensions that not every x86-64 host of the tests has.
fn has(code: Code) -> bool {
    use CpuidFeature as F;
    code.cpuid_features().iter().all(|feature| match feature {
        F::ADX => is_x86_feature_detected!("adx"),
        F::AVX => is_x86_feature_detected!("avx"),
        F::AVX2 => is_x86_feature_detected!("avx2"),
        F::F16C => is_x86_feature_detected!("f16c"),
        F::FMA => is_x86_feature_detected!("fma"),
        F::AES => is_x86_feature_detected!("aes"),
        F::BMI1 => is_x86_feature_detected!("bmi1"),
        F::BMI2 => is_x86_feature_detected!("bmi2"),
        F::GFNI => is_x86_feature_detected!("gfni"),
        F::LZCNT => is_x86_feature_detected!("lzcnt"),
        F::VAES => is_x86_feature_detected!("vaes"),
        F::VPCLMULQDQ => is_x86_feature_detected!("vpclmulqdq"),
        F::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        F::SHA => is_x86_feature_detected!("sha"),
        _ => true,
    })
}
