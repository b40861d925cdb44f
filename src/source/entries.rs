//! The parts of a log: segments, entries by reference, spans, holes, and the end of the log (docs/formats.md 4.2 to
//! 4.8).
//!
//! Plain data: `scan` builds it and `wal` answers from it. Must not know how a record is decoded.

use std::path::PathBuf;

use crate::error::Error;
use crate::ids::{ByteOffset, RaftIndex, Term};
use crate::source::dir::SegmentName;
use crate::source::frame::is_being_written;
use crate::source::map::Map;
use crate::source::raft::{EntryKind, SnapRecord};

/// A reference to an entry in the log.
#[derive(Debug, Clone, Copy)]
pub struct EntryRef {
    /// Its raft index.
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
    /// Its kind.
    pub kind: EntryKind,
    pub(super) segment: u32,
    pub(super) len: u32,
    pub(super) offset: ByteOffset,
}

impl EntryRef {
    /// Returns the offset of its first byte in its segment.
    pub fn offset(&self) -> ByteOffset {
        self.offset
    }

    /// Returns its length in bytes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns false: no entry is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Consecutive entries of one log that belong to one history.
///
/// A healthy log has one span. A snapshot received from a leader ends a span, because the entries before it may have
/// lost an election. Damage ends a span too.
#[derive(Debug, Default)]
pub struct Span {
    /// The entries, in index order.
    pub entries: Vec<EntryRef>,
    /// The log itself proves that entries up to this index are committed.
    pub committed: RaftIndex,
    /// The received snapshot after which the span begins.
    pub base: Option<SnapRecord>,
    /// Whether a received snapshot replaced the entries that the span does not prove; otherwise damage follows the
    /// span.
    pub replaced: bool,
}

impl Span {
    /// Returns the entry with this index.
    pub fn at(&self, index: RaftIndex) -> Option<&EntryRef> {
        let first = self.entries.first()?.index;
        self.entries.get(usize::try_from(index.0.checked_sub(first.0)?).ok()?)
    }

    /// Returns the index of the last entry.
    pub fn last(&self) -> Option<RaftIndex> {
        self.entries.last().map(|entry| entry.index)
    }
}

/// Unreadable records, with readable records after them.
#[derive(Debug)]
pub struct Hole {
    /// The error, with its offset.
    pub error: Error,
    /// The index of the last entry before the hole.
    pub before: RaftIndex,
    /// The index of the last entry before the hole that no lost record can have replaced.
    pub remains: RaftIndex,
    /// The first index after the hole; `None` if no entry follows.
    pub next: Option<RaftIndex>,
}

/// The end of a log.
#[derive(Debug)]
pub enum End {
    /// At a frame boundary.
    Clean,
    /// In a record whose write was interrupted or is in progress. The written part does not count.
    Torn {
        /// The last segment.
        segment: PathBuf,
        /// Offset of the torn frame.
        offset: ByteOffset,
    },
    /// In damage: what follows it is unknown.
    Damaged(Error),
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) map: Map,
    /// The end of the written bytes, in a log that an etcd was writing to.
    pub(super) written: Option<ByteOffset>,
}

impl Segment {
    /// Returns whether the record at this offset was read while it was being written.
    pub(super) fn is_being_written(&self, offset: ByteOffset) -> bool {
        self.written.is_some_and(|written| is_being_written(self.map.bytes(), offset, written))
    }
}
