//! From an opened source to the tree it holds: the snapshot, then the log up to what is committed (FORMATS 4.9, 6.4).
//!
//! Decides what counts as committed, and by whose rules the log is replayed. Knows nothing of v3, but takes the index that a
//! v3 backend proves to be applied.

use crate::error::{Error, Reason, Result};
use crate::ids::{MemberId, RaftIndex, Term, V2Index};
use crate::source::open::Opened;
use crate::source::raft::{Entry, EntryKind, Proposal, parse_proposal};
use crate::source::wal::{EntryRef, Wal};
use crate::v2store::apply::{Effect, Replay, ServerVersion};
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
    /// Nothing: the operator asked for all of the log.
    Asked,
}

impl CommitBy {
    /// A phrase for reports.
    pub fn phrase(self) -> &'static str {
        match self {
            CommitBy::HardState => "the log's hard state",
            CommitBy::Snapshot => "the snapshot",
            CommitBy::Backend => "the v3 backend's consistent index",
            CommitBy::OnlyVoter => "this member is the only voter",
            CommitBy::Asked => "asked for, though not known to be committed",
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

/// Sees each entry as it is applied; its error ends the replay.
pub type Observe<'a> = &'a mut dyn FnMut(&Applied<'_>) -> Result<()>;

/// What of the log is replayed, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplayOptions {
    /// Entries after the commit index.
    pub tail: TailRule,
    /// Stop at this raft index.
    pub up_to: Option<RaftIndex>,
    /// Whether names of in-order keys are padded; `None`: as the server that ran last writes them.
    pub padded_names: Option<bool>,
}

/// Which entries after the commit index are applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TailRule {
    /// All if this member is the only voter, none otherwise.
    #[default]
    Auto,
    /// None.
    Committed,
    /// All.
    All,
    /// None, and v2 writes among them are an error.
    Fail,
}

/// The end of the log that is not known to be committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    /// Entries in it.
    pub entries: u64,
    /// Of these, requests that may change v2 keys.
    pub writes: Vec<TailWrite>,
}

/// A v2 write that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailWrite {
    /// Its place in the log.
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
    /// POST, PUT or DELETE.
    pub method: Vec<u8>,
    /// The store path.
    pub path: Vec<u8>,
    /// Bytes of its value.
    pub value_len: usize,
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
/// the log; [`Reason::TailPresent`] and [`Reason::IndexNotReached`] as the options have it.
pub fn recover<'m>(
    opened: &'m Opened,
    table: &'m Table<'m>,
    backend_index: Option<RaftIndex>,
    options: &ReplayOptions,
) -> Result<Recovered<'m>> {
    recover_observed(opened, table, backend_index, options, &mut |_| Ok(()))
}

/// An entry that was applied.
#[derive(Debug)]
pub struct Applied<'a> {
    /// Where it stands.
    pub reference: &'a EntryRef,
    /// What it says.
    pub entry: &'a Entry<'a>,
    /// What it did.
    pub effect: Effect,
    /// The store's index behind it.
    pub v2_index: V2Index,
}

/// As [`recover`]; each entry is shown once it is applied.
///
/// # Errors
/// As [`recover`], and what `observe` returned.
pub fn recover_observed<'m>(
    opened: &'m Opened,
    table: &'m Table<'m>,
    backend_index: Option<RaftIndex>,
    options: &ReplayOptions,
    observe: Observe<'_>,
) -> Result<Recovered<'m>> {
    let start = opened.choice.index();
    let voters = opened.choice.snapshot.as_ref().map(|s| Voters::from(&s.conf_state)).unwrap_or_default();
    let mut tree = Tree::new(table);
    let entries = match &opened.wal {
        Some(wal) => wal.after(start).ok_or_else(|| Error::new(Reason::Gap, "expected the log behind the snapshot"))?,
        None => &[],
    };
    let (commit, by) = commit(opened, start, entries, backend_index)?;
    let (committed, tail) = split(entries, commit);
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
    if let Some(padded) = options.padded_names {
        recovered.replay.padded_names = padded;
    }
    if let Some(wal) = &opened.wal {
        recovered.replay(wal, committed, tail, options, observe)?;
    }
    match options.up_to {
        Some(up_to) if recovered.replay.applied != up_to => Err(not_reached(opened, &recovered, up_to)),
        _ => Ok(recovered),
    }
}

