//! The open data of one member: its log, the names of its snapshots, its v3 backends.
//!
//! `open` fills it, and `start` and `cluster` compare several. Nothing is selected or merged here. Must not know the
//! other members, or the content of a snapshot.

use std::path::PathBuf;

use crate::ids::{MemberId, RaftIndex};
use crate::source::dir::{Layout, SegmentName, SnapName};
use crate::source::entries::End;
use crate::source::live_copy::{Access, Files};
use crate::source::map::Map;
use crate::source::wal::Wal;

/// The hint for a damaged source.
pub(crate) const WHAT_TO_DO: &str =
    "take another copy, add the directories of the other members to `convert`, or skip the damage with --salvage";

/// The data of one member.
#[derive(Debug)]
pub struct Member {
    /// The path as the operator named it.
    pub path: PathBuf,
    /// The layout of the directory; `None` for a single `.snap` file.
    pub layout: Option<Layout>,
    /// The reader of the files.
    pub files: Files,
    /// The log; `None` for a single snapshot.
    pub wal: Option<Wal>,
    /// Segments that are not read, see `DataDir::unread_segments`.
    pub unread_segments: Vec<SegmentName>,
    /// `.snap` files, oldest first.
    pub snapshots: Vec<SnapName>,
    /// `.snap.broken` files, oldest first.
    pub broken_snapshots: Vec<SnapName>,
    /// The v3 backend, `snap/db`.
    pub db: Option<Map>,
    /// Backends that a leader sent with a snapshot, and that may not have replaced `db` yet (docs/formats.md 2.4).
    pub received_dbs: Vec<(RaftIndex, Map)>,
}

impl Member {
    /// Returns the id of the member, if the log contains it.
    pub fn id(&self) -> Option<MemberId> {
        Some(self.wal.as_ref()?.metadata()?.node_id)
    }

    /// Returns how the files were read, which shows whether an etcd was running.
    pub fn access(&self) -> Access {
        self.files.access()
    }

    /// Returns whether the member has a log without records.
    pub(super) fn has_empty_log(&self) -> bool {
        self.wal.as_ref().is_some_and(|wal| wal.metadata().is_none() && !matches!(wal.end(), End::Damaged(_)))
    }

    /// Returns whether an unread segment is a renamed file.
    pub fn is_renamed(&self, segment: &SegmentName) -> bool {
        segment.path.extension().is_some_and(|end| end == "broken")
    }

    /// Returns the commit index of the log; 0 without a log.
    pub fn commit(&self) -> RaftIndex {
        self.wal.as_ref().map_or(RaftIndex(0), Wal::commit)
    }

    /// Creates a member without a directory, whose log is in memory.
    pub(crate) fn of_log(wal: Wal) -> Member {
        Member { wal: Some(wal), ..Member::without_files(PathBuf::from("memory")) }
    }

    /// Creates a member without files.
    pub(super) fn without_files(path: PathBuf) -> Member {
        Member {
            path,
            layout: None,
            files: Files::default(),
            wal: None,
            unread_segments: Vec::new(),
            snapshots: Vec::new(),
            broken_snapshots: Vec::new(),
            db: None,
            received_dbs: Vec::new(),
        }
    }
}
