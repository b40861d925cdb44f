//! The start of the replay, and the check that the logs lead from it to their end without a gap (docs/formats.md 2.3,
//! 4.6 to 4.9).
//!
//! Knows files and raft indexes. With `--salvage` it lists every possible start. Must not know the content of
//! snapshots.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use crate::error::{Error, Reason, Result};
use crate::ids::{ByteOffset, RaftIndex, Term};
use crate::interrupt::Interrupt;
use crate::source::cluster::{self, Coverage, Trust};
use crate::source::dir::SnapName;
use crate::source::entries::End;
use crate::source::live_copy::Files;
use crate::source::member::{Member, WHAT_TO_DO};
use crate::source::owner;
use crate::source::raft::SnapRecord;
use crate::source::snap::Snapshot;
use crate::source::wal::Wal;

/// The start of the replay, and the snapshots that were passed over.
#[derive(Debug)]
pub struct Start {
    /// The start snapshot; `None` for the log from its first entry.
    pub snapshot: Option<Snapshot>,
    /// Index of the member that has it.
    pub member: usize,
    /// Newer snapshots that were not used, newest first.
    pub passed_over: Vec<PassedOver>,
}

/// A snapshot that was not used.
#[derive(Debug)]
pub struct PassedOver {
    /// The path of the file.
    pub path: PathBuf,
    /// The raft index in its name. Every snapshot contains committed state, so the cluster had at least this index.
    pub index: RaftIndex,
    /// The reason why it was not used.
    pub why: String,
    /// Whether the file itself is damaged.
    pub damaged: bool,
}

impl PassedOver {
    fn new(name: &SnapName, why: impl ToString) -> PassedOver {
        PassedOver { path: name.path.clone(), index: name.index, why: why.to_string(), damaged: false }
    }
}

impl Start {
    /// Returns the raft index after which the replay starts.
    pub fn index(&self) -> RaftIndex {
        self.snapshot.as_ref().map_or(RaftIndex(0), |s| s.index)
    }

    /// Returns the term of that index.
    pub fn term(&self) -> Term {
        self.snapshot.as_ref().map_or(Term(0), |s| s.term)
    }
}

/// A snapshot file, and the member that has it.
struct Candidate<'m> {
    name: &'m SnapName,
    member: usize,
    files: &'m Files,
}

/// Returns the snapshot files of all members at or below an index, the newest first. Of equal files, that of the member
/// with the lowest id comes first.
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
    // Of equal files, that of the lowest id: the order on the command line decides nothing.
    let id = |at: usize| members.get(at).and_then(Member::id);
    found.sort_by_key(|candidate| {
        (Reverse((candidate.name.index, candidate.name.term)), id(candidate.member), candidate.member)
    });
    found
}

