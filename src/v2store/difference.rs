//! The nodes in which two trees differ: two replays of one source, or the trees of two members.
//!
//! Compares all data that an output can depend on: the nodes of the key space and the values of the auth store. Must
//! not know how the trees were made.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::v2store::tree::{NodeRef, Tree};
use crate::v2store::{path, text};

/// Maximum number of paths in a difference; further nodes are only counted.
const NAMED: usize = 1000;

/// Maximum total length of these paths in bytes. Nested directories can have long paths.
const NAMED_BYTES: usize = 1 << 20;

/// The difference between two trees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Number of nodes that only one tree has, or that differ.
    pub count: u64,
    /// Store paths of the first of them, sorted by their bytes.
    pub paths: Vec<Vec<u8>>,
}

/// The difference between the trees of two members, with the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DifferingNodes {
    /// Number of nodes that only one tree has, or that differ.
    pub count: u64,
    /// The first of them, sorted by the bytes of their paths.
    pub first: Vec<DifferingNode>,
}

/// A path whose node only one tree has, or whose nodes differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DifferingNode {
    /// The store path.
    pub path: Vec<u8>,
    /// The node of the first tree.
    pub one: Option<NodeRef>,
    /// The node of the second tree.
    pub other: Option<NodeRef>,
}

/// The form in which names and values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The bytes in the tree.
    Bytes,
    /// The text of an answer or of a snapshot, which has U+FFFD for bytes that are not UTF-8.
    Text,
}

/// Compares two trees of one source.
///
/// # Errors
/// An interruption.
pub fn difference(one: &mut Tree<'_>, other: &mut Tree<'_>, interrupt: Interrupt<'_>) -> Result<Difference> {
    let comparison = Comparison { form: Form::Bytes, hasher: DefaultHashBuilder::default(), interrupt };
    let found = comparison.find(one, other, NAMED)?;
    Ok(Difference { count: found.count, paths: found.nodes.into_keys().collect() })
}

/// Compares the trees of two members, as clients see them. Returns at most `limit` nodes.
///
/// A snapshot has U+FFFD for bytes that are not UTF-8, and the log has the bytes. Clients get U+FFFD from both.
///
/// # Errors
/// An interruption.
pub fn differing_nodes(
    one: &mut Tree<'_>,
    other: &mut Tree<'_>,
    limit: usize,
    interrupt: Interrupt<'_>,
) -> Result<DifferingNodes> {
    let comparison = Comparison { form: Form::Text, hasher: DefaultHashBuilder::default(), interrupt };
    let mut found = comparison.find(one, other, limit)?;
    {
        let of_other = found.nodes.values_mut().filter(|node| node.other.is_some());
        let mut of_other: HashMap<u64, &mut Place> = of_other.map(|node| (node.place, node)).collect();
        comparison.each(one, &mut |_, shown| {
            if let Some(node) = of_other.get_mut(&shown.place) {
                node.one = Some(shown.node);
            }
        })?;
    }
    let node = |(path, node): (Vec<u8>, Place)| DifferingNode { path, one: node.one, other: node.other };
    Ok(DifferingNodes { count: found.count, first: found.nodes.into_iter().map(node).collect() })
}

/// A node with the data that identifies it.
struct Shown<'a> {
    node: NodeRef,
    path: &'a [u8],
    /// A hash of the path, which continues that of its directory.
    place: u64,
    /// Whether the whole node counts, not only its value.
    whole: bool,
}

/// The first paths, sorted, and the total number.
struct Found {
    limit: usize,
    count: u64,
    nodes: BTreeMap<Vec<u8>, Place>,
    /// Total length of the paths in bytes.
    bytes: usize,
}

/// The nodes at one path, and its hash.
#[derive(Debug, Clone, Copy)]
struct Place {
    place: u64,
    one: Option<NodeRef>,
    other: Option<NodeRef>,
}

impl Found {
    fn add(&mut self, path: &[u8], place: Place) {
        self.count += 1;
        let is_full = self.nodes.len() >= self.limit || self.bytes + path.len() > NAMED_BYTES;
        if is_full && self.nodes.last_key_value().is_some_and(|(last, _)| path > last.as_slice()) {
            return;
        }
        if self.nodes.insert(path.to_vec(), place).is_none() {
            self.bytes += path.len();
        }
        while self.nodes.len() > self.limit || (self.bytes > NAMED_BYTES && self.nodes.len() > 1) {
            self.bytes -= self.nodes.pop_last().map_or(0, |(last, _)| last.len());
        }
    }
}

/// A comparison of two trees.
struct Comparison<'i> {
    form: Form,
    hasher: DefaultHashBuilder,
    interrupt: Interrupt<'i>,
}

