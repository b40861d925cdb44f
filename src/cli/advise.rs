//! `etcdlift advise`: its options as typed, and its run.
//!
//! Prints what the library found. Must not know what differs between v2 and v3.

use std::path::PathBuf;

use super::convert::parse_map;
use super::epilog;
use super::signals::Signals;
use super::source_args::wal_dirs;
use super::stdout::{print, print_text};
use crate::cli::output_format::Form;
use crate::error::Result;
use crate::options::rules::Rename;
use crate::options::{AdviseOptions, Rules};
use crate::output::report_file;
use crate::pipeline;
use crate::report::advice_text;

const SOURCE: &str = "Source";
const NAMES: &str = "Names";

/// Options of `advise`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::ADVISE.help())]
pub(super) struct Args {
    /// v2 data as for `convert`; several sources are members of one cluster
    ///
    /// etcdlift opens them read-only and never changes them.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,

    /// Directory of the write-ahead log, or `none` to look at the snapshot alone
    ///
    /// Use this option if the log is not in SOURCE. With several sources, give it once for each, in the same order.
    #[arg(long, value_name = "DIR|none", help_heading = SOURCE)]
    wal_dir: Vec<PathBuf>,

    /// Read the files of a running etcd, as a consistent prefix of its log
    #[arg(long, help_heading = SOURCE)]
    allow_live: bool,

    /// Judge the names of keys with this --map of `convert`
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_map, help_heading = NAMES)]
    map: Vec<Rename>,

    /// Judge the names of keys with --strip-leading-slash of `convert`
    #[arg(long, help_heading = NAMES)]
    strip_leading_slash: bool,

    /// Maximum number of examples of each finding
    #[arg(long, value_name = "N", default_value_t = AdviseOptions::EXAMPLES, help_heading = "Output")]
    examples: usize,

    #[command(flatten)]
    form: Form,
}

/// Reads the sources, and prints the advice.
///
/// # Errors
/// Those of the library, and of writing to standard output.
pub(super) fn run(args: &Args, quiet: bool) -> Result<()> {
    let mut options = AdviseOptions::new(args.sources.clone());
    options.wal_dirs = wal_dirs(&args.wal_dir, args.sources.len())?;
    options.allow_live = args.allow_live;
    options.examples = args.examples;
    options.rules =
        Rules { rename: args.map.clone(), strip_leading_slash: args.strip_leading_slash, ..Rules::default() };
    let signals = Signals::install()?;
    let found = pipeline::advise(&options, &|| signals.check())?;
    if args.form.is_json() {
        print(&report_file::to_json(&found)?)
    } else if quiet {
        print_text(&advice_text::result(&found))
    } else {
        print_text(&advice_text::advice(&found))
    }
}
