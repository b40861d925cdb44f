//! The program `etcdlift`: sets the colours and the message of a panic, parses the command line, runs it, and exits.
//!
//! Wrong usage ends with status 2, which clap prints itself. Must not know a subcommand: [`Cli::run`] calls it.

use std::process::ExitCode;

use clap::Parser;
use etcdlift::cli::{Cli, exit, terminal};

fn main() -> ExitCode {
    exit::quiet_panics();
    terminal::choose_color(&std::env::args_os().collect::<Vec<_>>());
    let status = match Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            // clap's exit code of help and version is 0. A closed terminal is no error.
            let _ = error.print();
            u8::try_from(error.exit_code()).unwrap_or(2)
        }
    };
    ExitCode::from(status)
}
