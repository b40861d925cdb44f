//! What a source is and what it holds: shared by the report of a conversion and by `inspect`.
//!
//! Plain data. Optional fields are facts that this kind of source does not have. Knows nothing of how they are found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::transform::inventory::{Count, Elements};

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SourceFile {
    /// Its path as it was opened.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// sha256 of it, in lower-case hex.
    pub sha256: String,
    /// How many bytes from the beginning the hash is of, where the file ends in a hole of more than 1 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashed_bytes: Option<u64>,
}

/// What kind of source it is, and where in the cluster's history it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SourceFacts {
    /// `snap-file`, `data-dir`, `member-dir`, `backup`, `wal-only`, …
    pub kind: String,
    /// Which layout the directory has (FORMATS 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<String>,
    /// The cluster version that the store names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_version: Option<String>,
    /// The versions by whose rules the log was replayed, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_rules: Option<String>,
    /// The versions that the server which started last may have had, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_versions: Option<String>,
    /// What proves that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub version_bounds: Vec<VersionBound>,
    /// Rules that are possible, too, and by which the log makes another state.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_rules: Vec<OtherRules>,
    /// The snapshot that the state starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_file: Option<String>,
    /// Raft term of that snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_term: Option<u64>,
    /// Raft index of that snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_index: Option<u64>,
    /// Segments of the write-ahead log that were read.
    pub segments: u64,
    /// Raft index of the first entry in them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_entry: Option<u64>,
    /// Raft index of the last entry in them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_entry: Option<u64>,
    /// The commit index that the last HardState names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<u64>,
    /// The raft index up to which entries count as committed (FORMATS 4.9).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_commit: Option<u64>,
    /// How that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_evidence: Option<String>,
    /// The raft index of the last entry in the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raft_index: Option<u64>,
    /// The v2 index of the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v2_index: Option<u64>,
    /// The time in the last SYNC entry: how old the copy is at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync: Option<String>,
    /// Offset of a torn tail in the last segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn_tail: Option<u64>,
    /// Cluster id in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Id of the member whose files these are, in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// Ids of the voters, in lower-case hex.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<String>,
    /// What was taken from which source, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// With `--salvage`, every start that a replay was tried from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub salvage_starts: Vec<SalvageStart>,
    /// The members as the store describes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
}

/// A start of a damaged source, and what a replay from it gives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SalvageStart {
    /// The snapshot file; absent: the log from its first entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_file: Option<String>,
    /// Raft index that the replay starts after.
    pub from: u64,
    /// Raft index that it ends at; absent where there was no replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raft_index: Option<u64>,
    /// Keys at its end; absent where there was no replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// Why there was no replay from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_replayed: Option<String>,
    /// Whether the output is made from this start.
    pub chosen: bool,
}

/// A bound of a server's version, and what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct VersionBound {
    /// `X.Y.Z or later`, `before X.Y.Z`, or `not` and the versions that are refuted.
    pub bound: String,
    /// What proves it.
    pub proof: String,
    /// The last entry in the log where that stands; none for the server that ran last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raft_index: Option<u64>,
    /// The file that it stands in, where that is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether it holds for the server that started last; another one is of an earlier server.
    pub in_effect: bool,
}

/// Rules by which the log makes another state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct OtherRules {
    /// The versions that have them, in words.
    pub rules: String,
    /// The v2 index of that state.
    pub v2_index: u64,
    /// Nodes that differ: keys, directories, users and roles.
    pub differing: u64,
    /// The first of them: v2 keys, or store paths outside the keys.
    pub keys: Vec<String>,
}

/// One of several sources, and what it gave.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Part {
    /// The path as it was given.
    pub path: String,
    /// Id of the member, in lower-case hex.
    pub member_id: String,
    /// The commit index that its log knows.
    pub commit: u64,
    /// The last entry in its log.
    pub last_entry: u64,
    /// The replay starts from this one's snapshot, or from the beginning of its log.
    pub start: bool,
    /// Entries that were read from its log.
    pub entries_taken: u64,
}

/// One member of the cluster, as the store describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Member {
    /// Its id, in lower-case hex.
    pub id: String,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

