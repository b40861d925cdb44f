//! HashKV of a database at an earlier revision, to compare members that stopped at different ones (docs/formats.md
//! 10.1).
//!
//! Must not know where the database comes from.

use crate::bolt::{Damage, Db};
use crate::ids::Revision;
use crate::mvcc::{HashKv, schema};
use crate::verify::key_bucket::{self, Findings};

/// HashKV of a database at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashAt {
    /// The hash.
    pub hash: u32,
    /// Whether the hash does not depend on when the server removed compacted changes. It does only if no key is live.
    pub is_stable: bool,
}

/// Computes HashKV at a revision, as a server prints it that is compacted at `compacted`. The database must be
/// compacted at `compacted` or below, and contain the revision.
///
/// # Errors
/// The database is damaged.
pub fn hash_kv_at(db: &Db<'_>, revision: Revision, compacted: Option<Revision>) -> Result<HashAt, Damage> {
    let Some(bucket) = db.bucket(schema::KEY)? else {
        return Ok(HashAt { hash: HashKv::new().finish(), is_stable: true });
    };
    let keys = key_bucket::read_up_to(db, &bucket, revision, &mut Findings::default())?;
    let hash = keys.hash_kv(&bucket, compacted)?;
    Ok(HashAt { hash, is_stable: keys.live() > 0 || compacted.is_none() })
}
