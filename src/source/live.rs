//! Files of an etcd that is running: copied into memory, so that what comes out is the state at some instant.
//!
//! A file that shrinks while it is mapped ends the process, and etcd cuts a segment's preallocated end off; so nothing is
//! mapped here. Each kind of file has its own reason why a copy is whole: a log only grows at its end, a database says in
//! its first pages which other pages count, and a snapshot has a checksum. What cannot be had in one go (a file was purged
//! between its listing and its opening, a record was seen half written) is had in another one. Knows no formats.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Kind, Reason, Result};
use crate::source::map::Map;

/// How the files of a source are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Mapped: nobody writes to them.
    #[default]
    AtRest,
    /// Copied: nobody writes to them, but somebody may begin to.
    Copied,
    /// Copied while an etcd is running on them: the record at the end of the log may be half written.
    Live,
}

impl Access {
    /// Opens a file that is written once, and then only removed.
    ///
    /// # Errors
    /// [`Reason::Unreadable`] if it is not a regular file or cannot be read.
    pub fn open(self, path: &Path) -> Result<Map> {
        match self {
            Access::AtRest => Map::open(path),
            Access::Copied | Access::Live => {
                let (file, len) = open(path)?;
                Ok(Map::held(path, copy(path, &file, len)?))
            }
        }
    }

    /// Opens a database, which is written in place: the pages that count are reached from the first two.
    ///
    /// # Errors
    /// As [`Access::open`]; and [`Reason::Locked`] if it changes faster than it can be read.
    pub fn open_db(self, path: &Path) -> Result<Map> {
        match self {
            Access::AtRest => Map::open(path),
            Access::Copied | Access::Live => copy_db(path, || {}),
        }
    }

    /// Opens the last segment of a log. The number is where the writing stood, where somebody may be writing: no byte
    /// behind it is anything but zero, and every byte before it is there.
    ///
    /// # Errors
    /// As [`Access::open`].
    pub fn open_growing(self, path: &Path) -> Result<(Map, Option<u64>)> {
        match self {
            Access::AtRest | Access::Copied => Ok((self.open(path)?, None)),
            Access::Live => copy_growing(path).map(|(map, written)| (map, Some(written))),
        }
    }
}

/// How often a source is read until it holds still for long enough.
const ATTEMPTS: u32 = 10;

const PAUSE: Duration = Duration::from_millis(50);

/// Reads again what could not be read, or not well, because it was being changed. What the last attempt gives counts.
///
/// # Errors
/// That of the last attempt; at once what no waiting cures.
pub fn again<T>(mut attempt: impl FnMut() -> Result<T>, is_settled: impl Fn(&T) -> bool) -> Result<T> {
    for _ in 1..ATTEMPTS {
        let found = attempt();
        let settled = match &found {
            Ok(found) => is_settled(found),
            // A file that is gone was purged between its listing and its opening.
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

/// The first two pages of a database, whatever the size of its pages.
const META_PAGES: usize = 2 << 16;

/// A transaction writes only to pages that the state before it does not need, and the first pages last: as long as these
/// stand, all that they lead to stands. `meanwhile` is what a test does to the file.
fn copy_db(path: &Path, mut meanwhile: impl FnMut()) -> Result<Map> {
    for _ in 0..ATTEMPTS {
        let (file, _) = open(path)?;
        let before = copy(path, &file, META_PAGES as u64)?;
        let len = file.metadata().map_err(|e| failed(path, "read", e))?.len();
        let bytes = copy(path, &file, len)?;
        meanwhile();
        let after = copy(path, &file, META_PAGES as u64)?;
        if before == after && bytes.starts_with(&before) {
            return Ok(Map::held(path, bytes));
        }
        thread::sleep(PAUSE);
    }
    let message = format!(
        "the database changed during each of {ATTEMPTS} readings, so that none of them is one state of it; stop the etcd that \
         is running on it, or convert a copy"
    );
    Err(Error::new(Reason::Locked, message).in_file(path))
}

/// Bytes that were seen to be written were written before they were seen, and all before them too: so a second reading
/// has them whole, where the first may have found a later page and not yet an earlier one.
fn copy_growing(path: &Path) -> Result<(Map, u64)> {
    let (file, len) = open(path)?;
    let written = end_of_writing(&file, len).map_err(|e| failed(path, "read", e))?;
    let mut bytes = copy(path, &file, len)?;
    let end = usize::try_from(written).unwrap_or(usize::MAX);
    bytes.get_mut(end..).unwrap_or_default().fill(0);
    Ok((Map::held(path, bytes), written))
}

/// Where the zeros begin that reach to the end of the file.
fn end_of_writing(file: &File, len: u64) -> io::Result<u64> {
    let mut chunk = vec![0; 1 << 20];
    let (mut at, mut end) = (0, 0);
    while at < len {
        let read = match file.read_at(&mut chunk, at) {
            Ok(0) => break,
            Ok(read) => read as u64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let part = chunk.get(..usize::try_from(read.min(len - at)).unwrap_or(0)).unwrap_or_default();
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        at += read;
    }
    Ok(end)
}

fn open(path: &Path) -> Result<(File, u64)> {
    // Asked before opening: opening a FIFO would wait for a writer.
    if !fs::metadata(path).map_err(|e| failed(path, "read", e))?.is_file() {
        return Err(Error::new(Reason::Unreadable, "expected a regular file").in_file(path));
    }
    let file = File::open(path).map_err(|e| failed(path, "open", e))?;
    let len = file.metadata().map_err(|e| failed(path, "read", e))?.len();
    Ok((file, len))
}

/// At most `len` bytes from the beginning.
fn copy(path: &Path, file: &File, len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    usize::try_from(len)
        .ok()
        .and_then(|len| bytes.try_reserve_exact(len).ok())
        .ok_or_else(|| failed(path, "hold in memory", io::ErrorKind::OutOfMemory.into()))?;
    let mut from_start = Positioned { file, at: 0 };
    from_start.by_ref().take(len).read_to_end(&mut bytes).map_err(|e| failed(path, "read", e))?;
    Ok(bytes)
}

/// Reads without moving the file's own position.
struct Positioned<'f> {
    file: &'f File,
    at: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
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

    #[test]
    fn the_end_of_writing_is_behind_the_last_byte_that_is_not_zero() {
        let at = |bytes: &[u8]| Access::Live.open_growing(file(bytes).path()).unwrap().1.unwrap();
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
        let map = Access::Copied.open(source.path()).unwrap();
        let db = Access::Live.open_db(source.path()).unwrap();
        source.as_file().set_len(0).unwrap();
        for map in [map, db] {
            assert_eq!(map.bytes(), [7; 100_000]);
        }
    }

    #[test]
    fn a_database_that_never_holds_still_is_refused() {
        let source = file(&[7; 1 << 20]);
        let write = |n: u32| source.as_file().write_all_at(&n.to_le_bytes(), 16).unwrap();
        let mut readings = 0;
        let always = copy_db(source.path(), || {
            readings += 1;
            write(readings);
        });
        assert_eq!((always.unwrap_err().reason(), readings), (Reason::Locked, ATTEMPTS));
        let mut readings = 0;
        let twice = copy_db(source.path(), || {
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
