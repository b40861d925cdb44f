//! The open files of a source: mapped if nobody writes to them, copied into memory if an etcd is running on them. The
//! result is the state at one instant.
//!
//! etcd truncates the preallocated end of a segment and writes to a database in place, so a map would change during the
//! read. Each kind of file has its own proof of a consistent copy. A log only grows at its end. The first pages of a
//! database name its valid pages. A snapshot has a checksum. If a file was purged after its listing, or a record was
//! half written, the read is repeated. Must not know formats.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use memmap2::MmapMut;
use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Whence, lseek};

use crate::error::{Error, Kind, Reason, Result};
use crate::ids::ByteOffset;
use crate::interrupt::{self, Interrupt};
use crate::source::lock;
use crate::source::map::Map;
use crate::source::watch::{Locks, Watch};
use crate::{count, limits};

/// How the files of a source are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Mapped: nobody writes to them.
    #[default]
    AtRest,
    /// Copied: nobody writes to them, but an etcd may start.
    Copied,
    /// Copied while an etcd is running: the record at the end of the log may be half written.
    Live,
}

/// A reader for the files of a source.
#[derive(Debug, Clone, Default)]
pub struct Files {
    access: Access,
    watch: Arc<Watch>,
}

impl Files {
    /// Creates a reader with this access; the watch records the mapped files.
    pub fn new(access: Access, watch: &Arc<Watch>) -> Files {
        Files { access, watch: Arc::clone(watch) }
    }

    /// Returns how the files are read.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Returns the watch with the opened files.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Opens a snapshot: a file that is written once and has its own checksum.
    ///
    /// # Errors
    /// [`Reason::Unreadable`] if it is not a regular file or cannot be read; [`Reason::Damaged`] for a hole that no
    /// file of etcd has.
    pub fn open_snapshot(&self, path: &Path, interrupt: Interrupt<'_>) -> Result<Map> {
        self.open(path, Locks::None, interrupt)
    }

    /// Opens a segment that is complete.
    ///
    /// # Errors
    /// As [`Files::open_snapshot`].
    pub fn open_segment(&self, path: &Path, interrupt: Interrupt<'_>) -> Result<Map> {
        checked(self.open(path, Locks::Segment, interrupt)?, interrupt)
    }

    /// Opens the last segment of a log. If an etcd may be writing, the number is the end of the written bytes. All
    /// bytes before it are present, and all bytes after it are zero.
    ///
    /// # Errors
    /// As [`Files::open_snapshot`].
    pub fn open_growing(&self, path: &Path, interrupt: Interrupt<'_>) -> Result<(Map, Option<u64>)> {
        match self.access {
            Access::AtRest | Access::Copied => Ok((self.open_segment(path, interrupt)?, None)),
            Access::Live => copy_growing(path, interrupt).map(|(map, written)| (map, Some(written))),
        }
    }

    /// Opens a database, which is written in place. The first two pages lead to all valid pages.
    ///
    /// # Errors
    /// As [`Files::open_snapshot`]; [`Reason::Locked`] if the database changes faster than it can be read.
    pub fn open_db(&self, path: &Path, interrupt: Interrupt<'_>) -> Result<Map> {
        match self.access {
            Access::AtRest => checked(self.open(path, Locks::Db, interrupt)?, interrupt),
            Access::Copied | Access::Live => copy_db(path, interrupt, || {}),
        }
    }

    fn open(&self, path: &Path, locks: Locks, interrupt: Interrupt<'_>) -> Result<Map> {
        let source = Source::open(path)?;
        if self.access != Access::AtRest {
            return source.copy(interrupt);
        }
        let map = Map::of(path, &source.file, source.data_len()?, source.found.len())?;
        // A lock that exists now belongs to an etcd that already runs, so the watch must not look for it.
        let locks = if lock::is_in_use(&source.file).unwrap_or(false) { Locks::None } else { locks };
        self.watch.file(path, &source.found, locks, map.faults());
        Ok(map)
    }
}

/// Adds a checksum over all bytes of a map.
fn checked(mut map: Map, interrupt: Interrupt<'_>) -> Result<Map> {
    map.checksum(0..map.bytes().len(), interrupt)?;
    Ok(map)
}

