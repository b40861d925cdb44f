//! The log of a running member, read as it grows (docs/formats.md 4).
//!
//! The records go through the same pass as those of a log at rest. A record that is not complete yet is read again later: etcd writes
//! at the end of the last segment, and a restarted one writes over a torn end. Open segments stay readable after a purge. Must not
//! know the v2 tree, or what an entry asks for.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Reason, Result};
use crate::ids::{ByteOffset, ClusterId, MemberId, RaftIndex};
use crate::interrupt::Interrupt;
use crate::limits;
use crate::source::dir::{SegmentName, WalDir, relist};
use crate::source::entries::EntryRef;
use crate::source::evidence::Forms;
use crate::source::frame::{Frame, RecordType, Unreadable, frame_len, is_being_written, looks_torn, read_frame};
use crate::source::live_copy;
use crate::source::scan::Scan;

/// Where the segments of a log are.
#[derive(Debug, Clone)]
pub struct LogPlace {
    /// The data directory.
    pub dir: PathBuf,
    /// The directory of the log, if the data directory does not have it.
    pub wal_dir: Option<WalDir>,
}

impl LogPlace {
    fn segments(&self) -> Result<Vec<SegmentName>> {
        Ok(relist(&self.dir, self.wal_dir.as_ref())?.segments.unwrap_or_default())
    }
}

/// A log that is read as it grows.
#[derive(Debug)]
pub struct GrowingLog {
    place: LogPlace,
    scan: Scan,
    /// The segments that were begun; without a file after all its entries were taken.
    segments: Vec<Segment>,
    /// Later segments, open before they are needed.
    waiting: VecDeque<Segment>,
    /// Offset of the next frame in the last begun segment.
    offset: ByteOffset,
    /// The last entry that was taken.
    taken: RaftIndex,
    /// Whether the end of the log was reached once. Until then, old entries are read that later ones replace.
    caught_up: bool,
    /// A frame that is unreadable, but not as a half written one is: its offset, and when it was seen first.
    suspect: Option<(ByteOffset, Instant)>,
}

#[derive(Debug)]
struct Segment {
    name: SegmentName,
    file: Option<File>,
}

/// What a look at the log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grown {
    /// New records; there may be more.
    More,
    /// No complete record since the last look.
    Nothing,
    /// The log does not continue where the last look ended, for this reason.
    Broken(String),
}

/// Segments that are held open. More of them would keep too much of the disk from being freed.
const MAX_WAITING: usize = 32;
/// Bytes read at once: when nothing is expected, and after something was found.
const FIRST_READ: usize = 8 << 10;
const NEXT_READ: usize = 1 << 20;
/// Bytes of records after which a look ends.
const MAX_AT_ONCE: u64 = 4 << 20;
const SECTOR: u64 = 512;
/// A frame that stays unreadable for so long is damaged.
const PATIENCE: Duration = Duration::from_secs(2);

impl GrowingLog {
    /// Opens the log, to continue after an entry. `None` if the log begins after it.
    ///
    /// # Errors
    /// The directory cannot be listed, or the segment not opened.
    pub fn open(place: &LogPlace, after: RaftIndex) -> Result<Option<GrowingLog>> {
        let segments = place.segments()?;
        let next = RaftIndex(after.0.saturating_add(1));
        let Some(first) = segments.iter().rposition(|name| name.index <= next) else { return Ok(None) };
        let mut log = GrowingLog {
            place: place.clone(),
            scan: Scan::default(),
            segments: Vec::new(),
            waiting: VecDeque::new(),
            offset: ByteOffset(0),
            taken: after,
            caught_up: false,
            suspect: None,
        };
        for name in segments.into_iter().skip(first) {
            log.wait_for(name)?;
        }
        // A segment that was purged between the listing and the opening.
        let Some(segment) = log.waiting.pop_front() else { return Ok(None) };
        log.scan.first_index = segment.name.index;
        let begins = segment.name.index <= next;
        log.segments.push(segment);
        Ok(begins.then_some(log))
    }

    /// Opens segments that are new, so that they can be read after a purge. `Some` is the reason why the log is not the one that was
    /// opened: somebody replaced it.
    ///
    /// # Errors
    /// The directory cannot be listed, or a segment not opened.
    pub fn hold(&mut self) -> Result<Option<String>> {
        let Some(last) = self.waiting.back().or(self.segments.last()) else { return Ok(None) };
        let (seq, mut continues) = (last.name.seq, false);
        for name in self.place.segments()?.into_iter().filter(|name| name.seq >= seq) {
            if name.seq > seq {
                continues = true;
                self.wait_for(name)?;
            } else if self.is_last(&name) {
                continues = true;
            }
        }
        Ok((!continues).then(|| "the log was replaced".to_string()))
    }

    /// Returns whether a name is that of the last open segment, and still leads to the same file.
    fn is_last(&self, name: &SegmentName) -> bool {
        let Some(last) = self.waiting.back().or(self.segments.last()) else { return false };
        let identity = |found: Metadata| (found.dev(), found.ino());
        let opened = last.file.as_ref().and_then(|file| file.metadata().ok()).map(identity);
        last.name == *name && opened == fs::metadata(&name.path).ok().map(identity)
    }

