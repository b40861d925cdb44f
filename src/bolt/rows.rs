//! The input of the writer for a bucket: sorted pairs whose sizes are known without encoding.
//!
//! docs/formats.md section 8.4 has the limits, which `layout` checks. A source of pairs implements [`Rows`]; small
//! buckets in memory use [`OwnedRows`]. Must not know pages.

use crate::error::{Error, Reason, Result};

/// The pairs of one bucket, in strictly ascending byte order of their keys, with sizes known before encoding.
///
/// Rows are numbered from 0. Every method receives a row below [`Rows::len`] only.
pub trait Rows: Sync {
    /// Returns the number of pairs.
    fn len(&self) -> u64;

    /// Returns whether there are no pairs.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the length of a row's key in bytes, at least 1.
    fn key_len(&self, row: u64) -> u32;

    /// Returns the length of a row's value in bytes.
    fn value_len(&self, row: u64) -> u32;

    /// Returns the lengths of key and value of consecutive rows, in bytes.
    fn sizes(&self, rows: std::ops::Range<u64>) -> Vec<(u32, u32)> {
        rows.map(|row| (self.key_len(row), self.value_len(row))).collect()
    }

    /// Prefetches consecutive rows, which are encoded next. It only saves time. The writer calls it once for each row in a leaf
    /// page, before it encodes the row. It does not call it for the rows of an inline bucket.
    fn read_ahead(&self, _rows: std::ops::Range<u64>) {}

    /// Encodes a row into buffers of exactly its lengths. The previous content of the buffers is arbitrary.
    ///
    /// # Errors
    /// The row does not have the announced lengths, or its source cannot be read.
    fn encode(&self, row: u64, key: &mut [u8], value: &mut [u8]) -> Result<()>;

    /// Encodes only the key of a row (branch pages repeat the first key of each child).
    ///
    /// # Errors
    /// The key does not have the announced length, or its source cannot be read.
    fn encode_key(&self, row: u64, key: &mut [u8]) -> Result<()>;
}

/// A bucket to write: its name and its pairs.
#[derive(Clone, Copy)]
pub struct Bucket<'a> {
    /// The name, not empty.
    pub name: &'a [u8],
    /// The pairs.
    pub rows: &'a dyn Rows,
}

/// The pairs of a small bucket, in memory and sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedRows(Vec<(Vec<u8>, Vec<u8>)>);

impl OwnedRows {
    /// Sorts pairs by key.
    pub fn new(mut pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        pairs.sort_unstable();
        OwnedRows(pairs)
    }

    /// Returns the pairs in key order.
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
        return Err(Error::new(Reason::Internal, "expected a row of the length in the layout, found another"));
    }
    to.copy_from_slice(from);
    Ok(())
}

fn no_such_row() -> Error {
    Error::new(Reason::Internal, "expected the number of an existing row, found another")
}

/// Returns the error for rows that differ from those of the layout.
pub(super) fn wrong_rows() -> Error {
    Error::new(Reason::Internal, "expected the rows of the layout, found others")
}
