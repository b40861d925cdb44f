//! The result of `advise`: what a v2 source relies on that v3 does not have, as data.
//!
//! In JSON these fields are at the top level. `advice_topics` has the texts of each topic, and `advice_text` prints the result.
//! It may contain names of keys, users and roles, never values. Must not know how a topic is found.

use serde::Serialize;

pub use super::advice_topics::{Area, Guide, Topic, Unit};
use super::model::Notice;

/// The result of `advise`.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Advice {
    /// The sources as the operator named them: one source, or the members of one cluster.
    pub sources: Vec<String>,
    /// What was read.
    pub basis: Basis,
    /// What the data relies on, in the order of [`Topic::ALL`]. Empty if it relies on nothing.
    pub findings: Vec<Finding>,
    /// The warnings, including losses: why a finding may be missing.
    pub warnings: Vec<Notice>,
}

/// What was read, and what the counts refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Basis {
    /// The raft index of the state.
    pub raft_index: u64,
    /// The v2 index of the state.
    pub v2_index: u64,
    /// Number of keys in the state.
    pub keys: u64,
    /// Number of directories in the state, without the root.
    pub directories: u64,
    /// Number of log entries that were read, also entries that the snapshot contains. The log after the state is not read.
    pub log_entries: u64,
    /// The raft index of the first of these entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_entry: Option<u64>,
    /// The raft index of the last of these entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_entry: Option<u64>,
    /// Number of requests to keys and directories among these entries: reads and writes.
    pub requests: u64,
    /// Number of events of keys and directories in the history of the snapshot. The log may have the same changes.
    pub events: u64,
}

/// What the data relies on that v3 does not have, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The topic, a stable word.
    pub topic: Topic,
    /// The part of the API that it belongs to.
    pub area: Area,
    /// What `count` counts.
    pub unit: Unit,
    /// Number of keys, directories, users or permissions in the state. For a kind of request: the nodes that the requests name.
    pub count: u64,
    /// Number of requests in the log.
    pub requests: u64,
    /// Of these, the requests that etcd refused when they were applied. Unknown for entries that the snapshot contains.
    pub refused: u64,
    /// Number of events in the history of the snapshot. For `event-window`: the changes that v2 no longer remembers.
    pub events: u64,
    /// Some of the keys, directories, users or permissions, with U+FFFD for bytes that are not UTF-8.
    pub examples: Vec<String>,
    /// Whether there are more than the examples.
    pub more: bool,
    /// What v2 did, what v3 does, and what to do.
    #[serde(flatten)]
    pub guide: Guide,
}

impl Advice {
    /// Returns the finding about a topic.
    pub fn finding(&self, topic: Topic) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.topic == topic)
    }
}