/// Maps a file that is not part of a source.
///
/// # Errors
/// [`Reason::Unreadable`] if it is not a regular file or cannot be opened or mapped.
pub fn map(path: &Path) -> Result<Map> {
    let source = Source::open(path)?;
    Map::of(path, &source.file, source.data_len()?, source.found.len())
}

/// Opens a file that may grow while it is read.
///
/// # Errors
/// [`Reason::Unreadable`] if it is not a regular file or cannot be opened; [`Reason::SourceMissing`] if it does not exist.
pub(super) fn open_file(path: &Path) -> Result<File> {
    Source::open(path).map(|source| source.file)
}

/// Maximum number of attempts to read a source without a change.
const ATTEMPTS: u32 = 10;

const PAUSE: Duration = Duration::from_millis(50);

/// Repeats a read that failed or gave an uncertain result because the source was changing. The last attempt decides.
///
/// # Errors
/// That of the last attempt; at once an error that a repetition cannot resolve.
pub fn again<T>(mut attempt: impl FnMut() -> Result<T>, is_settled: impl Fn(&T) -> bool) -> Result<T> {
    for _ in 1..ATTEMPTS {
        let found = attempt();
        let settled = match &found {
            Ok(found) => is_settled(found),
            // A missing file was purged between its listing and its opening.
            Err(e) => {
                let passes = matches!(e.reason(), Reason::Locked | Reason::NotReached | Reason::SourceMissing);
                e.kind() != Kind::Damaged && !passes
            }
        };
        if settled {
            return found;
        }
        thread::sleep(PAUSE);
    }
    attempt()
}

/// The first two pages of a database, for any page size.
const META_PAGES: usize = 2 << 16;

/// Copies a database. A transaction writes only to pages that the previous state does not need, and writes the first
/// pages last. If the first pages are unchanged, all pages that they lead to are unchanged. A test passes changes to
/// the file as `meanwhile`.
fn copy_db(path: &Path, interrupt: Interrupt<'_>, mut meanwhile: impl FnMut()) -> Result<Map> {
    for _ in 0..ATTEMPTS {
        let before = Source::open(path)?.head(META_PAGES, interrupt)?;
        // The size is read again, because the database may have grown.
        let source = Source::open(path)?;
        let map = source.copy(interrupt)?;
        meanwhile();
        let after = source.head(META_PAGES, interrupt)?;
        if before == after && map.bytes().starts_with(&before) {
            return Ok(map);
        }
        thread::sleep(PAUSE);
    }
    let message =
        format!("the database changed during each of {ATTEMPTS} readings, so that none of them is one state of it");
    Err(Error::new(Reason::Locked, message).in_file(path).hint("stop that etcd, or convert a copy"))
}

/// Copies a growing segment. Bytes that were seen were written before, and so were all bytes before them. The first
/// read can contain a later page without an earlier one; a second read has all of them.
fn copy_growing(path: &Path, interrupt: Interrupt<'_>) -> Result<(Map, u64)> {
    let source = Source::open(path)?;
    let len = source.data_len()? as u64;
    let written = end_of_writing(&source, len, interrupt)?;
    let mut bytes = source.read(interrupt)?;
    let end = usize::try_from(written).unwrap_or(usize::MAX);
    if let Some(bytes) = &mut bytes {
        bytes.get_mut(end..).unwrap_or_default().fill(0);
    }
    Ok((source.copied(bytes)?, written))
}

/// Returns the offset after which all bytes of the file are zero.
fn end_of_writing(source: &Source<'_>, len: u64, interrupt: Interrupt<'_>) -> Result<u64> {
    let mut chunk = vec![0; 1 << 20];
    let (mut at, mut end) = (0, 0);
    while at < len {
        let read = source.read_into(&mut chunk, at, interrupt)? as u64;
        if read == 0 {
            break;
        }
        let part = chunk.get(..usize::try_from(read.min(len - at)).unwrap_or(0)).unwrap_or_default();
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        at += read;
    }
    Ok(end)
}

/// A regular file, open read-only.
struct Source<'p> {
    path: &'p Path,
    file: File,
    found: Metadata,
}