/// Selects the newest snapshot that loads, that a log confirms, and from which the logs lead to the highest commit
/// index of all members.
///
/// Falls back to an older snapshot, or to the first entry of the log, only if the logs begin there. A snapshot beyond
/// the end of every log is newer than all logs. With `up_to`, nothing above that index is examined. With `recorded`, only a snapshot
/// record confirms a snapshot.
///
/// # Errors
/// [`Reason::Gap`], [`Reason::Damaged`] or [`Reason::NotReached`] if no start leads there; [`Reason::SourceEmpty`] if
/// there is no start.
pub fn choose(members: &[Member], up_to: Option<RaftIndex>, recorded: bool, interrupt: Interrupt<'_>) -> Result<Start> {
    let mut search = Search::new(members, up_to, interrupt)?;
    search.require_later()?;
    let mut orphans = Vec::new();
    for candidate in candidates(members, up_to, |member| member.snapshots.iter().collect()) {
        let Some(snapshot) = search.load_own(&candidate)? else { continue };
        if !search.has_log {
            return Ok(search.chosen(Some(snapshot), candidate.member));
        }
        if let Some(why) = contradiction(members, (snapshot.term, snapshot.index)) {
            search.contradicted(&candidate, why);
        } else if !search.is_confirmed(&snapshot, recorded) {
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
    search.require_records()?;
    // No confirmed start. A snapshot always contains committed state, so a snapshot that a log continues is safe.
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

/// A start for a damaged source, and the last index that the logs lead to from it.
#[derive(Debug)]
pub struct SalvageStart {
    /// The start.
    pub start: Start,
    /// The snapshot file; `None` for the log from its first entry.
    pub path: Option<PathBuf>,
    /// The last committed entry that the logs lead to.
    pub last: RaftIndex,
}

/// Returns every sound start of a damaged source: snapshots (also `.snap.broken` files) and the first entry of the log.
/// They are sorted by the index that they lead to, highest first; of equals, the newest snapshot comes first.
///
/// # Errors
/// The reason why the newest snapshot is not a start, if there is no start.
pub fn salvage_starts(
    members: &[Member],
    up_to: Option<RaftIndex>,
    interrupt: Interrupt<'_>,
) -> Result<Vec<SalvageStart>> {
    let mut search = Search::new(members, up_to, interrupt)?;
    search.require_later()?;
    let mut starts = Vec::new();
    for candidate in
        candidates(members, up_to, |member| member.snapshots.iter().chain(&member.broken_snapshots).collect())
    {
        let Some(snapshot) = search.load_own(&candidate)? else { continue };
        if let Some(why) = contradiction(members, (snapshot.term, snapshot.index)) {
            search.contradicted(&candidate, why);
            continue;
        }
        let last = search.coverage.from(snapshot.index);
        let start = Start { snapshot: Some(snapshot), member: candidate.member, passed_over: Vec::new() };
        starts.push(SalvageStart { start, path: Some(candidate.name.path.clone()), last });
    }
    let begins = |member: &Member| {
        member.wal.as_ref().is_some_and(|wal| wal.spans().iter().any(|span| span.at(RaftIndex(1)).is_some()))
    };
    if let Some(member) = members.iter().position(begins) {
        let start = Start { snapshot: None, member, passed_over: Vec::new() };
        starts.push(SalvageStart { start, path: None, last: search.coverage.from(RaftIndex(0)) });
    }
    starts.sort_by_key(|start| Reverse((start.last, start.start.index())));
    match starts.first_mut() {
        Some(first) => {
            let index = first.start.index();
            first.start.passed_over.extend(search.passed_over.into_iter().filter(|passed| passed.index > index));
            Ok(starts)
        }
        None => Err(search.failure()),
    }
}

/// The state of the search for a start.
struct Search<'m> {
    members: &'m [Member],
    up_to: Option<RaftIndex>,
    interrupt: Interrupt<'m>,
    has_log: bool,
    /// The highest commit index of all members, at most the requested index.
    commit: RaftIndex,
    coverage: Coverage,
    passed_over: Vec<PassedOver>,
    /// The snapshots that load, with the index of their member.
    loaded: Vec<(SnapRecord, usize)>,
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
            coverage: Coverage::of(members, commit, Trust::Committed, interrupt)?,
            passed_over: Vec::new(),
            loaded: Vec::new(),
            first_damage: None,
            first_gap: None,
        })
    }

    fn chosen(self, snapshot: Option<Snapshot>, member: usize) -> Start {
        Start { snapshot, member, passed_over: self.passed_over }
    }

    fn pass_over(&mut self, candidate: &Candidate<'_>, why: impl ToString) {
        self.passed_over.push(PassedOver::new(candidate.name, why));
    }

    /// Opens a snapshot. A snapshot that does not load is passed over. A snapshot that this process may not read is an
    /// error, because an older one would replace it with older data.
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

    /// Reads a snapshot, whatever its name says.
    fn read(&self, candidate: &Candidate<'_>) -> Result<Snapshot> {
        let map = candidate.files.open_snapshot(&candidate.name.path, self.interrupt)?;
        Snapshot::of(map, self.interrupt)
    }

    /// Opens a snapshot like [`Self::load`], and refuses one that is not of the member that wrote the log.
    ///
    /// A snapshot that the log in its own directory contradicts is passed over later, as etcd does (docs/formats.md 2.3).
    fn load_own(&mut self, candidate: &Candidate<'_>) -> Result<Option<Snapshot>> {
        let snapshot = self.load(candidate)?;
        let member = self.members.get(candidate.member);
        // The name of a damaged file still has its term and index, unless the file was renamed.
        let SnapName { term, index, path } = candidate.name;
        let given = member.filter(|member| owner::is_given(member));
        let is_named = given.is_some() && (snapshot.is_some() || self.read(candidate).is_err());
        self.interrupt.ask()?;
        let given = given.filter(|_| is_named);
        let how = given.and_then(|member| contradiction(std::slice::from_ref(member), (*term, *index)));
        let state = snapshot.as_ref().map(|snapshot| &snapshot.conf_state);
        let refusal = member.zip(how).and_then(|(member, how)| owner::contradicted(member, path, state, &how));
        refusal.map_or(Ok(()), Err)?;
        let Some(snapshot) = snapshot else { return Ok(None) };
        member.map_or(Ok(()), |member| owner::require_snapshot(member, &snapshot, self.interrupt))?;
        let record = SnapRecord { index: snapshot.index, term: snapshot.term, configured: false };
        self.loaded.push((record, candidate.member));
        Ok(Some(snapshot))
    }

    /// Refuses logs that are not of the member of the newest snapshot, if that is above the requested index. No other
    /// snapshot need be in the directory.
    fn require_later(&self) -> Result<()> {
        for member in self.members.iter().filter(|member| member.wal.is_some()) {
            let later = member.snapshots.last().filter(|name| self.up_to.is_some_and(|up_to| name.index > up_to));
            let snapshot = later.map(|name| load(name, &member.files, self.interrupt));
            if let Some(Ok(snapshot)) = snapshot {
                owner::require_snapshot(member, &snapshot, self.interrupt)?;
            }
            self.interrupt.ask()?;
        }
        Ok(())
    }

    /// Refuses a log that is from its first segment on, but has no record of the snapshots in its directory.
    fn require_records(&self) -> Result<()> {
        for (at, member) in self.members.iter().enumerate() {
            let of = self.loaded.iter().filter(|(_, place)| *place == at);
            let snapshots: Vec<SnapRecord> = of.map(|(record, _)| *record).collect();
            owner::require_record(member, &snapshots)?;
        }
        Ok(())
    }

    /// Records a snapshot that the log contradicts: that is damage, as it is for etcd ("snapshot mismatch").
    fn contradicted(&mut self, candidate: &Candidate<'_>, why: String) {
        self.pass_over(candidate, &why);
        self.first_damage.get_or_insert_with(|| Error::new(Reason::Damaged, why).in_file(&candidate.name.path));
    }

    /// Returns whether a snapshot record at or below the commit index names it, or, unless `recorded`, it is beyond the end of every log.
    fn is_confirmed(&self, snapshot: &Snapshot, recorded: bool) -> bool {
        let named = |wal: &Wal| {
            wal.snapshots().iter().any(|record| (record.index, record.term) == (snapshot.index, snapshot.term))
        };
        let above = |wal: &Wal| wal.last().is_none_or(|(_, last)| snapshot.index >= last);
        let mut wals = self.members.iter().filter_map(|member| member.wal.as_ref());
        match snapshot.index <= self.commit {
            true => wals.clone().any(named) || (!recorded && wals.all(above)),
            false => !recorded,
        }
    }

    /// Checks that the logs contain every committed entry above the start. A single log must not have lost any other
    /// entry either.
    fn leads_on(&self, start: RaftIndex) -> Result<()> {
        let is_complete = self.coverage.from(start) >= self.commit;
        if is_complete && self.up_to == Some(self.commit) {
            return Ok(());
        }
        if let [Member { wal: Some(wal), path, .. }] = self.members
            && !wal.continues(start)
        {
            return Err(gap(start, wal).in_file(path));
        }
        if is_complete {
            return Ok(());
        }
        match self.members {
            [Member { wal: Some(wal), .. }] if wal.last().is_none_or(|(_, last)| last < self.commit) => {
                // The log ends below its commit index, which a later stage reports.
                Ok(())
            }
            members => cluster::join(members, start, self.commit, Trust::Committed, self.interrupt)
                .map(drop)
                .map_err(|e| blame(members, e)),
        }
    }

    /// Returns whether an empty store can be the start: the log must begin with entry 1.
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

