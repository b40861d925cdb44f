//! The result of `compare`: whether the members of a cluster have converged, as data.
//!
//! In JSON these fields are at the top level. `comparison_text` prints them. Must not know how the members were read.

use std::fmt;

use serde::Serialize;

use super::facts::{Member, TailWrite};
use super::model::Notice;
use crate::count::counted;
use crate::words::words;

words! {
    /// Whether the members have converged.
    #[derive(Default)]
    pub enum Verdict {
        /// All members have the same committed state.
        Converged = "converged",
        /// They differ by entries without effect only.
        ExceptEmptyEntries = "converged-except-empty-entries",
        /// At least one member has another state.
        Differ = "differ",
        /// No difference was found, but the data cannot prove that the members are equal.
        #[default]
        NotProven = "not-proven",
    }
}

impl Verdict {
    /// Returns the exit status of the command.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Converged | Verdict::ExceptEmptyEntries => 0,
            Verdict::Differ | Verdict::NotProven => crate::error::Kind::Verify.exit_code(),
        }
    }
}

words! {
    /// The result for one member.
    #[derive(Default)]
    pub enum Status {
        /// It has the state of the reference.
        Equal = "equal",
        /// It lacks entries without effect only.
        ExceptEmptyEntries = "equal-except-empty-entries",
        /// It lacks committed entries, or does not know that they are committed.
        Behind = "behind",
        /// Its history or content contradicts that of the reference.
        Diverged = "diverged",
        /// It was removed from the cluster.
        Removed = "removed",
        /// The copy is possibly incomplete, or a part of it cannot be compared.
        NotProven = "not-proven",
        /// The source is damaged.
        #[default]
        Unreadable = "unreadable",
    }
}

words! {
    /// What becomes of the entries after the committed ones.
    #[derive(Default)]
    pub enum Rest {
        /// There are none.
        #[default]
        None = "none",
        /// Too few voters hold them: they are not committed, so no client was told of success. The next leader commits them if it
        /// holds them.
        NotCommitted = "not-committed",
        /// The given members do not decide.
        Undecided = "undecided",
    }
}

words! {
    /// A difference between two nodes.
    pub enum Differs {
        /// The member lacks the node.
        Missing = "missing",
        /// Only the member has the node.
        Extra = "extra",
        /// One is a directory, the other a key.
        Kind = "kind",
        /// The values differ.
        Value = "value",
        /// The created indexes differ.
        CreatedIndex = "created-index",
        /// The modified indexes differ.
        ModifiedIndex = "modified-index",
        /// The expirations differ.
        Expiration = "expiration",
    }
}

/// The comparison of the members of a cluster.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Comparison {
    /// Whether they have converged.
    pub verdict: Verdict,
    /// The exit status of the command.
    pub exit_status: u8,
    /// Why the verdict is not `converged`, one line each.
    pub reasons: Vec<String>,
    /// The cluster ID in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The IDs of the voters in lower-case hex, by the reference.
    pub voters: Vec<String>,
    /// The IDs of the voters whose data was not given, or cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub voters_not_read: Vec<String>,
    /// The smallest raft index of the committed states of all members.
    pub common_index: u64,
    /// The revision at which the v3 backends were compared, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v3: Option<CommonV3>,
    /// The path of the member that the others were compared with.
    pub reference: String,
    /// The members, in the order of the command line.
    pub members: Vec<ComparedMember>,
    /// The entries after the committed states.
    pub tail: ComparedTail,
    /// The path of the member to convert; absent if nothing tells which member is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convert: Option<String>,
    /// The command that converts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_step: Option<String>,
    /// The warnings.
    pub warnings: Vec<Notice>,
}

/// The point at which v3 backends were compared.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CommonV3 {
    /// The smallest current revision of all backends.
    pub revision: u64,
    /// The highest compact revision of all backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact_revision: Option<u64>,
    /// Why the hashes cannot be compared, if that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_comparable: Option<String>,
}

