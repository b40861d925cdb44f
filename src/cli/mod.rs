//! The command line: one file for each subcommand (its options as typed, and its run), the exit policy, the signals.
//!
//! A subcommand turns its `Args` into `options` of the library. Only this folder prints or ends the process. Must not
//! know formats: it calls the library and prints what it returns.

mod advise;
mod check;
mod clean;
mod cluster_args;
mod compare;
mod completions;
mod convert;
mod epilog;
mod exit;
mod export;
mod include_exclude;
mod inspect;
mod lookup;
#[cfg(feature = "online")]
mod online;
mod output_format;
mod progress;
#[cfg(test)]
mod reference;
pub(crate) mod signals;
mod source_args;
mod stdout;
mod terminal;
mod verify;

use std::process::ExitCode;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use terminal::{ColorWhen, RUN};

/// The whole command line, as typed.
#[derive(Debug, Parser)]
#[command(name = "etcdlift", version, about, long_about = LONG_ABOUT, after_long_help = epilog::ETCDLIFT.help())]
#[command(arg_required_else_help = true, max_term_width = 100, disable_help_flag = true, disable_version_flag = true)]
struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    command: Command,

    /// Print only errors and the result
    ///
    /// `convert`, `compare`, `check`, `advise`, `clean`, `export` and `verify` print one line with the result. The output of other commands
    /// does not change. Neither does the exit status.
    #[arg(short, long, global = true, env = "ETCDLIFT_QUIET", hide_env_values = true, help_heading = RUN)]
    #[arg(value_parser = FalseyValueParser::new())]
    quiet: bool,

    /// Use colours in help and messages
    #[arg(long, global = true, env = terminal::COLOR_VARIABLE, hide_env_values = true, help_heading = RUN)]
    #[arg(value_enum, value_name = "WHEN", default_value_t)]
    color: ColorWhen,

    /// Print help; `-h` prints a summary, `--help` prints all
    #[arg(short, long, global = true, action = ArgAction::Help, help_heading = RUN)]
    help: Option<bool>,

    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = RUN)]
    version: Option<bool>,
}

const LONG_ABOUT: &str = "Offline converter of etcd v2 data into verified etcd v3 snapshots.

etcdlift reads a .snap file, a copied data directory, a write-ahead log, or a backup of `etcdctl backup`. It writes a \
database that etcd 3.4 to 3.7 open. It runs no etcd and never writes to the source.";

/// The subcommands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Convert v2 data into a v3 snapshot or database
    Convert(Box<convert::Args>),
    /// Show what a .snap file, a data directory, a v3 database or a snapshot contains
    Inspect(inspect::Args),
    /// Check whether the members of a cluster have converged, and which one to convert
    Compare(compare::Args),
    /// Check whether etcd 3.6 or 3.7 would start on a data directory, or which v2 content prevents it
    Check(check::Args),
    /// List what v2 data relies on that v3 does not have, and what to do instead
    Advise(advise::Args),
    /// Copy data directories without the v2 content that stops etcd 3.6 or 3.7
    Clean(clean::Args),
    /// Check a v3 database or snapshot, alone or against its report and its source
    Verify(verify::Args),
    /// Write the keys of a v2 source or a v3 database to a file for other programs
    Export(export::Args),
    /// Find the v3 revision of a v2 index in an index map, or the reverse
    Lookup(lookup::Args),
    /// Migrate while etcd and its clients run
    #[cfg(feature = "online")]
    Online(Box<online::Args>),
    /// Print the completion script of a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page of etcdlift, or of one of its commands
    Man(completions::ManArgs),
}

/// Parses the command line of this process, and runs the command. Returns the status to exit with.
pub fn main() -> ExitCode {
    exit::quiet_panics();
    terminal::choose_color(&std::env::args_os().collect::<Vec<_>>());
    let status = match Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            exit::fail_usage(&error);
            // The exit code of help and version is 0.
            u8::try_from(error.exit_code()).unwrap_or(2)
        }
    };
    ExitCode::from(status)
}

impl Cli {
    /// Runs the command and tells the status to exit with. Errors are printed by then.
    fn run(self) -> u8 {
        let result = exit::guard(|| match self.command {
            Command::Convert(args) => convert::run(&args, self.quiet),
            Command::Inspect(args) => inspect::run(&args).map(|()| 0),
            Command::Compare(args) => compare::run(&args, self.quiet),
            Command::Check(args) => check::run(&args, self.quiet),
            Command::Advise(args) => advise::run(&args, self.quiet).map(|()| 0),
            Command::Clean(args) => clean::run(&args, self.quiet),
            Command::Verify(args) => verify::run(&args, self.quiet),
            Command::Export(args) => export::run(&args, self.quiet),
            Command::Lookup(args) => lookup::run(&args),
            #[cfg(feature = "online")]
            Command::Online(args) => online::run(&args, self.quiet),
            Command::Completions(args) => completions::completions(&args, Cli::command()).map(|()| 0),
            Command::Man(args) => completions::man(&args, Cli::command()).map(|()| 0),
        });
        result.unwrap_or_else(|error| exit::fail(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_a_terminal() {
        for name in [
            "convert",
            "inspect",
            "compare",
            "check",
            "advise",
            "clean",
            "verify",
            "export",
            "lookup",
            "completions",
            "man",
        ] {
            let mut root = Cli::command().term_width(80);
            root.build();
            let help = root.find_subcommand_mut(name).unwrap().render_help().to_string();
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        }
    }
}
