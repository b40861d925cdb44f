//! A checksum of what HashKV leaves out and every member has: alarms, users, roles and leases.
//!
//! Raft changes these buckets on all members alike, so equal members have one checksum at one consistent index. Must
//! not know keys, or the members.

use crate::bolt::{Damage, Db};
use crate::mvcc::schema;

/// The buckets that HashKV leaves out and that are equal on all members.
const BUCKETS: [&[u8]; 5] = [schema::ALARM, schema::AUTH, schema::AUTH_ROLES, schema::AUTH_USERS, schema::LEASE];

/// Returns the CRC-32C over these buckets: name, then every key and value with its length.
///
/// # Errors
/// The database is damaged.
pub fn replicated_hash(db: &Db<'_>) -> Result<u32, Damage> {
    let mut crc = 0;
    let mut add = |bytes: &[u8]| {
        crc = crc32c::crc32c_append(crc, &(bytes.len() as u64).to_le_bytes());
        crc = crc32c::crc32c_append(crc, bytes);
    };
    for name in BUCKETS {
        add(name);
        let Some(bucket) = db.bucket(name)? else { continue };
        for pair in bucket.iter() {
            let pair = pair?;
            add(pair.key);
            add(pair.value);
        }
    }
    Ok(crc)
}
