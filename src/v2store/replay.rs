//! One replay: the snapshot's tree, then the log up to what is committed, by one version's rules (docs/formats.md 4.9, 6.4).
//!
//! Decides what counts as committed. Knows nothing of v3, but takes what a v3 backend proves.
use std::collections::BTreeSet;

use crate::count::counted;
use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, Term, V2Index};
use crate::interrupt::Interrupt;
use crate::limits;
use crate::source::cluster::{self, Located, Proof, Reach, Trust};
use crate::source::entries::{End, EntryRef};
use crate::source::member::{Member, WHAT_TO_DO};
use crate::source::open::Opened;
use crate::source::raft::{Entry, EntryKind, Proposal, parse_proposal};
use crate::source::wal::Wal;
use crate::v2store::apply::{Effect, InOrderNames, Replay};
use crate::v2store::dialect::{Rules, Version};
use crate::v2store::json;
use crate::v2store::membership::{self, Voters};
use crate::v2store::table::Table;
use crate::v2store::tree::Tree;
use crate::v2store::versions::Versions;

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
    /// The hard state of another member.
    OtherMember,
    /// A majority of the voters holds it (docs/formats.md 4.9 b).
    Majority,
    /// Every log that could win an election holds it (docs/formats.md 4.9 c).
    Election,
}

impl CommitBy {
    /// A phrase for reports.
    pub fn phrase(self) -> &'static str {
        match self {
            CommitBy::HardState => "the log's hard state",
            CommitBy::Snapshot => "the snapshot",
            CommitBy::Backend => "the v3 backend's consistent index",
            CommitBy::OnlyVoter => "this member is the only voter",
            CommitBy::OtherMember => "another member's hard state",
            CommitBy::Majority => "a majority of the voters holds it",
            CommitBy::Election => "every log that could win an election holds it",
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
    /// True for what `etcdctl backup` made (docs/formats.md 1.4).
    pub backup: bool,
    /// What is proven to be committed and was not found, where that was to be salvaged.
    pub not_found: Option<Error>,
    /// How many of the applied entries were read from each member's log.
    pub taken_from: Vec<u64>,
    /// By which version's rules, and why.
    pub versions: Versions,
}

/// Sees each entry as it is applied; its error ends the replay.
pub type Observe<'a> = &'a mut dyn FnMut(&Applied<'_>) -> Result<()>;

/// What of the log is replayed, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplayOptions<'a> {
    /// Entries after the commit index.
    pub tail: TailRule,
    /// Stop at this raft index.
    pub up_to: Option<RaftIndex>,
    /// The version that started last on the source; `None`: as the source proves it.
    pub version: Option<Version>,
    /// Whether names of in-order keys are padded; `None`: as that version writes them.
    pub padded_names: Option<bool>,
    /// Bytes that the changes of one replay may take.
    pub changes_limit: Option<u64>,
    /// Ends the replay.
    pub interrupt: Interrupt<'a>,
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

/// A v2 write in the log.
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
    /// What it does depends on the store's index: an in-order name, a compare with an index.
    pub depends_on_index: bool,
}

/// Reads the chosen snapshot's store; the empty one where the log starts from nothing.
///
/// # Errors
/// [`Reason::Damaged`] with the snapshot's file and offset.
pub fn read_table(opened: &Opened) -> Result<Table<'_>> {
    read_table_watched(opened, Interrupt::default())
}

/// As [`read_table`], until it is interrupted.
///
/// # Errors
/// As [`read_table`], and the interruption.
pub fn read_table_watched<'m>(opened: &'m Opened, interrupt: Interrupt<'_>) -> Result<Table<'m>> {
    let Some(snapshot) = &opened.start.snapshot else { return Ok(Table::empty()) };
    json::read_watched(snapshot.json(), interrupt)
        .map_err(|e| e.from_offset(snapshot.json_offset()).in_file(snapshot.path()))
}

