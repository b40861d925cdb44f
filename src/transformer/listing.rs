//! The nodes that a transformer receives, in the order of a recursive, sorted listing of etcd's v2 API.
//!
//! docs/formats.md 12.1: the root, every directory before its content, siblings by name, and also hidden nodes (12.2,
//! flaw 2). An excluded directory is sent if a node below it is sent. Must not know how a node is written.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Tree};

/// The nodes to send, in order.
#[derive(Debug, Default)]
pub struct Listing {
    nodes: Vec<NodeRef>,
    /// Expiries that nodes inherit, sorted by the position of the node in `nodes`.
    inherited: Vec<(usize, Timestamp)>,
}

/// A node for the wire formats.
#[derive(Debug)]
pub(super) struct Node<'t> {
    /// The client key; `/` for the root.
    pub(super) key: &'t [u8],
    /// The value of a file; `None` for a directory.
    pub(super) value: Option<Cow<'t, [u8]>>,
    /// The expiry of the node itself.
    pub(super) expiry: Option<Timestamp>,
    /// The earliest expiry of the node and the directories above it.
    pub(super) effective: Option<Timestamp>,
    pub(super) modified: u64,
    pub(super) created: u64,
}

/// The selection of nodes to send.
pub struct Choice<'a> {
    /// Whether a file is sent.
    pub file: &'a dyn Fn(NodeRef) -> bool,
    /// Whether a directory is sent although nothing below it is; receives the earliest expiry of it and the directories
    /// above it.
    pub bare_dir: &'a dyn Fn(NodeRef, Option<Timestamp>) -> bool,
}

/// Lists a directory and its subtree.
///
/// # Errors
/// An interruption.
pub fn listing(tree: &Tree<'_>, root: NodeRef, choice: &Choice<'_>, interrupt: Interrupt<'_>) -> Result<Listing> {
    let mut walk = Walk { tree, choice, listing: Listing::default(), open: Vec::new() };
    walk.enter(root, None);
    let mut visited = 0u64;
    while let Some(dir) = walk.open.last_mut() {
        visited += 1;
        if visited.is_multiple_of(1 << 16) {
            interrupt.ask()?;
        }
        let expiry = dir.expiry;
        match dir.todo.pop() {
            None => walk.leave(),
            Some(node) if tree.is_dir(node) => walk.enter(node, expiry),
            Some(node) => walk.file(node, expiry),
        }
    }
    Ok(walk.listing)
}

struct Walk<'a, 'm> {
    tree: &'a Tree<'m>,
    choice: &'a Choice<'a>,
    listing: Listing,
    /// The directories that contain the walk's position, outermost first.
    open: Vec<OpenDir>,
}

struct OpenDir {
    node: NodeRef,
    /// Its position in the listing.
    at: usize,
    /// The earliest expiry of it and the directories above it.
    expiry: Option<Timestamp>,
    /// Nodes in it that are still to visit, last name first.
    todo: Vec<NodeRef>,
    /// Whether something below it is sent.
    sent: bool,
}

impl Walk<'_, '_> {
    fn enter(&mut self, node: NodeRef, above: Option<Timestamp>) {
        let at = self.listing.nodes.len();
        let expiry = self.push(node, above);
        let todo = self.tree.children(node).into_iter().rev().map(|(_, child)| child).collect();
        self.open.push(OpenDir { node, at, expiry, todo, sent: false });
    }

    fn leave(&mut self) {
        let Some(dir) = self.open.pop() else { return };
        let Some(parent) = self.open.last_mut() else { return };
        if dir.sent || (self.choice.bare_dir)(dir.node, dir.expiry) {
            parent.sent = true;
        } else {
            // Nothing below it is in the listing.
            self.listing.nodes.truncate(dir.at);
            let inherited = &mut self.listing.inherited;
            inherited.truncate(inherited.partition_point(|(at, _)| *at < dir.at));
        }
    }

    fn file(&mut self, node: NodeRef, above: Option<Timestamp>) {
        let sent = (self.choice.file)(node);
        if sent {
            self.push(node, above);
        }
        if let Some(dir) = self.open.last_mut() {
            dir.sent |= sent;
        }
    }

    fn push(&mut self, node: NodeRef, above: Option<Timestamp>) -> Option<Timestamp> {
        let own = self.tree.expiry(node);
        let effective = own.into_iter().chain(above).min();
        if let Some(at) = effective.filter(|_| effective != own) {
            self.listing.inherited.push((self.listing.nodes.len(), at));
        }
        self.listing.nodes.push(node);
        effective
    }
}

impl Listing {
    /// Returns the number of nodes, with directories.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the nodes, in order.
    pub fn nodes(&self) -> &[NodeRef] {
        &self.nodes
    }

