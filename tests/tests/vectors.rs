//! Vectors captured from real processors, on the interpreter.

use brolga_tests::{moo::suite, suite as harness};

fn main() {
    harness::run(vec![harness::trial("captured_80286", || {
        suite::run(&suite::directory("80286")?)
    })]);
}
