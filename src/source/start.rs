//! Which snapshot the replay starts from, and whether the logs lead from there to their end without a gap (FORMATS 2.3, 4.6 to
//! 4.9). Knows files and raft indexes; must not know what they hold.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, Term};
use crate::interrupt::Interrupt;
use crate::source::cluster::{self, Reach, Trust};
use crate::source::dir::SnapName;
use crate::source::entries::End;
use crate::source::live_copy::Files;
use crate::source::member::{Member, WHAT_TO_DO};
use crate::source::snap::Snapshot;
use crate::source::wal::Wal;

/// The chosen start, and what was passed over on the way to it.
#[derive(Debug)]
pub struct Choice {
    /// The snapshot; `None`: the log from its first entry.
    pub snapshot: Option<Snapshot>,
    /// Which of the given members it is from.
    pub member: usize,
    /// Newer snapshots that were not used, newest first.
    pub passed_over: Vec<PassedOver>,
}

/// A snapshot that was not used.
#[derive(Debug)]
pub struct PassedOver {
    /// Where it is.
    pub path: PathBuf,
    /// The raft index that its name says. Every snapshot holds committed state, so the cluster held at least this.
    pub index: RaftIndex,
    /// Why it was not used.
    pub why: String,
    /// Whether the file itself is damaged.
    pub damaged: bool,
}

impl PassedOver {
    fn new(name: &SnapName, why: impl ToString) -> PassedOver {
        PassedOver { path: name.path.clone(), index: name.index, why: why.to_string(), damaged: false }
    }
}

impl Choice {
    /// Raft index that the replay starts after.
    pub fn index(&self) -> RaftIndex {
        self.snapshot.as_ref().map_or(RaftIndex(0), |s| s.index)
    }

    /// Term of that index.
    pub fn term(&self) -> Term {
        self.snapshot.as_ref().map_or(Term(0), |s| s.term)
    }
}

/// A snapshot file, and whose it is.
struct Candidate<'m> {
    name: &'m SnapName,
    member: usize,
    files: &'m Files,
}

/// The snapshot files of all members at or below an index, the newest first; of equals that of the member with the lowest id.
fn candidates<'m>(
    members: &'m [Member],
    up_to: Option<RaftIndex>,
    of_member: impl Fn(&'m Member) -> Vec<&'m SnapName>,
) -> Vec<Candidate<'m>> {
    let of = |(at, member): (usize, &'m Member)| {
        let named = of_member(member).into_iter();
        named.map(move |name| Candidate { name, member: at, files: &member.files })
    };
    let mut found: Vec<Candidate<'m>> = members.iter().enumerate().flat_map(of).collect();
    found.retain(|candidate| up_to.is_none_or(|up_to| candidate.name.index <= up_to));
    // Of equals that of the lowest id: the order in which members are named decides nothing.
    let id = |at: usize| members.get(at).and_then(Member::id);
    found.sort_by_key(|candidate| {
        (Reverse((candidate.name.index, candidate.name.term)), id(candidate.member), candidate.member)
    });
    found
}

/// Chooses the newest snapshot that loads and that a log confirms, and from which the logs lead to everything that any member
/// knows to be committed. Falls back to an older one, or to the beginning of the log, only where the logs reach back to it. A
/// snapshot beyond the end of every log is newer than all of them. With `up_to`, nothing above that index is looked at.
///
/// # Errors
/// [`Reason::Gap`], [`Reason::Damaged`] or [`Reason::NotReached`] if no start leads there, [`Reason::SourceEmpty`] if there is
/// nothing to start from.
pub fn choose(members: &[Member], up_to: Option<RaftIndex>, interrupt: Interrupt<'_>) -> Result<Choice> {
    let mut search = Search::new(members, up_to, interrupt)?;
    let mut orphans = Vec::new();
    for candidate in candidates(members, up_to, |member| member.snapshots.iter().collect()) {
        let Some(snapshot) = search.load(&candidate)? else { continue };
        if !search.has_log {
            return Ok(search.chosen(Some(snapshot), candidate.member));
        }
        if let Some(why) = contradiction(members, &snapshot) {
            search.contradicted(&candidate, why);
        } else if !search.is_confirmed(&snapshot) {
            search.pass_over(&candidate, "the log has no snapshot record for it");
            orphans.push((snapshot, candidate.member));
        } else {
            match search.leads_on(snapshot.index) {
                Ok(()) => return Ok(search.chosen(Some(snapshot), candidate.member)),
                Err(error) => {
                    search.pass_over(&candidate, &error);
                    search.first_gap.get_or_insert(error);
                }
            }
        }
    }
    if search.has_log && search.leads_on(RaftIndex(0)).is_ok() && search.has_beginning() {
        let member = members.iter().position(|member| member.commit() == search.commit).unwrap_or(0);
        return Ok(search.chosen(None, member));
    }
    // No confirmed beginning. A snapshot always holds committed state, so one that a log continues is safe all the same.
    for (snapshot, member) in orphans {
        if members.iter().any(|member| member.wal.as_ref().is_some_and(|wal| continues(&snapshot, wal)))
            && search.leads_on(snapshot.index).is_ok()
        {
            search.passed_over.retain(|passed| passed.index > snapshot.index);
            return Ok(search.chosen(Some(snapshot), member));
        }
    }
    Err(search.failure())
}