    pub(super) fn effective(&self, at: usize, own: Option<Timestamp>) -> Option<Timestamp> {
        let found = self.inherited.binary_search_by_key(&at, |(at, _)| *at).ok();
        found.and_then(|found| self.inherited.get(found)).map(|(_, expiry)| *expiry).or(own)
    }

    /// Passes the node at a position to `with`. Returns `None` after the last one.
    pub(super) fn node<T>(&self, tree: &Tree<'_>, at: usize, with: impl FnOnce(&Node<'_>) -> T) -> Option<T> {
        let node = *self.nodes.get(at)?;
        let path = tree.path(node);
        let key = path::user_key(&path);
        let expiry = tree.expiry(node);
        Some(with(&Node {
            key: if key.is_empty() { b"/" } else { key },
            value: (!tree.is_dir(node)).then(|| tree.value(node)),
            expiry,
            effective: self.effective(at, expiry),
            modified: tree.modified(node).0,
            created: tree.created(node).0,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2store::json;

    const STORE: &str = r#"{"Root":{"Path":"/","Children":{"1":{"Path":"/1","Children":{
        "z":{"Path":"/1/z","Value":"zz"},
        "a-b":{"Path":"/1/a-b","Value":""},
        "a":{"Path":"/1/a","ExpireTime":"2020-01-02T00:00:00Z","Children":{
            "y":{"Path":"/1/a/y","ExpireTime":"2020-01-03T00:00:00Z","Value":""},
            "x":{"Path":"/1/a/x","ExpireTime":"2020-01-01T00:00:00Z","Value":""}}},
        "_h":{"Path":"/1/_h","Children":{"d":{"Path":"/1/_h/d","Children":{
            "k":{"Path":"/1/_h/d/k","ExpireTime":"2020-01-01T00:00:00Z","Value":""}}}}},
        "e":{"Path":"/1/e","Children":{"f":{"Path":"/1/e/f","Children":{}}}}}}}},"CurrentIndex":7}"#;

    fn names(choice: &Choice<'_>) -> (Vec<String>, Vec<String>) {
        let table = json::read(STORE.as_bytes()).unwrap();
        let mut tree = Tree::new(&table);
        let root = tree.lookup(b"/1").unwrap();
        let list = listing(&tree, root, choice, Interrupt::default()).unwrap();
        let nodes = (0..list.len()).map(|at| {
            list.node(&tree, at, |n| (String::from_utf8(n.key.to_vec()).unwrap(), n.effective.map(|e| e.to_string())))
        });
        let nodes: Vec<_> = nodes.map(Option::unwrap).collect();
        let expiries = nodes.iter().filter_map(|(name, at)| Some(format!("{name} {}", &at.as_ref()?[..10])));
        (nodes.iter().map(|(name, _)| name.clone()).collect(), expiries.collect())
    }

    #[test]
    fn all_of_it_sorted_by_component() {
        let (all, expiries) = names(&Choice { file: &|_| true, bare_dir: &|_, _| true });
        let expected = ["/", "/_h", "/_h/d", "/_h/d/k", "/a", "/a/x", "/a/y", "/a-b", "/e", "/e/f", "/z"];
        assert_eq!(all, expected);
        assert_eq!(expiries, ["/_h/d/k 2020-01-01", "/a 2020-01-02", "/a/x 2020-01-01", "/a/y 2020-01-02"]);
    }

    #[test]
    fn a_directory_is_sent_for_its_own_sake_or_for_what_is_in_it() {
        let table = json::read(STORE.as_bytes()).unwrap();
        let tree = Tree::new(&table);
        let in_a = |node: NodeRef| tree.path(node).starts_with(b"/1/a/");
        let hidden = |node: NodeRef, _| path::is_hidden(&tree.path(node));
        let (some, expiries) = names(&Choice { file: &in_a, bare_dir: &|node, at| !hidden(node, at) });
        assert_eq!(some, ["/", "/a", "/a/x", "/a/y", "/e", "/e/f"]);
        assert_eq!(expiries.len(), 3);
        let (some, _) = names(&Choice { file: &in_a, bare_dir: &|_, _| false });
        assert_eq!(some, ["/", "/a", "/a/x", "/a/y"]);
        let hidden_file = |node: NodeRef| path::is_hidden(&tree.path(node));
        let (some, expiries) = names(&Choice { file: &hidden_file, bare_dir: &|_, at| at.is_some() });
        assert_eq!(some, ["/", "/_h", "/_h/d", "/_h/d/k", "/a"]);
        assert_eq!(expiries, ["/_h/d/k 2020-01-01", "/a 2020-01-02"]);
        let (some, _) = names(&Choice { file: &|_| false, bare_dir: &|_, _| false });
        assert_eq!(some, ["/"]);
    }
}
