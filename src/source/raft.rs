//! The messages inside WAL records: entries, hard states, ids, configuration changes and v2 requests (FORMATS 5).
//!
//! Everything is borrowed from the map. Knows the wire form only: what a request does to the tree is `v2store`'s matter.

use crate::error::{Error, Reason, Result};
use crate::ids::{ClusterId, MemberId, RaftIndex, Term};
use crate::source::internal_request::V3Request;
use crate::wire::{Field, Reader, Value};

/// The kind of a raft entry (FORMATS 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A request, or nothing (the first entry of a new leader).
    Normal,
    /// A change of the configuration.
    ConfChange,
    /// A joint change (3.4 and later); never proposed by etcd.
    ConfChangeV2,
}

/// A raft entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What the data is.
    pub kind: EntryKind,
    /// The term in which it was proposed.
    pub term: Term,
    /// Its position in the log, from 1.
    pub index: RaftIndex,
    /// The request or change; empty for a no-op.
    pub data: &'a [u8],
    /// Offset of the data's first byte in the segment.
    pub data_offset: u64,
}

/// A raft hard state (FORMATS 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The highest term seen.
    pub term: Term,
    /// Whom the member voted for in it.
    pub vote: MemberId,
    /// The highest index known to be committed.
    pub commit: RaftIndex,
}

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// The member that wrote it.
    pub node_id: MemberId,
    /// Its cluster.
    pub cluster_id: ClusterId,
}

/// A snapshot record: the index and term of a snapshot that was taken or received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapRecord {
    /// Raft index of the snapshot.
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
    /// Whether it has the raft configuration, which 3.5 adds.
    pub configured: bool,
}

/// Whether these bytes are the entry of index 0 and term 0 that etcd 2.0 and 2.1 begin a log with which they migrate from 0.4:
/// without data, and without any effect.
pub fn is_migration_entry(data: &[u8]) -> bool {
    matches!(data, [8, 0, 16, 0, 24, 0] | [8, 0, 16, 0, 24, 0, 0x22, 0])
}

/// Parses a `raftpb.Entry`.
///
/// # Errors
/// [`Reason::Damaged`] if it is not exactly an entry as etcd writes them.
pub fn parse_entry(data: &[u8], base: u64) -> Result<Entry<'_>> {
    let mut fields = Fields::new(data, base, "an entry");
    let (kind, term, index) = (fields.varint(1)?, fields.varint(2)?, fields.varint(3)?);
    let payload = fields.bytes(4)?;
    fields.end()?;
    let kind = match kind {
        0 => EntryKind::Normal,
        1 => EntryKind::ConfChange,
        2 => EntryKind::ConfChangeV2,
        _ => return Err(damaged(base, format!("expected an entry type from 0 to 2, found {kind}"))),
    };
    let (data, data_offset) = payload.unwrap_or((&[], base));
    if index == 0 || term == 0 {
        return Err(damaged(base, format!("expected an entry with an index and a term, found {index} and {term}")));
    }
    if kind != EntryKind::Normal && data.is_empty() {
        return Err(damaged(base, "expected a configuration change, found an entry without one"));
    }
    Ok(Entry { kind, term: Term(term), index: RaftIndex(index), data, data_offset })
}

/// Parses a `raftpb.HardState`.
///
/// # Errors
/// [`Reason::Damaged`] if it is not exactly a hard state as etcd writes them.
pub fn parse_hard_state(data: &[u8], base: u64) -> Result<HardState> {
    let mut fields = Fields::new(data, base, "a hard state");
    let state = HardState {
        term: Term(fields.varint(1)?),
        vote: MemberId(fields.varint(2)?),
        commit: RaftIndex(fields.varint(3)?),
    };
    fields.end()?;
    Ok(state)
}

/// Parses an `etcdserverpb.Metadata`.
///
/// # Errors
/// [`Reason::Damaged`] if it is not exactly that message as etcd writes it.
pub fn parse_metadata(data: &[u8], base: u64) -> Result<Metadata> {
    let mut fields = Fields::new(data, base, "member metadata");
    let metadata = Metadata { node_id: MemberId(fields.varint(1)?), cluster_id: ClusterId(fields.varint(2)?) };
    fields.end()?;
    Ok(metadata)
}

/// Parses a `walpb.Snapshot`; of the configuration that 3.5 adds only its presence is noted.
///
/// # Errors
/// [`Reason::Damaged`] if it is not exactly that message as etcd writes it.
pub fn parse_snap_record(data: &[u8], base: u64) -> Result<SnapRecord> {
    let mut fields = Fields::new(data, base, "a snapshot record");
    let (index, term) = (RaftIndex(fields.varint(1)?), Term(fields.varint(2)?));
    let configured = fields.bytes(3)?.is_some();
    fields.end()?;
    Ok(SnapRecord { index, term, configured })
}

/// A change of the configuration (FORMATS 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfChange<'a> {
    /// What changes.
    pub kind: ConfChangeKind,
    /// Which member.
    pub node_id: MemberId,
    /// The member as JSON; empty for a removal.
    pub context: &'a [u8],
}

