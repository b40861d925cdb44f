//! Whether a server finds a cluster version of 2.x when it starts on the members of a source (docs/formats.md 11.1).
//!
//! etcd 3.5 takes the version from its start snapshot, and then applies the log after it. It enables v3 for the first version
//! that it sees, and a change from 2.x to 3.x is none for it: it answers "not capable" until it starts without that version. Must
//! not know which form the output has.

use std::fmt;

use crate::error::{Error, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::source::entries::EntryRef;
use crate::source::member::Member;
use crate::source::open::Opened;
use crate::source::raft::{EntryKind, Method, Proposal, parse_proposal};
use crate::source::snap::Snapshot;
use crate::source::start;
use crate::source::wal::Wal;
use crate::v2store::json;
use crate::v2store::membership::cluster_version;
use crate::v2store::table::Table;
use crate::v2store::tree::Tree;

/// A cluster version of 2.x, and where a server finds it.
#[derive(Debug)]
pub(super) struct OldVersion {
    pub(super) version: String,
    /// Index of the member in the list of members.
    pub(super) member: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// The snapshot at this raft index.
    Snapshot(RaftIndex),
    /// The log entry at this raft index.
    Entry(RaftIndex),
}

impl fmt::Display for OldVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = &self.version;
        match self.place {
            Place::Snapshot(index) => {
                write!(f, "the cluster version {version:?} in its snapshot at raft index {index}")
            }
            Place::Entry(index) => write!(f, "the cluster version {version:?} in its log at raft index {index}"),
        }
    }
}

/// Returns the first cluster version of 2.x that a server finds on a member of the source: in the snapshot from which it starts,
/// or in the log after that, up to `applied`. `table` is the store of the start snapshot of the source.
///
/// # Errors
/// A snapshot or an entry is damaged; an interruption.
pub(super) fn found_at_start(
    opened: &Opened,
    table: &Table<'_>,
    applied: RaftIndex,
    interrupt: Interrupt<'_>,
) -> Result<Option<OldVersion>> {
    let mut writes = Vec::new();
    for wal in opened.members.iter().filter_map(|member| member.wal.as_ref()) {
        writes.extend(version_writes(wal, applied, interrupt)?);
    }
    writes.sort();
    writes.dedup();
    for (at, member) in opened.members.iter().enumerate().filter(|(_, member)| member.wal.is_some()) {
        let found = found_by(opened, table, member, &writes, interrupt).map_err(|e| e.in_file(&member.path))?;
        if let Some((version, place)) = found {
            return Ok(Some(OldVersion { version, member: at, place }));
        }
    }
    Ok(None)
}

fn found_by(
    opened: &Opened,
    table: &Table<'_>,
    member: &Member,
    writes: &[(RaftIndex, String)],
    interrupt: Interrupt<'_>,
) -> Result<Option<(String, Place)>> {
    let own = match opened.members.as_slice() {
        [_] => None,
        _ => Some(start::choose(std::slice::from_ref(member), None, false, interrupt)?),
    };
    let snapshot = own.as_ref().unwrap_or(&opened.start).snapshot.as_ref();
    if let Some(snapshot) = snapshot {
        let version = version_in(snapshot, opened.start.snapshot.as_ref(), table, interrupt)?;
        if let Some(version) = version.filter(|version| is_old(version)) {
            return Ok(Some((version, Place::Snapshot(snapshot.index))));
        }
    }
    let after = snapshot.map_or(RaftIndex(0), |snapshot| snapshot.index);
    let later = writes.iter().find(|(index, version)| *index > after && is_old(version));
    Ok(later.map(|(index, version)| (version.clone(), Place::Entry(*index))))
}

/// Returns the cluster version in a snapshot. `start` was read as `table`.
fn version_in(
    snapshot: &Snapshot,
    start: Option<&Snapshot>,
    table: &Table<'_>,
    interrupt: Interrupt<'_>,
) -> Result<Option<String>> {
    if start.is_some_and(|start| (start.index, start.term) == (snapshot.index, snapshot.term)) {
        return Ok(cluster_version(&mut Tree::new(table)));
    }
    let table = json::read_watched(snapshot.json(), interrupt.uncounted());
    let table = table.map_err(|e: Error| e.counted_from(snapshot.json_offset()).in_file(snapshot.path()))?;
    Ok(cluster_version(&mut Tree::new(&table)))
}

/// Returns the entries of a log up to `applied` that set the cluster version.
fn version_writes(wal: &Wal, applied: RaftIndex, interrupt: Interrupt<'_>) -> Result<Vec<(RaftIndex, String)>> {
    let mut writes = Vec::new();
    let counts = |entry: &&EntryRef| entry.kind == EntryKind::Normal && entry.index <= applied;
    for reference in wal.history().into_iter().filter(counts) {
        interrupt.ask()?;
        let entry = wal.entry(reference)?;
        // What cannot be parsed is no such request.
        if let Ok(Proposal::V2(request)) = parse_proposal(entry.data, entry.data_offset)
            && request.method == Method::Put
            && request.path == b"/0/version"
        {
            writes.push((entry.index, String::from_utf8_lossy(request.val).into_owned()));
        }
    }
    Ok(writes)
}

fn is_old(version: &str) -> bool {
    !version.starts_with("3.")
}
