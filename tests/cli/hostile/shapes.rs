//! Sources that are small on disk and large in what they ask for.
//!
//! Each shape is a snapshot, a log, or both, of a size that a random number decides; what is written may be damaged
//! afterwards, with checksums that fit or without.

use std::fs;
use std::path::{Path, PathBuf};

use etcdlift::internals::fuzzing::log::{self, Dialect, Log};
use etcdlift::internals::source::raft::{Method, Request};

use crate::common::random::Random;
use crate::common::v2store::{NEVER, Node, joined, store_of};

/// A source that is not written yet.
#[derive(Debug)]
pub(super) struct Source {
    /// The shape.
    pub(super) name: &'static str,
    /// How much of what makes it hostile.
    pub(super) size: usize,
    /// Components of the longest path in the log.
    pub(super) components: usize,
    store: Option<String>,
    entries: Vec<(u64, Vec<u8>)>,
    dialect: Dialect,
    version: &'static str,
}

const NODE: u64 = 0xa1;
const CLUSTER: u64 = 0xc;
/// Raft index and term of the snapshot.
const SNAPSHOT: (u64, u64) = (10, 2);

type Shape = fn(&mut Source, usize, &mut Random);

/// Shapes with the largest size of each.
const SHAPES: [(&str, Shape, usize); 25] = [
    ("refreshes of an escaped value", refreshes, 4000),
    ("a deep path", deep_path, 200_000),
    ("deep paths, made and removed", deep_paths, 400),
    ("members, added", members_added, 8000),
    ("attributes of many members", attributes, 3000),
    ("members, added and removed", members_changed, 3000),
    ("an empty event history", empty_history, 300_000),
    ("an event history", history, 5000),
    ("one wide directory", wide, 20_000),
    ("many first elements", first_elements, 20_000),
    ("a deep snapshot", deep_snapshot, 1500),
    ("keys with a TTL", ttls, 10_000),
    ("one TTL, over and over", one_ttl, 10_000),
    ("in-order keys", in_order, 8000),
    ("one key, over and over", one_key, 10_000),
    ("a directory, made and removed", churn, 3000),
    ("syncs", syncs, 10_000),
    ("requests of any kind", any_requests, 4000),
    ("compares with a large value", compares, 3000),
    ("users and roles", users, 3000),
    ("a role with many permissions", permissions, 5000),
    ("names that become one", duplicates, 5000),
    ("escapes", escapes, 100_000),
    ("empty entries", empty_entries, 30_000),
    ("nothing of etcd", noise, 100_000),
];

impl Source {
    pub(super) fn generate(random: &mut Random) -> Source {
        let (name, shape, most) = random.pick(&SHAPES);
        // Sizes of every magnitude, the large ones less often.
        let mut size = most;
        while size > 1 && random.chance(60) {
            size /= random.between(2, 4);
        }
        let size = random.between((size / 2).max(1), size.max(1));
        let dialect = random.pick(&[Dialect::Unpadded, Dialect::Padded]);
        let version = random.pick(&["2.0.0", "2.3.0", "3.4.0", "3.5.0"]);
        let mut source = Source { name, size, components: 0, store: None, entries: Vec::new(), dialect, version };
        let member = log::conf_change(0, NODE, &log::member_json(NODE, 2380));
        source.entries.push((log::CONF_CHANGE, member));
        source.put(b"/0/version", source.version.as_bytes());
        shape(&mut source, size, random);
        source
    }

