//! v2 trees that etcd 3.3 to 3.5 stored in v3 for v2 clients (`--experimental-enable-v2v3 PREFIX`; docs/formats.md
//! 12.3).
//!
//! A node `/1/a/b` is the key `PREFIX/003/k//1/a/b`, with three digits for its depth, and a slash at its end for a
//! directory. `PREFIX/act` contains the last action. Knows key names only. Must not know the store.

use std::collections::BTreeMap;

/// A v2 tree in v3, with its number of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V2v3Tree {
    /// The prefix from the server's options.
    pub prefix: Vec<u8>,
    /// Number of its keys, with directories.
    pub keys: u64,
}

/// The part of such a tree that a key name identifies.
enum Name<'k> {
    Node(&'k [u8]),
    Action(&'k [u8]),
}

/// Returns the trees among these keys: prefixes with nodes and an action.
pub(super) fn trees<'k>(keys: impl Iterator<Item = &'k [u8]>) -> Vec<V2v3Tree> {
    let mut nodes: BTreeMap<&[u8], u64> = BTreeMap::new();
    let mut actions = Vec::new();
    for key in keys {
        match name(key) {
            Some(Name::Node(prefix)) => *nodes.entry(prefix).or_default() += 1,
            Some(Name::Action(prefix)) => actions.push(prefix),
            None => {}
        }
    }
    actions.sort_unstable();
    let tree = |prefix| Some(V2v3Tree { prefix: <[u8]>::to_vec(prefix), keys: *nodes.get(prefix)? });
    actions.into_iter().filter_map(tree).collect()
}

fn name(key: &[u8]) -> Option<Name<'_>> {
    if let Some(prefix) = key.strip_suffix(b"/act") {
        return Some(Name::Action(prefix));
    }
    const MARK: &[u8] = b"/k//";
    let at = memchr::memmem::find(key, MARK)?;
    let (before, path) = (key.get(..at)?, key.get(at + MARK.len() - 1..)?);
    let (prefix, depth) = before.split_at_checked(before.len().checked_sub(4)?)?;
    let digits = depth.strip_prefix(b"/").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let depth: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let path = path.strip_suffix(b"/").unwrap_or(path);
    (path.iter().filter(|b| **b == b'/').count() == depth).then_some(Name::Node(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_nodes_of_their_depth_and_an_action() {
        let found = |keys: &[&str]| -> Vec<(String, u64)> {
            let found = trees(keys.iter().map(|key| key.as_bytes()));
            found.into_iter().map(|tree| (String::from_utf8(tree.prefix).unwrap(), tree.keys)).collect()
        };
        let nodes = ["/p/002/k//1/a", "/p/002/k//1/foo/", "/p/003/k//1/foo/bar"];
        assert_eq!(found(&[&nodes[..], &["/p/act", "/other"]].concat()), [("/p".to_string(), 3)]);
        assert_eq!(found(&nodes), []);
        assert_eq!(found(&["/p/act", "/p/004/k//1/a", "/p/02/k//1/a", "/p/k//1/a", "/p/002/k/1/a"]), []);
        assert_eq!(found(&["/act", "/002/k//1/k//x", "/004/k//1/k//x"]), [("".to_string(), 1)]);
    }
}
