//! Values of overlay nodes.
//!
//! A request that retains a value never copies it: the value is borrowed from the log or the snapshot, or shared. Must
//! not know requests or what a value contains.

use std::sync::Arc;

use crate::v2store::table::{Node, NodeId, Table};

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

    /// Returns where the bytes of the value are.
    pub(super) fn source(&self) -> Source<'_> {
        match &self.0 {
            Kind::Borrowed(bytes) => Source::Bytes(bytes),
            Kind::Shared(bytes) => Source::Bytes(bytes),
            Kind::Base(id) => Source::Node(*id),
        }
    }

    /// Returns the value of a node in the table.
    pub(super) fn of_node(table: &Table<'m>, id: NodeId) -> Value<'m> {
        let node = table.node(id);
        Value(if node.has(Node::VALUE_ESCAPED) { Kind::Base(id) } else { Kind::Borrowed(table.raw(&node.value)) })
    }
}

/// The place of the bytes of a value.
pub(super) enum Source<'t> {
    /// Bytes in memory or in a file.
    Bytes(&'t [u8]),
    /// A node in the table.
    Node(NodeId),
}
