//! Whether a log can be that of the member whose snapshots and v3 backend are with it (docs/formats.md 4.11).
//!
//! Only the log says which member wrote it. A snapshot and a backend list the members of their cluster. What can be right is
//! accepted: a backup, which has a new identity, a member that joins later, a removed member. Must not know the v2 tree or pages.

use std::collections::BTreeSet;
use std::path::Path;

use crate::display::first_of;
use crate::error::{Error, Reason, Result};
use crate::ids::{MemberId, RaftIndex};
use crate::interrupt::Interrupt;
use crate::source::entries::{End, Span};
use crate::source::member::Member;
use crate::source::raft::{ConfChangeKind, EntryKind, Metadata, SnapRecord, parse_conf_change};
use crate::source::snap::{ConfState, Snapshot};
use crate::source::wal::Wal;

/// A v3 backend, and the members that are known from it.
#[derive(Debug)]
pub struct Listed<'f> {
    /// The file.
    pub file: &'f Path,
    /// The members that the cluster has or had. A server that upgraded the data may have listed some of them only.
    pub members: BTreeSet<MemberId>,
    /// The raft index of the last entry in it.
    pub applied: RaftIndex,
}

/// Refuses a snapshot that cannot be one of the member that wrote the log.
///
/// # Errors
/// [`Reason::NotOneMember`]; a configuration change is damaged; an interruption.
pub fn require_snapshot(member: &Member, snapshot: &Snapshot, interrupt: Interrupt<'_>) -> Result<()> {
    let Some((wal, Metadata { node_id, .. })) = owned(member) else { return Ok(()) };
    let state = &snapshot.conf_state;
    let members: BTreeSet<MemberId> = state.voters.iter().chain(&state.learners).copied().collect();
    if members.is_empty() {
        return Ok(());
    }
    let is_listed = members.contains(&node_id);
    if wal.has_backup_order() && !is_listed {
        return if is_backup_of(wal, snapshot) { Ok(()) } else { Err(without_record(member)) };
    }
    let changes = || Changes::read(wal, node_id, snapshot.index, interrupt);
    if !is_listed && !changes()?.can_be_missing(wal, snapshot) {
        return Err(of_other_members(member, snapshot.path(), &members));
    }
    if has_all_entries(wal, snapshot) {
        let added = changes()?.added;
        let unknown = members.iter().find(|id| !added.contains(*id));
        if let Some(unknown) = unknown.filter(|_| !added.is_empty()) {
            let message = format!(
                "{} has the member {unknown} at raft index {}, and no entry up to there adds it",
                snapshot.path().display(),
                snapshot.index
            );
            return Err(refusal(member, &message));
        }
    }
    Ok(())
}

/// Returns the refusal of an undamaged log that contradicts a snapshot of its own directory; `how` says in what. `state` is the raft
/// configuration of the snapshot, if that can be read.
pub fn contradicted(member: &Member, snapshot: &Path, state: Option<&ConfState>, how: &str) -> Option<Error> {
    let (wal, Metadata { node_id, .. }) = owned(member)?;
    let is_listed = state.is_some_and(|state| state.voters.iter().chain(&state.learners).any(|id| *id == node_id));
    let is_backup = wal.has_backup_order() && !is_listed;
    let is_damaged = !wal.holes().is_empty() || matches!(wal.end(), End::Damaged(_));
    let why = || format!("{} is not of its history: {how}", snapshot.display());
    (!is_damaged && !is_backup).then(|| refusal(member, &why()))
}

/// Refuses a log that has no record of any of these snapshots, all snapshots in the directory that load. A log from its first entry
/// on needs none.
///
/// Without its first segment, a log may have lost their records.
///
/// # Errors
/// [`Reason::NotOneMember`].
pub fn require_record(member: &Member, snapshots: &[SnapRecord]) -> Result<()> {
    let Some((wal, _)) = identified(member) else { return Ok(()) };
    let records = wal.snapshots();
    let is_recorded = |snapshot: &SnapRecord| {
        records.iter().any(|record| (record.index, record.term) == (snapshot.index, snapshot.term))
    };
    let is_whole = wal.begins_with_first_segment() && wal.holes().is_empty() && wal.range().is_some();
    if snapshots.is_empty() || snapshots.iter().any(is_recorded) || !is_whole || wal.continues(RaftIndex(0)) {
        return Ok(());
    }
    Err(without_record(member))
}

