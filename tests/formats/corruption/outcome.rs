//! What the library reads from a source, as values that can be compared: a tree, or an error.
//!
//! The other files of this folder compare the outcome of a damaged source with that of the whole one.

use std::path::Path;

use etcdlift::error::Result;
use etcdlift::internals::source::entries::End;
use etcdlift::internals::source::open::{Found, OpenOptions, open};
use etcdlift::internals::v2store::recover::recover;
use etcdlift::internals::v2store::replay::{ReplayOptions, read_table};

/// A node: its path, its value (`None`: a directory), created and modified index, expiry in nanoseconds.
pub(crate) type Node = (Vec<u8>, Option<Vec<u8>>, u64, u64, Option<i64>);

/// A whole tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) index: u64,
}

/// A tree and what was said about the way to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) tree: Tree,
    /// The offset at which the log was truncated.
    pub(crate) torn: Option<u64>,
    /// Anything that a report would warn of.
    pub(crate) notes: Vec<String>,
}

/// Reads a data directory.
pub(crate) fn read(dir: &Path) -> Result<Outcome> {
    let Found::V2(opened) = open(dir, None, &OpenOptions::default())? else { panic!("v2 data") };
    let table = read_table(&opened)?;
    let mut recovered = recover(&opened, &table, None, &ReplayOptions::default())?;
    let tree = &mut recovered.replay.tree;
    let mut nodes = Vec::new();
    let root = tree.lookup(b"/").unwrap();
    let tree = &*tree;
    let walked: std::result::Result<(), ()> = tree.walk(root, &mut |visit| {
        let node = visit.node;
        let value = (!tree.is_dir(node)).then(|| tree.value(node).into_owned());
        let expiry = tree.expiry(node).map(|at| i64::try_from(at.as_nanosecond()).unwrap());
        nodes.push((tree.path(node).into_owned(), value, tree.created(node).0, tree.modified(node).0, expiry));
        Ok(())
    });
    walked.unwrap();
    nodes.sort();
    let index = recovered.v2_index().0;
    let wal = opened.wal().unwrap();
    let torn = match wal.end() {
        End::Torn { offset, .. } => Some(offset.0),
        End::Clean | End::Damaged(_) => None,
    };
    let mut notes: Vec<String> = wal.holes().iter().map(|hole| hole.error.to_string()).collect();
    notes.extend(opened.start.passed_over.iter().map(|passed| passed.why.clone()));
    notes.extend(torn.map(|offset| format!("torn at {offset}")));
    if !recovered.tail.writes.is_empty() {
        notes.push(format!("{} writes left out", recovered.tail.writes.len()));
    }
    Ok(Outcome { tree: Tree { nodes, index }, torn, notes })
}
