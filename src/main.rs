//! The etcdlift command: parse, run, exit.

use std::process::ExitCode;

use clap::Parser;
use etcdlift::cli::{Cli, exit};

fn main() -> ExitCode {
    exit::quiet_panics();
    let status = match Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            // Help and version are no errors to clap's exit code; a closed terminal is nobody to complain to.
            let _ = error.print();
            u8::try_from(error.exit_code()).unwrap_or(2)
        }
    };
    ExitCode::from(status)
}
