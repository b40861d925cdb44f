//! One member's data, opened: its log, the names of its snapshots, its v3 backends.

use std::path::PathBuf;

use crate::ids::{MemberId, RaftIndex};
use crate::source::dir::{Layout, SegmentName, SnapName};
use crate::source::entries::End;
use crate::source::live_copy::{Access, Files};
use crate::source::map::Map;
use crate::source::wal::Wal;

/// What can be done about a damaged source.
pub(crate) const WHAT_TO_DO: &str = "take another copy, give the other members' directories to `convert` too, or have it skip the damage with --salvage";

/// One member's data.
#[derive(Debug)]
pub struct Member {
    /// The path as it was named.
    pub path: PathBuf,
    /// A directory's layout; `None` for a lone `.snap` file.
    pub layout: Option<Layout>,
    /// How its files are read.
    pub files: Files,
    /// The log; `None` for a lone snapshot.
    pub wal: Option<Wal>,
    /// Segments that are not read, as [`DataDir::unread_segments`].
    pub unread_segments: Vec<SegmentName>,
    /// `.snap` files, oldest first.
    pub snapshots: Vec<SnapName>,
    /// `.snap.broken` files, oldest first.
    pub broken_snapshots: Vec<SnapName>,
    /// The v3 backend, `snap/db`.
    pub db: Option<Map>,
    /// Backends that came with a snapshot from a leader and may not have taken the place of `db` yet (FORMATS 2.4).
    pub received_dbs: Vec<(RaftIndex, Map)>,
}

impl Member {
    /// Its id, where its log says it.
    pub fn id(&self) -> Option<MemberId> {
        Some(self.wal.as_ref()?.metadata()?.node_id)
    }

    /// How its files were read: whether an etcd was running on it.
    pub fn access(&self) -> Access {
        self.files.access()
    }

    /// Whether there is a log, and nothing in it.
    pub(super) fn has_empty_log(&self) -> bool {
        self.wal.as_ref().is_some_and(|wal| wal.metadata().is_none() && !matches!(wal.end(), End::Damaged(_)))
    }

    /// Whether one of its unread segments is a file that was renamed.
    pub fn is_renamed(&self, segment: &SegmentName) -> bool {
        segment.path.extension().is_some_and(|end| end == "broken")
    }

    /// The highest index that its log knows to be committed; 0 without a log.
    pub fn commit(&self) -> RaftIndex {
        self.wal.as_ref().map_or(RaftIndex(0), Wal::commit)
    }

    /// A member without a directory: its log is in memory.
    pub(crate) fn of_log(wal: Wal) -> Member {
        Member { wal: Some(wal), ..Member::without_files(PathBuf::from("memory")) }
    }

    /// A member of which nothing was read.
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
