//! One pass over the segments of a log (docs/formats.md 4.2 to 4.8).
//!
//! It follows the chain of checksums, and collects the hard state, the snapshot records, and the entries in spans. Must
//! not know where a conversion starts or what an entry asks for.

use crate::error::{Error, Reason, Result};
use crate::ids::{ByteOffset, RaftIndex, Term};
use crate::interrupt::Interrupt;
use crate::source::entries::{End, EntryRef, Hole, Segment, Span};
use crate::source::evidence::Marks;
use crate::source::frame::{
    Frame, Record, RecordType, Unreadable, after_damaged_head, find_records, frame_bytes, looks_torn, read_frame,
};
use crate::source::raft::{
    HardState, Metadata, SnapRecord, is_migration_entry, parse_entry, parse_hard_state, parse_metadata,
    parse_snap_record,
};

/// The result of a pass over all segments.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The index of the first entry, by the name of the first segment.
    pub(super) first_index: RaftIndex,
    pub(super) metadata: Option<Metadata>,
    pub(super) hard_state: Option<HardState>,
    pub(super) snapshots: Vec<SnapRecord>,
    /// The spans in file order.
    pub(super) spans: Vec<Span>,
    pub(super) holes: Vec<Hole>,
    pub(super) overwritten: u64,
    pub(super) order: Order,
    pub(super) marks: Marks,
    /// Whether the first frame with usable evidence in the last segment is padded, which shows who created the segment.
    pub(super) segment_is_padded: Option<bool>,
    /// End of the last complete record of the last segment, in bytes.
    pub(super) records_end: ByteOffset,
    /// The highest index that the log as a whole proves to be committed.
    pub(super) committed: RaftIndex,
    /// The span that receives entries.
    pub(super) open: Span,
    /// The running checksum after the last record.
    pub(super) crc: u32,
    metadata_bytes: Vec<u8>,
    /// Commit indexes of the hard states, ascending, without duplicates.
    commits: Vec<RaftIndex>,
    /// Whether the last record is a hard state.
    state_was_last: bool,
    /// A snapshot record that does not fit the entries, until a hard state commits it.
    pending: Option<SnapRecord>,
    /// Term of the last entry before the last hole, until another entry follows.
    term_before_hole: Option<Term>,
    /// Whether a complete record contradicts those before it: the segments are not all of one log.
    is_foreign: bool,
    /// Number of holes that a hard state follows.
    holes_before_state: usize,
    /// Bytes of the current segment that may still be read without success. A damaged length can claim any of them
    /// repeatedly.
    budget: u64,
}

/// How many times all bytes of a segment may be read without success.
const VAIN_READS: u64 = 32;

impl Scan {
    /// Reads segments, sorted by name.
    ///
    /// # Errors
    /// An interruption.
    pub(super) fn read(segments: &[Segment], interrupt: Interrupt<'_>) -> Result<(Scan, End)> {
        let first_index = segments.first().map_or(RaftIndex(0), |segment| segment.name.index);
        let mut scan = Scan { first_index, ..Scan::default() };
        let mut end = End::Clean;
        let mut previous: Option<&Segment> = None;
        interrupt.expect(segments.iter().map(|segment| segment.map.bytes().len() as u64).sum());
        for (number, segment) in segments.iter().enumerate() {
            let last = number + 1 == segments.len();
            scan.begin_segment(previous, segment);
            match scan.segment(number, segment, last, interrupt) {
                Ok(None) => {}
                Err(error) if matches!(error.reason(), Reason::Interrupted(_)) => return Err(error),
                Ok(Some(offset)) if last => end = End::Torn { segment: segment.name.path.clone(), offset },
                Ok(Some(offset)) => {
                    scan.hole(damaged(offset, "expected a whole record in a segment that has a successor"), segment);
                }
                Err(error) if last => end = End::Damaged(error.in_file(&segment.name.path)),
                Err(error) => scan.hole(error, segment),
            }
            previous = Some(segment);
            interrupt.done(segment.map.bytes().len() as u64);
        }
        let end = scan.end(end);
        Ok((scan, end))
    }

