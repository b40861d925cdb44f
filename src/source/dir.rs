//! The files of a data directory of any layout since 2.0.0, by their names (docs/formats.md 1.1 to 1.3).
//!
//! Lists names; opens only files that may be compressed or encrypted, and reads only their first bytes. Must not know
//! the content of a segment or a snapshot, or which of them counts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::display::short;
use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, Term};
use crate::source::recognise;
use crate::words::words;

words! {
    /// The layout of a data directory (docs/formats.md 1.1).
    pub enum Layout {
        /// `member/snap` and `member/wal` (2.0.2 and later; also in a backup).
        Member = "member",
        /// `snap` and `wal` directly: 2.0.0 and 2.0.1, or the `member` folder itself.
        Flat = "flat",
        /// A log alone: a directory of segments, or one segment.
        Log = "log",
    }
}

/// The name of a `.snap` file (docs/formats.md 1.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapName {
    /// The term in the name.
    pub term: Term,
    /// The raft index in the name.
    pub index: RaftIndex,
    /// The path of the file.
    pub path: PathBuf,
}

/// The files of a data directory that may contain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    /// The directory as the operator named it.
    pub root: PathBuf,
    /// The layout.
    pub layout: Layout,
    /// `.snap` files, oldest first.
    pub snapshots: Vec<SnapName>,
    /// `.snap.broken` files, which etcd or an operator renamed, oldest first.
    pub broken_snapshots: Vec<SnapName>,
    /// WAL segments in sequence; `None` with `--wal-dir none`.
    pub segments: Option<Vec<SegmentName>>,
    /// Segments that are not read: `.wal.broken` files, and the other segments of the log if one segment alone was
    /// named.
    pub unread_segments: Vec<SegmentName>,
    /// The v3 backend.
    pub db: Option<PathBuf>,
    /// v3 backends received from a leader, by the raft index of their snapshot (docs/formats.md 2.4).
    pub received_dbs: Vec<(RaftIndex, PathBuf)>,
}

impl DataDir {
    fn empty(root: &Path, layout: Layout) -> DataDir {
        DataDir {
            root: root.to_path_buf(),
            layout,
            snapshots: Vec::new(),
            broken_snapshots: Vec::new(),
            segments: None,
            unread_segments: Vec::new(),
            db: None,
            received_dbs: Vec::new(),
        }
    }
}

impl DataDir {
    /// Describes a file that only one of two listings of a directory has.
    pub(super) fn difference(&self, now: &DataDir) -> Option<String> {
        let (before, now) = (self.files(), now.files());
        let appeared = now.difference(&before).next().map(|path| format!("{} appeared", path.display()));
        appeared.or_else(|| {
            before.difference(&now).next().map(|path| format!("{} does not exist any more", path.display()))
        })
    }

    fn files(&self) -> BTreeSet<&Path> {
        let snapshots = self.snapshots.iter().chain(&self.broken_snapshots).map(|name| &name.path);
        let segments = self.segments.iter().flatten().chain(&self.unread_segments).map(|name| &name.path);
        let backends = self.db.iter().chain(self.received_dbs.iter().map(|(_, path)| path));
        snapshots.chain(segments).chain(backends).map(PathBuf::as_path).collect()
    }
}

/// The name of a segment: its sequence number and the planned index of its first entry (docs/formats.md 1.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// The sequence number, from 0.
    pub seq: u64,
    /// The index of the first entry saved into it.
    pub index: RaftIndex,
    /// The path of the file.
    pub path: PathBuf,
}

/// Where the write-ahead log of the source is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum WalDir {
    /// No log: use the newest snapshot alone. Typed `none`; a directory with that name is `./none`.
    None,
    /// In this directory.
    Dir(PathBuf),
}

impl WalDir {
    const NONE: &'static str = "none";
}

impl From<WalDir> for String {
    fn from(wal_dir: WalDir) -> String {
        match wal_dir {
            WalDir::None => WalDir::NONE.into(),
            WalDir::Dir(dir) => dir.display().to_string(),
        }
    }
}

impl From<String> for WalDir {
    fn from(text: String) -> Self {
        WalDir::from(Path::new(&text))
    }
}

