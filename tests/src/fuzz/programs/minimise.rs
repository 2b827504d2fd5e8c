//! Making a program that shows a difference smaller.

use anyhow::Result;

use super::execute::{Difference, Engines, run};
use super::generate::{Event, Program};

/// The smallest program found that still shows a difference, and that difference.
pub(super) fn minimise(
    engines: Engines<'_>,
    program: Program,
    difference: Box<Difference>,
) -> Result<(Program, Box<Difference>)> {
    let mut best = Smallest { engines, program, difference };
    best.shorten()?;
    best.drop_events()?;
    best.drop_items()?;
    best.shorten()?;
    best.narrow()?;
    Ok((best.program, best.difference))
}

struct Smallest<'a> {
    engines: Engines<'a>,
    program: Program,
    difference: Box<Difference>,
}

impl Smallest<'_> {
    /// Takes a smaller program if it shows a difference too.
    fn take(&mut self, program: Program) -> Result<bool> {
        let Err(difference) = run(self.engines, &program)? else { return Ok(false) };
        (self.program, self.difference) = (program, difference);
        Ok(true)
    }

    fn shorten(&mut self) -> Result<bool> {
        let mut program = self.program.clone();
        program.budget = self.difference.at;
        program.events.retain(|(at, _)| *at < program.budget);
        self.take(program)
    }

    fn drop_events(&mut self) -> Result<()> {
        for n in (0..self.program.events.len()).rev() {
            let mut program = self.program.clone();
            if n < program.events.len() {
                program.events.remove(n);
                self.take(program)?;
            }
        }
        Ok(())
    }

    /// Replaces items with instructions that do nothing: many at once, then fewer.
    fn drop_items(&mut self) -> Result<()> {
        let count = self.program.items();
        let mut chunk = count.div_ceil(2);
        loop {
            for from in (0..count).step_by(chunk) {
                let mut program = self.program.clone();
                let items = program.blocks.iter_mut().flat_map(|block| &mut block.items);
                for item in items.skip(from).take(chunk) {
                    *item = item.nothing();
                }
                self.take(program)?;
            }
            if chunk == 1 {
                return Ok(());
            }
            chunk = chunk.div_ceil(2);
        }
    }

    /// Looks after every instruction, unless that hides the difference.
    fn narrow(&mut self) -> Result<()> {
        let mut program = self.program.clone();
        let looks = (self.difference.agreed..self.difference.at).map(|at| (at, Event::Look));
        program.events.extend(looks);
        program.events.sort_by_key(|(at, _)| *at);
        if let Err(difference) = run(self.engines, &program)? {
            self.difference = difference;
        }
        Ok(())
    }
}
