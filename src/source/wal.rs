//! The write-ahead log: segments in order, one chain of checksums, and the entries that count at the end
//! (docs/formats.md 4).
//!
//! One pass reads all segments before any decision and stores entries as references into the maps. Damage, a missing
//! segment and a received snapshot divide the log into spans. What each span proves is stored, and nothing is assumed
//! across a gap. The caller decides what that means for the result. Must not know the v2 tree.

use std::path::Path;

use crate::error::{Error, Result};
use crate::ids::{ByteOffset, RaftIndex, Term};
use crate::interrupt::Interrupt;
use crate::source::dir::SegmentName;
use crate::source::entries::{End, EntryRef, Hole, Segment, Span};
use crate::source::evidence::Marks;
use crate::source::live_copy::Files;
use crate::source::map::Map;
use crate::source::raft::{Entry, HardState, Metadata, SnapRecord, parse_entry};
use crate::source::scan::Scan;

/// Bytes that a processor reads from memory at once.
const LINE_BYTES: usize = 64;

/// A complete write-ahead log in parsed form.
#[derive(Debug)]
pub struct Wal {
    segments: Vec<Segment>,
    scan: Scan,
    end: End,
}

impl Wal {
    /// Reads all segments, which must be sorted by name. Damage is not an error here: see [`Wal::end`] and
    /// [`Wal::holes`].
    ///
    /// # Errors
    /// A segment cannot be opened; an interruption.
    pub fn read(names: &[SegmentName], files: &Files, interrupt: Interrupt<'_>) -> Result<Wal> {
        let open = |(number, name): (usize, &SegmentName)| {
            let (map, written) = match number + 1 == names.len() {
                true => files.open_growing(&name.path, interrupt)?,
                false => (files.open_segment(&name.path, interrupt)?, None),
            };
            Ok(Segment { name: name.clone(), map, written: written.map(ByteOffset) })
        };
        Wal::scan(names.iter().enumerate().map(open).collect::<Result<_>>()?, interrupt)
    }

    /// Reads a log in memory: the names of the segments, which must be sorted, and their bytes.
    ///
    /// # Errors
    /// The damage in which the log ends.
    pub fn of_bytes(segments: Vec<(SegmentName, Vec<u8>)>) -> Result<Wal> {
        let held = |(name, bytes): (SegmentName, _)| Segment { map: Map::held(&name.path, bytes), name, written: None };
        let mut wal = Wal::scan(segments.into_iter().map(held).collect(), Interrupt::default())?;
        wal.take_end_damage().map_or(Ok(wal), Err)
    }

    fn scan(segments: Vec<Segment>, interrupt: Interrupt<'_>) -> Result<Wal> {
        let (scan, end) = Scan::read(&segments, interrupt)?;
        Ok(Wal { segments, scan, end })
    }

    /// Returns how the log ends.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// Takes the damage at the end of the log, as an error to return.
    pub fn take_end_damage(&mut self) -> Option<Error> {
        match std::mem::replace(&mut self.end, End::Clean) {
            End::Damaged(error) => Some(error),
            end => {
                self.end = end;
                None
            }
        }
    }

    /// Takes the first damage in the log, as an error to return.
    pub fn take_damage(&mut self) -> Option<Error> {
        let hole = self.scan.holes.drain(..).next().map(|hole| hole.error);
        hole.or_else(|| self.take_end_damage())
    }

    /// Returns the lost records before the end of the log.
    pub fn holes(&self) -> &[Hole] {
        &self.scan.holes
    }

    /// Returns the first hole that may contain an entry above `index`.
    pub fn hole_above(&self, index: RaftIndex) -> Option<&Hole> {
        self.holes().iter().find(|hole| hole.next.is_none_or(|next| next.0 > index.0.saturating_add(1)))
    }

    /// Returns the index of the first entry, or a lower one: it comes from the name of the first segment.
    pub fn first_index(&self) -> RaftIndex {
        self.scan.first_index
    }

    /// Returns whether the log has the segment that its member wrote first.
    pub fn begins_with_first_segment(&self) -> bool {
        self.segments.first().is_some_and(|segment| (segment.name.seq, segment.name.index) == (0, RaftIndex(0)))
    }

    /// Returns the owner of the log; `None` if the log ends before that record.
    pub fn metadata(&self) -> Option<Metadata> {
        self.scan.metadata
    }

    /// Returns the last hard state.
    pub fn hard_state(&self) -> Option<HardState> {
        self.scan.hard_state
    }

    /// Returns all snapshot records, in file order.
    pub fn snapshots(&self) -> &[SnapRecord] {
        &self.scan.snapshots
    }

    /// Returns the evidence about the servers that wrote the log.
    pub fn marks(&self) -> &Marks {
        &self.scan.marks
    }

    /// Returns the number of entries that later ones replaced.
    pub fn overwritten(&self) -> u64 {
        self.scan.overwritten
    }

    /// Returns whether the records have the order that `etcdctl backup` writes: all entries, then one hard state, then
    /// at most one more snapshot record (docs/formats.md 1.4).
    pub fn has_backup_order(&self) -> bool {
        self.scan.order.is_backup()
    }

    /// Returns the spans of the log in file order, at least one.
    pub fn spans(&self) -> &[Span] {
        &self.scan.spans
    }