/// What a v3 backend proves: what it has applied is committed, and its form tells of the server that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendProof {
    /// Which of the members has it.
    pub member: usize,
    /// Raft index of the last entry that it has applied; 0 where it does not say so.
    pub index: RaftIndex,
    /// A cluster has used it.
    pub used: bool,
    /// It has the marks of 3.5: `meta/term` or `confState`.
    pub marked: bool,
    /// The term of the last entry that it has applied, as 3.5 writes it.
    pub term: Option<Term>,
    /// The members that it holds, as [`membership::fingerprint`] has them.
    pub members: Option<u64>,
}

/// An entry that was applied.
#[derive(Debug)]
pub struct Applied<'a> {
    /// What it says.
    pub entry: &'a Entry<'a>,
    /// What it did.
    pub effect: Effect,
    /// The store's index behind it.
    pub v2_index: V2Index,
}

/// All that replays of one source have in common, by whatever rules.
#[derive(Debug)]
pub(super) struct Ground<'m, 'i> {
    pub(super) opened: &'m Opened,
    pub(super) table: &'m Table<'m>,
    pub(super) backend: Option<BackendProof>,
    pub(super) options: ReplayOptions<'i>,
    /// The entries that are committed on disk.
    pub(super) committed: Vec<Located>,
    pub(super) commit: Commit,
}

impl<'m, 'i> Ground<'m, 'i> {
    pub(super) fn new(
        opened: &'m Opened,
        table: &'m Table<'m>,
        backend: Option<BackendProof>,
        options: ReplayOptions<'i>,
    ) -> Result<Ground<'m, 'i>> {
        let start = opened.start.index();
        if table.current_index.0 > limits::MAX_REVISION && opened.wal().is_some() {
            let message = format!("the v2 index {} is above 2^62: no log can go on from there", table.current_index);
            return Err(Error::new(Reason::IndexRange, message).in_file(opened.path()));
        }
        let commit = commit(opened, start, backend, options.interrupt)?;
        let up_to = options.up_to.unwrap_or(RaftIndex(u64::MAX));
        let right = right_logs(opened, backend, commit.by);
        let committed = committed(opened, start, commit.index, up_to, &right, options.interrupt)?;
        Ok(Ground { opened, table, backend, options, committed, commit })
    }

    /// The last entry that is replayed at most.
    pub(super) fn up_to(&self) -> RaftIndex {
        self.options.up_to.unwrap_or(RaftIndex(u64::MAX))
    }

