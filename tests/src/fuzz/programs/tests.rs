//! The programs do what they are for, and wrong engines are found.

use std::collections::{BTreeMap, BTreeSet};

use brolga_cpu::core::{Core, Interpreter, Stop};
use brolga_cpu::vcpu::{Vcpu, gpr};
use brolga_machine::accel::Accelerator;
use brolga_mmu::GuestPhys;

use super::execute::run;
use super::generate::Program;
use super::layout::{COUNT, INTERRUPT, LOG, LOGGED, SERVICE, SYSTEM};
use super::*;

fn interpreter(core: Core) -> Result<Box<dyn Accelerator>> {
    Ok(Box::new(Interpreter::new(core)))
}

#[test]
fn a_seed_is_a_program() {
    assert_eq!(describe(7), describe(7));
    assert_ne!(describe(7), describe(8));
}

#[test]
fn programs_run_far_and_meet_events_of_all_kinds() -> Result<()> {
    const PROGRAMS: u64 = 400;
    let (mut complete, mut kinds, mut vectors) = (0, BTreeSet::new(), BTreeMap::new());
    for seed in 0..PROGRAMS {
        let program = Program::generate(seed);
        let Ok(end) = run([&interpreter, &interpreter], &program)? else {
            panic!("seed {seed} differs");
        };
        complete += u64::from(end.retired >= program.budget);
        kinds.insert(format!("{:?} {}", program.kind, program.user));
        let number = |at: u64| end.ram[at as usize];
        let events = u64::from(number(SYSTEM + COUNT)).min(LOGGED);
        for n in 0..events {
            *vectors.entry(number(SYSTEM + LOG + 16 * n)).or_insert(0) += 1;
        }
    }
    println!("{complete} of {PROGRAMS} programs are executed to their ends; vectors: {vectors:?}");
    assert!(complete * 4 > PROGRAMS * 3);
    assert_eq!(kinds.len(), 9, "{kinds:?}");
    for vector in [0, 1, 2, 3, 5, 6, 7, 12, 13, 14, 16, 19, INTERRUPT, SERVICE] {
        assert!(vectors.contains_key(&vector), "vector {vector} in {vectors:?}");
    }
    Ok(())
}

/// An interpreter with a fault.
struct Wrong {
    engine: Interpreter,
    /// What it does after each instruction.
    harm: Option<fn(&mut Vcpu)>,
    /// It keeps code that has been overwritten from outside.
    deaf: bool,
}

impl Accelerator for Wrong {
    fn run(&mut self, budget: u64) -> Stop {
        let Some(harm) = self.harm else { return self.engine.run(budget) };
        for _ in 0..budget {
            match self.engine.run(1) {
                Stop::Budget => harm(&mut self.engine.core.vcpu),
                stop => return stop,
            }
        }
        Stop::Budget
    }

    fn core(&self) -> &Core {
        &self.engine.core
    }

    fn core_mut(&mut self) -> &mut Core {
        &mut self.engine.core
    }

    fn invalidate_code(&mut self, at: GuestPhys, len: u64) {
        if !self.deaf {
            self.engine.invalidate_code(at, len);
        }
    }
}

#[test]
fn an_engine_that_keeps_overwritten_code_is_found() -> Result<()> {
    let deaf = |core| -> Result<Box<dyn Accelerator>> {
        Ok(Box::new(Wrong { engine: Interpreter::new(core), harm: None, deaf: true }))
    };
    let mut reports = (0..1000).map(|seed| find_difference([&interpreter, &deaf], seed));
    let report = reports.find_map(Result::transpose).expect("some code is overwritten")?;
    assert!(report.contains("Dma("), "{report}");
    Ok(())
}

#[test]
fn a_wrong_engine_is_found_and_its_program_made_small() -> Result<()> {
    // After an instruction that leaves 5 in RCX, R9 changes.
    let harm = |vcpu: &mut Vcpu| {
        if vcpu.regs[usize::from(gpr::RCX)] == 5 {
            vcpu.regs[9] ^= 1;
        }
    };
    let wrong = |core| -> Result<Box<dyn Accelerator>> {
        Ok(Box::new(Wrong { engine: Interpreter::new(core), harm: Some(harm), deaf: false }))
    };
    let find = |seed| find_difference([&interpreter, &wrong], seed);
    let found = (0..100).filter_map(|seed| find(seed).transpose());
    let reports = found.take(4).collect::<Result<Vec<_>>>()?;
    assert!(!reports.is_empty(), "some program has 5 in RCX");
    for report in &reports {
        // The difference is shown at its instruction.
        let counts = report.lines().find_map(|line| {
            let (agreed, differ) =
                line.strip_prefix("agree after ")?.split_once(" instructions, ")?;
            let differ = differ.strip_prefix("differ after ")?.strip_suffix(':')?;
            Some((agreed.parse::<u64>().ok()?, differ.parse::<u64>().ok()?))
        });
        assert!(counts.is_some_and(|(agreed, differ)| differ == agreed + 1), "{report}");
        let seen = report.lines().any(|line| line.starts_with("> r9"));
        assert!(seen, "{report}");
    }
    // What loads RCX, and little else; nothing at all where a handler does.
    let instructions = |report: &String| report.lines().filter(|l| l.starts_with("    ")).count();
    let sizes: Vec<_> = reports.iter().map(instructions).collect();
    let is_small = sizes.iter().all(|n| *n < 32) && sizes.iter().any(|n| (1..16).contains(n));
    assert!(is_small, "{sizes:?}\n{}", reports.join("\n"));
    Ok(())
}
