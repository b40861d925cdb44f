//! Whether etcd 3.6 follows the configuration changes in the log of a copy (docs/formats.md 11.2a).
//!
//! etcd 3.6 compares a change with the bucket `members`, and ignores a change whose effect is already there. etcd 3.4 writes that
//! bucket before the consistent index. Then a new voter would not count in raft, or a removed one still would. Must not know v2 keys.

use std::collections::{BTreeMap, BTreeSet};

use crate::data_dir::Member;
use crate::error::{Error, Result};
use crate::ids::{MemberId, RaftIndex};
use crate::interrupt::Interrupt;
use crate::source::raft::{ConfChange, ConfChangeKind, EntryKind, parse_conf_change};
use crate::source::snap::ConfState;
use crate::source::wal::Wal;
use crate::v2store::membership::{ProposedMember, Voters};

/// The members that a server knows, and its raft configuration.
#[derive(Clone)]
pub(super) struct Membership {
    /// Whether a member is a learner, and its peer URLs.
    members: BTreeMap<MemberId, (bool, Vec<String>)>,
    removed: BTreeSet<MemberId>,
    raft: Voters,
}

/// Returns the first change that etcd 3.6 ignores and the cluster does not, if the raft configurations then differ.
///
/// `cluster` is the membership at `index`, and `backend` that of the bucket `members`. Changes after `commit` may be dropped, so the
/// configurations must be equal before them too.
///
/// # Errors
/// A change is damaged; an interruption.
pub(super) fn first_ignored(
    wal: &Wal,
    (index, commit): (RaftIndex, RaftIndex),
    [mut cluster, mut backend]: [Membership; 2],
    interrupt: Interrupt<'_>,
) -> Result<Option<RaftIndex>> {
    let mut first = None;
    for (number, reference) in wal.history().into_iter().filter(|entry| entry.index > index).enumerate() {
        interrupt.ask_at(number)?;
        if reference.kind != EntryKind::ConfChange {
            continue;
        }
        if cluster.raft == backend.raft {
            first = None;
        } else if reference.index > commit {
            return Ok(first);
        }
        let entry = wal.entry(reference)?;
        let in_file = |error: Error| error.in_file(wal.segment_path(reference));
        let change = parse_conf_change(entry.data, entry.data_offset).map_err(in_file)?;
        let accepted = [&mut cluster, &mut backend].map(|of| of.apply(&change));
        let [by_cluster, by_backend] = accepted;
        if by_cluster.map_err(in_file)? != by_backend.map_err(in_file)? {
            first = first.or(Some(entry.index));
        }
    }
    Ok(first.filter(|_| cluster.raft != backend.raft))
}

impl Membership {
    pub(super) fn new(members: &[Member], removed: &[MemberId], raft: &ConfState) -> Membership {
        let facts = |member: &Member| (member.id, (member.is_learner, member.peer_urls.clone()));
        Membership {
            members: members.iter().map(facts).collect(),
            removed: removed.iter().copied().collect(),
            raft: Voters::from(raft),
        }
    }

