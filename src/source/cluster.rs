//! The logs of several members as one log (docs/formats.md 4.9): which entries are committed, as the cluster itself
//! decides after a restart, and which log supplies each entry.
//!
//! Uses two guarantees of raft. An entry that any member knows to be committed is the same on all members. Two logs
//! that agree on the term at an index agree on all entries before it. Both hold for each span of a log by itself. Must
//! not know the v2 tree; the caller passes the voters.

use std::collections::BTreeSet;

use crate::error::{Error, Reason, Result};
use crate::ids::{MemberId, RaftIndex, Term};
use crate::interrupt::Interrupt;
use crate::source::entries::{End, EntryRef, Span};
use crate::source::member::Member;
use crate::source::wal::Wal;

/// An entry, and the member whose log contains it.
#[derive(Debug, Clone, Copy)]
pub struct Located {
    /// Index of the member in the list of members.
    pub member: usize,
    /// The entry in the log of that member.
    pub entry: EntryRef,
}

/// The reason why entries above every recorded commit index count as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A majority of the voters holds an entry of the highest term.
    Majority,
    /// Every log that could win an election contains them.
    Election,
}

/// Entries above every recorded commit index that count as committed.
#[derive(Debug)]
pub struct Beyond {
    /// Raft index of the last of these entries.
    pub index: RaftIndex,
    /// For each member: whether its log contains that entry.
    pub holders: Vec<bool>,
    /// The reason why they count.
    pub proof: Proof,
}

/// Checks that the sources are different members of one cluster.
///
/// # Errors
/// [`Reason::NotOneCluster`]; [`Reason::SourceEmpty`] if no member has a log.
pub fn check<'m>(members: impl Iterator<Item = &'m Member> + Clone) -> Result<()> {
    if let (Some(first), false) = (members.clone().next(), members.clone().any(|member| member.wal.is_some())) {
        let message = "expected a write-ahead log in at least one directory, found none";
        return Err(Error::new(Reason::SourceEmpty, message).in_file(&first.path));
    }
    let mut seen = BTreeSet::new();
    let mut cluster = None;
    for member in members {
        let refuse = |message: String| Err(Error::new(Reason::NotOneCluster, message).in_file(&member.path));
        let Some(metadata) = member.wal.as_ref().and_then(Wal::metadata) else { continue };
        let cluster = *cluster.get_or_insert(metadata.cluster_id);
        if metadata.cluster_id != cluster {
            return refuse(format!(
                "expected a member of cluster {cluster}, found one of cluster {}",
                metadata.cluster_id
            ));
        }
        if !seen.insert(metadata.node_id) {
            return refuse(format!("expected another member, found member {} again", metadata.node_id));
        }
    }
    Ok(())
}

/// Returns the highest commit index that any member knows.
pub fn commit(members: &[Member]) -> RaftIndex {
    members.iter().filter_map(|member| member.wal.as_ref()).map(Wal::commit).max().unwrap_or_default()
}

/// Which entries above every recorded commit index are accepted.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// None.
    Committed,
    /// Those at the end of the logs of these members.
    Logs(&'a [bool]),
}

/// Returns the entries after `from` up to `to`, each from a log that proves it.
///
/// # Errors
/// [`Reason::NotReached`] with the index of an entry that no given log contains; [`Reason::TwoHistories`] if logs
/// contradict each other; an interruption.
pub fn join(
    members: &[Member],
    from: RaftIndex,
    to: RaftIndex,
    trust: Trust<'_>,
    interrupt: Interrupt<'_>,
) -> Result<Vec<Located>> {
    let mut descent = Descent::below(members, trust, to, interrupt)?;
    let mut out = Vec::new();
    let mut index = to;
    while index > from {
        out.push(descent.at(index)?.ok_or_else(|| missing(index))?);
        index.0 -= 1;
    }
    out.reverse();
    Ok(out)
}

/// The committed entries that the given logs contain.
#[derive(Debug)]
pub struct Coverage {
    /// Ranges without a gap: first and last index of each, in descending order.
    ranges: Vec<(RaftIndex, RaftIndex)>,
}

impl Coverage {
    /// Finds all entries up to `to` that a log proves.
    ///
    /// # Errors
    /// [`Reason::TwoHistories`] if logs contradict each other; an interruption.
    pub fn of(members: &[Member], to: RaftIndex, trust: Trust<'_>, interrupt: Interrupt<'_>) -> Result<Coverage> {
        let mut descent = Descent::below(members, trust, to, interrupt)?;
        let mut ranges: Vec<(RaftIndex, RaftIndex)> = Vec::new();
        let mut index = to;
        while index > RaftIndex(0) {
            let Some(top) = descent.top(index) else { break };
            index = index.min(top);
            if descent.at(index)?.is_some() {
                match ranges.last_mut().filter(|(first, _)| first.0 == index.0 + 1) {
                    Some((first, _)) => *first = index,
                    None => ranges.push((index, index)),
                }
            }
            index.0 -= 1;
        }
        Ok(Coverage { ranges })
    }

