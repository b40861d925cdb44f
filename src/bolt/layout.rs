//! Phase one of the two-phase writer: the position of every page, from sizes alone. It encodes no byte.
//!
//! docs/formats.md sections 8.4 to 8.7 and 8.10. One linear pass over each bucket fills leaves greedily up to exactly
//! the page size. Branch levels are added above them until one page remains. In the file, pages are in the order of
//! buckets. Each bucket has its leaves in key order, then its branch levels upwards. The tree of the root bucket, made
//! by the same code, comes last. So any range of pages can be encoded separately, in any order. Must not know what the
//! rows mean.

use std::ops::Range;

use rayon::prelude::*;

use super::format::{BUCKET_LEN, BucketHeader, ELEMENT_BUCKET, ELEMENT_LEN, HEADER_LEN, INLINE_SHARE, PAGE_SIZE};
use super::rows::{Bucket, Rows, wrong_rows};
use crate::error::{Error, Reason, Result};
use crate::ids::PageId;
use crate::limits::{MAX_BOLT_KEY, MAX_BOLT_VALUE};

/// Rows whose sizes are asked for at once, on all threads.
const SIZED_AT_ONCE: u64 = 1 << 16;

/// Rows whose sizes one thread asks for at once.
const SIZED_BY_ONE: usize = 1 << 10;

/// Page numbers 0 and 1 are the meta pages.
const FIRST_PAGE: u64 = 2;

/// The page layout of the future file: the rows and the position of every page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub(super) buckets: Vec<Placement>,
    pub(super) root: Tree,
    hwm: PageId,
}

/// Computes the layout of a file with these `buckets`, which must be in the order of their names.
///
/// # Errors
/// [`Reason::OutputFailed`] if a key or value is longer than bbolt allows; [`Reason::Internal`] if a key is empty or
/// the buckets are not in order. The order of the keys in a bucket is checked when they are encoded.
pub fn layout(buckets: &[Bucket<'_>]) -> Result<Layout> {
    if !buckets.is_sorted_by(|a, b| a.name < b.name) {
        return Err(Error::new(Reason::Internal, "expected buckets in the order of their names"));
    }
    let mut next = FIRST_PAGE;
    let mut placements = Vec::with_capacity(buckets.len());
    for bucket in buckets {
        let placement = Placement::new(bucket.rows, &mut next)
            .map_err(|e| e.context(format_args!("bucket {}", bucket.name.escape_ascii())))?;
        placements.push(placement);
    }
    let root = Tree::new(&RootRows { buckets, placements: &placements }, &mut next)?.0;
    Ok(Layout { buckets: placements, root, hwm: PageId(next) })
}

impl Layout {
    /// Returns the high-water mark: the number of the first page after the file.
    pub fn hwm(&self) -> PageId {
        self.hwm
    }

    /// Returns the exact length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.hwm.0 * u64::from(PAGE_SIZE)
    }

    /// Returns the root page of the root bucket.
    pub fn root(&self) -> PageId {
        self.root.root()
    }

    /// Returns every level of every tree in file order: its bucket (`None`: the root bucket), the tree, the level.
    pub(super) fn levels(&self) -> impl Iterator<Item = (Option<usize>, &Tree, usize)> {
        let trees = self.buckets.iter().enumerate().filter_map(|(i, placement)| match placement {
            Placement::Inline { .. } => None,
            Placement::Tree(tree) => Some((Some(i), tree)),
        });
        trees
            .chain(std::iter::once((None, &self.root)))
            .flat_map(|(owner, tree)| (0..tree.levels.len()).map(move |level| (owner, tree, level)))
    }
}

/// The place of a bucket's pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placement {
    /// In the bucket's own value in the root bucket: a page of this many bytes.
    Inline { page_len: u32 },
    /// In pages of their own.
    Tree(Tree),
}

impl Placement {
    fn new(rows: &dyn Rows, next: &mut u64) -> Result<Self> {
        let before = *next;
        let (tree, used) = Tree::new(rows, next)?;
        match u32::try_from(used) {
            Ok(page_len) if tree.is_one_leaf() && page_len <= PAGE_SIZE / INLINE_SHARE => {
                *next = before;
                Ok(Placement::Inline { page_len })
            }
            _ => Ok(Placement::Tree(tree)),
        }
    }

    fn value_len(&self) -> u32 {
        match self {
            Placement::Inline { page_len } => BUCKET_LEN + page_len,
            Placement::Tree(_) => BUCKET_LEN,
        }
    }
}

