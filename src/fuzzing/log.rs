//! A writer of write-ahead logs, requests and `.snap` files, byte for byte as etcd writes them (docs/formats.md 2, 4,
//! 5).
//!
//! It has both dialects: unpadded frames of 2.x, and padded frames with a zero tail of 3.0 and later. Tests and fuzz
//! targets use it. Must not know how `source` reads a log: it takes names and requests from there, and encodes with
//! `proto`.

use protobuf::Message;

use crate::ids::RaftIndex;
use crate::proto::etcd;
use crate::source::dir::SegmentName;
use crate::source::raft::Request;

/// The form of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// 2.x.
    Unpadded,
    /// 3.0 and later.
    Padded,
}

pub const METADATA: u64 = 1;
pub const ENTRY: u64 = 2;
pub const STATE: u64 = 3;
pub const CRC: u64 = 4;
pub const SNAPSHOT: u64 = 5;

/// The type of a normal entry.
pub const NORMAL: u64 = 0;
pub const CONF_CHANGE: u64 = 1;

/// A log under construction.
#[derive(Debug, Clone)]
pub struct Log {
    dialect: Dialect,
    crc: u32,
    metadata: Vec<u8>,
    segments: Vec<Segment>,
}

/// A segment of the log.
#[derive(Debug, Clone, Default)]
pub struct Segment {
    /// The planned index of its first entry.
    pub index: u64,
    pub bytes: Vec<u8>,
    /// The end offset of each frame.
    pub ends: Vec<usize>,
}

impl Log {
    /// Creates a log with its header: checksum, metadata, an empty snapshot record (docs/formats.md 4.4).
    pub fn new(dialect: Dialect, node: u64, cluster: u64) -> Log {
        let mut log = Log::headless(dialect, node, cluster);
        log.cut(0, None);
        log.snapshot(0, 0);
        log
    }

    /// Creates a log without segments.
    pub fn headless(dialect: Dialect, node: u64, cluster: u64) -> Log {
        let mut metadata = etcd::Metadata::new();
        metadata.set_node_id(node);
        metadata.set_cluster_id(cluster);
        Log { dialect, crc: 0, metadata: metadata.write_to_bytes().unwrap(), segments: Vec::new() }
    }

    /// Ends the segment and begins the next with its header; `index` is the planned index of its first entry.
    pub fn cut(&mut self, index: u64, state: Option<[u64; 3]>) {
        self.segments.push(Segment { index, ..Segment::default() });
        self.frame(CRC, self.crc, None);
        let metadata = self.metadata.clone();
        self.record(METADATA, Some(&metadata));
        if let Some([term, vote, commit]) = state {
            self.state(term, vote, commit);
        }
    }

    pub fn entry(&mut self, kind: u64, term: u64, index: u64, data: Option<&[u8]>) {
        let mut entry = etcd::Entry::new();
        entry.set_type(kind);
        entry.set_term(term);
        entry.set_index(index);
        entry.data = data.map(<[u8]>::to_vec);
        self.record(ENTRY, Some(&entry.write_to_bytes().unwrap()));
    }

    pub fn state(&mut self, term: u64, vote: u64, commit: u64) {
        let mut state = etcd::HardState::new();
        state.set_term(term);
        state.set_vote(vote);
        state.set_commit(commit);
        self.record(STATE, Some(&state.write_to_bytes().unwrap()));
    }

    pub fn snapshot(&mut self, index: u64, term: u64) {
        let mut snapshot = etcd::WalSnapshot::new();
        snapshot.set_index(index);
        snapshot.set_term(term);
        self.record(SNAPSHOT, Some(&snapshot.write_to_bytes().unwrap()));
    }

    /// Adds a record of any type except a checksum, with its correct checksum.
    pub fn record(&mut self, kind: u64, data: Option<&[u8]>) {
        self.crc = crc32c::crc32c_append(self.crc, data.unwrap_or_default());
        self.frame(kind, self.crc, data);
    }

