//! Which snapshot the replay starts from, and whether the log reaches from there to its end without a hole (FORMATS 2.3,
//! 4.6 to 4.8). Knows files and raft indexes, not what they hold.

use std::path::PathBuf;

use crate::error::{Error, Reason, Result};
use crate::ids::{RaftIndex, Term};
use crate::source::dir::SnapName;
use crate::source::live::Access;
use crate::source::snap::Snapshot;
use crate::source::wal::Wal;

/// The chosen beginning, and what was passed over on the way to it.
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
}

impl PassedOver {
    pub(crate) fn new(name: &SnapName, why: impl ToString) -> PassedOver {
        PassedOver { path: name.path.clone(), index: name.index, why: why.to_string() }
    }
}

impl Choice {
    /// Raft index that the replay starts behind.
    pub fn index(&self) -> RaftIndex {
        self.snapshot.as_ref().map_or(RaftIndex(0), |s| s.index)
    }

    /// Term of that index.
    pub fn term(&self) -> Term {
        self.snapshot.as_ref().map_or(Term(0), |s| s.term)
    }
}

/// Chooses the newest snapshot that loads and that the log confirms; falls back to an older one, or to the beginning of
/// the log, only where the log reaches back to it. With `up_to`, snapshots beyond that index are not looked at.
///
/// # Errors
/// [`Reason::Gap`] if entries are missing behind every usable beginning, [`Reason::Damaged`] if no snapshot loads and the
/// log does not begin at its first entry.
pub fn choose(names: &[SnapName], wal: Option<&Wal>, up_to: Option<RaftIndex>, access: Access) -> Result<Choice> {
    let mut passed_over = Vec::new();
    let mut first_damage = None;
    let mut first_gap = None;
    let mut orphans = Vec::new();
    let wanted = |name: &&SnapName| up_to.is_none_or(|up_to| name.index <= up_to);
    for name in names.iter().rev().filter(wanted) {
        let snapshot = match load(name, access) {
            Ok(snapshot) => snapshot,
            // An older one would do, and it would be older data.
            Err(error) if error.reason() == Reason::PermissionDenied => return Err(error),
            Err(error) => {
                passed_over.push(PassedOver::new(name, &error));
                first_damage.get_or_insert(error);
                continue;
            }
        };
        let Some(wal) = wal else {
            return Ok(Choice { snapshot: Some(snapshot), member: 0, passed_over });
        };
        if !confirmed(&snapshot, wal) {
            passed_over.push(PassedOver::new(name, "the log has no snapshot record for it"));
            orphans.push(snapshot);
            continue;
        }
        match reaches(&snapshot, wal) {
            Ok(()) => return Ok(Choice { snapshot: Some(snapshot), member: 0, passed_over }),
            Err(error) => {
                passed_over.push(PassedOver::new(name, &error));
                first_gap.get_or_insert(error);
            }
        }
    }
    let Some(wal) = wal else {
        return Err(
            first_damage.unwrap_or_else(|| Error::new(Reason::SourceEmpty, "expected a .snap file, found none"))
        );
    };
    if wal.after(RaftIndex(0)).is_some() && (names.is_empty() || !wal.entries().is_empty()) {
        return Ok(Choice { snapshot: None, member: 0, passed_over });
    }
    // No confirmed beginning. A snapshot always holds committed state, so one that the log continues is safe all the same.
    for snapshot in orphans {
        if continues(&snapshot, wal) {
            passed_over.retain(|passed| passed.index > snapshot.index);
            return Ok(Choice { snapshot: Some(snapshot), member: 0, passed_over });
        }
    }
    Err(first_gap.or(first_damage).unwrap_or_else(|| beginning_is_missing(wal)))
}

/// Opens a snapshot, which must be the one that its name says.
pub(crate) fn load(name: &SnapName, access: Access) -> Result<Snapshot> {
    let snapshot = Snapshot::of(access.open(&name.path)?)?;
    if (snapshot.term, snapshot.index) != (name.term, name.index) {
        let message = format!(
            "expected the snapshot of term {} and index {} that its name says, found term {} and index {}",
            name.term, name.index, snapshot.term, snapshot.index
        );
        return Err(Error::new(Reason::Damaged, message).in_file(&name.path));
    }
    Ok(snapshot)
}

/// A snapshot record at or below the commit names this snapshot.
fn confirmed(snapshot: &Snapshot, wal: &Wal) -> bool {
    snapshot.index <= wal.commit()
        && wal.snapshots().iter().any(|record| (record.index, record.term) == (snapshot.index, snapshot.term))
}

/// The log goes on behind the snapshot, or does not reach beyond it.
fn reaches(snapshot: &Snapshot, wal: &Wal) -> Result<()> {
    if wal.after(snapshot.index).is_some() { Ok(()) } else { Err(gap(snapshot.index, wal)) }
}

/// The log goes on right behind a snapshot that it has no record of.
fn continues(snapshot: &Snapshot, wal: &Wal) -> bool {
    match wal.at(snapshot.index) {
        Some(entry) => entry.term == snapshot.term && snapshot.index <= wal.commit(),
        None => match wal.range() {
            Some((first, _)) => Some(first.0) == snapshot.index.0.checked_add(1),
            None => wal.after(snapshot.index).is_some(),
        },
    }
}

fn gap(index: RaftIndex, wal: &Wal) -> Error {
    let first = wal.range().map_or(wal.first_index(), |(first, _)| first);
    let next = index.0.saturating_add(1);
    let mut message = format!("expected raft entry {next} behind the snapshot, found the log begin at {first}");
    if let Some(damage) = wal.damage().next_back() {
        message = format!("{message}, because {damage}");
    }
    in_last_segment(Error::new(Reason::Gap, message), wal)
}

fn beginning_is_missing(wal: &Wal) -> Error {
    if let Some(damage) = wal.damage().next_back() {
        let message =
            format!("{}: the log up to the next segment is lost, and no snapshot makes up for it", damage.message());
        let mut error = Error::new(Reason::Damaged, message);
        if let Some(file) = damage.file() {
            error = error.in_file(file);
        }
        return match damage.offset() {
            Some(offset) => error.at(offset),
            None => error,
        };
    }
    match wal.range() {
        Some((first, _)) => {
            let message = format!("expected a snapshot below raft entry {first}, where the log begins, found none");
            in_last_segment(Error::new(Reason::Gap, message), wal)
        }
        None => in_last_segment(Error::new(Reason::Gap, "expected a snapshot that the log knows, found none"), wal),
    }
}

fn in_last_segment(error: Error, wal: &Wal) -> Error {
    match wal.files().last() {
        Some((path, _)) => error.in_file(path),
        None => error,
    }
}

#[cfg(test)]
mod tests;