/// What a configuration change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfChangeKind {
    /// Adds a voter, or promotes a learner.
    AddNode,
    /// Removes a member.
    RemoveNode,
    /// Changes a member's peer URLs.
    UpdateNode,
    /// Adds a learner.
    AddLearnerNode,
}

/// Parses a `raftpb.ConfChange`.
///
/// # Errors
/// [`Reason::Damaged`] if it is not such a message.
pub fn parse_conf_change(data: &[u8], base: u64) -> Result<ConfChange<'_>> {
    let (mut kind, mut node_id, mut context) = (0, 0, &[][..]);
    let mut reader = Reader::new(data, base);
    while let Some(field) = reader.field()? {
        match field.number {
            2 => kind = field.varint()?,
            3 => node_id = field.varint()?,
            4 => context = field.bytes()?,
            _ => {}
        }
    }
    let kind = match kind {
        0 => ConfChangeKind::AddNode,
        1 => ConfChangeKind::RemoveNode,
        2 => ConfChangeKind::UpdateNode,
        3 => ConfChangeKind::AddLearnerNode,
        _ => return Err(damaged(base, format!("expected a configuration change from 0 to 3, found {kind}"))),
    };
    Ok(ConfChange { kind, node_id: MemberId(node_id), context })
}

/// A v2 request (FORMATS 5.3); absent fields are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Request<'a> {
    /// POST, PUT, DELETE, QGET or SYNC.
    pub method: &'a [u8],
    /// Store path with its namespace; any bytes.
    pub path: &'a [u8],
    /// Value; any bytes.
    pub val: &'a [u8],
    /// Make a directory.
    pub dir: bool,
    /// Compare with this value; empty: do not.
    pub prev_value: &'a [u8],
    /// Compare with this modified index; 0: do not.
    pub prev_index: u64,
    /// Whether the node must exist, where that was asked.
    pub prev_exist: Option<bool>,
    /// UNIX nanoseconds; 0: no TTL.
    pub expiration: i64,
    /// Delete whole subtrees.
    pub recursive: bool,
    /// SYNC only: UNIX nanoseconds.
    pub time: i64,
    /// Keep the value, renew the TTL, where that was asked (2.3 and later).
    pub refresh: Option<bool>,
}

impl Request<'_> {
    /// Whether it may change a v2 key.
    pub fn is_write(&self) -> bool {
        matches!(self.method, b"PUT" | b"POST" | b"DELETE")
    }
}

/// What the data of a normal entry is (FORMATS 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposal<'a> {
    /// Nothing: the first entry of a new leader.
    Empty,
    /// A v2 request.
    V2(Request<'a>),
    /// The cluster version, set through the v3 API (3.5).
    ClusterVersionSet(&'a [u8]),
    /// A member's attributes, set through the v3 API (3.5): the `ClusterMemberAttrSetRequest`.
    MemberAttributesSet(&'a [u8]),
    /// Another v3 request: the first field of `InternalRaftRequest` from 3 on.
    V3(V3Request<'a>),
}

/// Tells what a normal entry proposes.
///
/// # Errors
/// [`Reason::Damaged`] if the data is neither a request nor an internal request.
pub fn parse_proposal(data: &[u8], base: u64) -> Result<Proposal<'_>> {
    if data.is_empty() {
        return Ok(Proposal::Empty);
    }
    let mut v2 = None;
    let mut v3 = None;
    let mut reader = Reader::new(data, base);
    while let Some(field) = reader.field()? {
        match field.number {
            2 => match field.bytes()? {
                b"POST" | b"PUT" | b"DELETE" | b"QGET" | b"SYNC" | b"GET" | b"HEAD" | b"" => {
                    return parse_request(data, base).map(Proposal::V2);
                }
                _ => v2 = Some(field),
            },
            1 | 100 => {}
            _ => v3 = v3.or(Some(field)),
        }
    }
    Ok(match (v2, v3) {
        (Some(field), _) => Proposal::V2(parse_request(field.bytes()?, field.value_offset)?),
        (None, Some(field)) if field.number == 1300 => Proposal::ClusterVersionSet(field.bytes()?),
        (None, Some(field)) if field.number == 1301 => Proposal::MemberAttributesSet(field.bytes()?),
        (None, Some(field)) => {
            let message = if let Value::Bytes(message) = field.value { message } else { &[] };
            Proposal::V3(V3Request { field: field.number, message })
        }
        (None, None) => Proposal::Empty,
    })
}

fn parse_request(data: &[u8], base: u64) -> Result<Request<'_>> {
    let mut request = Request::default();
    let mut reader = Reader::new(data, base);
    while let Some(field) = reader.field()? {
        match field.number {
            2 => request.method = field.bytes()?,
            3 => request.path = field.bytes()?,
            4 => request.val = field.bytes()?,
            5 => request.dir = field.varint()? != 0,
            6 => request.prev_value = field.bytes()?,
            7 => request.prev_index = field.varint()?,
            8 => request.prev_exist = Some(field.varint()? != 0),
            9 => request.expiration = signed(field.varint()?),
            11 | 1 | 10 | 13 | 14 | 16 => {}
            12 => request.recursive = field.varint()? != 0,
            15 => request.time = signed(field.varint()?),
            17 => request.refresh = Some(field.varint()? != 0),
            _ => {}
        }
    }
    Ok(request)
}

/// A protobuf `int64`: two's complement in ten bytes.
fn signed(value: u64) -> i64 {
    i64::from_le_bytes(value.to_le_bytes())
}

/// Fields that are all there, in ascending order, and nothing else: what etcd's generated writers always emit. A record
/// whose type was damaged does not read as another kind of record.
struct Fields<'a> {
    reader: Reader<'a>,
    next: Option<Field<'a>>,
    base: u64,
    what: &'static str,
    started: bool,
}