    /// Adds a record with any checksum.
    pub fn frame(&mut self, kind: u64, crc: u32, data: Option<&[u8]>) {
        let mut record = etcd::WalRecord::new();
        record.set_type(kind.cast_signed());
        record.set_crc(crc);
        record.data = data.map(<[u8]>::to_vec);
        let record = record.write_to_bytes().unwrap();
        let mut length = record.len() as u64;
        let mut padding = (8 - record.len() % 8) % 8;
        if self.dialect == Dialect::Unpadded {
            padding = 0;
        }
        if padding > 0 {
            length |= (0x80 | padding as u64) << 56;
        }
        let segment = self.segments.last_mut().unwrap();
        segment.bytes.extend_from_slice(&length.to_le_bytes());
        segment.bytes.extend_from_slice(&record);
        segment.bytes.resize(segment.bytes.len() + padding, 0);
        segment.ends.push(segment.bytes.len());
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the segments with their names, for [`crate::source::wal::Wal::of_bytes`].
    pub fn named(&self) -> Vec<(SegmentName, Vec<u8>)> {
        let named = |(seq, segment): (usize, &Segment)| {
            let path = segment_file(seq as u64, segment.index).into();
            (SegmentName { seq: seq as u64, index: RaftIndex(segment.index), path }, segment.bytes.clone())
        };
        self.segments.iter().enumerate().map(named).collect()
    }
}

/// Returns the file name of a segment.
pub fn segment_file(seq: u64, index: u64) -> String {
    format!("{seq:016x}-{index:016x}.wal")
}

/// Returns the file name of a snapshot.
pub fn snap_file(term: u64, index: u64) -> String {
    format!("{term:016x}-{index:016x}.snap")
}

/// Encodes a v2 request, with all fields that etcd's generated code always writes.
pub fn request(request: &Request<'_>) -> Vec<u8> {
    let mut message = etcd::Request::new();
    message.set_id(7);
    message.set_method(request.method.word().into());
    message.set_path(request.path.to_vec());
    message.set_val(request.val.to_vec());
    message.set_dir(request.dir);
    message.set_prev_value(request.prev_value.to_vec());
    message.set_prev_index(request.prev_index);
    message.prev_exist = request.prev_exist;
    message.set_expiration(request.expiration);
    message.set_wait(false);
    message.set_since(0);
    message.set_recursive(request.recursive);
    message.set_sorted(false);
    message.set_quorum(false);
    message.set_time(request.time);
    message.set_stream(false);
    message.refresh = request.refresh;
    message.write_to_bytes().unwrap()
}

/// Encodes a configuration change.
pub fn conf_change(kind: u64, node: u64, context: &str) -> Vec<u8> {
    let mut change = etcd::ConfChange::new();
    change.set_id(1);
    change.set_type(kind);
    change.set_node_id(node);
    if !context.is_empty() {
        change.set_context(context.as_bytes().to_vec());
    }
    change.write_to_bytes().unwrap()
}

/// Returns the JSON of a member in a configuration change.
pub fn member_json(id: u64, port: u16) -> String {
    format!(r#"{{"id":{id},"peerURLs":["http://localhost:{port}"],"name":"m{id}"}}"#)
}

/// Encodes a `.snap` file.
pub fn snap(json: &[u8], index: u64, term: u64, voters: &[u64]) -> Vec<u8> {
    let mut state = etcd::ConfState::new();
    state.voters = voters.to_vec();
    let mut metadata = etcd::SnapshotMetadata::new();
    metadata.conf_state = Some(state).into();
    metadata.set_index(index);
    metadata.set_term(term);
    let mut snapshot = etcd::RaftSnapshot::new();
    snapshot.set_data(json.to_vec());
    snapshot.metadata = Some(metadata).into();
    container(&snapshot.write_to_bytes().unwrap())
}

/// Encodes the container of a `.snap` file, with its checksum.
pub fn container(body: &[u8]) -> Vec<u8> {
    let mut container = etcd::SnapContainer::new();
    container.set_crc(crc32c::crc32c(body));
    container.set_data(body.to_vec());
    container.write_to_bytes().unwrap()
}