impl Source<'_> {
    fn open(path: &Path) -> Result<Source<'_>> {
        let regular = |found: Metadata| match found.is_file() {
            true => Ok(found),
            false => Err(Error::new(Reason::Unreadable, "expected a regular file").in_file(path)),
        };
        // Checked before the open, which is non-blocking: a FIFO would wait for a writer, and opening a device can have
        // effects.
        regular(fs::metadata(path).map_err(|e| failed(path, "read", e))?)?;
        let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
        let file = file.map_err(|e| failed(path, "open", e))?;
        let found = regular(file.metadata().map_err(|e| failed(path, "read", e))?)?;
        Ok(Source { path, file, found })
    }

    /// Returns how many bytes of the file to read: all bytes, except for a long hole at the end.
    fn data_len(&self) -> Result<usize> {
        let len = self.found.len();
        let to_read = if self.may_have_holes() { self.without_last_hole()? } else { len };
        usize::try_from(to_read).map_err(|_| failed(self.path, "map", io::ErrorKind::FileTooLarge.into()))
    }

    fn may_have_holes(&self) -> bool {
        self.found.len() > limits::MAX_TRAILING_HOLE && self.found.blocks().saturating_mul(512) < self.found.len()
    }

    fn without_last_hole(&self) -> Result<u64> {
        let len = self.found.len();
        let (mut end, mut holes) = (0, 0);
        while let Some(data) = self.seek(end, Whence::SeekData)? {
            holes += data.saturating_sub(end);
            if holes > limits::MAX_HOLES {
                let message = format!(
                    "expected data, found holes of {} with data after them: the file was not copied whole",
                    count::bytes(holes)
                );
                return Err(Error::new(Reason::Damaged, message).at(ByteOffset(end)).in_file(self.path));
            }
            // A file system that makes no progress has no usable information.
            end = self.seek(data, Whence::SeekHole)?.filter(|end| *end > data).unwrap_or(len);
        }
        Ok(len.min(end.saturating_add(limits::MAX_TRAILING_HOLE)))
    }

    /// Returns the next data or hole at or after the offset; `None` after the last data.
    fn seek(&self, from: u64, whence: Whence) -> Result<Option<u64>> {
        let Ok(from) = i64::try_from(from) else { return Ok(None) };
        match lseek(&self.file, from, whence) {
            Ok(at) => Ok(u64::try_from(at).ok()),
            Err(Errno::ENXIO) => Ok(None),
            // A file system without support for holes reports none.
            Err(_) => match whence {
                Whence::SeekData => Ok(u64::try_from(from).ok().filter(|from| *from < self.found.len())),
                _ => Ok(Some(self.found.len())),
            },
        }
    }

    /// Reads at most `len` bytes from the beginning.
    fn head(&self, len: usize, interrupt: Interrupt<'_>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = self.read_into(&mut bytes, 0, interrupt)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn copy(&self, interrupt: Interrupt<'_>) -> Result<Map> {
        self.copied(self.read(interrupt)?)
    }

    fn copied(&self, bytes: Option<MmapMut>) -> Result<Map> {
        match bytes {
            None => Ok(Map::held(self.path, Vec::new())),
            Some(bytes) => Map::copied(self.path, bytes, self.found.len()),
        }
    }

    /// Reads the file into private memory; holes use no memory.
    fn read(&self, interrupt: Interrupt<'_>) -> Result<Option<MmapMut>> {
        let len = self.data_len()?;
        if len == 0 {
            return Ok(None);
        }
        let mut bytes = MmapMut::map_anon(len).map_err(|e| failed(self.path, "hold in memory", e))?;
        let mut end = 0;
        while let Some(data) = self.seek(end, Whence::SeekData)? {
            end = self.seek(data, Whence::SeekHole)?.filter(|end| *end > data).unwrap_or(len as u64);
            let (from, to) =
                (usize::try_from(data).unwrap_or(len).min(len), usize::try_from(end).unwrap_or(len).min(len));
            self.read_into(bytes.get_mut(from..to).unwrap_or_default(), data, interrupt)?;
            if to == len {
                break;
            }
        }
        Ok(Some(bytes))
    }

    /// Reads until the buffer is full or the file ends. Returns the number of bytes read.
    fn read_into(&self, buffer: &mut [u8], offset: u64, interrupt: Interrupt<'_>) -> Result<usize> {
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
            interrupt.ask()?;
            let part = rest.len().min(interrupt::CHUNK);
            let rest = rest.get_mut(..part).unwrap_or_default();
            match self.file.read_at(rest, offset.saturating_add(read as u64)) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(self.path, "read", e)),
            }
        }
        Ok(read)
    }
}

