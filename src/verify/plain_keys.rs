//! The `key` bucket of a database without a past: one put for each key. Read in parts, on all threads.
//!
//! A conversion makes such a bucket, unless it preserves v3 data. Gives the same result as [`key_bucket::read`], and
//! leaves every other bucket to it: one with a deletion, with two changes of a key, or with any fault. Must not know what
//! the fault is.

use std::collections::HashSet;
use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;
use rayon::prelude::*;

use super::expected::Expected;
use super::key_bucket;
use crate::bolt::{Cursor, Db, PARTS, Part, Tree};
use crate::ids::{LeaseId, Revision};
use crate::mvcc::HashKv;

/// The content of a `key` bucket in which each key has one change.
pub(super) struct PlainKeys {
    /// Number of pairs, and of live keys.
    pub(super) pairs: u64,
    /// Main revision of the last pair; 0 without pairs.
    pub(super) last: Revision,
    /// HashKV over all pairs.
    pub(super) hash: HashKv,
}

/// Reads a bucket whose changes may have these leases, and adds its pairs to the expectation, if there is one. `None` if the
/// bucket is not in this form, or after an interruption.
pub(super) fn read(
    db: &Db<'_>,
    bucket: &Tree<'_>,
    leases: &HashSet<LeaseId>,
    expected: Option<&Expected<'_, '_, '_>>,
) -> Option<PlainKeys> {
    let hasher = DefaultHashBuilder::default();
    let parts = bucket.parts(PARTS).ok()?;
    let mut names = Names::of(&parts)?;
    let parts: Vec<_> = parts.into_iter().zip(names.parts()).collect();
    let reader = Reader { leases, hasher: &hasher, expected };
    let read: Vec<PartKeys> =
        parts.into_par_iter().map(|(part, names)| reader.read(part.pairs, names)).collect::<Option<_>>()?;
    let mut keys = PlainKeys { pairs: 0, last: Revision(0), hash: HashKv::new() };
    let (mut last, mut sum) = (None, 0u64);
    for part in &read {
        let Some((first, end)) = part.revisions else { continue };
        if last.is_some_and(|last| last >= first) {
            return None;
        }
        last = Some(end);
        keys.last = end.0;
        keys.pairs += part.pairs;
        sum = sum.wrapping_add(part.sum);
    }
    let joined = |all: HashKv, part: HashKv| {
        let mut all = all;
        all.join(&part);
        all
    };
    let (hash, sorted) = rayon::join(
        || read.par_iter().map(|part| part.hash).reduce(HashKv::part, joined),
        || db.interrupt().sort_by(&mut names.hashes, Ord::cmp),
    );
    sorted.ok()?;
    keys.hash.join(&hash);
    // Two equal hashes are one key twice, or a coincidence that is not worth a second way.
    if names.hashes.par_windows(2).any(|pair| pair.first() == pair.last()) {
        return None;
    }
    if let Some(expected) = expected {
        expected.record_found(keys.pairs, sum);
    }
    Some(keys)
}

/// The hashes of the keys of a bucket: one list, of which each part fills its own range.
struct Names {
    hashes: Vec<u64>,
    /// Number of pairs of each part.
    lens: Vec<usize>,
}

impl Names {
    fn of(parts: &[Part<'_>]) -> Option<Names> {
        let lens: Vec<usize> = parts.iter().map(|part| usize::try_from(part.len).ok()).collect::<Option<_>>()?;
        Some(Names { hashes: vec![0; lens.iter().sum()], lens })
    }

    /// Returns the range of each part.
    fn parts(&mut self) -> Vec<&mut [u64]> {
        let mut rest = self.hashes.as_mut_slice();
        let take = |len: &usize| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut_checked(*len).unwrap_or_default();
            rest = after;
            part
        };
        self.lens.iter().map(take).collect()
    }
}

/// Consecutive pairs.
struct PartKeys {
    /// Main and sub revision of the first and the last pair.
    revisions: Option<((Revision, i64), (Revision, i64))>,
    hash: HashKv,
    pairs: u64,
    /// The sum of the hashes for [`Expected`]; 0 without one.
    sum: u64,
}

/// The reader of all parts.
#[derive(Clone, Copy)]
struct Reader<'r> {
    leases: &'r HashSet<LeaseId>,
    hasher: &'r DefaultHashBuilder,
    expected: Option<&'r Expected<'r, 'r, 'r>>,
}

