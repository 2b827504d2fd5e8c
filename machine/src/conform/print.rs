//! A report as text, JUnit XML and Markdown. JSON is the report itself.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::Path;

use comfy_table::{Table, TableStyle, presets};

use super::{Failure, Report, Suite};

/// The report for a terminal: suites, reasons of what was skipped, and the first failure of each
/// suite that has one.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    let _ = write_text(&mut text, report);
    text
}

fn write_text(to: &mut String, report: &Report) -> fmt::Result {
    writeln!(to, "{}\n", suites(report, presets::NOTHING))?;
    if report.suites.iter().any(|suite| suite.skipped() > 0) {
        writeln!(to, "{}\n", reasons(report, presets::NOTHING))?;
    }
    for suite in &report.suites {
        let Some(failure) = suite.failures.first() else { continue };
        writeln!(to, "{}: the first of {} failures", suite.name, suite.failed)?;
        for (what, value) in parts(failure) {
            writeln!(to, "    {what:12} {value}")?;
        }
    }
    writeln!(to, "{}", summary(report))
}

/// The last line.
pub fn summary(report: &Report) -> String {
    let [passed, failed, skipped] = report.totals();
    format!(
        "{passed} passed, {failed} failed, {skipped} skipped (engine {}, CPU {})",
        report.engine, report.cpu
    )
}

fn parts(failure: &Failure) -> impl Iterator<Item = (&'static str, &str)> {
    [
        ("case", &failure.case),
        ("instruction", &failure.instruction),
        ("input", &failure.input),
        ("expected", &failure.expected),
        ("got", &failure.got),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(what, value)| (what, value.as_str()))
}

fn table(style: TableStyle, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header(header.to_vec());
    table
}

/// A row for each suite; the files of vectors of a folder share one, but those with failures.
fn suites(report: &Report, style: TableStyle) -> Table {
    let mut table = table(style, &["test", "kind", "passed", "failed", "skipped", "seconds"]);
    let shares = |suite: &&Suite| suite.kind == "vectors" && suite.failed == 0;
    let (silent, shown): (Vec<&Suite>, Vec<&Suite>) = report.suites.iter().partition(shares);
    let mut folders = BTreeMap::<String, Vec<&Suite>>::new();
    for suite in silent {
        folders.entry(folder(suite)).or_default().push(suite);
    }
    for (folder, files) in folders {
        let sum = |count: fn(&Suite) -> u64| files.iter().map(|suite| count(suite)).sum();
        let counts = [sum(|suite| suite.passed), 0, sum(Suite::skipped)];
        let seconds = files.iter().map(|suite| suite.seconds).sum();
        table.add_row(row(&format!("{folder}{} files", files.len()), "vectors", counts, seconds));
    }
    for suite in shown {
        let counts = [suite.passed, suite.failed, suite.skipped()];
        table.add_row(row(&suite.name, suite.kind, counts, suite.seconds));
    }
    table
}

/// The name of the folder that a file lies in, as the beginning of its row's name.
fn folder(suite: &Suite) -> String {
    let parent = Path::new(&suite.name).parent().and_then(Path::file_name);
    parent.map_or(String::new(), |parent| format!("{}: ", parent.to_string_lossy()))
}

fn row(name: &str, kind: &str, counts: [u64; 3], seconds: f64) -> Vec<String> {
    let mut cells = vec![name.to_owned(), kind.to_owned()];
    cells.extend(counts.map(|count| count.to_string()));
    cells.push(format!("{seconds:.1}"));
    cells
}

fn reasons(report: &Report, style: TableStyle) -> Table {
    let mut counts = BTreeMap::<&str, u64>::new();
    for (reason, count) in report.suites.iter().flat_map(|suite| &suite.skipped) {
        *counts.entry(reason).or_default() += count;
    }
    let mut table = table(style, &["skipped", "why"]);
    for (reason, count) in counts {
        table.add_row([count.to_string(), reason.to_owned()]);
    }
    table
}

/// The report as the body of a Markdown section.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    let _ = write_markdown(&mut text, report);
    text
}

