//! All that goes into a database: the pairs of every bucket, ready for the writer.
//!
//! docs/formats.md section 9.1. The `key` bucket is encoded from the tree as it is written; the others are small and lie in memory.
//! Must not know pages.

use crate::bolt::{Bucket, OwnedRows, Rows};
use crate::error::Result;
use crate::image::key_rows::{KeyRows, Stored};
use crate::mvcc::schema::{self, BUCKETS};
use crate::mvcc::{Lease, Meta};
use crate::transform::revisions::Pairs;

/// A pair of a bucket.
pub type Pair = (Vec<u8>, Vec<u8>);

/// The content of a database.
#[derive(Debug)]
pub struct Content<'t, 'm> {
    keys: KeyRows<'t, 'm>,
    others: [OwnedRows; BUCKETS.len()],
}

impl<'t, 'm> Content<'t, 'm> {
    /// These keys with their leases, and nothing else but `meta`.
    ///
    /// # Errors
    /// Never in practice: a fault of the size computation.
    pub fn new(pairs: Pairs<'t, 'm>, meta: &Meta) -> Result<Self> {
        let mut content = Content { keys: KeyRows::new(&[], pairs), others: Default::default() };
        let lease = |grant: &crate::transform::lease::Grant| {
            let lease = Lease { id: grant.id, ttl: grant.seconds, remaining_ttl: 0 };
            Ok((lease.key().to_vec(), lease.encode()?))
        };
        content.set(schema::LEASE, pairs.ordered.leases.iter().map(lease).collect::<Result<_>>()?);
        content.set(schema::META, meta.pairs());
        Ok(content)
    }

    /// Puts changes that are there already before all others; the caller has seen to it that their revisions are lower.
    pub fn keep(&mut self, stored: &'t [Stored<'m>]) {
        self.keys = KeyRows::new(stored, self.keys.pairs());
    }

    /// The changes that are kept.
    pub fn stored(&self) -> &'t [Stored<'m>] {
        self.keys.stored()
    }

    /// Gives a bucket other than `key` its pairs.
    pub fn set(&mut self, bucket: &[u8], pairs: Vec<Pair>) {
        let place = BUCKETS.iter().position(|name| *name == bucket);
        if let Some(rows) = place.and_then(|at| self.others.get_mut(at)) {
            *rows = OwnedRows::new(pairs);
        }
    }

    /// Gives a bucket other than `key` more pairs.
    pub fn add(&mut self, bucket: &[u8], pairs: &[Pair]) {
        let place = BUCKETS.iter().position(|name| *name == bucket);
        if let Some(rows) = place.and_then(|at| self.others.get_mut(at)).filter(|_| !pairs.is_empty()) {
            *rows = OwnedRows::new([rows.pairs(), pairs].concat());
        }
    }

    /// Forgets a pair of the `key` bucket when it is written: for tests of what must notice it.
    #[doc(hidden)]
    pub fn lose(&mut self, row: u64) {
        self.keys.lose(row);
    }

    /// The pairs of the `key` bucket.
    pub fn pairs(&self) -> Pairs<'t, 'm> {
        self.keys.pairs()
    }

    /// The pairs of the buckets that lie in memory.
    pub fn others(&self) -> impl Iterator<Item = (&'static [u8], &[Pair])> {
        let all = BUCKETS.into_iter().zip(&self.others);
        all.filter(|(name, _)| *name != schema::KEY).map(|(name, rows)| (name, rows.pairs()))
    }

    /// All ten buckets for the writer.
    pub fn buckets(&self) -> Vec<Bucket<'_>> {
        let all = BUCKETS.into_iter().zip(&self.others);
        all.map(|(name, rows)| {
            let rows: &dyn Rows = if name == schema::KEY { &self.keys } else { rows };
            Bucket { name, rows }
        })
        .collect()
    }
}
