//! The little that tests must know of v2 files themselves: what the newest
//! `.snap` of a directory stands for, and how to write a `.snap` and a WAL
//! that a real etcd starts from.

use std::fs;
use std::path::{Path, PathBuf};

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
    for field in fields(bytes_of(&fields(&file), 2)) {
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

/// A quote inside a JSON string is always escaped, so the name with both of
/// its quotes stands nowhere else.
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

/// Writes a WAL with the mark of a snapshot and, behind it, one committed
/// entry for each request.
pub fn write_wal(
    data_dir: &Path,
    snapshot: &Snapshot,
    node_id: u64,
    cluster_id: u64,
    requests: impl Iterator<Item = Vec<u8>>,
) {
    write_entries(data_dir, snapshot, node_id, cluster_id, requests.map(|request| (NORMAL, request)));
}

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
    const METADATA: u64 = 1;
    const ENTRY: u64 = 2;
    const STATE: u64 = 3;
    const CRC: u64 = 4;
    const SNAPSHOT: u64 = 5;
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

/// A plain v2 PUT as a server logs it.
pub fn put_request(id: u64, path: &str, value: &[u8]) -> Vec<u8> {
    let mut request = numbers(&[id]);
    put_bytes(&mut request, 2, b"PUT");
    put_bytes(&mut request, 3, path.as_bytes());
    put_bytes(&mut request, 4, value);
    request
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
    let mut conf_state = Vec::new();
    put_varint(&mut conf_state, 1 << 3);
    put_varint(&mut conf_state, voter);
    let mut metadata = Vec::new();
    put_bytes(&mut metadata, 1, &conf_state);
    for (field, number) in [(2, index), (3, term)] {
        put_varint(&mut metadata, field << 3);
        put_varint(&mut metadata, number);
    }
    let mut raft = Vec::with_capacity(store.len() + 64);
    put_bytes(&mut raft, 1, &store);
    drop(store);
    put_bytes(&mut raft, 2, &metadata);
    let mut file = Vec::with_capacity(raft.len() + 16);
    put_varint(&mut file, 1 << 3);
    put_varint(&mut file, u64::from(crc32c::crc32c(&raft)));
    put_bytes(&mut file, 2, &raft);
    let dir = data_dir.join("member/snap");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{term:016x}-{index:016x}.snap"));
    fs::write(&path, file).unwrap();
    Snapshot { path, index, term, voters: vec![voter], v2_index }
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[derive(Default)]
struct Wal {
    bytes: Vec<u8>,
    crc: u32,
}

impl Wal {
    /// A frame as etcd 3.0 and later write it: padded to eight bytes.
    fn record(&mut self, kind: u64, data: Option<&[u8]>) {
        self.crc = crc32c::crc32c_append(self.crc, data.unwrap_or_default());
        let mut record = numbers(&[kind, u64::from(self.crc)]);
        if let Some(data) = data {
            put_bytes(&mut record, 3, data);
        }
        let padding = record.len().wrapping_neg() % 8;
        let mut length = record.len() as u64;
        if padding > 0 {
            length |= (0x80 | padding as u64) << 56;
        }
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&record);
        self.bytes.resize(self.bytes.len() + padding, 0);
    }
}

/// A message whose fields 1, 2, … are these numbers.
fn numbers(values: &[u64]) -> Vec<u8> {
    let mut message = Vec::new();
    for (field, value) in (1..).zip(values) {
        put_varint(&mut message, field << 3);
        put_varint(&mut message, *value);
    }
    message
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn bytes_of<'a>(fields: &[(u64, Field<'a>)], number: u64) -> &'a [u8] {
    let mut found = fields.iter().filter_map(|field| match field {
        (n, Field::Bytes(bytes)) if *n == number => Some(*bytes),
        _ => None,
    });
    found.next().unwrap()
}

fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let number = varint(&mut message);
        let field = match tag & 7 {
            0 => Field::Number(number),
            2 => {
                let (bytes, rest) = message.split_at(usize::try_from(number).unwrap());
                message = rest;
                Field::Bytes(bytes)
            }
            wire => panic!("wire type {wire}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first().unwrap();
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}
