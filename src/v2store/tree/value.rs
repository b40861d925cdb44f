//! Values of overlay nodes.
//!
//! A request that retains a value never copies it: the value is borrowed from the log or the snapshot, or shared. Must
//! not know requests or what a value contains.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Body, NodeRef, Tree};
use crate::v2store::table::{Node, NodeId, Table, copy};

/// The value of a file. A clone takes no memory of its own.
#[derive(Debug, Clone)]
pub struct Value<'m>(Kind<'m>);

#[derive(Debug, Clone)]
enum Kind<'m> {
    /// Bytes in the log or in the snapshot.
    Borrowed(&'m [u8]),
    /// The value of a table node with escapes, which is decoded at each read.
    Base(NodeId),
    /// Bytes that no file contains.
    Shared(Arc<[u8]>),
}

impl Default for Value<'_> {
    fn default() -> Self {
        Value(Kind::Borrowed(&[]))
    }
}

impl<'m> From<&'m [u8]> for Value<'m> {
    fn from(bytes: &'m [u8]) -> Value<'m> {
        Value(Kind::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Value(Kind::Shared(bytes.into()))
    }
}

impl<'m> Value<'m> {
    #[cfg(test)]
    pub(super) fn is_in_table(&self) -> bool {
        matches!(self.0, Kind::Base(_))
    }

    /// Returns the value of a node in the table.
    pub(super) fn of_node(table: &Table<'m>, id: NodeId) -> Value<'m> {
        let node = table.node(id);
        Value(if node.has(Node::VALUE_ESCAPED) { Kind::Base(id) } else { Kind::Borrowed(table.raw(&node.value)) })
    }
}

impl<'m> Tree<'m> {
    /// Returns the value of a file; empty for a directory.
    pub fn value(&self, node: NodeRef) -> Cow<'_, [u8]> {
        match self.source(node) {
            Source::Bytes(bytes) => Cow::Borrowed(bytes),
            Source::Node(id) => self.table.value(&self.table.node(id)),
        }
    }

    /// Returns the value of a file, to give it to another node.
    pub fn shared_value(&self, node: NodeRef) -> Value<'m> {
        match node {
            NodeRef::Base(id) => Value::of_node(self.table, id),
            NodeRef::Over(id) => match self.over(id).map(|n| &n.body) {
                Some(Body::File(value)) => value.clone(),
                _ => Value::default(),
            },
        }
    }

    /// Returns the length of the value in bytes.
    pub fn value_len(&self, node: NodeRef) -> usize {
        match self.source(node) {
            Source::Bytes(bytes) => bytes.len(),
            Source::Node(id) => self.table.node(id).value.len as usize,
        }
    }

    /// Returns whether the value equals these bytes. Compares lengths first, and copies nothing.
    pub fn has_value(&self, node: NodeRef, bytes: &[u8]) -> bool {
        match self.source(node) {
            Source::Bytes(value) => value == bytes,
            Source::Node(id) => self.table.has_value(id, bytes),
        }
    }

    /// Copies the value into a buffer of exactly its length. Returns whether it fitted.
    #[must_use]
    pub fn copy_value(&self, node: NodeRef, out: &mut [u8]) -> bool {
        match self.source(node) {
            Source::Bytes(bytes) => copy(bytes, out),
            Source::Node(id) => self.table.copy_value(&self.table.node(id), out),
        }
    }

    fn source(&self, node: NodeRef) -> Source<'_> {
        let id = match node {
            NodeRef::Base(id) => return Source::Node(id),
            NodeRef::Over(id) => id,
        };
        match self.over(id).map(|n| &n.body) {
            Some(Body::File(Value(Kind::Borrowed(bytes)))) => Source::Bytes(bytes),
            Some(Body::File(Value(Kind::Shared(bytes)))) => Source::Bytes(bytes),
            Some(Body::File(Value(Kind::Base(id)))) => Source::Node(*id),
            Some(Body::Dir { .. }) | None => Source::Bytes(&[]),
        }
    }
}

/// The source of a value.
enum Source<'t> {
    Bytes(&'t [u8]),
    /// A node in the table.
    Node(NodeId),
}
