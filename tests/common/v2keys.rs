//! What a running server serves over the v2 API: the oracle where no truth
//! was written down.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::peers::{Peers, Version};
use super::rows::Row;
use super::run::{bounded, run};
use super::server::{Boot, Server};
use super::truth::Node;
use super::{http, scratch};

/// The v2 key space of a server.
#[derive(Debug)]
pub struct Listing {
    /// Every file node.
    pub rows: Vec<Row>,
    /// `X-Etcd-Index`.
    pub etcd_index: u64,
}

/// What etcd 3.4 serves from a copy of a v2 data directory, started as a new
/// one-member cluster.
///
/// # Panics
/// If it does not start.
pub fn serve_copy(peers: &Peers, data_dir: &Path, hidden: &[String]) -> Listing {
    let temp = scratch::temp();
    let copy = temp.path().join("copy");
    scratch::copy_tree(data_dir, &copy);
    make_backend(peers, &copy);
    let server =
        Server::start(&Boot { enable_v2: true, force_new_cluster: true, ..Boot::new(peers, Version::V3_4, &copy) });
    list(&server, hidden)
}

/// A server of 3.2 or later that finds a `.snap` but no backend refuses to
/// start. The offline migration of that time makes one.
fn make_backend(peers: &Peers, data_dir: &Path) {
    let snap = data_dir.join("member/snap");
    if !snap.is_dir() || snap.join("db").exists() {
        return;
    }
    let mut command = bounded(&peers.etcdctl_3_4(), 60);
    command.env("ETCDCTL_API", "3").arg("migrate");
    run(command.arg("--data-dir").arg(data_dir)).success();
}

/// Lists everything, and what lies below each of the hidden paths: a listing
/// leaves out hidden nodes unless it starts from one.
pub fn list(server: &Server, hidden: &[String]) -> Listing {
    let mut found = BTreeMap::new();
    let etcd_index = walk(server, "/", &mut found).expect("the root is always there");
    for path in hidden {
        walk(server, path, &mut found);
    }
    let rows = found.values().map(Row::of_node).collect();
    Listing { rows, etcd_index }
}

#[derive(Deserialize)]
struct Answer {
    node: Tree,
}

/// As the API shows it: without empty and false fields, and the root
/// has no key and no index.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tree {
    #[serde(default)]
    key: String,
    #[serde(default)]
    dir: bool,
    value: Option<String>,
    #[serde(default)]
    created_index: u64,
    #[serde(default)]
    modified_index: u64,
    #[serde(default)]
    nodes: Vec<Tree>,
}

fn walk(server: &Server, path: &str, found: &mut BTreeMap<String, Node>) -> Option<u64> {
    let target = format!("/v2/keys{}?recursive=true", http::escape_path(path.as_bytes()));
    let response = http::get(server.client_address(), &target).unwrap();
    let text = String::from_utf8_lossy(&response.body);
    // It does not exist any more, or is now below a file.
    if response.status == 404 || text.starts_with("{\"errorCode\":104,") {
        return None;
    }
    assert_eq!(response.status, 200, "GET {target}: {text}");
    let answer: Answer = serde_json::from_str(&text).unwrap();
    collect(answer.node, found);
    Some(response.header("X-Etcd-Index").unwrap().parse().unwrap())
}

fn collect(tree: Tree, found: &mut BTreeMap<String, Node>) {
    for child in tree.nodes {
        collect(child, found);
    }
    if tree.dir {
        return;
    }
    let node = Node {
        key: tree.key.clone(),
        dir: false,
        value: tree.value,
        created_index: tree.created_index,
        modified_index: tree.modified_index,
        expiration: None,
        hidden: false,
    };
    found.insert(tree.key, node);
}