    /// Replays the log by these rules; `names` asks for the requests that use in-order names.
    pub(super) fn replay(&self, rules: Rules, names: bool, observe: Observe<'_>) -> Result<Recovered<'m>> {
        let Ground { opened, table, backend, options, .. } = *self;
        let Commit { index: commit, by: commit_by, .. } = self.commit;
        let up_to = self.up_to();
        let voters = opened.start.snapshot.as_ref().map(|s| Voters::from(&s.conf_state)).unwrap_or_default();
        let mut recovered = Recovered {
            replay: Replay::new(Tree::new(table), voters, rules, opened.start.index()),
            commit_by,
            tail: Tail::default(),
            applied_entries: 0,
            backup: false,
            not_found: None,
            taken_from: vec![0; opened.members.len()],
            versions: Versions::default(),
        };
        recovered.replay.names = names.then(InOrderNames::default);
        recovered.apply(opened, until(&self.committed, up_to), &options, observe)?;
        recovered.backup = recovered.is_backup(opened);
        if up_to > commit {
            let is_reached = self.commit.not_found.is_none();
            recovered.go_beyond(opened, commit, is_reached, &options, observe)?;
            recovered.tail = left_out(opened, recovered.replay.applied, up_to, options.interrupt)?;
            refuse_tail(&recovered, &options)?;
            let applied = recovered.replay.applied;
            let several = opened.members.len() > 1;
            if let Some(proof) = backend.filter(|proof| several && proof.index > applied && proof.index <= up_to) {
                recovered.not_found.get_or_insert_with(|| beyond_log(opened, proof.index, CommitBy::Backend, applied));
            }
        }
        match options.up_to {
            Some(up_to) if recovered.replay.applied != up_to => Err(not_reached(opened, &recovered, up_to)),
            _ => Ok(recovered),
        }
    }
}

/// The committed entries after the start; at least those up to `up_to`.
fn committed(
    opened: &Opened,
    start: RaftIndex,
    commit: RaftIndex,
    up_to: RaftIndex,
    right: &[bool],
    interrupt: Interrupt<'_>,
) -> Result<Vec<Located>> {
    if opened.members.iter().all(|member| member.wal.is_none()) {
        return Ok(Vec::new());
    }
    let join = |to| cluster::join(&opened.members, start, to, Trust::Logs(right), interrupt);
    // What is missing above the index that is asked for is not missed.
    join(commit).or_else(|error| if up_to < commit { join(up_to) } else { Err(error) })
}

/// Whose log is right about the commit index: what a member's backend proves is in its own log too, and so is what the snapshot
/// of one alone proves.
fn right_logs(opened: &Opened, backend: Option<BackendProof>, by: CommitBy) -> Vec<bool> {
    let by_backend = backend.filter(|_| by == CommitBy::Backend).map(|proof| proof.member);
    let alone = opened.members.len() == 1;
    (0..opened.members.len()).map(|at| alone || by_backend == Some(at)).collect()
}

fn until(entries: &[Located], index: RaftIndex) -> &[Located] {
    entries.get(..entries.partition_point(|located| located.entry.index <= index)).unwrap_or(entries)
}

fn refuse_tail(recovered: &Recovered<'_>, options: &ReplayOptions<'_>) -> Result<()> {
    let writes = &recovered.tail.writes;
    match writes.first() {
        Some(first) if options.tail == TailRule::Fail => {
            let message = format!(
                "{} in the log after the commit index {}, the first at raft index {}",
                counted(writes.len() as u64, "v2 write is", "v2 writes are"),
                recovered.replay.applied,
                first.index
            );
            Err(Error::new(Reason::TailPresent, message))
        }
        _ => Ok(()),
    }
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
    Error::new(Reason::IndexNotReached, message).in_file(opened.path())
}

impl<'m> Recovered<'m> {
    fn apply(
        &mut self,
        opened: &'m Opened,
        entries: &[Located],
        options: &ReplayOptions<'_>,
        observe: Observe<'_>,
    ) -> Result<()> {
        for located in entries {
            options.interrupt.ask()?;
            let Some(wal) = opened.members.get(located.member).and_then(|member| member.wal.as_ref()) else { continue };
            let entry = wal.entry(&located.entry)?;
            if let Some(limit) = options.changes_limit {
                // Each slash may make a directory, and the slashes of short entries are reckoned with.
                let slashes = |data: &[u8]| memchr::memchr_iter(b'/', data).count() as u64 * Tree::DIRECTORY_BYTES;
                let more = Some(entry.data).filter(|data| data.len() > LONG_ENTRY).map_or(0, slashes);
                if self.replay.tree.held_bytes().saturating_add(more) > limit {
                    return Err(too_large(limit, entry.index));
                }
            }
            let failed = |e: Error| e.at(entry.data_offset).in_file(wal.segment_path(&located.entry));
            let effect = self.replay.apply(&entry).map_err(failed)?;
            self.applied_entries += 1;
            if let Some(taken) = self.taken_from.get_mut(located.member) {
                *taken += 1;
            }
            observe(&Applied { entry: &entry, effect, v2_index: self.v2_index() })?;
        }
        Ok(())
    }

