//! The `key` bucket as rows for the bbolt writer: each planned row encoded straight from the node it comes from.
//!
//! FORMATS section 9.2. Sizes follow from lengths alone, so pages are laid out before a value is unescaped. Knows the plan
//! and the encoding; the pages are the writer's matter.

use super::key_value::key_value_len;
use super::revision::{REVISION_LEN, RevisionKey};
use crate::bolt::Rows;
use crate::error::{Error, Reason, Result};
use crate::transform::order::Pairs;
use crate::transform::plan::Row;
use crate::wire::Writer;

/// The pairs of the `key` bucket.
#[derive(Debug)]
pub struct KeyRows<'t, 'm> {
    pairs: Pairs<'t, 'm>,
    /// A row that is forgotten; only tests ask for that.
    lost: Option<u64>,
}

impl<'t, 'm> KeyRows<'t, 'm> {
    /// These pairs.
    pub fn new(pairs: Pairs<'t, 'm>) -> Self {
        KeyRows { pairs, lost: None }
    }

    /// Forgets a row, as a fault in the writer would: for tests of what must notice it.
    pub(super) fn lose(&mut self, row: u64) {
        self.lost = Some(row).filter(|row| *row < self.len());
    }

    /// What is encoded.
    pub fn pairs(&self) -> Pairs<'t, 'm> {
        self.pairs
    }

    fn row(&self, row: u64) -> Option<&Row> {
        let row = row + u64::from(self.lost.is_some_and(|lost| row >= lost));
        self.pairs.ordered.rows.get(usize::try_from(row).ok()?)
    }

    fn encode_value(&self, row: &Row, out: &mut [u8]) -> Result<()> {
        let pairs = &self.pairs;
        let mut writer = Writer::new(out);
        if !pairs.copy_key(row, writer.bytes_field(1, pairs.key_len(row))?) {
            return Err(changed());
        }
        writer.varint_field(2, pairs.create(row).0.cast_unsigned())?;
        writer.varint_field(3, row.main.0.cast_unsigned())?;
        writer.varint_field(4, pairs.version(row).cast_unsigned())?;
        if !pairs.copy_value(row, writer.bytes_field(5, pairs.value_len(row))?) {
            return Err(changed());
        }
        writer.varint_field(6, pairs.ordered.lease(row).0.cast_unsigned())?;
        writer.finish()
    }
}

impl Rows for KeyRows<'_, '_> {
    fn len(&self) -> u64 {
        self.pairs.ordered.rows.len() as u64 - u64::from(self.lost.is_some())
    }

    fn key_len(&self, _: u64) -> u32 {
        REVISION_LEN
    }

    fn value_len(&self, row: u64) -> u32 {
        let Some(row) = self.row(row) else { return 0 };
        let pairs = &self.pairs;
        let (key, value) = (pairs.key_len(row), pairs.value_len(row));
        let lease = pairs.ordered.lease(row);
        let len = key_value_len(key, value, pairs.create(row), row.main, pairs.version(row), lease);
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    fn encode(&self, row: u64, key: &mut [u8], value: &mut [u8]) -> Result<()> {
        self.encode_key(row, key)?;
        self.encode_value(self.row(row).ok_or_else(changed)?, value)
    }

    fn encode_key(&self, row: u64, key: &mut [u8]) -> Result<()> {
        let row = self.row(row).ok_or_else(changed)?;
        let bytes = RevisionKey::put(row.main, i64::from(row.sub)).to_bytes();
        if key.len() != bytes.len() {
            return Err(changed());
        }
        key.copy_from_slice(&bytes);
        Ok(())
    }
}

fn changed() -> Error {
    Error::new(Reason::Internal, "a node does not have the length that it was laid out with")
}