/// What the v2 tree holds, without etcd's own nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Contents {
    /// Keys: file nodes.
    pub keys: u64,
    /// Bytes of their names and values.
    pub bytes: u64,
    /// Directories, without the root.
    pub directories: u64,
    /// Directories without a node in them.
    pub empty_directories: u64,
    /// Keys with a path element that starts with `_`.
    pub hidden: Count,
    /// Keys with a TTL of their own or of a directory above.
    pub ttl: Count,
    /// Keys of these that have expired at the report's `as_of`.
    pub expired: Count,
    /// Each of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expired_keys: Vec<ExpiredKey>,
    /// Keys that a rule gave another name.
    #[serde(skip_serializing_if = "is_zero")]
    pub renamed: u64,
    /// Keys whose value a rule decoded.
    #[serde(skip_serializing_if = "is_zero")]
    pub decoded: u64,
    /// Siblings of the snapshot that have the name of a later one, which alone counts.
    #[serde(skip_serializing_if = "is_zero")]
    pub duplicates: u64,
    /// The first of their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub duplicate_names: Vec<DuplicateName>,
    /// Nodes whose name or value holds U+FFFD: JSON has lost the bytes that stood there.
    pub replacements: u64,
    /// Keys that a v3 client could not write again with etcd's default request limit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub oversized: Vec<Oversized>,
    /// Whether v2 auth is on, where the tree says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_enabled: Option<bool>,
    /// Names of the v2 users.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Names of the v2 roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Keys by the first element of their path: the 1000 elements with the most keys; of equals, those that come first by
    /// name.
    pub first_elements: BTreeMap<String, Count>,
    /// The elements that are not listed there, where there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_elements: Option<Elements>,
}

/// What becomes of users and roles. Names only: no hash ever stands here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct AuthFacts {
    /// Whether authentication is on in v3.
    pub enabled: bool,
    /// Users that are carried over.
    pub users: u64,
    /// Roles that are carried over.
    pub roles: u64,
    /// Permissions that they have in v3.
    pub permissions: u64,
    /// Anonymous clients lose rights.
    pub guest_dropped: bool,
    /// Users whose rights are wider in v3, because 2.1 honours only the first of a user's roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub widened: Vec<String>,
    /// Permissions that lost keys to the rules: role and v2 pattern.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    /// Permissions that could match no v2 key: role and v2 pattern.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matched_nothing: Vec<String>,
}

/// v3 data that the source held before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ExistingFacts {
    /// The v3 backend that they are in.
    pub path: String,
    /// They are in the output, too.
    pub kept: bool,
    /// Raft index of the last entry applied to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_index: Option<u64>,
    /// The revision that it stands at; keys from v2 follow.
    pub revision: u64,
    /// The revision up to which its history is compacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact_revision: Option<u64>,
    /// Changes of keys, deletions included.
    pub changes: u64,
    /// Keys that are not deleted.
    pub keys: u64,
    /// Leases.
    pub leases: u64,
    /// Users.
    pub users: u64,
    /// Roles.
    pub roles: u64,
    /// v3 names of keys that v2 has as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// Keys that v2 does not have, where others are in both.
    #[serde(skip_serializing_if = "is_zero")]
    pub only_in_v3: u64,
    /// The first of these that are as `etcdctl migrate` writes keys: v2 may have deleted them since.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_by_migrate: Vec<String>,
    /// v2 trees among the keys, of `--experimental-enable-v2v3`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub v2v3: Vec<V2v3>,
    /// Users and roles that v2 has as well, and not alike.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub auth_conflicts: Vec<String>,
    /// v3 writes that stand in the log and not in the backend.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub late_writes: Vec<UnappliedWrite>,
}

/// A v2 tree inside v3.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct V2v3 {
    /// The prefix that the server was given.
    pub prefix: String,
    /// Keys of it.
    pub keys: u64,
}

/// A v3 write in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct UnappliedWrite {
    /// Its raft index.
    pub raft_index: u64,
    /// `put`, `delete`, `grant lease`, …
    pub action: String,
    /// The key, user or role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The lease or revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
}

/// A name that several siblings have once U+FFFD stands for bytes that are no UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DuplicateName {
    /// The v2 key.
    pub key: String,
    /// Siblings that a later one stands in for.
    pub shadowed: u64,
    /// The names as they were written, where the log still has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub written_as: Vec<TrueName>,
}

/// A name as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TrueName {
    /// The v2 key, bytes that are not printable ASCII as `\\xNN`.
    pub key: String,
    /// Raft index of the last request for it, or for a key below it.
    pub raft_index: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A key whose time was up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ExpiredKey {
    /// The v2 key.
    pub key: String,
    /// When it expired, RFC 3339.
    pub expiration: String,
}

/// A key that is too large for a request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Oversized {
    /// The v2 key.
    pub key: String,
    /// Bytes of its name and value.
    pub bytes: u64,
}

/// Entries of the log that are not in the state, because nothing proves them committed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Tail {
    /// Entries above the effective commit.
    pub entries: u64,
    /// Those of them that are v2 writes.
    pub v2_writes: u64,
    /// Each of these writes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<TailWrite>,
}

/// A v2 write in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TailWrite {
    /// Its raft index.
    pub raft_index: u64,
    /// Its term.
    pub term: u64,
    /// POST, PUT or DELETE.
    pub method: String,
    /// The v2 key, or the store path outside the keys.
    pub key: String,
    /// Bytes of its value.
    pub value_bytes: u64,
}