/// The state of one member, and its comparison with the reference.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ComparedMember {
    /// The path as the operator named it.
    pub path: String,
    /// The result.
    pub status: Status,
    /// The error, if the source is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The member ID in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// The name of the member in its own store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The raft index of the start snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_index: Option<u64>,
    /// The raft index of the last entry in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_entry: Option<u64>,
    /// The term of the last entry, or of the snapshot before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_term: Option<u64>,
    /// The commit index in the last hard state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<u64>,
    /// The raft index of the committed state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raft_index: Option<u64>,
    /// The v2 index of the committed state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v2_index: Option<u64>,
    /// The content hash of the committed state, in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<String>,
    /// The content hash at the common index; absent if the member cannot be replayed to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common_hash: Option<String>,
    /// Why the member cannot be replayed to the common index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_common_hash: Option<String>,
    /// The v3 backend, if it has one that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v3: Option<ComparedV3>,
    /// The members of the cluster in the store of this member.
    pub members: Vec<Member>,
    /// The IDs of the voters by this member, in lower-case hex.
    pub voters: Vec<String>,
    /// The number of entries between its committed state and that of the reference.
    pub behind: u64,
    /// The number of committed entries that its log lacks.
    pub lacks: u64,
    /// The kinds of all these entries.
    pub entries: EntryCounts,
    /// What differs, one line each.
    pub findings: Vec<String>,
    /// The raft index of this member and that of the reference between which nodes were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_compared_at: Option<(u64, u64)>,
    /// The number of nodes that differ from the reference.
    pub differing_nodes: u64,
    /// The first of these nodes.
    pub nodes: Vec<NodeDifference>,
}

/// The v3 backend of a member.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ComparedV3 {
    /// The current revision.
    pub revision: u64,
    /// The revision up to which history is compacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact_revision: Option<u64>,
    /// The raft index of the last applied entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_index: Option<u64>,
    /// The number of changes of keys, including deletions.
    pub pairs: u64,
    /// HashKV at the current revision.
    pub hash_kv: u32,
    /// A CRC-32C of alarms, users, roles and leases.
    pub replicated_hash: u32,
    /// HashKV at the common revision, if it is comparable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub common_hash_kv: Option<u32>,
}

/// A node that differs from that of the reference.
#[derive(Debug, Clone, Serialize)]
pub struct NodeDifference {
    /// The v2 key, or the store path outside the keys.
    pub key: String,
    /// The differences.
    pub differs: Vec<Differs>,
}

/// The entries after the committed states of all members.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ComparedTail {
    /// The raft index of the first and last entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(u64, u64)>,
    /// The kinds of the entries, each index and term once.
    pub entries: EntryCounts,
    /// The raft index up to which the given logs prove that entries are committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_to: Option<u64>,
    /// The proof.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// What becomes of the entries after these.
    pub rest: Rest,
    /// The kinds of the entries after these.
    pub rest_entries: EntryCounts,
    /// The largest number of voters among the given members that hold such an entry.
    pub held_by: u64,
    /// Whether the data of more voters would decide.
    pub more_members_decide: bool,
    /// Whether an etcd was running on a member. Logs that were read one after the other decide nothing.
    pub live: bool,
    /// The first v2 writes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<TailWrite>,
}

/// The number of entries of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct EntryCounts {
    /// v2 writes.
    pub v2_writes: u64,
    /// v3 requests.
    pub v3: u64,
    /// Changes of the raft configuration.
    pub conf_changes: u64,
    /// SYNC requests, which expire keys.
    pub sync: u64,
    /// Quorum reads.
    pub quorum_reads: u64,
    /// Entries without a request.
    pub empty: u64,
    /// Entries that no given log contains.
    pub unknown: u64,
}

impl EntryCounts {
    /// Returns the number of all entries.
    pub fn total(&self) -> u64 {
        let counts =
            [self.v2_writes, self.v3, self.conf_changes, self.sync, self.quorum_reads, self.empty, self.unknown];
        counts.into_iter().fold(0, u64::saturating_add)
    }

    /// Returns whether an entry may change data, apart from a SYNC that expires a key.
    pub fn may_change_data(&self) -> bool {
        [self.v2_writes, self.v3, self.conf_changes, self.unknown].iter().any(|count| *count > 0)
    }
}

impl fmt::Display for EntryCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.v2_writes, "v2 write", "v2 writes"),
            (self.v3, "v3 request", "v3 requests"),
            (self.conf_changes, "configuration change", "configuration changes"),
            (self.sync, "SYNC", "SYNC"),
            (self.quorum_reads, "quorum read", "quorum reads"),
            (self.empty, "empty", "empty"),
            (self.unknown, "in no given log", "in no given log"),
        ];
        let named = kinds.iter().filter(|(count, ..)| *count > 0);
        let named: Vec<String> = named.map(|(count, one, many)| counted(*count, one, many)).collect();
        f.write_str(&named.join(", "))
    }
}
