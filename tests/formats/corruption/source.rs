//! Small data directories of every shape, with all that a log can hold, and what each of them holds after any raft
//! index, by the plain model of the v2 store.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use etcdlift::internals::fuzzing::log::{self, Dialect, Log};
use etcdlift::internals::fuzzing::model::Model;
use etcdlift::internals::source::raft::{Method, Request};

use super::outcome::Tree;

const NODE: u64 = 0xa1;
const SECOND: u64 = 0xb2;
const TAIL: usize = 4096;

/// One kind of data directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) dialect: Dialect,
    pub(crate) voters: u64,
    /// Whether there is a `.snap` in the middle.
    pub(crate) snap: bool,
    /// Whether the log has three segments, of which, with a `.snap`, the first is not needed.
    pub(crate) cut: bool,
    /// 2.0 writes the hard state before the entries.
    pub(crate) state_first: bool,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |yes: bool, what: &'static str| if yes { what } else { "" };
        write!(
            f,
            "{:?}, {} voters{}{}{}",
            self.dialect,
            self.voters,
            with(self.snap, ", .snap"),
            with(self.cut, ", 3 segments"),
            with(self.state_first, ", state first")
        )
    }
}

/// All shapes that are tried.
pub(crate) fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (dialect, voters, snap, cut, state_first) in [
        (Dialect::Unpadded, 1, false, false, false),
        (Dialect::Unpadded, 1, true, true, false),
        (Dialect::Unpadded, 2, false, true, true),
        (Dialect::Unpadded, 2, true, false, true),
        (Dialect::Padded, 1, true, false, false),
        (Dialect::Padded, 1, false, true, false),
        (Dialect::Padded, 2, true, true, false),
        (Dialect::Padded, 2, false, false, false),
    ] {
        shapes.push(Shape { dialect, voters, snap, cut, state_first });
    }
    shapes
}

/// A file that is damaged.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    /// Bytes up to the end of its last record.
    pub(crate) used: usize,
}

impl File {
    pub(crate) fn name(&self) -> &'static str {
        if self.path.extension().unwrap() == "snap" { "of a .snap" } else { "of a segment" }
    }
}

/// A record, as far as the end of the log depends on it.
#[derive(Debug, Clone, Copy)]
enum Said {
    Entry(u64),
    Commit(u64),
    Snapshot(u64),
    Other,
}

/// A data directory on disk.
pub(crate) struct SourceDir {
    dir: tempfile::TempDir,
    shape: Shape,
    files: Vec<File>,
    /// The store after each raft index, from 0.
    states: Vec<Model>,
    /// What each record of the log says, with the segment it is in and where it ends there.
    records: Vec<(usize, usize, Said)>,
    /// Raft index of the `.snap`; 0 without one.
    snap_index: u64,
}

