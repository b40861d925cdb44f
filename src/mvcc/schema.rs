//! The buckets of an etcd v3 backend and the pairs of `meta`: names, order and encoding.
//!
//! docs/formats.md sections 9.1 and 9.3, and the keys of 7.2 and 9.6. Must not know pages, or where the numbers come
//! from.

use super::revision::RevisionKey;
use crate::ids::{RaftIndex, Revision, Term};

/// Alarms.
pub const ALARM: &[u8] = b"alarm";
/// The state of authentication, and its revision.
pub const AUTH: &[u8] = b"auth";
/// Roles by name.
pub const AUTH_ROLES: &[u8] = b"authRoles";
/// Users by name.
pub const AUTH_USERS: &[u8] = b"authUsers";
/// Cluster version.
pub const CLUSTER: &[u8] = b"cluster";
/// Every change of every key, by revision.
pub const KEY: &[u8] = b"key";
/// Leases by id.
pub const LEASE: &[u8] = b"lease";
/// Members by id.
pub const MEMBERS: &[u8] = b"members";
/// Former members by id.
pub const MEMBERS_REMOVED: &[u8] = b"members_removed";
/// Raft position, compaction marks, storage version.
pub const META: &[u8] = b"meta";

/// The ten buckets, in the order of their names.
pub const BUCKETS: [&[u8]; 10] =
    [ALARM, AUTH, AUTH_ROLES, AUTH_USERS, CLUSTER, KEY, LEASE, MEMBERS, MEMBERS_REMOVED, META];

/// Key in `meta`: raft index of the last applied entry, u64 BE.
pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
/// Key in `meta`: the term of that entry, u64 BE.
pub const TERM: &[u8] = b"term";
/// Key in `meta`: the revision of the last scheduled compaction.
pub const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
/// Key in `meta`: the revision of the last finished compaction.
pub const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
/// Key in `meta`: the storage version, as text.
pub const STORAGE_VERSION: &[u8] = b"storageVersion";
/// Key in `meta`: the raft configuration, as JSON.
pub const CONF_STATE: &[u8] = b"confState";
/// Key in `auth`: one byte, 1 for on.
pub const AUTH_ENABLED: &[u8] = b"authEnabled";
/// Key in `auth`: u64 BE.
pub const AUTH_REVISION: &[u8] = b"authRevision";
/// Key in `cluster`: the cluster version, as text.
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";

/// The pairs of `meta` that etcdlift writes; one form suits 3.4 to 3.7 (docs/formats.md 9.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Raft index of the last applied entry.
    pub consistent_index: RaftIndex,
    /// The term of that entry; left out if 0.
    pub term: Term,
    /// The revision of the scheduled compaction.
    pub scheduled_compact: Option<Revision>,
    /// The revision of the finished compaction.
    pub finished_compact: Option<Revision>,
}

impl Meta {
    /// The keys of these pairs.
    pub const KEYS: [&[u8]; 4] = [CONSISTENT_INDEX, FINISHED_COMPACT, SCHEDULED_COMPACT, TERM];

    /// Returns the pairs in the order of their keys.
    pub fn pairs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let compact = |revision: Revision| RevisionKey::put(revision, 0).to_bytes().to_vec();
        let term = (self.term != Term(0)).then(|| self.term.0.to_be_bytes().to_vec());
        [
            (CONSISTENT_INDEX, Some(self.consistent_index.0.to_be_bytes().to_vec())),
            (FINISHED_COMPACT, self.finished_compact.map(compact)),
            (SCHEDULED_COMPACT, self.scheduled_compact.map(compact)),
            (TERM, term),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_vec(), value?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_pairs_are_in_order() {
        assert!(BUCKETS.is_sorted());
        let revision = Some(Revision(7));
        let meta = Meta {
            consistent_index: RaftIndex(3),
            term: Term(2),
            scheduled_compact: revision,
            finished_compact: revision,
        };
        let pairs = meta.pairs();
        assert!(pairs.is_sorted() && pairs.len() == 4);
        assert_eq!(pairs[0], (b"consistent_index".to_vec(), vec![0, 0, 0, 0, 0, 0, 0, 3]));
        assert_eq!(pairs[2].1, b"\0\0\0\0\0\0\0\x07_\0\0\0\0\0\0\0\0");
        let bare = Meta { term: Term(0), scheduled_compact: None, finished_compact: None, ..meta };
        assert_eq!(bare.pairs().len(), 1);
    }
}