/// A start for a source that is damaged, and how far the logs lead from it.
#[derive(Debug)]
pub struct SalvageStart {
    /// The choice of this start.
    pub choice: Choice,
    /// The snapshot file; `None`: the log from its first entry.
    pub path: Option<PathBuf>,
    /// The last committed entry that is reached.
    pub reaches: RaftIndex,
}

/// Every sound start of a damaged source: snapshots, those that etcd renamed to `.snap.broken` too, and the log from its first
/// entry. The one that reaches furthest comes first; of equals the newest snapshot.
///
/// # Errors
/// There is none; why the newest is none.
pub fn salvage_starts(
    members: &[Member],
    up_to: Option<RaftIndex>,
    interrupt: Interrupt<'_>,
) -> Result<Vec<SalvageStart>> {
    let mut search = Search::new(members, up_to, interrupt)?;
    let mut starts = Vec::new();
    for candidate in
        candidates(members, up_to, |member| member.snapshots.iter().chain(&member.broken_snapshots).collect())
    {
        let Some(snapshot) = search.load(&candidate)? else { continue };
        if let Some(why) = contradiction(members, &snapshot) {
            search.contradicted(&candidate, why);
            continue;
        }
        let reaches = search.reach.from(snapshot.index);
        let choice = Choice { snapshot: Some(snapshot), member: candidate.member, passed_over: Vec::new() };
        starts.push(SalvageStart { choice, path: Some(candidate.name.path.clone()), reaches });
    }
    let begins = |member: &Member| {
        member.wal.as_ref().is_some_and(|wal| wal.spans().iter().any(|span| span.at(RaftIndex(1)).is_some()))
    };
    if let Some(member) = members.iter().position(begins) {
        let choice = Choice { snapshot: None, member, passed_over: Vec::new() };
        starts.push(SalvageStart { choice, path: None, reaches: search.reach.from(RaftIndex(0)) });
    }
    starts.sort_by_key(|start| Reverse((start.reaches, start.choice.index())));
    match starts.first_mut() {
        Some(first) => {
            let index = first.choice.index();
            first.choice.passed_over.extend(search.passed_over.into_iter().filter(|passed| passed.index > index));
            Ok(starts)
        }
        None => Err(search.failure()),
    }
}

/// What is known while the snapshots are looked at.
struct Search<'m> {
    members: &'m [Member],
    up_to: Option<RaftIndex>,
    interrupt: Interrupt<'m>,
    has_log: bool,
    /// The highest index that any member knows to be committed, as far as it is asked for.
    commit: RaftIndex,
    reach: Reach,
    passed_over: Vec<PassedOver>,
    first_damage: Option<Error>,
    first_gap: Option<Error>,
}