impl<'a> Fields<'a> {
    fn new(data: &'a [u8], base: u64, what: &'static str) -> Self {
        Fields { reader: Reader::new(data, base), next: None, base, what, started: false }
    }

    fn peek(&mut self) -> Result<Option<Field<'a>>> {
        if !self.started {
            self.started = true;
            self.next = self.reader.field()?;
        }
        Ok(self.next)
    }

    fn advance(&mut self) -> Result<()> {
        self.next = self.reader.field()?;
        Ok(())
    }

    fn varint(&mut self, number: u32) -> Result<u64> {
        match self.peek()? {
            Some(field) if field.number == number => {
                let value = field.varint()?;
                self.advance()?;
                Ok(value)
            }
            _ => Err(damaged(self.base, format!("expected {} with field {number}, found none", self.what))),
        }
    }

    fn bytes(&mut self, number: u32) -> Result<Option<(&'a [u8], u64)>> {
        match self.peek()? {
            Some(field) if field.number == number => {
                let value = field.bytes()?;
                self.advance()?;
                Ok(Some((value, field.value_offset)))
            }
            _ => Ok(None),
        }
    }

    fn end(&mut self) -> Result<()> {
        match self.peek()? {
            None => Ok(()),
            Some(field) => {
                Err(damaged(field.offset, format!("expected the end of {}, found field {}", self.what, field.number)))
            }
        }
    }
}

fn damaged(offset: u64, message: impl Into<String>) -> Error {
    Error::new(Reason::Damaged, message).at(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::etcd;
    use protobuf::Message;

    #[test]
    fn entries_read_as_the_generated_code_wrote_them() {
        let mut entry = etcd::Entry::new();
        entry.set_type(1);
        entry.set_term(3);
        entry.set_index(1 << 40);
        entry.set_data(b"change".to_vec());
        let bytes = entry.write_to_bytes().unwrap();
        let read = parse_entry(&bytes, 10).unwrap();
        assert_eq!((read.kind, read.term, read.index), (EntryKind::ConfChange, Term(3), RaftIndex(1 << 40)));
        assert_eq!((read.data, read.data_offset), (&b"change"[..], 10 + bytes.len() as u64 - 6));
    }

    #[test]
    fn a_hard_state_is_no_entry_and_an_entry_no_hard_state() {
        let mut state = etcd::HardState::new();
        state.set_term(2);
        state.set_vote(0x8e9e_05c5_2164_694d);
        state.set_commit(17);
        let bytes = state.write_to_bytes().unwrap();
        assert_eq!(parse_hard_state(&bytes, 0).unwrap().commit, RaftIndex(17));
        assert!(parse_entry(&bytes, 0).is_err());
        assert!(parse_metadata(&bytes, 0).is_err());
        assert!(parse_snap_record(&bytes, 0).is_err());
        let entry = [0x08, 0, 0x10, 2, 0x18, 3, 0x22, 1, b'x'];
        assert!(parse_entry(&entry, 0).is_ok());
        assert!(parse_hard_state(&entry, 0).is_err());
    }

    proptest::proptest! {
        #[test]
        fn requests_read_as_the_generated_code_wrote_them(
            path: Vec<u8>, val: Vec<u8>, prev_index: u64, prev_exist: Option<bool>, expiration: i64, refresh: Option<bool>,
        ) {
            let mut message = etcd::Request::new();
            message.set_id(7);
            message.set_method(b"PUT".to_vec());
            message.set_path(path.clone());
            message.set_val(val.clone());
            message.set_prev_index(prev_index);
            message.prev_exist = prev_exist;
            message.set_expiration(expiration);
            message.refresh = refresh;
            let bytes = message.write_to_bytes().unwrap();
            let proposal = parse_proposal(&bytes, 0).unwrap();
            let expected = Request {
                method: b"PUT", path: &path, val: &val, prev_index, prev_exist, expiration,
                refresh, ..Request::default()
            };
            proptest::prop_assert_eq!(proposal, Proposal::V2(expected));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = (parse_entry(&bytes, 0), parse_proposal(&bytes, 0), parse_conf_change(&bytes, 0));
            let _ = (parse_hard_state(&bytes, 0), parse_metadata(&bytes, 0), parse_snap_record(&bytes, 0));
        }
    }
}
