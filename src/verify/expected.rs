//! The expected content of a written file, with a sum that replaces the comparison of each pair if it is equal.
//!
//! A row is somewhere else in the source than the rows before and after it, so most of the time of a comparison is
//! waiting for memory. The writer has just read the rows that it encodes. So it adds them here, each hashed from its
//! node, and the reader of the file adds each decoded pair. Must not know the layout of the file.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::DefaultHashBuilder;

use super::compare::revisions;
use crate::bolt::Rows;
use crate::error::Result;
use crate::image::Content;
use crate::mvcc::{KeyValue, RevisionKey};

/// The expected content of a file that is being written.
///
/// The sum is of 64 bits, over hashes with a random seed, which are not cryptographic. With an ideal hash, a fault that does
/// not depend on the seed leaves it equal with a probability of 2^-64. It finds faults of the encoder, the layout and the
/// disk. A fault of the decoder of JSON escapes is on both sides: tests compare that one with serde_json.
pub struct Expected<'c, 't, 'm> {
    content: &'c Content<'t, 'm>,
    hasher: DefaultHashBuilder,
    added: Mutex<Added>,
    found: Mutex<Option<Sum>>,
}

/// The rows of the `key` bucket for the writer. They are hashed when it reads them ahead.
struct Hashed<'e, 'c, 't, 'm> {
    rows: &'e dyn Rows,
    expected: &'e Expected<'c, 't, 'm>,
}

/// The expected rows that were hashed.
#[derive(Default)]
struct Added {
    sum: u64,
    rows: Vec<Range<u64>>,
}

/// The number of pairs that were found, and the sum of their hashes.
#[derive(Clone, Copy)]
struct Sum {
    pairs: u64,
    sum: u64,
}

impl<'c, 't, 'm> Expected<'c, 't, 'm> {
    /// Creates the expectation of this content. No row is hashed yet.
    pub fn of(content: &'c Content<'t, 'm>) -> Self {
        Expected { content, hasher: DefaultHashBuilder::default(), added: Mutex::default(), found: Mutex::default() }
    }

    /// Returns the rows of the `key` bucket for the writer. They are hashed when it reads them ahead.
    pub fn hashed<'e>(&'e self, rows: &'e dyn Rows) -> impl Rows + 'e {
        Hashed { rows, expected: self }
    }

    /// Hashes rows of the `key` bucket. Any thread may call this, in any order, once for each row.
    ///
    /// If a row is missing or was added twice, [`verify_content`](super::verify_content) compares each pair.
    fn add(&self, rows: Range<u64>) {
        // Preserved v3 data is compared pair by pair.
        if !self.content.stored().is_empty() || rows.is_empty() {
            return;
        }
        let pairs = self.content.pairs();
        let place = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
        let planned = pairs.ordered.rows.get(place(rows.start)..place(rows.end)).unwrap_or_default();
        let sum = planned.iter().fold(0u64, |sum, row| {
            let (create_revision, mod_revision) = revisions(pairs, row);
            let (version, lease) = (pairs.version(row), pairs.ordered.lease(row));
            let (key, value) = (&*pairs.key(row), &*pairs.value(row));
            let kv = KeyValue { key, create_revision, mod_revision, version, value, lease };
            sum.wrapping_add(self.hash(RevisionKey::put(row.main, i64::from(row.sub)), &kv))
        });
        let mut added = lock(&self.added);
        added.sum = added.sum.wrapping_add(sum);
        added.rows.push(rows);
    }

    /// Returns the hash of one change.
    pub(super) fn hash(&self, revision: RevisionKey, kv: &KeyValue<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_i64(revision.main.0);
        hasher.write_i64(revision.sub);
        hasher.write_u8(u8::from(revision.tombstone));
        hasher.write_i64(kv.create_revision.0);
        hasher.write_i64(kv.mod_revision.0);
        hasher.write_i64(kv.version);
        hasher.write_i64(kv.lease.0);
        hasher.write_usize(kv.key.len());
        hasher.write(kv.key);
        hasher.write_usize(kv.value.len());
        hasher.write(kv.value);
        hasher.finish()
    }

    /// Records the pairs of the `key` bucket in a file: their number, and the sum of their hashes.
    pub(super) fn record_found(&self, pairs: u64, sum: u64) {
        *lock(&self.found) = Some(Sum { pairs, sum });
    }

    /// Returns whether the file is known to have the expected pairs. If not, it may have them nevertheless.
    pub(super) fn is_met(&self) -> bool {
        let mut added = lock(&self.added);
        added.rows.sort_unstable_by_key(|rows| rows.start);
        let end = added.rows.iter().try_fold(0, |end, rows| (rows.start == end).then_some(rows.end));
        let expected = Sum { pairs: self.content.pairs().ordered.rows.len() as u64, sum: added.sum };
        let is_equal = |found: Sum| (found.pairs, found.sum) == (expected.pairs, expected.sum);
        self.content.stored().is_empty() && end == Some(expected.pairs) && lock(&self.found).is_some_and(is_equal)
    }

    /// Returns the content.
    pub(super) fn content(&self) -> &'c Content<'t, 'm> {
        self.content
    }
}

impl Rows for Hashed<'_, '_, '_, '_> {
    fn len(&self) -> u64 {
        self.rows.len()
    }

    fn key_len(&self, row: u64) -> u32 {
        self.rows.key_len(row)
    }

    fn value_len(&self, row: u64) -> u32 {
        self.rows.value_len(row)
    }

    fn sizes(&self, rows: Range<u64>) -> Vec<(u32, u32)> {
        self.rows.sizes(rows)
    }

    fn read_ahead(&self, rows: Range<u64>) {
        self.rows.read_ahead(rows.clone());
        self.expected.add(rows);
    }

    fn encode(&self, row: u64, key: &mut [u8], value: &mut [u8]) -> Result<()> {
        self.rows.encode(row, key, value)
    }

    fn encode_key(&self, row: u64, key: &mut [u8]) -> Result<()> {
        self.rows.encode_key(row, key)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
