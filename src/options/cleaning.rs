//! The options of `clean`, as plain values.
//!
//! Must not know how an option was typed.

use std::path::PathBuf;

use super::{UpgradeTarget, WalDir};

/// Options of a copy without v2 content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanOptions {
    /// Data directories of members of one cluster, each with its log and its v3 backend.
    pub sources: Vec<PathBuf>,
    /// The directories of the write-ahead logs, if they are not in the sources; in the same order.
    pub wal_dirs: Vec<WalDir>,
    /// The directory to write: that of the member, or one with a directory for each member.
    pub output: PathBuf,
    /// The etcd minor version that will start on the output.
    pub target: UpgradeTarget,
    /// The file for the report.
    pub report: Option<PathBuf>,
    /// Give the output the owner and group of the sources.
    pub preserve_owner: bool,
}

impl CleanOptions {
    /// Copies data directories, with the defaults of the command line.
    pub fn new(sources: impl IntoIterator<Item = impl Into<PathBuf>>, output: impl Into<PathBuf>) -> CleanOptions {
        CleanOptions {
            sources: sources.into_iter().map(Into::into).collect(),
            wal_dirs: Vec::new(),
            output: output.into(),
            target: UpgradeTarget::default(),
            report: None,
            preserve_owner: false,
        }
    }
}
