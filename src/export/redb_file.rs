//! redb files: written as a whole, and read without trust.
//!
//! A file is opened read-only; what redb would write to repair it goes to memory. The checksum of every page is tested
//! before the first table is read, and a panic of the library counts as damage. When the run is interrupted, a long
//! operation of the library (a commit, a check of every page) ends at its next read or write. Must not know the content
//! of the tables.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, Key, StorageBackend, StorageError, TableDefinition, Value, WriteTransaction,
};

use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;

/// The first bytes of a redb file.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// Maximum size of redb's cache in bytes for an export.
pub(super) const CACHE: usize = 64 << 20;

/// Maximum size of redb's cache in bytes for [`peek`].
const PEEK_CACHE: usize = 1 << 20;

/// Size in bytes of the blocks that store redb's writes in memory.
const BLOCK: u64 = 4096;

/// Interval between tests for an interruption while the library runs.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Creates a database in an empty file, and writes into it. The caller syncs the file. `cache` is the maximum size of
/// redb's cache in bytes.
///
/// # Errors
/// The file cannot be written; that of `write`; an interruption.
pub(super) fn create<T>(
    path: &Path,
    cache: usize,
    interrupt: Interrupt<'_>,
    write: impl FnOnce(&mut Database) -> Result<T>,
) -> Result<T> {
    stoppable(interrupt, |stop| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .and_then(|file| FileBackend::new(file).map_err(io::Error::other));
        let file = file.map_err(|e| Error::of_output("write the redb file", &e))?;
        let stoppable = Stoppable { backend: Unsynced(file), stop };
        let mut database = Builder::new().set_cache_size(cache).create_with_backend(stoppable).map_err(failed)?;
        let written = write(&mut database)?;
        database.close().map_err(failed)?;
        Ok(written)
    })
}

/// The flag that stops redb, which needs to own it.
type Stop = Arc<AtomicBool>;

/// Runs work that passes `Stop` to the library, and sets the flag when the run is interrupted. A second thread tests
/// for the interruption.
fn stoppable<T>(interrupt: Interrupt<'_>, work: impl FnOnce(Stop) -> Result<T>) -> Result<T> {
    let stop = Stop::default();
    let worked = thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        let stop_it = &stop;
        let ask = move || {
            while is_done.recv_timeout(ASK_EVERY) == Err(RecvTimeoutError::Timeout) {
                if interrupt.ask().is_err() {
                    stop_it.store(true, Ordering::Relaxed);
                    return;
                }
            }
        };
        let asking = thread::Builder::new().spawn_scoped(scope, ask);
        asking.map_err(|e| Error::new(Reason::Internal, format!("cannot start a thread: {e}")))?;
        let worked = work(Arc::clone(&stop));
        drop(done);
        worked
    });
    if stop.load(Ordering::Relaxed) { interrupt.ask().and(worked) } else { worked }
}

/// A file that redb does not sync. It has no name before the caller has synced it as a whole, so no crash leaves a part
/// of it.
#[derive(Debug)]
struct Unsynced(FileBackend);

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// A file whose reads and writes fail after the stop.
#[derive(Debug)]
struct Stoppable<B> {
    backend: B,
    stop: Stop,
}

impl<B> Stoppable<B> {
    fn go_on(&self) -> io::Result<&B> {
        if self.stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(&self.backend) }
    }
}

impl<B: StorageBackend> StorageBackend for Stoppable<B> {
    fn len(&self) -> io::Result<u64> {
        self.go_on()?.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.go_on()?.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.go_on()?.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.go_on()?.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.go_on()?.write(offset, data)
    }
}

