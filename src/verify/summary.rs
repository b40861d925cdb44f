//! The content of a v3 database, as plain data: counts, revisions, hashes, members and faults.
//!
//! `check` fills it. Where `snapshot status` of etcd prints the same number, the field says so. Must not know buckets
//! or pages.

use crate::bolt::Damage;
use crate::ids::{MemberId, RaftIndex, Revision, Term};
use crate::words::words;

/// The content of a v3 database, and its faults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V3Summary {
    /// The current revision of an etcd that starts on it.
    pub revision: Revision,
    /// Main revision of the last change, as `snapshot status` prints it; 0 without changes.
    pub last_key_revision: Revision,
    /// Number of live keys; `snapshot status` of 3.6 and later prints this as total keys.
    pub keys: u64,
    /// Number of changes in the `key` bucket.
    pub pairs: u64,
    /// Number of pairs in all buckets; `snapshot status` of 3.4 and 3.5 prints this as total keys.
    pub all_pairs: u64,
    /// Number of changes that are deletions.
    pub tombstones: u64,
    /// Number of leases.
    pub leases: u64,
    /// Number of users.
    pub users: u64,
    /// Number of roles.
    pub roles: u64,
    /// Whether authentication is on.
    pub auth_enabled: bool,
    /// Number of active alarms.
    pub alarms: u64,
    /// HashKV at the current revision, as every member reports it after its start.
    pub hash_kv: u32,
    /// The hash that `snapshot status` prints.
    pub status_hash: u32,
    /// The revision at which the store is compacted after the start.
    pub compacted: Option<Revision>,
    /// Raft index of the last applied entry.
    pub consistent_index: Option<RaftIndex>,
    /// Term of that entry.
    pub term: Option<Term>,
    /// The storage version.
    pub storage_version: Option<String>,
    /// The cluster version.
    pub cluster_version: Option<String>,
    /// The members of the cluster.
    pub members: Vec<Member>,
    /// Total size of all pages in bytes, as `snapshot status` prints it.
    pub total_size: u64,
    /// The state of the SHA-256 of a snapshot; `None` if it was not checked.
    pub sha256: Option<Sha256Check>,
    /// The faults, at most 100.
    pub findings: Vec<Damage>,
    /// Number of further faults.
    pub more_findings: u64,
}

/// A member of the cluster in the `members` bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Its member id.
    pub id: MemberId,
    /// Its name; empty until it has started.
    pub name: String,
    /// The URLs for other members.
    pub peer_urls: Vec<String>,
    /// The URLs for clients; empty until it has started.
    pub client_urls: Vec<String>,
    /// Whether it is a learner, which has no vote.
    pub learner: bool,
}

words! {
    /// The check of the SHA-256 at the end of a snapshot file.
    #[derive(Default)]
    pub enum Sha256Check {
        /// It matches the bytes before it.
        Good = "good",
        /// It does not match.
        Mismatch = "bad",
        /// The file has none: it is a database file, not a snapshot.
        #[default]
        None = "none",
    }
}
