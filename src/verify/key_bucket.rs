//! The `key` bucket, read as etcd reads it at its start, with every invariant of its changes.
//!
//! docs/formats.md sections 9.2, 9.8 and 10.1. One pass over the bucket. A second pass for HashKV is needed only if the
//! file still contains changes that a compaction removed. Must not know other buckets.

use super::index::{Change, KeyIndex};
use crate::bolt::{Damage, Db, Pair, Tree};
use crate::ids::{ByteOffset, LeaseId, Revision};
use crate::mvcc::{HashKv, KeyValue, RevisionKey, is_hashed};

/// Maximum number of stored findings; further findings are only counted.
const MAX_FINDINGS: usize = 100;

/// The faults of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) list: Vec<Damage>,
    pub(super) more: u64,
}

impl Findings {
    pub(super) fn push(&mut self, offset: ByteOffset, message: impl Into<String>) {
        self.add(Damage::new(offset, message));
    }

    pub(super) fn add(&mut self, damage: Damage) {
        if self.list.len() < MAX_FINDINGS { self.list.push(damage) } else { self.more += 1 }
    }
}

/// The content of the `key` bucket.
pub(super) struct Keys<'a> {
    /// Number of pairs.
    pub(super) pairs: u64,
    /// Number of deletions.
    pub(super) tombstones: u64,
    /// Main revision of the last pair; 0 without pairs.
    pub(super) last: Revision,
    /// HashKV over all pairs.
    pub(super) hash: HashKv,
    /// Number of changes that are deletions, or not the last of their key.
    superseded: u64,
    /// The revision up to which changes were read.
    up_to: Revision,
    index: KeyIndex<'a>,
}

/// Reads the `key` bucket.
pub(super) fn read<'a>(db: &Db<'a>, bucket: &Tree<'a>, findings: &mut Findings) -> Result<Keys<'a>, Damage> {
    read_up_to(db, bucket, Revision(i64::MAX), findings)
}

/// Reads the changes of the `key` bucket up to a revision.
pub(super) fn read_up_to<'a>(
    db: &Db<'a>,
    bucket: &Tree<'a>,
    revision: Revision,
    findings: &mut Findings,
) -> Result<Keys<'a>, Damage> {
    let mut keys = Keys {
        pairs: 0,
        tombstones: 0,
        last: Revision(0),
        hash: HashKv::new(),
        superseded: 0,
        up_to: revision,
        index: KeyIndex::new(db.body()),
    };
    let mut last = None;
    for pair in bucket {
        let pair = pair?;
        if is_above(&pair, revision) {
            break;
        }
        keys.pairs += 1;
        keys.hash.record(pair.record);
        let Some((key, kv)) = decode(&pair, findings) else { continue };
        if last.is_some_and(|last| last >= (key.main, key.sub)) {
            findings.push(pair.offset, "a revision that is not above the one before it");
        }
        last = Some((key.main, key.sub));
        keys.last = key.main;
        keys.tombstones += u64::from(key.tombstone);
        let mark = is_bump_mark(&pair, key);
        if !mark {
            check_change(key, &kv, pair.offset, findings);
        }
        if key.main == Revision(0) {
            findings.push(pair.offset, "a pair at revision 0, which etcd ignores");
            keys.superseded += 1;
            continue;
        }
        let change = Change { tombstone: key.tombstone, kv, offset: pair.value_offset() };
        let before = keys.index.note(&change, pair.value.len());
        keys.superseded +=
            u64::from(before.as_ref().is_some_and(|before| !before.tombstone)) + u64::from(key.tombstone);
        if let Some(before) = before.filter(|_| !mark) {
            check_succession(key, &kv, &before, pair.offset, findings);
        }
    }
    Ok(keys)
}

impl<'a> Keys<'a> {
    /// Returns the number of live keys.
    pub(super) fn live(&self) -> u64 {
        self.index.live()
    }

