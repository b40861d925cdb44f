//! `etcdlift clean`: its options as typed, and its run.
//!
//! Prints what the library made. Must not know what v2 content is.

use std::path::PathBuf;

use super::output_format::Form;
use super::signals::Signals;
use super::source_args::wal_dirs;
use super::stdout::{print, print_text};
use super::terminal::RUN;
use super::{epilog, exit};
use crate::error::{Error, Result};
use crate::options::{CleanOptions, UpgradeTarget};
use crate::output::report_file;
use crate::pipeline;
use crate::report::cleaning;

const SOURCE: &str = "Source";
const OUTPUT: &str = "Output";

/// Options of `clean`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::CLEAN.help())]
pub(super) struct Args {
    /// Data directories of members of one cluster, each with its log and its v3 backend
    ///
    /// etcdlift opens them read-only and never changes them. Members can be cleaned in one run or one by one.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,

    /// Directory to write; with several sources, OUT/NAME for each member
    ///
    /// OUT must not exist, or be an empty directory. It appears when it is complete and checked, or not at all.
    #[arg(short, long, value_name = "OUT", help_heading = OUTPUT)]
    output: PathBuf,

    /// etcd minor version that will start on the output
    ///
    /// For 3.7, requests that describe the members are removed too.
    #[arg(long, value_enum, value_name = "VERSION", default_value_t, help_heading = RUN)]
    target_version: UpgradeTarget,

    /// Directory of the write-ahead log; give it once for each SOURCE, in the same order
    ///
    /// Use this option if the logs are not in the sources. The new log is in the output.
    #[arg(long, value_name = "DIR", help_heading = SOURCE)]
    wal_dir: Vec<PathBuf>,

    /// Write the result as JSON to FILE
    ///
    /// FILE must not exist. A run that fails writes its error there.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    report: Option<PathBuf>,

    /// Write the v2 keys to FILE as lines of JSON, as `export` does
    ///
    /// FILE must not exist. It contains values, so only its owner may read it. Without v2 keys it is not written.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    save_v2: Option<PathBuf>,

    /// Write one line of JSON to FILE for each removed node and each replaced request
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    ledger: Option<PathBuf>,

    /// Refuse to run if a v2 key, user or role is missing in v3, or a key has another value there
    ///
    /// The error names the first of these. The v3 key has the same path as the v2 key. Of users and roles, only the
    /// names are compared.
    #[arg(long, help_heading = RUN)]
    require_migrated: bool,

    /// Print the commands that put the output in the place of the sources
    ///
    /// They stop etcd, move the source aside, move the output in, and start etcd. etcdlift runs none of them.
    #[arg(long, help_heading = OUTPUT)]
    in_place_plan: bool,

    /// Give the output the owner and group of the sources
    #[arg(long, help_heading = OUTPUT)]
    preserve_owner: bool,

    #[command(flatten)]
    form: Form,
}

/// Copies, prints the summary, and returns the exit status.
///
/// # Errors
/// Those of the library, and of writing to standard output.
pub(super) fn run(args: &Args, quiet: bool) -> Result<u8> {
    let mut options = CleanOptions::new(args.sources.clone(), &args.output);
    options.wal_dirs = wal_dirs(&args.wal_dir, args.sources.len())?;
    options.target = args.target_version;
    options.report.clone_from(&args.report);
    options.save_v2.clone_from(&args.save_v2);
    options.ledger.clone_from(&args.ledger);
    options.require_migrated = args.require_migrated;
    options.in_place_plan = args.in_place_plan;
    options.preserve_owner = args.preserve_owner;
    let signals = Signals::install()?;
    let unwritten = &mut |error: &Error| exit::say_line(&format!("{error}: this run's report is not written"));
    let made = pipeline::clean(&options, &|| signals.check(), unwritten)?;
    if args.form.is_json() {
        print(&report_file::to_json(&made)?)?;
    } else if quiet {
        print_text(&cleaning::result(&made))?;
    } else {
        print_text(&cleaning::text(&made))?;
    }
    Ok(made.exit_status)
}
