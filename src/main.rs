//! The etcdlift command: parse, run, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    etcdlift::cli::main()
}
