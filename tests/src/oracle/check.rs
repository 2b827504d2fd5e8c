//! Compares both engines with a processor, case by case.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use brolga_cpu::core::tier::Tier;
use brolga_cpu::vcpu::rflags::STATUS;
use brolga_jit::{Jit, JitConfig};
use brolga_machine::conform::undefined;

use super::families::Family;
use super::generate::Generated;
use super::guest::Guest;
use super::known::{self, Hides};
use super::state::{Ending, State};

/// More than any instruction takes: iterations, or what stands behind it.
const MANY: u64 = 0x1000;
const DF: u64 = 1 << 10;

/// Both engines.
pub struct Engines {
    interpreter: Guest,
    /// None where translated code cannot run.
    translator: Option<Guest<Jit>>,
}

impl Engines {
    /// A guest each.
    pub fn new() -> Result<Engines> {
        let config = JitConfig { threshold: 1, cache_bytes: 16 << 20, ..JitConfig::default() };
        let translator = if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            Some(Guest::with_tier(Jit::new(config)?)?)
        } else {
            None
        };
        Ok(Engines { interpreter: Guest::new()?, translator })
    }

    /// Executes a case by the interpreter, and says what is not as expected.
    pub fn interpret(
        &mut self,
        family: &Family,
        case: &Generated,
        expected: &Ending,
    ) -> Option<String> {
        let i = &case.instruction;
        let repeats = i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix());
        compare(&mut self.interpreter, if repeats { MANY } else { 1 }, family, case, expected)
    }

    /// As [`Engines::interpret`], by translated code.
    pub fn translate(
        &mut self,
        family: &Family,
        case: &Generated,
        expected: &Ending,
    ) -> Option<String> {
        let translator = self.translator.as_mut()?;
        let text = compare(translator, MANY, family, case, expected)?;
        Some(format!("translated: {text}"))
    }
}

/// What differs, for a person; `None` if nothing does.
fn compare<T: Tier>(
    guest: &mut Guest<T>,
    budget: u64,
    family: &Family,
    case: &Generated,
    expected: &Ending,
) -> Option<String> {
    let text = match guest.run(case, budget) {
        Ok(got) if agree(family, case, expected, &got) => return None,
        Ok(got) => differences(family, case, expected, &got),
        Err(error) => format!("\n    {error:#}"),
    };
    (!text.is_empty()).then(|| format!("{}{text}", explain(case)))
}

/// The flags that are compared.
fn defined(case: &Generated) -> u64 {
    let cl = case.state.regs[1] as u8;
    (STATUS | DF) & !undefined::flags(&case.instruction, cl)
}

/// Whether nothing differs at all, which is the rule: [`differences`] looks closer.
fn agree(family: &Family, case: &Generated, expected: &Ending, got: &Ending) -> bool {
    let (host, ours) = (&expected.state, &got.state);
    expected.raised == got.raised
        && host.regs == ours.regs
        && (host.rflags ^ ours.rflags) & defined(case) == 0
        && host.scratch == ours.scratch
        && (!family.vector || host.ymm_high == ours.ymm_high && host.same_fx(ours))
}

fn differences(family: &Family, case: &Generated, expected: &Ending, got: &Ending) -> String {
    let mut text = String::new();
    let hides = known::hides(case, expected);
    if hides.contains(&Hides::Everything) {
        return text;
    }
    if !known::same_exception(case, expected.raised, got.raised) {
        let _ = write!(text, "\n    raised: host {:x?}, ours {:x?}", expected.raised, got.raised);
    }
    let defined = defined(case);
    let fields = |state: &State| {
        let regs = state.regs.iter().enumerate().map(|(n, v)| (format!("r{n}"), u128::from(*v)));
        let hidden = hides.iter().any(|h| h.covers("flags"));
        let flags = if hidden { 0 } else { u128::from(state.rflags & defined) };
        let flags = [("flags".to_owned(), flags)];
        let fx = state.fx_fields().filter(|_| family.vector).map(|(name, v)| {
            let v = if hides.iter().any(|h| h.covers(&name)) { 0 } else { v };
            let bits = hides.iter().fold(0, |bits, h| bits | h.status_word());
            let v = if name == "FSW" { v & !bits } else { v };
            (name, v)
        });
        regs.chain(flags).chain(fx).collect::<Vec<_>>()
    };
    let before = fields(&case.state);
    for (n, (host, ours)) in fields(&expected.state).iter().zip(fields(&got.state)).enumerate() {
        let near = host.0.starts_with("ST") && host.1.abs_diff(ours.1) <= 1;
        if *host != ours && (family.exact || !near) {
            let _ = write!(
                text,
                "\n    {}: before {:x}, host {:x}, ours {:x}",
                host.0, before[n].1, host.1, ours.1
            );
        }
    }
    let hidden = known::hidden_memory(case);
    let mut memory = expected.state.scratch.iter().zip(&got.state.scratch[..]).enumerate();
    let other = memory
        .find(|(at, (host, ours))| host != ours && !hidden.iter().any(|range| range.contains(at)));
    if let Some((at, _)) = other {
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
    let mut text = format!("{:?} {:?} {:02x?}", case.mode, i.code(), case.bytes);
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

/// A number from the environment.
pub(super) fn number(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

/// An error that names the encodings that differ, and shows the first differences.
pub(super) fn verdict(differences: &[(iced_x86::Code, String)]) -> Result<()> {
    const SHOWN: usize = 12;
    let names: Vec<_> = differences.iter().map(|(code, _)| format!("{code:?}")).collect();
    let shown: Vec<_> = differences.iter().take(SHOWN).map(|(_, text)| text.as_str()).collect();
    ensure!(
        differences.is_empty(),
        "{} encodings differ: {}\n{}",
        differences.len(),
        names.join(" "),
        shown.join("\n")
    );
    Ok(())
}
