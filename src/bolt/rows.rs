//! What the writer needs of a bucket: sorted pairs whose sizes are known without encoding them.
//!
//! docs/formats.md section 8.4 gives the limits, which `layout` checks. Must not know pages. Whoever has pairs to store
//! implements [`Rows`]; small buckets that lie in memory anyway are [`OwnedRows`].

use crate::error::{Error, Reason, Result};

/// The pairs of one bucket, in strictly ascending byte order of their keys; sizes are known without encoding.
///
/// Rows are numbered from 0. Every method is called with a row below [`Rows::len`] only.
pub trait Rows: Sync {
    /// How many pairs there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of a row's key: at least 1.
    fn key_len(&self, row: u64) -> u32;

    /// Bytes of a row's value.
    fn value_len(&self, row: u64) -> u32;

    /// Encodes a row into buffers of exactly its lengths. What the buffers hold before is arbitrary.
    ///
    /// # Errors
    /// The row does not have the lengths it claims, or its source cannot be read.
    fn encode(&self, row: u64, key: &mut [u8], value: &mut [u8]) -> Result<()>;

    /// Encodes a row's key alone (branch pages repeat the first key of each child).
    ///
    /// # Errors
    /// The key does not have the length it claims, or its source cannot be read.
    fn encode_key(&self, row: u64, key: &mut [u8]) -> Result<()>;
}

/// A bucket to be written: its name and its pairs.
#[derive(Clone, Copy)]
pub struct Bucket<'a> {
    /// Its name, not empty.
    pub name: &'a [u8],
    /// Its pairs.
    pub rows: &'a dyn Rows,
}

/// Pairs of a small bucket, in memory and sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedRows(Vec<(Vec<u8>, Vec<u8>)>);

impl OwnedRows {
    /// Takes pairs in any order and sorts them by key.
    pub fn new(mut pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        pairs.sort_unstable();
        OwnedRows(pairs)
    }

    /// The pairs in key order.
    pub fn pairs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.0
    }

    fn row(&self, row: u64) -> Option<&(Vec<u8>, Vec<u8>)> {
        usize::try_from(row).ok().and_then(|row| self.0.get(row))
    }
}

impl Rows for OwnedRows {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn key_len(&self, row: u64) -> u32 {
        self.row(row).map_or(0, |(key, _)| u32::try_from(key.len()).unwrap_or(u32::MAX))
    }

    fn value_len(&self, row: u64) -> u32 {
        self.row(row).map_or(0, |(_, value)| u32::try_from(value.len()).unwrap_or(u32::MAX))
    }

    fn encode(&self, row: u64, key: &mut [u8], value: &mut [u8]) -> Result<()> {
        let pair = self.row(row).ok_or_else(no_such_row)?;
        copy(&pair.0, key)?;
        copy(&pair.1, value)
    }

    fn encode_key(&self, row: u64, key: &mut [u8]) -> Result<()> {
        copy(&self.row(row).ok_or_else(no_such_row)?.0, key)
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> Result<()> {
    if from.len() != to.len() {
        return Err(Error::new(Reason::Internal, "a row does not have the length that it was laid out with"));
    }
    to.copy_from_slice(from);
    Ok(())
}

fn no_such_row() -> Error {
    Error::new(Reason::Internal, "a row was asked for that does not exist")
}

/// The rows given to `emit` are not those that were laid out.
pub(super) fn wrong_rows() -> Error {
    Error::new(Reason::Internal, "the rows are not those that the file was laid out for")
}
