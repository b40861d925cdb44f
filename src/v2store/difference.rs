//! In which nodes two trees of one source differ, where they were replayed by the rules of different versions.
//!
//! Compares all that an output can depend on: the nodes of the key space and the values of the auth store. Knows trees; not
//! how they came about.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::v2store::overlay::{NodeRef, Tree};

/// Names of nodes that are kept of a difference; the rest is counted.
const NAMED: usize = 1000;

/// Where two trees differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Nodes that only one of the trees has, or that are not alike in both.
    pub count: u64,
    /// Store paths of the first of them, in the order of their bytes.
    pub paths: Vec<Vec<u8>>,
}

/// Compares two trees.
pub fn difference(one: &mut Tree<'_>, other: &mut Tree<'_>) -> Difference {
    let hasher = DefaultHashBuilder::default();
    let mut nodes: HashMap<u64, u64> = HashMap::new();
    each(one, &mut |tree, node, whole| {
        nodes.insert(hasher.hash_one(tree.path(node)), content(tree, node, whole, &hasher));
    });
    let mut found = Found::default();
    each(other, &mut |tree, node, whole| {
        let path = tree.path(node);
        if nodes.remove(&hasher.hash_one(&path)) != Some(content(tree, node, whole, &hasher)) {
            found.add(&path);
        }
    });
    if !nodes.is_empty() {
        each(one, &mut |tree, node, _| {
            let path = tree.path(node);
            if nodes.contains_key(&hasher.hash_one(&path)) {
                found.add(&path);
            }
        });
    }
    Difference { count: found.count, paths: found.paths.into_keys().collect() }
}

/// The first paths, sorted, and how many there are.
#[derive(Default)]
struct Found {
    count: u64,
    paths: BTreeMap<Vec<u8>, ()>,
}

impl Found {
    fn add(&mut self, path: &[u8]) {
        self.count += 1;
        if self.paths.len() < NAMED {
            self.paths.insert(path.to_vec(), ());
        } else if self.paths.last_key_value().is_some_and(|(last, ())| path < last.as_slice()) {
            self.paths.insert(path.to_vec(), ());
            self.paths.pop_last();
        }
    }
}

/// Shows each node of the key space, then those of the auth store, of which only the values count.
fn each<'m>(tree: &mut Tree<'m>, show: &mut dyn FnMut(&Tree<'m>, NodeRef, bool)) {
    for (namespace, whole) in [(&b"/1"[..], true), (b"/2", false)] {
        let Ok(root) = tree.lookup(namespace) else { continue };
        let tree = &*tree;
        let walked: Result<(), std::convert::Infallible> = tree.walk(root, &mut |visit| {
            show(tree, visit.node, whole);
            Ok(())
        });
        let Ok(()) = walked;
    }
}

fn content(tree: &Tree<'_>, node: NodeRef, whole: bool, hasher: &DefaultHashBuilder) -> u64 {
    let value = (!tree.is_dir(node)).then(|| tree.value(node));
    let place = whole.then(|| (tree.created(node).0, tree.modified(node).0, tree.expiry(node)));
    hasher.hash_one((value, place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::V2Index;
    use crate::v2store::overlay::NewNode;
    use crate::v2store::table::Table;

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
        let found = difference(&mut tree(&table, one), &mut tree(&table, other));
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
        let found = difference(&mut one, &mut Tree::new(&table));
        assert_eq!((found.count, found.paths.len()), (1500, 1000));
        assert_eq!(
            (found.paths.first().unwrap().as_slice(), found.paths.last().unwrap().as_slice()),
            (&b"/1/0000"[..], &b"/1/0999"[..])
        );
    }
}
