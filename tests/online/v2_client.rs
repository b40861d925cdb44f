//! A client that sends random v2 requests of every kind, and what a server lists afterwards.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::random::Random;
use crate::common::v2keys::{self, Tree};
use crate::connection::{Call, Connection};

/// A client of several members. It goes on with the next one if a member fails.
pub(crate) struct Client {
    members: Vec<SocketAddr>,
    connection: Option<Connection>,
    random: Random,
    hidden: bool,
    ttl: bool,
    refresh: bool,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "ключ"];
const VALUES: [&str; 6] = ["x", "y", "z", "", "long long long long value \u{1}\"<&>", "значение"];

impl Client {
    /// A client for a seed. Without `complete`, it changes nothing that a watch does not show: hidden keys, and TTLs by a refresh.
    pub(crate) fn new(members: &[SocketAddr], seed: u64, complete: bool) -> Self {
        let (connection, random) = (None, Random::new(seed));
        Self { members: members.to_vec(), connection, random, hidden: complete, ttl: true, refresh: complete }
    }

    /// Sends so many requests; answers that refuse one count too.
    pub(crate) fn send(&mut self, count: usize) {
        for _ in 0..count {
            let call = self.call();
            self.ask(&call);
        }
    }

    /// Sends a request to any member, until one answers.
    pub(crate) fn ask(&mut self, call: &Call) {
        for attempt in 0..200 {
            let member = self.members[attempt % self.members.len()];
            if self.connection.is_none() {
                self.connection = Connection::open(member).ok();
            }
            let answer = self.connection.as_mut().and_then(|connection| connection.ask(call).ok());
            if answer.is_some_and(|answer| answer.status < 500) {
                return;
            }
            self.connection = None;
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("no member answers {call:?}");
    }

    fn path(&mut self) -> String {
        let depth = self.random.between(1, 3);
        let mut path = String::new();
        for _ in 0..depth {
            let hidden = if self.hidden && self.random.chance(8) { "_" } else { "" };
            path += &format!("/{hidden}{}", self.random.pick(&NAMES));
        }
        path
    }

    fn call(&mut self) -> Call {
        let path = self.path();
        let value = self.random.pick(&VALUES);
        let put = || Call::new("PUT", path.as_bytes());
        let delete = || Call::new("DELETE", path.as_bytes());
        // Some outlive the test.
        let seconds = self.random.pick(&[1, 2, 3, 4, 300, 400, 500]).to_string();
        let timed = |call: Call, on: bool| if on { call.with("ttl", seconds.clone()) } else { call };
        let ttl = self.ttl && self.random.chance(25);
        match self.random.below(100) {
            0..30 => timed(put().with("value", value), ttl),
            30..38 => timed(put().with("value", value).with("prevExist", "false"), ttl),
            38..46 => timed(put().with("value", value).with("prevExist", "true"), ttl),
            46..54 => put().with("value", value).with("prevValue", self.random.pick(&VALUES)),
            54..58 => put().with("value", value).with("prevIndex", self.random.between(1, 200).to_string()),
            58..64 => Call::new("POST", path.as_bytes()).with("value", value),
            64..69 => timed(put().with("dir", "true"), ttl),
            69..73 => timed(put().with("dir", "true").with("prevExist", "true"), self.ttl),
            73..79 => timed(put().with("refresh", "true").with("prevExist", "true"), self.refresh),
            79..88 => delete(),
            88..92 => delete().with("recursive", "true"),
            92..95 => delete().with("dir", "true"),
            _ => delete().with("prevValue", self.random.pick(&VALUES)),
        }
    }
}

/// A key that a server lists.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) value: String,
    pub(crate) created: u64,
    pub(crate) modified: u64,
    /// When the key, or a directory above it, expires: seconds since 1970.
    pub(crate) expiry: Option<i64>,
}

impl Listed {
    /// Whether both are the same, but for some seconds of their expiry.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let expires = match (self.expiry, other.expiry) {
            (Some(a), Some(b)) => a.abs_diff(b) <= 3,
            (a, b) => a == b,
        };
        expires && (&self.value, self.created, self.modified) == (&other.value, other.created, other.modified)
    }
}

/// Lists every key of a server, with its index. A listing leaves hidden nodes out unless it starts from one, so each possible one is
/// asked for.
pub(crate) fn list(server: SocketAddr, hidden: bool) -> (u64, BTreeMap<String, Listed>) {
    loop {
        let mut found = BTreeMap::new();
        let first = below(server, "", None, &mut found);
        if hidden {
            let mut dirs = vec![String::new()];
            for _ in 0..3 {
                let mut deeper = Vec::new();
                for dir in &dirs {
                    let expiry = expiry(server, dir);
                    for name in NAMES {
                        below(server, &format!("{dir}/_{name}"), expiry, &mut found);
                        deeper.extend([format!("{dir}/_{name}"), format!("{dir}/{name}")]);
                    }
                }
                deeper.retain(|dir| is_dir(server, dir));
                dirs = deeper;
            }
        }
        let again = below(server, "", None, &mut BTreeMap::new());
        if let Some(index) = first.filter(|_| first == again) {
            return (index, found);
        }
    }
}

fn is_dir(server: SocketAddr, path: &str) -> bool {
    v2keys::get(server, path, "").is_some_and(|(_, tree)| tree.dir)
}

/// When a directory, or one above it, expires.
fn expiry(server: SocketAddr, path: &str) -> Option<i64> {
    let above = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]).filter(|path| !path.is_empty());
    above.filter_map(|path| ends(&v2keys::get(server, path, "")?.1)).min()
}

/// When a node expires by itself.
fn ends(tree: &Tree) -> Option<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    tree.ttl.map(|ttl| now.cast_signed() + ttl)
}

/// Adds the keys below a path. Returns the index of the server, if the path exists.
fn below(server: SocketAddr, path: &str, above: Option<i64>, found: &mut BTreeMap<String, Listed>) -> Option<u64> {
    let (index, tree) = v2keys::get(server, if path.is_empty() { "/" } else { path }, "?recursive=true&quorum=true")?;
    let mut rest = vec![(tree, above)];
    while let Some((tree, above)) = rest.pop() {
        let expiry = above.into_iter().chain(ends(&tree)).min();
        if !tree.dir {
            let Tree { value, created_index: created, modified_index: modified, .. } = tree;
            found.insert(tree.key, Listed { value, created, modified, expiry });
        }
        rest.extend(tree.nodes.into_iter().map(|tree| (tree, expiry)));
    }
    Some(index)
}