    /// Returns the last index that the logs lead to from `start` without a gap.
    pub fn from(&self, start: RaftIndex) -> RaftIndex {
        let next = RaftIndex(start.0.saturating_add(1));
        let range = self.ranges.iter().find(|(first, last)| *first <= next && *last >= next);
        range.map_or(start, |(_, last)| *last)
    }
}

/// A span of one of the logs.
#[derive(Debug)]
struct Piece<'m> {
    member: usize,
    span: &'m Span,
    right: bool,
}

impl Piece<'_> {
    fn bounds(&self) -> (RaftIndex, RaftIndex) {
        let index = |entry: Option<&EntryRef>| entry.map_or(RaftIndex(0), |entry| entry.index);
        (index(self.span.entries.first()), index(self.span.entries.last()))
    }
}

/// A walk down all logs at once.
///
/// A span is right about an index that its log proves to be committed. It is right about every entry below one on which
/// it agrees with a right span. It is also right about an entry whose term equals that of a right entry above. A term
/// has one leader, whose log only grows, so its log contains both entries, even if entries between them are lost.
struct Descent<'m> {
    /// Sorted by their last index, ascending.
    waiting: Vec<Piece<'m>>,
    active: Vec<Piece<'m>>,
    pick: Option<usize>,
    /// The term of the lowest right entry so far.
    above: Option<Term>,
    members: &'m [Member],
    interrupt: Interrupt<'m>,
}

impl<'m> Descent<'m> {
    fn new(members: &'m [Member], trust: Trust<'_>, interrupt: Interrupt<'m>) -> Descent<'m> {
        let mut waiting = Vec::new();
        for (at, member) in members.iter().enumerate() {
            let spans = member.wal.as_ref().map_or(&[][..], Wal::spans);
            let trusted = matches!(trust, Trust::Logs(which) if which.get(at) == Some(&true));
            for (number, span) in spans.iter().enumerate().filter(|(_, span)| !span.entries.is_empty()) {
                waiting.push(Piece { member: at, span, right: trusted && number + 1 == spans.len() });
            }
        }
        waiting.sort_by_key(|piece| (piece.bounds().1, std::cmp::Reverse(piece.member)));
        Descent { waiting, active: Vec::new(), pick: None, above: None, members, interrupt }
    }

    /// Walks down to `to`: the committed entries above it show which spans are right below it.
    fn below(members: &'m [Member], trust: Trust<'_>, to: RaftIndex, interrupt: Interrupt<'m>) -> Result<Descent<'m>> {
        let mut descent = Descent::new(members, trust, interrupt);
        let mut next = Some(commit(members));
        while let Some(index) = next.and_then(|index| descent.top(index)).filter(|index| *index > to) {
            descent.at(index)?;
            next = index.0.checked_sub(1).map(RaftIndex);
        }
        Ok(descent)
    }

    /// Returns the highest index at or below `index` that a span can contain.
    fn top(&self, index: RaftIndex) -> Option<RaftIndex> {
        let within = self.active.iter().any(|piece| piece.bounds().0 <= index);
        if within { Some(index) } else { self.waiting.last().map(|piece| piece.bounds().1.min(index)) }
    }

    /// Returns the entry with this index, if a log is right about it. Callers must ask with descending indexes.
    fn at(&mut self, index: RaftIndex) -> Result<Option<Located>> {
        self.interrupt.ask()?;
        while self.waiting.last().is_some_and(|piece| piece.bounds().1 >= index) {
            self.active.extend(self.waiting.pop());
        }
        self.active.retain(|piece| piece.bounds().0 <= index);
        for piece in &mut self.active {
            let term = piece.span.at(index).map(|entry| entry.term);
            piece.right |= index <= piece.span.committed || (self.above.is_some() && term == self.above);
        }
        // Prefer the log that supplied the entry above, then the member that was named first.
        let right = self.active.iter().filter(|piece| piece.right);
        let Some(chosen) = right.min_by_key(|piece| (Some(piece.member) != self.pick, piece.member)) else {
            return Ok(None);
        };
        let (member, Some(entry)) = (chosen.member, chosen.span.at(index)) else { return Ok(None) };
        let (entry, members) = (*entry, self.members);
        for piece in &mut self.active {
            match piece.span.at(index) {
                Some(other) if other.term == entry.term => piece.right = true,
                Some(_) if piece.right => {
                    let common = last_in_common(members, index, member, piece.member);
                    return Err(two_histories(members, index, common, member, piece.member));
                }
                _ => {}
            }
        }
        (self.pick, self.above) = (Some(member), Some(entry.term));
        Ok(Some(Located { member, entry }))
    }
}

fn missing(index: RaftIndex) -> Error {
    Error::new(
        Reason::NotReached,
        format!("expected raft entry {index}, which is committed, in the log of a given member, found it in none"),
    )
}

/// Checks that logs with entries of the same index and term contain the same entries there. `--force-new-cluster`
/// reuses the term, so two histories can differ in the content of the entries only.
///
/// # Errors
/// [`Reason::TwoHistories`] with both members and the last index that they have in common; an interruption.
pub fn check_histories(members: &[Member], interrupt: Interrupt<'_>) -> Result<()> {
    let histories: Vec<(usize, History<'_>)> =
        members.iter().enumerate().filter_map(|(at, member)| Some((at, History::of(member)?))).collect();
    for (number, (a, first)) in histories.iter().enumerate() {
        for (b, second) in histories.iter().skip(number + 1) {
            if let Some(found) = first.contradiction(second, RaftIndex(0), interrupt)? {
                return Err(two_histories(members, found.index, found.common, *a, *b));
            }
        }
    }
    Ok(())
}

/// The first raft index at which the logs of two members contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    /// The raft index.
    pub index: RaftIndex,
    /// The term of the entry in each log.
    pub terms: (Term, Term),
    /// The last index before it at which both have the same entry.
    pub common: Option<RaftIndex>,
}

/// Compares the entries that the logs of two members have in common. They contradict each other if entries of one index
/// and term have other content. They also do if entries that both know to be committed have other terms.
///
/// # Errors
/// An interruption.
pub fn contradiction(first: &Member, second: &Member, interrupt: Interrupt<'_>) -> Result<Option<Contradiction>> {
    let committed = first.commit().min(second.commit());
    match (History::of(first), History::of(second)) {
        (Some(first), Some(second)) => first.contradiction(&second, committed, interrupt),
        _ => Ok(None),
    }
}

/// The entries of a log that count.
struct History<'m> {
    wal: &'m Wal,
    entries: Vec<&'m EntryRef>,
}

impl<'m> History<'m> {
    fn of(member: &'m Member) -> Option<History<'m>> {
        let wal = member.wal.as_ref()?;
        Some(History { wal, entries: wal.history() })
    }

    /// Returns pairs of entries at the indexes that both histories have, ascending.
    fn with<'a>(&'a self, other: &'a History<'m>) -> impl Iterator<Item = (&'m EntryRef, &'m EntryRef)> + 'a {
        let mut theirs = other.entries.iter().peekable();
        self.entries.iter().filter_map(move |mine| {
            while theirs.next_if(|entry| entry.index < mine.index).is_some() {}
            theirs.next_if(|entry| entry.index == mine.index).map(|entry| (*mine, *entry))
        })
    }

