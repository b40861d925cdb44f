//! The result of `inspect`: what a v2 source or a v3 database file is and contains, as data.
//!
//! In JSON these fields are at the top level. Scripts rely on the v3 names `revision`, `keys`, `leases`, `hash_kv` and
//! `status_hash`. Must not know how it is printed.

use std::fmt;

use serde::{Serialize, Serializer};

use super::facts::{Contents, Member, SourceFacts, SourceFile, Tail};
use super::model::Notice;
use crate::options::EntryFilter;
use crate::v2store::apply::Effect;
pub use crate::verify::Sha256Check;
use crate::words::words;

/// The result of `inspect` for one file or directory.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// The path as the operator named it.
    pub path: String,
    /// What the source is and contains, with its `kind`.
    #[serde(flatten)]
    pub facts: Facts,
    /// Every file that was read.
    pub source_files: Vec<SourceFile>,
    /// Every key, if the options ask for it: v2 keys by name, v3 changes by revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_list: Option<Vec<KeyLine>>,
    /// The warnings, including losses and findings.
    pub warnings: Vec<Notice>,
}

/// What a v2 source or a v3 database is and contains.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Facts {
    /// A `.snap` file, a data directory, a write-ahead log.
    V2(Box<V2Facts>),
    /// A database or snapshot file of etcd v3.
    V3(V3Facts),
}

/// What a v2 source is and contains.
#[derive(Debug, Clone, Default, Serialize)]
pub struct V2Facts {
    /// The kind of the source, and its position in the history of the cluster.
    #[serde(flatten)]
    pub source: SourceFacts,
    /// The content of its tree.
    #[serde(flatten)]
    pub contents: Contents,
    /// The entries of its log after the state.
    pub tail: Tail,
    /// The v3 backend of the same data directory, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db: Option<V3Facts>,
}

words! {
    /// The kind of a v3 file.
    #[derive(Default)]
    pub enum V3Kind {
        /// A snapshot file, which ends with a sha256.
        Snapshot = "v3-snapshot",
        /// A database file.
        #[default]
        Db = "v3-db",
    }
}

/// The content of a v3 database or snapshot file.
#[derive(Debug, Clone, Default, Serialize)]
pub struct V3Facts {
    /// The kind.
    pub kind: V3Kind,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// The size of the database, in bytes: all pages below its high-water mark.
    pub db_bytes: u64,
    /// The size of a page, in bytes.
    pub page_size: u64,
    /// The storage version in the database (3.6 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_version: Option<String>,
    /// The cluster version in the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_version: Option<String>,
    /// The members in the database, as etcd 3.6 and 3.7 see them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// The consistent index: the raft index of the last applied entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_index: Option<u64>,
    /// The current revision after a boot.
    pub revision: u64,
    /// The revision up to which history is compacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact_revision: Option<u64>,
    /// The number of live keys.
    pub keys: u64,
    /// The number of changes of keys, including deletions.
    pub pairs: u64,
    /// The number of leases.
    pub leases: u64,
    /// The number of users.
    pub users: u64,
    /// The number of roles.
    pub roles: u64,
    /// HashKV at `revision`, as `etcdctl endpoint hashkv` prints it.
    pub hash_kv: u32,
    /// The hash that `etcdutl snapshot status` prints.
    pub status_hash: u32,
    /// A CRC-32C of alarms, users, roles and leases: equal on all members at one consistent index.
    pub replicated_hash: u32,
    /// The check of a snapshot file's trailer.
    pub sha256: Sha256Check,
}

/// A key of `inspect --keys`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct KeyLine {
    /// The key, with U+FFFD for bytes that are not UTF-8.
    pub key: String,
    /// The v2 created index, or the v3 create revision.
    pub created: u64,
    /// The v2 modified index, or the v3 mod revision.
    pub modified: u64,
    /// The size of the value, in bytes.
    pub value_bytes: u64,
    /// The time when it expires, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
}

/// The effect of a log entry, as `inspect --wal` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntryEffect {
    /// The entry changed the tree, or the index: `changed`.
    Changed,
    /// etcd refused it with this error code of the v2 API: `refused CODE`.
    Refused(u16),
    /// No effect, such as that of a read or a v3 request: `none`.
    None,
    /// The start snapshot contains it: `in the snapshot`.
    InSnapshot,
    /// It is after the commit index: `not committed`.
    NotCommitted,
    /// A received snapshot replaced it: `replaced`.
    Replaced,
    /// The replay did not reach it, or the source is a log without a snapshot: `unknown`.
    #[default]
    Unknown,
}

impl fmt::Display for EntryEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EntryEffect::Changed => "changed",
            EntryEffect::Refused(code) => return write!(f, "refused {code}"),
            EntryEffect::None => "none",
            EntryEffect::InSnapshot => "in the snapshot",
            EntryEffect::NotCommitted => "not committed",
            EntryEffect::Replaced => "replaced",
            EntryEffect::Unknown => "unknown",
        })
    }
}

impl Serialize for EntryEffect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl EntryEffect {
    /// Returns the effect of an entry that was applied.
    pub(crate) fn of(effect: Effect) -> EntryEffect {
        match effect {
            Effect::Changed => EntryEffect::Changed,
            Effect::Refused(code) => EntryEffect::Refused(code),
            Effect::None => EntryEffect::None,
        }
    }
}

/// An entry of the log, as `inspect --wal` shows it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EntryLine {
    /// The raft index.
    pub raft_index: u64,
    /// The raft term in which it was proposed.
    pub term: u64,
    /// The kind; never `write`.
    pub kind: EntryFilter,
    /// The v2 key, the store path outside the keys, or the member of a configuration change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The rest of the request in words: conditions, flags, expiration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<String>,
    /// The size of the value, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_bytes: Option<u64>,
    /// The size of the entry's data, in bytes.
    pub bytes: u64,
    /// The effect.
    pub effect: EntryEffect,
    /// The index of the store after the entry, if it was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v2_index: Option<u64>,
    /// The path of its segment.
    pub segment: String,
    /// The byte offset of its data in the segment.
    pub offset: u64,
}
