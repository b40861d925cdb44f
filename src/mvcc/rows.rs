//! The `key` bucket as rows for the bbolt writer: each planned row encoded straight from the node it comes from.
//!
//! FORMATS section 9.2. Sizes follow from lengths alone, so pages are laid out before a value is unescaped. Knows the plan
//! and the encoding; the pages are the writer's matter.

use super::key_value::key_value_len;
use super::revision::{REVISION_LEN, RevisionKey};
use crate::bolt::Rows;
use crate::error::{Error, Reason, Result};
use crate::ids::{LeaseId, Revision};
use crate::transform::order::Ordered;
use crate::transform::plan::{NAMESPACE, Row};
use crate::v2store::overlay::Tree;
use crate::wire::Writer;

/// The pairs of the `key` bucket.
#[derive(Debug)]
pub struct KeyRows<'t, 'm> {
    tree: &'t Tree<'m>,
    ordered: &'t Ordered,
}

/// Every key is written once: v2 does not know how often it changed.
const VERSION: i64 = 1;

impl<'t, 'm> KeyRows<'t, 'm> {
    /// The pairs of these rows of this tree.
    pub fn new(tree: &'t Tree<'m>, ordered: &'t Ordered) -> Self {
        KeyRows { tree, ordered }
    }

    fn row(&self, row: u64) -> Option<&Row> {
        self.ordered.rows.get(usize::try_from(row).ok()?)
    }

    fn user_key_len(&self, row: &Row) -> usize {
        self.tree.path_len(row.node).saturating_sub(NAMESPACE.len()) + usize::from(row.marker)
    }

    fn user_value_len(&self, row: &Row) -> usize {
        if row.marker { 0 } else { self.tree.value_len(row.node) }
    }

    fn encode_value(&self, row: &Row, out: &mut [u8]) -> Result<()> {
        let mut writer = Writer::new(out);
        let mut key = writer.bytes_field(1, self.user_key_len(row))?;
        if row.marker {
            let (slash, path) = key.split_last_mut().ok_or_else(changed)?;
            *slash = b'/';
            key = path;
        }
        if !self.tree.copy_path(row.node, NAMESPACE.len(), key) {
            return Err(changed());
        }
        writer.varint_field(2, self.create(row).0.cast_unsigned())?;
        writer.varint_field(3, row.main.0.cast_unsigned())?;
        writer.varint_field(4, VERSION.cast_unsigned())?;
        let value = writer.bytes_field(5, self.user_value_len(row))?;
        if !row.marker && !self.tree.copy_value(row.node, value) {
            return Err(changed());
        }
        writer.finish()
    }

    fn create(&self, row: &Row) -> Revision {
        self.ordered.create(self.tree, row)
    }
}

impl Rows for KeyRows<'_, '_> {
    fn len(&self) -> u64 {
        self.ordered.rows.len() as u64
    }

    fn key_len(&self, _: u64) -> u32 {
        REVISION_LEN
    }

    fn value_len(&self, row: u64) -> u32 {
        let Some(row) = self.row(row) else { return 0 };
        let (key, value) = (self.user_key_len(row), self.user_value_len(row));
        let len = key_value_len(key, value, self.create(row), row.main, VERSION, LeaseId(0));
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