    /// Returns the first contradiction. Entries up to `committed` must have the same term.
    fn contradiction(
        &self,
        other: &History<'_>,
        committed: RaftIndex,
        interrupt: Interrupt<'_>,
    ) -> Result<Option<Contradiction>> {
        let mut common = None;
        for (mine, theirs) in self.with(other) {
            interrupt.ask()?;
            let same_term = mine.term == theirs.term;
            let differ = same_term && !alike(self.wal, mine, other.wal, theirs);
            if differ || (!same_term && mine.index <= committed) {
                return Ok(Some(Contradiction { index: mine.index, terms: (mine.term, theirs.term), common }));
            }
            common = same_term.then_some(mine.index).or(common);
        }
        Ok(None)
    }
}

/// Returns whether two entries of one index and term have the same content.
fn alike(first: &Wal, a: &EntryRef, second: &Wal, b: &EntryRef) -> bool {
    match (first.entry(a), second.entry(b)) {
        (Ok(a), Ok(b)) => (a.kind, a.data) == (b.kind, b.data),
        // The code that needs the entry reports that it is unreadable.
        _ => true,
    }
}

fn two_histories(members: &[Member], index: RaftIndex, common: Option<RaftIndex>, a: usize, b: usize) -> Error {
    let path = |at: usize| members.get(at).map_or(String::new(), |member| member.path.display().to_string());
    let common = match common {
        Some(index) => format!("the last entry in common is {index}"),
        None => "they have no entry below it in common".to_string(),
    };
    let message = format!(
        "{} and {} have different entries at raft index {index} ({common}): one of them continued alone, for example after \
         --force-new-cluster",
        path(a),
        path(b)
    );
    Error::new(Reason::TwoHistories, message).hint("convert each of them alone")
}

/// Returns the last index below `index` at which two members have the same entry.
fn last_in_common(members: &[Member], index: RaftIndex, a: usize, b: usize) -> Option<RaftIndex> {
    let (first, second) = (History::of(members.get(a)?)?, History::of(members.get(b)?)?);
    let common = first.with(&second).filter(|(mine, theirs)| mine.index < index && mine.term == theirs.term);
    common.last().map(|(entry, _)| entry.index)
}

