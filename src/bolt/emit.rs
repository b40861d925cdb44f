//! Phase two of the two-phase writer: encodes any range of the pages that `layout` placed.
//!
//! docs/formats.md sections 8.1, 8.2, 8.4, 8.5 and 8.7. An extent depends only on the layout and the rows. So extents
//! can be encoded in parallel and in any order, with equal bytes. The meta pages are encoded separately and written
//! last, because they make the file complete. Must not know threads or files.

use super::format::{
    BranchElement, BucketHeader, FLAG_BRANCH, FLAG_LEAF, FLAG_META, FREELIST_ABSENT, MAGIC, Meta, PAGE_SIZE,
    PageHeader, VERSION,
};
use super::layout::{Layout, Node, RootRows, Tree};
use super::page::{element_count, leaf_page, len};
use super::rows::{Bucket, Rows, wrong_rows};
use crate::error::Result;
use crate::ids::PageId;

/// Number of leaf pages whose rows are read ahead at once.
const AHEAD_LEAVES: usize = 8;

/// Length of both meta pages in bytes.
pub const META_PAGES_LEN: usize = 2 * PAGE_SIZE as usize;

/// A range of pages that is encoded as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first page.
    pub first: PageId,
    /// The number of pages.
    pub pages: u64,
}

impl Extent {
    /// Returns the offset in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.first.0 * u64::from(PAGE_SIZE)
    }

    /// Returns the length in bytes.
    pub fn byte_len(&self) -> u64 {
        self.pages * u64::from(PAGE_SIZE)
    }
}

impl Layout {
    /// Divides all pages after the meta pages into extents of about `target_bytes`, in file order and without gaps. An
    /// extent is longer only if a single value is.
    pub fn extents(&self, target_bytes: u64) -> Vec<Extent> {
        let target = (target_bytes / u64::from(PAGE_SIZE)).max(1);
        let mut extents: Vec<Extent> = Vec::new();
        let nodes = self.levels().flat_map(|(_, tree, level)| tree.level(level));
        for node in nodes {
            match extents.last_mut().filter(|extent| extent.pages + node.pages() <= target) {
                Some(extent) => extent.pages += node.pages(),
                None => extents.push(Extent { first: node.page, pages: node.pages() }),
            }
        }
        extents
    }
}

