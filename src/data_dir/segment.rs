//! Records of a log: the first segment of a new cluster (docs/formats.md 4, 10.5), and the continuation of an existing log.
//!
//! Must not know the file's name beyond [`SEGMENT_NAME`], or the other files of the directory.

use protobuf::{Message, MessageField};

use super::{Cluster, FIRST_TERM, Member, Restart, encode};
use crate::error::Result;
use crate::ids::{ClusterId, MemberId, RaftIndex, Term};
use crate::proto::etcd;
use crate::source::frame::RecordType;
use crate::source::raft::{ConfChangeKind, Entry, EntryKind, HardState};

/// The name of the first segment of a log.
pub const SEGMENT_NAME: &str = "0000000000000000-0000000000000000.wal";

/// The size that etcd gives a new segment, in bytes; the rest is zeros.
pub const PREALLOCATED: u64 = 64_000_000;

/// The bytes of records to pass on at a time.
const PIECE: usize = 1 << 20;

/// Returns the records of a member's first segment. Zeros up to [`PREALLOCATED`] follow them in the file.
///
/// # Errors
/// [`Reason::Internal`](crate::error::Reason::Internal).
pub fn first_segment(cluster: &Cluster, member: &Member) -> Result<Vec<u8>> {
    let mut segment = Segment::default();
    segment.begin(member.id, cluster.id)?;
    for (member, index) in cluster.members().iter().zip(1..) {
        segment.message(RecordType::Entry, &adding(member, index)?)?;
    }
    let commit = cluster.last_index().0;
    let vote = cluster.members().iter().find(|member| !member.is_learner).map_or(0, |member| member.id.0);
    segment.state(HardState { term: FIRST_TERM, vote: MemberId(vote), commit: RaftIndex(commit) })?;
    segment.message(RecordType::Snapshot, &mark(commit, FIRST_TERM, Some(conf_state(cluster))))?;
    Ok(segment.bytes)
}

/// Returns frames that continue a log: entries, and the hard state after them. `crc` is the checksum of the last record before them.
///
/// # Errors
/// [`Reason::Internal`](crate::error::Reason::Internal).
pub fn continuation(crc: u32, entries: &[Entry<'_>], state: HardState) -> Result<Vec<u8>> {
    let mut segment = Segment { bytes: Vec::new(), crc };
    segment.entries(entries)?;
    segment.state(state)?;
    Ok(segment.bytes)
}

/// Passes the records of a segment on, piece by piece. The segment starts after a snapshot, with the identity of an existing member.
///
/// # Errors
/// [`Reason::Internal`](crate::error::Reason::Internal); those of the entries and of `out`.
pub(super) fn restarted<'e>(
    restart: &Restart<'_>,
    entries: impl Iterator<Item = Result<Entry<'e>>>,
    state: HardState,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut segment = Segment::default();
    segment.begin(restart.member, restart.cluster)?;
    let mark = mark(restart.index.0, restart.term, Some(restart.conf_state()));
    segment.message(RecordType::Snapshot, &mark)?;
    for entry in entries {
        segment.entries(&[entry?])?;
        if segment.bytes.len() >= PIECE {
            out(&segment.bytes)?;
            segment.bytes.clear();
        }
    }
    segment.state(state)?;
    out(&segment.bytes)
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
    /// Adds the records at the start of every log.
    fn begin(&mut self, member: MemberId, cluster: ClusterId) -> Result<()> {
        self.record(RecordType::Crc, None)?;
        let metadata = etcd::Metadata { node_id: Some(member.0), cluster_id: Some(cluster.0), ..Default::default() };
        self.message(RecordType::Metadata, &metadata)?;
        self.message(RecordType::Snapshot, &mark(0, Term(0), None))
    }

    fn entries(&mut self, entries: &[Entry<'_>]) -> Result<()> {
        for entry in entries {
            let message = etcd::Entry {
                type_: Some(entry.kind.number()),
                term: Some(entry.term.0),
                index: Some(entry.index.0),
                data: Some(entry.data.to_vec()).filter(|data| !data.is_empty()),
                ..Default::default()
            };
            self.message(RecordType::Entry, &message)?;
        }
        Ok(())
    }

    fn state(&mut self, state: HardState) -> Result<()> {
        let HardState { term, vote, commit } = state;
        let message =
            etcd::HardState { term: Some(term.0), vote: Some(vote.0), commit: Some(commit.0), ..Default::default() };
        self.message(RecordType::State, &message)
    }

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
