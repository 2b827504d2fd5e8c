//! The arguments.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use brolga_gdb::Address;
use clap::{Args, Parser, Subcommand};

use super::size::parse_size;
use crate::accel::{AccelPlan, EngineSpec};
use crate::clock::ClockKind;
use crate::compare::clock::By;
use crate::compare::print::Unit;
use crate::conform::reporting::number;
use crate::machine::OnTripleFault;

/// RAM when nothing is said.
const DEFAULT_MEMORY: &str = "512M";

/// Runs unmodified x86 guests on any host, without hardware virtualization.
///
/// Without a command, Brolga boots the guest that is built into it: a tour of the machine that
/// ends in a small monitor. On a terminal, Ctrl-A x leaves and Ctrl-A h helps.
#[derive(Debug, Parser)]
#[command(name = "brolga", version, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Runs a guest.
    ///
    /// Exit statuses: 0 power-off or Ctrl-A x; 1-63 the value the guest wrote to its exit port
    /// (port F4h; 63 for all larger ones); 2 something is wrong with the command line or a file;
    /// 64 timeout; 65 triple fault; 66 reset loop; 67 halted for good; 68 instruction limit; 69
    /// text of --stop-on-serial seen; 70 failure of the host.
    #[command(after_help = EXAMPLES)]
    Run(Box<RunArguments>),

    /// Runs two engines side by side on a guest and finds the first instruction at which they
    /// differ.
    ///
    /// Both run in virtual time with the same input, and are compared every so many instructions:
    /// registers, devices, instruction count and serial output each time, RAM less often. Exit
    /// statuses: 0 no difference up to the end of the run, however the guest ended it; 1 the
    /// engines differ; 2 something is wrong with the command line or a file; 64 no difference
    /// until the timeout.
    #[command(after_help = LOCKSTEP_EXAMPLES)]
    Lockstep(Box<LockstepArguments>),

    /// Runs instruction vectors and test ROMs, and tells which tests pass.
    ///
    /// Takes vectors in the MOO format of the SingleStepTests project (80386, 80286, 8086 and 8088;
    /// .gz too; cases in a revocation_list.txt beside them are left out), flat ROMs of a multiple of
    /// 64 KiB, and multiboot or PVH kernels. Guests report by lines on the serial line (TAP, or
    /// PASS:, FAIL: and SKIP:), by 0 at the exit port (F4h), or as the options below say; the same
    /// words, one `name = value` a line, may stand in FILE.conform beside a guest. A folder stands for
    /// all tests below it; without files, the ROMs that are built in are run. Exit statuses: 0 all
    /// tests passed; 1 some failed; 2 something is wrong with the command line or a file; 70 the
    /// report could not be written.
    #[command(after_help = CONFORM_EXAMPLES)]
    Conform(Box<ConformArguments>),

    /// Runs a guest under each engine in turn and tells what an operation takes of the host's time.
    ///
    /// Without a guest, that is a ROM with a row for each of some thirty operations: system calls,
    /// faults, port and memory-mapped I/O, page-table changes, interrupts and others. Other guests
    /// are timed from power-on to their end (power-off, 0 at the exit port, or the text of
    /// --stop-on-serial). The table says what KVM is on this host, and whether it is missing. Exit
    /// statuses: 0 measured; 1 a row did not do what it measures; 2 something is wrong with the
    /// command line or a file, or no engine has figures; 70 the report could not be written.
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(Box<CompareArguments>),
}

const EXAMPLES: &str = "Examples:
  brolga run --kernel vmlinuz --initrd initrd.img --append console=ttyS0
  brolga run --bios firmware.rom --clock virtual --max-insns 1000000";

const LOCKSTEP_EXAMPLES: &str = "Example:
  brolga lockstep --kernel vmlinuz --initrd initrd.img --append console=ttyS0
    --prompt '# ' --type ls --type poweroff";

const CONFORM_EXAMPLES: &str = "Examples:
  brolga conform
  brolga conform --accel jit --jit-threshold 1 vectors/80286 --junit report.xml
  brolga conform test386.bin --reference test386-EE-reference.txt
  brolga conform other.rom --post-port 0x80 --post-pass 0xaa";

