//! The v2 store as a plain map from path to node, with the effects of requests by docs/formats.md 6.
//!
//! The oracle of the fuzz target `convert`, and the maker of snapshots for tests. It is simple and not optimised. Must
//! not know `v2store`: the two are independent, so that one detects the errors of the other.

use std::collections::BTreeMap;

use crate::source::raft::{Method, Request};

/// 2000-01-01, in nanoseconds.
const YEAR_2000: i64 = 946_684_800_000_000_000;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `None` for a directory.
    pub value: Option<Vec<u8>>,
    pub created: u64,
    pub modified: u64,
    /// Nanoseconds since the UNIX epoch.
    pub expiry: Option<i64>,
}

/// A v2 store, and the version of the server whose rules it follows.
#[derive(Debug, Clone)]
pub struct Model {
    pub nodes: BTreeMap<Vec<u8>, Node>,
    pub index: u64,
    pub version: (u32, u32),
}

impl Model {
    pub fn new(version: (u32, u32)) -> Model {
        let dir = || Node { value: None, created: 0, modified: 0, expiry: None };
        let nodes = [&b"/"[..], b"/0", b"/1"].map(|path| (path.to_vec(), dir())).into();
        Model { nodes, index: 0, version }
    }

    /// Adds a member, which is one write of the server itself.
    pub fn add_member(&mut self, id: u64, raft_attributes: &str) {
        self.put(format!("/0/members/{id:x}/raftAttributes").as_bytes(), Some(raft_attributes.into()), None);
    }

    pub fn apply(&mut self, request: &Request<'_>) {
        let path = clean(request.path);
        let expiry = Some(request.expiration).filter(|at| *at != 0);
        let new_expiry = expiry.filter(|at| *at >= YEAR_2000);
        let refresh = request.refresh == Some(true) && self.version >= (2, 3);
        let compares = request.prev_index > 0 || !request.prev_value.is_empty();
        let body = (!request.dir).then(|| request.val.to_vec());
        let found = self.nodes.get(&path).cloned();
        let matches = found.as_ref().is_some_and(|node| {
            node.value.as_ref().is_some_and(|value| request.prev_value.is_empty() || value == request.prev_value)
                && (request.prev_index == 0 || node.modified == request.prev_index)
        });
        let writable = !matches!(&path[..], b"/" | b"/0" | b"/1");
        match (request.method, request.prev_exist) {
            (Method::Post, _) => {
                let next = self.index + 1;
                let name = if self.version >= (2, 2) { format!("/{next:020}") } else { format!("/{next}") };
                let path = clean(&[&path, name.as_bytes()].concat());
                if !self.nodes.contains_key(&path) && self.open_above(&path) {
                    self.put(&path, body, new_expiry);
                }
            }
            (Method::Put, Some(false)) if writable && found.is_none() && self.open_above(&path) => {
                self.put(&path, body, new_expiry);
            }
            (Method::Put, Some(false)) => {}
            (Method::Put, Some(true)) if !compares => match found {
                Some(node) if node.value.is_none() && (!request.val.is_empty() || self.version >= (3, 5)) => {}
                Some(_) if writable => self.change(&path, request.val, refresh, expiry),
                _ => {}
            },
            (Method::Put, _) if compares && matches => self.change(&path, request.val, refresh, expiry),
            (Method::Delete, _) if compares && matches => self.remove(&path),
            (Method::Put | Method::Delete, _) if compares => {}
            (Method::Put, _) => match found {
                Some(Node { value: None, .. }) => {}
                Some(node) => {
                    let body = if refresh && !request.dir { node.value } else { body };
                    self.put(&path, body, new_expiry);
                }
                None if !refresh && self.open_above(&path) => self.put(&path, body, new_expiry),
                None => {}
            },
            (Method::Delete, _) if writable => match found {
                Some(Node { value: None, .. }) => {
                    let empty = self.below(&path).len() == 1;
                    if request.recursive || (request.dir && empty) {
                        self.remove(&path);
                    }
                }
                Some(_) => self.remove(&path),
                None => {}
            },
            (Method::Sync, _) => self.expire(request.time),
            _ => {}
        }
    }

    /// Returns whether no parent of the path is a file.
    fn open_above(&self, path: &[u8]) -> bool {
        !above(path).any(|dir| self.nodes.get(dir).is_some_and(|node| node.value.is_some()))
    }

    fn put(&mut self, path: &[u8], value: Option<Vec<u8>>, expiry: Option<i64>) {
        self.index += 1;
        let (created, modified) = (self.index, self.index);
        for dir in above(path) {
            let dir_node = || Node { value: None, created, modified, expiry: None };
            self.nodes.entry(dir.to_vec()).or_insert_with(dir_node);
        }
        self.nodes.insert(path.to_vec(), Node { value, created, modified, expiry });
    }

