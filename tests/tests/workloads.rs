//! The benchmark's workloads compute in Debian's guests what they compute on this host.

use brolga_tests::bench::suite::compare;
use brolga_tests::guests::{AMD64, I686};
use brolga_tests::suite::{self, trial};

fn main() {
    let trials = [AMD64, I686].map(|flavour| {
        trial(format!("{}::agrees_with_the_host", flavour.name), move || compare(flavour, "interp"))
    });
    suite::run(trials.into())
}