impl<'m> Search<'m> {
    fn new(members: &'m [Member], up_to: Option<RaftIndex>, interrupt: Interrupt<'m>) -> Result<Search<'m>> {
        let commit = cluster::commit(members).min(up_to.unwrap_or(RaftIndex(u64::MAX)));
        Ok(Search {
            members,
            up_to,
            interrupt,
            has_log: members.iter().any(|member| member.wal.is_some()),
            commit,
            reach: Reach::of(members, commit, Trust::Committed, interrupt)?,
            passed_over: Vec::new(),
            first_damage: None,
            first_gap: None,
        })
    }

    fn chosen(self, snapshot: Option<Snapshot>, member: usize) -> Choice {
        Choice { snapshot, member, passed_over: self.passed_over }
    }

    fn pass_over(&mut self, candidate: &Candidate<'_>, why: impl ToString) {
        self.passed_over.push(PassedOver::new(candidate.name, why));
    }

    /// Opens a snapshot; one that does not load is passed over, but not one that this process may not read: an older one would do
    /// in its place, and hold older data.
    fn load(&mut self, candidate: &Candidate<'_>) -> Result<Option<Snapshot>> {
        match load(candidate.name, candidate.files, self.interrupt) {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(error) if matches!(error.reason(), Reason::PermissionDenied | Reason::Interrupted(_)) => Err(error),
            Err(error) => {
                let passed_over = PassedOver::new(candidate.name, &error);
                self.passed_over.push(PassedOver { damaged: true, ..passed_over });
                self.first_damage.get_or_insert(error);
                Ok(None)
            }
        }
    }

    /// A snapshot that the log contradicts is damage, as it is for etcd ("snapshot mismatch").
    fn contradicted(&mut self, candidate: &Candidate<'_>, why: String) {
        self.pass_over(candidate, &why);
        self.first_damage.get_or_insert_with(|| Error::new(Reason::Damaged, why).in_file(&candidate.name.path));
    }

    /// A snapshot record at or below the commit index names it, or it is beyond the end of every log.
    fn is_confirmed(&self, snapshot: &Snapshot) -> bool {
        let named = |wal: &Wal| {
            wal.snapshots().iter().any(|record| (record.index, record.term) == (snapshot.index, snapshot.term))
        };
        let above = |wal: &Wal| wal.last().is_none_or(|(_, last)| snapshot.index >= last);
        let mut wals = self.members.iter().filter_map(|member| member.wal.as_ref());
        match snapshot.index <= self.commit {
            true => wals.clone().any(named) || wals.all(above),
            false => true,
        }
    }

    /// The logs hold every committed entry above the start. A log alone must not have lost any other either.
    fn leads_on(&self, start: RaftIndex) -> Result<()> {
        let reached = self.reach.from(start) >= self.commit;
        if reached && self.up_to == Some(self.commit) {
            return Ok(());
        }
        if let [Member { wal: Some(wal), path, .. }] = self.members
            && !wal.continues(start)
        {
            return Err(gap(start, wal).in_file(path));
        }
        if reached {
            return Ok(());
        }
        match self.members {
            [Member { wal: Some(wal), .. }] if wal.last().is_none_or(|(_, last)| last < self.commit) => {
                // The log ends below its commit, which is told where the commit is decided.
                Ok(())
            }
            members => cluster::join(members, start, self.commit, Trust::Committed, self.interrupt)
                .map(drop)
                .map_err(|e| blame(members, e)),
        }
    }

    /// An empty store is a beginning only for a log that says so.
    fn has_beginning(&self) -> bool {
        let of = |member: &Member| {
            member.wal.as_ref().is_some_and(|wal| member.snapshots.is_empty() || !wal.entries().is_empty())
        };
        self.members.iter().any(of)
    }

    fn failure(self) -> Error {
        let wal = self.members.iter().find_map(|member| member.wal.as_ref());
        let alone = self.members.len() == 1;
        self.first_gap.or(self.first_damage).unwrap_or_else(|| match wal {
            None => Error::new(Reason::SourceEmpty, "expected a .snap file, found none"),
            Some(wal) if alone => beginning_is_missing(wal),
            Some(_) => match cluster::join(self.members, RaftIndex(0), self.commit, Trust::Committed, self.interrupt) {
                Err(error) => blame(self.members, error),
                Ok(_) => Error::new(Reason::NotReached, "expected a snapshot that the logs continue, found none"),
            },
        })
    }
}

