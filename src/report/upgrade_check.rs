//! The result of `check`: what stops an etcd version from starting on a data directory, and which v2 data it does not read.
//!
//! In JSON these fields are at the top level. `upgrade_check_text` prints them. Must not know how a source was read.

use std::collections::BTreeMap;

use serde::Serialize;

use super::model::Notice;
use crate::display::short;
use crate::error::Kind;
use crate::options::UpgradeTarget;
use crate::words::words;

/// The exit status if the version starts, but v2 data would be lost or the source is possibly incomplete.
const PARTIAL: u8 = 8;

words! {
    /// What stops the version from starting.
    #[derive(Default)]
    pub enum Verdict {
        /// Nothing.
        Clean = "clean",
        /// v2 content in the snapshot.
        Snapshot = "snapshot",
        /// v2 requests in the log.
        Wal = "wal",
        /// Both.
        SnapshotAndWal = "snapshot+wal",
        /// The source is of a later version. It may have v2 content too.
        LaterVersion = "later-version",
        /// The source cannot be read.
        #[default]
        Unknown = "unknown",
    }
}

impl Verdict {
    /// Returns the verdict for these blockers.
    pub fn of(snapshot: bool, wal: bool) -> Verdict {
        match (snapshot, wal) {
            (false, false) => Verdict::Clean,
            (true, false) => Verdict::Snapshot,
            (false, true) => Verdict::Wal,
            (true, true) => Verdict::SnapshotAndWal,
        }
    }

    /// Returns whether the version does not start.
    pub fn is_blocked(self) -> bool {
        matches!(self, Verdict::Snapshot | Verdict::Wal | Verdict::SnapshotAndWal | Verdict::LaterVersion)
    }
}

words! {
    /// Where a source contains a version.
    pub enum VersionPlace {
        /// The bucket `meta` of the v3 backend.
        Storage = "storage-version",
        /// The bucket `cluster` of the v3 backend.
        Cluster = "cluster-version",
        /// An entry of the log that the version replays.
        Log = "log",
    }
}

/// A version in the source that is too high for the version to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct LaterVersion {
    /// The version, as the source has it.
    pub version: String,
    /// Where it is.
    pub place: VersionPlace,
}

impl LaterVersion {
    /// Returns the version and its place in words.
    pub(crate) fn phrase(&self) -> String {
        let place = match self.place {
            VersionPlace::Storage => "the storage version is",
            VersionPlace::Cluster => "the cluster version is",
            VersionPlace::Log => "the log sets the cluster version",
        };
        format!("{place} {}", short(&self.version))
    }
}

words! {
    /// The kind of a v2 node.
    pub enum NodeKind {
        /// A key.
        Key = "key",
        /// A directory without visible children.
        EmptyDirectory = "empty-directory",
        /// A v2 user.
        User = "user",
        /// A v2 role.
        Role = "role",
    }
}

words! {
    /// Why the version does not accept a request in the log.
    pub enum RequestReason {
        /// The method is not PUT.
        Method = "method",
        /// The PUT is neither to the attributes of a member nor to the cluster version.
        Path = "path",
        /// The PUT is to the attributes of a member, but the path does not contain an ID where etcd reads it.
        MemberId = "member-id",
        /// The PUT is to the attributes of a member, but the value is no attributes.
        Attributes = "attributes",
        /// The PUT is to the attributes of a member that the cluster never had.
        UnknownMember = "unknown-member",
        /// The version cannot parse v2 requests.
        Unparsable = "unparsable",
        /// The version ignores the request, but cannot apply an entry without a request.
        Unapplied = "unapplied",
    }
}

impl RequestReason {
    /// Returns the reason in words.
    pub(crate) fn phrase(self) -> &'static str {
        match self {
            RequestReason::Method => "the method is not PUT",
            RequestReason::Path => "no membership data",
            RequestReason::MemberId => "no member ID in the path",
            RequestReason::Attributes => "the value is no attributes",
            RequestReason::UnknownMember => "unknown member",
            RequestReason::Unparsable => "cannot be parsed",
            RequestReason::Unapplied => "cannot be applied",
        }
    }
}

words! {
    /// Why the version does not read a `.snap` file.
    pub enum NotRead {
        /// A newer snapshot counts.
        Older = "older",
        /// The log has no committed record of it.
        NoRecord = "no-record",
        /// Its name ends in `.broken`.
        Broken = "broken",
        /// It is damaged. etcd renames it to `.broken` when it starts.
        Damaged = "damaged",
    }
}

/// The check of one or several data directories.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct UpgradeCheck {
    /// What stops the version from starting on any of the sources.
    pub verdict: Verdict,
    /// The exit status of the command.
    pub exit_status: u8,
    /// The etcd minor version that was asked about.
    pub target_version: UpgradeTarget,
    /// The sources, in the order of the command line.
    pub sources: Vec<CheckedSource>,
}

