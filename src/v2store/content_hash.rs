//! The content hash of a tree: one SHA-256 over what clients see, equal for all members with the same content.
//!
//! Covers what `difference` compares: the nodes of the key space with value, indexes and expiry, and the values of the
//! auth store. Names and values count as the text of an answer. docs/compare.md describes the bytes. Must not know how
//! the tree was made.

use std::fmt;

use rayon::slice::ParallelSliceMut;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::v2store::tree::{NodeRef, Tree};
use crate::v2store::{path, text};

/// A SHA-256 over the content of a tree, printed as lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Computes the content hash of a tree: the SHA-256 of the v2 index and the digests of all nodes, sorted. So the order
/// of the nodes does not matter.
///
/// # Errors
/// An interruption.
pub fn content_hash(tree: &mut Tree<'_>, interrupt: Interrupt<'_>) -> Result<ContentHash> {
    let mut digests: Vec<[u8; 32]> = Vec::new();
    for (namespace, whole) in [(&b"/1"[..], true), (b"/2", false)] {
        let Ok(root) = tree.lookup(namespace) else { continue };
        let tree = &*tree;
        // Digests of the directories that contain the walk's position, and of the node.
        let mut places = vec![place(&[0; 32], namespace)];
        tree.walk(root, &mut |visit| {
            interrupt.ask_at(digests.len())?;
            if visit.depth > 0 {
                places.truncate(visit.depth);
                let above = places.last().copied().unwrap_or_default();
                places.push(place(&above, &text::as_go_writes(path::split(&visit.path()).1.into())));
            }
            let place = places.last().copied().unwrap_or_default();
            digests.push(node(tree, visit.node, &place, whole));
            Ok::<_, crate::error::Error>(())
        })?;
    }
    interrupt.ask()?;
    digests.par_sort_unstable();
    let mut hash = Sha256::new();
    hash.update(tree.current_index.0.to_le_bytes());
    digests.iter().for_each(|digest| hash.update(digest));
    Ok(ContentHash(hash.finalize().into()))
}

/// Returns the digest of a path: that of its directory, and its name.
fn place(above: &[u8; 32], name: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(above);
    hash.update(name);
    hash.finalize().into()
}

fn node(tree: &Tree<'_>, node: NodeRef, place: &[u8; 32], whole: bool) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(place);
    hash.update([u8::from(tree.is_dir(node))]);
    if whole {
        let expiry = tree.expiry(node).map_or(0, |at| at.as_nanosecond());
        hash.update(tree.created(node).0.to_le_bytes());
        hash.update(tree.modified(node).0.to_le_bytes());
        hash.update([u8::from(tree.expiry(node).is_some())]);
        hash.update(expiry.to_le_bytes());
    }
    if !tree.is_dir(node) {
        hash.update(text::as_go_writes(tree.value(node)));
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::V2Index;
    use crate::v2store::table::Table;
    use crate::v2store::tree::NewNode;

    type Nodes<'n> = &'n [(&'n [u8], Option<&'static [u8]>, u64, Option<i64>)];

    fn hash(nodes: Nodes<'_>) -> String {
        let table = Table::empty();
        let mut tree = Tree::new(&table);
        for (path, value, index, expiry) in nodes {
            let expiry = expiry.map(|at| jiff::Timestamp::from_second(at).unwrap());
            let node = NewNode { index: V2Index(*index), expiry, value: value.map(Into::into) };
            tree.put(path, node).unwrap();
        }
        content_hash(&mut tree, Interrupt::default()).unwrap().to_string()
    }

    #[test]
    fn every_field_that_clients_see_counts() {
        let base: Nodes<'_> = &[(b"/1/a", Some(b"x"), 3, None)];
        let cases: [Nodes<'_>; 8] = [
            base,
            &[],
            &[(b"/1/b", Some(b"x"), 3, None)],
            &[(b"/1/a", Some(b"y"), 3, None)],
            &[(b"/1/a", None, 3, None)],
            &[(b"/1/a", Some(b"x"), 4, None)],
            &[(b"/1/a", Some(b"x"), 3, Some(9))],
            &[(b"/1/a", Some(b"x"), 3, None), (b"/2/users/u", Some(b"{}"), 1, None)],
        ];
        let hashes: std::collections::BTreeSet<String> = cases.iter().map(|nodes| hash(nodes)).collect();
        assert_eq!(hashes.len(), cases.len());
    }

    #[test]
    fn order_members_and_lost_bytes_do_not_count() {
        let (a, b) = ((&b"/1/a"[..], Some(&b"x"[..]), 3, None), (&b"/1/b"[..], Some(&b"y"[..]), 4, None));
        assert_eq!(hash(&[a, b]), hash(&[b, a]));
        assert_eq!(hash(&[a]), hash(&[a, (b"/0/version", Some(b"2.3.0"), 5, None)]));
        let text = "/1/\u{fffd}";
        assert_eq!(
            hash(&[(b"/1/\xff", Some(b"\xff"), 3, None)]),
            hash(&[(text.as_bytes(), Some("\u{fffd}".as_bytes()), 3, None)])
        );
        // The value is stable: docs/compare.md describes its bytes.
        assert_eq!(hash(&[a]), "0de8be5d6e54fe8a85c6c00809c85ef0d88e901c65655beaf147ad0c9ee00e40");
    }
}
