//! Reads a source: parses its snapshot, and hashes its files in the background. All commands share it.
//!
//! Must not know what becomes of the data.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle, scope};

use sha2::{Digest, Sha256};

use crate::error::{Error, Reason, Result};
use crate::interrupt::{self, Interrupt};
use crate::limits;
use crate::output::snapshot::hex;
use crate::report::SourceFile;
use crate::source::map::Map;
use crate::source::open::Opened;
use crate::v2store::replay::read_table_watched;
use crate::v2store::table::Table;

/// A source that was read.
#[derive(Clone, Copy)]
pub(super) struct Source<'m> {
    pub(super) opened: &'m Opened,
    /// The store of the start snapshot.
    pub(super) table: &'m Table<'m>,
    /// The maximum number of bytes for the changes of one replay; `None` without `--memory-limit`.
    pub(super) changes_limit: Option<u64>,
}

/// Reads the snapshot's store and hashes the source's files, in parallel.
///
/// # Errors
/// The snapshot is damaged; an interruption, which takes precedence.
pub(super) fn read_and_hash<'m>(opened: &'m Opened, interrupt: Interrupt<'_>) -> Result<(Table<'m>, Vec<SourceFile>)> {
    let files = SourceFiles::of(opened, interrupt);
    scope(|scope| {
        let mut hashing = files.start_hashing(scope);
        let table = read(opened, interrupt);
        let files = hashing.files()?;
        Ok((table?, files))
    })
}

/// Reads the snapshot's store.
///
/// # Errors
/// The snapshot is damaged; an interruption.
pub(super) fn read<'m>(opened: &'m Opened, interrupt: Interrupt<'_>) -> Result<Table<'m>> {
    interrupt.expect(opened.start.snapshot.as_ref().map_or(0, |snapshot| snapshot.json().len() as u64));
    read_table_watched(opened, interrupt)
}

/// The files of a source, and the hashes of those that were hashed.
pub(super) struct SourceFiles<'m> {
    maps: Vec<&'m Map>,
    /// The next file to hash.
    next: AtomicUsize,
    hashed: Vec<OnceLock<SourceFile>>,
    interrupt: Interrupt<'m>,
}

/// The hashing of files by threads of their own. Dropping it leaves them to the end of their scope.
pub(super) struct Hashing<'s, 'm> {
    files: &'s SourceFiles<'m>,
    threads: Vec<ScopedJoinHandle<'s, Result<()>>>,
}

impl<'m> SourceFiles<'m> {
    /// Lists the files of a source.
    pub(super) fn of(opened: &'m Opened, interrupt: Interrupt<'m>) -> SourceFiles<'m> {
        let maps = opened.maps();
        let hashed = maps.iter().map(|_| OnceLock::new()).collect();
        SourceFiles { maps, next: AtomicUsize::new(0), hashed, interrupt }
    }

    /// Starts to hash the files. A conversion waits for the hashes at its end only, or for `--skip-existing` after the snapshot. So
    /// they use the processors that other stages leave idle. With one thread for the whole run, they are left to [`Hashing::files`].
    pub(super) fn start_hashing<'s>(&'s self, scope: &'s Scope<'s, '_>) -> Hashing<'s, 'm> {
        let threads = (rayon::current_num_threads() - 1).min(self.maps.len());
        let threads = (0..threads).filter_map(|_| Builder::new().spawn_scoped(scope, || self.hash()).ok()).collect();
        Hashing { files: self, threads }
    }

    /// Hashes files until none is left.
    fn hash(&self) -> Result<()> {
        loop {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((map, hashed)) = self.maps.get(next).zip(self.hashed.get(next)) else { return Ok(()) };
            let file = source_file(map, self.interrupt)?;
            hashed.get_or_init(|| file);
        }
    }
}

impl Hashing<'_, '_> {
    /// Returns all files, in the order of the source. Helps with those that no thread has begun.
    ///
    /// # Errors
    /// The interruption.
    pub(super) fn files(&mut self) -> Result<Vec<SourceFile>> {
        self.files.hash()?;
        let panicked = |_| Err(Error::new(Reason::Internal, "a thread panicked"));
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or_else(panicked)?;
        }
        // After an interruption, an earlier call has taken the results of the threads.
        self.files.interrupt.ask()?;
        let missing = || Error::new(Reason::Internal, "expected the hash of each file, found none");
        self.files.hashed.iter().map(|file| file.get().cloned().ok_or_else(missing)).collect()
    }
}

/// Describes a file by its path, size and sha256. Does not read a long hole at its end.
pub(super) fn source_file(map: &Map, interrupt: Interrupt<'_>) -> Result<SourceFile> {
    let mut sha256 = Sha256::new();
    for chunk in map.bytes().chunks(interrupt::CHUNK) {
        interrupt.ask()?;
        sha256.update(chunk);
    }
    let (read, bytes) = (map.bytes().len() as u64, map.file_len());
    let is_whole = bytes - read <= limits::MAX_HOLES;
    if is_whole {
        let zeros = [0; 1 << 16];
        let mut rest = usize::try_from(bytes - read).unwrap_or(0);
        while let Some(part) = zeros.get(..rest.min(zeros.len())).filter(|part| !part.is_empty()) {
            interrupt.ask()?;
            sha256.update(part);
            rest -= part.len();
        }
    }
    Ok(SourceFile {
        path: map.path().display().to_string(),
        bytes,
        sha256: hex(&sha256.finalize()),
        hashed_bytes: (!is_whole).then_some(read),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn an_interruption_while_files_are_hashed_stays_one() {
        let map = Map::held(Path::new("memory"), vec![7; 100]);
        for threads in [false, true] {
            let stopped = AtomicBool::new(false);
            let asked = || match stopped.load(Ordering::Relaxed) {
                true => Err(Error::new(Reason::Interrupted(2), "stop")),
                false => Ok(()),
            };
            let files = SourceFiles {
                maps: vec![&map, &map],
                next: AtomicUsize::new(0),
                hashed: vec![OnceLock::new(), OnceLock::new()],
                interrupt: Interrupt::new(&asked),
            };
            scope(|scope| {
                let thread = |_| scope.spawn(|| files.hash());
                let threads = (0..if threads { 2 } else { 0 }).map(thread).collect();
                let mut hashing = Hashing { files: &files, threads };
                stopped.store(true, Ordering::Relaxed);
                for _ in 0..2 {
                    assert_eq!(hashing.files().unwrap_err().reason(), Reason::Interrupted(2));
                }
                stopped.store(false, Ordering::Relaxed);
            });
        }
    }

    #[test]
    fn files_keep_their_order_with_and_without_threads() {
        let maps = [3, 1, 2].map(|len| Map::held(Path::new("memory"), vec![len; usize::from(len)]));
        for threads in [0, 2] {
            let files = SourceFiles {
                maps: maps.iter().collect(),
                next: AtomicUsize::new(0),
                hashed: maps.iter().map(|_| OnceLock::new()).collect(),
                interrupt: Interrupt::default(),
            };
            scope(|scope| {
                let threads = (0..threads).map(|_| scope.spawn(|| files.hash())).collect();
                let found = Hashing { files: &files, threads }.files().unwrap();
                assert_eq!(found.iter().map(|file| file.bytes).collect::<Vec<_>>(), [3, 1, 2]);
                assert!(found.iter().zip(&maps).all(|(file, map)| file.sha256 == hex(&Sha256::digest(map.bytes()))));
            });
        }
    }
}