impl Comparison<'_> {
    fn find(&self, one: &mut Tree<'_>, other: &mut Tree<'_>, limit: usize) -> Result<Found> {
        let mut nodes: HashMap<u64, u64> = HashMap::new();
        self.each(one, &mut |tree, shown| {
            nodes.insert(shown.place, self.content(tree, shown));
        })?;
        let mut found = Found { limit, count: 0, nodes: BTreeMap::new(), bytes: 0 };
        self.each(other, &mut |tree, shown| {
            if nodes.remove(&shown.place) != Some(self.content(tree, shown)) {
                found.add(shown.path, Place { place: shown.place, one: None, other: Some(shown.node) });
            }
        })?;
        if !nodes.is_empty() {
            self.each(one, &mut |_, shown| {
                if nodes.contains_key(&shown.place) {
                    found.add(shown.path, Place { place: shown.place, one: Some(shown.node), other: None });
                }
            })?;
        }
        Ok(found)
    }

    /// Passes each node of the key space to the callback, then the nodes of the auth store, of which only the values
    /// count.
    fn each<'m>(&self, tree: &mut Tree<'m>, show: &mut dyn FnMut(&Tree<'m>, &Shown<'_>)) -> Result<()> {
        for (namespace, whole) in [(&b"/1"[..], true), (b"/2", false)] {
            let Ok(root) = tree.lookup(namespace) else { continue };
            let tree = &*tree;
            // Hashes of the directories that contain the walk's position, and of the node.
            let mut places = vec![self.hasher.hash_one(namespace)];
            let mut visited = 0;
            tree.walk(root, &mut |visit| {
                visited += 1;
                self.interrupt.ask_at(visited)?;
                let path = visit.path();
                if visit.depth > 0 {
                    places.truncate(visit.depth);
                    let name = self.form.of(Cow::Borrowed(path::split(&path).1));
                    places.push(self.hasher.hash_one((places.last(), name)));
                }
                let place = places.last().copied().unwrap_or(0);
                show(tree, &Shown { node: visit.node, path: &path, place, whole });
                Ok::<_, crate::error::Error>(())
            })?;
        }
        Ok(())
    }

    fn content(&self, tree: &Tree<'_>, shown: &Shown<'_>) -> u64 {
        let node = shown.node;
        let value = (!tree.is_dir(node)).then(|| self.form.of(tree.value(node)));
        let place = shown.whole.then(|| (tree.created(node).0, tree.modified(node).0, tree.expiry(node)));
        self.hasher.hash_one((value, place))
    }
}

impl Form {
    fn of(self, bytes: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
        match self {
            Form::Bytes => bytes,
            Form::Text => text::as_go_writes(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::V2Index;
    use crate::v2store::table::Table;
    use crate::v2store::tree::NewNode;

    fn tree<'m>(table: &'m Table<'m>, nodes: &[(&str, &'static str, u64)]) -> Tree<'m> {
        let mut tree = Tree::new(table);
        for (path, value, index) in nodes {
            let node = NewNode { index: V2Index(*index), expiry: None, value: Some(value.as_bytes().into()) };
            tree.put(path.as_bytes(), node).unwrap();
        }
        tree
    }

    fn paths(one: &[(&str, &'static str, u64)], other: &[(&str, &'static str, u64)]) -> Vec<String> {
        let table = Table::empty();
        let found = difference(&mut tree(&table, one), &mut tree(&table, other), Interrupt::default()).unwrap();
        assert_eq!(found.count, found.paths.len() as u64);
        found.paths.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn finds_what_is_missing_and_what_is_not_alike() {
        let one = [("/1/a", "x", 1), ("/1/b", "y", 2), ("/1/c", "z", 3)];
        assert!(paths(&one, &one).is_empty());
        assert_eq!(paths(&one, &[("/1/a", "x", 1), ("/1/b", "y", 9), ("/1/d", "z", 3)]), ["/1/b", "/1/c", "/1/d"]);
        assert_eq!(paths(&one, &one[..2]), ["/1/c"]);
        assert_eq!(paths(&one[..2], &one), ["/1/c"]);
    }

    #[test]
    fn of_users_only_the_values_count_and_of_members_nothing() {
        assert!(paths(&[("/2/users/u", "{}", 4)], &[("/2/users/u", "{}", 5)]).is_empty());
        assert_eq!(paths(&[("/2/users/u", "{}", 4)], &[("/2/users/u", "{1}", 4)]), ["/2/users/u"]);
        assert!(paths(&[("/0/members/a/attributes", "{}", 4)], &[("/0/version", "2.3.0", 4)]).is_empty());
    }

    #[test]
    fn names_the_first_and_counts_all() {
        let table = Table::empty();
        let mut one = Tree::new(&table);
        for number in (0..1500u32).rev() {
            let node = NewNode { index: V2Index(1), expiry: None, value: Some(b"x"[..].into()) };
            one.put(format!("/1/{number:04}").as_bytes(), node).unwrap();
        }
        let found = difference(&mut one, &mut Tree::new(&table), Interrupt::default()).unwrap();
        assert_eq!((found.count, found.paths.len()), (1500, 1000));
        assert_eq!(
            (found.paths.first().unwrap().as_slice(), found.paths.last().unwrap().as_slice()),
            (&b"/1/0000"[..], &b"/1/0999"[..])
        );
    }

    #[test]
    fn nodes_of_both_trees_are_found_as_text() {
        let table = Table::empty();
        let node =
            |value: &'static [u8], index| NewNode { index: V2Index(index), expiry: None, value: Some(value.into()) };
        let (mut one, mut other) = (Tree::new(&table), Tree::new(&table));
        one.put(b"/1/\xff", node(b"a\xffb", 1)).unwrap();
        other.put("/1/\u{fffd}".as_bytes(), node("a\u{fffd}b".as_bytes(), 1)).unwrap();
        let found =
            |one: &mut Tree<'_>, other: &mut Tree<'_>| differing_nodes(one, other, 2, Interrupt::default()).unwrap();
        assert_eq!(found(&mut one, &mut other), DifferingNodes::default());
        assert_eq!(difference(&mut one, &mut other, Interrupt::default()).unwrap().count, 2);
        one.put(b"/1/b", node(b"x", 2)).unwrap();
        other.put(b"/1/b", node(b"y", 2)).unwrap();
        other.put(b"/1/c", node(b"y", 3)).unwrap();
        one.put(b"/1/d", node(b"y", 3)).unwrap();
        let found = found(&mut one, &mut other);
        let sides: Vec<_> = found.first.iter().map(|n| (&*n.path, n.one.is_some(), n.other.is_some())).collect();
        assert_eq!((found.count, sides), (3, vec![(&b"/1/b"[..], true, true), (b"/1/c", false, true)]));
    }
}
