//! What a path is: a snapshot file, a data directory of any layout from 2.0.0 on, or something that is not convertible
//! (FORMATS 1.1 to 1.3). Reads names and, of a lone file, its first bytes; nothing else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, Term};
use crate::source::recognise;
use crate::source::wal::SegmentName;

/// What a SOURCE turned out to be.
#[derive(Debug)]
pub enum Source {
    /// A `.snap` file, named by the operator.
    Snapshot(PathBuf),
    /// A data directory.
    Directory(DataDir),
    /// A v3 bbolt file or snapshot file: only `inspect` takes it.
    V3File(PathBuf),
    /// The v3 backend of a data directory that has neither `.snap` files nor a WAL.
    V3Only(PathBuf),
}

/// How a data directory is laid out (FORMATS 1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `member/snap` and `member/wal` (2.0.2 and later), as a backup has them too.
    Member,
    /// `snap` and `wal` directly: 2.0.0 and 2.0.1, or the `member` folder itself.
    Flat,
    /// A log alone: a directory of segments, or one segment.
    Log,
}

impl Layout {
    /// A word for reports.
    pub fn word(self) -> &'static str {
        match self {
            Layout::Member => "member",
            Layout::Flat => "flat",
            Layout::Log => "log",
        }
    }
}

/// The name of a `.snap` file (FORMATS 1.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapName {
    /// Its term.
    pub term: Term,
    /// Its raft index.
    pub index: RaftIndex,
    /// Where it is.
    pub path: PathBuf,
}

/// The files of a data directory that may hold data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    /// The directory as it was named.
    pub root: PathBuf,
    /// How it is laid out.
    pub layout: Layout,
    /// `.snap` files, oldest first.
    pub snapshots: Vec<SnapName>,
    /// Snapshots that etcd, or somebody, renamed to `.snap.broken`; oldest first.
    pub broken_snapshots: Vec<SnapName>,
    /// WAL segments in sequence; `None` with `--wal-dir none`.
    pub segments: Option<Vec<SegmentName>>,
    /// Segments that are not read: those renamed to `.wal.broken`, and those beside the only one that was named.
    pub unread_segments: Vec<SegmentName>,
    /// The v3 backend.
    pub db: Option<PathBuf>,
    /// v3 backends received from a leader, by the raft index of their snapshot (FORMATS 2.4).
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
    /// A file that only one of two listings of a directory has, in words.
    pub(super) fn difference(&self, now: &DataDir) -> Option<String> {
        let (before, now) = (self.files(), now.files());
        let appeared = now.difference(&before).next().map(|path| format!("{} appeared", path.display()));
        appeared.or_else(|| before.difference(&now).next().map(|path| format!("{} is gone", path.display())))
    }

    fn files(&self) -> BTreeSet<&Path> {
        let snapshots = self.snapshots.iter().chain(&self.broken_snapshots).map(|name| &name.path);
        let segments = self.segments.iter().flatten().chain(&self.unread_segments).map(|name| &name.path);
        let backends = self.db.iter().chain(self.received_dbs.iter().map(|(_, path)| path));
        snapshots.chain(segments).chain(backends).map(PathBuf::as_path).collect()
    }
}

/// Where the write-ahead log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalDir {
    /// Where the layout has it.
    Default,
    /// Elsewhere.
    At(PathBuf),
    /// There is none, and the operator knows.
    None,
}

/// Finds out what `path` is.
///
/// # Errors
/// A refusal ([`Reason::SourceMissing`], [`Reason::SourceEmpty`], [`Reason::NotEtcd`], [`Reason::UnsupportedFormat`],
/// [`Reason::WalMissing`]) that says what it found instead.
pub fn detect(path: &Path, wal_dir: &WalDir) -> Result<Source> {
    let metadata = fs::metadata(path).map_err(|e| Error::io(Reason::Unreadable, path, "read", e))?;
    if metadata.is_dir() {
        return complete(directory(path, wal_dir)?, wal_dir);
    }
    if matches!(wal_dir, WalDir::At(_)) {
        let message =
            "expected a data directory to go with --wal-dir DIR, found a file, which is converted without a log";
        return Err(refuse(Reason::UnsupportedFormat, path, message));
    }
    if !metadata.is_file() {
        return Err(refuse(Reason::NotEtcd, path, "expected a file or directory, found neither"));
    }
    lone_file(path, metadata.len())
}

/// The data directory of one of several members, whose log may be gone: the others may have all that was in it. `None` if it
/// is something else.
///
/// # Errors
/// As [`detect`].
pub fn detect_member(path: &Path, wal_dir: &WalDir) -> Result<Option<DataDir>> {
    if *wal_dir != WalDir::None && path.is_dir() {
        return directory(path, wal_dir).map(Some);
    }
    detect(path, wal_dir).map(|_| None)
}

