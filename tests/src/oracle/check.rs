//! Compares both engines with the host, case by case.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use brolga_cpu::core::tier::Tier;
use brolga_cpu::vcpu::rflags::STATUS;
use brolga_jit::{Jit, JitConfig};
use brolga_machine::conform::undefined;
use fastrand::Rng;
use iced_x86::{Code, CpuidFeature};

use crate::operands::codes;
use crate::suite::Skip;

use super::families::Family;
use super::generate::{Generated, generate};
use super::guest::Guest;
use super::known::{self, Hides};
use super::native::Native;
use super::state::{Ending, State};

/// Cases for each encoding, unless the environment says otherwise.
const CASES: u32 = 200;
/// Overrides [`CASES`].
const CASES_VARIABLE: &str = "BROLGA_ORACLE_CASES";
/// A number that makes other cases.
const SEED_VARIABLE: &str = "BROLGA_ORACLE_SEED";
/// Of so many cases one is executed as translated code too, where the family asks for it.
const TRANSLATED: u32 = 8;
/// More than any instruction takes: iterations, or what stands behind it.
const MANY: u64 = 0x1000;
/// Encodings whose first difference is shown.
const SHOWN: usize = 12;
const DF: u64 = 1 << 10;

/// Runs `family` on both processors. An error if a result differs.
pub fn run(family: &Family) -> Result<()> {
    let number = |name: &str, default| match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    };
    let (cases, seed) = (number(CASES_VARIABLE, CASES)?, number(SEED_VARIABLE, 0)?);
    let (mut native, mut guest) = (Native::new()?, Guest::new()?);
    let config = JitConfig { threshold: 1, cache_bytes: 16 << 20, ..JitConfig::default() };
    let mut translated = Guest::with_tier(Jit::new(config)?)?;
    let (mut bad, mut total, mut translations) = (Vec::new(), 0, 0);
    let all = codes(family.mnemonics, 64);
    let runnable: Vec<Code> = all.iter().copied().filter(|code| host_has(*code)).collect();
    if runnable.is_empty() {
        return Err(Skip(format!("{}: the host lacks the instructions", family.name)).into());
    }
    for code in runnable {
        let mut rng = Rng::with_seed(u64::from(seed) << 32 | code as u64);
        for n in 0..cases {
            let case = generate(&mut rng, code);
            let expected = native.run(&case.bytes, &case.state)?;
            total += 1;
            let mut difference = compare(&mut guest, 1, family, &case, &expected);
            if difference.is_none() && family.translated && n % TRANSLATED == 0 {
                translations += 1;
                difference = compare(&mut translated, MANY, family, &case, &expected)
                    .map(|text| format!("translated: {text}"));
            }
            if let Some(difference) = difference {
                bad.push((code, difference));
                break;
            }
        }
    }
    if bad.is_empty() {
        println!("{}: {total} cases, {translations} of them translated too", family.name);
        return Ok(());
    }
    let names: Vec<_> = bad.iter().map(|(code, _): &(Code, _)| format!("{code:?}")).collect();
    let shown: Vec<_> = bad.iter().take(SHOWN).map(|(_, text)| text.as_str()).collect();
    bail!("{} encodings differ: {}\n{}", bad.len(), names.join(" "), shown.join("\n"));
}

/// What differs, for a person; `None` if nothing does.
fn compare<T: Tier>(
    guest: &mut Guest<T>,
    budget: u64,
    family: &Family,
    case: &Generated,
    expected: &Ending,
) -> Option<String> {
    let i = &case.instruction;
    let repeats = i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix());
    let budget = if repeats { MANY } else { budget };
    let text = match guest.run(&case.bytes, budget, &case.state) {
        Ok(got) => differences(family, case, expected, &got),
        Err(error) => format!("\n    {error:#}"),
    };
    (!text.is_empty()).then(|| format!("{}{text}", explain(case)))
}

/// Whether the host has the extensions that not every x86-64 host of the tests has.
fn host_has(code: Code) -> bool {
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

fn differences(family: &Family, case: &Generated, expected: &Ending, got: &Ending) -> String {
    let mut text = String::new();
    let hides = known::hides(case, expected);
    if hides.contains(&Hides::Everything) {
        return text;
    }
    if expected.raised != got.raised {
        let _ = write!(text, "\n    raised: host {:x?}, ours {:x?}", expected.raised, got.raised);
    }
    let cl = case.state.regs[1] as u8;
    let defined = (STATUS | DF) & !undefined::flags(&case.instruction, cl);
    let fields = |state: &State| {
        let regs = state.regs.iter().enumerate().map(|(n, v)| (format!("r{n}"), u128::from(*v)));
        let flags = [("flags".to_owned(), u128::from(state.rflags & defined))];
        let fx = state.fx_fields().filter(|_| family.vector).map(|(name, v)| {
            let v = if hides.iter().any(|h| h.covers(&name)) { 0 } else { v };
            let c1 = name == "FSW" && hides.contains(&Hides::C1);
            (name, if c1 { v & !known::C1 } else { v })
        });
        regs.chain(flags).chain(fx).collect::<Vec<_>>()
    };
    let before = fields(&case.state);
    for (n, (host, ours)) in fields(&expected.state).iter().zip(fields(&got.state)).enumerate() {
        if *host != ours {
            let _ = write!(
                text,
                "\n    {}: before {:x}, host {:x}, ours {:x}",
                host.0, before[n].1, host.1, ours.1
            );
        }
    }
    let memory = expected.state.scratch.iter().zip(&got.state.scratch[..]);
    if let Some(at) = memory.clone().position(|(host, ours)| host != ours) {
        let bytes =
            |state: &State| state.scratch[at..].iter().take(16).copied().collect::<Vec<_>>();
        let _ = write!(
            text,
            "\n    scratch+{at:#x}: before {:02x?}, host {:02x?}, ours {:02x?}",
            bytes(&case.state),
            bytes(&expected.state),
            bytes(&got.state)
        );
    }
    text
}

fn explain(case: &Generated) -> String {
    let i = &case.instruction;
    let mut text = format!("{:?} {:02x?}", i.code(), case.bytes);
    for n in 0..i.op_count() {
        let _ = match i.op_kind(n) {
            iced_x86::OpKind::Register => write!(text, " {:?}", i.op_register(n)),
            kind => write!(text, " {kind:?}"),
        };
    }
    let _ = write!(
        text,
        " base {:?} index {:?}\n    rax {:x} rcx {:x} rdx {:x} flags {:x} mxcsr {:02x?}",
        i.memory_base(),
        i.memory_index(),
        case.state.regs[0],
        case.state.regs[1],
        case.state.regs[2],
        case.state.rflags,
        &case.state.fx[24..26],
    );
    text
}