    /// Ends the pass. A hard state may be lost in a hole without a hard state after it.
    fn end(&mut self, end: End) -> End {
        let damaged = matches!(end, End::Damaged(_));
        // 2.0 writes the hard state before the entries that it commits, and the torn record may be one of them.
        let committed = if matches!(end, End::Clean) { self.commit() } else { self.certain_commit() };
        self.committed = committed;
        let has_entries = !self.open.entries.is_empty();
        self.open.committed = committed;
        self.spans.push(std::mem::take(&mut self.open));
        if damaged || (!has_entries && self.holes.iter().all(|hole| hole.next.is_some())) {
            return end;
        }
        match self.holes.drain(self.holes_before_state.min(self.holes.len())..).next() {
            Some(hole) => End::Damaged(hole.error),
            None => end,
        }
    }

    /// Begins a segment: its first record is the checksum of all data before it, and its name gives the next index. If
    /// they do not fit, the end of the previous segment is damaged or missing, and this segment may be sound.
    fn begin_segment(&mut self, previous: Option<&Segment>, segment: &Segment) {
        (self.segment_is_padded, self.records_end) = (None, ByteOffset(0));
        if let Some(previous) = previous
            && previous.name.seq.checked_add(1) != Some(segment.name.seq)
        {
            let expected = previous.name.seq.saturating_add(1);
            let message =
                format!("expected segment {expected:016x} before this one, found segment {:016x}", previous.name.seq);
            self.hole(Error::new(Reason::Gap, message), segment);
        }
        if let Ok(Frame::Record { record, .. }) = read_frame(segment.map.bytes(), ByteOffset(0))
            && record.kind == RecordType::Crc
            && self.crc != 0
            && self.crc != record.crc
        {
            let error = wrong_crc(&record, self.crc).context("the segment does not continue the one before it");
            self.hole(error, segment);
        }
        if let Some(hole) = self.holes.last_mut().filter(|hole| hole.next.is_none()) {
            hole.next = Some(segment.name.index).filter(|index| *index > RaftIndex(0));
        }
    }

    /// Reads one segment. `Some` is the offset of a torn frame.
    fn segment(
        &mut self,
        number: usize,
        segment: &Segment,
        last: bool,
        interrupt: Interrupt<'_>,
    ) -> Result<Option<ByteOffset>> {
        let bytes = segment.map.bytes();
        self.budget = VAIN_READS * bytes.len() as u64 + 4096;
        let mut offset = ByteOffset(0);
        let mut first = true;
        loop {
            interrupt.ask()?;
            let (record, next, padded) = match read_frame(bytes, offset) {
                Ok(Frame::End) => break,
                Ok(Frame::Record { record, next, padded }) => {
                    // A frame whose length is a multiple of 8 needs no padding.
                    let tells = padded || !(next - offset).is_multiple_of(8);
                    self.segment_is_padded = self.segment_is_padded.or(tells.then_some(padded));
                    (record, next, padded)
                }
                Err(Unreadable::Torn(_)) if last => return Ok(Some(offset)),
                Err(_) if segment.is_being_written(offset) => return Ok(Some(offset)),
                Err(broken) => {
                    offset = self.skip(broken.into_error(), segment, offset)?;
                    continue;
                }
            };
            if first && record.kind != RecordType::Crc {
                return Err(damaged(offset, "expected a checksum record at the beginning of a segment"));
            }
            first = false;
            match self.check_crc(&record) {
                Ok(()) => match self.record(number, &record) {
                    Ok(()) => self.marks.frame(record.len, padded),
                    Err(error) if self.is_foreign => return Err(error),
                    Err(error) => {
                        // The record is complete but unreadable: the checksums continue after it.
                        let Some(crc) = self.resumes(&record, bytes, next) else { return Err(error) };
                        self.hole(error, segment);
                        self.crc = crc;
                    }
                },
                Err(_) if last && (looks_torn(bytes, offset, next) || segment.is_being_written(offset)) => {
                    return Ok(Some(offset));
                }
                Err(error) => {
                    let Some(crc) = self.resumes(&record, bytes, next) else {
                        offset = self.skip(error, segment, offset)?;
                        continue;
                    };
                    self.hole(error, segment);
                    self.crc = crc;
                }
            }
            (offset, self.records_end) = (next, next);
        }
        if first && !last {
            return Err(damaged(ByteOffset(0), "expected records in a segment that has a successor, found none"));
        }
        Ok(None)
    }