/// The files of what [`detect`] has found to be a directory, once more.
///
/// # Errors
/// As [`detect`].
pub(super) fn relist(path: &Path, wal_dir: &WalDir) -> Result<DataDir> {
    if path.is_dir() {
        return directory(path, wal_dir);
    }
    match detect(path, wal_dir)? {
        Source::Directory(dir) => Ok(dir),
        Source::Snapshot(_) | Source::V3File(_) | Source::V3Only(_) => {
            Err(refuse(Reason::NotEtcd, path, "expected the segment that was found there before"))
        }
    }
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
    if let Some((folder, segment)) = path.parent().zip(segment_named(path)) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let beside = segments(folder, list(folder)?);
        let unread = beside.into_iter().filter(|other| other.seq != segment.seq).collect();
        return Ok(Source::Directory(DataDir {
            segments: Some(vec![segment]),
            unread_segments: unread,
            ..DataDir::empty(path, Layout::Log)
        }));
    }
    if name.ends_with(".wal") {
        let message = "found a WAL segment under a name that etcd does not give it: its place in the log is not known";
        return Err(refuse(Reason::NotEtcd, path, message));
    }
    // A snapshot under another name: its checksum tells.
    let mut head = [0; 1];
    read_at_start(path, &mut head)?;
    if head == [0x08] && crate::source::snap::Snapshot::open(path).is_ok() {
        return Ok(Source::Snapshot(path.to_path_buf()));
    }
    Err(refuse(Reason::NotEtcd, path, "expected a .snap file or a data directory, found a file that is neither"))
}

/// Whether a bbolt meta page stands at the start of the file, or where its second one may be (FORMATS 8.2, 8.8).
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

fn directory(path: &Path, wal_dir: &WalDir) -> Result<DataDir> {
    let names = list(path)?;
    let has = |name: &str| names.iter().any(|n| n == name);
    let (base, layout) = if has("member") {
        (path.join("member"), Layout::Member)
    } else if has("snap") || has("wal") {
        (path.to_path_buf(), Layout::Flat)
    } else if *wal_dir == WalDir::Default && !segments(path, names.clone()).is_empty() {
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
        WalDir::None => None,
        WalDir::At(at) => {
            let found = segments_elsewhere(at)?;
            dir.unread_segments = broken_segments(at, &list(at)?);
            Some(found)
        }
        WalDir::Default => {
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

/// A directory without a WAL would yield old data, or none.
fn complete(dir: DataDir, wal_dir: &WalDir) -> Result<Source> {
    let segments = dir.segments.as_deref();
    if segments.is_some_and(|segments| !segments.is_empty()) {
        return Ok(Source::Directory(dir));
    }
    let root = &dir.root;
    if !dir.snapshots.is_empty() {
        if *wal_dir == WalDir::None {
            return Ok(Source::Directory(dir));
        }
        let message =
            "found .snap files but no WAL: give --wal-dir DIR, or --wal-dir none to convert the snapshot alone";
        return Err(refuse(Reason::WalMissing, root, message));
    }
    if let Some(db) = dir.db {
        return Ok(Source::V3Only(db));
    }
    Err(refuse(Reason::SourceEmpty, root, "expected .snap files or WAL segments, found neither"))
}

/// The segments in the directory that `--wal-dir` names, at least one.
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
        let message =
            "found a data directory of etcd 0.4, which is not convertible: start etcd 2.0 on a copy of it once";
        return refuse(Reason::UnsupportedFormat, path, message);
    }
    if has("proxy") {
        let message = "found the directory of an etcd proxy, which holds no keys";
        return refuse(Reason::UnsupportedFormat, path, message);
    }
    let message = recognise::misplaced(path, names).unwrap_or_else(|| {
        "expected a data directory (with `member`, or `snap` and `wal`), found something else".to_string()
    });
    refuse(Reason::NotEtcd, path, &message)
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

/// Segments that were renamed to `.wal.broken`: a copy of what a repair cut off, or a segment that was taken away.
fn broken_segments(dir: &Path, names: &[String]) -> Vec<SegmentName> {
    let broken = |name: &String| {
        let (seq, index) = two_numbers(name.strip_suffix(".wal.broken")?)?;
        Some(SegmentName { seq, index: RaftIndex(index), path: dir.join(name) })
    };
    let mut found: Vec<_> = names.iter().filter_map(broken).collect();
    found.sort();
    found
}

/// The segment that a path names, by its exact name.
fn segment_named(path: &Path) -> Option<SegmentName> {
    let name = path.file_name()?.to_str()?;
    let (seq, index) = two_numbers(name.strip_suffix(".wal")?)?;
    Some(SegmentName { seq, index: RaftIndex(index), path: path.to_path_buf() })
}

/// `%016x-%016x`, exactly.
fn two_numbers(name: &str) -> Option<(u64, u64)> {
    let (a, b) = name.split_once('-')?;
    Some((number(a)?, number(b)?))
}

/// `%016x`, exactly.
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

/// There is nothing of that name, rather than something that cannot be looked at.
fn is_absent(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The names in a directory, sorted; names that are not UTF-8 are none of etcd's.
fn list(path: &Path) -> Result<Vec<String>> {
    let failed = |e| Error::io(Reason::Unreadable, path, "list", e);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn refuse(reason: Reason, path: &Path, message: &str) -> Error {
    Error::new(reason, message).in_file(path)
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
        detect(dir.path(), &WalDir::Default).unwrap_err().reason()
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

    #[test]
    fn knows_files_by_their_exact_names() {
        assert_eq!(two_numbers("0000000000000002-00000000000000ff"), Some((2, 255)));
        for name in ["000000000000002-00000000000000ff", "0000000000000002-00000000000000FF", "+000000000000002-0"] {
            assert_eq!(two_numbers(name), None);
        }
    }
}
