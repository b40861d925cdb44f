//! Every directory of the corpus, read by the library alone: the whole tree, directories and TTLs too, and the current
//! index must be what the server said. Also the kinds that cannot be converted yet (v3 data in the same directory).
//!
//! Needs the corpus; says `SKIPPED` without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use etcdlift::internals::source::dir::WalDir;
use etcdlift::internals::source::open::{Found, OpenOptions, open};
use etcdlift::internals::v2store::recover::recover;
use etcdlift::internals::v2store::replay::{ReplayOptions, read_table};
use etcdlift::internals::v2store::tree::Tree;

use crate::common::corpus::{self, Scenario};
use crate::common::run::all_well;
use crate::common::truth::Node;
use crate::test_name;

const KINDS: [&str; 14] = ["a", "b", "d", "e", "f", "g2", "g3", "gtorn", "h", "i", "p", "w", "x", "z2"];

/// Value (`None`: a directory), created and modified index, expiration.
type Entry = (Option<String>, u64, u64, Option<jiff::Timestamp>);

#[test]
fn every_directory_gives_the_tree_and_the_index_of_its_server() {
    let Some(scenarios) = corpus::of_kinds(test_name!(), &KINDS) else { return };
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for scenario in &scenarios {
        for name in scenario.truth.data_dirs.keys() {
            compared += 1;
            let differences = differences(scenario, name);
            wrong.extend(differences.into_iter().map(|what| format!("{}/{name}: {what}", scenario.name)));
        }
    }
    println!("{compared} directories compared");
    assert!(compared > corpus::at_least(40, 5), "{compared}");
    all_well(&wrong);
}

fn differences(scenario: &Arc<Scenario>, name: &str) -> Vec<String> {
    let truth = &scenario.truth.data_dirs[name];
    let wal_dir = truth.wal_dir.as_ref().map(|dir| WalDir::Dir(scenario.data_dir(dir)));
    let Found::V2(opened) = open(&scenario.data_dir(name), wal_dir.as_ref(), &OpenOptions::default()).unwrap() else {
        return vec!["no v2 data".into()];
    };
    let table = read_table(&opened).unwrap();
    let mut recovered = recover(&opened, &table, None, &ReplayOptions::default()).unwrap();
    let actual = entries(&mut recovered.replay.tree);
    let expected: BTreeMap<String, Entry> = scenario.truth.nodes_of(name).iter().map(entry).collect();
    let mut found = Vec::new();
    for (key, entry) in &expected {
        if actual.get(key) != Some(entry) {
            found.push(format!("{key:?}: expected {entry:?}, found {:?}", actual.get(key)));
        }
    }
    found.extend(actual.keys().filter(|key| !expected.contains_key(*key)).map(|key| format!("{key:?} is too much")));
    // A member that is behind, or whose last writes are above its commit, has an index of its own.
    let index = recovered.v2_index().0;
    let expected = truth.etcd_index.unwrap_or(scenario.truth.etcd_index);
    let own = truth.nodes.is_some() && truth.etcd_index.is_none();
    // A removed member was asked just before its removal, which is in its log and takes two indexes
    // (docs/formats.md 6.9).
    let expected = expected + if truth.is_removed() { 2 } else { 0 };
    if !own && index != expected {
        found.push(format!("current index {index}, expected {expected}"));
    }
    found
}

fn entry(node: &Node) -> (String, Entry) {
    let expiration = node.expiration.as_ref().map(|text| text.parse().unwrap());
    let value = if node.dir { None } else { Some(node.value.clone().unwrap_or_default()) };
    (node.key.clone(), (value, node.created_index, node.modified_index, expiration))
}

fn entries(tree: &mut Tree<'_>) -> BTreeMap<String, Entry> {
    let root = tree.lookup(b"/1").unwrap();
    let mut out = BTreeMap::new();
    let tree = &*tree;
    let walked: Result<(), ()> = tree.walk(root, &mut |visit| {
        let node = visit.node;
        let value = (!tree.is_dir(node)).then(|| lossy(&tree.value(node)));
        // Directories that were made on the way to a key have its index; the API shows the same.
        let entry = (value, tree.created(node).0, tree.modified(node).0, tree.expiry(node));
        if node != root {
            out.insert(lossy(&tree.path(node)[2..]), entry);
        }
        Ok(())
    });
    walked.unwrap();
    out
}

/// As the API shows bytes that are no UTF-8: each one replaced.
fn lossy(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    out
}
