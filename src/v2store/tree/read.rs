//! Reads the values of a tree, in the table or in the overlay.
//!
//! Must not know what a value contains.

use std::borrow::Cow;

use super::Tree;
use super::node::{Body, NodeRef};
use super::value::{Source, Value};
use crate::v2store::table::copy;

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
            Some(Body::File(value)) => value.source(),
            Some(Body::Dir { .. }) | None => Source::Bytes(&[]),
        }
    }
}
