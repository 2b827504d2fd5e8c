//! Debian's GDB and LLDB against machines that wait for them, by both engines.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use brolga_tests::debugger::{Debuggee, Debugger, Output};
use brolga_tests::exit;
use brolga_tests::suite::{self, trial};
use libtest_mimic::Trial;

const LIMIT: Duration = Duration::from_secs(120);

/// Something to try with an engine.
type Test = fn(&Engine) -> Result<()>;

/// What is tried with each engine.
const TESTS: &[(&str, Test)] = &[
    ("from_reset_through_all_modes", from_reset_through_all_modes),
    ("steps_follow_faults_and_repetitions", steps),
    ("range_steps_end_behind_the_range", range_steps),
    ("watchpoints_are_many_and_long", watchpoints),
    ("ctrl_c_stops_at_once", ctrl_c),
    ("registers_and_memory_are_written", registers_and_memory),
    ("memory_is_physical_on_request", physical_memory),
    ("commands_answer", commands),
    ("stops_by_command", stops_by_command),
    ("a_triple_fault_can_be_looked_at", triple_fault),
    ("sessions_come_and_go", sessions),
    ("a_session_that_breaks_off_leaves_the_guest_unharmed", broken_session),
    ("kill_ends_the_machine", kill),
    ("run_begins_again", restart),
    ("without_long_mode_registers_have_32_bits", legacy),
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
    let each = ENGINES.iter().flat_map(|engine| {
        TESTS.iter().map(move |(name, test)| -> Trial {
            trial(format!("{}::{name}", engine.name), move || test(engine))
        })
    });
    let mut trials: Vec<Trial> = each.collect();
    trials.push(trial("engines_stop_at_the_same_instructions", engines_agree));
    suite::run(trials)
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

/// Defines `here`, which prints where the guest is, marked.
const HERE: &str = "
define here
  printf \"at %#lx cs %#x pe %d pg %d lma %d\\n\", $pc, $cs, $cr0 & 1, $cr0 >> 31 & 1, $efer >> 10 & 1
end
";

/// One session from real mode to long mode: a breakpoint and steps in each.
fn from_reset_through_all_modes(engine: &Engine) -> Result<()> {
    let machine = engine.start(&[])?;
    let output = machine.gdb(&format!(
        "{HERE}
here
stepi
here
stepi
here
break *($pc + 1)
continue
here
delete
monitor cr 0
continue
here
stepi
stepi
here
monitor cr 3
monitor cr 0 off
continue
here
monitor cr 0
monitor cr 3 off
continue
here
tbreak *$pc
stepi
here
monitor delete
monitor io 0x20
continue
here
set $place = $pc
stepi
stepi
break *$pc
stepi
continue
here
detach
"
    ))?;
    let at = output.marked("at");
    let [reset, first, second, broken, protected, stepped, tables, paged, long, port, last] =
        at[..]
    else {
        anyhow::bail!("stops at {at:#?} in:\n{}", output.0)
    };
    ensure!(reset == "0xfffffff0 cs 0xf000 pe 0 pg 0 lma 0", "{reset}");
    ensure!(first.ends_with("cs 0xf000 pe 0 pg 0 lma 0"), "{first}");
    let address = |text: &str| number(text.split(' ').next().unwrap_or_default());
    // CLI and CLD have one byte each; the far jump has gone from the top of 4 GiB to 0xf0000.
    ensure!(address(second)? == address(first)? + 1 && address(first)? >> 16 == 0xf);
    ensure!(address(broken)? == address(second)? + 1, "{broken}");
    ensure!(protected.ends_with("cs 0xf000 pe 1 pg 0 lma 0"), "{protected}");
    ensure!(stepped.contains("pe 1") && stepped != protected, "{stepped}");
    ensure!(tables.ends_with("cs 0x8 pe 1 pg 0 lma 0"), "{tables}");
    ensure!(paged.ends_with("cs 0x8 pe 1 pg 1 lma 1"), "{paged}");
    ensure!(long != paged && long.ends_with("pg 1 lma 1"), "{long}");
    ensure!(port.ends_with("cs 0x18 pe 1 pg 1 lma 1"), "{port}");
    ensure!(last.ends_with("cs 0x18 pe 1 pg 1 lma 1"), "{last}");
    Ok(())
}

/// Writes code to RAM in real mode and starts it there.
fn code(at: u64, bytes: &[u8]) -> String {
    let mut script = String::from("stepi\nstepi\nstepi\n");
    for (n, byte) in bytes.iter().enumerate() {
        script += &format!("set *(unsigned char*){} = {byte}\n", at + n as u64);
    }
    script + &format!("set $cs = 0\nset $ss = 0\nset $sp = 0x7000\nset $pc = {at}\n")
}

/// Steps over STI, MOV SS and HLT's neighbours, through a repetition, into a fault and out of it.
fn steps(engine: &Engine) -> Result<()> {
    const AT: u64 = 0x1000;
    // The handler of #UD, at 0x1100: add word [esp], 2 (past UD2); iret.
    let handler = [0x67, 0x83, 0x04, 0x24, 0x02, 0xcf];
    let program = [
        0x8e, 0xd0, // mov ss, ax
        0xb0, 0x03, // mov al, 3
        0xfb, // sti
        0x90, // nop
        0xfa, // cli
        0x0f, 0x0b, // ud2
        0xf3, 0xaa, // rep stosb
        0x9c, // pushf
        0x90,
    ];
    let machine = engine.start(&[])?;
    let mut script = code(0x1100, &handler) + &code(AT, &program);
    script += "set *(unsigned short*)0x18 = 0x1100\nset *(unsigned short*)0x1a = 0\n";
    script += "set $rax = 0\nset $rcx = 3\nset $rdi = 0x2000\nset $eflags = 2\n";
    for _ in 0..13 {
        script += "printf \"at %#lx\\n\", $pc\nstepi\n";
    }
    script += "printf \"pushed %#x\\n\", *(unsigned short*)($sp)\nprintf \"count %d\\n\", $rcx\n";
    script += "printf \"debug %#lx %#lx\\n\", $dr6, $dr7\ndetach\n";
    let output = machine.gdb(&script)?;
    let expected = [
        0x1000, 0x1002, 0x1004, 0x1005, 0x1006, 0x1007, // up to UD2
        0x1100, 0x1105, // its handler
        0x1009, 0x1009, 0x1009, 0x100b, 0x100c,
    ];
    let at: Vec<u64> = output.marked("at").into_iter().map(number).collect::<Result<_>>()?;
    ensure!(at == expected, "{at:#x?}");
    // Neither TF nor the debug registers are the debugger's.
    ensure!(output.only("pushed")? == "0x2" && output.only("count")? == "0", "{}", output.0);
    ensure!(output.only("debug")? == "0xffff0ff0 0x400", "{}", output.0);
    Ok(())
}

fn range_steps(engine: &Engine) -> Result<()> {
    let machine = engine.start(&[])?;
    let mut client = Client::connect(&machine)?;
    // The far jump at the reset vector, then CLI, CLD and XOR (3 bytes).
    for (range, end) in [("fffffff0,fffffff5", 0xf_a5c0_u64), ("fa5c0,fa5c5", 0xf_a5c5)] {
        let stop = client.ask(&format!("vCont;r{range}:1"))?;
        ensure!(stop.starts_with("T05"), "{stop}");
        // Little-endian: only its low bytes differ from 0, and runs of zeros may be packed.
        let rip = client.ask("p10")?;
        let low: String = end.to_le_bytes()[..3].iter().map(|b| format!("{b:02x}")).collect();
        ensure!(rip.starts_with(&low), "{range}: {rip}");
    }
    Ok(())
}

/// More than four, of any length, for reads, writes and both.
fn watchpoints(engine: &Engine) -> Result<()> {
    const AT: u64 = 0x1000;
    let program = [
        0xa0, 0x10, 0x20, // mov al, [2010h]
        0xa2, 0x63, 0x20, // mov [2063h], al
        0xa1, 0xfe, 0x20, // mov ax, [20feh]
        0xc6, 0x06, 0x00, 0x30, 0x07, // mov byte [3000h], 7
        0xa2, 0x01, 0x40, // mov [4001h], al
        0x90,
    ];
    let machine = engine.start(&[])?;
    let mut script = code(AT, &program);
    script += "set $rax = 0
rwatch *(char*)0x2010
watch *(char(*)[100])0x5000
awatch *(char(*)[50])0x2050
rwatch *(short*)0x20ff
watch *(char*)0x3000
watch *(int*)0x4000
set *(int*)0x4000 = 0xffffffff
";
    for _ in 0..5 {
        script += "continue\nprintf \"at %#lx\\n\", $pc\n";
    }
    let output = machine.gdb(&(script + "detach\n"))?;
    let at = output.marked("at");
    ensure!(at == ["0x1003", "0x1006", "0x1009", "0x100e", "0x1011"], "{at:?} in:\n{}", output.0);
    output.expect(&["read watchpoint 1", "(read/write) watchpoint 3", "read watchpoint 4"])?;
    output.expect(&["watchpoint 5", "New value = 7", "watchpoint 6"])
}

/// The guest waits at its prompt, halted in host time: an interrupt wakes it all the same.
fn ctrl_c(engine: &Engine) -> Result<()> {
    Debugger::Gdb.require()?;
    let arguments: Vec<OsString> = engine.arguments.iter().map(OsString::from).collect();
    let machine = Debuggee::start_running(&arguments)?;
    machine.wait_for("brolga>", LIMIT)?;
    let mut client = Client::connect(&machine)?;
    client.ask("?")?;
    for _ in 0..3 {
        client.send("vCont;c")?;
        thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        client.stream.write_all(b"\x03")?;
        let answer = client.receive()?;
        ensure!(answer.starts_with("T02"), "{answer:?}");
        ensure!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    Ok(())
}

fn registers_and_memory(engine: &Engine) -> Result<()> {
    let machine = engine.start(&["--max-insns", "1000"])?;
    let output = machine.gdb(
        "stepi
set $rax = 0x1122334455667788
set $xmm3.v2_int64[1] = 0x0123456789abcdef
set $ymm3.v4_int64[2] = 0x1122
set $st0 = 1.5
set $mxcsr = 0x1fa0
set $eflags = 0x247
set $ds = 0x1234
set $gs_base = 0x1000
set $cr3 = 0x5000
set $fctrl = 0x27f
set *(unsigned long*)0x3ffd = 0x8877665544332211
maintenance flush register-cache
maintenance flush dcache
printf \"rax %#lx\\n\", $rax
printf \"xmm %#lx\\n\", $xmm3.v2_int64[1]
printf \"ymm %#lx %#lx\\n\", $ymm3.v4_int64[1], $ymm3.v4_int64[2]
printf \"st0 %g\\n\", $st0
printf \"mxcsr %#x\\n\", $mxcsr
printf \"eflags %#x\\n\", $eflags
printf \"ds %#lx %#lx\\n\", $ds, $ds_base
printf \"gs %#lx\\n\", $gs_base
printf \"cr3 %#lx\\n\", $cr3
printf \"fctrl %#x\\n\", $fctrl
printf \"memory %#lx\\n\", *(unsigned long*)0x3ffd
try set *(unsigned char*)0xffff0 = 0
detach
",
    )?;
    for (mark, value) in [
        ("rax", "0x1122334455667788"),
        ("xmm", "0x123456789abcdef"),
        ("ymm", "0x123456789abcdef 0x1122"),
        ("st0", "1.5"),
        ("mxcsr", "0x1fa0"),
        ("eflags", "0x247"),
        ("ds", "0x1234 0x12340"),
        ("gs", "0x1000"),
        ("cr3", "0x5000"),
        ("fctrl", "0x27f"),
        ("memory", "0x8877665544332211"),
    ] {
        ensure!(output.only(mark)? == value, "{mark} is {}", output.only(mark)?);
    }
    // ROM takes no writes.
    output.expect(&["Cannot access memory"])
}

fn physical_memory(engine: &Engine) -> Result<()> {
    let machine = engine.start(&[])?;
    let output = machine.gdb(
        "monitor goto 100000
continue
try x/1xb 0
maintenance packet qqemu.PhyMemMode
maintenance packet Qqemu.PhyMemMode:1
set *(unsigned char*)0 = 0x5a
x/1xb 0
maintenance packet qqemu.PhyMemMode
maintenance packet Qqemu.PhyMemMode:0
maintenance flush dcache
try x/1xb 0
monitor phys 0 1
detach
",
    )?;
    // Page 0 is not mapped in the guest's long mode.
    output.expect(&["Cannot access memory at address 0x0", "\"0\"", "0x0:\t0x5a", "\"1\""])?;
    output.expect(&["0x5a", "Cannot access memory at address 0x0", " 5a"])
}

fn commands(engine: &Engine) -> Result<()> {
    let machine = engine.start(&[])?;
    let names = [
        "help",
        "regs",
        "regs sse",
        "msr",
        "pt 0x12000",
        "tlb",
        "gdt",
        "ldt",
        "idt 14",
        "tss",
        "disas",
        "memory",
        "phys 0x12000 16",
        "pic",
        "apic",
        "ioapic",
        "pit",
        "chip",
        "chip rtc",
        "irq",
        "break",
        "insns",
        "trace pio",
        "trace off",
    ];
    let asked: String =
        names.iter().map(|name| format!("echo == {name}\\n\nmonitor {name}\n")).collect();
    let output = machine
        .gdb(&format!("monitor goto 2000000\ncontinue\n{asked}monitor nonsense\ndetach\n"))?;
    for part in output.0.split("== ").skip(1) {
        let (name, answer) = part.split_once('\n').context("an answer")?;
        let silent = answer.trim().is_empty() || answer.contains("usage:");
        ensure!(!silent, "monitor {name} says {answer:?}");
    }
    output.expect(&["exceptions [N [log|off]]", "cr0 ", "IA32_LSTAR", "PML4E", "4 KiB page"])?;
    output.expect(&[
        "0018 base",
        "64-bit code",
        "#PF",
        "interrupt gate",
        "rsp0",
        "RAM",
        "2000000",
    ])?;
    output.expect(&["there is no command \"nonsense\""])
}

fn stops_by_command(engine: &Engine) -> Result<()> {
    const AT: u64 = 0x1000;
    let program = [
        0xe6, 0x7f, // out 7fh, al
        0xe6, 0x80, // out 80h, al
        0xcd, 0x40, // int 40h
        0x0f, 0x0b, // ud2
        0x67, 0xa1, 0x00, 0x00, 0xc0, 0xfe, // mov ax, [fec00000h]: beyond the limit
        0x90,
    ];
    let machine = engine.start(&[])?;
    let mut script = code(AT, &program) + &code(0x1100, &[0xcf]) + &format!("set $pc = {AT}\n");
    script += "set *(unsigned int*)0x100 = 0x1100\nset *(unsigned int*)0x18 = 0x1110
monitor io 0x80
monitor exceptions 0x40 log
monitor exceptions 6
monitor break 0x1002
continue
printf \"at %#lx\\n\", $pc
continue
printf \"at %#lx\\n\", $pc
continue
printf \"at %#lx\\n\", $pc
monitor break
monitor delete
monitor break
detach
";
    let output = machine.gdb(&script)?;
    ensure!(output.marked("at") == ["0x1002", "0x1004", "0x1110"], "{}", output.0);
    output.expect(&["breakpoint by physical address", "out 0x0080: 1 bytes"])?;
    output.expect(&["vector 64", "from 0x1006", "vector 6 (#UD) from 0x1006", "nothing is set"])
}

fn triple_fault(engine: &Engine) -> Result<()> {
    // lidt [1100h], where there are zeros; ud2
    let program = [0x0f, 0x01, 0x1e, 0x00, 0x11, 0x0f, 0x0b];
    for (policy, status) in [("stop", exit::TRIPLE_FAULT), ("reset", exit::QUIT)] {
        let mut machine = engine.start(&["--on-triple-fault", policy])?;
        let mut script = code(0x1000, &program);
        script += "continue\nprintf \"at %#lx\\n\", $pc\n";
        script += if policy == "stop" {
            "continue\n"
        } else {
            "monitor goto 200000\ncontinue\nprintf \"after %#lx\\n\", $cs\nkill\n"
        };
        let output = machine.gdb(&script)?;
        output.expect(&["triple fault", "#UD", "SIGSEGV"])?;
        ensure!(output.only("at")? == "0x1005", "{}", output.0);
        if policy == "reset" {
            ensure!(output.only("after")? == "0x18", "the guest has not begun again: {}", output.0);
        }
        ensure!(machine.status(LIMIT)? == status, "{policy}: {}", machine.log());
    }
    Ok(())
}

fn sessions(engine: &Engine) -> Result<()> {
    let machine = engine.start(&[])?;
    let first = machine
        .gdb("stepi\nbreak *$pc\nwatch *(char*)0x500\nprintf \"at %#lx\\n\", $pc\ndetach\n")?;
    ensure!(first.only("at")?.starts_with("0xf"), "{}", first.0);
    // Nothing of the first session stops the guest, which runs to its prompt meanwhile.
    machine.wait_for("brolga>", LIMIT)?;
    let second = machine.gdb("monitor break\nprintf \"at %#lx %#lx\\n\", $pc, $cs\ndetach\n")?;
    ensure!(second.only("at")?.ends_with("0x18"), "{}", second.0);
    second.expect(&["nothing is set"])
}

fn broken_session(engine: &Engine) -> Result<()> {
    let machine = engine.start(&[])?;
    for packets in [&["?"][..], &["Z0,fa5c1,1", "vCont;c"], &["g", "m0,10"]] {
        let mut client = Client::connect(&machine)?;
        for packet in packets {
            client.send(packet)?;
        }
        client.stream.write_all(b"$m0,4")?;
    }
    machine.wait_for("brolga>", LIMIT)?;
    let output = machine.gdb("printf \"at %#lx\\n\", $cs\ndetach\n")?;
    ensure!(output.only("at")? == "0x18", "{}", output.0);
    Ok(())
}

fn kill(engine: &Engine) -> Result<()> {
    let mut machine = engine.start(&[])?;
    machine.gdb("stepi\nkill\n")?;
    ensure!(machine.status(LIMIT)? == exit::QUIT, "{}", machine.log());
    let mut machine = engine.start(&[])?;
    machine.gdb("monitor quit\n")?;
    ensure!(machine.status(LIMIT)? == exit::QUIT, "{}", machine.log());
    Ok(())
}

fn restart(engine: &Engine) -> Result<()> {
    let machine = engine.start(&[])?;
    let output = machine.gdb(
        "monitor goto 100000
continue
printf \"first %#lx\\n\", $pc
monitor reset
maintenance flush register-cache
printf \"reset %#lx\\n\", $pc
stepi
printf \"second %#lx\\n\", $pc
detach
",
    )?;
    ensure!(output.only("first")?.starts_with("0x1"), "{}", output.0);
    ensure!(output.only("reset")? == "0xfffffff0", "{}", output.0);
    let second = output.only("second")?;
    ensure!(second != "0xfffffff0" && second.starts_with("0xf"), "{}", output.0);
    // The same by GDB's own command.
    let machine = engine.start(&[])?;
    let output = machine.gdb(&format!(
        "disconnect
target extended-remote {}
set remote exec-file guest
stepi
starti
printf \"run %#lx\\n\", $pc
stepi
kill
",
        machine.socket().display()
    ))?;
    ensure!(output.only("run")? == "0xfffffff0", "{}", output.0);
    Ok(())
}

fn legacy(engine: &Engine) -> Result<()> {
    let machine = engine.start(&["--cpu", "i686"])?;
    let output = machine.gdb(
        "stepi
printf \"at %#x\\n\", $eip
x/3i $pc
monitor cr 0
continue
set architecture i386
printf \"pe %#x\\n\", $cr0 & 1
set $eax = 0x12345678
printf \"eax %#x\\n\", $eax
try info registers efer
detach
",
    )?;
    ensure!(output.only("at")?.starts_with("0xf"), "{}", output.0);
    // In 16-bit code, which this is, the operand-size prefix makes 32 bits.
    output.expect(&["xor    %eax,%eax"])?;
    ensure!(output.only("pe")? == "0x1" && output.only("eax")? == "0x12345678", "{}", output.0);
    output.expect(&["Invalid register `efer'"])
}

fn lldb(engine: &Engine) -> Result<()> {
    Debugger::Lldb.require()?;
    let machine = Debuggee::start(&engine.arguments(&[]))?;
    let output = machine.lldb(
        "register read rip cr0
thread step-inst
thread step-inst
breakpoint set --address 0x1a585
process continue
register read rip rsp cs
memory read --size 1 --count 5 0xffff0
watchpoint set expression --size 8 -- 0x7ff8
register write rax 0x1234
register read rax
process plugin packet monitor insns
breakpoint delete --force
process detach
",
    )?;
    output.expect(&[
        "rip = 0x00000000fffffff0",
        "instruction step into",
        "stop reason = breakpoint",
    ])?;
    output.expect(&["rip = 0x000000000001a585", "rax = 0x0000000000001234", "detached"])
}

/// Breakpoints, watchpoints and steps stop both engines at the same instructions in the same state.
fn engines_agree() -> Result<()> {
    let mut script = String::from(
        "define here
  printf \"at %#lx rax %#lx rcx %#lx rsp %#lx eflags %#x\\n\", $pc, $rax, $rcx, $rsp, $eflags
  monitor insns
end
monitor cr 0
continue
continue
monitor delete
stepi
stepi
set $routine = $pc
break *$routine
watch *(unsigned long*)($rsp - 8)
",
    );
    for _ in 0..30 {
        script += "continue\nhere\n";
    }
    script += "delete\nmonitor goto 3000001\ncontinue\nhere\n";
    for _ in 0..40 {
        script += "stepi 7\nhere\n";
    }
    let outputs: Vec<Output> = ENGINES
        .iter()
        .map(|engine| engine.start(&[])?.gdb(&(script.clone() + "detach\n")))
        .collect::<Result<_>>()?;
    ensure!(outputs[0].marked("at").len() == 71, "{}", outputs[0].0);
    let differs = outputs[0].0.lines().zip(outputs[1].0.lines()).find(|(a, b)| {
        // The socket's name and GDB's own chatter apart.
        a != b && !a.contains("door")
    });
    ensure!(differs.is_none(), "the engines differ: {differs:?}");
    Ok(())
}

fn number(text: &str) -> Result<u64> {
    let digits = text.trim().trim_start_matches("0x");
    u64::from_str_radix(digits, 16).with_context(|| format!("{text:?} is not a number"))
}

/// A debugger without any sense.
struct Client {
    stream: UnixStream,
}

impl Client {
    fn connect(machine: &Debuggee) -> Result<Self> {
        let stream = UnixStream::connect(machine.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream })
    }

    fn send(&mut self, packet: &str) -> Result<()> {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        Ok(self.stream.write_all(format!("${packet}#{sum:02x}").as_bytes())?)
    }

    /// The contents of the next packet.
    fn receive(&mut self) -> Result<String> {
        let mut text = String::new();
        let mut byte = [0];
        while !text.ends_with('#') {
            self.stream.read_exact(&mut byte)?;
            match byte[0] {
                b'$' => text.clear(),
                byte => text.push(byte.into()),
            }
        }
        self.stream.read_exact(&mut [0; 2])?;
        text.pop();
        Ok(text)
    }

    fn ask(&mut self, packet: &str) -> Result<String> {
        self.send(packet)?;
        self.receive()
    }
}