/// What several logs lack may be lost in the damage of one of them: then that is what is wrong.
fn blame(members: &[Member], error: Error) -> Error {
    let wals = || members.iter().filter_map(|member| member.wal.as_ref());
    let holes = wals().flat_map(|wal| wal.holes().iter().map(|hole| &hole.error));
    let ends = wals().filter_map(|wal| match wal.end() {
        End::Damaged(error) => Some(error),
        End::Clean | End::Torn { .. } => None,
    });
    match (error.reason(), holes.chain(ends).next()) {
        (Reason::NotReached, Some(damage)) => {
            let message = format!("{}; {}", damage.message(), error.message());
            let blamed = Error::new(Reason::Damaged, message).hint(WHAT_TO_DO);
            place(blamed, damage.file(), damage.offset())
        }
        _ => error,
    }
}

/// Opens a snapshot, which must be the one that its name says.
fn load(name: &SnapName, files: &Files, interrupt: Interrupt<'_>) -> Result<Snapshot> {
    let snapshot = Snapshot::of(files.open_snapshot(&name.path, interrupt)?, interrupt)?;
    if (snapshot.term, snapshot.index) != (name.term, name.index) {
        let message = format!(
            "expected the snapshot of term {} and index {} that its name says, found term {} and index {}",
            name.term, name.index, snapshot.term, snapshot.index
        );
        return Err(Error::new(Reason::Damaged, message).in_file(&name.path));
    }
    Ok(snapshot)
}

/// What in the logs says that a snapshot is not of this history (FORMATS E 13).
fn contradiction(members: &[Member], snapshot: &Snapshot) -> Option<String> {
    members.iter().filter_map(|member| member.wal.as_ref()).find_map(|wal| {
        let commit = wal.commit();
        let mut records = wal.snapshots().iter().filter(|record| record.index <= commit);
        let record = records.find(|record| record.index == snapshot.index && record.term != snapshot.term);
        if let Some(record) = record {
            let message = "snapshot mismatch: the log's snapshot record of this index has term";
            return Some(format!("{message} {}, the file term {}", record.term, snapshot.term));
        }
        if let Some(entry) = wal.at(snapshot.index)
            && entry.term != snapshot.term
            && entry.index <= commit
        {
            return Some(format!(
                "the log's entry {} is of term {}, the file of term {}",
                entry.index, entry.term, snapshot.term
            ));
        }
        let committed = wal.history().into_iter().rev().find(|entry| entry.index <= commit.min(snapshot.index));
        committed.filter(|entry| entry.term > snapshot.term).map(|entry| {
            format!(
                "the log has the committed entry {} of term {}, the file is of term {}",
                entry.index, entry.term, snapshot.term
            )
        })
    })
}

/// The log goes on right after a snapshot that it has no record of.
fn continues(snapshot: &Snapshot, wal: &Wal) -> bool {
    match wal.at(snapshot.index) {
        Some(entry) => entry.term == snapshot.term && snapshot.index <= wal.commit(),
        None => match wal.entries().first() {
            Some(first) => Some(first.index.0) == snapshot.index.0.checked_add(1),
            None => wal.continues(snapshot.index),
        },
    }
}

fn gap(start: RaftIndex, wal: &Wal) -> Error {
    if let Some(hole) = wal.hole_above(start) {
        let entries = format!("entries after {} are lost, and no snapshot replaces them", hole.before);
        let message = format!("{}: {entries}", hole.error.message());
        return place(Error::new(Reason::Damaged, message), hole.error.file(), hole.error.offset());
    }
    let next = start.0.saturating_add(1);
    let first = wal.range().map_or(wal.first_index(), |(first, _)| first);
    let message = match start {
        RaftIndex(0) => format!("expected a snapshot below raft entry {first}, where the log begins, found none"),
        _ => format!("expected raft entry {next} after the snapshot, found that the log has none before {first}"),
    };
    in_last_segment(Error::new(Reason::Gap, message), wal)
}

fn beginning_is_missing(wal: &Wal) -> Error {
    if wal.range().is_none() && wal.holes().is_empty() {
        return in_last_segment(Error::new(Reason::Gap, "expected a snapshot that the log knows, found none"), wal);
    }
    gap(RaftIndex(0), wal)
}

fn place(error: Error, file: Option<&Path>, offset: Option<u64>) -> Error {
    let error = file.into_iter().fold(error, |error, file| error.in_file(file));
    offset.into_iter().fold(error, Error::at)
}

fn in_last_segment(error: Error, wal: &Wal) -> Error {
    match wal.maps().last() {
        Some(map) => error.in_file(map.path()),
        None => error,
    }
}

#[cfg(test)]
mod tests;
