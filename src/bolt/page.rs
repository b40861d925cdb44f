//! Leaf pages: the elements, keys and values of a range of rows, in the form that `layout` and `emit` both write.
//!
//! docs/formats.md sections 8.1 and 8.4. Must not know where a page is placed.

use super::format::{FLAG_LEAF, LeafElement, MAX_COUNT, PageHeader};
use super::rows::{Rows, wrong_rows};
use crate::error::{Error, Reason, Result};
use crate::ids::PageId;

/// Encodes the leaf page of an inline bucket; `page` has exactly its size.
pub(super) fn inline_page(rows: &dyn Rows, page: &mut [u8]) -> Result<()> {
    let header = PageHeader { id: PageId(0), flags: FLAG_LEAF, count: 0, overflow: 0 };
    leaf_page(page, header, rows, 0..rows.len(), 0, None)?;
    Ok(())
}

/// Encodes `range` of `rows` as a leaf page that fills `page`, and sets `header.count`. Returns the last key.
pub(super) fn leaf_page<'o>(
    page: &'o mut [u8],
    header: PageHeader,
    rows: &dyn Rows,
    range: std::ops::Range<u64>,
    flags: u32,
    before: Option<&[u8]>,
) -> Result<Option<&'o [u8]>> {
    let count = element_count(&range)?;
    let (head, body) = page.split_first_chunk_mut::<16>().ok_or_else(wrong_rows)?;
    *head = PageHeader { count, ..header }.encode();
    let (elements, mut data) = body.split_at_mut_checked(usize::from(count) * 16).ok_or_else(wrong_rows)?;
    let mut pos = u32::from(count) * 16;
    let mut last: Option<&'o [u8]> = None;
    for (element, row) in elements.as_chunks_mut::<16>().0.iter_mut().zip(range) {
        let (key_len, value_len) = (rows.key_len(row), rows.value_len(row));
        let (key, rest) = std::mem::take(&mut data).split_at_mut_checked(len(key_len)?).ok_or_else(wrong_rows)?;
        let (value, rest) = rest.split_at_mut_checked(len(value_len)?).ok_or_else(wrong_rows)?;
        rows.encode(row, key, value)?;
        if last.or(before).is_some_and(|last| last >= &*key) {
            return Err(Error::new(Reason::Internal, format!("row {row}: the keys do not ascend")));
        }
        *element = LeafElement { flags, pos, key_len, value_len }.encode();
        pos =
            pos.checked_add(key_len).and_then(|p| p.checked_add(value_len)).ok_or_else(wrong_rows)?.saturating_sub(16);
        last = Some(key);
        data = rest;
    }
    data.fill(0);
    Ok(last)
}

pub(super) fn element_count(range: &std::ops::Range<u64>) -> Result<u16> {
    let count = range.end.saturating_sub(range.start);
    u16::try_from(count).ok().filter(|_| count < MAX_COUNT).ok_or_else(wrong_rows)
}

pub(super) fn len(len: u32) -> Result<usize> {
    usize::try_from(len).map_err(|_| wrong_rows())
}
