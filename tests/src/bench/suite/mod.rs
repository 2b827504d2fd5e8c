//! The benchmark suite: workloads in Debian guests by Brolga's engines and by QEMU's TCG in
//! turn, with this host's own time as the floor.
//!
//! A guest's clock is part of what is measured, so times are taken by the host, when the marks
//! around a workload arrive on the serial line; the guest's own are kept beside them.

mod code;
mod report;
mod results;
mod rows;
mod workload;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::engine::{self, Engine, Running};
use crate::guests::{AMD64, Flavour, Guest, I686};
use crate::process;
use crate::shell::COMMAND_LIMIT;
use crate::suite::Skip;
use code::Dumps;
use results::Cell;
pub use results::Results;
pub use rows::Row;
use rows::{Group, ROWS};
use workload::{run_in_guest, run_natively};

/// A clock of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Clock {
    /// Time as it passes: what a user waits for.
    Wall,
    /// What a process uses of the processors: steadier on a host that is busy with other things.
    Cpu,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Engines of Brolga, as `--accel` names them.
    pub accels: Vec<String>,
    /// Names of rows or groups; all if there are none.
    pub rows: Vec<String>,
    /// How many times the amount of work that a row has by itself.
    pub work: u64,
    /// Units of work instead of a row's own.
    pub count: Option<u64>,
    /// How often.
    pub rounds: u32,
    /// The clock that decides.
    pub clock: Clock,
}

/// A guest and what is run in it.
struct Machine {
    guest: Guest,
    /// The program of the workloads, where one could be built.
    program: Option<PathBuf>,
    /// Indices of rows.
    rows: Vec<usize>,
}

/// Runs the suite and says on standard error how far it is. When an engine fails, the results
/// up to there are returned with its error.
pub fn run(options: &Options) -> Result<(Results, Result<()>)> {
    let with_work = |row: Row| row.with_work(options.work, options.count);
    let rows = select(&options.rows)?.into_iter().map(with_work);
    let (rows, machines) = prepare(rows.collect())?;
    let mut engines: Vec<_> = Engine::measure().into_iter().collect();
    for accel in &options.accels {
        match engine::refusal(accel)? {
            None => engines.push(Engine::Brolga(accel.clone())),
            Some(why) => eprintln!("{accel} is left out: {why}"),
        }
    }
    let mut results = Results::new(&rows, engines, options.clock);
    let outcome = measure(&machines, options.rounds, &mut results);
    Ok((results, outcome))
}

fn measure(machines: &[Machine], rounds: u32, results: &mut Results) -> Result<()> {
    for round in 1..=rounds {
        let progress = format!("round {round} of {rounds}");
        for machine in machines {
            if let Some(program) = &machine.program {
                eprint!("{progress}: native {}:", machine.guest.flavour.name);
                machine.run_natively(program, results)?;
            }
        }
        for engine in 0..results.engines.len() {
            for machine in machines {
                let name = &results.engines[engine];
                eprint!("{progress}: {name} {}:", machine.guest.flavour.name);
                machine.run(results, engine)?;
            }
        }
    }
    for machine in machines {
        machine.count_instructions(results)?;
    }
    Ok(())
}

/// Runs every workload of a guest with hardly any work, natively and by an engine of Brolga's,
/// and compares what they compute. A workload that is in no row is an error.
pub fn compare(flavour: Flavour, accel: &str) -> Result<()> {
    const COUNT: u64 = 3;
    let guest = flavour.cached()?.with_workloads()?;
    let program = flavour.workloads()?;
    let listed = process::run(&mut Command::new(&program), COMMAND_LIMIT)?.stdout;
    let stray = listed.lines().find(|name| !ROWS.iter().any(|row| row.workload() == *name));
    ensure!(stray.is_none(), "{stray:?} is in no row");
    let mut running = Engine::Brolga(accel.into()).boot(&guest, &[])?;
    let own = ROWS.iter().filter(|row| row.flavour == flavour && row.count.is_some());
    for workload in own.map(Row::workload) {
        let native = run_natively(&program, workload, COUNT)?;
        let guests = run_in_guest(&mut running.session, workload, COUNT)?;
        let (native, guests) = (native.sum, guests.sum);
        ensure!(native == guests, "{workload} gives {guests:x} in the guest, {native:x} here");
    }
    running.power_off()?;
    Ok(())
}

/// The rows that a user named.
fn select(names: &[String]) -> Result<Vec<Row>> {
    let is_named = |row: &Row, name: &str| row.name == name || row.group.name() == name;
    for name in names {
        if !ROWS.iter().any(|row| is_named(row, name)) {
            let rows: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            let groups: Vec<_> = Group::ALL.iter().map(|group| group.name()).collect();
            let (rows, groups) = (rows.join(" "), groups.join(", "));
            bail!("no row {name:?}; rows: {rows}; groups: {groups}");
        }
    }
    let is_wanted = |row: &&Row| names.is_empty() || names.iter().any(|name| is_named(row, name));
    Ok(ROWS.iter().filter(is_wanted).copied().collect())
}