    /// Returns the entries of the last span: the log of the member, without the entries before the last gap.
    pub fn entries(&self) -> &[EntryRef] {
        self.spans().last().map_or(&[], |span| &span.entries)
    }

    /// Returns the entries that count, in index order: the last span, and the entries of earlier spans that are proven
    /// to be committed.
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

    /// Returns the entries of earlier spans that this log does not prove to be committed, and whether a later snapshot
    /// replaced them.
    pub fn unproven(&self) -> impl Iterator<Item = (&EntryRef, bool)> {
        let earlier = self.spans().split_last().map_or(&[][..], |(_, earlier)| earlier);
        let of = |span: &'_ Span| (span.committed, span.replaced);
        earlier.iter().flat_map(move |span| {
            let (committed, replaced) = of(span);
            span.entries.iter().filter(move |entry| entry.index > committed).map(move |entry| (entry, replaced))
        })
    }

    /// Parses the entry of a reference.
    ///
    /// # Errors
    /// [`Damaged`](crate::error::Reason::Damaged) if its bytes changed since the first read.
    pub fn entry(&self, entry: &EntryRef) -> Result<Entry<'_>> {
        let segment = self.segments.get(entry.segment as usize);
        let data = segment.and_then(|segment| slice(segment.map.bytes(), entry.offset, u64::from(entry.len)));
        parse_entry(data.unwrap_or_default(), entry.offset).map_err(|e| e.in_file(self.segment_path(entry)))
    }

    /// Prefetches the ends of entries, all at once: what an entry asks for is before its value and after it.
    pub fn read_ahead<'e>(&self, entries: impl Iterator<Item = &'e EntryRef>) {
        let ends = |entry: &EntryRef| {
            let bytes = self.segments.get(entry.segment as usize).map_or(&[][..], |segment| segment.map.bytes());
            let start = usize::try_from(entry.offset).unwrap_or(usize::MAX);
            let byte = |at: usize| bytes.get(start.saturating_add(at)).copied().unwrap_or(0);
            byte(0) ^ byte(LINE_BYTES) ^ byte(entry.len().saturating_sub(1))
        };
        std::hint::black_box(entries.fold(0, |all, entry| all ^ ends(entry)));
    }

    /// Returns the path of the segment with an entry.
    pub fn segment_path(&self, entry: &EntryRef) -> &Path {
        self.segments.get(entry.segment as usize).map_or(Path::new(""), |segment| &segment.name.path)
    }

    /// Returns the files of the segments, in order.
    pub fn maps(&self) -> impl Iterator<Item = &Map> {
        self.segments.iter().map(|segment| &segment.map)
    }

    /// Returns the last segment, its size, and the end of its records.
    pub fn last_segment(&self) -> Option<LastSegment<'_>> {
        let segment = self.segments.last()?;
        Some(LastSegment {
            name: &segment.name,
            len: segment.map.file_len(),
            records_end: self.scan.records_end,
            crc: self.scan.crc,
            preallocated: self.scan.segment_is_padded.unwrap_or(self.scan.marks.padded.is_some()),
        })
    }

    /// Returns the index of the first and last entry that counts.
    pub fn range(&self) -> Option<(RaftIndex, RaftIndex)> {
        if let [span] = self.spans() {
            return Some((span.entries.first()?.index, span.last()?));
        }
        let history = self.history();
        Some((history.first()?.index, history.last()?.index))
    }

    /// Returns the last term and index of the log: those of its last entry, or of the snapshot before its first one.
    pub fn last(&self) -> Option<(Term, RaftIndex)> {
        let span = self.spans().last()?;
        let entry = span.entries.last().map(|entry| (entry.term, entry.index));
        entry.or(span.base.map(|base| (base.term, base.index)))
    }

    /// Returns the entry with this index, if it counts.
    pub fn at(&self, index: RaftIndex) -> Option<&EntryRef> {
        let (last, earlier) = self.spans().split_last()?;
        last.at(index)
            .or_else(|| earlier.iter().rev().filter(|span| index <= span.committed).find_map(|span| span.at(index)))
    }

    /// Returns whether the log still has every entry above `index` that it ever had.
    ///
    /// The name of a log without entries still gives the index where the log before it ended.
    pub fn continues(&self, index: RaftIndex) -> bool {
        let next = index.0.saturating_add(1);
        let begins = self.spans().last().and_then(|span| {
            let first = span.entries.first().map(|entry| entry.index.0);
            first.or(span.base.map(|base| base.index.0.saturating_add(1)))
        });
        self.hole_above(index).is_none() && begins.unwrap_or(self.first_index().0) <= next
    }

    /// Returns the commit index; 0 without a hard state. A hard state of a new term directly before torn or damaged
    /// records does not count, because those records may be what it commits.
    pub fn commit(&self) -> RaftIndex {
        self.scan.committed
    }
}

/// The last segment of a log, with the sizes that show how the log ends.
#[derive(Debug, Clone, Copy)]
pub struct LastSegment<'w> {
    /// Its name.
    pub name: &'w SegmentName,
    /// Length of the file in bytes.
    pub len: u64,
    /// End of its last complete record, in bytes.
    pub records_end: ByteOffset,
    /// The running checksum at that end.
    pub crc: u32,
    /// Whether a server that preallocates segments (3.0 and later) created it.
    pub preallocated: bool,
}

fn slice(bytes: &[u8], offset: ByteOffset, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

#[cfg(test)]
mod tests;