const COMPARE_EXAMPLES: &str = "Examples:
  brolga compare --html report.html
  brolga compare --engines jit,jit:threads=0 --unit cycles
  brolga compare --kernel vmlinuz --initrd initrd.img --append console=ttyS0
    --stop-on-serial 'login:' --rounds 5";

/// How long one run of a guest may take if nothing is said.
pub(super) const COMPARE_TIMEOUT: Duration = Duration::from_secs(600);

/// The machine, what it boots, and what ends its run.
#[derive(Debug, Args)]
pub(super) struct MachineArguments {
    /// A kernel to enter directly: bzImage, ELF with a PVH note, or multiboot
    #[arg(long, value_name = "FILE")]
    pub(super) kernel: Option<PathBuf>,

    /// The kernel's initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(super) initrd: Option<PathBuf>,

    /// The kernel's command line
    #[arg(long, value_name = "TEXT", requires = "kernel", allow_hyphen_values = true)]
    pub(super) append: Option<String>,

    /// A ROM at the reset vector, a multiple of 64 KiB up to 16 MiB
    #[arg(long, value_name = "FILE", conflicts_with = "kernel", alias = "rom")]
    pub(super) bios: Option<PathBuf>,

    /// RAM, with K, M or G; without, in MiB
    #[arg(short, long, value_name = "SIZE", default_value = DEFAULT_MEMORY, value_parser = parse_size)]
    pub(super) memory: u64,

    /// The processor model; `help` lists them
    #[arg(long, value_name = "MODEL")]
    pub(super) cpu: Option<String>,

    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(super) timeout: Option<Duration>,

    /// Stop after so many instructions
    #[arg(long, value_name = "COUNT")]
    pub(super) max_insns: Option<u64>,

    /// Stop when this text appears on the serial line
    #[arg(long, value_name = "TEXT", alias = "until-serial", allow_hyphen_values = true)]
    pub(super) stop_on_serial: Option<String>,

    /// What to do after a triple fault
    #[arg(long, value_enum, value_name = "ACTION", default_value = "stop")]
    pub(super) on_triple_fault: OnTripleFault,
}

/// What to run, and how.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub(super) machine: MachineArguments,

    /// What executes the guest's code: interp, jit or kvm; what follows it, and after how many
    /// instructions or seconds [default: jit where there is a translator for the host]
    #[arg(long, value_name = "ENGINE[,then=ENGINE@N|@SECONDSs]...")]
    pub(super) accel: Option<AccelPlan>,

    /// At the end, show the exits from KVM by kind, and what was left to the interpreter and why
    #[arg(long)]
    pub(super) kvm_stats: bool,

    /// Executions after which code is translated; 1 translates everything at once [default: 300
    /// with threads, 2000 without]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) jit_threshold: Option<u32>,

    /// Threads that translate while the guest goes on; 0 makes it wait [default: 1 where the host
    /// has several processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=64))]
    pub(super) jit_threads: Option<u32>,

    /// How much translated code is kept
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    pub(super) jit_cache_size: u64,

    /// Write each piece of translated code into a file of its own: guest code, IR, host code
    #[arg(long, value_name = "DIR")]
    pub(super) jit_dump: Option<PathBuf>,

    /// Write /tmp/perf-PID.map: host address, length and guest addresses of translated code
    #[arg(long)]
    pub(super) jit_perf_map: bool,

    /// At the end, show what the translator has done, and which instructions it leaves to the
    /// interpreter
    #[arg(long)]
    pub(super) jit_stats: bool,

    /// What the guest's time follows [default: host]
    #[arg(long, value_enum, value_name = "CLOCK")]
    pub(super) clock: Option<ClockKind>,

    /// Where the guest's serial line goes: stdio, none, or a file
    #[arg(long, value_name = "TARGET", default_value = "stdio", value_parser = parse_serial)]
    pub(super) serial: SerialTarget,

    /// Let GDB and LLDB in at a port (of the loopback interface unless a host is given), a Unix
    /// socket, or standard input and output
    #[arg(long, value_name = "[HOST:]PORT|unix:PATH|stdio")]
    pub(super) gdb: Option<Address>,

    /// Stand at the first instruction until a debugger comes
    #[arg(long, requires = "gdb")]
    pub(super) wait: bool,

    /// Tell how the run ended as one JSON object on standard error
    #[arg(long)]
    pub(super) json: bool,

    /// At the end, print the instruction count and a hash of registers, RAM and devices
    #[arg(long)]
    pub(super) state_hash: bool,

    /// At the end, print instruction count, time, speed and memory use
    #[arg(long)]
    pub(super) stats: bool,

    /// Trace these, separated by commas, to standard error or --trace-file
    #[arg(long, value_enum, value_name = "LIST", value_delimiter = ',')]
    pub(super) trace: Vec<super::trace::Topic>,

    /// Write the trace to this file
    #[arg(long, value_name = "FILE", requires = "trace")]
    pub(super) trace_file: Option<PathBuf>,
}

