//! Whether the log is that of the member whose snapshots and v3 backend are in the data directory.
//!
//! Only the log says which member wrote it. The snapshots and the backend list the members of the cluster (docs/formats.md 2.2, 9.7).
//! A log of another cluster names a member that they do not list. Must not know requests of clients.

use std::collections::BTreeSet;

use crate::display::first_of;
use crate::error::{Error, Reason, Result};
use crate::ids::{MemberId, RaftIndex};
use crate::interrupt::Interrupt;
use crate::source::raft::{EntryKind, Metadata, parse_conf_change};
use crate::source::wal::Wal;

/// What the other files of a data directory say.
pub(super) struct Files {
    /// The members that the cluster has or had, from the snapshots and the v3 backend.
    pub(super) members: BTreeSet<MemberId>,
    /// The raft index of the last entry in the v3 backend.
    pub(super) applied: RaftIndex,
    /// Whether undamaged snapshots exist, and the log has a committed record of none.
    pub(super) has_only_unrecorded_snapshots: bool,
}

/// Refuses a log of another member, as far as it can be known.
///
/// # Errors
/// [`Reason::NotOneMember`]; a configuration change is damaged; an interruption.
pub(super) fn require(wal: &Wal, files: &Files, interrupt: Interrupt<'_>) -> Result<()> {
    // A backup has a new identity.
    let Some(owner) = wal.metadata().filter(|_| !wal.has_backup_order()) else { return Ok(()) };
    let Metadata { node_id, cluster_id } = owner;
    if !files.members.contains(&node_id) && is_foreign(wal, node_id, files, interrupt)? {
        let known: Vec<String> = files.members.iter().map(MemberId::to_string).collect();
        let message = format!(
            "the log is of member {node_id} in cluster {cluster_id}, and the other files are of a cluster with the members {}",
            first_of(&known)
        );
        return Err(Error::new(Reason::NotOneMember, message));
    }
    if files.has_only_unrecorded_snapshots && !wal.continues(RaftIndex(0)) {
        let message = format!("the log of member {node_id} has no record of the snapshots in the data directory");
        return Err(Error::new(Reason::NotOneMember, message));
    }
    Ok(())
}

/// Returns whether a log whose member is not listed must be of another cluster.
fn is_foreign(wal: &Wal, node: MemberId, files: &Files, interrupt: Interrupt<'_>) -> Result<bool> {
    let Some((first, _)) = wal.range().filter(|_| !files.members.is_empty()) else { return Ok(false) };
    let mut has_joined = false;
    for (number, reference) in wal.history().into_iter().enumerate() {
        interrupt.ask_at(number)?;
        let entry = wal.entry(reference)?;
        if entry.kind != EntryKind::ConfChange {
            continue;
        }
        let change = parse_conf_change(entry.data, entry.data_offset)
            .map_err(|error| error.in_file(wal.segment_path(reference)))?;
        let is_applied = entry.index <= files.applied;
        // The member joins later, or the cluster began with a server that did not list members in the backend.
        if (!is_applied && change.node_id == node) || (is_applied && files.members.contains(&change.node_id)) {
            return Ok(false);
        }
        has_joined |= change.node_id == node;
    }
    // A new member that has not read its own change has the whole log so far.
    Ok(has_joined || first > RaftIndex(1))
}