fn failed(path: &Path, action: &str, e: io::Error) -> Error {
    Error::io(Reason::Unreadable, path, action, e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    fn files(access: Access) -> Files {
        Files::new(access, &Arc::default())
    }

    #[test]
    fn the_end_of_writing_is_after_the_last_byte_that_is_not_zero() {
        let live = files(Access::Live);
        let at = |bytes: &[u8]| live.open_growing(file(bytes).path(), Interrupt::default()).unwrap().1.unwrap();
        assert_eq!(at(b""), 0);
        assert_eq!(at(&[0; 5000]), 0);
        assert_eq!(at(b"\0a\0\0"), 2);
        let mut long = vec![0; 5 << 20];
        long[(3 << 20) + 7] = 1;
        assert_eq!(at(&long), (3 << 20) + 8);
    }

    #[test]
    fn a_copy_outlives_what_becomes_of_the_file() {
        let source = file(&[7; 100_000]);
        let map = files(Access::Copied).open_segment(source.path(), Interrupt::default()).unwrap();
        let db = files(Access::Live).open_db(source.path(), Interrupt::default()).unwrap();
        source.as_file().set_len(0).unwrap();
        for map in [map, db] {
            assert_eq!(map.bytes(), [7; 100_000]);
        }
    }

    #[test]
    fn every_copy_asks_whether_it_is_interrupted() {
        let source = file(&[7; 1000]);
        let stop = || Err(Error::new(Reason::Interrupted(15), ""));
        let interrupt = Interrupt::new(&stop);
        let path = source.path();
        for access in [Access::Copied, Access::Live] {
            let files = files(access);
            let opened = [
                files.open_snapshot(path, interrupt).map(drop),
                files.open_segment(path, interrupt).map(drop),
                files.open_growing(path, interrupt).map(drop),
                files.open_db(path, interrupt).map(drop),
            ];
            for result in opened {
                assert_eq!(result.unwrap_err().reason(), Reason::Interrupted(15), "{access:?}");
            }
        }
        // The test does not repeat a read that itself repeats reads.
        let mut tries = 0;
        let attempt = || -> Result<()> {
            tries += 1;
            interrupt.ask()
        };
        assert_eq!((again(attempt, |()| true).unwrap_err().reason(), tries), (Reason::Interrupted(15), 1));
    }

    #[test]
    fn a_database_that_never_holds_still_is_refused() {
        let source = file(&[7; 1 << 20]);
        let write = |n: u32| source.as_file().write_all_at(&n.to_le_bytes(), 16).unwrap();
        let mut readings = 0;
        let always = copy_db(source.path(), Interrupt::default(), || {
            readings += 1;
            write(readings);
        });
        assert_eq!((always.unwrap_err().reason(), readings), (Reason::Locked, ATTEMPTS));
        let mut readings = 0;
        let twice = copy_db(source.path(), Interrupt::default(), || {
            readings += 1;
            write(readings.min(3));
        });
        assert_eq!((twice.unwrap().bytes()[16], readings), (3, 4));
    }

    #[test]
    fn only_what_waiting_may_cure_is_tried_again() {
        let tries = |reason: Reason| {
            let mut tries = 0;
            let result: Result<()> = again(
                || {
                    tries += 1;
                    Err(Error::new(reason, ""))
                },
                |()| true,
            );
            assert_eq!(result.unwrap_err().reason(), reason);
            tries
        };
        assert_eq!((tries(Reason::NotEtcd), tries(Reason::Gap)), (1, ATTEMPTS));
        let mut tries = 0;
        let found = again(
            || {
                tries += 1;
                Ok(tries)
            },
            |found| *found == 3,
        );
        assert_eq!(found.unwrap(), 3);
    }
}
