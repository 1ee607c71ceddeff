//! The `kasmina` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    kasmina::cli::main()
}
