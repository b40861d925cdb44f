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
    /// The NDJSON file for the v2 keys.
    pub save_v2: Option<PathBuf>,
    /// The file for the list of removed nodes and replaced requests.
    pub ledger: Option<PathBuf>,
    /// Refuse v2 keys that v3 does not have with the same value, and v2 users and roles that v3 does not have.
    pub require_migrated: bool,
    /// Return the commands that put the output in the place of the sources.
    pub in_place_plan: bool,
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
            save_v2: None,
            ledger: None,
            require_migrated: false,
            in_place_plan: false,
            preserve_owner: false,
        }
    }
}
