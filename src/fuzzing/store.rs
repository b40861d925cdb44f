//! Snapshots: the container of a `.snap` file, and the JSON of the store in it.
//!
//! If the reader of the JSON accepts a document, serde_json must read the same tree from it. Must not know the
//! write-ahead log.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::convert::database;
use super::log::container;
use crate::error::Reason;
use crate::source::snap::parse;
use crate::v2store::json::{blank_unused, read, read_generally};
use crate::v2store::tree::Tree;

/// Reads any bytes as a `.snap` file: once unchanged, and once as the content of a container with a correct checksum.
pub fn snap(data: &[u8]) {
    read_snap(data);
    read_snap(&container(data));
}

fn read_snap(file: &[u8]) {
    let Ok(parsed) = parse(file) else { return };
    assert!(parsed.conf_state.voters.len() + parsed.conf_state.learners.len() <= file.len());
    store(&file[parsed.json]);
}

#[derive(Deserialize)]
struct Store {
    #[serde(rename = "Root")]
    root: Node,
    #[serde(rename = "CurrentIndex", default)]
    current_index: u64,
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "CreatedIndex", default)]
    created: u64,
    #[serde(rename = "ModifiedIndex", default)]
    modified: u64,
    #[serde(rename = "Value", default)]
    value: String,
    #[serde(rename = "Children", default)]
    children: Option<BTreeMap<String, Node>>,
}

type Row = (Vec<u8>, Vec<u8>, u64, u64, bool);

/// Reads any bytes as the JSON of a store.
pub fn store(data: &[u8]) {
    let general = read_generally(data);
    let table = match (read(data), &general) {
        (Ok(table), Ok(general)) => {
            assert!(table == *general, "both readers give the same table");
            table
        }
        (Err(error), Err(general)) => return assert_eq!(error.to_string(), general.to_string()),
        (fast, general) => panic!("the readers differ: {fast:?}, {general:?}"),
    };
    assert!(table.len() <= data.len(), "more nodes than fit into the bytes");
    let mut found: Vec<Row> = Vec::new();
    for node in &table.nodes {
        let (path, value) = (table.path(node), table.value(node));
        let mut buffers = (vec![0; node.path.len as usize], vec![0; node.value.len as usize]);
        assert!(table.copy_path(node, 0, &mut buffers.0) && table.copy_value(node, &mut buffers.1));
        assert_eq!((&*path, &*value), (&buffers.0[..], &buffers.1[..]), "lengths and bytes by two ways");
        found.push((path.into_owned(), value.into_owned(), node.created, node.modified, node.is_dir()));
    }
    let mut tree = Tree::new(&table);
    for (path, ..) in &found {
        // No store has a name "." or "..", and no clean path contains one.
        assert!(tree.lookup(path).is_ok() || path.is_empty(), "a lookup finds every node by its path");
    }
    if let Err(error) = database(&mut tree, table.current_index) {
        assert_eq!(error.reason(), Reason::IndexRange, "{error}");
    }
    let used = blank_unused(data).unwrap();
    let oracle: Store = match serde_json::from_slice(&used) {
        Ok(oracle) => oracle,
        Err(error) if excused(&used, &error.to_string()) => return,
        Err(error) => panic!("serde_json refuses a document that etcdlift accepts: {error}"),
    };
    assert_eq!(oracle.current_index, table.current_index.0);
    let mut expected = Vec::new();
    list(oracle.root, &mut expected);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

/// Returns whether serde_json may refuse a document that Go accepts: invalid UTF-8 or surrogates, and deep nesting.
fn excused(document: &[u8], error: &str) -> bool {
    let surrogate = |w: &[u8]| matches!(w, [b'\\', b'u', b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
    std::str::from_utf8(document).is_err() || error.contains("recursion limit") || document.windows(4).any(surrogate)
}

fn list(node: Node, out: &mut Vec<Row>) {
    let is_dir = node.children.is_some();
    out.push((node.path.into_bytes(), node.value.into_bytes(), node.created, node.modified, is_dir));
    for (_, child) in node.children.into_iter().flatten() {
        list(child, out);
    }
}