/// The log of a member and its last entry, if the log is complete.
struct Log<'m> {
    at: usize,
    id: MemberId,
    wal: &'m Wal,
    last: (Term, RaftIndex),
}

/// Returns the entries above `commit` that the cluster would find committed after a restart: rules (b) and (c) of
/// docs/formats.md 4.9.
pub fn beyond<'m>(
    members: impl Iterator<Item = &'m Member> + Clone,
    voters: &BTreeSet<MemberId>,
    commit: RaftIndex,
    start: Term,
) -> Option<Beyond> {
    let logs: Vec<Log<'_>> = members.clone().enumerate().filter_map(|(at, member)| log(at, member, start)).collect();
    let logs: Vec<&Log<'_>> = logs.iter().filter(|log| voters.contains(&log.id)).collect();
    let majority = voters.len() / 2 + 1;
    let whole: Vec<&Log<'_>> = logs.iter().copied().filter(|log| !matches!(log.wal.end(), End::Damaged(_))).collect();
    let by_majority = majority_of_highest_term(&logs, &whole, majority, commit);
    let by_election = if whole.len() == voters.len() { common_to_electable(&logs, majority, commit) } else { None };
    let (index, proof) = match (by_majority, by_election) {
        (Some(a), Some(b)) if b > a => (b, Proof::Election),
        (Some(a), _) => (a, Proof::Majority),
        (None, Some(b)) => (b, Proof::Election),
        (None, None) => return None,
    };
    // All counted logs agree on the term of the proven entry.
    let term = match proof {
        Proof::Majority => highest_term(&logs),
        Proof::Election => electable(&logs, majority).first().and_then(|log| log.wal.at(index)).map(|entry| entry.term),
    };
    let holds = |member: &Member| member.wal.as_ref().and_then(|wal| wal.at(index)).map(|entry| entry.term) == term;
    Some(Beyond { index, holders: members.map(holds).collect(), proof })
}

fn log(at: usize, member: &Member, start: Term) -> Option<Log<'_>> {
    let wal = member.wal.as_ref()?;
    let last = wal.last().unwrap_or((start, wal.commit()));
    Some(Log { at, id: wal.metadata()?.node_id, wal, last })
}

fn highest_term(logs: &[&Log<'_>]) -> Option<Term> {
    let states = logs.iter().filter_map(|log| log.wal.hard_state()).map(|state| state.term);
    states.chain(logs.iter().map(|log| log.last.0)).max()
}

/// Applies rule (b) of 4.9: raft commits by counting only entries of the leader's own term. A damaged log can contain a
/// vote for a later term after the damage, so only complete logs prove what they contain.
fn majority_of_highest_term(
    logs: &[&Log<'_>],
    whole: &[&Log<'_>],
    majority: usize,
    commit: RaftIndex,
) -> Option<RaftIndex> {
    let term = highest_term(logs)?;
    let highest = logs.iter().map(|log| log.last.1).max()?;
    let held = |index: RaftIndex| {
        let holds = |log: &&&Log<'_>| log.wal.at(index).is_some_and(|entry| entry.term == term);
        whole.iter().filter(holds).count() >= majority
    };
    (commit.0 + 1..=highest.0).rev().map(RaftIndex).find(|index| held(*index))
}

/// Applies rule (c) of 4.9: every possible winner of an election commits what all logs that could win contain.
fn common_to_electable(logs: &[&Log<'_>], majority: usize, commit: RaftIndex) -> Option<RaftIndex> {
    let electable = electable(logs, majority);
    let shortest = electable.iter().map(|log| log.last.1).min()?;
    let alike = |index: RaftIndex| {
        let mut terms = electable.iter().map(|log| log.wal.at(index).map(|entry| entry.term));
        let first = terms.next().flatten();
        first.is_some() && terms.all(|term| term == first)
    };
    (commit.0 + 1..=shortest.0).rev().map(RaftIndex).find(|index| alike(*index))
}

fn electable<'l, 'm>(logs: &[&'l Log<'m>], majority: usize) -> Vec<&'l Log<'m>> {
    let votes = |log: &Log<'_>| logs.iter().filter(|other| log.last >= other.last).count();
    logs.iter().copied().filter(|log| votes(log) >= majority).collect()
}

/// Returns the member with the most recent log: the highest last term, then the highest last index.
pub fn furthest(members: &[Member]) -> Option<usize> {
    let logs: Vec<Log<'_>> = members.iter().enumerate().filter_map(|(at, member)| log(at, member, Term(0))).collect();
    // Of equal members, the one that was named first.
    logs.iter().rev().max_by_key(|log| log.last).map(|log| log.at)
}
