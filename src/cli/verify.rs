//! `etcdlift verify`: its options as typed, and its run.
//!
//! Prints what the library found; must not find anything out by itself.

use std::path::PathBuf;

use super::{exit, print, signals::Signals};
use crate::cli::output_format::Form;
use crate::error::{Error, Kind, Reason, Result};
use crate::options::{VerifyOptions, WalDir};
use crate::output::report_file;
use crate::pipeline;
use crate::report::text;

/// Options of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A v3 database or snapshot file, of any etcd
    #[arg(value_name = "OUT")]
    file: PathBuf,

    /// Hold it against the report of the conversion that made it
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Hold it against what this source holds, key by key; several are members of one cluster
    ///
    /// The options of the conversion are taken from the report; without one, they are the defaults. Files with other sha256
    /// than the report's are named first, then the first 20 keys that differ.
    #[arg(long, value_name = "SOURCE")]
    source: Vec<PathBuf>,

    /// Where the write-ahead log is when it lives elsewhere; with several sources once for each, in their order
    #[arg(long, value_name = "DIR|none", requires = "source")]
    wal_dir: Vec<PathBuf>,

    /// The transformer that the conversion ran: it is run again; no program is started because a report names it
    #[arg(long, value_name = "PROG", requires = "source", requires = "report")]
    transformer: Option<PathBuf>,

    #[command(flatten)]
    form: Form,
}

/// Verifies a file, prints what is in it and what is wrong with it, and tells the status to exit with.
///
/// # Errors
/// Those of the library, and of writing to standard output.
pub fn run(args: &Args) -> Result<u8> {
    if !args.wal_dir.is_empty() && args.wal_dir.len() != args.source.len() {
        return Err(Error::new(Reason::Usage, "--wal-dir is given once for each source, in their order"));
    }
    let options = VerifyOptions {
        file: args.file.clone(),
        report: args.report.clone(),
        sources: args.source.clone(),
        transformer: args.transformer.clone(),
        wal_dirs: args.wal_dir.iter().map(|dir| WalDir::from(dir.as_path())).collect(),
    };
    let signals = Signals::install()?;
    let found = pipeline::verify(&options, &|| signals.check())?;
    if args.form.is_json() {
        print(&report_file::to_json(&found)?)?;
    } else {
        print(text::verification(&found).as_bytes())?;
    }
    let Some(first) = found.differences.first() else { return Ok(0) };
    let more = match found.differences.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    exit::say(&format!("etcdlift: error: {first}{more}\n"));
    Ok(Kind::Verify.exit_code())
}