/// Writes rows in the order of their keys into an empty table: those that `rows` passes to its argument.
///
/// # Errors
/// The file cannot be written; the rows are not in order ([`Reason::Internal`]); that of `rows`.
pub(super) fn fill<K: Key + 'static, V: Value + 'static>(
    transaction: &WriteTransaction,
    definition: TableDefinition<'_, K, V>,
    rows: impl FnOnce(&mut dyn FnMut(K::SelfType<'_>, V::SelfType<'_>) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let mut table = transaction.open_table(definition).map_err(failed)?;
    let mut cursor = table.upper_bound_mut(Bound::<K::SelfType<'_>>::Unbounded).map_err(failed)?;
    rows(&mut |key, value| cursor.insert_before(key, value).map_err(unordered))?;
    cursor.close().map_err(failed)
}

/// Converts an error while writing a database.
pub(super) fn failed(e: impl Into<redb::Error>) -> Error {
    match e.into() {
        redb::Error::Io(e) => Error::of_output("write the redb file", &e),
        e => Error::new(Reason::OutputFailed, format!("cannot write the redb file: {e}")),
    }
}

/// Converts an error while writing a table in the order of its keys.
fn unordered(e: redb::CursorError) -> Error {
    match e {
        redb::CursorError::UnorderedKey => Error::new(Reason::Internal, "expected rows in the order of their keys"),
        redb::CursorError::Storage(e) => failed(e),
        e => Error::new(Reason::OutputFailed, format!("cannot write the redb file: {e}")),
    }
}

/// Converts an error while reading a database.
pub(super) fn damaged(e: impl Into<redb::Error>) -> Error {
    match e.into() {
        redb::Error::Io(e) => Error::new(Reason::Unreadable, format!("cannot read the redb file: {e}")),
        e => Error::new(Reason::Damaged, format!("expected a sound redb file, found: {e}")),
    }
}

/// Returns whether a file is a redb file by its first bytes.
///
/// # Errors
/// The file is not a regular file or cannot be read.
pub(super) fn is_redb(path: &Path) -> Result<bool> {
    let unreadable = |e| Error::io(Reason::Unreadable, path, "read", e);
    // Checked before the open: opening a FIFO would wait for a writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Error::new(Reason::Unreadable, "expected a regular file").in_file(path));
    }
    let mut start = [0; MAGIC.len()];
    match File::open(path).and_then(|file| file.read_exact_at(&mut start, 0)) {
        Ok(()) => Ok(start == MAGIC),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(unreadable(e)),
    }
}

/// Opens a redb file, checks all of it, and reads from it.
///
/// # Errors
/// [`Reason::Damaged`]; the file cannot be read; that of `read`; an interruption.
pub(super) fn read<T>(
    path: &Path,
    cache: usize,
    interrupt: Interrupt<'_>,
    read: impl FnOnce(&Database) -> Result<T>,
) -> Result<T> {
    open(path, Some(cache), interrupt, read)
}

/// Reads from a redb file like [`read`], but without a check of every page, to detect what a file is.
///
/// # Errors
/// As [`read`].
pub(super) fn peek<T>(path: &Path, read: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
    open(path, None, Interrupt::default(), read)
}

/// Opens a redb file. With the size of a cache, checks all of it.
fn open<T>(
    path: &Path,
    checked: Option<usize>,
    interrupt: Interrupt<'_>,
    read: impl FnOnce(&Database) -> Result<T>,
) -> Result<T> {
    let work = |stop| {
        let overlay = Overlay::open(path).map_err(|e| Error::io(Reason::Unreadable, path, "read", e))?;
        let mut builder = Builder::new();
        builder.set_cache_size(checked.unwrap_or(PEEK_CACHE)).set_check_integrity_on_open(checked.is_some());
        let database = builder.create_with_backend(Stoppable { backend: overlay, stop }).map_err(|e| match e {
            DatabaseError::Storage(StorageError::Corrupted(what)) => {
                Error::new(Reason::Damaged, format!("expected a sound redb file, found: {what}"))
            }
            e => damaged(e),
        })?;
        read(&database)
    };
    let panicked =
        |_| Error::new(Reason::Damaged, "expected a sound redb file, found one that its own library cannot read");
    stoppable(interrupt, |stop| {
        panic::catch_unwind(AssertUnwindSafe(|| work(stop))).unwrap_or_else(|payload| Err(panicked(payload)))
    })
    .map_err(|e| e.in_file(path))
}

/// A file that is open read-only, with redb's writes in memory over it.
#[derive(Debug)]
struct Overlay {
    file: File,
    file_len: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    blocks: HashMap<u64, Vec<u8>>,
}

impl Overlay {
    fn open(path: &Path) -> io::Result<Overlay> {
        let file = File::open(path)?;
        let file_len = file.metadata()?.len();
        Ok(Overlay { file, file_len, state: Mutex::new(State { len: file_len, blocks: HashMap::new() }) })
    }

    fn state<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads from the file; zeros after its end.
    fn read_file(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(self.file_len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (there, after) = out.split_at_mut_checked(there).unwrap_or_default();
        after.fill(0);
        self.file.read_exact_at(there, offset)
    }

    fn block(&self, number: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; BLOCK as usize];
        self.read_file(number * BLOCK, &mut block)?;
        Ok(block)
    }
}

/// Returns the parts of a range that are each in one block: the block, the range in it, and the range in the whole.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let end = offset.saturating_add(len as u64);
    (offset / BLOCK..end.div_ceil(BLOCK)).map(move |number| {
        let (from, to) = ((number * BLOCK).max(offset), ((number + 1) * BLOCK).min(end));
        let within = |at: u64, start: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
        let start = number * BLOCK;
        (number, within(from, start)..within(to, start), within(from, offset)..within(to, offset))
    })
}

