//! The commands behind a debugger's `monitor`.

mod chips;
mod numbers;
mod paging;
mod stops;
mod tables;

use std::fmt::Write;

use brolga_gdb::DebugTarget;

use crate::accel::AccelKind;
use crate::crash::disassemble;
use crate::machine::Machine;
pub(super) use tables::descriptor;

/// A command: its name, its arguments, what it does, and what does it.
struct Command {
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    run: fn(&mut Machine, &[&str]) -> Answer,
}

/// What a command says, or why it does nothing.
type Answer = Result<String, String>;

/// All commands.
const COMMANDS: &[Command] = &[
    command("help", "[COMMAND]", "this list", help),
    command(
        "regs",
        "[GROUP]",
        "registers: general, segments, control, debug, fpu, sse, msr",
        registers,
    ),
    command("msr", "", "the model-specific registers that are plain storage", |machine, _| {
        Ok(tables::msrs(machine))
    }),
    command(
        "pt",
        "ADDR [r|w|x] [user]",
        "the page walk of an address, level by level",
        paging::walk,
    ),
    command("tlb", "[ADDR]", "what the TLB holds in the current address space", paging::tlb),
    command("gdt", "", "the global descriptor table", tables::gdt),
    command("ldt", "", "the local descriptor table", tables::ldt),
    command("idt", "[VECTOR]", "the interrupt descriptor table", tables::idt),
    command("tss", "", "the task state segment", tables::tss),
    command("disas", "[ADDR [COUNT]]", "instructions, for the code size that CS says", disassembly),
    command("memory", "", "RAM, ROM and registers in the physical address space", paging::memory),
    command("phys", "ADDR [COUNT]", "bytes by physical address", paging::physical),
    command("pic", "", "the two 8259s", |m, _| chips::show(m, &["pic"])),
    command("apic", "", "the local APIC", |m, _| chips::show(m, &["lapic"])),
    command("ioapic", "", "the I/O APIC", |m, _| chips::show(m, &["ioapic"])),
    command("pit", "", "the 8254 timer", |m, _| chips::show(m, &["pit", "port61"])),
    command("chip", "NAME", "any other chip; without a name, their names", chips::any),
    command("irq", "", "which interrupts are requested, in service and masked", chips::interrupts),
    command(
        "break",
        "[ADDR]",
        "stop at a physical address; without one, what is set",
        stops::physical,
    ),
    command("delete", "", "forget all stops that were set by command", stops::delete),
    command(
        "exceptions",
        "[N [log|off]]",
        "stop at, or log, an exception or interrupt",
        stops::vectors,
    ),
    command("io", "[PORT[-PORT] [off]]", "stop after an access to a port", stops::ports),
    command(
        "mmio",
        "[ADDR[-ADDR] [off]]",
        "stop after an access to a register in memory",
        stops::mmio,
    ),
    command("cr", "[N [off]]", "stop after a write to a control register", stops::controls),
    command("goto", "N", "continue stops when N instructions are retired", stops::goto),
    command("trace", "[TOPICS|off]", "trace these, as --trace does", trace),
    command("insns", "", "how many instructions are retired", |machine, _| {
        Ok(format!("{}\n", machine.retired()))
    }),
    command(
        "accel",
        "[interp|jit|kvm]",
        "what executes the guest, and what it has counted; or what is to",
        accelerator,
    ),
    command("reset", "", "the reset button", reset),
    command("quit", "", "end the machine", quit),
];

const fn command(
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    run: fn(&mut Machine, &[&str]) -> Answer,
) -> Command {
    Command { name, arguments, help, run }
}

/// Executes a command. Its name may be shortened to what no other begins with.
pub(super) fn execute(machine: &mut Machine, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((name, arguments)) = words.split_first() else {
        return help(machine, &[]).unwrap_or_default();
    };
    match find(name) {
        Ok(command) => match (command.run)(machine, arguments) {
            Ok(answer) => answer,
            Err(wrong) => {
                format!("{wrong}\nusage: monitor {} {}\n", command.name, command.arguments)
            }
        },
        Err(wrong) => wrong,
    }
}

