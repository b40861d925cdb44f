//! The nodes in which two trees of one source differ, after replays with the rules of different versions.
//!
//! Compares all data that an output can depend on: the nodes of the key space and the values of the auth store. Must
//! not know how the trees were made.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::v2store::path;
use crate::v2store::tree::{NodeRef, Tree};

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

/// Compares two trees.
///
/// # Errors
/// An interruption.
pub fn difference(one: &mut Tree<'_>, other: &mut Tree<'_>, interrupt: Interrupt<'_>) -> Result<Difference> {
    let hasher = DefaultHashBuilder::default();
    let mut nodes: HashMap<u64, u64> = HashMap::new();
    each(one, &hasher, interrupt, &mut |tree, shown| {
        nodes.insert(shown.place, content(tree, shown, &hasher));
    })?;
    let mut found = Found::default();
    each(other, &hasher, interrupt, &mut |tree, shown| {
        if nodes.remove(&shown.place) != Some(content(tree, shown, &hasher)) {
            found.add(shown.path);
        }
    })?;
    if !nodes.is_empty() {
        each(one, &hasher, interrupt, &mut |_, shown| {
            if nodes.contains_key(&shown.place) {
                found.add(shown.path);
            }
        })?;
    }
    Ok(Difference { count: found.count, paths: found.paths.into_iter().collect() })
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
#[derive(Default)]
struct Found {
    count: u64,
    paths: BTreeSet<Vec<u8>>,
    /// Total length of the paths in bytes.
    bytes: usize,
}

impl Found {
    fn add(&mut self, path: &[u8]) {
        self.count += 1;
        let is_full = self.paths.len() == NAMED || self.bytes + path.len() > NAMED_BYTES;
        if is_full && self.paths.last().is_some_and(|last| path > last.as_slice()) {
            return;
        }
        if self.paths.insert(path.to_vec()) {
            self.bytes += path.len();
        }
        while self.paths.len() > NAMED || (self.bytes > NAMED_BYTES && self.paths.len() > 1) {
            self.bytes -= self.paths.pop_last().map_or(0, |last| last.len());
        }
    }
}

/// Passes each node of the key space to the callback, then the nodes of the auth store, of which only the values count.
fn each<'m>(
    tree: &mut Tree<'m>,
    hasher: &DefaultHashBuilder,
    interrupt: Interrupt<'_>,
    show: &mut dyn FnMut(&Tree<'m>, &Shown<'_>),
) -> Result<()> {
    for (namespace, whole) in [(&b"/1"[..], true), (b"/2", false)] {
        let Ok(root) = tree.lookup(namespace) else { continue };
        let tree = &*tree;
        // Hashes of the directories that contain the walk's position, and of the node.
        let mut places = vec![hasher.hash_one(namespace)];
        let mut visited = 0;
        tree.walk(root, &mut |visit| {
            visited += 1;
            interrupt.ask_at(visited)?;
            if visit.depth > 0 {
                places.truncate(visit.depth);
                let name = path::split(visit.path).1;
                places.push(hasher.hash_one((places.last(), name)));
            }
            let place = places.last().copied().unwrap_or(0);
            show(tree, &Shown { node: visit.node, path: visit.path, place, whole });
            Ok::<_, crate::error::Error>(())
        })?;
    }
    Ok(())
}

fn content(tree: &Tree<'_>, shown: &Shown<'_>, hasher: &DefaultHashBuilder) -> u64 {
    let node = shown.node;
    let value = (!tree.is_dir(node)).then(|| tree.value(node));
    let place = shown.whole.then(|| (tree.created(node).0, tree.modified(node).0, tree.expiry(node)));
    hasher.hash_one((value, place))
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
}
