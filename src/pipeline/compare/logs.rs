//! The logs of all members: the kinds of the entries that a member lacks, and what becomes of those after the committed states.
//!
//! Uses the rules of a restart (docs/formats.md 4.9). An entry is committed if a majority of the voters holds it, so an entry
//! that fewer can hold is not committed. Must not know the v2 tree.

use std::collections::{BTreeMap, BTreeSet};

use crate::display::lossy;
use crate::error::Result;
use crate::ids::{MemberId, RaftIndex, Term};
use crate::interrupt::Interrupt;
use crate::report::comparison::{ComparedTail, EntryCounts, Rest};
use crate::report::facts::TailWrite;
use crate::source::cluster::{self, Proof};
use crate::source::entries::{End, EntryRef};
use crate::source::member::Member;
use crate::source::raft::{Entry, EntryKind, Method, Proposal, parse_proposal};
use crate::source::wal::Wal;
use crate::transform::policy::NAMESPACE;
use crate::v2store::replay::{CommitBy, write_in};

/// Maximum number of v2 writes that are listed.
const LISTED: usize = 20;

/// Adds an entry to its kind.
fn count(counts: &mut EntryCounts, entry: &Entry<'_>) {
    let kind = match (entry.kind, parse_proposal(entry.data, entry.data_offset)) {
        (EntryKind::ConfChange | EntryKind::ConfChangeV2, _) => &mut counts.conf_changes,
        (_, Ok(Proposal::Empty)) => &mut counts.empty,
        (_, Ok(Proposal::V2(request))) => match request.method {
            Method::Post | Method::Put | Method::Delete => &mut counts.v2_writes,
            Method::Sync => &mut counts.sync,
            Method::Qget => &mut counts.quorum_reads,
            Method::Get | Method::Head | Method::Absent | Method::Unknown => &mut counts.empty,
        },
        (_, Ok(_)) => &mut counts.v3,
        // A replay that needs the entry says why it cannot be read.
        (_, Err(_)) => &mut counts.unknown,
    };
    *kind += 1;
}

/// Counts the entries after `from` up to `to` by their kinds. Each log comes with the raft index up to which it counts, and the
/// first log that has an entry supplies it.
///
/// # Errors
/// An interruption.
pub(super) fn kinds(
    logs: &[(&Wal, RaftIndex)],
    from: RaftIndex,
    to: RaftIndex,
    interrupt: Interrupt<'_>,
) -> Result<EntryCounts> {
    let mut entries: BTreeMap<RaftIndex, (&Wal, &EntryRef)> = BTreeMap::new();
    for (wal, counts_to) in logs {
        let to = to.min(*counts_to);
        for entry in wal.history().into_iter().filter(|entry| entry.index > from && entry.index <= to) {
            interrupt.ask()?;
            entries.entry(entry.index).or_insert((wal, entry));
        }
    }
    let mut counts = EntryCounts::default();
    for (wal, entry) in entries.values() {
        interrupt.ask()?;
        count(&mut counts, &wal.entry(entry)?);
    }
    counts.unknown += (to.0.saturating_sub(from.0)).saturating_sub(counts.total());
    Ok(counts)
}

/// Returns the last index up to which a log has the entries of another log, from `from` to `to`.
pub(super) fn agrees_to(
    wal: &Wal,
    with: &Wal,
    from: RaftIndex,
    to: RaftIndex,
    interrupt: Interrupt<'_>,
) -> Result<RaftIndex> {
    let mut index = from;
    while index < to {
        interrupt.ask()?;
        let next = RaftIndex(index.0.saturating_add(1));
        let term = |wal: &Wal| wal.at(next).map(|entry| entry.term);
        if term(wal).is_none() || term(wal) != term(with) {
            break;
        }
        index = next;
    }
    Ok(index)
}

/// The input of [`tail`].
pub(super) struct Cluster<'c> {
    pub(super) members: &'c [&'c Member],
    /// For each member: whether its log is certainly whole.
    pub(super) whole: &'c [bool],
    pub(super) voters: &'c BTreeSet<MemberId>,
    /// The raft index of the most advanced committed state.
    pub(super) committed: RaftIndex,
    /// The term of the start of its replay.
    pub(super) start: Term,
    /// Whether an etcd was writing to a log.
    pub(super) is_live: bool,
}

