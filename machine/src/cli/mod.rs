//! The command line.

mod args;
mod compare;
mod conform;
mod lockstep;
mod progress;
mod report;
mod size;
mod trace;

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use brolga_cpu::cpuid::CpuModel;
use brolga_gdb::{Address, Door};
use brolga_jit::{DumpConfig, JitConfig};
use clap::Parser;
use clap::error::ErrorKind;

use crate::accel::{AccelKind, EngineSpec, KvmError, KvmHost};
use crate::clock::ClockKind;
use crate::exit::{End, HOST_ERROR, USER_ERROR};
use crate::firmware::MemoryLayout;
use crate::machine::{Guest, Machine, MachineConfig};
use crate::run::Limits;
use crate::serial::{Input, Serial};
use crate::terminal::{self, RawTerminal};
use args::{Arguments, Command, MachineArguments, RunArguments, SerialTarget};
pub use size::parse_size;

/// Runs the program and returns its exit status.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let run = match arguments.command {
        Some(Command::Run(run)) => *run,
        Some(Command::Lockstep(lockstep)) => return lockstep::main(&lockstep),
        Some(Command::Conform(conform)) => return conform::main(&conform),
        Some(Command::Compare(compare)) => return compare::main(&compare),
        None => RunArguments::default(),
    };
    if run.machine.cpu.as_deref() == Some("help") {
        println!("{}", CpuModel::names().join("\n"));
        return ExitCode::SUCCESS;
    }
    match prepare(&run) {
        Ok(prepared) => execute(&run, prepared),
        Err(error) => refuse(&format!("{error:#}")),
    }
}

/// Help and version go to standard output; everything else is one line of what is wrong.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe is the reader's choice.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    let what = first.strip_prefix("error: ").unwrap_or(first);
    // Some messages only announce what the next line names.
    let named = if what.ends_with(':') { lines.next().unwrap_or_default() } else { "" };
    refuse(&format!("{what} {named} (`brolga run --help` shows what there is)"))
}

fn refuse(why: &str) -> ExitCode {
    let line: Vec<&str> = why.split_whitespace().collect();
    eprintln!("brolga: {}", line.join(" "));
    ExitCode::from(USER_ERROR)
}

/// A machine that is ready to run.
struct Prepared {
    machine: Machine,
    terminal: Option<RawTerminal>,
    door: Option<Door>,
}

/// Everything that can be wrong with the command line and its files, before the terminal is
/// touched or a file written.
fn prepare(run: &RunArguments) -> Result<Prepared> {
    let plan = run.accel.clone().unwrap_or(AccelKind::of_this_host().into());
    if plan.has(AccelKind::Kvm) && run.machine.max_insns.is_some() {
        bail!("--max-insns counts instructions, which --accel kvm cannot");
    }
    let mut accel = EngineSpec::from(plan.first);
    accel.kernel_irqchip = plan.kernel_irqchip;
    let host = JitConfig::of_this_host();
    let suited =
        run.jit_threads.map_or(host.clone(), |threads| host.with_threads(threads as usize));
    accel.jit = JitConfig {
        threshold: run.jit_threshold.unwrap_or(suited.threshold),
        threads: suited.threads,
        cache_bytes: run.jit_cache_size as usize,
        dump: DumpConfig { directory: run.jit_dump.clone(), perf_map: run.jit_perf_map },
        stats: run.jit_stats,
    };
    if run.gdb == Some(Address::Stdio) && run.serial == SerialTarget::Stdio {
        bail!("--gdb stdio leaves no standard input and output for the guest: add --serial none");
    }
    let mut config = config(&run.machine, accel, run.clock.unwrap_or(ClockKind::Host))?;
    if plan.has(AccelKind::Kvm) {
        ensure!(config.clock == ClockKind::Host, KvmError::VirtualClock);
        for line in config.adapt(Arc::new(KvmHost::open()?))? {
            eprintln!("brolga: {line}");
        }
    }
    let mut machine = Machine::new(config, Serial::nowhere())?;
    machine.set_changes(plan.changes);
    let tracer = trace::start(run)?;
    machine.debug.tracer = tracer;
    let (inputs, receiver) = mpsc::channel();
    let door = run.gdb.as_ref().map(|address| open_door(address, &inputs)).transpose()?;
    let mut terminal = None;
    let serial = match &run.serial {
        SerialTarget::None => Serial::nowhere(),
        SerialTarget::File(path) => {
            let file =
                File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Serial::to(file)
        }
        SerialTarget::Stdio => {
            let serial = terminal::standard_io(&inputs).context("cannot read standard input")?;
            terminal = RawTerminal::take().context("cannot set up the terminal")?;
            serial
        }
    };
    machine.connect(serial.with_input(receiver));
    Ok(Prepared { machine, terminal, door })
}