/// The pages of one bucket, level by level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    rows: u64,
    /// Leaves first, then each branch level; the last has one node, the root. Neither the tree nor a level is ever
    /// empty.
    levels: Vec<Vec<Node>>,
}

/// One page; the struct has 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    /// For a leaf, its first row; for a branch page, the number of its first child in the level below.
    pub(super) first: u64,
    pub(super) page: PageId,
    pub(super) overflow: u32,
}

impl Node {
    /// Reserves the pages for `used` bytes from `next` on.
    fn place(first: u64, used: u64, next: &mut u64) -> Result<Node> {
        let pages = used.div_ceil(u64::from(PAGE_SIZE)).max(1);
        let overflow = u32::try_from(pages - 1).map_err(|_| Error::new(Reason::Internal, "a page is too long"))?;
        let node = Node { first, page: PageId(*next), overflow };
        *next += pages;
        Ok(node)
    }

    /// Returns the number of its pages.
    pub(super) fn pages(&self) -> u64 {
        u64::from(self.overflow) + 1
    }
}

impl Tree {
    /// Returns the tree of `rows`, and the number of used bytes of its first leaf.
    fn new(rows: &dyn Rows, next: &mut u64) -> Result<(Tree, u64)> {
        let (leaves, used) = leaf_level(rows, next)?;
        let mut tree = Tree { rows: rows.len(), levels: vec![leaves] };
        while let Some(below) = tree.levels.last().filter(|level| level.len() > 1) {
            let level = branch_level(&tree, below.len(), rows, next)?;
            tree.levels.push(level);
        }
        Ok((tree, used))
    }

    fn is_one_leaf(&self) -> bool {
        matches!(self.levels.as_slice(), [leaves] if leaves.len() == 1)
    }

    /// Returns its root page.
    pub(super) fn root(&self) -> PageId {
        self.levels.last().and_then(|level| level.first()).map_or(PageId(0), |node| node.page)
    }

    /// Returns the number of rows it was made for.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the pages of one level; level 0 has the leaves.
    pub(super) fn level(&self, level: usize) -> &[Node] {
        self.levels.get(level).map_or(&[], Vec::as_slice)
    }

    /// Returns the content of a node: rows of a leaf, or numbers of children in the level below a branch page.
    pub(super) fn holds(&self, level: usize, node: usize) -> Range<u64> {
        let nodes = self.level(level);
        let after = if level == 0 { self.rows } else { self.level(level - 1).len() as u64 };
        let first = nodes.get(node).map_or(after, |n| n.first);
        first..nodes.get(node + 1).map_or(after, |n| n.first)
    }

    /// Returns the first row below a node of any level.
    pub(super) fn first_row(&self, mut level: usize, node: u64) -> u64 {
        let mut first = node;
        loop {
            first = usize::try_from(first).ok().and_then(|n| self.level(level).get(n)).map_or(self.rows, |n| n.first);
            if level == 0 {
                return first;
            }
            level -= 1;
        }
    }
}

/// Fills leaves greedily. Also returns the number of used bytes of the first one. Without rows there is one empty leaf.
fn leaf_level(rows: &dyn Rows, next: &mut u64) -> Result<(Vec<Node>, u64)> {
    let mut leaves = Vec::new();
    let (mut first, mut used, mut first_used) = (0, u64::from(HEADER_LEN), None);
    let mut sized = 0;
    while sized < rows.len() {
        let part = sized..rows.len().min(sized + SIZED_AT_ONCE);
        let starts: Vec<u64> = part.clone().step_by(SIZED_BY_ONE).collect();
        let of = |start: u64| rows.sizes(start..part.end.min(start + SIZED_BY_ONE as u64));
        let sizes: Vec<Vec<(u32, u32)>> = starts.into_par_iter().map(of).collect();
        for (row, (key_len, value_len)) in part.clone().zip(sizes.into_iter().flatten()) {
            if key_len == 0 || key_len > MAX_BOLT_KEY || value_len > MAX_BOLT_VALUE {
                return Err(wrong_size(row, key_len, value_len));
            }
            let size = u64::from(ELEMENT_LEN) + u64::from(key_len) + u64::from(value_len);
            if used + size > u64::from(PAGE_SIZE) && row > first {
                leaves.push(Node::place(first, used, next)?);
                first_used.get_or_insert(used);
                (first, used) = (row, u64::from(HEADER_LEN));
            }
            used += size;
        }
        sized = part.end;
    }
    leaves.push(Node::place(first, used, next)?);
    Ok((leaves, first_used.unwrap_or(used)))
}