fn split(entries: &[EntryRef], index: RaftIndex) -> (&[EntryRef], &[EntryRef]) {
    entries.split_at_checked(entries.partition_point(|entry| entry.index <= index)).unwrap_or((entries, &[]))
}

fn not_reached(opened: &Opened, recovered: &Recovered<'_>, up_to: RaftIndex) -> Error {
    let applied = recovered.replay.applied;
    let message = if applied > up_to {
        format!("cannot stop at raft index {up_to}: the state of the snapshot is that at {applied}")
    } else if recovered.tail.entries > 0 {
        format!("cannot go to raft index {up_to}: entries above {applied} are not known to be committed (see --tail)")
    } else {
        format!("cannot go to raft index {up_to}: the source ends at {applied}")
    };
    Error::new(Reason::IndexNotReached, message).in_file(&opened.path)
}

impl<'m> Recovered<'m> {
    /// The committed entries, then as much of the tail as is to be taken.
    fn replay(
        &mut self,
        wal: &'m Wal,
        committed: &[EntryRef],
        tail: &[EntryRef],
        options: &ReplayOptions,
        observe: Observe<'_>,
    ) -> Result<()> {
        let up_to = options.up_to.unwrap_or(RaftIndex(u64::MAX));
        self.apply(wal, split(committed, up_to).0, observe)?;
        let node_id = wal.metadata.map(|metadata| metadata.node_id);
        self.backup = self.is_backup(wal, node_id);
        let (tail, _) = split(tail, up_to);
        let take = match options.tail {
            TailRule::Auto => self.is_only_voter(node_id) && !self.backup,
            TailRule::All => true,
            TailRule::Committed | TailRule::Fail => false,
        };
        if take && !tail.is_empty() {
            self.apply(wal, tail, observe)?;
            self.commit_by = if options.tail == TailRule::All { CommitBy::Asked } else { CommitBy::OnlyVoter };
            return Ok(());
        }
        self.tail = left_out(wal, tail)?;
        match self.tail.writes.first() {
            Some(first) if options.tail == TailRule::Fail => {
                let message = format!(
                    "{} v2 writes stand in the log after the commit index {}, the first at raft index {}",
                    self.tail.writes.len(),
                    self.replay.applied,
                    first.index
                );
                Err(Error::new(Reason::TailPresent, message))
            }
            _ => Ok(()),
        }
    }

    fn apply(&mut self, wal: &'m Wal, entries: &[EntryRef], observe: Observe<'_>) -> Result<()> {
        for reference in entries {
            let entry = wal.entry(reference)?;
            let failed = |e: Error| e.at(entry.data_offset).in_file(wal.segment_path(reference));
            let effect = self.replay.apply(&entry).map_err(failed)?;
            self.applied_entries += 1;
            observe(&Applied { reference, entry: &entry, effect, v2_index: self.v2_index() })?;
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

fn left_out(wal: &Wal, tail: &[EntryRef]) -> Result<Tail> {
    let mut out = Tail { entries: tail.len() as u64, writes: Vec::new() };
    for reference in tail {
        let entry = wal.entry(reference)?;
        if entry.kind == EntryKind::Normal
            && let Ok(Proposal::V2(request)) = parse_proposal(entry.data, entry.data_offset)
            && request.is_write()
        {
            out.writes.push(TailWrite {
                index: entry.index,
                term: entry.term,
                method: request.method.to_vec(),
                path: request.path.to_vec(),
                value_len: request.val.len(),
            });
        }
    }
    Ok(out)
}
