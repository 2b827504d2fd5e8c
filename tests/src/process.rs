//! Running a command to its end, within a time limit.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use wait_timeout::ChildExt;

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit status; a death by signal is an error that shows what was printed.
    pub fn code(&self) -> Result<i32> {
        self.status.code().with_context(|| {
            let signal = self.status.signal().unwrap_or_default();
            format!("died of signal {signal}; stderr:\n{}", self.stderr)
        })
    }

    /// Whether all that was printed is one line of Brolga's on stderr.
    pub fn is_refusal(&self) -> bool {
        let mut lines = self.stderr.lines();
        let is_line = lines.next().is_some_and(|line| line.starts_with("brolga: "));
        is_line && lines.next().is_none() && self.stdout.is_empty()
    }
}

/// Runs a command without input. One that takes longer than `limit` is killed: an error.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let stdout = collect(child.stdout.take().expect("stdout is piped"));
    let stderr = collect(child.stderr.take().expect("stderr is piped"));
    let Some(status) = child.wait_timeout(limit)? else {
        child.kill()?;
        child.wait()?;
        bail!("{command:?} hangs: not done after {limit:?}; stderr:\n{}", text(stderr));
    };
    Ok(Finished { status, stdout: text(stdout), stderr: text(stderr) })
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is kept: it is all that there is to show.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn text(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

/// The CPU time that a running process has used, of all its threads.
pub fn cpu_time(id: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(id)?))?;
    Ok(clock.now()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_hangs_and_deaths_are_told_apart() {
        let shell = |script: &str, limit| run(Command::new("sh").args(["-c", script]), limit);
        let long = Duration::from_secs(10);
        let finished = shell("echo out; echo err >&2; exit 5", long).unwrap();
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(finished.code().unwrap(), 5);
        let killed = shell("kill -SEGV $$", long).unwrap();
        assert!(killed.code().unwrap_err().to_string().contains("signal 11"));
        let hanging = shell("exec sleep 10", Duration::from_millis(50)).unwrap_err();
        assert!(hanging.to_string().contains("hangs"), "{hanging}");
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let id = std::process::id();
        let before = cpu_time(id).unwrap();
        let end = std::time::Instant::now() + Duration::from_millis(200);
        while std::time::Instant::now() < end {
            std::hint::black_box(());
        }
        assert!(cpu_time(id).unwrap() > before);
    }
}
