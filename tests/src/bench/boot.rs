//! The boot of a guest, in detail.

use std::time::Duration;

use anyhow::{Context, Result};

use super::engine::Engine;
use super::memory::Memory;
use super::{Stats, median};
use crate::guests::{AMD64, Guest};
use crate::shell::plain;
use crate::table;

/// One boot.
struct Sample {
    ready: Duration,
    memory: Memory,
    stats: Option<Stats>,
}

/// Boots the amd64 guest `rounds` times by the interpreter and by QEMU's TCG, in turn so that
/// a change in the host's speed meets both, and returns a table of medians.
pub fn interpreter_boot(rounds: u32) -> Result<String> {
    let guest = AMD64.cached()?;
    let engines = [Some(Engine::Brolga("interp".into())), Engine::measure()];
    let mut contenders: Vec<_> =
        engines.into_iter().flatten().map(|engine| (engine, Vec::new())).collect();
    for round in 1..=rounds {
        for (engine, samples) in &mut contenders {
            eprint!("round {round} of {rounds}: {engine} ... ");
            let sample = measure(engine, &guest).with_context(|| format!("benching {engine}"))?;
            eprintln!("{:.2} s", sample.ready.as_secs_f64());
            samples.push(sample);
        }
    }
    Ok(report(&contenders))
}

/// Measures a boot from the start of the process until user space says that it is ready.
fn measure(engine: &Engine, guest: &Guest) -> Result<Sample> {
    let running = engine.boot(guest, &["--stats"])?;
    let (ready, memory) = (running.ready.wall, running.memory()?);
    let ended = running.power_off()?;
    Ok(Sample { ready, memory, stats: Stats::find(&plain(&ended.output)) })
}

fn report(contenders: &[(Engine, Vec<Sample>)]) -> String {
    let header =
        ["engine", "ready s", "ratio", "M insns", "MIPS", "peak RSS MiB", "beyond RAM MiB"];
    let mut table = table::new(header);
    let measure = contenders.last().map_or(0.0, |(_, samples)| median_ready(samples));
    for (engine, samples) in contenders {
        let ready = median_ready(samples);
        let stats = |value: fn(&Stats) -> f64| {
            let values: Vec<_> =
                samples.iter().filter_map(|s| s.stats.as_ref()).map(value).collect();
            if values.is_empty() { "-".into() } else { format!("{:.0}", median(values)) }
        };
        let mebibytes = |value: fn(&Memory) -> f64| {
            format!("{:.0}", median(samples.iter().map(|s| value(&s.memory)).collect()))
        };
        table.add_row([
            engine.to_string(),
            format!("{ready:.2}"),
            format!("{:.2}", ready / measure),
            stats(|s| s.instructions as f64 / 1e6),
            stats(|s| s.mips),
            mebibytes(|m| m.peak),
            mebibytes(|m| m.beyond_ram),
        ]);
    }
    format!("boot of the amd64 guest, process start to user space, medians\n{table}")
}

fn median_ready(samples: &[Sample]) -> f64 {
    median(samples.iter().map(|sample| sample.ready.as_secs_f64()).collect())
}