    fn wait_for(&mut self, name: SegmentName) -> Result<()> {
        if self.waiting.len() >= MAX_WAITING {
            return Ok(());
        }
        match live_copy::open_file(&name.path) {
            Ok(file) => self.waiting.push_back(Segment { name, file: Some(file) }),
            Err(e) if e.reason() == Reason::SourceMissing => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Reads the records that are new.
    ///
    /// # Errors
    /// Damage, with segment and offset; a file that cannot be read; an interruption.
    pub fn grow(&mut self, interrupt: Interrupt<'_>) -> Result<Grown> {
        interrupt.ask()?;
        let grown = self.read().map_err(|e| e.in_file(self.path()))?;
        if grown != Grown::Nothing {
            return Ok(self.check_spans().unwrap_or(grown));
        }
        if self.waiting.is_empty() && self.is_at_end()? {
            self.hold()?;
        }
        if self.waiting.is_empty() {
            self.caught_up = true;
            return Ok(Grown::Nothing);
        }
        // The successor appears after the last write to this segment.
        match self.read().map_err(|e| e.in_file(self.path()))? {
            Grown::Nothing => Ok(self.begin_next()),
            grown => Ok(self.check_spans().unwrap_or(grown)),
        }
    }

    /// Returns the path of the segment that is being read.
    pub fn path(&self) -> &Path {
        self.segments.last().map_or(&self.place.dir, |segment| &segment.name.path)
    }

    /// Returns the member that writes the log, once its first record was read.
    pub fn member(&self) -> Option<MemberId> {
        self.scan.metadata.map(|metadata| metadata.node_id)
    }

    /// Returns the cluster of that member.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.scan.metadata.map(|metadata| metadata.cluster_id)
    }

    /// Returns the kinds of evidence about the servers that wrote the log.
    pub fn forms(&self) -> Forms {
        self.scan.marks.forms()
    }

    /// Returns the commit index that is valid for the entries so far, by the rule for a log at rest.
    pub fn commit(&self) -> RaftIndex {
        self.scan.certain_commit()
    }

    /// Returns the entries after the last taken one, in index order.
    pub fn entries(&self) -> &[EntryRef] {
        let entries = &self.scan.open.entries;
        entries.get(entries.partition_point(|entry| entry.index <= self.taken)..).unwrap_or_default()
    }

    /// Appends the bytes of an entry to a buffer.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn read_entry(&self, entry: &EntryRef, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.resize(start + entry.len as usize, 0);
        let segment = self.segments.get(entry.segment as usize);
        let Some((segment, file)) = segment.and_then(|segment| Some((segment, segment.file.as_ref()?))) else {
            return Err(Error::new(Reason::Internal, "expected the segment of an entry to be open"));
        };
        let read = file.read_exact_at(out.get_mut(start..).unwrap_or_default(), entry.offset.0);
        read.map_err(|e| Error::io(Reason::Unreadable, &segment.name.path, "read", e))
    }

    /// Returns the path of the segment with an entry.
    pub fn segment_path(&self, entry: &EntryRef) -> &Path {
        self.segments.get(entry.segment as usize).map_or(&self.place.dir, |segment| &segment.name.path)
    }

    /// Forgets the entries up to an index. The last one stays, for the rules about entries after it.
    pub fn take(&mut self, to: RaftIndex) {
        self.taken = self.taken.max(to);
        let entries = &mut self.scan.open.entries;
        let taken = entries.partition_point(|entry| entry.index <= to).saturating_sub(1);
        entries.drain(..taken);
        self.scan.forget_commits();
        let needed = self.entries().first().map_or(usize::MAX, |entry| entry.segment as usize);
        let current = self.segments.len().saturating_sub(1);
        for segment in self.segments.iter_mut().take(needed.min(current)) {
            segment.file = None;
        }
    }

    /// Returns why the entries do not continue after the last taken one: a leader sent a snapshot, or the log is another one.
    fn check_spans(&self) -> Option<Grown> {
        let scan = &self.scan;
        if let Some(base) = scan.open.base.filter(|base| base.index > self.taken) {
            return Some(Grown::Broken(format!("the leader sent a snapshot of raft index {}", base.index)));
        }
        let next = self.entries().first()?.index;
        let expected = self.taken.0.saturating_add(1);
        (next.0 != expected).then(|| Grown::Broken(format!("expected raft entry {expected} in the log, found {next}")))
    }

    fn is_at_end(&self) -> Result<bool> {
        let Some(file) = self.segments.last().and_then(|segment| segment.file.as_ref()) else { return Ok(true) };
        let len = file.metadata().map_err(|e| Error::io(Reason::Unreadable, self.path(), "read", e))?.len();
        // A segment that another follows ends with its last record.
        Ok(len <= self.offset.0)
    }