    /// Returns the names of the live keys, unordered.
    pub(super) fn live_keys(&self) -> impl Iterator<Item = &'a [u8]> {
        self.index.live_changes().map(|change| change.kv.key)
    }

    /// Returns HashKV at the revision up to which the changes were read, of a store compacted at `compacted`.
    pub(super) fn hash_kv(&self, bucket: &Tree<'a>, compacted: Option<Revision>) -> Result<u32, Damage> {
        if compacted.is_none() || self.superseded == 0 {
            return Ok(self.hash.finish());
        }
        let all = self.live() == 0;
        let mut hash = HashKv::new();
        for pair in bucket {
            let pair = pair?;
            if is_above(&pair, self.up_to) {
                break;
            }
            let Some((key, kv)) = decode(&pair, &mut Findings::default()) else {
                hash.record(pair.record);
                continue;
            };
            if is_hashed(key, compacted, || all || self.index.is_live_change(kv.key, pair.value_offset())) {
                hash.record(pair.record);
            }
        }
        Ok(hash.finish())
    }

    /// Records the keys whose lease does not exist.
    pub(super) fn dangling(&self, exists: impl Fn(LeaseId) -> bool, findings: &mut Findings) {
        for change in self.index.leased() {
            if !exists(change.kv.lease) {
                let message = format!("key {}: its lease {:x} does not exist", name(change.kv.key), change.kv.lease.0);
                findings.push(change.offset, message);
            }
        }
    }
}

/// Returns whether a pair is a change after this revision. The pairs are in the order of their revisions.
fn is_above(pair: &Pair<'_>, revision: Revision) -> bool {
    RevisionKey::decode(pair.key).is_some_and(|key| key.main > revision)
}

fn decode<'a>(pair: &Pair<'a>, findings: &mut Findings) -> Option<(RevisionKey, KeyValue<'a>)> {
    let Some(key) = RevisionKey::decode(pair.key).filter(|_| !pair.is_bucket) else {
        findings.push(pair.offset, "a key that is not a revision");
        return None;
    };
    match KeyValue::decode(pair.value, pair.value_offset()) {
        Ok(kv) => Some((key, kv)),
        Err(e) => {
            findings.push(e.offset, format!("revision {}: expected {} in its value", key.main, e.expected));
            None
        }
    }
}

/// Returns the change of a pair that is a put above revision 0, has content, and has no fault by itself.
pub(super) fn plain_change<'a>(pair: &Pair<'a>) -> Option<(RevisionKey, KeyValue<'a>)> {
    let mut findings = Findings::default();
    let (key, kv) = decode(pair, &mut findings)?;
    if key.tombstone || key.main == Revision(0) || is_bump_mark(pair, key) {
        return None;
    }
    check_change(key, &kv, pair.offset, &mut findings);
    findings.list.is_empty().then_some((key, kv))
}

/// Returns whether the pair is what `snapshot restore --bump-revision` leaves: a put without any content
/// (docs/formats.md 10.5).
fn is_bump_mark(pair: &Pair<'_>, key: RevisionKey) -> bool {
    pair.value.is_empty() && !key.tombstone && key.main > Revision(0)
}

/// Checks the invariants of a single change.
fn check_change(key: RevisionKey, kv: &KeyValue<'_>, offset: ByteOffset, findings: &mut Findings) {
    let mut find = |what: &str| findings.push(offset, format!("revision {}, key {}: {what}", key.main, name(kv.key)));
    if kv.key.is_empty() {
        find("the key is empty");
    }
    if key.tombstone {
        if *kv != (KeyValue { key: kv.key, ..KeyValue::default() }) {
            find("a deletion with more content than the key");
        }
        return;
    }
    if kv.mod_revision != key.main {
        find(&format!("its modification revision is {}", kv.mod_revision));
    }
    if kv.create_revision.0 < 1 || kv.create_revision > kv.mod_revision {
        find(&format!("its creation revision is {}", kv.create_revision));
    }
    if kv.version < 1 {
        find(&format!("its version is {}", kv.version));
    }
    if kv.lease.0 < 0 {
        find("its lease is negative");
    }
}

/// Checks the invariants between two changes of one key.
fn check_succession(
    key: RevisionKey,
    kv: &KeyValue<'_>,
    before: &Change<'_>,
    offset: ByteOffset,
    findings: &mut Findings,
) {
    let wrong = if key.tombstone {
        before.tombstone
    } else if before.tombstone {
        kv.version != 1 || kv.create_revision != key.main
    } else {
        kv.version != before.kv.version.wrapping_add(1) || kv.create_revision != before.kv.create_revision
    };
    if wrong {
        let message = format!("revision {}, key {}: it does not follow the change before it", key.main, name(kv.key));
        findings.push(offset, message);
    }
}

/// Returns a key for a message: escaped, and at most one line long.
fn name(key: &[u8]) -> String {
    let shown = key.get(..120).unwrap_or(key);
    let dots = if shown.len() < key.len() { "..." } else { "" };
    format!("{}{dots}", shown.escape_ascii())
}