    /// Returns the offset where reading continues after unreadable bytes. That is directly after them if their data or
    /// length is sound. Otherwise it is the first record that the checksum of the record before it proves; that record
    /// before is lost, because nothing proves it.
    fn skip(&mut self, error: Error, segment: &Segment, offset: ByteOffset) -> Result<ByteOffset> {
        if self.metadata.is_none() {
            return Err(error);
        }
        let bytes = segment.map.bytes();
        let Some(left) = self.budget.checked_sub(frame_bytes(bytes, offset)) else { return Err(error) };
        self.budget = left;
        let found = after_damaged_head(bytes, offset, self.crc, &mut self.budget)
            .or_else(|| find_records(bytes, offset, self.crc, &mut self.budget));
        let Some(found) = found else { return Err(error) };
        self.hole(error, segment);
        self.crc = found.crc;
        Ok(found.offset)
    }

    /// Checks the chain of checksums (docs/formats.md 4.3).
    pub(super) fn check_crc(&mut self, record: &Record<'_>) -> Result<()> {
        if record.kind == RecordType::Crc {
            if self.crc != 0 && self.crc != record.crc {
                return Err(wrong_crc(record, self.crc));
            }
            self.crc = record.crc;
            return Ok(());
        }
        let crc = crc32c::crc32c_append(self.crc, record.data.unwrap_or_default());
        if crc != record.crc {
            return Err(wrong_crc(record, crc));
        }
        self.crc = crc;
        Ok(())
    }

    /// Returns the checksum that the chain continues with after one damaged record, if the next record proves it: the
    /// checksum in the damaged record, or that of its data.
    fn resumes(&self, record: &Record<'_>, bytes: &[u8], next: ByteOffset) -> Option<u32> {
        let Ok(Frame::Record { record: after, .. }) = read_frame(bytes, next) else { return None };
        let of_data = crc32c::crc32c_append(self.crc, record.data.unwrap_or_default());
        let proves = |crc: &u32| crc32c::crc32c_append(*crc, after.data.unwrap_or_default()) == after.crc;
        [record.crc, of_data].into_iter().filter(|_| after.kind != RecordType::Crc).find(proves)
    }

    /// Adds the meaning of a record, whose checksum is right.
    pub(super) fn record(&mut self, segment: usize, record: &Record<'_>) -> Result<()> {
        let data = record.data.unwrap_or_default();
        let offset = record.data_offset;
        self.order.see(record.kind);
        self.state_was_last = record.kind == RecordType::State;
        match record.kind {
            RecordType::Crc if record.data.is_some() => {
                return Err(damaged(offset, "expected a checksum record without data"));
            }
            RecordType::Crc => {}
            RecordType::Metadata => self.metadata(data, offset)?,
            _ if self.metadata.is_none() => {
                return Err(damaged(offset, "expected member metadata before any other record"));
            }
            RecordType::Entry => self.entry(segment, data, offset)?,
            RecordType::State => self.state(data, offset)?,
            RecordType::Snapshot => {
                let record = parse_snap_record(data, offset)?;
                self.marks.snapshot(&record);
                self.snapshot(record);
            }
        }
        Ok(())
    }

    fn metadata(&mut self, data: &[u8], offset: ByteOffset) -> Result<()> {
        if self.metadata.is_some() {
            if self.metadata_bytes != data {
                self.is_foreign = true;
                return Err(damaged(offset, "expected the member metadata of the first segment, found another's"));
            }
            return Ok(());
        }
        self.metadata = Some(parse_metadata(data, offset)?);
        self.metadata_bytes = data.to_vec();
        Ok(())
    }

