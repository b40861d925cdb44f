//! A block: the bytes of many pairs in the order of their revisions (docs/index-map.md, "Blocks of pairs").
//!
//! A row stores its differences from the row before it. So a reader starts at the first row, and holds one key at a
//! time. The bytes are untrusted: every length is checked. A row shares at most 255 bytes with others, so the rows
//! that a reader copies are bounded by the length of the block. Must not know tables.

use std::borrow::Cow;

use super::bytes::{Bytes, put_bytes, put_varint, unzigzag, zigzag};
use super::entry::{Entry, Origin};
use crate::error::{Error, Reason, Result};
use crate::ids::{Revision, V2Index};

/// Maximum size of a block in bytes, unless its only row is larger. A block with its page of redb then takes 16 KiB.
pub(super) const BLOCK_BYTES: usize = (16 << 10) - 64;

/// Bytes of the number of rows at the start of a block.
pub(super) const COUNT_BYTES: usize = 4;

const FROM_V2: u8 = 1;
const DIR: u8 = 2;
const DELETED: u8 = 4;
const SAME_NAME: u8 = 8;
const SAME_INDEX: u8 = 16;
const SUB: u8 = 32;

/// The row before a row.
#[derive(Debug, Default)]
struct Before {
    revision: u64,
    sub: u64,
    index: u64,
    key: Vec<u8>,
}

/// A writer of blocks.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    rows: u32,
    before: Before,
}

impl Writer {
    /// Creates a writer whose first block is empty.
    pub(super) fn new() -> Writer {
        Writer { bytes: vec![0; COUNT_BYTES], rows: 0, before: Before::default() }
    }

    /// Adds a row. If the block has no room for it, the row begins the next block, and the full block is returned.
    ///
    /// # Errors
    /// The row is not after the row before it ([`Reason::Internal`]).
    pub(super) fn push(&mut self, entry: &Entry<'_>) -> Result<Option<Vec<u8>>> {
        let place = (entry.revision.0.cast_unsigned(), entry.sub);
        if entry.revision.0 < 0 || self.rows > 0 && place <= (self.before.revision, self.before.sub) {
            return Err(Error::new(Reason::Internal, "expected pairs in the order of their revisions"));
        }
        let start = self.bytes.len();
        put_row(&mut self.bytes, &self.before, entry);
        let mut full = None;
        if self.rows > 0 && self.bytes.len() > BLOCK_BYTES {
            self.bytes.truncate(start);
            full = self.finish();
            put_row(&mut self.bytes, &self.before, entry);
        }
        self.rows += 1;
        (self.before.revision, self.before.sub) = place;
        self.before.index = entry.node.as_ref().map_or(self.before.index, |node| node.index.0);
        self.before.key.clear();
        self.before.key.extend_from_slice(&entry.key);
        Ok(full)
    }

    /// Ends the block, and begins the next. Returns `None` for a block without rows.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        let Writer { mut bytes, rows, .. } = std::mem::replace(self, Writer::new());
        bytes.get_mut(..COUNT_BYTES)?.copy_from_slice(&rows.to_le_bytes());
        (rows > 0).then_some(bytes)
    }
}

fn put_row(out: &mut Vec<u8>, before: &Before, entry: &Entry<'_>) {
    let revision = entry.revision.0.cast_unsigned();
    let mut flags = if entry.deleted { DELETED } else { 0 };
    flags |= if entry.sub > 0 { SUB } else { 0 };
    if let Some(node) = &entry.node {
        flags |= FROM_V2 | if node.dir { DIR } else { 0 };
        flags |= if node.key == entry.key { SAME_NAME } else { 0 };
        flags |= if node.index.0 == revision { SAME_INDEX } else { 0 };
    }
    out.push(flags);
    put_varint(out, revision.wrapping_sub(before.revision));
    if entry.sub > 0 {
        put_varint(out, entry.sub);
    }
    let shared = shared_start(&before.key, &entry.key);
    out.push(shared);
    put_bytes(out, entry.key.get(usize::from(shared)..).unwrap_or_default());
    let Some(node) = &entry.node else { return };
    if flags & SAME_INDEX == 0 {
        put_varint(out, zigzag(node.index.0.wrapping_sub(before.index)));
    }
    if flags & SAME_NAME == 0 {
        let shared = shared_end(&entry.key, &node.key);
        out.push(shared);
        put_bytes(out, node.key.get(..node.key.len() - usize::from(shared)).unwrap_or_default());
    }
}

