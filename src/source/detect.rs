//! Detection of a path: a snapshot file, a data directory, a v3 database, or something that is not convertible
//! (docs/formats.md 1.1 to 1.3).
//!
//! Reads names, and of a single file its first bytes. Reads the checksum too if the file name is not one that etcd
//! gives. Must not know records of a log or the tree in a snapshot.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Reason, Result};
use crate::interrupt::Interrupt;
use crate::source::dir::{DataDir, WalDir, directory, lone_segment, refuse};
use crate::source::snap::Snapshot;
use crate::source::{live_copy, recognise};

/// A detected SOURCE.
#[derive(Debug)]
pub enum Source {
    /// A `.snap` file, named by the operator.
    Snapshot(PathBuf),
    /// A data directory.
    Directory(DataDir),
    /// A v3 bbolt file or snapshot file: only `inspect` takes it.
    V3File(PathBuf),
    /// The v3 backend of a data directory without `.snap` files and without a WAL.
    V3Only(PathBuf),
}

/// Detects what `path` is.
///
/// # Errors
/// A refusal ([`Reason::SourceMissing`], [`Reason::SourceEmpty`], [`Reason::NotEtcd`], [`Reason::UnsupportedFormat`],
/// [`Reason::WalMissing`]) with what was found.
pub fn detect(path: &Path, wal_dir: Option<&WalDir>) -> Result<Source> {
    let metadata = fs::metadata(path).map_err(|e| Error::io(Reason::Unreadable, path, "read", e))?;
    if metadata.is_dir() {
        return complete(directory(path, wal_dir)?, wal_dir);
    }
    if matches!(wal_dir, Some(WalDir::Dir(_))) {
        let message =
            "expected a data directory to go with --wal-dir DIR, found a file, which is converted without a log";
        return Err(refuse(Reason::UnsupportedFormat, path, message).hint("leave --wal-dir out, or name the directory"));
    }
    if !metadata.is_file() {
        return Err(refuse(Reason::NotEtcd, path, "expected a file or directory, found neither"));
    }
    lone_file(path, metadata.len())
}

/// Detects the data directory of one of several members. Its log can be missing, because other members may have all
/// entries of it. Returns `None` if the path is something else.
///
/// # Errors
/// As [`detect`].
pub fn detect_member(path: &Path, wal_dir: Option<&WalDir>) -> Result<Option<DataDir>> {
    if wal_dir != Some(&WalDir::None) && path.is_dir() {
        return directory(path, wal_dir).map(Some);
    }
    detect(path, wal_dir).map(|_| None)
}

fn lone_file(path: &Path, len: u64) -> Result<Source> {
    if len == 0 {
        return Err(refuse(Reason::SourceEmpty, path, "expected etcd data, found an empty file"));
    }
    recognise::refuse_foreign(path, "a .snap file or a data directory")?;
    let name = file_name(path);
    if name.ends_with(".snap") || name.ends_with(".snap.broken") {
        return Ok(Source::Snapshot(path.to_path_buf()));
    }
    if is_bolt(path)? {
        return Ok(Source::V3File(path.to_path_buf()));
    }
    if let Some(dir) = lone_segment(path)? {
        return Ok(Source::Directory(dir));
    }
    if name.ends_with(".wal") {
        let message = "found a WAL segment with a name that etcd does not use, so its position in the log is unknown";
        return Err(refuse(Reason::NotEtcd, path, message));
    }
    // A snapshot under another name: the checksum decides.
    let mut head = [0; 1];
    read_at_start(path, &mut head)?;
    if head == [0x08] && Snapshot::of(live_copy::map(path)?, Interrupt::default()).is_ok() {
        return Ok(Source::Snapshot(path.to_path_buf()));
    }
    Err(refuse(Reason::NotEtcd, path, "expected a .snap file or a data directory, found a file that is neither"))
}

/// Returns whether a bbolt meta page is at the start of the file, or at a possible offset of the second one
/// (docs/formats.md 8.2, 8.8).
fn is_bolt(path: &Path) -> Result<bool> {
    const MAGIC: [u8; 4] = [0xed, 0xda, 0x0c, 0xed];
    let mut head = vec![0; (1024 << 14) + 20];
    let read = read_at_start(path, &mut head)?;
    let at = |offset: usize| head.get(offset..offset + 4).filter(|_| offset + 4 <= read) == Some(&MAGIC);
    Ok(at(16) || (0..=14).any(|i| at((1024 << i) + 16)))
}

fn read_at_start(path: &Path, buffer: &mut [u8]) -> Result<usize> {
    let failed = |e| Error::io(Reason::Unreadable, path, "read", e);
    let file = File::open(path).map_err(failed)?;
    let mut limited = file.take(buffer.len() as u64);
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match limited.read(rest).map_err(failed)? {
            0 => break,
            n => read += n,
        }
    }
    Ok(read)
}

/// Refuses a directory without a WAL: it would yield old data, or none.
fn complete(dir: DataDir, wal_dir: Option<&WalDir>) -> Result<Source> {
    let segments = dir.segments.as_deref();
    if segments.is_some_and(|segments| !segments.is_empty()) {
        return Ok(Source::Directory(dir));
    }
    let root = &dir.root;
    if !dir.snapshots.is_empty() {
        if wal_dir == Some(&WalDir::None) {
            return Ok(Source::Directory(dir));
        }
        let hint = "give --wal-dir DIR, or --wal-dir none to convert the snapshot alone";
        return Err(refuse(Reason::WalMissing, root, "found .snap files but no WAL").hint(hint));
    }
    if let Some(db) = dir.db {
        return Ok(Source::V3Only(db));
    }
    Err(refuse(Reason::SourceEmpty, root, "expected .snap files or WAL segments, found neither"))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason_of(files: &[&str]) -> Reason {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        detect(dir.path(), None).unwrap_err().reason()
    }

    #[test]
    fn says_what_is_not_convertible() {
        assert_eq!(reason_of(&[]), Reason::SourceEmpty);
        assert_eq!(reason_of(&["standby_info"]), Reason::UnsupportedFormat);
        assert_eq!(reason_of(&["conf", "log", "snapshot/1_90.ss"]), Reason::UnsupportedFormat);
        assert_eq!(reason_of(&["proxy/cluster"]), Reason::UnsupportedFormat);
        assert_eq!(reason_of(&["cmdlog"]), Reason::NotEtcd);
        assert_eq!(reason_of(&["0.wal"]), Reason::NotEtcd);
        assert_eq!(reason_of(&["member/snap/0000000000000001-0000000000000002.snap"]), Reason::WalMissing);
        assert_eq!(reason_of(&["member/wal/0.tmp"]), Reason::SourceEmpty);
    }
}
