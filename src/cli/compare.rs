//! `etcdlift compare`: its options as typed, and its run.
//!
//! Prints what the library found. Must not know how members are compared.

use std::path::PathBuf;

use super::signals::Signals;
use super::source_args::wal_dirs;
use super::stdout::{print, print_text};
use super::{epilog, exit};
use crate::cli::output_format::Form;
use crate::display::printable;
use crate::error::Result;
use crate::options::CompareOptions;
use crate::output::report_file;
use crate::pipeline;
use crate::report::comparison_text;

const SOURCE: &str = "Source";

/// Options of `compare`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::COMPARE.help())]
pub(super) struct Args {
    /// Data directories of members of one cluster, each with its log
    ///
    /// etcdlift opens them read-only and never changes them. A damaged directory does not prevent the comparison of the
    /// others.
    #[arg(required = true, num_args = 2.., value_name = "SOURCE")]
    sources: Vec<PathBuf>,

    /// Directory of the write-ahead log; give it once for each SOURCE, in the same order
    ///
    /// Use this option if the logs are not in the sources.
    #[arg(long, value_name = "DIR", help_heading = SOURCE)]
    wal_dir: Vec<PathBuf>,

    /// Read the files of running etcds, each as a consistent prefix of its log
    ///
    /// The members are read one after the other. While clients write, a member can seem to be behind.
    #[arg(long, help_heading = SOURCE)]
    allow_live: bool,

    #[command(flatten)]
    form: Form,
}

/// Compares members, prints the result, and returns the exit status.
///
/// # Errors
/// Those of the library, and of writing to standard output.
pub(super) fn run(args: &Args, quiet: bool) -> Result<u8> {
    let mut options = CompareOptions::new(args.sources.clone());
    options.wal_dirs = wal_dirs(&args.wal_dir, args.sources.len())?;
    options.allow_live = args.allow_live;
    let signals = Signals::install()?;
    let found = pipeline::compare(&options, &|| signals.check())?;
    if args.form.is_json() {
        print(&report_file::to_json(&found)?)?;
    } else if quiet {
        print_text(&comparison_text::result(&found))?;
    } else {
        print_text(&comparison_text::comparison(&found))?;
    }
    if let Some(first) = found.reasons.first().filter(|_| found.exit_status != 0) {
        let more = match found.reasons.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        exit::say(&format!("etcdlift: error: {}{more}\n", printable(first)));
    }
    Ok(found.exit_status)
}