    fn begin_next(&mut self) -> Grown {
        let last = self.segments.last().map_or(0, |segment| segment.name.seq);
        match self.waiting.front().map(|segment| segment.name.seq) {
            Some(seq) if seq == last + 1 => {
                self.segments.extend(self.waiting.pop_front());
                (self.offset, self.suspect) = (ByteOffset(0), None);
                self.take(self.taken);
                Grown::More
            }
            Some(seq) => Grown::Broken(format!("segment {:016x} was purged, and the next one is {seq:016x}", last + 1)),
            None => Grown::Nothing,
        }
    }

    /// Reads complete records after the offset.
    fn read(&mut self) -> Result<Grown> {
        let before = self.offset;
        let mut len = FIRST_READ;
        loop {
            let base = ByteOffset(self.offset.0 / SECTOR * SECTOR);
            let bytes = self.bytes(base, len)?;
            let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if base + written as u64 <= self.offset {
                self.suspect = None;
                break;
            }
            let (from, is_last) = (self.offset, bytes.len() < len);
            let needed = self.records(&bytes, base, written, is_last).map_err(|e| e.counted_from(base))?;
            let needed = needed.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
            if self.offset - before > MAX_AT_ONCE || is_last || (self.offset == from && needed <= len) {
                break;
            }
            len = needed.max(NEXT_READ);
        }
        Ok(if self.offset > before { Grown::More } else { Grown::Nothing })
    }

    fn bytes(&self, base: ByteOffset, len: usize) -> Result<Vec<u8>> {
        let Some(file) = self.segments.last().and_then(|segment| segment.file.as_ref()) else { return Ok(Vec::new()) };
        let failed = |e| Error::io(Reason::Unreadable, self.path(), "read", e);
        let left = file.metadata().map_err(failed)?.len().saturating_sub(base.0);
        let mut bytes = vec![0; len.min(usize::try_from(left).unwrap_or(usize::MAX))];
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, base.0.saturating_add(read as u64)) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Reads the complete records in these bytes of the segment, which begin at `base`. Returns how many bytes from the beginning of
    /// its sector the next frame needs, if these are not enough and the file has more.
    fn records(&mut self, bytes: &[u8], base: ByteOffset, written: usize, is_last: bool) -> Result<Option<u64>> {
        let written = ByteOffset::from(written);
        loop {
            let at = ByteOffset(self.offset - base);
            let (mut record, next) = match read_frame(bytes, at) {
                Ok(Frame::End) => return Ok(None),
                Ok(Frame::Record { record, next, .. }) => (record, next),
                Err(unreadable) => {
                    let end = frame_len(bytes, at).map_or(8, |len| len.min(limits::MAX_RECORD)) + at.0;
                    if !is_last && end > bytes.len() as u64 {
                        return Ok(Some(end));
                    }
                    self.is_half_written(unreadable, bytes, at, written)?;
                    return Ok(None);
                }
            };
            if at == ByteOffset(0) && base == ByteOffset(0) && record.kind != RecordType::Crc {
                return Err(damaged(at, "expected a checksum record at the beginning of a segment"));
            }
            let before = self.scan.crc;
            if let Err(error) = self.scan.check_crc(&record) {
                self.scan.crc = before;
                let torn = looks_torn(bytes, at, next) || is_being_written(bytes, at, written);
                self.is_half_written(
                    if torn { Unreadable::Torn(error) } else { Unreadable::Damaged(error) },
                    bytes,
                    at,
                    written,
                )?;
                return Ok(None);
            }
            let data_at = record.data_offset;
            record.data_offset = base + data_at.0;
            let segment = self.segments.len().saturating_sub(1);
            // The offsets of errors count from the base here, those of entries from the beginning of the segment.
            self.scan.record(segment, &record).map_err(|e| Error::new(e.reason(), e.message()).at(data_at))?;
            (self.offset, self.suspect) = (base + next.0, None);
            if record.kind == RecordType::Entry {
                self.entry()?;
            }
        }
    }

    /// Waits for the rest of a frame. One that no interrupted write explains is damaged if it stays so.
    fn is_half_written(&mut self, found: Unreadable, bytes: &[u8], at: ByteOffset, written: ByteOffset) -> Result<()> {
        let error = match found {
            Unreadable::Torn(_) => return Ok(()),
            Unreadable::Damaged(_) if is_being_written(bytes, at, written) => return Ok(()),
            Unreadable::Damaged(error) => error,
        };
        match self.suspect {
            Some((offset, since)) if offset == self.offset && since.elapsed() > PATIENCE => Err(error),
            Some((offset, _)) if offset == self.offset => Ok(()),
            _ => {
                self.suspect = Some((self.offset, Instant::now()));
                Ok(())
            }
        }
    }

    /// Checks that the last entry does not replace a taken one.
    fn entry(&self) -> Result<()> {
        let Some(index) = self.scan.open.last() else { return Ok(()) };
        if index <= self.taken && self.caught_up {
            let message =
                format!("expected raft entries after {}, which is committed, found entry {index} again", self.taken);
            return Err(Error::new(Reason::TwoHistories, message));
        }
        Ok(())
    }
}

fn damaged(offset: ByteOffset, message: &str) -> Error {
    Error::new(Reason::Damaged, message).at(offset)
}
