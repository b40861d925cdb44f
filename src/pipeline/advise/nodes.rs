//! The topics of the tree: directories, names, values and TTLs of the current state.
//!
//! Walks without paths, so the time does not depend on the depth of the tree. Makes the path of a node only for an example.
//! Must not know the log.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use super::tallies::Tallies;
use crate::display::lossy;
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::options::REQUEST_LIMIT;
use crate::report::advice::Topic;
use crate::transform::plan::REQUEST_OVERHEAD;
use crate::transform::policy::NAMESPACE;
use crate::transform::rules::KeyRules;
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Tree};

/// Number of nodes in a directory from which on it is read in pages.
const LARGE: usize = 1000;

/// Number of in-order keys, or of POSTs, that make a directory a queue.
pub(super) const QUEUE: u64 = 3;

/// What the walk counts besides the topics.
#[derive(Default)]
pub(super) struct Nodes {
    /// Number of keys.
    pub(super) keys: u64,
    /// Number of directories, without the root.
    pub(super) directories: u64,
    /// The keys of directories with several in-order keys.
    pub(super) queues: BTreeSet<Vec<u8>>,
}

/// Counts the topics of the tree.
///
/// # Errors
/// An interruption.
pub(super) fn read(
    tree: &mut Tree<'_>,
    rules: &mut KeyRules,
    found: &mut Tallies,
    interrupt: Interrupt<'_>,
) -> Result<Nodes> {
    let Ok(root) = tree.lookup(NAMESPACE) else { return Ok(Nodes::default()) };
    let mut walk =
        Walk { tree, rules, found, nodes: Nodes::default(), indexes: Vec::new(), names: Vec::new(), interrupt };
    walk.run(root)?;
    walk.shared_indexes()?;
    walk.equal_names()?;
    Ok(walk.nodes)
}

/// A directory that is not read yet.
#[derive(Clone, Copy)]
struct Dir {
    node: NodeRef,
    /// Whether a name in its path begins with `_`.
    is_hidden: bool,
    /// Whether it or a directory above it has a TTL.
    expires: bool,
}

struct Walk<'w, 'm> {
    tree: &'w Tree<'m>,
    rules: &'w mut KeyRules,
    found: &'w mut Tallies,
    nodes: Nodes,
    /// The modified index of each key.
    indexes: Vec<(u64, NodeRef)>,
    /// The hash of the v3 name of each key, if rules change names.
    names: Vec<(u64, NodeRef)>,
    interrupt: Interrupt<'w>,
}

impl Walk<'_, '_> {
    fn run(&mut self, root: NodeRef) -> Result<()> {
        let hasher = DefaultHashBuilder::default();
        let mut steps = 0usize;
        let mut open = vec![Dir { node: root, is_hidden: false, expires: false }];
        while let Some(dir) = open.pop() {
            self.interrupt.ask_at(steps)?;
            steps += 1;
            let children = self.tree.children(dir.node);
            let first = open.len();
            let mut in_order = 0;
            let next = children.iter().skip(1).map(|(name, _)| Some(name)).chain([None]);
            for ((name, node), next) in children.iter().zip(next) {
                self.interrupt.ask_at(steps)?;
                steps += 1;
                let child = Dir {
                    node: *node,
                    is_hidden: dir.is_hidden || name.starts_with(b"_"),
                    expires: dir.expires || self.tree.expiry(*node).is_some(),
                };
                in_order += u64::from(is_in_order(name, self.tree.created(*node).0));
                self.node(&dir, &child, name);
                if self.tree.is_dir(*node) {
                    if next.is_some_and(|next| next.starts_with(name)) {
                        self.add(Topic::SharedPrefix, *node);
                    }
                    self.directory(*node);
                    open.push(child);
                } else {
                    self.key(&child, &hasher);
                }
            }
            self.listing(dir.node, children.len(), in_order);
            if let Some(new) = open.get_mut(first..) {
                new.reverse();
            }
        }
        Ok(())
    }

    /// Counts what keys and directories have in common.
    fn node(&mut self, dir: &Dir, child: &Dir, name: &[u8]) {
        let node = child.node;
        let is_own = self.tree.expiry(node).is_some();
        if is_own {
            let is_dir = self.tree.is_dir(node);
            self.add(if is_dir { Topic::TtlDirectory } else { Topic::TtlKey }, node);
        }
        if is_own && dir.expires {
            self.add(Topic::NestedTtl, node);
        }
        let (in_path, in_value) = self.tree.replaced(node);
        let invalid = in_path
            || in_value
            || std::str::from_utf8(name).is_err()
            || matches!(node, NodeRef::Over(_)) && simdutf8::basic::from_utf8(&self.tree.value(node)).is_err();
        if invalid && !self.tree.is_dir(node) {
            self.add(Topic::InvalidUtf8, node);
        }
    }

