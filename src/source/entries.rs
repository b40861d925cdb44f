//! What a log consists of once it is read: segments, entries by reference, spans, holes, and how it ends (FORMATS 4.2 to 4.8).
//!
//! Plain data, which `scan` makes and `wal` answers from. Must not know how a record is decoded.

use std::path::PathBuf;

use crate::error::Error;
use crate::ids::{RaftIndex, Term};
use crate::source::dir::SegmentName;
use crate::source::frame::is_being_written;
use crate::source::map::Map;
use crate::source::raft::{EntryKind, SnapRecord};

/// An entry in the log, by reference.
#[derive(Debug, Clone, Copy)]
pub struct EntryRef {
    /// Its index.
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
    /// Its kind.
    pub kind: EntryKind,
    pub(super) segment: u32,
    pub(super) len: u32,
    pub(super) offset: u64,
}

/// Entries of one log that follow each other without a gap, and belong to one history.
///
/// A healthy log has one span. A snapshot that was received from a leader ends a span, because the entries before it may have
/// lost an election; so does damage.
#[derive(Debug, Default)]
pub struct Span {
    /// The entries, in index order.
    pub entries: Vec<EntryRef>,
    /// The log itself proves that entries up to this one are committed.
    pub committed: RaftIndex,
    /// The received snapshot that the span begins after.
    pub base: Option<SnapRecord>,
    /// Whether a received snapshot took the place of what the span does not prove; if not, damage follows it.
    pub replaced: bool,
}

impl Span {
    /// The entry with this index.
    pub fn at(&self, index: RaftIndex) -> Option<&EntryRef> {
        let first = self.entries.first()?.index;
        self.entries.get(usize::try_from(index.0.checked_sub(first.0)?).ok()?)
    }

    /// Index of the last entry.
    pub fn last(&self) -> Option<RaftIndex> {
        self.entries.last().map(|entry| entry.index)
    }
}

/// Records that cannot be read, with readable ones after them.
#[derive(Debug)]
pub struct Hole {
    /// What is wrong, and where.
    pub error: Error,
    /// The last entry before it.
    pub before: RaftIndex,
    /// The last entry before it that what is lost did not replace.
    pub remains: RaftIndex,
    /// The first index that the log continues with; `None` if it does not.
    pub next: Option<RaftIndex>,
}

/// How the log ends.
#[derive(Debug)]
pub enum End {
    /// At a frame boundary.
    Clean,
    /// In a record whose writing was interrupted, or is not done yet; what is there of it does not count.
    Torn {
        /// The last segment.
        segment: PathBuf,
        /// Offset of the torn frame.
        offset: u64,
    },
    /// In damage: what follows it is not known.
    Damaged(Error),
}

/// A segment, opened.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) map: Map,
    /// Where the writing stood, in a log that was being written to.
    pub(super) written: Option<u64>,
}

impl Segment {
    /// Whether the record that begins here was seen while it was being written.
    pub(super) fn is_being_written(&self, offset: u64) -> bool {
        self.written.is_some_and(|written| is_being_written(self.map.bytes(), offset, written))
    }
}
