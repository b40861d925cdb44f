//! From an opened source to the tree it holds: the snapshot, then the log up to what is committed (FORMATS 4.9, 6.4).
//!
//! Decides what counts as committed, and by whose rules the log is replayed. Knows nothing of v3, but takes the index that a
//! v3 backend proves to be applied.

use crate::error::{Error, Reason, Result};
use crate::ids::{MemberId, RaftIndex, V2Index};
use crate::limits;
use crate::source::open::Opened;
use crate::source::raft::{EntryKind, Proposal, parse_proposal};
use crate::source::wal::{EntryRef, Wal};
use crate::v2store::apply::{Replay, ServerVersion};
use crate::v2store::json;
use crate::v2store::membership::{self, Voters};
use crate::v2store::overlay::Tree;
use crate::v2store::table::Table;

/// What proves that the last entry applied is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitBy {
    /// The hard state in the log.
    HardState,
    /// The snapshot: it holds nothing else.
    Snapshot,
    /// The v3 backend applied it.
    Backend,
    /// The only voter elects itself and commits all it has.
    OnlyVoter,
}

impl CommitBy {
    /// A phrase for reports.
    pub fn phrase(self) -> &'static str {
        match self {
            CommitBy::HardState => "the log's hard state",
            CommitBy::Snapshot => "the snapshot",
            CommitBy::Backend => "the v3 backend's consistent index",
            CommitBy::OnlyVoter => "this member is the only voter",
        }
    }
}

/// A recovered tree and how it came about.
#[derive(Debug)]
pub struct Recovered<'m> {
    /// The tree, the voters, and what the replay noticed.
    pub replay: Replay<'m>,
    /// What proves the last applied entry.
    pub commit_by: CommitBy,
    /// Entries above it, which were left out.
    pub tail: Tail,
    /// Entries applied on top of the snapshot.
    pub applied_entries: u64,
    /// True for what `etcdctl backup` made (FORMATS 1.4).
    pub backup: bool,
}

/// The end of the log that is not known to be committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tail {
    /// Entries in it.
    pub entries: u64,
    /// Of these, requests that may change v2 keys.
    pub v2_writes: u64,
}

/// Reads the chosen snapshot's store; the empty one where the log starts from nothing.
///
/// # Errors
/// [`Reason::Damaged`] with the snapshot's file and offset.
pub fn read_table(opened: &Opened) -> Result<Table<'_>> {
    let Some(snapshot) = &opened.choice.snapshot else { return Ok(Table::empty()) };
    json::read(snapshot.json()).map_err(|e| e.from_offset(snapshot.json_offset()).in_file(snapshot.path()))
}

/// Replays the log onto the snapshot's store. `backend_index` is the raft index that a v3 backend in the source has applied.
///
/// # Errors
/// [`Reason::Damaged`] or [`Reason::Gap`] with segment and offset; [`Reason::CommitBeyondLog`] if the backend is ahead of
/// the log.
pub fn recover<'m>(
    opened: &'m Opened,
    table: &'m Table<'m>,
    backend_index: Option<RaftIndex>,
) -> Result<Recovered<'m>> {
    let start = opened.choice.index();
    let voters = opened.choice.snapshot.as_ref().map(|s| Voters::from(&s.conf_state)).unwrap_or_default();
    let mut tree = Tree::new(table);
    let entries = match &opened.wal {
        Some(wal) => wal.after(start).ok_or_else(|| Error::new(Reason::Gap, "expected the log behind the snapshot"))?,
        None => &[],
    };
    if table.current_index.0 > limits::MAX_REVISION && !entries.is_empty() {
        let message = format!("the v2 index {} is above 2^62: no log can go on from there", table.current_index);
        return Err(Error::new(Reason::IndexRange, message).in_file(&opened.path));
    }
    let (commit, by) = commit(opened, start, entries, backend_index)?;
    let committed = entries.partition_point(|entry| entry.index <= commit);
    let (committed, tail) = entries.split_at_checked(committed).unwrap_or((entries, &[]));
    let version = match &opened.wal {
        Some(wal) => last_server(wal, committed, &mut tree)?,
        None => membership::cluster_version(&mut tree)
            .and_then(|text| ServerVersion::parse(text.as_bytes()))
            .unwrap_or(ServerVersion::OLDEST),
    };
    let mut recovered = Recovered {
        replay: Replay::new(tree, voters, version, start),
        commit_by: by,
        tail: Tail::default(),
        applied_entries: 0,
        backup: false,
    };
    let Some(wal) = &opened.wal else { return Ok(recovered) };
    recovered.apply(wal, committed)?;
    let node_id = wal.metadata.map(|metadata| metadata.node_id);
    recovered.backup = recovered.is_backup(wal, node_id);
    if recovered.is_only_voter(node_id) && !recovered.backup && !tail.is_empty() {
        recovered.apply(wal, tail)?;
        recovered.commit_by = CommitBy::OnlyVoter;
    } else {
        recovered.tail = measure_tail(wal, tail)?;
    }
    Ok(recovered)
}

