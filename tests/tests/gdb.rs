//! Debian's GDB and LLDB against machines that wait for them, by both engines.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use brolga_tests::debugger::{Debuggee, Debugger, Output};
use brolga_tests::exit;
use brolga_tests::suite::{self, trial};
use libtest_mimic::Trial;

const LIMIT: Duration = Duration::from_secs(120);

/// What is tried with each engine.
const TESTS: &[(&str, fn(&Engine) -> Result<()>)] = &[
    ("from_reset_through_all_modes", from_reset_through_all_modes),
    ("steps_are_exact", steps_are_exact),
    ("breakpoints_stop_at_the_same_instructions", breakpoints_stop),
    ("watchpoints_are_many_and_long", watchpoints),
    ("ctrl_c_stops_at_once", ctrl_c),
    ("registers_and_memory_are_written", registers_and_memory),
    ("memory_is_physical_on_request", physical_memory),
    ("commands_answer", commands),
    ("stops_by_command", stops_by_command),
    ("goto_stops_at_the_instruction", goto),
    ("a_triple_fault_can_be_looked_at", triple_fault),
    ("sessions_come_and_go", sessions),
    ("a_broken_session_leaves_the_guest_unharmed", broken_session),
    ("kill_ends_the_machine", kill),
    ("restart_begins_again", restart),
    ("without_long_mode_registers_are_32_bits", legacy),
    ("lldb_steps_and_breaks", lldb),
];

/// An engine of Brolga's.
#[derive(Clone, Copy)]
struct Engine {
    name: &'static str,
    arguments: &'static [&'static str],
}

const ENGINES: [Engine; 2] = [
    Engine { name: "interp", arguments: &["--accel", "interp"] },
    // Everything is translated at once: the state must be exact all the same.
    Engine { name: "jit", arguments: &["--accel", "jit", "--jit-threshold", "1"] },
];

fn main() {
    let trials = ENGINES.iter().flat_map(|engine| {
        TESTS.iter().map(move |(name, test)| -> Trial {
            trial(format!("{}::{name}", engine.name), move || test(engine))
        })
    });
    suite::run(trials.collect())
}

impl Engine {
    /// The embedded guest in virtual time, standing at the reset vector.
    fn start(&self, more: &[&str]) -> Result<Debuggee> {
        Debugger::Gdb.require()?;
        Debuggee::start(&self.arguments(more))
    }

    fn arguments(&self, more: &[&str]) -> Vec<OsString> {
        let always = ["--clock", "virtual"];
        self.arguments.iter().chain(&always).chain(more).map(OsString::from).collect()
    }
}

/// Defines `where`: the mode and the instruction pointer, marked.
const WHERE: &str = "
define where_am_i
  printf \"at %x cr0 %x lma %d cs %x\\n\", $pc, $cr0, ($efer >> 10) & 1, $cs
end
";

fn number(text: &str) -> Result<u64> {
    let text = text.trim();
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.with_context(|| format!("{text:?} is not a number"))
}

fn from_reset_through_all_modes(engine: &Engine) -> Result<()> {
    let machine = engine.start(&[])?;
    let script = format!(
        "{WHERE}
where_am_i
x/i $pc
stepi
where_am_i
monitor cr 0
continue
where_am_i
stepi
stepi
stepi
where_am_i
tbreak *($pc + 0)
continue
where_am_i
continue
where_am_i
stepi
monitor disas $pc 1
continue
where_am_i
stepi
stepi
where_am_i
info registers eflags cr0 efer
detach
"
    );
    let output = machine.gdb(&script)?;
    output.expect(&["at fffffff0 cr0 60000010", "at f"])?;
    Ok(())
}
