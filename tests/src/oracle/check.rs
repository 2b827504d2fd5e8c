//! Compares the interpreter with the host, case by case.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use brolga_cpu::vcpu::rflags::STATUS;
use brolga_machine::conform::undefined;
use fastrand::Rng;
use iced_x86::Code;

use crate::operands::codes;

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
    let (mut bad, mut total) = (Vec::new(), 0);
    for code in codes(family.mnemonics, 64) {
        let mut rng = Rng::with_seed(u64::from(seed) << 32 | code as u64);
        for _ in 0..cases {
            let case = generate(&mut rng, code);
            total += 1;
            if let Some(difference) = compare(&mut native, &mut guest, family, &case)? {
                bad.push((code, difference));
                break;
            }
        }
    }
    if bad.is_empty() {
        println!("{}: {total} cases", family.name);
        return Ok(());
    }
    let names: Vec<_> = bad.iter().map(|(code, _): &(Code, _)| format!("{code:?}")).collect();
    let shown: Vec<_> = bad.iter().take(SHOWN).map(|(_, text)| text.as_str()).collect();
    bail!("{} encodings differ: {}\n{}", bad.len(), names.join(" "), shown.join("\n"));
}

/// What differs, for a person; `None` if nothing does.
fn compare(
    native: &mut Native,
    guest: &mut Guest,
    family: &Family,
    case: &Generated,
) -> Result<Option<String>> {
    let i = &case.instruction;
    let expected = native.run(&case.bytes, &case.state)?;
    let repeats = i.has_rep_prefix() || i.has_repne_prefix();
    let text = differences(
        family,
        case,
        &expected,
        &match guest.run(&case.bytes, i.is_string_instruction() && repeats, &case.state) {
            Ok(got) => got,
            Err(error) => return Ok(Some(format!("{}\n    {error:#}", explain(case)))),
        },
    );
    Ok((!text.is_empty()).then(|| format!("{}{text}", explain(case))))
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
