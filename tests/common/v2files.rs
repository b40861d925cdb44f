//! The v2 files of tests: reads what a `.snap` says of itself and the records of a segment, and writes a `.snap` and a
//! log that a real etcd starts from. Independent of etcdlift's own readers and writers.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::protobuf::{Field, bytes_of, fields, number_of, numbers, put_bytes, put_number};

/// What a `.snap` says of itself.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub path: PathBuf,
    /// Raft index and term.
    pub index: u64,
    pub term: u64,
    /// Raft ids of the voting members.
    pub voters: Vec<u64>,
    /// The v2 index of the store in it.
    pub v2_index: u64,
}

/// The newest `.snap` of a data directory, if there is one.
pub fn newest_snapshot(data_dir: &Path) -> Option<Snapshot> {
    let entries = fs::read_dir(data_dir.join("member/snap")).ok()?;
    let paths = entries.map(|entry| entry.unwrap().path());
    let snaps = paths.filter(|path| path.extension().is_some_and(|end| end == "snap"));
    Some(read_snapshot(&snaps.max()?))
}

/// What a `.snap` file says of itself.
pub fn read_snapshot(path: &Path) -> Snapshot {
    let file = fs::read(path).unwrap();
    let mut snapshot = Snapshot { path: path.to_owned(), index: 0, term: 0, voters: Vec::new(), v2_index: 0 };
    for field in fields(bytes_of(&file, 2).unwrap()) {
        match field {
            (1, Field::Bytes(json)) => snapshot.v2_index = current_index(json),
            (2, Field::Bytes(metadata)) => read_metadata(metadata, &mut snapshot),
            _ => {}
        }
    }
    snapshot
}

fn read_metadata(metadata: &[u8], snapshot: &mut Snapshot) {
    for field in fields(metadata) {
        match field {
            (1, Field::Bytes(conf_state)) => {
                snapshot.voters = fields(conf_state)
                    .into_iter()
                    .filter_map(|field| match field {
                        (1, Field::Number(id)) => Some(id),
                        _ => None,
                    })
                    .collect();
            }
            (2, Field::Number(index)) => snapshot.index = index,
            (3, Field::Number(term)) => snapshot.term = term,
            _ => {}
        }
    }
}

/// A quote inside a JSON string is always escaped, so the name with both of its quotes is nowhere else.
fn current_index(json: &[u8]) -> u64 {
    const NAME: &[u8] = b"\"CurrentIndex\":";
    let at = json.windows(NAME.len()).rposition(|window| window == NAME);
    let digits = json[at.unwrap() + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |index, digit| index * 10 + u64::from(digit - b'0'))
}

/// Writes a WAL that holds no entry, only the mark of a snapshot, as a server
/// with these ids would have left it.
pub fn write_minimal_wal(data_dir: &Path, snapshot: &Snapshot, node_id: u64, cluster_id: u64) {
    write_wal(data_dir, snapshot, node_id, cluster_id, std::iter::empty());
}

/// Writes a WAL with the mark of a snapshot, then one committed entry for each request.
pub fn write_wal(
    data_dir: &Path,
    snapshot: &Snapshot,
    node_id: u64,
    cluster_id: u64,
    requests: impl Iterator<Item = Vec<u8>>,
) {
    write_entries(data_dir, snapshot, node_id, cluster_id, requests.map(|request| (NORMAL, request)));
}

const METADATA: u64 = 1;
const ENTRY: u64 = 2;
const STATE: u64 = 3;
const CRC: u64 = 4;
const SNAPSHOT: u64 = 5;

/// The type of an entry that holds a request.
pub const NORMAL: u64 = 0;
/// The type of an entry that holds a configuration change.
pub const CONF_CHANGE: u64 = 1;

/// As [`write_wal`], with entries of these types and data.
pub fn write_entries(
    data_dir: &Path,
    snapshot: &Snapshot,
    node_id: u64,
    cluster_id: u64,
    entries: impl Iterator<Item = (u64, Vec<u8>)>,
) {
    let (mut index, term) = (snapshot.index, snapshot.term);
    let mut wal = Wal::default();
    wal.record(CRC, None);
    wal.record(METADATA, Some(&numbers(&[node_id, cluster_id])));
    wal.record(SNAPSHOT, Some(&numbers(&[0, 0])));
    // Term, vote, commit.
    wal.record(STATE, Some(&numbers(&[term, node_id, index])));
    wal.record(SNAPSHOT, Some(&numbers(&[index, term])));
    for (kind, data) in entries {
        index += 1;
        let mut entry = numbers(&[kind, term, index]);
        put_bytes(&mut entry, 4, &data);
        wal.record(ENTRY, Some(&entry));
        wal.record(STATE, Some(&numbers(&[term, node_id, index])));
    }
    let dir = data_dir.join("member/wal");
    fs::create_dir_all(&dir).unwrap();
    let name = format!("{:016x}-{:016x}.wal", 0, 0);
    let path = dir.join(name);
    fs::write(&path, wal.bytes).unwrap();
    // As a server preallocates it; the zeros take no room on disk.
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len().max(64_000_000)).unwrap();
}

