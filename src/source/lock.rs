//! Detection of a running etcd by its file locks. Tests both kinds of lock that etcd takes, and holds a lock only
//! during the test (docs/formats.md 1.3).
//!
//! etcd 2.x holds a `flock` on each live WAL segment, 3.x an open-file-description lock, and bbolt a `flock` on `db`.
//! The two kinds do not conflict. `F_OFD_GETLK` works on a file opened read-only; setting a write lock would not. Must
//! not know what a file contains.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;

use crate::error::{Error, Reason, Result};

/// Refuses a WAL segment that an etcd of any version has open.
///
/// # Errors
/// [`Reason::Locked`] if it is locked; [`Reason::Unreadable`] if the lock cannot be tested.
pub fn check_segment(path: &Path) -> Result<()> {
    let file = open(path)?;
    if ofd_locked(&file).map_err(|e| unknown(path, e))? {
        return Err(locked(path));
    }
    check_flock(path, file)
}

/// Refuses a bbolt file that a server has open.
///
/// # Errors
/// [`Reason::Locked`] if it is locked; [`Reason::Unreadable`] if the lock cannot be tested.
pub fn check_db(path: &Path) -> Result<()> {
    check_flock(path, open(path)?)
}

/// Returns whether another process holds any kind of lock on a file.
///
/// # Errors
/// The file cannot be opened or tested.
pub fn is_locked(path: &Path) -> io::Result<bool> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if ofd_locked(&file)? {
        return Ok(true);
    }
    has_flock(file, FlockArg::LockExclusiveNonblock).map_err(Into::into)
}

/// Returns whether another process has an exclusive lock on a file, as etcd does. Does not disturb other readers.
///
/// # Errors
/// The operating system does not answer.
pub fn is_in_use(file: &File) -> io::Result<bool> {
    let file = file.try_clone()?;
    Ok(ofd_locked(&file)? || has_flock(file, FlockArg::LockSharedNonblock)?)
}

fn has_flock(file: File, kind: FlockArg) -> nix::Result<bool> {
    match Flock::lock(file, kind) {
        Ok(lock) => lock.unlock().map(|_| false).map_err(|(_, e)| e),
        Err((_, Errno::EWOULDBLOCK)) => Ok(true),
        Err((_, e)) => Err(e),
    }
}

fn check_flock(path: &Path, file: File) -> Result<()> {
    match has_flock(file, FlockArg::LockSharedNonblock) {
        Ok(false) => Ok(()),
        Ok(true) => Err(locked(path)),
        Err(e) => Err(unknown(path, e)),
    }
}

fn ofd_locked(file: &File) -> nix::Result<bool> {
    #[allow(clippy::unnecessary_cast)] // the constants' types differ between platforms
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock))?;
    #[allow(clippy::unnecessary_cast)]
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

fn open(path: &Path) -> Result<File> {
    let meta = fs::metadata(path).map_err(|e| Error::io(Reason::Unreadable, path, "read", e))?;
    // Checked before the open: opening a FIFO would wait for a writer.
    if !meta.is_file() {
        return Err(Error::new(Reason::Unreadable, "expected a regular file").in_file(path));
    }
    File::open(path).map_err(|e| Error::io(Reason::Unreadable, path, "open", e))
}

fn locked(path: &Path) -> Error {
    Error::new(Reason::Locked, "an etcd is running on it: the file is locked")
        .hint("stop that etcd, or convert a copy")
        .in_file(path)
}

fn unknown(path: &Path, e: Errno) -> Error {
    Error::io(Reason::Unreadable, path, "find out whether an etcd is running on it", e.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_a_flock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        check_segment(file.path()).unwrap();
        check_db(file.path()).unwrap();
        let held = Flock::lock(file.reopen().unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        assert_eq!(check_segment(file.path()).unwrap_err().reason(), Reason::Locked);
        assert_eq!(check_db(file.path()).unwrap_err().reason(), Reason::Locked);
        held.unlock().unwrap();
        check_db(file.path()).unwrap();
    }

    #[test]
    fn does_not_wait_for_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(check_segment(&path).unwrap_err().reason(), Reason::Unreadable);
        assert_eq!(check_db(&path).unwrap_err().reason(), Reason::Unreadable);
    }

    #[test]
    fn sees_an_open_file_description_lock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let holder = file.reopen().unwrap();
        let lock = libc::flock { l_type: libc::F_WRLCK as _, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        fcntl(holder.as_fd(), FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        assert_eq!(check_segment(file.path()).unwrap_err().reason(), Reason::Locked);
        drop(holder);
        check_segment(file.path()).unwrap();
    }
}
