//! The write-ahead log: segments in order, one chain of checksums, and which entries stand in the end (FORMATS 4).
//!
//! One pass over all segments, before anything is chosen: entries are kept as references into the maps. Damage ends a run of
//! sound records, and the next segment begins another: a snapshot may make the earlier ones unnecessary, which is found when
//! it is chosen. What damage means for the result is the caller's question; here nothing is believed across it. Knows no
//! v2 tree.

use std::path::{Path, PathBuf};

use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, Term};
use crate::source::evidence::Marks;
use crate::source::live::Access;
use crate::source::map::Map;
use crate::source::raft::{
    Entry, EntryKind, HardState, Metadata, SnapRecord, is_migration_entry, parse_entry, parse_hard_state,
    parse_metadata, parse_snap_record,
};
use crate::source::record::{Broken, Frame, Record, RecordType, is_being_written, looks_torn, read_frame};

/// The name of a segment: its place in the sequence and the index its first entry was to have (FORMATS 1.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Counts segments from 0.
    pub seq: u64,
    /// Index of the first entry saved into it.
    pub index: RaftIndex,
    /// Where it is.
    pub path: PathBuf,
}

/// An entry in the log, by reference.
#[derive(Debug, Clone, Copy)]
pub struct EntryRef {
    /// Its index.
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
    /// Its kind.
    pub kind: EntryKind,
    segment: u32,
    len: u32,
    offset: u64,
}

/// How the log ends.
#[derive(Debug)]
pub enum End {
    /// At a frame boundary.
    Clean,
    /// In a record whose writing was cut short, or not done yet; what is there of it does not count.
    Torn {
        /// The last segment.
        segment: PathBuf,
        /// Offset of the torn frame.
        offset: u64,
    },
    /// In damage: what stands behind it is not known.
    Damaged(Error),
}

/// A log, read: its last run of sound records.
#[derive(Debug)]
pub struct Wal {
    segments: Vec<Segment>,
    run: Run,
    earlier: Vec<Run>,
}

/// Records without damage between them.
#[derive(Debug)]
struct Run {
    scan: Scan,
    end: End,
}

#[derive(Debug)]
struct Segment {
    name: SegmentName,
    map: Map,
    /// Where the writing stood, in a log that was being written to.
    written: Option<u64>,
}

impl Segment {
    /// Whether the record that begins here was seen while it was being written.
    fn is_being_written(&self, offset: u64) -> bool {
        self.written.is_some_and(|written| is_being_written(self.map.bytes(), offset, written))
    }
}

impl Wal {
    /// Reads all segments, which must be sorted by name. Damage is no error here: see [`Wal::end`] and [`Wal::damage`].
    ///
    /// # Errors
    /// A segment cannot be opened.
    pub fn read(names: &[SegmentName], access: Access) -> Result<Wal> {
        let names = contiguous(names);
        let open = |(number, name): (usize, &SegmentName)| {
            let (map, written) = match number + 1 == names.len() {
                true => access.open_growing(&name.path)?,
                false => (access.open(&name.path)?, None),
            };
            Ok(Segment { name: name.clone(), map, written })
        };
        Ok(Wal::scan(names.iter().enumerate().map(open).collect::<Result<_>>()?))
    }

    /// Reads a log that is in memory: the segments' names, which must be sorted, and their bytes.
    ///
    /// # Errors
    /// The damage that it ends in.
    pub fn of_bytes(segments: Vec<(SegmentName, Vec<u8>)>) -> Result<Wal> {
        let names: Vec<SegmentName> = segments.iter().map(|(name, _)| name.clone()).collect();
        let skip = names.len() - contiguous(&names).len();
        let held = |(name, bytes): (SegmentName, _)| Segment { map: Map::held(&name.path, bytes), name, written: None };
        let mut wal = Wal::scan(segments.into_iter().skip(skip).map(held).collect());
        wal.take_damage().map_or(Ok(wal), Err)
    }

