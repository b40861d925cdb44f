//! What `inspect` found: the facts of a v2 source or of a v3 database file, as data.
//!
//! In JSON the facts stand at the top level; the v3 ones are called `revision`, `keys`, `leases`, `hash_kv` and
//! `status_hash` (the names that scripts rely on). Knows nothing of how it is printed.

use serde::Serialize;

use super::facts::{Contents, SourceFacts, SourceFile, Tail};
use super::model::Notice;

/// What `inspect` found in one file or directory.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// The path that was given.
    pub path: String,
    /// The facts; `kind` stands among them.
    #[serde(flatten)]
    pub facts: Facts,
    /// Every file that was read.
    pub source_files: Vec<SourceFile>,
    /// Every key, when asked for, in the order of the tree or of the revisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_list: Option<Vec<KeyLine>>,
    /// What an operator should know.
    pub warnings: Vec<Notice>,
}

/// Facts of a v2 source, or of a v3 database.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Facts {
    /// A `.snap` file, a data directory, a write-ahead log.
    V2(Box<V2Facts>),
    /// A database or snapshot file of etcd v3.
    V3(V3Facts),
}

/// What a v2 source is and holds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct V2Facts {
    /// What it is, and where in the cluster's history it stands.
    #[serde(flatten)]
    pub source: SourceFacts,
    /// What its tree holds.
    #[serde(flatten)]
    pub contents: Contents,
    /// What its log holds beyond the state.
    pub tail: Tail,
    /// The v3 database beside it, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db: Option<V3Facts>,
}

/// What a v3 database or snapshot file holds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct V3Facts {
    /// `v3-snapshot` (with a sha256 trailer) or `v3-db`.
    pub kind: String,
    /// Size of the file.
    pub bytes: u64,
    /// Bytes of the database: pages in use by its high-water mark.
    pub db_bytes: u64,
    /// Bytes of one page.
    pub page_size: u64,
    /// The storage version that the database names (3.6 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_version: Option<String>,
    /// The consistent index: raft index of the last entry applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_index: Option<u64>,
    /// The current revision after a boot.
    pub revision: u64,
    /// The revision up to which history is compacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact_revision: Option<u64>,
    /// Live keys.
    pub keys: u64,
    /// Changes of keys that are in it, deletions included.
    pub pairs: u64,
    /// Leases.
    pub leases: u64,
    /// Users.
    pub users: u64,
    /// Roles.
    pub roles: u64,
    /// HashKV at `revision`, as `etcdctl endpoint hashkv` prints it.
    pub hash_kv: u32,
    /// The hash that `etcdutl snapshot status` prints.
    pub status_hash: u32,
    /// The trailer of a snapshot file.
    pub sha256: Sha256Check,
}

/// What a file's sha256 trailer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sha256Check {
    /// It matches the database.
    Good,
    /// It does not match the database.
    Bad,
    /// There is none.
    #[default]
    None,
}

/// One key of `inspect --keys`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct KeyLine {
    /// The key; bytes that are no UTF-8 are replaced.
    pub key: String,
    /// v2 created index, or v3 create revision.
    pub created: u64,
    /// v2 modified index, or v3 mod revision.
    pub modified: u64,
    /// Bytes of the value.
    pub value_bytes: u64,
    /// When it expires, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
}

/// One entry of the log, as `inspect --wal` shows it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EntryLine {
    /// Its place in the log.
    pub raft_index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// `put`, `post`, `delete`, `sync`, `qget`, `conf-change`, `v3`, `empty`.
    pub kind: String,
    /// The v2 key, the store path outside the keys, or the member of a configuration change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The rest of the request in words: conditions, flags, expiration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<String>,
    /// Bytes of the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_bytes: Option<u64>,
    /// Bytes of the entry's data.
    pub bytes: u64,
    /// `changed`, `refused CODE`, `none`, `in the snapshot`, `not committed`.
    pub effect: String,
    /// The store's index behind it, where it was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v2_index: Option<u64>,
    /// The segment it stands in.
    pub segment: String,
    /// Offset of its data there.
    pub offset: u64,
}