/// The guests for these rows, without the rows whose workloads cannot be built: those are told.
fn prepare(wanted: Vec<Row>) -> Result<(Vec<Row>, Vec<Machine>)> {
    let (mut rows, mut machines) = (Vec::new(), Vec::new());
    for flavour in [AMD64, I686] {
        let mut own: Vec<_> = wanted.iter().filter(|row| row.flavour == flavour).copied().collect();
        if own.is_empty() {
            continue;
        }
        let mut guest = flavour.cached()?;
        let mut program = None;
        if own.iter().any(|row| row.count.is_some()) {
            program = build(flavour, &mut own)?;
        }
        if program.is_some() {
            guest = guest.with_workloads()?;
        }
        if !own.is_empty() {
            let first = rows.len();
            rows.append(&mut own);
            machines.push(Machine { guest, program, rows: (first..rows.len()).collect() });
        }
    }
    ensure!(!machines.is_empty(), "nothing is left to measure");
    Ok((rows, machines))
}

/// Builds the workloads; where that cannot be, their rows leave.
fn build(flavour: Flavour, rows: &mut Vec<Row>) -> Result<Option<PathBuf>> {
    let error = match flavour.workloads() {
        Ok(program) => return Ok(Some(program)),
        Err(error) => error,
    };
    let skip = error.downcast::<Skip>()?;
    let left_out: Vec<_> = rows.iter().filter(|row| row.count.is_some()).map(|r| r.name).collect();
    eprintln!("{skip}; left out: {}", left_out.join(" "));
    rows.retain(|row| row.count.is_none());
    Ok(None)
}

impl Machine {
    fn run_natively(&self, program: &Path, results: &mut Results) -> Result<()> {
        for &index in &self.rows {
            let measured = &mut results.rows[index];
            if let Some(count) = measured.row.count {
                let workload = measured.row.workload();
                let outcome = run_natively(program, workload, count)
                    .with_context(|| format!("running {} on this host", measured.row.name))?;
                measured.native.add(&outcome);
                progress(measured.row.name, &measured.native);
            }
        }
        eprintln!();
        Ok(())
    }

    /// Boots, and runs all rows.
    fn run(&self, results: &mut Results, engine: usize) -> Result<()> {
        let name = results.engines[engine].to_string();
        let booting = || format!("booting {} by {name}", self.guest.flavour.name);
        let mut running = results.engines[engine]
            .boot(&self.guest, &["--clock", "host"])
            .with_context(booting)?;
        for &index in &self.rows {
            let measured = &mut results.rows[index];
            let (row, cell) = (measured.row, &mut measured.engines[engine]);
            match (row.count, row.group) {
                (Some(count), _) => {
                    let outcome = run_in_guest(&mut running.session, row.workload(), count)
                        .with_context(|| format!("running {} by {name}", row.name))?;
                    cell.add(&outcome);
                }
                (None, Group::Unpack) => cell.add_boot(running.entered),
                (None, _) => cell.add_boot(running.ready - running.entered),
            }
            progress(row.name, cell);
        }
        eprintln!();
        let beyond_ram = running.memory()?.beyond_ram;
        let most = &mut results.beyond_ram[engine];
        *most = Some(most.map_or(beyond_ram, |so_far: f64| so_far.max(beyond_ram)));
        running.power_off()?;
        Ok(())
    }

    /// Runs the workloads once more by the first of Brolga's engines with the virtual clock:
    /// there, a nanosecond of the guest is an instruction. Looks at the code that it makes, too.
    fn count_instructions(&self, results: &mut Results) -> Result<()> {
        let is_brolga = |engine: &&Engine| matches!(engine, Engine::Brolga(_));
        let Some(engine) = results.engines.iter().find(is_brolga) else { return Ok(()) };
        if self.program.is_none() {
            return Ok(());
        }
        eprint!("counting instructions: {engine} {}:", self.guest.flavour.name);
        let mut dumps = engine.translates().then(Dumps::new).transpose()?;
        let mut arguments = vec!["--clock", "virtual"];
        if let Some(dumps) = &dumps {
            arguments.extend(["--jit-dump", dumps.path()?]);
        }
        let mut running: Running = engine.boot(&self.guest, &arguments)?;
        dumps.as_mut().map(Dumps::take).transpose()?;
        for &index in &self.rows {
            let measured = &mut results.rows[index];
            if let Some(count) = measured.row.count {
                let outcome = run_in_guest(&mut running.session, measured.row.workload(), count)?;
                let instructions = outcome.guest.as_nanos() as f64;
                eprint!(" {} {:.1} M", measured.row.name, instructions / 1e6);
                measured.instructions = Some(instructions);
                measured.code = dumps.as_mut().map(Dumps::take).transpose()?.unwrap_or_default();
            }
        }
        eprintln!();
        running.power_off()?;
        Ok(())
    }
}

fn progress(row: &str, cell: &Cell) {
    if let Some(last) = cell.host.last() {
        eprint!(" {row} {} ms", last.wall.as_millis());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_selected_by_name_and_by_group() -> Result<()> {
        let names = |wanted: &[&str]| -> Result<Vec<_>> {
            let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
            Ok(select(&wanted)?.iter().map(|row| row.name).collect())
        };
        assert_eq!(names(&["sieve", "packed FP"])?, ["sieve", "matmul-packed"]);
        assert_eq!(names(&[])?.len(), ROWS.len());
        let error = names(&["sive"]).unwrap_err().to_string();
        assert!(error.contains("sive") && error.contains("sieve"), "{error}");
        Ok(())
    }
}