    fn scan(segments: Vec<Segment>) -> Wal {
        let mut earlier = Vec::new();
        let mut scan = Scan::begin(segments.first());
        let mut end = End::Clean;
        for (number, segment) in segments.iter().enumerate() {
            let last = number + 1 == segments.len();
            if let Some(error) = scan.breaks_at(segment) {
                let end = End::Damaged(error.in_file(&segment.name.path));
                earlier.push(Run { scan: std::mem::replace(&mut scan, Scan::begin(Some(segment))), end });
            }
            end = match scan.segment(number, segment, last) {
                Ok(None) => continue,
                Ok(Some(offset)) => End::Torn { segment: segment.name.path.clone(), offset },
                Err(error) => End::Damaged(error.in_file(&segment.name.path)),
            };
            if !last {
                let next = Scan::begin(segments.get(number + 1));
                let end = std::mem::replace(&mut end, End::Clean);
                earlier.push(Run { scan: std::mem::replace(&mut scan, next), end });
            }
        }
        Wal { segments, run: Run { scan, end }, earlier }
    }

    /// Forgets the last run for the one before the last damage, if there is one; what stands between is lost then.
    pub fn fall_back(&mut self) -> bool {
        match self.earlier.pop() {
            Some(run) => {
                self.run = run;
                true
            }
            None => false,
        }
    }

    /// How the log ends.
    pub fn end(&self) -> &End {
        &self.run.end
    }

    /// The damage that the log ends in, as an error to be returned.
    pub fn take_damage(&mut self) -> Option<Error> {
        match std::mem::replace(&mut self.run.end, End::Clean) {
            End::Damaged(error) => Some(error),
            end => {
                self.run.end = end;
                None
            }
        }
    }

    /// Damage in segments before this run, of which nothing is used.
    pub fn damage(&self) -> impl DoubleEndedIterator<Item = &Error> {
        self.earlier.iter().filter_map(|run| match &run.end {
            End::Damaged(error) => Some(error),
            End::Clean | End::Torn { .. } => None,
        })
    }

    /// Where the log begins: by the name of its first segment, no later than with this entry.
    pub fn first_index(&self) -> RaftIndex {
        self.run.scan.first_index
    }

    /// Whose log it is; `None` for a log that ends before it says so.
    pub fn metadata(&self) -> Option<Metadata> {
        self.run.scan.metadata
    }

    /// The last hard state.
    pub fn hard_state(&self) -> Option<HardState> {
        self.run.scan.hard_state
    }

    /// All snapshot records, in file order.
    pub fn snapshots(&self) -> &[SnapRecord] {
        &self.run.scan.snapshots
    }

    /// What the form of its records says about the servers that wrote it.
    pub fn marks(&self) -> &Marks {
        &self.run.scan.marks
    }

    /// Entries that later ones replaced.
    pub fn overwritten(&self) -> u64 {
        self.run.scan.overwritten
    }

    /// True if the records stand in the order that `etcdctl backup` writes: all entries, then one hard state, then at most
    /// one more snapshot record (FORMATS 1.4).
    pub fn has_backup_order(&self) -> bool {
        self.run.scan.order.is_backup()
    }

    /// The entries in index order, without a gap; those before the last gap are not among them.
    pub fn entries(&self) -> &[EntryRef] {
        &self.run.scan.entries
    }

