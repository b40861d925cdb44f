//! The write-ahead log: segments in order, one chain of checksums, and which entries stand in the end (FORMATS 4).
//!
//! One pass over all segments, before anything is chosen: entries are kept as references into the
//! maps. Damage, a missing segment and a received snapshot divide the log into spans; what each of them proves is kept, and
//! nothing is believed across a gap. What that means for the result is the caller's question. Knows no v2 tree.

use std::path::Path;

use crate::error::{Error, Result};
use crate::ids::{RaftIndex, Term};
use crate::interrupt::Interrupt;
use crate::source::dir::SegmentName;
use crate::source::entries::End;
use crate::source::entries::EntryRef;
use crate::source::entries::Hole;
use crate::source::entries::Segment;
use crate::source::entries::Span;
use crate::source::evidence::Marks;
use crate::source::live_copy::Files;
use crate::source::map::Map;
use crate::source::raft::{Entry, HardState, Metadata, SnapRecord, parse_entry};
use crate::source::scan::Scan;

/// A log, read.
#[derive(Debug)]
pub struct Wal {
    segments: Vec<Segment>,
    scan: Scan,
    end: End,
}

impl Wal {
    /// Reads all segments, which must be sorted by name. Damage is no error here: see [`Wal::end`] and [`Wal::holes`].
    ///
    /// # Errors
    /// A segment cannot be opened; an interruption.
    pub fn read(names: &[SegmentName], files: &Files, interrupt: Interrupt<'_>) -> Result<Wal> {
        let open = |(number, name): (usize, &SegmentName)| {
            let (map, written) = match number + 1 == names.len() {
                true => files.open_growing(&name.path, interrupt)?,
                false => (files.open_segment(&name.path, interrupt)?, None),
            };
            Ok(Segment { name: name.clone(), map, written })
        };
        Wal::scan(names.iter().enumerate().map(open).collect::<Result<_>>()?, interrupt)
    }

    /// Reads a log that is in memory: the segments' names, which must be sorted, and their bytes.
    ///
    /// # Errors
    /// The damage that it ends in.
    pub fn of_bytes(segments: Vec<(SegmentName, Vec<u8>)>) -> Result<Wal> {
        let held = |(name, bytes): (SegmentName, _)| Segment { map: Map::held(&name.path, bytes), name, written: None };
        let mut wal = Wal::scan(segments.into_iter().map(held).collect(), Interrupt::default())?;
        wal.take_end_damage().map_or(Ok(wal), Err)
    }

    fn scan(segments: Vec<Segment>, interrupt: Interrupt<'_>) -> Result<Wal> {
        let (scan, end) = Scan::read(&segments, interrupt)?;
        Ok(Wal { segments, scan, end })
    }

    /// How the log ends.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// The damage that the log ends in, as an error to be returned.
    pub fn take_end_damage(&mut self) -> Option<Error> {
        match std::mem::replace(&mut self.end, End::Clean) {
            End::Damaged(error) => Some(error),
            end => {
                self.end = end;
                None
            }
        }
    }

    /// The first damage in the log, as an error to be returned.
    pub fn take_damage(&mut self) -> Option<Error> {
        let hole = self.scan.holes.drain(..).next().map(|hole| hole.error);
        hole.or_else(|| self.take_end_damage())
    }

    /// Records that are lost in the middle of the log.
    pub fn holes(&self) -> &[Hole] {
        &self.scan.holes
    }

    /// The first hole that may hide an entry above `index`.
    pub fn hole_above(&self, index: RaftIndex) -> Option<&Hole> {
        self.holes().iter().find(|hole| hole.next.is_none_or(|next| next.0 > index.0.saturating_add(1)))
    }

    /// Where the log begins: by the name of its first segment, no later than with this entry.
    pub fn first_index(&self) -> RaftIndex {
        self.scan.first_index
    }

    /// Whose log it is; `None` for a log that ends before it says so.
    pub fn metadata(&self) -> Option<Metadata> {
        self.scan.metadata
    }

    /// The last hard state.
    pub fn hard_state(&self) -> Option<HardState> {
        self.scan.hard_state
    }

    /// All snapshot records, in file order.
    pub fn snapshots(&self) -> &[SnapRecord] {
        &self.scan.snapshots
    }

    /// What the form of its records says about the servers that wrote it.
    pub fn marks(&self) -> &Marks {
        &self.scan.marks
    }

    /// Entries that later ones replaced.
    pub fn overwritten(&self) -> u64 {
        self.scan.overwritten
    }

    /// True if the records stand in the order that `etcdctl backup` writes: all entries, then one hard state, then at most
    /// one more snapshot record (FORMATS 1.4).
    pub fn has_backup_order(&self) -> bool {
        self.scan.order.is_backup()
    }

    /// The spans of the log, in file order; there is one at least.
    pub fn spans(&self) -> &[Span] {
        &self.scan.spans
    }