/// Decides about the entries after the committed states. Returns the result, and for each member whether its log has the last
/// committed entry; `None` if no further entry is committed.
///
/// # Errors
/// An interruption.
pub(super) fn tail(of: &Cluster<'_>, interrupt: Interrupt<'_>) -> Result<(ComparedTail, Option<Vec<bool>>)> {
    let mut tail = ComparedTail::default();
    let wals = || of.members.iter().filter_map(|member| member.wal.as_ref());
    let mut seen: BTreeMap<(RaftIndex, Term), (&Wal, &EntryRef)> = BTreeMap::new();
    for wal in wals() {
        for entry in wal.entries().iter().filter(|entry| entry.index > of.committed) {
            interrupt.ask()?;
            seen.entry((entry.index, entry.term)).or_insert((wal, entry));
        }
    }
    let (Some(((first, _), _)), Some(((last, _), _))) = (seen.first_key_value(), seen.last_key_value()) else {
        return Ok((tail, None));
    };
    (tail.range, tail.live) = (Some((first.0, last.0)), of.is_live);
    // Logs that grew while they were read one after the other do not prove what all had at one time.
    let beyond =
        if of.is_live { None } else { cluster::beyond(of.members.iter().copied(), of.voters, of.committed, of.start) };
    let decided = beyond.as_ref().map_or(of.committed, |beyond| beyond.index);
    tail.committed_to = beyond.as_ref().map(|beyond| beyond.index.0);
    tail.proof = beyond.as_ref().map(|beyond| {
        let by = match beyond.proof {
            Proof::Majority => CommitBy::Majority,
            Proof::Election => CommitBy::Election,
        };
        by.phrase().to_string()
    });
    for (wal, reference) in seen.values() {
        interrupt.ask()?;
        let entry = wal.entry(reference)?;
        count(&mut tail.entries, &entry);
        if entry.index > decided {
            count(&mut tail.rest_entries, &entry);
        }
        if let Some(write) = write_in(&entry).filter(|_| tail.writes.len() < LISTED) {
            tail.writes.push(TailWrite {
                raft_index: write.index.0,
                term: write.term.0,
                method: write.method,
                key: lossy(write.path.strip_prefix(NAMESPACE).unwrap_or(&write.path)),
                value_bytes: write.value_len as u64,
            });
        }
    }
    rest(&mut tail, of, decided, seen.keys().copied());
    Ok((tail, beyond.map(|beyond| beyond.holders)))
}

/// Decides about the entries after the last one that is proven to be committed. A log that has an entry also has the entry
/// before it. So the holders of the next entry include all holders of later ones.
fn rest(
    tail: &mut ComparedTail,
    of: &Cluster<'_>,
    decided: RaftIndex,
    entries: impl Iterator<Item = (RaftIndex, Term)>,
) {
    let mut next = entries.filter(|(index, _)| *index > decided).peekable();
    let Some((first, _)) = next.peek().copied() else { return };
    let votes = |member: &Member| member.id().is_some_and(|id| of.voters.contains(&id));
    let holds = |member: &Member, term: Term| {
        let entry = member.wal.as_ref().and_then(|wal| wal.at(first));
        votes(member) && entry.is_some_and(|entry| entry.term == term)
    };
    let terms = next.take_while(|(index, _)| *index == first).map(|(_, term)| term);
    let held = terms.map(|term| of.members.iter().filter(|member| holds(member, term)).count()).max().unwrap_or(0);
    let certain = |(member, whole): &(&&Member, &bool)| {
        let is_damaged = member.wal.as_ref().is_none_or(|wal| matches!(wal.end(), End::Damaged(_)));
        votes(member) && **whole && !is_damaged && !of.is_live
    };
    let given = of.members.iter().zip(of.whole).filter(certain).count();
    let missing = of.voters.len().saturating_sub(given);
    tail.held_by = held as u64;
    let never = !of.voters.is_empty() && held + missing < of.voters.len() / 2 + 1;
    tail.rest = if never { Rest::NotCommitted } else { Rest::Undecided };
    tail.more_members_decide = !never && missing > 0 && !of.is_live;
}
