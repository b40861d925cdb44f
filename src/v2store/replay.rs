//! One replay: the tree of the snapshot, then the log up to the effective commit, with the rules of one version
//! (docs/formats.md 4.9, 6.4).
//!
//! Decides which entries are committed. Must not know v3; the caller passes the proof of a v3 backend.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::count::counted;
use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, Term, V2Index};
use crate::interrupt::Interrupt;
use crate::limits;
use crate::source::cluster::{self, Coverage, Located, Proof, Trust};
use crate::source::entries::{End, EntryRef};
use crate::source::member::{Member, WHAT_TO_DO};
use crate::source::open::Opened;
use crate::source::raft::{Entry, EntryKind, Method, Proposal, parse_proposal};
use crate::source::wal::Wal;
use crate::v2store::apply::{Effect, InOrderNames, Replay};
use crate::v2store::dialect::{Rules, Version};
use crate::v2store::json;
use crate::v2store::membership::{self, Voters};
use crate::v2store::table::Table;
use crate::v2store::tree::Tree;
use crate::v2store::versions::Versions;

/// The proof that the last applied entry is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitBy {
    /// The hard state in the log.
    HardState,
    /// The snapshot, which contains committed state only.
    Snapshot,
    /// The v3 backend applied the entry.
    Backend,
    /// The only voter elects itself and commits all its entries.
    OnlyVoter,
    /// None: the operator asked for the whole log.
    Asked,
    /// The hard state of another member.
    OtherMember,
    /// A majority of the voters has the entry (docs/formats.md 4.9 b).
    Majority,
    /// Every log that could win an election has the entry (docs/formats.md 4.9 c).
    Election,
}

impl CommitBy {
    /// Returns the phrase for reports.
    pub(crate) fn phrase(self) -> &'static str {
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

/// A recovered tree, and the way to it.
#[derive(Debug)]
pub struct Recovered<'m> {
    /// The tree, the voters, and the observations of the replay.
    pub replay: Replay<'m>,
    /// The proof for the last applied entry.
    pub commit_by: CommitBy,
    /// Later entries, which were left out.
    pub tail: Tail,
    /// Number of entries applied on top of the snapshot.
    pub applied_entries: u64,
    /// Whether `etcdctl backup` wrote the source (docs/formats.md 1.4).
    pub backup: bool,
    /// With `--salvage`: the committed entries that are missing.
    pub not_found: Option<Error>,
    /// Number of applied entries from the log of each member.
    pub taken_from: Vec<u64>,
    /// The version whose rules were used, with the reasons.
    pub versions: Versions,
}

/// A callback for each applied entry; its error ends the replay.
pub type Observe<'a> = &'a mut dyn FnMut(&Applied<'_>) -> Result<()>;

/// Options of a replay.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplayOptions<'a> {
    /// Which entries after the commit index to apply.
    pub tail: TailPolicy,
    /// Stop at this raft index.
    pub up_to: Option<RaftIndex>,
    /// The version that started last on the source; `None`: as the evidence shows.
    pub version: Option<Version>,
    /// Whether in-order names are padded; `None`: as that version writes them.
    pub padded_names: Option<bool>,
    /// Maximum memory for the changes of one replay, in bytes.
    pub changes_limit: Option<u64>,
    /// Ends the replay.
    pub interrupt: Interrupt<'a>,
}

/// What to do with log entries after the commit index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum TailPolicy {
    /// Take them in a cluster with one voter; otherwise leave them out and list v2 writes
    #[default]
    Auto,
    /// Leave them out and list v2 writes
    Committed,
    /// Take them
    All,
    /// Refuse if there are v2 writes among them
    Fail,
}

/// The tail: the end of the log that is not known to be committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    /// Number of entries.
    pub entries: u64,
    /// The requests among them that may change v2 keys.
    pub writes: Vec<TailWrite>,
}

/// A v2 write in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailWrite {
    /// Its raft index.
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
    /// POST, PUT or DELETE.
    pub method: Method,
    /// The store path.
    pub path: Vec<u8>,
    /// Length of its value in bytes.
    pub value_len: usize,
    /// Whether its effect depends on the index of the store: an in-order name, or a compare with an index.
    pub depends_on_index: bool,
}

/// Reads the store of the start snapshot. Returns the empty store if the log starts without a snapshot.
///
/// # Errors
/// [`Reason::Damaged`] with the file and offset of the snapshot.
pub fn read_table(opened: &Opened) -> Result<Table<'_>> {
    read_table_watched(opened, Interrupt::default())
}

