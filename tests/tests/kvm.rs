//! The machine under KVM, where the host has a KVM that can be used.

use brolga_tests::suite;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kvm {
    use std::ffi::OsString;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::process::Command;
    use std::sync::Arc;
    use std::time::Duration;

    use anyhow::{Context, Result, ensure};
    use brolga_machine::kvm::Host;
    use brolga_test_roms::{
        conformance, default_guest, exit_rom, halt_forever_rom, hello_rom, reset_loop_rom,
        spin_rom, triple_fault_rom,
    };
    use brolga_tests::debugger::{Debuggee, Debugger};
    use brolga_tests::expect::Session;
    use brolga_tests::guests::I686;
    use brolga_tests::kvm::{apic, cases, lockstep, state};
    use brolga_tests::process::{self, Finished};
    use brolga_tests::shell::Shell;
    use brolga_tests::suite::{Skip, trial};
    use brolga_tests::vmm::{Boot, Vmm};
    use brolga_tests::{binary, exit};
    use libtest_mimic::Trial;
    use serde_json::Value;

    /// KVM may be an emulator itself, of some million instructions a second.
    const LIMIT: Duration = Duration::from_secs(120);
    const PROMPT: &str = "brolga>";

    pub(super) fn trials() -> Vec<Trial> {
        vec![
            trial("is_refused_without_permission", is_refused_without_permission),
            trial("is_refused_with_what_it_cannot_do", is_refused_with_what_it_cannot_do),
            trial("exit_statuses", || exit_statuses("kvm")),
            trial("exit_statuses_on_kvms_apic", || exit_statuses("kvm,kernel-irqchip=split")),
            trial("embedded_guest", || embedded_guest("kvm")),
            trial("embedded_guest_on_kvms_apic", || embedded_guest("kvm,kernel-irqchip=split")),
            trial("embedded_guest_changes_accelerator", || embedded_guest(&changes(""))),
            trial("embedded_guest_changes_apic", || {
                embedded_guest(&changes(",kernel-irqchip=split"))
            }),
            trial("exits_are_counted", exits_are_counted),
            trial("a_debugger_stops_and_steps_it", a_debugger_stops_and_steps_it),
            trial("state_moves_there_and_back", state_moves_there_and_back),
            trial("apics_move_there_and_back", apics_move_there_and_back),
            trial("single_steps_agree", single_steps_agree),
            trial("lockstep_on_the_embedded_guest", lockstep_on_the_embedded_guest),
            trial("lockstep_on_roms", lockstep_on_roms),
            trial("lockstep_is_a_command", lockstep_is_a_command),
            trial("conform_goes_in_single_steps", conform_goes_in_single_steps),
            trial("conform_runs_roms", || conform_runs_roms("kvm")),
            trial("conform_runs_roms_on_kvms_apic", || {
                conform_runs_roms("kvm:kernel-irqchip=split")
            }),
            trial("conform_leaves_times_out", conform_leaves_times_out),
            trial("compare_on_kvms_apic", compare_on_kvms_apic),
            trial("debian_changes_accelerator", || debian_changes_accelerator("")),
            trial("debian_changes_apic", || debian_changes_accelerator(",kernel-irqchip=split")),
        ]
    }

    /// Skips the test where there is no KVM.
    fn require() -> Result<()> {
        Host::open().map(drop).map_err(|error| Skip(error.to_string()).into())
    }

    /// Runs a ROM without a terminal.
    fn run(accel: &str, rom: Vec<u8>, arguments: &[&str]) -> Result<Finished> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), rom)?;
        let mut command = Command::new(binary::brolga()?);
        command.args(["run", "--accel", accel, "--bios"]).arg(file.path()).args(arguments);
        process::run(&mut command, LIMIT)
    }

    fn is_refused_without_permission() -> Result<()> {
        let device =
            fs::metadata("/dev/kvm").map_err(|error| Skip(format!("/dev/kvm: {error}")))?;
        let everybody = device.permissions().mode() & 0o006 == 0o006;
        if everybody || fs::metadata("/proc/self")?.uid() != 0 {
            return Err(Skip("there is nobody here who may not use /dev/kvm".into()).into());
        }
        // A copy that anybody may execute.
        let directory =
            tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir()?;
        let program = directory.path().join("brolga");
        fs::copy(binary::brolga()?, &program)?;
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--clear-groups"]).arg(program);
        command.args(["run", "--accel", "kvm"]);
        let finished = process::run(&mut command, LIMIT)?;
        ensure!(finished.code()? == 2 && finished.is_refusal(), "{finished:?}");
        ensure!(finished.stderr.contains("/dev/kvm cannot be opened"), "{finished:?}");
        Ok(())
    }

    fn is_refused_with_what_it_cannot_do() -> Result<()> {
        for (arguments, why) in [
            (&["--clock", "virtual"][..], "cannot count instructions"),
            (&["--max-insns", "1000"], "counts instructions, which --accel kvm cannot"),
        ] {
            let finished = run("kvm", hello_rom(), arguments)?;
            ensure!(finished.code()? == 2 && finished.is_refusal(), "{finished:?}");
            ensure!(finished.stderr.contains(why), "{finished:?}");
        }
        Ok(())
    }

    fn exit_statuses(accel: &str) -> Result<()> {
        require()?;
        for (rom, arguments, status) in [
            (exit_rom(42), &[][..], 42),
            (triple_fault_rom(), &[], exit::TRIPLE_FAULT),
            (halt_forever_rom(), &[], exit::HALTED),
            (reset_loop_rom(), &[], exit::RESET_LOOP),
            (spin_rom(), &["--timeout", "0.5"], exit::TIMEOUT),
            (hello_rom(), &["--stop-on-serial", "ell"], exit::STOPPED_ON_SERIAL),
        ] {
            let finished = run(accel, rom, arguments)?;
            ensure!(finished.code()? == status, "status {status} was due: {finished:?}");
        }
        Ok(())
    }

    fn spawn(arguments: &[&str]) -> Result<Session> {
        let mut command = vec![OsString::from(binary::brolga()?), "run".into()];
        command.extend(arguments.iter().map(OsString::from));
        Session::spawn(&command)
    }

    fn embedded_guest(accel: &str) -> Result<()> {
        require()?;
        let mut session = spawn(&["--accel", accel])?;
        let banner = session.expect(PROMPT, LIMIT)?;
        for word in ["real mode", "long mode", "instructions per second"] {
            ensure!(banner.contains(word), "the guest does not say {word:?}:\n{banner}");
        }
        session.send("fault ud\r")?;
        let answer = session.expect(PROMPT, LIMIT)?;
        ensure!(answer.to_lowercase().contains("invalid opcode"), "{answer}");
        session.send("exit 5\r")?;
        let ended = session.finish(LIMIT)?;
        ensure!(ended.status == Ok(5), "{ended:?}");
        Ok(())
    }

    fn changes(setting: &str) -> String {
        format!("interp{setting},then=kvm@20000,then=jit@0.3s,then=kvm@0.6s,then=interp@1.5s")
    }

    fn exits_are_counted() -> Result<()> {
        require()?;
        let finished = run("kvm", hello_rom(), &["--kvm-stats"])?;
        let ports = finished.stderr.lines().find(|line| line.ends_with(" exit: port"));
        let ports = ports.with_context(|| format!("no count of port exits: {finished:?}"))?;
        let count = ports.split_whitespace().nth(2).and_then(|count| count.parse::<u64>().ok());
        ensure!(count.is_some_and(|count| count >= 5), "one for each letter is due: {ports}");
        Ok(())
    }

    fn a_debugger_stops_and_steps_it() -> Result<()> {
        require()?;
        Debugger::Gdb.require()?;
        let machine = Debuggee::start(&["--accel", "kvm"].map(OsString::from))?;
        let output = machine.gdb(
            "printf \"start %#lx\\n\", $pc\nstepi\nprintf \"then %#lx\\n\", $pc\n\
             monitor accel\nmonitor accel interp\nmonitor accel kvm\nmonitor quit\n",
        )?;
        output.expect(&[
            "start 0xfffffff0",
            "interpreted: exact counts",
            "kvm goes on with the guest",
        ])
    }

    fn state_moves_there_and_back() -> Result<()> {
        require()?;
        state::check(2000)
    }

    fn apics_move_there_and_back() -> Result<()> {
        require()?;
        apic::check(200)
    }

    fn single_steps_agree() -> Result<()> {
        require()?;
        // BROLGA_KVM_CASES: how many.
        let count = std::env::var("BROLGA_KVM_CASES").ok().and_then(|count| count.parse().ok());
        let tally = cases::compare(count.unwrap_or(3000), 1)?;
        println!("{tally}");
        ensure!(tally.unexplained.is_empty(), "{tally}");
        Ok(())
    }

    /// From real mode to long mode, with serial line, screen and timers.
    fn lockstep_on_the_embedded_guest() -> Result<()> {
        require()?;
        let counts = lockstep::compare(Arc::new(Host::open()?), default_guest(), 150_000)?;
        println!("{counts:#?}");
        let stepped = counts.get("stepped").copied().unwrap_or_default();
        ensure!(stepped > 140_000, "KVM is to execute nearly all: {counts:#?}");
        Ok(())
    }

    /// Where a KVM that emulates is wrong: the ROM, the instruction, and what is not right.
    const KNOWN: [(&str, &str, &str); 1] = [("exceptions", "mov ax,[10001h]", "no #AC at level 3")];

    /// The beginning of each ROM of `brolga conform`: BROLGA_KVM_STEPS instructions.
    fn lockstep_on_roms() -> Result<()> {
        require()?;
        let host = Arc::new(Host::open()?);
        let steps = std::env::var("BROLGA_KVM_STEPS").ok().and_then(|steps| steps.parse().ok());
        let mut sums = lockstep::Counts::new();
        let mut different = Vec::new();
        for rom in conformance::all() {
            let error = match lockstep::compare(host.clone(), rom.image, steps.unwrap_or(20_000)) {
                Ok(counts) => {
                    for (name, count) in counts {
                        *sums.entry(name).or_default() += count;
                    }
                    continue;
                }
                Err(error) => error.to_string(),
            };
            let known = KNOWN.iter().find(|(name, at, _)| *name == rom.name && error.contains(at));
            match known {
                Some((_, at, what)) => println!("{}: {at}: {what}", rom.name),
                None => different.push(format!("{}: {error}", rom.name)),
            }
        }
        println!("{sums:#?}");
        ensure!(different.is_empty(), "{}", different.join("\n"));
        ensure!(sums.get("stepped").is_some_and(|&count| count > 100_000), "{sums:#?}");
        Ok(())
    }

    fn lockstep_is_a_command() -> Result<()> {
        require()?;
        let mut command = Command::new(binary::brolga()?);
        command.args(["lockstep", "--engines", "interp,kvm", "--max-insns", "5000", "-m", "16M"]);
        let finished = process::run(&mut command, LIMIT)?;
        ensure!(finished.code()? == 0, "{finished:?}");
        for word in ["stepped", "the engines agree: state 5000 insns"] {
            ensure!(finished.stdout.contains(word), "no {word:?}: {finished:?}");
        }
        Ok(())
    }

    fn conform_goes_in_single_steps() -> Result<()> {
        require()?;
        let finished = conform("kvm:step", &["tasks"])?;
        let passed = finished.code()? == 0 && finished.stdout.contains("engine kvm:step");
        ensure!(passed, "{finished:?}");
        Ok(())
    }

    /// ROMs that this project's KVM executes without a mistake, from beginning to end.
    fn conform_runs_roms(accel: &str) -> Result<()> {
        require()?;
        let finished = conform(accel, &["virtual86", "arithmetic", "shifts", "strings"])?;
        ensure!(finished.code()? == 0, "{finished:?}");
        ensure!(finished.stdout.contains(&format!("engine {accel}")), "{finished:?}");
        Ok(())
    }

    /// What follows the host's clock says nothing of ours.
    fn conform_leaves_times_out() -> Result<()> {
        require()?;
        let finished = conform("kvm", &["timing"])?;
        let skipped = finished.stdout.contains("it compares times");
        ensure!(finished.code()? == 0 && skipped, "{finished:?}");
        Ok(())
    }

    fn conform(accel: &str, what: &[&str]) -> Result<Finished> {
        let mut command = Command::new(binary::brolga()?);
        command.args(["conform", "--accel", accel]).args(what);
        process::run(&mut command, LIMIT)
    }

    /// The rows of `brolga compare` whose interrupts never leave KVM: no timer is forgotten when the
    /// local APIC moves.
    fn compare_on_kvms_apic() -> Result<()> {
        require()?;
        let engine = "kvm:kernel-irqchip=split";
        let mut command = Command::new(binary::brolga()?);
        command.args(["compare", "--engines", engine, "--rounds", "2", "--json"]);
        let finished = process::run(&mut command, LIMIT)?;
        let report: Value = serde_json::from_str(&finished.stdout)?;
        let problem = &report["engines"][0]["problem"];
        ensure!(problem.is_null(), "{problem}");
        for name in ["self-ipi", "timer", "hlt"] {
            let rows = report["rows"].as_array().context("no rows")?;
            let row = rows.iter().find(|row| row["name"] == name).context("a row is missing")?;
            ensure!(row["cells"][0]["time"]["median_ns"].is_number(), "{row}");
        }
        Ok(())
    }

    /// A boot by the translator, then KVM, then the translator again. Of the kernels, the one that
    /// also works where KVM does not know what SYSCALL does to the privilege level (docs/kvm.md).
    fn debian_changes_accelerator(setting: &str) -> Result<()> {
        require()?;
        Debugger::Gdb.require()?;
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("door");
        // The machine gets a processor that KVM can give; the change never comes by itself.
        let accel = format!("jit{setting},then=kvm@1000000s");
        let extra = ["--accel", &accel, "--gdb"].map(OsString::from);
        let door = OsString::from(format!("unix:{}", socket.display()));
        let boot = Boot { extra: extra.into_iter().chain([door]).collect(), ..Boot::default() };
        let mut shell = Shell::boot(Vmm::Brolga, &I686.cached()?, &boot)?;
        for accelerator in ["kvm", "jit", "kvm", "interp"] {
            let script = format!("monitor accel {accelerator}\ndetach\n");
            Debugger::Gdb
                .attach(&socket, &script)?
                .expect(&[&format!("{accelerator} goes on with the guest")])?;
            let answer = shell.run("cat /proc/version | wc -l; echo $((6 * 7))")?;
            ensure!(answer.trim() == "1\n42", "under {accelerator}: {answer:?}");
        }
        shell.session().send("poweroff -f\n")?;
        let ended = shell.finish(LIMIT)?;
        ensure!(ended.status == Ok(exit::POWER_OFF), "{ended:?}");
        Ok(())
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() {
    suite::run(kvm::trials())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    suite::run(Vec::new())
}
