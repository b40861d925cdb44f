//! Several members' logs as one (FORMATS 4.9): what is committed, as the cluster itself would find after a restart, and where
//! each entry is read from.
//!
//! Rests on two promises of raft: an entry that any member knows to be committed is the same on all, and two logs that agree
//! on the term at an index agree on everything before it. Knows no v2 tree; who votes is told to it.

use std::collections::BTreeSet;

use crate::error::{Error, Reason, Result};
use crate::ids::{MemberId, RaftIndex, Term};
use crate::source::choose::{Choice, PassedOver, load};
use crate::source::open::Member;
use crate::source::snap::Snapshot;
use crate::source::wal::{End, EntryRef, Wal};

/// An entry, and whose log it is read from.
#[derive(Debug, Clone, Copy)]
pub struct Located {
    /// Which of the members.
    pub member: usize,
    /// Where in that member's log.
    pub entry: EntryRef,
}

/// Why entries above every commit on disk count as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A majority of the voters holds an entry of the highest term.
    Majority,
    /// Every log that could win an election holds them.
    Election,
}

/// Entries above every commit on disk that count as committed all the same.
#[derive(Debug)]
pub struct Beyond {
    /// The last of them.
    pub index: RaftIndex,
    /// Whose logs hold it.
    pub holders: Vec<bool>,
    /// Why.
    pub proof: Proof,
}

