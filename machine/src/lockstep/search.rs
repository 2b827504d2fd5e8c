//! The search for the first difference.

use super::pair::Pair;
use super::{Builder, Report};
use crate::machine::BuildError;

/// Into how many steps a part of the run is divided.
const FAN: u64 = 1000;

/// Finds the first instruction after `agreed` that makes a difference; the difference was seen
/// in `seen`, which was run there in steps of `every`.
pub(super) fn first_difference(
    build: &Builder<'_>,
    every: u64,
    agreed: u64,
    seen: &Pair,
) -> Result<Report, BuildError> {
    let (mut good, mut bad) = (agreed, seen.at());
    // To compare these is cheap, and nearly always enough.
    let mut pages = seen.differing_pages();
    while bad - good > 1 {
        let step = ((bad - good) / FAN).max(1);
        let mut pair = Pair::at_count(build, every, good)?;
        let Some(at) = first_step(&mut pair, step, bad, &pages) else {
            // Run in these steps, the engines agree: what was seen depends on the steps.
            return show(build, every, good, bad);
        };
        (good, bad) = (at, at + step.min(bad - at));
        if bad - good == 1 {
            // A difference in another page may have come first.
            let earlier = Pair::at_count(build, every, good)?.differing_pages();
            if !earlier.is_empty() {
                pages.extend(earlier);
                (good, bad) = (agreed, good);
            }
        }
    }
    let report = show(build, every, good, bad)?;
    if report.is_empty() { show(build, every, agreed, seen.at()) } else { Ok(report) }
}

/// What happens between two counts, run to and from there in steps of `every`.
fn show(build: &Builder<'_>, every: u64, from: u64, to: u64) -> Result<Report, BuildError> {
    let mut pair = Pair::at_count(build, every, from)?;
    let mut report = Report::begin(&pair);
    while pair.at() < to {
        pair.run_to(pair.at().saturating_add(every).min(to));
    }
    report.finish(&pair);
    Ok(report)
}

/// Runs up to `end` in steps; the count before the first one after which the machines differ.
fn first_step(pair: &mut Pair, step: u64, end: u64, pages: &[u64]) -> Option<u64> {
    while pair.at() < end {
        let at = pair.at();
        pair.run_to((at + step).min(end));
        if !pair.agrees(pages) {
            return Some(at);
        }
    }
    None
}