    /// Entries above every commit on disk: those that the cluster would find committed, or those that are asked for. `is_reached`
    /// is false where the logs do not lead to the commit index.
    fn go_beyond(
        &mut self,
        opened: &'m Opened,
        commit: RaftIndex,
        is_reached: bool,
        options: &ReplayOptions<'_>,
        observe: Observe<'_>,
    ) -> Result<()> {
        let members = &opened.members;
        let end = |at: usize| members.get(at)?.wal.as_ref()?.last().map(|(_, last)| last);
        let only = |at: usize| (0..members.len()).map(|other| other == at).collect::<Vec<bool>>();
        let (to, right, by) = match options.tail {
            TailRule::Committed | TailRule::Fail => return Ok(()),
            TailRule::All => {
                let Some(at) = cluster::furthest(members) else { return Ok(()) };
                if opened.salvage {
                    return self.go_on_in(opened, at, options, CommitBy::Asked, observe);
                }
                (end(at), only(at), CommitBy::Asked)
            }
            TailRule::Auto if self.backup => return Ok(()),
            TailRule::Auto => match self.only_voter(opened) {
                Some(at) if opened.salvage => return self.go_on_in(opened, at, options, CommitBy::OnlyVoter, observe),
                Some(at) => (end(at), only(at), CommitBy::OnlyVoter),
                // Logs that were read one after the other while they grew do not prove what all held at once.
                None if members.len() == 1 || opened.is_live() || !is_reached => return Ok(()),
                None => {
                    let voters = &self.replay.voters.voters;
                    let Some(beyond) = cluster::beyond(members, voters, commit, opened.start.term()) else {
                        return Ok(());
                    };
                    let by = match beyond.proof {
                        Proof::Majority => CommitBy::Majority,
                        Proof::Election => CommitBy::Election,
                    };
                    (Some(beyond.index), beyond.holders, by)
                }
            },
        };
        let to = to.unwrap_or(commit).min(options.up_to.unwrap_or(RaftIndex(u64::MAX)));
        if to > commit {
            let entries = cluster::join(members, commit, to, Trust::Logs(&right), options.interrupt)?;
            self.apply(opened, &entries, options, observe)?;
            self.commit_by = by;
        }
        Ok(())
    }

    /// Applies what follows in one member's log without a gap, up to the next damage.
    fn go_on_in(
        &mut self,
        opened: &'m Opened,
        member: usize,
        options: &ReplayOptions<'_>,
        by: CommitBy,
        observe: Observe<'_>,
    ) -> Result<()> {
        let Some(wal) = opened.members.get(member).and_then(|member| member.wal.as_ref()) else { return Ok(()) };
        let next = RaftIndex(self.replay.applied.0.saturating_add(1));
        let up_to = options.up_to.unwrap_or(RaftIndex(u64::MAX));
        let span = wal.spans().iter().rev().find(|span| span.at(next).is_some());
        let follows = |entry: &&EntryRef| entry.index >= next && entry.index <= up_to;
        let entries = span.into_iter().flat_map(|span| span.entries.iter().filter(follows));
        let entries: Vec<Located> = entries.map(|entry| Located { member, entry: *entry }).collect();
        if !entries.is_empty() {
            self.apply(opened, &entries, options, observe)?;
            self.commit_by = by;
        }
        Ok(())
    }

    /// The given member that is the cluster's only voter.
    fn only_voter(&self, opened: &Opened) -> Option<usize> {
        let voters = &self.replay.voters.voters;
        let id = voters.first().copied().filter(|_| voters.len() == 1)?;
        opened.members.iter().position(|member| member.id() == Some(id))
    }

    /// A backup has its records in an order of its own, and new ids that no member of the store has (docs/formats.md 1.4).
    fn is_backup(&mut self, opened: &Opened) -> bool {
        let members = membership::member_ids(&mut self.replay.tree);
        let in_order = opened.wal().is_some_and(Wal::has_backup_order);
        in_order && opened.start_member().and_then(Member::id).is_some_and(|id| !members.contains(&id))
    }

