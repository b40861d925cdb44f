//! The paths in the data directory of a member (docs/formats.md 1.1).

/// The folder of the snapshots and the database.
pub(super) const SNAP: &str = "member/snap";
/// The folder of the log.
pub(super) const WAL: &str = "member/wal";
/// The database.
pub(super) const DB: &str = "member/snap/db";
