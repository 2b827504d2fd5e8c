//! Random guest programs on two engines at once, which must agree about everything: registers,
//! flags, memory, exceptions, instruction counts.
//!
//! A program has a few blocks of 16-, 32- or 64-bit code in some mode, with handlers that note
//! events and go on elsewhere. It runs on a vCPU with RAM and nothing else, in this process.

mod bus;
mod environment;
mod execute;
mod generate;
mod handlers;
mod instructions;
mod layout;
mod minimise;
mod place;
mod report;
mod templates;

#[cfg(test)]
mod tests;

use anyhow::{Result, bail};
use brolga_machine::accel::{AccelKind, EngineSpec, Surroundings};

use execute::Engines;
use generate::Program;

use super::Cases;

/// After how many programs to say so.
const PROGRESS: u64 = 50_000;

/// The pairs of engines that are compared when nothing is said: the interpreter with itself in
/// slices, and with a translator of everything.
pub fn default_engines() -> [[EngineSpec; 2]; 2] {
    let interpreter = || EngineSpec::from(AccelKind::Interp);
    let mut jit = EngineSpec::from(AccelKind::Jit);
    jit.jit.threshold = 1;
    // Little, so that code makes room for other code.
    jit.jit.cache_bytes = 1 << 16;
    [[interpreter(), interpreter()], [interpreter(), jit]]
}

/// Runs the programs of some seeds on all host cores; the first difference is the error, with the
/// smallest program found that shows it. The second engine gets its budgets in random pieces.
pub fn run(cases: Cases, engines: &[EngineSpec; 2]) -> Result<()> {
    let [first, second] =
        engines.each_ref().map(|spec| move |core| Ok(spec.build(core, Surroundings::default())?));
    let [name, other] = engines;
    super::each(cases, PROGRESS, |seed| match find_difference([&first, &second], seed)? {
        Some(difference) => bail!("{name} and {other} differ\n{difference}"),
        None => Ok(()),
    })
}

/// Runs the program of a seed; how the engines differ, if they do.
fn find_difference(engines: Engines<'_>, seed: u64) -> Result<Option<String>> {
    let program = Program::generate(seed);
    let Err(difference) = execute::run(engines, &program)? else { return Ok(None) };
    let (program, difference) = minimise::minimise(engines, program, difference)?;
    Ok(Some(format!("{}{}", report::describe(&program), difference.lines().join("\n"))))
}

/// The program of a seed as text.
pub fn describe(seed: u64) -> String {
    report::describe(&Program::generate(seed))
}
