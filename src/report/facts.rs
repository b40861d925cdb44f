//! What a source is and what it contains, as plain data: shared by the report of a conversion and by `inspect`.
//!
//! An optional field is absent if this kind of source does not have it. Must not know how the data was obtained.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::source::dir::Layout;
pub use crate::source::internal_request::V3Action;
pub use crate::source::raft::Method;
pub use crate::transform::inventory::{Count, Elements};
use crate::words::words;

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SourceFile {
    /// The path under which it was opened.
    pub path: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The sha256 in lower-case hex.
    pub sha256: String,
    /// The number of bytes from the start that the hash covers; only if the file ends in a hole of more than 1 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashed_bytes: Option<u64>,
}

words! {
    /// A record that proves the instant of `--as-of last-write`.
    #[derive(PartialOrd, Ord)]
    pub enum AsOfEvidence {
        /// A SYNC entry that the replay applied.
        Sync = "a SYNC entry in the log",
        /// A SYNC entry at or below the start snapshot.
        SyncBefore = "a SYNC entry in the log before the snapshot",
        /// An event in the history of the start snapshot.
        History = "the snapshot's event history",
    }
}

words! {
    /// The kind of a v2 source.
    #[derive(Default)]
    pub enum SourceKind {
        /// A `.snap` file.
        SnapFile = "snap-file",
        /// A data directory of a member.
        DataDir = "data-dir",
        /// The output of `etcdctl backup`.
        Backup = "backup",
        /// A log without a snapshot.
        WalOnly = "wal-only",
        /// The run ended before the kind was known.
        #[default]
        Unknown = "",
    }
}

/// The kind of a source, and its position in the history of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SourceFacts {
    /// The kind.
    pub kind: SourceKind,
    /// The layout of the directory (docs/formats.md 1.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// The cluster version in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_version: Option<String>,
    /// With `--to backend` for 3.5: a cluster version of 2.x that a server on these files finds in its start snapshot or in the log
    /// after it. etcd 3.5 does not serve v3 then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_cluster_version: Option<String>,
    /// The versions by whose rules the log was replayed, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_rules: Option<String>,
    /// The possible versions of the server that started last, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_versions: Option<String>,
    /// The proofs of these versions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub version_bounds: Vec<VersionBound>,
    /// Other possible rules that would give another state.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_rules: Vec<OtherRules>,
    /// The path of the start snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_file: Option<String>,
    /// The raft term of the start snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_term: Option<u64>,
    /// The raft index of the start snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_index: Option<u64>,
    /// The number of segments of the write-ahead log that were read.
    pub segments: u64,
    /// The raft index of the first entry in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_entry: Option<u64>,
    /// The raft index of the last entry in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_entry: Option<u64>,
    /// The commit index in the last hard state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<u64>,
    /// The raft index up to which entries count as committed (docs/formats.md 4.9).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_commit: Option<u64>,
    /// The proof of this index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_evidence: Option<String>,
    /// The raft index of the last entry in the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raft_index: Option<u64>,
    /// The v2 index of the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v2_index: Option<u64>,
    /// The time in the last SYNC entry: the copy is not older than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync: Option<String>,
    /// The byte offset of a torn tail in the last segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn_tail: Option<u64>,
    /// The cluster ID in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The ID of the member that the files belong to, in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// The IDs of the voters, in lower-case hex.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<String>,
    /// The parts that were taken from each of several sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// With `--salvage`, every possible start of the replay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub salvage_starts: Vec<SalvageStart>,
    /// The members in the store.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
}

/// A possible start in a damaged source, and the result of a replay from it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SalvageStart {
    /// The path of the snapshot; absent for the log from its first entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_file: Option<String>,
    /// The raft index after which the replay starts.
    pub from: u64,
    /// The raft index at which the replay ends; absent without a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raft_index: Option<u64>,
    /// The number of keys at the end; absent without a replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// The reason why it was not replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_replayed: Option<String>,
    /// Whether the output is made from this start.
    pub chosen: bool,
}

/// A bound of a server's version, and its proof.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct VersionBound {
    /// `X.Y.Z or later`, `before X.Y.Z`, or `not` with the refuted versions.
    pub bound: String,
    /// The proof, in words.
    pub proof: String,
    /// The raft index of the last entry with the proof; absent if the proof concerns the server that ran last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raft_index: Option<u64>,
    /// The path of the file with the proof, if it is one file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether the bound is valid for the server that started last; otherwise it concerns an earlier server.
    pub in_effect: bool,
}

/// Other possible rules that would give another state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct OtherRules {
    /// The versions with these rules, in words.
    pub rules: String,
    /// The v2 index of the other state.
    pub v2_index: u64,
    /// The number of nodes that differ: keys, directories, users and roles.
    pub differing: u64,
    /// The first of these: v2 keys, or store paths outside the keys.
    pub keys: Vec<String>,
}

/// One of several sources, and the part that was taken from it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Part {
    /// The path as the operator named it.
    pub path: String,
    /// The ID of the member, in lower-case hex.
    pub member_id: String,
    /// The commit index in its log.
    pub commit: u64,
    /// The raft index of the last entry in its log.
    pub last_entry: u64,
    /// Whether the replay starts from its snapshot, or from the start of its log.
    pub start: bool,
    /// The number of entries that were taken from its log.
    pub entries_taken: u64,
}

/// A member of the cluster, as in the store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Member {
    /// The ID in lower-case hex.
    pub id: String,
    /// The name; empty until its first start.
    pub name: String,
    /// The URLs for peers.
    pub peer_urls: Vec<String>,
    /// The URLs for clients.
    pub client_urls: Vec<String>,
    /// Whether the member does not vote.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
}

