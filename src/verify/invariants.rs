//! The buckets other than `key`: compaction marks, raft position, leases, users, roles, members; and the check of all
//! buckets.
//!
//! docs/formats.md sections 7.2, 9.1, 9.3, 9.4, 9.6 and 9.8. Must not know which findings matter to which caller.

use std::collections::HashSet;

use crate::bolt::{Damage, Db, Tree};
use crate::ids::{ByteOffset, LeaseId, MemberId, RaftIndex, Revision, Term};
use crate::mvcc::{HashKv, Lease, RevisionKey, StatusHash, schema};
use crate::verify::expected::Expected;
use crate::verify::key_bucket::{self, Findings};
use crate::verify::plain_keys::{self, PlainKeys};
use crate::verify::presence::meta_number;
use crate::verify::summary::{Member, V3Summary};
use crate::wire::Reader;

/// Checks that all ten buckets exist.
pub(super) fn buckets(db: &Db<'_>, findings: &mut Findings) -> Result<(), Damage> {
    for name in schema::BUCKETS {
        if db.bucket(name)?.is_none() {
            findings.push(ByteOffset(0), format!("the bucket {} is missing", name.escape_ascii()));
        }
    }
    Ok(())
}

/// Reads a store as etcd does at its start, and records every finding. `expected` learns the pairs
/// of the `key` bucket, if it is a plain one.
pub(super) fn read(
    db: &Db<'_>,
    summary: &mut V3Summary,
    findings: &mut Findings,
    expected: Option<&Expected<'_, '_, '_>>,
) -> Result<(), Damage> {
    meta(db, summary, findings)?;
    let leases = leases(db, findings)?;
    summary.leases = leases.len() as u64;
    summary.hash_kv = HashKv::new().finish();
    let mut status = StatusHash::new();
    for bucket in &db.root() {
        let bucket = bucket?;
        let tree = db.open_bucket(&bucket)?;
        let hash = match bucket.key {
            schema::KEY => match plain_keys::read(db, &tree, &leases, expected) {
                Some(keys) => plain_bucket(keys, summary),
                None => key_bucket(db, &tree, &leases, summary, findings)?,
            },
            name => other_bucket(name, &tree, summary, findings)?,
        };
        status.join(&hash);
    }
    summary.status_hash = status.finish();
    summary.total_size = db.size();
    let compacted = summary.compacted.unwrap_or_default();
    summary.revision = summary.last_key_revision.max(Revision(1)).max(compacted);
    Ok(())
}

fn meta(db: &Db<'_>, summary: &mut V3Summary, findings: &mut Findings) -> Result<(), Damage> {
    let finished = compact_mark(db, schema::FINISHED_COMPACT, findings)?;
    let scheduled = compact_mark(db, schema::SCHEDULED_COMPACT, findings)?;
    if finished > scheduled {
        findings.push(ByteOffset(0), "meta: a compaction was finished that was not scheduled");
    }
    // etcd runs the scheduled compaction directly after its start.
    summary.compacted = finished.max(scheduled);
    for key in [schema::CONSISTENT_INDEX, schema::TERM] {
        if value(db, schema::META, key)?.is_some_and(|value| value.len() != 8) {
            findings.push(ByteOffset(0), format!("meta: {} is not a number of 8 bytes", key.escape_ascii()));
        }
    }
    summary.consistent_index = meta_number(db, schema::CONSISTENT_INDEX)?.map(RaftIndex);
    summary.term = meta_number(db, schema::TERM)?.map(Term);
    summary.storage_version = text(db, schema::META, schema::STORAGE_VERSION)?;
    summary.cluster_version = text(db, schema::CLUSTER, schema::CLUSTER_VERSION)?;
    let enabled = value(db, schema::AUTH, schema::AUTH_ENABLED)?;
    summary.auth_enabled = enabled.is_some_and(|enabled| enabled == [1]);
    Ok(())
}

fn compact_mark(db: &Db<'_>, key: &[u8], findings: &mut Findings) -> Result<Option<Revision>, Damage> {
    let Some(value) = value(db, schema::META, key)? else { return Ok(None) };
    match RevisionKey::decode(value) {
        Some(RevisionKey { main, sub: 0, tombstone: false }) => Ok(Some(main)),
        _ => {
            findings.push(ByteOffset(0), format!("meta: {} is not a revision", key.escape_ascii()));
            Ok(None)
        }
    }
}