/// Checks that these are different members of one cluster.
///
/// # Errors
/// [`Reason::NotOneCluster`]; [`Reason::SourceEmpty`] if none of them has a log.
pub fn check(members: &[Member]) -> Result<()> {
    if let (Some(first), false) = (members.first(), members.iter().any(|member| member.wal.is_some())) {
        let message = "expected a write-ahead log in one directory at least, found none";
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

/// The highest commit index that each member knows.
pub fn commits(members: &[Member]) -> Vec<RaftIndex> {
    members.iter().map(|member| member.wal.as_ref().map_or(RaftIndex(0), Wal::commit)).collect()
}

/// Chooses the newest snapshot of any member from which the logs together reach everything that any member knows to be
/// committed.
///
/// # Errors
/// [`Reason::NotReached`] if there is none.
pub fn choose(members: &[Member], up_to: Option<RaftIndex>) -> Result<Choice> {
    let commits = commits(members);
    let commit = commits.iter().copied().max().unwrap_or(RaftIndex(0));
    let mut names: Vec<_> = members
        .iter()
        .enumerate()
        .flat_map(|(at, m)| m.snapshots.iter().map(move |name| (at, name, m.access)))
        .collect();
    // The newest first; of equals the one of the member that was named first.
    names.sort_by(|(at, a, _), (bt, b, _)| b.index.cmp(&a.index).then(at.cmp(bt)));
    let mut passed_over = Vec::new();
    for (member, name, access) in names {
        if up_to.is_some_and(|up_to| name.index > up_to) {
            continue;
        }
        let snapshot = match load(name, access) {
            Ok(snapshot) => snapshot,
            Err(error) if error.reason() == Reason::PermissionDenied => return Err(error),
            Err(error) => {
                passed_over.push(PassedOver::new(name, error));
                continue;
            }
        };
        if !is_committed(members, &snapshot, commit) {
            passed_over.push(PassedOver::new(name, "no log confirms it"));
            continue;
        }
        match join(members, &commits, snapshot.index, commit, vec![false; members.len()]) {
            Ok(_) => return Ok(Choice { snapshot: Some(snapshot), member, passed_over }),
            Err(error) => passed_over.push(PassedOver::new(name, error)),
        }
    }
    join(members, &commits, RaftIndex(0), commit, vec![false; members.len()])?;
    let member = commits.iter().position(|index| *index == commit).unwrap_or(0);
    Ok(Choice { snapshot: None, member, passed_over })
}

fn is_committed(members: &[Member], snapshot: &Snapshot, commit: RaftIndex) -> bool {
    let named = |wal: &Wal| {
        wal.snapshots().iter().any(|record| (record.index, record.term) == (snapshot.index, snapshot.term))
            || wal.at(snapshot.index).is_some_and(|entry| entry.term == snapshot.term)
    };
    snapshot.index <= commit && members.iter().filter_map(|member| member.wal.as_ref()).any(named)
}

/// The entries behind `from` up to `to`, each from a log that is right about it. `holders` are members whose logs are known to
/// be right about `to`; where that is committed on disk none need be.
///
/// # Errors
/// [`Reason::NotReached`] naming an entry that no given log holds; [`Reason::Damaged`] if logs contradict each other.
pub fn join(
    members: &[Member],
    commits: &[RaftIndex],
    from: RaftIndex,
    to: RaftIndex,
    holders: Vec<bool>,
) -> Result<Vec<Located>> {
    let mut right = holders;
    let mut pick = 0;
    let mut out = Vec::new();
    let mut index = to;
    while index > from {
        for (right, commit) in right.iter_mut().zip(commits) {
            *right |= index <= *commit;
        }
        let entry = |at: usize| members.get(at).and_then(|member| member.wal.as_ref()?.at(index));
        let is_right = |at: usize| right.get(at).copied().unwrap_or(false);
        let holds = |at: &usize| is_right(*at) && entry(*at).is_some();
        pick = Some(pick).filter(holds).or_else(|| (0..members.len()).find(holds)).ok_or_else(|| missing(index))?;
        let Some(chosen) = entry(pick) else { return Err(missing(index)) };
        let agrees: Vec<Option<bool>> =
            (0..members.len()).map(|at| entry(at).map(|other| other.term == chosen.term)).collect();
        for (at, (right, agrees)) in right.iter_mut().zip(agrees).enumerate() {
            match agrees {
                Some(true) => *right = true,
                Some(false) if *right => return Err(contradiction(members, index, pick, at)),
                _ => {}
            }
        }
        out.push(Located { member: pick, entry: *chosen });
        index.0 -= 1;
    }
    out.reverse();
    Ok(out)
}

fn missing(index: RaftIndex) -> Error {
    Error::new(Reason::NotReached, format!("no given member holds raft entry {index}, which is committed"))
}

fn contradiction(members: &[Member], index: RaftIndex, a: usize, b: usize) -> Error {
    let path = |at: usize| members.get(at).map_or(String::new(), |member| member.path.display().to_string());
    let message = format!("{} and {} hold different committed entries at raft index {index}", path(a), path(b));
    Error::new(Reason::Damaged, message)
}

/// The log of a member with its end, where it is whole.
struct Log<'m> {
    at: usize,
    id: MemberId,
    wal: &'m Wal,
    last: (Term, RaftIndex),
}

/// Entries above `commit` that the cluster would find committed after a restart: rules (b) and (c) of FORMATS 4.9.
pub fn beyond(members: &[Member], voters: &BTreeSet<MemberId>, commit: RaftIndex, start: Term) -> Option<Beyond> {
    let logs: Vec<Log<'_>> = members.iter().enumerate().filter_map(|(at, member)| log(at, member, start)).collect();
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
    // Whose log has the entry that was proven: all of those that were counted agree on its term.
    let term = match proof {
        Proof::Majority => highest_term(&logs),
        Proof::Election => electable(&logs, majority).first().and_then(|log| log.wal.at(index)).map(|entry| entry.term),
    };
    let holds = |member: &Member| member.wal.as_ref().and_then(|wal| wal.at(index)).map(|entry| entry.term) == term;
    Some(Beyond { index, holders: members.iter().map(holds).collect(), proof })
}

fn log(at: usize, member: &Member, start: Term) -> Option<Log<'_>> {
    let wal = member.wal.as_ref()?;
    let last = wal.entries().last().map_or((start, wal.commit()), |entry| (entry.term, entry.index));
    Some(Log { at, id: wal.metadata()?.node_id, wal, last })
}

fn highest_term(logs: &[&Log<'_>]) -> Option<Term> {
    let states = logs.iter().filter_map(|log| log.wal.hard_state()).map(|state| state.term);
    states.chain(logs.iter().map(|log| log.last.0)).max()
}

/// Raft commits by counting only entries of the leader's own term (4.9 b). Behind damage a log may say that its member voted in
/// a later term, so only whole ones prove what they hold.
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

/// What every log that could win an election holds is committed by whoever wins (4.9 c).
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

/// The member with the log that is furthest on: the highest last term, then the highest last index.
pub fn furthest(members: &[Member]) -> Option<usize> {
    let logs: Vec<Log<'_>> = members.iter().enumerate().filter_map(|(at, member)| log(at, member, Term(0))).collect();
    // Of equals the one that was named first.
    logs.iter().rev().max_by_key(|log| log.last).map(|log| log.at)
}