/// Refuses a v3 backend that cannot be that of the member that wrote the log.
///
/// # Errors
/// [`Reason::NotOneMember`]; a configuration change is damaged; an interruption.
pub fn require_backend(member: &Member, listed: &Listed<'_>, interrupt: Interrupt<'_>) -> Result<()> {
    let Listed { file, members, applied } = listed;
    let Some((wal, Metadata { node_id, .. })) = identified(member) else { return Ok(()) };
    let Some((first, _)) = wal.range().filter(|_| !members.is_empty() && !members.contains(&node_id)) else {
        return Ok(());
    };
    let changes = Changes::read(wal, node_id, *applied, interrupt)?;
    // The member joins later, or the cluster began with a server that did not list members in the backend.
    if changes.joins_later || changes.named.iter().any(|id| members.contains(id)) {
        return Ok(());
    }
    // A new member that has not read its own change has the whole log so far.
    if changes.named.contains(&node_id) || first > RaftIndex(1) {
        return Err(of_other_members(member, file, members));
    }
    Ok(())
}

/// Returns whether the log of a member is not in its directory: then a person has put both together.
pub fn is_given(member: &Member) -> bool {
    // A log in memory has no directory.
    segment_dir(member).is_some_and(|log| !log.as_os_str().is_empty() && !log.starts_with(&member.path))
}

fn segment_dir(member: &Member) -> Option<&Path> {
    member.wal.as_ref().and_then(Wal::last_segment).and_then(|segment| segment.name.path.parent())
}

/// Returns the log of a member and its owner.
fn owned(member: &Member) -> Option<(&Wal, Metadata)> {
    let wal = member.wal.as_ref()?;
    Some((wal, wal.metadata()?))
}

/// Returns the log of a member and its owner. A backup has a new identity, and some versions renumber its entries, so it counts as
/// none.
fn identified(member: &Member) -> Option<(&Wal, Metadata)> {
    owned(member).filter(|(wal, _)| !wal.has_backup_order())
}

/// Returns whether a log in the order of a backup can be from the backup of this snapshot, which has one snapshot at most
/// (docs/formats.md 1.4).
fn is_backup_of(wal: &Wal, snapshot: &Snapshot) -> bool {
    // etcdctl 2.0.0 writes no record.
    let has_records = wal.snapshots().iter().any(|record| record.index > RaftIndex(0));
    let follows = wal.range().is_none_or(|(first, _)| first.0 == snapshot.index.0.saturating_add(1));
    is_recorded(wal, snapshot) || (!has_records && follows)
}

fn is_recorded(wal: &Wal, snapshot: &Snapshot) -> bool {
    wal.snapshots().iter().any(|record| (record.index, record.term) == (snapshot.index, snapshot.term))
}

fn without_record(member: &Member) -> Error {
    refusal(member, "it has no record of the snapshots in the data directory")
}

fn of_other_members(member: &Member, file: &Path, members: &BTreeSet<MemberId>) -> Error {
    let members: Vec<String> = members.iter().map(MemberId::to_string).collect();
    let list = first_of(&members);
    refusal(member, &format!("{} is of a cluster with the members {list}", file.display()))
}

/// Names the owner of the log, what contradicts it, and what to do.
fn refusal(member: &Member, why: &str) -> Error {
    let log = segment_dir(member);
    let hint = match is_given(member) {
        true => "give the log of this member with --wal-dir",
        false => "copy the whole data directory of one member",
    };
    let owner = member.wal.as_ref().and_then(Wal::metadata);
    let owner = owner.map_or_else(String::new, |Metadata { node_id, cluster_id }| {
        format!(" is of member {node_id} in cluster {cluster_id}")
    });
    let log = log.map_or_else(String::new, |log| format!(" {}", log.display()));
    Error::new(Reason::NotOneMember, format!("the log{log}{owner}, and {why}")).in_file(&member.path).hint(hint)
}

/// Returns whether the log has every entry up to the snapshot, so that all members of the snapshot joined in it.
fn has_all_entries(wal: &Wal, snapshot: &Snapshot) -> bool {
    let of = |span: &Span| {
        span.at(RaftIndex(1)).is_some() && span.at(snapshot.index).is_some_and(|entry| entry.term == snapshot.term)
    };
    !wal.marks().is_migrated() && wal.spans().iter().any(of)
}

/// What the configuration changes of a log say of its owner and of others.
#[derive(Debug, Default)]
struct Changes {
    /// The members that a change up to the index adds.
    added: BTreeSet<MemberId>,
    /// The members that any change up to the index is about.
    named: BTreeSet<MemberId>,
    /// Whether a change up to the index adds the owner.
    joined: bool,
    /// Whether a change up to the index removes the owner.
    is_removed: bool,
    /// Whether a change after the index adds the owner.
    joins_later: bool,
}