    fn change(&mut self, path: &[u8], value: &[u8], keep: bool, expiry: Option<i64>) {
        self.index += 1;
        let node = self.nodes.get_mut(path).unwrap();
        node.expiry = expiry;
        if let Some(old) = &mut node.value {
            node.modified = self.index;
            if !keep {
                *old = value.to_vec();
            }
        }
    }

    /// Returns the path and all paths below it.
    fn below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let inside = |other: &[u8]| other.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        self.nodes.keys().filter(|other| inside(other)).cloned().collect()
    }

    fn remove(&mut self, path: &[u8]) {
        for path in self.below(path) {
            self.nodes.remove(&path);
        }
        self.index += 1;
    }

    fn expire(&mut self, now: i64) {
        let due = |(path, node): (&Vec<u8>, &Node)| {
            let depth = path.iter().filter(|b| **b == b'/').count();
            Some((node.expiry.filter(|at| *at <= now)?, depth, path.clone()))
        };
        while let Some((_, _, path)) = self.nodes.iter().filter_map(due).min() {
            self.remove(&path);
        }
    }

    /// Returns the store after a snapshot. U+FFFD replaces bytes that are not UTF-8; of siblings with equal names then,
    /// the last one counts, with everything below it (docs/formats.md 3.1).
    pub fn after_snapshot(&self) -> Model {
        let mut out = Model { nodes: BTreeMap::new(), ..self.clone() };
        self.copy_replaced(b"/", b"/", &mut out);
        out
    }

    fn copy_replaced(&self, from: &[u8], to: &[u8], out: &mut Model) {
        for path in out.below(to) {
            // The prefix check with a slash does not apply to the root, but the root comes first and has nothing to
            // remove.
            out.nodes.remove(&path);
        }
        let mut node = self.nodes[from].clone();
        node.value = node.value.map(|value| replaced(&value));
        out.nodes.insert(to.to_vec(), node);
        for name in self.children(from) {
            self.copy_replaced(&join(from, &name), &join(to, &replaced(&name)), out);
        }
    }

    fn children(&self, dir: &[u8]) -> Vec<Vec<u8>> {
        let prefix = join(dir, b"");
        let names = self.nodes.keys().filter_map(|path| path.strip_prefix(&prefix[..]));
        names.filter(|name| !name.is_empty() && !name.contains(&b'/')).map(<[u8]>::to_vec).collect()
    }

    /// Returns the JSON of the store in a snapshot.
    pub fn json(&self) -> String {
        let mut out = String::from("{\"Root\":");
        self.node_json(b"/", &mut out);
        out.push_str(",\"WatcherHub\":{\"EventHistory\":{\"Queue\":{\"Events\":[null,{\"action\":\"set\\\"]}\"}]}}},");
        out.push_str(&format!("\"CurrentIndex\":{},\"Stats\":{{\"setsFail\":-1}},\"CurrentVersion\":2}}", self.index));
        out
    }

    fn node_json(&self, path: &[u8], out: &mut String) {
        let node = &self.nodes[path];
        out.push_str("{\"Path\":");
        quote(path, out);
        let expiry = node.expiry.map(|at| jiff::Timestamp::from_nanosecond(at.into()).unwrap().to_string());
        let expiry = expiry.unwrap_or_else(|| "0001-01-01T00:00:00Z".to_string());
        let Node { created, modified, .. } = node;
        out.push_str(&format!(
            ",\"CreatedIndex\":{created},\"ModifiedIndex\":{modified},\"ExpireTime\":\"{expiry}\",\"Value\":"
        ));
        quote(node.value.as_deref().unwrap_or_default(), out);
        out.push_str(",\"Children\":");
        if node.value.is_some() {
            out.push_str("null}");
            return;
        }
        out.push('{');
        for (i, name) in self.children(path).iter().enumerate() {
            out.push_str(if i == 0 { "" } else { "," });
            quote(name, out);
            out.push(':');
            self.node_json(&join(path, name), out);
        }
        out.push_str("}}");
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    [if dir == b"/" { b"" } else { dir }, b"/", name].concat()
}

/// Returns the parents of a clean path, the root first.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    slashes.map(|at| if at == 0 { &b"/"[..] } else { &path[..at] })
}

fn clean(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|b| *b == b'/') {
        match name {
            b".." => {
                names.pop();
            }
            b"" | b"." => {}
            name => names.push(name),
        }
    }
    [b"/", &names.join(&b'/')[..]].concat()
}

/// Replaces each byte that belongs to no character with U+FFFD, like Go.
fn replaced(bytes: &[u8]) -> Vec<u8> {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    out.into_bytes()
}

/// Appends a string as Go's JSON encoder writes it.
fn quote(bytes: &[u8], out: &mut String) {
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                    out.push_str(&format!("\\u{:04x}", u32::from(c)));
                }
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|_| out.push_str("\\ufffd"));
    }
    out.push('"');
}