    /// Writes it as a data directory, or as one of its files.
    pub(super) fn write(&self, dir: &Path, random: &mut Random) -> PathBuf {
        let (snap, wal) = (dir.join("member/snap"), dir.join("member/wal"));
        fs::create_dir_all(&snap).unwrap();
        fs::create_dir_all(&wal).unwrap();
        let snap_file = snap.join(log::snap_file(SNAPSHOT.1, SNAPSHOT.0));
        if let Some(store) = &self.store {
            let mut json = store.clone().into_bytes();
            if random.chance(15) {
                damage(&mut json, random);
            }
            fs::write(&snap_file, log::snap(&json, SNAPSHOT.0, SNAPSHOT.1, &[NODE])).unwrap();
        }
        for (name, bytes) in self.log(random) {
            fs::write(wal.join(name), bytes).unwrap();
        }
        if random.chance(25) {
            let files: Vec<PathBuf> = [&snap, &wal]
                .into_iter()
                .flat_map(|dir| fs::read_dir(dir).unwrap())
                .map(|e| e.unwrap().path())
                .collect();
            let file = random.pick(&files);
            let mut bytes = fs::read(&file).unwrap();
            damage(&mut bytes, random);
            fs::write(file, bytes).unwrap();
        }
        match random.below(12) {
            0 if self.store.is_some() => snap_file,
            1 => wal,
            _ => dir.to_path_buf(),
        }
    }

    /// The segments of the log, by name.
    fn log(&self, random: &mut Random) -> Vec<(String, Vec<u8>)> {
        let mut log = Log::new(self.dialect, NODE, CLUSTER);
        let (mut index, term) = if self.store.is_some() { SNAPSHOT } else { (0, 2) };
        if index > 0 {
            log.state(term, NODE, index);
            log.snapshot(index, term);
        }
        let cut = random.chance(30).then(|| random.below(self.entries.len() + 1));
        for (at, (kind, data)) in self.entries.iter().enumerate() {
            if cut == Some(at) {
                log.state(term, NODE, index);
                log.cut(index + 1, Some([term, NODE, index]));
            }
            index += 1;
            log.entry(*kind, term, index, Some(data));
            // Some servers write one for each entry.
            if random.chance(5) {
                log.state(term, NODE, index);
            }
        }
        log.state(term, NODE, index);
        let named = log.named().into_iter();
        named.map(|(name, bytes)| (name.path.file_name().unwrap().to_str().unwrap().to_string(), bytes)).collect()
    }

    fn request(&mut self, request: &Request<'_>) {
        self.entries.push((log::NORMAL, log::request(request)));
    }

    fn put(&mut self, path: &[u8], val: &[u8]) {
        self.request(&Request { method: Method::Put, path, val, ..Request::default() });
    }

    fn delete(&mut self, path: &[u8]) {
        self.request(&Request { method: Method::Delete, path, dir: true, recursive: true, ..Request::default() });
    }

    /// A snapshot whose namespace of keys has these children.
    fn snapshot(&mut self, children: &str) {
        self.with_root(&format!(r#""1":{}"#, dir("/1", children)), "null");
    }

    fn with_root(&mut self, children: &str, history: &str) {
        self.store = Some(store_of(100_000, children, history));
    }
}

fn dir(path: &str, children: &str) -> String {
    Node::dir(path, 0, children).json()
}

fn leaf(path: &str, value: &str, expiry: &str) -> String {
    Node::file(path, 5, value).modified(6).expires(expiry).child()
}

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    joined((0..count).map(item))
}

/// A few bytes flipped, cut off, put in, doubled or made zero.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.between(1, 4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        let end = (at + random.between(1, 600)).min(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => bytes[at..end].fill(0),
            3 => bytes[at..end].fill(0xff),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            _ => bytes[at] = random.below(256) as u8,
        }
    }
}

fn refreshes(source: &mut Source, size: usize, random: &mut Random) {
    let value = r"\n\u0007".repeat(random.between(1, 40_000));
    source.snapshot(&leaf("/1/k", &value, NEVER));
    for n in 0..size {
        let expiration = 4_000_000_000_000_000_000 + n as i64;
        let refresh =
            Request { method: Method::Put, path: b"/1/k", expiration, refresh: Some(true), ..Request::default() };
        source.request(&refresh);
    }
}

