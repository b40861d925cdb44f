//! The files of the sources of one run: their identity at the open, and a check that it is unchanged.
//!
//! If a file is written, replaced, truncated or removed during the read, the result is not a state of the source. The
//! same holds if an etcd starts on it. Must not know the content of the files.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::count::bytes;
use crate::error::{Error, Kind, Reason, Result};
use crate::ids::ByteOffset;
use crate::source::dir::{DataDir, WalDir, relist};
use crate::source::lock;
use crate::source::map::Faults;

/// The identity of a file, and the time of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Device and inode.
    pub file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// Returns the identity of an open file, or of the file that a path resolves to.
    pub fn of(found: &Metadata) -> Identity {
        Identity {
            file: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Returns whether this is the same file with the same size and time of the last write, whatever name it has.
    pub fn is_same_content(&self, other: &Identity) -> bool {
        (self.file, self.size, self.modified) == (other.file, other.size, other.modified)
    }
}

/// The locks that an etcd would hold on a file (docs/formats.md 1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locks {
    /// No lock.
    None,
    /// The locks of a segment.
    Segment,
    /// The lock of a bbolt file.
    Db,
}

/// The files that the run has opened.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Mutex<Vec<Seen>>,
    directories: Mutex<Vec<(DataDir, Option<WalDir>)>>,
}

#[derive(Debug)]
struct Seen {
    path: PathBuf,
    identity: Identity,
    locks: Locks,
    faults: Option<Faults>,
}

impl Watch {
    /// Records an opened file.
    pub(super) fn file(&self, path: &Path, found: &Metadata, locks: Locks, faults: Option<Faults>) {
        let seen = Seen { path: path.to_path_buf(), identity: Identity::of(found), locks, faults };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    /// Records the names in a data directory at the time of the listing.
    pub(super) fn directory(&self, dir: DataDir, wal_dir: Option<WalDir>) {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).push((dir, wal_dir));
    }

    /// Returns device and inode of every opened file.
    pub fn files(&self) -> Vec<(u64, u64)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|seen| seen.identity.file).collect()
    }

    /// Checks that each file is the opened one and unchanged, that no directory lost or gained a file, and that no etcd
    /// started on them. It compares names and times, not bytes: see [`Map::check_bytes`](super::map::Map::check_bytes).
    ///
    /// # Errors
    /// [`Reason::ChangedWhileReading`]; [`Reason::Unreadable`] for a page that the disk could not supply;
    /// [`Reason::Locked`].
    pub fn check(&self) -> Result<()> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().try_for_each(Seen::check)?;
        for (dir, wal_dir) in self.directories.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let now = relist(&dir.root, wal_dir.as_ref()).map_err(|e| changed(&dir.root, e.message()))?;
            if let Some(difference) = dir.difference(&now) {
                return Err(changed(&dir.root, &difference));
            }
        }
        Ok(())
    }

    /// Returns the result of a run that read these files. If a file changed, that is the error, because the change can
    /// be the cause of any other.
    ///
    /// # Errors
    /// Those of [`Watch::check`]; then that of the result.
    pub fn settle<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(e) if matches!(e.kind(), Kind::Interrupted(_) | Kind::Usage) => Err(e),
            result => self.check().and(result),
        }
    }
}

impl Seen {
    fn check(&self) -> Result<()> {
        let Seen { path, identity, locks, faults } = self;
        let now = fs::metadata(path).map_err(|_| changed(path, "the file does not exist any more"))?;
        let now = Identity::of(&now);
        if now.file != identity.file {
            return Err(changed(path, "another file has its name"));
        }
        if now.size != identity.size {
            let message = format!("expected {}, found {}", bytes(identity.size), bytes(now.size));
            return Err(changed(path, &message));
        }
        if let Some(offset) = faults.as_ref().and_then(Faults::first) {
            let message = "expected a page of the file, found that the operating system cannot read it";
            return Err(Error::new(Reason::Unreadable, message).at(ByteOffset(offset)).in_file(path));
        }
        match locks {
            Locks::None => Ok(()),
            Locks::Segment => lock::check_segment(path),
            Locks::Db => lock::check_db(path),
        }
        .map_err(|e| e.context("an etcd started on the source while etcdlift read it"))?;
        if now != *identity {
            return Err(changed(path, "the file was written to, or its owner, mode or links were changed"));
        }
        Ok(())
    }
}

fn changed(path: &Path, what: &str) -> Error {
    let message = format!("the source changed while etcdlift read it: {what}");
    Error::new(Reason::ChangedWhileReading, message)
        .in_file(path)
        .hint("make sure that nothing writes to it, or take a copy")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn watched(path: &Path) -> Watch {
        let watch = Watch::default();
        watch.file(path, &fs::metadata(path).unwrap(), Locks::Segment, None);
        watch.check().unwrap();
        watch
    }

    fn refusal(watch: &Watch) -> String {
        let error = watch.check().unwrap_err();
        assert_eq!((error.reason(), error.kind().exit_code()), (Reason::ChangedWhileReading, 3));
        error.message().to_string()
    }

    #[test]
    fn every_change_of_a_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let write = |text: &str| fs::write(&path, text).unwrap();
        write("abc");
        let watch = watched(&path);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"d").unwrap();
        assert!(refusal(&watch).contains("expected 3 bytes, found 4 bytes"));

        let watch = watched(&path);
        std::thread::sleep(std::time::Duration::from_millis(20));
        write("abce");
        assert!(refusal(&watch).contains("written to"));

        let watch = watched(&path);
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(refusal(&watch).contains("mode"));

        let watch = watched(&path);
        fs::write(dir.path().join("g"), "abce").unwrap();
        fs::rename(dir.path().join("g"), &path).unwrap();
        assert!(refusal(&watch).contains("another file"));

        let watch = watched(&path);
        fs::remove_file(&path).unwrap();
        assert!(refusal(&watch).contains("does not exist any more"));
    }

    #[test]
    fn a_changed_source_is_the_error_that_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let watch = watched(file.path());
        let failed = |reason| watch.settle::<()>(Err(Error::new(reason, ""))).unwrap_err().reason();
        assert_eq!(failed(Reason::Damaged), Reason::Damaged);
        file.as_file().set_len(1).unwrap();
        assert_eq!(failed(Reason::Damaged), Reason::ChangedWhileReading);
        assert_eq!(failed(Reason::Interrupted(2)), Reason::Interrupted(2));
        assert_eq!(watch.settle(Ok(())).unwrap_err().reason(), Reason::ChangedWhileReading);
    }

    #[test]
    fn an_etcd_that_has_started_is_noticed() {
        use nix::fcntl::{Flock, FlockArg};
        let file = tempfile::NamedTempFile::new().unwrap();
        let watch = watched(file.path());
        let _held = Flock::lock(file.reopen().unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        let error = watch.check().unwrap_err();
        assert_eq!(error.reason(), Reason::Locked);
        assert!(error.message().starts_with("an etcd started"), "{error}");
    }
}