impl Changes {
    fn read(wal: &Wal, owner: MemberId, index: RaftIndex, interrupt: Interrupt<'_>) -> Result<Changes> {
        let mut changes = Changes::default();
        for (number, reference) in wal.history().into_iter().enumerate() {
            interrupt.ask_at(number)?;
            if reference.kind != EntryKind::ConfChange {
                continue;
            }
            let entry = wal.entry(reference)?;
            let change = parse_conf_change(entry.data, entry.data_offset)
                .map_err(|error| error.in_file(wal.segment_path(reference)))?;
            let adds = matches!(change.kind, ConfChangeKind::AddNode | ConfChangeKind::AddLearnerNode);
            let is_own = change.node_id == owner;
            if entry.index > index {
                changes.joins_later |= adds && is_own;
                continue;
            }
            changes.named.insert(change.node_id);
            if adds {
                changes.added.insert(change.node_id);
                changes.joined |= is_own;
            }
            changes.is_removed |= is_own && change.kind == ConfChangeKind::RemoveNode;
        }
        Ok(changes)
    }

    /// Returns whether a snapshot of the owner can lack the owner.
    fn can_be_missing(&self, wal: &Wal, snapshot: &Snapshot) -> bool {
        if self.is_removed {
            // No leader sends a snapshot to a removed member, so it took this one itself.
            return is_recorded(wal, snapshot)
                || wal.at(snapshot.index).is_some_and(|entry| entry.term == snapshot.term);
        }
        if self.joined {
            return false;
        }
        let first = wal.range().map(|(first, _)| first);
        // A new member that has not read its own change: its log begins with the first entry, or after a received snapshot.
        let received = wal.begins_with_first_segment()
            && first.is_none_or(|first| first > snapshot.index && is_recorded(wal, snapshot));
        self.joins_later || first == Some(RaftIndex(1)) || received
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::log::{self, CONF_CHANGE, Dialect, Log, NORMAL};
    use crate::source::map::Map;

    const CLUSTER: u64 = 0xc1;
    /// The last entry of every history.
    const LAST: u64 = 40;

    /// A cluster of three, and what changes in it: a member joins, another one leaves.
    #[derive(Clone, Debug)]
    struct History {
        /// The IDs: three from the beginning, and the one that joins.
        ids: [u64; 4],
        joins: u64,
        leaves: u64,
    }

    impl History {
        fn change(&self, index: u64) -> Option<(u64, u64)> {
            match index {
                1..=3 => Some((0, self.ids[index as usize - 1])),
                _ if index == self.joins => Some((0, self.ids[3])),
                _ if index == self.leaves => Some((1, self.ids[2])),
                _ => None,
            }
        }

        fn voters(&self, at: u64) -> Vec<u64> {
            let mut voters = BTreeSet::new();
            for (kind, id) in (1..=at).filter_map(|index| self.change(index)) {
                if kind == 0 {
                    voters.insert(id)
                } else {
                    voters.remove(&id)
                };
            }
            voters.into_iter().collect()
        }

        /// The log of a member from `first` on, with records of these snapshots; one in the middle of a segment list if purged.
        fn log(&self, node: u64, first: u64, last: u64, records: &[u64]) -> Wal {
            let mut log = if first == 1 {
                Log::new(Dialect::Padded, node, CLUSTER)
            } else {
                let mut log = Log::headless(Dialect::Padded, node, CLUSTER);
                log.cut(first, None);
                log
            };
            for index in first..=last {
                match self.change(index) {
                    Some((kind, id)) => {
                        let change = log::conf_change(kind, id, &log::member_json(id, 1));
                        log.entry(CONF_CHANGE, 1, index, Some(&change));
                    }
                    None => log.entry(NORMAL, 1, index, None),
                }
                // Not in the order of a backup.
                log.state(1, node, index);
                if records.contains(&index) {
                    log.snapshot(index, 1);
                }
            }
            Wal::of_bytes(log.named()).unwrap()
        }

        fn snapshot(&self, at: u64) -> Snapshot {
            let bytes = log::snap(b"{}", at, 1, &self.voters(at));
            Snapshot::of(Map::held(Path::new("memory.snap"), bytes), Interrupt::default()).unwrap()
        }
    }

    fn history() -> impl Strategy<Value = History> {
        (1_u64..1 << 40, 5..LAST, 5..LAST).prop_filter_map("one change at a time", |(seed, joins, leaves)| {
            let ids = [1, 2, 3, 4].map(|at| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at));
            (joins != leaves).then_some(History { ids, joins, leaves })
        })
    }

    fn judged(wal: Wal, snapshot: &Snapshot) -> Result<()> {
        require_snapshot(&Member::of_log(wal), snapshot, Interrupt::default())
    }

