//! The command line: one file per subcommand (its options as typed, and its run), the exit policy, the signals.
//!
//! Options are typed into the `Args` of a subcommand and resolved into the library's `options`; nothing below this folder
//! knows clap's types, prints, or ends the process.

pub mod completions;
pub mod convert;
pub mod exit;
pub mod export;
pub mod include_exclude;
pub mod inspect;
pub mod lookup;
pub mod output_format;
pub mod progress;
pub mod reporter;
pub mod signals;
pub mod verify;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use clap::{Parser, Subcommand};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Reason, Result};

/// The whole command line, as typed.
#[derive(Debug, Parser)]
#[command(name = "etcdlift", version, about, long_about = LONG_ABOUT, after_long_help = EXIT_STATUS)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const LONG_ABOUT: &str = "Offline converter of etcd v2 data into verified etcd v3 snapshots.

Reads a .snap file, a copied data directory, a write-ahead log alone, or a backup made by `etcdctl backup`, and writes a \
database that etcd 3.4 to 3.7 opens. No etcd runs, and the source is never written.";

const EXIT_STATUS: &str = "Exit status:
  0    done, verified
  1    a fault of etcdlift's own
  2    the command line is wrong
  3    the source is damaged or cannot be read to its end
  4    nothing to convert, or nothing found by `lookup`
  5    refused: a file is missing or may not be read, a precondition or a policy says no
  6    the output or its report could not be written; nothing is left behind
  7    verification failed, or `verify` found a difference
  8    done and verified, but perhaps not all that the cluster held
  130  interrupted (143: terminated, 129: hung up); nothing is left behind";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Convert v2 data into a v3 snapshot or database
    Convert(Box<convert::Args>),
    /// Show what is in a .snap file, a data directory, a v3 database or snapshot
    Inspect(inspect::Args),
    /// Check a v3 database or snapshot, alone or against the report and the source it was made from
    Verify(verify::Args),
    /// Write the keys of a v2 source, or of a v3 database, as a file for other programs
    Export(export::Args),
    /// Ask an index map: which v3 revision has what v2 had at an index, and the other way round
    Lookup(lookup::Args),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page of etcdlift, or of one of its commands
    Man(completions::ManArgs),
}

impl Cli {
    /// Runs the command and tells the status to exit with. Errors are printed by then.
    pub fn run(self) -> u8 {
        let result = exit::guard(|| match self.command {
            Command::Convert(args) => convert::run(&args),
            Command::Inspect(args) => inspect::run(&args).map(|()| 0),
            Command::Verify(args) => verify::run(&args),
            Command::Export(args) => export::run(&args),
            Command::Lookup(args) => lookup::run(&args),
            Command::Completions(args) => completions::completions(&args).map(|()| 0),
            Command::Man(args) => completions::man(&args).map(|()| 0),
        });
        result.unwrap_or_else(|error| exit::fail(&error))
    }
}

/// Bytes that a pipe takes without waiting, once it says that it takes some (`PIPE_BUF`).
const PIECE: usize = 4096;

/// Milliseconds between two questions while nobody reads standard output.
const ASK_EVERY: u16 = 100;

/// Writes to standard output. A reader that has seen enough is no error, and one that does not read can be interrupted.
///
/// # Errors
/// Standard output cannot be written; an interruption.
fn print(mut bytes: &[u8]) -> Result<()> {
    let out = io::stdout();
    while !bytes.is_empty() {
        signals::check()?;
        let mut waiting = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
        let ready = poll(&mut waiting, PollTimeout::from(ASK_EVERY));
        if ready == Ok(0) {
            continue;
        }
        let piece = bytes.get(..PIECE).unwrap_or(bytes);
        match ready.and_then(|_| nix::unistd::write(&out, piece)) {
            Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(Errno::EPIPE) => break,
            Err(e) => return Err(Error::io(Reason::OutputFailed, Path::new("standard output"), "write", e.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_a_terminal() {
        for name in ["convert", "inspect", "verify", "export", "lookup", "completions", "man"] {
            let mut root = Cli::command().term_width(80);
            root.build();
            let help = root.find_subcommand_mut(name).unwrap().render_help().to_string();
            assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        }
    }
}
