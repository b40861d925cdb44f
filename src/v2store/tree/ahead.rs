//! Reads what the tree will need soon, for many nodes or paths at once. Changes nothing.
//!
//! What a request needs is spread over memory. The processor waits for many reads at the same time only if none depends
//! on another, as in short loops. Must not know requests.

use super::Tree;
use super::node::{Body, Name, NodeRef, OverId};
use crate::v2store::name_hash::NameHash;
use crate::v2store::path;
use crate::v2store::table::NodeId;

impl Tree<'_> {
    /// Prefetches unchanged nodes, with their paths and values.
    pub fn read_ahead(&self, nodes: impl Iterator<Item = NodeRef> + Clone) {
        self.table.read_ahead(nodes.filter_map(NodeRef::base));
    }

    /// Prefetches unchanged nodes, without paths and values.
    pub fn read_nodes_ahead(&self, nodes: impl Iterator<Item = NodeRef>) {
        self.table.read_nodes_ahead(nodes.filter_map(NodeRef::base));
    }

    /// Prefetches what [`Tree::lookup`] of these clean paths will read, if their directories are among the recent ones.
    ///
    /// Each loop reads what the next one needs.
    pub fn look_ahead<'p>(&self, paths: impl Iterator<Item = &'p [u8]>) {
        let name = |clean| {
            let (dir, name) = path::split(clean);
            (self.recent.guess(dir), NameHash::of(name))
        };
        let names: Vec<(OverId, NameHash)> = paths.map(name).collect();
        self.table.read_names_ahead(names.iter().filter_map(|(dir, _)| self.named_by(NodeRef::Over(*dir))));
        let mut nodes = Vec::with_capacity(names.len());
        let mut indexes = Vec::with_capacity(names.len());
        for (dir, hash) in names {
            let Some(Body::Dir { base, changed, .. }) = self.over(dir).map(|dir| &dir.body) else { continue };
            match changed.find(hash.spread(), |change| change.hash == hash) {
                Some(change) => nodes.extend(change.now.and_then(|id| self.named_by(NodeRef::Over(id)))),
                None => indexes.extend(base.and_then(|base| self.indexes.get(&base)).map(|index| (index, hash))),
            }
        }
        // Of the names with a similar hash only one is read, which is nearly always the right one.
        nodes.extend(indexes.into_iter().filter_map(|(index, hash)| index.find(hash.spread(), |_| true)));
        self.table.read_names_ahead(nodes.iter().copied());
    }

    /// Prefetches changed nodes, which are in the order of the log.
    pub(super) fn read_changed_ahead(&self, nodes: impl Iterator<Item = OverId>) {
        let nodes = nodes.filter_map(|id| self.over(id));
        std::hint::black_box(nodes.fold(0, |all, node| all ^ node.modified.0 ^ node.path_len as u64));
    }

    /// Returns the node of the table that has the name of a node.
    #[inline]
    fn named_by(&self, node: NodeRef) -> Option<NodeId> {
        match node {
            NodeRef::Base(id) => Some(id),
            NodeRef::Over(id) => match self.over(id)?.name {
                Name::Base(id) => Some(id),
                Name::Own(_) => None,
            },
        }
    }
}
