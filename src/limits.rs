//! Every cap on untrusted input, each with its reason. A cap is never reached by data that etcd itself could have written.

/// Components of a v2 path. A server takes a path from an HTTP request whose head has at most 1 MiB and 4 KiB: 526,336
/// components of one byte and their slashes. The cap bounds how many directories one request of a crafted log can make.
pub const MAX_PATH_COMPONENTS: usize = 1 << 20;

/// Nodes in one snapshot: node numbers are `u32` in the table. 4 billion nodes are at least 600 GB of JSON.
pub const MAX_NODES: u64 = u32::MAX as u64 - 1;

/// Bytes of one JSON string in a snapshot: lengths are `u32`. etcd limits a request body to 10 MB.
pub const MAX_STRING: u64 = u32::MAX as u64;

/// Bytes of one bbolt key (docs/formats.md 8.4).
pub const MAX_BOLT_KEY: u32 = 32_768;

/// Bytes of one bbolt value (docs/formats.md 8.4: up to 2^31 - 2).
pub const MAX_BOLT_VALUE: u32 = (1 << 31) - 2;

/// Bytes of one record in the log: protobuf allows a message no more than 2 GiB. A longer one is a damaged length.
pub const MAX_RECORD: u64 = 1 << 31;

/// Bytes of all paths of a tree where each is written out in full, whatever the size of the source: a ledger of 1 GiB.
pub const MAX_LISTED_PATHS: u64 = 1 << 30;

/// The highest v2 index that becomes a revision: leaves room for as many revisions again (docs/formats.md 13.2).
pub const MAX_REVISION: u64 = 1 << 62;

/// Levels of a bbolt tree that a reader follows: with at least two elements a branch page, 2^48 pages need 48.
pub const MAX_BOLT_DEPTH: usize = 64;

/// Bytes of a hole at the end of a file that are still read: more than any segment preallocates (64 MiB) or any record has.
pub const MAX_TRAILING_HOLE: u64 = 128 << 20;

/// Bytes of holes with data after them, in one file: no file that etcd writes has any, and a copy of one has only those of its
/// empty parts.
pub const MAX_HOLES: u64 = 1 << 30;