impl Reader<'_> {
    /// Reads pairs into a range of the names. `None` if there are more or fewer.
    fn read(&self, pairs: Cursor<'_>, names: &mut [u64]) -> Option<PartKeys> {
        let mut part = PartKeys { revisions: None, hash: HashKv::part(), pairs: names.len() as u64, sum: 0 };
        let mut names = names.iter_mut();
        for pair in pairs {
            let pair = pair.ok()?;
            part.hash.record(pair.record);
            let (key, kv) = key_bucket::plain_change(&pair)?;
            if kv.lease != LeaseId(0) && !self.leases.contains(&kv.lease) {
                return None;
            }
            let revision = (key.main, key.sub);
            let first = match part.revisions {
                Some((_, last)) if last >= revision => return None,
                Some((first, _)) => first,
                None => revision,
            };
            part.revisions = Some((first, revision));
            *names.next()? = self.hasher.hash_one(kv.key);
            if let Some(expected) = self.expected {
                part.sum = part.sum.wrapping_add(expected.hash(key, &kv));
            }
        }
        names.next().is_none().then_some(part)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bolt::{Bucket, OwnedRows, image};
    use crate::mvcc::{KeyValue, RevisionKey, schema};
    use crate::verify::key_bucket::Findings;

    const LEASE: LeaseId = LeaseId(7);

    /// A change: its key, and whether it is a deletion, refers to a lease that does not exist, or has a wrong version.
    #[derive(Debug, Clone, Copy)]
    struct Made {
        key: u16,
        fault: u8,
    }

    impl Made {
        fn pair(self, main: i64) -> (Vec<u8>, Vec<u8>) {
            let name = format!("key {}", self.key);
            let kv = KeyValue {
                key: name.as_bytes(),
                create_revision: Revision(main),
                mod_revision: Revision(main),
                version: if self.fault == 2 { 0 } else { 1 },
                value: b"value",
                lease: match self.fault {
                    3 => LeaseId(8),
                    4 => LEASE,
                    _ => LeaseId(0),
                },
            };
            let kv = if self.fault == 1 { KeyValue { key: kv.key, ..KeyValue::default() } } else { kv };
            let mut value = vec![0; kv.encoded_len()];
            kv.encode(&mut value).unwrap();
            let key = RevisionKey { main: Revision(main), sub: 0, tombstone: self.fault == 1 };
            (key.to_bytes().to_vec(), value)
        }
    }

    /// Returns the numbers of both ways: pairs, live keys, last revision, HashKV.
    fn both(made: &[Made]) -> (Option<[u64; 4]>, Option<[u64; 4]>) {
        let rows = OwnedRows::new((2..).zip(made).map(|(main, made)| made.pair(main)).collect());
        let file = image(&[Bucket { name: schema::KEY, rows: &rows }]).unwrap();
        let db = Db::open(&file).unwrap();
        let bucket = db.bucket(schema::KEY).unwrap().unwrap();
        let plain = read(&db, &bucket, &HashSet::from([LEASE]), None);
        let plain = plain.map(|k| [k.pairs, k.pairs, k.last.0.cast_unsigned(), k.hash.finish().into()]);
        let mut findings = Findings::default();
        let keys = key_bucket::read(&db, &bucket, &mut findings).unwrap();
        keys.dangling(|lease| lease == LEASE, &mut findings);
        let is_plain = findings.list.is_empty() && keys.tombstones == 0 && keys.pairs == keys.live();
        let numbers = [keys.pairs, keys.live(), keys.last.0.cast_unsigned(), keys.hash.finish().into()];
        (plain, is_plain.then_some(numbers))
    }

    #[test]
    fn many_leaf_pages_are_read_in_parts() {
        let mut made: Vec<Made> = (0..40_000).map(|key| Made { key, fault: 4 * u8::from(key % 5 == 0) }).collect();
        let (plain, general) = both(&made);
        assert!(plain.is_some());
        assert_eq!(plain, general);
        // One key twice, at both ends of the bucket.
        made.push(made[0]);
        assert_eq!(both(&made), (None, None));
    }

    proptest! {
        #[test]
        fn the_result_is_that_of_the_other_way(
            keys in prop::collection::vec((0u16..400, prop_oneof![30 => Just(0u8), 1 => 1u8..5]), 0..60),
        ) {
            let made: Vec<Made> = keys.into_iter().map(|(key, fault)| Made { key, fault }).collect();
            let (plain, general) = both(&made);
            prop_assert_eq!(plain, general);
        }
    }
}
