//! What `--trace` writes.

use std::fs::File;
use std::sync::Mutex;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::RunArguments;
use crate::debug::Tracer;

/// What can be traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Topic {
    /// Interrupts
    Interrupts,
    /// Exceptions
    Exceptions,
    /// Port accesses
    Pio,
    /// Accesses to memory-mapped registers
    Mmio,
    /// Accesses to model-specific registers
    Msr,
    /// Lines that the guest writes to port E9h
    Debugcon,
}

impl Topic {
    /// The tracing target that the topic is traced under.
    fn target(self) -> &'static str {
        match self {
            Self::Interrupts => "interrupt",
            Self::Exceptions => "exception",
            Self::Pio => "pio",
            Self::Mmio => "mmio",
            Self::Msr => "msr",
            Self::Debugcon => "debugcon",
        }
    }
}

/// Begins to trace what the user wants to see. With a debugger, that can be changed.
pub(super) fn start(run: &RunArguments) -> Result<Option<Tracer>> {
    if run.trace.is_empty() && run.gdb.is_none() {
        return Ok(None);
    }
    let (filter, handle) = reload::Layer::new(targets(&run.trace));
    let lines = tracing_subscriber::fmt::layer().without_time().with_level(false);
    let registry = tracing_subscriber::registry().with(filter);
    match &run.trace_file {
        Some(path) => {
            let file = File::create(path)
                .with_context(|| format!("cannot write the trace {}", path.display()))?;
            registry.with(lines.with_ansi(false).with_writer(Mutex::new(file))).try_init()?;
        }
        None => registry.with(lines.with_writer(std::io::stderr)).try_init()?,
    }
    Ok(Some(Box::new(move |topics| {
        handle.reload(targets(&parse(topics)?)).map_err(|error| error.to_string())
    })))
}

fn targets(topics: &[Topic]) -> Targets {
    Targets::new().with_targets(topics.iter().map(|topic| (topic.target(), LevelFilter::TRACE)))
}

/// Topics with commas between them, or `off`.
fn parse(topics: &str) -> Result<Vec<Topic>, String> {
    if topics == "off" {
        return Ok(Vec::new());
    }
    topics.split(',').map(|topic| Topic::from_str(topic, false)).collect()
}
