//! The program `etcdlift`: its exit status is what the command line of the library returns.
//!
//! Colours, options, messages and signals are in `cli`. Must not know a subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    etcdlift::cli::main()
}