/// The check of one data directory.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct CheckedSource {
    /// The path as the operator named it.
    pub path: String,
    /// What stops the version from starting.
    pub verdict: Verdict,
    /// The exit status of the command for this source alone.
    pub exit_status: u8,
    /// The error, if the source cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The member ID in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// The cluster ID in lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The snapshot that counts: the newest one that the log has a committed record of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<CountingSnapshot>,
    /// The version reads the log after this raft index.
    pub replay_after: u64,
    /// The raft index of the last entry in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_entry: Option<u64>,
    /// The commit index in the last hard state.
    pub commit: u64,
    /// The raft index of the last entry that was applied to the v3 backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_index: Option<u64>,
    /// Whether the v3 backend holds keys, leases, users or roles.
    pub has_v3_data: bool,
    /// What stops the version from starting.
    pub blockers: Blockers,
    /// v2 data that does not stop the version.
    pub leftovers: Leftovers,
    /// v2 requests in the replayed log that the version accepts: attributes of members, and the cluster version.
    pub membership_requests: u64,
    /// Nodes that only 3.6.0 to 3.6.2 object to, and 3.5 before 3.5.22 with `--v2-deprecation=write-only`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_before_3_6_3: Vec<V2Node>,
    /// Why the source is possibly incomplete.
    pub losses: Vec<Notice>,
    /// The warnings.
    pub warnings: Vec<Notice>,
    /// Commands that make v3 data without v2 content in the way.
    pub next_steps: Vec<String>,
}

/// The snapshot that counts.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct CountingSnapshot {
    /// The path of the file.
    pub path: String,
    /// Its raft index.
    pub raft_index: u64,
    /// Its term.
    pub term: u64,
    /// The v2 index of the store in it.
    pub v2_index: u64,
}

/// What stops a version from starting.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Blockers {
    /// A version in the source that is too high.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub later_version: Option<LaterVersion>,
    /// v2 nodes in the snapshot that counts.
    pub nodes: Vec<V2Node>,
    /// v2 requests in the log after it.
    pub entries: Vec<V2Request>,
}

/// v2 data that the version does not see.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Leftovers {
    /// Nodes of the snapshot that counts. They would be lost.
    pub nodes: Vec<V2Node>,
    /// Other `.snap` files with v2 nodes, and those that cannot be read.
    pub snapshots: Vec<UnreadSnapshot>,
    /// v2 requests in the log, apart from blockers and membership.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestCounts>,
    /// `.wal.broken` files.
    pub broken_segments: Vec<String>,
}

/// A v2 node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct V2Node {
    /// Its kind.
    pub kind: NodeKind,
    /// The store path; keys of clients are below `/1`.
    pub path: String,
    /// The v2 index of its creation.
    pub created_index: u64,
    /// The v2 index of its last change.
    pub modified_index: u64,
    /// When it expires by its own TTL (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Whether a component of the path starts with `_`, so that listings omit it.
    pub hidden: bool,
}

/// A v2 request in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct V2Request {
    /// The raft index of the entry.
    pub raft_index: u64,
    /// Its term.
    pub term: u64,
    /// Whether the entry is known to be committed. If not, it stops the version once the cluster commits it.
    pub committed: bool,
    /// The method.
    pub method: String,
    /// The store path.
    pub path: String,
    /// Why the version does not accept it.
    pub reason: RequestReason,
}

/// A `.snap` file that the version does not read.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct UnreadSnapshot {
    /// The path of the file.
    pub path: String,
    /// The raft index in its name.
    pub raft_index: u64,
    /// Why the version does not read it.
    pub not_read: NotRead,
    /// The v2 nodes in it, by kind.
    pub nodes: BTreeMap<&'static str, u64>,
    /// Why its content is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Counts of v2 requests.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct RequestCounts {
    /// All of them.
    pub count: u64,
    /// By method.
    pub by_method: BTreeMap<&'static str, u64>,
    /// The raft index of the first one.
    pub first_index: u64,
    /// The raft index of the last one.
    pub last_index: u64,
    /// Writes after the snapshot that counts which the version does not read. They would be lost.
    pub lost_writes: u64,
}

impl CheckedSource {
    /// Returns whether the version would start without seeing v2 data that clients of an earlier version see.
    pub fn loses_data(&self) -> bool {
        let lost_writes = self.leftovers.requests.as_ref().map_or(0, |requests| requests.lost_writes);
        !self.leftovers.nodes.is_empty() || lost_writes > 0
    }

    /// Decides about the verdict and the exit status.
    pub(crate) fn judge(&mut self) {
        self.verdict = match self.blockers.later_version {
            Some(_) => Verdict::LaterVersion,
            None => Verdict::of(!self.blockers.nodes.is_empty(), !self.blockers.entries.is_empty()),
        };
        self.exit_status = match self.verdict.is_blocked() {
            true => Kind::Verify.exit_code(),
            false if self.loses_data() || !self.losses.is_empty() => PARTIAL,
            false => 0,
        };
    }
}

impl UpgradeCheck {
    /// Decides about the whole: a blocked source counts most, then one that cannot be read.
    pub(crate) fn judge(&mut self) {
        let has = |verdict: Verdict| self.sources.iter().any(|source| source.verdict == verdict);
        let both = has(Verdict::SnapshotAndWal);
        let blocked = Verdict::of(both || has(Verdict::Snapshot), both || has(Verdict::Wal));
        self.verdict = match blocked {
            _ if has(Verdict::LaterVersion) => Verdict::LaterVersion,
            Verdict::Clean if has(Verdict::Unknown) => Verdict::Unknown,
            blocked => blocked,
        };
        let rank = |source: &&CheckedSource| match source.exit_status {
            0 => 0,
            PARTIAL => 1,
            _ if source.error.is_some() => 2,
            _ => 3,
        };
        self.exit_status = self.sources.iter().max_by_key(rank).map_or(0, |source| source.exit_status);
    }
}