/// What to compare, and how.
#[derive(Debug, Args)]
pub(super) struct LockstepArguments {
    #[command(flatten)]
    pub(super) machine: MachineArguments,

    /// The two engines, each with settings behind colons: slice=COUNT, and for jit threshold=N,
    /// threads=N and cache=BYTES; kvm goes in single steps
    #[arg(long, value_name = "ENGINE,ENGINE", value_delimiter = ',', default_value = "interp,jit")]
    pub(super) engines: Vec<EngineSpec>,

    /// Compare after every so many instructions
    #[arg(long, value_name = "COUNT", default_value = "1000000")]
    pub(super) every: NonZeroU64,

    /// Compare all RAM at every so many comparisons
    #[arg(long, value_name = "COUNT", default_value = "64")]
    pub(super) ram_every: NonZeroU64,

    /// The text after which the guest expects a line to be typed
    #[arg(long, value_name = "TEXT", requires = "type_lines", allow_hyphen_values = true)]
    pub(super) prompt: Option<String>,

    /// Type this line at the prompt; several are typed in turn
    #[arg(
        id = "type_lines",
        long = "type",
        value_name = "LINE",
        requires = "prompt",
        allow_hyphen_values = true
    )]
    pub(super) lines: Vec<String>,
}

/// Which tests, on what, and how they report.
#[derive(Debug, Args)]
pub(super) struct ConformArguments {
    /// Vectors, ROMs, kernels, folders of them, or names of built-in ROMs
    #[arg(value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,

    /// Run the built-in ROMs and what is named on all engines, and print docs/conformance.md
    #[arg(long, conflicts_with_all = ["accel", "jit_threshold", "json", "junit", "markdown"])]
    pub(super) page: bool,

    /// List the built-in ROMs and the presets
    #[arg(long)]
    pub(super) list: bool,

    /// What executes the guest's code: interp, jit, or kvm, with settings as in jit:cache=1048576;
    /// kvm:step executes each instruction by itself, in virtual time [default: jit where there is a
    /// translator for the host]
    #[arg(long, value_name = "ENGINE")]
    pub(super) accel: Option<EngineSpec>,

    /// Executions after which code is translated; 1 translates everything at once [default: 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) jit_threshold: Option<u32>,

    /// The processor model; `brolga run --cpu help` lists them
    #[arg(long, value_name = "MODEL")]
    pub(super) cpu: Option<String>,

    /// How many tests run at once [default: the host's processors]
    #[arg(short, long, value_name = "N")]
    pub(super) jobs: Option<NonZeroUsize>,

    /// RAM of ROMs and kernels
    #[arg(short, long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    pub(super) memory: u64,

    /// Give up a ROM or kernel after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "600")]
    pub(super) timeout: Duration,

    /// Give up a ROM or kernel after so many instructions
    #[arg(long, value_name = "COUNT", default_value_t = 10_000_000_000)]
    pub(super) max_insns: u64,

    /// Report as the known test of this name does; --list shows them
    #[arg(long, value_name = "NAME")]
    pub(super) preset: Option<String>,

    /// The port at which ROMs show codes of progress
    #[arg(long, value_name = "PORT", value_parser = parse_number::<u16>)]
    pub(super) post_port: Option<u16>,

    /// The code that says that all tests have passed [default: 0xff]
    #[arg(long, value_name = "CODE", value_parser = parse_number::<u8>)]
    pub(super) post_pass: Option<u8>,

    /// The port to which ROMs write text, instead of the serial line
    #[arg(long, value_name = "PORT", value_parser = parse_number::<u16>)]
    pub(super) ascii_port: Option<u16>,

    /// What that text must be, line by line
    #[arg(long, value_name = "FILE")]
    pub(super) reference: Option<PathBuf>,

