//! A file of captured vectors as a suite.

use anyhow::Result;

use super::moo::classes::{CLASSES, Class};
use super::moo::run::{Bench, Outcome, explain};
use super::moo::{Case, File, Processor};
use super::{Failure, Settings, Suite};

/// Runs a file's cases but those whose hash is in `revoked`, a list of hashes in hexadecimal.
/// Where [`CLASSES`] say why a later processor differs, the case is left out.
pub fn run(name: &str, file: &File, revoked: &str, settings: &Settings) -> Result<Suite> {
    let mut suite = Suite::new(name, "vectors");
    let mut bench = Bench::new(settings, file.processor)?;
    for case in &file.cases {
        if revoked.contains(&hex(&case.hash)) {
            suite.skip("revoked by the authors of the vectors");
        } else if let Some(reason) = bench.refusal(case) {
            suite.skip(reason);
        } else {
            judge(case, &bench.run(case)?, file.processor, &mut suite);
        }
    }
    if let Some(at) = bench.stray_write() {
        suite.fail(Failure {
            case: "memory after all cases".into(),
            expected: "only what cases name has changed".into(),
            got: format!("something was written to {at:05x}"),
            ..Failure::default()
        });
    }
    Ok(suite)
}

fn judge(case: &Case, outcome: &Outcome, processor: Processor, suite: &mut Suite) {
    let fits = |class: &&Class| processor <= class.last && (class.explains)(case, outcome);
    if outcome.differences.is_empty() {
        suite.passed += 1;
    } else if let Some(class) = CLASSES.iter().find(fits) {
        suite.skip(format!("{}: {}", class.name, class.reason));
    } else {
        suite.fail(explain(case, outcome));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
