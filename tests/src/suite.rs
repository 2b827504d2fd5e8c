//! Tests that may find, when they run, that what they need is not there.

use anyhow::Result;
use libtest_mimic::{Completion, Trial};

/// The error of a test that cannot run here; the text says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skip(pub String);

/// A named test. [`Skip`] makes it "ignored" with its reason; any other error fails it.
pub fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast::<Skip>() {
            Ok(skip) => Ok(Completion::ignored_with(skip)),
            Err(error) => Err(format!("{error:#}").into()),
        },
    })
}

/// Runs a suite as `cargo test` expects it of a test binary.
pub fn run(trials: Vec<Trial>) -> ! {
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials).exit()
}
