//! The first segment of a member's log: the entries that add the members, and the mark of the snapshot (docs/formats.md 4, 10.5).
//!
//! Must not know the file's name beyond [`SEGMENT_NAME`], or the other files of the directory.

use protobuf::{Message, MessageField};

use super::{Cluster, FIRST_TERM, Member, encode};
use crate::error::Result;
use crate::ids::Term;
use crate::proto::etcd;
use crate::source::frame::RecordType;
use crate::source::raft::{ConfChangeKind, EntryKind};

/// The name of the first segment of a log.
pub const SEGMENT_NAME: &str = "0000000000000000-0000000000000000.wal";

/// The size that etcd gives a new segment, in bytes; the rest is zeros.
pub const PREALLOCATED: u64 = 64_000_000;

/// Returns the records of a member's first segment. Zeros up to [`PREALLOCATED`] follow them in the file.
///
/// # Errors
/// [`Reason::Internal`](crate::error::Reason::Internal).
pub fn first_segment(cluster: &Cluster, member: &Member) -> Result<Vec<u8>> {
    let mut segment = Segment::default();
    segment.record(RecordType::Crc, None)?;
    let metadata = etcd::Metadata { node_id: Some(member.id.0), cluster_id: Some(cluster.id.0), ..Default::default() };
    segment.message(RecordType::Metadata, &metadata)?;
    segment.message(RecordType::Snapshot, &mark(0, Term(0), None))?;
    for (member, index) in cluster.members().iter().zip(1..) {
        segment.message(RecordType::Entry, &adding(member, index)?)?;
    }
    let commit = cluster.last_index().0;
    let vote = cluster.members().iter().find(|member| !member.is_learner).map_or(0, |member| member.id.0);
    let state =
        etcd::HardState { term: Some(FIRST_TERM.0), vote: Some(vote), commit: Some(commit), ..Default::default() };
    segment.message(RecordType::State, &state)?;
    segment.message(RecordType::Snapshot, &mark(commit, FIRST_TERM, Some(conf_state(cluster))))?;
    Ok(segment.bytes)
}

/// Returns the raft configuration of a cluster.
pub(super) fn conf_state(cluster: &Cluster) -> etcd::ConfState {
    let ids = |learners: bool| {
        let members = cluster.members().iter().filter(move |member| member.is_learner == learners);
        members.map(|member| member.id.0).collect()
    };
    etcd::ConfState { voters: ids(false), learners: ids(true), auto_leave: Some(false), ..Default::default() }
}

fn mark(index: u64, term: Term, conf_state: Option<etcd::ConfState>) -> etcd::WalSnapshot {
    etcd::WalSnapshot {
        index: Some(index),
        term: Some(term.0),
        conf_state: MessageField(conf_state.map(Box::new)),
        ..Default::default()
    }
}

/// Returns the entry that adds a member.
fn adding(member: &Member, index: u64) -> Result<etcd::Entry> {
    let kind = if member.is_learner { ConfChangeKind::AddLearnerNode } else { ConfChangeKind::AddNode };
    let change = etcd::ConfChange {
        id: Some(0),
        type_: Some(kind.number()),
        node_id: Some(member.id.0),
        context: Some(member.json()?),
        ..Default::default()
    };
    Ok(etcd::Entry {
        type_: Some(EntryKind::ConfChange.number()),
        term: Some(FIRST_TERM.0),
        index: Some(index),
        data: Some(encode(&change)?),
        ..Default::default()
    })
}

/// Frames of records, with the checksum that continues from one to the next.
#[derive(Debug, Default)]
struct Segment {
    bytes: Vec<u8>,
    crc: u32,
}

impl Segment {
    fn message(&mut self, kind: RecordType, message: &impl Message) -> Result<()> {
        self.record(kind, Some(encode(message)?))
    }

    /// Adds a frame, padded with zeros to a multiple of 8 bytes.
    fn record(&mut self, kind: RecordType, data: Option<Vec<u8>>) -> Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, data.as_deref().unwrap_or_default());
        let record =
            etcd::WalRecord { type_: Some(kind.number().into()), crc: Some(self.crc), data, ..Default::default() };
        let record = encode(&record)?;
        let padding = record.len().wrapping_neg() % 8;
        let mut length = record.len() as u64;
        if padding > 0 {
            length |= (0x80 | padding as u64) << 56;
        }
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&record);
        self.bytes.resize(self.bytes.len() + padding, 0);
        Ok(())
    }
}
