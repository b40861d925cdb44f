//! Everything that a server serves over the v2 API, as it shows it: text, in which each byte that is not UTF-8 has
//! become a U+FFFD.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::common::text::lossy;
use crate::common::v2keys::{Answer, Tree};
use crate::connection::{Call, Connection};

/// Listings in a row, to get one that no expiry came between.
const ATTEMPTS: usize = 20;

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    pub(super) key: String,
    pub(super) dir: bool,
    /// Empty for a directory.
    pub(super) value: String,
    pub(super) created: u64,
    pub(super) modified: u64,
    /// Its own, not that of a directory above.
    pub(super) expiration: Option<Timestamp>,
}

/// The v2 key space at one index.
#[derive(Debug)]
pub(super) struct Listing {
    /// Without the root. Two nodes may show the same key.
    pub(super) nodes: Vec<Node>,
    /// `X-Etcd-Index`.
    pub(super) etcd_index: u64,
}

impl Listing {
    /// Lists everything: the tree from its root, and what lies below each hidden name in any of the keys, which no
    /// listing from above shows.
    ///
    /// # Errors
    /// If the server does not answer, or the store never holds still.
    pub(super) fn read(connection: &mut Connection, keys: &[Vec<u8>]) -> Result<Self, String> {
        let hidden = hidden_paths(keys);
        for _ in 0..ATTEMPTS {
            let mut listing = Self { nodes: Vec::new(), etcd_index: 0 };
            let first = listing.add(connection, b"/")?;
            for path in &hidden {
                listing.add(connection, path)?;
            }
            let last = Self { nodes: Vec::new(), etcd_index: 0 }.add(connection, b"/")?;
            if first == last {
                listing.etcd_index = last;
                listing.nodes.sort();
                return Ok(listing);
            }
        }
        Err(format!("nodes expired in each of {ATTEMPTS} listings"))
    }

    fn add(&mut self, connection: &mut Connection, path: &[u8]) -> Result<u64, String> {
        let call = Call::new("GET", path).with("quorum", "true").with("recursive", "true").with("sorted", "true");
        let response = connection.ask(&call).map_err(|error| format!("{call:?}: {error}"))?;
        let text = String::from_utf8_lossy(&response.body);
        let index = response.header("X-Etcd-Index").and_then(|index| index.parse().ok());
        let index = index.ok_or_else(|| format!("{call:?}: {} without an index: {text}", response.status))?;
        // It does not exist, or is below a file.
        if text.starts_with("{\"errorCode\":100,") || text.starts_with("{\"errorCode\":104,") {
            return Ok(index);
        }
        if response.status != 200 {
            return Err(format!("{call:?}: {} {text}", response.status));
        }
        let answer: Answer = serde_json::from_slice(&response.body).map_err(|error| format!("{call:?}: {error}"))?;
        self.collect(answer.node)?;
        Ok(index)
    }

    fn collect(&mut self, tree: Tree) -> Result<(), String> {
        let expiration = tree.expiration.as_deref().map(str::parse).transpose();
        let expiration = expiration.map_err(|error| format!("{:?}: {error}", tree.expiration))?;
        for child in tree.nodes {
            self.collect(child)?;
        }
        if !tree.key.is_empty() {
            self.nodes.push(Node {
                key: tree.key,
                dir: tree.dir,
                value: tree.value,
                created: tree.created_index,
                modified: tree.modified_index,
                expiration,
            });
        }
        Ok(())
    }
}

/// Whether two nodes show the same key, because their names differ only in bytes that are not UTF-8.
pub(super) fn is_ambiguous(nodes: &[Node]) -> bool {
    let keys: BTreeSet<&str> = nodes.iter().map(|node| node.key.as_str()).collect();
    keys.len() < nodes.len()
}

/// Every beginning of a key that ends in a hidden name: as it was written, and as a server that has read a snapshot
/// has it.
fn hidden_paths(keys: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
    let mut hidden = BTreeSet::new();
    for key in keys {
        let mut beginnings = BTreeSet::from([Vec::new()]);
        for name in key.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let kinds = [name.to_vec(), lossy(name).into_bytes()];
            let join = |path: &Vec<u8>| kinds.clone().map(|name| [path.as_slice(), b"/", &name].concat());
            beginnings = beginnings.iter().flat_map(join).collect();
            if name.starts_with(b"_") {
                hidden.extend(beginnings.iter().cloned());
            }
        }
    }
    hidden
}
