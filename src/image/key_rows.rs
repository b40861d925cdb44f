//! The `key` bucket as rows for the bbolt writer: the preserved changes, then each planned row, encoded directly from
//! its node.
//!
//! docs/formats.md section 9.2. Sizes depend on lengths alone, so pages are laid out before any value is decoded. Knows
//! the plan and the encoding. Must not know pages.

use crate::bolt::Rows;
use crate::error::{Error, Reason, Result};
use crate::mvcc::{REVISION_LEN, RevisionKey, key_value_len};
use crate::transform::plan::Row;
use crate::transform::revisions::Pairs;
use crate::wire::Writer;

/// A preserved pair of the `key` bucket of an earlier database, byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'m> {
    /// The revision, and the mark of a deletion: 17 or 18 bytes.
    pub key: &'m [u8],
    /// The stored `KeyValue`.
    pub value: &'m [u8],
}

/// The pairs of the `key` bucket.
#[derive(Debug)]
pub struct KeyRows<'t, 'm> {
    /// The preserved changes, in the order of their revisions, all below those of `pairs`.
    stored: &'t [Stored<'m>],
    pairs: Pairs<'t, 'm>,
    /// A row to drop, in tests only.
    lost: Option<u64>,
}

impl<'t, 'm> KeyRows<'t, 'm> {
    /// Creates rows with these pairs after the preserved changes.
    pub fn new(stored: &'t [Stored<'m>], pairs: Pairs<'t, 'm>) -> Self {
        KeyRows { stored, pairs, lost: None }
    }

    /// Drops a row, as a fault in the writer would, for tests of the checks that must detect it.
    pub(super) fn lose(&mut self, row: u64) {
        self.lost = Some(row).filter(|row| *row < self.len());
    }

    /// Returns the planned pairs.
    pub fn pairs(&self) -> Pairs<'t, 'm> {
        self.pairs
    }

    /// Returns the preserved changes.
    pub fn stored(&self) -> &'t [Stored<'m>] {
        self.stored
    }

    fn at(&self, row: u64) -> Option<At<'t, 'm>> {
        let row = row + u64::from(self.lost.is_some_and(|lost| row >= lost));
        let row = usize::try_from(row).ok()?;
        match row.checked_sub(self.stored.len()) {
            None => self.stored.get(row).copied().map(At::Stored),
            Some(row) => self.pairs.ordered.rows.get(row).map(At::Planned),
        }
    }

    /// Returns the planned rows among some rows.
    fn planned(&self, rows: &std::ops::Range<u64>) -> std::ops::Range<usize> {
        let place = |row: u64| usize::try_from(row.saturating_sub(self.stored.len() as u64)).unwrap_or(usize::MAX);
        place(rows.start)..place(rows.end)
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

/// The content of a row.
enum At<'t, 'm> {
    Stored(Stored<'m>),
    Planned(&'t Row),
}

impl Rows for KeyRows<'_, '_> {
    fn len(&self) -> u64 {
        (self.stored.len() + self.pairs.ordered.rows.len()) as u64 - u64::from(self.lost.is_some())
    }

    fn key_len(&self, row: u64) -> u32 {
        // Most databases have no preserved changes.
        let preserved = if self.stored.is_empty() { None } else { self.at(row) };
        match preserved {
            Some(At::Stored(stored)) => u32::try_from(stored.key.len()).unwrap_or(u32::MAX),
            _ => REVISION_LEN,
        }
    }

    fn value_len(&self, row: u64) -> u32 {
        let row = match self.at(row) {
            None => return 0,
            Some(At::Stored(stored)) => return u32::try_from(stored.value.len()).unwrap_or(u32::MAX),
            Some(At::Planned(row)) => row,
        };
        let pairs = &self.pairs;
        let (key, value) = (pairs.key_len(row), pairs.value_len(row));
        let lease = pairs.ordered.lease(row);
        let len = key_value_len(key, value, pairs.create(row), row.main, pairs.version(row), lease);
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    fn sizes(&self, rows: std::ops::Range<u64>) -> Vec<(u32, u32)> {
        self.pairs.read_nodes_ahead(self.planned(&rows));
        rows.map(|row| (self.key_len(row), self.value_len(row))).collect()
    }

    fn read_ahead(&self, rows: std::ops::Range<u64>) {
        self.pairs.read_ahead(self.planned(&rows));
    }

    fn encode(&self, row: u64, key: &mut [u8], value: &mut [u8]) -> Result<()> {
        self.encode_key(row, key)?;
        match self.at(row).ok_or_else(changed)? {
            At::Stored(stored) => copy(stored.value, value),
            At::Planned(row) => self.encode_value(row, value),
        }
    }

    fn encode_key(&self, row: u64, key: &mut [u8]) -> Result<()> {
        match self.at(row).ok_or_else(changed)? {
            At::Stored(stored) => copy(stored.key, key),
            At::Planned(row) => copy(&RevisionKey::put(row.main, i64::from(row.sub)).to_bytes(), key),
        }
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> Result<()> {
    if from.len() != to.len() {
        return Err(changed());
    }
    to.copy_from_slice(from);
    Ok(())
}

fn changed() -> Error {
    Error::new(Reason::Internal, "expected a node of the length in the layout, found another")
}
