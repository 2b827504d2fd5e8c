//! Benches: the same guest by Brolga and by QEMU, side by side.

mod memory;
mod stats;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::expect::Session;
use crate::guests::initramfs::{PROMPT, READY};
use crate::guests::{AMD64, Guest};
use crate::shell::{BOOT_LIMIT, COMMAND_LIMIT, plain};
use crate::table;
use crate::vmm::{Boot, Vmm};
use memory::Memory;
pub use stats::Stats;

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
    let mut contenders = vec![(Vmm::Brolga, "brolga --accel interp", Vec::new())];
    if Vmm::qemu_is_installed() {
        contenders.push((Vmm::Qemu, "qemu-system-x86_64 -accel tcg", Vec::new()));
    } else {
        eprintln!("qemu-system-x86_64 is not installed: Brolga is measured alone");
    }
    for round in 1..=rounds {
        for (vmm, name, samples) in &mut contenders {
            eprint!("round {round} of {rounds}: {name} ... ");
            let sample = measure(*vmm, &guest).with_context(|| format!("benching {name}"))?;
            eprintln!("{:.2} s", sample.ready.as_secs_f64());
            samples.push(sample);
        }
    }
    Ok(report(&contenders))
}

/// Measures a boot from the start of the process until user space says that it is ready.
fn measure(vmm: Vmm, guest: &Guest) -> Result<Sample> {
    let mut boot = Boot { append: "console=ttyS0 quiet panic=-1".into(), ..Boot::default() };
    if vmm == Vmm::Brolga {
        boot.extra = ["--accel", "interp", "--stats"].map(Into::into).to_vec();
    }
    let command = vmm.command(guest, &boot)?;
    let started = Instant::now();
    let mut session = Session::spawn(&command)?;
    session.expect(READY, BOOT_LIMIT)?;
    let ready = started.elapsed();
    let memory = Memory::of_process(session.process_id()?, u64::from(boot.memory))?;
    session.expect(PROMPT, COMMAND_LIMIT)?;
    session.send("poweroff -f\n")?;
    let ended = session.finish(COMMAND_LIMIT)?;
    Ok(Sample { ready, memory, stats: Stats::find(&plain(&ended.output)) })
}

fn report(contenders: &[(Vmm, &str, Vec<Sample>)]) -> String {
    let header =
        ["engine", "ready s", "ratio", "M insns", "MIPS", "peak RSS MiB", "beyond RAM MiB"];
    let mut table = table::new(header);
    let measure = contenders.last().map_or(0.0, |(_, _, samples)| median_ready(samples));
    for (_, name, samples) in contenders {
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
            (*name).to_owned(),
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

/// The middle value; of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.as_slice() {
        [] => f64::NAN,
        sorted if sorted.len() % 2 == 1 => sorted[middle],
        sorted => sorted[middle - 1].midpoint(sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