/// The content of the v2 tree, without etcd's own nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Contents {
    /// The number of keys: file nodes.
    pub keys: u64,
    /// The bytes of their names and values.
    pub bytes: u64,
    /// The number of directories, without the root.
    pub directories: u64,
    /// The number of directories without a node in them.
    pub empty_directories: u64,
    /// Keys with a path element that starts with `_`.
    pub hidden: Count,
    /// Keys with a TTL of their own or of a parent directory.
    pub ttl: Count,
    /// Keys of these that have expired at the `as_of` of the report.
    pub expired: Count,
    /// Each expired key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expired_keys: Vec<ExpiredKey>,
    /// The number of keys that a rule renamed.
    #[serde(skip_serializing_if = "is_zero")]
    pub renamed: u64,
    /// The number of keys whose value a rule decoded.
    #[serde(skip_serializing_if = "is_zero")]
    pub decoded: u64,
    /// The number of nodes in the snapshot with the name of a later sibling, which alone counts.
    #[serde(skip_serializing_if = "is_zero")]
    pub duplicates: u64,
    /// The first of their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub duplicate_names: Vec<DuplicateName>,
    /// The number of nodes with U+FFFD in name or value: JSON has lost the original bytes.
    pub replacements: u64,
    /// Keys that a v3 client could not write again with the request limit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub oversized: Vec<Oversized>,
    /// Whether v2 authentication is enabled; absent if the tree does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_enabled: Option<bool>,
    /// The names of the v2 users.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// The names of the v2 roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Keys by the first element of their path: the 1000 elements with the most keys, among equals the first by name.
    pub first_elements: BTreeMap<String, Count>,
    /// The keys of all other elements, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_elements: Option<Elements>,
}

/// What becomes of users and roles. Contains names, never password hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct AuthFacts {
    /// Whether authentication is enabled in the output.
    pub enabled: bool,
    /// The number of users from v2 in the output.
    pub users: u64,
    /// The number of roles from v2 in the output.
    pub roles: u64,
    /// The number of v3 permissions of these roles.
    pub permissions: u64,
    /// Whether anonymous clients lose rights.
    pub guest_dropped: bool,
    /// Users with more rights in v3, because etcd 2.1 honours only the first existing role of a user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub widened: Vec<String>,
    /// Permissions that cover fewer keys because of rules: role and v2 pattern.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    /// Permissions that cannot match a v2 key: role and v2 pattern.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matched_nothing: Vec<String>,
}

/// The v3 data of the source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ExistingFacts {
    /// The path of the v3 backend.
    pub path: String,
    /// Whether the v3 data is preserved in the output.
    #[serde(rename = "kept")]
    pub preserved: bool,
    /// The raft index of the last entry applied to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_index: Option<u64>,
    /// The current revision of the v3 data; keys from v2 have later revisions.
    pub revision: u64,
    /// The revision up to which its history is compacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact_revision: Option<u64>,
    /// The number of changes of keys, including deletions.
    pub changes: u64,
    /// The number of live keys.
    pub keys: u64,
    /// The number of leases.
    pub leases: u64,
    /// The number of users.
    pub users: u64,
    /// The number of roles.
    pub roles: u64,
    /// The v3 names of keys that v2 also has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// The number of keys that only v3 has, if v2 and v3 share other keys.
    #[serde(skip_serializing_if = "is_zero")]
    pub only_in_v3: u64,
    /// The first of these in the form of `etcdctl migrate`: v2 may have deleted them since.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_by_migrate: Vec<String>,
    /// The v2 trees of `--experimental-enable-v2v3` among the keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub v2v3: Vec<V2v3>,
    /// Users and roles that v2 also has and that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub auth_conflicts: Vec<String>,
    /// v3 writes in the log that the backend does not contain.
    #[serde(rename = "late_writes", skip_serializing_if = "Vec::is_empty")]
    pub unapplied: Vec<UnappliedWrite>,
}

/// A v2 tree inside v3.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct V2v3 {
    /// The prefix that the server's option named.
    pub prefix: String,
    /// The number of its keys.
    pub keys: u64,
}

/// A v3 write in the log that is not applied to the backend.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct UnappliedWrite {
    /// The raft index.
    pub raft_index: u64,
    /// The action.
    pub action: V3Action,
    /// The key, user or role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The lease ID or revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
}

/// A name that several siblings have, because U+FFFD replaced bytes that are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DuplicateName {
    /// The v2 key.
    pub key: String,
    /// The number of siblings that a later one replaces.
    pub shadowed: u64,
    /// The original names, if the log still has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub written_as: Vec<TrueName>,
}

/// A name in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TrueName {
    /// The v2 key; bytes other than printable ASCII as `\\xNN`.
    pub key: String,
    /// The raft index of the last request for it or for a key below it.
    pub raft_index: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// An expired key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ExpiredKey {
    /// The v2 key.
    pub key: String,
    /// When it expired, RFC 3339.
    pub expiration: String,
}

/// A key that exceeds the request limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Oversized {
    /// The v2 key.
    pub key: String,
    /// The bytes of its name and value.
    pub bytes: u64,
}

/// Entries of the log that are not in the state, because nothing proves their commit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Tail {
    /// The number of entries after the effective commit index.
    pub entries: u64,
    /// The number of v2 writes among them.
    pub v2_writes: u64,
    /// Each v2 write.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<TailWrite>,
}

/// A v2 write in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TailWrite {
    /// The raft index.
    pub raft_index: u64,
    /// The raft term.
    pub term: u64,
    /// The method: `POST`, `PUT` or `DELETE`.
    #[cfg_attr(feature = "internals", schemars(with = "String"))]
    pub method: Method,
    /// The v2 key, or the store path outside the keys.
    pub key: String,
    /// The bytes of its value.
    pub value_bytes: u64,
}
