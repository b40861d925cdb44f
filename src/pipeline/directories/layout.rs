//! The paths in the data directory of a member (docs/formats.md 1.1).

/// The folder of the snapshots and the database.
pub(in crate::pipeline) const SNAP: &str = "member/snap";
/// The folder of the log.
pub(in crate::pipeline) const WAL: &str = "member/wal";
/// The database.
pub(in crate::pipeline) const DB: &str = "member/snap/db";