    /// The physical address of a 32-bit result, 0 until the ROM is done
    #[arg(long, value_name = "ADDRESS", value_parser = parse_number::<u64>)]
    pub(super) result_at: Option<u64>,

    /// The result that says that all tests have passed [default: 1]
    #[arg(long, value_name = "VALUE", value_parser = parse_number::<u32>)]
    pub(super) result_pass: Option<u32>,

    /// Write the report as JUnit XML to this file
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long, conflicts_with = "markdown")]
    pub(super) json: bool,

    /// Print the report as Markdown
    #[arg(long)]
    pub(super) markdown: bool,
}

/// What to measure, by what, and how often.
#[derive(Debug, Args)]
pub(super) struct CompareArguments {
    #[command(flatten)]
    pub(super) machine: MachineArguments,

    /// The engines, each with settings behind colons as for `brolga lockstep` [default: interp,
    /// jit, and kvm where it can be had]
    #[arg(long, value_name = "ENGINE,...", value_delimiter = ',')]
    pub(super) engines: Vec<String>,

    /// How often each engine has its turn; one more round counts slow paths
    #[arg(long, value_name = "N", default_value = "3")]
    pub(super) rounds: NonZeroU32,

    /// Samples of each row in a turn
    #[arg(long, value_name = "N", default_value = "7")]
    pub(super) samples: NonZeroU32,

    /// How long a sample takes, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.01", value_parser = parse_seconds)]
    pub(super) sample: Duration,

    /// The host's clock that times are taken by
    #[arg(long, value_enum, value_name = "CLOCK", default_value = "wall")]
    pub(super) by: By,

    /// What times are shown in
    #[arg(long, value_enum, value_name = "UNIT", default_value = "time")]
    pub(super) unit: Unit,

    /// Write a page with charts to this file
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long, conflicts_with = "markdown")]
    pub(super) json: bool,

    /// Print the report as Markdown
    #[arg(long)]
    pub(super) markdown: bool,
}

impl Default for RunArguments {
    fn default() -> Self {
        Self::parse_from(std::iter::empty::<&str>())
    }
}

/// Where the serial line goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SerialTarget {
    Stdio,
    None,
    File(PathBuf),
}

fn parse_serial(text: &str) -> Result<SerialTarget, String> {
    match text {
        "stdio" => Ok(SerialTarget::Stdio),
        "none" => Ok(SerialTarget::None),
        "" => Err("give stdio, none, or a file".into()),
        path => Ok(SerialTarget::File(path.into())),
    }
}

/// A number, in hexadecimal after 0x.
fn parse_number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    T::try_from(number(text)?).map_err(|_| format!("{text} is too large"))
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn run(arguments: &[&str]) -> Result<RunArguments, clap::Error> {
        let parsed = Arguments::try_parse_from([&["brolga", "run"], arguments].concat())?;
        match parsed.command {
            Some(Command::Run(run)) => Ok(*run),
            _ => unreachable!("`run` was given"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_no_arguments() {
        let defaults = RunArguments::default();
        assert_eq!(defaults.machine.memory, 512 << 20);
        assert_eq!(defaults.serial, SerialTarget::Stdio);
    }

    #[test]
    fn arguments_reach_their_fields() -> Result<(), clap::Error> {
        let run = run(&[
            "--kernel",
            "k",
            "--append",
            "-x console=ttyS0",
            "-m",
            "64M",
            "--trace",
            "pio,msr",
            "--timeout",
            "1.5",
            "--serial",
            "log",
        ])?;
        assert_eq!(run.machine.append.as_deref(), Some("-x console=ttyS0"));
        assert_eq!((run.machine.memory, run.trace.len()), (64 << 20, 2));
        assert_eq!(run.machine.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(run.serial, SerialTarget::File("log".into()));
        Ok(())
    }

    #[test]
    fn contradictions_are_refused() {
        for wrong in [
            &["--initrd", "i"][..],
            &["--kernel", "k", "--bios", "b"],
            &["--timeout", "-1"],
            &["--timeout", "soon"],
            &["--serial", ""],
            &["--trace", "everything"],
            &["--trace-file", "f"],
            &["--gdb", "somewhere"],
            &["--wait"],
        ] {
            assert!(run(wrong).is_err(), "{wrong:?}");
        }
    }
}
