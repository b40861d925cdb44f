//! What a v3 database holds, as plain data.

use crate::bolt::Damage;
use crate::ids::{MemberId, RaftIndex, Revision, Term};

/// What a v3 database holds, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V3Summary {
    /// The current revision that etcd has after booting on it.
    pub revision: Revision,
    /// Main revision of the last change, as `snapshot status` prints it; 0 without any.
    pub last_key_revision: Revision,
    /// Keys that are not deleted; `snapshot status` of 3.6 and later prints this as total keys.
    pub keys: u64,
    /// Changes in the `key` bucket.
    pub pairs: u64,
    /// Pairs in all buckets; `snapshot status` of 3.4 and 3.5 prints this as total keys.
    pub all_pairs: u64,
    /// Changes that are deletions.
    pub tombstones: u64,
    /// Leases.
    pub leases: u64,
    /// Users.
    pub users: u64,
    /// Roles.
    pub roles: u64,
    /// Whether authentication is on.
    pub auth_enabled: bool,
    /// Alarms that are raised.
    pub alarms: u64,
    /// HashKV at the current revision, as every member prints it after boot.
    pub hash_kv: u32,
    /// The hash that `snapshot status` prints.
    pub status_hash: u32,
    /// The revision that the store is compacted at after boot.
    pub compacted: Option<Revision>,
    /// Raft index of the last applied entry.
    pub consistent_index: Option<RaftIndex>,
    /// Its term.
    pub term: Option<Term>,
    /// The version of the storage.
    pub storage_version: Option<String>,
    /// The version of the cluster.
    pub cluster_version: Option<String>,
    /// The members of the cluster.
    pub members: Vec<Member>,
    /// Bytes of all pages, as `snapshot status` prints it.
    pub total_size: u64,
    /// Whether a snapshot's SHA-256 is right; `None` if it was not looked at.
    pub sha256: Option<Sha256State>,
    /// What is wrong, at most 100.
    pub findings: Vec<Damage>,
    /// How many more findings there are.
    pub more_findings: u64,
}

/// A member of the cluster, as the `members` bucket has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where its peers find it.
    pub peer_urls: Vec<String>,
    /// Where its clients find it; none until it has started.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub learner: bool,
}

/// The SHA-256 that a snapshot file ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sha256State {
    /// It is that of the bytes before it.
    Good,
    /// It is another.
    Bad,
    /// The file has none: a database file, not a snapshot.
    Absent,
}
