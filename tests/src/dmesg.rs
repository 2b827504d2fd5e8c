//! Judging a kernel log: complaints beyond an allow-list, and time that runs forward.

use anyhow::{Context, Result, bail, ensure};

/// The complaints that are in order, each with its reason.
const ALLOWED: &str = include_str!("../data/dmesg-allowed.txt");

/// Words of a kernel that is not content. Lower case: lines are compared so.
const COMPLAINTS: [&str; 19] = [
    "warning",
    "bug",
    "call trace",
    "oops",
    "panic",
    "fail",
    "error",
    "unable",
    "timed out",
    "timeout",
    "not responding",
    "unexpected",
    "spurious",
    "stuck",
    "broken",
    "invalid",
    "unhandled",
    "skipping",
    "blank",
];

/// The most severe level that is not a complaint by itself: KERN_WARNING. Errors (3) and worse
/// always are.
const WARNING_LEVEL: u32 = 4;

/// The one line at which Linux's clock may start over: until the TSC's frequency is known, time
/// stamps count jiffies; where the early calibration fails, they then count on from the TSC's
/// own start. QEMU's guests show it too.
const CLOCK_RESTART: &str = "clocksource: tsc-early";

/// A line of `dmesg -r`.
#[derive(Debug, PartialEq)]
pub struct Line<'a> {
    /// KERN_EMERG (0) to KERN_DEBUG (7); a continuation line has the level 7.
    pub level: u32,
    /// Seconds since boot; continuation lines have none.
    pub time: Option<f64>,
    /// The message.
    pub text: &'a str,
}

/// The lines of `dmesg -r`, or of a console, which shows no levels.
pub fn parse(log: &str) -> impl Iterator<Item = Line<'_>> {
    log.lines().map(|line| {
        let (level, rest) = level(line).unwrap_or((7, line));
        let (time, text) = time(rest).map_or((None, rest), |(time, text)| (Some(time), text));
        Line { level, time, text: text.trim_end() }
    })
}

/// The lines that complain about something not on the allow-list.
pub fn complaints(log: &str) -> Result<Vec<String>> {
    let allowed = allowances()?;
    Ok(parse(log)
        .filter(|line| line.level < WARNING_LEVEL || has_complaint(line.text))
        .filter(|line| !allowed.iter().any(|allowed| line.text.contains(allowed)))
        .map(|line| format!("<{}> {}", line.level, line.text))
        .collect())
}

/// Checks that time never runs backward and returns the last time stamp.
pub fn last_time(log: &str) -> Result<f64> {
    let mut last = None;
    for line in parse(log) {
        let Some(time) = line.time else { continue };
        let before = last.unwrap_or(0.0);
        let is_forward = time >= before || line.text.contains(CLOCK_RESTART);
        ensure!(is_forward, "time runs backward from {before}: [{time}] {}", line.text);
        last = Some(time);
    }
    last.context("the log has no time stamps")
}

fn has_complaint(text: &str) -> bool {
    let text = text.to_lowercase();
    COMPLAINTS.iter().any(|word| text.contains(word))
}

fn level(line: &str) -> Option<(u32, &str)> {
    let (number, rest) = line.strip_prefix('<')?.split_once('>')?;
    // The facility is above the three bits of the level.
    Some((number.parse::<u32>().ok()? & 7, rest))
}

fn time(line: &str) -> Option<(f64, &str)> {
    let (seconds, text) = line.strip_prefix('[')?.split_once("] ")?;
    Some((seconds.trim().parse().ok()?, text))
}

/// The texts of the list. Each entry is a line `text => reason`; `#` begins a comment.
fn allowances() -> Result<Vec<&'static str>> {
    let lines = ALLOWED.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| match line.split_once(" => ") {
            Some((text, reason)) if !text.trim().is_empty() && !reason.trim().is_empty() => {
                Ok(text.trim())
            }
            _ => bail!("not of the form `text => reason`: {line:?}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_times_and_texts_are_told_apart() {
        let lines: Vec<_> = parse("<30>[    1.500000] systemd\nplain\n[ 2.0] console").collect();
        assert_eq!(lines[0], Line { level: 6, time: Some(1.5), text: "systemd" });
        assert_eq!(lines[1], Line { level: 7, time: None, text: "plain" });
        assert_eq!(lines[2], Line { level: 7, time: Some(2.0), text: "console" });
    }

    #[test]
    fn errors_and_complaints_are_found() -> Result<()> {
        let log = "<6>[ 0.1] all is well\n<3>[ 0.2] no such luck\n<4>[ 0.3] WARNING: CPU: 0\n";
        assert_eq!(complaints(log)?, ["<3> no such luck", "<4> WARNING: CPU: 0"]);
        Ok(())
    }

    #[test]
    fn time_running_backward_is_an_error() {
        assert_eq!(last_time("[ 0.0] a\n[ 1.5] b\n").unwrap(), 1.5);
        assert!(last_time("[ 2.0] a\n[ 1.5] b\n").is_err());
        let restart = "[ 2.0] a\n[ 0.5] clocksource: tsc-early: mask\n[ 0.6] b\n";
        assert_eq!(last_time(restart).unwrap(), 0.6);
        assert!(last_time("no stamps").is_err());
    }

    #[test]
    fn each_allowance_has_a_reason() {
        allowances().unwrap();
    }
}
