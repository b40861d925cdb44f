//! `etcdlift inspect`: its options as typed, and its run.
//!
//! Prints what the library found; must not find anything out by itself.

use std::path::PathBuf;

use super::{print, signals::Signals};
use crate::cli::output_format::Form;
use crate::display;
use crate::error::{Error, Reason, Result};
use crate::options::{EntryFilter, InspectOptions, WalDir, WalOptions};
use crate::output::report_file;
use crate::pipeline;
use crate::report::text;

/// Options of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A .snap file, a data directory, its member folder, a backup, WAL segments, or a v3 database or snapshot file
    source: PathBuf,

    /// Where the write-ahead log is when it lives elsewhere; `none` to look at the snapshot alone
    #[arg(long, value_name = "DIR|none")]
    wal_dir: Option<PathBuf>,

    /// List every key
    #[arg(long)]
    keys: bool,

    /// List the log entry by entry, with what each did; JSON has one line for each
    #[arg(long, conflicts_with = "keys")]
    wal: bool,

    /// With --wal: only entries of this kind (may be given several times)
    #[arg(long, value_enum, value_name = "KIND", requires = "wal")]
    kind: Vec<EntryFilter>,

    /// With --wal: only entries from raft index N on
    #[arg(long, value_name = "N", requires = "wal", default_value_t = 0)]
    from_index: u64,

    /// With --wal: only entries up to raft index N
    #[arg(long, value_name = "N", requires = "wal", default_value_t = u64::MAX, hide_default_value = true)]
    to_index: u64,

    /// Look at a directory that etcd is running on, as a consistent prefix of its log
    #[arg(long)]
    allow_live: bool,

    #[command(flatten)]
    form: Form,
}

/// Looks at a source and prints what is in it.
///
/// # Errors
/// Those of the library, and of writing to standard output.
pub fn run(args: &Args) -> Result<()> {
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
    if json { print(&report_file::to_json(&found)?) } else { print(text::inspection(&found).as_bytes()) }
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