fn find(name: &str) -> Result<&'static Command, String> {
    if let Some(command) = COMMANDS.iter().find(|command| command.name == name) {
        return Ok(command);
    }
    let mut starting = COMMANDS.iter().filter(|command| command.name.starts_with(name));
    match (starting.next(), starting.next()) {
        (Some(command), None) => Ok(command),
        (None, _) => Err(format!("there is no command {name:?}: monitor help lists them\n")),
        (Some(one), Some(other)) => {
            Err(format!("{name:?} may be {:?} or {:?}\n", one.name, other.name))
        }
    }
}

fn accelerator(machine: &mut Machine, arguments: &[&str]) -> Answer {
    if let Some(name) = arguments.first() {
        let kind = AccelKind::by_name(name)?;
        machine.change_accelerator(kind).map_err(|error| error.to_string())?;
        return Ok(format!("{name} goes on with the guest\n"));
    }
    let counts = machine.counts().into_iter();
    Ok(counts.fold(format!("{}\n", machine.engine), |mut text, (name, count)| {
        let _ = writeln!(text, "{count:>12} {name}");
        text
    }))
}

fn help(_: &mut Machine, arguments: &[&str]) -> Answer {
    let wanted = |command: &&Command| arguments.first().is_none_or(|name| command.name == *name);
    let mut text = String::new();
    for Command { name, arguments, help, .. } in COMMANDS.iter().filter(wanted) {
        let _ = writeln!(text, "{:<36} {help}", format!("{name} {arguments}"));
    }
    if text.is_empty() { Err("there is no such command".into()) } else { Ok(text) }
}

fn registers(machine: &mut Machine, arguments: &[&str]) -> Answer {
    let registers = machine.registers();
    match arguments.first() {
        None => Ok(format!("{registers}\n")),
        Some(group) => tables::group(machine, group).ok_or("there is no such group".into()),
    }
}

fn disassembly(machine: &mut Machine, arguments: &[&str]) -> Answer {
    const COUNT: u64 = 10;
    const MOST: u64 = 1000;
    let mut registers = machine.registers();
    if let Some(at) = arguments.first() {
        let base = if registers.is_64_bit() { 0 } else { registers.segments[1].base };
        registers.rip = numbers::number(at)?.wrapping_sub(base);
    }
    let count = arguments.get(1).map_or(Ok(COUNT), |count| numbers::number(count))?;
    let (_, lines) = disassemble(machine, &registers, count.min(MOST) as usize);
    let cs = registers.segments[1];
    let mut text = String::new();
    for line in lines {
        let linear = registers_at(&registers, line.ip);
        let _ = writeln!(
            text,
            "{linear:#018x}  {:04x}:{:08x}  {:<24} {}",
            cs.selector, line.ip, line.bytes, line.text
        );
    }
    if text.is_empty() { Err("nothing is mapped there".into()) } else { Ok(text) }
}

/// The linear address of an offset in the code segment.
fn registers_at(registers: &brolga_gdb::Registers, ip: u64) -> u64 {
    brolga_gdb::Registers { rip: ip, ..registers.clone() }.linear_rip()
}

fn trace(machine: &mut Machine, arguments: &[&str]) -> Answer {
    let Some(topics) = arguments.first() else {
        return Err("say what to trace".into());
    };
    let tracer = machine.debug.tracer.as_mut().ok_or("nothing can be traced here")?;
    tracer(topics)?;
    Ok(format!("traced from now on: {topics}\n"))
}

/// What a debugger must be told when its idea of the registers is out of date.
const STALE: &str = "now say: maintenance flush register-cache\n";

fn reset(machine: &mut Machine, _: &[&str]) -> Answer {
    machine.reset().map_err(|error| error.to_string())?;
    Ok(STALE.into())
}

fn quit(machine: &mut Machine, _: &[&str]) -> Answer {
    machine.kill();
    Ok("the machine ends\n".into())
}
