//! The tree of a snapshot as a flat table: one record for each node, in document order, which is pre-order.
//!
//! A subtree is a range of numbers. Strings remain in the document; the table stores their positions. The table is
//! read-only; the log changes the overlay in `tree`. Must not know the overlay or the log.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::ids::{ByteOffset, V2Index};
use crate::v2store::name_hash::NameHash;
use crate::v2store::text::{self, Text};

/// The number of a node in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// Bytes that a processor reads from memory at once.
const LINE_BYTES: usize = 64;

/// Bytes of a node that are read ahead: of one with a short value, and of any other. The rest of a long value follows in order,
/// which the processor expects.
const SHORT_BYTES: usize = 256;
const LONG_BYTES: usize = 512;

/// A packed node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Node {
    pub(crate) path: Text,
    pub(crate) value: Text,
    pub(crate) created: u64,
    pub(crate) modified: u64,
    /// Number of the first node after the subtree.
    pub(crate) end: u32,
    /// 1 + position in the list of expiry times; 0: none.
    pub(crate) expiry: u32,
    /// Length of the name at the end of the path in bytes, unescaped.
    pub(crate) name_len: u32,
    pub(super) name_hash: NameHash,
    pub(crate) flags: u8,
}

impl Node {
    pub(crate) const DIR: u8 = 1;
    pub(crate) const PATH_ESCAPED: u8 = 2;
    pub(crate) const VALUE_ESCAPED: u8 = 4;
    pub(crate) const PATH_REPLACED: u8 = 8;
    pub(crate) const VALUE_REPLACED: u8 = 16;
    /// A component of its path starts with `_`.
    pub(crate) const HIDDEN: u8 = 32;

    /// Returns the flag if it is set.
    pub(super) fn flag(set: bool, flag: u8) -> u8 {
        if set { flag } else { 0 }
    }

    /// Returns whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.flags & Node::DIR != 0
    }

    /// Reads something of both lines in memory on which the node lies.
    #[inline]
    fn both_lines(&self) -> u8 {
        self.path.len as u8 ^ self.flags
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The v2 store in a snapshot (docs/formats.md 3.1).
#[derive(Debug, PartialEq, Eq)]
pub struct Table<'m> {
    pub(crate) document: &'m [u8],
    pub(crate) nodes: Vec<Node>,
    pub(crate) expiries: Vec<Timestamp>,
    /// The index of the store at the time of the snapshot.
    pub current_index: V2Index,
    /// Number of siblings with the same name as a later one, which alone counts (docs/formats.md 3.1).
    pub duplicates: u64,
    /// The first nodes of their subtrees, which are not in `nodes`.
    pub shadowed: Vec<Shadowed>,
    /// Byte range of the watchers' event history in the document; empty without one.
    pub(crate) history: std::ops::Range<usize>,
}

/// A node that a later sibling replaced, directly or through a directory above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadowed {
    /// The node; its position in the tree is lost.
    pub node: Node,
    /// Whether it is itself the replaced sibling, not a node below one.
    pub sibling: bool,
}

