//! `cargo xtask test`: every check of the project, and one count of them all.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use brolga_tests::{guests, table};

/// A step of the test run.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    kind: Kind,
}

#[derive(PartialEq)]
enum Kind {
    /// One check, passed or failed.
    Check,
    /// A check by a cargo subcommand that is not part of the toolchain.
    OptionalCheck,
    /// Test binaries that count for themselves.
    Tests,
}

const STEPS: [Step; 7] = [
    Step {
        name: "release build",
        arguments: &["build", "--release", "--package=brolga-machine"],
        kind: Kind::Check,
    },
    Step { name: "format", arguments: &["fmt", "--all", "--check"], kind: Kind::Check },
    Step {
        name: "clippy",
        arguments: &["clippy", "--workspace", "--all-targets", "--", "--deny=warnings"],
        kind: Kind::Check,
    },
    Step { name: "cargo deny", arguments: &["deny", "check"], kind: Kind::OptionalCheck },
    Step {
        name: "unit tests",
        arguments: &["test", "--workspace", "--exclude=brolga-tests", "--no-fail-fast"],
        kind: Kind::Tests,
    },
    Step {
        name: "portable twins",
        arguments: &[
            "test",
            "--package=brolga-cpu",
            "--package=brolga-mmu",
            "--features=brolga-cpu/portable,brolga-mmu/portable",
            "--no-fail-fast",
        ],
        kind: Kind::Tests,
    },
    Step {
        name: "system tests",
        arguments: &["test", "--package=brolga-tests", "--no-fail-fast"],
        kind: Kind::Tests,
    },
];

/// How many tests ended how, and what is to be said about those that did not pass.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    remarks: Vec<String>,
}

/// Runs all steps, whatever fails; the exit status says whether anything did.
pub(crate) fn run() -> Result<ExitCode> {
    let unavailable = guests::fetch(false).inspect(|table| println!("{table}")).err();
    let unavailable = unavailable.map(|error| format!("{error:#}"));
    if let Some(reason) = &unavailable {
        eprintln!("guests cannot be fetched, tests that need them are skipped: {reason}");
    }
    let mut total = Tally::default();
    let mut summary = table::new(["step", "passed", "failed", "skipped", "seconds"]);
    for (number, step) in STEPS.iter().enumerate() {
        println!("==> {} of {}: {}", number + 1, STEPS.len(), step.name);
        let started = Instant::now();
        let tally = step.run(unavailable.as_deref())?;
        summary.add_row(tally.row(step.name, started.elapsed()));
        total.add(tally);
    }
    println!("==> summary\n{summary}");
    for remark in &total.remarks {
        println!("{remark}");
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Step {
    fn run(&self, guests_reason: Option<&str>) -> Result<Tally> {
        if self.kind == Kind::OptionalCheck && !has_subcommand(self.arguments[0]) {
            let reason = format!("cargo-{} is not installed", self.arguments[0]);
            return Ok(Tally::skip(self.name, &reason));
        }
        let mut command = Command::new(env!("CARGO"));
        command
            .args(self.arguments)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .stdin(Stdio::null());
        if let Some(reason) = guests_reason {
            command.env(guests::REASON_VARIABLE, reason);
        }
        match self.kind {
            Kind::Check | Kind::OptionalCheck => {
                let success = command.status().context("starting cargo")?.success();
                Ok(Tally::check(self.name, success))
            }
            Kind::Tests => run_tests(self.name, &mut command),
        }
    }
}

/// Passes the output of `cargo test` on, line by line, and counts.
fn run_tests(name: &str, command: &mut Command) -> Result<Tally> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("starting cargo")?;
    let output = BufReader::new(child.stdout.take().context("stdout is piped")?);
    let mut tally = Tally::default();
    for line in output.lines() {
        let line = line?;
        println!("{line}");
        tally.read(&line);
    }
    let success = child.wait()?.success();
    // A test binary that does not build or that dies counts nothing.
    if !success && tally.failed == 0 {
        tally.add(Tally::check(name, false));
    }
    Ok(tally)
}

impl Tally {
    fn check(name: &str, success: bool) -> Self {
        if success {
            Self { passed: 1, ..Self::default() }
        } else {
            Self { failed: 1, remarks: vec![format!("failed: {name}")], ..Self::default() }
        }
    }

    fn skip(name: &str, reason: &str) -> Self {
        let remarks = vec![format!("skipped: {name}: {reason}")];
        Self { skipped: 1, remarks, ..Self::default() }
    }

    /// Reads a line of a test binary: `test NAME ... OUTCOME` or `test result: ...`. libtest
    /// gives the reason of an ignored test behind a comma, libtest-mimic in parentheses.
    fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            let count = |label: &str| {
                let numbers = result.split_once(". ").map_or("", |(_, numbers)| numbers);
                numbers
                    .split("; ")
                    .find_map(|part| part.strip_suffix(label)?.trim().parse::<u64>().ok())
                    .unwrap_or(0)
            };
            self.passed += count("passed");
            self.failed += count("failed");
            self.skipped += count("ignored");
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|test| test.split_once(" ... "))
        {
            if outcome.starts_with("FAILED") {
                self.remarks.push(format!("failed: {}", name.trim()));
            } else if let Some(reason) = outcome.strip_prefix("ignored") {
                let reason = reason.trim_matches([',', ' ', '(', ')']);
                self.remarks.push(format!("skipped: {}: {reason}", name.trim()));
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.remarks.extend(other.remarks);
    }

    fn row(&self, name: &str, time: Duration) -> [String; 5] {
        let counts = [self.passed, self.failed, self.skipped].map(|count| count.to_string());
        let [passed, failed, skipped] = counts;
        [name.to_owned(), passed, failed, skipped, format!("{:.0}", time.as_secs_f32())]
    }
}

fn has_subcommand(name: &str) -> bool {
    let mut command = Command::new(format!("cargo-{name}"));
    let quiet = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn test_output_is_counted_and_named() {
        let output = "running 4 tests\n\
            test a ... ok\n\
            test b ... FAILED\n\
            test c ... ignored (no guest)\n\
            test d       ... ignored\n\
            test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out\n\
            test result: ok. 10 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        assert_eq!((tally.passed, tally.failed, tally.skipped), (11, 1, 2));
        assert_eq!(tally.remarks, ["failed: b", "skipped: c: no guest", "skipped: d: "]);
    }
}
