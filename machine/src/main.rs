//! The `brolga` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    brolga_machine::cli::main()
}
