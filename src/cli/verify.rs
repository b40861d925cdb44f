//! `etcdlift verify`: its options as typed, and its run.
//!
//! Prints what the library found. Must not know how a file is checked.

use std::path::PathBuf;

use super::signals::Signals;
use super::source_args::wal_dirs;
use super::stdout::{print, print_text};
use super::{epilog, exit};
use crate::cli::output_format::Form;
use crate::display::printable;
use crate::error::{Kind, Result};
use crate::options::VerifyOptions;
use crate::output::report_file;
use crate::pipeline;
use crate::report::text;

const COMPARE: &str = "What to compare with";

/// Options of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::VERIFY.help())]
pub(super) struct Args {
    /// v3 database or snapshot file, of any etcd, or a data directory
    ///
    /// In a data directory, verify also checks that log, snapshot and members agree, so that etcd boots. A directory
    /// that contains the data directories of several members is checked as one cluster.
    #[arg(value_name = "OUT")]
    file: PathBuf,

    /// Compare it with the report of the conversion that wrote it
    #[arg(long, value_name = "FILE", help_heading = COMPARE)]
    report: Option<PathBuf>,

    /// Compare it with this source, key by key; several sources are members of one cluster
    ///
    /// The report supplies the options of the conversion. Without a report, they are the defaults. The result names
    /// files whose sha256 differs from the report, and then the first 20 keys that differ.
    #[arg(long, value_name = "SOURCE", help_heading = COMPARE)]
    source: Vec<PathBuf>,

    /// Directory of the write-ahead log, or `none` to use the newest snapshot alone
    ///
    /// Use this option if the log is not in SOURCE. With several sources, give it once for each, in the same order.
    #[arg(long, value_name = "DIR|none", requires = "source", help_heading = COMPARE)]
    wal_dir: Vec<PathBuf>,

    /// The transformer of the conversion, to run it again
    ///
    /// etcdlift never starts a program because a report names it.
    #[arg(long, value_name = "PROG", requires = "source", requires = "report", help_heading = COMPARE)]
    transformer: Option<PathBuf>,

    #[command(flatten)]
    form: Form,
}

/// Verifies a file, prints its content and its faults, and returns the exit status.
///
/// # Errors
/// Those of the library, and of writing to standard output.
pub(super) fn run(args: &Args, quiet: bool) -> Result<u8> {
    let options = VerifyOptions {
        file: args.file.clone(),
        report: args.report.clone(),
        sources: args.source.clone(),
        transformer: args.transformer.clone(),
        wal_dirs: wal_dirs(&args.wal_dir, args.source.len())?,
    };
    let signals = Signals::install()?;
    let found = pipeline::verify(&options, &|| signals.check())?;
    if args.form.is_json() {
        print(&report_file::to_json(&found)?)?;
    } else {
        print_text(&if quiet { text::verification_result(&found) } else { text::verification(&found) })?;
    }
    let Some(first) = found.differences.first() else { return Ok(0) };
    let more = match found.differences.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    exit::say(&format!("etcdlift: error: {}{more}\n", printable(first)));
    Ok(Kind::Verify.exit_code())
}
