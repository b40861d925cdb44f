//! The result of `verify` for a v3 file, as data.
//!
//! In JSON, the content of the file is at the top level, as in the result of `inspect`. Must not know how it is
//! printed, or how a check works.

use serde::Serialize;

use super::inspection::V3Facts;
use super::model::Notice;
use crate::words::words;

words! {
    /// A check of a v3 file.
    pub enum Check {
        /// The pages and their order.
        Structure = "structure",
        /// What an etcd requires of keys, leases, users and roles.
        Store = "store",
        /// The sha256 of a trailer.
        Sha256 = "sha256",
        /// The numbers of a report.
        Report = "report",
        /// The content of the source.
        Source = "source",
        /// The logs, snapshots and members of data directories.
        Boot = "boot",
    }
}

/// The state of a member in its data directory.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MemberState {
    /// The path of the data directory.
    pub directory: String,
    /// The ID of the member in lower-case hex, as the log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// The ID of the cluster in lower-case hex, as the log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The raft index of the snapshot from which etcd starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_index: Option<u64>,
    /// The consistent index of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_index: Option<u64>,
    /// The commit index of the log.
    pub commit: u64,
    /// The current revision of the database.
    pub revision: u64,
    /// HashKV at this revision.
    pub hash_kv: u32,
    /// A CRC-32C of alarms, users, roles and leases.
    pub replicated_hash: u32,
}

/// The checks of a v3 file, its content, and its differences.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verification {
    /// The path as the operator named it.
    pub path: String,
    /// The sha256 of the whole file, in lower-case hex.
    #[serde(rename = "file_sha256")]
    pub sha256: String,
    /// The content of the file.
    #[serde(flatten)]
    pub facts: V3Facts,
    /// The checks that ran.
    pub checked: Vec<Check>,
    /// With a directory, the state of each member in it.
    #[serde(rename = "directories", skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberState>,
    /// With a directory, the members in the bucket `members` whose directories are not in it: names, or IDs of members without one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members_not_given: Vec<String>,
    /// The number of keys that differ from the source; `differences` has the first of them.
    #[serde(skip_serializing_if = "is_zero")]
    pub differing_keys: u64,
    /// The warnings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Notice>,
    /// The findings and differences, one line each; empty for a file without any.
    pub differences: Vec<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