    fn entry(&mut self, segment: usize, data: &[u8], offset: ByteOffset) -> Result<()> {
        if self.first_index == RaftIndex(0) && is_migration_entry(data) && self.marks.migration() {
            return Ok(());
        }
        let entry = parse_entry(data, offset)?;
        self.marks.entry(&entry, data);
        let reference = EntryRef {
            index: entry.index,
            term: entry.term,
            kind: entry.kind,
            segment: u32::try_from(segment).map_err(|_| damaged(offset, "expected fewer segments"))?,
            len: u32::try_from(data.len()).map_err(|_| damaged(offset, "expected an entry below 4 GiB"))?,
            offset,
        };
        if let Some(record) = self.pending.filter(|record| self.follows_snapshot(*record, &reference)) {
            self.split(record);
        }
        if let Some(hole) = self.holes.last_mut() {
            hole.next.get_or_insert(entry.index);
            // Entries of one term are in the log of one leader. Any other entry may have replaced some entries before
            // it.
            if self.open.entries.is_empty()
                && self.term_before_hole.take() == Some(entry.term)
                && entry.index > hole.before
            {
                hole.remains = hole.before;
            }
        }
        match self.open.last() {
            // A leader sent a snapshot: the entries between are not on this disk.
            Some(last) if entry.index.0 > last.0.saturating_add(1) => {
                self.close_span(self.commit_below(entry.index), true);
            }
            Some(last) if entry.index <= last => self.overwrite(entry.index),
            _ => {}
        }
        let span = &mut self.open;
        let before = |base: &SnapRecord| base.index.0.checked_add(1) == Some(entry.index.0);
        let previous = span.entries.last().map(|entry| entry.term).or(span.base.filter(before).map(|base| base.term));
        if let Some(previous) = previous.filter(|previous| entry.term < *previous) {
            let message = format!("expected an entry of term {previous} or later, found term {}", entry.term);
            self.is_foreign = true;
            return Err(damaged(offset, message));
        }
        span.entries.push(reference);
        Ok(())
    }

    /// Returns whether the member can have written an entry only after this snapshot. Then the entry follows the
    /// snapshot, not the entries of the log.
    fn follows_snapshot(&self, record: SnapRecord, entry: &EntryRef) -> bool {
        let span = &self.open;
        let beyond = span.last().is_some_and(|last| entry.index.0 > last.0.saturating_add(1));
        let falls = span.at(record.index).is_some_and(|stale| entry.term < stale.term);
        beyond || (falls && record.index.0.checked_add(1) == Some(entry.index.0))
    }

    /// Replaces the entry at `index` and all after it by a later entry (docs/formats.md 4.7).
    fn overwrite(&mut self, index: RaftIndex) {
        let entries = &mut self.open.entries;
        let first = entries.first().map_or(index, |entry| entry.index);
        let keep = usize::try_from(index.0.saturating_sub(first.0)).unwrap_or(usize::MAX).min(entries.len());
        let replaced = (entries.len() - keep) as u64;
        entries.truncate(keep);
        self.overwritten += replaced;
    }

    fn state(&mut self, data: &[u8], offset: ByteOffset) -> Result<()> {
        let state = parse_hard_state(data, offset)?;
        if let Some(previous) = self.hard_state
            && (state.term < previous.term || state.commit < previous.commit)
        {
            self.is_foreign = true;
            let message = format!(
                "expected a hard state of term {} and commit {} or later, found term {} and commit {}",
                previous.term, previous.commit, state.term, state.commit
            );
            return Err(damaged(offset, message));
        }
        self.marks.state(&state);
        self.hard_state = Some(state);
        if self.commits.last() != Some(&state.commit) {
            self.commits.push(state.commit);
        }
        self.holes_before_state = self.holes.len();
        if let Some(record) = self.pending.filter(|record| record.index <= state.commit) {
            self.split(record);
        }
        Ok(())
    }

    /// Handles a snapshot record. A snapshot that the member took fits the entry at its index. One from a leader may
    /// not fit. If it is committed, the entries up to it are not part of the history.
    fn snapshot(&mut self, record: SnapRecord) {
        self.snapshots.push(record);
        let commit = self.commit();
        let span = &self.open;
        let fits = match (span.entries.first(), span.at(record.index)) {
            (Some(_), Some(entry)) => entry.term == record.term,
            (Some(first), None) => record.index < first.index,
            (None, _) => span.base.is_some_and(|base| record.index <= base.index),
        };
        if fits || record.index == RaftIndex(0) {
            return;
        }
        if record.index <= commit || span.entries.is_empty() { self.split(record) } else { self.pending = Some(record) }
    }