impl<'m> Table<'m> {
    /// Returns the store of a server without any writes.
    pub fn empty() -> Table<'m> {
        Table {
            document: &[],
            nodes: Vec::new(),
            expiries: Vec::new(),
            current_index: V2Index(0),
            duplicates: 0,
            shadowed: Vec::new(),
            history: 0..0,
        }
    }

    /// Returns the event history as unchecked JSON; empty without one.
    pub fn history(&self) -> &'m [u8] {
        self.document.get(self.history.clone()).unwrap_or_default()
    }

    /// Returns the offset of the event history in the document.
    pub fn history_offset(&self) -> ByteOffset {
        ByteOffset::from(self.history.start)
    }

    /// Returns the length of the document without the event history, in bytes.
    pub fn tree_len(&self) -> u64 {
        (self.document.len() - self.history().len()) as u64
    }

    /// Returns the number of nodes in the table, with the root.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns true for a table without a root.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the node with this number; an empty file if it does not exist.
    #[inline]
    pub fn node(&self, id: NodeId) -> Node {
        self.nodes.get(id.0 as usize).copied().unwrap_or_default()
    }

    /// Prefetches nodes with their paths and values, all at once. Changes nothing.
    ///
    /// Rows are in the order of their revisions, so each lies somewhere else in the table and in the document. The
    /// processor waits for many such reads at the same time only if none depends on another, as in these short loops.
    pub fn read_ahead(&self, ids: impl Iterator<Item = NodeId> + Clone) {
        let nodes = || ids.clone().filter_map(|id| self.nodes.get(id.0 as usize));
        let first = nodes().fold(0, |all, node| all ^ node.both_lines());
        // The first line of each, which waits longest, and then the other lines.
        let first = nodes().fold(first, |all, node| all ^ self.byte(&node.path));
        let rest = nodes().fold(0, |all, node| all ^ self.lines(node));
        std::hint::black_box(first ^ rest);
    }

    /// Prefetches nodes, without their paths and values.
    pub fn read_nodes_ahead(&self, ids: impl Iterator<Item = NodeId>) {
        let nodes = ids.filter_map(|id| self.nodes.get(id.0 as usize));
        std::hint::black_box(nodes.fold(0, |all, node| all ^ node.both_lines()));
    }

    /// Prefetches nodes with their names, all at once, like [`Table::read_ahead`].
    pub(super) fn read_names_ahead(&self, ids: impl Iterator<Item = NodeId> + Clone) {
        let nodes = || ids.clone().filter_map(|id| self.nodes.get(id.0 as usize));
        let first = nodes().fold(0, |all, node| all ^ node.both_lines());
        let names = nodes().fold(0, |all, node| all ^ self.byte(&node.path) ^ self.last_byte(&node.path));
        std::hint::black_box(first ^ names);
    }

    /// Returns the first byte of a text in the document; 0 for none.
    #[inline]
    fn byte(&self, text: &Text) -> u8 {
        let at = usize::try_from(text.offset).unwrap_or(usize::MAX);
        self.document.get(at).copied().unwrap_or(0)
    }

    /// Returns the last byte of a text in the document; 0 for none.
    #[inline]
    fn last_byte(&self, text: &Text) -> u8 {
        let end = usize::try_from(text.offset).unwrap_or(usize::MAX).saturating_add(text.raw_len as usize);
        end.checked_sub(1).and_then(|at| self.document.get(at)).copied().unwrap_or(0)
    }

    /// Reads one byte of each line with a node's path and value, which follows closely; of a long value only of the first
    /// lines.
    #[inline]
    fn lines(&self, node: &Node) -> u8 {
        let start = usize::try_from(node.path.offset).unwrap_or(usize::MAX);
        let end = usize::try_from(node.value.offset).unwrap_or(0).saturating_add(node.value.raw_len as usize);
        let near = self.document.get(start..).unwrap_or_default();
        // With a branch for each line in the loop, the processor starts fewer reads in advance.
        match near.first_chunk::<SHORT_BYTES>() {
            Some(near) if end <= start.saturating_add(SHORT_BYTES) => touch(near),
            _ => near.first_chunk::<LONG_BYTES>().map_or(0, touch),
        }
    }

    /// The number of nodes whose paths are worth reading ahead at once.
    pub const PATHS_AHEAD: u32 = 32;

    /// Prefetches the paths of consecutive nodes, all at once, like [`Table::read_ahead`].
    pub fn read_paths_ahead(&self, ids: std::ops::Range<u32>) {
        let nodes = self.nodes.get(ids.start as usize..ids.end as usize).unwrap_or_default();
        std::hint::black_box(nodes.iter().fold(0, |all, node| all ^ self.byte(&node.path)));
    }

    /// Returns its absolute path with the namespace.
    #[inline]
    pub fn path(&self, node: &Node) -> Cow<'m, [u8]> {
        text::decode(self.raw(&node.path), node.path.len as usize, node.has(Node::PATH_ESCAPED))
    }

    /// Returns the last component of its path.
    #[inline]
    pub fn name(&self, node: &Node) -> Cow<'m, [u8]> {
        let raw = self.raw(&node.path);
        if !node.has(Node::PATH_ESCAPED) {
            return Cow::Borrowed(tail(raw, node.name_len));
        }
        // etcd writes slashes without escapes, so the part above the name need not be decoded.
        let last = raw.get(memchr::memrchr(b'/', raw).map_or(0, |at| at + 1)..).unwrap_or_default();
        let mut name = vec![0; node.name_len as usize];
        if !text::decode_into(last, &mut name) {
            name = tail(&self.path(node), node.name_len).to_vec();
        }
        Cow::Owned(name)
    }

    /// Returns whether a node has this name, with its hash. The names of most other nodes are not read.
    #[inline]
    pub(super) fn has_name(&self, id: NodeId, hash: NameHash, name: &[u8]) -> bool {
        let Some(node) = self.nodes.get(id.0 as usize) else { return false };
        node.name_hash == hash && node.name_len as usize == name.len() && *self.name(node) == *name
    }

    /// Returns whether a node has this path.
    #[inline]
    pub(super) fn has_path(&self, id: NodeId, path: &[u8]) -> bool {
        let Some(node) = self.nodes.get(id.0 as usize) else { return false };
        let raw = self.raw(&node.path);
        if node.has(Node::PATH_ESCAPED) {
            return node.path.len as usize == path.len() && text::decodes_to(raw, path);
        }
        raw == path
    }

    /// Returns whether a node has this value. Decodes escapes up to the first difference, without an allocation.
    pub(super) fn has_value(&self, id: NodeId, value: &[u8]) -> bool {
        let node = self.node(id);
        let raw = self.raw(&node.value);
        if node.has(Node::VALUE_ESCAPED) {
            return node.value.len as usize == value.len() && text::decodes_to(raw, value);
        }
        raw == value
    }

    /// Returns its value; empty for a directory.
    pub fn value(&self, node: &Node) -> Cow<'m, [u8]> {
        text::decode(self.raw(&node.value), node.value.len as usize, node.has(Node::VALUE_ESCAPED))
    }

    /// Copies the end of a node's path, from byte `skip` on, into a buffer of exactly that length. Returns whether it
    /// fitted.
    #[must_use]
    pub fn copy_path(&self, node: &Node, skip: usize, out: &mut [u8]) -> bool {
        let raw = self.raw(&node.path);
        if !node.has(Node::PATH_ESCAPED) {
            return copy(raw.get(skip..).unwrap_or_default(), out);
        }
        copy(self.path(node).get(skip..).unwrap_or_default(), out)
    }

    /// Copies the value of a node into a buffer of exactly its length. Returns whether it fitted.
    #[must_use]
    pub fn copy_value(&self, node: &Node, out: &mut [u8]) -> bool {
        let raw = self.raw(&node.value);
        if node.has(Node::VALUE_ESCAPED) { text::decode_into(raw, out) } else { copy(raw, out) }
    }

    /// Returns when it expires.
    pub fn expiry(&self, node: &Node) -> Option<Timestamp> {
        self.expiries.get((node.expiry as usize).checked_sub(1)?).copied()
    }

    /// Returns the children of a directory, in document order.
    pub fn children(&self, dir: NodeId) -> Children<'_> {
        Children { nodes: &self.nodes, next: dir.0.saturating_add(1), end: self.node(dir).end }
    }

    #[inline]
    pub(crate) fn raw(&self, text: &Text) -> &'m [u8] {
        let start = usize::try_from(text.offset).unwrap_or(usize::MAX);
        self.document.get(start..start.saturating_add(text.raw_len as usize)).unwrap_or_default()
    }
}

/// Reads one byte of each line.
#[inline]
fn touch<const N: usize>(bytes: &[u8; N]) -> u8 {
    bytes.iter().step_by(LINE_BYTES).fold(0, |all, byte| all ^ byte)
}

pub(crate) fn copy(from: &[u8], to: &mut [u8]) -> bool {
    let fits = from.len() == to.len();
    if fits {
        to.copy_from_slice(from);
    }
    fits
}

fn tail(path: &[u8], len: u32) -> &[u8] {
    path.get(path.len().saturating_sub(len as usize)..).unwrap_or_default()
}

/// An iterator over the children of one directory.
#[derive(Debug, Clone)]
pub struct Children<'t> {
    nodes: &'t [Node],
    next: u32,
    end: u32,
}

impl Iterator for Children<'_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        if self.next >= self.end {
            return None;
        }
        let id = self.next;
        // A subtree ends after its own node.
        self.next = self.nodes.get(id as usize)?.end.max(id + 1);
        Some(NodeId(id))
    }
}