    /// The entry behind a reference.
    ///
    /// # Errors
    /// [`Reason::Damaged`] if its bytes changed since they were read.
    pub fn entry(&self, entry: &EntryRef) -> Result<Entry<'_>> {
        let segment = self.segments.get(entry.segment as usize);
        let data = segment.and_then(|segment| slice(segment.map.bytes(), entry.offset, u64::from(entry.len)));
        parse_entry(data.unwrap_or_default(), entry.offset).map_err(|e| e.in_file(self.segment_path(entry)))
    }

    /// The segment an entry stands in.
    pub fn segment_path(&self, entry: &EntryRef) -> &Path {
        self.segments.get(entry.segment as usize).map_or(Path::new(""), |segment| &segment.name.path)
    }

    /// The segments and their bytes, in order.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.segments.iter().map(|segment| (segment.name.path.as_path(), segment.map.bytes()))
    }

    /// The last segment and its size.
    pub fn last_segment(&self) -> Option<(&Path, u64)> {
        self.segments.last().map(|segment| (segment.name.path.as_path(), segment.map.bytes().len() as u64))
    }

    /// Whether a server made the last segment that preallocates them (3.0 and later).
    pub fn last_is_preallocated(&self) -> bool {
        self.run.scan.segment_padded
    }

    /// Index of the first and last entry.
    pub fn range(&self) -> Option<(RaftIndex, RaftIndex)> {
        Some((self.entries().first()?.index, self.entries().last()?.index))
    }

    /// The entry with this index.
    pub fn at(&self, index: RaftIndex) -> Option<&EntryRef> {
        let first = self.entries().first()?.index;
        self.entries().get(usize::try_from(index.0.checked_sub(first.0)?).ok()?)
    }

    /// The entries with indexes above `index`, or `None` if the first of them is missing.
    ///
    /// A log without entries still says by its name how far the log before it reached.
    pub fn after(&self, index: RaftIndex) -> Option<&[EntryRef]> {
        let next = index.0.saturating_add(1);
        let Some(first) = self.entries().first() else {
            return if next >= self.first_index().0 { Some(&[]) } else { None };
        };
        let skip = next.checked_sub(first.index.0)?;
        Some(self.entries().get(usize::try_from(skip).ok()?..).unwrap_or_default())
    }

    /// The highest index known to be committed; 0 without a hard state.
    pub fn commit(&self) -> RaftIndex {
        self.hard_state().map_or(RaftIndex(0), |state| state.commit)
    }
}

/// The last run of segments whose sequence numbers grow by one: older ones were left behind by a purge.
fn contiguous(names: &[SegmentName]) -> &[SegmentName] {
    let start = names.windows(2).rposition(|pair| match pair {
        [a, b] => a.seq.checked_add(1) != Some(b.seq),
        _ => false,
    });
    names.get(start.map_or(0, |at| at + 1)..).unwrap_or_default()
}

/// The state of one pass.
#[derive(Debug, Default)]
struct Scan {
    first_index: RaftIndex,
    crc: u32,
    entries: Vec<EntryRef>,
    metadata: Option<Metadata>,
    metadata_bytes: Vec<u8>,
    hard_state: Option<HardState>,
    snapshots: Vec<SnapRecord>,
    marks: Marks,
    /// Whether the last segment begins with a padded frame.
    segment_padded: bool,
    overwritten: u64,
    order: Order,
}

impl Scan {
    fn begin(segment: Option<&Segment>) -> Scan {
        Scan { first_index: segment.map_or(RaftIndex(0), |segment| segment.name.index), ..Scan::default() }
    }

    /// A segment begins with the checksum of all before it. Where it does not, the end of the one before is damaged or gone,
    /// and this one may be sound.
    fn breaks_at(&self, segment: &Segment) -> Option<Error> {
        match read_frame(segment.map.bytes(), 0) {
            Ok(Frame::Record { record, .. })
                if record.kind == RecordType::Crc && self.crc != 0 && self.crc != record.crc =>
            {
                let error = wrong_crc(&record, self.crc);
                Some(error.context("the segment does not continue the one before it"))
            }
            _ => None,
        }
    }

    /// Reads one segment. `Some` is the offset of a torn frame, which only the last one may have.
    fn segment(&mut self, number: usize, segment: &Segment, last: bool) -> Result<Option<u64>> {
        let bytes = segment.map.bytes();
        let mut offset = 0;
        let mut first = true;
        loop {
            let (record, next, padded) = match read_frame(bytes, offset) {
                Ok(Frame::End) => break,
                Ok(Frame::Record { record, next, padded }) => {
                    if first {
                        self.segment_padded = padded;
                    }
                    (record, next, padded)
                }
                Err(Broken::Torn(_)) if last => return Ok(Some(offset)),
                Err(_) if segment.is_being_written(offset) => return Ok(Some(offset)),
                Err(broken) => return Err(broken.into_error()),
            };
            if first && record.kind != RecordType::Crc {
                return Err(damaged(offset, "expected a checksum record at the beginning of a segment"));
            }
            first = false;
            if let Err(error) = self.check_crc(&record) {
                if last && (looks_torn(bytes, offset, next) || segment.is_being_written(offset)) {
                    return Ok(Some(offset));
                }
                return Err(error);
            }
            self.record(number, &record)?;
            self.marks.frame(record.len, padded);
            offset = next;
        }
        if first && !last {
            return Err(damaged(0, "expected records in a segment that has a successor, found none"));
        }
        Ok(None)
    }