/// Encodes the pages of `extent` into `out`, which has a length of [`Extent::byte_len`]; every byte of it is written.
///
/// `layout` must be made for these `buckets`, and `extent` by [`Layout::extents`].
///
/// # Errors
/// `Reason::Internal` if the rows differ from those of the layout or are not in strictly ascending order; the rows
/// cannot be encoded.
pub fn emit(layout: &Layout, buckets: &[Bucket<'_>], extent: &Extent, out: &mut [u8]) -> Result<()> {
    if out.len() as u64 != extent.byte_len() || buckets.len() != layout.buckets.len() {
        return Err(wrong_rows());
    }
    let root_rows = RootRows { buckets, placements: &layout.buckets };
    let end = extent.first.0 + extent.pages;
    let mut next = extent.first.0;
    let mut out = out;
    for (owner, tree, level) in layout.levels() {
        let nodes = tree.level(level);
        let after = nodes.last().map_or(0, |node| node.page.0 + node.pages());
        if next >= after || next >= end {
            continue;
        }
        let (rows, flags): (&dyn Rows, u32) = match owner {
            Some(bucket) => (buckets.get(bucket).ok_or_else(wrong_rows)?.rows, 0),
            None => (&root_rows, RootRows::FLAGS),
        };
        if rows.len() != tree.rows() {
            return Err(wrong_rows());
        }
        let first = nodes.partition_point(|node| node.page.0 < next);
        let run = Run { tree, level, rows, flags };
        (next, out) = run.encode(first, next, end, out)?;
    }
    if next == end { Ok(()) } else { Err(wrong_rows()) }
}

/// Encodes both meta pages: page 0 with transaction 0, page 1 with transaction 1, otherwise equal.
pub fn meta_pages(layout: &Layout) -> [u8; META_PAGES_LEN] {
    let mut pages = [0; META_PAGES_LEN];
    for (page, id) in pages.as_chunks_mut::<{ PAGE_SIZE as usize }>().0.iter_mut().zip(0..) {
        let header = PageHeader { id: PageId(id), flags: FLAG_META, count: 0, overflow: 0 };
        let meta = Meta {
            magic: MAGIC,
            version: VERSION,
            page_size: PAGE_SIZE,
            flags: 0,
            root: BucketHeader { root: layout.root(), sequence: 0 },
            freelist: FREELIST_ABSENT,
            hwm: layout.hwm(),
            txid: id,
        };
        let bytes = header.encode().into_iter().chain(meta.encode());
        page.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }
    pages
}

/// Encodes the whole file in memory, for small databases and tests.
///
/// # Errors
/// As [`super::layout()`] and [`emit`].
pub fn image(buckets: &[Bucket<'_>]) -> Result<Vec<u8>> {
    let layout = super::layout(buckets)?;
    let mut file = meta_pages(&layout).to_vec();
    for extent in layout.extents(u64::MAX) {
        let start = file.len();
        let len = usize::try_from(extent.byte_len()).map_err(|_| wrong_rows())?;
        file.resize(start + len, 0);
        emit(&layout, buckets, &extent, file.get_mut(start..).ok_or_else(wrong_rows)?)?;
    }
    Ok(file)
}

/// Consecutive pages of one level of one tree.
struct Run<'r> {
    tree: &'r Tree,
    level: usize,
    rows: &'r dyn Rows,
    flags: u32,
}

impl Run<'_> {
    /// Encodes nodes from number `first` at page `next` on, until the end of the level or of the extent (`end`).
    fn encode<'o>(&self, first: usize, mut next: u64, end: u64, mut out: &'o mut [u8]) -> Result<(u64, &'o mut [u8])> {
        let mut last_key = LastKey::None;
        for (number, node) in self.tree.level(self.level).iter().enumerate().skip(first) {
            if next >= end {
                break;
            }
            let len = usize::try_from(node.pages() * u64::from(PAGE_SIZE)).map_err(|_| wrong_rows())?;
            let (page, rest) = std::mem::take(&mut out).split_at_mut_checked(len).ok_or_else(wrong_rows)?;
            if node.page.0 != next {
                return Err(wrong_rows());
            }
            if self.level == 0 {
                if number == first {
                    last_key = self.key_before(number)?;
                }
                if (number - first).is_multiple_of(AHEAD_LEAVES) {
                    self.read_ahead(number, end);
                }
                last_key = self.leaf(number, node, page, last_key.bytes())?;
            } else {
                self.branch(number, node, page)?;
            }
            next += node.pages();
            out = rest;
        }
        Ok((next, out))
    }

    /// Reads the rows of the next leaves ahead, up to the end of the extent.
    fn read_ahead(&self, number: usize, end: u64) {
        let leaves = self.tree.level(0).iter().skip(number).take(AHEAD_LEAVES);
        let count = leaves.take_while(|leaf| leaf.page.0 < end).count();
        if let Some(last) = (number + count).checked_sub(1) {
            self.rows.read_ahead(self.tree.holds(0, number).start..self.tree.holds(0, last).end);
        }
    }

    /// Returns the last key of the leaf before leaf `number`, which is in another extent.
    fn key_before(&self, number: usize) -> Result<LastKey<'static>> {
        match self.tree.holds(0, number).start.checked_sub(1) {
            None => Ok(LastKey::None),
            Some(row) => {
                let mut key = vec![0; len(self.rows.key_len(row))?];
                self.rows.encode_key(row, &mut key)?;
                Ok(LastKey::Owned(key))
            }
        }
    }

    fn leaf<'o>(&self, number: usize, node: &Node, page: &'o mut [u8], before: Option<&[u8]>) -> Result<LastKey<'o>> {
        let header = PageHeader { id: node.page, flags: FLAG_LEAF, count: 0, overflow: node.overflow };
        let last = leaf_page(page, header, self.rows, self.tree.holds(0, number), self.flags, before)?;
        Ok(last.map_or(LastKey::None, LastKey::Borrowed))
    }

    fn branch(&self, number: usize, node: &Node, page: &mut [u8]) -> Result<()> {
        let children = self.tree.holds(self.level, number);
        let count = element_count(&children)?;
        let (header, body) = page.split_first_chunk_mut::<16>().ok_or_else(wrong_rows)?;
        *header = PageHeader { id: node.page, flags: FLAG_BRANCH, count, overflow: node.overflow }.encode();
        let (elements, mut keys) = body.split_at_mut_checked(usize::from(count) * 16).ok_or_else(wrong_rows)?;
        let mut pos = u32::from(count) * 16;
        for (element, child) in elements.as_chunks_mut::<16>().0.iter_mut().zip(children) {
            let row = self.tree.first_row(self.level - 1, child);
            let below = self.tree.level(self.level - 1);
            let child = usize::try_from(child).ok().and_then(|child| below.get(child)).ok_or_else(wrong_rows)?;
            let key_len = self.rows.key_len(row);
            let (key, rest) = std::mem::take(&mut keys).split_at_mut_checked(len(key_len)?).ok_or_else(wrong_rows)?;
            self.rows.encode_key(row, key)?;
            *element = BranchElement { pos, key_len, page: child.page }.encode();
            pos = (pos + key_len).saturating_sub(16);
            keys = rest;
        }
        keys.fill(0);
        Ok(())
    }
}

/// The last encoded key, to compare the next one with.
enum LastKey<'a> {
    None,
    Owned(Vec<u8>),
    Borrowed(&'a [u8]),
}

impl LastKey<'_> {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            LastKey::None => None,
            LastKey::Owned(key) => Some(key),
            LastKey::Borrowed(key) => Some(key),
        }
    }
}