impl From<&Path> for WalDir {
    fn from(path: &Path) -> Self {
        if path == Path::new(WalDir::NONE) { WalDir::None } else { WalDir::Dir(path.into()) }
    }
}

/// Lists the files of a data directory. Without `wal_dir`, the log is in the directory that the layout has.
///
/// # Errors
/// [`Reason::NotEtcd`], [`Reason::SourceEmpty`] or [`Reason::UnsupportedFormat`] if it is not a data directory; an I/O
/// error if it cannot be listed.
pub(super) fn directory(path: &Path, wal_dir: Option<&WalDir>) -> Result<DataDir> {
    let names = list(path)?;
    let has = |name: &str| names.iter().any(|n| n == name);
    let (base, layout) = if has("member") {
        (path.join("member"), Layout::Member)
    } else if has("snap") || has("wal") {
        (path.to_path_buf(), Layout::Flat)
    } else if wal_dir.is_none() && !segments(path, names.clone()).is_empty() {
        let mut dir = DataDir::empty(path, Layout::Log);
        dir.unread_segments = broken_segments(path, &names);
        dir.segments = Some(segments(path, names));
        return Ok(dir);
    } else {
        return Err(not_a_data_dir(path, &names));
    };
    let mut dir = DataDir::empty(path, layout);
    let snap_dir = base.join("snap");
    for name in list_if_there(&snap_dir)? {
        let path = snap_dir.join(&name);
        if name == "db" {
            dir.db = Some(path);
        } else if let Some((term, index)) = name.strip_suffix(".snap").and_then(two_numbers) {
            dir.snapshots.push(SnapName { term: Term(term), index: RaftIndex(index), path });
        } else if let Some((term, index)) = name.strip_suffix(".snap.broken").and_then(two_numbers) {
            dir.broken_snapshots.push(SnapName { term: Term(term), index: RaftIndex(index), path });
        } else if let Some(index) = name.strip_suffix(".snap.db").and_then(number) {
            dir.received_dbs.push((RaftIndex(index), path));
        }
    }
    dir.snapshots.sort();
    dir.broken_snapshots.sort();
    dir.received_dbs.sort();
    dir.segments = match wal_dir {
        Some(WalDir::None) => None,
        Some(WalDir::Dir(at)) => {
            let found = segments_elsewhere(at)?;
            dir.unread_segments = broken_segments(at, &list(at)?);
            Some(found)
        }
        None => {
            let at = base.join("wal");
            let names = list_if_there(&at)?;
            dir.unread_segments = broken_segments(&at, &names);
            Some(segments(&at, names))
        }
    };
    for name in &dir.snapshots {
        recognise::refuse_foreign(&name.path, "a .snap file")?;
    }
    for name in dir.segments.iter().flatten() {
        recognise::refuse_foreign(&name.path, "a WAL segment")?;
    }
    Ok(dir)
}

/// Returns the segments in the directory that `--wal-dir` names, at least one.
fn segments_elsewhere(at: &Path) -> Result<Vec<SegmentName>> {
    let failed = |e| Error::io(Reason::Unreadable, at, "read", e).context("the directory of --wal-dir");
    if !fs::metadata(at).map_err(failed)?.is_dir() {
        return Err(refuse(Reason::NotEtcd, at, "expected the directory of --wal-dir, found a file"));
    }
    let found = segments(at, list(at)?);
    if found.is_empty() {
        return Err(refuse(Reason::WalMissing, at, "expected WAL segments in the directory of --wal-dir, found none"));
    }
    Ok(found)
}

fn not_a_data_dir(path: &Path, names: &[String]) -> Error {
    let has = |name: &str| names.iter().any(|n| n == name);
    if names.is_empty() {
        return refuse(Reason::SourceEmpty, path, "expected a data directory, found an empty one");
    }
    if has("standby_info") || (has("conf") && has("log")) || (has("snapshot") && (has("conf") || has("log"))) {
        let message = "found a data directory of etcd 0.4, which is not convertible";
        return refuse(Reason::UnsupportedFormat, path, message).hint("start etcd 2.0 on a copy of it once");
    }
    if has("proxy") {
        let message = "found the directory of an etcd proxy, which contains no keys";
        return refuse(Reason::UnsupportedFormat, path, message);
    }
    if let Some((message, hint)) = recognise::misplaced(path, names) {
        return refuse(Reason::NotEtcd, path, &message).hint(hint);
    }
    let found: Vec<String> = names.iter().take(3).map(|name| short(name)).collect();
    let message = format!("expected a data directory (with `member`, or `snap` and `wal`), found {}", found.join(", "));
    refuse(Reason::NotEtcd, path, &message).hint("name the directory that etcd has as --data-dir")
}