    /// The chain of checksums (FORMATS 4.3).
    fn check_crc(&mut self, record: &Record<'_>) -> Result<()> {
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

    fn record(&mut self, segment: usize, record: &Record<'_>) -> Result<()> {
        let data = record.data.unwrap_or_default();
        let offset = record.data_offset;
        self.order.see(record.kind);
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
                self.snapshots.push(record);
            }
        }
        Ok(())
    }

    fn metadata(&mut self, data: &[u8], offset: u64) -> Result<()> {
        if self.metadata.is_some() {
            if self.metadata_bytes != data {
                return Err(damaged(offset, "expected the member metadata of the first segment, found another's"));
            }
            return Ok(());
        }
        self.metadata = Some(parse_metadata(data, offset)?);
        self.metadata_bytes = data.to_vec();
        Ok(())
    }

    fn entry(&mut self, segment: usize, data: &[u8], offset: u64) -> Result<()> {
        if self.first_index == RaftIndex(0) && is_migration_entry(data) && self.marks.migration() {
            return Ok(());
        }
        let entry = parse_entry(data, offset)?;
        self.marks.entry(&entry, data);
        if let Some(last) = self.entries.last().map(|e| e.index) {
            if entry.index > RaftIndex(last.0.saturating_add(1)) {
                // A snapshot was received from a leader: the entries between are not on this disk.
                self.entries.clear();
            } else if entry.index <= last {
                self.overwrite(entry.index);
            }
        }
        if let Some(previous) = self.entries.last()
            && entry.term < previous.term
        {
            let message = format!("expected an entry of term {} or later, found term {}", previous.term, entry.term);
            return Err(damaged(offset, message));
        }
        let reference = EntryRef {
            index: entry.index,
            term: entry.term,
            kind: entry.kind,
            segment: u32::try_from(segment).map_err(|_| damaged(offset, "expected fewer segments"))?,
            len: u32::try_from(data.len()).map_err(|_| damaged(offset, "expected an entry below 4 GiB"))?,
            offset,
        };
        self.entries.push(reference);
        Ok(())
    }

    /// A later entry replaces the one at its index and all behind it (FORMATS 4.7).
    fn overwrite(&mut self, index: RaftIndex) {
        let first = self.entries.first().map_or(index, |e| e.index);
        let keep = usize::try_from(index.0.saturating_sub(first.0)).unwrap_or(usize::MAX).min(self.entries.len());
        self.overwritten += (self.entries.len() - keep) as u64;
        self.entries.truncate(keep);
    }

    fn state(&mut self, data: &[u8], offset: u64) -> Result<()> {
        let state = parse_hard_state(data, offset)?;
        if let Some(previous) = self.hard_state
            && (state.term < previous.term || state.commit < previous.commit)
        {
            let message = format!(
                "expected a hard state of term {} and commit {} or later, found term {} and commit {}",
                previous.term, previous.commit, state.term, state.commit
            );
            return Err(damaged(offset, message));
        }
        self.marks.state(&state);
        self.hard_state = Some(state);
        Ok(())
    }
}

/// The order of record types so far, to recognise what `etcdctl backup` wrote.
#[derive(Debug, Default)]
struct Order {
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

    fn is_backup(&self) -> bool {
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

fn slice(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

fn damaged(offset: u64, message: impl Into<String>) -> Error {
    Error::new(Reason::Damaged, message).at(offset)
}

#[cfg(test)]
mod tests;