/// Opens the door for debuggers and says where it is.
fn open_door(address: &Address, inputs: &Sender<Input>) -> Result<Door> {
    let inputs = inputs.clone();
    // A machine that is gone needs no waking.
    let bell = Box::new(move || drop(inputs.send(Input::Attention)));
    let door = Door::open(address, bell).context("cannot wait for debuggers there")?;
    eprintln!("brolga: debuggers come in at {door}");
    if door.is_public() {
        eprintln!(
            "brolga: WARNING: {door} is open to other hosts. The protocol knows no password: whoever \
             reaches it reads and changes everything in the guest"
        );
    }
    Ok(door)
}

/// The machine that the user has described.
fn config(
    machine: &MachineArguments,
    accel: EngineSpec,
    clock: ClockKind,
) -> Result<MachineConfig> {
    Ok(MachineConfig {
        memory: MemoryLayout::new(machine.memory)?,
        cpu: cpu_model(machine.cpu.as_deref())?,
        accel,
        kvm: None,
        clock,
        guest: guest(machine)?,
        on_triple_fault: machine.on_triple_fault,
        stop_text: machine.stop_on_serial.clone(),
        taps: Vec::new(),
    })
}

/// The processor of this name, or the default one.
fn cpu_model(name: Option<&str>) -> Result<CpuModel> {
    let default_model = *CpuModel::names().first().context("there is no CPU model")?;
    let name = name.unwrap_or(default_model);
    CpuModel::by_name(name).with_context(|| {
        format!("there is no CPU model {name:?}; there are: {}", CpuModel::names().join(", "))
    })
}

fn guest(run: &MachineArguments) -> Result<Guest> {
    Ok(match (&run.bios, &run.kernel) {
        (Some(bios), _) => Guest::Rom(read("ROM", bios)?),
        (None, Some(kernel)) => Guest::Kernel {
            kernel: read("kernel", kernel)?,
            initrd: run.initrd.as_deref().map(|path| read("initrd", path)).transpose()?,
            cmdline: run.append.clone().unwrap_or_default(),
        },
        (None, None) => Guest::Rom(brolga_test_roms::default_guest()),
    })
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
    let name = path.display();
    let about = || format!("cannot read the {what} {name}");
    // A device or a pipe might never end.
    if !fs::metadata(path).with_context(about)?.is_file() {
        bail!("cannot read the {what} {name}: it is not a regular file");
    }
    fs::read(path).with_context(about)
}

/// Runs the machine to its end, gives the terminal back, and tells how it ended.
fn execute(run: &RunArguments, prepared: Prepared) -> ExitCode {
    let Prepared { mut machine, terminal, mut door } = prepared;
    let started = Instant::now();
    let limits = Limits {
        deadline: run.machine.timeout.and_then(|timeout| started.checked_add(timeout)),
        instructions: run.machine.max_insns,
    };
    let end = match &mut door {
        Some(door) => machine.run_with_debugger(&limits, door, run.wait),
        None => machine.run(&limits),
    };
    drop(door);
    let elapsed = started.elapsed();
    let was_raw = terminal.is_some();
    drop(terminal);
    match tell(run, &machine, &end, elapsed, was_raw) {
        Ok(()) => ExitCode::from(end.status()),
        // Nobody is there to be told.
        Err(_) => ExitCode::from(HOST_ERROR),
    }
}

fn tell(
    run: &RunArguments,
    machine: &Machine,
    end: &End,
    elapsed: Duration,
    was_raw: bool,
) -> io::Result<()> {
    let summary = report::Summary::new(run, machine, end, elapsed);
    let mut stderr = io::stderr().lock();
    if let Some(report) = machine.accel.report() {
        write!(stderr, "{report}")?;
    }
    if run.kvm_stats {
        for (name, count) in machine.counts() {
            writeln!(stderr, "brolga: kvm: {count:>12} {name}")?;
        }
    }
    if run.json {
        summary.write_json(&mut stderr)
    } else {
        // The guest has left the cursor wherever it was.
        let fresh_line = was_raw && stderr.is_terminal();
        summary.write_text(&mut stderr, fresh_line)
    }
}