impl SourceDir {
    pub(crate) fn new(shape: &Shape) -> SourceDir {
        let mut writer = Writer::new(*shape);
        writer.fill();
        let dir = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for (seq, segment) in writer.log.segments().iter().enumerate() {
            let path = Path::new("member/wal").join(log::segment_file(seq as u64, segment.index));
            let mut bytes = segment.bytes.clone();
            let used = bytes.len();
            if shape.dialect == Dialect::Padded && seq + 1 == writer.log.segments().len() {
                bytes.resize(used.next_multiple_of(512) + TAIL, 0);
            }
            files.push(File { path, bytes, used });
        }
        if let Some(bytes) = writer.snap {
            let path = Path::new("member/snap").join(log::snap_file(2, writer.snap_index));
            files.push(File { path, used: bytes.len(), bytes });
        }
        for folder in ["member/snap", "member/wal"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let source = SourceDir {
            dir,
            shape: *shape,
            files,
            states: writer.states,
            records: writer.records,
            snap_index: writer.snap_index,
        };
        source.files.iter().for_each(|file| source.write(&file.path, &file.bytes));
        source
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn files(&self) -> &[File] {
        &self.files
    }

    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) {
        fs::write(self.dir.path().join(path), bytes).unwrap();
    }

    pub(crate) fn write_byte(&self, path: &Path, at: usize, byte: u8) {
        let file = fs::OpenOptions::new().write(true).open(self.dir.path().join(path)).unwrap();
        file.write_all_at(&[byte], at as u64).unwrap();
    }

    pub(crate) fn last_segment(&self) -> &File {
        self.files.iter().rfind(|file| file.path.extension().unwrap() == "wal").unwrap()
    }

    /// The tree of the undamaged directory.
    pub(crate) fn expected(&self) -> Tree {
        self.expected_after(usize::MAX).unwrap()
    }

    /// Where the last record ends that is whole in the first `len` bytes of the last segment.
    pub(crate) fn whole_before(&self, len: usize) -> usize {
        let last = self.records.last().unwrap().0;
        self.records.iter().filter(|(segment, end, _)| *segment == last && *end <= len).map(|r| r.1).max().unwrap_or(0)
    }

    /// The tree that the log holds with its last segment cut at `len`, by the commit rule (docs/formats.md 4.9); `None`
    /// where that is an error: it commits more than it holds, or there is no log.
    pub(crate) fn expected_after(&self, len: usize) -> Option<Tree> {
        let last = self.records.last().unwrap().0;
        let there = self.records.iter().filter(|(segment, end, _)| *segment < last || *end <= len);
        // A snapshot counts with its record, or at the end of the log or beyond it; else the log is read from its
        // beginning.
        let (mut entry, mut commit, mut records) = (0, 0, 0);
        for (_, _, said) in there {
            records += 1;
            match said {
                Said::Entry(index) => entry = *index,
                Said::Commit(index) => commit = *index,
                Said::Snapshot(index) => (entry, commit) = (entry.max(*index), commit.max(*index)),
                Said::Other => {}
            }
        }
        if entry <= self.snap_index {
            (entry, commit) = (self.snap_index, commit.max(self.snap_index));
        }
        // A log whose member is not known is none; nor is one that does not reach its own commit.
        if records < 2 || commit > entry {
            return None;
        }
        // Before the first commit there is no voter at all.
        let applied = if self.shape.voters == 1 && commit > 0 { entry } else { commit };
        Some(tree(&self.states[usize::try_from(applied).unwrap()]))
    }
}

fn tree(model: &Model) -> Tree {
    let nodes = model.nodes.iter();
    let nodes = nodes.map(|(path, n)| (path.clone(), n.value.clone(), n.created, n.modified, n.expiry)).collect();
    Tree { nodes, index: model.index }
}

struct Writer {
    shape: Shape,
    log: Log,
    model: Model,
    states: Vec<Model>,
    records: Vec<(usize, usize, Said)>,
    index: u64,
    term: u64,
    commit: u64,
    snap: Option<Vec<u8>>,
    snap_index: u64,
}

impl Writer {
    fn new(shape: Shape) -> Writer {
        let version = if shape.dialect == Dialect::Padded { (3, 4) } else { (2, 0) };
        let model = Model::new(version);
        let log = Log::new(shape.dialect, NODE, 0xc1);
        let states = vec![model.clone()];
        let mut writer = Writer {
            shape,
            log,
            model,
            states,
            records: Vec::new(),
            index: 0,
            term: 1,
            commit: 0,
            snap: None,
            snap_index: 0,
        };
        writer.said(Said::Other);
        writer
    }

    /// Notes what the records since the last note say: the last one `said`, those before it nothing.
    fn said(&mut self, said: Said) {
        let noted = self.records.len();
        let ends = self.log.segments().iter().enumerate();
        let ends: Vec<(usize, usize)> = ends.flat_map(|(i, s)| s.ends.iter().map(move |end| (i, *end))).collect();
        let new = &ends[noted..];
        for (i, (segment, end)) in new.iter().enumerate() {
            let said = if i + 1 == new.len() { said } else { Said::Other };
            self.records.push((*segment, *end, said));
        }
    }

    fn entry(&mut self, kind: u64, data: Option<&[u8]>) {
        self.index += 1;
        self.log.entry(kind, self.term, self.index, data);
        self.said(Said::Entry(self.index));
        self.states.push(self.model.clone());
    }