    /// Ends the span at a received snapshot; the entries after its index begin the next span.
    fn split(&mut self, record: SnapRecord) {
        self.pending = None;
        let committed = self.commit_below(record.index);
        let entries = &mut self.open.entries;
        let after = entries.split_off(entries.partition_point(|entry| entry.index <= record.index));
        self.close_span(committed, true);
        self.open = Span { entries: after, base: Some(record), ..Span::default() };
    }

    /// Ends the span, and begins another.
    fn close_span(&mut self, committed: RaftIndex, replaced: bool) {
        let mut span = std::mem::take(&mut self.open);
        (span.committed, span.replaced) = (committed, replaced);
        if !span.entries.is_empty() {
            self.spans.push(span);
        }
    }

    /// Records lost records. They can have replaced entries before them.
    fn hole(&mut self, error: Error, segment: &Segment) {
        self.term_before_hole = self.open.entries.last().map(|entry| entry.term);
        let before = self.open.last().or(self.open.base.map(|base| base.index)).unwrap_or_default();
        let remains = self.certain_commit().min(before);
        self.close_span(remains, false);
        self.pending = None;
        // The next checksum record starts the chain again.
        self.crc = 0;
        self.holes.push(Hole { error: error.in_file(&segment.name.path), before, remains, next: None });
    }

    fn commit(&self) -> RaftIndex {
        self.commits.last().copied().unwrap_or_default()
    }

    /// Returns the highest recorded commit index below `index`. A member records a higher one when it takes a snapshot.
    fn commit_below(&self, index: RaftIndex) -> RaftIndex {
        let below = self.commits.partition_point(|commit| *commit < index);
        below.checked_sub(1).and_then(|at| self.commits.get(at)).copied().unwrap_or_default()
    }

    /// Forgets the commit indexes that [`Scan::certain_commit`] no longer needs.
    pub(super) fn forget_commits(&mut self) {
        let old = self.commits.len().saturating_sub(2);
        self.commits.drain(..old);
    }

    /// Returns the commit index that is valid for the entries in the log, whatever the next record was. Servers before
    /// 3.4.8 record the commit index of a received snapshot directly before the snapshot. A log with an entry of the
    /// current term fits the log of its leader.
    pub(super) fn certain_commit(&self) -> RaftIndex {
        let term = self.open.entries.last().map(|entry| entry.term);
        let fits = term == self.hard_state.map(|state| state.term);
        if self.state_was_last && !fits { self.commit_below(self.commit()) } else { self.commit() }
    }
}

/// The order of record types so far, which identifies the output of `etcdctl backup`.
#[derive(Debug, Default)]
pub(super) struct Order {
    states: u64,
    snapshots_before_state: u64,
    snapshots_after_state: u64,
    entries_after_state: u64,
    crcs: u64,
}

impl Order {
    fn see(&mut self, kind: RecordType) {
        match kind {
            RecordType::State => self.states += 1,
            RecordType::Snapshot if self.states == 0 => self.snapshots_before_state += 1,
            RecordType::Snapshot => self.snapshots_after_state += 1,
            RecordType::Entry if self.states > 0 => self.entries_after_state += 1,
            RecordType::Crc => self.crcs += 1,
            RecordType::Entry | RecordType::Metadata => {}
        }
    }

    pub(super) fn is_backup(&self) -> bool {
        self.crcs == 1
            && self.states == 1
            && self.entries_after_state == 0
            && self.snapshots_before_state == 1
            && self.snapshots_after_state <= 1
    }
}

fn wrong_crc(record: &Record<'_>, crc: u32) -> Error {
    damaged(record.data_offset, format!("expected data with CRC-32C {:08x}, found {crc:08x}", record.crc))
}

fn damaged(offset: ByteOffset, message: impl Into<String>) -> Error {
    Error::new(Reason::Damaged, message).at(offset)
}