/// A log with everything a test may choose.
#[derive(Clone, Debug)]
pub struct Log {
    pub node_id: u64,
    pub cluster_id: u64,
    /// Raft index and term of the snapshot after which the entries begin; 0 without one.
    pub start: (u64, u64),
    /// Type, term and data of each entry.
    pub entries: Vec<(u64, u64, Vec<u8>)>,
    /// The commit index in the hard state.
    pub commit: u64,
    /// Whether the frames are padded and the segment is preallocated, as 3.0 and later do.
    pub padded: bool,
}

/// Writes a log of one segment. The last record is the hard state. Returns the path of the segment.
pub fn write_log(data_dir: &Path, log: &Log) -> PathBuf {
    let (start, start_term) = log.start;
    let mut wal = Wal { unpadded: !log.padded, ..Wal::default() };
    wal.record(CRC, None);
    wal.record(METADATA, Some(&numbers(&[log.node_id, log.cluster_id])));
    wal.record(SNAPSHOT, Some(&numbers(&[0, 0])));
    if start > 0 {
        wal.record(STATE, Some(&numbers(&[start_term, log.node_id, start])));
        wal.record(SNAPSHOT, Some(&numbers(&[start, start_term])));
    }
    for (index, (kind, term, data)) in (start + 1..).zip(&log.entries) {
        let mut entry = numbers(&[*kind, *term, index]);
        if !data.is_empty() {
            put_bytes(&mut entry, 4, data);
        }
        wal.record(ENTRY, Some(&entry));
    }
    let term = log.entries.last().map_or(start_term, |(_, term, _)| *term);
    wal.record(STATE, Some(&numbers(&[term, log.node_id, log.commit])));
    let dir = data_dir.join("member/wal");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{:016x}-{:016x}.wal", 0, 0));
    fs::write(&path, wal.bytes).unwrap();
    if log.padded {
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len().max(64_000_000)).unwrap();
    }
    path
}

/// A plain v2 PUT as a server logs it.
pub fn put_request(id: u64, path: &str, value: &[u8]) -> Vec<u8> {
    Request::with_id(id, "PUT", path).value(value).bytes()
}

/// A v2 request as a server logs it: its fields by number, in their order.
#[derive(Clone, Debug)]
pub struct Request(Vec<u8>);

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        Self::with_id(1, method, path)
    }

    fn with_id(id: u64, method: &str, path: &str) -> Self {
        Self(numbers(&[id])).text(2, method.as_bytes()).text(3, path.as_bytes())
    }

    pub fn value(self, value: &[u8]) -> Self {
        self.text(4, value)
    }

    pub fn dir(self) -> Self {
        self.number(5, 1)
    }

    pub fn prev_index(self, index: u64) -> Self {
        self.number(7, index)
    }

    pub fn prev_exist(self, exist: bool) -> Self {
        self.number(8, u64::from(exist))
    }

    pub fn sorted(self) -> Self {
        self.number(13, 1)
    }

    /// The time of a SYNC, in UNIX seconds.
    pub fn time(self, at: u64) -> Self {
        self.number(15, at * 1_000_000_000)
    }

    pub fn prev_value(self, value: &[u8]) -> Self {
        self.text(6, value)
    }

    /// UNIX seconds.
    pub fn expires(self, at: u64) -> Self {
        self.number(9, at * 1_000_000_000)
    }

    pub fn recursive(self) -> Self {
        self.number(12, 1)
    }

    pub fn refresh(self) -> Self {
        self.number(17, 1)
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        put_number(&mut self.0, field, value);
        self
    }

    fn text(mut self, field: u64, bytes: &[u8]) -> Self {
        put_bytes(&mut self.0, field, bytes);
        self
    }
}

