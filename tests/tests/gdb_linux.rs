//! Debian's kernels under Debian's GDB, with the symbols that they know of themselves.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use brolga_tests::debugger::{Debugger, Output};
use brolga_tests::guests::{AMD64, Flavour, I686_PAE};
use brolga_tests::shell::Shell;
use brolga_tests::suite::{self, trial};
use brolga_tests::symbols;
use brolga_tests::vmm::{Boot, Vmm};
use tempfile::TempDir;

/// What the guest does all the time.
const WORK: &str = "(while true; do /bin/busybox uname > /dev/null; done) & sleep 1";

fn main() {
    let trials = ["interp", "jit"].iter().flat_map(|engine| {
        [
            trial(format!("{engine}::amd64"), move || amd64(engine)),
            trial(format!("{engine}::686_pae"), move || i686(engine)),
        ]
    });
    suite::run(trials.collect())
}

/// A guest at work, with its symbols.
struct Debugged {
    directory: TempDir,
    shell: Shell,
}

impl Debugged {
    fn boot(flavour: Flavour, engine: &str, cpu: &str, names: &[&str]) -> Result<Self> {
        Debugger::Gdb.require()?;
        let guest = flavour.cached()?;
        let directory = tempfile::tempdir()?;
        let door = format!("unix:{}", directory.path().join("door").display());
        let extra = ["--accel", engine, "--cpu", cpu, "--gdb", &door].map(Into::into).to_vec();
        let append = "console=ttyS0 nokaslr".into();
        let boot = Boot { append, extra, ..Boot::default() };
        let mut shell = Shell::boot(Vmm::Brolga, &guest, &boot)?;
        let pattern = names.join("|");
        let lines = shell.run(&format!("grep -E ' ({pattern})$' /proc/kallsyms"))?;
        // A long command wraps on the terminal: what is left of it is no symbol.
        let is_symbol = |line: &&str| {
            line.split(' ').next().is_some_and(|at| u64::from_str_radix(at, 16).is_ok())
        };
        let lines: Vec<&str> = lines.lines().filter(is_symbol).collect();
        let found = symbols::parse(&lines.join("\n"))?;
        for name in names {
            ensure!(found.iter().any(|symbol| symbol.name == *name), "no {name} in {lines:#?}");
        }
        let file = symbols::elf(&found, flavour.machine == "x86_64");
        std::fs::write(directory.path().join("symbols"), file)?;
        shell.run(WORK)?;
        Ok(Self { directory, shell })
    }

    /// A session with the symbols loaded.
    fn gdb(&self, script: &str) -> Result<Output> {
        let path = |name: &str| self.directory.path().join(name);
        let symbols = format!("symbol-file {}\n", path("symbols").display());
        Debugger::Gdb.attach(Path::new(&path("door")), &(symbols + script + "detach\n"))
    }

    /// The guest still does what it is told.
    fn is_unharmed(&mut self) -> Result<()> {
        let answer = self.shell.run("kill %1; echo $((6 * 7))")?;
        ensure!(answer.contains("42"), "the guest says {answer:?}");
        Ok(())
    }
}

fn amd64(engine: &str) -> Result<()> {
    let names = [
        "__x64_sys_newuname",
        "do_syscall_64",
        "entry_SYSCALL_64",
        "entry_SYSRETQ_unsafe_stack",
        "jiffies_64",
    ];
    let mut guest = Debugged::boot(AMD64, engine, "max", &names)?;
    let entry = busybox_entry()?;
    let output = guest.gdb(&format!(
        "break *__x64_sys_newuname
continue
backtrace 2
delete
watch *(unsigned long*)&jiffies_64
continue
continue
delete
break *entry_SYSCALL_64
continue
set $call = $rcx - 2
delete
tbreak *$call
continue
printf \"user %#lx %d\\n\", $pc - $call, $cs & 3
stepi
printf \"kernel %#lx %d\\n\", $pc - (unsigned long)&entry_SYSCALL_64, $cs & 3
tbreak *entry_SYSRETQ_unsafe_stack
continue
set $back = $rcx
while ($cs & 3) == 0
stepi
end
printf \"back %#lx %d\\n\", $pc - $back, $cs & 3
hbreak *{entry}
continue
printf \"busybox %#lx %d\\n\", $pc - {entry}, $cs & 3
x/1i $pc
monitor pt $pc x user
"
    ))?;
    output.expect(&["Breakpoint 1", "__x64_sys_newuname ()", "#0", "#1", "do_syscall_64"])?;
    output.expect(&[
        "Hardware watchpoint 2",
        "Old value",
        "New value",
        "Old value",
        "New value",
    ])?;
    for (mark, value) in [("user", "0 3"), ("kernel", "0 0"), ("back", "0 3"), ("busybox", "0 3")] {
        ensure!(output.only(mark)? == value, "{mark} {} in:\n{}", output.only(mark)?, output.0);
    }
    guest.is_unharmed()?;
    // A second session, with nothing left of the first.
    let output = guest.gdb("info breakpoints\nprintf \"rip %#lx\\n\", $pc\n")?;
    output.expect(&["No breakpoints", "rip 0x"])?;
    guest.is_unharmed()
}

/// Where the shell of the guest begins.
fn busybox_entry() -> Result<String> {
    let guest = AMD64.cached()?;
    let directory = guest.kernel.parent().context("the kernel is in a directory")?;
    let file = std::fs::read(directory.join("busybox-amd64"))?;
    let field = file.get(24..32).context("busybox is an ELF file")?;
    Ok(format!("{:#x}", u64::from_le_bytes(field.try_into()?)))
}

fn i686(engine: &str) -> Result<()> {
    // This kernel knows the names of its functions only.
    let names = ["__ia32_sys_newuname"];
    let mut guest = Debugged::boot(I686_PAE, engine, "i686", &names)?;
    let output = guest.gdb(
        "break *__ia32_sys_newuname
continue
backtrace 1
printf \"at %#x %d\\n\", $eip - (unsigned)&__ia32_sys_newuname, $cs & 3
stepi
printf \"then %d\\n\", $eip != (unsigned)&__ia32_sys_newuname
delete
watch *(unsigned*)($esp - 64)
continue
delete
monitor regs control
",
    )?;
    output.expect(&["Breakpoint 1", "__ia32_sys_newuname ()", "Old value", "New value", "cr3"])?;
    ensure!(output.only("at")? == "0 0" && output.only("then")? == "1", "{}", output.0);
    guest.is_unharmed()
}