/// Adds one branch level to the top level of `tree`, which has `children` nodes, at least two.
fn branch_level(tree: &Tree, children: usize, rows: &dyn Rows, next: &mut u64) -> Result<Vec<Node>> {
    let below = tree.levels.len() - 1;
    let size = |child: u64| u64::from(ELEMENT_LEN) + u64::from(rows.key_len(tree.first_row(below, child)));
    let children = children as u64;
    let mut starts = vec![0];
    let (mut first, mut used) = (0, u64::from(HEADER_LEN));
    for child in 0..children {
        let size = size(child);
        if used + size > u64::from(PAGE_SIZE) && child >= first + 2 {
            starts.push(child);
            (first, used) = (child, u64::from(HEADER_LEN));
        }
        used += size;
    }
    widen_last(&mut starts, children);
    let ends = starts.iter().skip(1).copied().chain(std::iter::once(children));
    let pages = starts.iter().zip(ends);
    pages
        .map(|(&start, end)| Node::place(start, u64::from(HEADER_LEN) + (start..end).map(size).sum::<u64>(), next))
        .collect()
}

/// Prevents a last branch page with one child: it takes one child from the page before it, or joins it if that has only
/// two.
fn widen_last(starts: &mut Vec<u64>, children: u64) {
    if let [.., before, last] = starts.as_mut_slice()
        && children - *last == 1
    {
        if *last - *before > 2 {
            *last -= 1;
        } else {
            starts.pop();
        }
    }
}

fn wrong_size(row: u64, key_len: u32, value_len: u32) -> Error {
    let (reason, message) = if key_len == 0 {
        (Reason::Internal, format!("row {row}: the key is empty"))
    } else if key_len > MAX_BOLT_KEY {
        (Reason::OutputFailed, format!("row {row}: expected a key of up to {MAX_BOLT_KEY} bytes, found {key_len}"))
    } else {
        (
            Reason::OutputFailed,
            format!("row {row}: expected a value of up to {MAX_BOLT_VALUE} bytes, found {value_len}"),
        )
    };
    Error::new(reason, message)
}

/// The pairs of the root bucket: a name and a bucket value each.
pub(super) struct RootRows<'l, 'b> {
    pub(super) buckets: &'l [Bucket<'b>],
    pub(super) placements: &'l [Placement],
}

impl RootRows<'_, '_> {
    /// The flags of every leaf element of the root bucket.
    pub(super) const FLAGS: u32 = ELEMENT_BUCKET;

    pub(super) fn bucket(&self, row: u64) -> Option<(&Bucket<'_>, &Placement)> {
        let row = usize::try_from(row).ok()?;
        self.buckets.get(row).zip(self.placements.get(row))
    }
}

impl Rows for RootRows<'_, '_> {
    fn len(&self) -> u64 {
        self.placements.len() as u64
    }

    fn key_len(&self, row: u64) -> u32 {
        self.bucket(row).map_or(0, |(bucket, _)| u32::try_from(bucket.name.len()).unwrap_or(u32::MAX))
    }

    fn value_len(&self, row: u64) -> u32 {
        self.bucket(row).map_or(0, |(_, placement)| placement.value_len())
    }

    fn encode(&self, row: u64, key: &mut [u8], value: &mut [u8]) -> Result<()> {
        self.encode_key(row, key)?;
        let (bucket, placement) = self.bucket(row).ok_or_else(wrong_rows)?;
        let (header, page) = value.split_first_chunk_mut::<16>().ok_or_else(wrong_rows)?;
        let root = match placement {
            Placement::Inline { .. } => PageId(0),
            Placement::Tree(tree) => tree.root(),
        };
        *header = BucketHeader { root, sequence: 0 }.encode();
        match placement {
            Placement::Inline { .. } => super::page::inline_page(bucket.rows, page),
            Placement::Tree(_) => Ok(()),
        }
    }

    fn encode_key(&self, row: u64, key: &mut [u8]) -> Result<()> {
        let (bucket, _) = self.bucket(row).ok_or_else(wrong_rows)?;
        if key.len() != bucket.name.len() {
            return Err(wrong_rows());
        }
        key.copy_from_slice(bucket.name);
        Ok(())
    }
}