fn deep_path(source: &mut Source, size: usize, random: &mut Random) {
    let path = format!("/1{}", "/a".repeat(size));
    source.components = size;
    source.put(path.as_bytes(), b"v");
    if random.chance(50) {
        source.delete(b"/1/a");
    }
    if random.chance(50) {
        source.put(path.as_bytes(), b"w");
    }
}

fn deep_paths(source: &mut Source, size: usize, random: &mut Random) {
    let path = format!("/1{}", "/b".repeat(random.between(1, 2000)));
    for _ in 0..size {
        source.put(path.as_bytes(), b"v");
        if random.chance(90) {
            source.delete(b"/1/b");
        }
    }
}

fn members_added(source: &mut Source, size: usize, _: &mut Random) {
    for n in 0..size as u64 {
        source.entries.push((log::CONF_CHANGE, log::conf_change(0, 0x1000 + n, &log::member_json(0x1000 + n, 2380))));
    }
}

fn members_changed(source: &mut Source, size: usize, random: &mut Random) {
    for n in 0..size as u64 {
        let id = 0x1000 + random.below(50) as u64;
        let kind = random.below(4) as u64;
        source.entries.push((log::CONF_CHANGE, log::conf_change(kind, id, &log::member_json(id, n as u16))));
    }
}

fn attributes(source: &mut Source, size: usize, random: &mut Random) {
    let many = random.between(1, 5000);
    let members = list(many, |n| {
        let path = format!("/0/members/{n:x}");
        let attributes = format!(r#"{{\"id\":{n},\"peerURLs\":[\"http://h:{n}\"]}}"#);
        let inner = leaf(&format!("{path}/raftAttributes"), &attributes, NEVER);
        format!(r#""{n:x}":{}"#, dir(&path, &inner))
    });
    source
        .with_root(&format!(r#""0":{}"#, dir("/0", &format!(r#""members":{}"#, dir("/0/members", &members)))), "null");
    for n in 0..size {
        let path = format!("/0/members/{:x}/attributes", n % many);
        source.put(path.as_bytes(), br#"{"name":"m","clientURLs":["http://c:1"]}"#);
    }
}

fn empty_history(source: &mut Source, size: usize, _: &mut Random) {
    let events = list(size, |_| "null".to_string());
    let history = format!(r#"{{"Queue":{{"Events":[{events}],"Size":{size}}},"StartIndex":1,"LastIndex":9}}"#);
    source.with_root(&format!(r#""1":{}"#, dir("/1", &leaf("/1/k", "v", "2031-01-01T00:00:00Z"))), &history);
}

fn history(source: &mut Source, size: usize, _: &mut Random) {
    let events = list(size, |n| {
        format!(
            r#"{{"action":"set","node":{{"key":"/1/k","value":"v","expiration":"2031-01-01T00:00:00Z","ttl":{n},"modifiedIndex":{n},"createdIndex":{n}}}}}"#
        )
    });
    let history = format!(r#"{{"Queue":{{"Events":[{events}],"Size":{size}}},"StartIndex":1,"LastIndex":9}}"#);
    source.with_root(&format!(r#""1":{}"#, dir("/1", &leaf("/1/k", "v", "2031-01-01T00:00:00Z"))), &history);
}

fn wide(source: &mut Source, size: usize, random: &mut Random) {
    let children = list(size, |n| leaf(&format!("/1/d/{n}"), "v", NEVER));
    source.snapshot(&format!(r#""d":{}"#, dir("/1/d", &children)));
    for n in 0..random.below(200) {
        source.put(format!("/1/d/{n}").as_bytes(), b"w");
    }
}

fn first_elements(source: &mut Source, size: usize, _: &mut Random) {
    source.snapshot(&list(size, |n| leaf(&format!("/1/{n:07}"), "", NEVER)));
}

fn deep_snapshot(source: &mut Source, size: usize, _: &mut Random) {
    let mut path = format!("/1{}", "/d".repeat(size));
    let mut node = leaf(&format!("{path}/k"), "v", NEVER);
    for _ in 0..size {
        node = format!(r#""d":{}"#, dir(&path, &node));
        path.truncate(path.len() - 2);
    }
    source.snapshot(&node);
}

fn ttls(source: &mut Source, size: usize, random: &mut Random) {
    let day = random.between(1, 28);
    source.snapshot(&list(size, |n| {
        let expiry = format!("2031-01-{day:02}T{:02}:{:02}:{:02}.{n:09}Z", n % 24, n / 24 % 60, n / 1440 % 60);
        leaf(&format!("/1/t{n}"), "v", &expiry)
    }));
    let time = 1_900_000_000_000_000_000;
    source.request(&Request { method: Method::Sync, time, ..Request::default() });
}

fn one_ttl(source: &mut Source, size: usize, random: &mut Random) {
    let path = format!("/1{}", "/long".repeat(random.between(1, 40)));
    for n in 0..size as i64 {
        let expiration = 1_900_000_000_000_000_000 - n * 1_000_000;
        source.request(&Request {
            method: Method::Put,
            path: path.as_bytes(),
            val: b"v",
            expiration,
            ..Request::default()
        });
    }
}

fn in_order(source: &mut Source, size: usize, _: &mut Random) {
    for _ in 0..size {
        source.request(&Request { method: Method::Post, path: b"/1/q", val: b"job", ..Request::default() });
    }
}

fn one_key(source: &mut Source, size: usize, random: &mut Random) {
    let value = vec![b'v'; random.between(0, 100)];
    (0..size).for_each(|_| source.put(b"/1/k", &value));
}

fn churn(source: &mut Source, size: usize, random: &mut Random) {
    let children = list(random.between(1, 2000), |n| leaf(&format!("/1/d/{n}"), "v", NEVER));
    source.snapshot(&format!(r#""d":{}"#, dir("/1/d", &children)));
    for n in 0..size {
        source.put(format!("/1/d/{}", n % 7).as_bytes(), b"w");
        source.delete(if n % 3 == 0 { b"/1/d" } else { b"/1/d/3" });
    }
}

fn syncs(source: &mut Source, size: usize, _: &mut Random) {
    let expiration = 1_900_000_000_000_000_000;
    source.request(&Request { method: Method::Put, path: b"/1/k", val: b"v", expiration, ..Request::default() });
    for n in 0..size as i64 {
        source.request(&Request { method: Method::Sync, time: 1_500_000_000_000_000_000 + n, ..Request::default() });
    }
}

fn any_requests(source: &mut Source, size: usize, random: &mut Random) {
    const PATHS: [&[u8]; 12] = [
        b"/1/a",
        b"/1/a/b",
        b"/1/a/b/c",
        b"/1/_h/x",
        b"/1",
        b"/",
        b"/0/members/a1/attributes",
        b"/2/users/u",
        b"/1/\xff",
        b"/1/a/../b",
        b"",
        b"/1/\xe2\x80\xae",
    ];
    for _ in 0..size {
        let request = Request {
            method: random.pick(&[
                Method::Put,
                Method::Put,
                Method::Put,
                Method::Post,
                Method::Delete,
                Method::Sync,
                Method::Qget,
                Method::Unknown,
            ]),
            path: random.pick(&PATHS),
            val: random.pick(&[&b"v"[..], b"", b"\xff", b"{}"]),
            dir: random.chance(20),
            recursive: random.chance(50),
            sorted: false,
            refresh: random.pick(&[None, Some(false), Some(true)]),
            prev_exist: random.pick(&[None, None, Some(false), Some(true)]),
            prev_value: random.pick(&[&b""[..], b"v"]),
            prev_index: random.pick(&[0, 0, 3, u64::MAX]),
            expiration: random.pick(&[0, 0, 1, -1, i64::MAX, i64::MIN, 1_900_000_000_000_000_000]),
            time: random.pick(&[0, 1_600_000_000_000_000_000, i64::MAX, i64::MIN]),
        };
        source.request(&request);
    }
}

fn compares(source: &mut Source, size: usize, random: &mut Random) {
    let value = r"\t\u0041".repeat(random.between(1, 20_000));
    source.snapshot(&leaf("/1/k", &value, NEVER));
    for n in 0..size {
        let prev_value: &[u8] = if n % 2 == 0 { b"another" } else { b"\tA" };
        let request = Request { method: Method::Put, path: b"/1/k", val: b"w", prev_value, ..Request::default() };
        source.request(&request);
    }
}

fn users(source: &mut Source, size: usize, random: &mut Random) {
    let roles = random.between(1, 300);
    let users = list(size, |n| {
        let value =
            format!(r#"{{\"user\":\"u{n}\",\"password\":\"$2a$10$x\",\"roles\":[\"r{}\",\"root\"]}}"#, n % roles);
        leaf(&format!("/2/users/u{n}"), &value, NEVER)
    });
    let roles = list(roles, |n| {
        let value = format!(
            r#"{{\"role\":\"r{n}\",\"permissions\":{{\"kv\":{{\"read\":[\"/a{n}/*\"],\"write\":[\"/b\"]}}}}}}"#
        );
        leaf(&format!("/2/roles/r{n}"), &value, NEVER)
    });
    auth(source, &users, &roles);
}

fn permissions(source: &mut Source, size: usize, random: &mut Random) {
    let patterns = list(size, |n| format!(r#"\"/k{n}/{}\""#, if n % 2 == 0 { "*" } else { "" }));
    let value =
        format!(r#"{{\"role\":\"r\",\"permissions\":{{\"kv\":{{\"read\":[{patterns}],\"write\":[{patterns}]}}}}}}"#);
    auth(source, "", &leaf("/2/roles/r", &value, NEVER));
    for n in 0..random.between(1, 3000) {
        source.put(format!("/1/k{n}/x").as_bytes(), b"v");
    }
}

fn auth(source: &mut Source, users: &str, roles: &str) {
    let children = format!(
        r#"{},"roles":{},"users":{}"#,
        leaf("/2/enabled", "true", NEVER),
        dir("/2/roles", roles),
        dir("/2/users", users)
    );
    source.with_root(&format!(r#""1":{},"2":{}"#, dir("/1", &leaf("/1/k", "v", NEVER)), dir("/2", &children)), "null");
}

fn duplicates(source: &mut Source, size: usize, random: &mut Random) {
    source.snapshot(&list(size, |_| leaf("/1/\u{fffd}", "v", NEVER)));
    for _ in 0..random.below(500) {
        source.put(b"/1/\xff", b"w");
    }
}

fn escapes(source: &mut Source, size: usize, random: &mut Random) {
    let unit = random.pick(&[r"\u0000", r"\\", r"\ud83d\ude00", r"\ud83d", r"\/", "\u{202e}", r"\u2028"]);
    let name = unit.repeat(random.between(1, 20)).replace(r"\/", "");
    let long = leaf("/1/k", &unit.repeat(size), NEVER);
    source.snapshot(&joined([long, format!(r#""{name}x":{}"#, Node::file(&format!("/1/{name}x"), 3, "").json())]));
}

fn empty_entries(source: &mut Source, size: usize, _: &mut Random) {
    source.put(b"/1/k", b"v");
    source.entries.extend((0..size).map(|_| (log::NORMAL, Vec::new())));
}

fn noise(source: &mut Source, size: usize, random: &mut Random) {
    for kind in [log::NORMAL, log::CONF_CHANGE] {
        for _ in 0..random.between(1, 20) {
            let len = random.below(size / 20 + 1);
            source.entries.push((kind, (0..len).map(|_| random.below(256) as u8).collect()));
        }
    }
    source.store = random.chance(50).then(|| "[".repeat(size));
}