    proptest! {
        #[test]
        fn no_log_of_the_snapshots_member_is_refused(
            history in history(), node in 0_usize..4, at in 4..LAST, purged in 0_u64..20, recorded: bool,
        ) {
            let id = history.ids[node];
            // A member that left has entries for a moment longer, and one that joins takes no snapshot before that.
            prop_assume!(node != 3 || at >= history.joins);
            let last = if node == 2 { (history.leaves + 2).min(LAST) } else { LAST };
            prop_assume!(at <= last);
            let records = if recorded { vec![at] } else { Vec::new() };
            let mut first = if purged < 2 { 1 } else { purged.min(at + 1) };
            if node == 2 && at >= history.leaves {
                first = first.min(history.leaves);
            }
            let judged = judged(history.log(id, first, last, &records), &history.snapshot(at));
            prop_assert!(judged.is_ok(), "{judged:?}");
        }

        #[test]
        fn a_log_of_another_cluster_is_refused(
            one in history(), other in history(), node in 0_usize..4, at in 4..LAST, purged in 0_u64..20, recorded: bool,
        ) {
            prop_assume!(one.ids != other.ids);
            let first = if purged < 2 { 1 } else { purged };
            let records = if recorded { vec![at] } else { Vec::new() };
            // Nothing says that the log of a member is of a cluster, before an entry adds a member.
            let is_new = node == 3 && first > 1 && first <= other.joins && at < other.joins;
            // Nor that of a removed member without the entries that add members.
            let is_removed = node == 2 && first > 1 && (first..=at).contains(&other.leaves);
            prop_assume!(!is_new && !is_removed);
            let judged = judged(other.log(other.ids[node], first, LAST, &records), &one.snapshot(at));
            let error = judged.unwrap_err();
            prop_assert_eq!(error.reason(), Reason::NotOneMember);
            let is_named = |id: &u64| error.to_string().contains(&MemberId(*id).to_string());
            prop_assert!(one.voters(at).iter().any(is_named) && is_named(&other.ids[node]), "{}", error);
        }
    }

    #[test]
    fn a_new_member_that_has_not_read_its_own_change_is_no_stranger() {
        let history = History { ids: [1, 2, 3, 4], joins: 30, leaves: 35 };
        // It received the snapshot, or all entries.
        let mut received = Log::new(Dialect::Padded, 4, CLUSTER);
        received.snapshot(20, 1);
        received.state(1, 1, 20);
        received.entry(NORMAL, 1, 21, None);
        received.state(1, 1, 21);
        assert!(judged(Wal::of_bytes(received.named()).unwrap(), &history.snapshot(20)).is_ok());
        assert!(judged(history.log(4, 1, 25, &[20]), &history.snapshot(20)).is_ok());
        assert!(judged(history.log(4, 1, LAST, &[20]), &history.snapshot(20)).is_ok());
    }

    #[test]
    fn a_whole_log_has_a_record_of_a_snapshot() {
        let record = |index| SnapRecord { index: RaftIndex(index), term: crate::ids::Term(1), configured: false };
        let received = |entries: &[u64]| {
            let mut log = Log::new(Dialect::Padded, 4, CLUSTER);
            log.snapshot(20, 1);
            log.state(1, 1, 20);
            for index in entries {
                log.entry(NORMAL, 1, *index, None);
                log.state(1, 1, *index);
            }
            Wal::of_bytes(log.named()).unwrap()
        };
        let history = History { ids: [1, 2, 3, 4], joins: 30, leaves: 35 };
        for (wal, snapshot, is_refused) in [
            (received(&[21, 22]), 20, false),
            (received(&[21, 22]), 10, true),
            // A crash before the record of its first snapshot.
            (received(&[]), 30, false),
            (history.log(1, 1, LAST, &[]), 10, false),
            // Without its first segment, it may have lost the record.
            (history.log(1, 11, LAST, &[]), 10, false),
        ] {
            let judged = require_record(&Member::of_log(wal), &[record(snapshot)]);
            assert_eq!(judged.is_err(), is_refused, "{judged:?}");
        }
    }

    #[test]
    fn a_backup_has_the_snapshot_that_its_log_follows() {
        let history = History { ids: [1, 2, 3, 4], joins: 30, leaves: 35 };
        let backup = |first: u64, record: Option<u64>| {
            let mut log = Log::new(Dialect::Padded, 0xb, 0xbc);
            (first..=LAST).for_each(|index| log.entry(NORMAL, 1, index, None));
            log.state(1, 1, LAST);
            record.into_iter().for_each(|record| log.snapshot(record, 1));
            Wal::of_bytes(log.named()).unwrap()
        };
        let snapshot = history.snapshot(20);
        assert!(judged(backup(21, Some(20)), &snapshot).is_ok());
        assert!(judged(backup(21, None), &snapshot).is_ok(), "etcdctl 2.0.0");
        for other in [backup(19, Some(18)), backup(22, None), backup(1, None)] {
            assert_eq!(judged(other, &snapshot).unwrap_err().reason(), Reason::NotOneMember);
        }
    }
}