/// The type of a configuration change that adds a member.
pub const ADD_NODE: u64 = 0;
/// The type of a configuration change that updates a member.
pub const UPDATE_NODE: u64 = 2;

/// A configuration change as a server logs it.
pub fn conf_change(kind: u64, node_id: u64, member: &str) -> Vec<u8> {
    let mut change = numbers(&[node_id, kind, node_id]);
    put_bytes(&mut change, 4, member.as_bytes());
    change
}

/// Writes a `.snap` file around a v2 store in JSON.
pub fn write_snapshot(data_dir: &Path, store: Vec<u8>, index: u64, term: u64, voter: u64, v2_index: u64) -> Snapshot {
    write_snapshot_of(data_dir, store, index, term, &[voter], v2_index)
}

/// As [`write_snapshot`], with these voters.
pub fn write_snapshot_of(
    data_dir: &Path,
    store: Vec<u8>,
    index: u64,
    term: u64,
    voters: &[u64],
    v2_index: u64,
) -> Snapshot {
    let file = snap_of(store, index, term, voters);
    let dir = data_dir.join("member/snap");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{term:016x}-{index:016x}.snap"));
    fs::write(&path, file).unwrap();
    Snapshot { path, index, term, voters: voters.to_vec(), v2_index }
}

/// The bytes of a `.snap` file around a v2 store, at this raft index of term 2, with one voter.
pub fn snap(store: &[u8], index: u64) -> Vec<u8> {
    snap_of(store.to_vec(), index, 2, &[7])
}

/// Takes the store, which may be large, so that it is dropped before the file is made.
fn snap_of(store: Vec<u8>, index: u64, term: u64, voters: &[u64]) -> Vec<u8> {
    let mut metadata = Vec::new();
    let mut conf_state = Vec::new();
    voters.iter().for_each(|voter| put_number(&mut conf_state, 1, *voter));
    put_bytes(&mut metadata, 1, &conf_state);
    put_number(&mut metadata, 2, index);
    put_number(&mut metadata, 3, term);
    let mut raft = Vec::with_capacity(store.len() + 64);
    put_bytes(&mut raft, 1, &store);
    drop(store);
    put_bytes(&mut raft, 2, &metadata);
    let mut file = Vec::with_capacity(raft.len() + 16);
    put_number(&mut file, 1, u64::from(crc32c::crc32c(&raft)));
    put_bytes(&mut file, 2, &raft);
    file
}

/// The frames of a segment of etcd 3.x: where each begins, and where its record is.
pub fn frames(segment: &[u8]) -> Vec<(usize, Range<usize>)> {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some(head) = segment.get(at..at + 8) {
        let length = u64::from_le_bytes(head.try_into().unwrap());
        if length == 0 {
            break;
        }
        let padding = if length >> 63 == 1 { (length >> 56) as usize & 7 } else { 0 };
        let record = at + 8..at + 8 + (length & 0x00ff_ffff_ffff_ffff) as usize;
        frames.push((at, record.clone()));
        at = record.end + padding;
    }
    frames
}

/// A segment with only the records that are wanted (of an entry, by its raft index), with new checksums.
pub fn rewritten(segment: &[u8], wanted: impl Fn(Option<u64>) -> bool) -> Vec<u8> {
    let mut wal = Wal::default();
    for (_, record) in frames(segment) {
        let record = &segment[record];
        let kind = number_of(record, 1).unwrap();
        let data = bytes_of(record, 3);
        let entry = (kind == ENTRY).then(|| number_of(data.unwrap(), 3).unwrap());
        if wanted(entry) {
            wal.record(kind, data);
        }
    }
    wal.bytes
}

#[derive(Default)]
struct Wal {
    bytes: Vec<u8>,
    crc: u32,
    /// Frames without padding, as before 3.0.
    unpadded: bool,
}

impl Wal {
    /// A frame as etcd 3.0 and later write it, padded to eight bytes, or as earlier ones do.
    fn record(&mut self, kind: u64, data: Option<&[u8]>) {
        self.crc = crc32c::crc32c_append(self.crc, data.unwrap_or_default());
        let mut record = numbers(&[kind, u64::from(self.crc)]);
        if let Some(data) = data {
            put_bytes(&mut record, 3, data);
        }
        let padding = if self.unpadded { 0 } else { record.len().wrapping_neg() % 8 };
        let mut length = record.len() as u64;
        if padding > 0 {
            length |= (0x80 | padding as u64) << 56;
        }
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&record);
        self.bytes.resize(self.bytes.len() + padding, 0);
    }
}
