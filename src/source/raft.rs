//! The messages in WAL records: entries, hard states, ids, configuration changes and v2 requests (docs/formats.md 5).
//!
//! All data is borrowed from the map. Knows the wire form only. Must not know what a request does to the tree, which
//! `v2store` knows.

use crate::error::{Error, Reason, Result};
use crate::ids::{ByteOffset, ClusterId, MemberId, RaftIndex, Term};
use crate::source::internal_request::V3Request;
use crate::wire::{Field, Reader, Value, WireError};
use crate::words::words;

/// The kind of a raft entry (docs/formats.md 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A request, or empty data (the first entry of a new leader).
    Normal,
    /// A configuration change.
    ConfChange,
    /// A joint configuration change (3.4 and later); etcd never proposes one.
    ConfChangeV2,
}

impl EntryKind {
    /// Returns the number of the kind in an entry.
    pub const fn number(self) -> u64 {
        match self {
            EntryKind::Normal => 0,
            EntryKind::ConfChange => 1,
            EntryKind::ConfChangeV2 => 2,
        }
    }
}

/// A raft entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The kind of the data.
    pub kind: EntryKind,
    /// The term of its proposal.
    pub term: Term,
    /// Its raft index, from 1.
    pub index: RaftIndex,
    /// The request or change; empty for a no-op.
    pub data: &'a [u8],
    /// Offset of the data's first byte in the segment.
    pub data_offset: ByteOffset,
}

/// A raft hard state (docs/formats.md 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The highest term that the member knows.
    pub term: Term,
    /// The member that it voted for in this term.
    pub vote: MemberId,
    /// The commit index.
    pub commit: RaftIndex,
}

/// The owner of a log.
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
    /// The raft index of the snapshot.
    pub index: RaftIndex,
    /// The term of the snapshot.
    pub term: Term,
    /// Whether it contains the raft configuration (3.5 and later).
    pub configured: bool,
}

/// Returns whether these bytes are the entry of index 0 and term 0. etcd 2.0 and 2.1 begin a log with it when they
/// migrate from 0.4. It has no data and no effect.
pub fn is_migration_entry(data: &[u8]) -> bool {
    matches!(data, [8, 0, 16, 0, 24, 0] | [8, 0, 16, 0, 24, 0, 0x22, 0])
}

/// Parses a `raftpb.Entry`.
///
/// # Errors
/// [`Reason::Damaged`] if the bytes are not exactly an entry as etcd writes it.
pub fn parse_entry(data: &[u8], base: ByteOffset) -> Result<Entry<'_>> {
    let mut fields = Fields::new(data, base, "an entry")?;
    // 3.7 leaves the type of a normal entry out.
    let kind = fields.optional_varint(1)?;
    let (term, index) = (fields.varint(2)?, fields.varint(3)?);
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
/// [`Reason::Damaged`] if the bytes are not exactly a hard state as etcd writes it.
pub fn parse_hard_state(data: &[u8], base: ByteOffset) -> Result<HardState> {
    let mut fields = Fields::new(data, base, "a hard state")?;
    let state = HardState {
        term: Term(fields.varint(1)?),
        // 3.7 leaves the vote out if there is none.
        vote: MemberId(fields.optional_varint(2)?),
        commit: RaftIndex(fields.varint(3)?),
    };
    fields.end()?;
    Ok(state)
}

/// Parses an `etcdserverpb.Metadata`.
///
/// # Errors
/// [`Reason::Damaged`] if the bytes are not exactly that message as etcd writes it.
pub fn parse_metadata(data: &[u8], base: ByteOffset) -> Result<Metadata> {
    let mut fields = Fields::new(data, base, "member metadata")?;
    let metadata = Metadata { node_id: MemberId(fields.varint(1)?), cluster_id: ClusterId(fields.varint(2)?) };
    fields.end()?;
    Ok(metadata)
}

/// Parses a `walpb.Snapshot`. Of the configuration that 3.5 adds, only the presence is recorded.
///
/// # Errors
/// [`Reason::Damaged`] if the bytes are not exactly that message as etcd writes it.
pub fn parse_snap_record(data: &[u8], base: ByteOffset) -> Result<SnapRecord> {
    let mut fields = Fields::new(data, base, "a snapshot record")?;
    let (index, term) = (RaftIndex(fields.varint(1)?), Term(fields.varint(2)?));
    let configured = fields.bytes(3)?.is_some();
    fields.end()?;
    Ok(SnapRecord { index, term, configured })
}