    fn directory(&mut self, node: NodeRef) {
        self.nodes.directories += 1;
        let topic = if self.tree.has_children(node) { Topic::Directory } else { Topic::EmptyDirectory };
        self.add(topic, node);
    }

    /// Counts what one listing of a directory shows.
    fn listing(&mut self, dir: NodeRef, children: usize, in_order: u64) {
        if children >= LARGE {
            self.add(Topic::LargeDirectory, dir);
        }
        self.found.count(Topic::InOrderKey, in_order);
        if in_order > 0 {
            let tree = self.tree;
            self.found.example(Topic::InOrderKey, || key_of(tree, dir));
        }
        if in_order >= QUEUE {
            self.nodes.queues.insert(path::user_key(&self.tree.path(dir)).to_vec());
        }
    }

    fn key(&mut self, key: &Dir, hasher: &DefaultHashBuilder) {
        let node = key.node;
        self.nodes.keys += 1;
        self.indexes.push((self.tree.modified(node).0, node));
        if key.is_hidden {
            self.add(Topic::HiddenKey, node);
        }
        let (name, value) = (self.tree.path_len(node) - NAMESPACE.len(), self.tree.value_len(node));
        if value == 0 {
            self.add(Topic::EmptyValue, node);
        }
        if REQUEST_OVERHEAD.saturating_add((name + value) as u64) > REQUEST_LIMIT {
            self.add(Topic::LargeValue, node);
        }
        if self.rules.renames() {
            let name = self.v3_name(node);
            self.names.push((hasher.hash_one(&name), node));
            if name.first() != Some(&b'/') {
                self.found.add(Topic::NoLeadingSlash, || lossy(&name));
            }
        }
    }

    /// Counts keys with the modified index of another key.
    fn shared_indexes(&mut self) -> Result<()> {
        let mut indexes = std::mem::take(&mut self.indexes);
        self.interrupt.sort_by(&mut indexes, Ord::cmp)?;
        for equal in indexes.chunk_by(|a, b| a.0 == b.0).filter(|equal| equal.len() > 1) {
            equal.iter().for_each(|(_, node)| self.add(Topic::SharedIndex, *node));
        }
        Ok(())
    }

    /// Counts keys that get the name of another key. Compares hashes first, and names only for equal hashes.
    fn equal_names(&mut self) -> Result<()> {
        let mut names = std::mem::take(&mut self.names);
        self.interrupt.sort_by(&mut names, Ord::cmp)?;
        for equal in names.chunk_by(|a, b| a.0 == b.0).filter(|equal| equal.len() > 1) {
            let mut named: Vec<_> = equal.iter().map(|(_, node)| (self.v3_name(*node), *node)).collect();
            named.sort_unstable();
            for same in named.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
                same.iter().for_each(|(_, node)| self.add(Topic::EqualName, *node));
            }
        }
        Ok(())
    }

    /// Returns the name of a key after the rules.
    fn v3_name(&mut self, node: NodeRef) -> Vec<u8> {
        let path = self.tree.path(node);
        let key = path::user_key(&path);
        self.rules.rename(key).map_or_else(|| key.to_vec(), |renamed| renamed.apply(key))
    }

    fn add(&mut self, topic: Topic, node: NodeRef) {
        let tree = self.tree;
        self.found.add(topic, || key_of(tree, node));
    }
}

/// Returns the key of a node as clients name it; `/` for the root.
fn key_of(tree: &Tree<'_>, node: NodeRef) -> String {
    shown(path::user_key(&tree.path(node)))
}

/// Returns a key as clients name it; `/` for the root.
pub(super) fn shown(key: &[u8]) -> String {
    if key.is_empty() { "/".into() } else { lossy(key) }
}

/// Returns whether a POST created a node: its name is its created index (docs/formats.md 6.2).
pub(super) fn is_in_order(name: &[u8], created: u64) -> bool {
    let digits = name.iter().all(u8::is_ascii_digit);
    digits && created > 0 && std::str::from_utf8(name).is_ok_and(|name| name.parse() == Ok(created))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_in_order_name_is_the_created_index() {
        assert!(is_in_order(b"12", 12) && is_in_order(b"00000000000000000012", 12));
        assert!(!is_in_order(b"12", 13) && !is_in_order(b"", 0) && !is_in_order(b"+12", 12) && !is_in_order(b"0", 0));
    }
}