/// Reads the store like [`read_table`], until an interruption.
///
/// # Errors
/// As [`read_table`]; the interruption.
pub fn read_table_watched<'m>(opened: &'m Opened, interrupt: Interrupt<'_>) -> Result<Table<'m>> {
    let Some(snapshot) = &opened.start.snapshot else { return Ok(Table::empty()) };
    json::read_watched(snapshot.json(), interrupt)
        .map_err(|e| e.counted_from(snapshot.json_offset()).in_file(snapshot.path()))
}

/// The proof in a v3 backend: its applied entries are committed, and its form identifies the server that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendProof {
    /// Index of the member that has it.
    pub member: usize,
    /// Raft index of the last applied entry; 0 if the backend does not have it.
    pub index: RaftIndex,
    /// Whether a cluster has used it.
    pub used: bool,
    /// Whether it has the marks of 3.5: `meta/term` or `confState`.
    pub marked: bool,
    /// The term of the last applied entry, which 3.5 writes.
    pub term: Option<Term>,
    /// The hash of its members, see [`membership::fingerprint`].
    pub members: Option<u64>,
}

/// An applied entry.
#[derive(Debug)]
pub struct Applied<'a> {
    /// The entry.
    pub entry: &'a Entry<'a>,
    /// Its effect.
    pub effect: Effect,
    /// The index of the store after it.
    pub v2_index: V2Index,
}

/// The input of every replay of one source, independent of the rules.
#[derive(Debug)]
pub(super) struct ReplayInput<'m, 'i> {
    pub(super) opened: &'m Opened,
    pub(super) table: &'m Table<'m>,
    pub(super) backend: Option<BackendProof>,
    pub(super) options: ReplayOptions<'i>,
    /// The entries that are proven to be committed on disk.
    pub(super) committed: Vec<Located>,
    pub(super) commit: Commit,
}

impl<'m, 'i> ReplayInput<'m, 'i> {
    pub(super) fn new(
        opened: &'m Opened,
        table: &'m Table<'m>,
        backend: Option<BackendProof>,
        options: ReplayOptions<'i>,
    ) -> Result<ReplayInput<'m, 'i>> {
        let start = opened.start.index();
        if table.current_index.0 > limits::MAX_REVISION && opened.wal().is_some() {
            let message = format!("expected a v2 index of at most 2^62, found {}", table.current_index);
            return Err(Error::new(Reason::IndexRange, message).in_file(opened.path()));
        }
        let commit = commit(opened, start, backend, options.interrupt)?;
        let up_to = options.up_to.unwrap_or(RaftIndex(u64::MAX));
        let right = right_logs(opened, backend, commit.by);
        let committed = committed(opened, start, commit.index, up_to, &right, options.interrupt)?;
        Ok(ReplayInput { opened, table, backend, options, committed, commit })
    }

    /// Returns the last entry to replay.
    pub(super) fn up_to(&self) -> RaftIndex {
        self.options.up_to.unwrap_or(RaftIndex(u64::MAX))
    }

    /// Replays the log with these rules. `names` asks for the requests that use in-order names.
    pub(super) fn replay(&self, rules: Rules, names: bool, observe: Observe<'_>) -> Result<Recovered<'m>> {
        let ReplayInput { opened, table, backend, options, .. } = *self;
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
            let leads_to_commit = self.commit.not_found.is_none();
            recovered.go_beyond(opened, commit, leads_to_commit, &options, observe)?;
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

/// Returns the committed entries after the start, at least those up to `up_to`.
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
    // Missing entries above the requested index are not an error.
    join(commit).or_else(|error| if up_to < commit { join(up_to) } else { Err(error) })
}

/// Returns which logs are right about the commit index. The log of a member contains what its backend proves. The same
/// holds for what the snapshot of a single member proves.
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
        Some(first) if options.tail == TailPolicy::Fail => {
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
        format!("cannot stop at raft index {up_to}: the snapshot has the state at {applied}")
    } else if recovered.tail.entries > 0 {
        format!("cannot replay to raft index {up_to}: entries above {applied} are not known to be committed")
    } else {
        format!("cannot replay to raft index {up_to}: the source ends at {applied}")
    };
    let error = Error::new(Reason::IndexNotReached, message).in_file(opened.path());
    let has_tail = applied <= up_to && recovered.tail.entries > 0;
    if has_tail { error.hint("apply entries that are not known to be committed with --tail all") } else { error }
}

impl<'m> Recovered<'m> {
    fn apply(
        &mut self,
        opened: &'m Opened,
        entries: &[Located],
        options: &ReplayOptions<'_>,
        observe: Observe<'_>,
    ) -> Result<()> {
        options.interrupt.expect(entries.iter().map(|located| located.entry.len() as u64).sum());
        let mut batch = Vec::with_capacity(BATCH.min(entries.len()));
        for entries in entries.chunks(BATCH) {
            read_ahead(opened, entries);
            batch.extend(entries.iter().filter_map(|located| Parsed::of(opened, located)));
            self.replay.tree.look_ahead(batch.iter().filter_map(Parsed::path));
            for parsed in batch.drain(..) {
                self.apply_one(parsed, options, observe)?;
            }
        }
        Ok(())
    }