/// A configuration change (docs/formats.md 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfChange<'a> {
    /// The kind of the change.
    pub kind: ConfChangeKind,
    /// The member.
    pub node_id: MemberId,
    /// The member as JSON; empty for a removal.
    pub context: &'a [u8],
}

words! {
    /// The kind of a configuration change.
    #[allow(clippy::enum_variant_names, reason = "the names of raft")]
    pub enum ConfChangeKind {
        /// Adds a voter, or promotes a learner.
        AddNode = "add",
        /// Removes a member.
        RemoveNode = "remove",
        /// Changes a member's peer URLs.
        UpdateNode = "update",
        /// Adds a learner.
        AddLearnerNode = "add learner",
    }
}

impl ConfChangeKind {
    /// Returns the number of the kind in a change.
    pub const fn number(self) -> u64 {
        match self {
            ConfChangeKind::AddNode => 0,
            ConfChangeKind::RemoveNode => 1,
            ConfChangeKind::UpdateNode => 2,
            ConfChangeKind::AddLearnerNode => 3,
        }
    }
}

/// Parses a `raftpb.ConfChange`.
///
/// # Errors
/// [`Reason::Damaged`] if the bytes are not such a message.
pub fn parse_conf_change(data: &[u8], base: ByteOffset) -> Result<ConfChange<'_>> {
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

words! {
    /// The method of a v2 request. Only the first four have an effect.
    #[derive(Default)]
    pub enum Method {
        /// Creates a key with an in-order name.
        Post = "POST",
        /// Sets, creates, updates or swaps a key.
        Put = "PUT",
        /// Deletes a key or directory.
        Delete = "DELETE",
        /// Expires keys.
        Sync = "SYNC",
        /// Reads a key through the log.
        Qget = "QGET",
        /// Reads a key; no etcd proposes it.
        Get = "GET",
        /// Reads a key without its value; no etcd proposes it.
        Head = "HEAD",
        /// No method.
        #[default]
        Absent = "",
        /// A word that is no method of etcd.
        Unknown = "?",
    }
}

impl Method {
    /// Reads the method of a request.
    pub fn of(word: &[u8]) -> Method {
        std::str::from_utf8(word).ok().and_then(Method::from_word).unwrap_or(Method::Unknown)
    }

    /// Returns whether a request with this method may change a v2 key.
    pub fn is_write(self) -> bool {
        matches!(self, Method::Post | Method::Put | Method::Delete)
    }
}

/// A v2 request (docs/formats.md 5.3); an absent field is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// Store path with its namespace; any bytes.
    pub path: &'a [u8],
    /// Value; any bytes.
    pub val: &'a [u8],
    /// Creates a directory.
    pub dir: bool,
    /// The value to compare with; empty: no comparison.
    pub prev_value: &'a [u8],
    /// The modified index to compare with; 0: no comparison.
    pub prev_index: u64,
    /// Whether the node must exist; `None`: no condition.
    pub prev_exist: Option<bool>,
    /// Expiration in UNIX nanoseconds; 0: no TTL.
    pub expiration: i64,
    /// Deletes whole subtrees, or reads them.
    pub recursive: bool,
    /// Reads a directory in the order of its names.
    pub sorted: bool,
    /// Time of a SYNC in UNIX nanoseconds.
    pub time: i64,
    /// Renews the TTL without a new value (2.3 and later); `None`: absent.
    pub refresh: Option<bool>,
}

impl Request<'_> {
    /// Returns whether the request may change a v2 key.
    pub fn is_write(&self) -> bool {
        self.method.is_write()
    }
}