    /// The entries of the last span: the log as its member has it, without those before the last gap.
    pub fn entries(&self) -> &[EntryRef] {
        self.spans().last().map_or(&[], |span| &span.entries)
    }

    /// The entries that count, in index order: the last span, and before it what earlier spans prove to be committed.
    pub fn history(&self) -> Vec<&EntryRef> {
        let mut out: Vec<&EntryRef> = Vec::new();
        let mut end = RaftIndex(u64::MAX);
        for (number, span) in self.spans().iter().rev().enumerate() {
            let to = if number == 0 { end } else { span.committed };
            let counts = |entry: &&EntryRef| entry.index <= to && entry.index < end;
            out.extend(span.entries.iter().rev().filter(counts));
            end = out.last().map_or(end, |entry| entry.index);
        }
        out.reverse();
        out
    }

    /// Entries of earlier spans that nothing in this log proves to be committed, and whether a later snapshot took their place.
    pub fn unproven(&self) -> impl Iterator<Item = (&EntryRef, bool)> {
        let earlier = self.spans().split_last().map_or(&[][..], |(_, earlier)| earlier);
        let of = |span: &'_ Span| (span.committed, span.replaced);
        earlier.iter().flat_map(move |span| {
            let (committed, replaced) = of(span);
            span.entries.iter().filter(move |entry| entry.index > committed).map(move |entry| (entry, replaced))
        })
    }

    /// The entry that a reference names.
    ///
    /// # Errors
    /// [`Damaged`](crate::error::Reason::Damaged) if its bytes changed since they were read.
    pub fn entry(&self, entry: &EntryRef) -> Result<Entry<'_>> {
        let segment = self.segments.get(entry.segment as usize);
        let data = segment.and_then(|segment| slice(segment.map.bytes(), entry.offset, u64::from(entry.len)));
        parse_entry(data.unwrap_or_default(), entry.offset).map_err(|e| e.in_file(self.segment_path(entry)))
    }

    /// The segment an entry stands in.
    pub fn segment_path(&self, entry: &EntryRef) -> &Path {
        self.segments.get(entry.segment as usize).map_or(Path::new(""), |segment| &segment.name.path)
    }

    /// The segments' files, in order.
    pub fn maps(&self) -> impl Iterator<Item = &Map> {
        self.segments.iter().map(|segment| &segment.map)
    }

    /// The last segment, its size, and where its records end.
    pub fn last_segment(&self) -> Option<LastSegment<'_>> {
        let segment = self.segments.last()?;
        Some(LastSegment {
            name: &segment.name,
            len: segment.map.file_len(),
            records_end: self.scan.records_end,
            preallocated: self.scan.segment_is_padded.unwrap_or(self.scan.marks.padded.is_some()),
        })
    }

    /// Index of the first and last entry that counts.
    pub fn range(&self) -> Option<(RaftIndex, RaftIndex)> {
        if let [span] = self.spans() {
            return Some((span.entries.first()?.index, span.last()?));
        }
        let history = self.history();
        Some((history.first()?.index, history.last()?.index))
    }

    /// Term and index that the log ends with: those of its last entry, or of the snapshot that it begins after.
    pub fn last(&self) -> Option<(Term, RaftIndex)> {
        let span = self.spans().last()?;
        let entry = span.entries.last().map(|entry| (entry.term, entry.index));
        entry.or(span.base.map(|base| (base.term, base.index)))
    }

    /// The entry with this index, where it counts.
    pub fn at(&self, index: RaftIndex) -> Option<&EntryRef> {
        let (last, earlier) = self.spans().split_last()?;
        last.at(index)
            .or_else(|| earlier.iter().rev().filter(|span| index <= span.committed).find_map(|span| span.at(index)))
    }

    /// Whether the log has every entry above `index` that it ever had.
    ///
    /// A log without entries still says by its name how far the log before it reached.
    pub fn continues(&self, index: RaftIndex) -> bool {
        let next = index.0.saturating_add(1);
        let begins = self.spans().last().and_then(|span| {
            let first = span.entries.first().map(|entry| entry.index.0);
            first.or(span.base.map(|base| base.index.0.saturating_add(1)))
        });
        self.hole_above(index).is_none() && begins.unwrap_or(self.first_index().0) <= next
    }

    /// The highest index known to be committed; 0 without a hard state. Where the log is torn or damaged right after a hard state
    /// of a new term, that one does not count: what it commits may be what is missing.
    pub fn commit(&self) -> RaftIndex {
        self.scan.committed
    }
}

/// The last segment of a log, as far as its size says how the log ends.
#[derive(Debug, Clone, Copy)]
pub struct LastSegment<'w> {
    /// Its name.
    pub name: &'w SegmentName,
    /// Bytes of the file.
    pub len: u64,
    /// Bytes up to the end of its last whole record.
    pub records_end: u64,
    /// Whether a server made it that preallocates segments (3.0 and later).
    pub preallocated: bool,
}

fn slice(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

#[cfg(test)]
mod tests;
