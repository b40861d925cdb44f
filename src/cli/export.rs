//! `etcdlift export`: its options as typed, what they resolve to, and its run.
//!
//! Refuses options that do not go together, calls the library, prints. Must not know how anything is read or written.

use std::path::{Path, PathBuf};

use super::convert::usage;
use super::{exit, print, signals::Signals};
use crate::cli::include_exclude::Choices;
use crate::error::Result;
use crate::options::{ExportFormat, ExportOptions, InOrderNames, SourceVersion, TailPolicy, WalDir};
use crate::pipeline;

/// Options of `export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What `convert` takes, for the v2 keys in it; or a v3 database or snapshot file, for the v3 keys in it
    ///
    /// v2: every key and every directory, hidden ones too, with value, indexes and expiration; nothing expires. No users and
    /// no roles. v3: every key that is not deleted, at the current revision.
    #[arg(required = true, value_name = "SOURCE|DB")]
    sources: Vec<PathBuf>,

    /// The file to make, for sled the directory; it must not exist. `-` is standard output, for ndjson
    ///
    /// It appears whole, read back and compared, or not at all. Values stand in it: only its owner may read it.
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,

    /// The form of the output
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    format: ExportFormat,

    /// Where the write-ahead log is when it lives elsewhere; `none` to take the newest snapshot alone
    ///
    /// With several sources once for each, in their order.
    #[arg(long, value_name = "DIR|none")]
    wal_dir: Vec<PathBuf>,

    /// Log entries after the commit index
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    tail: TailPolicy,

    /// Stop the replay at raft index N: the state at that point in time
    #[arg(long, value_name = "N")]
    up_to_index: Option<u64>,

    /// The version of etcd that started last on SOURCE: X.Y or X.Y.Z, 2.0 to 3.5
    ///
    /// It decides the rules of the replay: a server replays its whole log by its own rules when it starts. Without this option
    /// the source itself says which versions are possible; the report and `inspect` name each proof. X.Y is its newest patch.
    #[arg(long, value_name = "VERSION")]
    source_version: Option<SourceVersion>,

    /// Deprecated, see --source-version: how names of in-order keys (POST) were written by the server that last ran
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    in_order_names: InOrderNames,

    /// Go on past damage, to the last sound record before it, and exit 8 with what was lost
    #[arg(long)]
    salvage: bool,

    /// Take what a member last knew that was removed from its cluster
    #[arg(long)]
    allow_removed: bool,

    /// Read a directory or database that etcd is running on, as a consistent prefix
    ///
    /// The export has every write up to one raft index (of a v3 database: up to one revision), which the summary names, and
    /// none after it. The source's files are held in memory.
    #[arg(long)]
    allow_live: bool,

    #[command(flatten)]
    choices: Choices,

    /// Replace OUT if it is a regular file
    #[arg(long)]
    overwrite: bool,
}

/// Exports, says what, and tells the status to exit with.
///
/// # Errors
/// The options do not go together; those of the library, and of writing to standard output.
pub fn run(args: &Args) -> Result<u8> {
    let options = resolve(args)?;
    let signals = Signals::install()?;
    let exported = pipeline::export(&options, &mut |text| print(text), &|| signals.check())?;
    exit::say(&exported.text());
    Ok(if exported.losses.is_empty() { 0 } else { exit::PARTIAL })
}

fn resolve(args: &Args) -> Result<ExportOptions> {
    let output = (args.output != Path::new("-")).then(|| args.output.clone());
    if output.is_none() && args.format != ExportFormat::Ndjson {
        return Err(usage("only --format ndjson can go to standard output"));
    }
    #[cfg(not(feature = "sled"))]
    if args.format == ExportFormat::Sled {
        return Err(usage(pipeline::NO_SLED));
    }
    let wal_dirs: Vec<WalDir> = args.wal_dir.iter().map(|dir| WalDir::from(dir.as_path())).collect();
    if !wal_dirs.is_empty() && wal_dirs.len() != args.sources.len() {
        return Err(usage("--wal-dir is given once for each source, in their order"));
    }
    Ok(ExportOptions {
        sources: args.sources.clone(),
        wal_dirs,
        tail: args.tail,
        up_to_index: args.up_to_index,
        source_version: args.source_version,
        in_order_names: args.in_order_names,
        salvage: args.salvage,
        allow_removed: args.allow_removed,
        allow_live: args.allow_live,
        choose: args.choices.0.clone(),
        output,
        format: args.format,
        overwrite: args.overwrite,
    })
}
