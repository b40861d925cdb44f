//! The caps on untrusted input, each with its reason.
//!
//! Data that etcd can have written never reaches a cap. A cap bounds what a crafted file can cost, or what a number can
//! express. Must not know what happens when a cap is reached: the reader of the data decides that.

/// Maximum number of components of a v2 path. A server reads a path from an HTTP request whose head has at most 1 MiB
/// and 4 KiB: 526,336 components of one byte, with their slashes. The cap bounds the directories that one request of a
/// crafted log can create.
pub const MAX_PATH_COMPONENTS: usize = 1 << 20;

/// Maximum number of nodes in one snapshot: node numbers are `u32` in the table. 4 billion nodes are at least 600 GB of
/// JSON.
pub const MAX_NODES: u64 = u32::MAX as u64 - 1;

/// Maximum length of one JSON string in a snapshot in bytes: lengths are `u32`. etcd limits a request body to 10 MB.
pub const MAX_STRING: u64 = u32::MAX as u64;

/// Maximum length of one bbolt key in bytes (docs/formats.md 8.4).
pub const MAX_BOLT_KEY: u32 = 32_768;

/// Maximum length of one bbolt value in bytes (docs/formats.md 8.4).
pub const MAX_BOLT_VALUE: u32 = (1 << 31) - 2;

/// Maximum length of one record in the log in bytes: protobuf limits a message to 2 GiB. A higher length is damage.
pub const MAX_RECORD: u64 = 1 << 31;

/// Maximum total length in bytes of all paths of a tree when each is written completely, independent of the size of the
/// source: a ledger of 1 GiB.
pub const MAX_LISTED_PATHS: u64 = 1 << 30;

/// The highest v2 index that becomes a revision. As many revisions remain for the future (docs/formats.md 13.2).
pub const MAX_REVISION: u64 = 1 << 62;

/// Maximum number of levels of a bbolt tree: with at least two elements in each branch page, 2^48 pages need 48 levels.
pub const MAX_BOLT_DEPTH: usize = 64;

/// Maximum length in bytes of a hole at the end of a file that is read: more than any segment preallocates (64 MB) and
/// any record has.
pub const MAX_TRAILING_HOLE: u64 = 128 << 20;

/// Maximum total length in bytes of holes with data after them in one file. Files of etcd have none, and a copy has
/// only those of its empty parts.
pub const MAX_HOLES: u64 = 1 << 30;

/// Maximum length in bytes of a report or a rules file. A report contains names of keys at most: a million of them take
/// about 100 MB.
pub const MAX_NAMED_FILE: u64 = 512 << 20;
