//! Random instructions on this machine's processor and on the interpreter.

fn main() {}