    fn state(&mut self, commit: u64) {
        self.commit = commit;
        self.log.state(self.term, NODE, commit);
        self.said(Said::Commit(commit));
    }

    fn member(&mut self, id: u64) {
        self.model.add_member(id, &format!("{{\"peerURLs\":[\"http://localhost:{id}\"]}}"));
        self.entry(log::CONF_CHANGE, Some(&log::conf_change(0, id, &log::member_json(id, id as u16))));
    }

    /// One Save: the entries, and the hard state that commits them, in the order of the server's version.
    fn save(&mut self, requests: &[Request<'_>]) {
        let commit = self.index + requests.len() as u64;
        if self.shape.state_first {
            self.state(commit);
        }
        for request in requests {
            self.model.apply(request);
            self.entry(log::NORMAL, Some(&log::request(request)));
        }
        if !self.shape.state_first {
            self.state(commit);
        }
    }

    fn no_op(&mut self) {
        // 2.0 writes the empty data, later versions leave the field out.
        let data = if self.shape.state_first { Some(&b""[..]) } else { None };
        self.entry(log::NORMAL, data);
    }

    fn cut(&mut self) {
        if self.shape.cut {
            let state = (!self.shape.state_first).then_some([self.term, NODE, self.commit]);
            self.log.cut(self.index + 1, state);
            self.said(if state.is_some() { Said::Commit(self.commit) } else { Said::Other });
        }
    }

    fn snapshot(&mut self) {
        if self.shape.snap {
            let voters: &[u64] = if self.shape.voters == 1 { &[NODE] } else { &[NODE, SECOND] };
            self.snap = Some(log::snap(self.model.json().as_bytes(), self.index, self.term, voters));
            self.snap_index = self.index;
            self.log.snapshot(self.index, self.term);
            self.said(Said::Snapshot(self.index));
        }
    }

    fn fill(&mut self) {
        let version = if self.shape.dialect == Dialect::Padded { "3.4.0" } else { "" };
        self.member(NODE);
        if self.shape.voters > 1 {
            self.member(SECOND);
        }
        self.state(self.index);
        self.term = 2;
        self.no_op();
        self.state(self.index);
        if !version.is_empty() {
            self.save(&[put(b"/0/version", version.as_bytes())]);
        }
        self.save(&[put(b"/1/a/b", b"one"), put(b"/1/_hidden", b"two")]);
        self.save(&[Request { method: Method::Post, ..put(b"/1/queue", b"job") }]);
        self.cut();
        self.save(&[
            Request { dir: true, expiration: 1_500_000_000_000_000_000, ..put(b"/1/dir", b"") },
            Request { prev_exist: Some(false), ..put(b"/1/dir/x", b"x") },
            Request { prev_exist: Some(true), ..put(b"/1/a/b", b"three") },
        ]);
        self.snapshot();
        self.cut();
        self.save(&[Request { prev_value: b"three", ..put(b"/1/a/b", b"four") }]);
        self.save(&[Request { prev_value: b"wrong", ..put(b"/1/a/b", b"five") }]);
        self.save(&[
            Request { method: Method::Sync, time: 1_500_000_000_000_000_001, ..put(b"", b"") },
            Request { method: Method::Delete, ..put(b"/1/_hidden", b"") },
        ]);
        // A batch longer than a sector, zeros in it.
        let zeros = [&b"z"[..], &[0; 1100], b"z"].concat();
        self.save(&[put(b"/1/zeros", &zeros), Request { method: Method::Qget, ..put(b"/1/a", b"") }]);
        self.save(&[Request { method: Method::Post, ..put(b"/1/queue", b"last job") }]);
        // The end is not committed yet.
        let request = put(b"/1/tail", b"uncommitted");
        self.model.apply(&request);
        self.entry(log::NORMAL, Some(&log::request(&request)));
    }
}

fn put<'a>(path: &'a [u8], val: &'a [u8]) -> Request<'a> {
    Request { method: Method::Put, path, val, ..Request::default() }
}