    /// The store's index at the end of the replay.
    pub fn v2_index(&self) -> V2Index {
        self.replay.tree.current_index
    }
}

/// Bytes of an entry whose path may have very many components.
const LONG_ENTRY: usize = 1 << 12;

fn too_large(limit: u64, index: RaftIndex) -> Error {
    let message = format!(
        "the log up to raft index {index} makes more than the {limit} bytes of nodes that --memory-limit leaves room for: give \
         more, or run it on a larger machine"
    );
    Error::new(Reason::MemoryLimit, message)
}

/// How far the log is replayed without a look at who votes.
#[derive(Debug)]
pub(super) struct Commit {
    index: RaftIndex,
    by: CommitBy,
    pub(super) not_found: Option<Error>,
}

/// The highest index that is proven to be committed on disk, and what of that is not there (docs/formats.md 4.9).
fn commit(
    opened: &Opened,
    start: RaftIndex,
    backend: Option<BackendProof>,
    interrupt: Interrupt<'_>,
) -> Result<Commit> {
    let found = |index, by| Ok(Commit { index, by, not_found: None });
    if opened.wal().is_none() {
        return found(start, CommitBy::Snapshot);
    }
    let own = opened.wal().map_or(RaftIndex(0), Wal::commit);
    let known = cluster::commit(&opened.members);
    let (mut index, mut by) = match known {
        known if known > own.max(start) => (known, CommitBy::OtherMember),
        known if known > start || opened.start.snapshot.is_none() => (known.max(start), CommitBy::HardState),
        _ => (start, CommitBy::Snapshot),
    };
    let last = opened.wal().and_then(Wal::last).map_or(start, |(_, last)| last.max(start));
    // Of several members, the log of the one with this backend may have been lost: then the others prove what they can.
    let alone = opened.members.len() == 1;
    let holds =
        |member: usize, index| opened.members.get(member).and_then(|member| member.wal.as_ref()?.at(index)).is_some();
    if let Some(backend) = backend.filter(|proof| proof.index > index && (alone || holds(proof.member, proof.index))) {
        (index, by) = (backend.index, CommitBy::Backend);
    }
    if opened.salvage {
        let right = right_logs(opened, backend, by);
        let reach = Reach::of(&opened.members, index, Trust::Logs(&right), interrupt)?;
        let reached = reach.from(start).min(index).max(start);
        let not_found = (reached < index).then(|| beyond_log(opened, index, by, reached));
        return Ok(Commit { index: reached, by, not_found });
    }
    if index <= last || !alone {
        return found(index, by);
    }
    Err(beyond_log(opened, index, by, last).hint(WHAT_TO_DO))
}

fn beyond_log(opened: &Opened, index: RaftIndex, by: CommitBy, last: RaftIndex) -> Error {
    let message = format!(
        "expected the log to reach raft index {index}, which {} proves to be committed, found it end at {last}: a part of the \
         log is missing",
        by.phrase()
    );
    let error = Error::new(Reason::CommitBeyondLog, message);
    match opened.wal().map(Wal::end) {
        Some(End::Torn { segment, offset }) => {
            error.context("the last record is cut short").at(*offset).in_file(segment)
        }
        _ => {
            let segment = opened.wal().and_then(Wal::last_segment);
            error.in_file(segment.map_or(opened.path(), |segment| &segment.name.path))
        }
    }
}

/// The entries of all logs above what was applied; each once, however many hold it.
fn left_out(opened: &Opened, applied: RaftIndex, up_to: RaftIndex, interrupt: Interrupt<'_>) -> Result<Tail> {
    let mut out = Tail::default();
    let mut seen = BTreeSet::new();
    for wal in opened.members.iter().filter_map(|member| member.wal.as_ref()) {
        for reference in wal.entries() {
            interrupt.ask()?;
            let above = reference.index > applied && reference.index <= up_to;
            if above && seen.insert((reference.index, reference.term)) {
                out.entries += 1;
                out.writes.extend(write_in(&wal.entry(reference)?));
            }
        }
    }
    out.writes.sort_by_key(|write| (write.index, write.term));
    Ok(out)
}

/// The v2 write that an entry asks for, if it does.
pub fn write_in(entry: &Entry<'_>) -> Option<TailWrite> {
    if entry.kind != EntryKind::Normal {
        return None;
    }
    match parse_proposal(entry.data, entry.data_offset) {
        Ok(Proposal::V2(request)) if request.is_write() => Some(TailWrite {
            index: entry.index,
            term: entry.term,
            method: request.method.to_vec(),
            path: request.path.to_vec(),
            value_len: request.val.len(),
            depends_on_index: request.method == b"POST" || request.prev_index > 0,
        }),
        _ => None,
    }
}