/// The content of a normal entry (docs/formats.md 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposal<'a> {
    /// No data: the first entry of a new leader.
    Empty,
    /// A v2 request.
    V2(Request<'a>),
    /// The cluster version, set through the v3 API (3.5).
    ClusterVersionSet(&'a [u8]),
    /// A member's attributes, set through the v3 API (3.5): the `ClusterMemberAttrSetRequest`.
    MemberAttributesSet(&'a [u8]),
    /// Another v3 request: the first field of `InternalRaftRequest` with a number of 3 or more.
    V3(V3Request<'a>),
}

/// Parses the data of a normal entry.
///
/// # Errors
/// [`Reason::Damaged`] if the data is neither a request nor an internal request.
pub fn parse_proposal(data: &[u8], base: ByteOffset) -> Result<Proposal<'_>> {
    if data.is_empty() {
        return Ok(Proposal::Empty);
    }
    let mut v2 = None;
    let mut v3 = None;
    let mut reader = Reader::new(data, base);
    while let Some(field) = reader.field()? {
        match field.number {
            2 => match Method::of(field.bytes()?) {
                Method::Unknown => v2 = Some(field),
                // All fields so far have no effect on a request.
                method if v3.is_none() => {
                    return parse_request(Request { method, ..Request::default() }, reader).map(Proposal::V2);
                }
                _ => return parse_request(Request::default(), Reader::new(data, base)).map(Proposal::V2),
            },
            1 | 100 => {}
            _ => v3 = v3.or(Some(field)),
        }
    }
    Ok(match (v2, v3) {
        (Some(field), _) => {
            let reader = Reader::new(field.bytes()?, field.value_offset);
            Proposal::V2(parse_request(Request::default(), reader)?)
        }
        (None, Some(field)) if field.number == 1300 => Proposal::ClusterVersionSet(field.bytes()?),
        (None, Some(field)) if field.number == 1301 => Proposal::MemberAttributesSet(field.bytes()?),
        (None, Some(field)) => {
            let message = if let Value::Bytes(message) = field.value { message } else { &[] };
            Proposal::V3(V3Request { field: field.number, message })
        }
        (None, None) => Proposal::Empty,
    })
}

/// Returns whether the data of a normal entry is an internal request, which can contain a v2 request, and not a bare v2 request.
pub fn is_internal_request(data: &[u8]) -> bool {
    let mut reader = Reader::new(data, ByteOffset(0));
    while let Ok(Some(field)) = reader.field() {
        if field.number == 2 {
            return field.bytes().is_ok_and(|word| Method::of(word) == Method::Unknown);
        }
    }
    true
}

/// Parses the remaining fields of a request.
fn parse_request<'a>(mut request: Request<'a>, mut reader: Reader<'a>) -> Result<Request<'a>> {
    while let Some(field) = reader.field()? {
        match field.number {
            2 => request.method = Method::of(field.bytes()?),
            3 => request.path = field.bytes()?,
            4 => request.val = field.bytes()?,
            5 => request.dir = field.varint()? != 0,
            6 => request.prev_value = field.bytes()?,
            7 => request.prev_index = field.varint()?,
            8 => request.prev_exist = Some(field.varint()? != 0),
            9 => request.expiration = signed(field.varint()?),
            11 | 1 | 10 | 14 | 16 => {}
            12 => request.recursive = field.varint()? != 0,
            13 => request.sorted = field.varint().is_ok_and(|value| value != 0),
            15 => request.time = signed(field.varint()?),
            17 => request.refresh = Some(field.varint()? != 0),
            _ => {}
        }
    }
    Ok(request)
}

/// Converts a protobuf `int64`: two's complement in ten bytes.
fn signed(value: u64) -> i64 {
    i64::from_le_bytes(value.to_le_bytes())
}

/// Fields in ascending order, all present and nothing else, as the generated writers of etcd emit them. So a record
/// with a damaged type does not parse as another kind of record.
struct Fields<'a> {
    reader: Reader<'a>,
    next: Option<Field<'a>>,
    base: ByteOffset,
    what: &'static str,
}

impl<'a> Fields<'a> {
    #[inline]
    fn new(data: &'a [u8], base: ByteOffset, what: &'static str) -> Result<Self> {
        let mut reader = Reader::new(data, base);
        let next = reader.field()?;
        Ok(Fields { reader, next, base, what })
    }

    /// Reads the next field if it has this number.
    #[inline]
    fn take<T>(&mut self, number: u32, read: impl FnOnce(&Field<'a>) -> Result<T, WireError>) -> Result<Option<T>> {
        let Some(field) = self.next.filter(|field| field.number == number) else { return Ok(None) };
        let value = read(&field)?;
        self.next = self.reader.field()?;
        Ok(Some(value))
    }

    #[inline]
    fn varint(&mut self, number: u32) -> Result<u64> {
        self.take(number, Field::varint)?.ok_or_else(|| self.missing(number))
    }

    /// Reads a field that may be left out for 0.
    #[inline]
    fn optional_varint(&mut self, number: u32) -> Result<u64> {
        Ok(self.take(number, Field::varint)?.unwrap_or(0))
    }

    #[inline]
    fn bytes(&mut self, number: u32) -> Result<Option<(&'a [u8], ByteOffset)>> {
        self.take(number, |field| Ok((field.bytes()?, field.value_offset)))
    }

    #[inline]
    fn end(&self) -> Result<()> {
        self.next.map_or(Ok(()), |field| Err(self.unexpected(&field)))
    }

    #[cold]
    fn missing(&self, number: u32) -> Error {
        damaged(self.base, format!("expected {} with field {number}, found none", self.what))
    }

    #[cold]
    fn unexpected(&self, field: &Field<'_>) -> Error {
        damaged(field.offset, format!("expected the end of {}, found field {}", self.what, field.number))
    }
}

fn damaged(offset: ByteOffset, message: impl Into<String>) -> Error {
    Error::new(Reason::Damaged, message).at(offset)
}

#[cfg(test)]
mod tests {
    use protobuf::Message;

    use super::*;
    use crate::proto::etcd;

    #[test]
    fn fields_that_3_7_leaves_out_are_zero() {
        let entry = etcd::Entry { term: Some(2), index: Some(5), data: Some(b"x".to_vec()), ..Default::default() };
        let read = entry.write_to_bytes().unwrap();
        let read = parse_entry(&read, ByteOffset(0)).unwrap();
        assert_eq!(
            (read.kind, read.term, read.index, read.data),
            (EntryKind::Normal, Term(2), RaftIndex(5), &b"x"[..])
        );
        let state = etcd::HardState { term: Some(2), commit: Some(5), ..Default::default() }.write_to_bytes().unwrap();
        let expected = HardState { term: Term(2), vote: MemberId(0), commit: RaftIndex(5) };
        assert_eq!(parse_hard_state(&state, ByteOffset(0)).unwrap(), expected);
        assert!(parse_entry(&[0x08, 0, 0x18, 5], ByteOffset(0)).is_err());
    }

    #[test]
    fn entries_read_as_the_generated_code_wrote_them() {
        let mut entry = etcd::Entry::new();
        entry.set_type(1);
        entry.set_term(3);
        entry.set_index(1 << 40);
        entry.set_data(b"change".to_vec());
        let bytes = entry.write_to_bytes().unwrap();
        let read = parse_entry(&bytes, ByteOffset(10)).unwrap();
        assert_eq!((read.kind, read.term, read.index), (EntryKind::ConfChange, Term(3), RaftIndex(1 << 40)));
        assert_eq!((read.data, read.data_offset), (&b"change"[..], ByteOffset::from(10 + bytes.len() - 6)));
    }

    #[test]
    fn a_hard_state_is_no_entry_and_an_entry_no_hard_state() {
        let mut state = etcd::HardState::new();
        state.set_term(2);
        state.set_vote(0x8e9e_05c5_2164_694d);
        state.set_commit(17);
        let bytes = state.write_to_bytes().unwrap();
        assert_eq!(parse_hard_state(&bytes, ByteOffset(0)).unwrap().commit, RaftIndex(17));
        assert!(parse_entry(&bytes, ByteOffset(0)).is_err());
        assert!(parse_metadata(&bytes, ByteOffset(0)).is_err());
        assert!(parse_snap_record(&bytes, ByteOffset(0)).is_err());
        let entry = [0x08, 0, 0x10, 2, 0x18, 3, 0x22, 1, b'x'];
        assert!(parse_entry(&entry, ByteOffset(0)).is_ok());
        assert!(parse_hard_state(&entry, ByteOffset(0)).is_err());
    }

    #[test]
    fn fields_of_a_request_can_have_any_order() {
        let expected = Request { method: Method::Put, path: b"/1", dir: true, ..Request::default() };
        let fields = [&b"\x12\x03PUT"[..], b"\x1a\x02/1", b"\x28\x01", b"\x08\x07"];
        for first in 0..fields.len() {
            let mut fields = fields;
            fields.rotate_left(first);
            let parsed = parse_proposal(&fields.concat(), ByteOffset(0)).unwrap() == Proposal::V2(expected);
            assert!(parsed, "{fields:?}");
        }
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
            let proposal = parse_proposal(&bytes, ByteOffset(0)).unwrap();
            let expected = Request {
                method: Method::Put, path: &path, val: &val, prev_index, prev_exist, expiration,
                refresh, ..Request::default()
            };
            proptest::prop_assert_eq!(proposal, Proposal::V2(expected));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = (parse_entry(&bytes, ByteOffset(0)), parse_proposal(&bytes, ByteOffset(0)), parse_conf_change(&bytes, ByteOffset(0)));
            let _ = (parse_hard_state(&bytes, ByteOffset(0)), parse_metadata(&bytes, ByteOffset(0)), parse_snap_record(&bytes, ByteOffset(0)));
        }
    }
}
