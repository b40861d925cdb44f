//! `etcdlift inspect`: its options as typed, and its run.
//!
//! Prints what the library found. Must not know how a source is read.

use std::path::PathBuf;

use super::epilog;
use super::signals::Signals;
use super::stdout::{print, print_text};
use crate::cli::output_format::Form;
use crate::error::{Error, Reason, Result};
use crate::options::{EntryFilter, InspectOptions, WalDir, WalOptions};
use crate::output::report_file;
use crate::report::text;
use crate::{display, pipeline};

const SOURCE: &str = "Source";
const LISTS: &str = "Lists";

/// Options of `inspect`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::INSPECT.help())]
pub(super) struct Args {
    /// v2 data as for `convert`, or a v3 database or snapshot file
    ///
    /// etcdlift detects the kind. It opens the source read-only and never changes it.
    source: PathBuf,

    /// Directory of the write-ahead log, or `none` to look at the snapshot alone
    ///
    /// Use this option if the log is not in SOURCE.
    #[arg(long, value_name = "DIR|none", help_heading = SOURCE)]
    wal_dir: Option<PathBuf>,

    /// Read the files of a running etcd, as a consistent prefix of its log
    #[arg(long, help_heading = SOURCE)]
    allow_live: bool,

    /// List every key
    #[arg(long, help_heading = LISTS)]
    keys: bool,

    /// List every log entry and its effect
    ///
    /// With --json, each entry is one line.
    #[arg(long, conflicts_with = "keys", help_heading = LISTS)]
    wal: bool,

    /// With --wal: list only entries of this kind; can be given several times
    #[arg(long, value_enum, value_name = "KIND", requires = "wal", help_heading = LISTS)]
    kind: Vec<EntryFilter>,

    /// With --wal: list only entries from raft index N on
    #[arg(long, value_name = "N", requires = "wal", default_value_t = 0, help_heading = LISTS)]
    from_index: u64,

    /// With --wal: list only entries up to raft index N
    #[arg(long, value_name = "N", requires = "wal", default_value_t = u64::MAX, hide_default_value = true)]
    #[arg(help_heading = LISTS)]
    to_index: u64,

    #[command(flatten)]
    form: Form,
}

/// Looks at a source and prints what is in it.
///
/// # Errors
/// Those of the library, and of writing to standard output.
pub(super) fn run(args: &Args) -> Result<()> {
    let signals = Signals::install()?;
    let json = args.form.is_json();
    if args.wal {
        return list_log(args, json, &signals);
    }
    let options = InspectOptions {
        source: args.source.clone(),
        wal_dir: args.wal_dir.as_deref().map(WalDir::from),
        keys: args.keys,
        allow_live: args.allow_live,
    };
    let found = pipeline::inspect(&options, &|| signals.check())?;
    if json { print(&report_file::to_json(&found)?) } else { print_text(&text::inspection(&found)) }
}

/// Prints entries as they come: a log may be longer than what fits in memory as text.
fn list_log(args: &Args, json: bool, signals: &Signals) -> Result<()> {
    let options = WalOptions {
        source: args.source.clone(),
        wal_dir: args.wal_dir.as_deref().map(WalDir::from),
        kinds: args.kind.clone(),
        from_index: args.from_index,
        to_index: args.to_index,
        allow_live: args.allow_live,
    };
    let mut pending = Vec::new();
    let shown = pipeline::inspect_wal(&options, &|| signals.check(), &mut |line| {
        if json {
            display::write_json(&mut pending, line)
                .map_err(|e| Error::new(Reason::Internal, format!("cannot write JSON: {e}")))?;
        } else {
            pending.extend_from_slice(text::entry(line).as_bytes());
        }
        pending.push(b'\n');
        if pending.len() >= FLUSH_BYTES { print(&std::mem::take(&mut pending)) } else { Ok(()) }
    });
    // What could be read comes before the damage that ended it.
    print(&pending)?;
    shown
}

/// Bytes of text gathered before they are printed.
const FLUSH_BYTES: usize = 1 << 16;
