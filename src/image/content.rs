//! The content of a database: the pairs of every bucket, ready for the writer.
//!
//! docs/formats.md section 9.1. The `key` bucket is encoded from the tree while it is written; the other buckets are
//! small and in memory. Must not know pages.

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
    /// Creates a content with these keys and their leases, and `meta`.
    ///
    /// # Errors
    /// [`Reason::Internal`](crate::error::Reason::Internal) for a wrong size computation, which cannot happen.
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

    /// Puts preserved changes before all others. The caller guarantees that their revisions are lower.
    pub fn preserve(&mut self, stored: &'t [Stored<'m>]) {
        self.keys = KeyRows::new(stored, self.keys.pairs());
    }

    /// Returns the preserved changes.
    pub fn stored(&self) -> &'t [Stored<'m>] {
        self.keys.stored()
    }

    /// Sets the pairs of a bucket other than `key`.
    pub fn set(&mut self, bucket: &[u8], pairs: Vec<Pair>) {
        let place = BUCKETS.iter().position(|name| *name == bucket);
        if let Some(rows) = place.and_then(|at| self.others.get_mut(at)) {
            *rows = OwnedRows::new(pairs);
        }
    }

    /// Adds pairs to a bucket other than `key`.
    pub fn add(&mut self, bucket: &[u8], pairs: &[Pair]) {
        let place = BUCKETS.iter().position(|name| *name == bucket);
        if let Some(rows) = place.and_then(|at| self.others.get_mut(at)).filter(|_| !pairs.is_empty()) {
            *rows = OwnedRows::new([rows.pairs(), pairs].concat());
        }
    }

    /// Drops a pair of the `key` bucket from the output, for tests of the checks that must detect it.
    #[doc(hidden)]
    pub fn lose(&mut self, row: u64) {
        self.keys.lose(row);
    }

    /// Returns the pairs of the `key` bucket.
    pub fn pairs(&self) -> Pairs<'t, 'm> {
        self.keys.pairs()
    }

    /// Returns the pairs of the buckets in memory.
    pub fn others(&self) -> impl Iterator<Item = (&'static [u8], &[Pair])> {
        let all = BUCKETS.into_iter().zip(&self.others);
        all.filter(|(name, _)| *name != schema::KEY).map(|(name, rows)| (name, rows.pairs()))
    }

    /// Returns all ten buckets for the writer.
    pub fn buckets(&self) -> Vec<Bucket<'_>> {
        let all = BUCKETS.into_iter().zip(&self.others);
        all.map(|(name, rows)| {
            let rows: &dyn Rows = if name == schema::KEY { &self.keys } else { rows };
            Bucket { name, rows }
        })
        .collect()
    }
}
