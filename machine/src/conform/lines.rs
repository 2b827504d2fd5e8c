//! Tests that report in lines of text: the Test Anything Protocol (`ok 1 - name`, `not ok 2 -
//! name`, `1..N`), and the words of kvm-unit-tests and others (`PASS: name`, `FAIL: name`, `SKIP:
//! name`).

use super::{Failure, Suite};

/// What a line says of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict<'a> {
    Passed,
    Failed(&'a str),
    Skipped(&'a str),
    /// So many cases are to come.
    Plan(u64),
}

fn read(line: &str) -> Option<Verdict<'_>> {
    let line = line.trim();
    if let Some(count) = line.strip_prefix("1..") {
        return count.split_whitespace().next()?.parse().ok().map(Verdict::Plan);
    }
    if let Some(rest) = line.strip_prefix("not ok") {
        return Some(match skip_reason(rest) {
            Some(reason) => Verdict::Skipped(reason),
            None => Verdict::Failed(name(rest)),
        });
    }
    if let Some(rest) = line.strip_prefix("ok ") {
        return Some(skip_reason(rest).map_or(Verdict::Passed, Verdict::Skipped));
    }
    if line.starts_with("PASS: ") || line.starts_with("XFAIL: ") {
        return Some(Verdict::Passed);
    }
    if let Some(rest) = line.strip_prefix("FAIL: ") {
        return Some(Verdict::Failed(rest));
    }
    line.strip_prefix("SKIP: ").map(Verdict::Skipped)
}

/// `# SKIP reason`, and `# TODO reason` for what is known to fail.
fn skip_reason(rest: &str) -> Option<&str> {
    let (_, directive) = rest.split_once('#')?;
    let directive = directive.trim();
    let word = directive.get(..4)?;
    let known = word.eq_ignore_ascii_case("skip") || word.eq_ignore_ascii_case("todo");
    known.then(|| directive[4..].trim())
}

fn name(rest: &str) -> &str {
    rest.trim_start_matches(|c: char| c == ' ' || c == '-' || c.is_ascii_digit())
}

/// Adds what `text` reports to `suite`. Lines that say nothing of a case after one that has failed
/// are what the guest has to say about it.
pub fn judge(text: &str, suite: &mut Suite) {
    let (mut planned, mut seen) = (None, 0);
    let mut failed: Option<Failure> = None;
    for line in text.lines() {
        let verdict = read(line);
        if verdict.is_some() {
            failed.take().into_iter().for_each(|failure| suite.fail(failure));
        }
        match verdict {
            Some(Verdict::Plan(count)) => planned = Some(count),
            Some(Verdict::Passed) => suite.passed += 1,
            Some(Verdict::Skipped(reason)) => suite.skip(reason),
            Some(Verdict::Failed(case)) => {
                let expected = "a pass".to_owned();
                failed = Some(Failure { case: case.to_owned(), expected, ..Failure::default() });
            }
            None => {
                if let Some(failure) = &mut failed {
                    failure.got = format!("{} {}", failure.got, line.trim()).trim().to_owned();
                }
            }
        }
        seen += u64::from(!matches!(verdict, None | Some(Verdict::Plan(_))));
    }
    failed.into_iter().for_each(|failure| suite.fail(failure));
    if let Some(planned) = planned {
        suite.check("the plan", format!("{planned} cases"), format!("{seen} cases"));
    }
}

/// Compares `got` with `expected`, line by line.
pub fn compare(what: &str, expected: &str, got: &str, suite: &mut Suite) {
    let (mut wanted, mut have) = (expected.lines(), got.lines());
    for number in 1.. {
        let (expected, got) = (wanted.next(), have.next());
        if expected.is_none() && got.is_none() {
            return;
        }
        let text = |line: Option<&str>| line.map_or("nothing", str::trim_end).to_owned();
        suite.check(&format!("{what}, line {number}"), text(expected), text(got));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Suite {
        let mut suite = Suite::new("test", "test");
        judge(text, &mut suite);
        suite
    }

    #[test]
    fn tap() {
        let suite = judged("1..4\nok 1 - one\nnot ok 2 - two\n# got 3\nok 3 # SKIP no FPU\nok 4\n");
        assert_eq!((suite.passed, suite.failed, suite.skipped()), (3, 1, 1), "with the plan");
        assert_eq!(suite.failures[0].case, "two");
        assert_eq!(suite.failures[0].got, "# got 3");
        assert_eq!(suite.skipped.get("no FPU"), Some(&1));
    }

    #[test]
    fn a_plan_that_is_not_kept_fails() {
        let suite = judged("1..3\nok 1\n");
        assert_eq!((suite.passed, suite.failed), (1, 1));
    }

    #[test]
    fn words() {
        let suite = judged("noise\r\nPASS: a\r\nSKIP: c\r\nFAIL: b\r\nPASSED\r\n");
        assert_eq!((suite.passed, suite.failed, suite.skipped()), (1, 1, 1));
        assert_eq!(suite.failures[0].got, "PASSED");
    }

    #[test]
    fn references_are_compared_by_line_and_length() {
        let mut suite = Suite::new("test", "test");
        compare("text", "a\nb\nc\n", "a\r\nx \n", &mut suite);
        assert_eq!((suite.passed, suite.failed), (1, 2));
        assert_eq!(suite.failures[1].got, "nothing");
        assert_eq!(suite.failures[0].case, "text, line 2");
    }
}
