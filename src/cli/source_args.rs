//! The options that say how to read a v2 source: shared by `convert` and `export`.
//!
//! Turns what was typed into values of the library. Must not know how a source is read.

use std::path::PathBuf;

use super::exit::usage;
use crate::error::Result;
use crate::options::{InOrderNames, SourceVersion, TailPolicy, WalDir};

/// The heading of these options in the help.
const HEADING: &str = "Source";

/// How to read the sources, as typed.
#[derive(Debug, clap::Args)]
pub(super) struct SourceArgs {
    /// Directory of the write-ahead log, or `none` to use the newest snapshot alone
    ///
    /// Use this option if the log is not in SOURCE. With several sources, give it once for each, in the same order. A
    /// directory with .snap files and without a log needs this option, because the snapshot alone may be old.
    #[arg(long, value_name = "DIR|none", help_heading = HEADING)]
    wal_dir: Vec<PathBuf>,

    /// What to do with log entries after the commit index
    ///
    /// The cluster may or may not have acknowledged these entries. If v2 writes are left out, the exit status is 8 and
    /// each write is listed.
    #[arg(long, value_enum, value_name = "POLICY", default_value_t, help_heading = HEADING)]
    pub(super) tail: TailPolicy,

    /// Stop the replay at raft index N
    ///
    /// The output contains the state at that point in time.
    #[arg(long, value_name = "N", help_heading = HEADING)]
    pub(super) up_to_index: Option<u64>,

    /// Version of etcd that started last on SOURCE: X.Y or X.Y.Z, 2.0 to 3.5
    ///
    /// The version decides the rules of the replay, because a server replays its whole log by its own rules when it
    /// starts. X.Y means the newest patch release. Without this option, the source shows which versions are possible.
    /// The report and `inspect` name each proof.
    #[arg(long, value_name = "VERSION", help_heading = HEADING)]
    pub(super) source_version: Option<SourceVersion>,

    /// Deprecated, use --source-version: how the last server wrote names of in-order keys
    ///
    /// In-order keys are those that a POST created.
    #[arg(long, value_enum, value_name = "FORM", default_value_t, help_heading = HEADING)]
    pub(super) in_order_names: InOrderNames,

    /// Skip damage, list what was lost, and exit with status 8
    ///
    /// etcdlift replays from undamaged snapshots (.snap.broken files too) and from the first entry of the log. Each
    /// replay ends at the next damage and never crosses a gap. The output has the state with the highest raft index.
    /// The summary lists up to 32 replays with raft index and number of keys.
    #[arg(long, help_heading = HEADING)]
    pub(super) salvage: bool,

    /// Accept a removed member and use its last known state
    #[arg(long, help_heading = HEADING)]
    pub(super) allow_removed: bool,

    /// Read the files of a running etcd, as a consistent prefix of its writes
    ///
    /// The output contains every write up to one raft index, and none after it. The summary names the index. For a v3
    /// database, a revision takes its place. etcdlift copies the files of the source into memory.
    #[arg(long, help_heading = HEADING)]
    pub(super) allow_live: bool,
}

impl SourceArgs {
    /// Returns the log directories for this many sources.
    ///
    /// # Errors
    /// Their number differs from the number of sources.
    pub(super) fn wal_dirs(&self, sources: usize) -> Result<Vec<WalDir>> {
        wal_dirs(&self.wal_dir, sources)
    }
}

/// Returns the log directories of `--wal-dir` for this many sources.
///
/// # Errors
/// Their number differs from the number of sources.
pub(super) fn wal_dirs(dirs: &[PathBuf], sources: usize) -> Result<Vec<WalDir>> {
    if !dirs.is_empty() && dirs.len() != sources {
        let message = format!("--wal-dir is given {} times for {sources} sources", dirs.len());
        let message = message.replace("given 1 times", "given once").replace("for 1 sources", "for 1 source");
        return Err(usage(message).hint("give --wal-dir once for each source, in the same order"));
    }
    Ok(dirs.iter().map(|dir| WalDir::from(dir.as_path())).collect())
}
