//! What a debugger costs that has nothing to do: the same instructions of a boot with none, with
//! one that is attached, with a breakpoint, and with a watchpoint, none of which is ever met.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::median;
use crate::guests::{AMD64, Guest};
use crate::{binary, process, table};

/// Where the run ends: in the kernel, well behind its decompression.
const INSTRUCTIONS: u64 = 4_800_000_000;
/// Where the breakpoint is set: what is executed here is hot.
const HOT: u64 = 4_400_000_000;
/// A watched address in the kernel's map of all memory, where nobody looks: the BIOS data area.
const COLD: &str = "ffff888000000500";

/// What a debugger does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Debugger {
    /// There is none, and no door.
    None,
    /// It is attached.
    Attached,
    /// It has set a breakpoint in the page of hot code, on what is no instruction.
    Breakpoint,
    /// It watches 8 bytes that nobody touches.
    Watchpoint,
}

const ALL: [(Debugger, &str, f64); 4] = [
    (Debugger::None, "none", 0.0),
    (Debugger::Attached, "attached", 2.0),
    (Debugger::Breakpoint, "a breakpoint in a hot page", 5.0),
    (Debugger::Watchpoint, "8 bytes watched in a cold page", 5.0),
];

/// Runs each `rounds` times, in turn so that a change in the host's speed meets all, and returns a
/// table of the processor time that they took.
pub fn gdb(rounds: u32, accel: &str) -> Result<String> {
    let guest = AMD64.cached()?;
    let mut times = ALL.map(|_| Vec::new());
    for round in 1..=rounds {
        for ((debugger, name, _), times) in ALL.iter().zip(&mut times) {
            let time = run(&guest, accel, *debugger).with_context(|| format!("with {name}"))?;
            eprintln!("round {round} of {rounds}: {name}: {:.2} s", time.as_secs_f64());
            times.push(time.as_secs_f64());
        }
    }
    let medians = times.map(median);
    let mut table = table::new(["debugger", "CPU s", "more", "limit"]);
    for ((_, name, limit), time) in ALL.iter().zip(medians) {
        let more = format!("{:+.1} %", (time / medians[0] - 1.0) * 100.0);
        table.add_row([*name, &format!("{time:.2}"), &more, &format!("{limit:.0} %")]);
    }
    Ok(format!("{INSTRUCTIONS} instructions of the amd64 boot by {accel}, medians\n{table}"))
}

/// The processor time of a run.
fn run(guest: &Guest, accel: &str, debugger: Debugger) -> Result<Duration> {
    let directory = tempfile::tempdir()?;
    let door = directory.path().join("door");
    let mut command = Command::new(binary::brolga()?);
    command.args(["run", "--accel", accel, "--clock", "virtual", "--serial", "none"]);
    command.args(["--append", "console=ttyS0 nokaslr"]);
    command.arg("--max-insns").arg(INSTRUCTIONS.to_string());
    command.arg("--kernel").arg(&guest.kernel).arg("--initrd").arg(&guest.initrd);
    if debugger != Debugger::None {
        command.arg("--wait").arg("--gdb").arg(format!("unix:{}", door.display()));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let debugged = match debugger {
        Debugger::None => Ok(()),
        _ => debug(&door, debugger),
    };
    let time = last_time(&mut child);
    let status = child.wait()?;
    debugged?;
    ensure!(status.code() == Some(crate::exit::INSTRUCTION_LIMIT), "it ends with {status}");
    time
}

/// The processor time of a process up to its end.
fn last_time(child: &mut Child) -> Result<Duration> {
    let stat = format!("/proc/{}/stat", child.id());
    loop {
        // The state is behind the name, which is in parentheses (proc(5)).
        let text = std::fs::read_to_string(&stat)?;
        let ended = text.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"));
        let time = process::cpu_time(child.id())?;
        if ended {
            return Ok(time);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Attaches, asks for stops, and lets the machine run to its end.
fn debug(door: &Path, debugger: Debugger) -> Result<()> {
    let mut client = Client::connect(door)?;
    client.ask("?")?;
    match debugger {
        Debugger::Breakpoint => {
            let goto: String =
                format!("goto {HOT}").bytes().map(|byte| format!("{byte:02x}")).collect();
            client.ask(&format!("qRcmd,{goto}"))?;
            client.ask("vCont;c")?;
            // RIP is register 16.
            let rip = client.ask("p10")?;
            let bytes = (0..8).map(|n| u8::from_str_radix(&rip[2 * n..2 * n + 2], 16));
            let bytes: Vec<u8> = bytes.collect::<Result<_, _>>()?;
            let rip = u64::from_le_bytes(bytes.try_into().ok().context("eight bytes")?);
            ensure!(client.ask(&format!("Z0,{:x},1", rip | 0xfff))? == "OK");
        }
        Debugger::Watchpoint => {
            ensure!(client.ask(&format!("Z4,{COLD},8"))? == "OK");
        }
        Debugger::None | Debugger::Attached => {}
    }
    let answer = client.ask("vCont;c")?;
    ensure!(answer.starts_with('W'), "the machine stops: {answer}");
    Ok(())
}

/// As little of a debugger as it takes.
struct Client(UnixStream);

impl Client {
    fn connect(door: &Path) -> Result<Self> {
        for _ in 0..1000 {
            if let Ok(stream) = UnixStream::connect(door) {
                return Ok(Self(stream));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self(UnixStream::connect(door)?))
    }

    /// Sends a packet; the contents of the first that comes back and is not for the console.
    fn ask(&mut self, packet: &str) -> Result<String> {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        self.0.write_all(format!("${packet}#{sum:02x}").as_bytes())?;
        loop {
            let mut answer = String::new();
            let mut byte = [0];
            while byte[0] != b'#' {
                self.0.read_exact(&mut byte)?;
                match byte[0] {
                    b'$' => answer.clear(),
                    byte => answer.push(byte.into()),
                }
            }
            self.0.read_exact(&mut [0; 2])?;
            answer.pop();
            let console = answer.starts_with('O') && answer != "OK";
            if !console {
                return Ok(expanded(&answer));
            }
        }
    }
}

/// Run-length encoding undone: `0*"` stands for `0000` (GDB manual, E.1).
fn expanded(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let count = match character {
            '*' => characters.next().map_or(0, |count| count as usize - 29),
            _ => {
                plain.push(character);
                continue;
            }
        };
        let last = plain.chars().last().unwrap_or_default();
        plain.extend(std::iter::repeat_n(last, count));
    }
    plain
}

#[cfg(test)]
mod tests {
    #[test]
    fn repetitions_are_written_out() {
        // The example of GDB's manual, E.1: a space stands for three more.
        assert_eq!(super::expanded("0* 1"), "00001");
        assert_eq!(super::expanded("0*\"1"), "0000001");
        assert_eq!(super::expanded("f0ff"), "f0ff");
    }
}