fn leases(db: &Db<'_>, findings: &mut Findings) -> Result<HashSet<LeaseId>, Damage> {
    let mut leases = HashSet::new();
    let Some(bucket) = db.bucket(schema::LEASE)? else { return Ok(leases) };
    for pair in &bucket {
        let pair = pair?;
        let id = Lease::decode_key(pair.key);
        let lease = Lease::decode(pair.value, pair.value_offset());
        match (id, lease) {
            (Some(id), Ok(lease)) if id == lease.id && id.0 > 0 && lease.ttl > 0 && lease.remaining_ttl >= 0 => {}
            _ => findings.push(pair.offset, format!("lease {}: not a lease of that id", pair.key.escape_ascii())),
        }
        leases.extend(id);
    }
    Ok(leases)
}

fn plain_bucket(keys: PlainKeys, summary: &mut V3Summary) -> HashKv {
    summary.pairs = keys.pairs;
    summary.all_pairs += keys.pairs;
    summary.keys = keys.pairs;
    summary.last_key_revision = keys.last;
    summary.hash_kv = keys.hash.finish();
    keys.hash
}

fn key_bucket(
    db: &Db<'_>,
    bucket: &Tree<'_>,
    leases: &HashSet<LeaseId>,
    summary: &mut V3Summary,
    findings: &mut Findings,
) -> Result<HashKv, Damage> {
    let keys = key_bucket::read(db, bucket, findings)?;
    keys.dangling(|lease| leases.contains(&lease), findings);
    summary.pairs = keys.pairs;
    summary.all_pairs += keys.pairs;
    summary.tombstones = keys.tombstones;
    summary.keys = keys.live();
    summary.last_key_revision = keys.last;
    summary.hash_kv = keys.hash_kv(bucket, summary.compacted)?;
    Ok(keys.hash)
}

fn other_bucket(
    bucket: &[u8],
    tree: &Tree<'_>,
    summary: &mut V3Summary,
    findings: &mut Findings,
) -> Result<HashKv, Damage> {
    let mut hash = HashKv::of_bucket(bucket);
    for pair in tree {
        let pair = pair?;
        hash.record(pair.record);
        summary.all_pairs += 1;
        let sound = match bucket {
            schema::AUTH_USERS => {
                summary.users += 1;
                first_field(pair.value) == Some(pair.key)
            }
            schema::AUTH_ROLES => {
                summary.roles += 1;
                first_field(pair.value) == Some(pair.key)
            }
            schema::ALARM => {
                summary.alarms += 1;
                true
            }
            schema::MEMBERS => match member(pair.key, pair.value) {
                Some(member) => {
                    summary.members.push(member);
                    true
                }
                None => false,
            },
            _ => true,
        };
        if !sound {
            let message =
                format!("{} {}: the value is not of that name", bucket.escape_ascii(), pair.key.escape_ascii());
            findings.push(pair.offset, message);
        }
    }
    Ok(hash)
}

/// Returns the name inside a user or a role.
fn first_field(message: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(message, ByteOffset(0));
    let mut name = None;
    while let Some(field) = reader.field().ok()? {
        if field.number == 1 {
            name = Some(field.bytes().ok()?);
        }
    }
    name
}

fn member(key: &[u8], value: &[u8]) -> Option<Member> {
    #[derive(serde::Deserialize)]
    struct Json {
        id: u64,
        #[serde(default, rename = "peerURLs")]
        peer_urls: Option<Vec<String>>,
        #[serde(default, rename = "isLearner")]
        learner: bool,
        #[serde(default)]
        name: String,
        #[serde(default, rename = "clientURLs")]
        client_urls: Option<Vec<String>>,
    }
    let json: Json = serde_json::from_slice(value).ok()?;
    let id = MemberId(json.id);
    (id.to_string().as_bytes() == key).then(|| Member {
        id,
        name: json.name,
        peer_urls: json.peer_urls.unwrap_or_default(),
        client_urls: json.client_urls.unwrap_or_default(),
        learner: json.learner,
    })
}

fn value<'a>(db: &Db<'a>, bucket: &[u8], key: &[u8]) -> Result<Option<&'a [u8]>, Damage> {
    let Some(bucket) = db.bucket(bucket)? else { return Ok(None) };
    Ok(bucket.get(key)?.map(|pair| pair.value))
}

fn text(db: &Db<'_>, bucket: &[u8], key: &[u8]) -> Result<Option<String>, Damage> {
    Ok(value(db, bucket, key)?.map(|value| String::from_utf8_lossy(value).into_owned()))
}