fn inside(len: u64, offset: u64, bytes: usize) -> io::Result<()> {
    if offset.checked_add(bytes as u64).is_some_and(|end| end <= len) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{bytes} bytes at {offset} are not in a file of {len} bytes"),
    ))
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        self.state(|state| Ok(state.len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.state(|state| {
            inside(state.len, offset, out.len())?;
            self.read_file(offset, out)?;
            if state.blocks.is_empty() {
                return Ok(());
            }
            for (number, within, place) in parts(offset, out.len()) {
                let block = state.blocks.get(&number).and_then(|block| block.get(within));
                if let (Some(block), Some(out)) = (block, out.get_mut(place)) {
                    out.copy_from_slice(block);
                }
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state(|state| {
            state.len = len;
            state.blocks.retain(|number, _| *number < len.div_ceil(BLOCK));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state(|state| {
            inside(state.len, offset, data.len())?;
            for (number, within, place) in parts(offset, data.len()) {
                let block = match state.blocks.entry(number) {
                    Entry::Occupied(block) => block.into_mut(),
                    Entry::Vacant(place) => place.insert(self.block(number)?),
                };
                if let (Some(block), Some(data)) = (block.get_mut(within), data.get(place)) {
                    block.copy_from_slice(data);
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("numbers");

    /// An interruption while the library runs ends the work in any state.
    #[test]
    fn an_interruption_ends_a_commit_and_a_check() {
        let interrupted = AtomicBool::new(false);
        let ask = || {
            let stop = Error::new(Reason::Interrupted(15), "stop");
            if interrupted.load(Ordering::Relaxed) { Err(stop) } else { Ok(()) }
        };
        let (interrupt, wait) = (Interrupt::new(&ask), || {
            interrupted.store(true, Ordering::Relaxed);
            thread::sleep(ASK_EVERY * 4);
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        let value = [7; 1000];
        let write = |database: &Database, from: u64| {
            let transaction = database.begin_write().map_err(failed)?;
            let mut rows = from..from + 10_000;
            fill(&transaction, NUMBERS, |put| rows.try_for_each(|number| put(number, &value[..])))?;
            transaction.commit().map_err(failed)
        };
        let never = Interrupt::default();
        let created = create(file.path(), CACHE, interrupt, |database| {
            write(database, 0)?;
            wait();
            // The writer does not test for the interruption, but its file does.
            let error = write(database, 10_000).unwrap_err();
            assert_eq!(error.reason(), Reason::OutputFailed, "{error}");
            Ok(())
        });
        assert_eq!(created.unwrap_err().reason(), Reason::Interrupted(15));
        file.as_file().set_len(0).unwrap();
        create(file.path(), CACHE, never, |database| write(database, 0)).unwrap();
        let before = std::fs::read(file.path()).unwrap();
        let overlay = Overlay::open(file.path()).unwrap();
        let checked = Builder::new()
            .set_check_integrity_on_open(true)
            .create_with_backend(Stoppable { backend: overlay, stop: Arc::new(AtomicBool::new(true)) });
        assert!(checked.is_err(), "a file that is to stop gives nothing");
        interrupted.store(false, Ordering::Relaxed);
        let read = read(file.path(), CACHE, interrupt, |_| {
            wait();
            Ok(())
        });
        assert_eq!(read.unwrap_err().reason(), Reason::Interrupted(15));
        assert!(std::fs::read(file.path()).unwrap() == before);
    }

    #[test]
    fn reading_returns_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let original: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &original).unwrap();
        let overlay = Overlay::open(&path).unwrap();
        let mut expected = original.clone();
        let mut write = |offset: usize, data: &[u8]| {
            overlay.write(offset as u64, data).unwrap();
            expected[offset..offset + data.len()].copy_from_slice(data);
        };
        write(4090, &[1; 12]);
        write(4000, &[2; 100]);
        write(0, &[3; 9000]);
        let mut found = vec![9; 10_000];
        overlay.read(0, &mut found).unwrap();
        assert!(found == expected);
        overlay.read(8990, &mut found[..20]).unwrap();
        assert_eq!(found[..20], expected[8990..9010]);
        assert!(overlay.read(9999, &mut found[..2]).is_err() && overlay.write(9999, &[0; 2]).is_err());
        overlay.set_len(10_010).unwrap();
        overlay.read(9_990, &mut found[..20]).unwrap();
        assert_eq!(found[..20], [&original[9_990..], &[0; 10]].concat());
        assert!(std::fs::read(&path).unwrap() == original);
    }
}
