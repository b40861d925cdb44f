//! The two hashes of an output that is not read back (`--dry-run`, `--no-verify`), from the rows that the
//! writer gets (docs/formats.md 10.1, 10.3).
//!
//! `verify` computes the same hashes from a file. Must not know pages.

use std::borrow::Cow;

use hashbrown::HashMap;
use rayon::prelude::*;

use crate::bolt::{Bucket, Rows};
use crate::error::Result;
use crate::ids::{ByteOffset, Revision};
use crate::image::Content;
use crate::interrupt::Interrupt;
use crate::mvcc::{HashKv, KeyValue, RevisionKey, StatusHash, is_hashed, schema};

/// The number of rows that one task hashes.
const HASH_ROWS: u64 = 1 << 14;

/// Returns HashKV at the current revision, and the hash that `snapshot status` prints.
pub(super) fn hashes(
    content: &Content<'_, '_>,
    buckets: &[Bucket<'_>],
    interrupt: Interrupt<'_>,
) -> Result<(u32, u32)> {
    let mut status = StatusHash::new();
    let mut hash_kv = HashKv::new();
    for bucket in buckets {
        let mut hash = HashKv::of_bucket(bucket.name);
        let parts: Vec<HashKv> = (0..bucket.rows.len().div_ceil(HASH_ROWS))
            .into_par_iter()
            .map(|part| {
                interrupt.ask()?;
                hash_part(bucket.rows, part * HASH_ROWS)
            })
            .collect::<Result<_>>()?;
        parts.iter().for_each(|part| hash.join(part));
        if bucket.name == schema::KEY {
            // Each planned row is the only change of its key, so every compaction retains it.
            hash_kv = if content.stored().is_empty() { hash } else { of_history(content, bucket.rows, interrupt)? };
        }
        status.join(&hash);
    }
    Ok((hash_kv.finish(), status.finish()))
}

fn hash_part(rows: &dyn Rows, first: u64) -> Result<HashKv> {
    let mut hash = HashKv::part();
    each(rows, first..rows.len().min(first + HASH_ROWS), &mut |_, key, value| {
        hash.update(key, value);
        Ok(())
    })?;
    Ok(hash)
}

type Show<'a> = &'a mut dyn FnMut(u64, &[u8], &[u8]) -> Result<()>;

fn each(rows: &dyn Rows, range: std::ops::Range<u64>, show: Show<'_>) -> Result<()> {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for row in range {
        key.resize(rows.key_len(row) as usize, 0);
        value.resize(rows.value_len(row) as usize, 0);
        rows.encode(row, &mut key, &mut value)?;
        show(row, &key, &value)?;
    }
    Ok(())
}

/// Computes HashKV of a store with a history: it leaves out the changes that a compaction removes.
fn of_history(content: &Content<'_, '_>, rows: &dyn Rows, interrupt: Interrupt<'_>) -> Result<HashKv> {
    let mut last: HashMap<Cow<'_, [u8]>, (u64, bool)> = HashMap::new();
    for (row, stored) in (0..).zip(content.stored()) {
        let tombstone = RevisionKey::decode(stored.key).is_none_or(|key| key.tombstone);
        last.insert(KeyValue::decode(stored.value, ByteOffset(0))?.key.into(), (row, tombstone));
    }
    let pairs = content.pairs();
    for (row, planned) in (content.stored().len() as u64..).zip(&pairs.ordered.rows) {
        last.insert(pairs.key(planned), (row, false));
    }
    let all = last.values().all(|(_, tombstone)| *tombstone);
    let retained: std::collections::HashSet<u64> =
        last.into_values().filter(|(_, tombstone)| !tombstone).map(|(row, _)| row).collect();
    let compacted = Some(compacted(content));
    let mut hash = HashKv::new();
    each(rows, 0..rows.len(), &mut |row, key, value| {
        if row.is_multiple_of(HASH_ROWS) {
            interrupt.ask()?;
        }
        let revision = RevisionKey::decode(key);
        if revision.is_none_or(|revision| is_hashed(revision, compacted, || all || retained.contains(&row))) {
            hash.update(key, value);
        }
        Ok(())
    })?;
    Ok(hash)
}

/// Returns the revision at which the store is compacted after a boot; 0 for none.
fn compacted(content: &Content<'_, '_>) -> Revision {
    let meta = content.others().filter(|(name, _)| *name == schema::META).flat_map(|(_, pairs)| pairs);
    let marks = meta.filter(|(key, _)| key == schema::SCHEDULED_COMPACT || key == schema::FINISHED_COMPACT);
    marks.filter_map(|(_, value)| RevisionKey::decode(value)).map(|key| key.main).max().unwrap_or_default()
}
