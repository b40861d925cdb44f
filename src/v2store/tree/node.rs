//! The nodes of the tree: one of the table, or one of the overlay with its name, its indexes and its body.
//!
//! Must not know how the nodes form a tree.

use hashbrown::HashTable;
use jiff::Timestamp;

use super::value::Value;
use crate::ids::V2Index;
use crate::v2store::name_hash::NameHash;
use crate::v2store::table::NodeId;

/// A node, in the table or in the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeRef {
    /// A node of the snapshot.
    Base(NodeId),
    /// A node that the log created or changed.
    Over(OverId),
}

impl NodeRef {
    /// Returns the number of a node of the snapshot; `None` for any other.
    pub(super) fn base(self) -> Option<NodeId> {
        match self {
            NodeRef::Base(id) => Some(id),
            NodeRef::Over(_) => None,
        }
    }
}

/// The number of an overlay node. When the node is freed, another may get the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OverId(pub(super) u32);

/// A node of the overlay.
#[derive(Debug)]
pub(super) struct OverNode<'m> {
    /// The directory that contains it; the root contains itself.
    pub(super) parent: OverId,
    pub(super) name: Name,
    /// Length of the path in bytes.
    pub(super) path_len: usize,
    /// Number of components of the path.
    pub(super) depth: u32,
    pub(super) created: V2Index,
    pub(super) modified: V2Index,
    pub(super) expiry: Option<Timestamp>,
    pub(super) body: Body<'m>,
    /// See [`Tree::replaced`](super::Tree::replaced).
    pub(super) replaced: (bool, bool),
}

/// The name of an overlay node.
#[derive(Debug)]
pub(super) enum Name {
    /// Its path is that of a node in the table.
    Base(NodeId),
    /// The last component of its path.
    Own(Box<[u8]>),
}

/// The content of an overlay node.
#[derive(Debug)]
pub(super) enum Body<'m> {
    File(Value<'m>),
    Dir {
        /// The directory in the table that this one replaces.
        base: Option<NodeId>,
        changed: HashTable<Change>,
        children: u64,
    },
}

/// The change of a name in an overlay directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    /// Hash of the name.
    pub(super) hash: NameHash,
    /// The base child that is replaced or removed.
    pub(super) base: Option<NodeId>,
    pub(super) now: Option<OverId>,
}

/// What a name in an overlay directory resolves to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) hash: NameHash,
    /// The base child of that name, even if it is replaced or removed.
    pub(super) base: Option<NodeId>,
    pub(super) now: Option<NodeRef>,
}

/// A node to create.
#[derive(Debug)]
pub struct NewNode<'m> {
    /// Its created and modified index.
    pub index: V2Index,
    /// Its own expiry.
    pub expiry: Option<Timestamp>,
    /// The value of a file; `None` for a directory.
    pub value: Option<Value<'m>>,
}

/// A free node.
impl Default for OverNode<'_> {
    fn default() -> Self {
        OverNode {
            parent: OverId(0),
            name: Name::Own(Box::default()),
            path_len: 0,
            depth: 0,
            created: V2Index(0),
            modified: V2Index(0),
            expiry: None,
            body: Body::File(Value::default()),
            replaced: (false, false),
        }
    }
}
