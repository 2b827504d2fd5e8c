//! Real debuggers, driven by scripts against a machine that waits for them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use wait_timeout::ChildExt;

use crate::suite::Skip;
use crate::{binary, process};

/// How long a script may take.
const SCRIPT_LIMIT: Duration = Duration::from_secs(240);
/// How long a machine may take to open its door.
const DOOR_LIMIT: Duration = Duration::from_secs(60);

/// A debugger that may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debugger {
    /// `gdb`.
    Gdb,
    /// `lldb`.
    Lldb,
}

impl Debugger {
    fn program(self) -> &'static str {
        match self {
            Debugger::Gdb => "gdb",
            Debugger::Lldb => "lldb",
        }
    }

    /// Skips the test where the debugger is not installed.
    pub fn require(self) -> Result<()> {
        let program = self.program();
        let mut version = Command::new(program);
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        match version.status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(Skip(format!("{program} is not installed")).into()),
        }
    }

    /// Connects to a machine's socket and executes `script`, a command a line; what was printed.
    pub fn attach(self, socket: &Path, script: &str) -> Result<Output> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("script");
        let socket = socket.display();
        let connect = match self {
            Debugger::Gdb => format!("{GDB_PRELUDE}target remote {socket}\n"),
            Debugger::Lldb => format!("process connect unix-connect://{socket}\n"),
        };
        std::fs::write(&file, connect + script)?;
        // What is printed to either stream stays in order.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 2>&1", self.program()]);
        match self {
            Debugger::Gdb => command.args(["-nx", "-batch", "-x"]).arg(&file),
            Debugger::Lldb => command.args(["--no-lldbinit", "--batch", "--source"]).arg(&file),
        };
        Ok(Output(process::run(&mut command, SCRIPT_LIMIT)?.stdout))
    }
}

/// No questions; and `try`, before a command that may fail without an end to the script.
const GDB_PRELUDE: &str = "set pagination off
set confirm off
set width 0
python
class Try(gdb.Command):
    def __init__(self):
        super().__init__('try', gdb.COMMAND_USER)
    def invoke(self, argument, from_tty):
        try:
            gdb.execute(argument)
        except gdb.error as error:
            print(error)
Try()
end
";

/// A running machine with a door for debuggers.
pub struct Debuggee {
    directory: TempDir,
    child: Child,
}

impl Debuggee {
    /// Starts a machine that stands at its first instruction. Its serial line goes to a file.
    pub fn start(arguments: &[OsString]) -> Result<Self> {
        Self::with_door(arguments, true)
    }

    /// Starts a machine that runs.
    pub fn start_running(arguments: &[OsString]) -> Result<Self> {
        Self::with_door(arguments, false)
    }

    fn with_door(arguments: &[OsString], wait: bool) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new(binary::brolga()?);
        command.arg("run").arg("--gdb").arg(door(directory.path()));
        command.arg("--serial").arg(directory.path().join("serial"));
        if wait {
            command.arg("--wait");
        }
        let log = std::fs::File::create(directory.path().join("stderr"))?;
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let debuggee = Self { directory, child };
        let end = Instant::now() + DOOR_LIMIT;
        // The socket is there a moment before anybody listens at it.
        while !debuggee.log().contains("debuggers come in at") {
            ensure!(Instant::now() < end, "no door opens: {}", debuggee.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(debuggee)
    }

    /// The Unix socket that debuggers connect to.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("door")
    }

    /// What the machine has written to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default()
    }

    /// What the guest has written to its serial line.
    pub fn console(&self) -> String {
        let bytes = std::fs::read(self.directory.path().join("serial")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the guest has written a text.
    pub fn wait_for(&self, text: &str, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        while !self.console().contains(text) {
            ensure!(Instant::now() < end, "no {text:?} on the console:\n{}", self.console());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Lets GDB connect and execute a script; returns what was printed.
    pub fn gdb(&self, script: &str) -> Result<Output> {
        Debugger::Gdb.attach(&self.socket(), script)
    }

    /// Lets LLDB connect and execute a script; returns what was printed.
    pub fn lldb(&self, script: &str) -> Result<Output> {
        Debugger::Lldb.attach(&self.socket(), script)
    }

    /// Waits for the machine to end by itself; its exit status.
    pub fn status(&mut self, limit: Duration) -> Result<i32> {
        match self.child.wait_timeout(limit)? {
            Some(status) => status.code().context("the machine died of a signal"),
            None => bail!("the machine goes on: {}", self.log()),
        }
    }
}

impl Drop for Debuggee {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn door(directory: &Path) -> String {
    format!("unix:{}", directory.join("door").display())
}

/// What a debugger has printed.
#[derive(Clone, Debug)]
pub struct Output(pub String);

impl Output {
    /// The rest of the lines that begin with `mark` and a space, as scripts `echo` them.
    pub fn marked(&self, mark: &str) -> Vec<&str> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(mark)?.strip_prefix(' '));
        lines.map(str::trim).collect()
    }

    /// The only line marked so.
    pub fn only(&self, mark: &str) -> Result<&str> {
        match self.marked(mark)[..] {
            [line] => Ok(line),
            _ => bail!("not one line {mark:?} in:\n{}", self.0),
        }
    }

    /// Fails unless all these texts were printed, in this order.
    pub fn expect(&self, texts: &[&str]) -> Result<()> {
        let mut rest = self.0.as_str();
        for text in texts {
            let Some(at) = rest.find(text) else { bail!("no {text:?} (in order) in:\n{}", self.0) };
            rest = &rest[at + text.len()..];
        }
        Ok(())
    }
}
