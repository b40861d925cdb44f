//! What a running server serves over the v2 API: the oracle where no truth
//! was written down.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

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

/// An answer with a node.
#[derive(Debug, Deserialize)]
pub struct Answer {
    pub node: Tree,
}

/// A node as the API shows it: whatever is empty or false is left out, and the root has no key and no index.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Tree {
    pub key: String,
    pub dir: bool,
    pub value: String,
    pub created_index: u64,
    pub modified_index: u64,
    /// Seconds that are left.
    pub ttl: Option<i64>,
    /// RFC 3339.
    pub expiration: Option<String>,
    pub nodes: Vec<Tree>,
}

/// Reads a node, with the index of the server; `None` if it does not exist any more, or is now below a file.
///
/// # Panics
/// If the server refuses, or does not answer within some seconds, as during an election.
pub fn get(server: SocketAddr, path: &str, query: &str) -> Option<(u64, Tree)> {
    let target = format!("/v2/keys{}{query}", http::escape_path(path.as_bytes()));
    let mut response = http::get(server, &target).unwrap();
    for _ in 0..50 {
        if response.status < 500 {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        response = http::get(server, &target).unwrap();
    }
    let text = String::from_utf8_lossy(&response.body);
    if response.status == 404 || text.starts_with("{\"errorCode\":104,") {
        return None;
    }
    assert_eq!(response.status, 200, "GET {target}: {text}");
    let answer: Answer = serde_json::from_str(&text).unwrap();
    Some((response.header("X-Etcd-Index").unwrap().parse().unwrap(), answer.node))
}

fn walk(server: &Server, path: &str, found: &mut BTreeMap<String, Node>) -> Option<u64> {
    let (index, tree) = get(server.client_address(), path, "?recursive=true")?;
    collect(tree, found);
    Some(index)
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
        value: Some(tree.value),
        created_index: tree.created_index,
        modified_index: tree.modified_index,
        expiration: None,
        hidden: false,
    };
    found.insert(tree.key, node);
}