    fn apply_one(
        &mut self,
        parsed: Parsed<'m, '_>,
        options: &ReplayOptions<'_>,
        observe: &mut dyn FnMut(&Applied<'_>) -> Result<()>,
    ) -> Result<()> {
        let Parsed { located, wal, entry, proposal } = parsed;
        options.interrupt.ask()?;
        options.interrupt.done(located.entry.len() as u64);
        let entry = entry?;
        if let Some(limit) = options.changes_limit {
            // Each slash can create a directory; the slashes of short entries are estimated.
            let slashes = |data: &[u8]| memchr::memchr_iter(b'/', data).count() as u64 * Tree::DIRECTORY_BYTES;
            let more = Some(entry.data).filter(|data| data.len() > LONG_ENTRY).map_or(0, slashes);
            if self.replay.tree.held_bytes().saturating_add(more) > limit {
                return Err(too_large(limit, entry.index));
            }
        }
        let failed = |e: Error| e.at(entry.data_offset).in_file(wal.segment_path(&located.entry));
        let effect = self.replay.apply_parsed(&entry, proposal).map_err(failed)?;
        self.applied_entries += 1;
        if let Some(taken) = self.taken_from.get_mut(located.member) {
            *taken += 1;
        }
        observe(&Applied { entry: &entry, effect, v2_index: self.v2_index() })
    }

    /// Applies entries above every recorded commit index: those that the cluster would find committed, or those that
    /// the options accept. `leads_to_commit` is false if the logs do not lead to the commit index.
    fn go_beyond(
        &mut self,
        opened: &'m Opened,
        commit: RaftIndex,
        leads_to_commit: bool,
        options: &ReplayOptions<'_>,
        observe: Observe<'_>,
    ) -> Result<()> {
        let members = &opened.members;
        let end = |at: usize| members.get(at)?.wal.as_ref()?.last().map(|(_, last)| last);
        let only = |at: usize| (0..members.len()).map(|other| other == at).collect::<Vec<bool>>();
        let (to, right, by) = match options.tail {
            TailPolicy::Committed | TailPolicy::Fail => return Ok(()),
            TailPolicy::All => {
                let Some(at) = cluster::furthest(members) else { return Ok(()) };
                if opened.salvage {
                    return self.go_on_in(opened, at, options, CommitBy::Asked, observe);
                }
                (end(at), only(at), CommitBy::Asked)
            }
            TailPolicy::Auto if self.backup => return Ok(()),
            TailPolicy::Auto => match self.only_voter(opened) {
                Some(at) if opened.salvage => return self.go_on_in(opened, at, options, CommitBy::OnlyVoter, observe),
                Some(at) => (end(at), only(at), CommitBy::OnlyVoter),
                // Logs that grew while they were read one after the other do not prove what all had at one time.
                None if members.len() == 1 || opened.is_live() || !leads_to_commit => return Ok(()),
                None => {
                    let voters = &self.replay.voters.voters;
                    let Some(beyond) = cluster::beyond(members.iter(), voters, commit, opened.start.term()) else {
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

    /// Applies the next contiguous entries of one member's log, up to damage or a gap.
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

    /// Returns the given member that is the only voter of the cluster.
    fn only_voter(&self, opened: &Opened) -> Option<usize> {
        let id = self.replay.voters.only()?;
        opened.members.iter().position(|member| member.id() == Some(id))
    }

    /// Returns whether the source is a backup: its records have their own order, and its ids are not those of a member
    /// in the store (docs/formats.md 1.4).
    fn is_backup(&mut self, opened: &Opened) -> bool {
        let members = membership::member_ids(&mut self.replay.tree);
        let in_order = opened.wal().is_some_and(Wal::has_backup_order);
        in_order && opened.start_member().and_then(Member::id).is_some_and(|id| !members.contains(&id))
    }

    /// Returns the index of the store at the end of the replay.
    pub fn v2_index(&self) -> V2Index {
        self.replay.tree.current_index
    }
}

/// Number of entries that are parsed before the first of them is applied, so that their reads wait for memory together.
pub(super) const BATCH: usize = 64;

/// Prefetches entries, all at once.
pub(super) fn read_ahead(opened: &Opened, entries: &[Located]) {
    for (number, member) in opened.members.iter().enumerate() {
        let own = entries.iter().filter(|located| located.member == number);
        member.wal.iter().for_each(|wal| wal.read_ahead(own.clone().map(|located| &located.entry)));
    }
}

/// An entry to apply.
struct Parsed<'m, 'e> {
    located: &'e Located,
    wal: &'m Wal,
    entry: Result<Entry<'m>>,
    /// The content of a normal entry, if it can be read.
    proposal: Option<Proposal<'m>>,
}

impl<'m, 'e> Parsed<'m, 'e> {
    /// Parses an entry. Returns `None` if its member has no log.
    fn of(opened: &'m Opened, located: &'e Located) -> Option<Parsed<'m, 'e>> {
        let wal = opened.members.get(located.member)?.wal.as_ref()?;
        let entry = wal.entry(&located.entry);
        let normal = entry.as_ref().ok().filter(|entry| entry.kind == EntryKind::Normal);
        let proposal = normal.and_then(|entry| parse_proposal(entry.data, entry.data_offset).ok());
        Some(Parsed { located, wal, entry, proposal })
    }

    /// Returns the path of a v2 request.
    fn path(&self) -> Option<&'m [u8]> {
        match self.proposal {
            Some(Proposal::V2(request)) => Some(request.path),
            _ => None,
        }
    }
}

/// Length of an entry, in bytes, whose path may have very many components.
const LONG_ENTRY: usize = 1 << 12;

fn too_large(limit: u64, index: RaftIndex) -> Error {
    let message = format!(
        "the log up to raft index {index} makes more than the {limit} bytes of nodes that --memory-limit leaves room for"
    );
    Error::new(Reason::MemoryLimit, message).hint("give more memory, or run it on a larger machine")
}

/// The last index to replay without knowledge of the voters.
#[derive(Debug)]
pub(super) struct Commit {
    index: RaftIndex,
    by: CommitBy,
    pub(super) not_found: Option<Error>,
}

/// Returns the highest index that is proven to be committed on disk, and which of its entries are missing
/// (docs/formats.md 4.9).
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
    // With several members, the log of the member with this backend may be lost; then the others prove the index.
    let alone = opened.members.len() == 1;
    let holds =
        |member: usize, index| opened.members.get(member).and_then(|member| member.wal.as_ref()?.at(index)).is_some();
    if let Some(backend) = backend.filter(|proof| proof.index > index && (alone || holds(proof.member, proof.index))) {
        (index, by) = (backend.index, CommitBy::Backend);
    }
    if opened.salvage {
        let right = right_logs(opened, backend, by);
        let coverage = Coverage::of(&opened.members, index, Trust::Logs(&right), interrupt)?;
        let reached = coverage.from(start).min(index).max(start);
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
        "expected raft entries up to {index}, which {} proves to be committed, found that the log ends at {last}: a part of the \
         log is missing",
        by.phrase()
    );
    let error = Error::new(Reason::CommitBeyondLog, message);
    match opened.wal().map(Wal::end) {
        Some(End::Torn { segment, offset }) => {
            error.context("the last record is truncated").at(*offset).in_file(segment)
        }
        _ => {
            let segment = opened.wal().and_then(Wal::last_segment);
            error.in_file(segment.map_or(opened.path(), |segment| &segment.name.path))
        }
    }
}

/// Returns the entries of all logs after the last applied one, each once.
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

/// Returns the v2 write that an entry asks for.
pub fn write_in(entry: &Entry<'_>) -> Option<TailWrite> {
    if entry.kind != EntryKind::Normal {
        return None;
    }
    match parse_proposal(entry.data, entry.data_offset) {
        Ok(Proposal::V2(request)) if request.is_write() => Some(TailWrite {
            index: entry.index,
            term: entry.term,
            method: request.method,
            path: request.path.to_vec(),
            value_len: request.val.len(),
            depends_on_index: request.method == Method::Post || request.prev_index > 0,
        }),
        _ => None,
    }
}