/// Names the damage as the cause if it can contain what several logs lack.
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

/// Opens a snapshot and checks that its term and index equal those in its name.
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

/// Describes how the logs contradict a snapshot (docs/formats.md 2.3).
fn contradiction(members: &[Member], (term, index): (Term, RaftIndex)) -> Option<String> {
    members.iter().filter_map(|member| member.wal.as_ref()).find_map(|wal| {
        let commit = wal.commit();
        let mut records = wal.snapshots().iter().filter(|record| record.index <= commit);
        let record = records.find(|record| record.index == index && record.term != term);
        if let Some(record) = record {
            let message = "snapshot mismatch: the log's snapshot record of this index has term";
            return Some(format!("{message} {}, the file term {}", record.term, term));
        }
        if let Some(entry) = wal.at(index)
            && entry.term != term
            && entry.index <= commit
        {
            return Some(format!(
                "the log's entry {} is of term {}, the file of term {}",
                entry.index, entry.term, term
            ));
        }
        let committed = wal.history().into_iter().rev().find(|entry| entry.index <= commit.min(index));
        committed.filter(|entry| entry.term > term).map(|entry| {
            format!(
                "the log has the committed entry {} of term {}, the file is of term {}",
                entry.index, entry.term, term
            )
        })
    })
}

/// Returns whether the log continues directly after a snapshot without a record of it.
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

fn place(error: Error, file: Option<&Path>, offset: Option<ByteOffset>) -> Error {
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
