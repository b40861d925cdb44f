//! The v3 data in a database, as counts. A v2 source with v3 data must not be converted over it.
//!
//! docs/formats.md sections 7.2, 9.1 to 9.4. Must not know what a run does with the counts, and decides nothing.

use super::v2v3::{self, V2v3Tree};
use crate::bolt::{Damage, Db, Strictness, check};
use crate::ids::{RaftIndex, Term};
use crate::mvcc::schema;
use crate::verify::key_bucket::{self, Findings};

/// Counts of the v3 data in a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V3Content {
    /// Number of live keys.
    pub keys: u64,
    /// Number of present changes of keys, with deletions.
    pub changes: u64,
    /// Number of leases.
    pub leases: u64,
    /// Number of users.
    pub users: u64,
    /// Number of roles.
    pub roles: u64,
    /// Raft index of the last applied entry, if the database has it.
    pub consistent_index: Option<RaftIndex>,
    /// Term of that entry, which 3.5 and later write.
    pub term: Option<Term>,
    /// Whether it contains the raft configuration, which 3.5 and later write.
    pub conf_state: bool,
    /// Whether a cluster has used it: it contains the cluster version, or the index of an applied entry.
    pub used: bool,
    /// v2 trees that a server stored among the keys.
    pub v2v3: Vec<V2v3Tree>,
}

impl V3Content {
    /// Returns whether there is no key, lease, user or role. Changes of deleted keys do not count.
    pub fn is_empty(&self) -> bool {
        self.keys + self.leases + self.users + self.roles == 0
    }
}

/// Counts the v3 data of a database; a missing bucket counts as empty. The structure must be checked first: in a
/// damaged file, an existing bucket may not be found by its name.
///
/// # Errors
/// The file is damaged.
pub fn v3_content(db: &Db<'_>) -> Result<V3Content, Damage> {
    check(db, Strictness::Any).sound()?;
    let (keys, changes, v2v3) = match db.bucket(schema::KEY)? {
        Some(bucket) => {
            let keys = key_bucket::read(db, &bucket, &mut Findings::default())?;
            (keys.live(), keys.pairs, v2v3::trees(keys.live_keys()))
        }
        None => (0, 0, Vec::new()),
    };
    let consistent_index = meta_number(db, schema::CONSISTENT_INDEX)?.map(RaftIndex);
    let cluster_version = has(db, schema::CLUSTER, schema::CLUSTER_VERSION)?;
    Ok(V3Content {
        keys,
        changes,
        leases: count(db, schema::LEASE)?,
        users: count(db, schema::AUTH_USERS)?,
        roles: count(db, schema::AUTH_ROLES)?,
        consistent_index,
        term: meta_number(db, schema::TERM)?.map(Term),
        conf_state: has(db, schema::META, schema::CONF_STATE)?,
        used: cluster_version || consistent_index.is_some_and(|index| index > RaftIndex(0)),
        v2v3,
    })
}

/// Returns the number of pairs in a bucket; 0 if it does not exist.
pub(super) fn count(db: &Db<'_>, bucket: &[u8]) -> Result<u64, Damage> {
    let Some(bucket) = db.bucket(bucket)? else { return Ok(0) };
    bucket.iter().try_fold(0, |count, pair| pair.map(|_| count + 1))
}

/// Returns whether a bucket exists and has the key.
fn has(db: &Db<'_>, bucket: &[u8], key: &[u8]) -> Result<bool, Damage> {
    let Some(bucket) = db.bucket(bucket)? else { return Ok(false) };
    Ok(bucket.get(key)?.is_some())
}

/// Returns a big-endian number of the `meta` bucket.
pub(super) fn meta_number(db: &Db<'_>, key: &[u8]) -> Result<Option<u64>, Damage> {
    let Some(meta) = db.bucket(schema::META)? else { return Ok(None) };
    let pair = meta.get(key)?;
    Ok(pair.and_then(|pair| <[u8; 8]>::try_from(pair.value).ok()).map(u64::from_be_bytes))
}