fn write_markdown(to: &mut String, report: &Report) -> fmt::Result {
    writeln!(to, "## `{}`, CPU `{}`\n", report.engine, report.cpu)?;
    let [passed, failed, skipped] = report.totals();
    writeln!(to, "{passed} cases passed, {failed} failed, {skipped} skipped.\n")?;
    writeln!(to, "{}\n", suites(report, presets::ASCII_MARKDOWN))?;
    if skipped > 0 {
        writeln!(to, "{}\n", reasons(report, presets::ASCII_MARKDOWN))?;
    }
    Ok(())
}

/// The report in the XML that CI systems read.
pub fn junit(report: &Report) -> String {
    let mut text = String::new();
    let _ = write_junit(&mut text, report);
    text
}

fn write_junit(to: &mut String, report: &Report) -> fmt::Result {
    let [passed, failed, skipped] = report.totals();
    let tests = passed + failed + skipped;
    writeln!(to, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(
        to,
        r#"<testsuites name="brolga conform" tests="{tests}" failures="{failed}" skipped="{skipped}">"#
    )?;
    for suite in &report.suites {
        write_suite(to, suite)?;
    }
    writeln!(to, "</testsuites>")
}

/// A test case for each failure that is kept, and one for all others: thousands that passed are of
/// no use to anybody.
fn write_suite(to: &mut String, suite: &Suite) -> fmt::Result {
    let name = escape(&suite.name);
    let (skipped, tests) = (suite.skipped(), suite.passed + suite.failed + suite.skipped());
    writeln!(
        to,
        r#"  <testsuite name="{name}" tests="{tests}" failures="{}" skipped="{skipped}" time="{:.3}">"#,
        suite.failed, suite.seconds
    )?;
    writeln!(to, r#"    <testcase classname="{name}" name="{} cases passed"/>"#, suite.passed)?;
    for failure in &suite.failures {
        let lines: Vec<String> =
            parts(failure).map(|(what, value)| format!("{what}: {value}")).collect();
        let case = escape(&failure.case);
        writeln!(to, r#"    <testcase classname="{name}" name="{case}">"#)?;
        writeln!(to, "      <failure>{}</failure>\n    </testcase>", escape(&lines.join("\n")))?;
    }
    for (reason, count) in &suite.skipped {
        writeln!(to, r#"    <testcase classname="{name}" name="{count} cases skipped">"#)?;
        writeln!(to, "      <skipped message=\"{}\"/>\n    </testcase>", escape(reason))?;
    }
    writeln!(to, "  </testsuite>")
}

/// Text in XML or HTML: what has a meaning there is escaped, what may not be there is replaced.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' => escaped.push(c),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut suite = Suite::new("a<b", "ROM");
        suite.passed = 3;
        suite.check("adds & carries", "1", "\u{1}2");
        suite.skip("no FPU");
        let vectors = Suite { passed: 5, ..Suite::new("vectors/80286/00.MOO", "vectors") };
        Report {
            engine: "interp".into(),
            cpu: "max".into(),
            suites: vec![suite, vectors],
            unusable: vec![],
        }
    }

    #[test]
    fn text_counts_and_explains() {
        let text = text(&report());
        assert!(text.contains("8 passed, 1 failed, 1 skipped"), "{text}");
        assert!(text.contains("no FPU") && text.contains("adds & carries"), "{text}");
        assert!(text.contains("80286: 1 files"), "{text}");
    }

    #[test]
    fn junit_escapes_what_xml_does_not_take() {
        let xml = junit(&report());
        assert!(xml.contains("name=\"a&lt;b\"") && xml.contains("adds &amp; carries"), "{xml}");
        assert!(xml.contains("got: \u{fffd}2") && xml.contains("tests=\"10\""), "{xml}");
        assert!(!xml.chars().any(|c| c.is_control() && c != '\n'));
    }

    #[test]
    fn markdown_has_tables() {
        let text = markdown(&report());
        assert!(text.contains("8 cases passed, 1 failed, 1 skipped."), "{text}");
        assert!(text.contains("| a<b") && text.contains("| no FPU"), "{text}");
    }
}