    /// Applies a change as etcd does. Returns whether it was accepted; otherwise nothing changes.
    fn apply(&mut self, change: &ConfChange<'_>) -> Result<bool> {
        let id = change.node_id;
        if self.removed.contains(&id) {
            return Ok(false);
        }
        if change.kind == ConfChangeKind::RemoveNode {
            let known = self.members.remove(&id);
            if known.is_some() {
                self.removed.insert(id);
                self.raft.voters.remove(&id);
                self.raft.learners.remove(&id);
            }
            return Ok(known.is_some());
        }
        let proposed = ProposedMember::parse(change)?;
        let id = proposed.id(change);
        let known = self.members.get(&id).cloned();
        let urls = proposed.peer_urls.unwrap_or_default();
        let is_taken =
            self.members.iter().any(|(of, (_, theirs))| *of != id && urls.iter().any(|url| theirs.contains(url)));
        let is_learner = proposed.is_learner || change.kind == ConfChangeKind::AddLearnerNode;
        match (change.kind, known) {
            (ConfChangeKind::UpdateNode, Some((is_learner, _))) if !is_taken => {
                self.members.insert(id, (is_learner, urls));
            }
            (ConfChangeKind::UpdateNode, _) => return Ok(false),
            (_, Some((true, urls))) if proposed.is_promote => {
                self.members.insert(id, (false, urls));
                self.raft.learners.remove(&id);
                self.raft.voters.insert(id);
            }
            (_, None) if !proposed.is_promote && !is_taken => {
                // etcd allows one learner.
                if is_learner && self.members.values().any(|(is_learner, _)| *is_learner) {
                    return Ok(false);
                }
                self.members.insert(id, (is_learner, urls));
                let list = if is_learner { &mut self.raft.learners } else { &mut self.raft.voters };
                list.insert(id);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::log::{self, CONF_CHANGE, Dialect, Log, NORMAL};

    const ADD: u64 = 0;
    const REMOVE: u64 = 1;
    const UPDATE: u64 = 2;
    const ADD_LEARNER: u64 = 3;
    const PROMOTE: u64 = 9;

    fn member(id: u64, is_learner: bool) -> Member {
        let peer_urls = vec![format!("http://m{id}")];
        Member { id: MemberId(id), peer_urls, is_learner, name: String::new(), client_urls: Vec::new() }
    }

    fn members(voters: &[u64], learners: &[u64]) -> Vec<Member> {
        let voters = voters.iter().map(|id| member(*id, false));
        voters.chain(learners.iter().map(|id| member(*id, true))).collect()
    }

    /// A log with these changes from entry 11 on, whose effect the first of the backends has.
    fn ignored(commit: u64, changes: &[(u64, u64)], backend: &[Member], removed: &[u64]) -> Option<u64> {
        let mut log = Log::new(Dialect::Padded, 1, 0xc);
        (1..=10).for_each(|index| log.entry(NORMAL, 1, index, None));
        for (index, (kind, id)) in (11..).zip(changes) {
            let (kind, promote) = if *kind == PROMOTE { (ADD, r#","isPromote":true"#) } else { (*kind, "") };
            let context = format!(r#"{{"id":{id},"peerURLs":["http://m{id}"]{promote}}}"#);
            log.entry(CONF_CHANGE, 1, index, Some(&log::conf_change(kind, *id, &context)));
        }
        log.state(1, 1, commit);
        let wal = Wal::of_bytes(log.named()).unwrap();
        let raft = ConfState { voters: vec![MemberId(1), MemberId(2)], learners: vec![MemberId(3)] };
        let removed: Vec<MemberId> = removed.iter().copied().map(MemberId).collect();
        let cluster = Membership::new(&members(&[1, 2], &[3]), &[], &raft);
        let both = [cluster, Membership::new(backend, &removed, &raft)];
        let found = first_ignored(&wal, (RaftIndex(10), RaftIndex(commit)), both, Interrupt::default());
        found.unwrap().map(|index| index.0)
    }

    #[test]
    fn a_backend_at_its_index_ignores_nothing() {
        let backend = members(&[1, 2], &[3]);
        for changes in
            [&[(ADD, 4)][..], &[(REMOVE, 2)], &[(PROMOTE, 3)], &[(REMOVE, 3), (ADD_LEARNER, 4)], &[(UPDATE, 2)]]
        {
            assert_eq!(ignored(20, changes, &backend, &[]), None, "{changes:?}");
        }
        // The cluster rejects these too.
        for changes in [&[(ADD, 2)][..], &[(REMOVE, 9)], &[(PROMOTE, 2)], &[(ADD_LEARNER, 4)], &[(UPDATE, 9)]] {
            assert_eq!(ignored(20, changes, &backend, &[]), None, "{changes:?}");
        }
    }

    #[test]
    fn a_backend_with_the_effect_of_a_change_ignores_it() {
        assert_eq!(ignored(20, &[(ADD, 4)], &members(&[1, 2, 4], &[3]), &[]), Some(11));
        assert_eq!(ignored(20, &[(UPDATE, 2), (ADD, 4)], &members(&[1, 2, 4], &[3]), &[]), Some(12));
        assert_eq!(ignored(20, &[(REMOVE, 2)], &members(&[1], &[3]), &[2]), Some(11));
        assert_eq!(ignored(20, &[(PROMOTE, 3)], &members(&[1, 2, 3], &[]), &[]), Some(11));
        assert_eq!(ignored(20, &[(REMOVE, 3), (ADD_LEARNER, 4)], &members(&[1, 2], &[4]), &[3]), Some(11));
        // The second change is not in the backend yet.
        assert_eq!(ignored(20, &[(ADD, 4), (ADD, 5)], &members(&[1, 2, 4], &[3]), &[]), Some(11));
    }

    #[test]
    fn changes_that_undo_each_other_do_no_harm() {
        let backend = members(&[1, 2], &[3]);
        assert_eq!(ignored(20, &[(ADD, 4), (REMOVE, 4)], &backend, &[4]), None);
        // The removal may be dropped.
        assert_eq!(ignored(11, &[(ADD, 4), (REMOVE, 4)], &members(&[1, 2, 4], &[3]), &[]), Some(11));
        // A change that the backend lacks, and that nobody has committed.
        assert_eq!(ignored(10, &[(ADD, 4)], &backend, &[]), None);
    }
}
