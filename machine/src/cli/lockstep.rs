//! `brolga lockstep`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::args::LockstepArguments;
use super::{config, refuse};
use crate::accel::{AccelKind, EngineSpec, KvmHost};
use crate::clock::ClockKind;
use crate::exit::End;
use crate::lockstep::{self, Settings, Verdict};
use crate::machine::{Machine, MachineConfig};
use crate::run::Limits;
use crate::serial::{Answer, Serial, TextMatch};

/// The status of engines that differ.
const DIFFERENT: u8 = 1;

/// Compares, tells, and returns the exit status.
pub(super) fn main(arguments: &LockstepArguments) -> ExitCode {
    match compare(arguments) {
        Ok(verdict) => tell(&verdict),
        Err(error) => refuse(&format!("{error:#}")),
    }
}

fn compare(arguments: &LockstepArguments) -> Result<Verdict> {
    let LockstepArguments { machine, engines, every, ram_every, prompt, lines } = arguments;
    ensure!(engines.len() == 2, "--engines takes two, as in interp,interp:slice=1000");
    let engines: Vec<EngineSpec> = engines.iter().cloned().map(EngineSpec::counting).collect();
    let mut config = config(machine, engines[0].clone(), ClockKind::Virtual)?;
    if engines.iter().any(|engine| engine.kind == AccelKind::Kvm) {
        for line in config.adapt(Arc::new(KvmHost::open()?))? {
            eprintln!("brolga: {line}");
        }
    }
    let prompt = prompt.as_deref().unwrap_or_default();
    let answers = lines.iter().map(|line| Answer {
        after: TextMatch::new(prompt),
        typed: format!("{line}\r").into_bytes(),
    });
    let build = |engine: usize, serial: Serial| {
        let accel = engines[engine].clone();
        Machine::new(
            MachineConfig { accel, ..config.clone() },
            serial.with_answers(answers.clone()),
        )
    };
    let deadline = machine.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let settings = Settings {
        every: every.get(),
        ram_every: ram_every.get(),
        limits: Limits { deadline, instructions: machine.max_insns },
    };
    Ok(lockstep::run(&build, &settings)?)
}

fn tell(verdict: &Verdict) -> ExitCode {
    match verdict {
        Verdict::Same { end, instructions, state, counts } => {
            for (name, count) in counts {
                println!("brolga: {count:>12} {name}");
            }
            println!("brolga: the engines agree: state {instructions} insns {state}");
            if let Some(message) = end.message() {
                println!("brolga: {message}");
            }
            match **end {
                End::Timeout | End::HostError { .. } => ExitCode::from(end.status()),
                _ => ExitCode::SUCCESS,
            }
        }
        Verdict::Different(report) => {
            print!("{report}");
            ExitCode::from(DIFFERENT)
        }
    }
}