fn segments(dir: &Path, names: Vec<String>) -> Vec<SegmentName> {
    let mut segments: Vec<_> = names
        .into_iter()
        .filter_map(|name| {
            let (seq, index) = two_numbers(name.strip_suffix(".wal")?)?;
            Some(SegmentName { seq, index: RaftIndex(index), path: dir.join(name) })
        })
        .collect();
    segments.sort();
    segments
}

/// Returns segments that were renamed to `.wal.broken`: a copy from before a repair, or a segment that somebody
/// removed.
fn broken_segments(dir: &Path, names: &[String]) -> Vec<SegmentName> {
    let broken = |name: &String| {
        let (seq, index) = two_numbers(name.strip_suffix(".wal.broken")?)?;
        Some(SegmentName { seq, index: RaftIndex(index), path: dir.join(name) })
    };
    let mut found: Vec<_> = names.iter().filter_map(broken).collect();
    found.sort();
    found
}

/// Returns the log of one named segment, without the other segments. Returns `None` if the file name is not that of a
/// segment.
///
/// # Errors
/// The directory of the segment cannot be listed.
pub(super) fn lone_segment(path: &Path) -> Result<Option<DataDir>> {
    let Some((folder, segment)) = path.parent().zip(segment_named(path)) else { return Ok(None) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let others = segments(folder, list(folder)?).into_iter().filter(|other| other.seq != segment.seq);
    let unread_segments = others.collect();
    Ok(Some(DataDir { segments: Some(vec![segment]), unread_segments, ..DataDir::empty(path, Layout::Log) }))
}

/// Lists the files of a data directory or of a single segment again.
///
/// # Errors
/// As [`directory`] and [`lone_segment`].
pub(super) fn relist(path: &Path, wal_dir: Option<&WalDir>) -> Result<DataDir> {
    if path.is_dir() {
        return directory(path, wal_dir);
    }
    let none = || refuse(Reason::NotEtcd, path, "expected the segment that was found before");
    lone_segment(path)?.ok_or_else(none)
}

/// Returns the segment that a path names, if the name has the exact form.
fn segment_named(path: &Path) -> Option<SegmentName> {
    let name = path.file_name()?.to_str()?;
    let (seq, index) = two_numbers(name.strip_suffix(".wal")?)?;
    Some(SegmentName { seq, index: RaftIndex(index), path: path.to_path_buf() })
}

/// Parses `%016x-%016x`, exact form only.
fn two_numbers(name: &str) -> Option<(u64, u64)> {
    let (a, b) = name.split_once('-')?;
    Some((number(a)?, number(b)?))
}

/// Parses `%016x`, exact form only.
fn number(name: &str) -> Option<u64> {
    let exact = name.len() == 16 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if exact { u64::from_str_radix(name, 16).ok() } else { None }
}

fn list_if_there(path: &Path) -> Result<Vec<String>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => list(path),
        Err(e) if !is_absent(&e) => Err(Error::io(Reason::Unreadable, path, "read", e)),
        _ => Ok(Vec::new()),
    }
}

/// Returns whether the path does not exist. Any other failure means that the path cannot be examined.
fn is_absent(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Returns the names in a directory, sorted. Names of etcd are always UTF-8.
fn list(path: &Path) -> Result<Vec<String>> {
    let failed = |e| Error::io(Reason::Unreadable, path, "list", e);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(super) fn refuse(reason: Reason, path: &Path, message: &str) -> Error {
    Error::new(reason, message).in_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_files_by_their_exact_names() {
        assert_eq!(two_numbers("0000000000000002-00000000000000ff"), Some((2, 255)));
        for name in ["000000000000002-00000000000000ff", "0000000000000002-00000000000000FF", "+000000000000002-0"] {
            assert_eq!(two_numbers(name), None);
        }
    }
}
