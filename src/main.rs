//! The program `etcdlift`: sets the colours and the message of a panic, parses the command line, runs it, and exits.
//!
//! Wrong usage ends with status 2, which clap prints itself. Must not know a subcommand: [`Cli::run`] calls it.

use std::process::ExitCode;

fn main() -> ExitCode {
    etcdlift::cli::main()
}