/// Counts the equal bytes at the start, at most 255.
fn shared_start(one: &[u8], two: &[u8]) -> u8 {
    let mut words = one.as_chunks::<8>().0.iter().zip(two.as_chunks::<8>().0);
    let equal = 8 * words.position(|(one, two)| one != two).unwrap_or_else(|| one.len().min(two.len()) / 8);
    let rest = one.iter().zip(two).skip(equal);
    count(equal + rest.take_while(|(one, two)| one == two).count())
}

/// Counts the equal bytes at the end, at most 255.
fn shared_end(one: &[u8], two: &[u8]) -> u8 {
    count(one.iter().rev().zip(two.iter().rev()).take_while(|(one, two)| one == two).count())
}

fn count(equal: usize) -> u8 {
    u8::try_from(equal).unwrap_or(u8::MAX)
}

/// A reader of the rows of a block.
#[derive(Debug)]
pub(super) struct Rows<'b> {
    bytes: Bytes<'b>,
    left: u32,
    before: Before,
    v2_key: Vec<u8>,
}

impl<'b> Rows<'b> {
    /// Begins to read a block.
    ///
    /// # Errors
    /// [`Reason::Damaged`].
    pub(super) fn new(block: &'b [u8]) -> Result<Rows<'b>> {
        let mut bytes = Bytes(block);
        let left = bytes.u32().ok_or_else(damaged)?;
        Ok(Rows { bytes, left, before: Before::default(), v2_key: Vec::new() })
    }

    /// Reads the next row. Returns `None` at the end of the block.
    ///
    /// # Errors
    /// [`Reason::Damaged`].
    pub(super) fn next(&mut self) -> Result<Option<Entry<'_>>> {
        if self.left == 0 {
            return if self.bytes.0.is_empty() { Ok(None) } else { Err(damaged()) };
        }
        self.left -= 1;
        self.row().ok_or_else(damaged).map(Some)
    }

    fn row(&mut self) -> Option<Entry<'_>> {
        let Rows { bytes, before, v2_key, .. } = self;
        let flags = bytes.byte()?;
        if flags > FROM_V2 | DIR | DELETED | SAME_NAME | SAME_INDEX | SUB
            || flags & FROM_V2 == 0 && flags & (DIR | SAME_NAME | SAME_INDEX) != 0
        {
            return None;
        }
        before.revision = before.revision.checked_add(bytes.varint()?)?;
        before.sub = if flags & SUB != 0 { bytes.varint()? } else { 0 };
        let shared = usize::from(bytes.byte()?);
        if shared > before.key.len() {
            return None;
        }
        before.key.truncate(shared);
        before.key.extend_from_slice(bytes.bytes()?);
        let revision = Revision(i64::try_from(before.revision).ok()?);
        let mut node = None;
        if flags & FROM_V2 != 0 {
            before.index = match flags & SAME_INDEX {
                0 => before.index.wrapping_add(unzigzag(bytes.varint()?)),
                _ => before.revision,
            };
            let mut key = &before.key;
            if flags & SAME_NAME == 0 {
                let shared = before.key.len().checked_sub(bytes.byte()?.into())?;
                v2_key.clear();
                v2_key.extend_from_slice(bytes.bytes()?);
                v2_key.extend_from_slice(before.key.get(shared..)?);
                key = v2_key;
            }
            let (index, dir) = (V2Index(before.index), flags & DIR != 0);
            node = Some(Origin { index, key: Cow::Borrowed(key), dir });
        }
        let (sub, deleted, key) = (before.sub, flags & DELETED != 0, Cow::Borrowed(&*before.key));
        Some(Entry { revision, sub, deleted, key, node })
    }
}

fn damaged() -> Error {
    Error::new(Reason::Damaged, "expected a block of pairs, found other bytes")
}
