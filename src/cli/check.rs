//! `etcdlift check`: its options as typed, and its run.
//!
//! Prints what the library found. Must not know what stops an etcd version.

use std::path::PathBuf;

use super::signals::Signals;
use super::source_args::wal_dirs;
use super::stdout::{print, print_text};
use super::terminal::RUN;
use super::{epilog, exit};
use crate::cli::output_format::Form;
use crate::display::printable;
use crate::error::Result;
use crate::options::{CheckOptions, UpgradeTarget};
use crate::output::report_file;
use crate::pipeline;
use crate::report::upgrade_check_text;

const SOURCE: &str = "Source";

/// Options of `check`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::CHECK.help())]
pub(super) struct Args {
    /// Data directories of members, each with its log and its v3 backend
    ///
    /// Each is judged by itself. etcdlift opens them read-only and never changes them.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,

    /// etcd minor version that will start on the sources
    #[arg(long, value_enum, value_name = "VERSION", default_value_t, help_heading = RUN)]
    target_version: UpgradeTarget,

    /// Directory of the write-ahead log; give it once for each SOURCE, in the same order
    ///
    /// Use this option if the logs are not in the sources.
    #[arg(long, value_name = "DIR", help_heading = SOURCE)]
    wal_dir: Vec<PathBuf>,

    /// Read the files of running etcds, each as a consistent prefix of its log
    ///
    /// What an etcd writes after that is not checked.
    #[arg(long, help_heading = SOURCE)]
    allow_live: bool,

    #[command(flatten)]
    form: Form,
}

/// Checks the sources, prints the result, and returns the exit status.
///
/// # Errors
/// Those of the library, and of writing to standard output.
pub(super) fn run(args: &Args, quiet: bool) -> Result<u8> {
    let mut options = CheckOptions::new(args.sources.clone()).target(args.target_version);
    options.wal_dirs = wal_dirs(&args.wal_dir, args.sources.len())?;
    options.allow_live = args.allow_live;
    let signals = Signals::install()?;
    let found = pipeline::check(&options, &|| signals.check())?;
    if args.form.is_json() {
        print(&report_file::to_json(&found)?)?;
    } else if quiet {
        print_text(&upgrade_check_text::result(&found))?;
    } else {
        print_text(&upgrade_check_text::check(&found))?;
    }
    for reason in upgrade_check_text::reasons(&found) {
        exit::say(&format!("etcdlift: error: {}\n", printable(&reason)));
    }
    Ok(found.exit_status)
}