impl<'m> Recovered<'m> {
    fn apply(&mut self, wal: &'m Wal, entries: &[EntryRef]) -> Result<()> {
        for reference in entries {
            let entry = wal.entry(reference)?;
            self.replay.apply(&entry).map_err(|e| e.at(entry.data_offset).in_file(wal.segment_path(reference)))?;
            self.applied_entries += 1;
        }
        Ok(())
    }

    fn is_only_voter(&self, node_id: Option<MemberId>) -> bool {
        let voters = &self.replay.voters.voters;
        voters.len() == 1 && voters.first().copied() == node_id
    }

    /// A backup has its records in an order of its own, and new ids that no member of the store has (FORMATS 1.4).
    fn is_backup(&mut self, wal: &Wal, node_id: Option<MemberId>) -> bool {
        let members = membership::member_ids(&mut self.replay.tree);
        wal.backup_order && node_id.is_some_and(|id| !members.contains(&id))
    }

    /// The store's index at the end of the replay.
    pub fn v2_index(&self) -> V2Index {
        self.replay.tree.current_index
    }
}

/// The highest index that is proven to be committed (FORMATS 4.9).
fn commit(
    opened: &Opened,
    start: RaftIndex,
    entries: &[EntryRef],
    backend_index: Option<RaftIndex>,
) -> Result<(RaftIndex, CommitBy)> {
    let mut commit = (start, CommitBy::Snapshot);
    let Some(wal) = &opened.wal else { return Ok(commit) };
    if wal.commit() > commit.0 || opened.choice.snapshot.is_none() {
        commit = (wal.commit().max(start), CommitBy::HardState);
    }
    let Some(backend) = backend_index.filter(|index| *index > commit.0) else { return Ok(commit) };
    let last = entries.last().map_or(start, |entry| entry.index);
    if backend > last {
        let message = format!(
            "expected the log to reach raft index {backend}, which the v3 backend has applied, found it \
                               end at {last}: a part of the log is missing"
        );
        let error = Error::new(Reason::CommitBeyondLog, message);
        return Err(error.in_file(&opened.path));
    }
    Ok((backend, CommitBy::Backend))
}

/// Whose rules hold: those of the server that ran last on the log, because it replayed all of it by its own (FORMATS 6.4).
fn last_server(wal: &Wal, entries: &[EntryRef], tree: &mut Tree<'_>) -> Result<ServerVersion> {
    let in_snapshot = membership::cluster_version(tree).and_then(|text| ServerVersion::parse(text.as_bytes()));
    let mut version = in_snapshot.unwrap_or(ServerVersion::OLDEST);
    if wal.padded {
        version = version.max(ServerVersion::PADDED_FRAMES);
    }
    for reference in entries {
        version = version.max(ServerVersion::set_by(&wal.entry(reference)?).unwrap_or(version));
    }
    Ok(version)
}

fn measure_tail(wal: &Wal, tail: &[EntryRef]) -> Result<Tail> {
    let mut out = Tail { entries: tail.len() as u64, v2_writes: 0 };
    for reference in tail {
        let entry = wal.entry(reference)?;
        if entry.kind == EntryKind::Normal
            && let Ok(Proposal::V2(request)) = parse_proposal(entry.data, entry.data_offset)
            && matches!(request.method, b"PUT" | b"POST" | b"DELETE")
        {
            out.v2_writes += 1;
        }
    }
    Ok(out)
}
